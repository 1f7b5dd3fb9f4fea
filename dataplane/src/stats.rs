//! What a volume's requests took, counted by the core that serves it.
//!
//! Latencies are kept twice: since the volume was opened, by kind, and of the last seconds, of all requests together.

use hdrhistogram::Histogram;
use levee_core::load::{Rates, Totals};
use levee_proto::api::{ChunkLoad, VolumeLoad};
use std::cell::RefCell;
use std::time::{Duration, Instant};

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
/// Recent latencies are of the last one to two of these.
const GENERATION: Duration = Duration::from_secs(5);

struct Kind {
    bytes: u64,
    /// Microseconds, from the request's arrival to its answer.
    latency: Histogram<u64>,
}

/// Latencies of reads and writes of the last seconds: of a generation that is being filled, and the one before.
struct Recent {
    filling: Histogram<u32>,
    before: Histogram<u32>,
    since: Instant,
}

impl Recent {
    fn new() -> Recent {
        let empty = || Histogram::new_with_max(MAX_US, 2).expect("constant bounds are valid");
        Recent { filling: empty(), before: empty(), since: Instant::now() }
    }

    /// The latencies that half, and 99 of 100, requests were answered within, microseconds; 0: there were none.
    fn quantiles(&mut self) -> (u64, u64) {
        if self.since.elapsed() >= GENERATION {
            std::mem::swap(&mut self.filling, &mut self.before);
            self.filling.reset();
            self.since = Instant::now();
        }
        if self.filling.is_empty() && self.before.is_empty() {
            return (0, 0);
        }
        let mut both = self.filling.clone();
        // Cannot fail: both have the same bounds.
        let _ = both.add(&self.before);
        (both.value_at_quantile(0.5).max(1), both.value_at_quantile(0.99).max(1))
    }
}

/// Counters of one volume.
pub struct IoStats(RefCell<Inner>);

/// A request that is not answered yet; dropped when it is, or is given up.
pub struct Pending<'s> {
    stats: &'s IoStats,
    slot: usize,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.stats.0.borrow_mut().pending.end(self.slot);
    }
}

/// When the requests began that are not answered yet. Slots are used again: nothing is allocated once there were as many.
#[derive(Default)]
struct Begun {
    slots: Vec<Option<Instant>>,
    free: Vec<usize>,
}

impl Begun {
    fn begin(&mut self, at: Instant) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(at);
                slot
            }
            None => {
                self.slots.push(Some(at));
                self.slots.len() - 1
            }
        }
    }

    fn end(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    /// How many are at least so old, and the age of the oldest.
    fn older_than(&self, age: Duration) -> Option<(usize, Duration)> {
        let old = || self.slots.iter().flatten().map(Instant::elapsed).filter(|a| *a >= age);
        Some((old().count(), old().max()?))
    }
}

struct Inner {
    kinds: Vec<Kind>,
    recent: Recent,
    pending: Begun,
    rates: Rates,
    sampled: Instant,
    load: VolumeLoad,
}

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
        IoStats(RefCell::new(Inner {
            kinds: KINDS.iter().map(|_| kind()).collect(),
            recent: Recent::new(),
            pending: Begun::default(),
            rates: Rates::default(),
            sampled: Instant::now(),
            load: VolumeLoad::default(),
        }))
    }

    /// A request begins.
    pub fn begin(&self, at: Instant) -> Pending<'_> {
        Pending { stats: self, slot: self.0.borrow_mut().pending.begin(at) }
    }

    /// How many requests have waited for so long, and the age of the oldest; none: there is none.
    pub fn waiting(&self, age: Duration) -> Option<(usize, Duration)> {
        self.0.borrow().pending.older_than(age)
    }

    pub fn record(&self, kind: IoKind, bytes: u64, took: Duration) {
        let us = (took.as_micros() as u64).min(MAX_US);
        let inner = &mut *self.0.borrow_mut();
        if kind != IoKind::Discard {
            inner.recent.filling.saturating_record(us);
        }
        let kind = &mut inner.kinds[kind as usize];
        kind.bytes += bytes;
        kind.latency.saturating_record(us);
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
        self.0.borrow().kinds.iter().map(of).collect()
    }

    /// Looks at what was done since the last look: about once a second. `hot`: the busiest chunks.
    pub fn sample(&self, hot: Vec<ChunkLoad>) {
        let inner = &mut *self.0.borrow_mut();
        let of = |kind: IoKind| &inner.kinds[kind as usize];
        let totals = Totals {
            reads: of(IoKind::Read).latency.len(),
            writes: of(IoKind::Write).latency.len(),
            read_bytes: of(IoKind::Read).bytes,
            write_bytes: of(IoKind::Write).bytes,
        };
        inner.rates.sample(totals, inner.sampled.elapsed());
        inner.sampled = Instant::now();
        let (p50_us, p99_us) = inner.recent.quantiles();
        inner.load = VolumeLoad { load: inner.rates.load(), p50_us, p99_us, hot };
    }

    /// As last sampled.
    pub fn load(&self) -> VolumeLoad {
        self.0.borrow().load.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_wait_are_counted_by_their_age() {
        let (stats, now) = (IoStats::new(), Instant::now());
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        assert_eq!(stats.waiting(Duration::ZERO), None);
        let old = stats.begin(ago(9));
        let young = stats.begin(now);
        let (count, oldest) = stats.waiting(Duration::from_secs(1)).unwrap();
        assert!(count == 1 && oldest >= Duration::from_secs(9), "{oldest:?}");
        drop(old);
        assert_eq!(stats.waiting(Duration::from_secs(1)), None);
        let again = stats.begin(ago(3));
        assert_eq!(stats.0.borrow().pending.slots.len(), 2, "a slot is used again");
        drop((young, again));
        assert_eq!(stats.waiting(Duration::ZERO), None);
    }

    #[test]
    fn recent_latencies_are_of_what_was_asked_for_lately() {
        let stats = IoStats::new();
        stats.sample(vec![]);
        assert_eq!(stats.load(), VolumeLoad::default());
        for us in 1..=1000 {
            stats.record(IoKind::Write, 4096, Duration::from_micros(us));
        }
        stats.record(IoKind::Discard, 4096, Duration::from_secs(10));
        stats.sample(vec![]);
        let load = stats.load();
        assert!((490..=510).contains(&load.p50_us) && (980..=1000).contains(&load.p99_us), "{load:?}");
        assert!(load.load.writes > 0 && load.load.reads == 0 && load.load.write_bytes >= load.load.writes * 4000);
        // Two generations later nothing of it is left.
        let later = |stats: &IoStats| stats.0.borrow_mut().recent.since -= GENERATION;
        later(&stats);
        stats.sample(vec![]);
        assert!(stats.load().p50_us > 0);
        later(&stats);
        stats.sample(vec![]);
        assert_eq!((stats.load().p50_us, stats.load().p99_us), (0, 0));
        assert_eq!(stats.snapshot()[IoKind::Write as usize].requests, 1000);
    }
}
