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
use std::time::Duration;

use anyhow::Result;

pub use report::{Operations, Report};

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

/// How another thread watches and ends a run.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    completions: AtomicU64,
}

impl Control {
    /// Ends the load phase; the read-back follows.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, completions: usize) {
        self.completions.fetch_add(completions as u64, Ordering::Relaxed);
    }

    /// Requests completed so far.
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::Relaxed)
    }
}

/// Runs load and read-back. An error means that the run could not start or not finish its own
/// housekeeping; whatever the device did wrong is in the report.
pub fn run(options: &Options, control: &Control) -> Result<Report> {
    engine::Engine::start(options)?.run(control)
}
