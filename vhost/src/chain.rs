//! Walks a descriptor chain in guest memory.
//!
//! The guest may change the table at any time and put anything into it. Each descriptor is read once;
//! the walk is bounded whatever it finds, and only addresses and lengths leave this module: nothing is
//! known about whether they lie in guest memory.

use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress};

use crate::limits::MAX_CHAIN_LEN;
use crate::memory::GuestRegions;

const DESCRIPTOR_LEN: u64 = 16;

/// A piece of guest memory that a chain refers to; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub addr: GuestAddress,
    pub len: u32,
    /// For the device to write; otherwise for the device to read.
    pub writable: bool,
}

/// Why a chain has no end that could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainError {
    /// An index lies outside its table.
    Index,
    /// More descriptors than a table can hold: a loop.
    TooLong,
    /// A descriptor cannot be read from guest memory.
    Memory,
    /// An indirect descriptor inside an indirect table, or one that continues.
    NestedIndirect,
    /// The length of an indirect table is zero, odd or too large.
    IndirectLen,
}

impl ChainError {
    pub fn why(self) -> &'static str {
        match self {
            ChainError::Index => "a descriptor index lies outside its table",
            ChainError::TooLong => "the descriptor chain is a loop or too long",
            ChainError::Memory => "a descriptor lies outside guest memory",
            ChainError::NestedIndirect => "an indirect descriptor is nested or continues",
            ChainError::IndirectLen => "the length of an indirect table is invalid",
        }
    }
}

#[derive(Clone, Copy)]
struct Table {
    base: GuestAddress,
    len: u32,
    indirect: bool,
}

impl Table {
    fn descriptor(&self, mem: &GuestRegions, index: u32) -> Result<Descriptor, ChainError> {
        if index >= self.len {
            return Err(ChainError::Index);
        }
        let addr = self.base.checked_add(u64::from(index) * DESCRIPTOR_LEN).ok_or(ChainError::Memory)?;
        mem.read_obj(addr).map_err(|_| ChainError::Memory)
    }

    /// The table that an indirect descriptor of this table refers to.
    fn indirect(&self, descriptor: &Descriptor) -> Result<Table, ChainError> {
        if self.indirect || has(descriptor, VRING_DESC_F_NEXT) {
            return Err(ChainError::NestedIndirect);
        }
        let bytes = u64::from(descriptor.len());
        if bytes == 0 || bytes % DESCRIPTOR_LEN != 0 || bytes / DESCRIPTOR_LEN > MAX_CHAIN_LEN as u64 {
            return Err(ChainError::IndirectLen);
        }
        Ok(Table { base: descriptor.addr(), len: (bytes / DESCRIPTOR_LEN) as u32, indirect: true })
    }
}

fn has(descriptor: &Descriptor, flag: u32) -> bool {
    u32::from(descriptor.flags()) & flag != 0
}

/// What a walk found, and what it cost.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// What the chain refers to, in order, without empty pieces.
    pub segments: Vec<Segment>,
    /// Descriptors read.
    pub descriptors: usize,
}

