//! Named bounds: what is explored, and where a rule that is switched off is noticed.

use crate::bounds::{Bounds, Budget};
use crate::rules::Rule;

/// Which model a scenario is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Replication,
    Versions,
    Allocation,
}

#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub text: &'static str,
    pub kind: Kind,
    pub bounds: Bounds,
    /// Takes minutes: explored only when asked for.
    pub large: bool,
}

const fn of(name: &'static str, text: &'static str, bounds: Bounds) -> Scenario {
    Scenario { name, text, kind: Kind::Replication, bounds, large: false }
}

const fn large(name: &'static str, text: &'static str, bounds: Bounds) -> Scenario {
    Scenario { large: true, ..of(name, text, bounds) }
}

const TWO: Budget = Budget { writes: 2, discards: 0, losses: 0, restarts: 0, damages: 0, changes: 0 };
const ONE: Budget = Budget { writes: 1, ..TWO };
const THREE: Budget = Budget { writes: 3, ..TWO };

const fn base(copies: usize, min: usize) -> Bounds {
    Bounds::of(copies, min).budget(Budget { losses: 1, ..TWO })
}

/// Two of three copies acknowledge.
const fn three(epochs: u8, budget: Budget) -> Bounds {
    Bounds { epochs, ..Bounds::of(3, 2) }.budget(budget)
}

const fn with_spares(spares: usize, bounds: Bounds) -> Bounds {
    Bounds { spares, ..bounds }
}

const fn with_blocks(blocks: u8, bounds: Bounds) -> Bounds {
    Bounds { blocks, ..bounds }
}

pub const SCENARIOS: &[Scenario] = &[
    of("base-2-1", "takeovers and a broken link, 1 of 2 copies acknowledges", base(2, 1)),
    of("base-2-2", "the same, 2 of 2 copies acknowledge", base(2, 2)),
    of("base-3-1", "the same, 1 of 3 copies acknowledges", base(3, 1)),
    of("base-3-2", "the same, 2 of 3 copies acknowledge", base(3, 2)),
    of("base-3-3", "the same, 3 of 3 copies acknowledge", base(3, 3)),
    of("two-blocks", "adoption takes several steps", with_blocks(2, three(3, TWO))),
    of("four-epochs", "three takeovers, one after the other or at once", three(4, ONE)),
    of("links", "two broken links, one takeover", three(2, Budget { losses: 2, ..TWO })),
    of("restarts", "a replica restarts", three(3, Budget { restarts: 1, ..TWO })),
    of(
        "buffered",
        "writes are accepted before they are durable",
        Bounds { buffered: true, ..three(3, Budget { restarts: 1, ..ONE }) },
    ),
    of("damage", "a replica loses an entry to corruption", three(3, Budget { damages: 1, ..TWO })),
    of("double-damage", "replicas lose entries twice", three(2, Budget { damages: 2, ..ONE })),
    of("replace", "a member is replaced", with_spares(1, three(2, Budget { changes: 1, ..TWO }))),
    of("replace-two", "two members are replaced at once", with_spares(2, three(2, Budget { changes: 1, ..ONE }))),
    of(
        "drain",
        "a member is added, filled, and another removed",
        with_spares(1, three(2, Budget { changes: 2, ..ONE })),
    ),
    of(
        "replace-and-lose",
        "a member is replaced while a link breaks",
        with_spares(1, three(2, Budget { changes: 1, losses: 1, ..ONE })),
    ),
    of("discard", "commit points let compaction drop tombstones", three(2, Budget { discards: 1, losses: 1, ..ONE })),
    Scenario { kind: Kind::Versions, ..of("snapshot", "a version is opened, sealed and read", three(3, THREE)) },
    Scenario {
        kind: Kind::Allocation,
        ..of("allocation", "a chunk is allocated, freed, allocated anew", three(3, TWO))
    },
    large(
        "large-3-2",
        "three writes to two blocks, a broken link",
        with_blocks(2, base(3, 2).budget(Budget { losses: 1, ..THREE })),
    ),
    large("large-links", "two broken links, two takeovers", three(3, Budget { losses: 2, ..TWO })),
    large(
        "large-replace",
        "a member is replaced, a link breaks, two takeovers",
        with_spares(1, three(3, Budget { changes: 1, losses: 1, ..TWO })),
    ),
    large(
        "large-replace-two",
        "two members are replaced at once, two takeovers",
        with_spares(2, three(3, Budget { changes: 1, ..TWO })),
    ),
];

