//! Steps of commit points, and of the compaction that they allow.

use crate::gateway::{Stage, View};
use crate::rules::Rule;
use crate::steps::Step;
use crate::world::{Setup, World};

impl World {
    pub fn steps_of_commits(&self, g: usize, setup: &Setup, out: &mut Vec<Step>) {
        if setup.bounds.budget.discards == 0 {
            return;
        }
        let gateway = &self.gateways[g];
        let waits = setup.rules.on(Rule::CommitAfterCopies);
        let has_all = |v: &View| v.live && v.is_current() && v.owes.is_empty();
        let complete = |v: &View| has_all(v) && !(waits && v.copies.iter().any(Option::is_some));
        let all = gateway.ops.is_empty() && self.members(g).all(|n| complete(&n.views[g]));
        for (i, node) in self.nodes.iter().enumerate() {
            let view = &node.views[g];
            let known = view.member && complete(view) && self.reaches(g, i, setup);
            let moves = node.replica.commit < node.replica.max_seq();
            let may = all || !setup.rules.on(Rule::CommitNeedsAll);
            if gateway.stage == Stage::Served && known && moves && may {
                out.push(Step::Commit { g, i });
            }
            let drops = (0..setup.bounds.blocks).filter(|b| node.replica.can_drop(*b, setup.rules));
            out.extend(drops.map(|block| Step::Drop { i, block }));
        }
    }

    /// Every member holds the same up to here.
    pub fn commit(&mut self, i: usize) {
        let replica = &mut self.nodes[i].replica;
        replica.commit = replica.max_seq();
    }
}
