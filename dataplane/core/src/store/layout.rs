//! Headers on the disk, and where a shard's parts are. See `docs/disk-format.md`.
//!
//! Every header names the disk and the shard and ends in a CRC-32C of the bytes before it.

use super::limits::*;
use crate::ports::Disk;
use std::io;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where a shard lives on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardGeometry {
    pub disk_uuid: [u8; 16],
    pub shard: u16,
    /// Bytes from the start of the disk.
    pub start: u64,
    pub segment_size: u32,
    pub segments: u32,
}

impl ShardGeometry {
    /// Position of root slot 0 or 1.
    pub fn root_pos(&self, slot: usize) -> u64 {
        self.start + slot as u64 * SECOND_ROOT
    }

    /// Position of a segment.
    pub fn segment_pos(&self, segment: u32) -> u64 {
        self.start + ROOT_AREA + u64::from(segment) * u64::from(self.segment_size)
    }

    /// Blocks in a segment, its header included.
    pub fn segment_blocks(&self) -> u32 {
        self.segment_size / BLOCK as u32
    }

    /// Number, within the shard, of the block at `offset` bytes in a segment.
    pub fn location(&self, segment: u32, offset: u32) -> u32 {
        segment * self.segment_blocks() + offset / BLOCK as u32
    }

    /// The segment that a block is in.
    pub fn segment_of(&self, location: u32) -> u32 {
        location / self.segment_blocks()
    }

    /// Position of a block on the disk.
    pub fn block_pos(&self, location: u32) -> u64 {
        self.start + ROOT_AREA + u64::from(location) * BLOCK as u64
    }

    /// Blocks of the shard.
    pub fn blocks(&self) -> u32 {
        self.segments * self.segment_blocks()
    }
}

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SegmentUse {
    Log = 1,
    Checkpoint = 2,
}

const SEGMENT_MAGIC: [u8; 8] = *b"LEVEESEG";
const BATCH_MAGIC: [u8; 4] = *b"LVBA";
const PIECE_MAGIC: [u8; 4] = *b"LVCP";

/// First block of every segment in use; the rest of the block is zeros.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    magic: [u8; 8],
    disk_uuid: [u8; 16],
    /// Of the log: strictly increasing. Of a checkpoint: its number.
    pub generation: U64,
    /// Batches of an earlier generation from this number on are void.
    pub first_batch: U64,
    shard: U16,
    usage: U16,
    crc: U32,
}
const _: () = assert!(size_of::<SegmentHeader>() == 48);

impl SegmentHeader {
    pub fn new(g: &ShardGeometry, usage: SegmentUse, generation: u64, first_batch: u64) -> SegmentHeader {
        let mut h = SegmentHeader {
            magic: SEGMENT_MAGIC,
            disk_uuid: g.disk_uuid,
            generation: generation.into(),
            first_batch: first_batch.into(),
            shard: g.shard.into(),
            usage: (usage as u16).into(),
            crc: 0.into(),
        };
        h.crc = crc_before_last_word(h.as_bytes()).into();
        h
    }

    /// The header in `block`, if it is one of this shard.
    pub fn parse(g: &ShardGeometry, block: &[u8]) -> Option<(SegmentUse, SegmentHeader)> {
        let (h, _) = SegmentHeader::read_from_prefix(block).ok()?;
        let usage = match h.usage.get() {
            1 => SegmentUse::Log,
            2 => SegmentUse::Checkpoint,
            _ => return None,
        };
        let sound = h.magic == SEGMENT_MAGIC
            && h.crc.get() == crc_before_last_word(h.as_bytes())
            && h.disk_uuid == g.disk_uuid
            && h.shard.get() == g.shard;
        sound.then_some((usage, h))
    }
}

/// Start of a batch; records follow, then zeros up to a block, then the data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    magic: [u8; 4],
    shard: U16,
    reserved: [u8; 2],
    disk_uuid: [u8; 16],
    /// Of the segment.
    pub generation: U64,
    /// Of the batch: one more than its predecessor's, across segments.
    pub number: U64,
    /// Number of the first record, likewise.
    pub first_record: U64,
    pub record_count: U32,
    pub record_len: U32,
    /// Bytes of data, whole blocks.
    pub data_len: U32,
    /// CRC-32C of the 60 bytes before and of the records.
    crc: U32,
}
const _: () = assert!(size_of::<BatchHeader>() == BATCH_HEADER_LEN);

/// Bytes of a [`BatchHeader`].
pub const BATCH_HEADER_LEN: usize = 64;

/// Which batch to write: its place in the log's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId {
    pub generation: u64,
    pub number: u64,
    pub first_record: u64,
}

impl BatchHeader {
    /// Writes the header for the records that are already in place after it.
    pub fn seal(g: &ShardGeometry, id: BatchId, record_count: u32, record_len: usize, data_len: usize, buf: &mut [u8]) {
        let mut h = BatchHeader {
            magic: BATCH_MAGIC,
            shard: g.shard.into(),
            reserved: [0; 2],
            disk_uuid: g.disk_uuid,
            generation: id.generation.into(),
            number: id.number.into(),
            first_record: id.first_record.into(),
            record_count: record_count.into(),
            record_len: (record_len as u32).into(),
            data_len: (data_len as u32).into(),
            crc: 0.into(),
        };
        h.crc = h.checksum(&buf[BATCH_HEADER_LEN..BATCH_HEADER_LEN + record_len]).into();
        buf[..BATCH_HEADER_LEN].copy_from_slice(h.as_bytes());
    }

