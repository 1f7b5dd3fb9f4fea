//! Compaction: empties a segment by copying its live blocks through the log.
//!
//! A copy keeps version, seq and CRC and changes only where the data is; it takes effect only if the
//! entry still points at the old place. What does not match its CRC is never copied: the entry is
//! marked as lost, reads of it answer "corrupt", and a repair brings it back.

use super::index::Slot;
use super::limits::*;
use super::queue::Item;
use super::record::{Moved, Record};
use super::segments::State as Use;
use super::shard::Inner;
use super::tickets::Ticket;
use super::walk::{FoundBatch, Window};
use crate::ports::{Disk, Runtime};
use crate::sync::timeout;
use bytes::{Bytes, BytesMut};
use levee_proto::wire::BlockKind;
use levee_proto::{ChunkId, Version};
use std::time::Duration;

/// Gathers blocks until there are enough for a record.
struct Mover<'a, D, R> {
    inner: &'a Inner<D, R>,
    segment: u32,
    moved: Vec<Moved>,
    data: BytesMut,
    lost: Vec<Moved>,
    /// The record before, on its way.
    sent: Option<Ticket>,
}

/// The shard stops, fails, or needs a checkpoint first.
struct Interrupted;

/// Moves the live blocks of `segment` away, unless something more urgent comes.
pub async fn empty<D: Disk, R: Runtime>(inner: &Inner<D, R>, segment: u32) {
    crate::reached!("segment compacted");
    let _pin = inner.state.borrow().segments.pin(segment);
    let (moved, data, lost) = (Vec::new(), BytesMut::new(), Vec::new());
    let mut mover = Mover { inner, segment, moved, data, lost, sent: None };
    if mover.run().await.is_ok() && inner.state.borrow().segments.live(segment) > 0 {
        tracing::warn!(shard = inner.geometry.shard, segment, "blocks cannot be read: the segment is left as it is");
        inner.state.borrow_mut().segments.set_unmovable(segment);
    }
}

