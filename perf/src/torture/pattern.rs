//! What a unit of the volume holds after a write: a stamp that says which write it was, and bytes that
//! follow from the stamp, so that any mix-up is seen and explained.
//!
//! ```text
//! 0   magic       u64     "LEVEETOR"
//! 8   key         u64     of the run that wrote it
//! 16  unit        u64     position in the volume
//! 24  generation  u32     number of the write within the run
//! 28  zero        u32
//! 32  a mixed counter, u64 by u64, to the end of the unit
//! ```

use crate::rng::mix;

const MAGIC: u64 = u64::from_le_bytes(*b"LEVEETOR");
/// Bytes of the stamp.
pub const STAMP: usize = 32;

/// What was found in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Zero,
    /// Intact data of this unit, written by the write of that number.
    Generation(u32),
    /// Something that this run never wrote here.
    Foreign(Foreign),
}

/// How foreign data looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A good stamp, but not all of the bytes that belong to it.
    Torn { generation: u32 },
    /// A unit of this run that belongs elsewhere.
    Misplaced { unit: u64, generation: u32 },
    /// A unit of another run.
    OtherRun,
    /// No stamp.
    Unstamped,
}

/// Whether a unit that begins with `word` holds data of any run.
pub fn is_stamped(word: &[u8; 8]) -> bool {
    u64::from_le_bytes(*word) == MAGIC
}

/// Writes the content of `unit` after write number `generation`.
pub fn fill(buffer: &mut [u8], key: u64, unit: u64, generation: u32) {
    let words = [MAGIC, key, unit, u64::from(generation)];
    let seed = mix(key ^ mix(unit ^ (u64::from(generation) << 40)));
    for (index, chunk) in buffer.chunks_exact_mut(8).enumerate() {
        let word = words.get(index).copied().unwrap_or_else(|| body_word(seed, index));
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

fn body_word(seed: u64, index: usize) -> u64 {
    (seed ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// Says what `buffer`, read at `unit`, is.
pub fn identify(buffer: &[u8], key: u64, unit: u64) -> Found {
    let word = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&buffer[8 * index..8 * index + 8]);
        u64::from_le_bytes(bytes)
    };
    if word(0) != MAGIC {
        let zero = buffer.iter().all(|b| *b == 0);
        return if zero { Found::Zero } else { Found::Foreign(Foreign::Unstamped) };
    }
    if word(1) != key {
        return Found::Foreign(Foreign::OtherRun);
    }
    let Ok(generation) = u32::try_from(word(3)) else { return Found::Foreign(Foreign::Unstamped) };
    if word(2) != unit {
        return Found::Foreign(Foreign::Misplaced { unit: word(2), generation });
    }
    let seed = mix(key ^ mix(unit ^ (u64::from(generation) << 40)));
    let intact = (STAMP / 8..buffer.len() / 8).all(|index| word(index) == body_word(seed, index));
    if intact { Found::Generation(generation) } else { Found::Foreign(Foreign::Torn { generation }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_content_is_told_apart() {
        let mut b = vec![0; 4096];
        assert_eq!(identify(&b, 1, 5), Found::Zero);
        fill(&mut b, 1, 5, 77);
        assert_eq!(identify(&b, 1, 5), Found::Generation(77));
        assert_eq!(identify(&b, 1, 6), Found::Foreign(Foreign::Misplaced { unit: 5, generation: 77 }));
        assert_eq!(identify(&b, 2, 5), Found::Foreign(Foreign::OtherRun));
        for at in [40, 4095] {
            b[at] ^= 1;
            assert_eq!(identify(&b, 1, 5), Found::Foreign(Foreign::Torn { generation: 77 }));
            b[at] ^= 1;
        }
        b[0] ^= 1;
        assert_eq!(identify(&b, 1, 5), Found::Foreign(Foreign::Unstamped));
    }

    #[test]
    fn two_writes_mixed_within_a_unit_are_torn() {
        let (mut a, mut b) = (vec![0; 4096], vec![0; 4096]);
        fill(&mut a, 1, 5, 1);
        fill(&mut b, 1, 5, 2);
        a[2048..].copy_from_slice(&b[2048..]);
        assert_eq!(identify(&a, 1, 5), Found::Foreign(Foreign::Torn { generation: 1 }));
    }
}
