//! Which operation comes next: random by seed, with a hot spot so that operations meet.

use crate::limits::{MAX_DATA, MAX_RANGE};
use crate::rng::Rng;

/// What the device can do and how large things are.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    /// Units of the volume that are used.
    pub units: u32,
    /// Bytes.
    pub unit: usize,
    /// Largest discard and write-zeroes, bytes; 0 where the device offers none.
    pub max_discard: u64,
    pub max_write_zeroes: u64,
}

/// One planned operation over a range of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    pub first: u32,
    /// 0 for a flush.
    pub units: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Discard,
    WriteZeroes { unmap: bool },
    Flush,
}

/// Percentages of the mix; what is left over are reads.
const WRITES: u64 = 50;
const DISCARDS: u64 = 7;
const WRITE_ZEROES: u64 = 6;
const FLUSHES: u64 = 5;
/// Of all places, how many lie in the hot part, and how small it is.
const HOT_PERCENT: u64 = 40;
const HOT_FRACTION: u64 = 64;

pub fn next_step(rng: &mut Rng, ground: &Ground) -> Step {
    let kind = next_kind(rng, ground);
    let most = match kind {
        Kind::Flush => return Step { kind, first: 0, units: 0 },
        Kind::Read | Kind::Write => MAX_DATA as u64,
        Kind::Discard => ground.max_discard.min(MAX_RANGE),
        Kind::WriteZeroes { .. } => ground.max_write_zeroes.min(MAX_RANGE),
    };
    let most = (most / ground.unit as u64).clamp(1, u64::from(ground.units));
    // Half of all requests are one unit long, as most of a guest's are; the others are of any length.
    let units = if rng.chance(50) { 1 } else { rng.between(1, most) };
    let room = u64::from(ground.units) - units + 1;
    let reach = if rng.chance(HOT_PERCENT) { (room / HOT_FRACTION).max(1) } else { room };
    Step { kind, first: rng.below(reach) as u32, units: units as u32 }
}

fn next_kind(rng: &mut Rng, ground: &Ground) -> Kind {
    let unit = ground.unit as u64;
    let dice = rng.below(100);
    if dice < WRITES {
        Kind::Write
    } else if dice < WRITES + DISCARDS && ground.max_discard >= unit {
        Kind::Discard
    } else if dice < WRITES + DISCARDS + WRITE_ZEROES && ground.max_write_zeroes >= unit {
        Kind::WriteZeroes { unmap: rng.chance(50) }
    } else if dice < WRITES + DISCARDS + WRITE_ZEROES + FLUSHES {
        Kind::Flush
    } else {
        Kind::Read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stay_within_the_ground() {
        let mut rng = Rng::new(3);
        for (units, unit, range) in [(1, 4096, 0), (3, 512, 512), (1000, 4096, 1 << 30)] {
            let ground = Ground { units, unit, max_discard: range, max_write_zeroes: range };
            for _ in 0..5000 {
                let step = next_step(&mut rng, &ground);
                assert!(step.first + step.units <= units);
                match step.kind {
                    Kind::Read | Kind::Write => assert!((1..=MAX_DATA / unit).contains(&(step.units as usize))),
                    Kind::Discard | Kind::WriteZeroes { .. } => assert!(u64::from(step.units) * unit as u64 <= range),
                    Kind::Flush => {}
                }
            }
        }
    }
}
