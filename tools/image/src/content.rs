//! What a disk holds, whatever file it lies in: zeros are told from data, and all of it has one checksum.

use std::ops::Range;

const ZEROS: [u8; 4096] = [0; 4096];

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|piece| piece == &ZEROS[..piece.len()])
}

/// The runs of blocks that are not zero, as ranges of bytes; the last block may be shorter.
pub fn data_runs(bytes: &[u8], block: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let end_of = |at: usize| (at + block).min(bytes.len());
        while at < bytes.len() && is_zero(&bytes[at..end_of(at)]) {
            at = end_of(at);
        }
        let start = at;
        while at < bytes.len() && !is_zero(&bytes[at..end_of(at)]) {
            at = end_of(at);
        }
        (start < at).then_some(start..at)
    })
}

/// CRC-32C of a disk's content, from its first byte to its last, told in ascending pieces. What is left out is zero.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    crc: u32,
    at: u64,
}

impl Checksum {
    /// The bytes at `offset`, which does not lie before the end of an earlier piece.
    pub fn add(&mut self, offset: u64, bytes: &[u8]) {
        debug_assert!(offset >= self.at);
        self.skip_to(offset);
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at += bytes.len() as u64;
    }

    /// The checksum of a disk of `size` bytes.
    pub fn finish(mut self, size: u64) -> u32 {
        self.skip_to(size);
        self.crc
    }

    /// Adds zeros, without looking at each.
    fn skip_to(&mut self, offset: u64) {
        let mut left = offset.saturating_sub(self.at);
        self.at = self.at.max(offset);
        let (mut run, mut len) = (crc32c::crc32c(&[0]), 1u64);
        while left > 0 {
            if left & 1 == 1 {
                self.crc = crc32c::crc32c_combine(self.crc, run, len as usize);
            }
            left >>= 1;
            if left > 0 {
                run = crc32c::crc32c_combine(run, run, len as usize);
                len *= 2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_does_not_depend_on_how_it_is_told() {
        let mut disk = vec![0; 100_000];
        disk[5000..5100].fill(7);
        disk[70_000..99_999].fill(9);
        let mut sparse = Checksum::default();
        sparse.add(5000, &disk[5000..5050]);
        sparse.add(5050, &disk[5050..5100]);
        sparse.add(69_000, &disk[69_000..99_999]);
        assert_eq!(sparse.finish(100_000), crc32c::crc32c(&disk));
        assert_eq!(Checksum::default().finish(4097), crc32c::crc32c(&[0; 4097]));
        assert_ne!(Checksum::default().finish(1 << 50), Checksum::default().finish(1 << 49));
    }

    #[test]
    fn runs_are_those_blocks_that_hold_something() {
        let mut bytes = vec![0; 10 * 64 + 10];
        bytes[64] = 1;
        bytes[3 * 64 - 1] = 1;
        bytes[649] = 1;
        assert_eq!(data_runs(&bytes, 64).collect::<Vec<_>>(), [64..192, 640..650]);
        assert_eq!(data_runs(&[], 64).count(), 0);
        assert!(is_zero(&[0; 9000]) && !is_zero(&bytes));
    }
}