/// The scenario of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|s| s.name == name)
}

/// A rule switched off, and the scenario in which that is noticed.
#[derive(Debug)]
pub struct Mutant {
    pub rule: Rule,
    /// Another rule that has the same effect there, and has to be off as well.
    pub with: Option<Rule>,
    pub scenario: &'static str,
    /// What is broken is that the chunk stays unserved.
    pub live: bool,
}

const fn off(rule: Rule, scenario: &'static str) -> Mutant {
    Mutant { rule, with: None, scenario, live: false }
}

pub const MUTANTS: &[Mutant] = &[
    off(Rule::WriteQuorum, "base-3-2"),
    off(Rule::ReadQuorum, "base-3-1"),
    off(Rule::LargerSeqWins, "base-2-2"),
    off(Rule::RefuseBelowFence, "base-2-2"),
    off(Rule::PersistFence, "restarts"),
    off(Rule::VoidUnadopted, "two-blocks"),
    off(Rule::AdoptWhenHeld, "base-3-2"),
    off(Rule::ServeWhenAdopted, "two-blocks"),
    off(Rule::FenceAfterWrites, "buffered"),
    off(Rule::ReconcileLatecomers, "two-blocks"),
    off(Rule::MergeNewEntries, "base-2-2"),
    off(Rule::CopyAbsent, "two-blocks"),
    off(Rule::EpochPerIncarnation, "base-2-2"),
    off(Rule::DamagedIsNoWitness, "damage"),
    off(Rule::FenceFirst, "damage"),
    Mutant { with: Some(Rule::OwedIsDoubtful), ..off(Rule::ForgetAcks, "double-damage") },
    Mutant { with: Some(Rule::OwedIsDoubtful), ..off(Rule::AdoptAfterWrites, "double-damage") },
    Mutant { live: true, ..off(Rule::OwedIsDoubtful, "links") },
    off(Rule::OldLinksAreDead, "base-3-2"),
    off(Rule::SameData, "base-2-2"),
    off(Rule::ReadWaits, "two-blocks"),
    off(Rule::KeptAreCurrent, "replace"),
    off(Rule::KeptAcknowledge, "replace"),
    off(Rule::KeptHaveAll, "replace"),
    off(Rule::ChangeByCurrent, "replace"),
    off(Rule::AskForOutcome, "replace"),
    off(Rule::QuorumKnows, "replace-two"),
    off(Rule::NewcomerKnowsNothing, "replace"),
    off(Rule::CommitNeedsAll, "discard"),
    off(Rule::CommitAfterCopies, "discard"),
    off(Rule::WriteAboveCommit, "discard"),
    off(Rule::DropBelowCommit, "discard"),
    off(Rule::OpenVersionFirst, "snapshot"),
    off(Rule::OpenByCurrent, "snapshot"),
    off(Rule::SealComplete, "snapshot"),
    off(Rule::ReadSealed, "snapshot"),
    off(Rule::AllocateByCurrent, "allocation"),
    off(Rule::CloseBeforeFree, "allocation"),
    off(Rule::MapAfterOpen, "allocation"),
    off(Rule::NewChunkIds, "allocation"),
    off(Rule::ReadComplete, "two-blocks"),
];

impl Mutant {
    pub fn of(rule: Rule) -> Option<&'static Mutant> {
        MUTANTS.iter().find(|m| m.rule == rule)
    }

    /// The rules that are off.
    pub fn off(&self) -> Vec<Rule> {
        std::iter::once(self.rule).chain(self.with).collect()
    }
}
