//! Groups of nodes that share chunks, so that few combinations of nodes hold all copies of some chunk.
//!
//! With a scatter width of S, nodes are in groups of at most S + 1, and a chunk's copies stay within one group. (The idea of copysets:
//! Cidon et al., USENIX ATC 2013; groups rather than permutations, because a group can say by itself with whom a node may share.)
//! Each group is spread over zones and racks as evenly as its nodes allow. Nodes keep their group for ever, unless the width is changed:
//! a new node joins the smallest group, and when all are full, it founds one with half the nodes of the largest, where both
//! are large enough for that. Where no group has room for all copies of a chunk, groups are not heeded: copies count more.

use crate::command::{Answer, Outcome, invalid};
use crate::limits::{MAX_COPIES, MIN_GROUP};
use crate::state::State;
use levee_proto::NodeId;
use levee_proto::api::{ChangePlacement, EventKind, MAX_RESERVE_PERCENT, PlacementPolicy, Problem};
use std::collections::BTreeMap;

pub(crate) fn validate_placement(change: &ChangePlacement) -> Result<(), Problem> {
    let least = u16::from(MAX_COPIES) - 1;
    match change {
        ChangePlacement { scatter_width: Some(width), .. } if (1..least).contains(width) => Err(invalid(format!(
            "a scatter width of {width} leaves volumes with {MAX_COPIES} copies without nodes: at least {least}, or 0 for no limit"
        ))),
        ChangePlacement { reserve_percent: Some(percent), .. } if *percent > MAX_RESERVE_PERCENT => {
            Err(invalid(format!("{percent} % cannot be kept for repairs: at most {MAX_RESERVE_PERCENT} %")))
        }
        _ => Ok(()),
    }
}

impl State {
    pub fn placement(&self) -> PlacementPolicy {
        self.tables.placement
    }

    pub(crate) fn set_placement(&mut self, change: &ChangePlacement) -> Outcome {
        let policy = &mut self.tables.placement;
        let before = *policy;
        match change.scatter_width {
            Some(0) => policy.scatter_width = None,
            Some(width) => policy.scatter_width = Some(width),
            None => {}
        }
        policy.reserve_percent = change.reserve_percent.unwrap_or(policy.reserve_percent);
        policy.local_copy = change.local_copy.unwrap_or(policy.local_copy);
        let after = *policy;
        if before.scatter_width != after.scatter_width {
            self.regroup();
        }
        if before != after {
            let width = after.scatter_width.map_or("no limit".into(), |width| width.to_string());
            let text = format!(
                "placement: scatter width {width}, {} % of each disk for repairs, local copies {}",
                after.reserve_percent,
                if after.local_copy { "on" } else { "off" }
            );
            self.tell(EventKind::Cluster, "cluster", text);
        }
        Ok(Answer::Done)
    }

    /// Deals all nodes out anew, each zone's and rack's evenly over all groups.
    fn regroup(&mut self) {
        let width = self.tables.placement.scatter_width;
        let mut nodes: Vec<NodeId> = self.tables.nodes.keys().copied().collect();
        nodes.sort_by_key(|id| self.domain_key(*id));
        let groups = width.map(|width| nodes.len().div_ceil(usize::from(width) + 1).max(1));
        for (i, id) in nodes.into_iter().enumerate() {
            if let Some(node) = self.tables.nodes.get_mut(&id) {
                node.group = groups.map(|groups| (i % groups) as u32 + 1);
            }
        }
    }

    fn domain_key(&self, id: NodeId) -> (Option<String>, Option<String>, NodeId) {
        let node = self.tables.nodes.get(&id);
        (node.and_then(|n| n.zone.clone()), node.and_then(|n| n.rack.clone()), id)
    }

    fn groups(&self) -> BTreeMap<u32, Vec<NodeId>> {
        let mut groups: BTreeMap<u32, Vec<NodeId>> = BTreeMap::new();
        for (id, node) in &self.tables.nodes {
            if let Some(group) = node.group {
                groups.entry(group).or_default().push(*id);
            }
        }
        groups
    }

    /// Gives a node that has just joined its group.
    pub(crate) fn join_group(&mut self, id: NodeId) {
        let Some(width) = self.tables.placement.scatter_width else { return };
        let most = usize::from(width) + 1;
        let groups = self.groups();
        let zone = self.tables.nodes.get(&id).and_then(|n| n.zone.clone());
        let same_zone = |members: &[NodeId]| {
            members
                .iter()
                .filter(|m| zone.is_some() && self.tables.nodes.get(m).is_some_and(|n| n.zone == zone))
                .count()
        };
        let open = groups.iter().filter(|(_, members)| members.len() < most);
        let smallest = open.min_by_key(|(group, members)| (members.len(), same_zone(members), **group));
        let new = groups.keys().next_back().map_or(1, |last| last + 1);
        let group = smallest.map_or(new, |(group, _)| *group);
        let mut movers = vec![id];
        if smallest.is_none() && most.div_ceil(2) >= MIN_GROUP {
            let mut largest = groups.into_values().max_by_key(Vec::len).unwrap_or_default();
            largest.sort_by_key(|id| self.domain_key(*id));
            movers.extend(largest.into_iter().skip(1).step_by(2));
        }
        for mover in movers {
            if let Some(node) = self.tables.nodes.get_mut(&mover) {
                node.group = Some(group);
            }
        }
    }
}
