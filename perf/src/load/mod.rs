//! A fast load generator: a user-space virtio-blk driver that measures each request.
//!
//! It checks nothing but the status of requests, and does not survive its daemon: [`crate::torture`] does
//! both. It waits with poll(2), as a guest waits for interrupts, and never spins.

mod driver;
pub mod latency;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

pub use driver::capacity;
use latency::{Latencies, Percentiles};

use crate::limits::{LOAD_MAX_BLOCK, LOAD_MAX_RATE, LOAD_MIN_RATE};

/// How a device is filled.
const FILL_BLOCK: usize = 128 << 10;
const FILL_DEPTH: usize = 16;

/// What the load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    Randread,
    Randwrite,
    /// Reads and writes at random, half of each.
    Randrw,
    Read,
    Write,
}

impl Pattern {
    /// Whether all requests are writes.
    pub fn is_write(self) -> bool {
        matches!(self, Pattern::Randwrite | Pattern::Write)
    }

    pub fn is_random(self) -> bool {
        matches!(self, Pattern::Randread | Pattern::Randwrite | Pattern::Randrw)
    }

    /// As fio calls it.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Randread => "randread",
            Pattern::Randwrite => "randwrite",
            Pattern::Randrw => "randrw",
            Pattern::Read => "read",
            Pattern::Write => "write",
        }
    }
}

/// When the load ends.
#[derive(Clone, Debug)]
pub enum Until {
    Elapsed(Duration),
    /// Every block of the area was touched once; for sequential patterns.
    Covered,
    Told(Stop),
}

/// Tells a load on another thread to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub socket: PathBuf,
    pub pattern: Pattern,
    /// Bytes of one request.
    pub block: usize,
    /// Requests in flight on each queue.
    pub depth: usize,
    pub queues: usize,
    /// Requests per second, all queues together, at even distances: each is timed from when it was due, so that one that
    /// had to wait for a slot counts in full. Absent: the next one goes out when one is done.
    pub rate: Option<f64>,
    pub until: Until,
    /// Bytes that are used, from the start of the device; all of it if absent.
    pub area: Option<u64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    pub rw: &'static str,
    pub bs: usize,
    pub qd: usize,
    pub queues: usize,
    pub seconds: f64,
    pub ios: u64,
    pub iops: f64,
    pub mib_per_s: f64,
    pub latency_us: Percentiles,
}

/// Writes the first `size` bytes of a device.
pub fn fill(socket: &Path, size: u64) -> Result<LoadReport> {
    run(&LoadOptions {
        socket: socket.into(),
        pattern: Pattern::Write,
        block: FILL_BLOCK,
        depth: FILL_DEPTH,
        queues: 1,
        rate: None,
        until: Until::Covered,
        area: Some(size),
    })
}

/// Runs the load. Any request that fails, or none that completes for long, ends it with an error.
pub fn run(options: &LoadOptions) -> Result<LoadReport> {
    ensure!(
        (512..=LOAD_MAX_BLOCK).contains(&options.block) && options.block.is_multiple_of(512),
        "--bs must be a multiple of 512, at most {LOAD_MAX_BLOCK} bytes"
    );
    ensure!(
        !matches!(options.until, Until::Covered) || !options.pattern.is_random(),
        "a random pattern does not cover an area: use a sequential one"
    );
    ensure!(
        options.rate.is_none_or(|rate| (LOAD_MIN_RATE..=LOAD_MAX_RATE).contains(&rate)),
        "the rate must be {LOAD_MIN_RATE} to {LOAD_MAX_RATE} requests per second"
    );
    let (latencies, elapsed) = driver::drive(options)?;
    Ok(report(options, &latencies, elapsed))
}

fn report(options: &LoadOptions, latencies: &Latencies, elapsed: Duration) -> LoadReport {
    let (ios, seconds) = (latencies.count(), elapsed.as_secs_f64());
    let iops = ios as f64 / seconds;
    LoadReport {
        rw: options.pattern.name(),
        bs: options.block,
        qd: options.depth,
        queues: options.queues,
        seconds,
        ios,
        iops,
        mib_per_s: iops * options.block as f64 / f64::from(1 << 20),
        latency_us: latencies.percentiles(),
    }
}
