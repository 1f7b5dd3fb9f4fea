//! Steps that bring a member up to date while the chunk is served: fence, create, compare, copy, adopt.

use crate::order::Set;
use crate::rules::Rule;
use crate::steps::Step;
use crate::world::{Setup, World};

impl World {
    pub fn steps_of_catching_up(&self, g: usize, setup: &Setup, out: &mut Vec<Step>) {
        for (i, node) in self.nodes.iter().enumerate() {
            let view = &node.views[g];
            if !view.member {
                continue;
            }
            if !view.live && node.replica.fence <= self.gateways[g].epoch && !view.fenced() {
                out.push(Step::Fence { g, i });
            }
            if !self.reaches(g, i, setup) {
                continue;
            }
            if view.fenced() {
                out.push(Step::Create { g, i });
            }
            if !view.live || !node.replica.exists {
                continue;
            }
            for block in (0..setup.bounds.blocks).filter(|b| view.copies[usize::from(*b)].is_some()) {
                out.push(Step::Copy { g, i, block });
            }
            if view.compare {
                out.extend(self.sources(g, i, setup).map(|from| Step::Compare { g, i, from }));
            } else if !view.dirty.is_empty() {
                for block in view.dirty.iter().filter(|b| view.copies[usize::from(*b)].is_none()) {
                    let holds = |from: &usize| self.nodes[*from].views[g].holds(block, &self.gateways[g].ops);
                    let sources = self.sources(g, i, setup).filter(holds);
                    out.extend(sources.map(|from| Step::Fetch { g, i, from, block }));
                }
            } else if view.sending.is_empty() && view.adopt && self.may_adopt(g, i, setup) {
                out.push(Step::Adopt { g, i });
            }
        }
    }

    /// Requests on a link, and records in a log, are first in, first out: what was sent before the adoption is durable before it.
    fn may_adopt(&self, g: usize, i: usize, setup: &Setup) -> bool {
        let view = &self.nodes[i].views[g];
        view.resent.and(view.owes).is_empty() || !setup.rules.on(Rule::AdoptAfterWrites)
    }

    /// Members that can be compared with, or copied from.
    fn sources(&self, g: usize, i: usize, setup: &Setup) -> impl Iterator<Item = usize> {
        let usable = move |j: &usize| {
            let node = &self.nodes[*j];
            *j != i
                && node.views[g].is_known()
                && node.replica.exists
                && !node.replica.damaged
                && self.reaches(g, *j, setup)
        };
        (0..self.nodes.len()).filter(usable)
    }

    /// A member is fenced, again or late, and says what it has.
    pub fn readmit(&mut self, g: usize, i: usize, setup: &Setup) {
        let epoch = self.gateways[g].epoch;
        let open: Vec<u8> = self.gateways[g].ops.iter().map(|op| op.name()).collect();
        let replica = self.nodes[i].replica;
        let view = self.view(g, i);
        let adopted = replica.adopted == epoch;
        let is_lost = !replica.exists || replica.damaged || (!adopted && !view.compare && !view.adopt);
        let reconciles = setup.rules.on(Rule::ReconcileLatecomers);
        if is_lost {
            view.damaged |= view.made;
            view.compare = true;
            view.adopt = true;
        } else if !view.compare {
            view.adopt = !adopted;
        }
        view.compare &= reconciles || is_lost;
        view.create = !replica.exists;
        view.live = replica.exists;
        view.made |= replica.exists;
        if is_lost && setup.rules.on(Rule::ForgetAcks) {
            view.acked = Set::default();
        }
        if view.live {
            self.owe_open(g, i, &open);
            self.serve_if_adopted(g, setup);
        }
    }

    /// The member is to get every open write that it has not acknowledged.
    fn owe_open(&mut self, g: usize, i: usize, open: &[u8]) {
        let view = self.view(g, i);
        for op in open.iter().filter(|op| !view.acked.has(**op)).collect::<Vec<_>>() {
            view.owes.add(*op);
            view.resent.add(*op);
        }
    }

    pub fn create(&mut self, g: usize, i: usize, setup: &Setup) {
        let epoch = self.gateways[g].epoch;
        let open: Vec<u8> = self.gateways[g].ops.iter().map(|op| op.name()).collect();
        let node = &mut self.nodes[i];
        node.replica.create();
        if !setup.rules.on(Rule::NewcomerKnowsNothing) {
            node.replica.adopted = epoch;
        }
        let view = &mut node.views[g];
        view.create = false;
        view.live = true;
        view.made = true;
        self.owe_open(g, i, &open);
    }

    /// Finds out what a member misses, by comparing it with one that need not be complete itself.
    pub fn compare(&mut self, g: usize, i: usize, from: usize, setup: &Setup) {
        let epoch = self.gateways[g].epoch;
        let mut doubtful = self.nodes[from].views[g].doubtful();
        if setup.rules.on(Rule::OwedIsDoubtful) {
            let source = &self.nodes[from].views[g];
            let owed = self.gateways[g].ops.iter().filter(|op| source.owes.has(op.name()));
            owed.for_each(|op| doubtful.add(op.block));
        }
        let (ours, theirs) = (self.nodes[from].replica.entries, self.nodes[i].replica.entries);
        let view = self.view(g, i);
        for block in 0..setup.bounds.blocks {
            let b = usize::from(block);
            let is_new = theirs[b].seq.epoch() == epoch && !view.damaged && doubtful.has(block);
            if is_new {
                doubtful.remove(block);
            } else if ours[b] != theirs[b] && (ours[b].seq.counter() > 0 || setup.rules.on(Rule::CopyAbsent)) {
                view.dirty.add(block);
            }
        }
        view.dirty = view.dirty.or(doubtful);
        view.compare = false;
        view.damaged = false;
    }

    /// Reads a block for a member that misses it.
    pub fn fetch(&mut self, g: usize, i: usize, from: usize, block: u8) {
        let entry = self.nodes[from].replica.entries[usize::from(block)];
        let view = self.view(g, i);
        view.dirty.remove(block);
        view.sending.add(block);
        view.copies[usize::from(block)] = Some(entry);
    }

    /// The copy reaches the member. If a write has come meanwhile, it is of no interest to the gateway any more.
    pub fn copy(&mut self, g: usize, i: usize, block: u8, setup: &Setup) {
        let epoch = self.gateways[g].epoch;
        let node = &mut self.nodes[i];
        let view = &mut node.views[g];
        view.sending.remove(block);
        if let Some(entry) = view.copies[usize::from(block)].take() {
            node.replica.repair(epoch, block, entry, setup.rules);
        }
        self.serve_if_adopted(g, setup);
    }
}
