//! Scrubbing: every block of every copy is read back now and then, and the copies are compared by digest, while guests
//! go on. What is found bad is copied from another member.

use super::chunk::Chunk;
use super::report::count;
use super::session::Waits;
use super::{Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::join_all;
use bytes::Bytes;
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::{Digest, Reply, Request, Status};
use levee_proto::{BLOCKS_PER_CHUNK, Seq};
use std::rc::Rc;
use std::time::Duration;
use tracing::warn;

/// Before another attempt at a copy that could not be read.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts at comparing the digests of a chunk that is being written to.
const QUIET_ATTEMPTS: u32 = 20;
/// Between them.
const QUIET_PAUSE: Duration = Duration::from_millis(50);

/// Multiples of it are spread evenly whatever they are divided by.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What one pass over a volume found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks read, of all copies.
    pub blocks: u64,
    /// Of these: did not match their checksums.
    pub bad: u64,
    /// Copies that differed from the others.
    pub different: u64,
    /// Copies that could not be looked at, or were behind anyway.
    pub skipped: u64,
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Scrubs the volume again and again, so that a pass takes about `options.scrub_period`; the first perhaps at once.
    pub(super) fn spawn_scrub(&self) {
        let Some(period) = self.0.options.scrub_period else { return };
        let this = self.clone();
        self.0.rt.spawn(async move {
            if this.0.options.scrub_at_once {
                this.until_whole().await;
                if this.scrub_all(Duration::ZERO).await.is_err() {
                    return;
                }
            }
            while !this.is_stopped() && this.scrub_all(period).await.is_ok() {}
        });
    }

    /// Copies are made first.
    async fn until_whole(&self) {
        while self.health().degraded + self.health().waiting > 0 && !self.is_stopped() {
            self.pause(RETRY).await;
        }
    }

    /// One pass in about so much time. It begins somewhere else in each epoch: a volume that is never open for as long as a pass
    /// takes is scrubbed everywhere all the same, sooner or later.
    async fn scrub_all(&self, period: Duration) -> Result<(), Stopped> {
        let mut chunks = self.chunks();
        if chunks.is_empty() {
            self.pause(period / 10).await;
        } else {
            let first = u64::from(self.0.volume.epoch.0).wrapping_mul(SPREAD) % chunks.len() as u64;
            chunks.rotate_left(first as usize);
        }
        for chunk in &chunks {
            self.pause(period / chunks.len() as u32).await;
            self.scrub_chunk(chunk, &mut Scrubbed::default()).await?;
        }
        self.check_stopped()?;
        count(&self.0.counters.scrub_passes, 1);
        Ok(())
    }

    /// Scrubs the whole volume once, in the background of what guests do. What is bad is being repaired when it returns.
    pub async fn scrub(&self, mut tell: impl FnMut(u32, u32)) -> Result<Scrubbed, Stopped> {
        let mut found = Scrubbed::default();
        let chunks = self.chunks();
        for (done, chunk) in chunks.iter().enumerate() {
            tell(done as u32, chunks.len() as u32);
            self.scrub_chunk(chunk, &mut found).await?;
        }
        Ok(found)
    }

    async fn scrub_chunk(&self, chunk: &Rc<Chunk>, found: &mut Scrubbed) -> Result<(), Stopped> {
        self.check_stopped()?;
        if !chunk.is_served() {
            found.skipped += chunk.copies() as u64;
            return Ok(());
        }
        for (i, _) in chunk.members() {
            if !self.scrub_member(chunk, i, found).await? {
                found.skipped += 1;
            }
        }
        self.compare_digests(chunk, found).await
    }

    /// Reads a copy back; whether all of it could be looked at.
    async fn scrub_member(&self, chunk: &Rc<Chunk>, i: usize, found: &mut Scrubbed) -> Result<bool, Stopped> {
        let mut from = 0;
        while from < BLOCKS_PER_CHUNK {
            self.check_stopped()?;
            if !chunk.state.borrow().members[i].is_known() {
                return Ok(false);
            }
            let step = self.begin_step().await;
            let count_blocks = step.blocks.min(BLOCKS_PER_CHUNK - from);
            let target = self.target(chunk, i);
            let request = Request::Scan { target, block: from, count: count_blocks };
            let session = self.session_of(chunk, i);
            let answer = self.ask(Waits::Nobody, &session, &target, request, Bytes::new()).await;
            let mut read = 0;
            match answer {
                Ok((Reply::Scan { blocks, bad, .. }, _)) => {
                    read = blocks;
                    found.blocks += u64::from(blocks);
                    found.bad += bad.len() as u64;
                    count(&self.0.counters.scrubbed_blocks, u64::from(blocks));
                    self.note_bad_blocks(chunk, i, &bad).await;
                    from += count_blocks;
                }
                Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                    self.stop(&format!("a newer gateway exists: {detail}"));
                }
                Ok((Reply::Error { status: Status::FenceFirst, .. }, _)) => {
                    self.distrust(&session, "it was started again");
                    return Ok(false);
                }
                Ok(_) | Err(_) => {
                    drop(step);
                    self.0.rt.sleep(RETRY).await;
                    return Ok(false);
                }
            }
            self.end_step(step, u64::from(read) * BLOCK_SIZE as u64).await;
        }
        Ok(true)
    }

    /// Compares the copies of a chunk at a moment in which nothing is written to it.
    async fn compare_digests(&self, chunk: &Rc<Chunk>, found: &mut Scrubbed) -> Result<(), Stopped> {
        for _ in 0..QUIET_ATTEMPTS {
            self.check_stopped()?;
            let Some(before) = chunk.quiet() else {
                self.0.rt.sleep(QUIET_PAUSE).await;
                continue;
            };
            let members: Vec<usize> = chunk.members().into_iter().map(|(i, _)| i).collect();
            let digests = join_all(members.iter().map(|i| self.digest(chunk, *i))).await;
            if chunk.quiet() != Some(before) {
                continue;
            }
            let Some(digests) = digests.into_iter().collect::<Option<Vec<Digest>>>() else { return Ok(()) };
            let alike = |d: &Digest| digests.iter().filter(|o| *o == d).count();
            let Some(agreed) = digests.iter().copied().max_by_key(alike) else { return Ok(()) };
            let Some(model) = digests.iter().position(|d| *d == agreed).map(|at| members[at]) else { return Ok(()) };
            for (i, _) in members.iter().zip(&digests).filter(|(_, d)| **d != agreed) {
                let settled = self.settled(chunk);
                if self.is_alike(chunk, *i, model, |e| settled.is_settled(e)).await || chunk.quiet() != Some(before) {
                    continue;
                }
                found.different += 1;
                warn!(volume = %self.0.volume.name, chunk = %chunk.id, "a copy differs from the others");
                if alike(&agreed) * 2 > digests.len() {
                    chunk.compare_again(*i);
                    self.session_of(chunk, *i).changed.notify();
                }
            }
            return Ok(());
        }
        Ok(())
    }

    async fn digest(&self, chunk: &Rc<Chunk>, i: usize) -> Option<Digest> {
        let target = self.target(chunk, i);
        let request = Request::Scan { target, block: 0, count: 0 };
        match self.ask(Waits::Nobody, &self.session_of(chunk, i), &target, request, Bytes::new()).await {
            Ok((Reply::Scan { digest, .. }, _)) => Some(digest),
            _ => None,
        }
    }
}

impl Chunk {
    /// If all members hold the same and nothing is being written: the next write's number, and the set's.
    fn quiet(&self) -> Option<(u64, levee_proto::ConfigNo)> {
        let state = self.state.borrow();
        let is_quiet = self.is_served() && self.is_healthy() && state.open.is_empty();
        is_quiet.then(|| (state.next_counter(), state.config()))
    }

    /// It differs from the others, nobody knows in what: as if it had been lost.
    fn compare_again(&self, i: usize) {
        let mut state = self.state.borrow_mut();
        state.members[i].acked = Seq::ZERO;
        state.members[i].fall_behind();
        state.forget_acks(i);
        drop(state);
        self.update_missing(i, |m| {
            m.compare = true;
            m.damaged = true;
        });
        self.changed.notify();
    }
}
