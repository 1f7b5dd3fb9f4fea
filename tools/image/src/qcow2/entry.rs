//! Entries of the tables, decoded and checked.

use super::header::Header;

/// Bits 9 to 55: where a table or a cluster lies.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// The refcount is one: nothing that a reader cares for.
pub const COPIED: u64 = 1 << 63;
const ZERO: u64 = 1;
const SECTOR: u64 = 512;
/// Parts of a cluster that extended entries tell apart.
pub const SUBCLUSTERS: u64 = 32;

/// Where a piece of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not in this file.
    Nowhere,
    Zero,
    /// As it is, from here on.
    At(u64),
    /// The cluster it belongs to is compressed.
    Compressed(Packed),
}

/// A compressed cluster: where it begins, and the most bytes that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    pub offset: u64,
    pub len: u64,
}

/// Where a second-level table lies; `None`: nothing of its span is in this file.
pub fn l1_entry(header: &Header, entry: u64) -> Result<Option<u64>, String> {
    let offset = entry & OFFSET;
    if entry & !(OFFSET | COPIED) != 0 || !offset.is_multiple_of(header.cluster_size()) {
        return Err(format!("first-level entry {entry:#x} is impossible"));
    }
    Ok((offset != 0).then_some(offset))
}

/// Where the part of a cluster at `within` (bytes from its start) is, and up to where in the cluster that holds.
pub fn l2_entry(header: &Header, entry: u64, bitmap: u64, within: u64) -> Result<(Place, u64), String> {
    let cluster = header.cluster_size();
    if entry & COMPRESSED != 0 {
        return Ok((Place::Compressed(packed(header, entry)), cluster));
    }
    let impossible = || format!("second-level entry {entry:#x} is impossible");
    let offset = entry & OFFSET;
    let zero = entry & ZERO != 0;
    if entry & !(OFFSET | COPIED | ZERO) != 0 || !offset.is_multiple_of(cluster) {
        return Err(impossible());
    }
    if zero && (header.version < 3 || header.extended) {
        return Err(impossible());
    }
    if header.extended {
        return Ok(subcluster(header, offset, bitmap, within));
    }
    Ok(match (zero, offset) {
        (true, _) => (Place::Zero, cluster),
        (false, 0) => (Place::Nowhere, cluster),
        (false, offset) => (Place::At(offset + within), cluster),
    })
}

/// The low half of the bitmap says which parts are in the file, the high half which read as zeros.
fn subcluster(header: &Header, offset: u64, bitmap: u64, within: u64) -> (Place, u64) {
    let size = header.cluster_size() / SUBCLUSTERS;
    let state = |part: u64| (bitmap >> (part + SUBCLUSTERS) & 1, bitmap >> part & 1);
    let first = within / size;
    let end = (first..SUBCLUSTERS).find(|part| state(*part) != state(first)).unwrap_or(SUBCLUSTERS);
    let place = match state(first) {
        (1, _) => Place::Zero,
        (_, 1) if offset != 0 => Place::At(offset + within),
        _ => Place::Nowhere,
    };
    (place, end * size)
}

fn packed(header: &Header, entry: u64) -> Packed {
    let offset_bits = 62 - (header.cluster_bits - 8);
    let offset = entry & ((1 << offset_bits) - 1);
    let more_sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
    Packed { offset, len: (more_sectors + 1) * SECTOR - offset % SECTOR }
}
