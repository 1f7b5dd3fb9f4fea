//! Where the replicas of new chunks go.
//!
//! They are on distinct nodes, and on disks in service. The gateway's node gets one if it stores data, so that
//! reads are local; the others go where the share of used space is smallest, which fills disks in
//! proportion to their size and takes turns among equals, in an order that differs from chunk to chunk. Nodes that are down come last: they are given
//! copies only where live nodes do not suffice and the volume's `min_copies` are on live ones, so that
//! writes go on; such a copy is made when its node is back. Where all disks of a node are drained or dead, and too few
//! nodes are left, a chunk begins with fewer copies, at least `min_copies`: the gateway asks for the others. All of it is integer arithmetic over ordered
//! maps: every member comes to the same places.

use crate::command::{Answer, Outcome, invalid};
use crate::room::{Need, Room, Scope};
use crate::state::State;
use crate::tables::{Chunk, Volume, VolumeAttachment};
use levee_proto::api::{AllocateChunks, AllocatedChunks, Problem, ProblemKind, ReplicaPlace};
use levee_proto::{ChunkId, ConfigNo, DiskId, Epoch, NodeId, VolumeId};
use std::collections::BTreeSet;

impl State {
    /// Allocates all of the chunks that do not exist yet, or none.
    pub(crate) fn allocate(
        &mut self,
        name: &str,
        request: &AllocateChunks,
        alive: &BTreeSet<NodeId>,
        full: &BTreeSet<DiskId>,
    ) -> Outcome {
        let id = self.volume_id(name)?;
        let (need, missing) = self.check_allocation(id, request)?;
        let class = self.tables.volumes[&id].class;
        let mut room = Room::of(self, Scope { alive, full, class, reserve: false });
        let mut plan = Vec::with_capacity(missing.len());
        for (next, index) in (self.tables.last.chunk + 1..).zip(missing) {
            let places = room.take(need, ChunkId(next)).map_err(|(live, all)| no_room(name, need, live, all))?;
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
        let attachment = holder(volume, request.epoch)?;
        if volume.read_only {
            return Err(invalid(format!("'{}' is read-only and gets no chunks", volume.name)));
        }
        let count = volume.geometry.chunk_count(volume.size);
        if let Some(index) = request.indexes.iter().find(|i| **i >= count) {
            return Err(invalid(format!("volume '{}' has {count} chunks, there is no chunk {index}", volume.name)));
        }
        let missing = request.indexes.iter().copied().filter(|i| !volume.chunks.contains_key(i)).collect();
        let (copies, min_copies) = (volume.copies.into(), volume.min_copies.into());
        let local = self.tables.placement.local_copy;
        Ok((Need { copies, min_copies, gateway: attachment.node, local }, missing))
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

/// The attachment whose gateway has opened this very epoch; all others are refused.
pub(crate) fn holder(volume: &Volume, epoch: Epoch) -> Result<&VolumeAttachment, Problem> {
    let opened = volume.attachment.as_ref().filter(|a| a.opened_by.is_some() && volume.epoch == epoch);
    opened.ok_or_else(|| {
        Problem::new(
            ProblemKind::Fenced,
            format!("epoch {epoch} of volume '{}' is over: close the volume and follow the intent", volume.name),
        )
    })
}

fn no_room(name: &str, need: Need, live: usize, all: usize) -> Problem {
    let Need { copies, min_copies, .. } = need;
    Problem::new(
        ProblemKind::NoSpace,
        format!(
            "volume '{name}' needs {copies} nodes with room for a chunk, {min_copies} of them live; \
             {all} nodes have it, {live} of them live (a share of each disk is kept for repairs): \
             add disks or nodes, start the nodes that are down, or delete volumes"
        ),
    )
}
