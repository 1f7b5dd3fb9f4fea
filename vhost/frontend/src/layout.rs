//! Where things lie in guest memory.
//!
//! ```text
//! region 0, guest physical 0x0010_0000:  rings of queue 0, 1, …; control areas of all slots
//! region 1, guest physical 0x8000_0000:  data buffers of all slots
//! ```
//!
//! Two regions with a hole between, and guest physical addresses unlike the user addresses, so that a
//! daemon which confuses them is found out. Both lie in one memfd, one after the other.

use crate::limits::{RING_SIZE, SLOTS_PER_QUEUE};

const PAGE: usize = 4096;
const REGION_ADDRESSES: [u64; 2] = [0x0010_0000, 0x8000_0000];

/// Bytes of one queue's rings: a page each for descriptors, avail and used ring.
const RINGS_SIZE: usize = 3 * PAGE;
/// Bytes of one slot's control area: header, status, range of a discard, indirect table.
const CONTROL_SIZE: usize = 1024;

// The avail and the used ring, with their event index, fit into their pages.
const _: () = assert!(16 * RING_SIZE as usize <= PAGE && 6 + 8 * RING_SIZE as usize <= PAGE);

/// A region as the daemon is told about it.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub guest_address: u64,
    /// Bytes from the start of the memfd.
    pub offset: usize,
    pub len: usize,
}

/// Offsets into guest memory for a given number of queues.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    queues: usize,
    /// Bytes of each slot's data buffer.
    slot_data: usize,
}

/// Offsets of one slot's parts.
#[derive(Clone, Copy, Debug)]
pub struct SlotPlace {
    pub header: usize,
    pub range: usize,
    pub status: usize,
    pub table: usize,
    pub data: usize,
}

impl Layout {
    pub fn new(queues: usize, slot_data: usize) -> Layout {
        Layout { queues, slot_data }
    }

    fn slots(&self) -> usize {
        self.queues * SLOTS_PER_QUEUE
    }

    fn control_start(&self) -> usize {
        self.queues * RINGS_SIZE
    }

    fn data_start(&self) -> usize {
        (self.control_start() + self.slots() * CONTROL_SIZE).next_multiple_of(PAGE)
    }

    /// Bytes of guest memory.
    pub fn size(&self) -> usize {
        self.data_start() + self.slots() * self.slot_data
    }

    pub fn regions(&self) -> [Region; 2] {
        let split = self.data_start();
        [
            Region { guest_address: REGION_ADDRESSES[0], offset: 0, len: split },
            Region { guest_address: REGION_ADDRESSES[1], offset: split, len: self.size() - split },
        ]
    }

    /// The guest physical address of an offset.
    pub fn guest_address(&self, offset: usize) -> u64 {
        let region = self.regions()[usize::from(offset >= self.data_start())];
        region.guest_address + (offset - region.offset) as u64
    }

    pub fn descriptors(&self, queue: usize) -> usize {
        queue * RINGS_SIZE
    }

    pub fn avail(&self, queue: usize) -> usize {
        queue * RINGS_SIZE + PAGE
    }

    pub fn used(&self, queue: usize) -> usize {
        queue * RINGS_SIZE + 2 * PAGE
    }

    pub fn slot(&self, queue: usize, slot: usize) -> SlotPlace {
        let index = queue * SLOTS_PER_QUEUE + slot;
        let control = self.control_start() + index * CONTROL_SIZE;
        SlotPlace {
            header: control,
            range: control + 16,
            status: control + 48,
            table: control + 64,
            data: self.data_start() + index * self.slot_data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_PIECES;

    #[test]
    fn slots_do_not_overlap_and_addresses_follow_the_regions() {
        const DATA: usize = 8192;
        let l = Layout::new(3, DATA);
        let (a, b) = (l.slot(0, SLOTS_PER_QUEUE - 1), l.slot(1, 0));
        assert!(a.table + 16 * (MAX_PIECES + 2) <= b.header);
        assert_eq!(a.data + DATA, b.data);
        assert!(l.used(2) + PAGE <= l.slot(0, 0).header);
        assert_eq!(l.slot(2, SLOTS_PER_QUEUE - 1).data + DATA, l.size());
        assert_eq!(l.guest_address(0), REGION_ADDRESSES[0]);
        assert_eq!(l.guest_address(l.slot(0, 0).data), REGION_ADDRESSES[1]);
    }
}
