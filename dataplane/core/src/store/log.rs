//! The log writer: one task per shard that turns queued requests into batches.
//!
//! One batch is in flight at a time. While it is written and synced the next one gathers: many small
//! writes become one I/O and one sync. When a batch is durable its records are applied to the index,
//! all at once, and their requests complete. A write or sync that fails stops the shard for good:
//! after a failed sync nobody can say what is on the medium.

use super::error::StoreError;
use super::layout::{BATCH_HEADER_LEN, BatchHeader, BatchId, SegmentHeader, SegmentUse};
use super::limits::*;
use super::queue::Batch;
use super::shard::Inner;
use super::state::{OpenSegment, State};
use crate::ports::{Disk, Runtime, is_no_space};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use zerocopy::IntoBytes;

enum Step {
    Write(Batch, OpenSegment, BatchId),
    Zero(u32),
    Wait,
    Stop,
}

/// Runs until the shard stops or fails.
pub async fn run<D: Disk, R: Runtime>(inner: Rc<Inner<D, R>>) {
    loop {
        let work = inner.work.listen();
        let step = next_step(&mut inner.state.borrow_mut());
        let result = match step {
            Step::Write(batch, open, id) => {
                let result = write_with_patience(&inner, &batch, open, id).await;
                result.map(|len| finish(&inner, batch, open, len))
            }
            Step::Zero(segment) => inner.zero(segment).await,
            Step::Wait => {
                inner.background.notify();
                work.await;
                Ok(())
            }
            Step::Stop => return,
        };
        if crate::mutant!("log goes on after a failed write") && result.is_err() {
            continue;
        }
        if let Err(e) = result {
            crate::reached!("shard failed");
            return inner.fail("writing the log", &e);
        }
    }
}

fn next_step(s: &mut State) -> Step {
    loop {
        if s.failed.is_some() || s.stopping {
            return Step::Stop;
        }
        if s.foreground.is_empty() && s.moves.is_empty() {
            return Step::Wait;
        }
        if let Some(open) = s.open {
            let batch = fill(s, open);
            if !batch.is_empty() {
                let id = BatchId { generation: open.generation, number: s.next_batch, first_record: s.next_record };
                return Step::Write(batch, open, id);
            }
        }
        s.segments.reclaim_released();
        if !s.may_open() {
            return Step::Wait;
        }
        match s.segments.take_free() {
            Some((segment, true)) => return Step::Zero(segment),
            Some((segment, false)) => open_segment(s, segment),
            None => return Step::Wait,
        }
    }
}

/// Foreground requests first; compaction gets what is left, and the reserve for itself.
fn fill(s: &mut State, open: OpenSegment) -> Batch {
    let mut batch = Batch::default();
    let before_first = if open.offset == 0 { BLOCK } else { 0 };
    let room = s.geometry.segment_size as usize - open.offset as usize - before_first;
    if !open.reserved || s.foreground_may_open() {
        batch.foreground_done = batch.fill(&mut s.foreground, room);
    }
    batch.moves_done = batch.fill(&mut s.moves, room);
    batch
}

fn open_segment(s: &mut State, segment: u32) {
    // One less is free now: as it was decided.
    let reserved = s.segments.free() < s.reserve();
    s.segments.open(segment, s.next_generation);
    s.open = Some(OpenSegment { segment, generation: s.next_generation, offset: 0, reserved });
    s.next_generation += 1;
}

/// Writes a batch, as soon as there is room for it below the disk. It stays the same at the same place: whatever was written of it
/// before is written over.
async fn write_with_patience<D: Disk, R: Runtime>(
    inner: &Inner<D, R>,
    batch: &Batch,
    open: OpenSegment,
    id: BatchId,
) -> io::Result<u32> {
    loop {
        match write(inner, batch, open, id).await {
            Err(e) if is_no_space(&e) && !inner.state.borrow().closing => {
                tracing::warn!(shard = inner.geometry.shard, "writing the log waits for room below the disk: {e}");
                inner.rt.sleep(Duration::from_millis(NO_SPACE_PAUSE_MS)).await;
            }
            done => return done,
        }
    }
}

