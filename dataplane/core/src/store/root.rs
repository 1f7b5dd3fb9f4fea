//! The root: which checkpoint holds, and where in the log replay starts.
//!
//! Two slots, written in turn, each with a sequence number and a CRC: while one is being written
//! the other still holds.

use super::layout::{ShardGeometry, crc_before_last_word, write_block};
use super::limits::*;
use crate::ports::Disk;
use std::io;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"LEVEEROT";
/// Most segments of one checkpoint: what a root can name.
pub const MAX_CHECKPOINT_SEGMENTS: usize = (BLOCK - FIXED_LEN) / 4;
const FIXED_LEN: usize = 100;
/// In the flags.
const LOG_GAP: u16 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    disk_uuid: [u8; 16],
    sequence: U64,
    checkpoint: U64,
    generation: U64,
    next_batch: U64,
    next_record: U64,
    checkpoint_len: U64,
    segment: U32,
    offset: U32,
    pieces: U32,
    first_entries: U32,
    segment_count: U32,
    shard: U16,
    flags: U16,
    /// CRC-32C of the bytes before and of the segment list.
    crc: U32,
}
const _: () = assert!(size_of::<Raw>() == FIXED_LEN);

/// A place in the log: the end of what is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    pub segment: u32,
    pub generation: u64,
    /// Bytes into the segment; 0: not even its header is written, and `segment` says nothing.
    pub offset: u32,
    pub next_batch: u64,
    pub next_record: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub sequence: u64,
    /// Number of the checkpoint; 0: the empty one of a fresh disk.
    pub checkpoint: u64,
    pub replay: LogPosition,
    pub pieces: u32,
    /// Pieces from this one on hold entries; those before, fences and the directory.
    pub first_entries: u32,
    pub checkpoint_len: u64,
    /// Replicas may have been forgotten: part of the log before was lost.
    pub log_gap: bool,
    pub segments: Vec<u32>,
}

impl Root {
    fn first() -> Root {
        let replay = LogPosition { segment: 0, generation: 1, offset: 0, next_batch: 1, next_record: 1 };
        Root {
            sequence: 1,
            checkpoint: 0,
            replay,
            pieces: 0,
            first_entries: 0,
            checkpoint_len: 0,
            log_gap: false,
            segments: Vec::new(),
        }
    }

    pub fn encode(&self, g: &ShardGeometry) -> Vec<u8> {
        assert!(self.segments.len() <= MAX_CHECKPOINT_SEGMENTS, "checkpoint has too many segments");
        let mut raw = Raw {
            magic: MAGIC,
            disk_uuid: g.disk_uuid,
            sequence: self.sequence.into(),
            checkpoint: self.checkpoint.into(),
            generation: self.replay.generation.into(),
            next_batch: self.replay.next_batch.into(),
            next_record: self.replay.next_record.into(),
            checkpoint_len: self.checkpoint_len.into(),
            segment: self.replay.segment.into(),
            offset: self.replay.offset.into(),
            pieces: self.pieces.into(),
            first_entries: self.first_entries.into(),
            segment_count: (self.segments.len() as u32).into(),
            shard: g.shard.into(),
            flags: if self.log_gap { LOG_GAP } else { 0 }.into(),
            crc: 0.into(),
        };
        let list: Vec<u8> = self.segments.iter().flat_map(|s| s.to_le_bytes()).collect();
        raw.crc = crc32c::crc32c_append(crc_before_last_word(raw.as_bytes()), &list).into();
        let mut out = raw.as_bytes().to_vec();
        out.extend_from_slice(&list);
        out
    }

    pub fn decode(g: &ShardGeometry, block: &[u8]) -> Option<Root> {
        let (raw, rest) = Raw::read_from_prefix(block).ok()?;
        let list = rest.get(..(raw.segment_count.get() as usize).checked_mul(4)?)?;
        let sound = raw.magic == MAGIC
            && raw.disk_uuid == g.disk_uuid
            && raw.shard.get() == g.shard
            && raw.crc.get() == crc32c::crc32c_append(crc_before_last_word(raw.as_bytes()), list);
        let segments: Vec<u32> = list.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let in_bounds = raw.segment.get() < g.segments
            && raw.offset.get() <= g.segment_size
            && (raw.offset.get() as usize).is_multiple_of(BLOCK)
            && segments.iter().all(|s| *s < g.segments);
        (sound && in_bounds).then(|| Root {
            sequence: raw.sequence.get(),
            checkpoint: raw.checkpoint.get(),
            replay: LogPosition {
                segment: raw.segment.get(),
                generation: raw.generation.get(),
                offset: raw.offset.get(),
                next_batch: raw.next_batch.get(),
                next_record: raw.next_record.get(),
            },
            pieces: raw.pieces.get(),
            first_entries: raw.first_entries.get(),
            checkpoint_len: raw.checkpoint_len.get(),
            log_gap: raw.flags.get() & LOG_GAP != 0,
            segments,
        })
    }

    /// Writes the root into its slot: the one that the newest root is not in.
    pub async fn write<D: Disk>(&self, disk: &D, g: &ShardGeometry) -> io::Result<()> {
        write_block(disk, g.root_pos((self.sequence % 2) as usize), &self.encode(g)).await
    }
}

/// Writes the root of an empty shard, and clears the other slot.
pub async fn format<D: Disk>(disk: &D, g: &ShardGeometry) -> io::Result<()> {
    write_block(disk, g.root_pos(0), &[]).await?;
    Root::first().write(disk, g).await
}

/// The valid roots, newest first.
pub async fn read_all<D: Disk>(disk: &D, g: &ShardGeometry) -> Vec<Root> {
    let mut roots = Vec::new();
    for slot in 0..2 {
        match disk.read(g.root_pos(slot), BLOCK).await {
            Ok(block) => roots.extend(Root::decode(g, &block)),
            Err(e) => tracing::warn!(shard = g.shard, slot, "reading a root failed: {e}"),
        }
    }
    roots.sort_by_key(|r| std::cmp::Reverse(r.sequence));
    roots
}
