//! What snapshots and clones take, and what they cost guests, in one run on one file system.
//!
//! Two volumes with the same content take turns: of one, snapshots are taken and deleted while guests write to it; the other has
//! none. Commands are timed as an operator sees them, start of the program included, beside one that only commits something.

mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::cluster::{Cluster, Shape};
use crate::figures;
use crate::foreground::Foreground;
use crate::load::latency::{Latencies, Percentiles};
use crate::load::{self, LoadOptions, LoadReport, Pattern, Until};

/// Largest volume, bytes.
pub const MAX_SIZE: u64 = 64 << 30;
/// Most snapshots of a volume, as the meta server takes them, and clones in one command.
pub const MAX_COUNT: u32 = 1000;
pub const MAX_CLONES: u32 = 65_536;
/// Asked: the longest pause of writes at the gateway; beyond what a commit takes; medians of reads with snapshots over those without; guests' p99 while snapshots are deleted
/// over that before; seconds for all clones; from attaching a clone to its first read.
pub const ASKED_CUT_US: f64 = 1000.0;
pub const ASKED_CREATE_MS: f64 = 20.0;
pub const ASKED_DELETE_MS: f64 = 10.0;
pub const ASKED_READ: f64 = 1.03;
pub const ASKED_P99: f64 = 1.05;
pub const ASKED_CLONES_S: f64 = 2.0;
pub const ASKED_ATTACH_MS: f64 = 100.0;

/// The volume that snapshots are taken of, and the other.
const VOLUME: &str = "with";
const PLAIN: &str = "without";
const NODES: usize = 3;
const COPIES: u64 = 3;
/// The node that serves both.
const GATEWAY: &str = "node-1";
const BLOCK: usize = 4 << 10;
/// Commands that only commit something, for comparison.
const COMMITS: u32 = 20;
/// Clones that are attached, and turns in which the two volumes are read.
const ATTACHED: u32 = 10;
const TURNS: u32 = 5;
/// Snapshots deleted beside the load: one after the other as an operator would, and so many in a row as fast as can be.
const DELETED: u32 = 30;
const DELETED_AT_ONCE: u32 = 100;
/// After each of the former.
const DELETE_PAUSE: Duration = Duration::from_secs(1);
/// How long the space of deleted snapshots may take to come back.
const SPACE_LIMIT: Duration = Duration::from_secs(120);
const LOOK_PAUSE: Duration = Duration::from_millis(200);
const MIN_DISK: u64 = 4 << 30;
const SPARE: u64 = 3;

#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// The cluster lives here, and is deleted at the end.
    pub dir: PathBuf,
    pub base_port: u16,
    /// Of each volume, bytes.
    pub size: u64,
    pub count: u32,
    pub clones: u32,
    /// Of each measurement.
    pub time: Duration,
    /// Where the figures go.
    pub out: PathBuf,
    /// Told about each step, one line at a time.
    pub progress: fn(&str),
}

/// The file that a run leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub size: u64,
    pub count: u32,
    pub clones: u32,
    /// Of commands, microseconds.
    pub commit: Percentiles,
    pub create: Percentiles,
    pub delete: Percentiles,
    /// Of the guests' load, microseconds: alone, while snapshots are taken, while commands of the same pace only commit something, while
    /// snapshots are deleted, and while they are as fast as can be.
    pub alone: Percentiles,
    pub taking: Percentiles,
    /// Alone once more, right before snapshots are deleted.
    pub rested: Percentiles,
    pub committing: Percentiles,
    pub deleting: Percentiles,
    pub deleting_fast: Percentiles,
    /// The longest time for which the gateway let no write begin, microseconds.
    pub longest_cut_us: f64,
    /// Medians of reads, one at a time, microseconds, turn by turn.
    pub read_with: Vec<f64>,
    pub read_without: Vec<f64>,
    /// Bytes used on all disks: before the snapshots, with all of them, and when all are deleted.
    pub used: [u64; 3],
    /// Seconds until the space was back.
    pub space_s: f64,
    /// Seconds that making all clones took.
    pub clones_s: f64,
    /// From the command that attaches a clone to its first read, microseconds.
    pub attach: Percentiles,
}

