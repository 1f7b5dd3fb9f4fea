//! The state of a shard, and the decisions about space. No I/O.

use super::error::StoreError;
use super::index::Index;
use super::layout::ShardGeometry;
use super::limits::*;
use super::queue::Queue;
use super::root::LogPosition;
use super::segments::SegmentTable;
use super::unreadable::Unreadable;
use std::time::Duration;

/// The segment that batches are appended to.
#[derive(Clone, Copy, Debug)]
pub struct OpenSegment {
    pub segment: u32,
    pub generation: u64,
    /// Bytes durable in it; 0: its header goes with the first batch.
    pub offset: u32,
    /// Opened from the reserve: for compaction alone, unless space is found.
    pub reserved: bool,
}

/// What is known of the durable checkpoint, and of requests for another.
#[derive(Clone, Debug, Default)]
pub struct CheckpointState {
    pub number: u64,
    pub root_sequence: u64,
    pub segments: Vec<u32>,
    pub len: u64,
    /// Log written since its replay position.
    pub log_bytes: u64,
    /// Counts who asked for one.
    pub requested: u64,
    /// The last request that has been served.
    pub served: u64,
    /// There was no room for the last attempt.
    pub no_room: bool,
}

pub struct State {
    pub geometry: ShardGeometry,
    pub index: Index,
    pub segments: SegmentTable,
    pub foreground: Queue,
    pub moves: Queue,
    pub open: Option<OpenSegment>,
    pub next_generation: u64,
    pub next_batch: u64,
    pub next_record: u64,
    pub checkpoint: CheckpointState,
    pub unreadable: Unreadable,
    /// What lies below the disk may run out of room.
    pub thin: bool,
    /// While there is no room below the disk: when to look again.
    pub zero_again_at: Duration,
    /// Replicas may have been forgotten: part of the log was lost, now or earlier.
    pub log_gap: bool,
    pub failed: Option<StoreError>,
    /// No new requests.
    pub closing: bool,
    /// Tasks end.
    pub stopping: bool,
}

/// Bytes that a checkpoint takes per entry with data, when no two entries make a run.
const BYTES_PER_ENTRY: u64 = 24;
/// The same for zeros, which come in runs.
const BYTES_PER_ZERO: u64 = 3;
/// Replicas are written twice, and what they are sealed up to; see the checkpoint.
const BYTES_PER_REPLICA: u64 = 2 * 56 + 20;
const BYTES_PER_FENCE: u64 = 12;

impl State {
    /// The end of what is applied: where replay of a checkpoint begun now would start.
    pub fn position(&self) -> LogPosition {
        let (segment, generation, offset) = match self.open {
            Some(o) => (o.segment, o.generation, o.offset),
            None => (0, self.next_generation, 0),
        };
        LogPosition { segment, generation, offset, next_batch: self.next_batch, next_record: self.next_record }
    }

    /// Segments that a checkpoint of the whole index needs, generously.
    pub fn checkpoint_need(&self) -> u32 {
        let (data, zero) = self.index.entry_counts();
        let len = data * BYTES_PER_ENTRY
            + zero * BYTES_PER_ZERO
            + self.index.replica_count() as u64 * BYTES_PER_REPLICA
            + self.index.fence_count() as u64 * BYTES_PER_FENCE;
        let len = (len + len / 8).max(self.checkpoint.len);
        1 + len.div_ceil(u64::from(self.geometry.segment_size) - MAX_PIECE as u64) as u32
    }

    /// Free segments that only compaction and checkpoints may use.
    pub fn reserve(&self) -> u32 {
        self.checkpoint_need() + self.segments.move_reserve()
    }

    /// Whether one more segment should be made ready. Where there may be no room below the disk some day, so many are that the
    /// shard could do with those that it has: as a shard that is full, it goes on and can be emptied.
    pub fn wants_ready(&self) -> bool {
        let (one, promised) =
            (u64::from(self.segments.blocks()), self.segments.live_blocks() + self.foreground.growth());
        let enough = || self.segments.usable_of(self.segments.allocated(), self.checkpoint_need());
        self.segments.ready() < READY_SEGMENTS || (self.thin && promised > 0 && enough() < promised + one)
    }

    /// Whether to write segments for the first time, as far as is known of the room for them.
    pub fn may_zero(&self, now: Duration) -> bool {
        !self.segments.is_starved() || now >= self.zero_again_at
    }

    /// Whether foreground requests may open a segment.
    pub fn foreground_may_open(&self) -> bool {
        self.segments.free() > self.reserve()
    }

    /// Whether compaction may open a segment.
    pub fn moves_may_open(&self) -> bool {
        self.segments.free() > self.checkpoint_need()
    }

    /// Compaction waits for room that only a checkpoint can make.
    pub fn moves_are_stuck(&self) -> bool {
        let room = self.open.map_or(0, |o| (self.geometry.segment_size - o.offset) as usize);
        !self.moves.is_empty() && !self.moves_may_open() && room < MAX_MOVE_BLOCKS * BLOCK + 4 * BLOCK
    }

    /// Whether somebody who waits may have a segment opened.
    pub fn may_open(&self) -> bool {
        (!self.foreground.is_empty() && self.foreground_may_open()) || (!self.moves.is_empty() && self.moves_may_open())
    }

    /// Blocks that may be live.
    pub fn usable_blocks(&self) -> u64 {
        self.segments.usable_blocks(self.checkpoint_need())
    }

    /// Whether `growth` more blocks of data can be promised. A request that adds none always fits:
    /// what it replaces can be compacted away.
    pub fn has_room_for(&self, growth: u32) -> bool {
        let promised = self.segments.live_blocks() + self.foreground.growth();
        growth == 0 || promised + u64::from(growth) <= self.usable_blocks()
    }

    /// Free segments are few enough to compact.
    pub fn is_low(&self) -> bool {
        let margin = LOW_FREE_SEGMENTS.max(self.segments.count() / LOW_FREE_FRACTION);
        self.segments.free() < self.reserve() + margin
    }

    /// Somebody waits for space.
    pub fn is_stalled(&self) -> bool {
        !self.foreground.is_empty() && !self.foreground_may_open()
    }

    /// The log since the last checkpoint is as long as replay may get.
    pub fn checkpoint_due(&self) -> bool {
        let capacity = u64::from(self.geometry.segments) * u64::from(self.geometry.segment_size);
        let limit = CHECKPOINT_LOG_BYTES.max(self.checkpoint.len * CHECKPOINT_LOG_RATIO).min(capacity / 4);
        self.checkpoint.log_bytes >= limit
    }
}
