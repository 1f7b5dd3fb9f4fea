//! Going on with a state that may be older than what daemons have seen.
//!
//! Most meta servers were lost for good (`levee-metad recover`), or a folder was restored. What only the lost ones knew has happened all
//! the same: epochs and ids were given out, chunks allocated, replica sets changed, versions opened. A new *generation* begins:
//!
//! - Ids leap beyond all that can have been given out, and so do epochs, so that none is given out again. Every attachment becomes another
//!   one: whatever gateways do of the lost part is refused from now on, and each volume is taken over by a gateway with a new epoch.
//! - Every daemon reports what its disks hold. **No volume is opened before all have**: an epoch is above every fence then, a volume is written at
//!   a version at which or below which everything was written, and a chunk has all members that can have been in its newest set.
//! - A chunk that was allocated in the lost part is nowhere in the state: which part of the volume it was is not known any more. Its volume is
//!   held: not opened, before an operator has accepted the loss. *Else that part would read as zeros.*
//! - Replicas that the state does not know are kept. Only what it knows, and has dropped, is ever on a list of deletions.
//!
//! A daemon that registers with ids that were never given out proves as much as an operator says: a generation begins.

use crate::command::{Answer, Outcome, invalid};
use crate::limits::*;
use crate::snapshots::conflict;
use crate::state::State;
use crate::tables::{Chunk, LastIds};
use levee_proto::api::*;
use levee_proto::{ChunkId, ConfigNo, DiskId, Epoch, Fence, NodeId, ReplicaId, Version, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// What is left to do in this generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Recovery {
    /// 0: the state was never gone on with.
    pub generation: u64,
    /// No volume is opened yet.
    pub waiting: bool,
    /// Nodes that have not reported everything yet, as long as volumes wait.
    pub awaited: BTreeSet<NodeId>,
    /// Ids of chunks that only lost states can have given out.
    pub gaps: Vec<(u64, u64)>,
    /// Replicas in sets that are newer than the state's, until all have reported.
    pub newer: Vec<Newer>,
    /// Replicas of the state's sets that have been reported, until all have.
    pub held: BTreeSet<ReplicaId>,
    /// Chunks that were allocated in the lost part, by volume.
    pub lost: BTreeMap<VolumeId, BTreeSet<ChunkId>>,
    /// Other replicas that nobody knows.
    pub unknown: BTreeSet<ReplicaId>,
}

/// A replica in a set of a chunk that is newer than the state's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Newer {
    pub volume: VolumeId,
    pub index: u32,
    pub config: ConfigNo,
    pub replica: ReplicaId,
    pub node: NodeId,
    pub disk: DiskId,
}

impl Recovery {
    pub fn is_empty(&self) -> bool {
        *self == Recovery::default()
    }

    /// Whether only a lost state can have given out the chunk's id.
    fn is_of_lost_part(&self, chunk: ChunkId) -> bool {
        self.gaps.iter().any(|(first, last)| (*first..=*last).contains(&chunk.0))
    }

    fn note_lost(&mut self, volume: VolumeId, chunk: ChunkId) {
        let noted: usize = self.lost.values().map(BTreeSet::len).sum();
        let chunks = self.lost.entry(volume).or_default();
        // That there are some is what counts.
        if chunks.is_empty() || noted < MAX_NOTED_REPLICAS {
            chunks.insert(chunk);
        }
    }

    fn note_unknown(&mut self, replica: ReplicaId) {
        if self.unknown.len() < MAX_NOTED_REPLICAS {
            self.unknown.insert(replica);
        }
    }
}

impl LastIds {
    /// Beyond everything that can have been given out, and that somebody has come across.
    fn leap(&mut self, seen: &Seen, generation: u64) {
        self.raise(seen);
        let leap = |id: &mut u64| *id = leaped(*id, generation);
        [&mut self.volume, &mut self.chunk, &mut self.replica].into_iter().for_each(leap);
        [&mut self.attachment, &mut self.group].into_iter().for_each(leap);
        [&mut self.node, &mut self.disk].into_iter().for_each(|id| *id = id.saturating_add(RECOVERY_NODES));
    }

    fn raise(&mut self, seen: &Seen) {
        self.volume = self.volume.max(seen.volume.0);
        self.chunk = self.chunk.max(seen.chunk.0);
        self.replica = self.replica.max(seen.replica.0);
        self.node = self.node.max(seen.node.map_or(0, |node| node.0));
        self.disk = self.disk.max(seen.disks.values().map(|disk| disk.0).max().unwrap_or(0));
    }

