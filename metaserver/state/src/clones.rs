//! Clones: volumes that continue from a snapshot of another.
//!
//! A clone is a record that names its parent; creating one costs no more than that, however large the parent is.
//! The parent's snapshot counts its clones, and is kept for them even when it, or its whole volume, was deleted: such a
//! volume stays as a record without a name that users can see, until the last clone is gone or independent.

use crate::capacity::promised;
use crate::command::{Answer, Outcome, invalid, validate_copies};
use crate::history::Parent;
use crate::limits::{MAX_ANCESTORS, MAX_VOLUMES};
use crate::map::Room;
use crate::placement::holder;
use crate::snapshots::{conflict, named};
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::*;
use levee_proto::{Epoch, Geometry, Version};
use std::collections::BTreeMap;

/// What all clones of one command have in common.
struct Pattern {
    parent: Parent,
    size: u64,
    copies: u8,
    min_copies: u8,
    geometry: Geometry,
    class: Option<DiskClass>,
}

impl Pattern {
    fn volume(&self, name: String) -> Volume {
        Volume {
            name,
            size: self.size,
            copies: self.copies,
            min_copies: self.min_copies,
            geometry: self.geometry,
            epoch: Epoch(0),
            version: Version::FIRST,
            attachment: None,
            chunks: BTreeMap::new(),
            parent: Some(self.parent),
            history: None,
            read_only: false,
            class: self.class,
        }
    }
}

fn cannot_be_cloned(request: &CreateClones) -> String {
    let Family { count, .. } = request.names;
    match count {
        Some(count) => format!("{count} clones of {} cannot be created", request.from),
        None => format!("clone '{}' of {} cannot be created", request.names.name, request.from),
    }
}

impl State {
    /// All of them, or none.
    pub(crate) fn create_clones(&mut self, request: &CreateClones) -> Outcome {
        let pattern = self.pattern(request)?;
        let family = &request.names;
        if let Some(taken) = family.names().find(|name| self.index.volume_by_name.contains_key(name)) {
            return Err(Problem::new(ProblemKind::Exists, format!("there is a volume named '{taken}' already")));
        }
        if self.tables.volumes.len() + family.len() as usize > MAX_VOLUMES {
            return Err(Problem::new(
                ProblemKind::NoSpace,
                format!(
                    "{} volumes cannot be created: the cluster would have more than its most, {MAX_VOLUMES}",
                    family.len()
                ),
            ));
        }
        let promise = promised(pattern.size, pattern.copies).saturating_mul(u128::from(family.len()));
        self.check_provision(|| cannot_be_cloned(request), promise)?;
        self.index.provisioned += promise;
        for name in family.names() {
            let id = self.tables.last.next_volume();
            self.index.volume_by_name.insert(name.clone(), id);
            self.tables.volumes.insert(id, pattern.volume(name));
        }
        if let Some(snapshot) = self.snapshot_mut(pattern.parent) {
            snapshot.children += u64::from(family.len());
        }
        self.adjust_mirrors(pattern.parent);
        let text = match family.count {
            Some(count) => {
                format!("was created of {}, with {count} others up to '{}'", request.from, family.name_at(count - 1))
            }
            None => format!("was created of {}", request.from),
        };
        self.tell(EventKind::Volume, family.name_at(0), text);
        Ok(Answer::Cloned(CreatedClones {
            from: request.from.clone(),
            count: family.len(),
            first: family.name_at(0),
            last: family.name_at(family.len() - 1),
            size: pattern.size,
        }))
    }

    /// Refuses clones that are more than may be promised: for requests that take several commands.
    pub fn check_room_for(&self, request: &CreateClones) -> Result<(), Problem> {
        let Pattern { size, copies, .. } = self.pattern(request)?;
        let all = promised(size, copies).saturating_mul(u128::from(request.names.len()));
        self.check_provision(|| cannot_be_cloned(request), all)
    }

    fn pattern(&self, request: &CreateClones) -> Result<Pattern, Problem> {
        let from = &request.from;
        let id = self.user_volume_id(&from.volume)?;
        let (version, snapshot) = self.snapshot(id, from)?;
        self.check_usable(from, snapshot)?;
        let volume = &self.tables.volumes[&id];
        self.check_depth(volume)?;
        let size = request.size.unwrap_or(snapshot.size);
        if size < snapshot.size {
            return Err(invalid(format!(
                "a clone of {from} cannot have {size} bytes: it has at least the snapshot's {}",
                snapshot.size
            )));
        }
        let copies = request.copies.unwrap_or(volume.copies);
        let min_copies = request.min_copies.unwrap_or(volume.min_copies.min(copies));
        let name = request.names.name_at(0);
        validate_copies(&name, copies, min_copies)?;
        self.check_copies(&name, copies, volume.class)?;
        let Volume { geometry, class, .. } = *volume;
        Ok(Pattern { parent: Parent { volume: id, version }, size, copies, min_copies, geometry, class })
    }

