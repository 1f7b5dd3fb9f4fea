//! What operators' moves do, one after the other in one cluster, beside verified load on all of the volume: a new node gets its
//! share, a node is emptied, a disk is taken out without having been emptied.
//!
//! All the time the gateway is asked how many up-to-date copies the poorest chunk has. Every read of the load is checked, and
//! at the end everything is read back and all copies are compared.

mod table;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::cluster::{Cluster, Shape};
use crate::figures;
use crate::load;
use crate::torture::{self, Control};
use watch::Watch;

/// Smallest and largest volume, bytes: some chunks for each disk.
pub const MIN_SIZE: u64 = 1 << 30;
pub const MAX_SIZE: u64 = 256 << 30;
/// Copies of every block, as `levee volume create` makes them.
pub const COPIES: u64 = 3;
/// Asked: the fullest disk's use over the mean after a rebalance, the bytes moved over those that must be, and the longest stall.
pub const ASKED_USE: f64 = 1.05;
pub const ASKED_MOVED: f64 = 1.1;
pub const ASKED_STALL_MS: f64 = 50.0;

const VOLUME: &str = "moves";
/// Nodes at first, and with the new one.
const NODES: usize = 4;
const GROWN: &str = "5";
/// The node that serves the volume, the one that is emptied, and the one whose disk is taken out.
const GATEWAY: &str = "node-1";
const EMPTIED: &str = "node-2";
const BROKEN: &str = "node-3";
/// How far above the mean a disk may stay, percent.
const TOLERANCE: &str = "2";
/// Of each move.
const TIMEOUT: &str = "60m";
const LIMIT: Duration = Duration::from_secs(3600);
/// Of the load alone.
const ALONE: Duration = Duration::from_secs(20);
/// How long daemons take to report what is used.
const SETTLE: Duration = Duration::from_secs(5);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const MIN_DISK: u64 = 4 << 30;
const SPARE: u64 = 2;

#[derive(Clone, Debug)]
pub struct MoveOptions {
    /// The cluster lives here, and is deleted at the end.
    pub dir: PathBuf,
    pub base_port: u16,
    /// Of the volume, all of which is written, bytes.
    pub size: u64,
    /// Requests of the load in flight.
    pub depth: usize,
    /// Where the figures go.
    pub out: PathBuf,
    /// Told about each step, one line at a time.
    pub progress: fn(&str),
}

/// The file that a run leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub size: u64,
    pub depth: usize,
    /// The load alone.
    pub alone: Phase,
    pub rebalance: Rebalance,
    pub drain: Drain,
    pub removal: Phase,
    /// Requests that were checked, those lost or wrong, and those that failed.
    pub operations: u64,
    pub mistakes: u64,
    pub errors: u64,
}

/// What was seen while something went on.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Phase {
    pub seconds: f64,
    /// Longest time without any answer to the load, and of one request.
    pub stall_ms: f64,
    pub slowest_ms: f64,
    /// Fewest up-to-date copies that any chunk had.
    pub fewest_copies: u64,
    /// Bytes copied for chunks of the volume.
    pub copied_bytes: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rebalance {
    pub phase: Phase,
    pub moves: u64,
    pub skipped: u64,
    /// Bytes that had to be moved for all disks to be equal, and bytes that were.
    pub necessary: u64,
    pub moved: u64,
    /// The fullest disk's use over the mean, before and after.
    pub before: f64,
    pub after: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Drain {
    pub phase: Phase,
    /// On its disk before, and what is left.
    pub copies: u64,
    pub left: u64,
    pub used: u64,
    pub used_left: u64,
}

/// Measures, writes the file, and returns the table for people.
pub fn run(options: &MoveOptions) -> Result<String> {
    ensure!(
        (MIN_SIZE..=MAX_SIZE).contains(&options.size) && options.size.is_multiple_of(MIN_SIZE),
        "--size must be a multiple of 1G, at most {MAX_SIZE} bytes"
    );
    ensure!((1..=64).contains(&options.depth), "--depth must be 1 to 64");
    (options.progress)(&format!("starting a cluster of {NODES} nodes and writing a volume"));
    let shape = Shape {
        base_port: options.base_port,
        nodes: NODES,
        metas: 1,
        disks_per_node: 1,
        disk_size: (options.size * COPIES / NODES as u64 * SPARE).next_multiple_of(MIN_DISK),
        network: None,
        repair_after: None,
    };
    let cluster = Cluster::create_shaped(&options.dir.join("cluster"), &shape)?;
    let figures = measure(options, &cluster)?;
    cluster.destroy()?;
    figures::write(&options.out, &figures)?;
    Ok(table::show(&figures))
}

fn measure(options: &MoveOptions, cluster: &Cluster) -> Result<Figures> {
    cluster.create_volume(VOLUME, options.size)?;
    let socket = cluster.attach_at(VOLUME, GATEWAY)?.socket;
    load::fill(&socket, options.size).context("writing the volume")?;
    let control = Control::default();
    let watch = Watch::new(cluster.ports(GATEWAY)?.1, &control)?;
    let load = torture::Options {
        socket,
        time: Duration::MAX,
        seed: 5,
        depth: options.depth,
        queues: 1,
        size_limit: options.size,
        unit: 4096,
        fresh: false,
        discard_may_keep: false,
        state: None,
        stall_limit: LIMIT,
    };
    let (measured, report) = std::thread::scope(|scope| {
        let guest = scope.spawn(|| torture::run(&load, &control));
        scope.spawn(|| watch.run());
        let measured = Stage { options, cluster, watch: &watch }.steps();
        watch.end();
        control.stop();
        (measured, guest.join())
    });
    let (alone, rebalance, drain, removal) = measured?;
    let report = report.map_err(|_| anyhow::anyhow!("the load's thread panicked"))?.context("the load")?;
    (options.progress)("comparing all copies");
    cluster.verify(VOLUME)?;
    ensure!(report.ok(), "the load found something wrong: {report:?}");
    Ok(Figures {
        size: options.size,
        depth: options.depth,
        alone,
        rebalance,
        drain,
        removal,
        operations: report.ops.total,
        mistakes: report.lost + report.wrong,
        errors: report.io_errors,
    })
}

/// A running cluster under load.
struct Stage<'s> {
    options: &'s MoveOptions,
    cluster: &'s Cluster,
    watch: &'s Watch<'s>,
}

