//! A few seeds of each kind, and that a seed tells everything.

use levee_sim::campaign::run_caught;

/// Seeds that once found something, and those that every change should pass.
const SEEDS: std::ops::Range<u64> = 0..40;

#[test]
fn clusters_survive_what_happens_to_them() {
    for seed in SEEDS {
        let outcome = run_caught(seed, false);
        assert_eq!(outcome.failure, None, "seed {seed}");
        assert!(outcome.answered > 0, "seed {seed}: no request was answered");
    }
}

#[test]
fn a_seed_repeats_exactly_whether_it_is_watched_or_not() {
    for seed in [1, 7, 11] {
        let (one, other) = (run_caught(seed, false), run_caught(seed, true));
        assert_eq!((one.trace, one.polls, one.answered), (other.trace, other.polls, other.answered), "seed {seed}");
        assert_eq!(one.reached, other.reached);
        assert!(!other.events.is_empty() && one.events.is_empty());
    }
    assert_ne!(run_caught(1, false).trace, run_caught(2, false).trace);
}
