//! Reading a clone: each block from the first of the volume and its ancestors that has an entry of it.
//!
//! Which blocks the volume itself has is listed once per chunk; what is written since is noted. So a read goes to the right
//! layer at once. As long as that is not known, the volume is asked first, and what it does not have is asked of the ancestors.

use super::ancestors::{Layer, within};
use super::chunk::Chunk;
use super::locks::Mode;
use super::unread::Unread;
use super::{Cluster, Gateway};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use crate::sync::join_all;
use bytes::{Bytes, BytesMut};
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::{BlockEntry, BlockKind};
use levee_proto::{BLOCKS_PER_CHUNK, Seq};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

const BLOCK: usize = BLOCK_SIZE;

/// Which blocks a chunk of a clone has itself.
#[derive(Default)]
pub(super) struct Presence {
    /// When it was listed.
    listed: RefCell<Option<BlockSet>>,
    /// Written, or about to be, in this epoch.
    written: RefCell<BlockSet>,
    listing: Cell<bool>,
}

impl Presence {
    /// Of a chunk that is new in this epoch.
    pub fn of_new_chunk() -> Presence {
        Presence { listed: RefCell::new(Some(BlockSet::default())), ..Presence::default() }
    }

    /// These blocks are being written. They are held by the writer.
    pub fn write(&self, blocks: Range<u32>) {
        self.written.borrow_mut().insert_range(blocks);
    }

    /// The blocks of a range that the chunk does not have; `None`: not known.
    pub fn missing(&self, blocks: &Range<u32>) -> Option<BlockSet> {
        let listed = self.listed.borrow();
        let (listed, written) = (listed.as_ref()?, self.written.borrow());
        let mut missing = BlockSet::default();
        blocks.clone().filter(|b| !listed.contains(*b) && !written.contains(*b)).for_each(|b| missing.insert(b));
        Some(missing)
    }
}

/// What has been found of a range of blocks.
pub(super) struct Found {
    blocks: Range<u32>,
    bytes: BytesMut,
    /// Nobody who was asked has an entry of them.
    missing: BlockSet,
}

impl Found {
    fn nothing(blocks: Range<u32>) -> Found {
        let mut missing = BlockSet::default();
        missing.insert_range(blocks.clone());
        Found { bytes: BytesMut::zeroed(blocks.len() * BLOCK), blocks, missing }
    }

    pub fn take(&mut self, entries: &[BlockEntry], data: &[u8]) {
        let mut data = data.chunks_exact(BLOCK);
        for e in entries.iter().filter(|e| e.kind != BlockKind::Absent) {
            let block = if e.kind == BlockKind::Data { data.next() } else { None };
            self.take_block(e.block, block);
        }
    }

    /// Somebody who was asked has an entry of a block; `None`: zeros.
    pub fn take_block(&mut self, block: u32, data: Option<&[u8]>) {
        if !self.missing.contains(block) {
            return;
        }
        self.missing.remove(block);
        let at = (block - self.blocks.start) as usize * BLOCK;
        if let Some(data) = data {
            self.bytes[at..at + BLOCK].copy_from_slice(data);
        }
    }

