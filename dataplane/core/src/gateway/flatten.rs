//! Flattening: a clone is made independent of its ancestors.
//!
//! What it lacks is copied into it, as writes of its own: each under the lock of its blocks, and only where the volume still
//! has nothing itself. Ancestors do not change, so what to write is read before blocks are locked, and guests wait for no more
//! than a write.

use super::chunk::Chunk;
use super::locks::{Held, Mode};
use super::unread::{Failure, Unread};
use super::{Accomplished, Cluster, Gateway, Stopped};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use bytes::Bytes;
use levee_proto::BLOCKS_PER_CHUNK;
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::BlockKind;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Before what cannot be done is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Before all is looked through again when an ancestor has a block that no copy of it can read.
const LOST_RETRY: Duration = Duration::from_secs(60);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    pub(super) fn spawn_flatten(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move {
            while !this.is_stopped() && this.is_clone() {
                let changed = this.0.changed.listen();
                if !this.told_versions().flatten {
                    changed.await;
                    continue;
                }
                match this.flatten().await {
                    Ok(()) => {
                        this.accomplished(Accomplished::Flattened).await;
                        if !this.told_versions().flatten {
                            this.0.ancestors.forget();
                        }
                    }
                    // It stays a clone as long as that block is not written.
                    Err(Failure::Lost) => this.pause(LOST_RETRY).await,
                    Err(Failure::Stopped(_)) => {}
                }
            }
        });
    }

    /// Copies all that ancestors have and the volume lacks.
    async fn flatten(&self) -> Result<(), Failure> {
        for index in self.0.ancestors.indexes() {
            if u64::from(index) >= u64::from(self.0.volume.geometry.chunk_count(self.size())) {
                continue;
            }
            let mut from = 0;
            while from < BLOCKS_PER_CHUNK {
                let step = self.begin_step().await;
                // Within one stripe unit.
                let unit = self.0.volume.geometry.stripe_unit / BLOCK_SIZE as u32;
                let end = (from + step.blocks).min((from / unit + 1) * unit).min(BLOCKS_PER_CHUNK);
                let copied = self.patiently(async |_| self.flatten_blocks(index, from..end).await).await;
                self.end_step(step, copied.as_ref().map_or(0, |blocks| u64::from(*blocks)) * BLOCK_SIZE as u64).await;
                copied?;
                self.advance_versions(1);
                from = end;
            }
        }
        Ok(())
    }

    /// Copies blocks of one stripe unit; how many.
    async fn flatten_blocks(&self, index: u32, blocks: Range<u32>) -> Result<u32, Unread> {
        let end = self.0.volume.geometry.address(index, blocks.start * BLOCK_SIZE as u32);
        if end >= self.size() || self.lacking(index, &blocks).await?.is_some_and(|lacks| lacks.is_empty()) {
            return Ok(0);
        }
        let bytes = self.inherited(index, blocks.clone()).await?;
        let mut wanted = BlockSet::default();
        let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
        let inherited = blocks.clone().zip(bytes.chunks_exact(BLOCK_SIZE)).filter(|(_, block)| !is_zero(block));
        inherited.for_each(|(b, _)| wanted.insert(b));
        if wanted.is_empty() {
            return Ok(0);
        }
        let chunk = match self.chunk(index) {
            Some(chunk) => chunk,
            None => self.allocated(index).await?,
        };
        let mut copied = 0;
        while let Some(run) = wanted.next_run(0, blocks.len() as u32) {
            let Some(held) = self.hold_lacking(&chunk, &mut wanted, &run).await? else { continue };
            let at = (run.start - blocks.start) as usize * BLOCK_SIZE;
            let data: Bytes = bytes.slice(at..at + run.len() * BLOCK_SIZE);
            self.write_locked(&chunk, BlockKind::Data, run.clone(), data, held).await?;
            copied += run.len() as u32;
            wanted.remove_range(run);
        }
        Ok(copied)
    }

    /// The blocks of a range that the volume does not have itself; `None`: it has nothing of the chunk.
    async fn lacking(&self, index: u32, blocks: &Range<u32>) -> Result<Option<BlockSet>, Stopped> {
        let Some(chunk) = self.chunk(index) else { return Ok(None) };
        loop {
            self.until_served(&chunk).await?;
            self.list_presence(&chunk).await;
            if let Some(missing) = chunk.presence.missing(blocks) {
                return Ok(Some(missing));
            }
            self.pause(RETRY).await;
            self.check_stopped()?;
        }
    }

    /// Locks a run if the volume still lacks all of it; else takes what it has out of what is wanted.
    async fn hold_lacking(
        &self,
        chunk: &Rc<Chunk>,
        wanted: &mut BlockSet,
        run: &Range<u32>,
    ) -> Result<Option<Held>, Stopped> {
        let held = chunk.locks.acquire(run.clone(), Mode::Exclusive).held().await;
        self.until_served(chunk).await?;
        let Some(lacks) = self.lacking(chunk.index, run).await? else { return Ok(Some(held)) };
        let had: Vec<u32> = run.clone().filter(|b| !lacks.contains(*b)).collect();
        had.iter().for_each(|b| wanted.remove(*b));
        Ok(had.is_empty().then_some(held))
    }
}
