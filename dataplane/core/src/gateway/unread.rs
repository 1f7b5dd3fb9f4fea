//! Reads that did not succeed: now, or for good.
//!
//! A block that no copy can give now is waited for without holding up others between tries (`locks`): what overwrites it makes it
//! good again, and must not wait behind who cannot read it. Only when all members of the chunk are there, and each either failed to
//! read what it holds or has never had it, is it lost: the guest is told so, of what it asked for alone. A copy that is
//! away may be the one that is good, however long that takes.

use super::chunk::{Chunk, Stage};
use super::locks::Held;
use super::member::{Member, WriteOp};
use super::{Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::{Listener, timeout};
use levee_proto::{BLOCKS_PER_CHUNK, Version};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tracing::error;

/// Before asking again when no copy can be read, unless something changes earlier.
const RETRY: Duration = Duration::from_millis(50);

/// For so long a read that was made before does not give way; with each try it doubles, as often as this.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 6;
/// A block that could not be read, and that nobody else gives while some copy is away, is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Lost entries that are dealt with in one step of catching a member up.
const LOST_AT_A_TIME: usize = 32;

/// Why a guest's request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It stays unanswered: the next gateway replays it.
    Stopped(Stopped),
    /// What was stored there can be read on no copy any more. Writing whole blocks brings them back.
    Lost,
}

/// Why blocks could not be read at one try.
pub(super) enum Unread {
    Stopped(Stopped),
    /// No copy can be read at this moment; what may change that.
    NotNow(Listener),
    /// Somebody waits for what is held meanwhile.
    GaveWay,
    Lost,
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Failure {
        Failure::Stopped(stopped)
    }
}

impl From<Stopped> for Unread {
    fn from(stopped: Stopped) -> Unread {
        Unread::Stopped(stopped)
    }
}

impl Member {
    /// Whether it is there and cannot give this version of a block, nor is about to.
    fn lacks(&self, block: u32, version: Version) -> bool {
        let owes = |op: &Rc<WriteOp>| op.version == version && op.overlaps(&(block..block + 1));
        let cannot = self.bad.contains(block, version) || self.misses(block, version);
        self.is_known() && cannot && !self.owes.values().any(owes)
    }
}

impl Chunk {
    /// Versions of these blocks that no member can give although all members are there.
    fn lost(&self, blocks: &Range<u32>) -> Vec<(u32, Version)> {
        let state = self.state.borrow();
        let is_there = |m: &Member| m.is_known() || crate::mutant!("a copy that is away counts as bad");
        if state.stage != Stage::Served || !state.present().all(|(_, m)| is_there(m)) {
            return vec![];
        }
        let mut bad: Vec<(u32, Version)> = state.present().flat_map(|(_, m)| m.bad.within(blocks)).collect();
        bad.sort_unstable();
        bad.dedup();
        let everywhere = |(block, version): &(u32, Version)| {
            let mut there = state.present().filter(|(_, m)| m.is_known());
            there.all(|(_, m)| m.lacks(*block, *version))
        };
        bad.retain(everywhere);
        bad
    }

    /// Of what a member misses: what is lost; at most so many.
    pub fn lost_to(&self, i: usize, most: usize) -> Vec<(u32, Version)> {
        let mut lost = self.lost(&(0..BLOCKS_PER_CHUNK));
        let state = self.state.borrow();
        lost.retain(|(block, version)| state.members[i].misses(*block, *version));
        lost.truncate(most);
        lost
    }

    /// Blocks of which something is lost, as far as anybody has tried to read it.
    pub fn lost_blocks(&self) -> Vec<u32> {
        let mut blocks: Vec<u32> = self.lost(&(0..BLOCKS_PER_CHUNK)).into_iter().map(|(block, _)| block).collect();
        blocks.dedup();
        blocks
    }

    /// Members that hold this version of a block and could not read it.
    fn bad_holders(&self, block: u32, version: Version) -> Vec<usize> {
        let state = self.state.borrow();
        state.present().filter(|(_, m)| m.bad.contains(block, version)).map(|(i, _)| i).collect()
    }

    /// A member can read it after all.
    fn is_good_again(&self, i: usize, block: u32, version: Version) {
        let member = &mut self.state.borrow_mut().members[i];
        if member.bad.contains(block, version) {
            member.renew(block..block + 1, version);
        }
    }

    /// What the member missed of an entry is nowhere: it holds the entry like those who cannot read it.
    fn accept_loss(&self, i: usize, block: u32, version: Version) {
        let member = &mut self.state.borrow_mut().members[i];
        if member.misses(block, version) {
            member.renew(block..block + 1, version);
            member.bad.insert(block, version);
        }
    }

    /// What members could not read and others have come to give is sent to them. Returns the members concerned.
    fn miss_what_is_bad(&self) -> Vec<usize> {
        let mut state = self.state.borrow_mut();
        let gives = |(block, version): &(u32, Version), but: usize| {
            state.present().any(|(i, m)| i != but && m.gives(*block, *version))
        };
        let to_heal = |(i, m): (usize, &Member)| {
            let bad = m.bad.within(&(0..BLOCKS_PER_CHUNK));
            let healable: Vec<_> = bad.filter(|e| m.holds_entry(e.0, e.1) && gives(e, i)).collect();
            (i, healable)
        };
        let all: Vec<_> = state.present().map(to_heal).filter(|(_, entries)| !entries.is_empty()).collect();
        for (i, entries) in &all {
            entries.iter().for_each(|(block, version)| state.members[*i].miss_bad(*block, *version));
        }
        all.into_iter().map(|(i, _)| i).collect()
    }

