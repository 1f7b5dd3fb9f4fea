//! Checkpoints: the whole index on disk, so that replay is bounded and old log can be reused.
//!
//! Fuzzy: it is written in pieces while the log goes on. Each replica is taken at one moment, but
//! different replicas at different moments; replay starts at the position where the checkpoint
//! began, and applying is idempotent. It becomes valid when the root that names it is durable; until
//! then the previous one holds, in segments of its own.
//!
//! Pieces: the fences; a directory of all replicas, and their seals; then the entries, replica by replica. One that has
//! many entries is cut into parts, each taken at a moment of its own: entries do not depend on each other. The
//! directory repeats what stands before the entries, so that a bad piece of entries costs exactly
//! the replicas that it held, by name.

use super::index::{Index, Ledger, Place, Replica, Slot};
use super::layout::{PIECE_HEADER_LEN, PieceHeader, SegmentHeader, SegmentUse, write_block};
use super::limits::*;
use super::record::{NewReplica, Seal};
use super::root::{LogPosition, MAX_CHECKPOINT_SEGMENTS, Root};
use super::shard::Inner;
use crate::ports::{Disk, Runtime, is_no_space};
use levee_proto::wire::BlockKind;
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, ConfigNo, Epoch, Fence, ReplicaId, Seq, Version, VolumeId};
use std::io;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const FENCES: u16 = 1;
pub const DIRECTORY: u16 = 2;
pub const ENTRIES: u16 = 3;
pub const SEALS: u16 = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFence {
    volume: U64,
    fence: U32,
}

const DAMAGED: u32 = 1;
/// More of the replica's entries follow, in the same piece or the next.
const MORE_FOLLOWS: u32 = 2;
/// These entries follow others of the same replica.
const CONTINUES: u32 = 4;

/// Most entries in one part: those of a replica without snapshots are never cut.
const PART_ENTRIES: usize = BLOCKS_PER_CHUNK as usize;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawReplica {
    volume: U64,
    chunk: U64,
    replica: U64,
    /// Number of the record that created it.
    birth: U64,
    config: U32,
    adopted: U32,
    /// The commit point.
    commit: U64,
    flags: U32,
    /// Bytes of runs that follow; 0 in the directory.
    runs_len: U32,
}
const _: () = assert!(size_of::<RawReplica>() == 56);

/// What a replica is sealed up to.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSeal {
    chunk: U64,
    replica: U64,
    version: U32,
}

/// Blocks with one version and seq that lie one after the other, in the chunk and on the disk.
/// One CRC per block follows, if it has data.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRun {
    block: U16,
    count: U16,
    /// Of the first block; see [`Place`].
    place: U32,
    version: U32,
    seq: U64,
}
const _: () = assert!(size_of::<RawRun>() == 20);

/// How an attempt ended, if the disk did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NoRoom,
}

/// Where the next piece goes.
struct Writer {
    number: u64,
    segments: Vec<u32>,
    /// Those among them that were never written before.
    fresh: Vec<u32>,
    /// Into the last segment.
    offset: u32,
    pieces: u32,
    first_entries: u32,
    len: u64,
}

/// Writes a checkpoint and the root that makes it valid.
pub async fn write<D: Disk, R: Runtime>(inner: &Inner<D, R>) -> io::Result<Outcome> {
    let (position, number, log_bytes) = {
        let s = inner.state.borrow();
        (s.position(), s.checkpoint.number + 1, s.checkpoint.log_bytes)
    };
    let mut w =
        Writer { number, segments: Vec::new(), fresh: Vec::new(), offset: 0, pieces: 0, first_entries: 0, len: 0 };
    let outcome = match write_pieces(inner, &mut w).await {
        Err(e) if is_no_space(&e) => {
            inner.starve(&w.fresh, &e);
            Outcome::NoRoom
        }
        done => done?,
    };
    if outcome == Outcome::NoRoom {
        inner.state.borrow_mut().segments.release_checkpoint(&w.segments);
        return Ok(outcome);
    }
    if !crate::mutant!("checkpoint published before it is durable") {
        inner.disk.sync().await?;
    }
    crate::reached!("checkpoint written");
    if inner.state.borrow().failed.is_some() {
        // Another sync that failed may have been told of our writes, and this one not: they may not be there.
        return Err(io::Error::other("the shard has failed"));
    }
    write_root(inner, &w, position).await?;
    adopt(inner, w, position, log_bytes);
    Ok(Outcome::Done)
}

