//! A cluster of real daemons under verified load while faults are done to it.
//!
//! The seed fixes the faults, their lengths and the load; when exactly a fault strikes a request is up to
//! the machine, so that a seed repeats the course of a run but not each interleaving. After most rounds
//! the cluster must become whole by itself, all copies must be equal, and every block must hold what the
//! model says. The first violation ends the run.

mod disk;
mod fill;
mod health;
mod inject;
pub mod interrupt;
pub mod kind;
mod mend;
pub(crate) mod network;
mod report;
mod rot;
mod schedule;
mod volumes;

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use kind::Kind;
pub use report::FaultReport;

use crate::cluster::{Cluster, Shape};
use crate::limits::{MAX_FAULT_NODES, MAX_FAULT_VOLUMES};
use crate::process::Daemon;
use crate::torture::millis;
use disk::FaultDisk;
use inject::{Done, Injector, SWAPPED};
use kind::Need;
use mend::Mender;
use network::Network;
use report::Round;
use schedule::{Fault, Plan, Schedule};
use volumes::Loads;

/// Of all disks of a node together, bytes: where disks are to become full they are small.
const DISK_SIZE: u64 = 16 << 30;
const SMALL_DISK_SIZE: u64 = 3 << 29;
/// How long the cluster may take to become whole after a round.
const WHOLE_LIMIT: Duration = Duration::from_secs(90);
/// How long a started gateway may take to serve its volume again.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a socket.
const SOCKET_PAUSE: Duration = Duration::from_millis(2);

/// What a run does.
#[derive(Clone, Debug)]
pub struct FaultOptions {
    /// Folder of the cluster and the expected content; what an earlier run left there is deleted.
    pub dir: PathBuf,
    pub base_port: u16,
    pub rounds: u32,
    pub seed: u64,
    pub kinds: BTreeSet<Kind>,
    pub nodes: usize,
    pub metas: usize,
    /// How long a node may be silent before copies are made elsewhere.
    pub repair_after: Duration,
    pub volumes: usize,
    pub volume_size: u64,
    /// Bytes of each volume under load.
    pub size_limit: u64,
    /// Requests in flight on each volume.
    pub depth: usize,
    pub queues: usize,
    /// Keep the cluster's folder even if all went well.
    pub keep: bool,
    pub stall_limit: Duration,
    /// Told about each step, one line at a time.
    pub progress: fn(&str),
}

impl FaultOptions {
    fn check(&self) -> Result<()> {
        ensure!((3..=MAX_FAULT_NODES).contains(&self.nodes), "the number of nodes must be 3 to {MAX_FAULT_NODES}");
        ensure!([1, 3, 5].contains(&self.metas), "the number of meta servers must be 1, 3 or 5");
        ensure!((1..=MAX_FAULT_VOLUMES).contains(&self.volumes), "the volumes must be 1 to {MAX_FAULT_VOLUMES}");
        ensure!(!self.kinds.is_empty(), "name at least one kind of fault");
        Ok(())
    }

    /// Where names of disks are exchanged, each node has two that no file system lies over.
    fn disks_per_node(&self) -> usize {
        if self.kinds.contains(&Kind::DiskNames) { 1 + SWAPPED.len() } else { 1 }
    }

    /// Of each node, bytes.
    fn disk_size(&self) -> u64 {
        if self.kinds.contains(&Kind::Full) { SMALL_DISK_SIZE } else { DISK_SIZE }
    }
}

/// Runs the loads, the faults, and all checks.
pub fn run(options: &FaultOptions) -> Result<FaultReport> {
    options.check()?;
    let started = Instant::now();
    let folder = options.dir.join("cluster");
    disk::tidy_up_below(&folder)?;
    forget_earlier_run(options)?;
    let network = network_if_possible(options);
    let shape = Shape {
        base_port: options.base_port,
        nodes: options.nodes,
        metas: options.metas,
        disks_per_node: options.disks_per_node(),
        disk_size: options.disk_size() / options.disks_per_node() as u64,
        network: network.as_ref().map(Network::argument),
        repair_after: Some(options.repair_after),
    };
    let cluster = Cluster::create_shaped(&folder, &shape)?;
    let disks = disks_if_possible(options, &cluster)?;
    let mut report = FaultReport::new(options.seed);
    let injector = Injector {
        cluster: &cluster,
        network: network.as_ref(),
        disks: &disks,
        nodes: options.nodes,
        metas: options.metas,
        disk_size: options.disk_size(),
        filling: Mutex::new(0),
    };
    let checked = Run { options, cluster: &cluster, injector, report: &mut report }.everything();
    if let Err(e) = checked {
        report.fail(format!("{e:#}"));
    }
    report.conclude(started.elapsed().as_secs_f64());
    tidy_up(options, cluster, disks, &mut report);
    Ok(report)
}