    /// Whether there can be volumes that continue from this one's snapshots.
    pub(crate) fn check_depth(&self, volume: &Volume) -> Result<(), Problem> {
        if self.ancestors(volume) < MAX_ANCESTORS {
            return Ok(());
        }
        Err(conflict(format!(
            "volume '{}' is a clone of a clone, {MAX_ANCESTORS} times over: `levee volume flatten` makes one of them \
             independent of its parent",
            volume.name
        )))
    }

    /// How many parents, their parents and so on the volume has.
    pub(crate) fn ancestors(&self, volume: &Volume) -> usize {
        let parent = |v: &&Volume| self.tables.volumes.get(&v.parent?.volume);
        std::iter::successors(Some(volume), parent).count() - 1
    }

    /// What a clone's gateway reads from; the maps begin there, and go on as [`State::map_page`]s.
    pub fn parent_info(&self, volume: &Volume) -> Option<ParentInfo> {
        self.parent_info_within(volume, &mut Room::new())
    }

    pub(crate) fn parent_info_within(&self, volume: &Volume, room: &mut Room) -> Option<ParentInfo> {
        let Parent { volume: id, version } = volume.parent?;
        let parent = self.tables.volumes.get(&id)?;
        let snapshot = parent.history().snapshots.get(&version)?;
        let page = room.take(parent);
        Some(ParentInfo {
            volume: id,
            view: snapshot.view(version),
            size: snapshot.size,
            geometry: parent.geometry,
            copies: parent.copies,
            chunks: page.chunks,
            more: page.more,
            parent: self.parent_info_within(parent, room).map(Box::new),
            mirrors: self.mirror_infos(&snapshot.mirrors, room),
        })
    }

    /// The ancestors of a volume, for its gateway.
    pub fn volume_parent(&self, name: &str) -> Result<VolumeParent, Problem> {
        let id = self.volume_id(name)?;
        Ok(VolumeParent { parent: self.parent_info(&self.tables.volumes[&id]) })
    }

    pub(crate) fn parent_name(&self, volume: &Volume) -> Option<ParentName> {
        let Parent { volume: id, version } = volume.parent?;
        let parent = self.tables.volumes.get(&id)?;
        let snapshot = parent.history().snapshots.get(&version)?.name.clone();
        Some(ParentName { volume: (!parent.history().deleted).then(|| parent.name.clone()), id, snapshot })
    }

    /// A clone is gone, or has become independent; and so on upwards.
    pub(crate) fn leave_parent(&mut self, parent: Option<Parent>) {
        let mut next = parent;
        while let Some(parent) = next.take() {
            let Some(snapshot) = self.snapshot_mut(parent) else { return };
            snapshot.children -= 1;
            let is_over = snapshot.children == 0 && snapshot.state == SnapshotState::Deleting;
            self.adjust_mirrors(parent);
            if !is_over {
                return;
            }
            self.drop_snapshot(parent.volume, parent.version);
            let history = self.tables.volumes[&parent.volume].history();
            if history.deleted && history.snapshots.is_empty() {
                next = self.remove_volume(parent.volume);
            }
        }
    }

    pub(crate) fn snapshot_mut(&mut self, parent: Parent) -> Option<&mut crate::history::Snapshot> {
        self.tables.volumes.get_mut(&parent.volume)?.history.as_mut()?.snapshots.get_mut(&parent.version)
    }

    /// Has the volume's gateway copy what ancestors have. A snapshot of the volume would not see the copies.
    pub(crate) fn flatten(&mut self, name: &str) -> Outcome {
        let id = self.user_volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        if volume.parent.is_none() {
            return Err(conflict(format!("volume '{name}' needs no flattening: it depends on no other volume")));
        }
        if let Some(which) = named(volume.history().snapshots.values()) {
            return Err(conflict(format!(
                "volume '{name}' has {which}, for which its parent is needed: delete that before the volume is flattened"
            )));
        }
        if !volume.history().flatten {
            if let Some(volume) = self.tables.volumes.get_mut(&id) {
                volume.history_mut().flatten = true;
            }
            self.versions_moved(id);
        }
        self.volume_answer(id)
    }

    /// From the gateway: the volume has all that its ancestors had.
    pub(crate) fn flattened(&mut self, name: &str, request: &Flattened) -> Outcome {
        let id = self.volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        holder(volume, request.epoch)?;
        if volume.parent.is_some() {
            if !volume.history().flatten {
                return Err(conflict(format!("volume '{name}' was not to be flattened")));
            }
            let parent = self.tables.volumes.get_mut(&id).and_then(|volume| {
                volume.history_mut().flatten = false;
                volume.parent.take()
            });
            if self.tables.volumes[&id].history().mirror.is_some() {
                self.freeze_mirror(id);
            } else {
                self.versions_moved(id);
                self.leave_parent(parent);
            }
        }
        self.versions_answer(id)
    }
}
