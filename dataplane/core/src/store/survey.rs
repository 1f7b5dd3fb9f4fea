//! What lies where on a disk, found by looking: for tools that damage disks on purpose.

use super::layout::{BatchHeader, SegmentHeader, ShardGeometry};
use super::limits::*;
use super::record::Record;
use super::root::Root;
use super::superblock::Superblock;
use std::collections::BTreeMap;

/// What a part of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Superblock,
    Root,
    SegmentHeader,
    /// Header and records of a batch.
    BatchHeader,
    BatchData,
    /// Nothing that can be told by its beginning: pieces of checkpoints, and what is void.
    Other,
}

/// A part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes.
    pub pos: u64,
    pub len: usize,
    pub kind: Kind,
    /// Number of the batch, if it is of one.
    pub batch: u64,
    /// A replica came into being with this batch.
    pub creates: bool,
    /// Of the last two batches of a shard's log: without them it looks shorter, not damaged.
    pub tail: bool,
}

/// Surveys a disk of which the blocks at `used` are not zero. `read` gives its bytes.
pub fn survey(sb: &Superblock, used: &[u64], read: impl Fn(u64, usize) -> Vec<u8>) -> Vec<Part> {
    let mut all: Vec<Part> =
        used.iter().filter(|p| **p < 2 * BLOCK as u64).map(|p| part(*p, Kind::Superblock)).collect();
    for shard in (0..sb.shards).filter_map(|s| sb.shard(s)) {
        all.extend(survey_shard(&shard, used, &read));
    }
    all
}

fn part(pos: u64, kind: Kind) -> Part {
    Part { pos, len: BLOCK, kind, batch: 0, creates: false, tail: false }
}

fn survey_shard(g: &ShardGeometry, used: &[u64], read: &impl Fn(u64, usize) -> Vec<u8>) -> Vec<Part> {
    let (first, end) = (g.segment_pos(0), g.segment_pos(g.segments));
    let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
    for slot in 0..2 {
        let pos = g.root_pos(slot);
        if Root::decode(g, &read(pos, BLOCK)).is_some() {
            parts.insert(pos, part(pos, Kind::Root));
        }
    }
    let mut known_to = 0;
    for pos in used.iter().copied().filter(|p| (first..end).contains(p)) {
        if pos < known_to {
            continue;
        }
        let block = read(pos, BLOCK);
        let offset = (pos - first) % u64::from(g.segment_size);
        if offset == 0 && SegmentHeader::parse(g, &block).is_some() {
            parts.insert(pos, part(pos, Kind::SegmentHeader));
        } else if let Some(found) = batch(g, pos, &block, (u64::from(g.segment_size) - offset) as usize, read) {
            known_to = found.iter().map(|p| p.pos + p.len as u64).max().unwrap_or(0);
            parts.extend(found.into_iter().filter(|p| p.len > 0).map(|p| (p.pos, p)));
        } else {
            parts.insert(pos, part(pos, Kind::Other));
        }
    }
    let last = parts.values().map(|p| p.batch).max().unwrap_or(0);
    parts.into_values().map(|p| Part { tail: p.batch > 0 && p.batch + 1 >= last, ..p }).collect()
}

/// The two parts of a batch that begins here, if one does.
fn batch(
    g: &ShardGeometry,
    pos: u64,
    block: &[u8],
    room: usize,
    read: &impl Fn(u64, usize) -> Vec<u8>,
) -> Option<[Part; 2]> {
    let header = BatchHeader::peek(g, block, room)?;
    let (len, data_len) = (header.header_len(), header.data_len.get() as usize);
    let bytes = read(pos, len);
    let records = header.records(&bytes)?;
    let records = Record::decode_all(records, header.record_count.get(), (data_len / BLOCK) as u32)?;
    let creates = records.iter().any(|r| matches!(r, Record::Create { .. }));
    let of = Part { batch: header.number.get(), creates, ..part(pos, Kind::BatchHeader) };
    let data = Part { pos: pos + len as u64, len: data_len, kind: Kind::BatchData, ..of };
    Some([Part { len, ..of }, data])
}
