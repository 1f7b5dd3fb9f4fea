//! Which disks count as lost.
//!
//! A disk is lost when its daemon says that it failed, at once; or when nothing was heard of it for the
//! time that the operators set: its node is down, or runs without it. Silence may as well be this member's own:
//! while more than half of the nodes are down, and for a while after, no silence counts, nor does that of a node which other nodes reach. It does not
//! count during maintenance either. A disk that is heard of again is lost no more; but a node whose disks were given up and came
//! back is given twice the time when it goes away again soon, so that one that comes and goes does not keep the cluster copying.

use super::View;
use crate::limits::{GIVEN_UP_WINDOW, HOLD_REST, MAX_DOUBLINGS};
use levee_meta_state::limits::MAX_REASON;
use levee_meta_state::{Command, Decider, Disk, State};
use levee_proto::api::{DiskState, NodeState};
use levee_proto::{DiskId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is remembered of disks that are away.
#[derive(Default)]
pub struct Absences {
    /// Disks that their nodes run without, and since when.
    absent: BTreeMap<DiskId, Instant>,
    /// Nodes whose silence counted: how often lately, and when last.
    given_up: BTreeMap<NodeId, (u32, Instant)>,
    /// When most nodes were down last: others may be about to come back as well.
    most_down: Option<Instant>,
}

impl Absences {
    /// Adds what is to be decided about disks; says why silence does not count, if it should.
    pub fn judge(&mut self, view: &View<'_>, commands: &mut Vec<Command>) -> Option<String> {
        self.note(view);
        let mut silent = Vec::new();
        for (id, disk) in view.state.disks() {
            if let Some(why) = view.observed.disk_failure(disk.node, id) {
                declare(commands, id, disk, Decider::Failure, one_line(why));
            } else if let Some(why) = self.silence(view, id, disk) {
                declare(&mut silent, id, disk, Decider::Silence, why);
            } else if is_back(view, id, disk) {
                let (state, by) = (DiskState::InService, Decider::Silence);
                commands.push(Command::SetDisk { disk: id, state, reason: None, by });
            }
        }
        if silent.is_empty() {
            return None;
        }
        if let Some(why) = most_are_down(view) {
            self.most_down = Some(view.now);
            return Some(why);
        }
        let rest = view.policy.after.min(HOLD_REST);
        if self.most_down.is_some_and(|at| view.now.saturating_duration_since(at) < rest) {
            return None;
        }
        let reached = |command: &Command| match command {
            Command::SetDisk { disk, .. } => self.is_reached(view, *disk),
            _ => None,
        };
        let held = silent.iter().find_map(reached);
        silent.retain(|command| reached(command).is_none());
        self.remember(view, &silent);
        commands.append(&mut silent);
        held
    }

    fn note(&mut self, view: &View<'_>) {
        let absent = view.state.absent_disks();
        self.absent.retain(|id, _| absent.contains(id));
        self.given_up.retain(|_, (_, last)| view.now.saturating_duration_since(*last) < GIVEN_UP_WINDOW);
        for id in absent {
            self.absent.entry(id).or_insert(view.now);
        }
    }

    /// How long a node's silence is borne.
    fn patience(&self, view: &View<'_>, node: NodeId) -> Duration {
        let times = self.given_up.get(&node).map_or(0, |(times, _)| (*times).min(MAX_DOUBLINGS));
        view.policy.after.saturating_mul(1 << times)
    }

    fn remember(&mut self, view: &View<'_>, silent: &[Command]) {
        let disk = |command: &Command| match command {
            Command::SetDisk { disk, .. } => view.state.disk(*disk).map(|d| d.node),
            _ => None,
        };
        let nodes: BTreeSet<NodeId> = silent.iter().filter_map(disk).collect();
        for node in nodes {
            let (times, last) = self.given_up.entry(node).or_insert((0, view.now));
            (*times, *last) = (*times + 1, view.now);
        }
    }

    /// Why nothing being heard of the disk makes it count as lost, if it does.
    fn silence(&self, view: &View<'_>, id: DiskId, disk: &Disk) -> Option<String> {
        if view.state.node_is_maintained(disk.node, view.now_ms) {
            return None;
        }
        let (observed, now, after) = (view.observed, view.now, self.patience(view, disk.node));
        let name = view.state.node(disk.node).map_or_else(|| disk.node.to_string(), |n| n.name.clone());
        if observed.node_state(disk.node, now) == NodeState::Down {
            let silent = observed.silence(disk.node, now);
            return (silent >= after).then(|| format!("nothing was heard of node '{name}' for {}", seconds(silent)));
        }
        let absent = now.saturating_duration_since(*self.absent.get(&id)?);
        (absent >= after).then(|| format!("node '{name}' has run without it for {}", seconds(absent)))
    }
}

/// Unless somebody whose word is at least as strong has said so already.
fn declare(commands: &mut Vec<Command>, id: DiskId, disk: &Disk, by: Decider, reason: String) {
    if disk.death.as_ref().is_none_or(|d| d.by < by) {
        commands.push(Command::SetDisk { disk: id, state: DiskState::Dead, reason: Some(reason), by });
    }
}

impl Absences {
    /// Why the silence of the disk's node is not the node's own, if so.
    fn is_reached(&self, view: &View<'_>, disk: DiskId) -> Option<String> {
        let node = view.state.disk(disk)?.node;
        let why = view.observed.partition(node, view.now)?;
        let name = view.state.node(node).map_or_else(|| node.to_string(), |n| n.name.clone());
        let is_down = view.observed.node_state(node, view.now) == NodeState::Down;
        is_down
            .then(|| format!("node '{name}' is not given up: {why}; mend the network, or `levee disk fail` its disks"))
    }
}

fn is_back(view: &View<'_>, id: DiskId, disk: &Disk) -> bool {
    let by_silence = disk.death.as_ref().is_some_and(|d| d.by == Decider::Silence);
    by_silence
        && view.observed.node_state(disk.node, view.now) == NodeState::Up
        && view.observed.disk_works(disk.node, id)
}

/// Why so many nodes being down looks like a fault of this member's network rather than theirs.
fn most_are_down(view: &View<'_>) -> Option<String> {
    let nodes = nodes_that_matter(view.state);
    let down = nodes.iter().filter(|id| view.observed.node_state(**id, view.now) == NodeState::Down).count();
    (2 * down > nodes.len()).then(|| {
        format!(
            "{down} of {} nodes are down, more than half: no disk is given up for that, since it may be the network; \
             start them, or give up disks that are lost with `levee disk fail`",
            nodes.len()
        )
    })
}

/// Those with a disk that still counts, or on which something was placed.
fn nodes_that_matter(state: &State) -> BTreeSet<NodeId> {
    let matters = |disk: &Disk| disk.state() != DiskState::Dead || disk.live() > 0;
    state.disks().filter(|(_, disk)| matters(disk)).map(|(_, disk)| disk.node).collect()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// What a daemon says, in the form of a reason.
pub fn one_line(text: &str) -> String {
    let mut plain = String::new();
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + c.len_utf8() > MAX_REASON {
            break;
        }
        plain.push(c);
    }
    plain
}
