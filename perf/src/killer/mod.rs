//! A cluster under verified load while its daemons are killed.
//!
//! The seed fixes who is killed, after which pause, and the load; when exactly a kill strikes a request
//! is up to the machine, so that a seed repeats the course of a round but not each interleaving.

mod report;
mod schedule;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use report::{KillReport, Round};
use schedule::{Schedule, Target};

use crate::cluster::{Attached, Cluster};
use crate::process::Daemon;
use crate::torture::{self, Control, Report};

const VOLUME: &str = "torture";
/// How often the load is looked at while waiting.
const GLANCE: Duration = Duration::from_millis(10);

/// What a run does.
#[derive(Clone, Debug)]
pub struct KillOptions {
    /// Folder of the cluster and the expected content; what an earlier run left there is deleted.
    pub dir: PathBuf,
    pub base_port: u16,
    pub kills: u32,
    pub seed: u64,
    pub volume_size: u64,
    /// Bytes of the volume under load.
    pub size_limit: u64,
    pub depth: usize,
    pub queues: usize,
    /// Bytes of one checked unit.
    pub unit: usize,
    /// Whether meta servers are killed as well.
    pub metas: bool,
    /// Keep the cluster's folder even if all went well.
    pub keep: bool,
    pub stall_limit: Duration,
    /// Told about each step, one line at a time.
    pub progress: fn(&str),
}

/// Runs the load, the kills, and all checks at the end.
pub fn run(options: &KillOptions) -> Result<KillReport> {
    let started = Instant::now();
    let say = options.progress;
    let cluster = Cluster::create(&options.dir.join("cluster"), options.base_port)?;
    let state = options.dir.join("expected.json");
    remove_if_there(&state)?;
    cluster.create_volume(VOLUME, options.volume_size)?;
    let attached = cluster.attach(VOLUME)?;
    say(&format!("volume {VOLUME} is served by {}, epoch {}", attached.node, attached.epoch));
    let load = Load::start(torture_options(options, &attached, state.clone()));
    let mut report = KillReport::new(options.seed);
    let killed = kill_rounds(options, &cluster, &attached, &load, &mut report);
    report.load = load.finish()?;
    say(&format!(
        "load: {} operations checked, {} lost, {} wrong",
        report.load.ops.total, report.load.lost, report.load.wrong
    ));
    match killed {
        Ok(()) => final_checks(options, &cluster, &state, &mut report),
        Err(e) => report.fail(format!("{e:#}")),
    }
    report.seconds = started.elapsed().as_secs_f64();
    tidy_up(options, cluster, &state, &mut report);
    Ok(report)
}

fn torture_options(options: &KillOptions, attached: &Attached, state: PathBuf) -> torture::Options {
    torture::Options {
        socket: attached.socket.clone(),
        time: Duration::MAX,
        seed: options.seed,
        depth: options.depth,
        queues: options.queues,
        size_limit: options.size_limit,
        unit: options.unit,
        fresh: true,
        discard_may_keep: false,
        state: Some(state),
        stall_limit: options.stall_limit,
    }
}

/// The load, on a thread of its own.
struct Load {
    control: Arc<Control>,
    thread: JoinHandle<Result<Report>>,
}

impl Load {
    fn start(options: torture::Options) -> Load {
        let control = Arc::new(Control::default());
        let theirs = control.clone();
        Load { control, thread: std::thread::spawn(move || torture::run(&options, &theirs)) }
    }

    fn finish(self) -> Result<Report> {
        self.control.stop();
        match self.thread.join() {
            Ok(report) => report,
            Err(_) => bail!("the load's thread panicked"),
        }
    }

    /// Sleeps for `time`, or less if the load ends by itself.
    fn let_run(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.thread.is_finished() {
                bail!("the load gave up")
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Waits until something completes. The load's own stall limit bounds it.
    fn wait_for_progress(&self) -> Result<()> {
        let before = self.control.completions();
        while self.control.completions() == before {
            self.let_run(GLANCE)?;
        }
        Ok(())
    }
}

fn kill_rounds(
    options: &KillOptions,
    cluster: &Cluster,
    attached: &Attached,
    load: &Load,
    report: &mut KillReport,
) -> Result<()> {
    load.wait_for_progress()?;
    let mut schedule = Schedule::new(options.seed, options.metas);
    let mut known = cluster.daemons()?;
    for number in 1..=options.kills {
        let plan = schedule.next_round();
        load.let_run(plan.load)?;
        let running = cluster.daemons()?;
        report_crashes(&known, &running, report);
        let victims = plan.choose(&running, &attached.node)?;
        for victim in &victims {
            victim.kill()?;
        }
        let struck = Instant::now();
        let names: Vec<_> = victims.iter().map(|v| v.name.clone()).collect();
        load.let_run(plan.pause)?;
        cluster.up().with_context(|| format!("after killing {}", names.join(" and ")))?;
        known = cluster.daemons()?;
        if plan.wait {
            load.wait_for_progress()?;
        }
        let line = format!(
            "kill {number}/{}: {} ({:?}), down for {:?}",
            options.kills,
            names.join(" and "),
            plan.target,
            plan.pause
        );
        (options.progress)(&line);
        report.count(Round {
            victims: names,
            gateway: matches!(plan.target, Target::Gateway | Target::GatewayAndReplica),
            down_ms: plan.pause.as_millis() as u64,
            recovered_ms: struck.elapsed().as_millis() as u64,
        });
    }
    // The last one is over when requests flow again.
    load.wait_for_progress()?;
    report_crashes(&known, &cluster.daemons()?, report);
    Ok(())
}

/// A daemon that is gone without having been killed is a failure, even though the next `up` mends it.
fn report_crashes(known: &[Daemon], running: &[Daemon], report: &mut KillReport) {
    for daemon in known.iter().filter(|d| !running.contains(d)) {
        report.fail(format!("{} (process {}) ended by itself", daemon.name, daemon.pid));
    }
}

/// All copies are equal, and a cluster that was stopped and started again still has all of the data.
fn final_checks(options: &KillOptions, cluster: &Cluster, state: &Path, report: &mut KillReport) {
    match cluster.verify(VOLUME) {
        Ok(answer) => report.verify = Some(answer),
        Err(e) => report.fail(format!("{e:#}")),
    }
    if !state.exists() {
        return;
    }
    let restarted = || -> Result<Report> {
        cluster.down()?;
        cluster.up()?;
        let attached = cluster.attach(VOLUME)?;
        let read_back =
            torture::Options { time: Duration::ZERO, ..torture_options(options, &attached, state.to_path_buf()) };
        torture::run(&read_back, &Control::default())
    };
    match restarted() {
        Ok(after) => report.after_restart = Some(after),
        Err(e) => report.fail(format!("after a restart of the whole cluster: {e:#}")),
    }
}

fn tidy_up(options: &KillOptions, cluster: Cluster, state: &Path, report: &mut KillReport) {
    let keep = options.keep || !report.ok();
    let done = if keep { cluster.down() } else { cluster.destroy().and_then(|()| remove_if_there(state)) };
    if let Err(e) = done {
        report.fail(format!("{e:#}"));
    }
    if keep {
        (options.progress)(&format!("the cluster's logs and disks are kept in {}", cluster.dir().display()));
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}
