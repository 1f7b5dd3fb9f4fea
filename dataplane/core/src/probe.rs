//! Two kinds of marks in the code, for the simulator: [`reached!`](crate::reached) counts that a rare branch was taken, and
//! [`mutant!`](crate::mutant) is a deliberate bug that can be switched on.
//!
//! Neither exists in what ships. Both are compiled in by `--cfg levee_mutants`, which only `make sim` and `make mutants` set, for
//! binaries in a folder of their own; anywhere else nothing is counted, and each mutant is the constant `false`. Both belong to the thread: simulations on several threads do not meet.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Whether branches are counted in this build.
pub const COUNTING: bool = cfg!(levee_mutants);
/// Whether this build has deliberate bugs to switch on.
pub const MUTABLE: bool = cfg!(levee_mutants);

thread_local! {
    static COUNTS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
    /// For tests, which do not switch them on themselves.
    static NAMED: Option<String> = std::env::var("LEVEE_MUTANT").ok();
}

/// Counts that this place was reached.
#[macro_export]
macro_rules! reached {
    ($name:literal) => {
        if $crate::probe::COUNTING {
            $crate::probe::hit($name);
        }
    };
}

/// Whether the deliberate bug of this name is switched on.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        ($crate::probe::MUTABLE && $crate::probe::is_mutant($name))
    };
}

/// See [`reached!`](crate::reached).
pub fn hit(name: &'static str) {
    COUNTS.with_borrow_mut(|counts| *counts.entry(name).or_default() += 1);
}

/// How often each place was reached on this thread since the last call.
pub fn take_counts() -> BTreeMap<&'static str, u64> {
    COUNTS.take()
}

/// Switches one deliberate bug on, on this thread, and the others off.
pub fn set_mutant(name: Option<&'static str>) {
    MUTANT.set(name);
}

/// See [`mutant!`](crate::mutant).
pub fn is_mutant(name: &str) -> bool {
    match MUTANT.get() {
        Some(on) => on == name,
        None => NAMED.with(|named| named.as_deref() == Some(name)),
    }
}
