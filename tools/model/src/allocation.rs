//! Allocating and freeing: a small model of one place of a volume, whose chunks come and go, over the same replicas.
//!
//! One block. A chunk's replicas are on all nodes. `replicas[c]` is the node's replica of chunk `c`; numbers are never used
//! again. Takeovers are one step here; the other model is about them.

use crate::bounds::Bounds;
use crate::check::Invariant;
use crate::explain::{node_name, node_names};
use crate::gateway::decide;
use crate::order::{Entry, Epoch, Seq};
use crate::replica::{Answer, Replica};
use crate::rules::{Rule, Rules};
use stateright::{Model, Property};
use std::fmt;

/// Chunks that the place can have, one after the other.
const CHUNKS: usize = 2;

#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub bounds: Bounds,
    pub rules: Rules,
}

/// What the gateway asked the meta server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    Nothing,
    Allocate,
    Free,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    epoch: Epoch,
    /// The chunk that it knows.
    chunk: Option<usize>,
    asked: Asked,
    next: u8,
    /// It allocated the chunk: nothing of it can be in doubt.
    fresh: bool,
    open: Option<Entry>,
    /// Nodes that have acknowledged it, bit per node.
    acked: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    nodes: Vec<[Replica; CHUNKS]>,
    /// In order of their epochs, from 1.
    writers: Vec<Writer>,
    /// The chunk in the meta server's map.
    mapped: Option<usize>,
    /// As it was when a gateway that is to open the volume looked.
    glimpsed: Option<Option<usize>>,
    allocated: usize,
    writes: u8,
    /// What was acknowledged last and not freed.
    truth: Entry,
    /// What takeovers have decided: writes that took effect whoever hears so.
    effective: Vec<Entry>,
    pub broken: Option<Invariant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A gateway that is to open the volume looks at the map too early.
    Glimpse,
    /// A new gateway takes over, hearing these nodes.
    TakeOver {
        nodes: u8,
    },
    Ask {
        w: usize,
        what: Asked,
    },
    /// The meta server decides, and the gateway hears so.
    Decide {
        w: usize,
    },
    Create {
        w: usize,
        i: usize,
    },
    Write {
        w: usize,
    },
    Deliver {
        w: usize,
        i: usize,
    },
    /// A node deletes the replica of a chunk that was freed.
    Delete {
        i: usize,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Glimpse => write!(f, "a gateway that is to open the volume looks at the map"),
            Step::TakeOver { nodes } => write!(f, "a new gateway opens the volume and hears {}", node_names(*nodes)),
            Step::Ask { w, what: Asked::Free } => write!(f, "gateway {} asks to free the chunk", w + 1),
            Step::Ask { w, .. } => write!(f, "gateway {} asks for a chunk", w + 1),
            Step::Decide { w } => write!(f, "the meta server decides, and gateway {} hears so", w + 1),
            Step::Create { w, i } => write!(f, "gateway {} creates a replica at {}", w + 1, node_name(*i)),
            Step::Write { w } => write!(f, "gateway {} begins to write", w + 1),
            Step::Deliver { w, i } => write!(f, "the write of gateway {} reaches {}", w + 1, node_name(*i)),
            Step::Delete { i } => write!(f, "{} deletes the replica of the freed chunk", node_name(*i)),
        }
    }
}

impl Allocation {
    fn steps_of_writer(&self, state: &State, w: usize, out: &mut Vec<Step>) {
        let writer = &state.writers[w];
        if writer.asked != Asked::Nothing {
            out.push(Step::Decide { w });
        }
        let may_free = writer.open.is_none() || !self.rules.on(Rule::CloseBeforeFree);
        let idle = writer.asked == Asked::Nothing;
        if idle && writer.chunk.is_none() && state.allocated < CHUNKS && state.writes > 0 {
            out.push(Step::Ask { w, what: Asked::Allocate });
        }
        if idle && writer.chunk.is_some() && may_free {
            out.push(Step::Ask { w, what: Asked::Free });
        }
        let Some(chunk) = writer.chunk else { return };
        let closed = writer.asked == Asked::Free && self.rules.on(Rule::CloseBeforeFree);
        if writer.open.is_none() && !closed && state.writes > 0 {
            out.push(Step::Write { w });
        }
        for (i, node) in state.nodes.iter().enumerate() {
            let replica = &node[chunk];
            if !replica.admits(writer.epoch, self.rules) {
                continue;
            }
            if !replica.exists {
                out.push(Step::Create { w, i });
            } else if writer.open.is_some_and(|e| replica.entries[0].seq < e.seq) {
                out.push(Step::Deliver { w, i });
            }
        }
    }
}

impl State {
    pub fn take(&mut self, step: Step, setup: &Allocation) {
        match step {
            Step::Glimpse => self.glimpsed = Some(self.mapped),
            Step::TakeOver { nodes } => self.take_over(nodes, setup),
            Step::Ask { w, what } => self.writers[w].asked = what,
            Step::Decide { w } => self.decide(w, setup),
            Step::Create { w, i } => {
                if let Some(chunk) = self.writers[w].chunk {
                    let epoch = self.writers[w].epoch;
                    self.nodes[i][chunk].create();
                    if self.writers[w].fresh {
                        self.nodes[i][chunk].adopt(epoch);
                    }
                }
            }
            Step::Write { w } => {
                let writer = &mut self.writers[w];
                let seq = Seq::new(writer.epoch, writer.next);
                writer.open = Some(Entry { seq, origin: writer.epoch, zero: false });
                writer.acked = 0;
                writer.next += 1;
                self.writes -= 1;
            }
            Step::Deliver { w, i } => self.deliver(w, i, setup),
            Step::Delete { i } => self.delete(i),
        }
    }

