//! Opening a volume: every chunk is in doubt until a quorum of its members has answered our fence,
//! their state is reconciled, and `min_copies` of them have adopted our epoch.
//!
//! A state may be decided several times while members come and go, but only one decision is ever
//! adopted: adoption begins when `min_copies` members hold the state durably. From then on the chunk
//! is out of doubt, and members that come later are caught up with those. (If one member adopted
//! alone, unnoticed, and the others decided without it, what they dropped would come back with it
//! at the next takeover.)

use super::chunk::{Chunk, Stage};
use super::member::Slots;
use super::reconcile::{Change, Evidence, Void, decide, hopeless};
use super::session::{Session, Waits};
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::api::ReplicaPlace;
use levee_proto::wire::{BlockKind, MAX_BLOCKS, MAX_LIST, ReplicaSummary, Reply, Request};
use levee_proto::{ChunkId, DiskId, Epoch, ReplicaId, Seq, Version};
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
/// Entries that cannot be read, and by whom.
type Unreadable = BTreeMap<(u32, Version), Slots>;

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
            let is_ready = |c: &&Rc<Chunk>| self.has_quorum(c) && (!patient || self.answered(c).len() == c.copies());
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

    /// Whether enough members answered to decide a chunk's state (any such set meets any set of `min_copies`),
    /// and enough are there to serve it.
    pub(super) fn has_quorum(&self, chunk: &Chunk) -> bool {
        self.has_quorum_without(chunk, None)
    }

    /// As [`Gateway::has_quorum`], if one member were away.
    pub(super) fn has_quorum_without(&self, chunk: &Chunk, away: Option<usize>) -> bool {
        let mut answered = self.answered(chunk);
        answered.retain(|(i, _)| Some(*i) != away);
        let witnesses: Vec<usize> = answered.iter().map(|(i, _)| *i).filter(|i| self.is_witness(chunk, *i)).collect();
        let adopted = witnesses.iter().filter_map(|i| Some(self.summary(chunk, *i)?.adopted));
        answered.len() >= self.holders_needed(chunk)
            && witnesses.len() >= self.quorum(chunk)
            && self.has_elder(chunk.config(), adopted)
    }

    /// How many members have to hold a decided state before any is asked to adopt it: `min_copies`, or, where members are
    /// dead for good, all the others. (It is served only when `min_copies` have adopted: after the dead were replaced.)
    fn holders_needed(&self, chunk: &Chunk) -> usize {
        let leaving = self.0.leaving.borrow();
        let may_come = |place: &ReplicaPlace| !leaving.is_dead(place);
        let needed = if crate::mutant!("one holder is enough to adopt") { 1 } else { self.min_copies() };
        needed.min(chunk.members().iter().filter(|(_, place)| may_come(place)).count())
    }

    fn quorum(&self, chunk: &Chunk) -> usize {
        let quorum = chunk.copies() + 1 - self.min_copies();
        if crate::mutant!("takeover with one answer too few") { quorum - 1 } else { quorum }
    }

    /// Members whose disk is fenced.
    fn answered(&self, chunk: &Chunk) -> Vec<Taken> {
        let usable = chunk.members().into_iter().filter_map(|(i, place)| {
            let session = self.session(place);
            session.is_up().then(|| (i, session.generation.get()))
        });
        usable.collect()
    }

    /// What the member's daemon said of it when it was fenced; `None`: it does not exist there.
    pub(super) fn summary(&self, chunk: &Chunk, member: usize) -> Option<ReplicaSummary> {
        let place = chunk.place(member);
        let found = self.session(place).replicas.borrow().get(&place.replica).copied();
        found.filter(|s| s.chunk == chunk.id)
    }

    /// Whether the member knows all that it ever held.
    fn is_witness(&self, chunk: &Chunk, member: usize) -> bool {
        match self.summary(chunk, member) {
            Some(s) => !s.damaged || crate::mutant!("a damaged copy is a witness"),
            None => !self.session_of(chunk, member).forgetful.get(),
        }
    }

    /// Reconciles chunks and has their members adopt the result. Returns how many left doubt.
    async fn settle(&self, chunks: &[Rc<Chunk>]) -> usize {
        let mut agreed: Vec<(Rc<Chunk>, Vec<Taken>)> = vec![];
        for window in chunks.chunks(WINDOW) {
            let done = join_all(window.iter().map(|c| self.reconcile(c))).await;
            agreed.extend(window.iter().cloned().zip(done).filter_map(|(c, holders)| Some((c, holders?))));
        }
        for (chunk, holders) in &mut agreed {
            self.decide(chunk, holders);
        }
        let adopted = self.adopt_all(&agreed).await;
        for (chunk, holders) in &agreed {
            for (i, generation) in holders {
                let session = self.session_of(chunk, *i);
                chunk.adopted(*i, adopted.contains(&(chunk.id, *i)) && session.is_live(*generation));
                session.changed.notify();
            }
            chunk.serve_if_adopted(self.min_copies());
        }
        self.0.changed.notify();
        agreed.len()
    }

    /// Brings the answering members of a chunk to one state; returns those that durably hold it, if they are enough.
    async fn reconcile(&self, chunk: &Rc<Chunk>) -> Option<Vec<Taken>> {
        let answered = self.answered(chunk);
        let witnesses: Vec<Taken> = answered.iter().filter(|(i, _)| self.is_witness(chunk, *i)).copied().collect();
        if !self.has_quorum(chunk) {
            return None;
        }
        let needed = self.holders_needed(chunk);
        if witnesses.len() >= needed && self.are_equal(chunk, &witnesses) {
            return Some(witnesses);
        }
        crate::reached!("takeover compared entries");
        // What is unreadable and not void by this plan has been acknowledged, perhaps.
        let unreadable = chunk.unreadable.borrow().clone();
        let (evidence, mut plan) = self.decided_plan(chunk, &answered, &unreadable).await;
        let decisive = || evidence.iter().filter(|e| e.witness);
        if decisive().count() < self.quorum(chunk) || !self.has_elder(chunk.config(), decisive().map(|e| e.adopted)) {
            return None;
        }
        plan.sort_by_key(|(_, changes)| changes.len());
        let mut holders = vec![];
        for (member, changes) in &plan {
            if holders.len() >= needed && changes.len() > FEW_BLOCKS {
                break;
            }
            if self.apply(chunk, *member, changes, &unreadable).await {
                holders.extend(answered.iter().find(|(i, _)| i == member));
            }
        }
        (holders.len() >= needed).then_some(holders)
    }

    /// Whether all answers are the same, replicas exist, and no entry of theirs can be void.
    fn are_equal(&self, chunk: &Chunk, witnesses: &[Taken]) -> bool {
        let summary = |i: usize| self.summary(chunk, i).map(|s| (s.adopted, s.digest));
        let first = summary(witnesses[0].0);
        !chunk.touched.get() && first.is_some() && witnesses.iter().all(|(i, _)| summary(*i) == first)
    }

    /// What the members hold above what all of them are known to have in common, and what each has to change.
    async fn decided_plan(
        &self,
        chunk: &Rc<Chunk>,
        answered: &[Taken],
        unreadable: &Unreadable,
    ) -> (Vec<Evidence>, Vec<(usize, Vec<Change>)>) {
        if !unreadable.is_empty() {
            let evidence = self.evidence(chunk, answered, Seq::ZERO).await;
            let plan = decide(&evidence, &hopeless(&evidence, unreadable, self.quorum(chunk)), &self.keep());
            return (evidence, plan);
        }
        let common = answered.iter().map(|(i, _)| self.commit_of(chunk, *i)).min().unwrap_or(Seq::ZERO);
        let evidence = self.evidence(chunk, answered, common).await;
        let plan = decide(&evidence, &Void::new(), &self.keep());
        let is_void = |c: &Change| c.entry.kind == BlockKind::Absent;
        if common == Seq::ZERO || !plan.iter().any(|(_, changes)| changes.iter().any(is_void)) {
            return (evidence, plan);
        }
        crate::reached!("takeover listed below the commit point");
        // What was there before a void entry lies below: all have to be asked for everything.
        let evidence = self.evidence(chunk, answered, Seq::ZERO).await;
        let plan = decide(&evidence, &Void::new(), &self.keep());
        (evidence, plan)
    }

    /// Lists what the members hold above a seq. Replicas that do not exist are made first, and hold nothing. A member
    /// that cannot say what it holds, or that cannot be made, is left out.
    async fn evidence(&self, chunk: &Rc<Chunk>, answered: &[Taken], above: Seq) -> Vec<Evidence> {
        let asks = answered.iter().map(|(i, _)| async move {
            let (witness, adopted, entries) = match self.summary(chunk, *i) {
                Some(s) => (self.is_witness(chunk, *i), s.adopted, self.list(chunk, *i, above).await?),
                None => {
                    self.create_replica(chunk, *i, false).await?;
                    (self.is_witness(chunk, *i), Epoch(0), self.list(chunk, *i, above).await?)
                }
            };
            Some(Evidence { member: *i, witness, adopted, entries })
        });
        join_all(asks).await.into_iter().flatten().collect()
    }

    /// Makes changes at a member; whether all are durable there.
    async fn apply(&self, chunk: &Rc<Chunk>, member: usize, changes: &[Change], unreadable: &Unreadable) -> bool {
        for part in changes.chunks(MAX_BLOCKS as usize) {
            chunk.touched.set(true);
            if !self.apply_part(chunk, member, &part.iter().collect::<Vec<_>>(), unreadable).await {
                return false;
            }
        }
        true
    }

    async fn apply_part(&self, chunk: &Rc<Chunk>, member: usize, part: &[&Change], unreadable: &Unreadable) -> bool {
        let entries = |of: &[&Change]| of.iter().map(|c| c.entry).collect::<Vec<_>>();
        if let Some(data) = self.gather(chunk, part).await {
            return self.repair(chunk, member, entries(part), data).await;
        }
        let (gone, there): (Vec<&Change>, Vec<&Change>) = part.iter().partition(|c| self.is_gone(chunk, c, unreadable));
        if gone.is_empty() {
            return false;
        }
        let Some(data) = self.gather(chunk, &there).await else { return false };
        self.repair(chunk, member, entries(&there), data).await && self.repair_gone(chunk, member, entries(&gone)).await
    }

    /// Whether all members are there, and those that hold an entry could not read it, as was known when it was found not to be
    /// void: the chunk goes on without it, for there is nobody to wait for.
    fn is_gone(&self, chunk: &Chunk, change: &Change, unreadable: &Unreadable) -> bool {
        let failed = unreadable.get(&(change.entry.block, change.entry.version)).copied().unwrap_or_default();
        let is_nowhere = change.sources != 0 && change.sources & !failed == 0;
        change.entry.kind == BlockKind::Data && is_nowhere && self.answered(chunk).len() == chunk.copies()
    }

    /// Fetches the data of changes from members that hold it.
    async fn gather(&self, chunk: &Rc<Chunk>, changes: &[&Change]) -> Option<Bytes> {
        let with_data: Vec<&Change> = changes.iter().filter(|c| c.entry.kind == BlockKind::Data).copied().collect();
        let continues = |a: &&Change, b: &&Change| {
            let (x, y) = (&a.entry, &b.entry);
            x.block + 1 == y.block && x.version == y.version && a.sources == b.sources
        };
        let runs: Vec<&[&Change]> = with_data.chunk_by(continues).collect();
        let fetched = join_all(runs.iter().map(|run| self.fetch(chunk, run))).await;
        Some(fetched.into_iter().collect::<Option<Vec<_>>>()?.concat().into())
    }

    /// Fetches one version of consecutive blocks from one of their holders, or each from any.
    async fn fetch(&self, chunk: &Rc<Chunk>, run: &[&Change]) -> Option<Bytes> {
        let blocks = run.first()?.entry.block..run.last()?.entry.block + 1;
        for source in chunk.members().into_iter().map(|(i, _)| i).filter(|i| run[0].sources & (1 << i) != 0) {
            let read = self.read_version(chunk, source, blocks.clone(), run[0].entry.version, true);
            let Some((entries, data)) = read.await else { continue };
            if entries.iter().eq(run.iter().map(|c| &c.entry)) {
                return Some(data);
            }
            warn!(chunk = %chunk.id, ?blocks, "a fenced replica changed its mind");
        }
        if run.len() == 1 {
            return None;
        }
        let mut all = Vec::with_capacity(run.len());
        for one in run.chunks(1) {
            all.push(Box::pin(self.fetch(chunk, one)).await?);
        }
        Some(all.concat().into())
    }

    /// Has members adopt this epoch: one request per core and disk for all chunks. Returns those that did.
    async fn adopt_all(&self, agreed: &[(Rc<Chunk>, Vec<Taken>)]) -> std::collections::BTreeSet<(ChunkId, usize)> {
        type Item = (ChunkId, usize, (DiskId, ChunkId, ReplicaId));
        let mut by_core: BTreeMap<(DiskId, u16), Vec<Item>> = BTreeMap::new();
        for (chunk, members) in agreed {
            for (i, _) in members {
                let place = chunk.place(*i);
                let id = chunk.id;
                let core = self.0.cluster.core_of(place.node, place.disk, id);
                by_core.entry((place.disk, core)).or_default().push((id, *i, (place.disk, id, place.replica)));
            }
        }
        let asks = by_core.into_iter().flat_map(|((disk, core), items)| {
            let parts: Vec<Vec<Item>> = items.chunks(MAX_LIST).map(<[Item]>::to_vec).collect();
            parts.into_iter().map(move |items| (disk, core, items))
        });
        let asks = asks.map(|(disk, core, items)| async move {
            let Some(session) = self.0.sessions.borrow().get(&disk).cloned() else { return vec![] };
            let replicas = items.iter().map(|(.., replica)| *replica).collect();
            let done = self.adopt(Waits::Guests, &session, core, replicas).await;
            items.into_iter().filter(move |_| done).map(|(chunk, i, _)| (chunk, i)).collect::<Vec<_>>()
        });
        join_all(asks.collect::<Vec<_>>()).await.into_iter().flatten().collect()
    }

    /// Has replicas of one core adopt this epoch; whether they have.
    pub(super) async fn adopt(
        &self,
        waits: Waits,
        session: &Rc<Session>,
        core: u16,
        replicas: Vec<(DiskId, ChunkId, ReplicaId)>,
    ) -> bool {
        let request = Request::Adopt { volume: self.0.volume.id, epoch: self.0.volume.epoch, replicas };
        match self.ask_core(waits, session, core, request).await {
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

    /// The chunk's state is decided, and `holders` have it durably; leaves those whose session goes on.
    fn decide(&self, chunk: &Rc<Chunk>, holders: &mut Vec<Taken>) {
        let all: Vec<usize> = holders.iter().map(|(i, _)| *i).collect();
        holders.retain(|(i, generation)| self.session_of(chunk, *i).is_live(*generation));
        chunk.decided(&all, |i| holders.iter().any(|(live, _)| *live == i));
        for i in &all {
            let sealed = self.summary(chunk, *i).map_or(Version(0), |s| if s.damaged { Version(0) } else { s.sealed });
            chunk.found_sealed(*i, sealed);
        }
        for (i, place) in chunk.members() {
            let session = self.session(place);
            let is_out = !chunk.state.borrow().members[i].live;
            if is_out && session.is_up() {
                self.rejoin(chunk, &session);
            }
        }
    }
}
