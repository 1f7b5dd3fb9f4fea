//! What happens in each round: fixed by the seed alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::kind::{Kind, Need};
use crate::rng::Rng;

/// Load before a round's first fault, milliseconds: mostly some time, sometimes next to none, so that a
/// fault also strikes a cluster that still recovers from the one before.
const LOAD_MS: (u64, u64) = (200, 1500);
const SHORT_LOAD_MS: (u64, u64) = (0, 150);
const SHORT_LOAD_PERCENT: u64 = 25;
/// How often a round waits until all copies are whole again, compares them and reads everything back.
const SETTLE_PERCENT: u64 = 80;
/// How long killed daemons stay down, milliseconds.
const DOWN_MS: (u64, u64) = (0, 1500);
/// How long a daemon is stopped, milliseconds: mostly short, sometimes long enough to be given up.
const STOP_MS: (u64, u64) = (100, 1500);
const LONG_STOP_MS: (u64, u64) = (1500, 8000);
const LONG_PERCENT: u64 = 30;
/// How long disks stall.
const STALLS: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(2), Duration::from_secs(10)];
/// How long disks are slow, milliseconds.
const SLOW_MS: (u64, u64) = (4000, 12_000);
/// How long disks are full, milliseconds.
const FULL_MS: (u64, u64) = (500, 3000);
/// Most blocks that rot in one round.
const ROTTEN_BLOCKS: u64 = 16;
/// Most sectors that go bad in one round: far fewer than a disk is given up for.
const BAD_SECTORS: u64 = 8;
/// Latest start of the second of two faults, milliseconds after the first.
const SECOND_MS: u64 = 1500;

/// One of the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// A storage node, from 0.
    Node(usize),
    MetaLeader,
    /// A meta server that does not lead; the only one where there is only one.
    MetaFollower,
}

/// One fault with its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    Kill {
        who: Who,
        down: Duration,
    },
    KillAll {
        down: Duration,
    },
    Stop {
        who: Who,
        time: Duration,
    },
    Cut {
        cut: Cut,
        time: Duration,
    },
    DiskError {
        node: usize,
        error: DiskError,
    },
    DiskStall {
        node: usize,
        time: Duration,
    },
    /// The disks of so many nodes, from `node` on, are slow for so long.
    DiskSlow {
        node: usize,
        count: usize,
        time: Duration,
    },
    /// All disks are full for so long.
    Full {
        time: Duration,
    },
    /// Two disks exchange their paths while the node is down.
    SwapDisks {
        node: usize,
    },
    /// Another daemon says that it is this node.
    SecondDaemon {
        node: usize,
    },
    /// Bits flip in so many blocks; `choice` decides which. A daemon that is down meanwhile reads them at
    /// its start.
    Corrupt {
        node: usize,
        blocks: u32,
        down: bool,
        choice: u64,
    },
    /// So many blocks cannot be read, until they are written; `choice` decides which. A daemon that is down meanwhile meets
    /// them at its start.
    BadSectors {
        node: usize,
        blocks: u32,
        down: bool,
        choice: u64,
    },
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskError {
    OneRead,
    OneWrite,
    /// All reads, but no writes, for a while.
    Reads(Duration),
    /// Everything, for a while.
    All(Duration),
    /// Everything, until the daemon is started again on a disk that works.
    Good(Duration),
}

/// Which links fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// All of one daemon's.
    Isolate(Who),
    /// That between two, in both directions.
    Pair(Who, Who),
    /// The second hears nothing of the first, which still hears the second.
    OneWay(Who, Who),
}

impl Fault {
    /// What this machine must allow for it.
    pub fn need(&self) -> Option<Need> {
        match self {
            Fault::Kill { .. } | Fault::KillAll { .. } | Fault::Stop { .. } => None,
            Fault::Cut { .. } => Some(Need::Networks),
            Fault::DiskError { .. } | Fault::DiskStall { .. } | Fault::DiskSlow { .. } => Some(Need::Disks),
            Fault::Corrupt { .. } | Fault::BadSectors { .. } => Some(Need::Disks),
            Fault::Full { .. } | Fault::SwapDisks { .. } | Fault::SecondDaemon { .. } => None,
        }
    }
}

