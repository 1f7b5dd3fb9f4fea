//! Chunks without data are given back, so that their room is there for others.
//!
//! Invariant (H14 of the protocol): no write is acknowledged in a chunk that is freed. A chunk is *closed* before the meta server is
//! asked: writes wait, and go to a new chunk, with a new id, once it is known to be freed. Reads go on meanwhile: what they
//! return is zeros either way, at every version. A chunk that was asked to be freed stays closed until the outcome is known.

use super::chunk::{Chunk, Stage};
use super::locks::{Held, Mode};
use super::session::Waits;
use super::{Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::BLOCKS_PER_CHUNK;
use levee_proto::api::{ChunkInfo, ReplicaChange};
use levee_proto::wire::{Reply, Request};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use tracing::info;

/// Between two looks: requests that zero a whole volume come in thousands.
const LOOK: Duration = Duration::from_millis(100);
/// Chunks freed with one request.
const BATCH: usize = 64;
/// How long writes under way are waited for: others wait behind.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// A chunk that writes are kept off.
struct Closed {
    chunk: Rc<Chunk>,
    _held: Held,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.chunk.closing.set(false);
    }
}

/// For so long a write waits for those who may only be waiting themselves, before it asks them to give way.
const PRESS: Duration = Duration::from_secs(1);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Takes a place in the order at `index`, with the first poll, and waits for its turn. The chunk that is there by then, if
    /// one is, and the blocks, held.
    pub(super) async fn hold(&self, index: u32, blocks: &Range<u32>, mode: Mode) -> (Option<Rc<Chunk>>, Held) {
        self.take_turn(index, blocks, mode).await.expect("only a merge is overwritten")
    }

    /// The same of any claim. `None`: it was a merge, and what came later has overwritten its block.
    pub(super) async fn take_turn(
        &self,
        index: u32,
        blocks: &Range<u32>,
        mode: Mode,
    ) -> Option<(Option<Rc<Chunk>>, Held)> {
        let before = self.chunk(index);
        let order = before.as_ref().map_or_else(|| self.0.orders.at(index), |chunk| chunk.locks.clone());
        let mut turn = order.acquire(blocks.clone(), mode);
        let held = match mode {
            Mode::Overwrite if !turn.is_granted() => loop {
                match timeout(&self.0.rt, PRESS, &mut turn).await {
                    Some(held) => break held?,
                    None => turn.press(),
                }
            },
            _ => turn.await?,
        };
        if before.as_ref().is_some_and(|chunk| chunk.is_freed()) {
            crate::reached!("request waited for a chunk that was freed");
            if crate::mutant!("a freed chunk is still written to") {
                return Some((before, held));
            }
        }
        Some((self.chunk(index), held))
    }

    /// Blocks of the chunk at `index`, held to be overwritten; it is allocated if it is not there, while they are held.
    pub(super) async fn hold_allocated(&self, index: u32, blocks: &Range<u32>) -> Result<(Rc<Chunk>, Held), Stopped> {
        if crate::mutant!("the order begins with the chunk") {
            self.allocated(index).await?;
        }
        let (chunk, held) = self.hold(index, blocks, Mode::Overwrite).await;
        let chunk = match chunk {
            Some(chunk) => chunk,
            None => self.allocated(index).await?,
        };
        Ok((chunk, held))
    }

    /// There was nothing to be held at `index`.
    pub(super) fn let_go(&self, index: u32, held: Held) {
        drop(held);
        self.0.orders.tidy(index);
    }

    /// Blocks of the chunk were zeroed. A clone keeps it: it hides what ancestors have there.
    pub(super) fn may_be_empty(&self, chunk: &Chunk) {
        if self.is_clone() {
            return;
        }
        chunk.zeroed.set(true);
        self.0.emptied.notify();
    }

    pub(super) fn spawn_frees(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move {
            while !this.is_stopped() {
                let emptied = this.0.emptied.listen();
                let zeroed: Vec<_> = this.chunks().into_iter().filter(|c| c.zeroed.get()).collect();
                if zeroed.is_empty() {
                    emptied.await;
                    continue;
                }
                for batch in zeroed.chunks(BATCH) {
                    this.free_empty(batch).await;
                }
                this.pause(LOOK).await;
            }
        });
    }

    /// Frees those of the chunks that hold no data. Those that cannot be closed now are looked at again.
    async fn free_empty(&self, chunks: &[Rc<Chunk>]) {
        let empty = join_all(chunks.iter().map(|c| async move {
            c.zeroed.set(false);
            let empty = self.is_empty(c).await;
            if empty.is_none() {
                c.zeroed.set(true);
            }
            (empty == Some(true)).then(|| c.clone())
        }));
        let empty: Vec<Rc<Chunk>> = empty.await.into_iter().flatten().collect();
        let closed: Vec<Closed> = join_all(empty.iter().map(|c| self.close(c))).await.into_iter().flatten().collect();
        if closed.is_empty() {
            return;
        }
        let still_there = self.ask_to_free(&closed).await;
        for c in closed {
            if still_there.as_ref().is_some_and(|left| !left.iter().any(|info| info.index == c.chunk.index)) {
                self.forget(&c.chunk);
            }
        }
        self.0.changed.notify();
    }

    /// Whether a chunk holds no data, as a member says that holds everything; none if no such member answers.
    async fn is_empty(&self, chunk: &Rc<Chunk>) -> Option<bool> {
        if !chunk.is_served() {
            return None;
        }
        let member = self.readable(chunk, &(0..BLOCKS_PER_CHUNK), 0)?;
        let target = self.target(chunk, member);
        let request = Request::Scan { target, block: 0, count: 0 };
        match self.ask(Waits::Guests, &self.session_of(chunk, member), &target, request, Bytes::new()).await {
            Ok((Reply::Scan { data, .. }, _)) => Some(data == 0),
            _ => None,
        }
    }

    /// Keeps writes off a chunk, if it can be done now and the chunk is empty still.
    async fn close(&self, chunk: &Rc<Chunk>) -> Option<Closed> {
        let lock = chunk.locks.acquire(0..BLOCKS_PER_CHUNK, Mode::Shared).held();
        let Some(held) = timeout(&self.0.rt, LOCK_PATIENCE, lock).await else {
            chunk.zeroed.set(true);
            return None;
        };
        if held.has_passed_merges() || chunk.state.borrow().attested != 0 || chunk.closing.get() {
            chunk.zeroed.set(true);
            return None;
        }
        chunk.closing.set(true);
        let closed = Closed { chunk: chunk.clone(), _held: held };
        let empty = self.is_empty(chunk).await;
        if empty.is_none() {
            chunk.zeroed.set(true);
        }
        (empty == Some(true) || crate::mutant!("a chunk with data is freed")).then_some(closed)
    }

    /// Asks until the outcome is known: the chunks that are still there. `None`: the gateway stopped.
    async fn ask_to_free(&self, closed: &[Closed]) -> Option<Vec<ChunkInfo>> {
        let changes: Vec<_> = closed.iter().map(|c| c.chunk.freeing()).collect();
        let answer = self.change_surely(&changes, "freed chunks wait for", |_| Ok(())).await?;
        Some(answer.chunks)
    }

    /// The chunk is no more.
    fn forget(&self, chunk: &Rc<Chunk>) {
        crate::reached!("chunk freed");
        info!(volume = %self.0.volume.name, chunk = %chunk.id, "it held no data and was given back");
        if let Some(slot) = self.0.chunks.borrow_mut().get_mut(chunk.index as usize) {
            debug_assert!(slot.as_ref().is_some_and(|c| Rc::ptr_eq(c, chunk)));
            *slot = None;
        }
        let disks: Vec<_> = chunk.members().into_iter().map(|(_, place)| place).collect();
        chunk.end(self.0.rt.now());
        for place in disks {
            self.session(place).changed.notify();
        }
    }
}

impl Chunk {
    /// That all members leave.
    fn freeing(&self) -> ReplicaChange {
        let remove = self.members().into_iter().map(|(_, place)| place.replica).collect();
        ReplicaChange { index: self.index, config: self.config(), remove, add: 0 }
    }

    fn end(&self, now: Duration) {
        {
            let mut state = self.state.borrow_mut();
            debug_assert!(state.open.values().all(|op| op.answered.get()), "freed with a write under way");
            state.stage = Stage::Freed;
            for i in 0..state.members.len() {
                if !state.members[i].is_gone() {
                    state.remove_member(i, now);
                }
            }
            state.open.clear();
        }
        self.changed.notify();
    }
}
