//! Repair beside what the machine could do, in one run on one file system.
//!
//! Two parts, each with a new cluster: a disk is given up while nobody uses the volume, and while guests use it at half of
//! what it can do. The first is compared with files copied durably, the second with the same load without a repair:
//! both before and after, as machines drift, and disks of a new cluster get faster with use.

mod baseline;
mod scene;
mod table;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::figures;
use crate::foreground::Foreground;
use crate::load::LoadReport;
use crate::load::latency::Percentiles;
use baseline::Baseline;
use scene::Scene;
pub use watch::Repair;

/// Fewest and most storage nodes: copies of a lost disk go to several others only where some have none.
pub const NODES: std::ops::RangeInclusive<usize> = 4..=9;
/// Largest volume, bytes.
pub const MAX_SIZE: u64 = 256 << 30;
/// Smallest: some chunks for each node.
pub const MIN_SIZE: u64 = 512 << 20;
/// Copies of every block, as `levee volume create` makes them.
const COPIES: u64 = 3;
/// Asked of repair: its rate over that of copying files, and the guests' p99 over that without a repair.
pub const ASKED_RATE: f64 = 0.8;
pub const ASKED_P99: f64 = 1.5;

#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Files and the clusters live here, and are deleted at the end.
    pub dir: PathBuf,
    pub base_port: u16,
    pub nodes: usize,
    /// Of the volume, all of which is written, bytes.
    pub size: u64,
    /// Which parts are done.
    pub idle: bool,
    pub foreground: bool,
    /// Of the load without a repair, each time.
    pub time: std::time::Duration,
    /// Where the figures go.
    pub out: PathBuf,
    /// Told about each step, one line at a time.
    pub progress: fn(&str),
}

/// The file that a run leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub nodes: usize,
    pub size: u64,
    pub idle: Option<Idle>,
    pub foreground: Option<Busy>,
}

/// A repair while nobody uses the volume.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Bytes per second of copying files, before and after the repair.
    pub baseline: [f64; 2],
    pub repair: Repair,
}

impl Idle {
    fn ratio(&self, rate: f64) -> f64 {
        rate / (self.baseline.iter().sum::<f64>() / self.baseline.len() as f64)
    }
}

/// How the paced load did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Requests answered per second.
    pub iops: f64,
    pub us: Percentiles,
}

impl From<LoadReport> for Latency {
    fn from(report: LoadReport) -> Latency {
        Latency { iops: report.iops, us: report.latency_us }
    }
}

/// A repair while guests work.
#[derive(Clone, Debug, Serialize)]
pub struct Busy {
    /// Requests per second at depth 8, without pauses.
    pub capability: f64,
    /// Requests per second of the paced load.
    pub pace: f64,
    /// Of the paced load.
    pub before: Latency,
    pub during: Latency,
    pub after: Latency,
    pub repair: Repair,
}

impl Busy {
    /// While repairing over without, the mean of before and after.
    fn ratio(&self, of: fn(&Percentiles) -> f64) -> f64 {
        of(&self.during.us) * 2.0 / (of(&self.before.us) + of(&self.after.us))
    }
}

/// Measures, writes the file, and returns the table for people.
pub fn run(options: &RepairOptions) -> Result<String> {
    ensure!(NODES.contains(&options.nodes), "--nodes must be {} to {}", NODES.start(), NODES.end());
    ensure!(
        (MIN_SIZE..=MAX_SIZE).contains(&options.size) && options.size.is_multiple_of(MIN_SIZE),
        "--size must be a multiple of 512M, at most {MAX_SIZE} bytes"
    );
    std::fs::create_dir_all(&options.dir).with_context(|| format!("cannot create {}", options.dir.display()))?;
    let mut figures = Figures { nodes: options.nodes, size: options.size, idle: None, foreground: None };
    if options.idle {
        figures.idle = Some(measure_idle(options).context("repair of an idle volume")?);
    }
    if options.foreground {
        figures.foreground = Some(measure_busy(options).context("repair under load")?);
    }
    figures::write(&options.out, &figures)?;
    Ok(table::show(&figures))
}

fn measure_idle(options: &RepairOptions) -> Result<Idle> {
    let say = options.progress;
    say("writing files to copy");
    let bytes = options.size * COPIES / options.nodes as u64;
    let baseline = Baseline::prepare(&options.dir.join("files"), options.nodes, bytes)?;
    say("copying files");
    let before = baseline.measure()?;
    let scene = Scene::start(options)?;
    say("repairing");
    let repair = watch::repair(&scene)?;
    scene.stop()?;
    say("copying files again");
    let after = baseline.measure()?;
    Ok(Idle { baseline: [before, after], repair })
}

fn measure_busy(options: &RepairOptions) -> Result<Busy> {
    let say = options.progress;
    let scene = Scene::start(options)?;
    say("measuring what guests can do");
    let load = Foreground::new(&scene.socket, options.size)?;
    say(&format!("{:.0} requests per second without a repair", load.pace));
    let before = load.run_for(options.time)?;
    say("the same while repairing");
    let (repair, during) = load.run_while(|| watch::repair(&scene))?;
    say("the same without a repair again");
    let after = load.run_for(options.time)?;
    scene.stop()?;
    Ok(Busy {
        capability: load.capability,
        pace: load.pace,
        before: before.into(),
        during: during.into(),
        after: after.into(),
        repair,
    })
}
