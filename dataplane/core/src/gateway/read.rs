//! Reads: from one copy that holds every acknowledged write of the range, checked here again.

use super::chunk::Chunk;
use super::locks::Mode;
use super::member::{Member, Slots};
use super::session::Waits;
use super::unread::{Failure, Unread};
use super::write::blocks_of;
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::join_all;
use bytes::{Bytes, BytesMut};
use levee_proto::units::{BLOCK_SIZE, Extent};
use levee_proto::wire::{BlockEntry, BlockKind, Reply, Request, Status};
use levee_proto::{Version, View};
use std::ops::Range;
use std::rc::Rc;
use tracing::warn;

const BLOCK: usize = BLOCK_SIZE;

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Reads `len` bytes at `offset` (multiples of 512). The pieces follow each other.
    ///
    /// # Panics
    /// If the range reaches beyond the volume.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Vec<Bytes>, Failure> {
        if len == 0 {
            self.check_stopped()?;
            return Ok(vec![]);
        }
        self.0.background.guest();
        let first = self.0.volume.geometry.locate(offset, len as u64);
        if first.len as usize == len && offset + len as u64 <= self.size() {
            return Ok(vec![self.read_extent(first).await?]);
        }
        let reads: Vec<_> = self.extents(offset, len as u64).map(|e| self.read_extent(e)).collect();
        join_all(reads).await.into_iter().collect()
    }

    async fn read_extent(&self, e: Extent) -> Result<Bytes, Failure> {
        self.patiently(async |tries| self.try_to_read(e, tries).await).await
    }

    async fn try_to_read(&self, e: Extent, tries: u32) -> Result<Bytes, Unread> {
        let blocks = blocks_of(&e);
        let (chunk, held) = self.hold(e.chunk_index, &blocks, Mode::Shared).await;
        let Some(chunk) = chunk else {
            self.let_go(e.chunk_index, held);
            self.check_stopped()?;
            return self.read_unallocated(e).await;
        };
        let whole = self.giving_way(&held, tries, self.read_locked(&chunk, blocks.clone())).await?;
        chunk.traffic.read(e.len);
        let at = e.offset as usize - blocks.start as usize * BLOCK;
        Ok(whole.slice(at..at + e.len as usize))
    }

    /// Nothing of the chunk was ever written to this volume.
    async fn read_unallocated(&self, e: Extent) -> Result<Bytes, Unread> {
        if !self.0.ancestors.have(e.chunk_index) {
            return Ok(Bytes::from(vec![0; e.len as usize]));
        }
        let blocks = blocks_of(&e);
        let at = e.offset as usize - blocks.start as usize * BLOCK;
        let whole = self.read_layered(None, e.chunk_index, blocks).await?;
        Ok(whole.slice(at..at + e.len as usize))
    }

    /// Reads whole blocks, of one stripe unit, that the caller holds.
    pub(super) async fn read_locked(&self, chunk: &Rc<Chunk>, blocks: Range<u32>) -> Result<Bytes, Unread> {
        if self.is_clone() {
            return self.read_layered(Some(chunk), chunk.index, blocks).await;
        }
        let (entries, data) = self.read_entries(chunk, blocks).await?;
        Ok(assemble(&entries, data))
    }

    /// What the volume itself has of blocks that the caller holds. Asks one copy after the other, each once.
    pub(super) async fn read_entries(
        &self,
        chunk: &Rc<Chunk>,
        blocks: Range<u32>,
    ) -> Result<(Vec<BlockEntry>, Bytes), Unread> {
        self.until_served(chunk).await?;
        let mut tried: Slots = 0;
        loop {
            let changed = chunk.changed.listen();
            self.check_stopped()?;
            if chunk.is_freed() {
                return Ok((blocks.map(BlockEntry::absent).collect(), Bytes::new()));
            }
            let Some(member) = self.readable(chunk, &blocks, tried) else {
                let is_lost = self.is_lost(chunk, &blocks).await;
                return Err(if is_lost { Unread::Lost } else { Unread::NotNow(changed) });
            };
            tried |= 1 << member;
            if let Some(read) = self.read_soon(chunk, member, &blocks, &mut tried).await {
                return Ok(read);
            }
        }
    }

    /// A member that has every acknowledged write of the blocks, the local one first, and last one that was late not
    /// long ago; not one of `tried`.
    pub(super) fn readable(&self, chunk: &Chunk, blocks: &Range<u32>, tried: Slots) -> Option<usize> {
        let state = chunk.state.borrow();
        let fit = |(i, m): &(usize, &Member)| tried & (1 << i) == 0 && m.is_readable(blocks);
        let order = |m: &Member| (self.is_shunned(m.place.disk), m.place.node != self.0.node);
        state.present().filter(fit).min_by_key(|(_, m)| order(m)).map(|(i, _)| i)
    }

    /// Reads from one member, as `view` sees the blocks. `None` if it cannot be used; what follows from that has been done.
    pub(super) async fn read_from(
        &self,
        chunk: &Rc<Chunk>,
        member: usize,
        blocks: Range<u32>,
        view: View,
        reconcile: bool,
        waits: Waits,
    ) -> Option<(Vec<BlockEntry>, Bytes)> {
        let session = self.session_of(chunk, member);
        let target = self.target(chunk, member);
        let (block, count) = (blocks.start, blocks.end - blocks.start);
        let at = view.version;
        let is_one_version =
            view.hidden.first().is_some_and(|(first, _)| *first <= Version::FIRST) || at == Version::FIRST;
        let request = Request::Read { target, block, count, view, reconcile };
        match self.ask(waits, &session, &target, request, Bytes::new()).await {
            Ok((Reply::Read { entries }, data)) if answers(&entries, &blocks) => {
                if is_intact(&entries, &data) {
                    return Some((entries, data));
                }
                self.distrust(&session, "data does not match its checksum on arrival");
            }
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
            }
            Ok((Reply::Error { status: Status::Corrupt, detail }, _)) => {
                warn!(chunk = %chunk.id, node = %session.node, "bad copy: {detail}");
                let version = is_one_version.then_some(at);
                self.find_bad_blocks(chunk, member, blocks, version, reconcile).await;
            }
            Ok((Reply::Error { detail, .. }, _)) => {
                self.distrust_member(chunk, member, &session, &format!("a read was refused: {detail}"));
            }
            Ok(_) => self.distrust(&session, "a read got a wrong answer"),
            Err(_) => {}
        }
        None
    }

    /// Reads exactly one version of blocks from one member, to copy it.
    pub(super) async fn read_version(
        &self,
        chunk: &Rc<Chunk>,
        member: usize,
        blocks: Range<u32>,
        version: Version,
        reconcile: bool,
    ) -> Option<(Vec<BlockEntry>, Bytes)> {
        let read = self.read_from(chunk, member, blocks, View::only(version), reconcile, chunk.waits());
        let (mut entries, data) = read.await?;
        // Nothing at this version, whatever there is at others.
        entries.iter_mut().filter(|e| e.kind == BlockKind::Absent).for_each(|e| e.version = version);
        Some((entries, data))
    }
}

