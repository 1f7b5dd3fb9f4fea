//! The superblock: what a disk is, how it is divided, and whom it belongs to.
//!
//! Two copies, at 0 and 4 KiB, each one sector-atomic block with a CRC. An update writes and syncs
//! the first, then the second, so that one of them is always whole; the larger sequence number wins.

use super::error::FormatError;
use super::layout::{self, ShardGeometry};
use super::limits::*;
use crate::ports::Disk;
use levee_proto::{DiskId, NodeId};
use std::io;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the on-disk format that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"LEVEEDSK";
/// Where the copies are.
const COPIES: [u64; 2] = [0, BLOCK as u64];

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    segment_size: U32,
    disk_uuid: [u8; 16],
    cluster_uuid: [u8; 16],
    sequence: U64,
    size: U64,
    disk_id: U32,
    node_id: U32,
    segments: U32,
    shards: U16,
    reserved: [u8; 2],
    /// CRC-32C of the bytes before.
    crc: U32,
}
const _: () = assert!(size_of::<Raw>() == 84);

/// The geometry and identity of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Made when the disk was formatted; in every header of the log, so that bytes from an earlier
    /// life of the disk are never taken for its own.
    pub disk_uuid: [u8; 16],
    /// Zeros until a cluster adopted the disk.
    pub cluster_uuid: [u8; 16],
    /// 0 until a cluster adopted the disk.
    pub disk_id: DiskId,
    /// The node that the disk belongs to; 0 until adopted.
    pub node_id: NodeId,
    /// Bytes.
    pub size: u64,
    pub shards: u16,
    /// Bytes, a power of two.
    pub segment_size: u32,
    /// Segments of each shard.
    pub segments: u32,
    /// Counts the updates of the superblock.
    pub sequence: u64,
}

impl Superblock {
    /// Plans the layout of a disk of `size` bytes, a multiple of a block.
    pub fn plan(size: u64, shards: u16, disk_uuid: [u8; 16]) -> Result<Superblock, FormatError> {
        if size < MIN_DISK_SIZE {
            return Err(FormatError::TooSmall { size, min: MIN_DISK_SIZE });
        }
        let segment_size = (size / TARGET_SEGMENTS)
            .next_power_of_two()
            .clamp(u64::from(MIN_SEGMENT_SIZE), u64::from(MAX_SEGMENT_SIZE));
        let room = size - SHARDS_START;
        let most = (room / (ROOT_AREA + u64::from(MIN_SEGMENTS) * segment_size)).min(u64::from(MAX_SHARDS));
        if u64::from(shards) > most || shards == 0 {
            return Err(FormatError::TooManyShards { size, shards, most });
        }
        let segments = (room / u64::from(shards) - ROOT_AREA) / segment_size;
        if segments * segment_size > MAX_SHARD_BLOCKS * BLOCK as u64 {
            let needed = room.div_ceil(MAX_SHARD_BLOCKS * BLOCK as u64) + 1;
            return Err(FormatError::TooFewShards { shards, needed });
        }
        Ok(Self::with_layout(size, shards, disk_uuid, segment_size as u32, segments as u32))
    }

    /// A layout of the caller's choice, which may be smaller than [`Superblock::plan`] would make it: for tests.
    pub fn with_layout(size: u64, shards: u16, disk_uuid: [u8; 16], segment_size: u32, segments: u32) -> Superblock {
        Superblock {
            disk_uuid,
            cluster_uuid: [0; 16],
            disk_id: DiskId(0),
            node_id: NodeId(0),
            size,
            shards,
            segment_size,
            segments,
            sequence: 1,
        }
    }

    /// Where shard `shard` lives.
    pub fn shard(&self, shard: u16) -> Option<ShardGeometry> {
        (shard < self.shards).then(|| ShardGeometry {
            disk_uuid: self.disk_uuid,
            shard,
            start: SHARDS_START
                + u64::from(shard) * (ROOT_AREA + u64::from(self.segments) * u64::from(self.segment_size)),
            segment_size: self.segment_size,
            segments: self.segments,
        })
    }

    /// Whether a cluster has adopted the disk.
    pub fn is_claimed(&self) -> bool {
        self.cluster_uuid != [0; 16]
    }

