//! Snapshots: a small model of opening and sealing a version, over the same replicas.
//!
//! One block. A replica keeps its newest entry per version: `entries[0]` is what the snapshot at the volume's first version
//! shows, `entries[1]` what was written after it. Takeovers are one step here; the other model is about them.

use crate::bounds::Bounds;
use crate::check::Invariant;
use crate::explain::{node_name, node_names};
use crate::gateway::decide;
use crate::order::{Blocks, Entry, Epoch, Seq};
use crate::replica::{Answer, Replica};
use crate::rules::{Rule, Rules};
use stateright::{Model, Property};
use std::fmt;

const FIRST: usize = 0;
const SECOND: usize = 1;

#[derive(Clone, Copy, Debug)]
pub struct Versions {
    pub bounds: Bounds,
    pub rules: Rules,
}

/// A version, and a write at it.
type Versioned = (usize, Entry);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    replica: Replica,
    /// It has durably recorded that the first version is sealed.
    sealed: bool,
    /// Writes on their way to it.
    owes: Vec<Versioned>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    epoch: Epoch,
    /// The version that it writes at.
    version: usize,
    next: u8,
    /// It knows that the version that it asked for is open.
    told: bool,
    /// The write that is not answered.
    open: Option<Versioned>,
    /// Nodes that have acknowledged it, bit per node.
    acked: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    nodes: Vec<Node>,
    /// In order of their epochs, from 1.
    writers: Vec<Writer>,
    /// The highest version that was opened in Raft.
    opened: usize,
    writes: u8,
    /// What was acknowledged last, per version.
    truth: Blocks,
    /// What a reader of the snapshot was shown.
    shown: Option<Entry>,
    pub broken: Option<Invariant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new gateway takes over, hearing these nodes.
    TakeOver {
        nodes: u8,
    },
    OpenVersion {
        w: usize,
    },
    /// From now on the gateway writes at the second version.
    Flip {
        w: usize,
    },
    Write {
        w: usize,
    },
    Deliver {
        i: usize,
        at: usize,
    },
    Seal {
        w: usize,
        i: usize,
    },
    CatchUp {
        i: usize,
        from: usize,
    },
    ReadSnapshot {
        i: usize,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::TakeOver { nodes } => write!(f, "a new gateway opens the volume and hears {}", node_names(*nodes)),
            Step::OpenVersion { w } => write!(f, "gateway {}'s snapshot is committed: version 2 is open", w + 1),
            Step::Flip { w } => write!(f, "gateway {} writes at version 2 from now on", w + 1),
            Step::Write { w } => write!(f, "gateway {} begins to write", w + 1),
            Step::Deliver { i, .. } => write!(f, "a write reaches {}", node_name(*i)),
            Step::Seal { w, i } => write!(f, "gateway {} has {} seal version 1", w + 1, node_name(*i)),
            Step::CatchUp { i, from } => write!(f, "{} is brought to the state of {}", node_name(*i), node_name(*from)),
            Step::ReadSnapshot { i } => write!(f, "somebody reads the snapshot from {}", node_name(*i)),
        }
    }
}

impl Versions {
    /// Whether the gateway has this member among those that serve it.
    fn has(&self, writer: &Writer, node: &Node) -> bool {
        node.replica.is_readable(writer.epoch, self.rules)
    }

    fn steps_of_writer(&self, state: &State, w: usize, out: &mut Vec<Step>) {
        let writer = &state.writers[w];
        let first = self.rules.on(Rule::OpenVersionFirst);
        let current = w + 1 == state.writers.len() || !self.rules.on(Rule::OpenByCurrent);
        if state.opened == FIRST && current && (first || writer.version == SECOND) {
            out.push(Step::OpenVersion { w });
        }
        let may_flip = !first || writer.told;
        if writer.version == FIRST && writer.open.is_none() && may_flip {
            out.push(Step::Flip { w });
        }
        if writer.open.is_none() && state.writes > 0 {
            out.push(Step::Write { w });
        }
        let pending = |n: &Node| n.owes.iter().any(|(v, e)| *v == FIRST && e.seq.epoch() == writer.epoch);
        for (i, node) in state.nodes.iter().enumerate().filter(|(_, n)| self.has(writer, n) && !n.sealed) {
            let settled = writer.version == SECOND && !pending(node) && writer.open.is_none_or(|(v, _)| v == SECOND);
            if state.opened == SECOND && (settled || !self.rules.on(Rule::SealComplete)) {
                out.push(Step::Seal { w, i });
            }
        }
    }

    fn steps_of_node(&self, state: &State, i: usize, out: &mut Vec<Step>) {
        let node = &state.nodes[i];
        let taken = |(_, (_, e)): &(usize, &Versioned)| node.replica.admits(e.seq.epoch(), self.rules);
        out.extend(node.owes.iter().enumerate().filter(taken).map(|(at, _)| Step::Deliver { i, at }));
        let Some(newest) = state.writers.last() else { return };
        if node.replica.adopted < newest.epoch {
            let complete = |n: &Node| self.has(newest, n) && !n.owes.iter().any(|(_, e)| e.seq.epoch() == newest.epoch);
            let sources = state.nodes.iter().enumerate().filter(|(_, n)| complete(n));
            out.extend(sources.map(|(from, _)| Step::CatchUp { i, from }));
        }
        if state.opened == SECOND && (node.sealed || !self.rules.on(Rule::ReadSealed)) {
            out.push(Step::ReadSnapshot { i });
        }
    }

