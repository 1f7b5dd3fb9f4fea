//! Mirrors: more copies of what many clones read.
//!
//! A *mirror* is a volume that users do not see, made of a snapshot as a clone is, and flattened at once: it has all that the
//! snapshot shows in chunks of its own, on other disks and cores. When it is complete a snapshot of it is taken, and from then
//! on the gateways of clones read from either. So everything that holds for volumes holds for it: where its copies
//! are placed, that they are repaired, scrubbed, moved from drained disks. It needs the snapshot only until it is flattened, and it goes
//! when there are not many clones any more.
//!
//! Invariants: a mirror belongs to one snapshot that is there; nobody attaches it but the cluster itself; it is no clone that the
//! snapshot counts.

use crate::history::{History, Parent};
use crate::limits::{MAX_SNAPSHOT_MIRRORS, MAX_VOLUMES, MIRROR_CLONES};
use crate::map::Room;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::{ChunkPage, DiskState, MirrorInfo, SnapshotState};
use levee_proto::{Epoch, Version, View, VolumeId};
use std::collections::BTreeMap;

/// The name of its only snapshot.
const SNAPSHOT: &str = "mirror";

impl Volume {
    /// Whether users do not see it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.history().deleted || self.history().mirror.is_some()
    }
}

/// How many mirrors so many clones deserve: each step doubles the copies that can be read.
fn deserved(clones: u64) -> usize {
    let steps = MIRROR_CLONES.iter().filter(|least| clones >= **least).count();
    ((1 << steps) - 1).min(MAX_SNAPSHOT_MIRRORS)
}

impl State {
    /// After the number of clones has changed. Mirrors go when there are less than half of the clones for which they came.
    pub(crate) fn adjust_mirrors(&mut self, parent: Parent) {
        let Some(snapshot) = self.snapshot_mut(parent) else { return };
        let (clones, mut have) = (snapshot.children, snapshot.mirrors.len());
        while have > deserved(clones.saturating_mul(2)) {
            self.drop_mirror(parent);
            have -= 1;
        }
        while have < deserved(clones) && self.has_room_for_mirror(parent, have + 1) {
            self.add_mirror(parent);
            have += 1;
        }
    }

    /// More copies than disks make nothing faster, and no mirror is worth the last half of the room.
    fn has_room_for_mirror(&self, parent: Parent, count: usize) -> bool {
        let Some(volume) = self.tables.volumes.get(&parent.volume) else { return false };
        let usable = || self.tables.disks.values().filter(|d| d.state() == DiskState::InService);
        let copies = usize::from(volume.copies);
        let (slots, placed) = usable().fold((0, 0), |(slots, placed), d| (slots + d.slots(), placed + d.placed));
        let needed = (volume.chunks.len() * copies) as u64;
        (count + 1) * copies <= usable().count()
            && (placed + needed) * 2 <= slots
            && self.tables.volumes.len() < MAX_VOLUMES
            && self.check_depth(volume).is_ok()
    }

    fn add_mirror(&mut self, parent: Parent) {
        let Some(of) = self.tables.volumes.get(&parent.volume) else { return };
        let Some(size) = of.history().snapshots.get(&parent.version).map(|s| s.size) else { return };
        let (copies, min_copies, geometry, class) = (of.copies, of.min_copies, of.geometry, of.class);
        let id = self.tables.last.next_volume();
        let mirror = Volume {
            name: mirror_name(id),
            size,
            copies,
            min_copies,
            geometry,
            epoch: Epoch(0),
            version: Version::FIRST,
            attachment: None,
            chunks: BTreeMap::new(),
            parent: Some(parent),
            history: Some(Box::new(History { flatten: true, mirror: Some(parent), number: 1, ..History::default() })),
            read_only: false,
            class,
        };
        self.index.volume_by_name.insert(mirror.name.clone(), id);
        self.index.note_history(id, &mirror);
        self.tables.volumes.insert(id, mirror);
        if let Some(snapshot) = self.snapshot_mut(parent) {
            snapshot.mirrors.push(id);
        }
    }

    /// The newest one.
    fn drop_mirror(&mut self, parent: Parent) {
        if let Some(id) = self.snapshot_mut(parent).and_then(|snapshot| snapshot.mirrors.pop()) {
            self.remove_volume(id);
        }
    }

    /// The snapshot goes away.
    pub(crate) fn drop_mirrors(&mut self, parent: Parent) {
        while self.snapshot_mut(parent).is_some_and(|snapshot| !snapshot.mirrors.is_empty()) {
            self.drop_mirror(parent);
        }
    }

    /// It has everything now, and is never written again.
    pub(crate) fn freeze_mirror(&mut self, id: VolumeId) {
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return };
        if let Some(next) = volume.version.next() {
            crate::snapshots::freeze(volume, next, SNAPSHOT, None, 0);
        }
        self.versions_moved(id);
    }

    /// Those of a snapshot that can be read.
    pub(crate) fn mirror_infos(&self, mirrors: &[VolumeId], room: &mut Room) -> Vec<MirrorInfo> {
        let info = |id: &VolumeId| {
            let (volume, view) = self.ready_mirror(*id)?;
            let ChunkPage { chunks, more } = room.take(volume);
            Some(MirrorInfo { volume: *id, view, chunks, more })
        };
        mirrors.iter().filter_map(info).collect()
    }

    /// A mirror, and what is read of it, if it is complete.
    pub(crate) fn ready_mirror(&self, id: VolumeId) -> Option<(&Volume, View)> {
        let volume = self.tables.volumes.get(&id)?;
        let (version, snapshot) = volume.history().snapshots.first_key_value()?;
        (snapshot.state == SnapshotState::Done).then(|| (volume, snapshot.view(*version)))
    }
}

/// No valid name, so it is in nobody's way; but it fits into a URL, which its gateway needs.
pub(crate) fn mirror_name(id: VolumeId) -> String {
    format!(".mirror-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_double_as_clones_become_many() {
        let copies = |clones| 3 * (1 + deserved(clones));
        assert_eq!([0, 63, 64, 511, 512, 4095, 4096, 1 << 40].map(copies), [3, 3, 6, 6, 12, 12, 24, 24]);
    }
}
