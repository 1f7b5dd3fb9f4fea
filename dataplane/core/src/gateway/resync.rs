//! Catching up: a member that missed something is brought up to date while it takes new writes.
//!
//! One worker per session goes through the disk's members that are behind. What they miss is known
//! (writes of this epoch while the node was away) or found by comparing entries with another
//! member; then blocks are copied, each from any member that holds it, and the member adopts the epoch if
//! it has not. Copies never undo a newer write: the replica merges entries of this epoch by seq, and
//! replaces older ones.

use super::chunk::{Chunk, ToCopy};
use super::entry_set::EntrySet;
use super::member::{Missing, Sync};
use super::reconcile::differences;
use super::report::count;
use super::session::{Session, Waits};
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::wire::{BlockEntry, MAX_LIST, Reply, Request, Scope, Status};
use levee_proto::{Epoch, Seq, Version};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use tracing::debug;

/// Runs of blocks copied at a time.
const COPY_RUNS: usize = 32;
/// Chunks of one disk that are caught up at a time.
const CHUNKS: usize = 8;
/// Before trying again what could not be done.
const RETRY: Duration = Duration::from_millis(100);

/// Entries of older epochs are part of what was decided. What this epoch writes may become void at the next takeover, until it
/// is committed.
pub(super) struct Settled {
    epoch: Epoch,
    committed: Seq,
}

impl Settled {
    pub fn is_settled(&self, e: &BlockEntry) -> bool {
        e.seq.epoch() < self.epoch || e.seq <= self.committed
    }
}

/// What the next step of catching a member up is.
enum Step {
    Create,
    Compare,
    Copy,
    Adopt,
    Finish,
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Catches the disk's members up, until the session ends.
    pub(super) async fn catch_up(&self, session: &Rc<Session>) {
        let generation = session.generation.get();
        while session.is_live(generation) {
            let changed = session.changed.listen();
            let behind: Vec<_> = self.chunks().into_iter().filter(|c| self.next_step(c, session).is_some()).collect();
            if behind.is_empty() && !self.is_used(session) {
                // Whoever comes next begins anew.
                return session.fail("no copies are there any more");
            }
            if behind.is_empty() {
                self.rest(session, changed).await;
                continue;
            }
            let (queue, done) = (RefCell::new(behind.into_iter()), Cell::new(0));
            let worker = || async {
                while let Some(chunk) = { queue.borrow_mut().next() } {
                    done.set(done.get() + self.catch_up_chunk(&chunk, session, generation).await);
                }
            };
            join_all((0..CHUNKS).map(|_| worker())).await;
            if done.get() == 0 && session.is_live(generation) {
                timeout(&self.0.rt, RETRY, session.changed.listen()).await;
            }
        }
    }

    /// Takes as many steps as it can for the disk's member of one chunk; how many.
    pub(super) async fn catch_up_chunk(&self, chunk: &Rc<Chunk>, session: &Rc<Session>, generation: u64) -> usize {
        let mut steps = 0;
        while session.is_live(generation) && self.advance(chunk, session, generation).await {
            steps += 1;
        }
        steps
    }

    /// What has to be done next for the disk's member of a decided chunk.
    fn next_step(&self, chunk: &Chunk, session: &Session) -> Option<Step> {
        let i = chunk.member_on(session.disk)?;
        let state = chunk.state.borrow();
        if state.stage == super::Stage::InDoubt {
            return None;
        }
        let Sync::Behind(missing) = &state.members[i].sync else { return None };
        Some(match missing {
            Missing { create: true, .. } => Step::Create,
            Missing { compare: true, .. } => Step::Compare,
            Missing { dirty, .. } if !dirty.is_empty() => Step::Copy,
            Missing { adopt: true, .. } => Step::Adopt,
            _ => Step::Finish,
        })
    }

    /// Takes one step, unless one is under way; whether it succeeded.
    async fn advance(&self, chunk: &Rc<Chunk>, session: &Rc<Session>, generation: u64) -> bool {
        let (Some(step), Some(i)) = (self.next_step(chunk, session), chunk.member_on(session.disk)) else {
            return false;
        };
        if std::mem::replace(&mut chunk.state.borrow_mut().members[i].busy, true) {
            return false;
        }
        let done = self.take_step(step, chunk, i, session, generation).await;
        chunk.state.borrow_mut().members[i].busy = false;
        done
    }

