//! Where new replicas go.
//!
//! The replicas of a chunk are on distinct nodes. The gateway's node gets one if it stores data, so that
//! reads are local; the others go where the share of used space is smallest, which fills disks in
//! proportion to their size and takes turns among equals. Nodes that are down come last: they are given
//! copies only where live nodes do not suffice and the volume's `min_copies` are on live ones, so that
//! writes go on; such a copy is made when its node is back. All of it is integer arithmetic over ordered
//! maps: every member comes to the same places.

use crate::command::{Answer, Outcome, invalid};
use crate::state::State;
use crate::tables::{Chunk, Disk};
use levee_proto::api::{AllocateChunks, AllocatedChunks, Problem, ProblemKind, ReplicaPlace};
use levee_proto::{ConfigNo, DiskId, NodeId, VolumeId};
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
struct Room<'a> {
    nodes: BTreeMap<NodeId, BTreeMap<DiskId, Share>>,
    alive: &'a BTreeSet<NodeId>,
}

/// How many copies of a chunk there have to be.
#[derive(Clone, Copy)]
struct Need {
    copies: usize,
    /// On live nodes.
    min_copies: usize,
    /// The gateway's node: it takes one if it can, and is alive, for it asks.
    preferred: NodeId,
}

impl Room<'_> {
    fn of<'a>(state: &State, alive: &'a BTreeSet<NodeId>) -> Room<'a> {
        let mut nodes: BTreeMap<NodeId, BTreeMap<DiskId, Share>> = BTreeMap::new();
        for (id, node) in &state.tables.nodes {
            let share = |disk: &Disk| Share { used: disk.placed, total: disk.slots() };
            let disks: BTreeMap<DiskId, Share> = node
                .disks
                .iter()
                .filter_map(|disk| Some((*disk, share(state.tables.disks.get(disk)?))))
                .filter(|(_, share)| share.used < share.total)
                .collect();
            if !disks.is_empty() {
                nodes.insert(*id, disks);
            }
        }
        Room { nodes, alive }
    }

    /// Places on distinct nodes; or how many live nodes, and nodes at all, have room.
    fn take(&mut self, need: Need) -> Result<Vec<(NodeId, DiskId)>, (usize, usize)> {
        let Need { copies, min_copies, preferred } = need;
        let is_alive = |id: &NodeId| *id == preferred || self.alive.contains(id);
        let live = self.nodes.keys().filter(|id| is_alive(id)).count();
        if live < min_copies || self.nodes.len() < copies {
            return Err((live, self.nodes.len()));
        }
        let mut order: Vec<(NodeId, Share)> = self.nodes.iter().map(|(id, disks)| (*id, node_share(disks))).collect();
        order.sort_by(|(a, x), (b, y)| {
            let first = |id: &NodeId| (*id != preferred, !is_alive(id));
            first(a).cmp(&first(b)).then_with(|| x.cmp(y)).then_with(|| a.cmp(b))
        });
        Ok(order.into_iter().take(copies).filter_map(|(node, _)| Some((node, self.take_disk(node)?))).collect())
    }

    /// The emptiest disk of the node.
    fn take_disk(&mut self, node: NodeId) -> Option<DiskId> {
        let disks = self.nodes.get_mut(&node)?;
        let (&id, _) = disks.iter().min_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.cmp(b)))?;
        let share = disks.get_mut(&id)?;
        share.used += 1;
        if share.used >= share.total {
            disks.remove(&id);
        }
        if disks.is_empty() {
            self.nodes.remove(&node);
        }
        Some(id)
    }
}

fn node_share(disks: &BTreeMap<DiskId, Share>) -> Share {
    disks.values().fold(Share { used: 0, total: 0 }, |sum, disk| Share {
        used: sum.used + disk.used,
        total: sum.total + disk.total,
    })
}

impl State {
    /// Allocates all of the chunks that do not exist yet, or none.
    pub(crate) fn allocate(&mut self, name: &str, request: &AllocateChunks, alive: &BTreeSet<NodeId>) -> Outcome {
        let id = self.volume_id(name)?;
        let (need, missing) = self.check_allocation(id, request)?;
        let mut room = Room::of(self, alive);
        let mut plan = Vec::with_capacity(missing.len());
        for index in missing {
            let places = room.take(need).map_err(|(live, all)| no_room(name, need, live, all))?;
            plan.push((index, places));
        }
        for (index, places) in plan {
            self.place(id, index, places);
        }
        Ok(Answer::Allocated(AllocatedChunks { chunks: self.chunk_infos(id, &request.indexes) }))
    }

    /// What each chunk needs, and the indexes that have no chunk yet.
    fn check_allocation(&self, id: VolumeId, request: &AllocateChunks) -> Result<(Need, BTreeSet<u32>), Problem> {
        let volume = &self.tables.volumes[&id];
        let opened = volume.attachment.as_ref().filter(|a| a.opened_by.is_some() && volume.epoch == request.epoch);
        let Some(attachment) = opened else {
            return Err(Problem::new(
                ProblemKind::Fenced,
                format!(
                    "epoch {} of volume '{}' is over: close the volume and follow the intent",
                    request.epoch, volume.name
                ),
            ));
        };
        let count = volume.geometry.chunk_count(volume.size);
        if let Some(index) = request.indexes.iter().find(|i| **i >= count) {
            return Err(invalid(format!("volume '{}' has {count} chunks, there is no chunk {index}", volume.name)));
        }
        let missing = request.indexes.iter().copied().filter(|i| !volume.chunks.contains_key(i)).collect();
        let (copies, min_copies) = (volume.copies.into(), volume.min_copies.into());
        Ok((Need { copies, min_copies, preferred: attachment.node }, missing))
    }

    fn place(&mut self, id: VolumeId, index: u32, places: Vec<(NodeId, DiskId)>) {
        let tables = &mut self.tables;
        let chunk = tables.last.next_chunk();
        let mut replicas = Vec::with_capacity(places.len());
        for (node, disk) in places {
            if let Some(record) = tables.disks.get_mut(&disk) {
                record.placed += 1;
            }
            replicas.push(ReplicaPlace { replica: tables.last.next_replica(), node, disk });
        }
        if let Some(volume) = tables.volumes.get_mut(&id) {
            volume.chunks.insert(index, Chunk { id: chunk, config: ConfigNo::FIRST, replicas });
        }
    }
}

fn no_room(name: &str, need: Need, live: usize, all: usize) -> Problem {
    let Need { copies, min_copies, .. } = need;
    Problem::new(
        ProblemKind::NoSpace,
        format!(
            "volume '{name}' needs {copies} nodes with room for a chunk, {min_copies} of them live; \
             {all} nodes have it, {live} of them live: \
             add disks or nodes, start the nodes that are down, or delete volumes"
        ),
    )
}
