//! The invariants: what must hold in every state.

use crate::bounds::Bounds;
use crate::gateway::{Stage, decide, is_quorum};
use crate::replica::{Answer, Replica};
use crate::rules::{Rule, Rules};
use crate::world::{Setup, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Reads of the newest served epoch are strictly linearizable.
    I1,
    /// Every permitted takeover finds every acknowledged write.
    I2,
    /// A deposed gateway completes no write that its successors do not have.
    I3,
    /// What a served epoch did not adopt never comes back.
    I4,
    /// Replicas with equal `adopted` are equal below that epoch.
    I5,
    /// What is at or below a commit point is on every member.
    I6,
    /// A sealed version reads the same from every replica, for ever.
    I8,
    /// One write has one content.
    I9,
    /// No write is acknowledged in a chunk that is not the volume's.
    I10,
    /// When nothing more goes wrong, the chunk is served, and writes complete.
    I11,
}

impl Invariant {
    pub fn text(self) -> &'static str {
        match self {
            Invariant::I1 => "a reader of the newest served epoch does not get the newest state",
            Invariant::I2 => "a takeover that is permitted now would not find what was acknowledged",
            Invariant::I3 => "a deposed gateway completed a write that its successor does not have",
            Invariant::I4 => "an entry that a served epoch had dropped came back",
            Invariant::I5 => "two replicas have adopted the same epoch and differ below it",
            Invariant::I6 => "a member lacks what is at or below a commit point",
            Invariant::I8 => "a snapshot does not read the same everywhere and for ever",
            Invariant::I10 => "a write was acknowledged in a chunk that is not the volume's",
            Invariant::I9 => "two replicas hold the same write with different data",
            Invariant::I11 => "nothing goes wrong any more, and the chunk is not served, or a write does not complete",
        }
    }
}

/// The first invariant that a state breaks.
pub fn broken(world: &World, setup: &Setup) -> Option<Invariant> {
    let Setup { bounds, rules, .. } = setup;
    if world.broken.is_some() {
        return world.broken;
    }
    let holds = [
        (Invariant::I1, reads_are_right(world, *rules)),
        (Invariant::I2, takeovers_find_all(world, bounds, *rules)),
        (Invariant::I5, adopted_are_equal(world)),
        (Invariant::I6, commit_points_hold(world)),
        (Invariant::I9, writes_are_unique(world)),
    ];
    holds.into_iter().find(|(_, holds)| !holds).map(|(invariant, _)| invariant)
}

/// Every read that the newest served gateway may make now returns the truth.
fn reads_are_right(world: &World, rules: Rules) -> bool {
    let newest = (0..world.gateways.len()).rev().find(|g| world.gateways[*g].epoch == world.spec.served);
    let Some(g) = newest else { return true };
    let gateway = &world.gateways[g];
    if gateway.stage != Stage::Served {
        return true;
    }
    world.nodes.iter().all(|node| {
        let view = &node.views[g];
        world.spec.truth.iter().enumerate().all(|(b, truth)| {
            let block = b as u8;
            let holds = view.holds(block, &gateway.ops) || (!rules.on(Rule::ReadComplete) && view.is_known());
            let reads =
                holds && !view.adopt && !gateway.is_written(block) && node.replica.is_readable(gateway.epoch, rules);
            !reads || node.replica.entries[b].value() == truth.value()
        })
    })
}

/// Whatever quorum of the present config answers, the newest acknowledged state is in what it decides.
fn takeovers_find_all(world: &World, bounds: &Bounds, rules: Rules) -> bool {
    let members: Vec<Answer> = world.nodes.iter().filter(|n| n.member).map(|n| n.replica.answer()).collect();
    (1..1u32 << members.len()).all(|chosen| {
        let answers = members.iter().enumerate().filter(|(i, _)| chosen & (1 << i) != 0).map(|(_, a)| a);
        if answers.clone().count() < bounds.min
            || !is_quorum(answers.clone(), world.meta.config, members.len(), bounds, rules)
        {
            return true;
        }
        let decided = decide(answers, rules);
        decided.iter().zip(&world.spec.truth).all(|(d, t)| d.value() == t.value() || d.seq > t.seq)
    })
}

fn pairs(world: &World) -> impl Iterator<Item = (&Replica, &Replica)> {
    let present = move || world.nodes.iter().filter(|n| n.member && n.replica.exists && !n.replica.damaged);
    present().enumerate().flat_map(move |(i, a)| present().skip(i + 1).map(move |b| (&a.replica, &b.replica)))
}

fn adopted_are_equal(world: &World) -> bool {
    pairs(world).filter(|(a, b)| a.adopted == b.adopted && a.adopted > 0).all(|(a, b)| {
        let old = |r: &Replica, i: usize| r.entries[i].seq.epoch() < r.adopted;
        (0..a.entries.len()).filter(|i| old(a, *i) && old(b, *i)).all(|i| a.entries[i].value() == b.entries[i].value())
    })
}

fn writes_are_unique(world: &World) -> bool {
    pairs(world).all(|(a, b)| a.entries.iter().zip(&b.entries).all(|(x, y)| x.seq != y.seq || x == y))
}

/// What is at or below anybody's commit point is on every member, or replaced by something newer.
fn commit_points_hold(world: &World) -> bool {
    let members = || world.nodes.iter().filter(|n| n.member).map(|n| &n.replica);
    let commit = members().map(|r| r.commit).max().unwrap_or_default();
    let settled = |b: usize| world.spec.truth[b].seq <= commit;
    members().all(|r| {
        (0..r.entries.len())
            .filter(|b| settled(*b))
            .all(|b| r.damaged || r.entries[b].seq > commit || r.entries[b].value() == world.spec.truth[b].value())
    })
}

/// Nothing can happen any more: the newest gateway serves, and no write is open. (If too much was lost, it has to wait.)
pub fn is_settled(world: &World, setup: &Setup) -> bool {
    let Setup { bounds, rules, .. } = setup;
    let answers = world.nodes.iter().filter(|n| n.member).map(|n| n.replica.answer()).collect::<Vec<_>>();
    if !is_quorum(answers.iter(), world.meta.config, answers.len(), bounds, *rules) {
        return true;
    }
    let Some(g) = (0..world.gateways.len()).rev().find(|g| world.gateways[*g].epoch == world.meta.epoch) else {
        return false;
    };
    let gateway = &world.gateways[g];
    let current = world.members(g).all(|n| n.views[g].live && n.views[g].is_current());
    gateway.stage == Stage::Served && gateway.ops.is_empty() && current
}