    async fn take_step(&self, step: Step, chunk: &Rc<Chunk>, i: usize, session: &Rc<Session>, generation: u64) -> bool {
        match step {
            Step::Create => self.make(chunk, i, session, generation).await,
            Step::Compare => {
                // Lists of thousands of entries: few at a time while guests work, unless they wait for this very chunk.
                let pace = if chunk.is_served() { Some(self.begin_step().await) } else { None };
                let compared = self.compare(chunk, i, session, generation).await;
                if let Some(pace) = pace {
                    self.end_step(pace, 0).await;
                }
                compared
            }
            Step::Copy => self.copy(chunk, i, session, generation).await,
            Step::Adopt => {
                let place = chunk.place(i);
                let core = self.0.cluster.core_of(place.node, place.disk, chunk.id);
                let adopted =
                    self.adopt(chunk.waits(), session, core, vec![(place.disk, chunk.id, place.replica)]).await;
                let done = |m: &mut Missing| {
                    m.adopt = false;
                    m.unreadable = false;
                };
                adopted && session.is_live(generation) && chunk.update_missing(i, done)
            }
            Step::Finish => {
                let finished = chunk.finish(i);
                self.heal_bad(chunk);
                chunk.serve_if_adopted(self.min_copies());
                debug!(chunk = %chunk.id, node = %session.node, "caught up");
                self.0.changed.notify();
                finished
            }
        }
    }

    async fn make(&self, chunk: &Rc<Chunk>, i: usize, session: &Rc<Session>, generation: u64) -> bool {
        let born_adopted = matches!(&chunk.state.borrow().members[i].sync, Sync::Behind(m) if !m.compare);
        if self.create_replica(chunk, i, born_adopted).await != Some(generation) || !session.is_live(generation) {
            return false;
        }
        chunk.made(i, !born_adopted && session.forgetful.get());
        self.resend_open(chunk, i);
        true
    }

    /// Finds out what the member misses, by comparing it with one that need not be complete itself: of an entry that
    /// this one may not hold, the member holds the newest state only if it has a write of this epoch and was not
    /// away since.
    async fn compare(&self, chunk: &Rc<Chunk>, i: usize, session: &Rc<Session>, generation: u64) -> bool {
        let Some(source) = chunk.to_compare_with(i) else { return false };
        let mut doubtful = chunk.doubtful(source);
        // What both have committed is the same on both, unless one has lost some.
        let is_whole = matches!(&chunk.state.borrow().members[i].sync, Sync::Behind(m) if !m.damaged);
        let above = if is_whole { self.commit_of(chunk, i).min(self.commit_of(chunk, source)) } else { Seq::ZERO };
        let Some(theirs) = self.list(chunk, i, above).await else { return false };
        let Some(ours) = self.list(chunk, source, above).await else { return false };
        doubtful.extend(&chunk.doubtful(source));
        let (epoch, settled) = (self.0.volume.epoch, self.settled(chunk));
        let different = differences(&theirs, &ours, &self.keep(), |e| settled.is_settled(e));
        session.is_live(generation)
            && chunk.update_missing(i, |m| {
                let new = theirs.iter().filter(|e| !m.damaged && e.seq.epoch() == epoch);
                let new: Vec<_> =
                    new.map(|e| (e.block, e.version)).filter(|(b, v)| doubtful.contains(*b, *v)).collect();
                if crate::mutant!("the source of a comparison is whole") {
                    doubtful = EntrySet::default();
                }
                different.iter().for_each(|(b, v)| doubtful.insert(*b, *v));
                new.iter().for_each(|(b, v)| doubtful.remove(*b, *v));
                // What it got after it was listed.
                doubtful.subtract(&std::mem::take(&mut m.renewed));
                m.dirty.extend(&doubtful);
                m.compare = false;
                m.damaged = false;
            })
    }

    /// Which of a decided chunk's entries can never become void.
    pub(super) fn settled(&self, chunk: &Chunk) -> Settled {
        Settled { epoch: self.0.volume.epoch, committed: chunk.committed.get() }
    }

    /// Copies entries of one version from another member. What cannot be copied stays noted as missing.
    async fn copy(&self, chunk: &Rc<Chunk>, i: usize, session: &Rc<Session>, generation: u64) -> bool {
        let pace = self.begin_step().await;
        // Several survivors are read from at the same time: each chunk, and each step, begins with another.
        let turn = chunk.id.0 as usize + self.0.counters.copied_bytes.get() as usize / (1 << 20);
        let Some(ToCopy { source, version, runs }) = chunk.to_copy(i, pace.blocks, COPY_RUNS, turn) else {
            return self.settle_lost(chunk, i).await;
        };
        if !session.is_live(generation) {
            return false;
        }
        chunk.update_missing(i, |m| {
            runs.iter().cloned().for_each(|run| m.dirty.remove_range(run, version));
            runs.iter().cloned().for_each(|run| m.sending.insert_range(run, version));
        });
        let reads = join_all(runs.iter().map(|run| self.read_for_copy(chunk, source, run.clone(), version))).await;
        let (entries, data): (Vec<_>, Vec<_>) = reads.into_iter().flatten().unzip();
        let entries = entries.concat();
        let blocks: Vec<u32> = entries.iter().map(|e| e.block).collect();
        let bytes = data.iter().map(|d| d.len() as u64).sum();
        let copied = !entries.is_empty() && self.repair(chunk, i, entries, one_buffer(data)).await;
        count(&self.0.counters.copied_bytes, if copied { bytes } else { 0 });
        // If the session ended, `sending` has been noted as missing again, and is none of ours.
        let noted = session.is_live(generation)
            && chunk.update_missing(i, |m| {
                // A write that came meanwhile has taken its blocks out.
                let mut failed = std::mem::take(&mut m.sending);
                blocks.iter().filter(|_| copied).for_each(|b| failed.remove(*b, version));
                m.dirty.extend(&failed);
            });
        if noted && copied {
            chunk.healed(i, &blocks, version);
        }
        self.end_step(pace, bytes).await;
        noted && copied
    }

