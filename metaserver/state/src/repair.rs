//! Volumes that nobody uses are opened by the cluster itself to make their copies whole.

use crate::command::{Answer, Outcome};
use crate::state::State;
use crate::tables::{Chunk, Volume, VolumeAttachment};
use crate::view::no_volume;
use levee_proto::api::{Problem, ProblemKind};
use levee_proto::{DiskId, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::ops::Bound;

/// One stretch of a search for volumes to repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairScan {
    pub volumes: Vec<VolumeId>,
    /// Where to go on; none at the end.
    pub next: Option<VolumeId>,
}

impl State {
    pub(crate) fn attach_repair(&mut self, id: VolumeId, node: NodeId) -> Outcome {
        let volume = self.tables.volumes.get(&id).ok_or_else(|| no_volume(id))?;
        if let Some(attachment) = &volume.attachment {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!("volume '{}' is attached to node '{}'", volume.name, self.node_name(attachment.node)),
            ));
        }
        if !self.tables.nodes.contains_key(&node) {
            return Err(Problem::new(ProblemKind::NotFound, format!("there is no node {node}")));
        }
        self.set_attachment(id, node, true);
        self.volume_answer(id)
    }

    /// No change if a user has attached the volume meanwhile.
    pub(crate) fn detach_repair(&mut self, id: VolumeId, attachment: u64) -> Outcome {
        let volume = self.tables.volumes.get(&id);
        if volume.and_then(|v| v.attachment.as_ref()).is_some_and(|a| a.repair && a.id == attachment) {
            self.drop_attachment(id);
        }
        Ok(Answer::Done)
    }

    /// Whether some node is to serve it, for a user or for repair.
    pub fn is_attached(&self, id: VolumeId) -> bool {
        self.tables.volumes.get(&id).is_some_and(|v| v.attachment.is_some())
    }

    /// The volumes that are attached for repair.
    pub fn repairs(&self) -> impl Iterator<Item = (VolumeId, &VolumeAttachment)> + '_ {
        let volumes = self.index.repairs.iter();
        volumes.filter_map(|id| Some((*id, self.tables.volumes.get(id)?.attachment.as_ref()?)))
    }

    /// Volumes with chunks that no node serves.
    pub fn unused_volumes(&self) -> impl Iterator<Item = VolumeId> + '_ {
        let unused = self.tables.volumes.iter().filter(|(_, v)| v.attachment.is_none() && !v.chunks.is_empty());
        unused.map(|(id, _)| *id)
    }

    /// Looks through the detached volumes after `after`, about `budget` chunks of them, for those with
    /// copies that have to be put elsewhere.
    pub fn scan_for_repair(&self, after: VolumeId, budget: usize) -> RepairScan {
        let mut scan = RepairScan::default();
        let mut looked = 0;
        for (id, volume) in self.tables.volumes.range((Bound::Excluded(after), Bound::Unbounded)) {
            if looked >= budget {
                return scan;
            }
            looked += 1;
            if volume.attachment.is_none() {
                looked += volume.chunks.len();
                if self.needs_repair(volume) {
                    scan.volumes.push(*id);
                }
            }
            scan.next = Some(*id);
        }
        scan.next = None;
        scan
    }

    fn needs_repair(&self, volume: &Volume) -> bool {
        volume.chunks.values().any(|chunk| self.chunk_needs_repair(volume, chunk))
    }

    fn chunk_needs_repair(&self, volume: &Volume, chunk: &Chunk) -> bool {
        chunk.replicas.len() != usize::from(volume.copies)
            || chunk.replicas.iter().any(|place| self.index.evacuate.contains_key(&place.disk))
    }

    /// The node to repair the next volume on: the one of these that serves the fewest.
    pub fn repairer(&self, alive: &BTreeSet<NodeId>) -> Option<NodeId> {
        self.least_attached(alive)
    }

    /// Disks that their nodes, when they last registered, did not bring along.
    pub fn absent_disks(&self) -> BTreeSet<DiskId> {
        let here = |id: DiskId, node: NodeId| self.tables.nodes.get(&node).is_some_and(|n| n.disks.contains(&id));
        self.disks().filter(|(id, disk)| !here(*id, disk.node)).map(|(id, _)| id).collect()
    }

    /// What each node may spend on background work, bytes per second.
    pub fn background_rate(&self) -> Option<u64> {
        self.tables.background_rate
    }
}
