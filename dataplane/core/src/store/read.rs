//! Reading: from the index to verified data.

use super::error::StoreError;
use super::index::{Place, Replica, Slot};
use super::layout::ShardGeometry;
use super::limits::*;
use super::segments::Pin;
use super::shard::Shard;
use crate::ports::{Disk, Runtime};
use crate::sync::join_all;
use bytes::{Bytes, BytesMut};
use levee_proto::wire::{BlockEntry, BlockKind};
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, Version, View};

/// Blocks that lie one after the other on the disk.
struct Run {
    location: u32,
    count: u32,
    /// Keeps the segment from being reused meanwhile.
    _pin: Pin,
}

/// What a read found in the index.
struct Plan {
    entries: Vec<BlockEntry>,
    runs: Vec<Run>,
    /// Blocks whose data is known to be gone.
    lost: Vec<u32>,
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Reads `count` blocks as a view sees them: one entry per block, and the data of those of kind Data in order.
    ///
    /// Every block is checked. If any is bad, [`StoreError::Corrupt`] names all that are.
    pub async fn read(
        &self,
        chunk: ChunkId,
        block: u32,
        count: u32,
        view: &View,
    ) -> Result<(Vec<BlockEntry>, Bytes), StoreError> {
        if count == 0 || block.checked_add(count).is_none_or(|end| end > BLOCKS_PER_CHUNK) {
            return Err(StoreError::Invalid("block range of a read"));
        }
        let plan = self.plan(chunk, block..block + count, |r, b| Some((b, r.chains.visible(b, view))))?;
        self.fetch(chunk, plan).await
    }

    /// Reads entries by block and version, like [`Shard::read`]; those that are not there are left out.
    pub async fn read_entries(
        &self,
        chunk: ChunkId,
        wanted: &[(u32, Version)],
    ) -> Result<(Vec<BlockEntry>, Bytes), StoreError> {
        if wanted.len() > MAX_CALL_ENTRIES || wanted.iter().any(|(b, _)| *b >= BLOCKS_PER_CHUNK) {
            return Err(StoreError::Invalid("blocks of a read"));
        }
        let plan = self.plan(chunk, wanted.iter(), |r, (block, version)| {
            Some((*block, r.chains.get(*block, *version))).filter(|(_, s)| s.place != Place::ABSENT)
        })?;
        self.fetch(chunk, plan).await
    }

    async fn fetch(&self, chunk: ChunkId, plan: Plan) -> Result<(Vec<BlockEntry>, Bytes), StoreError> {
        if !plan.lost.is_empty() {
            return Err(StoreError::Corrupt { chunk, blocks: plan.lost });
        }
        let inner = self.inner();
        let read = |r: &Run| inner.disk.read(inner.geometry.block_pos(r.location), r.count as usize * BLOCK);
        let failed = |e: std::io::Error| StoreError::Io(e.to_string().into());
        let blocks: usize = plan.runs.iter().map(|r| r.count as usize).sum();
        let mut check = Check::new(&plan.entries, blocks);
        match &plan.runs[..] {
            [] => {}
            [one] => check.take(&read(one).await.map_err(failed)?),
            many => {
                for buf in join_all(many.iter().map(read)).await {
                    check.take(&buf.map_err(failed)?);
                }
            }
        }
        let (data, bad) = check.finish();
        if bad.is_empty() { Ok((plan.entries, data)) } else { Err(StoreError::Corrupt { chunk, blocks: bad }) }
    }

    fn plan<W>(
        &self,
        chunk: ChunkId,
        wanted: impl ExactSizeIterator<Item = W>,
        find: impl Fn(&Replica, W) -> Option<(u32, Slot)>,
    ) -> Result<Plan, StoreError> {
        let s = self.inner().state.borrow();
        if let Some(e) = &s.failed {
            return Err(e.clone());
        }
        let r = s.index.get(chunk).ok_or(StoreError::UnknownReplica(chunk))?;
        let mut plan = Plan { entries: Vec::with_capacity(wanted.len()), runs: Vec::new(), lost: Vec::new() };
        for (b, slot) in wanted.filter_map(|w| find(r, w)) {
            plan.entries.push(slot.entry(b));
            if let Some(location) = slot.place.location() {
                plan.extend(&s.geometry, location, |segment| s.segments.pin(segment));
            } else if slot.place == Place::LOST {
                plan.lost.push(b);
            }
        }
        Ok(plan)
    }
}

impl Plan {
    /// Adds a block to the last run if it continues it within the segment, else begins another.
    fn extend(&mut self, g: &ShardGeometry, location: u32, pin: impl FnOnce(u32) -> Pin) {
        let segment = g.segment_of(location);
        match self.runs.last_mut() {
            Some(run)
                if run.location + run.count == location
                    && g.segment_of(run.location) == segment
                    && (run.count as usize) < MAX_BATCH_DATA / BLOCK =>
            {
                run.count += 1;
            }
            _ => self.runs.push(Run { location, count: 1, _pin: pin(segment) }),
        }
    }
}

/// Verifies and collects data as it comes, in the order of the entries.
struct Check<'a> {
    expected: std::slice::Iter<'a, BlockEntry>,
    data: BytesMut,
    bad: Vec<u32>,
}

impl<'a> Check<'a> {
    fn new(entries: &'a [BlockEntry], blocks: usize) -> Check<'a> {
        Check { expected: entries.iter(), data: BytesMut::with_capacity(blocks * BLOCK), bad: Vec::new() }
    }

    fn take(&mut self, buf: &[u8]) {
        for stored in buf.chunks_exact(BLOCK) {
            let Some(e) = self.expected.find(|e| e.kind == BlockKind::Data) else { break };
            if crc32c::crc32c(stored) != e.crc && !crate::mutant!("stored checksums ignored") {
                crate::reached!("stored block is corrupt");
                self.bad.push(e.block);
            }
        }
        self.data.extend_from_slice(buf);
    }

    fn finish(self) -> (Bytes, Vec<u32>) {
        (self.data.freeze(), self.bad)
    }
}
