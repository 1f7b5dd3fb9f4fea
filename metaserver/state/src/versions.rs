//! What a volume's gateway follows of its versions, and what is left to do about them.
//!
//! Each change moves the number that is part of the node's intent, so that the gateway asks for the whole, which is
//! small. What it has done it reports under its epoch: a deposed one changes nothing any more.

use crate::command::{Answer, Outcome};
use crate::history::Snapshot;
use crate::placement::holder;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::{Problem, Pruned, SnapshotInfo, VolumeVersions};
use levee_proto::{Version, VolumeId};

impl State {
    pub(crate) fn versions(&self, id: VolumeId) -> VolumeVersions {
        let volume = &self.tables.volumes[&id];
        let history = volume.history();
        VolumeVersions {
            number: history.number,
            epoch: volume.epoch,
            version: volume.version,
            view: volume.view(),
            snapshots: history.snapshots.iter().map(|(version, s)| s.view(*version)).collect(),
            sealed: history.sealed,
            pending: history.pending(),
            size: volume.size,
            prune: history.prune.is_some(),
            flatten: history.flatten,
            hold: history.group.filter(|g| !self.has_moved(g.group)).map(|g| g.version),
        }
    }
}

impl State {
    pub(crate) fn snapshot_info(&self, of: &Volume, version: Version, snapshot: &Snapshot) -> SnapshotInfo {
        let mirrors = snapshot.mirrors.iter().filter(|id| self.ready_mirror(**id).is_some()).count();
        SnapshotInfo {
            volume: of.name.clone(),
            name: snapshot.name.clone(),
            version,
            size: snapshot.size,
            state: snapshot.state,
            created_ms: snapshot.created_ms,
            clones: snapshot.children,
            read_copies: u32::from(of.copies) * (1 + mirrors as u32),
            image: snapshot.image.as_deref().cloned(),
        }
    }
}

impl State {
    /// What the gateway of the volume should know of its versions.
    pub fn volume_versions(&self, name: &str) -> Result<VolumeVersions, Problem> {
        Ok(self.versions(self.volume_id(name)?))
    }

    pub(crate) fn versions_answer(&self, id: VolumeId) -> Outcome {
        Ok(Answer::Versions(self.versions(id)))
    }

    /// Something that the volume's gateway follows has changed.
    pub(crate) fn versions_moved(&mut self, id: VolumeId) {
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return };
        volume.history_mut().number += 1;
        settle(volume);
        let node = volume.attachment.as_ref().map(|a| a.node);
        self.index.note_history(id, volume);
        if let Some(node) = node {
            self.touch(node);
        }
    }

    /// There is something to drop that no view sees.
    pub(crate) fn prune_due(&mut self, id: VolumeId) {
        if let Some(volume) = self.tables.volumes.get_mut(&id) {
            let history = volume.history_mut();
            // As of the number that the change is about to get.
            history.prune = Some(history.number + 1);
        }
        self.versions_moved(id);
    }

    /// A report about what was dropped before the newest reason to drop something is too early.
    pub(crate) fn pruned(&mut self, name: &str, request: &Pruned) -> Outcome {
        let id = self.volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        holder(volume, request.epoch)?;
        if volume.history().prune.is_some_and(|due| due <= request.number) {
            if let Some(volume) = self.tables.volumes.get_mut(&id) {
                volume.history_mut().prune = None;
            }
            self.versions_moved(id);
        }
        self.versions_answer(id)
    }

    /// Volumes that nobody has attached, and whose gateway would have something to do about versions.
    pub fn chores(&self) -> impl Iterator<Item = VolumeId> + '_ {
        let detached = |id: &VolumeId| self.tables.volumes.get(id).is_some_and(|v| v.attachment.is_none());
        self.index.chores.iter().copied().filter(detached)
    }

    /// Whether the volume's gateway has something to do about versions.
    pub fn has_chores(&self, id: VolumeId) -> bool {
        self.index.chores.contains(&id)
    }
}

/// Without a chunk, and without a gateway that may be about to ask for one, there is nothing to seal or to drop.
fn settle(volume: &mut Volume) {
    if volume.attachment.is_some() || !volume.chunks.is_empty() {
        return;
    }
    let history = volume.history_mut();
    history.prune = None;
    if let Some(pending) = history.pending() {
        history.seal(pending);
    }
}
