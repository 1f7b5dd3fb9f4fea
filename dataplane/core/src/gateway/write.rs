//! Writes: ordered, sent to all copies at once, answered when enough have them durably.

use super::chunk::{Chunk, Stage};
use super::locks::{Held, Mode};
use super::member::{MAX_SLOTS, Waiter, WriteOp};
use super::report::count;
use super::session::Session;
use super::unread::{Failure, Unread};
use super::{Answer, Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::{join_all, oneshot};
use bytes::{Bytes, BytesMut};
use levee_proto::units::{BLOCK_SIZE, Extent};
use levee_proto::wire::{BlockKind, Crcs, Reply, Request, Status};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Before a write is sent again to a full disk.
const FULL_RETRY: Duration = Duration::from_millis(200);
const BLOCK: u32 = BLOCK_SIZE as u32;

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Writes `data` at `offset` (bytes, multiples of 512). `Ok` means durable on `min_copies` copies.
    ///
    /// The request takes its place in the order when the future is first polled.
    ///
    /// # Panics
    /// If the range reaches beyond the volume.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), Failure> {
        let len = data.len() as u64;
        self.check_writable()?;
        if len == 0 {
            return Ok(());
        }
        self.0.background.guest();
        let first = self.0.volume.geometry.locate(offset, len);
        if u64::from(first.len) == len && offset + len <= self.size() {
            return self.write_extent(first, data).await;
        }
        let mut at = 0;
        let writes: Vec<_> = self
            .extents(offset, len)
            .map(|e| {
                let piece = data.slice(at..at + e.len as usize);
                at += e.len as usize;
                self.write_extent(e, piece)
            })
            .collect();
        join_all(writes).await.into_iter().collect()
    }

    /// Zeroes a range (bytes, multiples of 512); its space is given back. Where nothing was ever written the meta server is asked whether
    /// this is still the volume's gateway.
    pub async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Failure> {
        self.check_writable()?;
        self.0.background.guest();
        let zeroes = self.extents(offset, len).map(|e| self.zero_extent(e, true)).collect::<Vec<_>>();
        join_all(zeroes).await.into_iter().collect()
    }

    /// Gives the whole blocks of a range back; they read as zeros from then on, unless this gateway has been replaced: then
    /// nothing is promised.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<(), Failure> {
        self.check_writable()?;
        self.0.background.guest();
        let zeroes = self.extents(offset, len).map(|e| self.zero_extent(e, false)).collect::<Vec<_>>();
        join_all(zeroes).await.into_iter().collect()
    }

    /// All parts take their places at once.
    async fn write_extent(&self, e: Extent, data: Bytes) -> Result<(), Failure> {
        if is_aligned(&e) {
            return self.write_whole(e, data).await;
        }
        let piece =
            |part: &Extent| data.slice((part.offset - e.offset) as usize..(part.offset + part.len - e.offset) as usize);
        let writes = parts_of(&e).into_iter().map(|part| async move {
            match is_aligned(&part) {
                true => self.write_whole(part, piece(&part)).await,
                false => self.write_part(part, &piece(&part)).await,
            }
        });
        join_all(writes).await.into_iter().collect()
    }

    async fn write_whole(&self, e: Extent, data: Bytes) -> Result<(), Failure> {
        let blocks = blocks_of(&e);
        let (chunk, held) = self.hold_allocated(e.chunk_index, &blocks).await?;
        chunk.traffic.write(e.len);
        Ok(self.write_locked(&chunk, BlockKind::Data, blocks, data, held).await?)
    }

    /// Writes a part of one block, whose place in the order it takes.
    async fn write_part(&self, e: Extent, data: &[u8]) -> Result<(), Failure> {
        let is_unheld = crate::mutant!("merge without holding the blocks");
        let hold = if is_unheld { 0..0 } else { blocks_of(&e) };
        if crate::mutant!("the order begins with the chunk") {
            self.allocated(e.chunk_index).await?;
        }
        let Some((chunk, held)) = self.take_turn(e.chunk_index, &hold, Mode::Merge).await else {
            return self.overwritten();
        };
        self.merge(e, data, chunk, held).await
    }

    /// Makes a whole block of a held one and of new bytes for a part of it. As long as it cannot be read others may pass.
    async fn merge(&self, e: Extent, data: &[u8], mut there: Option<Rc<Chunk>>, mut held: Held) -> Result<(), Failure> {
        let (blocks, index) = (blocks_of(&e), e.chunk_index);
        for tries in 0.. {
            let chunk = match there {
                Some(chunk) => chunk,
                None => self.allocated(index).await?,
            };
            match self.giving_way(&held, tries, self.merged(&chunk, &e, data)).await {
                Ok(whole) => {
                    if crate::mutant!("merge without holding the blocks") {
                        held = self.hold(index, &blocks, Mode::Exclusive).await.1;
                    }
                    chunk.traffic.write(e.len);
                    return Ok(self.write_locked(&chunk, BlockKind::Data, blocks, whole, held).await?);
                }
                Err(unread) => {
                    let aside = held.stand_aside();
                    self.try_again(unread).await?;
                    match aside.resume().await {
                        Some(again) => held = again,
                        None => return self.overwritten(),
                    }
                    there = self.chunk(index);
                }
            }
        }
        unreachable!("tries have no end")
    }

    /// A merge whose block somebody has overwritten who came later, and was answered. A gateway that has stopped promises nothing.
    fn overwritten(&self) -> Result<(), Failure> {
        crate::reached!("merge was overwritten before it began");
        Ok(self.check_stopped()?)
    }

    /// The whole block, held by the caller.
    async fn merged(&self, chunk: &Rc<Chunk>, e: &Extent, data: &[u8]) -> Result<Bytes, Unread> {
        let blocks = blocks_of(e);
        let old = self.read_locked(chunk, blocks.clone()).await?;
        let mut whole = BytesMut::from(&old[..]);
        let at = (e.offset - blocks.start * BLOCK) as usize;
        whole[at..at + data.len()].copy_from_slice(data);
        Ok(whole.freeze())
    }

    /// `edges`: blocks that are only partly in the range are zeroed in part, else left alone. All parts take their places at once.
    async fn zero_extent(&self, e: Extent, edges: bool) -> Result<(), Failure> {
        let parts = parts_of(&e).into_iter().filter(|part| edges || is_aligned(part));
        let zeroes = parts.map(|part| self.zero_part(part, edges));
        join_all(zeroes).await.into_iter().collect()
    }

    /// Zeroes whole blocks, or a part of one. `must`: the zeroes are promised.
    async fn zero_part(&self, e: Extent, must: bool) -> Result<(), Failure> {
        let (index, blocks) = (e.chunk_index, blocks_of(&e));
        let mode = if is_aligned(&e) { Mode::Overwrite } else { Mode::Merge };
        let Some((chunk, held)) = self.take_turn(index, &blocks, mode).await else { return self.overwritten() };
        // What an ancestor has there is to be hidden.
        if chunk.is_none() && !self.0.ancestors.have(index) {
            self.let_go(index, held);
            return self.zero_nothing(must).await;
        }
        if mode == Mode::Merge {
            return self.merge(e, &zeros(e.len), chunk, held).await;
        }
        let chunk = match chunk {
            Some(chunk) => chunk,
            None => self.allocated(index).await?,
        };
        self.write_locked(&chunk, BlockKind::Zero, blocks, Bytes::new(), held).await?;
        self.may_be_empty(&chunk);
        Ok(())
    }

    /// There was no chunk whose blocks could be zeroed.
    async fn zero_nothing(&self, must: bool) -> Result<(), Failure> {
        let done = if must { self.confirm_epoch().await } else { self.check_stopped() };
        Ok(done?)
    }

    /// Writes whole blocks that are held exclusively, and are until the write is answered: also if the caller
    /// does not wait for that, nobody may see it before.
    pub(super) async fn write_locked(
        &self,
        chunk: &Rc<Chunk>,
        kind: BlockKind,
        blocks: Range<u32>,
        data: Bytes,
        held: Held,
    ) -> Result<(), Stopped> {
        self.until_served(chunk).await?;
        if self.is_clone() {
            chunk.presence.write(blocks.clone());
        }
        let (answer, answered) = oneshot();
        let op = Rc::new(WriteOp {
            seq: chunk.next_seq(self.0.volume.epoch),
            version: self.head(),
            kind,
            block: blocks.start,
            count: blocks.end - blocks.start,
            crcs: if kind == BlockKind::Data { Crcs::of(&data) } else { Crcs::none() },
            data,
            acked: Cell::new(0),
            owed_by: Cell::new(0),
            waiter: Cell::new(Some(Waiter { answer, held })),
            starved: Cell::new(false),
            answered: Cell::new(false),
        });
        self.start(chunk, &op);
        match answered.await {
            Some(()) => Ok(()),
            None => Err(self.stopped().unwrap_or_else(|| Stopped("the gateway stopped".into()))),
        }
    }

    /// Waits until the chunk is served, or was given back.
    pub(super) async fn until_served(&self, chunk: &Rc<Chunk>) -> Result<(), Stopped> {
        loop {
            let changed = chunk.changed.listen();
            self.check_stopped()?;
            if chunk.is_served() || chunk.is_freed() {
                return Ok(());
            }
            changed.await;
        }
    }

    fn start(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>) {
        debug_assert_eq!(chunk.stage(), Stage::Served);
        for i in chunk.begin(op) {
            self.send_write(chunk, op, i);
        }
    }

    /// Sends again what a member that is live again has not acknowledged.
    pub(super) fn resend_open(&self, chunk: &Rc<Chunk>, member: usize) {
        let session = self.session_of(chunk, member);
        for op in chunk.owe_open(member) {
            if op.answered.get() && session.owe(op.data.len()) {
                return self.lose(&session, "it is too far behind");
            }
            crate::reached!("open write sent again");
            if crate::mutant!("retry reads the guest's pages again") && op.kind == BlockKind::Data {
                let changed = Bytes::from(vec![0x5a; op.data.len()]);
                self.send_data(chunk, &op, member, changed.clone(), Crcs::of(&changed));
                continue;
            }
            self.send_write(chunk, &op, member);
        }
    }

    fn send_write(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>, member: usize) {
        self.send_data(chunk, op, member, op.data.clone(), op.crcs.clone());
    }

    fn send_data(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>, member: usize, data: Bytes, crcs: Crcs) {
        let session = self.session_of(chunk, member);
        let target = self.target(chunk, member);
        let request = Request::Write {
            target,
            kind: op.kind,
            version: op.version,
            seq: op.seq,
            block: op.block,
            count: op.count,
            crcs,
        };
        let (this, chunk, op2, s2) = (self.clone(), chunk.clone(), op.clone(), session.clone());
        let done = Box::new(move |answer| this.write_answered(&chunk, &op2, member, &s2, answer));
        self.send(&session, &target, request, data, done);
    }

    fn write_answered(
        &self,
        chunk: &Rc<Chunk>,
        op: &Rc<WriteOp>,
        member: usize,
        session: &Rc<Session>,
        answer: Answer,
    ) {
        match answer {
            Ok((Reply::Done, _)) => self.acknowledge(chunk, op, member, session),
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
            }
            Ok((Reply::Error { status: Status::Full, .. }, _)) => self.write_later(chunk, op, member, session),
            Ok((Reply::Error { detail, .. }, _)) => {
                self.distrust_member(chunk, member, session, &format!("a write was refused: {detail}"));
            }
            Ok(_) => self.distrust(session, "a write got a wrong answer"),
            // The session has ended, and with it the member misses the blocks.
            Err(_) => {}
        }
    }

    fn acknowledge(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>, member: usize, session: &Rc<Session>) {
        if op.answered.get() {
            session.repay(op.data.len());
        }
        if chunk.acknowledge(op, member, self.min_copies()) {
            self.answer(chunk, op);
        }
    }

    /// The write is durable: the guest is told, unless the answer is held back.
    pub(super) fn answer(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>) {
        if op.starved.replace(false) {
            let waiting = &self.0.counters.without_space;
            waiting.set(waiting.get() - 1);
        }
        if let Some(waiter) = op.waiter.take() {
            self.0.hold.answer(op.version, waiter);
        }
        self.charge_late_members(chunk, op);
    }

    /// The guest has its answer; those who have not written yet owe it, up to a bound.
    fn charge_late_members(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>) {
        for i in (0..MAX_SLOTS).filter(|i| op.is_owed_by(*i)) {
            let session = self.session_of(chunk, i);
            if session.owe(op.data.len()) {
                self.lose(&session, "it is too far behind");
            }
        }
    }

    /// The member's disk is full. If the guest has its answer, the member is caught up later; else
    /// the write is sent again until there is space.
    fn write_later(&self, chunk: &Rc<Chunk>, op: &Rc<WriteOp>, member: usize, session: &Rc<Session>) {
        let (this, chunk, op, session) = (self.clone(), chunk.clone(), op.clone(), session.clone());
        let generation = session.generation.get();
        if !op.answered.get() && !op.starved.replace(true) {
            count(&self.0.counters.without_space, 1);
        }
        self.0.rt.spawn(async move {
            this.0.rt.sleep(FULL_RETRY).await;
            // The member may have been lost, or have left the chunk.
            if !session.is_live(generation) || !op.is_owed_by(member) {
                return;
            }
            if op.answered.get() {
                session.repay(op.data.len());
                chunk.give_up(&op, member);
                session.changed.notify();
            } else {
                this.send_write(&chunk, &op, member);
            }
        });
    }
}

fn zeros(len: u32) -> Bytes {
    Bytes::from(vec![0; len as usize])
}

/// Whether an extent is whole blocks.
fn is_aligned(e: &Extent) -> bool {
    e.offset.is_multiple_of(BLOCK) && e.len.is_multiple_of(BLOCK)
}

/// What an extent has of its first block, if that is not all; its whole blocks; and what it has of its last one.
fn parts_of(e: &Extent) -> Vec<Extent> {
    let end = e.offset + e.len;
    let whole = e.offset.div_ceil(BLOCK) * BLOCK..end / BLOCK * BLOCK;
    if whole.start > whole.end {
        return vec![*e];
    }
    let parts = [e.offset..whole.start, whole.clone(), whole.end..end];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.map(|part| Extent { offset: part.start, len: part.end - part.start, ..*e }).collect()
}

/// The blocks that an extent touches.
pub(super) fn blocks_of(e: &Extent) -> Range<u32> {
    e.offset / BLOCK..(e.offset + e.len).div_ceil(BLOCK)
}