    /// Whether all that was come across can have been given out.
    fn covers(&self, seen: &Seen) -> bool {
        let mut raised = self.clone();
        raised.raise(seen);
        raised == *self
    }
}

/// Beyond what can have been given out since the state was the newest, also in generations that began with this very state: they differ
/// in their times, and fewer ids are given out than time passes. Where a clock was set back, a leap has to do.
fn leaped(number: u64, generation: u64) -> u64 {
    let by_time = generation.saturating_mul(RECOVERY_IDS_PER_MS);
    if by_time > number { by_time } else { number.saturating_add(RECOVERY_IDS) }
}

pub(crate) fn validate_seen(seen: &Seen) -> Result<(), Problem> {
    let disks = seen.disks.values().map(|disk| disk.0);
    let small = disks.chain(seen.node.map(|node| node.0)).all(|id| id <= MAX_SEEN_SMALL_ID);
    if !small || [seen.volume.0, seen.chunk.0, seen.replica.0].iter().any(|id| *id > MAX_SEEN_ID) {
        return Err(invalid("the daemon has come across ids that nobody can have given out"));
    }
    Ok(())
}

pub(crate) fn validate_inventory(request: &Inventory) -> Result<(), Problem> {
    if request.replicas.len() > MAX_INVENTORY || request.fences.len() > MAX_INVENTORY {
        return Err(invalid(format!(
            "an inventory has at most {MAX_INVENTORY} replicas, and as many fences, at a time"
        )));
    }
    let mut replicas = request.replicas.iter();
    let sound = |r: &HeldReplica| r.version < Version::MAX && r.chunk.0 <= MAX_SEEN_ID && r.replica.0 <= MAX_SEEN_ID;
    if !replicas.all(sound) || request.fences.iter().any(|fence| fence.epoch > Epoch::MAX) {
        return Err(invalid("an inventory names epochs or versions that nobody can have given out"));
    }
    Ok(())
}

impl State {
    /// Which of the states that daemons have seen this one goes on from: see [`StateMark`].
    pub fn generation(&self) -> u64 {
        self.tables.recovery.generation
    }

    /// Whether the daemon knows of a state that this one does not go on from, `applied` being the log that this one has applied.
    pub fn is_older_than(&self, seen: &StateMark, applied: u64) -> bool {
        self.tables.cluster.is_some() && *seen > StateMark { generation: self.generation(), applied }
    }

    /// An operator, or a daemon, says that the state may be too old. `at_ms` tells generations apart that begin with the same state.
    pub(crate) fn recover(&mut self, at_ms: u64) -> Outcome {
        if self.tables.cluster.is_none() {
            return Err(conflict("there is no cluster yet: nothing is to be recovered".into()));
        }
        self.begin_generation(at_ms, &Seen::default());
        Ok(Answer::Done)
    }

    /// A daemon registers: what it has come across is never given out again, and begins a generation if it was not given out by this state.
    pub(crate) fn heed(&mut self, seen: &Seen, name: &str) {
        if self.tables.last.covers(seen) {
            return;
        }
        let text = "has copies or ids that the meta servers did not know of: their state is older than the cluster";
        self.note(EventKind::Node, Severity::Error, name, text);
        self.begin_generation(self.clock_ms(), seen);
    }

    fn begin_generation(&mut self, at_ms: u64, seen: &Seen) {
        let before = self.tables.last.chunk;
        let generation = at_ms.max(self.generation() + 1);
        self.tables.last.leap(seen, generation);
        let recovery = &mut self.tables.recovery;
        recovery.generation = generation;
        recovery.gaps.push((before + 1, self.tables.last.chunk));
        recovery.newer.clear();
        recovery.held.clear();
        recovery.waiting = true;
        recovery.awaited = self.tables.nodes.keys().copied().collect();
        for node in self.tables.nodes.values_mut() {
            // A daemon that has seen this number with something else must not take it for the same.
            node.revision = leaped(node.revision, generation);
        }
        let groups: Vec<u64> = self.tables.groups.keys().copied().collect();
        groups.into_iter().for_each(|group| self.give_up_group(group));
        let cancelled = self.cancel_rebalance();
        debug_assert!(cancelled.is_ok());
        let volumes: Vec<VolumeId> = self.tables.volumes.iter().map(|(id, _)| *id).collect();
        volumes.into_iter().for_each(|id| self.leap_epoch(id));
        let text = "the state may be older than the cluster: volumes wait until all nodes have told what they hold";
        self.note(EventKind::Cluster, Severity::Warning, "cluster", text);
    }