    /// Runs of blocks that are missing, within a part of the range.
    fn runs(&self, part: &Range<u32>) -> Vec<Range<u32>> {
        let all = self.missing.runs(BLOCKS_PER_CHUNK, usize::MAX).into_iter();
        let cut = |r: Range<u32>| r.start.max(part.start)..r.end.min(part.end);
        all.map(cut).filter(|r| !r.is_empty()).collect()
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Whether blocks may have to be read from ancestors.
    pub(super) fn is_clone(&self) -> bool {
        !self.0.ancestors.is_empty()
    }

    /// Reads blocks of a clone, from wherever they are. They lie in one stripe unit; if the volume has the chunk, the caller holds them.
    pub(super) async fn read_layered(
        &self,
        chunk: Option<&Rc<Chunk>>,
        index: u32,
        blocks: Range<u32>,
    ) -> Result<Bytes, Unread> {
        let mut found = Found::nothing(blocks.clone());
        if let Some(chunk) = chunk {
            self.until_served(chunk).await?;
            self.list_presence(chunk).await;
            let missing = chunk.presence.missing(&blocks);
            if let Some(own) = own_part(&blocks, missing.as_ref()) {
                let (entries, data) = self.read_entries(chunk, own).await?;
                found.take(&entries, &data);
            }
        }
        self.read_ancestors(index, &mut found).await?;
        if !self.is_clone() {
            return self.read_flattened(chunk, index, blocks).await;
        }
        Ok(found.bytes.freeze())
    }

    /// The volume was flattened while we read: ancestors may be gone, and what they had is the volume's own now.
    async fn read_flattened(&self, chunk: Option<&Rc<Chunk>>, index: u32, blocks: Range<u32>) -> Result<Bytes, Unread> {
        if let Some(chunk) = chunk {
            let (entries, data) = self.read_entries(chunk, blocks).await?;
            return Ok(super::read::assemble(&entries, data));
        }
        let (chunk, held) = self.hold(index, &blocks, Mode::Shared).await;
        self.check_stopped()?;
        let Some(chunk) = chunk else {
            self.let_go(index, held);
            return Ok(Bytes::from(vec![0; blocks.len() * BLOCK]));
        };
        let (entries, data) = self.read_entries(&chunk, blocks).await?;
        Ok(super::read::assemble(&entries, data))
    }

    /// What blocks of one stripe unit read as where the volume has nothing itself.
    pub(super) async fn inherited(&self, index: u32, blocks: Range<u32>) -> Result<Bytes, Unread> {
        let mut found = Found::nothing(blocks);
        self.read_ancestors(index, &mut found).await?;
        Ok(found.bytes.freeze())
    }

    async fn read_ancestors(&self, index: u32, found: &mut Found) -> Result<(), Unread> {
        let layers = self.0.ancestors.layers();
        let at = self.0.volume.geometry.address(index, found.blocks.start * BLOCK as u32);
        let mut part = found.blocks.clone();
        for (i, layer) in layers.iter().enumerate() {
            part = within(layer.size, at, &part);
            if part.is_empty() || found.missing.is_empty() {
                break;
            }
            if layer.chunks.contains_key(&index) {
                self.read_layer(layer, i + 1 == layers.len(), index, &part, found).await?;
            }
        }
        Ok(())
    }

    /// Reads what is missing from one ancestor. The last one is simply asked; of the others it is found out first what they have.
    async fn read_layer(
        &self,
        layer: &Layer,
        is_last: bool,
        index: u32,
        part: &Range<u32>,
        found: &mut Found,
    ) -> Result<(), Unread> {
        let mut runs = found.runs(part);
        if !is_last {
            let presence = self.presence(layer, index).await?;
            runs = runs.into_iter().flat_map(|run| present_runs(&presence, run)).collect();
        }
        if let Some(shared) = self.0.cluster.shared() {
            return self.read_through(shared, layer, index, runs, found).await;
        }
        let reads = join_all(runs.iter().map(|run| self.read_shared(layer, index, run))).await;
        for read in reads {
            if let Some((entries, data)) = read? {
                found.take(&entries, &data);
            }
        }
        Ok(())
    }

    /// Finds out which blocks the volume itself has of a chunk, if a member can tell and nobody else is finding out.
    pub(super) async fn list_presence(&self, chunk: &Rc<Chunk>) {
        if chunk.presence.listed.borrow().is_some() || chunk.presence.listing.replace(true) {
            return;
        }
        if let Some(member) = chunk.some_current()
            && let Some(entries) = self.list(chunk, member, Seq::ZERO).await
        {
            let view = self.head_view();
            let mut listed = BlockSet::default();
            entries.iter().filter(|e| view.sees(e.version)).for_each(|e| listed.insert(e.block));
            *chunk.presence.listed.borrow_mut() = Some(listed);
        }
        chunk.presence.listing.set(false);
    }
}

/// The shortest range that covers what the volume may have of blocks; `None`: it has none of them.
fn own_part(blocks: &Range<u32>, missing: Option<&BlockSet>) -> Option<Range<u32>> {
    let Some(missing) = missing else { return Some(blocks.clone()) };
    let first = blocks.clone().find(|b| !missing.contains(*b))?;
    let last = blocks.clone().rev().find(|b| !missing.contains(*b))?;
    Some(first..last + 1)
}

fn present_runs(presence: &BlockSet, run: Range<u32>) -> Vec<Range<u32>> {
    let mut wanted = BlockSet::default();
    run.filter(|b| presence.contains(*b)).for_each(|b| wanted.insert(b));
    wanted.runs(BLOCKS_PER_CHUNK, usize::MAX)
}