/// Measures, writes the file, and returns the table for people.
pub fn run(options: &SnapshotOptions) -> Result<String> {
    ensure!((1..=MAX_COUNT).contains(&options.count), "--count must be 1 to {MAX_COUNT}");
    ensure!((ATTACHED..=MAX_CLONES).contains(&options.clones), "--clones must be {ATTACHED} to {MAX_CLONES}");
    ensure!(
        (1..=MAX_SIZE).contains(&options.size) && options.size.is_multiple_of(1 << 20),
        "--size must be a multiple of 1M, at most {MAX_SIZE} bytes"
    );
    let stage = Stage::start(options)?;
    let figures = stage.measure()?;
    stage.cluster.destroy()?;
    figures::write(&options.out, &figures)?;
    Ok(table::show(&figures))
}

/// A cluster with both volumes.
struct Stage<'a> {
    options: &'a SnapshotOptions,
    cluster: Cluster,
    with: PathBuf,
    without: PathBuf,
}

impl<'a> Stage<'a> {
    fn start(options: &'a SnapshotOptions) -> Result<Stage<'a>> {
        (options.progress)("starting a cluster and writing two volumes");
        let shape = Shape {
            base_port: options.base_port,
            nodes: NODES,
            metas: 1,
            disks_per_node: 1,
            disk_size: (options.size * COPIES / NODES as u64 * 2 * SPARE).next_multiple_of(MIN_DISK),
            network: None,
            repair_after: None,
        };
        let cluster = Cluster::create_shaped(&options.dir.join("cluster"), &shape)?;
        let open = |name: &str| -> Result<PathBuf> {
            cluster.create_volume(name, options.size)?;
            let socket = cluster.attach_at(name, GATEWAY)?.socket;
            load::fill(&socket, options.size).with_context(|| format!("writing volume {name}"))?;
            Ok(socket)
        };
        let (with, without) = (open(VOLUME)?, open(PLAIN)?);
        Ok(Stage { options, cluster, with, without })
    }

    fn say(&self, line: &str) {
        (self.options.progress)(line);
    }

    fn measure(&self) -> Result<Figures> {
        let time = self.options.time;
        self.say("timing commands that only commit something");
        let commit = times(COMMITS, |n| self.cluster.create_volume(&format!("commit-{n}"), MIN_DISK))?;
        let load = Foreground::new(&self.with, self.options.size)?;
        // The other has had the same writes, but for a few.
        Foreground::new(&self.without, self.options.size)?;
        let alone = load.run_for(time)?.latency_us;
        let before = self.used()?;
        self.say(&format!("taking {} snapshots beside {:.0} requests per second", self.options.count, load.pace));
        let name = |n: u32| format!("{VOLUME}@s{n}");
        let (create, taking) = load.run_while(|| times(self.options.count, |n| self.cluster.snapshot(&name(n))))?;
        self.say("reading with and without snapshots, in turn");
        let (read_with, read_without) = self.reads()?;
        let (clones_s, attach) = self.clones(&name(self.options.count - 1))?;
        let full = self.used()?;
        self.say("deleting snapshots beside the load");
        let rested = load.run_for(time)?.latency_us;
        let commits = |n| self.cluster.create_volume(&format!("beside-{n}"), MIN_DISK);
        let (_, committing) = load.run_while(|| paced(DELETED, commits))?;
        let few = DELETED.min(self.options.count);
        let delete = |n| self.cluster.delete_snapshot(&name(n));
        let (deleted, deleting) = load.run_while(|| paced(few, delete))?;
        let more = DELETED_AT_ONCE.min(self.options.count - few);
        let (_, deleting_fast) = load.run_while(|| times(more, |n| delete(few + n)))?;
        for n in few + more..self.options.count {
            delete(n)?;
        }
        let longest_cut_us =
            self.cluster.gauge(GATEWAY, &format!("levee_volume_longest_cut_seconds{{volume=\"{VOLUME}\"}}"))? * 1e6;
        let (after, space_s) = self.space_comes_back(before, full)?;
        Ok(Figures {
            size: self.options.size,
            count: self.options.count,
            clones: self.options.clones,
            commit,
            create,
            delete: deleted,
            alone,
            taking: taking.latency_us,
            rested,
            committing: committing.latency_us,
            deleting: deleting.latency_us,
            deleting_fast: deleting_fast.latency_us,
            longest_cut_us,
            read_with,
            read_without,
            used: [before, full, after],
            space_s,
            clones_s,
            attach,
        })
    }

    /// Medians of reads, in turn.
    fn reads(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut with, mut without) = (vec![], vec![]);
        let median = |socket: &Path| Ok::<_, anyhow::Error>(self.read(socket)?.latency_us.p50);
        median(&self.with)?;
        median(&self.without)?;
        for _ in 0..TURNS {
            without.push(median(&self.without)?);
            with.push(median(&self.with)?);
        }
        Ok((with, without))
    }

