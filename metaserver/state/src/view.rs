//! Reading the state in the API's terms. What is observed rather than replicated is left open: `state`,
//! `used` and `report` are for the caller to fill in.

use crate::command::{Answer, Outcome};
use crate::state::State;
use crate::tables::{Chunk, Disk, Node, Volume};
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::ops::Bound;
use uuid::Uuid;

impl State {
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.tables.nodes.get(&id)
    }

    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.index.node_by_name.get(name).copied()
    }

    /// Attached volumes, also those that are attached for repair, and their nodes.
    pub fn attachments(&self) -> impl Iterator<Item = (NodeId, VolumeId)> + '_ {
        self.index.attached.iter().flat_map(|(node, volumes)| volumes.iter().map(|volume| (*node, *volume)))
    }

    /// The node's disks among these.
    pub fn disks_among(&self, node: NodeId, uuids: impl IntoIterator<Item = Uuid>) -> BTreeSet<DiskId> {
        let known = uuids.into_iter().filter_map(|uuid| self.index.disk_by_uuid.get(&uuid).copied());
        known.filter(|id| self.tables.disks.get(id).is_some_and(|disk| disk.node == node)).collect()
    }

    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.tables.nodes.keys().copied()
    }

    pub fn disk(&self, id: DiskId) -> Option<&Disk> {
        self.tables.disks.get(&id)
    }

    /// All disks, in order of id.
    pub fn disks(&self) -> impl Iterator<Item = (DiskId, &Disk)> + '_ {
        self.tables.disks.iter().map(|(id, disk)| (*id, disk))
    }

    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.tables.volumes.get(&id)
    }

    /// All volumes, those that users do not see included.
    pub fn volume_ids(&self) -> impl Iterator<Item = VolumeId> + '_ {
        self.tables.volumes.iter().map(|(id, _)| *id)
    }

    /// How many nodes, disks, volumes there are, deleted ones that clones need included.
    pub fn counts(&self) -> [usize; 3] {
        [self.tables.nodes.len(), self.tables.disks.len(), self.tables.volumes.len()]
    }

    /// At most `limit` nodes above `after`, in order of id.
    pub fn nodes_after(&self, after: NodeId, limit: usize) -> Vec<NodeInfo> {
        let above = (Bound::Excluded(after), Bound::Unbounded);
        self.tables.nodes.range(above).take(limit).map(|(id, node)| node_info(*id, node)).collect()
    }

    /// At most `limit` disks above `after`, in order of id.
    pub fn disks_after(&self, after: DiskId, limit: usize) -> Vec<DiskInfo> {
        let above = (Bound::Excluded(after), Bound::Unbounded);
        self.tables.disks.range(above).take(limit).map(|(id, disk)| disk_info(*id, disk)).collect()
    }

    pub(crate) fn node_answer(&self, id: NodeId) -> Outcome {
        let node = self.tables.nodes.get(&id).ok_or_else(|| crate::removal::no_node(id))?;
        Ok(Answer::Node(node_info(id, node)))
    }

    pub(crate) fn disk_answer(&self, id: DiskId) -> Outcome {
        let disk = self.tables.disks.get(&id).ok_or_else(|| no_disk(id))?;
        Ok(Answer::Disk(disk_info(id, disk)))
    }

    /// At most `limit` volumes whose names come after `after`, in order of name.
    pub fn volumes_after(&self, after: &str, limit: usize) -> Vec<VolumeInfo> {
        // Names of deleted volumes begin with '.', all others come after '/'.
        let above = (Bound::Excluded(after.max("/")), Bound::Unbounded);
        let ids = self.index.volume_by_name.range::<str, _>(above).take(limit);
        ids.filter_map(|(_, id)| self.volume_info(*id)).collect()
    }

    pub fn volume_named(&self, name: &str) -> Result<VolumeInfo, Problem> {
        if let Some(snapshot) = SnapshotName::parse(name) {
            return self.snapshot_as_volume(&snapshot);
        }
        let id = self.user_volume_id(name)?;
        self.volume_info(id).ok_or_else(|| no_volume(id))
    }

    pub(crate) fn volume_answer(&self, id: VolumeId) -> Outcome {
        let info = self.volume_info(id);
        info.map(Answer::Volume).ok_or_else(|| no_volume(id))
    }

    pub(crate) fn volume_info(&self, id: VolumeId) -> Option<VolumeInfo> {
        let volume = self.tables.volumes.get(&id)?;
        let attachment = volume.attachment.as_ref().map(|a| Attachment {
            node: a.node,
            node_name: self.node_name(a.node),
            attachment: a.id,
            repair: a.repair,
            report: None,
        });
        Some(VolumeInfo {
            id,
            name: volume.name.clone(),
            size: volume.size,
            copies: volume.copies,
            min_copies: volume.min_copies,
            epoch: volume.epoch,
            version: volume.version,
            geometry: volume.geometry,
            chunks: u32::try_from(volume.chunks.len()).unwrap_or(u32::MAX),
            attachment,
            parent: self.parent_name(volume),
            snapshots: u32::try_from(volume.history().snapshots.len()).unwrap_or(u32::MAX),
            flattening: volume.history().flatten,
            read_only: volume.read_only,
            class: volume.class,
            job: self.job(id).cloned().map(Box::new),
            status: String::new(),
        })
    }

    /// The chunks at these positions, in the order asked for.
    pub(crate) fn chunk_infos(&self, id: VolumeId, indexes: &[u32]) -> Vec<ChunkInfo> {
        let Some(volume) = self.tables.volumes.get(&id) else { return Vec::new() };
        indexes.iter().filter_map(|i| Some(volume.chunks.get(i)?.info(*i))).collect()
    }
}

impl Chunk {
    pub(crate) fn info(&self, index: u32) -> ChunkInfo {
        ChunkInfo { index, chunk: self.id, config: self.config, replicas: self.replicas.clone() }
    }
}

pub(crate) fn no_volume(id: VolumeId) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no volume {id}"))
}

pub(crate) fn no_disk(id: DiskId) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no disk {id}: `levee disk list` shows them"))
}

fn node_info(id: NodeId, node: &Node) -> NodeInfo {
    NodeInfo {
        id,
        name: node.name.clone(),
        state: NodeState::Unknown,
        admin_url: node.admin_url.clone(),
        cores: node.cores.clone(),
        disks: node.disks.iter().copied().collect(),
        zone: node.zone.clone(),
        rack: node.rack.clone(),
        group: node.group,
        draining: node.drain.is_some(),
        removed: node.removed,
        condition: NodeCondition::Fine,
        detail: node.drain.as_ref().and_then(|drain| drain.reason.clone()),
        status: String::new(),
    }
}

fn disk_info(id: DiskId, disk: &Disk) -> DiskInfo {
    DiskInfo {
        id,
        uuid: disk.uuid,
        node: disk.node,
        path: disk.path.clone(),
        capacity: disk.capacity,
        used: None,
        shards: disk.shards,
        replicas: disk.live(),
        state: disk.state(),
        reason: disk.reason().map(Into::into),
        class: disk.class,
        weight: disk.weight,
        removed: disk.removed,
        load: DiskLoad::default(),
        status: String::new(),
    }
}
