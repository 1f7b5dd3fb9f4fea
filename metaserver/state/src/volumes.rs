//! Creating and deleting volumes.

use crate::command::{Answer, Outcome};
use crate::limits::MAX_VOLUMES;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::{CreateVolume, DiskState, Problem, ProblemKind, ReplicaPlace, ReplicaRef};
use levee_proto::{ChunkId, DiskId, Epoch, Geometry, NodeId, Version};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(crate) fn create_volume(&mut self, request: &CreateVolume) -> Outcome {
        let name = &request.name;
        if self.index.volume_by_name.contains_key(name) {
            return Err(Problem::new(ProblemKind::Exists, format!("there is a volume named '{name}' already")));
        }
        self.check_copies(request)?;
        if self.tables.volumes.len() >= MAX_VOLUMES {
            return Err(Problem::new(
                ProblemKind::NoSpace,
                format!("volume '{name}' cannot be created: the cluster has its most, {MAX_VOLUMES} volumes"),
            ));
        }

        let id = self.tables.last.next_volume();
        let volume = Volume {
            name: name.clone(),
            size: request.size,
            copies: request.copies,
            min_copies: request.min_copies,
            geometry: Geometry::default(),
            epoch: Epoch(0),
            version: Version::FIRST,
            attachment: None,
            chunks: BTreeMap::new(),
        };
        self.tables.volumes.insert(id, volume);
        self.index.volume_by_name.insert(name.clone(), id);
        self.volume_answer(id)
    }

    /// A volume that could never be written is refused at once.
    fn check_copies(&self, request: &CreateVolume) -> Result<(), Problem> {
        let serves = |id: &DiskId| self.tables.disks.get(id).is_some_and(|d| d.state() == DiskState::InService);
        let have = self.tables.nodes.values().filter(|n| n.disks.iter().any(serves)).count();
        let need = usize::from(request.copies);
        if have >= need {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::NoSpace,
            format!(
                "volume '{}' with {need} copies needs {need} nodes with disks in service, the cluster has {have}: \
                 add nodes, or ask for fewer copies",
                request.name
            ),
        ))
    }

    /// The volume is gone at once; its replicas wait on their disks' delete lists.
    pub(crate) fn delete_volume(&mut self, name: &str) -> Outcome {
        let id = self.volume_id(name)?;
        let attached = self.tables.volumes.get(&id).and_then(Volume::user).map(|a| a.node);
        if let Some(node) = attached {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!("volume '{name}' is attached to node '{}': detach it first", self.node_name(node)),
            ));
        }
        self.drop_attachment(id);
        self.index.volume_by_name.remove(name);
        if let Some(volume) = self.tables.volumes.remove(&id) {
            self.release(&volume);
        }
        Ok(Answer::Done)
    }

    fn release(&mut self, volume: &Volume) {
        let gone = volume.chunks.values().flat_map(|chunk| chunk.replicas.iter().map(|place| (chunk.id, *place)));
        self.delete_replicas(gone.collect());
    }

    /// Puts the replicas on their disks' delete lists.
    pub(crate) fn delete_replicas(&mut self, gone: Vec<(ChunkId, ReplicaPlace)>) {
        let mut disks: BTreeMap<DiskId, NodeId> = BTreeMap::new();
        for (chunk, place) in gone {
            if let Some(disk) = self.tables.disks.get_mut(&place.disk) {
                disk.deletes.insert(ReplicaRef { disk: place.disk, chunk, replica: place.replica });
                disks.insert(place.disk, disk.node);
            }
        }
        let nodes: BTreeSet<NodeId> = disks.values().copied().collect();
        nodes.into_iter().for_each(|node| self.touch(node));
        self.refresh_evacuation(disks.into_keys());
    }
}