    /// Forgets who could not read what: after a while it is worth another try.
    fn forget_bad(&self) {
        self.state.borrow_mut().members.iter_mut().for_each(|m| m.bad = Default::default());
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Makes attempts, which are told how many were made before, until one succeeds, or never can. What an attempt holds is let go
    /// of before the next.
    pub(super) async fn patiently<T>(&self, attempt: impl AsyncFn(u32) -> Result<T, Unread>) -> Result<T, Failure> {
        for tries in 0.. {
            match attempt(tries).await {
                Ok(done) => return Ok(done),
                Err(unread) => self.try_again(unread).await?,
            }
        }
        unreachable!("tries have no end")
    }

    /// Waits until another attempt makes sense.
    pub(super) async fn try_again(&self, unread: Unread) -> Result<(), Failure> {
        match unread {
            Unread::Stopped(stopped) => return Err(Failure::Stopped(stopped)),
            Unread::Lost => return Err(Failure::Lost),
            Unread::NotNow(changed) => drop(timeout(&self.0.rt, RETRY, changed).await),
            Unread::GaveWay => {}
        }
        Ok(())
    }

    /// Reads what is held, unless somebody has waited for it for long: a copy that hangs must not hold up what makes the others good. The
    /// more often it was tried, the longer the others wait, so that a slow disk answers in the end.
    pub(super) async fn giving_way<T>(
        &self,
        held: &Held,
        tries: u32,
        read: impl Future<Output = Result<T, Unread>>,
    ) -> Result<T, Unread> {
        let end = self.0.rt.now() + PATIENCE * ((1 << tries.min(MAX_DOUBLINGS)) - 1);
        let mut read = pin!(read);
        std::future::poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Pending => match held.poll_pressed(cx) {
                Poll::Ready(()) if self.0.rt.now() >= end => {
                    crate::reached!("read gave way to a write");
                    Poll::Ready(Err(Unread::GaveWay))
                }
                // It is told of the next time as well.
                Poll::Ready(()) => held.poll_pressed(cx).map(|()| Err(Unread::GaveWay)),
                Poll::Pending => Poll::Pending,
            },
            done => done,
        })
        .await
    }

    /// Whether something that the head reads of these blocks is lost. They are held by the caller.
    pub(super) async fn is_lost(&self, chunk: &Rc<Chunk>, blocks: &Range<u32>) -> bool {
        for (block, version) in chunk.lost(blocks) {
            if self.is_read_by_head(chunk, block, version).await && !self.is_read_after_all(chunk, block, version).await
            {
                let volume = &self.0.volume.name;
                error!(%volume, chunk = %chunk.id, block, "no copy can read it, and all are there: the guest gets an error");
                return true;
            }
        }
        false
    }

    /// A member may give what others could not read.
    pub(super) fn heal_bad(&self, chunk: &Rc<Chunk>) {
        for i in chunk.miss_what_is_bad() {
            self.session_of(chunk, i).changed.notify();
        }
    }

    /// Whether no newer version of the block hides this one from the head.
    async fn is_read_by_head(&self, chunk: &Rc<Chunk>, block: u32, version: Version) -> bool {
        if self.head() == Version::FIRST {
            return true;
        }
        let view = self.head_view();
        for (i, _) in chunk.members() {
            let Some(entries) = self.versions_of(chunk, i, block).await else { return false };
            if entries.iter().any(|e| e.version > version && view.sees(e.version)) {
                return false;
            }
        }
        view.sees(version)
    }

    /// Has those who could not read an entry try once more; whether it is not lost.
    async fn is_read_after_all(&self, chunk: &Rc<Chunk>, block: u32, version: Version) -> bool {
        for i in chunk.bad_holders(block, version) {
            let as_evidence = !chunk.has_adopted(i);
            if self.read_version(chunk, i, block..block + 1, version, as_evidence).await.is_some() {
                chunk.is_good_again(i, block, version);
                self.session_of(chunk, i).changed.notify();
                return true;
            }
        }
        !chunk.lost(&(block..block + 1)).contains(&(block, version))
    }

    /// Nobody can give a member what it misses. What is lost is noted at the member as well: it then has all that there is,
    /// and the chunk its redundancy for all the rest. Whether anything came of it.
    pub(super) async fn settle_lost(&self, chunk: &Rc<Chunk>, i: usize) -> bool {
        let lost = chunk.lost_to(i, LOST_AT_A_TIME);
        for (block, version) in &lost {
            if self.is_read_after_all(chunk, *block, *version).await {
                return true;
            }
            if chunk.bad_holders(*block, *version).contains(&i) {
                chunk.accept_loss(i, *block, *version);
            } else if !self.hand_on_loss(chunk, i, *block, *version).await {
                return false;
            }
        }
        if lost.is_empty() && self.0.rt.now() >= chunk.tried_again.get() + TRY_AGAIN {
            chunk.tried_again.set(self.0.rt.now());
            chunk.forget_bad();
        }
        !lost.is_empty()
    }

    async fn hand_on_loss(&self, chunk: &Rc<Chunk>, i: usize, block: u32, version: Version) -> bool {
        let Some(holder) = chunk.bad_holders(block, version).first().copied() else { return false };
        let generation = self.session_of(chunk, i).generation.get();
        let Some(entries) = self.versions_of(chunk, holder, block).await else { return false };
        let Some(entry) = entries.into_iter().find(|e| e.version == version) else { return false };
        let done = self.repair_gone(chunk, i, vec![entry]).await && self.session_of(chunk, i).is_live(generation);
        if done {
            chunk.accept_loss(i, block, version);
        }
        done
    }
}