/// Whether the entries are those of `blocks`, in order.
fn answers(entries: &[BlockEntry], blocks: &Range<u32>) -> bool {
    entries.len() == blocks.len() && entries.iter().zip(blocks.clone()).all(|(e, b)| e.block == b)
}

/// Whether this answers a read of `blocks`, intact.
pub(super) fn is_answer(entries: &[BlockEntry], data: &[u8], blocks: &Range<u32>) -> bool {
    answers(entries, blocks) && is_intact(entries, data)
}

/// Whether the data is what the entries say.
fn is_intact(entries: &[BlockEntry], data: &[u8]) -> bool {
    let stated = || entries.iter().filter(|e| e.kind == BlockKind::Data);
    data.len() == stated().count() * BLOCK
        && data.chunks_exact(BLOCK).zip(stated()).all(|(b, e)| crc32c::crc32c(b) == e.crc)
}

/// The blocks as the guest sees them: what has no data reads as zeros.
pub(super) fn assemble(entries: &[BlockEntry], data: Bytes) -> Bytes {
    if data.len() == entries.len() * BLOCK {
        return data;
    }
    let mut whole = BytesMut::zeroed(entries.len() * BLOCK);
    let places = whole.chunks_exact_mut(BLOCK).zip(entries).filter(|(_, e)| e.kind == BlockKind::Data);
    for ((place, _), block) in places.zip(data.chunks_exact(BLOCK)) {
        place.copy_from_slice(block);
    }
    whole.freeze()
}
