//! What goes wrong on one disk, and until when.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { state: Mutex::new(State { trouble: Trouble::None, struck: 0 }), changed: Condvar::new() }
    }
}

impl Rules {
    /// From now on this goes wrong, and nothing else.
    pub fn set(&self, trouble: Trouble) {
        *self.lock() = State { trouble, struck: 0 };
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
        let mut waited = false;
        while let Trouble::Stall { until } = state.trouble {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.struck += u64::from(!waited);
            waited = true;
            state = self.wait(state, left);
        }
        let fails = match &mut state.trouble {
            Trouble::None | Trouble::Stall { .. } => false,
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

    // What is in the state is whole whenever the lock is free, even if its last holder panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>, time: Duration) -> MutexGuard<'g, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
