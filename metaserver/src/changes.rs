//! What changed lately: a bounded ring that every member fills as it applies the log.
//!
//! A revision is the index of a log entry, so it means the same to all members. What a member cannot know, because it lies before
//! its start, before a snapshot that it was given, or beyond the ring, it says it does not know; it never leaves a change out.

use crate::limits::MAX_CHANGES_KEPT;
use levee_meta_state::{Answer, Command, Outcome, State};
use levee_proto::api::{Change, ChangeKind, Changes, Family, SnapshotName, ThingKind};
use std::collections::VecDeque;

/// The changes of one member's state.
#[derive(Default)]
pub struct Ring {
    /// Changes above this revision are all in the ring.
    floor: u64,
    newest: u64,
    kept: VecDeque<Change>,
}

impl Ring {
    /// Nothing is known of what was before `revision`.
    pub fn begin(revision: u64) -> Ring {
        Ring { floor: revision, newest: revision, kept: VecDeque::new() }
    }

    /// An entry of the log was applied. Entries come in order.
    pub fn note(&mut self, revision: u64, things: Vec<Thing>) {
        self.newest = self.newest.max(revision);
        self.kept.extend(things.into_iter().map(|(kind, name, change)| Change { revision, kind, name, change }));
        // A revision goes as a whole.
        while self.kept.len() > MAX_CHANGES_KEPT {
            let Some(oldest) = self.kept.front().map(|change| change.revision) else { return };
            self.floor = oldest;
            while self.kept.front().is_some_and(|change| change.revision == oldest) {
                self.kept.pop_front();
            }
        }
    }

    /// What of these kinds changed after a revision; at most `limit`, but for those of one revision.
    pub fn after(&self, after: Option<u64>, kinds: &[ThingKind], limit: usize) -> Changes {
        let Some(after) = after.filter(|after| (self.floor..=self.newest).contains(after)) else {
            return Changes { revision: self.newest, reset: true, changes: Vec::new() };
        };
        let begin = self.kept.partition_point(|change| change.revision <= after);
        let mut answer = Changes { revision: self.newest, reset: false, changes: Vec::new() };
        for change in self.kept.range(begin..).filter(|change| kinds.contains(&change.kind)) {
            let last = answer.changes.last().map(|last| last.revision);
            if answer.changes.len() >= limit && last.is_some_and(|last| last != change.revision) {
                answer.revision = last.unwrap_or(after);
                break;
            }
            answer.changes.push(change.clone());
        }
        answer
    }
}

/// Something that a command changed, and how.
pub type Thing = (ThingKind, String, ChangeKind);

/// What a command has changed; `state` is how it is after the command, or later in the same entry.
pub fn of(command: &Command, outcome: &Outcome, state: &State) -> Vec<Thing> {
    use ChangeKind::{Changed, Created};
    use ThingKind::{Cluster, Disk, Node, Volume};
    let Ok(answer) = outcome else { return Vec::new() };
    let one = |kind, name: &str, change| vec![(kind, name.to_string(), change)];
    match command {
        Command::Keyed { command, .. } | Command::Of { command, .. } => of(command, outcome, state),
        Command::Found { .. } | Command::SetLimits(_) => one(Cluster, "", Changed),
        Command::RegisterNode(node) => {
            let disks = if let Answer::Registered(registered) = answer { &registered.disks[..] } else { &[] };
            let disks = disks.iter().map(|disk| (Disk, disk.to_string(), Changed));
            disks.chain(one(Node, &node.name, Changed)).collect()
        }
        Command::SetDisk { disk, .. } | Command::SetDiskWeight { disk, .. } => one(Disk, &disk.to_string(), Changed),
        Command::RemoveDisk { disk, .. } => one(Disk, &disk.to_string(), ChangeKind::Deleted),
        Command::SetNode { node, .. } => {
            let name = state.node(*node).map(|n| n.name.clone()).unwrap_or_default();
            vec![(Node, name, Changed)]
        }
        // Its name is gone with it.
        Command::RemoveNode { node, .. } => one(Node, &node.to_string(), ChangeKind::Deleted),
        Command::SetPlacement(_) | Command::StartRebalance { .. } | Command::CancelRebalance => {
            one(Cluster, "", Changed)
        }
        Command::StartMaintenance(_) | Command::EndMaintenance { .. } => one(Cluster, "", Changed),
        Command::CreateVolume(volume) => one(Volume, &volume.name, Created),
        Command::CreateVolumes(batch) => {
            let Answer::Created(items) = answer else { return Vec::new() };
            let created = batch.volumes.iter().zip(items).filter(|(_, item)| item.id.is_some());
            created.map(|(volume, _)| (Volume, volume.name.clone(), Created)).collect()
        }
        Command::CreateClones(clones) => {
            let names = clones.names.names().map(|name| (Volume, name, Created));
            names.chain([snapshot(&clones.from, state)]).collect()
        }
        Command::DeleteVolume { name } => vec![volume(name, state)],
        Command::DeleteVolumes(all) => {
            all.volumes.iter().flat_map(Family::names).map(|name| volume(&name, state)).collect()
        }
        Command::Attach { name, .. } | Command::Detach { name } | Command::Open { name, .. } => {
            vec![volume(name, state)]
        }
        Command::Resize { name, .. } | Command::Flatten { name } | Command::Flattened { name, .. } => {
            vec![volume(name, state)]
        }
        Command::RecoverEpochs { name } => vec![volume(name, state)],
        Command::ChangeReplicas { name, .. } | Command::Allocate { name, .. } => vec![volume(name, state)],
        Command::BeginSnapshots { request, .. } => {
            request.snapshots.iter().map(|name| (ThingKind::Snapshot, name.to_string(), Created)).collect()
        }
        Command::Moved { name, .. } | Command::FinishSnapshots { name, .. } => snapshots_of(name, state),
        Command::DeleteSnapshot(name) => vec![snapshot(name, state)],
        Command::Rollback(name) => vec![volume(&name.volume, state)],
        _ => Vec::new(),
    }
}

