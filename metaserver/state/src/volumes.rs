//! Creating and deleting volumes.

use crate::capacity::{promised, promised_to};
use crate::command::{Answer, Outcome};
use crate::history::Parent;
use crate::limits::{MAX_REFUSALS, MAX_VOLUMES};
use crate::snapshots::named;
use crate::state::State;
use crate::tables::{Chunk, Disk, Volume};
use levee_proto::api::*;
use levee_proto::{ChunkId, DiskId, Epoch, Geometry, NodeId, ReplicaId, Version, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(crate) fn create_volume(&mut self, request: &CreateVolume) -> Outcome {
        let created = self.add_volume(request)?;
        self.tell(EventKind::Volume, &request.name, "was created");
        Ok(created)
    }

    pub(crate) fn add_volume(&mut self, request: &CreateVolume) -> Outcome {
        let promise = promised(request.size, request.copies);
        self.check_creation(request, 0, promise)?;
        let name = &request.name;
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
            parent: None,
            history: None,
            read_only: false,
            class: request.class,
        };
        self.tables.volumes.insert(id, volume);
        self.index.volume_by_name.insert(name.clone(), id);
        self.index.provisioned += promise;
        self.volume_answer(id)
    }

    /// Refuses a volume that cannot be created; `more` others come before it, and together they promise `promise` bytes.
    pub(crate) fn check_creation(&self, request: &CreateVolume, more: usize, promise: u128) -> Result<(), Problem> {
        let name = &request.name;
        if self.index.volume_by_name.contains_key(name) {
            return Err(Problem::new(ProblemKind::Exists, format!("there is a volume named '{name}' already")));
        }
        self.check_copies(name, request.copies, request.class)?;
        self.check_provision(|| format!("volume '{name}' cannot be created"), promise)?;
        if self.tables.volumes.len().saturating_add(more) >= MAX_VOLUMES {
            return Err(Problem::new(
                ProblemKind::NoSpace,
                format!("volume '{name}' cannot be created: the cluster has its most, {MAX_VOLUMES} volumes"),
            ));
        }
        Ok(())
    }

    /// A volume that could never be written is refused at once.
    pub(crate) fn check_copies(&self, name: &str, copies: u8, class: Option<DiskClass>) -> Result<(), Problem> {
        let fits = |disk: &Disk| disk.state() == DiskState::InService && class.is_none_or(|class| class == disk.class);
        let serves = |id: &DiskId| self.tables.disks.get(id).is_some_and(fits);
        let have = self.tables.nodes.values().filter(|n| n.disks.iter().any(serves)).count();
        let need = usize::from(copies);
        if have >= need {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::NoSpace,
            format!(
                "volume '{name}' with {need} copies needs {need} nodes with {}disks in service, the cluster has {have}: \
                 add nodes, or ask for fewer copies",
                match class {
                    None => "",
                    Some(DiskClass::Ssd) => "SSD ",
                    Some(DiskClass::Hdd) => "HDD ",
                }
            ),
        ))
    }

    /// The volume is gone at once; its replicas wait on their disks' delete lists. What clones need stays.
    pub(crate) fn delete_volume(&mut self, name: &str) -> Outcome {
        self.delete_one(name)?;
        self.tell(EventKind::Volume, name, "was deleted");
        Ok(Answer::Done)
    }

    fn delete_one(&mut self, name: &str) -> Result<(), Problem> {
        let id = self.user_volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        if let Some(user) = volume.user() {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!("volume '{name}' is attached to node '{}': detach it first", self.node_name(user.node)),
            ));
        }
        let kept = || volume.history().snapshots.values().filter(|s| s.state != SnapshotState::Deleting);
        if let (Some(which), Some(last)) = (named(kept()), kept().next_back()) {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!(
                    "volume '{name}' has {which}: delete that first, with `levee snapshot delete {name}@{}`",
                    last.name
                ),
            ));
        }
        self.drop_attachment(id);
        if history_is_needed(&self.tables.volumes[&id]) {
            self.hide_volume(id);
        } else {
            let parent = self.remove_volume(id);
            self.leave_parent(parent);
        }
        Ok(())
    }

    /// Each by itself.
    pub(crate) fn delete_volumes(&mut self, request: &DeleteVolumes) -> Outcome {
        let mut deleted = DeletedVolumes::default();
        let mut last = String::new();
        for name in request.volumes.iter().flat_map(Family::names) {
            match self.delete_one(&name) {
                Ok(()) => {
                    deleted.deleted += 1;
                    last = name;
                }
                Err(Problem { kind, detail, .. }) => {
                    deleted.refusals += 1;
                    if deleted.refused.len() < MAX_REFUSALS {
                        deleted.refused.push(RefusedVolume { volume: name, kind, detail });
                    }
                }
            }
        }
        match deleted.deleted {
            0 => {}
            1 => self.tell(EventKind::Volume, last, "was deleted"),
            more => self.tell(EventKind::Volume, last, format!("was deleted, with {} others", more - 1)),
        }
        Ok(Answer::Deleted(deleted))
    }

    /// Its snapshots are deleted, too, but have clones: only what these need is kept, under a name that users cannot give.
    fn hide_volume(&mut self, id: VolumeId) {
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return };
        self.index.provisioned -= promised_to(volume);
        let hidden = hidden_name(id);
        let name = std::mem::replace(&mut volume.name, hidden.clone());
        let newest = volume.history().snapshots.last_key_value().map(|(version, s)| s.view(*version));
        // The head is to keep nothing of its own.
        let view = newest.and_then(|view| view.rolled_back(volume.version));
        if let Some(view) = &view {
            volume.version = view.version;
        }
        let history = volume.history_mut();
        history.hidden = view.map_or_else(|| history.hidden.clone(), |view| view.hidden);
        (history.deleted, history.flatten) = (true, false);
        self.index.volume_by_name.remove(&name);
        self.index.volume_by_name.insert(hidden, id);
        self.tables.jobs.remove(&id);
        self.prune_due(id);
    }

    /// Answers with its parent, which has one clone less.
    pub(crate) fn remove_volume(&mut self, id: VolumeId) -> Option<Parent> {
        self.drop_attachment(id);
        let volume = self.tables.volumes.remove(&id)?;
        self.tables.eras.remove(&id);
        self.tables.jobs.remove(&id);
        self.index.volume_by_name.remove(&volume.name);
        self.index.provisioned -= promised_to(&volume);
        self.index.forget_history(id);
        self.forget_losses(id);
        self.release(volume.chunks.values());
        volume.parent
    }

    pub(crate) fn release<'a>(&mut self, chunks: impl Iterator<Item = &'a Chunk>) {
        let gone = chunks.flat_map(|chunk| chunk.replicas.iter().map(|place| (chunk.id, *place)));
        self.delete_replicas(gone.collect());
    }

    /// Puts the replicas on their disks' delete lists.
    pub(crate) fn delete_replicas(&mut self, gone: Vec<(ChunkId, ReplicaPlace)>) {
        let replicas: Vec<ReplicaId> = gone.iter().map(|(_, place)| place.replica).collect();
        let mut disks: BTreeMap<DiskId, NodeId> = BTreeMap::new();
        for (chunk, place) in gone {
            if let Some(disk) = self.tables.disks.get_mut(&place.disk) {
                disk.deletes.insert(ReplicaRef { disk: place.disk, chunk, replica: place.replica });
                disks.insert(place.disk, disk.node);
            }
        }
        let nodes: BTreeSet<NodeId> = disks.values().copied().collect();
        nodes.into_iter().for_each(|node| self.touch(node));
        self.refresh_evacuation(disks.keys().copied());
        self.finish_moves(&replicas);
        self.forget_empty_disks(disks.into_keys());
    }
}

fn history_is_needed(volume: &Volume) -> bool {
    !volume.history().snapshots.is_empty()
}

/// No valid name, so it is in nobody's way; but it fits into a URL, which gateways need to repair the volume.
pub(crate) fn hidden_name(id: VolumeId) -> String {
    format!(".deleted-{id}")
}
