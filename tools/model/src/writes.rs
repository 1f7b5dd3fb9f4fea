//! Steps of a gateway that serves: writes, their acknowledgement, and the loss of members.

use crate::check::Invariant;
use crate::gateway::{Change, Op, Stage};
use crate::network::{Kind, Late};
use crate::order::{Entry, Seq, Set};
use crate::rules::Rule;
use crate::steps::Step;
use crate::world::{Setup, World};

/// The origin of a retry that sends other data than the first time.
const OTHER_DATA: u8 = 100;

impl World {
    pub fn steps_of_writes(&self, g: usize, setup: &Setup, out: &mut Vec<Step>) {
        let gateway = &self.gateways[g];
        if gateway.stage == Stage::Served {
            for block in (0..setup.bounds.blocks).filter(|b| !gateway.is_written(*b)) {
                if self.left.writes > 0 {
                    out.push(Step::Write { g, block });
                }
                if self.left.discards > 0 {
                    out.push(Step::Discard { g, block });
                }
            }
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let view = &node.views[g];
            if !view.live || !view.member {
                continue;
            }
            if self.left.losses > 0 {
                out.push(Step::Lose { g, i });
            }
            if !node.replica.awake && setup.rules.on(Rule::FenceFirst) {
                out.push(Step::Distrust { g, i });
            }
            if !self.reaches(g, i, setup) || !node.replica.exists || node.replica.unflushed.is_some() {
                continue;
            }
            let owed = gateway.ops.iter().filter(|op| view.owes.has(op.name()));
            out.extend(owed.clone().map(|op| Step::Deliver { g, i, op: op.name() }));
            if !setup.rules.on(Rule::ReadWaits) && view.is_known() && !view.adopt {
                let unseen = gateway.ops.iter().filter(|op| !op.answered);
                let sees = |op: &&Op| node.replica.entries[usize::from(op.block)] == op.entry;
                out.extend(unseen.filter(sees).map(|op| Step::ReadEarly { g, i, op: op.name() }));
            }
        }
    }

    /// Begins a write: every live member owes it, the others miss it.
    pub fn begin_write(&mut self, g: usize, block: u8, zero: bool) {
        let gateway = &mut self.gateways[g];
        let entry = Entry { seq: Seq::new(gateway.epoch, gateway.next), origin: gateway.incarnation, zero };
        let op = Op { block, entry, answered: false };
        gateway.next += 1;
        gateway.ops.push(op);
        for view in self.nodes.iter_mut().map(|n| &mut n.views[g]).filter(|v| v.member) {
            match view.live {
                true => view.owes.add(op.name()),
                false => view.dirty.add(block),
            }
        }
    }

    /// A write reaches a member: it is durable there, or on its way to the disk.
    pub fn deliver(&mut self, g: usize, i: usize, op: u8, setup: &Setup) {
        let Some(op) = self.gateways[g].op(op).copied() else { return };
        let node = &mut self.nodes[i];
        if setup.bounds.buffered {
            node.replica.unflushed = Some((op.block, op.entry));
            return;
        }
        node.replica.write(op.block, op.entry, setup.rules);
        self.acknowledged(g, i, op.name(), setup);
    }

    /// What a replica accepted becomes durable, and its writer hears so.
    pub fn flush(&mut self, i: usize, setup: &Setup) {
        let Some((block, entry)) = self.nodes[i].replica.unflushed.take() else { return };
        self.nodes[i].replica.write(block, entry, setup.rules);
        let writer = self.gateways.iter().position(|g| g.incarnation == entry.origin);
        if let Some(g) = writer
            && self.nodes[i].views[g].live
        {
            self.acknowledged(g, i, entry.seq.counter(), setup);
        }
    }

    fn acknowledged(&mut self, g: usize, i: usize, op: u8, setup: &Setup) {
        let Some(known) = self.gateways[g].op(op).copied() else { return };
        let view = self.view(g, i);
        view.owes.remove(op);
        view.resent.remove(op);
        view.acked.add(op);
        if !known.answered {
            // Nothing newer than an unanswered write exists: the member misses nothing of the block any more.
            view.dirty.remove(known.block);
            view.sending.remove(known.block);
        }
        self.settle_ops(g, setup);
    }

