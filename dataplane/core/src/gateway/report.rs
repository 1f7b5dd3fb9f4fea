//! What the gateway tells operators: how redundant the volume is, and what is being done about it.

use super::chunk::{Chunk, Stage};
use super::leaving::Leaving;
use super::member::{Member, Missing, Sync};
use super::{Cluster, Gateway, Health};
use crate::ports::Runtime;
use levee_proto::api::{ByteRange, ChunkReport, MAX_CHUNK_REPORTS, MAX_LOST_RANGES, MemberReport};
use levee_proto::{BLOCK_SIZE, DiskId};
use std::cell::Cell;

/// Counted since the volume was opened.
#[derive(Default)]
pub(super) struct Counters {
    pub copied_bytes: Cell<u64>,
    pub hedged_reads: Cell<u64>,
    pub evictions: Cell<u64>,
    pub scrubbed_blocks: Cell<u64>,
    pub scrub_passes: Cell<u64>,
    pub bad_blocks: Cell<u64>,
    /// Writes that wait for space right now.
    pub without_space: Cell<u64>,
}

/// Adds to a counter.
pub(super) fn count(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}

/// How a volume does.
#[derive(Clone, Debug, Default)]
pub struct GatewayReport {
    pub health: Health,
    /// Replicas that are to be put elsewhere.
    pub leaving_replicas: u32,
    /// Writes wait because disks are full.
    pub full: bool,
    /// Chunks that do not have all their copies, those with the fewest first; at most [`MAX_CHUNK_REPORTS`].
    pub degraded: Vec<ChunkReport>,
    /// What can be read on no copy any more, as far as it is known; at most [`MAX_LOST_RANGES`] ranges.
    pub lost: Vec<ByteRange>,
    /// Bytes copied to make members whole, since the volume was opened.
    pub copied_bytes: u64,
    /// Reads that were sent to a second copy because the first took long.
    pub hedged_reads: u64,
    /// Times that a disk was left behind for being slow.
    pub evictions: u64,
    /// Blocks that were read to find out whether they can be.
    pub scrubbed_blocks: u64,
    /// Times that all of the volume was scrubbed.
    pub scrub_passes: u64,
    /// Blocks found bad, by reading or scrubbing.
    pub bad_blocks: u64,
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// How the volume does.
    pub fn report(&self) -> GatewayReport {
        let counters = &self.0.counters;
        GatewayReport {
            health: self.health(),
            leaving_replicas: self.leaving_replicas() as u32,
            full: counters.without_space.get() > 0,
            degraded: self.degraded(),
            lost: self.lost_ranges(),
            copied_bytes: counters.copied_bytes.get(),
            hedged_reads: counters.hedged_reads.get(),
            evictions: counters.evictions.get(),
            scrubbed_blocks: counters.scrubbed_blocks.get(),
            scrub_passes: counters.scrub_passes.get(),
            bad_blocks: counters.bad_blocks.get(),
        }
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// The chunks that need it most. A node that is away concerns all chunks of a large volume: only those that are named are
    /// looked at closely.
    fn degraded(&self) -> Vec<ChunkReport> {
        let chunks = self.0.chunks.borrow();
        let degraded = chunks.iter().flatten().filter(|c| !c.is_new() && (!c.is_served() || self.is_short(c)));
        let mut worst: Vec<_> = degraded.map(|c| ((c.is_served(), c.current_members(), c.index), c)).collect();
        if worst.len() > MAX_CHUNK_REPORTS {
            worst.select_nth_unstable_by_key(MAX_CHUNK_REPORTS, |(key, _)| *key);
            worst.truncate(MAX_CHUNK_REPORTS);
        }
        worst.sort_unstable_by_key(|(key, _)| *key);
        let leaving = self.0.leaving.borrow();
        worst.iter().map(|(_, c)| c.report(self.0.volume.copies, &leaving, |disk| self.is_fenced(disk))).collect()
    }

    fn lost_ranges(&self) -> Vec<ByteRange> {
        let mut ranges: Vec<ByteRange> = vec![];
        for chunk in self.chunks() {
            for block in chunk.lost_blocks() {
                let offset = self.0.volume.geometry.address(chunk.index, block * BLOCK_SIZE as u32);
                if let Some(last) = ranges.last_mut().filter(|last| last.offset + last.length == offset) {
                    last.length += BLOCK_SIZE as u64;
                } else if ranges.len() < MAX_LOST_RANGES {
                    ranges.push(ByteRange { offset, length: BLOCK_SIZE as u64 });
                }
            }
        }
        ranges
    }

    fn is_fenced(&self, disk: DiskId) -> bool {
        self.0.sessions.borrow().get(&disk).is_some_and(|s| s.is_up())
    }
}

impl Chunk {
    /// Members that are up to date.
    pub fn current_members(&self) -> u8 {
        self.state.borrow().present().filter(|(_, m)| m.live && m.is_current()).count() as u8
    }

    fn report(&self, copies: u8, leaving: &Leaving, is_fenced: impl Fn(DiskId) -> bool) -> ChunkReport {
        let state = self.state.borrow();
        let in_doubt = |m: &Member| state.stage == Stage::InDoubt && is_fenced(m.place.disk);
        let behind = state.present().filter(|(_, m)| !(m.live && m.is_current())).map(|(_, m)| MemberReport {
            node: m.place.node,
            disk: m.place.disk,
            doing: match in_doubt(m) {
                true => "is there: waits until enough others are to tell what was written".into(),
                false => doing(m, leaving.is_dead(&m.place)),
            },
            missing_blocks: match &m.sync {
                Sync::Current => 0,
                Sync::Behind(missing) => missing.doubtful().len(),
            },
        });
        ChunkReport {
            index: self.index,
            current: self.current_members(),
            wanted: copies,
            served: self.is_served(),
            behind: behind.collect(),
        }
    }
}

/// What is being done about a member that is not up to date.
fn doing(m: &Member, is_dead: bool) -> String {
    match &m.sync {
        _ if is_dead => "its disk is dead: waits to be replaced".into(),
        Sync::Behind(Missing { create: true, .. }) => "waits to be made".into(),
        _ if !m.live => "its disk cannot be reached: waits for it, or for its replacement".into(),
        Sync::Current => "up to date".into(),
        Sync::Behind(Missing { compare: true, .. }) => "waits to be compared with another copy".into(),
        Sync::Behind(m) if !m.doubtful().is_empty() => format!("{} blocks are being copied to it", m.doubtful().len()),
        Sync::Behind(_) => "about to be up to date".to_string(),
    }
}
