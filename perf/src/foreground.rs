//! The guests' load beside something else that goes on, as a repair: 4 KiB at random, half reads and half writes, at half the pace that the volume keeps up
//! with at depth 8. A load without pauses would fill whatever a repair leaves, and its latency would tell of its own
//! queue; of a paced one each request is timed from when it was due, so that a stall counts for all that it delays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::load::{self, LoadOptions, LoadReport, Pattern, Stop, Until};

const BLOCK: usize = 4 << 10;
/// What the volume can do is measured with so many requests in flight, for so long.
const CAPABILITY_DEPTH: usize = 8;
const CAPABILITY_TIME: Duration = Duration::from_secs(5);
const PART: f64 = 0.5;
/// Most requests of the paced load in flight; the others wait, and count as waiting.
const PACED_DEPTH: usize = 64;
/// Before the load is measured.
const WARM_UP: Duration = Duration::from_secs(2);

pub struct Foreground {
    socket: PathBuf,
    area: u64,
    /// Requests per second at [`CAPABILITY_DEPTH`], and of the paced load.
    pub capability: f64,
    pub pace: f64,
}

impl Foreground {
    /// Finds out what the volume can do.
    pub fn new(socket: &Path, area: u64) -> Result<Foreground> {
        let mut load = Foreground { socket: socket.into(), area, capability: 0.0, pace: 0.0 };
        load.run(CAPABILITY_DEPTH, None, Until::Elapsed(WARM_UP))?;
        load.capability = load.run(CAPABILITY_DEPTH, None, Until::Elapsed(CAPABILITY_TIME))?.iops;
        load.pace = load.capability * PART;
        Ok(load)
    }

    pub fn run_for(&self, time: Duration) -> Result<LoadReport> {
        self.paced(Until::Elapsed(WARM_UP))?;
        self.paced(Until::Elapsed(time))
    }

    /// Runs until `work` is done.
    pub fn run_while<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, LoadReport)> {
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let load = scope.spawn(|| self.paced(Until::Told(stop.clone())));
            let worked = work();
            stop.tell();
            let load = load.join().unwrap_or_else(|_| bail!("the load's thread panicked"));
            Ok((worked?, load?))
        })
    }

    fn paced(&self, until: Until) -> Result<LoadReport> {
        self.run(PACED_DEPTH, Some(self.pace), until)
    }

    fn run(&self, depth: usize, rate: Option<f64>, until: Until) -> Result<LoadReport> {
        let options = LoadOptions {
            socket: self.socket.clone(),
            pattern: Pattern::Randrw,
            block: BLOCK,
            depth,
            queues: 1,
            rate,
            until,
            area: Some(self.area),
        };
        load::run(&options).context("the guests' load")
    }
}
