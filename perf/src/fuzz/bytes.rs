//! Changing bytes so that they are still nearly right: what is wholly random is refused at the first look.

use crate::limits::FUZZ_INSERT;
use crate::rng::Rng;

/// A number of the kind that boundaries are made of, or any.
pub fn odd_number(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => rng.below(4),
        1 => u64::MAX - rng.below(4),
        2 => 1 << rng.below(64),
        3 => (1 << rng.below(64)) - 1,
        4 => rng.below(1000),
        _ => rng.next_u64(),
    }
}

/// Makes one to four changes.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.between(1, 4) {
        change(rng, bytes);
    }
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let len = bytes.len() as u64;
    let at = rng.below(len + 1) as usize;
    match rng.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
        2 | 3 => put_number(rng, bytes, at),
        4 => bytes.truncate(at),
        _ => {
            let more: Vec<u8> = (0..rng.below(FUZZ_INSERT)).map(|_| rng.next_u64() as u8).collect();
            bytes.splice(at..at, more);
        }
    }
}

/// Overwrites a field of 1, 2, 4 or 8 bytes; fields often begin at multiples of their size.
fn put_number(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let size = 1 << rng.below(4);
    let at = if rng.chance(50) { at / size * size } else { at };
    let number = odd_number(rng).to_le_bytes();
    for (to, from) in bytes.iter_mut().skip(at).zip(&number[..size]) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes_and_they_do_change_something() {
        let original: Vec<u8> = (0..100).collect();
        let changed = |seed| {
            let mut bytes = original.clone();
            mutate(&mut Rng::new(seed), &mut bytes);
            bytes
        };
        assert_eq!(changed(3), changed(3));
        let different = (0..100).filter(|seed| changed(*seed) != original).count();
        assert!(different > 80, "{different}");
        let mut nothing = vec![];
        (0..1000).for_each(|seed| mutate(&mut Rng::new(seed), &mut nothing));
    }
}
