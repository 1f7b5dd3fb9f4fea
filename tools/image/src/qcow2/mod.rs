//! qcow2, versions 2 and 3: what QEMU makes of a disk.
//!
//! The disk is cut into clusters. A table of two levels says where each one lies in the file: nowhere (then it is that of
//! the backing file, or zeros), as it is, or compressed.

mod compressed;
mod entry;
mod header;
mod map;
mod read;
mod write;

pub(crate) use header::is_qcow2;
pub(crate) use read::Qcow2Image;
pub(crate) use write::Qcow2Writer;
