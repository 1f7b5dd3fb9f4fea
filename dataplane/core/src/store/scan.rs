//! What is at the start of every segment: the first thing recovery looks at.
//!
//! All segments are looked at, so that a segment that the checkpoint does not know of, and one that
//! is missing, are both noticed.

use super::layout::{BatchHeader, SegmentHeader, SegmentUse, ShardGeometry};
use super::limits::*;
use super::walk::Window;
use crate::ports::Disk;
use crate::sync::join_all;

/// Stands for what cannot be read.
const GARBAGE: u8 = 0xff;

/// What a segment seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Never written, or zeroed again.
    Zeros,
    Log {
        generation: u64,
        /// Batches of earlier generations from this number on are void.
        first_batch: u64,
    },
    Checkpoint(u64),
    /// Neither.
    Garbage,
    Unreadable,
}

/// Looks at every segment. `needed_from`: generations below are not looked for in damaged segments.
pub async fn scan<D: Disk>(disk: &D, g: &ShardGeometry, needed_from: u64) -> Vec<Found> {
    let mut found = Vec::with_capacity(g.segments as usize);
    for first in (0..g.segments).step_by(SCAN_PARALLEL) {
        let group = first..g.segments.min(first + SCAN_PARALLEL as u32);
        found.extend(join_all(group.map(|s| look_at(disk, g, s, needed_from))).await);
    }
    let headed = found.clone();
    for (segment, f) in found.iter_mut().enumerate() {
        if matches!(f, Found::Garbage | Found::Unreadable) {
            let inside = look_inside(disk, g, segment as u32, needed_from).await.unwrap_or(*f);
            // A batch that was put where it does not belong does not make a segment of what has a good one.
            let known = headed.iter().any(|h| generation(h).is_some_and(|g| Some(g) == generation(&inside)));
            if !known {
                *f = inside;
            }
        }
    }
    found
}

fn generation(found: &Found) -> Option<u64> {
    match found {
        Found::Log { generation, .. } => Some(*generation),
        _ => None,
    }
}

async fn look_at<D: Disk>(disk: &D, g: &ShardGeometry, segment: u32, needed_from: u64) -> Found {
    let Some(start) = first_blocks(disk, g.segment_pos(segment)).await else { return Found::Unreadable };
    match SegmentHeader::parse(g, &start) {
        // The header is that of an earlier use: a later one was lost, or put elsewhere.
        Some((usage, h)) if is_older(g, usage, &h, &start[BLOCK..], needed_from) => Found::Garbage,
        Some((SegmentUse::Log, h)) => Found::Log { generation: h.generation.get(), first_batch: h.first_batch.get() },
        Some((SegmentUse::Checkpoint, h)) => Found::Checkpoint(h.generation.get()),
        None if start.iter().all(|b| *b == 0) => Found::Zeros,
        None => Found::Garbage,
    }
}

/// The first two blocks: a header, and what was written together with it. One of them alone says enough: what cannot be read
/// of them is filled with what is neither a header nor nothing.
async fn first_blocks<D: Disk>(disk: &D, pos: u64) -> Option<Vec<u8>> {
    if let Ok(both) = disk.read(pos, 2 * BLOCK).await {
        return Some(both.to_vec());
    }
    let (first, second) = (disk.read(pos, BLOCK).await.ok(), disk.read(pos + BLOCK as u64, BLOCK).await.ok());
    if first.is_none() && second.is_none() {
        return None;
    }
    let or_garbage = |block: Option<D::ReadBuf>| block.map_or_else(|| vec![GARBAGE; BLOCK], |block| block.to_vec());
    Some([or_garbage(first), or_garbage(second)].concat())
}

/// Whether a batch of a later use of the segment follows.
fn is_older(g: &ShardGeometry, usage: SegmentUse, h: &SegmentHeader, next: &[u8], needed_from: u64) -> bool {
    let Some(batch) = BatchHeader::peek(g, next, g.segment_size as usize - BLOCK) else { return false };
    // The number of a checkpoint says nothing of generations.
    let later = usage == SegmentUse::Checkpoint || batch.generation.get() > h.generation.get();
    later && batch.generation.get() >= needed_from
}

/// The header is bad: torn with the first batch, or damaged later, in which case the batches after
/// it still say what the segment was. `None`: there are none.
async fn look_inside<D: Disk>(disk: &D, g: &ShardGeometry, segment: u32, needed_from: u64) -> Option<Found> {
    let mut window = Window::new(disk, g, segment);
    let (batch, _) = window.find(BLOCK as u32, |generation, _| generation >= needed_from).await?;
    Some(Found::Log { generation: batch.generation, first_batch: batch.number })
}
