//! The index: which replicas a shard holds, what each says of every block, and where its data is.
//!
//! Pure state. Records are applied in log order, at run time when their batch is durable and at
//! start when it is replayed. Replay starts from a checkpoint that was written while the log went
//! on, so applying must be idempotent: writes merge by seq, repairs set what the log says they set,
//! and records of an earlier life of a chunk are told apart by [`Replica::birth`].
//!
//! Invariant: a location belongs to at most one entry. The [`Ledger`] hears of every change, so the
//! count of live blocks per segment is exact.

use super::record::{CommitPoint, Moved, NewReplica, Record};
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, Digest};
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, ConfigNo, Epoch, ReplicaId, Seq, Version, VolumeId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

const PAGE_SLOTS: usize = 256;
const PAGES: usize = BLOCKS_PER_CHUNK as usize / PAGE_SLOTS;

/// Where the data of an entry is: a block number within the shard, or that there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u32);

impl Place {
    /// No entry.
    pub const ABSENT: Place = Place(u32::MAX);
    /// A Zero entry: no data.
    pub const ZERO: Place = Place(u32::MAX - 1);
    /// A Data entry whose data was found corrupt; a repair brings it back.
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
    /// Blocks that have an entry.
    pub entries: u32,
    /// Of these: with data.
    pub data_entries: u32,
    /// The largest seq among the entries.
    pub max_seq: Seq,
    /// Every member of the chunk holds exactly the same entries up to here.
    pub commit: Seq,
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
    /// Number of the record that created it: earlier records about the chunk are not about it.
    pub birth: u64,
    pages: Vec<Option<Box<[Slot; PAGE_SLOTS]>>>,
    digest: Digest,
    entries: u32,
    data_entries: u32,
    /// `None`: to be found by looking, as the entry that had it is gone.
    max_seq: Cell<Option<Seq>>,
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
            birth,
            pages: Vec::new(),
            digest: Digest::default(),
            entries: 0,
            data_entries: 0,
            max_seq: Cell::new(Some(Seq::ZERO)),
        }
    }

    pub fn slot(&self, block: u32) -> Slot {
        let (page, at) = (block as usize / PAGE_SLOTS, block as usize % PAGE_SLOTS);
        self.pages.get(page).and_then(Option::as_ref).map_or(Slot::ABSENT, |p| p[at])
    }

    /// The entries from block `from` on that are not absent, in block order.
    pub fn slots(&self, from: u32) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let first_page = from as usize / PAGE_SLOTS;
        let pages = self.pages.iter().enumerate().skip(first_page);
        let present = pages.filter_map(|(n, p)| p.as_ref().map(|p| (n, p)));
        present
            .flat_map(|(n, p)| p.iter().enumerate().map(move |(i, s)| ((n * PAGE_SLOTS + i) as u32, *s)))
            .filter(move |(block, s)| *block >= from && s.place != Place::ABSENT)
    }

    pub fn meta(&self) -> ReplicaMeta {
        ReplicaMeta {
            volume: self.volume,
            chunk: self.chunk,
            replica: self.replica,
            config: self.config,
            adopted: self.adopted,
            damaged: self.damaged,
            digest: self.digest,
            entries: self.entries,
            data_entries: self.data_entries,
            max_seq: self.max_seq(),
            commit: self.commit,
        }
    }

    fn max_seq(&self) -> Seq {
        self.max_seq.get().unwrap_or_else(|| {
            let max = self.slots(0).map(|(_, s)| s.seq()).max().unwrap_or_default();
            self.max_seq.set(Some(max));
            max
        })
    }

    /// Replaces a block's entry and keeps digest, counts and ledger right.
    pub fn set(&mut self, block: u32, new: Slot, ledger: &mut impl Ledger) {
        let (page, at) = (block as usize / PAGE_SLOTS, block as usize % PAGE_SLOTS);
        if self.pages.len() <= page {
            self.pages.resize_with(if page == 0 { 1 } else { PAGES }, || None);
        }
        let slots = self.pages[page].get_or_insert_with(|| Box::new([Slot::ABSENT; PAGE_SLOTS]));
        let old = std::mem::replace(&mut slots[at], new);
        ledger.change(old.place, new.place);
        self.digest.remove(&old.entry(block));
        self.digest.add(&new.entry(block));
        let count = |n: &mut u32, was: bool, is: bool| *n = *n + u32::from(is) - u32::from(was);
        count(&mut self.entries, old.place != Place::ABSENT, new.place != Place::ABSENT);
        count(&mut self.data_entries, is_data(old), is_data(new));
        self.track_max(old.seq(), new.seq());
    }

    fn track_max(&self, old: Seq, new: Seq) {
        match self.max_seq.get() {
            Some(max) if new >= max => self.max_seq.set(Some(new)),
            Some(max) if old == max => self.max_seq.set(None),
            _ => {}
        }
    }

    fn write(&mut self, block: u32, new: Slot, ledger: &mut impl Ledger) {
        let old = self.slot(block);
        if new.seq() > old.seq() || same_data(&old, &new) {
            self.set(block, new, ledger);
        }
    }

    fn repair(&mut self, epoch: Epoch, block: u32, new: Slot, ledger: &mut impl Ledger) {
        let old = self.slot(block);
        let replaces = old.seq().epoch() < epoch && !crate::mutant!("repair merges older epochs");
        if replaces || new.seq() > old.seq() || same_data(&old, &new) || crate::mutant!("repair undoes newer writes") {
            self.set(block, new, ledger);
        }
    }

    /// Forgets all entries.
    fn clear(&mut self, ledger: &mut impl Ledger) {
        for (_, s) in self.slots(0) {
            ledger.change(s.place, Place::ABSENT);
        }
        self.pages = Vec::new();
    }
}

