//! Snapshots: taking, completing and deleting them, and going back to one.
//!
//! A snapshot is taken in two commits. The first freezes the volume's version by opening the next one, which no
//! gateway writes at before; the second comes from the gateway, when enough replicas of every chunk hold all that was
//! written before. Whatever gateway the volume has by then completes it. Several volumes at once: see [`crate::groups`].
//!
//! A snapshot that was deleted stays while it has clones. When it is really gone the gateway drops what only it saw.

use crate::capacity::promised_to;
use crate::command::{Answer, Outcome, invalid};
use crate::history::{Parent, Snapshot};
use crate::limits::MAX_SNAPSHOTS;
use crate::placement::holder;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::{
    CreateSnapshots, EventKind, ImageInfo, Problem, ProblemKind, Sealed, SnapshotInfo, SnapshotName, SnapshotState,
};
use levee_proto::{Version, VolumeId};

impl State {
    /// One snapshot of each of the volumes, or none at all.
    pub(crate) fn begin_snapshots(&mut self, request: &CreateSnapshots, created_ms: u64) -> Outcome {
        let mut planned = Vec::with_capacity(request.snapshots.len());
        for wanted in &request.snapshots {
            let id = self.user_volume_id(&wanted.volume)?;
            if request.image.is_none() {
                self.check_filled(id)?;
            }
            planned.push((id, self.check_snapshot(id, wanted)?, &wanted.snapshot));
            self.check_groups(id, request)?;
        }
        for (id, next, name) in &planned {
            if let Some(volume) = self.tables.volumes.get_mut(id) {
                freeze(volume, *next, name, request.image.as_ref(), created_ms);
            }
        }
        if planned.len() > 1 {
            self.begin_group(&planned.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
        }
        for (id, ..) in &planned {
            self.versions_moved(*id);
            self.filled(*id);
        }
        let taken = planned.iter().filter_map(|(id, _, name)| self.find_snapshot(*id, name)).collect();
        for wanted in &request.snapshots {
            self.tell(EventKind::Snapshot, wanted.to_string(), "was taken");
        }
        Ok(Answer::Snapshots(taken))
    }

    /// The version to go on with.
    fn check_snapshot(&self, id: VolumeId, wanted: &SnapshotName) -> Result<Version, Problem> {
        let volume = &self.tables.volumes[&id];
        let history = volume.history();
        if let Some((_, taken)) = history.named(&wanted.snapshot) {
            let why = match taken.state {
                SnapshotState::Deleting => format!(
                    "snapshot {wanted} was deleted, but {} still need it: delete or flatten them, or choose another name",
                    clones(taken.children)
                ),
                _ => format!("there is a snapshot {wanted} already"),
            };
            return Err(Problem::new(ProblemKind::Exists, why));
        }
        if history.flatten {
            return Err(conflict(format!(
                "volume '{}' is being flattened: take the snapshot when that is done",
                volume.name
            )));
        }
        if history.snapshots.len() >= MAX_SNAPSHOTS {
            return Err(conflict(format!(
                "volume '{}' has its most, {MAX_SNAPSHOTS} snapshots: delete some",
                volume.name
            )));
        }
        volume.version.next().ok_or_else(|| {
            conflict(format!("volume '{}' has used up its versions: copy it to a new volume", volume.name))
        })
    }

    /// From the gateway: enough replicas hold all up to a version.
    pub(crate) fn finish_snapshots(&mut self, name: &str, request: &Sealed) -> Outcome {
        let id = self.volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        holder(volume, request.epoch)?;
        if request.version >= volume.version {
            return Err(invalid(format!(
                "version {} of volume '{}' cannot be sealed: it is written at {}",
                request.version, volume.name, volume.version
            )));
        }
        if request.version > volume.history().sealed {
            if let Some(volume) = self.tables.volumes.get_mut(&id) {
                volume.history_mut().seal(request.version);
            }
            self.versions_moved(id);
            self.group_sealed(id, request);
        }
        self.versions_answer(id)
    }

    /// Answers with the snapshot as it was, or, if clones keep it, as it is now.
    pub(crate) fn delete_snapshot(&mut self, name: &SnapshotName) -> Outcome {
        let id = self.user_volume_id(&name.volume)?;
        let (version, snapshot) = self.snapshot(id, name)?;
        self.check_unread(name, snapshot)?;
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return Ok(Answer::Snapshots(Vec::new())) };
        if let Some(snapshot) = volume.history_mut().snapshots.get_mut(&version).filter(|s| s.children > 0) {
            snapshot.state = SnapshotState::Deleting;
            self.tell(EventKind::Snapshot, name.to_string(), "was deleted, and stays as long as clones need it");
            return Ok(Answer::Snapshots(self.find_snapshot(id, &name.snapshot).into_iter().collect()));
        }
        let was = self.find_snapshot(id, &name.snapshot);
        self.drop_snapshot(id, version);
        self.tell(EventKind::Snapshot, name.to_string(), "was deleted");
        Ok(Answer::Snapshots(was.into_iter().collect()))
    }

