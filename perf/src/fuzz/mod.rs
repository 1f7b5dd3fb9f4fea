//! A cluster one of whose kinds of ports is sent random and mutated messages, chosen by a seed: nothing may end, and nothing
//! that the messages do not name may be hurt.
//!
//! Beside it a *bystander*, a volume that no message names, is under verified load. Afterwards it is taken over by another
//! node, read back, written again, and its copies are compared.
//!
//! A [`Port`] knows how to attack one kind of port; everything else is here.

pub mod admin;
mod bystander;
pub mod bytes;
pub mod front_end;
pub mod link;
mod mutate;
pub mod raft;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::cluster::{Cluster, Shape};
use crate::faults::interrupt;
use crate::limits::FUZZ_DISK;
use crate::process::Daemon;
use crate::rng::Rng;
use bystander::Bystander;

/// How often it is looked whether all daemons still run.
const LOOK: Duration = Duration::from_millis(500);
/// How long the bystander is let alone, and then measured, before the attack.
const WARM_UP: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(8);
/// A quiet p99 below this says more about the moment than about the machine, milliseconds.
const NOISE_MS: f64 = 10.0;
/// How long a volume may take to be detached.
const DETACH_LIMIT: Duration = Duration::from_secs(60);

/// One kind of port under attack.
pub trait Port {
    /// How many times longer one in a hundred of the bystander's requests may take, if that is judged.
    const SLOWER: Option<f64> = None;

    /// Sends one message, or a few. An error means that the attack itself could not be made, say because nobody listens any
    /// more: that it is refused, or its connection ended, is as it should be.
    fn attack(&mut self, rng: &mut Rng) -> Result<()>;

    /// What must still be possible afterwards, beside what the bystander needs.
    fn check(&mut self, _cluster: &Cluster) -> Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct FuzzOptions {
    /// Folder of the cluster; what an earlier run left there is deleted.
    pub dir: PathBuf,
    pub base_port: u16,
    /// Meta servers: 1, 3 or 5.
    pub metas: usize,
    pub seed: u64,
    /// How long messages are sent.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub attacks: u64,
    /// Requests of the bystander's guest that completed meanwhile.
    pub completed: u64,
    /// What one in a hundred of them took at least, before the attack and during it, milliseconds.
    pub quiet_p99_ms: f64,
    pub p99_ms: f64,
}

/// Starts a cluster, attacks the port that `open` finds in it, and checks what must have stayed as it was.
pub fn run<P: Port>(options: &FuzzOptions, open: impl FnOnce(&Cluster, &mut Rng) -> Result<P>) -> Result<Report> {
    let shape = Shape {
        base_port: options.base_port,
        nodes: 3,
        metas: options.metas,
        disks_per_node: 1,
        disk_size: FUZZ_DISK,
        network: None,
        repair_after: None,
    };
    let cluster = Cluster::create_shaped(&options.dir, &shape)?;
    let mut rng = Rng::new(options.seed);
    let bystander = Bystander::start(&cluster, options.seed)?;
    let mut port = open(&cluster, &mut rng)?;
    std::thread::sleep(WARM_UP);
    bystander.p99_ms();
    std::thread::sleep(QUIET);
    let quiet_p99_ms = bystander.p99_ms();
    let attacks = attack(options, &cluster, &bystander, &mut port, &mut rng)?;
    let p99_ms = bystander.p99_ms();
    if let Some(slower) = P::SLOWER {
        let most = slower * quiet_p99_ms.max(NOISE_MS);
        ensure!(p99_ms <= most, "the bystander's p99 was {quiet_p99_ms} ms before and {p99_ms} ms during the attack");
    }
    let completed = bystander.survive(&cluster)?;
    port.check(&cluster)?;
    cluster.destroy()?;
    Ok(Report { seed: options.seed, attacks, completed, quiet_p99_ms, p99_ms })
}

/// Attacks until the time is up; how often.
fn attack<P: Port>(
    options: &FuzzOptions,
    cluster: &Cluster,
    bystander: &Bystander,
    port: &mut P,
    rng: &mut Rng,
) -> Result<u64> {
    let daemons = cluster.daemons()?;
    ensure!(!daemons.is_empty(), "no daemon runs");
    let (begun, mut looked, mut attacks) = (Instant::now(), Instant::now(), 0);
    while begun.elapsed() < options.time {
        interrupt::check()?;
        port.attack(rng).map_err(|e| e.context(format!("attack {attacks} of seed {}", options.seed)))?;
        attacks += 1;
        if looked.elapsed() > LOOK {
            all_run(&daemons, cluster).map_err(|e| e.context(format!("after {attacks} attacks")))?;
            bystander.is_served()?;
            looked = Instant::now();
        }
    }
    all_run(&daemons, cluster)?;
    Ok(attacks)
}

/// Whether the same processes still run.
fn all_run(before: &[Daemon], cluster: &Cluster) -> Result<()> {
    let now = cluster.daemons()?;
    match before.iter().find(|daemon| !now.contains(daemon)) {
        Some(gone) => bail!("{} (process {}) has ended", gone.name, gone.pid),
        None => Ok(()),
    }
}
