//! The index: which replicas a shard holds, what each says of every block, and where its data is.
//!
//! Pure state. Records are applied in log order, at run time when their batch is durable and at
//! start when it is replayed. What a replica says of its blocks is in [`Chains`]. Replay starts from a checkpoint that was written while the log went
//! on, so applying must be idempotent: writes merge by seq, repairs set what the log says they set,
//! and records of an earlier life of a chunk are told apart by [`Replica::birth`].
//!
//! Invariant: a location belongs to at most one entry. The [`Ledger`] hears of every change, so the
//! count of live blocks per segment is exact.

use super::chains::{Chains, is_data};
use super::record::{CommitPoint, Dropped, Moved, NewReplica, Record, Seal};
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, Digest};
use levee_proto::{ChunkId, ConfigNo, Epoch, Fence, ReplicaId, Seq, Version, VolumeId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Where the data of an entry is: a block number within the shard, or that there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u32);

impl Place {
    /// No entry.
    pub const ABSENT: Place = Place(u32::MAX);
    /// A Zero entry: no data.
    pub const ZERO: Place = Place(u32::MAX - 1);
    /// A Data entry whose data was found corrupt, or is on no copy any more; a repair brings it back.
    pub const LOST: Place = Place(u32::MAX - 2);

    /// The block number, if there is data.
    pub fn location(self) -> Option<u32> {
        (self.0 < Self::LOST.0).then_some(self.0)
    }

    pub fn kind(self) -> BlockKind {
        match self {
            Place::ABSENT => BlockKind::Absent,
            Place::ZERO => BlockKind::Zero,
            _ => BlockKind::Data,
        }
    }
}

/// One block's entry: 20 bytes, so that a TiB of 4 KiB blocks takes 5 GiB of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    seq_high: u32,
    seq_low: u32,
    pub version: Version,
    pub crc: u32,
    pub place: Place,
}
const _: () = assert!(size_of::<Slot>() == 20);

impl Slot {
    pub const ABSENT: Slot = Slot { seq_high: 0, seq_low: 0, version: Version(0), crc: 0, place: Place::ABSENT };

    pub fn new(version: Version, seq: Seq, crc: u32, place: Place) -> Slot {
        Slot { seq_high: (seq.0 >> 32) as u32, seq_low: seq.0 as u32, version, crc, place }
    }

    pub fn seq(&self) -> Seq {
        Seq((u64::from(self.seq_high) << 32) | u64::from(self.seq_low))
    }

    pub fn entry(&self, block: u32) -> BlockEntry {
        BlockEntry { block, kind: self.place.kind(), version: self.version, seq: self.seq(), crc: self.crc }
    }
}

/// Hears where live data appears and disappears.
pub trait Ledger {
    fn change(&mut self, old: Place, new: Place);
}

/// What a shard knows of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMeta {
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub config: ConfigNo,
    /// Epoch of the last reconciliation that it completed.
    pub adopted: Epoch,
    /// May have lost entries: says "unknown", never "absent".
    pub damaged: bool,
    pub digest: Digest,
    /// Its entries, of all versions.
    pub entries: u32,
    /// Those with data.
    pub data_entries: u32,
    /// The largest seq that it has held: of an entry, or of one that was pruned.
    pub max_seq: Seq,
    /// Every member of the chunk holds exactly the same entries up to here.
    pub commit: Seq,
    /// It holds everything that was ever written at versions up to this one; 0: nothing is known.
    pub sealed: Version,
}

pub struct Replica {
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub config: ConfigNo,
    pub adopted: Epoch,
    pub damaged: bool,
    /// The commit point; 0 while `damaged`, as what it says of this replica need not be true then.
    pub commit: Seq,
    /// Everything that was ever written at versions up to this one is here; 0 while `damaged`.
    pub sealed: Version,
    /// Number of the record that created it: earlier records about the chunk are not about it.
    pub birth: u64,
    /// The largest seq of a write that was taken since the shard was opened, durable or not: one above it is not a repetition.
    pub taken: Cell<Seq>,
    pub chains: Chains,
}

impl Replica {
    pub fn new(n: &NewReplica, birth: u64) -> Replica {
        Replica {
            volume: n.volume,
            chunk: n.chunk,
            replica: n.replica,
            config: n.config,
            adopted: n.adopted,
            damaged: false,
            commit: Seq::ZERO,
            sealed: Version(0),
            birth,
            taken: Cell::default(),
            chains: Chains::default(),
        }
    }

