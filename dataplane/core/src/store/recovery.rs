//! Recovery: from what is on the disk to the state of a shard.
//!
//! The newest root gives a checkpoint and where the log goes on; the log is followed by generation
//! of segment and number of batch. Numbers leave no room for silent loss: every batch was issued
//! after its predecessor was durable, so a missing number with a later one present is damage, and
//! only the very last batch can be torn.
//!
//! What was lost is not known, so every replica is flagged `damaged`, also those made later: what harmed the log
//! once may have cut its end, too. It answers "unknown" until it has been made whole from others. If the checkpoint itself is bad, the older root
//! is tried: the log since then may still be there.

use super::error::StoreError;
use super::index::Index;
use super::layout::ShardGeometry;
use super::limits::BLOCK;
use super::load::{self, Checkpoint};
use super::queue::Queue;
use super::record::Record;
use super::root::{self, Root};
use super::scan::{self, Found};
use super::segments::{SegmentTable, State as Use};
use super::state::{CheckpointState, State};
use super::unreadable::Unreadable;
use super::walk::{FoundBatch, Window};
use crate::ports::Disk;
use levee_proto::ChunkId;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// What opening a shard found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Batches replayed after the checkpoint.
    pub batches: u64,
    pub records: u64,
    /// The last batch was torn and has been cut: it was never acknowledged.
    pub tail_cut: bool,
    /// Numbers of batches that are missing.
    pub lost_batches: Vec<Range<u64>>,
    /// Pieces of the checkpoint that could not be read.
    pub bad_pieces: u32,
    /// The newest checkpoint was bad, an older one was used.
    pub fell_back: bool,
    /// Segments that could not be read at all.
    pub unreadable_segments: u32,
    /// Replicas that may have lost entries, now or found earlier.
    pub damaged: Vec<ChunkId>,
    /// Replicas may have been forgotten, now or earlier: records that made them may have been lost.
    pub log_gap: bool,
}

impl RecoveryReport {
    /// Nothing was lost but what was never acknowledged.
    pub fn is_clean(&self) -> bool {
        self.lost_batches.is_empty() && self.bad_pieces == 0 && !self.fell_back && self.unreadable_segments == 0
    }

    /// Complete, though perhaps from an older root.
    fn is_complete(&self) -> bool {
        self.lost_batches.is_empty() && self.bad_pieces == 0 && self.unreadable_segments == 0
    }

    /// What is damaged, one phrase each.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.lost_batches.is_empty() {
            let lost: u64 = self.lost_batches.iter().map(|r| r.end - r.start).sum();
            faults.push(format!("{} of the log missing", counted(lost, "batch", "batches")));
        }
        if self.bad_pieces > 0 {
            faults.push(format!("{} of the checkpoint unreadable", counted(self.bad_pieces.into(), "piece", "pieces")));
        }
        if self.unreadable_segments > 0 {
            faults.push(format!("{} unreadable", counted(self.unreadable_segments.into(), "segment", "segments")));
        }
        if self.fell_back {
            faults.push("the newest checkpoint unusable, the one before it used".into());
        }
        faults
    }
}

/// One line for an operator: what was done, what is damaged, and what comes of it.
impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (batches, records) =
            (counted(self.batches, "batch", "batches"), counted(self.records, "record", "records"));
        write!(f, "replayed {batches}, {records}")?;
        if self.tail_cut {
            f.write_str("; cut a torn tail")?;
        }
        let faults = self.faults();
        if !faults.is_empty() {
            write!(f, "; damaged: {}", faults.join(", "))?;
        }
        let suspects = self.damaged.len() as u64;
        if suspects > 0 {
            let replicas = counted(suspects, "replica", "replicas");
            write!(f, "; {replicas} may have lost blocks, made whole from other copies once the volume is attached")?;
        } else if !faults.is_empty() && !self.log_gap {
            f.write_str("; no replica lost anything")?;
        }
        match self.log_gap {
            true => f.write_str("; replicas may have been forgotten: what is not here counts as unknown"),
            false => Ok(()),
        }
    }
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// One root's way to a state.
struct Attempt<'a> {
    root: &'a Root,
    index: Index,
    segments: SegmentTable,
    report: RecoveryReport,
    next_batch: u64,
    next_record: u64,
    log_bytes: u64,
    /// Records are missing, no matter which.
    has_gap: bool,
    /// The last batch.
    tail: Option<Tail>,
}

/// Where the last whole batch of the log is: bytes into a segment.
pub struct Tail {
    pub segment: u32,
    pub bytes: Range<u32>,
}

/// What was found.
pub struct Recovered {
    pub state: State,
    pub report: RecoveryReport,
    /// What is relied upon and may not be durable, although it could be read: a batch whose sync failed, or was never made.
    pub tail: Option<Tail>,
    /// Likewise.
    pub root: Root,
}