fn is_data(s: Slot) -> bool {
    s.place.kind() == BlockKind::Data
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
    fences: BTreeMap<VolumeId, Epoch>,
    data_entries: u64,
    entries: u64,
}

impl Index {
    pub fn fence(&self, volume: VolumeId) -> Epoch {
        self.fences.get(&volume).copied().unwrap_or_default()
    }

    pub fn fences(&self) -> impl Iterator<Item = (VolumeId, Epoch)> + '_ {
        self.fences.iter().map(|(v, e)| (*v, *e))
    }

    pub fn get(&self, chunk: ChunkId) -> Option<&Replica> {
        self.replicas.get(&chunk)
    }

    pub fn replicas(&self) -> impl Iterator<Item = &Replica> + '_ {
        self.replicas.values()
    }

    /// The first replica whose chunk is not below `from`.
    pub fn first_from(&self, from: ChunkId) -> Option<&Replica> {
        self.replicas.range(from..).next().map(|(_, r)| r)
    }

    pub fn of_volume(&self, volume: VolumeId) -> impl Iterator<Item = &Replica> + '_ {
        let range = (volume, ChunkId(0))..=(volume, ChunkId(u64::MAX));
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

    /// Blocks of the range that have no data yet: what a write of data would add.
    pub fn growth(&self, chunk: ChunkId, block: u32, count: u32) -> u32 {
        let Some(r) = self.replicas.get(&chunk) else { return count };
        (block..block + count).filter(|b| r.slot(*b).place.location().is_none()).count() as u32
    }

    pub fn set_fence(&mut self, volume: VolumeId, epoch: Epoch) {
        let fence = self.fences.entry(volume).or_default();
        *fence = epoch.max(*fence);
    }

    /// Puts a replica in, in place of one of the same chunk.
    pub fn insert(&mut self, replica: Replica, ledger: &mut impl Ledger) {
        self.remove(replica.chunk, ledger);
        replica.slots(0).for_each(|(_, s)| ledger.change(Place::ABSENT, s.place));
        self.by_volume.insert((replica.volume, replica.chunk));
        self.entries += u64::from(replica.entries);
        self.data_entries += u64::from(replica.data_entries);
        self.replicas.insert(replica.chunk, replica);
    }

    fn remove(&mut self, chunk: ChunkId, ledger: &mut impl Ledger) {
        if let Some(mut r) = self.replicas.remove(&chunk) {
            self.by_volume.remove(&(r.volume, chunk));
            self.entries -= u64::from(r.entries);
            self.data_entries -= u64::from(r.data_entries);
            r.clear(ledger);
        }
    }

    /// Marks replicas as possibly incomplete.
    pub fn mark_damaged(&mut self, is_suspect: impl Fn(&Replica) -> bool) {
        for r in self.replicas.values_mut().filter(|r| is_suspect(r)) {
            r.damaged = true;
            r.commit = Seq::ZERO;
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
            Record::Create { new, damaged } => self.create(new, *damaged, number, ledger),
            Record::Delete { chunk, replica } => {
                if self.replicas.get(chunk).is_some_and(|r| r.replica == *replica && r.birth < number) {
                    self.remove(*chunk, ledger);
                }
            }
            Record::Adopt { epoch, chunks } => {
                chunks.iter().for_each(|c| self.with(*c, number, |r| r.adopted = r.adopted.max(*epoch)));
            }
            Record::Fence { volume, epoch } => self.set_fence(*volume, *epoch),
            Record::Config { chunk, config } => {
                self.with(*chunk, number, |r| r.config = r.config.max(*config));
            }
            Record::ClearDamaged { chunk } => self.with(*chunk, number, |r| r.damaged = false),
            Record::Commit { points } => {
                for p in points {
                    self.with(p.chunk, number, |r| r_commit(r, p));
                }
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
        let (entries, data) = (r.entries, r.data_entries);
        change(r);
        self.entries = self.entries + u64::from(r.entries) - u64::from(entries);
        self.data_entries = self.data_entries + u64::from(r.data_entries) - u64::from(data);
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
        r.repair(epoch, e.block, slot, ledger);
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
    let old = r.slot(m.block);
    let same = old.place == Place(m.from) && (old.seq(), old.crc) == (m.seq, m.crc);
    if same || crate::mutant!("compaction puts old over new") {
        r.set(m.block, Slot { place: to, ..old }, ledger);
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