    fn encode(&self) -> [u8; size_of::<Raw>()] {
        let mut raw = Raw {
            magic: MAGIC,
            version: FORMAT_VERSION.into(),
            segment_size: self.segment_size.into(),
            disk_uuid: self.disk_uuid,
            cluster_uuid: self.cluster_uuid,
            sequence: self.sequence.into(),
            size: self.size.into(),
            disk_id: self.disk_id.0.into(),
            node_id: self.node_id.0.into(),
            segments: self.segments.into(),
            shards: self.shards.into(),
            reserved: [0; 2],
            crc: 0.into(),
        };
        raw.crc = layout::crc_before_last_word(raw.as_bytes()).into();
        let mut out = [0; size_of::<Raw>()];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    fn decode(block: &[u8]) -> Result<Superblock, Flaw> {
        let damaged = Flaw { error: FormatError::Damaged, sealed: false };
        let Ok((raw, _)) = Raw::read_from_prefix(block) else { return Err(damaged) };
        if raw.magic != MAGIC {
            return Err(Flaw { error: FormatError::NotLevee, sealed: false });
        }
        let sealed = raw.crc.get() == layout::crc_before_last_word(raw.as_bytes());
        // Before the CRC: a newer version may have another layout.
        if raw.version.get() > FORMAT_VERSION {
            let error = FormatError::NewerVersion { found: raw.version.get(), supported: FORMAT_VERSION };
            return Err(Flaw { error, sealed });
        }
        if !sealed {
            return Err(damaged);
        }
        let sb = Superblock {
            disk_uuid: raw.disk_uuid,
            cluster_uuid: raw.cluster_uuid,
            disk_id: DiskId(raw.disk_id.get()),
            node_id: NodeId(raw.node_id.get()),
            size: raw.size.get(),
            shards: raw.shards.get(),
            segment_size: raw.segment_size.get(),
            segments: raw.segments.get(),
            sequence: raw.sequence.get(),
        };
        if sb.is_sound() { Ok(sb) } else { Err(damaged) }
    }

    /// Whether the shards lie within the disk and their numbers within what the code can count.
    fn is_sound(&self) -> bool {
        let shard = u64::from(self.segments).checked_mul(u64::from(self.segment_size));
        let end = shard.and_then(|s| (s + ROOT_AREA).checked_mul(u64::from(self.shards)));
        self.segment_size.is_power_of_two()
            && self.segment_size as usize >= 2 * (MAX_BATCH_DATA / 2 + MAX_BATCH_HEADER)
            && self.segment_size <= MAX_SEGMENT_SIZE
            && (MIN_SEGMENTS..=u32::MAX / 2).contains(&self.segments)
            && (1..=MAX_SHARDS).contains(&self.shards)
            && shard.is_some_and(|s| s / BLOCK as u64 <= MAX_SHARD_BLOCKS)
            && end.and_then(|e| e.checked_add(SHARDS_START)).is_some_and(|e| e <= self.size)
    }
}

fn io_error(what: &str) -> impl Fn(io::Error) -> FormatError + '_ {
    move |e| FormatError::Io(format!("{what} failed: {e}"))
}

/// Makes an empty Levee disk of `size` bytes. What was on it is lost.
///
/// The superblock comes last: a disk that was not formatted to the end is not a Levee disk.
pub async fn format<D: Disk>(disk: &D, size: u64, shards: u16, uuid: [u8; 16]) -> Result<Superblock, FormatError> {
    let size = size / BLOCK as u64 * BLOCK as u64;
    let sb = Superblock::plan(size, shards, uuid)?;
    format_as(disk, &sb).await?;
    Ok(sb)
}

/// As [`format`], with the layout given.
pub async fn format_as<D: Disk>(disk: &D, sb: &Superblock) -> Result<(), FormatError> {
    for pos in COPIES {
        layout::write_block(disk, pos, &[]).await.map_err(io_error("clearing the old superblock"))?;
    }
    disk.sync().await.map_err(io_error("clearing the old superblock"))?;
    for shard in 0..sb.shards {
        let geometry = sb.shard(shard).expect("within the count");
        super::root::format(disk, &geometry).await.map_err(io_error("writing the roots"))?;
    }
    disk.sync().await.map_err(io_error("writing the roots"))?;
    write_both(disk, sb).await.map_err(io_error("writing the superblock"))
}

