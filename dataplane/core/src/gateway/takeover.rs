//! Opening a volume: every chunk is in doubt until a quorum of its members has answered our fence,
//! their state is reconciled, and `min_copies` of them have adopted our epoch.

use super::chunk::{Chunk, Missing, Stage, Sync};
use super::reconcile::{Change, Evidence, decide};
use super::session::Session;
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::wire::{BlockKind, MAX_BLOCKS, MAX_LIST, Reply, Request};
use levee_proto::{ChunkId, DiskId, Epoch, NodeId, ReplicaId};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tracing::{info, warn};

/// How often a chunk without a quorum is looked at, unless something changes earlier.
const LOOK: Duration = Duration::from_millis(50);
/// Chunks reconciled at a time.
const WINDOW: usize = 16;
/// A member that differs in no more blocks is reconciled before the chunk is served, beyond the
/// `min_copies` that have to be; others are caught up in the background.
const FEW_BLOCKS: usize = 64;

/// A member that took part in a takeover, and the session in which it did.
type Taken = (usize, u64);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    pub(super) fn spawn_takeover(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move { this.take_over().await });
    }

    async fn take_over(&self) {
        let begin = self.0.rt.now();
        loop {
            let changed = self.0.changed.listen();
            let in_doubt: Vec<_> = self.chunks().into_iter().filter(|c| c.stage() == Stage::InDoubt).collect();
            if in_doubt.is_empty() || self.is_stopped() {
                break;
            }
            let patient = self.0.rt.now() < begin + self.0.options.takeover_grace;
            let is_ready =
                |c: &&Rc<Chunk>| self.has_quorum(c) && (!patient || self.answered(c).len() == c.info.replicas.len());
            let ready: Vec<_> = in_doubt.iter().filter(is_ready).cloned().collect();
            if ready.is_empty() {
                timeout(&self.0.rt, LOOK, changed).await;
                continue;
            }
            if self.settle(&ready).await == 0 {
                self.0.rt.sleep(LOOK).await;
            }
        }
        let took = self.0.rt.now() - begin;
        info!(volume = %self.0.volume.name, epoch = %self.0.volume.epoch, "out of doubt after {} ms", took.as_millis());
        self.0.changed.notify();
    }

    /// Whether enough members answered to decide a chunk's state: any such set meets any set of `min_copies`.
    pub(super) fn has_quorum(&self, chunk: &Chunk) -> bool {
        self.answered(chunk).len() > chunk.info.replicas.len() - self.min_copies()
    }

    /// Members whose node is fenced and that know what they hold.
    fn answered(&self, chunk: &Chunk) -> Vec<Taken> {
        let members = chunk.info.replicas.iter().enumerate();
        let usable = members.filter_map(|(i, place)| {
            let session = self.session(place.node);
            let damaged = session.replicas.borrow().get(&chunk.info.chunk).is_some_and(|s| s.damaged);
            (session.is_up() && !damaged).then(|| (i, session.generation.get()))
        });
        usable.collect()
    }

    /// Reconciles chunks and has their members adopt the result. Returns how many left doubt.
    async fn settle(&self, chunks: &[Rc<Chunk>]) -> usize {
        let mut agreed: Vec<(Rc<Chunk>, Vec<Taken>)> = vec![];
        for window in chunks.chunks(WINDOW) {
            let done = join_all(window.iter().map(|c| self.reconcile(c))).await;
            agreed.extend(window.iter().cloned().zip(done));
        }
        let adopted = self.adopt_all(&agreed).await;
        let mut settled = 0;
        for (chunk, members) in &agreed {
            let members: Vec<Taken> =
                members.iter().filter(|(i, _)| adopted.contains(&(chunk.info.chunk, *i))).copied().collect();
            if !members.is_empty() {
                self.decided(chunk, &members);
                settled += 1;
            }
        }
        self.0.changed.notify();
        settled
    }

    /// Brings the answering members of a chunk to one state; returns those that are there.
    async fn reconcile(&self, chunk: &Rc<Chunk>) -> Vec<Taken> {
        let answered = self.answered(chunk);
        if answered.len() <= chunk.info.replicas.len() - self.min_copies() {
            return vec![];
        }
        if self.are_equal(chunk, &answered) {
            return answered;
        }
        let Some(evidence) = self.evidence(chunk, &answered).await else { return vec![] };
        let mut plan = decide(&evidence);
        plan.sort_by_key(|(_, changes)| changes.len());
        let mut agreed = vec![];
        for (n, (member, changes)) in plan.iter().enumerate() {
            if n >= self.min_copies() && changes.len() > FEW_BLOCKS {
                break;
            }
            if self.apply(chunk, *member, changes).await {
                agreed.extend(answered.iter().find(|(i, _)| i == member));
            }
        }
        agreed
    }

    /// Whether all answers are the same, replicas exist, and no entry of theirs can be void.
    fn are_equal(&self, chunk: &Chunk, answered: &[Taken]) -> bool {
        let summary = |i: usize| {
            let session = self.session(chunk.info.replicas[i].node);
            let found = session.replicas.borrow().get(&chunk.info.chunk).copied();
            found.filter(|s| s.replica == chunk.info.replicas[i].replica).map(|s| (s.adopted, s.digest))
        };
        let first = summary(answered[0].0);
        first.is_some() && answered.iter().all(|(i, _)| summary(*i) == first)
    }

    /// Lists what the members hold. Replicas that do not exist are made first, and hold nothing.
    async fn evidence(&self, chunk: &Rc<Chunk>, answered: &[Taken]) -> Option<Vec<Evidence>> {
        let mut evidence = vec![];
        for (i, _) in answered {
            let session = self.session(chunk.info.replicas[*i].node);
            let replica = chunk.info.replicas[*i].replica;
            let summary = session.replicas.borrow().get(&chunk.info.chunk).copied().filter(|s| s.replica == replica);
            let (adopted, entries) = match summary {
                Some(s) => (s.adopted, self.list(chunk, *i).await?),
                None => {
                    self.create_replica(chunk, *i, false).await?;
                    (Epoch(0), vec![])
                }
            };
            evidence.push(Evidence { member: *i, adopted, entries });
        }
        Some(evidence)
    }

    /// Makes changes at a member; whether all are durable there.
    async fn apply(&self, chunk: &Rc<Chunk>, member: usize, changes: &[Change]) -> bool {
        for part in changes.chunks(MAX_BLOCKS as usize) {
            let Some(data) = self.gather(chunk, part).await else { return false };
            let entries = part.iter().map(|c| c.entry).collect();
            if !self.repair(chunk, member, entries, data).await {
                return false;
            }
        }
        true
    }

    /// Fetches the data of changes from members that hold it.
    async fn gather(&self, chunk: &Rc<Chunk>, changes: &[Change]) -> Option<Bytes> {
        let mut all = Vec::new();
        for change in changes.iter().filter(|c| c.entry.kind == BlockKind::Data) {
            let block = change.entry.block;
            let (entries, data) = self.read_from(chunk, change.source, block..block + 1, true).await?;
            if entries[0] != change.entry {
                warn!(chunk = %chunk.info.chunk, block, "a fenced replica changed its mind");
                return None;
            }
            all.extend_from_slice(&data);
        }
        Some(all.into())
    }

    /// Has members adopt this epoch: one request per core for all chunks. Returns those that did.
    async fn adopt_all(&self, agreed: &[(Rc<Chunk>, Vec<Taken>)]) -> std::collections::BTreeSet<(ChunkId, usize)> {
        type Item = (ChunkId, usize, (DiskId, ChunkId, ReplicaId));
        let mut by_core: BTreeMap<(NodeId, u16), Vec<Item>> = BTreeMap::new();
        for (chunk, members) in agreed {
            for (i, _) in members {
                let place = chunk.info.replicas[*i];
                let id = chunk.info.chunk;
                let core = self.0.cluster.core_of(place.node, place.disk, id);
                by_core.entry((place.node, core)).or_default().push((id, *i, (place.disk, id, place.replica)));
            }
        }
        let asks = by_core.into_iter().flat_map(|((node, core), items)| {
            let parts: Vec<Vec<Item>> = items.chunks(MAX_LIST).map(<[Item]>::to_vec).collect();
            parts.into_iter().map(move |items| (node, core, items))
        });
        let asks = asks.map(|(node, core, items)| async move {
            let replicas = items.iter().map(|(.., replica)| *replica).collect();
            let done = self.adopt(&self.session(node), core, replicas).await;
            items.into_iter().filter(move |_| done).map(|(chunk, i, _)| (chunk, i)).collect::<Vec<_>>()
        });
        join_all(asks.collect::<Vec<_>>()).await.into_iter().flatten().collect()
    }

    /// Has replicas of one core adopt this epoch; whether they have.
    pub(super) async fn adopt(
        &self,
        session: &Rc<Session>,
        core: u16,
        replicas: Vec<(DiskId, ChunkId, ReplicaId)>,
    ) -> bool {
        let request = Request::Adopt { volume: self.0.volume.id, epoch: self.0.volume.epoch, replicas };
        match self.ask_core(session, core, request).await {
            Ok((Reply::Done, _)) => true,
            Ok((Reply::Error { status: levee_proto::wire::Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
                false
            }
            Ok((reply, _)) => {
                self.distrust(session, &format!("replicas did not adopt the epoch: {reply:?}"));
                false
            }
            Err(_) => false,
        }
    }

    /// The chunk's state is decided, and `members` have adopted it.
    fn decided(&self, chunk: &Rc<Chunk>, members: &[Taken]) {
        {
            let mut state = chunk.state.borrow_mut();
            state.stage = Stage::Adopting;
            for (i, member) in state.members.iter_mut().enumerate() {
                let session = self.session(member.place.node);
                let is_in = members.iter().any(|(m, generation)| *m == i && session.is_live(*generation));
                member.live = is_in;
                member.made |= is_in;
                member.sync = if is_in { Sync::Current } else { Sync::Behind(Missing::unknown()) };
            }
        }
        for (i, place) in chunk.info.replicas.iter().enumerate() {
            let session = self.session(place.node);
            let is_out = !chunk.state.borrow().members[i].live;
            if is_out && session.is_up() {
                self.rejoin(chunk, &session);
            }
        }
        chunk.serve_if_adopted(self.min_copies());
    }
}
