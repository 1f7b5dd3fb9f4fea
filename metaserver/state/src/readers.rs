//! Snapshots that are attached for reading.
//!
//! A *reader* serves one: a volume without chunks of its own, named `VOLUME@NAME` as the snapshot is, whose parent the snapshot
//! is, and which nothing can be written to. It comes with the command that attaches the snapshot and goes with the one that detaches
//! it, so there is never one that nobody uses; users cannot name a volume so. To gateways it is a clone like others. The snapshot
//! is not deleted under it: that is refused until it is detached.

use crate::command::{Answer, Outcome, invalid};
use crate::history::{Parent, Snapshot};
use crate::limits::MAX_VOLUMES;
use crate::snapshots::conflict;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::{EventKind, ParentName, Problem, ProblemKind, SnapshotName, VolumeInfo};
use levee_proto::{Epoch, NodeId, Version, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// As [`State::attach`], of a snapshot: its reader is made, if it has none.
    pub(crate) fn attach_snapshot(
        &mut self,
        name: &SnapshotName,
        node: Option<&str>,
        alive: &BTreeSet<NodeId>,
    ) -> Outcome {
        let id = self.user_volume_id(&name.volume)?;
        let (version, snapshot) = self.snapshot(id, name)?;
        self.check_usable(name, snapshot)?;
        if let Some(node) = self.free_node(&name.to_string(), snapshot.reader, node, alive)? {
            let reader = self.create_reader(name, Parent { volume: id, version })?;
            self.set_attachment(reader, node, false);
            self.tell(
                EventKind::Snapshot,
                name.to_string(),
                format!("was attached to node '{}'", self.node_name(node)),
            );
        }
        self.snapshot_as_volume(name).map(Answer::Volume)
    }

    fn create_reader(&mut self, name: &SnapshotName, parent: Parent) -> Result<VolumeId, Problem> {
        let of = &self.tables.volumes[&parent.volume];
        self.check_depth(of)?;
        if self.tables.volumes.len() >= MAX_VOLUMES {
            return Err(Problem::new(
                ProblemKind::NoSpace,
                format!("snapshot {name} cannot be attached: the cluster has its most, {MAX_VOLUMES} volumes"),
            ));
        }
        let reader = Volume {
            name: name.to_string(),
            size: of.history().snapshots[&parent.version].size,
            copies: of.copies,
            min_copies: of.min_copies,
            geometry: of.geometry,
            epoch: Epoch(0),
            version: Version::FIRST,
            attachment: None,
            chunks: BTreeMap::new(),
            parent: Some(parent),
            history: None,
            read_only: true,
            class: of.class,
        };
        let id = self.tables.last.next_volume();
        self.index.volume_by_name.insert(reader.name.clone(), id);
        self.tables.volumes.insert(id, reader);
        if let Some(snapshot) = self.snapshot_mut(parent) {
            snapshot.reader = Some(id);
        }
        Ok(id)
    }

    /// Its reader goes. Detaching a snapshot that is not attached is no change.
    pub(crate) fn detach_snapshot(&mut self, name: &SnapshotName) -> Outcome {
        let mut info = self.snapshot_as_volume(name)?;
        if info.attachment.take().is_some() {
            let parent = self.remove_volume(info.id);
            if let Some(snapshot) = parent.and_then(|parent| self.snapshot_mut(parent)) {
                snapshot.reader = None;
            }
            self.tell(EventKind::Snapshot, name.to_string(), "was detached");
        }
        Ok(Answer::Volume(info))
    }

    /// The snapshot as the volume that it is while it is attached, whether it is or not.
    pub(crate) fn snapshot_as_volume(&self, name: &SnapshotName) -> Result<VolumeInfo, Problem> {
        let id = self.user_volume_id(&name.volume)?;
        let (_, snapshot) = self.snapshot(id, name)?;
        if let Some(info) = snapshot.reader.and_then(|reader| self.volume_info(reader)) {
            return Ok(info);
        }
        let volume = &self.tables.volumes[&id];
        Ok(VolumeInfo {
            id: VolumeId(0),
            name: name.to_string(),
            size: snapshot.size,
            copies: volume.copies,
            min_copies: volume.min_copies,
            epoch: Epoch(0),
            version: Version::FIRST,
            geometry: volume.geometry,
            chunks: 0,
            attachment: None,
            parent: Some(ParentName { volume: Some(name.volume.clone()), id, snapshot: name.snapshot.clone() }),
            snapshots: 0,
            flattening: false,
            read_only: true,
            class: volume.class,
            job: None,
            status: String::new(),
        })
    }

    /// Whether a snapshot may be deleted as far as readers are concerned.
    pub(crate) fn check_unread(&self, name: &SnapshotName, snapshot: &Snapshot) -> Result<(), Problem> {
        let reader = snapshot.reader.and_then(|reader| self.tables.volumes.get(&reader)?.user());
        match reader {
            None => Ok(()),
            Some(user) => Err(conflict(format!(
                "snapshot {name} is attached to node '{}': detach it first, with `levee volume detach {name}`",
                self.node_name(user.node)
            ))),
        }
    }
}

/// What is done to volumes was asked for a snapshot.
pub(crate) fn only_read(name: &SnapshotName) -> Problem {
    invalid(format!(
        "{name} is a snapshot: it is attached, detached and read, but never changes; \
         `levee volume create NAME --from {name}` makes a volume of it, `levee snapshot delete {name}` deletes it"
    ))
}