async fn write_both<D: Disk>(disk: &D, sb: &Superblock) -> io::Result<()> {
    for pos in COPIES {
        write_copy(disk, pos, sb).await?;
    }
    Ok(())
}

async fn write_copy<D: Disk>(disk: &D, pos: u64, sb: &Superblock) -> io::Result<()> {
    layout::write_block(disk, pos, &sb.encode()).await?;
    disk.sync().await
}

/// Why a copy of the superblock is none.
struct Flaw {
    error: FormatError,
    /// Its CRC holds all the same, so that what it says was meant.
    sealed: bool,
}

impl Flaw {
    fn is_newer(&self) -> bool {
        matches!(self.error, FormatError::NewerVersion { .. })
    }
}

type Copies = [Result<Superblock, Flaw>; 2];

async fn read_copy<D: Disk>(disk: &D, pos: u64) -> Result<Superblock, Flaw> {
    match disk.read(pos, BLOCK).await {
        Ok(block) => Superblock::decode(&block),
        Err(e) => Err(Flaw { error: io_error("reading the superblock")(e), sealed: false }),
    }
}

async fn read_copies<D: Disk>(disk: &D) -> Copies {
    [read_copy(disk, COPIES[0]).await, read_copy(disk, COPIES[1]).await]
}

/// Of two whole copies the later counts; one is enough, unless the other one is surely of a newer version.
fn choose(copies: &Copies) -> Result<Superblock, FormatError> {
    match copies {
        [Ok(a), Ok(b)] => Ok(if b.sequence > a.sequence { b } else { a }.clone()),
        [Ok(_), Err(newer)] | [Err(newer), Ok(_)] if newer.is_newer() && newer.sealed => Err(newer.error.clone()),
        [Ok(sb), Err(_)] | [Err(_), Ok(sb)] => Ok(sb.clone()),
        [Err(newer), _] | [_, Err(newer)] if newer.is_newer() => Err(newer.error.clone()),
        [Err(Flaw { error: FormatError::NotLevee, .. }), Err(flaw)] | [Err(flaw), Err(_)] => Err(flaw.error.clone()),
    }
}

/// Reads what a disk is.
pub async fn read_superblock<D: Disk>(disk: &D) -> Result<Superblock, FormatError> {
    choose(&read_copies(disk).await)
}

/// A copy of the superblock that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCopy {
    /// Bytes from the start of the disk.
    pub pos: u64,
    pub why: String,
    /// Why it still is so, if it could not be written anew.
    pub stays: Option<String>,
}

/// Reads what a disk is, and writes the copy anew that is damaged, lost or behind: with one copy the disk is one bad block away from
/// being nobody's. Only its owner may do so.
pub async fn mend_superblock<D: Disk>(disk: &D) -> Result<(Superblock, Option<BadCopy>), FormatError> {
    let copies = read_copies(disk).await;
    let sb = choose(&copies)?;
    for (copy, pos) in copies.into_iter().zip(COPIES) {
        let why = match copy {
            Ok(copy) if copy == sb => continue,
            Ok(_) => "it is behind the other one".to_string(),
            Err(flaw) => flaw.error.to_string(),
        };
        let stays = write_copy(disk, pos, &sb).await.err().map(|e| e.to_string());
        return Ok((sb, Some(BadCopy { pos, why, stays })));
    }
    Ok((sb, None))
}

/// Records that a cluster owns the disk, and under which id. Repeating the same claim does nothing;
/// a disk of another cluster is refused.
pub async fn claim<D: Disk>(
    disk: &D,
    sb: &Superblock,
    cluster_uuid: [u8; 16],
    disk_id: DiskId,
    node_id: NodeId,
) -> Result<Superblock, FormatError> {
    if sb.is_claimed() && sb.cluster_uuid != cluster_uuid {
        return Err(FormatError::OtherCluster);
    }
    let claimed = Superblock { cluster_uuid, disk_id, node_id, sequence: sb.sequence + 1, ..sb.clone() };
    if (sb.cluster_uuid, sb.disk_id, sb.node_id) == (cluster_uuid, disk_id, node_id) {
        return Ok(sb.clone());
    }
    write_both(disk, &claimed).await.map_err(io_error("claiming the disk"))?;
    Ok(claimed)
}
