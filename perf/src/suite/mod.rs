//! Levee beside its peers: raw disk, raw disk with durable writes, and one copy by qemu-storage-daemon,
//! all on one file system, in one run.
//!
//! For each workload all systems take their turn before the next workload, so that whatever drifts on the
//! machine meanwhile hurts all of them alike. Absolute figures depend on the machine; the ratios are what
//! a run is for.

mod fio;
mod loopback;
mod qsd;
mod systems;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::figures;
use crate::load::Pattern;
use systems::Systems;

/// Bytes that each system works on.
pub const WORKING_SET: u64 = 1 << 30;

#[derive(Clone, Debug)]
pub struct SuiteOptions {
    /// Files and the cluster live here, and are deleted at the end.
    pub dir: PathBuf,
    pub base_port: u16,
    /// Which of [`SYSTEMS`] take part.
    pub systems: Vec<&'static str>,
    /// Of each point.
    pub time: Duration,
    /// Where the figures go.
    pub out: PathBuf,
    /// Told about each step, one line at a time.
    pub progress: fn(&str),
}

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub pattern: Pattern,
    pub block: usize,
    pub depth: usize,
}

const fn workload(name: &'static str, pattern: Pattern, block: usize, depth: usize) -> Workload {
    Workload { name, pattern, block, depth }
}

pub const WORKLOADS: [Workload; 6] = [
    workload("randwrite-qd1", Pattern::Randwrite, 4 << 10, 1),
    workload("randwrite-qd32", Pattern::Randwrite, 4 << 10, 32),
    workload("randread-qd1", Pattern::Randread, 4 << 10, 1),
    workload("randread-qd32", Pattern::Randread, 4 << 10, 32),
    workload("seqwrite-qd8", Pattern::Write, 128 << 10, 8),
    workload("seqread-qd8", Pattern::Read, 128 << 10, 8),
];

/// Systems in the order of their turns.
pub const SYSTEMS: [&str; 4] = ["raw", "raw-dsync", "qsd", "levee"];

/// One measured point.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub system: &'static str,
    pub workload: &'static str,
    pub iops: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Processor time of the daemons (of fio for the raw disk) per request.
    pub cpu_us_per_io: f64,
}

/// The file that a run leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub runs: Vec<Run>,
}

impl Figures {
    fn find(&self, system: &str, workload: &str) -> Option<&Run> {
        self.runs.iter().find(|r| r.system == system && r.workload == workload)
    }
}

/// Measures everything, writes the file, and returns the table for people.
pub fn run(options: &SuiteOptions) -> Result<String> {
    let say = options.progress;
    let mut systems = Systems::start(options)?;
    let mut figures = Figures { runs: Vec::new() };
    for workload in &WORKLOADS {
        for system in SYSTEMS.into_iter().filter(|s| options.systems.contains(s)) {
            say(&format!("{} on {system}", workload.name));
            let run = systems
                .measure(system, workload, options.time)
                .with_context(|| format!("{} on {system}", workload.name))?;
            figures.runs.push(run);
        }
    }
    say("loopback TCP round trips");
    let round_trip = loopback::round_trip(options.time.min(Duration::from_secs(2)))?;
    systems.stop()?;
    figures::write(&options.out, &figures)?;
    Ok(table::show(&figures, &round_trip))
}