    pub fn meta(&self) -> ReplicaMeta {
        ReplicaMeta {
            volume: self.volume,
            chunk: self.chunk,
            replica: self.replica,
            config: self.config,
            adopted: self.adopted,
            damaged: self.damaged,
            digest: self.chains.digest(),
            entries: self.chains.entries(),
            data_entries: self.chains.data_entries(),
            max_seq: self.chains.max_seq().max(self.commit),
            commit: self.commit,
            sealed: self.sealed,
        }
    }

    fn write(&mut self, block: u32, new: Slot, ledger: &mut impl Ledger) {
        let head = self.chains.head(block);
        if head.version == new.version || head.place == Place::ABSENT {
            if new.seq() > head.seq() || same_data(&head, &new) {
                self.chains.put_head(block, new, ledger);
            }
        } else {
            self.write_beside(block, new, ledger);
        }
    }

    /// A write at another version than the head's.
    #[cold]
    fn write_beside(&mut self, block: u32, new: Slot, ledger: &mut impl Ledger) {
        let old = self.chains.get(block, new.version);
        if new.seq() > old.seq() || same_data(&old, &new) {
            self.chains.put(block, new.version, new, ledger);
        }
    }

    fn repair(&mut self, epoch: Epoch, block: u32, version: Version, new: Slot, ledger: &mut impl Ledger) {
        let old = self.chains.get(block, version);
        let replaces = old.seq().epoch() < epoch && !crate::mutant!("repair merges older epochs");
        if replaces || new.seq() > old.seq() || same_data(&old, &new) || crate::mutant!("repair undoes newer writes") {
            self.chains.put(block, version, new, ledger);
        }
    }

    /// Whether it has the entries of its chunk that every member has.
    pub fn is_whole(&self, epoch: Epoch) -> bool {
        self.adopted == epoch && !self.damaged
    }
}

/// The same write's data again: its location may be replaced.
fn same_data(old: &Slot, new: &Slot) -> bool {
    is_data(*old) && is_data(*new) && (old.seq(), old.version, old.crc) == (new.seq(), new.version, new.crc)
}

/// All replicas and fences of a shard.
#[derive(Default)]
pub struct Index {
    replicas: BTreeMap<ChunkId, Replica>,
    by_volume: BTreeSet<(VolumeId, ChunkId)>,
    fences: BTreeMap<VolumeId, Fence>,
    data_entries: u64,
    entries: u64,
}

impl Index {
    pub fn fence(&self, volume: VolumeId) -> Fence {
        self.fences.get(&volume).copied().unwrap_or_default()
    }