    fn read(&self, socket: &Path) -> Result<LoadReport> {
        let until = Until::Elapsed(self.options.time);
        load::run(&one_by_one(socket, Pattern::Randread, until, self.options.size)).context("reading at random")
    }

    /// Seconds to make the clones, and from attaching some to their first reads; they are deleted then.
    fn clones(&self, from: &str) -> Result<(f64, Percentiles)> {
        self.say(&format!("making {} clones", self.options.clones));
        let begun = Instant::now();
        self.cluster.clone_snapshot(from, "clone", self.options.clones)?;
        let seconds = begun.elapsed().as_secs_f64();
        self.say("attaching some of them");
        let attach = times(ATTACHED, |n| {
            let socket = self.cluster.attach_at(&format!("clone-{}", n + 1), GATEWAY)?.socket;
            let one = one_by_one(&socket, Pattern::Read, Until::Covered, BLOCK as u64);
            load::run(&one).map(drop)
        })?;
        for n in 0..ATTACHED {
            self.cluster.delete_volume(&format!("clone-{}", n + 1), SPACE_LIMIT)?;
        }
        self.cluster.delete_volumes("clone", ATTACHED + 1, self.options.clones)?;
        Ok((seconds, attach))
    }

    /// Bytes used on all disks.
    fn used(&self) -> Result<u64> {
        Ok(self.cluster.used()?.iter().sum())
    }

    /// Waits until hardly more is used than at first; returns what is used, and after how many seconds.
    fn space_comes_back(&self, before: u64, full: u64) -> Result<(u64, f64)> {
        self.say("waiting for their space");
        let begun = Instant::now();
        loop {
            let (used, waited) = (self.used()?, begun.elapsed());
            if used.saturating_sub(before) * 100 <= full.saturating_sub(before) || waited > SPACE_LIMIT {
                return Ok((used, waited.as_secs_f64()));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

/// How long each of some commands takes.
fn times(count: u32, command: impl FnMut(u32) -> Result<()>) -> Result<Percentiles> {
    repeat(count, Duration::ZERO, command)
}

/// The same, with a pause after each.
fn paced(count: u32, command: impl FnMut(u32) -> Result<()>) -> Result<Percentiles> {
    repeat(count, DELETE_PAUSE, command)
}

fn repeat(count: u32, pause: Duration, mut command: impl FnMut(u32) -> Result<()>) -> Result<Percentiles> {
    let mut all = Latencies::default();
    for n in 0..count {
        let begun = Instant::now();
        command(n)?;
        all.record(begun.elapsed());
        std::thread::sleep(pause);
    }
    Ok(all.percentiles())
}

fn one_by_one(socket: &Path, pattern: Pattern, until: Until, area: u64) -> LoadOptions {
    LoadOptions {
        socket: socket.into(),
        pattern,
        block: BLOCK,
        depth: 1,
        queues: 1,
        rate: None,
        until,
        area: Some(area),
    }
}
