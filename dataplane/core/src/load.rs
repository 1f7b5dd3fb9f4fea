//! How busy something is: totals that only grow, and what they come to in a second.

use levee_proto::api::Load;
use std::time::Duration;

/// The mean looks back about so far: what was longer ago counts less than a third of what is now.
const WINDOW: Duration = Duration::from_secs(10);

/// Counted since some beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
}

impl Totals {
    pub fn read(&mut self, bytes: u64) {
        self.reads += 1;
        self.read_bytes += bytes;
    }

    pub fn write(&mut self, bytes: u64) {
        self.writes += 1;
        self.write_bytes += bytes;
    }

    pub fn plus(&self, other: &Totals) -> Totals {
        Totals {
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            read_bytes: self.read_bytes + other.read_bytes,
            write_bytes: self.write_bytes + other.write_bytes,
        }
    }

    fn each(&self) -> [u64; 4] {
        [self.reads, self.writes, self.read_bytes, self.write_bytes]
    }
}

/// An exponentially weighted mean of the growth of [`Totals`], per second. From the first sample on it is a true mean: it does
/// not begin at zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    seen: Totals,
    per_second: [f32; 4],
    /// How much of the mean is made of samples.
    weight: f32,
}

impl Rates {
    /// Takes in what the totals are now, `passed` after the last time. Totals that shrank have begun anew.
    pub fn sample(&mut self, now: Totals, passed: Duration) {
        let seconds = passed.as_secs_f32();
        if seconds <= 0.0 {
            return;
        }
        let share = 1.0 - (-seconds / WINDOW.as_secs_f32()).exp();
        let (before, after) = (self.seen.each(), now.each());
        for (i, rate) in self.per_second.iter_mut().enumerate() {
            let grown = after[i].checked_sub(before[i]).unwrap_or(after[i]);
            *rate += (grown as f32 / seconds - *rate) * share;
        }
        self.weight += (1.0 - self.weight) * share;
        self.seen = now;
    }

    /// Requests and bytes a second.
    pub fn load(&self) -> Load {
        let of = |i: usize| match self.weight > 0.0 {
            true => (self.per_second[i] / self.weight).round() as u64,
            false => 0,
        };
        Load { reads: of(0), writes: of(1), read_bytes: of(2), write_bytes: of(3) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_steady_load_is_told_from_the_first_sample_on_and_fades_when_it_ends() {
        let (mut rates, mut totals) = (Rates::default(), Totals::default());
        assert_eq!(rates.load(), Load::default());
        for _ in 0..30 {
            (0..100).for_each(|_| totals.write(4096));
            (0..7).for_each(|_| totals.read(512));
            rates.sample(totals, SECOND);
            assert_eq!(rates.load(), Load { reads: 7, writes: 100, read_bytes: 7 * 512, write_bytes: 409_600 });
        }
        (0..10).for_each(|_| rates.sample(totals, SECOND));
        assert!((30..45).contains(&rates.load().writes), "{:?}", rates.load());
        (0..60).for_each(|_| rates.sample(totals, SECOND));
        assert_eq!(rates.load().requests(), 0);
    }

    #[test]
    fn totals_that_begin_anew_and_clocks_that_stand_still_do_no_harm() {
        let mut rates = Rates::default();
        rates.sample(Totals { writes: 1000, ..Totals::default() }, Duration::ZERO);
        assert_eq!(rates.load(), Load::default());
        rates.sample(Totals { writes: 1000, ..Totals::default() }, SECOND);
        rates.sample(Totals { writes: 10, ..Totals::default() }, SECOND);
        assert!(rates.load().writes < 1000);
    }
}