/// Writes and syncs a batch; returns its length in the segment.
async fn write<D: Disk, R: Runtime>(
    inner: &Inner<D, R>,
    batch: &Batch,
    open: OpenSegment,
    id: BatchId,
) -> io::Result<u32> {
    let start = if open.offset == 0 { BLOCK } else { 0 };
    let len = start + batch.header_len() + batch.data_len();
    let mut buf = inner.disk.alloc(len);
    if start > 0 {
        let header = SegmentHeader::new(&inner.geometry, SegmentUse::Log, open.generation, id.number);
        buf[..size_of::<SegmentHeader>()].copy_from_slice(header.as_bytes());
        buf[size_of::<SegmentHeader>()..BLOCK].fill(0);
    }
    encode(inner, batch, id, &mut buf[start..]);
    let pos = inner.geometry.segment_pos(open.segment) + u64::from(open.offset);
    match inner.options.power_safe_cache || crate::mutant!("log not synced") {
        true => inner.disk.write(pos, buf).await?,
        false => inner.disk.write_durable(pos, buf).await?,
    }
    Ok(len as u32)
}

fn encode<D: Disk, R: Runtime>(inner: &Inner<D, R>, batch: &Batch, id: BatchId, buf: &mut [u8]) {
    let (header, mut data) = buf.split_at_mut(batch.header_len());
    let mut rest = &mut header[BATCH_HEADER_LEN..];
    for item in &batch.items {
        rest = item.record.encode(rest);
        let (to, left) = std::mem::take(&mut data).split_at_mut(item.data.len());
        to.copy_from_slice(&item.data);
        data = left;
    }
    rest.fill(0);
    let count = batch.items.len() as u32;
    BatchHeader::seal(&inner.geometry, id, count, batch.record_len(), batch.data_len(), header);
}

/// The batch is durable: its records take effect and its requests complete.
fn finish<D: Disk, R: Runtime>(inner: &Inner<D, R>, batch: Batch, open: OpenSegment, len: u32) {
    let (foreground, moves) = {
        let s = &mut *inner.state.borrow_mut();
        let data_at = open.offset + len - batch.data_len() as u32;
        let mut location = inner.geometry.location(open.segment, data_at);
        for item in &batch.items {
            s.index.apply(&item.record, s.next_record, location, &mut s.segments);
            location += item.record.data_blocks();
            s.next_record += 1;
            s.foreground.settle(item.growth);
        }
        s.next_batch += 1;
        s.checkpoint.log_bytes += u64::from(len);
        if let Some(o) = &mut s.open {
            o.offset += len;
        }
        (s.foreground.tickets(), s.moves.tickets())
    };
    foreground.complete(batch.foreground_done);
    moves.complete(batch.moves_done);
    if open.offset == 0 {
        inner.background.notify();
    }
}

impl<D: Disk, R: Runtime> Inner<D, R> {
    /// Writes a segment with zeros, so that later writes to it need no new extents. If there is no room for that below the disk, the
    /// shard goes on with what it has.
    pub async fn zero(&self, segment: u32) -> io::Result<()> {
        match self.write_zeros(segment).await {
            Ok(()) => {
                let s = &mut *self.state.borrow_mut();
                if s.segments.is_starved() {
                    tracing::info!(shard = self.geometry.shard, "there is room below the disk again");
                    s.checkpoint.no_room = false;
                }
                s.segments.zeroed(segment);
            }
            Err(e) if is_no_space(&e) => self.starve(&[segment], &e),
            Err(e) => return Err(e),
        }
        self.work.notify();
        Ok(())
    }

    /// There is no room below the disk for these segments, which were never written.
    pub fn starve(&self, segments: &[u32], e: &io::Error) {
        let s = &mut *self.state.borrow_mut();
        if !s.segments.is_starved() {
            tracing::warn!(shard = self.geometry.shard, "no room below the disk, it counts as full: {e}");
        }
        segments.iter().for_each(|segment| s.segments.starve(*segment));
        s.zero_again_at = self.rt.now() + Duration::from_millis(NO_SPACE_PAUSE_MS);
    }

    async fn write_zeros(&self, segment: u32) -> io::Result<()> {
        let (start, size) = (self.geometry.segment_pos(segment), self.geometry.segment_size as usize);
        let mut done = 0;
        while done < size {
            let step = ZERO_STEP.min(size - done);
            let mut buf = self.disk.alloc(step);
            buf.fill(0);
            self.disk.write(start + done as u64, buf).await?;
            done += step;
        }
        Ok(())
    }

    /// Stops the shard: everything outstanding and everything later gets the error.
    pub fn fail(&self, what: &str, e: &io::Error) {
        let error = StoreError::Failed(format!("{what}: {e}").into());
        tracing::error!(shard = self.geometry.shard, "{error}");
        {
            let s = &mut *self.state.borrow_mut();
            s.failed = Some(error.clone());
        }
        let (foreground, moves) = {
            let s = self.state.borrow();
            (s.foreground.tickets(), s.moves.tickets())
        };
        foreground.fail(error.clone());
        moves.fail(error);
        self.work.notify();
        self.background.notify();
        self.checkpoints.notify();
    }
}
