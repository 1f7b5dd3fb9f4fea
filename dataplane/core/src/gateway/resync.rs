//! Catching up: a member that missed something is brought up to date while it takes new writes.
//!
//! One worker per session goes through the node's members that are behind. What they miss is known
//! (writes of this epoch while the node was away) or found by comparing entries with a current
//! member; then blocks are copied, and the member adopts the epoch if it has not. Copies never undo a
//! newer write: the replica merges entries of this epoch by seq, and replaces older ones.

use super::chunk::{Chunk, Missing, Sync};
use super::reconcile::differences;
use super::session::Session;
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::wire::{BlockEntry, MAX_BLOCKS, MAX_LIST, Reply, Request, Status};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use tracing::debug;

/// Blocks copied at a time, and of how many runs.
const COPY_BLOCKS: u32 = 256;
const COPY_RUNS: usize = 32;
const _: () = assert!(COPY_BLOCKS <= MAX_BLOCKS);
/// Before trying again what could not be done.
const RETRY: Duration = Duration::from_millis(100);
/// How often the members are looked at when nothing is heard.
const LOOK: Duration = Duration::from_secs(1);

/// What the next step of catching a member up is.
enum Step {
    Create,
    Compare,
    Copy(Vec<Range<u32>>),
    Adopt,
    Finish,
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Catches the node's members up, until the session ends.
    pub(super) async fn catch_up(&self, session: &Rc<Session>) {
        let generation = session.generation.get();
        while session.is_live(generation) {
            let changed = session.changed.listen();
            let behind: Vec<_> = self.chunks().into_iter().filter(|c| self.next_step(c, session).is_some()).collect();
            if behind.is_empty() {
                timeout(&self.0.rt, LOOK, changed).await;
                continue;
            }
            let mut done = 0;
            for chunk in &behind {
                done += self.catch_up_chunk(chunk, session, generation).await;
            }
            if done == 0 && session.is_live(generation) {
                timeout(&self.0.rt, RETRY, session.changed.listen()).await;
            }
        }
    }

    /// Takes as many steps as it can for the node's member of one chunk; how many.
    pub(super) async fn catch_up_chunk(&self, chunk: &Rc<Chunk>, session: &Rc<Session>, generation: u64) -> usize {
        let mut steps = 0;
        while session.is_live(generation) && self.advance(chunk, session, generation).await {
            steps += 1;
        }
        steps
    }

    /// What has to be done next for the node's member of a decided chunk.
    fn next_step(&self, chunk: &Chunk, session: &Session) -> Option<Step> {
        let i = chunk.member_of(session.node)?;
        let state = chunk.state.borrow();
        if state.stage == super::Stage::InDoubt {
            return None;
        }
        let Sync::Behind(missing) = &state.members[i].sync else { return None };
        Some(match missing {
            Missing { create: true, .. } => Step::Create,
            Missing { compare: true, .. } => Step::Compare,
            Missing { dirty, .. } if !dirty.is_empty() => Step::Copy(dirty.runs(COPY_BLOCKS, COPY_RUNS)),
            Missing { adopt: true, .. } => Step::Adopt,
            _ => Step::Finish,
        })
    }

    /// Takes one step, unless one is under way; whether it succeeded.
    async fn advance(&self, chunk: &Rc<Chunk>, session: &Rc<Session>, generation: u64) -> bool {
        let (Some(step), Some(i)) = (self.next_step(chunk, session), chunk.member_of(session.node)) else {
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
            Step::Compare => self.compare(chunk, i, session, generation).await,
            Step::Copy(runs) => self.copy(chunk, i, runs, session, generation).await,
            Step::Adopt => {
                let place = chunk.info.replicas[i];
                let core = self.0.cluster.core_of(place.node, place.disk, chunk.info.chunk);
                let adopted = self.adopt(session, core, vec![(place.disk, chunk.info.chunk, place.replica)]).await;
                adopted && session.is_live(generation) && chunk.update_missing(i, |m| m.adopt = false)
            }
            Step::Finish => {
                chunk.state.borrow_mut().members[i].sync = Sync::Current;
                chunk.serve_if_adopted(self.min_copies());
                debug!(chunk = %chunk.info.chunk, node = %session.node, "caught up");
                self.0.changed.notify();
                true
            }
        }
    }

