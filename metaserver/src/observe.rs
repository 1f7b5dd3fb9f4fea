//! What daemons report: kept by the leader in memory, begun anew in every term.
//!
//! Whether a node is up is told from its heartbeats alone; what more is known of it is its [condition](crate::condition).

use crate::limits::{LINK_PATIENCE, MAX_FLAPS};
use crate::successor::Stranger;
use levee_meta_state::State;
use levee_proto::api::{
    DiskInfo, DiskUsage, Heartbeat, LinkReport, NodeCondition, NodeInfo, NodeState, VolumeInfo, VolumeReport,
};
use levee_proto::{DiskId, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// The observations of one term.
pub struct Observed {
    term: u64,
    since: Instant,
    /// A node that was not heard for this long is down.
    down_after: Duration,
    pub(crate) nodes: BTreeMap<NodeId, Heard>,
    /// When nodes came back that had been away, the newest last.
    pub(crate) returns: BTreeMap<NodeId, VecDeque<Instant>>,
    /// The last process that was refused under the name of each node.
    pub(crate) strangers: BTreeMap<NodeId, Stranger>,
    /// Since when one node does not reach another one.
    pub(crate) cuts: BTreeMap<(NodeId, NodeId), Instant>,
    /// Nodes in bad condition, as of the last look: nothing new is put there if it can be helped.
    troubled: BTreeSet<NodeId>,
}

/// The last word of one node.
pub(crate) struct Heard {
    pub at: Instant,
    /// It said that it stops.
    pub stopping: bool,
    pub disks: BTreeMap<DiskId, DiskUsage>,
    volumes: BTreeMap<VolumeId, VolumeReport>,
    /// Locks that it holds; none: it does not say.
    pub locks: BTreeSet<String>,
    /// Its disks that work.
    pub holds: BTreeSet<DiskId>,
    /// How it sees the others.
    pub links: BTreeMap<NodeId, LinkReport>,
}

impl Observed {
    pub fn new(term: u64, now: Instant, down_after: Duration) -> Observed {
        Observed {
            term,
            since: now,
            down_after,
            nodes: BTreeMap::new(),
            returns: BTreeMap::new(),
            strangers: BTreeMap::new(),
            cuts: BTreeMap::new(),
            troubled: BTreeSet::new(),
        }
    }

    /// Forgets what was heard in an earlier term: another leader has heard more since.
    pub fn enter(&mut self, term: u64, now: Instant) {
        if self.term != term {
            *self = Observed::new(term, now, self.down_after);
        }
    }

    /// A process of the node has registered, with these locks and disks; it serves nothing yet.
    pub fn registered(&mut self, node: NodeId, locks: Vec<String>, holds: BTreeSet<DiskId>, now: Instant) {
        let locks = locks.into_iter().collect();
        let (disks, volumes, links) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.forget_cuts(node);
        self.hear(node, Heard { at: now, stopping: false, disks, volumes, locks, holds, links }, now);
    }

    pub fn heartbeat(&mut self, node: NodeId, beat: Heartbeat, now: Instant) {
        if beat.stopping {
            // What it said of its disks last is true until somebody says something else.
            let heard = self.nodes.get_mut(&node);
            return heard.into_iter().for_each(|heard| (heard.at, heard.stopping) = (now, true));
        }
        self.note_links(node, &beat.links, now);
        let mut volumes: BTreeMap<_, _> = beat.volumes.into_iter().map(|v| (v.volume, v)).collect();
        if let (Some(part), Some(before)) = (beat.part, self.nodes.get_mut(&node)) {
            let others = std::mem::take(&mut before.volumes).into_iter().filter(|(id, _)| !part.contains(*id));
            volumes.extend(others);
        }
        let heard = Heard {
            at: now,
            stopping: false,
            locks: beat.locks.into_iter().collect(),
            holds: beat.disks.iter().filter(|d| d.failed.is_none()).map(|d| d.disk).collect(),
            disks: beat.disks.into_iter().map(|d| (d.disk, d)).collect(),
            volumes,
            links: beat.links.into_iter().map(|link| (link.node, link)).collect(),
        };
        self.hear(node, heard, now);
    }

    fn hear(&mut self, node: NodeId, heard: Heard, now: Instant) {
        let before = self.nodes.insert(node, heard);
        let was_away = |before: &Heard| now.saturating_duration_since(before.at) >= self.down_after;
        let Some(before) = before.filter(was_away) else { return };
        // What others saw of it meanwhile does not count.
        self.forget_cuts(node);
        if !before.stopping {
            let returns = self.returns.entry(node).or_default();
            returns.push_back(now);
            if returns.len() > MAX_FLAPS {
                returns.pop_front();
            }
        }
    }

    /// Since when the node does not reach the others.
    fn note_links(&mut self, node: NodeId, links: &[LinkReport], now: Instant) {
        let cut: BTreeSet<NodeId> = links.iter().filter(|link| !link.up).map(|link| link.node).collect();
        let before = self.cuts.range((node, NodeId(0))..=(node, NodeId(u32::MAX))).map(|((_, to), _)| *to);
        let mended: Vec<NodeId> = before.filter(|to| !cut.contains(to)).collect();
        for to in mended {
            self.cuts.remove(&(node, to));
        }
        for to in cut {
            self.cuts.entry((node, to)).or_insert(now);
        }
    }

    fn forget_cuts(&mut self, node: NodeId) {
        self.cuts.retain(|(from, to), _| *from != node && *to != node);
    }

    /// Whether one node has not reached the other one for so long that it is worth a word.
    pub fn is_cut(&self, from: NodeId, to: NodeId, now: Instant) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|since| now.saturating_duration_since(*since) >= LINK_PATIENCE)
    }

    pub fn down_after(&self) -> Duration {
        self.down_after
    }

    /// Whether this leader has heard anything of the node.
    pub fn is_heard(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Whether the node was stopped in good order.
    pub fn is_stopped(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|heard| heard.stopping)
    }

    /// Nodes on which somebody works: that they come and go says nothing.
    pub fn excuse(&mut self, nodes: impl Iterator<Item = NodeId>) {
        nodes.for_each(|node| drop(self.returns.remove(&node)));
    }

    /// Looks at all nodes' condition anew; answers with those in bad condition.
    pub fn look(&mut self, now: Instant) -> &BTreeSet<NodeId> {
        let is_troubled = |id: &NodeId| self.condition(*id, now).0 != NodeCondition::Fine;
        self.troubled = self.nodes.keys().copied().filter(is_troubled).collect();
        &self.troubled
    }

    pub fn fill_node(&self, node: &mut NodeInfo, now: Instant) {
        node.state = self.node_state(node.id, now);
        let (condition, detail) = self.condition(node.id, now);
        node.condition = condition;
        node.detail = detail.or_else(|| self.stranger(node.id, now)).or(node.detail.take());
    }

    /// Disks in service that are so full, by what they report, that nothing is to be put on them.
    pub fn full_disks(&self, state: &State) -> BTreeSet<DiskId> {
        // Older members know of no such thing.
        if state.level() < 2 {
            return BTreeSet::new();
        }
        let used = |id: DiskId, disk: &levee_meta_state::Disk| self.used(disk.node, id).unwrap_or(0);
        let full = state.disks().filter(|(id, disk)| is_full(state, used(*id, disk), disk.capacity));
        full.map(|(id, _)| id).collect()
    }

    pub fn node_state(&self, node: NodeId, now: Instant) -> NodeState {
        let recent = |at: Instant| now.saturating_duration_since(at) < self.down_after;
        match self.nodes.get(&node) {
            Some(heard) if heard.stopping => NodeState::Down,
            Some(heard) if recent(heard.at) => NodeState::Up,
            _ if recent(self.since) => NodeState::Unknown,
            _ => NodeState::Down,
        }
    }

    /// The nodes to use: those that are up, and, right after a change of leader, those that may be.
    pub fn alive(&self, state: &State, now: Instant) -> BTreeSet<NodeId> {
        state.node_ids().filter(|id| self.node_state(*id, now) != NodeState::Down).collect()
    }

    /// The nodes that are up and in good condition; those that are up, or may be, if there are too few.
    pub fn best(&self, state: &State, now: Instant) -> BTreeSet<NodeId> {
        let up: BTreeSet<NodeId> = state.node_ids().filter(|id| self.node_state(*id, now) == NodeState::Up).collect();
        let fine: BTreeSet<NodeId> = up.difference(&self.troubled).copied().collect();
        match () {
            // Where most are in trouble, it is no reason to leave copies unmade.
            () if fine.len() * 2 > up.len() => fine,
            () if !up.is_empty() => up,
            () => self.alive(state, now),
        }
    }

    pub fn fill_disk(&self, disk: &mut DiskInfo) {
        let usage = self.usage(disk.node, disk.id);
        disk.used = usage.map(|u| u.used);
        disk.load = usage.map(|u| u.load).unwrap_or_default();
        if disk.reason.is_none() {
            disk.reason = usage.and_then(|u| u.failed.clone());
        }
    }

    /// Bytes of the disk that are used, by the last word of its node.
    pub fn used(&self, node: NodeId, disk: DiskId) -> Option<u64> {
        Some(self.usage(node, disk)?.used)
    }

    /// The last word of the disk's node about it.
    pub fn usage(&self, node: NodeId, disk: DiskId) -> Option<&DiskUsage> {
        self.nodes.get(&node)?.disks.get(&disk)
    }

    /// Why the disk failed, by the last word of its node.
    pub fn disk_failure(&self, node: NodeId, disk: DiskId) -> Option<&str> {
        self.usage(node, disk)?.failed.as_deref()
    }

    /// Whether the node said in its last word that it uses the disk.
    pub fn disk_works(&self, node: NodeId, disk: DiskId) -> bool {
        self.usage(node, disk).is_some_and(|usage| usage.failed.is_none())
    }

    /// For how long nothing was heard of the node, as far as this term reaches back.
    pub fn silence(&self, node: NodeId, now: Instant) -> Duration {
        let last = self.nodes.get(&node).map_or(self.since, |heard| heard.at);
        now.saturating_duration_since(last)
    }

    /// How many nodes that are up have copies to make.
    pub fn repairing_nodes(&self, now: Instant) -> usize {
        let repairs = |v: &VolumeReport| v.degraded_chunks > 0 || v.leaving_replicas > 0;
        let busy = |heard: &Heard| heard.volumes.values().any(repairs);
        let up = |id: NodeId| self.node_state(id, now) == NodeState::Up;
        self.nodes.iter().filter(|(id, heard)| up(**id) && busy(heard)).count()
    }

    /// The gateway's report, if it is about the present attachment: that of an earlier one must not look
    /// like the volume being served already.
    pub fn report(&self, state: &State, id: VolumeId) -> Option<&VolumeReport> {
        let volume = state.volume(id)?;
        let attachment = volume.attachment.as_ref().filter(|a| a.opened_by.is_some())?;
        let report = self.nodes.get(&attachment.node)?.volumes.get(&id)?;
        Some(report).filter(|r| r.epoch == volume.epoch)
    }

    /// Every report about a present attachment.
    pub fn reports<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (VolumeId, &'a VolumeReport)> {
        let all = self.nodes.values().flat_map(|heard| heard.volumes.keys());
        let ids: BTreeSet<VolumeId> = all.copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.report(state, id)?)))
    }

    /// Reports about present attachments of which something is to be said. Most are of no interest, and cost no look-up.
    pub fn notable<'a>(
        &'a self,
        state: &'a State,
        which: impl Fn(&VolumeReport) -> bool + 'a,
    ) -> impl Iterator<Item = (VolumeId, &'a VolumeReport)> {
        let all = self.nodes.values().flat_map(|heard| &heard.volumes);
        let notable = all.filter(move |(_, report)| which(report));
        notable
            .filter_map(|(id, said)| Some((*id, self.report(state, *id).filter(|report| std::ptr::eq(*report, said))?)))
    }

    pub fn fill_volume(&self, state: &State, volume: &mut VolumeInfo) {
        if let Some(attachment) = volume.attachment.as_mut() {
            attachment.report = self.report(state, volume.id).cloned();
        }
    }
}

