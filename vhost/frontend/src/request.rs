//! virtio-blk requests and how they are laid out as descriptor chains.

use crate::layout::{Layout, SlotPlace};
use crate::limits::MAX_PIECES;
use crate::ring::{DESC_NEXT, DESC_WRITE, Descriptor};

/// Status byte before the device has written one.
pub const STATUS_NONE: u8 = 0xff;

const SECTOR: u64 = 512;

/// What a request asks for. Offsets and lengths are in bytes, multiples of 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read {
        offset: u64,
        len: usize,
    },
    /// The data lies in the slot's buffer already.
    Write {
        offset: u64,
        len: usize,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    WriteZeroes {
        offset: u64,
        len: u64,
        unmap: bool,
    },
    Flush,
}

/// How the chain of a request is built: guests differ in this.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Put the chain into an indirect table.
    pub indirect: bool,
    /// Pieces of the data, at least 1; bounded by the length and [`MAX_PIECES`].
    pub pieces: usize,
}

impl Operation {
    fn kind(&self) -> u32 {
        match self {
            Operation::Read { .. } => 0,
            Operation::Write { .. } => 1,
            Operation::Flush => 4,
            Operation::Discard { .. } => 11,
            Operation::WriteZeroes { .. } => 13,
        }
    }

    /// `struct virtio_blk_req` up to the data.
    pub fn header(&self) -> [u8; 16] {
        let sector = match *self {
            Operation::Read { offset, .. } | Operation::Write { offset, .. } => offset / SECTOR,
            _ => 0,
        };
        let mut header = [0; 16];
        header[..4].copy_from_slice(&self.kind().to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    /// `struct virtio_blk_discard_write_zeroes`, for the operations that have one.
    pub fn range(&self) -> Option<[u8; 16]> {
        let (offset, len, flags) = match *self {
            Operation::Discard { offset, len } => (offset, len, 0u32),
            Operation::WriteZeroes { offset, len, unmap } => (offset, len, u32::from(unmap)),
            _ => return None,
        };
        let mut range = [0; 16];
        range[..8].copy_from_slice(&(offset / SECTOR).to_le_bytes());
        range[8..12].copy_from_slice(&((len / SECTOR) as u32).to_le_bytes());
        range[12..].copy_from_slice(&flags.to_le_bytes());
        Some(range)
    }

    /// Bytes that the device may write: the data of a read, and the status.
    pub fn writable(&self) -> u32 {
        match self {
            Operation::Read { len, .. } => *len as u32 + 1,
            _ => 1,
        }
    }

    /// The chain, without `next` links.
    pub fn chain(&self, layout: &Layout, place: &SlotPlace, pieces: usize) -> Vec<Descriptor> {
        let descriptor = |offset: usize, len: usize, flags: u16| Descriptor {
            address: layout.guest_address(offset),
            len: len as u32,
            flags,
            next: 0,
        };
        let mut chain = vec![descriptor(place.header, 16, 0)];
        match *self {
            Operation::Read { len, .. } => {
                split(len, pieces, |at, n| chain.push(descriptor(place.data + at, n, DESC_WRITE)))
            }
            Operation::Write { len, .. } => split(len, pieces, |at, n| chain.push(descriptor(place.data + at, n, 0))),
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => chain.push(descriptor(place.range, 16, 0)),
            Operation::Flush => {}
        }
        chain.push(descriptor(place.status, 1, DESC_WRITE));
        chain
    }
}

/// Cuts `len` bytes into about `pieces` pieces of whole sectors.
fn split(len: usize, pieces: usize, mut each: impl FnMut(usize, usize)) {
    let sectors = len / SECTOR as usize;
    let pieces = pieces.clamp(1, MAX_PIECES).min(sectors.max(1));
    let step = sectors.div_ceil(pieces) * SECTOR as usize;
    let mut at = 0;
    while at < len {
        let n = step.min(len - at);
        each(at, n);
        at += n;
    }
}

/// Links a chain through consecutive indexes that start at `first`.
pub fn link(chain: &mut [Descriptor], first: u16) {
    let last = chain.len() - 1;
    for (index, descriptor) in chain.iter_mut().enumerate() {
        if index < last {
            descriptor.flags |= DESC_NEXT;
            descriptor.next = first + index as u16 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SLOT_DESCRIPTORS;

    #[test]
    fn a_chain_covers_its_data_and_fits_its_slot() {
        const DATA: usize = 64 << 10;
        let layout = Layout::new(1, DATA);
        let place = layout.slot(0, 3);
        for len in [512, 4096, 5 * 512, DATA] {
            for pieces in [0, 1, 3, 100] {
                let mut chain = Operation::Read { offset: 8192, len }.chain(&layout, &place, pieces);
                assert!(chain.len() <= usize::from(SLOT_DESCRIPTORS));
                let data: usize = chain[1..chain.len() - 1].iter().map(|d| d.len as usize).sum();
                assert_eq!(data, len);
                link(&mut chain, 24);
                assert_eq!((chain[0].flags, chain[0].next), (DESC_NEXT, 25));
                assert_eq!(chain.last().unwrap().flags, DESC_WRITE);
            }
        }
    }

    #[test]
    fn headers_and_ranges_are_in_sectors() {
        let write = Operation::Write { offset: 1 << 20, len: 4096 };
        assert_eq!(write.header()[..12], [1, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
        let zeroes = Operation::WriteZeroes { offset: 4096, len: 8192, unmap: true };
        assert_eq!(zeroes.range().unwrap(), [8, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(zeroes.writable(), 1);
        assert_eq!(Operation::Read { offset: 0, len: 512 }.writable(), 513);
    }
}