impl<D: Disk, R: Runtime> Mover<'_, D, R> {
    async fn run(&mut self) -> Result<(), Interrupted> {
        let mut window = Window::new(&self.inner.disk, &self.inner.geometry, self.segment);
        self.by_batches(&mut window).await?;
        if self.inner.state.borrow().segments.live(self.segment) > 0 {
            // Headers in it are damaged: the index still knows what is live.
            self.by_index(&mut window).await?;
        }
        Ok(())
    }

    /// Follows the segment's own headers.
    async fn by_batches(&mut self, window: &mut Window<'_, D>) -> Result<(), Interrupted> {
        let generation = match self.inner.state.borrow().segments.state(self.segment) {
            Use::Log(generation) => generation,
            _ => return Ok(()),
        };
        let mut offset = BLOCK as u32;
        while self.inner.state.borrow().segments.live(self.segment) > 0
            && let Some((batch, _)) = window.find(offset, |g, _| g == generation).await
        {
            offset = batch.end();
            for (chunk, block, version) in self.live_blocks(&batch) {
                self.block(window, chunk, block, version).await?;
            }
        }
        self.send().await?;
        self.wait().await
    }

    async fn by_index(&mut self, window: &mut Window<'_, D>) -> Result<(), Interrupted> {
        let mut next = ChunkId(0);
        loop {
            let (chunk, mut blocks) = {
                let s = self.inner.state.borrow();
                let Some(r) = s.index.first_from(next) else { break };
                let here = r.chains.all().filter(|(_, slot)| self.holds(slot));
                (r.chunk, here.map(|(b, slot)| (slot.place.0, b, slot.version)).collect::<Vec<_>>())
            };
            blocks.sort_unstable();
            for (_, block, version) in blocks {
                self.block(window, chunk, block, version).await?;
            }
            self.pause().await;
            match chunk.0.checked_add(1) {
                Some(n) => next = ChunkId(n),
                None => break,
            }
        }
        self.send().await?;
        self.wait().await
    }

    fn holds(&self, slot: &Slot) -> bool {
        slot.place.location().is_some_and(|l| self.inner.geometry.segment_of(l) == self.segment)
    }

    /// The blocks of a batch that the index still finds in it.
    fn live_blocks(&self, batch: &FoundBatch) -> Vec<(ChunkId, u32, Version)> {
        let s = self.inner.state.borrow();
        let mut location = self.inner.geometry.location(self.segment, batch.data_offset);
        let mut live = Vec::new();
        for r in &batch.records {
            each_block(r, |chunk, block, version| {
                let slot = s.index.get(chunk).map_or(Slot::ABSENT, |r| r.chains.get(block, version));
                if slot.place.location() == Some(location) {
                    live.push((chunk, block, version));
                }
                location += 1;
            });
        }
        live
    }

    /// Takes one block along, if it is still here.
    async fn block(
        &mut self,
        window: &mut Window<'_, D>,
        chunk: ChunkId,
        block: u32,
        version: Version,
    ) -> Result<(), Interrupted> {
        let slot = self.inner.state.borrow().index.get(chunk).map_or(Slot::ABSENT, |r| r.chains.get(block, version));
        let Some(from) = slot.place.location().filter(|_| self.holds(&slot)) else { return Ok(()) };
        let moved = Moved { chunk, block, version: slot.version, seq: slot.seq(), crc: slot.crc, from };
        let offset = (from % self.inner.geometry.segment_blocks()) * BLOCK as u32;
        let stored = window.get(offset, BLOCK).await;
        if crc32c::crc32c(stored) == slot.crc {
            self.data.extend_from_slice(stored);
            self.moved.push(moved);
        } else {
            self.second_try(moved).await;
        }
        if self.moved.len() + self.lost.len() >= MAX_MOVE_BLOCKS {
            self.send().await?;
            self.pause().await;
        }
        Ok(())
    }

    /// A read that fails leaves the block where it is; one that gives other data shows that it is lost.
    async fn second_try(&mut self, moved: Moved) {
        let stored = self.inner.disk.read(self.inner.geometry.block_pos(moved.from), BLOCK).await;
        match stored {
            Ok(b) if crc32c::crc32c(&b) == moved.crc => {
                self.data.extend_from_slice(&b);
                self.moved.push(moved);
            }
            Ok(_) => {
                tracing::error!(chunk = %moved.chunk, block = moved.block, "stored block is corrupt");
                self.lost.push(moved);
            }
            Err(e) => tracing::warn!(chunk = %moved.chunk, block = moved.block, "reading a block to move: {e}"),
        }
    }

    /// Hands over what was gathered, once the record before is durable.
    async fn send(&mut self) -> Result<(), Interrupted> {
        self.wait().await?;
        let mut items = Vec::new();
        let item = |record, data| Item { record, data, growth: 0, last: false };
        if !self.moved.is_empty() {
            items.push(item(Record::Move { blocks: std::mem::take(&mut self.moved) }, self.data.split().freeze()));
        }
        if !self.lost.is_empty() {
            items.push(item(Record::Lost { blocks: std::mem::take(&mut self.lost) }, Bytes::new()));
        }
        if !items.is_empty() {
            self.sent = Some(self.inner.state.borrow_mut().moves.push(items));
            self.inner.work.notify();
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Interrupted> {
        while let Some(mut ticket) = self.sent.take() {
            let pause = Duration::from_millis(SHORT_OF_SPACE_POLL_MS);
            match timeout(&self.inner.rt, pause, &mut ticket).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(Interrupted),
                None if self.must_stop() => return Err(Interrupted),
                None => self.sent = Some(ticket),
            }
        }
        if self.must_stop() { Err(Interrupted) } else { Ok(()) }
    }

    fn must_stop(&self) -> bool {
        let s = self.inner.state.borrow();
        let wanted = s.checkpoint.requested > s.checkpoint.served;
        s.stopping || s.failed.is_some() || wanted || s.moves_are_stuck()
    }

    /// Lets foreground I/O through, unless it waits for space itself.
    async fn pause(&self) {
        if !self.inner.state.borrow().is_stalled() {
            self.inner.rt.sleep(Duration::from_micros(COMPACT_PAUSE_US)).await;
        }
    }
}

/// The blocks whose data a record brought, in order.
fn each_block(r: &Record, mut each: impl FnMut(ChunkId, u32, Version)) {
    match r {
        Record::Write { chunk, kind: BlockKind::Data, version, block, count, .. } => {
            (*block..*block + *count).for_each(|b| each(*chunk, b, *version));
        }
        Record::Repair { chunk, entries, .. } => {
            entries.iter().filter(|e| e.kind == BlockKind::Data).for_each(|e| each(*chunk, e.block, e.version));
        }
        Record::Move { blocks } => blocks.iter().for_each(|m| each(m.chunk, m.block, m.version)),
        _ => {}
    }
}