    fn leap_epoch(&mut self, id: VolumeId) {
        // Other ones than a generation had that began with the same state a while ago: also those that nobody reports.
        let by_time = self.tables.recovery.generation / RECOVERY_EPOCH_MS % RECOVERY_EPOCHS;
        let leap = u32::try_from(RECOVERY_EPOCHS + by_time * OPENS_IN_EPOCH_MS).expect("few");
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return };
        volume.epoch = Epoch(volume.epoch.0.saturating_add(leap).min(Epoch::MAX.0));
        self.reattach(id);
    }

    /// Whoever serves the volume is to do so anew, with another epoch.
    fn reattach(&mut self, id: VolumeId) {
        let attachment = self.tables.volumes.get(&id).and_then(|volume| volume.attachment.clone());
        if let Some(attachment) = attachment {
            self.set_attachment(id, attachment.node, attachment.repair);
        }
    }

    /// A node that comes while volumes wait is waited for as well.
    pub(crate) fn await_node(&mut self, node: NodeId) {
        let recovery = &mut self.tables.recovery;
        if recovery.waiting {
            recovery.awaited.insert(node);
        }
    }

    /// What a daemon's disks hold, page by page; pages may come again.
    pub(crate) fn take_inventory(&mut self, node: NodeId, request: &Inventory) -> Outcome {
        let registered = self.tables.nodes.get(&node).ok_or_else(|| crate::removal::no_node(node))?;
        if registered.incarnation != request.incarnation {
            let detail = format!("another daemon has registered as node {node} since: this one must stop");
            return Err(Problem::new(ProblemKind::Fenced, detail));
        }
        if request.generation != self.generation() {
            return Ok(Answer::Done);
        }
        request.fences.iter().for_each(|fence| self.raise_fence(fence));
        let mut by_volume: BTreeMap<VolumeId, Vec<HeldReplica>> = BTreeMap::new();
        let here = |r: &&HeldReplica| self.tables.disks.get(&r.disk).is_some_and(|disk| disk.node == node);
        for replica in request.replicas.iter().filter(here) {
            by_volume.entry(replica.volume).or_default().push(*replica);
        }
        by_volume.into_iter().for_each(|(volume, held)| self.sort_out(node, volume, &held));
        if request.complete {
            self.tables.recovery.awaited.remove(&node);
        }
        Ok(Answer::Done)
    }

    /// The next epoch is above what a daemon refuses. Whoever was given a lower one by now is replaced. A fence that no gateway can have set
    /// is left behind by another era, as `recover-epochs` does it.
    fn raise_fence(&mut self, held: &HeldFence) {
        let era = self.era(held.volume);
        let Some(volume) = self.tables.volumes.get_mut(&held.volume) else { return };
        let fence = Fence::new(held.era, held.epoch);
        if fence <= Fence::new(era, volume.epoch) {
            return;
        }
        let is_spent = held.epoch.0 > volume.epoch.0.saturating_add(MAX_OPENS_LOST);
        let needed = if is_spent { held.era.next() } else { Some(held.era) };
        if !is_spent {
            volume.epoch = volume.epoch.max(held.epoch);
        }
        // One more era is one more entry, as many as there may be.
        let has_room = self.tables.eras.len() < MAX_ERAS || self.tables.eras.contains_key(&held.volume);
        if let Some(needed) = needed.filter(|needed| *needed > era && has_room) {
            self.tables.eras.insert(held.volume, needed);
        }
        if self.tables.volumes[&held.volume].attachment.as_ref().is_some_and(|a| a.opened_by.is_some()) {
            self.reattach(held.volume);
        }
    }

    /// Replicas of one volume on one node.
    fn sort_out(&mut self, node: NodeId, id: VolumeId, held: &[HeldReplica]) {
        self.raise_version(id, held.iter().map(|r| r.version).max().unwrap_or_default());
        let State { tables, .. } = self;
        let (recovery, volume) = (&mut tables.recovery, tables.volumes.get(&id));
        let indexes: BTreeMap<ChunkId, u32> =
            volume.iter().flat_map(|v| &v.chunks).map(|(index, chunk)| (chunk.id, *index)).collect();
        for r in held {
            let deleted = tables.disks.get(&r.disk).is_some_and(|disk| disk.deletes_chunk(r.disk, r.chunk));
            match (volume, indexes.get(&r.chunk)) {
                // Later, the chunk may have been served without it.
                (Some(volume), Some(index)) if recovery.waiting && r.config > volume.chunks[index].config => {
                    let (index, config, replica, disk) = (*index, r.config, r.replica, r.disk);
                    recovery.newer.push(Newer { volume: id, index, config, replica, node, disk });
                }
                (Some(volume), Some(index)) if is_member(&volume.chunks[index], r) => {
                    if recovery.waiting {
                        recovery.held.insert(r.replica);
                    }
                }
                (Some(_), None) if recovery.is_of_lost_part(r.chunk) => recovery.note_lost(id, r.chunk),
                _ if deleted => {}
                _ => recovery.note_unknown(r.replica),
            }
        }
    }

    /// Everything that was written is at this version or below, and the head sees it.
    fn raise_version(&mut self, id: VolumeId, version: Version) {
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return };
        if volume.version >= version || volume.read_only {
            return;
        }
        volume.version = version;
        self.prune_due(id);
        if self.tables.volumes[&id].attachment.as_ref().is_some_and(|a| a.opened_by.is_some()) {
            self.reattach(id);
        }
    }

    /// Once all have reported, chunks get the sets that they have come to have.
    pub(crate) fn go_on_recovering(&mut self) {
        let recovery = &self.tables.recovery;
        if !recovery.waiting || recovery.awaited.iter().any(|node| self.is_awaited(*node)) {
            return;
        }
        let recovery = &mut self.tables.recovery;
        recovery.waiting = false;
        recovery.awaited.clear();
        let mut newer = std::mem::take(&mut recovery.newer);
        newer.sort_unstable();
        newer.dedup();
        newer.chunk_by(|a, b| (a.volume, a.index) == (b.volume, b.index)).for_each(|replicas| self.adopt_set(replicas));
        self.tables.recovery.held.clear();
        self.tell(EventKind::Cluster, "cluster", "all nodes have told what they hold: volumes are opened again");
        self.touch_all();
    }

    /// Whether a node may hold what the state does not know. One without disks, or whose disks are given up, is not waited for.
    fn is_awaited(&self, node: NodeId) -> bool {
        self.tables.disks.values().any(|disk| disk.node == node && disk.death.is_none())
    }

    /// Of one chunk, by config number: all that can be in its newest set become its members.
    ///
    /// Only those know of a set who came with it: who stayed may have the number of an earlier one. So none is left out but
    /// those that are known to be gone, which had left. With more members more have to answer at a takeover, so that none of a smaller
    /// set's writes is missed. Those that are too many leave later.
    fn adopt_set(&mut self, replicas: &[Newer]) {
        let Some(Newer { volume: id, index, config, .. }) = replicas.last().copied() else { return };
        let Some(volume) = self.tables.volumes.get(&id) else { return };
        let Some(chunk) = volume.chunks.get(&index) else { return };
        let (min_copies, most) = (usize::from(volume.min_copies), usize::from(volume.copies) + 1);
        let newer = replicas.iter().rev().map(|r| ReplicaPlace { replica: r.replica, node: r.node, disk: r.disk });
        let may_stay = |place: &&ReplicaPlace| {
            let told = self.tables.disks.get(&place.disk).is_some_and(|disk| disk.death.is_none());
            !told || self.tables.recovery.held.contains(&place.replica)
        };
        let mut set: Vec<ReplicaPlace> = vec![];
        for place in newer.chain(chunk.replicas.iter().filter(may_stay).copied()) {
            if set.iter().all(|other| other.disk != place.disk) {
                set.push(place);
            }
        }
        let (chunk, found) = (chunk.id, set.len());
        set.truncate(most);
        let Some(next) = config.next().filter(|_| set.len() >= min_copies) else {
            return self.tables.recovery.note_lost(id, chunk);
        };
        self.put_set(id, index, Chunk { id: chunk, config: next, replicas: set });
        if found > most {
            // Which of them were members last nobody can tell.
            self.tables.recovery.note_lost(id, chunk);
        }
    }

    fn put_set(&mut self, id: VolumeId, index: u32, new: Chunk) {
        let tables = &mut self.tables;
        let Some(volume) = tables.volumes.get_mut(&id) else { return };
        let places = new.replicas.clone();
        let Some(old) = volume.chunks.insert(index, new) else { return };
        for place in &old.replicas {
            if let Some(disk) = tables.disks.get_mut(&place.disk) {
                disk.placed -= 1;
            }
            if !places.contains(place) {
                tables.recovery.note_unknown(place.replica);
            }
        }
        for place in &places {
            let Some(disk) = tables.disks.get_mut(&place.disk) else { continue };
            // An earlier one of the same chunk must have gone before this one came.
            let earlier = disk.deletes.iter().filter(|r| r.chunk == old.id).copied().collect::<Vec<_>>();
            disk.deletes.retain(|r| r.chunk != old.id);
            disk.placed = disk.placed + 1 - earlier.len() as u64;
        }
        self.refresh_evacuation(old.replicas.iter().chain(&places).map(|place| place.disk).collect::<Vec<_>>());
    }

    /// Refuses to open a volume of which something may be missing.
    pub(crate) fn check_recovered(&self, id: VolumeId) -> Result<(), Problem> {
        let recovery = &self.tables.recovery;
        if let Some(node) = recovery.awaited.iter().find(|node| self.is_awaited(**node)) {
            let name = self.node_name(*node);
            return Err(conflict(format!(
                "volumes wait until node '{name}' has told what it holds, for the meta servers' state may be too old: start its \
                 daemon, or give it up with `levee node remove {name} --force`"
            )));
        }
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(volume) = self.tables.volumes.get(&id) else { break };
            if let Some(chunks) = recovery.lost.get(&id) {
                let (name, count) = (&volume.name, chunks.len());
                return Err(conflict(format!(
                    "volume '{name}' is held: {count} of its chunks are on disks, and the meta servers, which lost their newest \
                     state, do not know where in the volume they belong; `levee volume accept-loss {name}` goes on without them"
                )));
            }
            next = volume.parent.map(|parent| parent.volume);
        }
        Ok(())
    }

    /// An operator goes on without what is missing: it reads as zeros, or as what the volume's ancestors have.
    pub(crate) fn accept_loss(&mut self, name: &str) -> Outcome {
        let id = self.volume_id(name)?;
        if let Some(chunks) = self.tables.recovery.lost.remove(&id) {
            let text = format!("is used again without {} chunks that were lost with the meta servers", chunks.len());
            self.note(EventKind::Volume, Severity::Warning, name, text);
        }
        self.volume_answer(id)
    }

    /// A volume is gone.
    pub(crate) fn forget_losses(&mut self, id: VolumeId) {
        self.tables.recovery.lost.remove(&id);
    }

    /// What is left to do since a generation began.
    pub fn recovery_info(&self) -> RecoveryInfo {
        let recovery = &self.tables.recovery;
        let held = |(id, chunks): (&VolumeId, &BTreeSet<ChunkId>)| {
            let name = self.tables.volumes.get(id).map(|volume| volume.name.clone());
            HeldVolume { volume: *id, name, lost_chunks: chunks.len() as u64 }
        };
        let awaited = recovery.awaited.iter().filter(|node| self.is_awaited(**node));
        RecoveryInfo {
            generation: recovery.generation,
            awaited: awaited.map(|node| self.node_name(*node)).collect(),
            held: recovery.lost.iter().map(held).collect(),
            unknown_replicas: recovery.unknown.len() as u64,
        }
    }

    pub(crate) fn check_recovery(&self) -> Result<(), String> {
        let recovery = &self.tables.recovery;
        let within = |range: RangeInclusive<u64>, last| *range.start() >= 1 && *range.end() <= last;
        if !recovery.gaps.iter().all(|(first, last)| within(*first..=*last, self.tables.last.chunk)) {
            return Err("chunks can have been lost that are yet to be given out".into());
        }
        if !recovery.lost.keys().all(|id| self.tables.volumes.get(id).is_some()) {
            return Err("a volume is held that is not there".into());
        }
        Ok(())
    }
}

fn is_member(chunk: &Chunk, held: &HeldReplica) -> bool {
    chunk.replicas.iter().any(|place| place.replica == held.replica && place.disk == held.disk)
}