/// Without them, faults that need them are skipped.
fn disks_if_possible(options: &FaultOptions, cluster: &Cluster) -> Result<Vec<FaultDisk>> {
    if options.kinds.iter().all(|kind| !kind.is_of_disks()) {
        return Ok(Vec::new());
    }
    cluster.down()?;
    let path = |index| cluster.dir().join(inject::node_name(index)).join("disk-1.img");
    let mounted = (0..options.nodes).map(|index| FaultDisk::mount(&path(index))).collect::<Result<Vec<_>>>();
    let disks = mounted.inspect_err(|e| (options.progress)(&format!("disks do not fail: {e:#}"))).unwrap_or_default();
    cluster.up()?;
    Ok(disks)
}

/// Without one, faults that need it are skipped.
fn network_if_possible(options: &FaultOptions) -> Option<Network> {
    let network = Network::create(options.nodes, options.metas);
    network.inspect_err(|e| (options.progress)(&format!("links are not cut: {e:#}"))).ok()
}

/// What the last rounds may have left.
#[derive(Default)]
struct Doubts {
    /// A disk failed, and may have been given up.
    disk: bool,
    /// Copies may differ.
    rot: bool,
}

/// How a round ended that waited for the cluster.
struct Settled {
    whole: Duration,
    restarted: Vec<String>,
}

/// A run in progress.
struct Run<'r> {
    options: &'r FaultOptions,
    cluster: &'r Cluster,
    injector: Injector<'r>,
    report: &'r mut FaultReport,
}

impl Run<'_> {
    fn everything(&mut self) -> Result<()> {
        let loads = Loads::start(self.options, self.cluster)?;
        let rounds = self.rounds(&loads);
        if rounds.is_err() {
            loads.abandon();
        }
        // Whatever ended the rounds, the loads may know why.
        let finished = loads.finish().map(|reports| self.report.loads = reports);
        rounds.and(finished)?;
        self.measure_restarts()?;
        self.cluster.down()?;
        self.cluster.up()?;
        self.report.after_restart =
            volumes::read_back_again(self.options, self.cluster).context("after a restart of the whole cluster")?;
        Ok(())
    }

    fn rounds(&mut self, loads: &Loads) -> Result<()> {
        loads.wait_for_progress()?;
        let mut schedule = Schedule::new(self.options.seed, &self.options.kinds, self.options.nodes);
        let mut known = self.cluster.daemons()?;
        let mut doubts = Doubts::default();
        for number in 1..=self.options.rounds {
            let plan = schedule.next_round();
            if plan.faults.iter().any(|(_, fault)| !self.is_possible(fault)) {
                *self.report.skipped.entry(plan.kind).or_default() += 1;
                continue;
            }
            let round = self.round(number, &plan, loads, &mut known, &mut doubts).with_context(|| {
                format!("round {number} of seed {} ({}: {:?})", self.options.seed, plan.kind, plan.faults)
            });
            self.report.count(round?);
        }
        // Whatever the last rounds left must mend, too.
        self.settle(loads, &mut doubts).map(drop)
    }

    fn is_possible(&self, fault: &Fault) -> bool {
        match fault.need() {
            None => true,
            Some(Need::Networks) => self.injector.network.is_some(),
            Some(Need::Disks) => !self.injector.disks.is_empty(),
        }
    }

    fn round(
        &self,
        number: u32,
        plan: &Plan,
        loads: &Loads,
        known: &mut Vec<Daemon>,
        doubts: &mut Doubts,
    ) -> Result<Round> {
        loads.let_run(plan.load)?;
        check_alive(known, &self.cluster.daemons()?, &[])?;
        loads.take_windows();
        let done = self.injector.carry_out(&plan.faults)?;
        let running = self.cluster.daemons()?;
        check_alive(known, &running, &done)?;
        *known = running;
        loads.wait_for_progress()?;
        doubts.disk |= done.iter().any(|done| done.disk);
        doubts.rot |= done.iter().any(|done| done.rot);
        let mut settled = None;
        if plan.settle || doubts.rot {
            check_alive(known, &self.cluster.daemons()?, &[])?;
            settled = Some(self.settle(loads, doubts)?);
            *known = self.cluster.daemons()?;
        }
        let windows = loads.take_windows();
        let gateways: Vec<String> = loads.gateways().map(str::to_string).collect();
        let mut round = Round::new(number, plan, &done, &gateways, &windows);
        if let Some(Settled { whole, restarted }) = settled {
            round.whole_ms = Some(millis(whole));
            round.restarted = restarted;
        }
        self.tell(&round);
        let (mistakes, errors) = round.volumes.iter().fold((0, 0), |(m, e), v| (m + v.mistakes, e + v.errors));
        if mistakes + errors > 0 {
            bail!("{mistakes} units were lost or wrong, {errors} requests failed")
        }
        Ok(round)
    }

    /// Waits until all copies are there, compares them, and reads everything back.
    fn settle(&self, loads: &Loads, doubts: &mut Doubts) -> Result<Settled> {
        let mut mender = doubts.disk.then(|| Mender::new(&self.injector));
        let whole = health::wait_until_whole(self.cluster, loads, WHOLE_LIMIT, || {
            mender.as_mut().map_or(Ok(None), Mender::mend)
        })?;
        let restarted = mender.map(|mender| mender.restarted).unwrap_or_default();
        for name in loads.names() {
            // What rotted is found by the first comparison, and replaced.
            let first = self.cluster.verify(&name);
            if doubts.rot && first.is_err() {
                self.cluster.verify(&name)?
            } else {
                first?
            };
        }
        loads.read_back()?;
        *doubts = Doubts::default();
        Ok(Settled { whole, restarted })
    }

    fn tell(&self, round: &Round) {
        let stall = |gateway| match round.longest_stall(gateway) {
            Some(ms) => format!("{ms:.0} ms"),
            None => "-".into(),
        };
        let whole = round.whole_ms.map_or("not waited for".into(), |ms| format!("after {ms:.0} ms"));
        (self.options.progress)(&format!(
            "round {}/{}: {}; stall {} at struck gateways, {} elsewhere; whole {whole}",
            round.number,
            self.options.rounds,
            round.faults.join(" + "),
            stall(true),
            stall(false),
        ));
    }

    /// How long a gateway takes from its start to its volume's socket, without load.
    fn measure_restarts(&mut self) -> Result<()> {
        for index in 0..self.options.volumes {
            let attached = self.cluster.attach(&volumes::name_of(index))?;
            let victims = self.cluster.daemons()?.into_iter().filter(|daemon| daemon.name == attached.node);
            victims.into_iter().try_for_each(|victim| victim.kill())?;
            // A signal takes its time: the socket must have died before it can come back.
            wait_for_socket(&attached.socket, false)?;
            let started = Instant::now();
            let served = std::thread::scope(|scope| {
                let served = scope.spawn(|| wait_for_socket(&attached.socket, true).map(|()| started.elapsed()));
                let up = self.cluster.up_only(&[&attached.node]);
                let served = served.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                up.and(served)
            })?;
            self.report.restart_ms.push(millis(served));
        }
        Ok(())
    }
}

