//! The header: what the image is, where its tables are, and whether it can be read here at all.
//!
//! ```text
//!   0 magic  4 version  8 backing name: offset  16 its length  20 cluster bits  24 size  32 encryption
//!  36 L1 entries  40 L1 offset  48 refcount table: offset  56 its clusters  60 snapshots  64 their offset
//!  version 3:  72 incompatible  80 compatible  88 autoclear features  96 refcount order  100 header length
//!              104 compression type  (zeros up to a multiple of 8)  extensions: type, length, data
//! ```
//! Numbers are big-endian.

use crate::Format;
use crate::error::Result;
use crate::file::ReadFile;
use crate::limits::*;

pub const MAGIC: u32 = 0x5146_49fb;
const V2_LEN: usize = 72;
pub const V3_LEN: usize = 104;
/// Bytes of the header that are looked at, extensions and backing name apart.
const READ_LEN: usize = 112;

/// The image was not closed in good order: its refcounts may be wrong, its data are not.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSIONS_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Deflate,
    Zstd,
}

/// What a header says, checked.
#[derive(Clone, Debug)]
pub struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// Bytes of the disk.
    pub size: u64,
    pub l1_offset: u64,
    /// Entries of the first-level table that the disk needs.
    pub l1_entries: u64,
    pub compression: Compression,
    /// Entries of second-level tables say more, about 32 parts of each cluster.
    pub extended: bool,
    pub backing: Option<Backing>,
}

/// The file that has what this one has not.
#[derive(Clone, Debug)]
pub struct Backing {
    pub name: String,
    /// As the image names it; images of old do not.
    pub format: Option<Format>,
}

