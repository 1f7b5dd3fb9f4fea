//! A world in memory for tests and the simulator: tasks and virtual time ([`TestRuntime`]), a disk
//! that fails in every way a disk may ([`MemDisk`]), and a seeded generator ([`TestRng`]).
//!
//! One seed reproduces a run exactly. Nothing here is used by the daemon.

mod disk;
mod registers;
mod runtime;

pub use disk::{CrashStyle, MemDisk};
pub use registers::{Begun, Registers, SECTOR, ZERO, fill, stamp_of};
pub use runtime::TestRuntime;

/// SplitMix64: small, seeded, good enough to shuffle events with.
#[derive(Clone, Debug)]
pub struct TestRng(u64);

impl TestRng {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> TestRng {
        TestRng(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound` (which must not be 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A number from `least` to `most`, each order of magnitude as likely as any other. `least` must not be 0.
    pub fn spread(&mut self, least: u64, most: u64) -> u64 {
        let doublings = most.div_ceil(least).next_power_of_two().ilog2();
        let low = least << self.below(u64::from(doublings) + 1);
        self.between(low, low * 2).min(most)
    }

    /// An index into a collection of `len` items.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
