//! The volumes under verified load, each on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{FaultOptions, interrupt};
use crate::cluster::{Attached, Cluster};
use crate::rng::mix;
use crate::torture::{self, Control, Report, Window};

/// How often the load is looked at while waiting.
const GLANCE: Duration = Duration::from_millis(10);

/// One volume with its load.
struct Load {
    name: String,
    attached: Attached,
    control: Arc<Control>,
    thread: JoinHandle<Result<Report>>,
}

/// All of them.
pub struct Loads(Vec<Load>);

impl Loads {
    /// Creates the volumes, serves each on another node, and puts them under load.
    pub fn start(options: &FaultOptions, cluster: &Cluster) -> Result<Loads> {
        let mut loads = Vec::new();
        for index in 0..options.volumes {
            let name = name_of(index);
            cluster.create_volume(&name, options.volume_size)?;
            let attached = cluster.attach_at(&name, &format!("node-{}", index % options.nodes + 1))?;
            let control = Arc::new(Control::default());
            let (theirs, mine) = (control.clone(), torture_options(options, index, &attached));
            let thread = std::thread::spawn(move || torture::run(&mine, &theirs));
            loads.push(Load { name, attached, control, thread });
        }
        Ok(Loads(loads))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|load| load.name.clone()).collect()
    }

    /// Name of the node that serves each volume.
    pub fn gateways(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|load| load.attached.node.as_str())
    }

    /// Sleeps for `time`, or less if a load ends by itself or the run is interrupted.
    pub fn let_run(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            if let Some(ended) = self.0.iter().find(|load| load.thread.is_finished()) {
                bail!("the load on volume {} gave up", ended.name)
            }
            interrupt::check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }

    /// Waits until something completes on each volume. The loads' own stall limit bounds it.
    pub fn wait_for_progress(&self) -> Result<()> {
        let before: Vec<u64> = self.0.iter().map(|load| load.control.completions()).collect();
        self.wait_until(|| self.0.iter().zip(&before).all(|(load, count)| load.control.completions() > *count))
    }

    /// Has every unit of every volume read back and compared.
    pub fn read_back(&self) -> Result<()> {
        let asked: Vec<u64> = self.0.iter().map(|load| load.control.ask_for_check()).collect();
        self.wait_until(|| self.0.iter().zip(&asked).all(|(load, number)| load.control.checks_done() >= *number))
    }

    fn wait_until(&self, done: impl Fn() -> bool) -> Result<()> {
        while !done() {
            self.let_run(GLANCE)?;
        }
        Ok(())
    }

    /// What each volume's guest saw since the last call.
    pub fn take_windows(&self) -> Vec<Window> {
        self.0.iter().map(|load| load.control.take_window()).collect()
    }

    /// Has the loads end at once: they would wait for a cluster that does not answer.
    pub fn abandon(&self) {
        self.0.iter().for_each(|load| load.control.abandon());
    }

    /// Ends the loads, each with a last read-back.
    pub fn finish(self) -> Result<Vec<Report>> {
        self.0.iter().for_each(|load| load.control.stop());
        let join = |load: Load| match load.thread.join() {
            Ok(report) => report.with_context(|| format!("load on volume {}", load.name)),
            Err(_) => bail!("the thread of the load on volume {} panicked", load.name),
        };
        // All are joined before the first failure is told.
        let ended: Vec<_> = self.0.into_iter().map(join).collect();
        ended.into_iter().collect()
    }
}

/// Attaches the volumes once more and reads back what the loads left.
pub fn read_back_again(options: &FaultOptions, cluster: &Cluster) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for index in 0..options.volumes {
        let name = name_of(index);
        let state = state_file(&options.dir, &name);
        ensure!(state.exists(), "the load on volume {name} left no expected content");
        let attached = cluster.attach(&name)?;
        let read_back = torture::Options { time: Duration::ZERO, ..torture_options(options, index, &attached) };
        reports.push(torture::run(&read_back, &Control::default())?);
    }
    Ok(reports)
}

pub fn name_of(index: usize) -> String {
    format!("vol-{}", index + 1)
}

/// Where the expected content of a volume is kept.
pub fn state_file(dir: &Path, volume: &str) -> PathBuf {
    dir.join(format!("{volume}.json"))
}

fn torture_options(options: &FaultOptions, index: usize, attached: &Attached) -> torture::Options {
    torture::Options {
        socket: attached.socket.clone(),
        time: Duration::MAX,
        seed: mix(options.seed.wrapping_add(index as u64)),
        depth: options.depth,
        queues: options.queues,
        size_limit: options.size_limit,
        // The second volume is written in pieces smaller than a block.
        unit: if index == 1 { 512 } else { 4096 },
        fresh: true,
        discard_may_keep: false,
        state: Some(state_file(&options.dir, &name_of(index))),
        stall_limit: options.stall_limit,
    }
}
