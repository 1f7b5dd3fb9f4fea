//! The invariants of the state, checked whole. Slow: for tests, and for snapshots that come from outside.

use crate::command::Decider;
use crate::history::{Grouped, History, Parent, Snapshot};
use crate::limits::{
    MAX_ANCESTORS, MAX_EVENTS, MAX_KEYS, MAX_KEYS_WEIGHT, MAX_MOVES_PER_DISK, MAX_SNAPSHOTS, MAX_TOLD,
};
use crate::mirrors::mirror_name;
use crate::state::{Index, State};
use crate::tables::{Chunk, Volume};
use crate::volumes::hidden_name;
use levee_proto::api::{DiskState, RebalanceState, SnapshotState, is_valid_name};
use levee_proto::{ChunkId, ConfigNo, DiskId, Epoch, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

macro_rules! ensure {
    ($ok:expr, $($message:tt)*) => {
        if !$ok {
            return Err(format!($($message)*));
        }
    };
}

/// What was seen so far, to find the same id twice and to count.
#[derive(Default)]
struct Seen {
    chunks: BTreeSet<u64>,
    replicas: BTreeSet<u64>,
    attachments: BTreeSet<u64>,
    placed: BTreeMap<DiskId, u64>,
    chunk_disks: BTreeSet<(DiskId, ChunkId)>,
    children: BTreeMap<Parent, u64>,
    readers: BTreeMap<Parent, VolumeId>,
}

impl State {
    /// Says which invariant is broken, if one is.
    pub fn check(&self) -> Result<(), String> {
        ensure!(self.index == Index::of(&self.tables), "the index differs from the tables");
        self.check_unique_names()?;
        self.check_nodes()?;
        self.check_keys()?;
        self.check_recovery()?;
        let mut seen = Seen::default();
        for (id, volume) in self.tables.volumes.iter() {
            self.check_volume(*id, volume, &mut seen)?;
        }
        for (id, volume) in self.tables.volumes.iter() {
            self.check_snapshots(*id, volume, &seen)?;
        }
        self.check_groups_of_snapshots()?;
        self.check_moves()?;
        let is_there = |id: &VolumeId| self.tables.volumes.get(id).is_some_and(|volume| !volume.history().deleted);
        ensure!(self.tables.jobs.keys().all(is_there), "a command works on a volume that is not there");
        ensure!(self.told_conditions().count() <= MAX_TOLD, "too many conditions are remembered");
        self.check_events()?;
        self.check_disks(&mut seen)
    }

    fn check_keys(&self) -> Result<(), String> {
        let keys = &self.tables.keys;
        ensure!(self.index.keys.len() == keys.by_age.len(), "an idempotency key is remembered twice");
        let weight: u64 = keys.by_age.values().map(crate::keys::weight).sum();
        ensure!(keys.weight == weight, "what keys weigh is {weight}, not {}", keys.weight);
        ensure!(keys.by_age.len() as u64 <= MAX_KEYS && weight <= MAX_KEYS_WEIGHT, "too much is remembered by keys");
        let newest = keys.by_age.last_key_value().map_or(0, |(number, _)| *number);
        ensure!(newest <= keys.last, "key {newest} was never remembered");
        Ok(())
    }

    fn check_groups_of_snapshots(&self) -> Result<(), String> {
        let group_of = |id: &VolumeId| self.tables.volumes.get(id).and_then(|v| v.history().group);
        for (number, group) in &self.tables.groups {
            ensure!((1..=self.tables.last.group).contains(number), "group {number} was never given out");
            ensure!(!group.members.is_empty(), "group {number} has no volumes");
            for (id, member) in &group.members {
                let here = Grouped { group: *number, version: member.version };
                ensure!(group_of(id) == Some(here), "volume {id} is in group {number} and does not know it");
            }
        }
        for (id, volume) in self.tables.volumes.iter() {
            let Some(Grouped { group, version }) = volume.history().group else { continue };
            let member = self.tables.groups.get(&group).and_then(|g| g.members.get(id));
            ensure!(
                member.is_some_and(|m| m.version == version),
                "volume {id} is in group {group}, which does not know it"
            );
            let snapshot = volume.history().snapshots.get(&version);
            let is_pending = snapshot.is_some_and(|s| s.state == SnapshotState::Pending);
            ensure!(is_pending, "volume {id} has no pending snapshot for group {group}");
        }
        Ok(())
    }

    fn check_moves(&self) -> Result<(), String> {
        let Some(rebalance) = &self.tables.rebalance else { return Ok(()) };
        let runs = rebalance.state == RebalanceState::Running;
        let left = rebalance.waiting.len() + rebalance.under_way.len();
        ensure!(runs == (left > 0), "a rebalance is {:?} with {left} moves left", rebalance.state);
        let sum = rebalance.done.moves + rebalance.skipped + left as u64;
        let cancelled = rebalance.state == RebalanceState::Cancelled;
        ensure!(cancelled || sum == rebalance.all.moves, "moves are lost: {rebalance:?}");
        let mut busy: BTreeMap<DiskId, usize> = BTreeMap::new();
        for (replica, one) in &rebalance.under_way {
            ensure!(one.replica == *replica, "the move of replica {replica} is that of {}", one.replica);
            for disk in [one.from, one.to] {
                *busy.entry(disk).or_default() += 1;
                ensure!(busy[&disk] <= MAX_MOVES_PER_DISK, "too many moves from and to disk {disk}");
            }
            let chunk = self.tables.volumes.get(&one.volume).and_then(|v| v.chunks.get(&one.index));
            let is_there =
                chunk.is_some_and(|c| c.replicas.iter().any(|r| r.replica == *replica && r.disk == one.from));
            ensure!(is_there, "replica {replica} is to be moved and is not there");
            let to = self.tables.disks.get(&one.to).map(|d| d.state());
            ensure!(to == Some(DiskState::InService), "replica {replica} is to be moved to a disk that is {to:?}");
        }
        Ok(())
    }

    fn check_events(&self) -> Result<(), String> {
        let events = &self.tables.events;
        ensure!(events.kept.len() <= MAX_EVENTS, "too many events");
        let numbers = events.kept.iter().map(|e| e.seq);
        ensure!(numbers.eq(events.oldest()..=events.last), "events are numbered with gaps");
        Ok(())
    }

    fn check_unique_names(&self) -> Result<(), String> {
        ensure!(self.index.node_by_name.len() == self.tables.nodes.len(), "two nodes have one name");
        ensure!(self.index.disk_by_uuid.len() == self.tables.disks.len(), "two disks have one uuid");
        ensure!(self.index.volume_by_name.len() == self.tables.volumes.len(), "two volumes have one name");
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        for (id, node) in &self.tables.nodes {
            ensure!((1..=self.tables.last.node).contains(&id.0), "node {id} was never given out");
            ensure!(!node.retired.contains(&node.incarnation), "node {id} is served by a retired process");
            for disk in &node.disks {
                let owner = self.tables.disks.get(disk).map(|d| d.node);
                ensure!(owner == Some(*id), "node {id} claims disk {disk} of {owner:?}");
            }
        }
        Ok(())
    }

    fn check_volume(&self, id: VolumeId, volume: &Volume, seen: &mut Seen) -> Result<(), String> {
        ensure!((1..=self.tables.last.volume).contains(&id.0), "volume {id} was never given out");
        ensure!(volume.epoch <= Epoch::MAX, "volume {id} has epoch {}", volume.epoch);
        ensure!(volume.geometry.is_valid(), "volume {id} has a wrong geometry");
        if let Some(attachment) = &volume.attachment {
            let last = self.tables.last.attachment;
            ensure!((1..=last).contains(&attachment.id), "attachment {} was never given out", attachment.id);
            ensure!(seen.attachments.insert(attachment.id), "attachment {} is in use twice", attachment.id);
            ensure!(self.tables.nodes.contains_key(&attachment.node), "volume {id} is attached to no node");
            ensure!(attachment.opened_by.is_none() || volume.epoch > Epoch(0), "volume {id} is open without an epoch");
        }
        self.check_parent(id, volume, seen)?;
        let count = volume.chunk_count();
        for (index, chunk) in &volume.chunks {
            ensure!(*index < count, "volume {id} has a chunk {index} beyond its end");
            self.check_chunk(volume, chunk, seen)?;
        }
        Ok(())
    }

    fn check_parent(&self, id: VolumeId, volume: &Volume, seen: &mut Seen) -> Result<(), String> {
        let history = volume.history();
        let Some(parent) = volume.parent else {
            ensure!(!history.flatten, "volume {id} is flattened without a parent");
            ensure!(!volume.read_only, "volume {id} is read-only without a parent");
            return Ok(());
        };
        ensure!(!history.flatten || history.snapshots.is_empty(), "volume {id} is flattened with snapshots");
        ensure!(parent.volume < id, "volume {id} is older than its parent");
        let of = self.tables.volumes.get(&parent.volume);
        let Some((of, snapshot)) = of.and_then(|of| Some((of, of.history().snapshots.get(&parent.version)?))) else {
            return Err(format!("volume {id} has a parent that is not there: {parent:?}"));
        };
        ensure!(snapshot.state != SnapshotState::Pending, "volume {id} has a parent that is not complete");
        ensure!(volume.size >= snapshot.size, "volume {id} is smaller than its parent");
        ensure!(volume.geometry == of.geometry, "volume {id} has another geometry than its parent");
        ensure!(self.ancestors(volume) <= MAX_ANCESTORS, "volume {id} has too many ancestors");
        if volume.read_only {
            ensure!(seen.readers.insert(parent, id).is_none(), "a snapshot has two readers, one of them {id}");
            return check_reader(id, volume, of, snapshot);
        }
        if history.mirror.is_some() {
            return Ok(());
        }
        *seen.children.entry(parent).or_default() += 1;
        Ok(())
    }

    fn check_snapshots(&self, id: VolumeId, volume: &Volume, seen: &Seen) -> Result<(), String> {
        let history = volume.history();
        ensure!(volume.view().is_valid(), "volume {id} has a wrong view: {:?}", volume.view());
        ensure!(history.sealed < volume.version, "volume {id} is sealed at {}", history.sealed);
        ensure!(history.prune.is_none_or(|due| due <= history.number), "volume {id} is to be pruned later");
        ensure!(history.snapshots.len() <= MAX_SNAPSHOTS, "volume {id} has too many snapshots");
        let names: BTreeSet<&str> = history.snapshots.values().map(|s| s.name.as_str()).collect();
        ensure!(names.len() == history.snapshots.len(), "two snapshots of volume {id} have one name");
        for (version, snapshot) in &history.snapshots {
            let this = Parent { volume: id, version: *version };
            let (children, reader) = (seen.children.get(&this).copied().unwrap_or(0), seen.readers.get(&this).copied());
            ensure!(snapshot.children == children, "snapshot {id}@{version} counts {} clones", snapshot.children);
            ensure!(*version < volume.version, "snapshot {id}@{version} is not frozen");
            ensure!(snapshot.view(*version).is_valid(), "snapshot {id}@{version} has a wrong view");
            let (pending, sealed) = (snapshot.state == SnapshotState::Pending, *version <= history.sealed);
            let waits = history.group.is_some_and(|g| g.version == *version);
            ensure!(pending != sealed || (pending && waits), "snapshot {id}@{version} is {:?}", snapshot.state);
            ensure!(snapshot.reader == reader, "snapshot {id}@{version} has the reader {reader:?}");
            for mirror in &snapshot.mirrors {
                let of = self.tables.volumes.get(mirror).and_then(|m| m.history().mirror);
                ensure!(of == Some(this), "volume {mirror} is no mirror of {id}@{version}");
            }
            let deleting = snapshot.state == SnapshotState::Deleting;
            ensure!(!deleting || children > 0, "snapshot {id}@{version} is kept for nothing");
            ensure!(!history.deleted || deleting, "volume {id} is deleted with a snapshot that is not");
        }
        if let Some(of) = history.mirror {
            let original = self.tables.volumes.get(&of.volume).and_then(|v| v.history().snapshots.get(&of.version));
            ensure!(original.is_some_and(|s| s.mirrors.contains(&id)), "volume {id} mirrors nothing: {of:?}");
            ensure!(volume.user().is_none(), "volume {id} is a mirror and in use");
            ensure!(volume.parent.is_none_or(|p| p == of), "volume {id} mirrors {of:?} and is a clone of another");
            ensure!(volume.name == mirror_name(id), "volume {id} is a mirror by another name");
        } else if history.deleted {
            ensure!(!history.snapshots.is_empty(), "volume {id} is deleted, and kept for nothing");
            ensure!(volume.user().is_none(), "volume {id} is deleted and in use");
            ensure!(volume.name == hidden_name(id), "volume {id} is deleted and still has its name");
        } else if !volume.read_only {
            ensure!(is_valid_name(&volume.name), "volume {id} has a wrong name");
        }
        Ok(())
    }

    fn check_chunk(&self, volume: &Volume, chunk: &Chunk, seen: &mut Seen) -> Result<(), String> {
        let id = chunk.id;
        ensure!((1..=self.tables.last.chunk).contains(&id.0), "chunk {id} was never given out");
        ensure!(seen.chunks.insert(id.0), "chunk {id} is in use twice");
        let (members, copies) = (chunk.replicas.len(), usize::from(volume.copies));
        let fewest = usize::from(volume.min_copies);
        ensure!((fewest..=copies + 1).contains(&members), "chunk {id} has {members} replicas, of {copies}");
        let disks: BTreeSet<DiskId> = chunk.replicas.iter().map(|r| r.disk).collect();
        ensure!(disks.len() == members, "chunk {id} has two replicas on one disk");
        if chunk.config == ConfigNo::FIRST {
            let nodes: BTreeSet<NodeId> = chunk.replicas.iter().map(|r| r.node).collect();
            ensure!(members <= copies && nodes.len() == members, "chunk {id} was allocated wrongly");
        }
        for place in &chunk.replicas {
            let owner = self.tables.disks.get(&place.disk).map(|d| d.node);
            ensure!(owner == Some(place.node), "a replica of chunk {id} is on a disk of another node");
            seen.chunk_disks.insert((place.disk, id));
            self.count_replica(place.replica.0, place.disk, seen)?;
        }
        Ok(())
    }

    fn check_disks(&self, seen: &mut Seen) -> Result<(), String> {
        for (id, disk) in self.tables.disks.iter() {
            ensure!((1..=self.tables.last.disk).contains(&id.0), "disk {id} was never given out");
            ensure!(self.tables.nodes.contains_key(&disk.node), "disk {id} is of no node");
            for gone in &disk.deletes {
                ensure!(gone.disk == *id, "disk {id} lists a replica of disk {}", gone.disk);
                let alone = seen.chunk_disks.insert((*id, gone.chunk));
                ensure!(alone, "disk {id} has two replicas of chunk {}", gone.chunk);
                self.count_replica(gone.replica.0, *id, seen)?;
            }
            ensure!(!disk.removed || disk.live() > 0, "disk {id} was removed and is empty");
            let by = disk.drain.as_ref().map(|d| d.by);
            ensure!(by.is_none_or(|by| by == Decider::Operator), "disk {id} is drained by {by:?}");
            let counted = seen.placed.get(id).copied().unwrap_or(0);
            ensure!(disk.placed == counted, "disk {id} counts {} replicas, has {counted}", disk.placed);
        }
        Ok(())
    }

    fn count_replica(&self, replica: u64, disk: DiskId, seen: &mut Seen) -> Result<(), String> {
        ensure!((1..=self.tables.last.replica).contains(&replica), "replica {replica} was never given out");
        ensure!(seen.replicas.insert(replica), "replica {replica} is in use twice");
        *seen.placed.entry(disk).or_default() += 1;
        Ok(())
    }
}

/// A volume that serves a snapshot for reading.
fn check_reader(id: VolumeId, volume: &Volume, of: &Volume, snapshot: &Snapshot) -> Result<(), String> {
    ensure!(volume.user().is_some(), "the reader {id} is not attached");
    ensure!(snapshot.state == SnapshotState::Done, "the reader {id} keeps a snapshot that was deleted");
    ensure!(volume.name == format!("{}@{}", of.name, snapshot.name), "the reader {id} is named '{}'", volume.name);
    ensure!(volume.chunks.is_empty() && volume.size == snapshot.size, "the reader {id} is not its snapshot");
    ensure!(*volume.history() == History::default(), "the reader {id} has a history");
    Ok(())
}