async fn write_pieces<D: Disk, R: Runtime>(inner: &Inner<D, R>, w: &mut Writer) -> io::Result<Outcome> {
    let small = {
        let s = inner.state.borrow();
        let fences = s
            .index
            .fences()
            .filter(|_| !crate::mutant!("fences left out of checkpoints"))
            .map(|(v, f)| RawFence { volume: v.0.into(), fence: f.0.into() });
        let directory = s.index.replicas().map(|r| raw_replica(r, 0, 0));
        let seals = s.index.replicas().filter(|r| r.sealed > Version(0)).map(raw_seal);
        [slices(FENCES, fences), slices(DIRECTORY, directory), slices(SEALS, seals)].concat()
    };
    for (kind, payload) in small {
        if w.piece(inner, kind, &payload).await? == Outcome::NoRoom {
            return Ok(Outcome::NoRoom);
        }
    }
    w.first_entries = w.pieces;
    let mut next = Cursor::default();
    loop {
        let (payload, after) = entries_piece(&inner.state.borrow().index, next);
        if w.piece(inner, ENTRIES, &payload).await? == Outcome::NoRoom {
            return Ok(Outcome::NoRoom);
        }
        match after {
            Some(cursor) => next = cursor,
            None => return Ok(Outcome::Done),
        }
    }
}

/// Packs records of fixed size into payloads.
fn slices<T: IntoBytes + Immutable>(kind: u16, items: impl Iterator<Item = T>) -> Vec<(u16, Vec<u8>)> {
    let mut out: Vec<(u16, Vec<u8>)> = Vec::new();
    for item in items {
        match out.last_mut() {
            Some((_, p)) if p.len() < PIECE_TARGET => p.extend_from_slice(item.as_bytes()),
            _ => out.push((kind, item.as_bytes().to_vec())),
        }
    }
    out
}

/// Where the entries go on.
#[derive(Clone, Copy, Default)]
struct Cursor {
    chunk: ChunkId,
    /// Within this replica of the chunk, if it is still there: the last entry that has been written.
    after: Option<(ReplicaId, u32, Version)>,
}

/// Replicas from a position on, and the position to go on with.
fn entries_piece(index: &Index, from: Cursor) -> (Vec<u8>, Option<Cursor>) {
    let mut payload = Vec::new();
    let mut next = from;
    while let Some(r) = index.first_from(next.chunk) {
        if payload.len() >= PIECE_TARGET {
            return (payload, Some(Cursor { chunk: r.chunk, ..next }));
        }
        let after = next.after.filter(|(replica, ..)| (r.chunk, r.replica) == (next.chunk, *replica));
        match encode_part(r, after.map(|(_, block, version)| (block, version)), &mut payload) {
            Some((block, version)) => next = Cursor { chunk: r.chunk, after: Some((r.replica, block, version)) },
            None => match r.chunk.0.checked_add(1) {
                Some(n) => next = Cursor { chunk: ChunkId(n), after: None },
                None => break,
            },
        }
    }
    (payload, None)
}

fn raw_replica(r: &Replica, flags: u32, runs_len: u32) -> RawReplica {
    RawReplica {
        volume: r.volume.0.into(),
        chunk: r.chunk.0.into(),
        replica: r.replica.0.into(),
        birth: r.birth.into(),
        config: r.config.0.into(),
        adopted: r.adopted.0.into(),
        commit: r.commit.0.into(),
        flags: (flags | if r.damaged { DAMAGED } else { 0 }).into(),
        runs_len: runs_len.into(),
    }
}

fn raw_seal(r: &Replica) -> RawSeal {
    RawSeal { chunk: r.chunk.0.into(), replica: r.replica.0.into(), version: r.sealed.0.into() }
}

/// A replica and its entries, or as many of those behind `after` as fit a part; the last of them if there are more.
pub fn encode_part(r: &Replica, after: Option<(u32, Version)>, out: &mut Vec<u8>) -> Option<(u32, Version)> {
    let (block, version) = after.unwrap_or((0, Version::MAX));
    let behind = |(b, s): &(u32, Slot)| after.is_none_or(|(block, version)| *b > block || s.version < version);
    let mut all = r.chains.all_from(block, version).filter(behind);
    let at = out.len();
    out.extend_from_slice(raw_replica(r, 0, 0).as_bytes());
    let mut last = None;
    if r.chains.has_older() {
        let mut part: Vec<(u32, Slot)> = all.by_ref().take(PART_ENTRIES).collect();
        last = part.last().filter(|_| all.next().is_some()).map(|(b, s)| (*b, s.version));
        // Neighbours are of one version.
        part.sort_by_key(|(block, s)| (s.version, *block));
        encode_runs(part.into_iter(), out);
    } else {
        encode_runs(all, out);
    }
    let runs_len = (out.len() - at - size_of::<RawReplica>()) as u32;
    let flags = if after.is_some() { CONTINUES } else { 0 } | if last.is_some() { MORE_FOLLOWS } else { 0 };
    out[at..at + size_of::<RawReplica>()].copy_from_slice(raw_replica(r, flags, runs_len).as_bytes());
    last
}