/// Recovers the state of a shard. Changes nothing on the disk.
pub async fn recover<D: Disk>(disk: &D, g: &ShardGeometry) -> Result<Recovered, StoreError> {
    let roots = root::read_all(disk, g).await;
    let Some(newest) = roots.first() else {
        return Err(StoreError::Unrecoverable("both roots are damaged".into()));
    };
    let needed_from = roots.iter().map(|r| r.replay.generation).min().unwrap_or(0);
    let found = scan::scan(disk, g, needed_from).await;
    let mut best: Option<Attempt> = None;
    let mut reasons = Vec::new();
    for root in &roots {
        match attempt(disk, g, root, &found, newest.replay.next_batch).await {
            Ok(a) if a.report.is_complete() => {
                best = Some(a);
                break;
            }
            Ok(a) => best = best.or(Some(a)),
            Err(reason) => reasons.push(reason),
        }
    }
    let Some(mut best) = best else { return Err(StoreError::Unrecoverable(reasons.join("; "))) };
    best.report.fell_back = best.root.sequence != newest.sequence;
    best.report.log_gap = best.has_gap || roots.iter().any(|r| r.log_gap);
    best.report.damaged = best.index.replicas().filter(|r| r.damaged).map(|r| r.chunk).collect();
    let (tail, root) = (best.tail.take(), best.root.clone());
    let (state, report) = finish(g, best, &roots, &found);
    Ok(Recovered { state, report, tail, root })
}

async fn attempt<'a, D: Disk>(
    disk: &D,
    g: &ShardGeometry,
    root: &'a Root,
    found: &[Found],
    at_least_to: u64,
) -> Result<Attempt<'a>, String> {
    let mut segments = SegmentTable::new(g.segments, g.segment_blocks());
    let Checkpoint { index, bad_pieces, incomplete } = load::load(disk, g, root, &mut segments).await?;
    let report = RecoveryReport { bad_pieces, ..RecoveryReport::default() };
    let (next_batch, next_record) = (root.replay.next_batch, root.replay.next_record);
    let (log_bytes, has_gap, tail) = (0, false, None);
    let mut a = Attempt { root, index, segments, report, next_batch, next_record, log_bytes, has_gap, tail };
    a.replay(disk, g, found).await;
    if a.next_batch < at_least_to {
        a.gap(at_least_to);
    }
    let unreadable = |(s, f): &(usize, &Found)| **f == Found::Unreadable && !root.segments.contains(&(*s as u32));
    a.report.unreadable_segments = found.iter().enumerate().filter(unreadable).count() as u32;
    a.has_gap |= a.report.unreadable_segments > 0;
    // Only now: what the log says of a replica having been made whole was said before this damage was found.
    let is_suspect = a.has_gap && !crate::mutant!("lost batches go unnoticed");
    a.index.mark_damaged(|_| is_suspect);
    a.index.mark_damaged(|r| r.birth < root.replay.next_record && incomplete.contains(&r.chunk));
    Ok(a)
}

/// A segment to replay.
struct Link {
    segment: u32,
    generation: u64,
    offset: u32,
    first_batch: u64,
}

/// The segments that replay has to follow, by generation.
fn chain(root: &Root, found: &[Found]) -> Vec<Link> {
    let start = &root.replay;
    let mut links = Vec::new();
    if start.offset > 0 {
        let (segment, generation) = (start.segment, start.generation);
        links.push(Link { segment, generation, offset: start.offset, first_batch: start.next_batch });
    }
    let from = start.generation + u64::from(start.offset > 0);
    for (segment, f) in found.iter().enumerate() {
        if let Found::Log { generation, first_batch } = *f
            && generation >= from
        {
            let offset = BLOCK as u32;
            links.push(Link { segment: segment as u32, generation, offset, first_batch });
        }
    }
    links.sort_by_key(|l| l.generation);
    links
}