    /// The fixed part, if `block` starts with one of this shard that fits `room` bytes. The CRC is
    /// not checked yet: the records may lie in later blocks.
    pub fn peek(g: &ShardGeometry, block: &[u8], room: usize) -> Option<BatchHeader> {
        let (h, _) = BatchHeader::read_from_prefix(block).ok()?;
        let data = h.data_len.get() as usize;
        let sound = h.magic == BATCH_MAGIC
            && h.disk_uuid == g.disk_uuid
            && h.shard.get() == g.shard
            && (h.record_len.get() as usize) <= MAX_BATCH_HEADER - BATCH_HEADER_LEN
            && data <= MAX_BATCH_DATA
            && data.is_multiple_of(BLOCK)
            && h.header_len() + data <= room;
        sound.then_some(h)
    }

    /// The records in `header` (`header_len()` bytes of it), if the CRC holds.
    pub fn records<'a>(&self, header: &'a [u8]) -> Option<&'a [u8]> {
        let records = header.get(BATCH_HEADER_LEN..BATCH_HEADER_LEN + self.record_len.get() as usize)?;
        (self.crc.get() == self.checksum(records)).then_some(records)
    }

    /// Bytes before the data.
    pub fn header_len(&self) -> usize {
        (BATCH_HEADER_LEN + self.record_len.get() as usize).next_multiple_of(BLOCK)
    }

    fn checksum(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc_before_last_word(self.as_bytes()), records)
    }
}

/// Start of a piece of a checkpoint; the payload follows, then zeros up to a block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PieceHeader {
    magic: [u8; 4],
    shard: U16,
    pub kind: U16,
    disk_uuid: [u8; 16],
    pub checkpoint: U64,
    /// Counts from 0.
    pub number: U32,
    pub payload_len: U32,
    /// CRC-32C of the 40 bytes before and of the payload.
    crc: U32,
}
const _: () = assert!(size_of::<PieceHeader>() == PIECE_HEADER_LEN);

/// Bytes of a [`PieceHeader`].
pub const PIECE_HEADER_LEN: usize = 44;

impl PieceHeader {
    /// Writes the header for the payload that is in place after it.
    pub fn seal(g: &ShardGeometry, checkpoint: u64, number: u32, kind: u16, payload_len: usize, buf: &mut [u8]) {
        let mut h = PieceHeader {
            magic: PIECE_MAGIC,
            shard: g.shard.into(),
            kind: kind.into(),
            disk_uuid: g.disk_uuid,
            checkpoint: checkpoint.into(),
            number: number.into(),
            payload_len: (payload_len as u32).into(),
            crc: 0.into(),
        };
        let payload = &buf[PIECE_HEADER_LEN..PIECE_HEADER_LEN + payload_len];
        h.crc = crc32c::crc32c_append(crc_before_last_word(h.as_bytes()), payload).into();
        buf[..PIECE_HEADER_LEN].copy_from_slice(h.as_bytes());
    }

    /// The fixed part, if `block` starts with a piece of this checkpoint that fits `room` bytes.
    pub fn peek(g: &ShardGeometry, checkpoint: u64, block: &[u8], room: usize) -> Option<PieceHeader> {
        let (h, _) = PieceHeader::read_from_prefix(block).ok()?;
        let sound = h.magic == PIECE_MAGIC
            && h.disk_uuid == g.disk_uuid
            && h.shard.get() == g.shard
            && h.checkpoint.get() == checkpoint
            && h.payload_len.get() as usize <= MAX_PIECE
            && h.len() <= room;
        sound.then_some(h)
    }

    /// The payload in `piece`, if the CRC holds.
    pub fn payload<'a>(&self, piece: &'a [u8]) -> Option<&'a [u8]> {
        let payload = piece.get(PIECE_HEADER_LEN..PIECE_HEADER_LEN + self.payload_len.get() as usize)?;
        let crc = crc32c::crc32c_append(crc_before_last_word(self.as_bytes()), payload);
        (self.crc.get() == crc).then_some(payload)
    }

    /// Bytes of the piece on the disk.
    pub fn len(&self) -> usize {
        (PIECE_HEADER_LEN + self.payload_len.get() as usize).next_multiple_of(BLOCK)
    }
}

/// CRC-32C of all but the last four bytes, which hold it.
pub fn crc_before_last_word(bytes: &[u8]) -> u32 {
    crc32c::crc32c(&bytes[..bytes.len() - 4])
}

/// Writes one block that starts with `bytes`; the rest is zeros.
pub async fn write_block<D: Disk>(disk: &D, pos: u64, bytes: &[u8]) -> io::Result<()> {
    let mut buf = disk.alloc(BLOCK);
    buf[..bytes.len()].copy_from_slice(bytes);
    buf[bytes.len()..].fill(0);
    disk.write(pos, buf).await
}