    /// Fences every replica that the map names, and brings those heard to one state.
    fn take_over(&mut self, nodes: u8, setup: &Allocation) {
        let epoch = self.writers.len() as Epoch + 1;
        let early = self.glimpsed.take().filter(|_| !setup.rules.on(Rule::MapAfterOpen));
        let chunk = early.unwrap_or(self.mapped);
        let heard = |i: &usize| nodes & (1 << i) != 0;
        let mut decided = Entry::ABSENT;
        if let Some(c) = chunk {
            let answers: Vec<Answer> = (0..self.nodes.len()).filter(heard).map(|i| self.nodes[i][c].answer()).collect();
            let state = decide(answers.iter(), setup.rules);
            decided = state[0];
            for i in (0..self.nodes.len()).filter(heard) {
                let replica = &mut self.nodes[i][c];
                replica.exists = true;
                replica.fence(epoch);
                replica.entries = state;
                replica.adopt(epoch);
            }
        }
        // A node's fence holds for all that it has of the volume, but only nodes that the map names are fenced.
        for i in (0..self.nodes.len()).filter(|i| heard(i) && chunk.is_some()) {
            self.nodes[i].iter_mut().for_each(|r| r.fence(epoch));
        }
        let pending = self.writers.iter().any(|w| w.open == Some(decided));
        if decided != self.truth && !pending {
            let revived = decided.seq > self.truth.seq;
            self.broken = Some(if revived { Invariant::I4 } else { Invariant::I1 });
        }
        self.truth = decided;
        self.effective.push(decided);
        self.effective.sort_unstable();
        self.effective.dedup();
        self.writers.push(Writer { epoch, chunk, asked: Asked::Nothing, next: 1, fresh: false, open: None, acked: 0 });
    }

    fn decide(&mut self, w: usize, setup: &Allocation) {
        let current = w + 1 == self.writers.len() || !setup.rules.on(Rule::AllocateByCurrent);
        let writer = &mut self.writers[w];
        match std::mem::replace(&mut writer.asked, Asked::Nothing) {
            Asked::Allocate if current && self.mapped.is_none() && self.allocated < CHUNKS => {
                let new = if setup.rules.on(Rule::NewChunkIds) { self.allocated } else { 0 };
                self.mapped = Some(new);
                writer.chunk = Some(new);
                writer.fresh = true;
                self.allocated += 1;
                // Its nodes are fenced before it is used.
                let epoch = writer.epoch;
                self.nodes.iter_mut().filter(|n| n[new].fence <= epoch).for_each(|n| n[new].fence(epoch));
            }
            Asked::Free if current && self.mapped == writer.chunk => {
                self.mapped = None;
                if writer.open.is_none() {
                    writer.chunk = None;
                }
                if w + 1 < self.writers.len() && self.truth != Entry::ABSENT {
                    self.broken = Some(Invariant::I1);
                }
                self.truth = Entry::ABSENT;
            }
            _ => {}
        }
    }

    fn deliver(&mut self, w: usize, i: usize, setup: &Allocation) {
        let (Some(chunk), Some(entry)) = (self.writers[w].chunk, self.writers[w].open) else { return };
        self.nodes[i][chunk].write(0, entry, setup.rules);
        let writer = &mut self.writers[w];
        writer.acked |= 1 << i;
        if writer.acked.count_ones() as usize >= setup.bounds.min {
            writer.open = None;
            if self.effective.contains(&entry) {
                return;
            }
            let known = self.writers.last().is_some_and(|newest| newest.chunk == Some(chunk));
            if self.mapped != Some(chunk) || !known {
                self.broken = Some(Invariant::I10);
            }
            self.truth = self.truth.max(entry);
        }
    }

    /// A deleted replica leaves its node as if it had never been, but for the fence.
    fn delete(&mut self, i: usize) {
        for (c, replica) in self.nodes[i].iter_mut().enumerate() {
            if self.mapped != Some(c) && replica.exists {
                *replica = Replica { fence: replica.fence, awake: true, ..Replica::default() };
            }
        }
    }
}

impl Model for Allocation {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let empty = Replica { fence: 1, awake: true, ..Replica::default() };
        let first =
            Writer { epoch: 1, chunk: None, asked: Asked::Nothing, next: 1, fresh: false, open: None, acked: 0 };
        vec![State {
            nodes: vec![[empty; CHUNKS]; self.bounds.copies],
            writers: vec![first],
            mapped: None,
            glimpsed: None,
            allocated: 0,
            writes: self.bounds.budget.writes,
            truth: Entry::ABSENT,
            effective: vec![],
            broken: None,
        }]
    }

    fn actions(&self, state: &State, out: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        (0..state.writers.len()).for_each(|w| self.steps_of_writer(state, w, out));
        let freed = |n: &[Replica; CHUNKS]| (0..state.allocated).any(|c| n[c].exists && state.mapped != Some(c));
        out.extend((0..state.nodes.len()).filter(|i| freed(&state.nodes[*i])).map(|i| Step::Delete { i }));
        if state.writers.len() >= usize::from(self.bounds.epochs) {
            return;
        }
        if !self.rules.on(Rule::MapAfterOpen) && state.glimpsed.is_none() {
            out.push(Step::Glimpse);
        }
        let quorum = (self.bounds.copies + 1 - self.bounds.min).max(self.bounds.min);
        let sets = (0..1u8 << state.nodes.len()).filter(|nodes| nodes.count_ones() as usize >= quorum);
        out.extend(sets.map(|nodes| Step::TakeOver { nodes }));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = last.clone();
        next.take(step, self);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Allocation>> {
        vec![Property::always(crate::explore::SAFE, |_, state: &State| state.broken.is_none())]
    }
}
