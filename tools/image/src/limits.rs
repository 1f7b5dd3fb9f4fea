//! Every bound of this crate, in one place. What a file says is held against these before anything is allocated for it.

/// Largest virtual disk, bytes: the largest volume.
pub const MAX_SIZE: u64 = 1 << 50;
/// Largest first-level table of a qcow2 file that is read, bytes: QEMU's own bound.
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// Cluster sizes of qcow2 files that are read, as powers of two: the format's bounds.
pub const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Smallest cluster with subclusters, as a power of two.
pub const MIN_EXTENDED_CLUSTER_BITS: u32 = 14;
/// Longest name of a backing file, bytes: the format's bound.
pub const MAX_BACKING_NAME: u32 = 1023;
/// Files in a chain of backing files.
pub const MAX_CHAIN: usize = 8;
/// Header extensions that are looked at for the backing file's format.
pub const MAX_EXTENSIONS: usize = 64;
/// Memory that a compressed cluster may ask for to be unpacked, as a power of two.
pub const MAX_ZSTD_WINDOW_BITS: u32 = 23;
/// What compressed clusters may unpack to, in what they take; where it comes to more than [`FREE_EXPANSION`] bytes.
pub const MAX_EXPANSION: u64 = 200;
pub const FREE_EXPANSION: u64 = 1 << 30;
/// The piece of a disk that is tested for zeros when a raw file is written, bytes.
pub const RAW_BLOCK: usize = 4096;
