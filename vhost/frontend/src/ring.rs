//! The driver's side of a split virtqueue.

use std::sync::atomic::{Ordering, fence};

use anyhow::{Result, ensure};

use crate::layout::Layout;
use crate::limits::RING_SIZE;
use crate::memory::GuestMemory;

pub const DESC_NEXT: u16 = 1;
pub const DESC_WRITE: u16 = 2;
pub const DESC_INDIRECT: u16 = 4;

const USED_NO_NOTIFY: u16 = 1;

/// One descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical.
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    pub fn to_bytes(self) -> [u8; 16] {
        let mut b = [0; 16];
        b[..8].copy_from_slice(&self.address.to_le_bytes());
        b[8..12].copy_from_slice(&self.len.to_le_bytes());
        b[12..14].copy_from_slice(&self.flags.to_le_bytes());
        b[14..].copy_from_slice(&self.next.to_le_bytes());
        b
    }
}

/// A request that the device has finished with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain; not yet checked.
    pub id: u32,
    /// Bytes that the device says it wrote.
    pub len: u32,
}

/// Driver's view of one virtqueue: it alone moves the avail index and follows the used index. All of
/// its state but these two positions lies in guest memory, where it survives the daemon.
pub struct Ring {
    descriptors: usize,
    avail: usize,
    used: usize,
    next_avail: u16,
    last_used: u16,
    /// Avail index when the need for a kick was last looked at.
    kick_checked: u16,
}

impl Ring {
    pub fn new(layout: &Layout, queue: usize) -> Ring {
        Ring {
            descriptors: layout.descriptors(queue),
            avail: layout.avail(queue),
            used: layout.used(queue),
            next_avail: 0,
            last_used: 0,
            kick_checked: 0,
        }
    }

    pub fn set_descriptor(&self, memory: &GuestMemory, index: u16, descriptor: Descriptor) {
        memory.write(self.descriptors + 16 * usize::from(index % RING_SIZE), &descriptor.to_bytes());
    }

    /// Hands the chain that starts at `head` to the device.
    pub fn publish(&mut self, memory: &GuestMemory, head: u16) {
        let entry = self.avail + 4 + 2 * usize::from(self.next_avail % RING_SIZE);
        memory.store(entry, head);
        self.next_avail = self.next_avail.wrapping_add(1);
        memory.store(self.avail + 2, self.next_avail);
    }

    /// Whether the device wants to be told about what was published since the last call.
    pub fn needs_kick(&mut self, memory: &GuestMemory, event_idx: bool) -> bool {
        // The index must be out before the device's wish is read, or both sides may go to sleep.
        fence(Ordering::SeqCst);
        let (old, new) = (self.kick_checked, self.next_avail);
        self.kick_checked = new;
        if old == new {
            return false;
        }
        if event_idx {
            let wanted = memory.load(self.used + 4 + 8 * usize::from(RING_SIZE));
            new.wrapping_sub(wanted).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            memory.load(self.used) & USED_NO_NOTIFY == 0
        }
    }

    /// Asks for an interrupt at the next completion. True if there is one already.
    pub fn arm(&self, memory: &GuestMemory) -> bool {
        memory.store(self.avail + 4 + 2 * usize::from(RING_SIZE), self.last_used);
        fence(Ordering::SeqCst);
        memory.load(self.used + 2) != self.last_used
    }

    /// The next finished request, if there is one.
    pub fn pop_used(&mut self, memory: &GuestMemory) -> Result<Option<Used>> {
        let index = memory.load(self.used + 2);
        let waiting = index.wrapping_sub(self.last_used);
        ensure!(
            waiting <= RING_SIZE,
            "used index jumped from {} to {index}, by more than the ring holds",
            self.last_used
        );
        if waiting == 0 {
            return Ok(None);
        }
        let entry = memory.read_array::<8>(self.used + 4 + 8 * usize::from(self.last_used % RING_SIZE));
        self.last_used = self.last_used.wrapping_add(1);
        let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        Ok(Some(Used { id: word(0), len: word(4) }))
    }

    /// Where the next daemon starts in the avail ring: QEMU derives it from the used index when the
    /// daemon that knew better is gone.
    pub fn restart_base(&self, memory: &GuestMemory) -> u16 {
        memory.load(self.used + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> (GuestMemory, Layout, Ring) {
        let layout = Layout::new(1, 4096);
        let memory = GuestMemory::new(layout.size()).unwrap();
        (memory, layout, Ring::new(&layout, 0))
    }

    fn complete(memory: &GuestMemory, layout: &Layout, position: u16, id: u32) {
        let entry = layout.used(0) + 4 + 8 * usize::from(position % RING_SIZE);
        memory.write(entry, &id.to_le_bytes());
        memory.store(layout.used(0) + 2, position.wrapping_add(1));
    }

    #[test]
    fn a_round_trip_over_the_wrap_of_the_index() {
        let (memory, layout, mut ring) = ring();
        for n in 0..70_000u32 {
            let position = n as u16;
            ring.publish(&memory, position % RING_SIZE);
            assert_eq!(memory.load(layout.avail(0) + 2), position.wrapping_add(1));
            assert_eq!(ring.pop_used(&memory).unwrap(), None);
            complete(&memory, &layout, position, n);
            assert_eq!(ring.pop_used(&memory).unwrap().unwrap().id, n);
        }
        assert_eq!(ring.restart_base(&memory), 70_000u32 as u16);
    }

    #[test]
    fn a_used_index_that_jumps_is_refused() {
        let (memory, layout, mut ring) = ring();
        memory.store(layout.used(0) + 2, RING_SIZE + 1);
        assert!(ring.pop_used(&memory).is_err());
    }

    #[test]
    fn kicks_follow_the_device_s_event_index() {
        let (memory, layout, mut ring) = ring();
        assert!(!ring.needs_kick(&memory, true), "nothing new");
        ring.publish(&memory, 0);
        assert!(ring.needs_kick(&memory, true), "the device waits for entry 0");
        ring.publish(&memory, 8);
        assert!(!ring.needs_kick(&memory, true), "the device has not asked again");
        memory.store(layout.used(0) + 4 + 8 * usize::from(RING_SIZE), 2);
        ring.publish(&memory, 16);
        assert!(ring.needs_kick(&memory, true));
        memory.store(layout.used(0), USED_NO_NOTIFY);
        ring.publish(&memory, 24);
        assert!(!ring.needs_kick(&memory, false));
    }
}