/// One round as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub kind: Kind,
    /// Load before the first fault.
    pub load: Duration,
    /// Each with its start, counted from the first.
    pub faults: Vec<(Duration, Fault)>,
    /// Wait until the cluster is whole, and check everything.
    pub settle: bool,
}

pub struct Schedule {
    rng: Rng,
    kinds: Vec<Kind>,
    nodes: usize,
}

impl Schedule {
    /// A schedule of `kinds`, which are not empty.
    pub fn new(seed: u64, kinds: &BTreeSet<Kind>, nodes: usize) -> Schedule {
        Schedule { rng: Rng::new(seed ^ 0x6661_756c_7473), kinds: kinds.iter().copied().collect(), nodes }
    }

    pub fn next_round(&mut self) -> Plan {
        let kind = *self.rng.pick(&self.kinds);
        let (low, high) = if self.rng.chance(SHORT_LOAD_PERCENT) { SHORT_LOAD_MS } else { LOAD_MS };
        let load = self.milliseconds((low, high));
        let faults = match kind {
            Kind::Two => self.two(),
            kind => vec![(Duration::ZERO, self.fault(kind))],
        };
        let settle = self.rng.chance(SETTLE_PERCENT);
        Plan { kind, load, faults, settle }
    }

    fn two(&mut self) -> Vec<(Duration, Fault)> {
        let kinds: Vec<Kind> = self.kinds.iter().copied().filter(|kind| kind.pairs()).collect();
        let pick = |rng: &mut Rng| if kinds.is_empty() { Kind::Kill } else { *rng.pick(&kinds) };
        let (first, second) = (pick(&mut self.rng), pick(&mut self.rng));
        let later = self.milliseconds((0, SECOND_MS));
        vec![(Duration::ZERO, self.fault(first)), (later, self.fault(second))]
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        match kind {
            Kind::Kill | Kind::Two => Fault::Kill { who: self.node(), down: self.milliseconds(DOWN_MS) },
            Kind::AllKilled => Fault::KillAll { down: self.milliseconds(DOWN_MS) },
            Kind::Stop => Fault::Stop { who: self.node(), time: self.stop_time() },
            Kind::Cut => Fault::Cut { cut: self.cut(), time: self.stop_time() },
            Kind::DiskError => Fault::DiskError { node: self.index(), error: self.disk_error() },
            Kind::DiskStall => Fault::DiskStall { node: self.index(), time: *self.rng.pick(&STALLS) },
            Kind::DiskSlow => {
                let count = *self.rng.pick(&[1, self.nodes - 1, self.nodes]);
                Fault::DiskSlow { node: self.index(), count, time: self.milliseconds(SLOW_MS) }
            }
            Kind::Full => Fault::Full { time: self.milliseconds(FULL_MS) },
            Kind::Corrupt => Fault::Corrupt {
                node: self.index(),
                blocks: self.rng.between(1, ROTTEN_BLOCKS) as u32,
                down: self.rng.chance(50),
                choice: self.rng.next_u64(),
            },
            Kind::BadSectors => Fault::BadSectors {
                node: self.index(),
                blocks: self.rng.between(1, BAD_SECTORS) as u32,
                down: self.rng.chance(50),
                choice: self.rng.next_u64(),
            },
            Kind::DiskNames => Fault::SwapDisks { node: self.index() },
            Kind::SecondDaemon => Fault::SecondDaemon { node: self.index() },
            Kind::Meta => self.meta_fault(),
        }
    }

    fn meta_fault(&mut self) -> Fault {
        let who = if self.rng.chance(60) { Who::MetaLeader } else { Who::MetaFollower };
        match self.rng.below(3) {
            0 => Fault::Kill { who, down: self.milliseconds(DOWN_MS) },
            1 => Fault::Stop { who, time: self.stop_time() },
            _ => Fault::Cut { cut: Cut::Isolate(who), time: self.stop_time() },
        }
    }