    async fn make(&self, chunk: &Rc<Chunk>, i: usize, session: &Rc<Session>, generation: u64) -> bool {
        let born_adopted = matches!(&chunk.state.borrow().members[i].sync, Sync::Behind(m) if !m.compare);
        if self.create_replica(chunk, i, born_adopted).await != Some(generation) || !session.is_live(generation) {
            return false;
        }
        chunk.made(i);
        self.resend_open(chunk, i);
        true
    }

    /// Finds out what the member misses.
    async fn compare(&self, chunk: &Rc<Chunk>, i: usize, session: &Rc<Session>, generation: u64) -> bool {
        let Some(source) = chunk.source_for(i) else { return false };
        let Some(theirs) = self.list(chunk, i).await else { return false };
        let Some(ours) = self.list(chunk, source).await else { return false };
        let different = differences(&theirs, &ours);
        session.is_live(generation)
            && chunk.update_missing(i, |m| {
                different.iter().for_each(|b| m.dirty.insert(*b));
                m.compare = false;
            })
    }

    /// Copies blocks from a current member. They stay noted as missing unless all went well.
    async fn copy(
        &self,
        chunk: &Rc<Chunk>,
        i: usize,
        runs: Vec<Range<u32>>,
        session: &Rc<Session>,
        generation: u64,
    ) -> bool {
        let Some(source) = chunk.source_for(i) else { return false };
        chunk.update_missing(i, |m| {
            runs.iter().cloned().flatten().for_each(|b| m.dirty.remove(b));
            m.sending = runs.clone();
        });
        let reads = join_all(runs.iter().map(|run| self.read_from(chunk, source, run.clone(), false))).await;
        let copied = match reads.into_iter().collect::<Option<Vec<_>>>() {
            Some(pieces) => {
                let (entries, data): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
                self.repair(chunk, i, entries.concat(), data.concat().into()).await
            }
            None => false,
        };
        // If the session ended, `sending` has been noted as missing again, and is none of ours.
        session.is_live(generation)
            && chunk.update_missing(i, |m| {
                m.sending.clear();
                if !copied {
                    runs.iter().cloned().for_each(|run| m.dirty.insert_range(run));
                }
            })
            && copied
    }

    /// Brings blocks of a member to the given states; whether that is durable.
    pub(super) async fn repair(&self, chunk: &Rc<Chunk>, member: usize, entries: Vec<BlockEntry>, data: Bytes) -> bool {
        let session = self.session(chunk.info.replicas[member].node);
        let target = self.target(chunk, member);
        match self.ask(&session, &target, Request::Repair { target, entries }, data).await {
            Ok((Reply::Done, _)) => true,
            Ok((Reply::Error { status: Status::Full, .. }, _)) | Err(_) => false,
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
                false
            }
            Ok((reply, _)) => {
                self.distrust(&session, &format!("a repair was refused: {reply:?}"));
                false
            }
        }
    }

    /// Everything that a member holds, in block order. `None` if it cannot say.
    pub(super) async fn list(&self, chunk: &Rc<Chunk>, member: usize) -> Option<Vec<BlockEntry>> {
        let session = self.session(chunk.info.replicas[member].node);
        let target = self.target(chunk, member);
        let (mut all, mut from) = (Vec::<BlockEntry>::new(), 0);
        loop {
            match self.ask(&session, &target, Request::List { target, from, max: MAX_LIST as u32 }, Bytes::new()).await
            {
                Ok((Reply::List { entries, more }, _)) if is_ordered(&entries, from) => {
                    from = entries.last().map_or(from, |e| e.block + 1);
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
                    self.distrust(&session, &format!("no listing: {reply:?}"));
                    return None;
                }
                Err(_) => return None,
            }
        }
    }
}

fn is_ordered(entries: &[BlockEntry], from: u32) -> bool {
    entries.first().is_none_or(|e| e.block >= from) && entries.windows(2).all(|w| w[0].block < w[1].block)
}
