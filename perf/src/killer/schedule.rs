//! Who is killed next, and when.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::Daemon;
use crate::rng::Rng;

/// Load between two kills, milliseconds: mostly some time, sometimes next to none, so that a kill also
/// strikes a cluster that still recovers from the one before.
const LOAD_MS: (u64, u64) = (200, 2000);
const SHORT_LOAD_MS: (u64, u64) = (0, 150);
const SHORT_LOAD_PERCENT: u64 = 25;
/// How long the killed daemons stay down, milliseconds.
const PAUSE_MS: (u64, u64) = (0, 1500);
/// How often the next round waits for requests to flow again.
const WAIT_PERCENT: u64 = 75;

/// What kind of daemons a round kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Gateway,
    Replica,
    GatewayAndReplica,
    TwoReplicas,
    Meta,
}

/// One round as planned.
#[derive(Clone, Debug)]
pub struct Plan {
    pub load: Duration,
    pub target: Target,
    pub pause: Duration,
    /// Wait for progress before the next round.
    pub wait: bool,
    /// Picks among several replicas.
    choice: u64,
}

pub struct Schedule {
    rng: Rng,
    metas: bool,
}

impl Schedule {
    pub fn new(seed: u64, metas: bool) -> Schedule {
        Schedule { rng: Rng::new(seed ^ 0x6b69_6c6c), metas }
    }

    pub fn next_round(&mut self) -> Plan {
        let rng = &mut self.rng;
        let (low, high) = if rng.chance(SHORT_LOAD_PERCENT) { SHORT_LOAD_MS } else { LOAD_MS };
        let load = Duration::from_millis(rng.between(low, high));
        let target = match rng.below(100) {
            0..40 => Target::Gateway,
            40..65 => Target::Replica,
            65..80 => Target::GatewayAndReplica,
            80..90 => Target::TwoReplicas,
            _ if self.metas => Target::Meta,
            _ => Target::Gateway,
        };
        let pause = Duration::from_millis(rng.between(PAUSE_MS.0, PAUSE_MS.1));
        Plan { load, target, pause, wait: rng.chance(WAIT_PERCENT), choice: rng.next_u64() }
    }
}

impl Plan {
    /// The victims among the daemons that run.
    pub fn choose(&self, daemons: &[Daemon], gateway: &str) -> Result<Vec<Daemon>> {
        let gateways = || daemons.iter().filter(|d| d.is_storage() && d.name == gateway).cloned();
        let mut replicas: Vec<_> = daemons.iter().filter(|d| d.is_storage() && d.name != gateway).cloned().collect();
        let metas: Vec<_> = daemons.iter().filter(|d| !d.is_storage()).cloned().collect();
        if !replicas.is_empty() {
            let turn = self.choice as usize % replicas.len();
            replicas.rotate_left(turn);
        }
        let replicas = |n: usize| replicas.iter().take(n).cloned();
        let victims: Vec<Daemon> = match self.target {
            Target::Gateway => gateways().collect(),
            Target::Replica => replicas(1).collect(),
            Target::GatewayAndReplica => gateways().chain(replicas(1)).collect(),
            Target::TwoReplicas => replicas(2).collect(),
            Target::Meta => metas.into_iter().take(1).collect(),
        };
        if victims.is_empty() {
            let running: Vec<_> = daemons.iter().map(|d| d.name.as_str()).collect();
            bail!(
                "nothing to kill as {:?}: only [{}] run, so a daemon has ended by itself",
                self.target,
                running.join(", ")
            )
        }
        Ok(victims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemons() -> Vec<Daemon> {
        let daemon = |name: &str, program: &str| Daemon { name: name.into(), program: program.into(), pid: 0 };
        let mut all: Vec<_> = (1..=3).map(|n| daemon(&format!("node-{n}"), "levee-stored")).collect();
        all.push(daemon("meta-1", "levee-metad"));
        all
    }

    #[test]
    fn a_seed_repeats_its_rounds_and_hits_what_it_says() {
        let (mut a, mut b) = (Schedule::new(5, true), Schedule::new(5, true));
        let mut seen = Vec::new();
        for _ in 0..200 {
            let (plan, again) = (a.next_round(), b.next_round());
            let victims = plan.choose(&daemons(), "node-2").unwrap();
            assert_eq!(victims, again.choose(&daemons(), "node-2").unwrap());
            let names: Vec<_> = victims.iter().map(|v| v.name.as_str()).collect();
            match plan.target {
                Target::Gateway => assert_eq!(names, ["node-2"]),
                Target::Replica => assert!(names == ["node-1"] || names == ["node-3"]),
                Target::GatewayAndReplica => assert!(names.len() == 2 && names[0] == "node-2"),
                Target::TwoReplicas => assert!(names.len() == 2 && !names.contains(&"node-2")),
                Target::Meta => assert_eq!(names, ["meta-1"]),
            }
            if !seen.contains(&plan.target) {
                seen.push(plan.target);
            }
        }
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn metas_are_spared_on_demand_and_missing_victims_are_an_error() {
        let mut schedule = Schedule::new(5, false);
        assert!((0..200).all(|_| schedule.next_round().target != Target::Meta));
        assert!(schedule.next_round().choose(&[], "node-1").is_err());
    }
}
