//! Carrying faults out: each begins, lasts, and is undone.

mod disks;
mod names;

pub use names::SWAPPED;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::disk::FaultDisk;
use super::health;
use super::interrupt;
use super::network::Network;
use super::schedule::{Cut, Fault, Who};
use crate::cluster::Cluster;
use crate::process::Daemon;

/// How often a fault that lasts looks whether the run is interrupted.
const GLANCE: Duration = Duration::from_millis(20);

/// What faults are done to.
pub struct Injector<'c> {
    pub cluster: &'c Cluster,
    pub network: Option<&'c Network>,
    /// By node; empty where disks cannot be made to fail.
    pub disks: &'c [FaultDisk],
    pub nodes: usize,
    pub metas: usize,
    /// Of each node, bytes.
    pub disk_size: u64,
    /// Volumes that filled the disks so far; held by who fills them.
    pub filling: Mutex<u32>,
}

/// What a fault did, for the round's record.
#[derive(Clone, Debug)]
pub struct Done {
    /// What it is counted as.
    pub label: &'static str,
    /// One line for a person.
    pub what: String,
    /// Names of the daemons it struck.
    pub struck: Vec<String>,
    /// How long killed daemons were left down.
    pub down: Option<Duration>,
    /// A disk failed, and may have been given up.
    pub disk: bool,
    /// Copies may differ until they are compared.
    pub rot: bool,
}

impl Done {
    fn new(label: &'static str, struck: Vec<String>, detail: String) -> Done {
        let names = if struck.is_empty() { "nothing runs".into() } else { struck.join(" ") };
        Done { label, what: format!("{label}: {names}, {detail}"), struck, down: None, disk: false, rot: false }
    }
}