/// Whether a file begins as qcow2 files do.
pub fn is_qcow2(file: &ReadFile) -> Result<bool> {
    let mut magic = [0; 4];
    Ok(file.read_some(0, &mut magic)? == magic.len() && magic == MAGIC.to_be_bytes())
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

impl Header {
    pub fn read(file: &ReadFile) -> Result<Header> {
        let mut h = [0; READ_LEN];
        if file.read_some(0, &mut h)? < V2_LEN {
            return file.damaged("it is too short for a qcow2 header");
        }
        if u32_at(&h, 0) != MAGIC {
            return file.refused("this is not a qcow2 image: does --format raw fit it?");
        }
        let version = u32_at(&h, 4);
        let cluster_bits = u32_at(&h, 20);
        if !(2..=3).contains(&version) {
            return file.refused(format!("qcow2 version {version} is not known; versions 2 and 3 are read"));
        }
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return file.damaged(format!("clusters of 2^{cluster_bits} bytes do not exist"));
        }
        if u32_at(&h, 32) != 0 {
            return file.refused("the image is encrypted: decrypt it with `qemu-img convert` first");
        }
        let incompatible = if version == 3 { u64_at(&h, 72) } else { 0 };
        check_features(file, incompatible)?;
        let header_len = header_len(file, &h, version, cluster_bits)?;
        let extended = incompatible & EXTENDED_L2 != 0;
        if extended && cluster_bits < MIN_EXTENDED_CLUSTER_BITS {
            return file.damaged("its clusters are too small for subclusters");
        }
        let mut header = Header {
            version,
            cluster_bits,
            size: u64_at(&h, 24),
            l1_offset: u64_at(&h, 40),
            l1_entries: 0,
            compression: compression(file, &h, header_len, incompatible)?,
            extended,
            backing: None,
        };
        header.check_tables(file, u32_at(&h, 36).into())?;
        header.backing = header.read_backing(file, u64_at(&h, 8), u32_at(&h, 16), header_len)?;
        Ok(header)
    }

    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of one second-level entry.
    pub fn entry_len(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// Bytes of the disk that one second-level table describes.
    pub fn l2_span(&self) -> u64 {
        self.cluster_size() / self.entry_len() * self.cluster_size()
    }

    fn check_tables(&mut self, file: &ReadFile, l1_entries: u64) -> Result<()> {
        if self.size > MAX_SIZE {
            return file.refused(format!("its disk of {} bytes is larger than the largest volume", self.size));
        }
        self.l1_entries = self.size.div_ceil(self.l2_span());
        if self.l1_entries > l1_entries || self.l1_entries * 8 > MAX_L1_BYTES {
            return file.damaged(format!("a table of {l1_entries} entries does not fit a disk of {} bytes", self.size));
        }
        if !self.l1_offset.is_multiple_of(self.cluster_size()) {
            return file.damaged("its first-level table does not begin at a cluster");
        }
        let end = self.l1_offset.checked_add(self.l1_entries * 8);
        if end.is_none_or(|end| end > file.len) {
            return file.damaged("its first-level table reaches beyond the file's end: was it copied as a whole?");
        }
        Ok(())
    }

    fn read_backing(&self, file: &ReadFile, offset: u64, len: u32, header_len: u64) -> Result<Option<Backing>> {
        if offset == 0 {
            return Ok(None);
        }
        if !(1..=MAX_BACKING_NAME).contains(&len) || offset.saturating_add(len.into()) > self.cluster_size() {
            return file.damaged("the name of its backing file lies outside of the header's cluster");
        }
        let mut name = vec![0; len as usize];
        file.read(offset, &mut name, "the name of its backing file")?;
        let Ok(name) = String::from_utf8(name) else {
            return file.refused("the name of its backing file is not UTF-8");
        };
        let format = match self.backing_format(file, header_len)?.as_deref() {
            None => None,
            Some("raw") => Some(Format::Raw),
            Some("qcow2") => Some(Format::Qcow2),
            Some(other) => return file.refused(format!("its backing file is of format '{other}', which is not read")),
        };
        Ok(Some(Backing { name, format }))
    }

    fn backing_format(&self, file: &ReadFile, header_len: u64) -> Result<Option<String>> {
        let mut at = header_len;
        for _ in 0..MAX_EXTENSIONS {
            let mut head = [0; 8];
            if at + 8 > self.cluster_size() || file.read_some(at, &mut head)? < head.len() {
                break;
            }
            let (kind, len) = (u32_at(&head, 0), u64::from(u32_at(&head, 4)));
            if kind == EXTENSIONS_END {
                break;
            }
            if at + 8 + len > self.cluster_size() {
                return file.damaged("a header extension reaches beyond the header's cluster");
            }
            if kind == EXTENSION_BACKING_FORMAT {
                let mut name = vec![0; len as usize];
                file.read(at + 8, &mut name, "the format of its backing file")?;
                return Ok(Some(String::from_utf8_lossy(&name).into_owned()));
            }
            at += 8 + len.next_multiple_of(8);
        }
        Ok(None)
    }
}

fn check_features(file: &ReadFile, incompatible: u64) -> Result<()> {
    let unknown = incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2);
    if incompatible & CORRUPT != 0 {
        return file.refused("the image is marked as corrupt: `qemu-img check -r all` may repair it");
    }
    if incompatible & EXTERNAL_DATA != 0 {
        return file.refused("its data lie in another file: `qemu-img convert` makes one file of it");
    }
    if unknown != 0 {
        return file.refused(format!("it uses features that are not known here (bits {unknown:#x})"));
    }
    Ok(())
}

fn header_len(file: &ReadFile, h: &[u8], version: u32, cluster_bits: u32) -> Result<u64> {
    if version == 2 {
        return Ok(V2_LEN as u64);
    }
    let len = u64::from(u32_at(h, 100));
    if len < V3_LEN as u64 || len > 1 << cluster_bits || len > file.len {
        return file.damaged(format!("a header of {len} bytes is impossible"));
    }
    Ok(len)
}

fn compression(file: &ReadFile, h: &[u8], header_len: u64, incompatible: u64) -> Result<Compression> {
    let kind = if header_len > V3_LEN as u64 { h[V3_LEN] } else { 0 };
    match kind {
        0 => Ok(Compression::Deflate),
        1 if incompatible & COMPRESSION != 0 => Ok(Compression::Zstd),
        1 => file.damaged("it is compressed with zstd, but does not say so among its features"),
        kind => file.refused(format!("compression type {kind} is not known")),
    }
}
