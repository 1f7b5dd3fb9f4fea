//! Which disks count as lost.
//!
//! A disk is lost when its daemon says that it failed, at once; or when nothing was heard of it for the
//! time that the operators set: its node is down, or runs without it. Silence may as well be this member's own:
//! while more than half of the nodes are down, no silence counts. A disk that is heard of again is lost no more.

use super::View;
use levee_meta_state::limits::MAX_REASON;
use levee_meta_state::{Command, Decider, Disk, State};
use levee_proto::api::{DiskState, NodeState};
use levee_proto::{DiskId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Disks that their nodes run without, and since when.
#[derive(Default)]
pub struct Absences(BTreeMap<DiskId, Instant>);

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
        let held = most_are_down(view);
        if held.is_none() {
            commands.append(&mut silent);
        }
        held
    }

    fn note(&mut self, view: &View<'_>) {
        let absent = view.state.absent_disks();
        self.0.retain(|id, _| absent.contains(id));
        for id in absent {
            self.0.entry(id).or_insert(view.now);
        }
    }

    /// Why nothing being heard of the disk makes it count as lost, if it does.
    fn silence(&self, view: &View<'_>, id: DiskId, disk: &Disk) -> Option<String> {
        let (observed, now, after) = (view.observed, view.now, view.policy.after);
        let name = view.state.node(disk.node).map_or_else(|| disk.node.to_string(), |n| n.name.clone());
        if observed.node_state(disk.node, now) == NodeState::Down {
            let silent = observed.silence(disk.node, now);
            return (silent >= after).then(|| format!("nothing was heard of node '{name}' for {}", seconds(silent)));
        }
        let absent = now.saturating_duration_since(*self.0.get(&id)?);
        (absent >= after).then(|| format!("node '{name}' has run without it for {}", seconds(absent)))
    }
}

/// Unless somebody whose word is at least as strong has said so already.
fn declare(commands: &mut Vec<Command>, id: DiskId, disk: &Disk, by: Decider, reason: String) {
    if disk.death.as_ref().is_none_or(|d| d.by < by) {
        commands.push(Command::SetDisk { disk: id, state: DiskState::Dead, reason: Some(reason), by });
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
fn one_line(text: &str) -> String {
    let mut plain = String::new();
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + c.len_utf8() > MAX_REASON {
            break;
        }
        plain.push(c);
    }
    plain
}
