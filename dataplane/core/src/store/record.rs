//! Records: what a batch says was done. Encoding, and decoding that trusts nothing.
//!
//! A record is `kind: u8, sub: u8, reserved: u16, len: u32` followed by `len` bytes. The data blocks
//! of a batch belong to its records in order: [`Record::data_blocks`] each.

use levee_proto::wire::{BlockEntry, BlockKind, Crcs};
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, ConfigNo, Epoch, Fence, ReplicaId, Seq, Version, VolumeId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A replica to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewReplica {
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub config: ConfigNo,
    pub adopted: Epoch,
}

/// A replica's commit point: every member of its chunk holds exactly the same entries up to `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub seq: Seq,
}

/// An entry that no view reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub block: u32,
    pub version: Version,
    pub seq: Seq,
}

/// A replica holds everything that was ever written at versions up to `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub version: Version,
}

/// A block that compaction copied: what it is, and where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub chunk: ChunkId,
    pub block: u32,
    pub version: Version,
    pub seq: Seq,
    pub crc: u32,
    /// Block number within the shard.
    pub from: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Write {
        chunk: ChunkId,
        kind: BlockKind,
        version: Version,
        seq: Seq,
        block: u32,
        count: u32,
        crcs: Crcs,
    },
    Repair {
        chunk: ChunkId,
        epoch: Epoch,
        entries: Vec<BlockEntry>,
    },
    /// Entries whose data is on no copy any more.
    Gone {
        chunk: ChunkId,
        epoch: Epoch,
        entries: Vec<BlockEntry>,
    },
    Create {
        new: NewReplica,
        /// It may have been here before, and forgotten: see [`super::Shard::has_log_gap`].
        damaged: bool,
    },
    Delete {
        chunk: ChunkId,
        replica: ReplicaId,
    },
    Adopt {
        epoch: Epoch,
        chunks: Vec<ChunkId>,
    },
    Fence {
        volume: VolumeId,
        fence: Fence,
    },
    Config {
        chunk: ChunkId,
        config: ConfigNo,
    },
    ClearDamaged {
        chunk: ChunkId,
    },
    Move {
        blocks: Vec<Moved>,
    },
    /// Blocks found corrupt by compaction: they are remembered as such and not copied.
    Lost {
        blocks: Vec<Moved>,
    },
    Commit {
        points: Vec<CommitPoint>,
    },
    /// Entries that are dropped.
    Prune {
        chunk: ChunkId,
        drops: Vec<Dropped>,
    },
    Seal {
        seals: Vec<Seal>,
    },
}

mod kind {
    pub const WRITE: u8 = 1;
    pub const REPAIR: u8 = 2;
    pub const CREATE: u8 = 3;
    pub const DELETE: u8 = 4;
    pub const ADOPT: u8 = 5;
    pub const FENCE: u8 = 6;
    pub const CONFIG: u8 = 7;
    pub const CLEAR_DAMAGED: u8 = 8;
    pub const MOVE: u8 = 9;
    pub const LOST: u8 = 10;
    pub const COMMIT: u8 = 11;
    pub const PRUNE: u8 = 12;
    pub const SEAL: u8 = 13;
    pub const GONE: u8 = 14;
}

