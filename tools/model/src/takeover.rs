//! Steps of a gateway whose chunk is in doubt: fence, reconcile, adopt, serve.

use crate::check::Invariant;
use crate::gateway::{Gateway, Stage, View, decide, is_quorum, is_witness};
use crate::order::{Blocks, Set};
use crate::replica::Answer;
use crate::rules::Rule;
use crate::steps::Step;
use crate::world::{Setup, World};

impl World {
    /// Whether a request of the gateway is taken by the node.
    pub fn reaches(&self, g: usize, i: usize, setup: &Setup) -> bool {
        self.nodes[i].replica.admits(self.gateways[g].epoch, setup.rules)
    }

    pub fn steps_in_doubt(&self, g: usize, setup: &Setup, out: &mut Vec<Step>) {
        let gateway = &self.gateways[g];
        if self.attempt(g, setup).is_some() {
            out.push(Step::Reconcile { g });
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let view = &node.views[g];
            if !view.member {
                continue;
            }
            if view.answer.is_none() && node.replica.fence <= gateway.epoch {
                out.push(Step::Fence { g, i });
            }
            if view.answer.is_some() && !node.replica.awake {
                out.push(Step::Distrust { g, i });
            }
            if !view.in_attempt {
                continue;
            }
            if self.left.losses > 0 {
                out.push(Step::Lose { g, i });
            }
            if self.reaches(g, i, setup) {
                let left = (0..setup.bounds.blocks).filter(|b| !view.placed.has(*b));
                out.extend(left.clone().map(|block| Step::Place { g, i, block }));
                let early = !setup.rules.on(Rule::AdoptWhenHeld) && left.count() == 0;
                if early && node.replica.adopted != gateway.epoch {
                    out.push(Step::Adopt { g, i });
                }
            }
        }
    }

    /// The members that an attempt to reconcile would take, and whether it needs no listing. `None`: it cannot begin.
    fn attempt(&self, g: usize, setup: &Setup) -> Option<bool> {
        let Setup { bounds, rules, .. } = setup;
        let gateway = &self.gateways[g];
        let taking = self.members(g).filter(|n| n.views[g].in_attempt).count();
        if gateway.target.is_some() && taking >= bounds.min {
            return None;
        }
        let answered = || self.members(g).filter(|n| n.views[g].answer.is_some());
        let answers = answered().filter_map(|n| n.views[g].answer.as_ref());
        let members = self.members(g).count();
        if answered().count() < bounds.min || !is_quorum(answers.clone(), gateway.config, members, bounds, *rules) {
            return None;
        }
        if !gateway.touched && are_equal(answers, bounds.min, setup) {
            return Some(true);
        }
        let listed = answered().all(|n| n.replica.admits(gateway.epoch, *rules));
        listed.then_some(false)
    }

    /// Decides at once if all answers are equal; else lists the members and begins to bring them to one state.
    pub fn reconcile(&mut self, g: usize, setup: &Setup) {
        if self.attempt(g, setup) == Some(true) {
            let equal = self.members(g).filter_map(|n| n.views[g].answer).find(|a| is_witness(a, setup.rules));
            self.nodes.iter_mut().for_each(|n| {
                let view = &mut n.views[g];
                view.in_attempt = view.answer.is_some_and(|a| is_witness(&a, setup.rules));
            });
            self.gateways[g].target = equal.map(|a| a.entries);
            return self.decided(g, setup);
        }
        for node in self.nodes.iter_mut().filter(|n| n.views[g].answer.is_some()) {
            if !node.replica.exists {
                node.replica.create();
            }
            node.views[g].in_attempt = true;
        }
        let listed: Vec<Answer> =
            self.nodes.iter().filter(|n| n.views[g].in_attempt).map(|n| n.replica.answer()).collect();
        let target = decide(listed.iter(), setup.rules);
        for node in self.nodes.iter_mut().filter(|n| n.views[g].in_attempt) {
            node.views[g].placed = same(&node.replica.entries, &target);
        }
        self.gateways[g].target = Some(target);
        self.decide_if_held(g, setup);
    }

    /// Brings one block of a member to the wanted state.
    pub fn place(&mut self, g: usize, i: usize, block: u8, setup: &Setup) {
        let gateway = &mut self.gateways[g];
        gateway.touched = true;
        let Some(target) = gateway.target else { return };
        let node = &mut self.nodes[i];
        node.replica.repair(gateway.epoch, block, target[usize::from(block)], setup.rules);
        node.views[g].placed.add(block);
        self.decide_if_held(g, setup);
    }

