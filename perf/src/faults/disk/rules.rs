//! What goes wrong on one disk, and until when.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What cannot be read, and is written anew, as a whole.
const SECTOR: u64 = 4096;

/// What the disk is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Sync,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// So many more accesses of a kind fail.
    FailSome {
        access: Access,
        left: u32,
    },
    /// All accesses fail.
    FailAll,
    /// Reads fail, writes do not.
    FailReads,
    /// Accesses wait.
    Stall {
        until: Instant,
    },
    /// Each write takes so long.
    Slow {
        each: Duration,
    },
}

/// The trouble of one disk, shared by its file system and whoever does faults.
#[derive(Debug)]
pub struct Rules {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    trouble: Trouble,
    struck: u64,
    /// Sectors that cannot be read until they are written.
    bad: BTreeSet<u64>,
}

impl Default for Rules {
    fn default() -> Rules {
        let state = State { trouble: Trouble::None, struck: 0, bad: BTreeSet::new() };
        Rules { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Rules {
    /// From now on this goes wrong, beside bad sectors, and nothing else.
    pub fn set(&self, trouble: Trouble) {
        let mut state = self.lock();
        (state.trouble, state.struck) = (trouble, 0);
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the trouble; answers with how many accesses it struck.
    pub fn clear(&self) -> u64 {
        let mut state = self.lock();
        state.trouble = Trouble::None;
        self.changed.notify_all();
        state.struck
    }

    /// Lets one access through, late if need be; false if it is to fail.
    pub fn admit(&self, access: Access) -> bool {
        let mut state = self.lock();
        let (mut waited, begun) = (false, Instant::now());
        loop {
            let until = match state.trouble {
                Trouble::Stall { until } => until,
                Trouble::Slow { each } if access == Access::Write => begun + each,
                _ => break,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.struck += u64::from(!waited);
            waited = true;
            state = self.wait(state, left);
        }
        let fails = match &mut state.trouble {
            Trouble::None | Trouble::Stall { .. } | Trouble::Slow { .. } => false,
            Trouble::FailAll => true,
            Trouble::FailReads => access == Access::Read,
            Trouble::FailSome { access: kind, left } => {
                let fails = *kind == access && *left > 0;
                *left -= u32::from(fails);
                fails
            }
        };
        state.struck += u64::from(fails);
        !fails
    }

    /// From now on the sectors at these places cannot be read until they are written, and no others.
    pub fn make_unreadable(&self, places: Vec<u64>) {
        self.lock().bad = places.into_iter().map(|at| at / SECTOR).collect();
    }

    /// Whether all of a range can be read.
    pub fn is_readable(&self, offset: u64, len: u64) -> bool {
        self.lock().bad.range(sectors(offset, len)).next().is_none()
    }

    /// What was written can be read again.
    pub fn written(&self, offset: u64, len: u64) {
        let mut state = self.lock();
        state.bad.retain(|sector| !sectors(offset, len).contains(sector));
    }

    // What is in the state is whole whenever the lock is free, even if its last holder panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>, time: Duration) -> MutexGuard<'g, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

fn sectors(offset: u64, len: u64) -> Range<u64> {
    offset / SECTOR..(offset + len).div_ceil(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_is_bad_until_it_is_written() {
        let rules = Rules::default();
        rules.make_unreadable(vec![2 * SECTOR, 5 * SECTOR]);
        rules.set(Trouble::None);
        assert!(rules.is_readable(0, 2 * SECTOR) && rules.is_readable(3 * SECTOR, 2 * SECTOR));
        assert!(!rules.is_readable(0, 3 * SECTOR) && !rules.is_readable(2 * SECTOR, SECTOR));
        rules.written(SECTOR, 3 * SECTOR);
        assert!(rules.is_readable(0, 5 * SECTOR) && !rules.is_readable(0, 6 * SECTOR));
    }

    #[test]
    fn trouble_strikes_what_it_names() {
        let rules = Rules::default();
        assert!(rules.admit(Access::Read));
        rules.set(Trouble::FailSome { access: Access::Write, left: 2 });
        let admitted: Vec<bool> =
            [Access::Read, Access::Write, Access::Sync, Access::Write, Access::Write].map(|a| rules.admit(a)).into();
        assert_eq!(admitted, [true, false, true, false, true]);
        assert_eq!(rules.clear(), 2);
        rules.set(Trouble::FailReads);
        assert!(!rules.admit(Access::Read) && rules.admit(Access::Write));
        rules.set(Trouble::FailAll);
        assert!(!rules.admit(Access::Sync));
        assert_eq!(rules.clear(), 1);
        assert!(rules.admit(Access::Sync));
    }

    #[test]
    fn a_slow_disk_is_slow_to_write_until_it_is_cleared() {
        let rules = Rules::default();
        rules.set(Trouble::Slow { each: Duration::from_secs(3600) });
        assert!(rules.admit(Access::Read) && rules.admit(Access::Sync));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| rules.admit(Access::Write));
            while rules.lock().struck == 0 {
                std::thread::yield_now();
            }
            assert_eq!(rules.clear(), 1);
            assert!(waiting.join().unwrap());
        });
        rules.set(Trouble::Slow { each: Duration::ZERO });
        assert!(rules.admit(Access::Write));
    }

    #[test]
    fn a_stall_ends_when_it_is_over_or_cleared() {
        let rules = Rules::default();
        rules.set(Trouble::Stall { until: Instant::now() });
        assert!(rules.admit(Access::Write));
        rules.set(Trouble::Stall { until: Instant::now() + Duration::from_secs(3600) });
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| rules.admit(Access::Write));
            while rules.lock().struck == 0 {
                std::thread::yield_now();
            }
            assert_eq!(rules.clear(), 1);
            assert!(waiting.join().unwrap());
        });
    }
}
