//! Tells an execution in words.
//!
//! The checker's path has its nodes sorted anew after every step. Here it is walked again with nodes that keep their
//! names: of all steps the one is taken that leads to the path's next state.

use crate::check::{self, Invariant};
use crate::explore::is_stuck;
use crate::gateway::{Change, Stage};
use crate::replica::Replica;
use crate::steps::Step;
use crate::world::{Node, Setup, World};
use stateright::Path;

/// One step of an execution.
#[derive(Debug)]
pub struct Told {
    pub what: String,
    /// The nodes that it changed, as they are afterwards.
    pub nodes: Vec<String>,
}

/// Tells how the states of `path` come about, and which invariant the last one breaks.
pub fn tell(path: &[World], setup: &Setup) -> (Vec<Told>, Option<Invariant>) {
    let mut told = vec![];
    let Some(first) = path.first() else { return (told, None) };
    let mut world = first.clone();
    for wanted in &path[1..] {
        let mut steps = vec![];
        world.steps(setup, &mut steps);
        let found = steps.into_iter().find_map(|step| {
            let mut next = world.clone();
            next.take(step, setup);
            (next.clone().canonical() == *wanted).then_some((step, next))
        });
        let Some((step, next)) = found else { break };
        told.push(Told { what: words(&world, &next, step), nodes: changed(&world, &next) });
        world = next;
    }
    let stuck = is_stuck(&world, setup).then_some(Invariant::I11);
    (told, check::broken(&world, setup).or(stuck))
}

/// Tells a path whose steps speak for themselves.
pub fn tell_plainly<S, A: std::fmt::Display>(path: Path<S, A>) -> Vec<Told> {
    let steps = path.into_vec().into_iter().filter_map(|(_, step)| step);
    steps.map(|step| Told { what: step.to_string(), nodes: vec![] }).collect()
}

fn changed(before: &World, after: &World) -> Vec<String> {
    let pairs = before.nodes.iter().zip(&after.nodes).enumerate();
    pairs
        .filter(|(_, (b, a))| b.replica != a.replica)
        .map(|(i, (_, a))| format!("{}: {}", node_name(i), describe(a)))
        .collect()
}

pub fn node_name(i: usize) -> char {
    (b'A' + i as u8) as char
}

pub fn node_names(mask: u8) -> String {
    (0..8).filter(|i| mask & (1 << i) != 0).map(node_name).collect()
}

fn describe(node: &Node) -> String {
    let Replica { exists, damaged, fence, awake, adopted, entries, unflushed, .. } = &node.replica;
    if !exists {
        return format!("fenced at {fence}, no replica");
    }
    let mut text = format!("fenced at {fence}, adopted {adopted}, holds {:?} and {:?}", entries[0], entries[1]);
    if let Some((block, entry)) = unflushed {
        text += &format!(", not yet durable: {entry:?} of block {block}");
    }
    if *damaged {
        text += ", knows that it lost entries";
    }
    if !awake {
        text += ", restarted";
    }
    text
}

fn words(before: &World, after: &World, step: Step) -> String {
    let gateway = |g: usize| {
        let gateway = &before.gateways[g];
        let number = gateway.incarnation;
        match gateway.epoch == number {
            true => format!("gateway {number}"),
            false => format!("gateway {number} (epoch {})", gateway.epoch),
        }
    };
    let op = |g: usize, op: u8| {
        before.gateways[g].op(op).map_or(String::new(), |op| format!("{:?} of block {}", op.entry, op.block))
    };
    let outcome = outcome(before, after);
    let text = match step {
        Step::Open => format!("gateway {} opens the volume: epoch {}", after.meta.incarnations, after.meta.epoch),
        Step::Fence { g, i } => format!("{} fences {}", gateway(g), node_name(i)),
        Step::Reconcile { g } => format!("{} reconciles the members that have answered", gateway(g)),
        Step::Place { g, i, block } => {
            format!("{} brings block {block} of {} to the reconciled state", gateway(g), node_name(i))
        }
        Step::Adopt { g, i } => format!("{} has {} adopt the epoch", gateway(g), node_name(i)),
        Step::Write { g, block } => format!("{} begins to write block {block}", gateway(g)),
        Step::Discard { g, block } => format!("{} begins to discard block {block}", gateway(g)),
        Step::Deliver { g, i, op: o } => format!("{} of {} reaches {}", op(g, o), gateway(g), node_name(i)),
        Step::ReadEarly { g, i, op: o } => {
            format!("{} reads {}, which is not acknowledged, from {}", gateway(g), op(g, o), node_name(i))
        }
        Step::Lose { g, i } => format!("{} loses its link to {}", gateway(g), node_name(i)),
        Step::Distrust { g, i } => format!("{} is refused by {}, which has restarted", gateway(g), node_name(i)),
        Step::Create { g, i } => format!("{} creates a replica at {}", gateway(g), node_name(i)),
        Step::Compare { g, i, from } => format!("{} compares {} with {}", gateway(g), node_name(i), node_name(from)),
        Step::Fetch { g, i, from, block } => {
            format!("{} reads block {block} of {} for {}", gateway(g), node_name(from), node_name(i))
        }
        Step::Copy { g, i, block } => format!("{}'s copy of block {block} reaches {}", gateway(g), node_name(i)),
        Step::Attest { g, drop, add } => {
            let part =
                |verb: &str, mask| if mask == 0 { String::new() } else { format!(" {verb} {}", node_names(mask)) };
            format!("{} begins to change the replica set:{}{}", gateway(g), part("without", drop), part("with", add))
        }
        Step::Ask { g } => format!("{} asks the meta server for the change", gateway(g)),
        Step::Answer { g } => format!("the meta server decides on the change of {}", gateway(g)),
        Step::Learn { g } => format!("{} hears what became of its change", gateway(g)),
        Step::Commit { g, i } => format!("{} moves the commit point of {}", gateway(g), node_name(i)),
        Step::Drop { i, block } => format!("{} drops the tombstone of block {block}", node_name(i)),
        Step::Flush { i } => format!("{} makes what it accepted durable", node_name(i)),
        Step::Restart { i, lost: None } => format!("{} restarts", node_name(i)),
        Step::Restart { i, lost: Some(block) } => {
            format!("{} restarts, and has lost block {block} to corruption", node_name(i))
        }
        Step::Late { i, at } => {
            let late = before.nodes[i].late[at];
            format!("a late {:?} ({:?} of block {}) reaches {}", late.kind, late.entry, late.block, node_name(i))
        }
    };
    format!("{text}{outcome}")
}

/// What a step meant beyond the nodes.
fn outcome(before: &World, after: &World) -> String {
    let mut text = String::new();
    for new in &after.gateways {
        let Some(old) = before.gateways.iter().find(|g| g.incarnation == new.incarnation) else { continue };
        match (old.stage, new.stage) {
            (Stage::InDoubt, Stage::Adopting) => text += "; the state is decided",
            (Stage::InDoubt | Stage::Adopting, Stage::Served) => text += "; the chunk is served",
            _ => {}
        }
        match (old.change, new.change) {
            (Change::Sent, Change::Made) => text += "; it is made",
            (Change::Sent, Change::Refused) => text += "; it is refused",
            (Change::Attesting, Change::None) => text += "; the change is given up",
            _ => {}
        }
    }
    for (block, (old, new)) in before.spec.truth.iter().zip(&after.spec.truth).enumerate() {
        if old != new {
            text += &format!("; readers of block {block} are to see {new:?}");
        }
    }
    text
}