impl Injector<'_> {
    /// Carries faults out, each beginning so long after the first. Returns when all of them are undone.
    pub fn carry_out(&self, faults: &[(Duration, Fault)]) -> Result<Vec<Done>> {
        // Named before the first one strikes: with the meta servers halted nobody can tell who leads.
        let leader = health::leader(self.cluster);
        std::thread::scope(|scope| {
            let work = faults.iter().map(|(later, fault)| {
                let leader = leader.as_deref();
                scope.spawn(move || {
                    last(*later);
                    self.carry_one_out(fault, leader)
                })
            });
            let running: Vec<_> = work.collect();
            let ended: Vec<_> = running.into_iter().map(|thread| thread.join()).collect();
            ended.into_iter().map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    fn carry_one_out(&self, fault: &Fault, leader: Option<&str>) -> Result<Done> {
        match fault {
            Fault::Kill { who, down } => self.kill(&self.find(*who, leader)?, *down, label("kill", *who)),
            Fault::KillAll { down } => self.kill(&self.cluster.daemons()?, *down, "kill all daemons"),
            Fault::Stop { who, time } => self.stop(&self.find(*who, leader)?, *time, label("stop", *who)),
            Fault::Cut { cut, time } => self.cut(*cut, *time, leader),
            Fault::DiskError { node, error } => self.fail_disk(*node, *error),
            Fault::DiskStall { node, time } => self.stall_disk(*node, *time),
            Fault::DiskSlow { node, count, time } => self.slow_disks(*node, *count, *time),
            Fault::Full { time } => self.fill_disks(*time),
            Fault::SwapDisks { node } => self.swap_disks(*node),
            Fault::SecondDaemon { node } => self.second_daemon(*node),
            Fault::Corrupt { node, blocks, down, choice } => self.corrupt(*node, *blocks, *down, *choice),
            Fault::BadSectors { node, blocks, down, choice } => self.spoil_sectors(*node, *blocks, *down, *choice),
        }
    }

    fn kill(&self, victims: &[Daemon], down: Duration, label: &'static str) -> Result<Done> {
        self.kill_and(victims, || {
            last(down);
            Ok(())
        })?;
        let done = Done::new(label, names(victims), format!("down for {} ms", down.as_millis()));
        Ok(Done { down: Some(down), ..done })
    }

    /// Kills daemons, does something, and starts them again.
    fn kill_and<T>(&self, victims: &[Daemon], meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
        victims.iter().try_for_each(Daemon::kill)?;
        victims.iter().try_for_each(Daemon::kill_and_wait)?;
        let done = meanwhile()?;
        let names = names(victims);
        let named: Vec<&str> = names.iter().map(String::as_str).collect();
        if !named.is_empty() {
            self.cluster.up_only(&named).with_context(|| format!("after killing {}", names.join(" and ")))?;
        }
        Ok(done)
    }

    /// Kills daemons and starts them again.
    pub fn restart(&self, names: &[String]) -> Result<()> {
        let mut victims = self.cluster.daemons()?;
        victims.retain(|daemon| names.contains(&daemon.name));
        self.kill_and(&victims, || Ok(()))
    }

    fn stop(&self, victims: &[Daemon], time: Duration, label: &'static str) -> Result<Done> {
        victims.iter().try_for_each(Daemon::halt)?;
        last(time);
        victims.iter().try_for_each(Daemon::resume)?;
        Ok(Done::new(label, names(victims), format!("for {} ms", time.as_millis())))
    }

    fn cut(&self, cut: Cut, time: Duration, leader: Option<&str>) -> Result<Done> {
        let network = self.network.context("the daemons have no network that could be cut")?;
        let (label, ends, directions) = match cut {
            Cut::Isolate(who) => {
                let name = self.name(who, leader);
                let both = network.others(&name).flat_map(|other| [(&*name, other), (other, &*name)]);
                let both: Vec<_> = both.map(|(from, to)| (from.to_string(), to.to_string())).collect();
                (cut_label(who), vec![name], both)
            }
            Cut::Pair(one, other) => {
                let (a, b) = (self.name(one, leader), self.name(other, leader));
                ("cut one link", vec![a.clone(), b.clone()], vec![(a.clone(), b.clone()), (b, a)])
            }
            Cut::OneWay(from, to) => {
                let (a, b) = (self.name(from, leader), self.name(to, leader));
                ("cut one way", vec![a.clone(), b.clone()], vec![(a, b)])
            }
        };
        let cuts = directions.iter().map(|(from, to)| network.cut(from, to)).collect::<Result<Vec<_>>>()?;
        last(time);
        cuts.iter().try_for_each(|cut| network.mend(cut))?;
        Ok(Done::new(label, ends, format!("for {} ms", time.as_millis())))
    }

    /// Name of the daemon meant, whether it runs or not.
    fn name(&self, who: Who, leader: Option<&str>) -> String {
        let leader = leader.unwrap_or("meta-1");
        match who {
            Who::Node(index) => node_name(index),
            Who::MetaLeader => leader.into(),
            Who::MetaFollower if leader == "meta-1" && self.metas > 1 => "meta-2".into(),
            Who::MetaFollower => "meta-1".into(),
        }
    }

    /// The daemon meant, if it runs: the other of two faults may have killed it.
    fn find(&self, who: Who, leader: Option<&str>) -> Result<Vec<Daemon>> {
        let name = self.name(who, leader);
        let mut running = self.cluster.daemons()?;
        running.retain(|daemon| daemon.name == name);
        Ok(running)
    }
}

pub fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn names(daemons: &[Daemon]) -> Vec<String> {
    daemons.iter().map(|daemon| daemon.name.clone()).collect()
}

fn label(verb: &str, who: Who) -> &'static str {
    match (verb, who) {
        ("kill", Who::Node(_)) => "kill node",
        ("kill", Who::MetaLeader) => "kill meta leader",
        ("kill", Who::MetaFollower) => "kill meta follower",
        (_, Who::Node(_)) => "stop node",
        (_, Who::MetaLeader) => "stop meta leader",
        (_, Who::MetaFollower) => "stop meta follower",
    }
}

fn cut_label(who: Who) -> &'static str {
    match who {
        Who::Node(_) => "isolate node",
        Who::MetaLeader => "isolate meta leader",
        Who::MetaFollower => "isolate meta follower",
    }
}

/// Sleeps for the time that a fault lasts. An interrupted run ends it early.
fn last(time: Duration) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || interrupt::check().is_err() {
            return;
        }
        std::thread::sleep(left.min(GLANCE));
    }
}