/// Whether a disk is so full, by what its node reports, that nothing is to be put on it.
pub fn is_full(state: &State, used: u64, capacity: u64) -> bool {
    let percent = state.limits().full_percent;
    percent.is_some_and(|percent| u128::from(used) * 100 >= u128::from(capacity) * u128::from(percent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::api::VolumeSpan;

    fn report(volume: u64) -> VolumeReport {
        let report = serde_json::json!({
            "volume": volume, "epoch": 1, "state": "serving", "healthy_chunks": 1, "degraded_chunks": 0,
        });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn what_heartbeats_say_of_parts_is_put_together() {
        let (node, now) = (NodeId(1), Instant::now());
        let mut observed = Observed::new(1, now, Duration::from_secs(3));
        let mut hear = |ids: &[u64], part: Option<(u64, u64)>| {
            let volumes = ids.iter().copied().map(report).collect();
            let part = part.map(|(first, last)| VolumeSpan { first: VolumeId(first), last: VolumeId(last) });
            let (incarnation, disks, deleted, links) = (uuid::Uuid::nil(), vec![], vec![], vec![]);
            observed.heartbeat(
                node,
                Heartbeat { incarnation, disks, volumes, part, deleted, links, locks: vec![], stopping: false },
                now,
            );
            observed.nodes[&node].volumes.keys().map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(hear(&[2, 5], Some((0, 5))), [2, 5]);
        assert_eq!(hear(&[8, 9], Some((6, u64::MAX))), [2, 5, 8, 9]);
        assert_eq!(hear(&[5], Some((0, 5))), [5, 8, 9], "one is served no more");
        assert_eq!(hear(&[], Some((6, u64::MAX))), [5]);
        assert_eq!(hear(&[1], None), [1], "of all");
    }

    #[test]
    fn a_node_is_unknown_then_up_then_down() {
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        let mut observed = Observed::new(1, start, Duration::from_secs(3));
        let node = NodeId(1);
        assert_eq!(observed.node_state(node, later(2999)), NodeState::Unknown);
        assert_eq!(observed.node_state(node, later(3000)), NodeState::Down);
        observed.registered(node, vec![], BTreeSet::new(), later(4000));
        assert_eq!(observed.node_state(node, later(6999)), NodeState::Up);
        assert_eq!(observed.node_state(node, later(7000)), NodeState::Down);
        observed.enter(1, later(7000));
        assert_eq!(observed.node_state(node, later(7000)), NodeState::Down, "the term is the same");
        observed.enter(2, later(7000));
        assert_eq!(observed.node_state(node, later(7001)), NodeState::Unknown);
    }
}