    /// Nothing needs it any more.
    pub(crate) fn drop_snapshot(&mut self, id: VolumeId, version: Version) {
        self.drop_mirrors(Parent { volume: id, version });
        if let Some(volume) = self.tables.volumes.get_mut(&id) {
            volume.history_mut().snapshots.remove(&version);
        }
        self.leave_group(id, version);
        self.prune_due(id);
    }

    /// The head becomes what the snapshot is. What was written since is dropped, but for what other snapshots see.
    pub(crate) fn rollback(&mut self, name: &SnapshotName) -> Outcome {
        let id = self.user_volume_id(&name.volume)?;
        self.check_detached(id, "rolled back")?;
        let (version, snapshot) = self.snapshot(id, name)?;
        let size = snapshot.size;
        self.check_usable(name, snapshot)?;
        let volume = &self.tables.volumes[&id];
        if volume.history().flatten {
            return Err(conflict(format!(
                "volume '{}' is being flattened: roll it back when that is done",
                name.volume
            )));
        }
        let view = snapshot.view(version).rolled_back(volume.version).ok_or_else(|| {
            conflict(format!(
                "volume '{}' was rolled back too often: clone the snapshot with `levee volume create NAME --from {name}`",
                name.volume
            ))
        })?;
        let count = volume.geometry.chunk_count(size);
        self.check_beyond(id, name, count)?;
        self.drop_attachment(id);
        self.tell(EventKind::Volume, &name.volume, format!("was rolled back to {name}"));
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return self.volume_answer(id) };
        self.index.provisioned -= promised_to(volume);
        (volume.version, volume.size) = (view.version, size);
        self.index.provisioned += promised_to(volume);
        volume.history_mut().hidden = view.hidden;
        let beyond = volume.chunks.split_off(&count);
        self.release(beyond.values());
        self.prune_due(id);
        self.filled(id);
        self.volume_answer(id)
    }

    /// Chunks beyond the end go away with a rollback, so nothing else may need them.
    fn check_beyond(&self, id: VolumeId, name: &SnapshotName, count: u32) -> Result<(), Problem> {
        let volume = &self.tables.volumes[&id];
        let larger = |s: &&Snapshot| volume.geometry.chunk_count(s.size) > count;
        let other = volume.history().snapshots.values().find(larger);
        match (volume.chunks.range(count..).next(), other) {
            (Some(_), Some(other)) => Err(conflict(format!(
                "volume '{}' cannot be rolled back to {name}, which is smaller than its snapshot '{}': delete that one first, \
                 or clone with `levee volume create NAME --from {name}`",
                name.volume, other.name
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_detached(&self, id: VolumeId, what: &str) -> Result<(), Problem> {
        let volume = &self.tables.volumes[&id];
        match volume.user() {
            None => Ok(()),
            Some(user) => Err(conflict(format!(
                "volume '{}' is attached to node '{}': it can be {what} when it is detached",
                volume.name,
                self.node_name(user.node)
            ))),
        }
    }

    /// Whether there can be clones of it, or a rollback to it.
    pub(crate) fn check_usable(&self, name: &SnapshotName, snapshot: &Snapshot) -> Result<(), Problem> {
        match snapshot.state {
            SnapshotState::Done => Ok(()),
            SnapshotState::Pending => {
                Err(conflict(format!("snapshot {name} is not complete yet: try again in a moment")))
            }
            SnapshotState::Deleting => Err(conflict(format!(
                "snapshot {name} was deleted; it is kept only for {} that still need it",
                clones(snapshot.children)
            ))),
        }
    }

    pub(crate) fn snapshot(&self, id: VolumeId, name: &SnapshotName) -> Result<(Version, &Snapshot), Problem> {
        let found = self.tables.volumes.get(&id).and_then(|v| v.history().named(&name.snapshot));
        found.ok_or_else(|| {
            let shown = levee_proto::api::shown_name(&name.snapshot);
            Problem::new(
                ProblemKind::NotFound,
                format!("volume '{0}' has no snapshot '{shown}': `levee snapshot list {0}` shows them", name.volume),
            )
        })
    }

    pub(crate) fn find_snapshot(&self, id: VolumeId, name: &str) -> Option<SnapshotInfo> {
        let volume = self.tables.volumes.get(&id)?;
        let (version, snapshot) = volume.history().named(name)?;
        Some(self.snapshot_info(volume, version, snapshot))
    }

    /// One snapshot, by its name.
    pub fn snapshot_named(&self, name: &SnapshotName) -> Result<SnapshotInfo, Problem> {
        let id = self.user_volume_id(&name.volume)?;
        let (version, snapshot) = self.snapshot(id, name)?;
        Ok(self.snapshot_info(&self.tables.volumes[&id], version, snapshot))
    }

    /// At most `limit` snapshots, of one volume or of all, in order of the volumes' ids and of versions.
    pub fn snapshots_after(
        &self,
        volume: Option<&str>,
        after: (VolumeId, Version),
        limit: usize,
    ) -> Result<Vec<(VolumeId, SnapshotInfo)>, Problem> {
        let only = volume.map(|name| self.user_volume_id(name)).transpose()?;
        let first = only.unwrap_or(after.0).max(after.0);
        let ids = self.index.snapshotted.range(first..).filter(|id| only.is_none_or(|only| only == **id));
        let volumes = ids.filter_map(|id| Some((*id, self.tables.volumes.get(id)?))).filter(|(_, v)| !v.is_hidden());
        let all = volumes.flat_map(|(id, v)| {
            let rest = v.history().snapshots.iter().filter(move |(version, _)| (id, **version) > after);
            rest.map(move |(version, s)| (id, self.snapshot_info(v, *version, s)))
        });
        Ok(all.take(limit).collect())
    }
}

/// The volume goes on at the next version.
pub(crate) fn freeze(volume: &mut Volume, next: Version, name: &str, image: Option<&ImageInfo>, created_ms: u64) {
    let (version, size) = (std::mem::replace(&mut volume.version, next), volume.size);
    let history = volume.history_mut();
    let snapshot = Snapshot {
        name: name.into(),
        hidden: history.hidden.clone(),
        size,
        state: SnapshotState::Pending,
        created_ms,
        children: 0,
        reader: None,
        mirrors: Vec::new(),
        image: image.cloned().map(Box::new),
    };
    history.snapshots.insert(version, snapshot);
}

pub(crate) fn conflict(detail: String) -> Problem {
    Problem::new(ProblemKind::Conflict, detail)
}

pub(crate) fn clones(count: u64) -> String {
    if count == 1 { "1 clone".into() } else { format!("{count} clones") }
}

/// Snapshots that are in the way of something, for a person: the last one, and how many more. `None`: there is none.
pub(crate) fn named<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> Option<String> {
    let names: Vec<&str> = snapshots.map(|s| s.name.as_str()).collect();
    Some(match names.as_slice() {
        [] => return None,
        [only] => format!("snapshot '{only}'"),
        [others @ .., last] => format!("snapshot '{last}' and {} more", others.len()),
    })
}
