//! What the guest does to each chunk, so that load can be balanced: plain counters per request, looked at now and then.

use super::chunk::Chunk;
use super::{Cluster, Gateway};
use crate::load::{Rates, Totals};
use crate::ports::Runtime;
use levee_proto::api::{ChunkLoad, Load, MAX_HOT_CHUNKS};
use std::cell::Cell;
use std::time::Duration;

/// One chunk's.
#[derive(Default)]
pub(super) struct Traffic {
    totals: Cell<Totals>,
    rates: Cell<Rates>,
}

impl Traffic {
    pub fn read(&self, bytes: u32) {
        let mut totals = self.totals.get();
        totals.read(bytes.into());
        self.totals.set(totals);
    }

    pub fn write(&self, bytes: u32) {
        let mut totals = self.totals.get();
        totals.write(bytes.into());
        self.totals.set(totals);
    }

    fn sample(&self, passed: Duration) -> Load {
        let mut rates = self.rates.get();
        rates.sample(self.totals.get(), passed);
        self.rates.set(rates);
        rates.load()
    }
}

/// When a gateway's chunks were last looked at.
pub(super) struct Sampled {
    at: Cell<Duration>,
    /// Guests' requests by then.
    requests: Cell<u64>,
    /// Nothing was going on any more.
    quiet: Cell<bool>,
}

impl Sampled {
    pub fn new(now: Duration) -> Sampled {
        Sampled { at: Cell::new(now), requests: Cell::new(0), quiet: Cell::new(true) }
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Looks at what guests have done since the last call; the busiest chunks, the busiest first. To be called about once a second: while
    /// nothing happens it costs nothing.
    pub fn hot_chunks(&self) -> Vec<ChunkLoad> {
        let (sampled, now) = (&self.0.sampled, self.0.rt.now());
        let requests = self.0.background.guest_requests.get();
        let is_new = sampled.requests.replace(requests) != requests;
        let passed = now.saturating_sub(sampled.at.replace(now));
        if sampled.quiet.get() && !is_new {
            return vec![];
        }
        let chunks = self.0.chunks.borrow();
        let of = |chunk: &Chunk| ChunkLoad { index: chunk.index, load: chunk.traffic.sample(passed) };
        let mut hot: Vec<_> = chunks.iter().flatten().map(|c| of(c)).filter(|c| c.load.requests() > 0).collect();
        sampled.quiet.set(hot.is_empty() && !is_new);
        hot.sort_by_key(|c| (std::cmp::Reverse((c.load.requests(), c.load.bytes())), c.index));
        hot.truncate(MAX_HOT_CHUNKS);
        hot
    }
}
