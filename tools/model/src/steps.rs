//! Everything that can happen, and what it does.

use crate::gateway::Change;
use crate::rules::Rule;
use crate::world::{Setup, World};

/// One step. `g` is a gateway, by its place among those that still matter; `i` a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Open,
    Fence { g: usize, i: usize },
    Reconcile { g: usize },
    Place { g: usize, i: usize, block: u8 },
    Adopt { g: usize, i: usize },
    Write { g: usize, block: u8 },
    Discard { g: usize, block: u8 },
    Deliver { g: usize, i: usize, op: u8 },
    ReadEarly { g: usize, i: usize, op: u8 },
    Lose { g: usize, i: usize },
    Distrust { g: usize, i: usize },
    Create { g: usize, i: usize },
    Compare { g: usize, i: usize, from: usize },
    Fetch { g: usize, i: usize, from: usize, block: u8 },
    Copy { g: usize, i: usize, block: u8 },
    Attest { g: usize, drop: u8, add: u8 },
    Ask { g: usize },
    Answer { g: usize },
    Learn { g: usize },
    Commit { g: usize, i: usize },
    Drop { i: usize, block: u8 },
    Flush { i: usize },
    Restart { i: usize, lost: Option<u8> },
    Late { i: usize, at: usize },
}

impl World {
    /// Everything that can happen now.
    pub fn steps(&self, setup: &Setup, out: &mut Vec<Step>) {
        if self.broken.is_some() {
            return;
        }
        if self.meta.incarnations < setup.bounds.epochs {
            out.push(Step::Open);
        }
        for g in 0..self.gateways.len() {
            if self.gateways[g].is_decided() {
                self.steps_of_catching_up(g, setup, out);
                self.steps_of_writes(g, setup, out);
                self.steps_of_changes(g, setup, out);
                self.steps_of_commits(g, setup, out);
            } else {
                self.steps_in_doubt(g, setup, out);
            }
        }
        self.steps_of_nodes(setup, out);
    }

    fn steps_of_nodes(&self, setup: &Setup, out: &mut Vec<Step>) {
        for (i, node) in self.nodes.iter().enumerate() {
            if node.replica.unflushed.is_some() {
                out.push(Step::Flush { i });
            }
            let late = node.late.iter().enumerate();
            let taken = late.filter(|(_, l)| node.replica.admits(l.epoch, setup.rules));
            out.extend(taken.map(|(at, _)| Step::Late { i, at }));
            if !node.replica.exists || !node.replica.awake {
                continue;
            }
            if self.left.restarts > 0 {
                out.push(Step::Restart { i, lost: None });
            }
            if self.left.damages > 0 {
                let held = (0..setup.bounds.blocks).filter(|b| node.replica.entries[usize::from(*b)].seq.counter() > 0);
                out.extend(held.map(|b| Step::Restart { i, lost: Some(b) }));
            }
        }
    }

    /// Takes a step. Nodes keep their places.
    pub fn take(&mut self, step: Step, setup: &Setup) {
        match step {
            Step::Open => self.open(setup),
            Step::Fence { g, i } => self.fence(g, i, setup),
            Step::Reconcile { g } => self.reconcile(g, setup),
            Step::Place { g, i, block } => self.place(g, i, block, setup),
            Step::Adopt { g, i } => self.adopt(g, i, setup),
            Step::Write { g, block } => {
                self.left.writes -= 1;
                self.begin_write(g, block, false);
            }
            Step::Discard { g, block } => {
                self.left.discards -= 1;
                self.begin_write(g, block, true);
            }
            Step::Deliver { g, i, op } => self.deliver(g, i, op, setup),
            Step::ReadEarly { g, op, .. } => {
                if let Some(op) = self.gateways[g].op(op).copied() {
                    self.complete(g, &op);
                }
            }
            Step::Lose { g, i } => {
                self.left.losses -= 1;
                self.lose(g, i, setup);
            }
            Step::Distrust { g, i } => self.lose(g, i, setup),
            Step::Create { g, i } => self.create(g, i, setup),
            Step::Compare { g, i, from } => self.compare(g, i, from, setup),
            Step::Fetch { g, i, from, block } => self.fetch(g, i, from, block),
            Step::Copy { g, i, block } => self.copy(g, i, block, setup),
            Step::Attest { g, drop, add } => {
                self.left.changes -= 1;
                self.attest(g, drop, add);
            }
            Step::Ask { g } => self.gateways[g].change = Change::Sent,
            Step::Answer { g } => self.answer_change(g, setup),
            Step::Learn { g } => self.learn(g, setup),
            Step::Commit { i, .. } => self.commit(i),
            Step::Drop { i, block } => self.nodes[i].replica.drop_tombstone(block),
            Step::Flush { i } => self.flush(i, setup),
            Step::Restart { i, lost } => self.restart(i, lost, setup),
            Step::Late { i, at } => {
                let node = &mut self.nodes[i];
                node.late.remove(at).arrive(&mut node.replica, setup.rules);
            }
        }
        self.prune(setup);
    }

    fn fence(&mut self, g: usize, i: usize, setup: &Setup) {
        if setup.rules.on(Rule::FenceAfterWrites) {
            self.flush(i, setup);
        }
        let epoch = self.gateways[g].epoch;
        self.nodes[i].replica.fence(epoch);
        if self.gateways[g].is_decided() {
            self.readmit(g, i, setup);
        } else {
            self.nodes[i].views[g].answer = Some(self.nodes[i].replica.answer());
        }
    }

    fn restart(&mut self, i: usize, lost: Option<u8>, setup: &Setup) {
        match lost {
            Some(_) => self.left.damages -= 1,
            None => self.left.restarts -= 1,
        }
        self.nodes[i].replica.restart(lost, setup.rules);
    }
}