    /// Answers the writes that enough members have, and forgets those that nobody owes.
    pub fn settle_ops(&mut self, g: usize, setup: &Setup) {
        for at in 0..self.gateways[g].ops.len() {
            let op = self.gateways[g].ops[at];
            if !op.answered && self.is_acknowledged(g, op.name(), setup) {
                self.gateways[g].ops[at].answered = true;
                self.complete(g, &op);
            }
        }
        let World { gateways, nodes, .. } = self;
        let owed = |op: &Op| nodes.iter().any(|n| n.views[g].member && n.views[g].owes.has(op.name()));
        let unflushed = |op: &Op| nodes.iter().any(|n| n.replica.unflushed.is_some_and(|(_, e)| e == op.entry));
        gateways[g].ops.retain(|op| !op.answered || owed(op) || unflushed(op));
        let open = gateways[g].ops.iter().fold(Set::default(), |mut all, op| {
            all.add(op.name());
            all
        });
        nodes.iter_mut().for_each(|n| n.views[g].acked.0 &= open.0);
    }

    fn is_acknowledged(&self, g: usize, op: u8, setup: &Setup) -> bool {
        let acked = self.members(g).filter(|n| n.views[g].acked.has(op)).count();
        let needed = setup.bounds.min - usize::from(!setup.rules.on(Rule::WriteQuorum));
        let attested = match self.gateways[g].change {
            Change::None => true,
            Change::Attesting => !setup.rules.on(Rule::KeptAcknowledge),
            _ => !setup.rules.on(Rule::KeptAcknowledge) || !setup.rules.on(Rule::AskForOutcome),
        };
        let kept = || self.members(g).filter(|n| n.views[g].wanted).all(|n| n.views[g].acked.has(op));
        acked >= needed.max(1) && (attested || kept())
    }

    /// The guest has its answer.
    pub fn complete(&mut self, g: usize, op: &Op) {
        let truth = &mut self.spec.truth[usize::from(op.block)];
        if self.gateways[g].epoch >= self.spec.served {
            if op.entry.seq >= truth.seq {
                *truth = op.entry;
            }
        } else if !self.spec.effective.contains(&op.entry) {
            self.broken = Some(Invariant::I3);
        }
    }

    /// A link breaks: the member gets nothing more, and misses what it owes; what was sent may still arrive.
    pub fn lose(&mut self, g: usize, i: usize, setup: &Setup) {
        let epoch = self.gateways[g].epoch;
        let target = self.gateways[g].target;
        let ops = self.gateways[g].ops.clone();
        let node = &mut self.nodes[i];
        let view = &mut node.views[g];
        let late = |kind, block, entry| Late { epoch, kind, block, entry };
        if view.in_attempt && !setup.rules.on(Rule::OldLinksAreDead) {
            let left = (0..setup.bounds.blocks).filter(|b| !view.placed.has(*b));
            let repairs = left.zip(target).map(|(b, t)| late(Kind::Repair, b, t[usize::from(b)]));
            node.late.extend(repairs);
        }
        view.answer = None;
        view.in_attempt = false;
        view.placed = Set::default();
        view.live = false;
        view.dirty = view.doubtful();
        view.sending = Set::default();
        for (b, copy) in view.copies.iter_mut().enumerate() {
            if let Some(entry) = copy.take()
                && !setup.rules.on(Rule::OldLinksAreDead)
            {
                node.late.push(late(Kind::Repair, b as u8, entry));
            }
        }
        for op in ops.iter().filter(|op| view.owes.has(op.name())) {
            view.dirty.add(op.block);
            node.late.push(late(Kind::Write, op.block, op.entry));
        }
        view.owes = Set::default();
        view.resent = Set::default();
        if !setup.rules.on(Rule::SameData) {
            self.gateways[g].ops.iter_mut().for_each(|op| op.entry.origin = OTHER_DATA);
        }
        self.give_up_attesting(g, i);
        self.settle_ops(g, setup);
    }
}
