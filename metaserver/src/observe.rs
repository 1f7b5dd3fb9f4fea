//! What daemons report: kept by the leader in memory, begun anew in every term.

use levee_meta_state::State;
use levee_proto::api::{DiskInfo, Heartbeat, NodeState, VolumeInfo, VolumeReport};
use levee_proto::{DiskId, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The observations of one term.
pub struct Observed {
    term: u64,
    since: Instant,
    /// A node that was not heard for this long is down.
    down_after: Duration,
    nodes: BTreeMap<NodeId, Heard>,
}

/// The last word of one node.
struct Heard {
    at: Instant,
    used: BTreeMap<DiskId, u64>,
    volumes: BTreeMap<VolumeId, VolumeReport>,
}

impl Observed {
    pub fn new(term: u64, now: Instant, down_after: Duration) -> Observed {
        Observed { term, since: now, down_after, nodes: BTreeMap::new() }
    }

    /// Forgets what was heard in an earlier term: another leader has heard more since.
    pub fn enter(&mut self, term: u64, now: Instant) {
        if self.term != term {
            *self = Observed::new(term, now, self.down_after);
        }
    }

    /// A process of the node has registered; it serves nothing yet.
    pub fn registered(&mut self, node: NodeId, now: Instant) {
        let heard = Heard { at: now, used: BTreeMap::new(), volumes: BTreeMap::new() };
        self.nodes.insert(node, heard);
    }

    pub fn heartbeat(&mut self, node: NodeId, beat: Heartbeat, now: Instant) {
        let heard = Heard {
            at: now,
            used: beat.disks.into_iter().map(|d| (d.disk, d.used)).collect(),
            volumes: beat.volumes.into_iter().map(|v| (v.volume, v)).collect(),
        };
        self.nodes.insert(node, heard);
    }

    pub fn node_state(&self, node: NodeId, now: Instant) -> NodeState {
        let recent = |at: Instant| now.saturating_duration_since(at) < self.down_after;
        match self.nodes.get(&node) {
            Some(heard) if recent(heard.at) => NodeState::Up,
            _ if recent(self.since) => NodeState::Unknown,
            _ => NodeState::Down,
        }
    }

    /// The nodes to use: those that are up, and, right after a change of leader, those that may be.
    pub fn alive(&self, state: &State, now: Instant) -> BTreeSet<NodeId> {
        state.node_ids().filter(|id| self.node_state(*id, now) != NodeState::Down).collect()
    }

    /// The nodes that are up; those that may be if none is.
    pub fn best(&self, state: &State, now: Instant) -> BTreeSet<NodeId> {
        let up: BTreeSet<NodeId> = state.node_ids().filter(|id| self.node_state(*id, now) == NodeState::Up).collect();
        if up.is_empty() { self.alive(state, now) } else { up }
    }

    pub fn fill_disk(&self, disk: &mut DiskInfo) {
        disk.used = self.nodes.get(&disk.node).and_then(|heard| heard.used.get(&disk.id)).copied();
    }

    /// Adds the gateway's report, if it is about this attachment: the report of an earlier one must not
    /// look like the volume being served already.
    pub fn fill_volume(&self, state: &State, volume: &mut VolumeInfo) {
        let opened = state.volume(volume.id).and_then(|v| v.attachment.as_ref()).is_some_and(|a| a.opened_by.is_some());
        if let Some(attachment) = volume.attachment.as_mut().filter(|_| opened) {
            let report = self.nodes.get(&attachment.node).and_then(|heard| heard.volumes.get(&volume.id));
            attachment.report = report.filter(|r| r.epoch == volume.epoch).cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_unknown_then_up_then_down() {
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        let mut observed = Observed::new(1, start, Duration::from_secs(3));
        let node = NodeId(1);
        assert_eq!(observed.node_state(node, later(2999)), NodeState::Unknown);
        assert_eq!(observed.node_state(node, later(3000)), NodeState::Down);
        observed.registered(node, later(4000));
        assert_eq!(observed.node_state(node, later(6999)), NodeState::Up);
        assert_eq!(observed.node_state(node, later(7000)), NodeState::Down);
        observed.enter(1, later(7000));
        assert_eq!(observed.node_state(node, later(7000)), NodeState::Down, "the term is the same");
        observed.enter(2, later(7000));
        assert_eq!(observed.node_state(node, later(7001)), NodeState::Unknown);
    }
}