    /// Reads one version of a run from a member, or of it what can be read.
    async fn read_for_copy(
        &self,
        chunk: &Rc<Chunk>,
        source: usize,
        run: Range<u32>,
        version: Version,
    ) -> Vec<(Vec<BlockEntry>, Bytes)> {
        let as_evidence = !chunk.has_adopted(source);
        if let Some(all) = self.read_version(chunk, source, run.clone(), version, as_evidence).await {
            return vec![all];
        }
        let mut pieces = vec![];
        for block in run.filter(|_| chunk.state.borrow().members[source].is_known()) {
            pieces.extend(self.read_version(chunk, source, block..block + 1, version, as_evidence).await);
        }
        pieces
    }

    /// Brings entries of a member to the given states; whether that is durable.
    pub(super) async fn repair(&self, chunk: &Rc<Chunk>, member: usize, entries: Vec<BlockEntry>, data: Bytes) -> bool {
        self.send_repair(chunk, member, Scope::Named, entries, data).await
    }

    /// Has a member note entries whose data is on no copy any more; whether that is durable.
    pub(super) async fn repair_gone(&self, chunk: &Rc<Chunk>, member: usize, entries: Vec<BlockEntry>) -> bool {
        self.send_repair(chunk, member, Scope::Gone, entries, Bytes::new()).await
    }

    async fn send_repair(
        &self,
        chunk: &Rc<Chunk>,
        member: usize,
        scope: Scope,
        entries: Vec<BlockEntry>,
        data: Bytes,
    ) -> bool {
        let session = self.session_of(chunk, member);
        let target = self.target(chunk, member);
        let request = Request::Repair { target, scope, entries };
        match self.ask(chunk.waits(), &session, &target, request, data).await {
            Ok((Reply::Done, _)) => true,
            Ok((Reply::Error { status: Status::Full, .. }, _)) | Err(_) => false,
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
                false
            }
            Ok((reply, _)) => {
                self.distrust_member(chunk, member, &session, &format!("a repair was refused: {reply:?}"));
                false
            }
        }
    }

    /// Up to where a member is known to hold what all do. Zero for one that has lost entries.
    pub(super) fn commit_of(&self, chunk: &Chunk, member: usize) -> Seq {
        self.summary(chunk, member).filter(|s| !s.damaged).map_or(Seq::ZERO, |s| s.commit)
    }

    /// What a member holds above a seq, block by block, the newest version first. `None` if it cannot say.
    pub(super) async fn list(&self, chunk: &Rc<Chunk>, member: usize, above: Seq) -> Option<Vec<BlockEntry>> {
        let session = self.session_of(chunk, member);
        let target = self.target(chunk, member);
        let (mut all, mut next) = (Vec::<BlockEntry>::new(), (0, Version::MAX));
        loop {
            let (from, from_version) = next;
            let request = Request::List { target, from, from_version, max: MAX_LIST as u32, above };
            match self.ask(Waits::Guests, &session, &target, request, Bytes::new()).await {
                Ok((Reply::List { entries, more }, _)) if is_ordered(&entries, next) => {
                    next = entries.last().map_or(next, after);
                    let stuck = more && entries.is_empty();
                    all.extend(entries);
                    if !more {
                        return Some(all);
                    }
                    if stuck {
                        self.distrust(&session, "a listing does not end");
                        return None;
                    }
                }
                Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                    self.stop(&format!("a newer gateway exists: {detail}"));
                    return None;
                }
                Ok((reply, _)) => {
                    self.distrust_member(chunk, member, &session, &format!("no listing: {reply:?}"));
                    return None;
                }
                Err(_) => return None,
            }
        }
    }
}

/// The pieces, one after the other; mostly there is but one.
fn one_buffer(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() }
}

/// Where a listing goes on after an entry.
fn after(e: &BlockEntry) -> (u32, Version) {
    match e.version.0.checked_sub(1) {
        Some(version) => (e.block, Version(version)),
        None => (e.block + 1, Version::MAX),
    }
}

/// Whether entries are in the order of listings, and begin where they should.
fn is_ordered(entries: &[BlockEntry], from: (u32, Version)) -> bool {
    let place = |e: &BlockEntry| (e.block, Reverse(e.version));
    entries.first().is_none_or(|e| place(e) >= (from.0, Reverse(from.1)))
        && entries.windows(2).all(|w| place(&w[0]) < place(&w[1]))
}