fn volume(name: &str, state: &State) -> (ThingKind, String, ChangeKind) {
    let gone = state.volume_named(name).is_err();
    (ThingKind::Volume, name.to_string(), if gone { ChangeKind::Deleted } else { ChangeKind::Changed })
}

fn snapshot(name: &SnapshotName, state: &State) -> (ThingKind, String, ChangeKind) {
    let gone = state.snapshot_named(name).is_err();
    (ThingKind::Snapshot, name.to_string(), if gone { ChangeKind::Deleted } else { ChangeKind::Changed })
}

/// Those of a volume: which of them a gateway's report completed is not in the answer.
fn snapshots_of(name: &str, state: &State) -> Vec<Thing> {
    let all = state.snapshots_after(Some(name), Default::default(), levee_meta_state::limits::MAX_SNAPSHOTS);
    let all = all.unwrap_or_default().into_iter();
    all.map(|(_, s)| (ThingKind::Snapshot, format!("{name}@{}", s.name), ChangeKind::Changed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(names: &[&str]) -> Vec<Thing> {
        names.iter().map(|name| (ThingKind::Volume, name.to_string(), ChangeKind::Created)).collect()
    }

    const VOLUMES: [ThingKind; 1] = [ThingKind::Volume];

    fn names(changes: &Changes) -> Vec<&str> {
        changes.changes.iter().map(|change| change.name.as_str()).collect()
    }

    #[test]
    fn changes_are_told_once_and_in_order() {
        let mut ring = Ring::begin(10);
        ring.note(11, volumes(&["a", "b"]));
        ring.note(12, vec![(ThingKind::Disk, "1".into(), ChangeKind::Changed)]);
        ring.note(13, volumes(&["c"]));
        let all = ring.after(Some(10), &VOLUMES, 100);
        assert_eq!((names(&all), all.revision, all.reset), (vec!["a", "b", "c"], 13, false));
        assert_eq!(names(&ring.after(Some(11), &VOLUMES, 100)), ["c"]);
        let first = ring.after(Some(10), &VOLUMES, 1);
        assert_eq!((names(&first), first.revision), (vec!["a", "b"], 11), "a revision is not cut");
        assert_eq!(names(&ring.after(Some(first.revision), &VOLUMES, 1)), ["c"]);
        assert!(ring.after(Some(13), &VOLUMES, 1).changes.is_empty());
    }

    #[test]
    fn what_is_not_known_is_said_to_be() {
        let mut ring = Ring::begin(10);
        ring.note(11, Vec::new());
        for after in [None, Some(9), Some(12)] {
            assert_eq!(ring.after(after, &VOLUMES, 1), Changes { revision: 11, reset: true, changes: Vec::new() });
        }
        for revision in 12..12 + MAX_CHANGES_KEPT as u64 + 5 {
            ring.note(revision, volumes(&["v"]));
        }
        assert_eq!(ring.kept.len(), MAX_CHANGES_KEPT);
        assert!(ring.after(Some(16 - 1), &VOLUMES, 1).reset);
        assert!(!ring.after(Some(16), &VOLUMES, 1).reset);
    }
}
