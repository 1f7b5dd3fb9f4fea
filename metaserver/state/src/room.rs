//! Room for replicas on disks in service, and who gets the next one.
//!
//! Copies of a chunk are on distinct nodes, and these in distinct zones and racks as far as there are some with room: every further copy
//! goes where the fewest of its siblings are, and only then where the smallest share of space is used. A node without a zone is one by
//! itself.

use crate::state::State;
use crate::tables::{Disk, Node};
use levee_proto::api::{DiskClass, DiskState, FULL_WEIGHT};
use levee_proto::wire::mix;
use levee_proto::{ChunkId, DiskId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// A share of used space. `total` is in hundredths, for weights.
#[derive(Clone, Copy, Default)]
struct Share {
    used: u64,
    total: u64,
    /// How many may be used.
    slots: u64,
}

impl Share {
    /// `used / total` in units so small that different shares of real disks differ.
    fn ratio(&self) -> u128 {
        (u128::from(self.used) << 64) / u128::from(self.total.max(1))
    }
}

/// Which disks are considered.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// Nodes that may be used.
    pub alive: &'a BTreeSet<NodeId>,
    /// Disks that are so full, by what they report, that nothing is put on them.
    pub full: &'a BTreeSet<DiskId>,
    pub class: Option<DiskClass>,
    /// Whether the share of each disk that is kept for repairs may be used.
    pub reserve: bool,
}

/// Room on the disks of the nodes, as the plan goes on.
pub(crate) struct Room<'a> {
    state: &'a State,
    scope: Scope<'a>,
    nodes: BTreeMap<NodeId, NodeRoom<'a>>,
    /// Nodes with disks, none of which is in service.
    out: usize,
}

/// A node with room. What a choice among many of them asks for is at hand.
struct NodeRoom<'a> {
    node: &'a Node,
    disks: BTreeMap<DiskId, Share>,
    /// [`Share::ratio`] of all of them.
    ratio: u128,
}

impl<'a> NodeRoom<'a> {
    fn new(node: &'a Node, disks: BTreeMap<DiskId, Share>) -> NodeRoom<'a> {
        let ratio = sum(disks.values()).ratio();
        NodeRoom { node, disks, ratio }
    }
}

/// How many copies of a chunk there have to be.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    pub copies: usize,
    /// On live nodes.
    pub min_copies: usize,
    /// The gateway's node: it is alive, for it asks.
    pub gateway: NodeId,
    /// Whether it takes a copy if it can.
    pub local: bool,
}

/// Where one more member of a chunk may not go.
pub(crate) struct Taken {
    /// Nodes of members that stay.
    pub nodes: BTreeSet<NodeId>,
    /// Those of them that are about to lose theirs: better than nothing.
    pub last_resort: BTreeSet<NodeId>,
    /// Of members, those that leave included.
    pub disks: BTreeSet<DiskId>,
    pub chunk: ChunkId,
}

/// How many of a chunk's copies are in a node's zone, and in its rack: fewer are better.
pub(crate) type Crowd = (usize, usize);

impl State {
    /// How close a copy on this node would be to those on others.
    pub(crate) fn crowd<'a>(&self, node: NodeId, others: impl Iterator<Item = &'a NodeId>) -> Crowd {
        let Some(node) = self.tables.nodes.get(&node) else { return (0, 0) };
        crowd(node, others.filter_map(|id| self.tables.nodes.get(id)))
    }

    /// The group that a chunk with members on these nodes stays in, if it is in one.
    pub(crate) fn group_of<'a>(&self, mut nodes: impl Iterator<Item = &'a NodeId>) -> Option<u32> {
        nodes.find_map(|id| self.tables.nodes.get(id)?.group)
    }
}

fn crowd<'a>(node: &Node, others: impl Iterator<Item = &'a Node>) -> Crowd {
    others.fold((0, 0), |(zone, rack), other| {
        (zone + usize::from(shares_zone(node, other)), rack + usize::from(shares_rack(node, other)))
    })
}

fn shares_zone(a: &Node, b: &Node) -> bool {
    a.zone.is_some() && a.zone == b.zone
}