impl Attempt<'_> {
    async fn replay<D: Disk>(&mut self, disk: &D, g: &ShardGeometry, found: &[Found]) {
        let links = chain(self.root, found);
        // The last whole batch so far: applied once a later one shows that it was durable.
        let mut last: Option<FoundBatch> = None;
        for (i, link) in links.iter().enumerate() {
            if crate::mutant!("replay ends with the first segment") && i > 0 {
                break;
            }
            // What a later generation began with, an earlier one does not have: it was cut.
            let limit = links[i + 1..].iter().map(|l| l.first_batch).min().unwrap_or(u64::MAX);
            if link.first_batch > self.next_batch {
                self.gap(link.first_batch);
            }
            let mut window = Window::new(disk, g, link.segment);
            let mut offset = link.offset;
            loop {
                let next = self.next_batch;
                let accept = |generation, number| generation == link.generation && (next..limit).contains(&number);
                let Some((batch, _)) = window.find(offset, accept).await else { break };
                if let Some(durable) = last.take() {
                    self.apply(g, &durable);
                }
                if batch.number > next {
                    self.gap(batch.number);
                }
                offset = batch.end();
                self.next_batch = batch.number + 1;
                self.next_record = batch.next_record();
                last = Some(batch);
            }
        }
        if let Some(batch) = last {
            self.end(disk, g, batch).await;
        }
    }

    /// The last batch may be torn: it counts only if all its data is there.
    async fn end<D: Disk>(&mut self, disk: &D, g: &ShardGeometry, batch: FoundBatch) {
        let is_whole = Window::new(disk, g, batch.segment).verify(&batch).await;
        if (is_whole || crate::mutant!("a torn tail is taken for whole"))
            && !crate::mutant!("the last batch is dropped")
        {
            self.apply(g, &batch);
            // The first batch of a segment was written together with the segment's header.
            let start = if batch.offset as usize == BLOCK { 0 } else { batch.offset };
            self.tail = Some(Tail { segment: batch.segment, bytes: start..batch.end() });
        } else {
            self.report.tail_cut = true;
            self.next_batch = batch.number;
            self.next_record = batch.first_record;
        }
    }

    fn apply(&mut self, g: &ShardGeometry, batch: &FoundBatch) {
        let mut location = g.location(batch.segment, batch.data_offset);
        for (r, number) in batch.records.iter().zip(batch.first_record..) {
            if !(crate::mutant!("adoptions forgotten at a restart") && matches!(r, Record::Adopt { .. })) {
                self.index.apply(r, number, location, &mut self.segments);
            }
            location += r.data_blocks();
        }
        self.report.batches += 1;
        self.report.records += batch.records.len() as u64;
        self.log_bytes += u64::from(batch.data_len) + BLOCK as u64;
    }

    /// Batches up to `to` are missing.
    fn gap(&mut self, to: u64) {
        self.report.lost_batches.push(self.next_batch..to);
        self.next_batch = to;
        self.has_gap = true;
    }
}

fn finish(g: &ShardGeometry, a: Attempt, roots: &[Root], found: &[Found]) -> (State, RecoveryReport) {
    let Attempt { root, index, mut segments, report, next_batch, next_record, log_bytes, .. } = a;
    let (mut generation, mut checkpoint) = (root.replay.generation, root.checkpoint);
    for (segment, f) in found.iter().enumerate() {
        let segment = segment as u32;
        segments.set_state(segment, usage(root, segment, *f, segments.live(segment)));
        match f {
            Found::Log { generation: n, .. } => generation = generation.max(*n),
            Found::Checkpoint(n) => checkpoint = checkpoint.max(*n),
            _ => {}
        }
    }
    for r in roots {
        generation = generation.max(r.replay.generation);
        checkpoint = checkpoint.max(r.checkpoint);
    }
    if let Some(older) = roots.get(1).filter(|r| r.sequence < root.sequence) {
        for s in older.segments.iter().filter(|s| found[**s as usize] == Found::Checkpoint(older.checkpoint)) {
            if segments.state(*s) == Use::Ready {
                segments.set_state(*s, Use::Checkpoint);
            }
        }
        segments.retain(older.segments.clone(), older.replay.generation);
    }
    // A segment is never continued after a restart: what is behind its end is unknown.
    let next_generation = generation + 1;
    segments.collect_free(root.replay.generation, next_generation);
    let checkpoint = CheckpointState {
        number: checkpoint,
        root_sequence: roots.iter().map(|r| r.sequence).max().unwrap_or(0),
        segments: root.segments.clone(),
        len: root.checkpoint_len,
        log_bytes,
        ..CheckpointState::default()
    };
    let state = State {
        geometry: g.clone(),
        index,
        segments,
        foreground: Queue::default(),
        moves: Queue::default(),
        open: None,
        next_generation,
        next_batch,
        next_record,
        checkpoint,
        unreadable: Unreadable::default(),
        thin: false,
        zero_again_at: Duration::ZERO,
        log_gap: report.log_gap,
        failed: None,
        closing: false,
        stopping: false,
    };
    (state, report)
}

fn usage(root: &Root, segment: u32, found: Found, live: u32) -> Use {
    if root.segments.contains(&segment) {
        return Use::Checkpoint;
    }
    match found {
        Found::Log { generation, .. } => Use::Log(generation),
        _ if root.replay.offset > 0 && root.replay.segment == segment => Use::Log(root.replay.generation),
        // Its header is gone, but blocks in it are still referred to.
        _ if live > 0 => Use::Log(0),
        Found::Checkpoint(_) => Use::Ready,
        Found::Zeros | Found::Garbage | Found::Unreadable => Use::Unused,
    }
}