/// Waits until a daemon accepts connections at the socket, or none does. One whose daemon is dead refuses.
fn wait_for_socket(socket: &Path, accepts: bool) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < RESTART_LIMIT {
        if UnixStream::connect(socket).is_ok() == accepts {
            return Ok(());
        }
        std::thread::sleep(SOCKET_PAUSE);
    }
    let what = if accepts { "was not served again" } else { "did not go away" };
    bail!("{} {what} within {} s", socket.display(), RESTART_LIMIT.as_secs())
}

/// A daemon that is gone without having been killed is a failure, even though the next `up` mends it.
fn check_alive(known: &[Daemon], running: &[Daemon], done: &[Done]) -> Result<()> {
    let killed = |name: &String| done.iter().any(|done| done.down.is_some() && done.struck.contains(name));
    match known.iter().find(|daemon| !running.contains(daemon) && !killed(&daemon.name)) {
        Some(daemon) => bail!("{} (process {}) ended by itself: see its log", daemon.name, daemon.pid),
        None => Ok(()),
    }
}

fn forget_earlier_run(options: &FaultOptions) -> Result<()> {
    (0..options.volumes).try_for_each(|index| {
        let state = volumes::state_file(&options.dir, &volumes::name_of(index));
        match std::fs::remove_file(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("cannot delete {}", state.display()))
            }
            _ => Ok(()),
        }
    })
}

fn tidy_up(options: &FaultOptions, cluster: Cluster, disks: Vec<FaultDisk>, report: &mut FaultReport) {
    let keep = options.keep || !report.ok;
    let down = cluster.down();
    drop(disks);
    let done = match keep {
        true => down,
        false => cluster.destroy().and_then(|()| forget_earlier_run(options)),
    };
    if let Err(e) = done {
        report.fail(format!("{e:#}"));
        report.ok = false;
    }
    if keep {
        (options.progress)(&format!("the cluster's logs and disks are kept in {}", cluster.dir().display()));
    }
}
