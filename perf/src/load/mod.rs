//! A fast load generator: a user-space virtio-blk driver that measures each request.
//!
//! It checks nothing but the status of requests, and does not survive its daemon: [`crate::torture`] does
//! both. It waits with poll(2), as a guest waits for interrupts, and never spins.

mod driver;
pub mod latency;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

pub use driver::capacity;
use latency::{Latencies, Percentiles};

use crate::limits::LOAD_MAX_BLOCK;

/// What the load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    Randread,
    Randwrite,
    Read,
    Write,
}

impl Pattern {
    pub fn is_write(self) -> bool {
        matches!(self, Pattern::Randwrite | Pattern::Write)
    }

    pub fn is_random(self) -> bool {
        matches!(self, Pattern::Randread | Pattern::Randwrite)
    }

    /// As fio calls it.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Randread => "randread",
            Pattern::Randwrite => "randwrite",
            Pattern::Read => "read",
            Pattern::Write => "write",
        }
    }
}

/// When the load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Elapsed(Duration),
    /// Every block of the area was touched once; for sequential patterns.
    Covered,
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

/// Runs the load. Any request that fails, or none that completes for long, ends it with an error.
pub fn run(options: &LoadOptions) -> Result<LoadReport> {
    ensure!(
        (512..=LOAD_MAX_BLOCK).contains(&options.block) && options.block.is_multiple_of(512),
        "--bs must be a multiple of 512, at most {LOAD_MAX_BLOCK} bytes"
    );
    ensure!(
        options.until != Until::Covered || !options.pattern.is_random(),
        "a random pattern does not cover an area: use a sequential one"
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
