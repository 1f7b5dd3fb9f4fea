//! Verified load: random reads, writes, discards and zeroes whose every answer is checked, over a front
//! end that survives its daemon.
//!
//! [`run`] works in two phases: load for a given time, then every unit of the area is read back and
//! compared with the [`model`]. The expected content can be saved and checked again by a later run.

mod engine;
pub mod model;
pub mod pattern;
mod plan;
mod report;
mod state;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::load::latency::Latencies;

pub use report::{Operations, Report, millis};

/// What a run does.
#[derive(Clone, Debug)]
pub struct Options {
    pub socket: PathBuf,
    /// Length of the load phase; it also ends when [`Control::stop`] is called.
    pub time: Duration,
    pub seed: u64,
    /// Requests in flight, over all queues.
    pub depth: usize,
    pub queues: usize,
    /// Bytes of the volume that are used, from its start.
    pub size_limit: u64,
    /// Bytes of one checked unit: 512 or 4096.
    pub unit: usize,
    /// The volume is new: it reads as zeroes.
    pub fresh: bool,
    /// A discard may leave the old data; otherwise it must read as zeroes.
    pub discard_may_keep: bool,
    /// Where the expected content is kept between runs: read at the start if it exists, written at the end.
    pub state: Option<PathBuf>,
    /// Without a completion for so long the run is given up.
    pub stall_limit: Duration,
}

/// How another thread watches a run, has it checked in between, and ends it.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    abandon: AtomicBool,
    completions: AtomicU64,
    checks_asked: AtomicU64,
    checks_done: AtomicU64,
    longest_stall_us: AtomicU64,
    slowest_request_us: AtomicU64,
    latencies: Mutex<Latencies>,
    mistakes: AtomicU64,
    errors: AtomicU64,
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Longest time without any completion while requests were in flight. One that lasts counts from its start.
    pub stall: Duration,
    /// Longest time that one completed request took.
    pub slowest: Duration,
    /// Units that were lost or wrong, and requests that failed.
    pub mistakes: u64,
    pub errors: u64,
}

impl Control {
    /// Ends the load phase; the read-back follows.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the run at once, with whatever is in flight.
    pub fn abandon(&self) {
        self.abandon.store(true, Ordering::Relaxed);
    }

    /// Has the load pause and everything read back, then go on. Done when [`Control::checks_done`] reaches
    /// the number returned.
    pub fn ask_for_check(&self) -> u64 {
        self.checks_asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn checks_done(&self) -> u64 {
        self.checks_done.load(Ordering::Acquire)
    }

    /// Requests completed so far.
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::Relaxed)
    }

    /// How long requests took since this was asked last.
    pub fn take_latencies(&self) -> Latencies {
        std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the window of stalls and mistakes, and begins the next.
    pub fn take_window(&self) -> Window {
        Window {
            stall: Duration::from_micros(self.longest_stall_us.swap(0, Ordering::Relaxed)),
            slowest: Duration::from_micros(self.slowest_request_us.swap(0, Ordering::Relaxed)),
            mistakes: self.mistakes.swap(0, Ordering::Relaxed),
            errors: self.errors.swap(0, Ordering::Relaxed),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_abandoned(&self) -> bool {
        self.abandon.load(Ordering::Relaxed)
    }

    /// A check that is asked for and not done yet.
    fn wanted_check(&self) -> Option<u64> {
        let asked = self.checks_asked.load(Ordering::Relaxed);
        (asked > self.checks_done.load(Ordering::Relaxed)).then_some(asked)
    }

    fn check_done(&self, number: u64) {
        self.checks_done.store(number, Ordering::Release);
    }

    fn note_stall(&self, stall: Duration) {
        self.longest_stall_us.fetch_max(stall.as_micros() as u64, Ordering::Relaxed);
    }

    fn note_request(&self, took: Duration) {
        self.slowest_request_us.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).record(took);
    }

    fn note_faults(&self, mistakes: u64, errors: u64) {
        self.mistakes.fetch_add(mistakes, Ordering::Relaxed);
        self.errors.fetch_add(errors, Ordering::Relaxed);
    }

    fn count(&self, completions: usize) {
        self.completions.fetch_add(completions as u64, Ordering::Relaxed);
    }
}

/// Runs load and read-back. An error means that the run could not start or not finish its own
/// housekeeping; whatever the device did wrong is in the report.
pub fn run(options: &Options, control: &Control) -> Result<Report> {
    engine::Engine::start(options)?.run(control)
}
