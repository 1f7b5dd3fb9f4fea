//! What a volume's requests took, counted by the core that serves it.

use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::time::Duration;

/// Kinds of requests that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    Read = 0,
    Write = 1,
    Discard = 2,
}

/// Names of the kinds, by number.
pub const KINDS: [&str; 3] = ["read", "write", "discard"];
/// Longest time told apart, microseconds.
const MAX_US: u64 = 60_000_000;

struct Kind {
    bytes: u64,
    /// Microseconds, from the request's arrival to its answer.
    latency: Histogram<u64>,
}

/// Counters of one volume.
pub struct IoStats(RefCell<Vec<Kind>>);

/// The counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct IoSnapshot {
    pub requests: u64,
    pub bytes: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
}

impl IoStats {
    pub fn new() -> IoStats {
        let kind =
            || Kind { bytes: 0, latency: Histogram::new_with_max(MAX_US, 2).expect("constant bounds are valid") };
        IoStats(RefCell::new(KINDS.iter().map(|_| kind()).collect()))
    }

    pub fn record(&self, kind: IoKind, bytes: u64, took: Duration) {
        let kind = &mut self.0.borrow_mut()[kind as usize];
        kind.bytes += bytes;
        kind.latency.saturating_record((took.as_micros() as u64).min(MAX_US));
    }

    /// One snapshot per kind, in the order of [`KINDS`].
    pub fn snapshot(&self) -> Vec<IoSnapshot> {
        let of = |k: &Kind| IoSnapshot {
            requests: k.latency.len(),
            bytes: k.bytes,
            p50_us: k.latency.value_at_quantile(0.5),
            p99_us: k.latency.value_at_quantile(0.99),
            p999_us: k.latency.value_at_quantile(0.999),
        };
        self.0.borrow().iter().map(of).collect()
    }
}