/// Racks of different zones may have the same name.
fn shares_rack(a: &Node, b: &Node) -> bool {
    a.rack.is_some() && a.rack == b.rack && a.zone == b.zone
}

impl<'a> Room<'a> {
    pub fn of(state: &'a State, scope: Scope<'a>) -> Room<'a> {
        let mut room = Room { state, scope, nodes: BTreeMap::new(), out: 0 };
        for (id, node) in &state.tables.nodes {
            let known = || node.disks.iter().filter_map(|id| Some((*id, state.tables.disks.get(id)?)));
            let in_service = |disk: &Disk| disk.state() == DiskState::InService;
            room.out += usize::from(known().next().is_some() && !known().any(|(_, disk)| in_service(disk)));
            let fitting = known().filter(|(id, disk)| in_service(disk) && room.considers(*id, disk));
            let shares = fitting.map(|(id, disk)| (id, room.share(disk)));
            let disks: BTreeMap<DiskId, Share> =
                shares.filter(|(_, share)| share.used < share.slots && share.total > 0).collect();
            if !disks.is_empty() {
                room.nodes.insert(*id, NodeRoom::new(node, disks));
            }
        }
        room
    }

    fn considers(&self, id: DiskId, disk: &Disk) -> bool {
        self.scope.class.is_none_or(|class| class == disk.class) && !self.scope.full.contains(&id)
    }

    fn share(&self, disk: &Disk) -> Share {
        let all = disk.slots();
        // Older members know of no reserve.
        let percent =
            if self.scope.reserve || self.state.level() < 2 { 0 } else { self.state.tables.placement.reserve_percent };
        let slots = all - all * u64::from(percent) / 100;
        Share { used: disk.placed, total: all * u64::from(disk.weight) * 100 / u64::from(FULL_WEIGHT), slots }
    }

    /// Places on distinct nodes; or how many live nodes, and nodes at all, have room. Fewer than `copies`, but not fewer than
    /// `min_copies`, only where nodes are out of service: disks that are full are waited for.
    ///
    /// Nodes that are used alike take turns as `chunk` says, so that every node shares chunks with every other: all of them
    /// can help when one is lost.
    pub fn take(&mut self, need: Need, chunk: ChunkId) -> Result<Vec<(NodeId, DiskId)>, (usize, usize)> {
        let live = self.nodes.keys().filter(|id| self.is_alive(**id, need)).count();
        if live < need.min_copies || self.nodes.len() + self.out < need.copies {
            return Err((live, self.nodes.len()));
        }
        let group = self.best_group(need);
        let mut places = Vec::with_capacity(need.copies);
        let mut chosen: Vec<(NodeId, &Node)> = Vec::with_capacity(need.copies);
        while places.len() < need.copies {
            let is_free = |id: &NodeId| chosen.iter().all(|(other, _)| other != id);
            let pool = self.nodes.iter().filter(|(id, at)| (group.is_none() || at.node.group == group) && is_free(id));
            let best = pool.min_by_key(|(id, at)| self.rank(**id, at, need, chunk, &chosen));
            let Some((id, node)) = best.map(|(id, at)| (*id, at.node)) else { break };
            chosen.push((id, node));
            places.extend(self.take_disk(id).map(|disk| (id, disk)));
        }
        Ok(places)
    }

    fn is_alive(&self, id: NodeId, need: Need) -> bool {
        id == need.gateway || self.scope.alive.contains(&id)
    }

    /// The smaller, the better a place for the next copy.
    fn rank(
        &self,
        id: NodeId,
        at: &NodeRoom<'_>,
        need: Need,
        chunk: ChunkId,
        chosen: &[(NodeId, &Node)],
    ) -> impl Ord + use<> {
        let local = need.local && id == need.gateway && chosen.is_empty();
        let turn = mix(chunk.0 ^ mix(u64::from(id.0)));
        let crowd = crowd(at.node, chosen.iter().map(|(_, node)| *node));
        (!local, !self.is_alive(id, need), crowd, at.ratio, turn, id)
    }

    /// The group among whose nodes a chunk's copies are placed, if there are groups, and one has room for all.
    fn best_group(&self, need: Need) -> Option<u32> {
        let mut groups: BTreeMap<u32, Vec<NodeId>> = BTreeMap::new();
        for (id, at) in &self.nodes {
            if let Some(group) = at.node.group {
                groups.entry(group).or_default().push(*id);
            }
        }
        let fits = |members: &[NodeId]| {
            members.len() >= need.copies
                && members.iter().filter(|id| self.is_alive(**id, need)).count() >= need.min_copies
        };
        let share = |members: &[NodeId]| sum(members.iter().flat_map(|id| self.nodes[id].disks.values())).ratio();
        let is_local = |members: &[NodeId]| need.local && members.contains(&need.gateway);
        let usable = groups.iter().filter(|(_, members)| fits(members));
        usable.min_by_key(|(_, members)| (!is_local(members), share(members))).map(|(group, _)| *group)
    }

    /// A place for one more member of a chunk, on a live node; it is not taken yet.
    pub fn pick(&self, taken: &Taken) -> Option<(NodeId, DiskId)> {
        let free = |node: &NodeId| !taken.nodes.contains(node);
        let node = self.best(taken, free).or_else(|| self.best(taken, |n| taken.last_resort.contains(n)))?;
        let disks = &self.nodes.get(&node)?.disks;
        let fitting = disks.iter().filter(|(id, _)| self.fits(**id, taken));
        let (&disk, _) = fitting.min_by_key(|(id, share)| (share.ratio(), **id))?;
        Some((node, disk))
    }

    /// Whether this very disk can take one more member of a chunk.
    pub fn takes(&self, node: NodeId, disk: DiskId, taken: &Taken) -> bool {
        let has_room = self.nodes.get(&node).is_some_and(|at| at.disks.contains_key(&disk));
        has_room && self.scope.alive.contains(&node) && !taken.nodes.contains(&node) && self.fits(disk, taken)
    }

    /// Never a disk that still has an earlier replica of the chunk to delete.
    fn fits(&self, disk: DiskId, taken: &Taken) -> bool {
        let deletes = || self.state.tables.disks.get(&disk).is_some_and(|d| d.deletes_chunk(disk, taken.chunk));
        !taken.disks.contains(&disk) && !deletes()
    }

    /// The live node that is the best place among those that have a disk for it.
    fn best(&self, taken: &Taken, fits: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        let has_disk = |at: &NodeRoom<'_>| at.disks.keys().any(|disk| self.fits(*disk, taken));
        let alive = |id: &NodeId| self.scope.alive.contains(id);
        let fitting = self.nodes.iter().filter(|(id, at)| alive(id) && fits(id) && has_disk(at));
        let group = self.state.group_of(taken.nodes.iter());
        let rank = |(id, at): &(&NodeId, &NodeRoom<'_>)| {
            let others = taken.nodes.iter().filter(|other| other != id);
            let is_stranger = group.is_some() && at.node.group != group;
            (is_stranger, self.state.crowd(**id, others), at.ratio, **id)
        };
        fitting.min_by_key(rank).map(|(id, _)| *id)
    }

    /// The emptiest disk of the node.
    fn take_disk(&mut self, node: NodeId) -> Option<DiskId> {
        let disks = &self.nodes.get(&node)?.disks;
        let (&id, _) = disks.iter().min_by_key(|(id, share)| (share.ratio(), **id))?;
        self.take_place(node, id);
        Some(id)
    }

    pub fn take_place(&mut self, node: NodeId, id: DiskId) {
        let Some(at) = self.nodes.get_mut(&node) else { return };
        let Some(share) = at.disks.get_mut(&id) else { return };
        share.used += 1;
        if share.used >= share.slots {
            at.disks.remove(&id);
        }
        if at.disks.is_empty() {
            self.nodes.remove(&node);
        } else {
            at.ratio = sum(at.disks.values()).ratio();
        }
    }
}

fn sum<'a>(shares: impl Iterator<Item = &'a Share>) -> Share {
    shares.fold(Share::default(), |sum, disk| Share {
        used: sum.used + disk.used,
        total: sum.total + disk.total,
        slots: sum.slots + disk.slots,
    })
}
