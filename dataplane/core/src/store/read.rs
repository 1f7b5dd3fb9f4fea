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
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, Seq, Version, View};

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
    /// Which entries' data is known to be gone, or not to be readable now.
    lost: Vec<usize>,
}

/// What a read of the disk gave.
enum Piece<D: Disk> {
    Stored(D::ReadBuf),
    /// One block, and where it is.
    Unreadable(u32),
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Reads `count` blocks as a view sees them: one entry per block, and the data of those of kind Data in order.
    ///
    /// Every block is checked. If any is bad, or cannot be read, [`StoreError::Corrupt`] names all that are.
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
        let blocks: usize = plan.runs.iter().map(|r| r.count as usize).sum();
        let mut check = Check::new(&plan, blocks);
        match &plan.runs[..] {
            [] => {}
            [one] => self.read_run(one).await?.into_iter().for_each(|piece| check.take(piece)),
            many => {
                for pieces in join_all(many.iter().map(|run| self.read_run(run))).await {
                    pieces?.into_iter().for_each(|piece| check.take(piece));
                }
            }
        }
        let Check { data, mut bad, unreadable, .. } = check;
        unreadable.iter().for_each(|(location, seq)| self.note_unreadable(*location, *seq));
        if bad.is_empty() && plan.lost.is_empty() {
            return Ok((plan.entries, data.freeze()));
        }
        bad.extend(plan.lost.iter().map(|at| plan.entries[*at].block));
        bad.sort_unstable();
        Err(StoreError::Corrupt { chunk, blocks: bad })
    }

    fn note_unreadable(&self, location: u32, seq: Seq) {
        crate::reached!("stored block is unreadable");
        self.inner().state.borrow_mut().unreadable.note(location, seq, self.inner().rt.now());
    }

    /// Reads a run in one piece, or, if that fails, block by block: a bad sector costs its block, and a cable that shook nothing.
    async fn read_run(&self, run: &Run) -> Result<Vec<Piece<D>>, StoreError> {
        let inner = self.inner();
        let read =
            |location: u32, count: u32| inner.disk.read(inner.geometry.block_pos(location), count as usize * BLOCK);
        match read(run.location, run.count).await {
            Ok(buf) => return Ok(vec![Piece::Stored(buf)]),
            Err(e) => self.check_disk(&e)?,
        }
        let mut pieces = Vec::with_capacity(run.count as usize);
        for location in run.location..run.location + run.count {
            pieces.push(match read(location, 1).await {
                Ok(buf) => Piece::Stored(buf),
                Err(e) => {
                    self.check_disk(&e)?;
                    Piece::Unreadable(location)
                }
            });
        }
        Ok(pieces)
    }

    /// A read failed: was it the place, or is it the whole disk?
    fn check_disk(&self, e: &std::io::Error) -> Result<(), StoreError> {
        let is_whole = self.inner().disk.has_failed() || crate::mutant!("an unreadable sector is the whole disk's");
        if is_whole { Err(StoreError::Io(e.to_string().into())) } else { Ok(()) }
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
        let now = self.inner().rt.now();
        for (b, slot) in wanted.filter_map(|w| find(r, w)) {
            if slot.place == Place::LOST || s.unreadable.knows(&slot, now) {
                plan.lost.push(plan.entries.len());
            } else if let Some(location) = slot.place.location() {
                plan.extend(&s.geometry, location, |segment| s.segments.pin(segment));
            }
            plan.entries.push(slot.entry(b));
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
    plan: &'a Plan,
    /// The next entry.
    at: usize,
    data: BytesMut,
    bad: Vec<u32>,
    /// Where, and whose data it was.
    unreadable: Vec<(u32, Seq)>,
}

impl<'a> Check<'a> {
    fn new(plan: &'a Plan, blocks: usize) -> Check<'a> {
        let (bad, unreadable) = (Vec::new(), Vec::new());
        Check { plan, at: 0, data: BytesMut::with_capacity(blocks * BLOCK), bad, unreadable }
    }

    fn take<D: Disk>(&mut self, piece: Piece<D>) {
        match piece {
            Piece::Stored(buf) => self.take_stored(&buf),
            Piece::Unreadable(location) => {
                let Some(e) = self.next() else { return };
                self.bad.push(e.block);
                self.unreadable.push((location, e.seq));
            }
        }
    }

    fn take_stored(&mut self, buf: &[u8]) {
        for stored in buf.chunks_exact(BLOCK) {
            let Some(e) = self.next() else { break };
            if crc32c::crc32c(stored) != e.crc && !crate::mutant!("stored checksums ignored") {
                crate::reached!("stored block is corrupt");
                self.bad.push(e.block);
            }
        }
        self.data.extend_from_slice(buf);
    }

    /// The next entry whose data is read.
    fn next(&mut self) -> Option<&'a BlockEntry> {
        loop {
            let at = self.at;
            self.at += 1;
            let e = self.plan.entries.get(at)?;
            if e.kind == BlockKind::Data && self.plan.lost.binary_search(&at).is_err() {
                return Some(e);
            }
        }
    }
}
