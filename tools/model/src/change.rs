//! Steps that change a chunk's replica set.

use crate::gateway::{Change, Stage, View};
use crate::rules::Rule;
use crate::steps::Step;
use crate::world::{Node, Setup, World};

/// Members that one change replaces, at most.
const MAX_REPLACED: u32 = 2;

impl World {
    pub fn steps_of_changes(&self, g: usize, setup: &Setup, out: &mut Vec<Step>) {
        let gateway = &self.gateways[g];
        match gateway.change {
            Change::None if gateway.stage == Stage::Served && self.left.changes > 0 => self.wishes(g, setup, out),
            Change::None => {}
            Change::Attesting if self.is_attested(g, setup) => out.push(Step::Ask { g }),
            Change::Attesting => {}
            Change::Sent => out.push(Step::Answer { g }),
            Change::Made | Change::Refused => out.push(Step::Learn { g }),
        }
    }

    /// Every change of which the members that are kept are current.
    fn wishes(&self, g: usize, setup: &Setup, out: &mut Vec<Step>) {
        let mask = |is: &dyn Fn(&Node) -> bool| {
            let chosen = self.nodes.iter().enumerate().filter(|(_, n)| is(n));
            chosen.fold(0u8, |all, (i, _)| all | 1 << i)
        };
        let members = mask(&|n| n.views[g].member);
        let free = mask(&|n| !n.member && !n.retired && n.views.iter().all(|v| !v.member && !v.wanted));
        let current = mask(&|n| n.views[g].live && n.views[g].is_current());
        for (drop, add) in
            (0..1 << self.nodes.len()).flat_map(|d: u8| (0..1 << self.nodes.len()).map(move |a: u8| (d, a)))
        {
            let kept = members & !drop;
            let size = (kept | add).count_ones() as usize;
            let asked = drop & !members == 0 && add & !free == 0 && drop | add != 0 && kept != 0;
            let sized = (setup.bounds.copies..=setup.bounds.copies + 1).contains(&size);
            let few = drop.count_ones() <= MAX_REPLACED && add.count_ones() <= MAX_REPLACED;
            let usable = kept & !current == 0 || !setup.rules.on(Rule::KeptAreCurrent);
            if asked && sized && few && usable {
                out.push(Step::Attest { g, drop, add });
            }
        }
    }

    pub fn attest(&mut self, g: usize, drop: u8, add: u8) {
        self.gateways[g].change = Change::Attesting;
        for (i, node) in self.nodes.iter_mut().enumerate() {
            let view = &mut node.views[g];
            view.wanted = (view.member && drop & (1 << i) == 0) || add & (1 << i) != 0;
        }
    }

    fn kept(&self, g: usize) -> impl Iterator<Item = &Node> {
        self.members(g).filter(move |n| n.views[g].wanted)
    }

    /// Every acknowledged write is on every member that is kept, and every later one will be.
    fn is_attested(&self, g: usize, setup: &Setup) -> bool {
        let current = self.kept(g).all(|n| n.views[g].live && n.views[g].is_current());
        let answered = || self.gateways[g].ops.iter().filter(|op| op.answered);
        let have_all = self.kept(g).all(|n| !answered().any(|op| n.views[g].owes.has(op.name())));
        (current || !setup.rules.on(Rule::KeptAreCurrent)) && (have_all || !setup.rules.on(Rule::KeptHaveAll))
    }

    /// A member is lost. If it was to be kept and nothing was sent yet, the change is given up.
    pub fn give_up_attesting(&mut self, g: usize, lost: usize) {
        if self.gateways[g].change == Change::Attesting && self.nodes[lost].views[g].wanted {
            self.forget_change(g);
        }
    }

    fn forget_change(&mut self, g: usize) {
        self.gateways[g].change = Change::None;
        self.nodes.iter_mut().for_each(|n| n.views[g].wanted = false);
    }

    /// The meta server gets the request.
    pub fn answer_change(&mut self, g: usize, setup: &Setup) {
        let gateway = &mut self.gateways[g];
        let newest = gateway.epoch == self.meta.epoch || !setup.rules.on(Rule::ChangeByCurrent);
        if !newest || gateway.config != self.meta.config {
            gateway.change = Change::Refused;
            return;
        }
        gateway.change = Change::Made;
        self.meta.config += 1;
        for node in &mut self.nodes {
            node.retired |= node.member && !node.views[g].wanted;
            node.member = node.views[g].wanted;
        }
    }

    /// The gateway hears what became of its request.
    pub fn learn(&mut self, g: usize, setup: &Setup) {
        if self.gateways[g].change == Change::Made {
            self.gateways[g].config += 1;
            for view in self.nodes.iter_mut().map(|n| &mut n.views[g]) {
                match (view.member, view.wanted) {
                    (false, true) => *view = View::of_member(true).unknown(),
                    (true, false) => *view = View::default(),
                    _ => {}
                }
            }
        }
        self.forget_change(g);
        self.settle_ops(g, setup);
    }
}
