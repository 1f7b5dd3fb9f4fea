//! Room for replicas on disks in service, and who gets the next one.

use crate::state::State;
use crate::table::Table;
use crate::tables::Disk;
use levee_proto::api::DiskState;
use levee_proto::wire::mix;
use levee_proto::{ChunkId, DiskId, NodeId};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A share of used space, `used / total`, compared without rounding.
#[derive(Clone, Copy)]
struct Share {
    used: u64,
    total: u64,
}

impl Share {
    fn cmp(&self, other: &Share) -> Ordering {
        let left = u128::from(self.used) * u128::from(other.total);
        left.cmp(&(u128::from(other.used) * u128::from(self.total)))
    }
}

/// Room on the disks of the nodes, as the plan goes on.
pub(crate) struct Room<'a> {
    nodes: BTreeMap<NodeId, BTreeMap<DiskId, Share>>,
    /// Nodes with disks, none of which is in service.
    out: usize,
    disks: &'a Table<DiskId, Disk>,
    alive: &'a BTreeSet<NodeId>,
}

/// How many copies of a chunk there have to be.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    pub copies: usize,
    /// On live nodes.
    pub min_copies: usize,
    /// The gateway's node: it takes one if it can, and is alive, for it asks.
    pub preferred: NodeId,
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

impl Room<'_> {
    pub fn of<'a>(state: &'a State, alive: &'a BTreeSet<NodeId>) -> Room<'a> {
        let mut nodes: BTreeMap<NodeId, BTreeMap<DiskId, Share>> = BTreeMap::new();
        let mut out = 0;
        for (id, node) in &state.tables.nodes {
            let known = || node.disks.iter().filter_map(|id| state.tables.disks.get(id));
            out += usize::from(known().next().is_some() && known().all(|d| d.state() != DiskState::InService));
            let share = |disk: &Disk| Share { used: disk.placed, total: disk.slots() };
            let disks: BTreeMap<DiskId, Share> = node
                .disks
                .iter()
                .filter_map(|id| Some((*id, state.tables.disks.get(id)?)))
                .filter(|(_, disk)| disk.state() == DiskState::InService)
                .map(|(id, disk)| (id, share(disk)))
                .filter(|(_, share)| share.used < share.total)
                .collect();
            if !disks.is_empty() {
                nodes.insert(*id, disks);
            }
        }
        Room { nodes, out, disks: &state.tables.disks, alive }
    }

    /// Places on distinct nodes; or how many live nodes, and nodes at all, have room. Fewer than `copies`, but not fewer than
    /// `min_copies`, only where nodes are out of service: disks that are full are waited for.
    ///
    /// Nodes that are used alike take turns as `chunk` says, so that every node shares chunks with every other: all of them
    /// can help when one is lost.
    pub fn take(&mut self, need: Need, chunk: ChunkId) -> Result<Vec<(NodeId, DiskId)>, (usize, usize)> {
        let Need { copies, min_copies, preferred } = need;
        let is_alive = |id: &NodeId| *id == preferred || self.alive.contains(id);
        let live = self.nodes.keys().filter(|id| is_alive(id)).count();
        if live < min_copies || self.nodes.len() + self.out < copies {
            return Err((live, self.nodes.len()));
        }
        let mut order: Vec<(NodeId, Share)> = self.nodes.iter().map(|(id, disks)| (*id, node_share(disks))).collect();
        order.sort_by(|(a, x), (b, y)| {
            let first = |id: &NodeId| (*id != preferred, !is_alive(id));
            let turn = |id: &NodeId| mix(chunk.0 ^ mix(u64::from(id.0)));
            first(a).cmp(&first(b)).then_with(|| x.cmp(y)).then_with(|| turn(a).cmp(&turn(b))).then_with(|| a.cmp(b))
        });
        Ok(order.into_iter().take(copies).filter_map(|(node, _)| Some((node, self.take_disk(node)?))).collect())
    }

    /// A place for one more member of a chunk, on a live node; it is not taken yet.
    pub fn pick(&self, taken: &Taken) -> Option<(NodeId, DiskId)> {
        let free = |node: &NodeId| !taken.nodes.contains(node);
        let node = self.emptiest(taken, free).or_else(|| self.emptiest(taken, |n| taken.last_resort.contains(n)))?;
        let disks = self.nodes.get(&node)?;
        let fitting = disks.iter().filter(|(id, _)| self.fits(**id, taken));
        let (&disk, _) = fitting.min_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.cmp(b)))?;
        Some((node, disk))
    }

    /// Never a disk that still has an earlier replica of the chunk to delete.
    fn fits(&self, disk: DiskId, taken: &Taken) -> bool {
        let deletes = || self.disks.get(&disk).is_some_and(|d| d.deletes_chunk(disk, taken.chunk));
        !taken.disks.contains(&disk) && !deletes()
    }

    /// The live node with the smallest share of used space among those that have a disk for it.
    fn emptiest(&self, taken: &Taken, fits: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        let has_disk = |disks: &BTreeMap<DiskId, Share>| disks.keys().any(|disk| self.fits(*disk, taken));
        let fitting = self.nodes.iter().filter(|(id, disks)| self.alive.contains(id) && fits(id) && has_disk(disks));
        let shares = fitting.map(|(id, disks)| (*id, node_share(disks)));
        shares.min_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.cmp(b))).map(|(id, _)| id)
    }

    /// The emptiest disk of the node.
    fn take_disk(&mut self, node: NodeId) -> Option<DiskId> {
        let disks = self.nodes.get(&node)?;
        let (&id, _) = disks.iter().min_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.cmp(b)))?;
        self.take_place(node, id);
        Some(id)
    }

    pub fn take_place(&mut self, node: NodeId, id: DiskId) {
        let Some(disks) = self.nodes.get_mut(&node) else { return };
        let Some(share) = disks.get_mut(&id) else { return };
        share.used += 1;
        if share.used >= share.total {
            disks.remove(&id);
        }
        if disks.is_empty() {
            self.nodes.remove(&node);
        }
    }
}

fn node_share(disks: &BTreeMap<DiskId, Share>) -> Share {
    disks.values().fold(Share { used: 0, total: 0 }, |sum, disk| Share {
        used: sum.used + disk.used,
        total: sum.total + disk.total,
    })
}
