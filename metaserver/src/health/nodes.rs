//! Nodes and their disks. What follows for a disk from its node being away is told of the node.

use super::{Doing, View, condition, copies_of};
use crate::observe::is_full;
use levee_meta_state::{Decider, Disk};
use levee_proto::api::*;
use levee_proto::units::show_size;
use levee_proto::{DiskId, NodeId};

pub fn derive(view: &View<'_>, all: &mut Vec<Condition>) {
    let awaited = view.state.recovery_info().awaited;
    for id in view.state.node_ids() {
        let name = view.name(id);
        let of = |word, severity, text: String| condition(EventKind::Node, &name, word, severity, text);
        if awaited.contains(&name) {
            let what = format!(
                "volumes wait until node '{name}' has told what it holds: the meta servers lost their newest state"
            );
            let way_out = format!("start its daemon; if it is lost: `levee node remove {name} --force`");
            all.push(of(ConditionWord::Awaited, Severity::Error, what).doing(way_out));
        }
        if view.is_down(id) {
            all.push(away(view, id, &name));
        }
        if let Some(stranger) = view.observed.stranger(id, view.now) {
            all.push(of(ConditionWord::Doubled, Severity::Warning, format!("node {name}: {stranger}")));
        }
        let (condition, detail) = view.condition_of(id).clone();
        let word = match condition {
            NodeCondition::Fine => None,
            NodeCondition::Slow => Some(ConditionWord::Slow),
            NodeCondition::Partitioned => Some(ConditionWord::Partitioned),
            NodeCondition::Flapping => Some(ConditionWord::Flapping),
        };
        if let Some(word) = word.filter(|_| !view.is_maintained(id)) {
            let what = format!("node {name} is {}", word.name());
            all.push(of(word, Severity::Warning, what).doing(detail.unwrap_or_default()));
        }
        all.extend(emptied(view, id, &name));
    }
}

/// A node of which nothing is heard.
fn away(view: &View<'_>, id: NodeId, name: &str) -> Condition {
    let (word, state) = match view.is_stopped(id) {
        true => (ConditionWord::Stopped, "was stopped"),
        false => (ConditionWord::Down, "is down"),
    };
    let of = |severity, text: String| condition(EventKind::Node, name, word, severity, text);
    let disks: Vec<(DiskId, &Disk)> = view.state.disks().filter(|(_, disk)| disk.node == id).collect();
    let held = view.held_by(id);
    if view.is_maintained(id) {
        let doing = "it is in maintenance: nothing of it is made anew meanwhile";
        return of(Severity::Info, format!("node {name} {state}")).doing(doing);
    }
    let given_up = disks.iter().all(|(_, disk)| disk.state() == DiskState::Dead);
    if given_up && held == 0 {
        return of(Severity::Info, format!("node {name} {state}; nothing is stored on it"));
    }
    let found = of(Severity::Warning, format!("node {name} {state}"));
    if given_up {
        let left = copies_of(held);
        return found.doing(format!("{left} of its disks are made anew on other nodes; start it again, or leave it"));
    }
    match view.held {
        Some(held) => {
            found.doing(format!("start its daemon; nothing is made anew elsewhere, because repair is held: {held}"))
        }
        None => found.doing(format!(
            "start its daemon; {} s after it was last heard of, its copies are made anew on other nodes",
            view.policy.after.as_secs()
        )),
    }
}

/// A node that is, or was, emptied.
fn emptied(view: &View<'_>, id: NodeId, name: &str) -> Option<Condition> {
    let drained = view.state.node(id).is_some_and(|n| n.drain.is_some());
    drained.then(|| match view.held_by(id) {
        0 => {
            let what = format!("node {name} is drained: nothing is on it any more");
            let doing = format!("`levee node remove {name}` takes it out, `levee node undrain {name}` takes it back");
            condition(EventKind::Node, name, ConditionWord::Drained, Severity::Info, what).doing(doing)
        }
        left => {
            let what = format!("node {name} is being drained: {} are left", copies_of(left));
            condition(EventKind::Node, name, ConditionWord::Draining, Severity::Info, what)
        }
    })
}

pub fn derive_disks(view: &View<'_>, all: &mut Vec<Condition>) {
    for (id, disk) in view.state.disks() {
        all.extend(of_disk(view, id, disk));
    }
    let unknown = view.state.recovery_info().unknown_replicas;
    if unknown > 0 {
        let what = format!("{} on disks are unknown to the meta servers", copies_of(unknown));
        let kept = "they are of what was lost with meta servers, and are kept; formatting the disk anew frees them";
        all.push(condition(EventKind::Disk, "all", ConditionWord::Unknown, Severity::Info, what).doing(kept));
    }
}

fn of_disk(view: &View<'_>, id: DiskId, disk: &Disk) -> Option<Condition> {
    let node = view.name(disk.node);
    let failure = view.observed.disk_failure(disk.node, id);
    let why = disk.reason().or(failure).map(|why| format!(": {why}")).unwrap_or_default();
    let left = disk.live();
    let of = |word, severity, what: String| {
        condition(EventKind::Disk, id, word, severity, format!("disk {id} of {node} {what}{why}"))
    };
    let by_silence = disk.death.as_ref().is_some_and(|death| death.by == Decider::Silence);
    let of_its_own = disk.state() != DiskState::Dead && view.state.node(disk.node).is_some_and(|n| n.drain.is_none());
    match disk.state() {
        // It is told of the node.
        DiskState::Dead if by_silence && view.is_down(disk.node) => None,
        DiskState::Dead if left > 0 => {
            let doing = format!("{} to be made anew elsewhere, by the gateways of their volumes", copies_of(left));
            Some(of(ConditionWord::Dead, Severity::Warning, "is dead".into()).doing(doing))
        }
        DiskState::Dead => {
            let doing = format!("nothing is on it that is needed; replace it, or `levee disk remove {id}`");
            Some(of(ConditionWord::Dead, Severity::Info, "is dead".into()).doing(doing))
        }
        DiskState::Draining if !of_its_own => None,
        DiskState::Draining if left > 0 => {
            let doing = format!("{} to be put elsewhere, by the gateways of their volumes", copies_of(left));
            Some(of(ConditionWord::Draining, Severity::Info, "is being drained".into()).doing(doing))
        }
        DiskState::Draining => {
            let doing = format!("nothing is on it any more; `levee disk remove {id}` takes it out");
            Some(of(ConditionWord::Drained, Severity::Info, "is drained".into()).doing(doing))
        }
        DiskState::InService if failure.is_some() => {
            Some(of(ConditionWord::Failed, Severity::Error, "has failed".into()))
        }
        DiskState::InService => full(view, id, disk, &node),
    }
}

fn full(view: &View<'_>, id: DiskId, disk: &Disk, node: &str) -> Option<Condition> {
    let used = view.observed.used(disk.node, id)?;
    is_full(view.state, used, disk.capacity).then(|| {
        let (used, capacity) = (show_size(used), show_size(disk.capacity));
        let what = format!("disk {id} of {node} is full: {used} of {capacity} are used");
        condition(EventKind::Disk, id, ConditionWord::Full, Severity::Warning, what)
            .doing("add disks or nodes, or delete volumes; `levee rebalance run` moves copies to disks with room")
    })
}