/// `sub` of a Create record.
const BORN_DAMAGED: u8 = 1;

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $size:expr, { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        struct $name { $($field: $ty),* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

layout!(Head, 8, { kind: u8, sub: u8, reserved: [u8; 2], len: U32 });
layout!(
    /// Followed by one CRC per block if `sub` of the head says Data.
    RawWrite, 28, { chunk: U64, seq: U64, version: U32, block: U32, count: U32 }
);
layout!(RawRepair, 16, { chunk: U64, epoch: U32, count: U32 });
layout!(RawEntry, 24, { seq: U64, version: U32, crc: U32, block: U32, kind: U32 });
layout!(RawCreate, 32, { volume: U64, chunk: U64, replica: U64, config: U32, adopted: U32 });
layout!(RawDelete, 16, { chunk: U64, replica: U64 });
layout!(RawAdopt, 8, { epoch: U32, count: U32 });
layout!(RawFence, 12, { volume: U64, fence: U32 });
layout!(RawConfig, 12, { chunk: U64, config: U32 });
layout!(RawPoint, 24, { chunk: U64, replica: U64, seq: U64 });
layout!(RawPrune, 16, { chunk: U64, count: U32, reserved: U32 });
layout!(RawDropped, 16, { seq: U64, version: U32, block: U32 });
layout!(RawSeal, 20, { chunk: U64, replica: U64, version: U32 });
layout!(RawMoved, 32, { chunk: U64, seq: U64, version: U32, crc: U32, block: U32, from: U32 });

impl From<&BlockEntry> for RawEntry {
    fn from(e: &BlockEntry) -> RawEntry {
        RawEntry {
            seq: e.seq.0.into(),
            version: e.version.0.into(),
            crc: e.crc.into(),
            block: e.block.into(),
            kind: u32::from(e.kind as u8).into(),
        }
    }
}

impl RawEntry {
    fn checked(&self) -> Option<BlockEntry> {
        let kind = BlockKind::from_code(u8::try_from(self.kind.get()).ok()?)?;
        let (block, version, seq) = (self.block.get(), Version(self.version.get()), Seq(self.seq.get()));
        (block < BLOCKS_PER_CHUNK).then_some(BlockEntry { block, kind, version, seq, crc: self.crc.get() })
    }
}

impl From<&Moved> for RawMoved {
    fn from(m: &Moved) -> RawMoved {
        RawMoved {
            chunk: m.chunk.0.into(),
            seq: m.seq.0.into(),
            version: m.version.0.into(),
            crc: m.crc.into(),
            block: m.block.into(),
            from: m.from.into(),
        }
    }
}

impl RawMoved {
    fn checked(&self) -> Option<Moved> {
        (self.block.get() < BLOCKS_PER_CHUNK).then(|| Moved {
            chunk: ChunkId(self.chunk.get()),
            block: self.block.get(),
            version: Version(self.version.get()),
            seq: Seq(self.seq.get()),
            crc: self.crc.get(),
            from: self.from.get(),
        })
    }
}

impl From<&CommitPoint> for RawPoint {
    fn from(p: &CommitPoint) -> RawPoint {
        RawPoint { chunk: p.chunk.0.into(), replica: p.replica.0.into(), seq: p.seq.0.into() }
    }
}

impl RawPoint {
    fn point(&self) -> CommitPoint {
        let (chunk, replica) = (ChunkId(self.chunk.get()), ReplicaId(self.replica.get()));
        CommitPoint { chunk, replica, seq: Seq(self.seq.get()) }
    }
}

impl From<&Dropped> for RawDropped {
    fn from(d: &Dropped) -> RawDropped {
        RawDropped { seq: d.seq.0.into(), version: d.version.0.into(), block: d.block.into() }
    }
}

impl RawDropped {
    fn checked(&self) -> Option<Dropped> {
        let (block, version, seq) = (self.block.get(), Version(self.version.get()), Seq(self.seq.get()));
        (block < BLOCKS_PER_CHUNK).then_some(Dropped { block, version, seq })
    }
}

impl From<&Seal> for RawSeal {
    fn from(s: &Seal) -> RawSeal {
        RawSeal { chunk: s.chunk.0.into(), replica: s.replica.0.into(), version: s.version.0.into() }
    }
}

impl RawSeal {
    fn seal(&self) -> Seal {
        let (chunk, replica) = (ChunkId(self.chunk.get()), ReplicaId(self.replica.get()));
        Seal { chunk, replica, version: Version(self.version.get()) }
    }
}

fn all<T, U>(raw: &[T], check: impl Fn(&T) -> Option<U>) -> Option<Vec<U>> {
    raw.iter().map(check).collect()
}

impl Record {
    /// Blocks of data that belong to the record.
    pub fn data_blocks(&self) -> u32 {
        match self {
            Record::Write { kind: BlockKind::Data, count, .. } => *count,
            Record::Repair { entries, .. } => entries.iter().filter(|e| e.kind == BlockKind::Data).count() as u32,
            Record::Move { blocks } => blocks.len() as u32,
            _ => 0,
        }
    }

    /// The checksums of its data blocks, in order.
    pub fn data_crcs(&self, mut each: impl FnMut(u32)) {
        match self {
            Record::Write { kind: BlockKind::Data, crcs, .. } => crcs.iter().for_each(each),
            Record::Repair { entries, .. } => {
                entries.iter().filter(|e| e.kind == BlockKind::Data).for_each(|e| each(e.crc));
            }
            Record::Move { blocks } => blocks.iter().for_each(|m| each(m.crc)),
            _ => {}
        }
    }

    /// Bytes of the encoded record.
    pub fn encoded_len(&self) -> usize {
        size_of::<Head>()
            + match self {
                Record::Write { crcs, .. } => size_of::<RawWrite>() + crcs.as_le_bytes().len(),
                Record::Repair { entries, .. } | Record::Gone { entries, .. } => {
                    size_of::<RawRepair>() + entries.len() * size_of::<RawEntry>()
                }
                Record::Create { .. } => size_of::<RawCreate>(),
                Record::Delete { .. } => size_of::<RawDelete>(),
                Record::Adopt { chunks, .. } => size_of::<RawAdopt>() + chunks.len() * 8,
                Record::Fence { .. } => size_of::<RawFence>(),
                Record::Config { .. } => size_of::<RawConfig>(),
                Record::ClearDamaged { .. } => 8,
                Record::Move { blocks } | Record::Lost { blocks } => blocks.len() * size_of::<RawMoved>(),
                Record::Commit { points } => points.len() * size_of::<RawPoint>(),
                Record::Prune { drops, .. } => size_of::<RawPrune>() + drops.len() * size_of::<RawDropped>(),
                Record::Seal { seals } => seals.len() * size_of::<RawSeal>(),
            }
    }

    fn kind(&self) -> (u8, u8) {
        match self {
            Record::Write { kind, .. } => (kind::WRITE, *kind as u8),
            Record::Repair { .. } => (kind::REPAIR, 0),
            Record::Gone { .. } => (kind::GONE, 0),
            Record::Create { damaged, .. } => (kind::CREATE, if *damaged { BORN_DAMAGED } else { 0 }),
            Record::Delete { .. } => (kind::DELETE, 0),
            Record::Adopt { .. } => (kind::ADOPT, 0),
            Record::Fence { .. } => (kind::FENCE, 0),
            Record::Config { .. } => (kind::CONFIG, 0),
            Record::ClearDamaged { .. } => (kind::CLEAR_DAMAGED, 0),
            Record::Move { .. } => (kind::MOVE, 0),
            Record::Lost { .. } => (kind::LOST, 0),
            Record::Commit { .. } => (kind::COMMIT, 0),
            Record::Prune { .. } => (kind::PRUNE, 0),
            Record::Seal { .. } => (kind::SEAL, 0),
        }
    }

    /// Writes the record to the front of `out` and returns what is left of it.
    pub fn encode<'a>(&self, out: &'a mut [u8]) -> &'a mut [u8] {
        let (kind, sub) = self.kind();
        let len = (self.encoded_len() - size_of::<Head>()) as u32;
        let mut o = Out(out);
        o.put(&Head { kind, sub, reserved: [0; 2], len: len.into() });
        self.encode_body(&mut o);
        o.0
    }

    fn encode_body(&self, o: &mut Out) {
        match self {
            Record::Write { chunk, version, seq, block, count, crcs, .. } => {
                let (chunk, seq) = (chunk.0.into(), seq.0.into());
                let (version, block, count) = (version.0.into(), (*block).into(), (*count).into());
                o.put(&RawWrite { chunk, seq, version, block, count });
                o.bytes(crcs.as_le_bytes());
            }
            Record::Repair { chunk, epoch, entries } | Record::Gone { chunk, epoch, entries } => {
                let count = (entries.len() as u32).into();
                o.put(&RawRepair { chunk: chunk.0.into(), epoch: epoch.0.into(), count });
                entries.iter().for_each(|e| o.put(&RawEntry::from(e)));
            }
            Record::Create { new: n, .. } => o.put(&RawCreate {
                volume: n.volume.0.into(),
                chunk: n.chunk.0.into(),
                replica: n.replica.0.into(),
                config: n.config.0.into(),
                adopted: n.adopted.0.into(),
            }),
            Record::Delete { chunk, replica } => {
                o.put(&RawDelete { chunk: chunk.0.into(), replica: replica.0.into() });
            }
            Record::Adopt { epoch, chunks } => {
                o.put(&RawAdopt { epoch: epoch.0.into(), count: (chunks.len() as u32).into() });
                chunks.iter().for_each(|c| o.put(&U64::new(c.0)));
            }
            Record::Fence { volume, fence } => o.put(&RawFence { volume: volume.0.into(), fence: fence.0.into() }),
            Record::Config { chunk, config } => o.put(&RawConfig { chunk: chunk.0.into(), config: config.0.into() }),
            Record::ClearDamaged { chunk } => o.put(&U64::new(chunk.0)),
            Record::Move { blocks } | Record::Lost { blocks } => {
                blocks.iter().for_each(|m| o.put(&RawMoved::from(m)));
            }
            Record::Commit { points } => points.iter().for_each(|p| o.put(&RawPoint::from(p))),
            Record::Prune { chunk, drops } => {
                let count = (drops.len() as u32).into();
                o.put(&RawPrune { chunk: chunk.0.into(), count, reserved: 0.into() });
                drops.iter().for_each(|d| o.put(&RawDropped::from(d)));
            }
            Record::Seal { seals } => seals.iter().for_each(|s| o.put(&RawSeal::from(s))),
        }
    }

    /// Takes one record off the front of `bytes`; `None` if it is not well-formed.
    pub fn decode(bytes: &mut &[u8]) -> Option<Record> {
        let (head, rest) = Head::read_from_prefix(bytes).ok()?;
        let (body, rest) = rest.split_at_checked(head.len.get() as usize)?;
        *bytes = rest;
        match head.kind {
            kind::WRITE => Self::decode_write(BlockKind::from_code(head.sub)?, body),
            kind::REPAIR => {
                let (chunk, epoch, entries) = Self::decode_entries(body)?;
                Some(Record::Repair { chunk, epoch, entries })
            }
            kind::GONE => {
                let (chunk, epoch, entries) = Self::decode_entries(body)?;
                entries.iter().all(|e| e.kind == BlockKind::Data).then_some(Record::Gone { chunk, epoch, entries })
            }
            kind::ADOPT => {
                let (a, chunks) = RawAdopt::ref_from_prefix(body).ok()?;
                let chunks = <[U64]>::ref_from_bytes(chunks).ok()?;
                (chunks.len() == a.count.get() as usize).then_some(())?;
                let chunks = chunks.iter().map(|c| ChunkId(c.get())).collect();
                Some(Record::Adopt { epoch: Epoch(a.epoch.get()), chunks })
            }
            kind::MOVE => Some(Record::Move { blocks: Self::decode_moved(body)? }),
            kind::LOST => Some(Record::Lost { blocks: Self::decode_moved(body)? }),
            kind::COMMIT => {
                let points = <[RawPoint]>::ref_from_bytes(body).ok()?;
                Some(Record::Commit { points: points.iter().map(RawPoint::point).collect() })
            }
            kind::PRUNE => {
                let (p, drops) = RawPrune::ref_from_prefix(body).ok()?;
                let drops = <[RawDropped]>::ref_from_bytes(drops).ok()?;
                (drops.len() == p.count.get() as usize).then_some(())?;
                Some(Record::Prune { chunk: ChunkId(p.chunk.get()), drops: all(drops, RawDropped::checked)? })
            }
            kind::SEAL => {
                let seals = <[RawSeal]>::ref_from_bytes(body).ok()?;
                Some(Record::Seal { seals: seals.iter().map(RawSeal::seal).collect() })
            }
            other => Self::decode_small(other, head.sub, body),
        }
    }

    fn decode_entries(body: &[u8]) -> Option<(ChunkId, Epoch, Vec<BlockEntry>)> {
        let (r, entries) = RawRepair::ref_from_prefix(body).ok()?;
        let entries = <[RawEntry]>::ref_from_bytes(entries).ok()?;
        (entries.len() == r.count.get() as usize).then_some(())?;
        Some((ChunkId(r.chunk.get()), Epoch(r.epoch.get()), all(entries, RawEntry::checked)?))
    }

    fn decode_moved(body: &[u8]) -> Option<Vec<Moved>> {
        all(<[RawMoved]>::ref_from_bytes(body).ok()?, RawMoved::checked)
    }

    fn decode_small(kind: u8, sub: u8, body: &[u8]) -> Option<Record> {
        Some(match kind {
            kind::CREATE => {
                let c = RawCreate::ref_from_bytes(body).ok()?;
                let new = NewReplica {
                    volume: VolumeId(c.volume.get()),
                    chunk: ChunkId(c.chunk.get()),
                    replica: ReplicaId(c.replica.get()),
                    config: ConfigNo(c.config.get()),
                    adopted: Epoch(c.adopted.get()),
                };
                (sub <= BORN_DAMAGED).then_some(Record::Create { new, damaged: sub == BORN_DAMAGED })?
            }
            kind::DELETE => {
                let d = RawDelete::ref_from_bytes(body).ok()?;
                Record::Delete { chunk: ChunkId(d.chunk.get()), replica: ReplicaId(d.replica.get()) }
            }
            kind::FENCE => {
                let f = RawFence::ref_from_bytes(body).ok()?;
                Record::Fence { volume: VolumeId(f.volume.get()), fence: Fence(f.fence.get()) }
            }
            kind::CONFIG => {
                let c = RawConfig::ref_from_bytes(body).ok()?;
                Record::Config { chunk: ChunkId(c.chunk.get()), config: ConfigNo(c.config.get()) }
            }
            kind::CLEAR_DAMAGED => Record::ClearDamaged { chunk: ChunkId(U64::ref_from_bytes(body).ok()?.get()) },
            _ => return None,
        })
    }

    fn decode_write(kind: BlockKind, body: &[u8]) -> Option<Record> {
        let (w, crcs) = RawWrite::ref_from_prefix(body).ok()?;
        let (block, count) = (w.block.get(), w.count.get());
        let blocks = match kind {
            BlockKind::Data => count as usize,
            BlockKind::Zero => 0,
            BlockKind::Absent => return None,
        };
        let in_chunk = count > 0 && block.checked_add(count).is_some_and(|end| end <= BLOCKS_PER_CHUNK);
        (in_chunk && crcs.len() == blocks * 4).then_some(())?;
        let (chunk, version, seq) = (ChunkId(w.chunk.get()), Version(w.version.get()), Seq(w.seq.get()));
        let crcs = Crcs::from_le_bytes(bytes::Bytes::copy_from_slice(crcs))?;
        Some(Record::Write { chunk, kind, version, seq, block, count, crcs })
    }

    /// Decodes all records of a batch; `None` if any is malformed or they do not match the header.
    pub fn decode_all(mut bytes: &[u8], count: u32, data_blocks: u32) -> Option<Vec<Record>> {
        let mut records = Vec::with_capacity((count as usize).min(bytes.len() / size_of::<Head>()));
        while !bytes.is_empty() {
            records.push(Record::decode(&mut bytes)?);
        }
        let blocks = records.iter().map(|r| u64::from(r.data_blocks())).sum::<u64>();
        (records.len() == count as usize && blocks == u64::from(data_blocks)).then_some(records)
    }
}

/// Fills a slice from the front.
struct Out<'a>(&'a mut [u8]);

impl Out<'_> {
    fn put(&mut self, value: &(impl IntoBytes + Immutable)) {
        self.bytes(value.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (head, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.0 = rest;
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
