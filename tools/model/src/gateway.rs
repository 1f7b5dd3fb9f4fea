//! A gateway: what it knows of its chunk, and the pure decisions of a takeover.
//!
//! A gateway is never removed by a crash. A dead gateway whose requests are still on their way is the same as one that
//! is alive, deposed, and slow: it can do what those requests do, whenever they arrive. So each request is one step
//! from gateway to replica and back, and only what a gateway sent and has since forgotten is kept by the network.

use crate::bounds::Bounds;
use crate::order::{Blocks, Entry, Epoch, MAX_BLOCKS, Set};
use crate::replica::Answer;
use crate::rules::{Rule, Rules};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Nothing is decided in this epoch.
    InDoubt,
    /// The state is decided, and at least `min_copies` members durably hold it.
    Adopting,
    Served,
}

/// How far a change of the replica set is, as its gateway sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    None,
    /// The kept members are current, and no write is acknowledged without all of them.
    Attesting,
    /// The request is on its way to the meta server, which has not seen it.
    Sent,
    /// The meta server has made the change; the gateway does not know yet.
    Made,
    /// The meta server has refused it; the gateway does not know yet.
    Refused,
}

/// A write that is not answered, or that a member owes. Its counter names it within its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op {
    pub block: u8,
    pub entry: Entry,
    pub answered: bool,
}

impl Op {
    pub fn name(&self) -> u8 {
        self.entry.seq.counter()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    pub epoch: Epoch,
    /// Tells processes apart.
    pub incarnation: u8,
    /// The config that it knows.
    pub config: u8,
    pub stage: Stage,
    /// An attempt to reconcile changed a member: what that one said when it was fenced is outdated.
    pub touched: bool,
    /// The state that members are being brought to, then the state that was decided; nothing once it is served.
    pub target: Option<Blocks>,
    pub next: u8,
    pub ops: Vec<Op>,
    pub change: Change,
}

impl Gateway {
    pub fn new(epoch: Epoch, incarnation: u8, config: u8) -> Gateway {
        let (stage, change) = (Stage::InDoubt, Change::None);
        Gateway { epoch, incarnation, config, stage, touched: false, target: None, next: 1, ops: vec![], change }
    }

    pub fn op(&self, name: u8) -> Option<&Op> {
        self.ops.iter().find(|op| op.name() == name)
    }

    /// Writes of a block that are not answered.
    pub fn is_written(&self, block: u8) -> bool {
        self.ops.iter().any(|op| op.block == block && !op.answered)
    }

    pub fn is_decided(&self) -> bool {
        self.stage != Stage::InDoubt
    }
}

/// What a gateway knows of one node's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct View {
    /// Member of the config that the gateway knows.
    pub member: bool,
    /// Member of the config that it asks for: of a change under way.
    pub wanted: bool,
    /// In doubt: the answer to the fence.
    pub answer: Option<Answer>,
    /// In doubt: it takes part in the attempt under way.
    pub in_attempt: bool,
    /// In doubt: blocks that durably are as the attempt wants them.
    pub placed: Set,
    /// Decided: it is fenced and exists, and is sent writes.
    pub live: bool,
    /// It is known to have existed in this epoch.
    pub made: bool,
    /// Decided: its node is fenced, and has no such replica.
    pub create: bool,
    pub compare: bool,
    /// It lost entries: not even what it acknowledged can be relied on.
    pub damaged: bool,
    pub adopt: bool,
    /// Blocks to copy.
    pub dirty: Set,
    /// Blocks being copied.
    pub sending: Set,
    /// Copies on their way, also those that do not matter any more.
    pub copies: [Option<Entry>; MAX_BLOCKS],
    /// Writes sent on this link and not acknowledged.
    pub owes: Set,
    /// Of those, the ones sent again when the link was made.
    pub resent: Set,
    /// Of the open writes, those acknowledged.
    pub acked: Set,
}

impl View {
    pub fn of_member(member: bool) -> View {
        View { member, ..View::default() }
    }

    /// Must be compared entry by entry, and adopt.
    pub fn unknown(&self) -> View {
        View { member: self.member, wanted: self.wanted, compare: true, adopt: true, ..View::default() }
    }

    /// Its node is fenced, and the replica is still to be made.
    pub fn fenced(&self) -> bool {
        self.create && !self.live
    }

    pub fn is_current(&self) -> bool {
        !self.create && !self.compare && !self.adopt && self.doubtful().is_empty()
    }

    /// Blocks that it is not known to hold; `compare` aside.
    pub fn doubtful(&self) -> Set {
        self.dirty.or(self.sending)
    }

    /// What it holds can be told from what it is noted to miss.
    pub fn is_known(&self) -> bool {
        self.member && self.live && !self.create && !self.compare
    }

    /// It holds the newest state of a block.
    pub fn holds(&self, block: u8, ops: &[Op]) -> bool {
        let owes = ops.iter().any(|op| op.block == block && self.owes.has(op.name()));
        self.is_known() && !self.doubtful().has(block) && !owes
    }
}

/// The state that answers decide. Let E* be the largest `adopted`: members at E* contribute all, others only what was written
/// in E* or later. Per block the largest seq wins.
pub fn decide<'a>(answers: impl Iterator<Item = &'a Answer> + Clone, rules: Rules) -> Blocks {
    let witnesses = answers.filter(|a| is_witness(a, rules));
    let newest = witnesses.clone().map(|a| a.adopted).max().unwrap_or_default();
    let mut decided = Blocks::default();
    for answer in witnesses {
        for (known, entry) in decided.iter_mut().zip(&answer.entries) {
            let counts = answer.adopted == newest || entry.seq.epoch() >= newest || !rules.on(Rule::VoidUnadopted);
            if counts && entry.seq > known.seq {
                *known = *entry;
            }
        }
    }
    decided
}

pub fn is_witness(answer: &Answer, rules: Rules) -> bool {
    !answer.damaged || !rules.on(Rule::DamagedIsNoWitness)
}

/// Whether the answers decide a chunk's state in a config of `members` members: any such set meets any `min` members. A
/// newcomer that was never filled holds only what it was given, so in a later config one answer must be another's.
pub fn is_quorum<'a>(
    answers: impl Iterator<Item = &'a Answer> + Clone,
    config: u8,
    members: usize,
    bounds: &Bounds,
    rules: Rules,
) -> bool {
    let witnesses = answers.filter(|a| is_witness(a, rules));
    let enough = members + 1 - bounds.min - usize::from(!rules.on(Rule::ReadQuorum));
    let knows = config == 1 || witnesses.clone().any(|a| a.adopted > 0) || !rules.on(Rule::QuorumKnows);
    knows && witnesses.count() >= enough.max(1)
}