fn encode_runs(slots: impl Iterator<Item = (u32, Slot)>, out: &mut Vec<u8>) {
    let mut slots = slots.peekable();
    let mut crcs = Vec::new();
    while let Some((block, first)) = slots.next() {
        let has_data = first.place.kind() == BlockKind::Data;
        let mut count = 1;
        crcs.clear();
        crcs.push(first.crc);
        while let Some((_, s)) = slots.next_if(|(b, s)| *b == block + count && continues(&first, s, count)) {
            crcs.push(s.crc);
            count += 1;
        }
        let run = RawRun {
            block: (block as u16).into(),
            count: (count as u16).into(),
            place: first.place.0.into(),
            version: first.version.0.into(),
            seq: first.seq().0.into(),
        };
        out.extend_from_slice(run.as_bytes());
        if has_data {
            crcs.iter().for_each(|c| out.extend_from_slice(&c.to_le_bytes()));
        }
    }
}

fn continues(first: &Slot, s: &Slot, count: u32) -> bool {
    let place = match first.place.location() {
        Some(l) => Place(l + count),
        None => first.place,
    };
    (s.place, s.version, s.seq()) == (place, first.version, first.seq())
}

impl Writer {
    async fn piece<D: Disk, R: Runtime>(
        &mut self,
        inner: &Inner<D, R>,
        kind: u16,
        payload: &[u8],
    ) -> io::Result<Outcome> {
        let g = &inner.geometry;
        let len = (PIECE_HEADER_LEN + payload.len()).next_multiple_of(BLOCK);
        let full = self.segments.is_empty() || self.offset as usize + len > g.segment_size as usize;
        if full && self.begin_segment(inner).await? == Outcome::NoRoom {
            return Ok(Outcome::NoRoom);
        }
        let mut buf = inner.disk.alloc(len);
        buf[PIECE_HEADER_LEN..PIECE_HEADER_LEN + payload.len()].copy_from_slice(payload);
        buf[PIECE_HEADER_LEN + payload.len()..].fill(0);
        PieceHeader::seal(g, self.number, self.pieces, kind, payload.len(), &mut buf);
        let segment = self.segments[self.segments.len() - 1];
        inner.disk.write(g.segment_pos(segment) + u64::from(self.offset), buf).await?;
        self.offset += len as u32;
        self.pieces += 1;
        self.len += len as u64;
        Ok(Outcome::Done)
    }

    async fn begin_segment<D: Disk, R: Runtime>(&mut self, inner: &Inner<D, R>) -> io::Result<Outcome> {
        let segment = {
            let s = &mut *inner.state.borrow_mut();
            if self.segments.len() == MAX_CHECKPOINT_SEGMENTS {
                return Ok(Outcome::NoRoom);
            }
            // Speed does not matter here, so a segment that was never written need not be zeroed.
            if s.segments.free() == 0 {
                s.segments.drop_retained();
            }
            let Some((segment, fresh)) = s.segments.take_free() else { return Ok(Outcome::NoRoom) };
            s.segments.use_for_checkpoint(segment);
            self.fresh.extend(fresh.then_some(segment));
            segment
        };
        self.segments.push(segment);
        self.offset = BLOCK as u32;
        let header = SegmentHeader::new(&inner.geometry, SegmentUse::Checkpoint, self.number, 0);
        write_block(&inner.disk, inner.geometry.segment_pos(segment), header.as_bytes()).await?;
        Ok(Outcome::Done)
    }
}

async fn write_root<D: Disk, R: Runtime>(inner: &Inner<D, R>, w: &Writer, replay: LogPosition) -> io::Result<()> {
    let (sequence, log_gap) = {
        let s = inner.state.borrow();
        (s.checkpoint.root_sequence + 1, s.log_gap)
    };
    let root = Root {
        sequence,
        checkpoint: w.number,
        replay,
        pieces: w.pieces,
        first_entries: w.first_entries,
        checkpoint_len: w.len,
        log_gap,
        segments: w.segments.clone(),
    };
    root.write(&inner.disk, &inner.geometry).await?;
    inner.disk.sync().await
}