    fn cut(&mut self) -> Cut {
        let one = self.index();
        let step = 1 + self.rng.below(self.nodes as u64 - 1) as usize;
        let node = Who::Node(one);
        let other = match self.rng.below(10) {
            0..7 => Who::Node((one + step) % self.nodes),
            7..9 => Who::MetaLeader,
            _ => Who::MetaFollower,
        };
        match self.rng.below(4) {
            0 => Cut::Isolate(node),
            1 => Cut::Pair(node, other),
            2 => Cut::OneWay(node, other),
            _ => Cut::OneWay(other, node),
        }
    }

    fn disk_error(&mut self) -> DiskError {
        let time = self.stop_time();
        match self.rng.below(5) {
            0 => DiskError::OneRead,
            1 => DiskError::OneWrite,
            2 => DiskError::Reads(time),
            3 => DiskError::All(time),
            _ => DiskError::Good(time),
        }
    }

    fn index(&mut self) -> usize {
        self.rng.below(self.nodes as u64) as usize
    }

    fn node(&mut self) -> Who {
        Who::Node(self.index())
    }

    fn stop_time(&mut self) -> Duration {
        let range = if self.rng.chance(LONG_PERCENT) { LONG_STOP_MS } else { STOP_MS };
        self.milliseconds(range)
    }

    fn milliseconds(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(self.rng.between(low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind;
    use super::*;

    #[test]
    fn a_seed_repeats_its_rounds() {
        let (mut a, mut b) = (Schedule::new(5, &kind::all(), 3), Schedule::new(5, &kind::all(), 3));
        let mut other = Schedule::new(6, &kind::all(), 3);
        let rounds: Vec<Plan> = (0..100).map(|_| a.next_round()).collect();
        assert!(rounds.iter().all(|round| *round == b.next_round()));
        assert!(rounds.iter().any(|round| *round != other.next_round()));
    }

    /// What `make faults-short` does in its few rounds.
    #[test]
    fn the_short_run_has_the_kinds_that_it_is_for() {
        let makefile = include_str!("../../../Makefile");
        let line = makefile.lines().find(|line| line.contains("levee-faults") && line.contains("faults-short"));
        let number = |option: &str| -> u64 {
            let words: Vec<&str> = line.expect("there is a short run").split_whitespace().collect();
            let at = words.iter().position(|word| *word == option).expect(option);
            words[at + 1].parse().expect(option)
        };
        let has = |seed: u64| {
            let mut schedule = Schedule::new(seed, &kind::all(), 3);
            let rounds: BTreeSet<Kind> = (0..number("--rounds")).map(|_| schedule.next_round().kind).collect();
            let kinds = [Kind::Kill, Kind::AllKilled, Kind::Cut, Kind::Corrupt, Kind::BadSectors, Kind::DiskSlow];
            kinds.iter().chain(&[Kind::SecondDaemon, Kind::DiskNames]).all(|kind| rounds.contains(kind))
        };
        let seed = number("--seed");
        assert!(has(seed), "seed {seed} has not; {:?} has", (0..1_000_000).find(|seed| has(*seed)));
    }

    #[test]
    fn every_kind_asked_for_comes_and_no_other() {
        for kinds in [kind::all(), [Kind::Stop, Kind::Two].into(), [Kind::Meta].into()] {
            let mut schedule = Schedule::new(1, &kinds, 3);
            let mut seen = BTreeSet::new();
            for _ in 0..300 {
                let plan = schedule.next_round();
                seen.insert(plan.kind);
                assert_eq!(plan.faults.len(), 1 + usize::from(plan.kind == Kind::Two));
                for (_, fault) in &plan.faults {
                    let stopped = matches!(fault, Fault::Stop { .. });
                    assert!(stopped || kinds.contains(&Kind::Meta), "{fault:?} of {kinds:?}");
                    if let Fault::Cut { cut: Cut::Pair(a, b) | Cut::OneWay(a, b), .. } = fault {
                        assert_ne!(a, b);
                    }
                    if let Fault::Stop { who: Who::Node(node), .. } | Fault::Kill { who: Who::Node(node), .. } = fault {
                        assert!(*node < 3);
                    }
                }
            }
            assert_eq!(seen, kinds);
        }
    }
}
