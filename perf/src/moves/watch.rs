//! What the gateway and the load tell while something goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{COPIES, Phase};
use crate::http;
use crate::torture::{Control, millis};

const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// How the volume's chunks do at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// Up-to-date copies of the poorest chunk.
    copies: u64,
    whole: bool,
    copied_bytes: u64,
}

impl Look {
    fn at(port: u16) -> Result<Look> {
        Look::of(&http::get(port, "/v1/status")?).context("the gateway's status names no volume")
    }

    fn of(status: &Value) -> Option<Look> {
        let volume = status["volumes"].get(0)?;
        let number = |name: &str| volume[name].as_u64();
        // The list is in order of copies: where it is cut off, the poorest are on it.
        let poorest = volume["degraded"].as_array()?.iter().filter_map(|chunk| chunk["current"].as_u64()).min();
        Some(Look {
            copies: poorest.unwrap_or(COPIES).min(COPIES),
            whole: number("degraded_chunks")? == 0 && number("leaving_replicas")? == 0,
            copied_bytes: number("copied_bytes")?,
        })
    }
}

struct Seen {
    last: Look,
    fewest: u64,
}

/// Looks at the gateway all the time.
pub struct Watch<'s> {
    port: u16,
    load: &'s Control,
    seen: Mutex<Seen>,
    ended: AtomicBool,
}

impl Watch<'_> {
    /// `port`: of the gateway's admin endpoint.
    pub fn new(port: u16, load: &Control) -> Result<Watch<'_>> {
        let last = Look::at(port)?;
        Ok(Watch { port, load, seen: Mutex::new(Seen { last, fewest: last.copies }), ended: AtomicBool::new(false) })
    }

    /// Runs until [`Watch::end`].
    pub fn run(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            if let Ok(now) = Look::at(self.port) {
                let mut seen = self.seen();
                seen.fewest = seen.fewest.min(now.copies);
                seen.last = now;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether every chunk has its copies where they belong.
    pub fn is_whole(&self) -> bool {
        self.seen().last.whole
    }

    /// What is seen while `work` is done.
    pub fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Phase)> {
        let before = {
            let mut seen = self.seen();
            seen.fewest = seen.last.copies;
            seen.last.copied_bytes
        };
        self.load.take_window();
        let begun = Instant::now();
        let done = work()?;
        let seconds = begun.elapsed().as_secs_f64();
        let (window, seen) = (self.load.take_window(), self.seen());
        let phase = Phase {
            seconds,
            stall_ms: millis(window.stall),
            slowest_ms: millis(window.slowest),
            fewest_copies: seen.fewest,
            copied_bytes: seen.last.copied_bytes - before,
        };
        Ok((done, phase))
    }

    // What was seen is replaced whole.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_poorest_chunk_counts() {
        let status = |degraded: Value, leaving: u64| {
            let count = degraded.as_array().unwrap().len();
            let volume =
                json!({"degraded_chunks": count, "leaving_replicas": leaving, "copied_bytes": 7, "degraded": degraded});
            json!({"volumes": [volume]})
        };
        let whole = Look { copies: 3, whole: true, copied_bytes: 7 };
        assert_eq!(Look::of(&status(json!([]), 0)), Some(whole));
        assert_eq!(Look::of(&status(json!([]), 1)), Some(Look { whole: false, ..whole }));
        let poor = Look::of(&status(json!([{"current": 3}, {"current": 2}]), 0)).unwrap();
        assert!(poor.copies == 2 && !poor.whole);
        // One that leaves and one that comes, beside the others.
        assert_eq!(Look::of(&status(json!([{"current": 4}]), 0)).unwrap().copies, 3);
        assert_eq!(Look::of(&json!({"volumes": []})), None);
    }
}
