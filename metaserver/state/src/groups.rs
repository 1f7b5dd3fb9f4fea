//! Snapshots of several volumes at one moment.
//!
//! Each volume is cut by its own gateway, one a little later than the other. What makes it one moment: after the cut, a
//! gateway holds back the answers to what is written until all of the group are cut. So whatever a guest writes because an earlier write
//! was answered is in no snapshot that lacks the earlier one. ("Distributed snapshots", Chandy and Lamport 1985: a consistent cut.)
//!
//! A gateway does not hold back for long. If it gave up, or was replaced, some answers may have come too early: then the whole
//! group is given up, and nothing is left of it. So a group is complete when every gateway that had cut its volume has also
//! reported it sealed, which it does only after it was told that all are cut.
//!
//! Invariants:
//! - A volume is in at most one group; its part there is a pending snapshot of it.
//! - The snapshots of a group become done in one command.

use crate::command::Outcome;
use crate::history::Grouped;
use crate::placement::holder;
use crate::snapshots::conflict;
use crate::state::State;
use levee_proto::api::{CreateSnapshots, Moved, Problem, Sealed, SnapshotState};
use levee_proto::{Epoch, Version, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A group of snapshots that is not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub members: BTreeMap<VolumeId, Member>,
}

/// A volume of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// That is frozen.
    pub version: Version,
    /// Of the gateway that cuts it; none until one is known.
    pub epoch: Option<Epoch>,
    pub stage: Stage,
}

/// How far one volume has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It may still be written at the frozen version.
    Asked,
    /// What is written is newer, and is not answered.
    Moved,
    /// Enough copies hold what is frozen.
    Sealed,
}

impl Group {
    fn has_come_to(&self, stage: Stage) -> bool {
        self.members.values().all(|m| m.stage >= stage)
    }
}

impl State {
    pub(crate) fn check_groups(&self, id: VolumeId, request: &CreateSnapshots) -> Result<(), Problem> {
        let volume = &self.tables.volumes[&id];
        if request.snapshots.len() > 1 && volume.history().group.is_some() {
            return Err(conflict(format!(
                "snapshots of volume '{}' and others are just being taken together: try again in a moment",
                volume.name
            )));
        }
        Ok(())
    }

    /// The volumes have just been given their next versions.
    pub(crate) fn begin_group(&mut self, ids: &[VolumeId]) {
        let number = self.tables.last.next_group();
        let mut group = Group::default();
        for id in ids {
            let Some(volume) = self.tables.volumes.get_mut(id) else { continue };
            let Some(version) = volume.history().pending() else { continue };
            // Nobody writes to it before it is attached, at the next version.
            let is_unused = volume.attachment.is_none() && volume.chunks.is_empty();
            let opened = volume.attachment.as_ref().is_some_and(|a| a.opened_by.is_some());
            let stage = if is_unused { Stage::Sealed } else { Stage::Asked };
            group.members.insert(*id, Member { version, epoch: opened.then_some(volume.epoch), stage });
            volume.history_mut().group = Some(Grouped { group: number, version });
        }
        self.tables.groups.insert(number, group);
        self.advance_group(number);
    }

    /// Whether all volumes of a group are cut.
    pub(crate) fn has_moved(&self, group: u64) -> bool {
        self.tables.groups.get(&group).is_none_or(|g| g.has_come_to(Stage::Moved))
    }

    /// From the gateway: its volume is cut, or it could not wait for the others.
    pub(crate) fn moved(&mut self, name: &str, request: &Moved) -> Outcome {
        let id = self.volume_id(name)?;
        holder(&self.tables.volumes[&id], request.epoch)?;
        let Some((number, member)) = self.member(id).filter(|(_, m)| m.version == request.version) else {
            return self.versions_answer(id);
        };
        if !request.held {
            self.give_up_group(number);
        } else if member.stage == Stage::Asked {
            (member.stage, member.epoch) = (Stage::Moved, Some(request.epoch));
            if self.has_moved(number) {
                self.group_moved(number);
            }
        }
        self.versions_answer(id)
    }

    /// From the gateway, which has held back answers until it was told not to.
    pub(crate) fn group_sealed(&mut self, id: VolumeId, request: &Sealed) {
        let Some((number, member)) = self.member(id).filter(|(_, m)| m.version <= request.version) else { return };
        let in_order = member.stage == Stage::Moved && member.epoch == Some(request.epoch);
        if in_order {
            member.stage = Stage::Sealed;
        }
        if in_order && self.has_moved(number) { self.advance_group(number) } else { self.give_up_group(number) }
    }

    /// A new gateway does not know what the last one has answered.
    pub(crate) fn group_reopened(&mut self, id: VolumeId) {
        if let Some((number, _)) = self.member(id).filter(|(_, m)| m.epoch.is_some()) {
            self.give_up_group(number);
        }
    }

    /// The volume's snapshot was deleted: the others go on without it.
    pub(crate) fn leave_group(&mut self, id: VolumeId, version: Version) {
        let Some((number, _)) = self.member(id).filter(|(_, m)| m.version == version) else { return };
        let had_moved = self.has_moved(number);
        if let Some(group) = self.tables.groups.get_mut(&number) {
            group.members.remove(&id);
        }
        if let Some(volume) = self.tables.volumes.get_mut(&id) {
            volume.history_mut().group = None;
        }
        if !had_moved && self.has_moved(number) {
            self.group_moved(number);
        }
        self.advance_group(number);
    }

    fn member(&mut self, id: VolumeId) -> Option<(u64, &mut Member)> {
        let number = self.tables.volumes.get(&id)?.history().group?.group;
        Some((number, self.tables.groups.get_mut(&number)?.members.get_mut(&id)?))
    }

    fn group_moved(&mut self, number: u64) {
        let group = self.tables.groups.get(&number).cloned().unwrap_or_default();
        group.members.keys().for_each(|id| self.versions_moved(*id));
    }

    /// Completes it, if it is complete.
    fn advance_group(&mut self, number: u64) {
        if !self.tables.groups.get(&number).is_some_and(|g| g.has_come_to(Stage::Sealed)) {
            return;
        }
        for (id, member) in self.end_group(number) {
            if let Some(volume) = self.tables.volumes.get_mut(&id) {
                let history = volume.history_mut();
                if let Some(snapshot) = history.snapshots.get_mut(&member.version) {
                    snapshot.state = SnapshotState::Done;
                }
                history.sealed = history.sealed.max(member.version);
            }
            self.versions_moved(id);
        }
    }

    /// All its snapshots go away.
    pub(crate) fn give_up_group(&mut self, number: u64) {
        for (id, member) in self.end_group(number) {
            self.drop_snapshot(id, member.version);
        }
    }

    fn end_group(&mut self, number: u64) -> BTreeMap<VolumeId, Member> {
        let group = self.tables.groups.remove(&number).unwrap_or_default();
        for id in group.members.keys() {
            if let Some(volume) = self.tables.volumes.get_mut(id) {
                volume.history_mut().group = None;
            }
        }
        group.members
    }
}