impl Stage<'_> {
    fn steps(&self) -> Result<(Phase, Rebalance, Drain, Phase)> {
        self.say("the load alone");
        let ((), alone) = self.watch.during(|| {
            std::thread::sleep(ALONE);
            Ok(())
        })?;
        Ok((alone, self.rebalance()?, self.drain()?, self.remove()?))
    }

    fn say(&self, line: &str) {
        (self.options.progress)(line);
    }

    /// A fifth node comes, and gets its share.
    fn rebalance(&self) -> Result<Rebalance> {
        self.say("a new node gets its share");
        self.cluster.levee(&["up", "--detach", "--nodes", GROWN])?;
        std::thread::sleep(SETTLE);
        let used = self.cluster.used()?;
        let command = ["rebalance", "run", "--tolerance", TOLERANCE, "--wait", "--timeout", TIMEOUT];
        let (status, phase) = self.watch.during(|| self.cluster.levee(&command))?;
        let number = |name: &str| status[name].as_u64().with_context(|| format!("a rebalance without {name}"));
        ensure!(status["state"] == "done", "the rebalance is not done: {status}");
        std::thread::sleep(SETTLE);
        Ok(Rebalance {
            phase,
            moves: number("moves")?,
            skipped: number("skipped")?,
            necessary: necessary(&used),
            moved: number("done_bytes")?,
            before: imbalance(&used),
            after: imbalance(&self.cluster.used()?),
        })
    }

    fn drain(&self) -> Result<Drain> {
        self.say(&format!("{EMPTIED} is emptied"));
        let before = self.cluster.disk_of(EMPTIED)?;
        let command = ["node", "drain", EMPTIED, "--wait", "--timeout", TIMEOUT];
        let (_, phase) = self.watch.during(|| self.cluster.levee(&command))?;
        // The space of what has left comes back in the background.
        std::thread::sleep(SETTLE);
        let after = self.cluster.disk_of(EMPTIED)?;
        let number = |disk: &Value, name: &str| disk[name].as_u64().with_context(|| format!("a disk without {name}"));
        Ok(Drain {
            phase,
            copies: number(&before, "replicas")?,
            left: number(&after, "replicas")?,
            used: number(&before, "used")?,
            used_left: number(&after, "used")?,
        })
    }

    /// A disk is taken out that still holds copies.
    fn remove(&self) -> Result<Phase> {
        self.say(&format!("the disk of {BROKEN} is taken out as it is"));
        let disk = self.cluster.disk_of(BROKEN)?["id"].clone();
        let ((), phase) = self.watch.during(|| {
            let begun = Instant::now();
            self.cluster.levee(&["disk", "remove", &disk.to_string(), "--force"])?;
            while self.cluster.disks()?.iter().any(|d| d["id"] == disk) || !self.watch.is_whole() {
                ensure!(begun.elapsed() < LIMIT, "the copies are not back after {} s", LIMIT.as_secs());
                std::thread::sleep(LOOK_PAUSE);
            }
            Ok(())
        })?;
        Ok(phase)
    }
}

fn mean(used: &[u64]) -> f64 {
    used.iter().sum::<u64>() as f64 / used.len() as f64
}

/// The fullest disk's use over the mean; all have the same capacity.
fn imbalance(used: &[u64]) -> f64 {
    used.iter().max().map_or(1.0, |most| *most as f64 / mean(used))
}

/// Bytes that must be moved for all disks to be equal.
fn necessary(used: &[u64]) -> u64 {
    let mean = mean(used);
    used.iter().map(|used| (mean - *used as f64).max(0.0)).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_disk_must_get_what_the_others_have_too_much() {
        assert_eq!(necessary(&[40, 40, 40, 40, 0]), 32);
        assert!((imbalance(&[40, 40, 40, 40, 0]) - 1.25).abs() < 1e-9);
        assert_eq!(necessary(&[7, 7]), 0);
    }
}