/// The new checkpoint is durable: the old one and the log before it are not needed any more.
fn adopt<D: Disk, R: Runtime>(inner: &Inner<D, R>, w: Writer, replay: LogPosition, log_bytes_before: u64) {
    let s = &mut *inner.state.borrow_mut();
    let c = &mut s.checkpoint;
    c.number = w.number;
    c.root_sequence += 1;
    c.len = w.len;
    c.log_bytes -= log_bytes_before;
    let old = std::mem::replace(&mut c.segments, w.segments);
    s.segments.set_replay_from(replay.generation, old);
}

/// Decodes a piece of fences; `None` if malformed.
pub fn decode_fences(payload: &[u8]) -> Option<Vec<(VolumeId, Fence)>> {
    let list = <[RawFence]>::ref_from_bytes(payload).ok()?;
    Some(list.iter().map(|f| (VolumeId(f.volume.get()), Fence(f.fence.get()))).collect())
}

/// Entries are counted when the replica is put into the index.
struct Unheard;

impl Ledger for Unheard {
    fn change(&mut self, _old: Place, _new: Place) {}
}

/// Decodes a piece of seals; `None` if malformed.
pub fn decode_seals(payload: &[u8]) -> Option<Vec<Seal>> {
    let list = <[RawSeal]>::ref_from_bytes(payload).ok()?;
    let seal = |s: &RawSeal| {
        let (chunk, replica) = (ChunkId(s.chunk.get()), ReplicaId(s.replica.get()));
        Seal { chunk, replica, version: Version(s.version.get()) }
    };
    Some(list.iter().map(seal).collect())
}

/// A replica, or some of its entries.
pub struct Part {
    pub replica: Replica,
    /// It follows another.
    pub continues: bool,
    /// Another follows.
    pub more_follows: bool,
}

/// Decodes a piece of the directory or of entries; `None` if malformed.
pub fn decode_replicas(mut payload: &[u8], blocks: u32) -> Option<Vec<Part>> {
    let mut out = Vec::new();
    while !payload.is_empty() {
        let (raw, rest) = RawReplica::read_from_prefix(payload).ok()?;
        let (runs, rest) = rest.split_at_checked(raw.runs_len.get() as usize)?;
        let new = NewReplica {
            volume: VolumeId(raw.volume.get()),
            chunk: ChunkId(raw.chunk.get()),
            replica: ReplicaId(raw.replica.get()),
            config: ConfigNo(raw.config.get()),
            adopted: Epoch(raw.adopted.get()),
        };
        let mut r = Replica::new(&new, raw.birth.get());
        r.damaged = raw.flags.get() & DAMAGED != 0;
        r.commit = Seq(raw.commit.get());
        decode_runs(&mut r, runs, blocks)?;
        let is = |flag| raw.flags.get() & flag != 0;
        out.push(Part { replica: r, continues: is(CONTINUES), more_follows: is(MORE_FOLLOWS) });
        payload = rest;
    }
    Some(out)
}

fn decode_runs(r: &mut Replica, mut runs: &[u8], blocks: u32) -> Option<()> {
    while !runs.is_empty() {
        let (run, rest) = RawRun::read_from_prefix(runs).ok()?;
        let (block, count) = (u32::from(run.block.get()), u32::from(run.count.get()));
        let place = Place(run.place.get());
        let has_data = place.kind() == BlockKind::Data;
        let (crcs, rest) = rest.split_at_checked(if has_data { count as usize * 4 } else { 0 })?;
        let located = place.location().is_none_or(|l| l.checked_add(count).is_some_and(|end| end <= blocks));
        (located && place != Place::ABSENT && block + count <= BLOCKS_PER_CHUNK).then_some(())?;
        for i in 0..count {
            let crc = crcs.get(i as usize * 4..).and_then(|c| c.first_chunk()).map_or(0, |w| u32::from_le_bytes(*w));
            let at = place.location().map_or(place, |l| Place(l + i));
            let slot = Slot::new(Version(run.version.get()), Seq(run.seq.get()), crc, at);
            r.chains.put(block + i, slot.version, slot, &mut Unheard);
        }
        runs = rest;
    }
    Some(())
}