/// Walks the chain at `head`; what `walk` held before is cleared.
pub(crate) fn walk(
    mem: &GuestRegions,
    table: GuestAddress,
    queue_size: u16,
    head: u16,
    walk: &mut Walk,
) -> Result<(), ChainError> {
    walk.segments.clear();
    walk.descriptors = 0;
    let mut table = Table { base: table, len: u32::from(queue_size), indirect: false };
    let mut index = u32::from(head);
    let mut seen_in_table = 0;
    loop {
        if seen_in_table == table.len {
            return Err(ChainError::TooLong);
        }
        seen_in_table += 1;
        walk.descriptors += 1;
        let descriptor = table.descriptor(mem, index)?;
        if has(&descriptor, VRING_DESC_F_INDIRECT) {
            (table, index, seen_in_table) = (table.indirect(&descriptor)?, 0, 0);
            continue;
        }
        if descriptor.len() > 0 {
            let writable = has(&descriptor, VRING_DESC_F_WRITE);
            walk.segments.push(Segment { addr: descriptor.addr(), len: descriptor.len(), writable });
        }
        if !has(&descriptor, VRING_DESC_F_NEXT) {
            return Ok(());
        }
        index = u32::from(descriptor.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: u16 = VRING_DESC_F_NEXT as u16;
    const WRITE: u16 = VRING_DESC_F_WRITE as u16;
    const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
    const TABLE: GuestAddress = GuestAddress(0x1000);

    fn memory(tables: &[(u64, &[Descriptor])]) -> GuestRegions {
        let mem = GuestRegions::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        for (base, descriptors) in tables {
            for (i, descriptor) in descriptors.iter().enumerate() {
                mem.write_obj(*descriptor, GuestAddress(base + i as u64 * DESCRIPTOR_LEN)).unwrap();
            }
        }
        mem
    }

    fn walked(tables: &[(u64, &[Descriptor])]) -> Result<Vec<(u64, u32, bool)>, ChainError> {
        let mut found = Walk { segments: vec![Segment { addr: TABLE, len: 9, writable: false }], descriptors: 7 };
        walk(&memory(tables), TABLE, 4, 0, &mut found)?;
        Ok(found.segments.iter().map(|s| (s.addr.0, s.len, s.writable)).collect())
    }

    fn desc(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
        Descriptor::new(addr, len, flags, next)
    }

    #[test]
    fn direct_then_indirect() {
        let table = [desc(1, 16, NEXT, 2), desc(0, 0, 0, 0), desc(0x2000, 48, INDIRECT, 0)];
        let indirect = [desc(2, 8, NEXT, 2), desc(0, 0, 0, 0), desc(3, 1, WRITE, 0)];
        assert_eq!(
            walked(&[(0x1000, &table), (0x2000, &indirect)]),
            Ok(vec![(1, 16, false), (2, 8, false), (3, 1, true)])
        );
    }

    #[test]
    fn empty_descriptors_are_left_out() {
        assert_eq!(walked(&[(0x1000, &[desc(1, 0, NEXT, 1), desc(2, 5, WRITE, 0)])]), Ok(vec![(2, 5, true)]));
    }

    #[test]
    fn a_loop_ends() {
        assert_eq!(walked(&[(0x1000, &[desc(1, 1, NEXT, 1), desc(2, 1, NEXT, 0)])]), Err(ChainError::TooLong));
    }

    #[test]
    fn a_chain_may_use_the_whole_table() {
        let table: Vec<_> = (0..4).map(|i| desc(i, 1, if i < 3 { NEXT } else { 0 }, i as u16 + 1)).collect();
        assert_eq!(walked(&[(0x1000, &table)]).unwrap().len(), 4);
    }

    #[test]
    fn bad_indexes_and_tables() {
        assert_eq!(walked(&[(0x1000, &[desc(1, 1, NEXT, 4)])]), Err(ChainError::Index));
        assert_eq!(walked(&[(0x1000, &[desc(0x2000, 17, INDIRECT, 0)])]), Err(ChainError::IndirectLen));
        assert_eq!(walked(&[(0x1000, &[desc(0x2000, 0, INDIRECT, 0)])]), Err(ChainError::IndirectLen));
        assert_eq!(walked(&[(0x1000, &[desc(0x2000, !15, INDIRECT, 0)])]), Err(ChainError::IndirectLen));
        assert_eq!(walked(&[(0x1000, &[desc(0x2000, 16, INDIRECT | NEXT, 1)])]), Err(ChainError::NestedIndirect));
        assert_eq!(walked(&[(0x1000, &[desc(0x90000, 16, INDIRECT, 0)])]), Err(ChainError::Memory));
        assert_eq!(walked(&[(0x1000, &[desc(u64::MAX - 7, 16, INDIRECT, 0)])]), Err(ChainError::Memory));
        let nested: &[(u64, &[Descriptor])] =
            &[(0x1000, &[desc(0x2000, 16, INDIRECT, 0)]), (0x2000, &[desc(0x2000, 16, INDIRECT, 0)])];
        assert_eq!(walked(nested), Err(ChainError::NestedIndirect));
    }
}