    pub fn fences(&self) -> impl Iterator<Item = (VolumeId, Fence)> + '_ {
        self.fences.iter().map(|(v, f)| (*v, *f))
    }

    pub fn get(&self, chunk: ChunkId) -> Option<&Replica> {
        self.replicas.get(&chunk)
    }

    pub fn replicas(&self) -> impl Iterator<Item = &Replica> + '_ {
        self.replicas.values()
    }

    /// Replicas of chunks from `from` on, by chunk.
    pub fn replicas_from(&self, from: ChunkId) -> impl Iterator<Item = &Replica> + '_ {
        self.replicas.range(from..).map(|(_, r)| r)
    }

    /// The first replica whose chunk is not below `from`.
    pub fn first_from(&self, from: ChunkId) -> Option<&Replica> {
        self.replicas_from(from).next()
    }

    /// The volume's replicas of chunks above `after`, by chunk.
    pub fn of_volume(&self, volume: VolumeId, after: ChunkId) -> impl Iterator<Item = &Replica> + '_ {
        let range = (Bound::Excluded((volume, after)), Bound::Included((volume, ChunkId(u64::MAX))));
        self.by_volume.range(range).filter_map(|(_, chunk)| self.replicas.get(chunk))
    }

    pub fn replica_count(&self) -> usize {
        self.replicas.len()
    }

    /// Entries with data, and without.
    pub fn entry_counts(&self) -> (u64, u64) {
        (self.data_entries, self.entries - self.data_entries)
    }

    pub fn fence_count(&self) -> usize {
        self.fences.len()
    }

    /// Blocks of the range that have no data at the version yet: what a write of data would add.
    pub fn growth(&self, chunk: ChunkId, version: Version, block: u32, count: u32) -> u32 {
        let Some(r) = self.replicas.get(&chunk) else { return count };
        (block..block + count).filter(|b| r.chains.get(*b, version).place.location().is_none()).count() as u32
    }

    pub fn set_fence(&mut self, volume: VolumeId, fence: Fence) {
        let highest = self.fences.entry(volume).or_default();
        *highest = fence.max(*highest);
    }

    /// Puts a replica in, in place of one of the same chunk.
    pub fn insert(&mut self, replica: Replica, ledger: &mut impl Ledger) {
        self.remove(replica.chunk, ledger);
        replica.chains.all().for_each(|(_, s)| ledger.change(Place::ABSENT, s.place));
        self.by_volume.insert((replica.volume, replica.chunk));
        self.entries += u64::from(replica.chains.entries());
        self.data_entries += u64::from(replica.chains.data_entries());
        self.replicas.insert(replica.chunk, replica);
    }

    /// Adds entries to a replica that was put in before; whether it is still that one.
    pub fn extend(&mut self, part: &Replica, ledger: &mut impl Ledger) -> bool {
        let same = self.replicas.get(&part.chunk).is_some_and(|r| (r.replica, r.birth) == (part.replica, part.birth));
        if same {
            self.with(part.chunk, u64::MAX, |r| {
                part.chains.all().for_each(|(block, s)| r.chains.put(block, s.version, s, ledger));
            });
        }
        same
    }

    /// A seal that was durable; see [`Record::Seal`].
    pub fn seal(&mut self, seal: &Seal) {
        self.with(seal.chunk, u64::MAX, |r| r_seal(r, seal));
    }

    fn remove(&mut self, chunk: ChunkId, ledger: &mut impl Ledger) {
        if let Some(mut r) = self.replicas.remove(&chunk) {
            self.by_volume.remove(&(r.volume, chunk));
            self.entries -= u64::from(r.chains.entries());
            self.data_entries -= u64::from(r.chains.data_entries());
            r.chains.clear(ledger);
        }
    }

    /// Marks replicas as possibly incomplete.
    pub fn mark_damaged(&mut self, is_suspect: impl Fn(&Replica) -> bool) {
        for r in self.replicas.values_mut().filter(|r| is_suspect(r)) {
            r.damaged = true;
            r.commit = Seq::ZERO;
            r.sealed = Version(0);
        }
    }

    /// Applies record `number` of the log, whose data blocks are at `first`, `first + 1`, ….
    pub fn apply(&mut self, record: &Record, number: u64, first: u32, ledger: &mut impl Ledger) {
        match record {
            Record::Write { chunk, kind, version, seq, block, count, crcs } => {
                let write = Written { kind: *kind, version: *version, seq: *seq, block: *block, count: *count, crcs };
                self.with(*chunk, number, |r| r_write(r, &write, first, ledger));
            }
            Record::Repair { chunk, epoch, entries } => {
                self.with(*chunk, number, |r| r_repair(r, *epoch, entries, first, ledger));
            }
            Record::Gone { chunk, epoch, entries } => {
                self.with(*chunk, number, |r| r_gone(r, *epoch, entries, ledger));
            }
            Record::Create { new, damaged } => self.create(new, *damaged, number, ledger),
            Record::Delete { chunk, replica } => {
                if self.replicas.get(chunk).is_some_and(|r| r.replica == *replica && r.birth < number) {
                    self.remove(*chunk, ledger);
                }
            }
            Record::Adopt { epoch, chunks } => {
                chunks.iter().for_each(|c| self.with(*c, number, |r| r.adopted = r.adopted.max(*epoch)));
            }
            Record::Fence { volume, fence } => self.set_fence(*volume, *fence),
            Record::Config { chunk, config } => {
                self.with(*chunk, number, |r| r.config = r.config.max(*config));
            }
            Record::ClearDamaged { chunk } => self.with(*chunk, number, |r| r.damaged = false),
            Record::Commit { points } => {
                for p in points {
                    self.with(p.chunk, number, |r| r_commit(r, p));
                }
            }
            Record::Prune { chunk, drops } => self.with(*chunk, number, |r| r_prune(r, drops, ledger)),
            Record::Seal { seals } => {
                seals.iter().for_each(|s| self.with(s.chunk, number, |r| r_seal(r, s)));
            }
            Record::Move { blocks } => {
                for (m, at) in blocks.iter().zip(first..) {
                    self.with(m.chunk, number, |r| r_move(r, m, Place(at), ledger));
                }
            }
            Record::Lost { blocks } => {
                blocks.iter().for_each(|m| self.with(m.chunk, number, |r| r_move(r, m, Place::LOST, ledger)));
            }
        }
    }

    /// Runs `change` on the replica that record `number` is about, if it is still there.
    fn with(&mut self, chunk: ChunkId, number: u64, change: impl FnOnce(&mut Replica)) {
        let Some(r) = self.replicas.get_mut(&chunk).filter(|r| r.birth < number) else { return };
        let (entries, data) = (r.chains.entries(), r.chains.data_entries());
        change(r);
        self.entries = self.entries + u64::from(r.chains.entries()) - u64::from(entries);
        self.data_entries = self.data_entries + u64::from(r.chains.data_entries()) - u64::from(data);
    }

    /// Ids of replicas only grow: an older one never replaces a newer one.
    fn create(&mut self, n: &NewReplica, damaged: bool, number: u64, ledger: &mut impl Ledger) {
        if self.replicas.get(&n.chunk).is_none_or(|r| r.replica < n.replica && r.birth < number) {
            self.insert(Replica { damaged, ..Replica::new(n, number) }, ledger);
        }
    }
}

