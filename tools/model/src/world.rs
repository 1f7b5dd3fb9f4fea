//! The whole state: nodes, gateways, meta server, and what readers have been promised.
//!
//! Nodes are interchangeable: whatever is known about one, by whomever, is kept in its [`Node`], so that sorting the
//! nodes makes equal all states that differ only in their names.

use crate::bounds::{Bounds, Budget};
use crate::check::Invariant;
use crate::gateway::{Change, Gateway, Stage, View};
use crate::meta::Meta;
use crate::network::Late;
use crate::order::{Blocks, Entry, Epoch};
use crate::replica::Replica;
use crate::rules::{Rule, Rules};

/// What is explored, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub bounds: Bounds,
    pub rules: Rules,
    /// Whether states in which nothing can happen any more must be such that nothing is left to do.
    pub live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Member of the meta server's config.
    pub member: bool,
    /// It was a member, and is none any more; it never comes back under its old identity.
    pub retired: bool,
    pub replica: Replica,
    /// What each gateway knows of it.
    pub views: Vec<View>,
    pub late: Vec<Late>,
}

/// What a reader of the newest served epoch must get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Spec {
    pub truth: Blocks,
    /// The newest epoch that was served.
    pub served: Epoch,
    /// Writes of deposed gateways, open there, that a takeover made effective.
    pub effective: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    pub nodes: Vec<Node>,
    /// In order of their opening.
    pub gateways: Vec<Gateway>,
    pub meta: Meta,
    pub spec: Spec,
    pub left: Budget,
    pub broken: Option<Invariant>,
}

impl World {
    /// A chunk that was allocated in epoch 1, and is served by that epoch's gateway.
    pub fn first(bounds: &Bounds) -> World {
        let member = Node {
            member: true,
            retired: false,
            replica: Replica::new_member(),
            views: vec![View { member: true, live: true, made: true, ..View::default() }],
            late: vec![],
        };
        let spare = Node { member: false, replica: Replica::default(), views: vec![View::default()], ..member.clone() };
        let mut nodes = vec![member; bounds.copies];
        nodes.resize(bounds.copies + bounds.spares, spare);
        let mut first = Gateway::new(1, 1, 1);
        first.stage = Stage::Served;
        let spec = Spec { served: 1, ..Spec::default() };
        World { nodes, gateways: vec![first], meta: Meta::first(), spec, left: bounds.budget, broken: None }
    }

    /// The representative of all states that differ only in the names of nodes.
    pub fn canonical(mut self) -> World {
        self.nodes.sort_unstable();
        self
    }

    /// Forgets what can have no more effect.
    pub fn prune(&mut self, setup: &Setup) {
        let rules = setup.rules;
        let drops = setup.bounds.budget.discards > 0;
        for node in &mut self.nodes {
            let replica = node.replica;
            node.late.retain(|l| l.can_matter(&replica, rules, drops));
            node.late.sort_unstable();
            node.late.dedup();
        }
        for node in self.nodes.iter_mut().filter(|n| n.retired && !n.views.iter().any(|v| v.member || v.wanted)) {
            let views = vec![View::default(); node.views.len()];
            *node = Node { member: false, retired: true, replica: Replica::default(), views, late: vec![] };
        }
        if rules.on(Rule::RefuseBelowFence) {
            while let Some(g) = (0..self.gateways.len()).find(|g| self.is_powerless(*g, rules)) {
                self.gateways.remove(g);
                self.nodes.iter_mut().for_each(|n| {
                    n.views.remove(g);
                });
            }
        }
        let (gateways, served) = (&self.gateways, self.spec.served);
        let is_open = |e: &Entry| {
            let of = |g: &&Gateway| g.incarnation == e.origin && g.epoch < served;
            gateways.iter().filter(of).any(|g| g.ops.iter().any(|op| op.entry == *e && !op.answered))
        };
        self.spec.effective.retain(is_open);
        self.spec.effective.sort_unstable();
        self.spec.effective.dedup();
    }

    /// Whether every node is fenced above the gateway: it will hear so whatever it does, and stop for good.
    fn is_powerless(&self, g: usize, rules: Rules) -> bool {
        let gateway = &self.gateways[g];
        let reaches = |n: &Node| (n.views[g].member || n.views[g].wanted) && n.replica.fence <= gateway.epoch;
        let asks = gateway.change == Change::Sent && !rules.on(Rule::ChangeByCurrent);
        gateway.epoch < self.meta.epoch && !asks && !self.nodes.iter().any(reaches)
    }

    /// Members in the gateway's view.
    pub fn members(&self, g: usize) -> impl Iterator<Item = &Node> + Clone {
        self.nodes.iter().filter(move |n| n.views[g].member)
    }

    pub fn view(&mut self, g: usize, i: usize) -> &mut View {
        &mut self.nodes[i].views[g]
    }
}