    /// Whether these nodes are enough to decide and to serve.
    fn may_take_over(&self, nodes: u8) -> bool {
        let quorum = self.bounds.copies + 1 - self.bounds.min;
        nodes.count_ones() as usize >= quorum.max(self.bounds.min)
    }
}

impl State {
    pub fn take(&mut self, step: Step, setup: &Versions) {
        match step {
            Step::TakeOver { nodes } => self.take_over(nodes, setup),
            Step::OpenVersion { w } => {
                self.opened = SECOND;
                self.writers[w].told = true;
            }
            Step::Flip { w } => self.writers[w].version = SECOND,
            Step::Write { w } => self.write(w),
            Step::Deliver { i, at } => self.deliver(i, at, setup),
            Step::Seal { i, .. } => self.nodes[i].sealed = true,
            Step::CatchUp { i, from } => self.catch_up(i, from),
            Step::ReadSnapshot { i } => {
                let entry = self.nodes[i].replica.entries[FIRST];
                let same = self.shown.is_none_or(|shown| shown == entry);
                if !same || entry != self.truth[FIRST] {
                    self.broken = Some(Invariant::I8);
                }
                self.shown = Some(entry);
            }
        }
        for node in &mut self.nodes {
            let fence = node.replica.fence;
            node.owes.retain(|(_, e)| e.seq.epoch() >= fence);
        }
    }

    fn take_over(&mut self, nodes: u8, setup: &Versions) {
        let epoch = self.writers.len() as Epoch + 1;
        if self.opened == FIRST && self.truth[SECOND] != Entry::ABSENT {
            // The new gateway reads and writes at the first version: it does not see what was acknowledged.
            self.broken = Some(Invariant::I1);
        }
        let heard = |i: &usize| nodes & (1 << i) != 0;
        let answers: Vec<Answer> =
            (0..self.nodes.len()).filter(heard).map(|i| self.nodes[i].replica.answer()).collect();
        self.truth = decide(answers.iter(), setup.rules);
        for i in (0..self.nodes.len()).filter(heard) {
            let replica = &mut self.nodes[i].replica;
            replica.fence(epoch);
            replica.entries = self.truth;
            replica.adopt(epoch);
        }
        self.writers.push(Writer { epoch, version: self.opened, next: 1, told: false, open: None, acked: 0 });
    }

    fn write(&mut self, w: usize) {
        let writer = &mut self.writers[w];
        let entry = Entry { seq: Seq::new(writer.epoch, writer.next), origin: writer.epoch, zero: false };
        let write = (writer.version, entry);
        writer.next += 1;
        writer.open = Some(write);
        writer.acked = 0;
        self.writes -= 1;
        for node in self.nodes.iter_mut().filter(|n| n.replica.adopted == entry.seq.epoch()) {
            node.owes.push(write);
        }
    }

    fn deliver(&mut self, i: usize, at: usize, setup: &Versions) {
        let (version, entry) = self.nodes[i].owes.remove(at);
        self.nodes[i].replica.write(version as u8, entry, setup.rules);
        let writer = &mut self.writers[usize::from(entry.seq.epoch()) - 1];
        if writer.open != Some((version, entry)) {
            return;
        }
        writer.acked |= 1 << i;
        if writer.acked.count_ones() as usize >= setup.bounds.min {
            writer.open = None;
            self.truth[version] = self.truth[version].max(entry);
        }
    }

    /// A member that was not part of the takeover gets everything from one that has it, and the open write.
    fn catch_up(&mut self, i: usize, from: usize) {
        let source = self.nodes[from].replica;
        let Some(newest) = self.writers.last() else { return };
        let node = &mut self.nodes[i];
        node.replica.fence(newest.epoch);
        node.replica.entries = source.entries;
        node.replica.adopt(newest.epoch);
        node.owes.extend(newest.open);
    }
}

impl Model for Versions {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let node = Node { replica: Replica::new_member(), sealed: false, owes: vec![] };
        let first = Writer { epoch: 1, version: FIRST, next: 1, told: false, open: None, acked: 0 };
        vec![State {
            nodes: vec![node; self.bounds.copies],
            writers: vec![first],
            opened: FIRST,
            writes: self.bounds.budget.writes,
            truth: Blocks::default(),
            shown: None,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, out: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        (0..state.writers.len()).for_each(|w| self.steps_of_writer(state, w, out));
        (0..state.nodes.len()).for_each(|i| self.steps_of_node(state, i, out));
        if state.writers.len() < usize::from(self.bounds.epochs) {
            let sets = (0..1u8 << state.nodes.len()).filter(|nodes| self.may_take_over(*nodes));
            out.extend(sets.map(|nodes| Step::TakeOver { nodes }));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = last.clone();
        next.take(step, self);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Versions>> {
        vec![Property::always(crate::explore::SAFE, |_, state: &State| state.broken.is_none())]
    }
}
