//! How long a link takes to answer: one request at a time is timed, so that it costs next to nothing.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A new measurement counts for one part in so many.
const SMOOTHING: u32 = 8;

/// A smoothed latency, and the request that is being timed.
#[derive(Default)]
pub(crate) struct Latency {
    timed: Cell<Option<(u64, Instant)>>,
    smoothed: Cell<Option<Duration>>,
}

impl Latency {
    /// A request leaves: it is timed if none is.
    pub fn sent(&self, id: u64) {
        if self.timed.get().is_none() {
            self.timed.set(Some((id, Instant::now())));
        }
    }

    /// An answer has come.
    pub fn answered(&self, id: u64) {
        if let Some((timed, since)) = self.timed.get()
            && timed == id
        {
            self.timed.set(None);
            self.take(since.elapsed());
        }
    }

    fn take(&self, took: Duration) {
        let mean = self.smoothed.get().map_or(took, |mean| (mean * (SMOOTHING - 1) + took) / SMOOTHING);
        self.smoothed.set(Some(mean));
    }

    /// The connection is another one.
    pub fn reset(&self) {
        self.timed.set(None);
        self.smoothed.set(None);
    }

    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_is_timed_at_a_time_and_measurements_are_smoothed() {
        let latency = Latency::default();
        latency.answered(1);
        assert_eq!(latency.smoothed(), None);
        latency.sent(1);
        latency.sent(2);
        latency.answered(2);
        assert_eq!(latency.smoothed(), None, "another one is being timed");
        latency.answered(1);
        assert!(latency.smoothed().is_some());
        latency.reset();
        latency.take(Duration::from_micros(800));
        latency.take(Duration::from_micros(1600));
        assert_eq!(latency.smoothed(), Some(Duration::from_micros(900)));
    }
}