struct Written<'a> {
    kind: BlockKind,
    version: Version,
    seq: Seq,
    block: u32,
    count: u32,
    crcs: &'a Crcs,
}

fn r_write(r: &mut Replica, w: &Written, first: u32, ledger: &mut impl Ledger) {
    if w.kind == BlockKind::Data {
        for (i, crc) in w.crcs.iter().enumerate() {
            let slot = Slot::new(w.version, w.seq, crc, Place(first + i as u32));
            r.write(w.block + i as u32, slot, ledger);
        }
    } else {
        for block in w.block..w.block + w.count {
            r.write(block, Slot::new(w.version, w.seq, 0, Place::ZERO), ledger);
        }
    }
}

fn r_repair(r: &mut Replica, epoch: Epoch, entries: &[BlockEntry], first: u32, ledger: &mut impl Ledger) {
    let mut next = first;
    for e in entries {
        let slot = match e.kind {
            BlockKind::Data => {
                next += 1;
                Slot::new(e.version, e.seq, e.crc, Place(next - 1))
            }
            BlockKind::Zero => Slot::new(e.version, e.seq, 0, Place::ZERO),
            BlockKind::Absent => Slot::ABSENT,
        };
        if e.kind == BlockKind::Absent && e.version == Version(0) {
            let versions: Vec<Version> = r.chains.chain(e.block).map(|s| s.version).collect();
            versions.iter().for_each(|v| r.repair(epoch, e.block, *v, Slot::ABSENT, ledger));
        } else {
            r.repair(epoch, e.block, e.version, slot, ledger);
        }
    }
}

/// Who has the data keeps it.
fn r_gone(r: &mut Replica, epoch: Epoch, entries: &[BlockEntry], ledger: &mut impl Ledger) {
    for e in entries {
        let gone = Slot::new(e.version, e.seq, e.crc, Place::LOST);
        if !same_data(&r.chains.get(e.block, e.version), &gone) {
            r.repair(epoch, e.block, e.version, gone, ledger);
        }
    }
}

/// Named by seq: what replaced an entry that was to be dropped stays.
fn r_prune(r: &mut Replica, drops: &[Dropped], ledger: &mut impl Ledger) {
    for d in drops {
        let old = r.chains.get(d.block, d.version);
        if old.place != Place::ABSENT && old.seq() == d.seq {
            r.chains.put(d.block, d.version, Slot::ABSENT, ledger);
        }
    }
}

/// Only ever goes up, like a commit point.
fn r_seal(r: &mut Replica, s: &Seal) {
    if r.replica == s.replica && !r.damaged {
        r.sealed = r.sealed.max(s.version);
    }
}

/// Only ever goes up. Whether the replica has adopted and holds what it should was checked when the point came: replay
/// may meet a later state.
fn r_commit(r: &mut Replica, p: &CommitPoint) {
    if r.replica == p.replica && !r.damaged {
        r.commit = r.commit.max(p.seq);
    }
}

/// Changes only where the data is, and only if it is still where compaction took it from.
fn r_move(r: &mut Replica, m: &Moved, to: Place, ledger: &mut impl Ledger) {
    let old = r.chains.get(m.block, m.version);
    let same = old.place == Place(m.from) && (old.seq(), old.crc) == (m.seq, m.crc);
    if same || crate::mutant!("compaction puts old over new") {
        r.chains.put(m.block, m.version, Slot { place: to, ..old }, ledger);
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