    /// When `min` members durably hold the state, it stands for this epoch.
    fn decide_if_held(&mut self, g: usize, setup: &Setup) {
        let is_holder = |v: &View| v.in_attempt && v.placed == Set::ALL_BLOCKS;
        let holders = self.members(g).filter(|n| is_holder(&n.views[g])).count();
        if holders < setup.bounds.min {
            return;
        }
        self.nodes.iter_mut().for_each(|n| n.views[g].in_attempt = is_holder(&n.views[g]));
        self.decided(g, setup);
    }

    /// Those in the attempt hold the state, and are to adopt it; the others are caught up with them.
    fn decided(&mut self, g: usize, setup: &Setup) {
        self.gateways[g].stage = Stage::Adopting;
        self.gateways[g].touched = false;
        let epoch = self.gateways[g].epoch;
        for node in self.nodes.iter_mut().filter(|n| n.views[g].member) {
            let view = &mut node.views[g];
            let adopt = node.replica.adopted != epoch;
            *view = match view.in_attempt {
                true => View { member: true, live: true, made: true, adopt, ..View::default() },
                false if setup.rules.on(Rule::ReconcileLatecomers) => view.unknown(),
                false => View { adopt: true, ..View::of_member(true) },
            };
        }
        self.serve_if_adopted(g, setup);
    }

    pub fn adopt(&mut self, g: usize, i: usize, setup: &Setup) {
        let gateway = &self.gateways[g];
        let node = &mut self.nodes[i];
        node.replica.adopt(gateway.epoch);
        if gateway.is_decided() {
            node.views[g].adopt = false;
            self.serve_if_adopted(g, setup);
        }
    }

    /// Serves the chunk once enough members are current.
    pub fn serve_if_adopted(&mut self, g: usize, setup: &Setup) {
        let current = self.members(g).filter(|n| n.views[g].live && n.views[g].is_current()).count();
        let enough = if setup.rules.on(Rule::ServeWhenAdopted) { setup.bounds.min } else { 1 };
        if self.gateways[g].stage == Stage::Adopting && current >= enough {
            self.gateways[g].stage = Stage::Served;
            let base = self.gateways[g].target.take().unwrap_or_default();
            self.promise(g, base);
        }
    }

    /// From now on readers see what was adopted: the newest acknowledged state, or a write that was pending.
    fn promise(&mut self, g: usize, base: Blocks) {
        let epoch = self.gateways[g].epoch;
        if epoch <= self.spec.served {
            return;
        }
        for (truth, adopted) in self.spec.truth.iter_mut().zip(&base) {
            let pending = adopted.seq > truth.seq && adopted.seq.epoch() == self.spec.served;
            if adopted.value() != truth.value() && !pending {
                let revived = adopted.seq > truth.seq;
                self.broken = Some(if revived { Invariant::I4 } else { Invariant::I1 });
            }
            // A tombstone that was dropped is still the newest state.
            let is_dropped = adopted.value() == truth.value() && adopted.seq < truth.seq;
            *truth = if is_dropped { *truth } else { *adopted };
        }
        self.spec.served = epoch;
        self.spec.effective.extend(base);
    }

    /// A new process opens the volume: a new epoch, and the map as it is now.
    pub fn open(&mut self, setup: &Setup) {
        if setup.rules.on(Rule::EpochPerIncarnation) {
            self.meta.epoch += 1;
        }
        self.meta.incarnations += 1;
        self.gateways.push(Gateway::new(self.meta.epoch, self.meta.incarnations, self.meta.config));
        for node in &mut self.nodes {
            node.views.push(View::of_member(node.member));
        }
    }
}

fn same(a: &Blocks, b: &Blocks) -> Set {
    let mut same = Set::default();
    (0..a.len()).filter(|i| a[*i] == b[*i]).for_each(|i| same.add(i as u8));
    same
}

/// Whether enough answers are there, all the same, of replicas that exist.
fn are_equal<'a>(answers: impl Iterator<Item = &'a Answer> + Clone, min: usize, setup: &Setup) -> bool {
    let witnesses = answers.filter(|a| is_witness(a, setup.rules));
    let Some(first) = witnesses.clone().next() else { return false };
    witnesses.clone().count() >= min && first.exists && witnesses.clone().all(|a| a == first)
}
