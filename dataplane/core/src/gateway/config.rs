//! Changing a chunk's replica set: replacing members that are dead, moving them off disks that are drained, and moving single
//! ones that the meta server names.
//!
//! A change is made by the meta server, compare-and-set on the epoch and the number of the set, and only ever for the
//! present gateway. Before it is asked for, the members that stay are *attested*: each of them misses nothing, and from
//! then on a write is answered only when each of them has it. So whenever the change takes effect, any one of them
//! holds every acknowledged write, and a newcomer, which holds only what it was given, may count in place of one that
//! left. A newcomer gets new writes at once, its acknowledgements count, and it is filled like any member that is behind.
//!
//! To move a member, a newcomer is asked for, filled, and then the old one leaves. When nobody wants the move any more
//! while there is one member too many, one that is behind leaves, else the newest.
//!
//! Invariants:
//! - Between asking for a change and knowing its outcome, the members that stay remain attested.
//! - A replica set in which a member is neither attested nor new never comes into being.

use super::chunk::{Chunk, ChunkState, Stage};
use super::leaving::Leaving;
use super::member::{MAX_SLOTS, Member, Missing, Slots, WriteOp};
use super::{AllocError, Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::timeout;
use levee_proto::api::{ChangedReplicas, ChunkInfo, DiskState, ReplicaChange, ReplicaPlace};
use levee_proto::{ConfigNo, DiskId, Epoch, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How often chunks are looked at when nothing is heard.
const LOOK: Duration = Duration::from_secs(1);
/// Before the meta server is asked again whose answer was not understood, or did not come.
const RETRY: Duration = Duration::from_millis(100);
/// After a refusal: there may be room later.
const REFUSED_RETRY: Duration = Duration::from_secs(2);
/// How long members that stay are waited for before the change is put off. Writes wait for the slowest meanwhile.
const ATTEST_LIMIT: Duration = Duration::from_millis(500);
/// Chunks changed with one request.
const BATCH: usize = 64;
/// Chunks that have a member too many at a time, because one is being moved.
const MOVES: usize = 16;
/// After so long nothing that a former member was asked can still be answered.
const SLOT_REST: Duration = Duration::from_secs(300);

/// A change of one chunk's replica set.
struct Plan {
    chunk: Rc<Chunk>,
    config: ConfigNo,
    stay: Slots,
    remove: Vec<ReplicaId>,
    add: u8,
}

impl Chunk {
    /// What should be done about members that are to be put elsewhere, or about one too many or too few.
    fn plan(self: &Rc<Chunk>, copies: usize, leaving: &Leaving) -> Option<Plan> {
        let state = self.state.borrow();
        if !matches!(state.stage, Stage::Adopting | Stage::Served) || state.attested != 0 || self.closing.get() {
            return None;
        }
        let (go, add) = to_change(&state, copies, leaving)?;
        let stays = || state.present().filter(|(i, _)| go & (1 << i) == 0);
        if stays().next().is_none() || !stays().all(|(_, m)| m.is_good()) {
            return None;
        }
        let stay = stays().map(|(i, _)| 1 << i).sum();
        let remove = state.present().filter(|(i, _)| go & (1 << i) != 0).map(|(_, m)| m.place.replica).collect();
        Some(Plan { chunk: self.clone(), config: state.config(), stay, remove, add })
    }

    /// Members that are to be put elsewhere.
    fn leaving(&self, leaving: &Leaving) -> usize {
        self.state.borrow().present().filter(|(_, m)| leaving.contains(&m.place)).count()
    }

    /// From now on a write is answered only when each of these members has it.
    fn attest(&self, slots: Slots) {
        self.state.borrow_mut().attested = slots;
    }

    /// Whether each attested member holds every acknowledged write.
    fn is_attested(&self) -> bool {
        let state = self.state.borrow();
        state.attested != 0 && (state.hold_everything(state.attested) || crate::mutant!("copies attested unseen"))
    }

    /// Takes the replica set over as the meta server gives it.
    fn change(&self, info: &ChunkInfo, now: Duration) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        assert!(state.stage != Stage::InDoubt && info.config > state.config());
        let stays = |m: &Member| info.replicas.contains(&m.place);
        let leaving: Vec<usize> = state.present().filter(|(_, m)| !stays(m)).map(|(i, _)| i).collect();
        for i in leaving {
            crate::reached!("member left a chunk");
            if crate::mutant!("a removed copy is still read") {
                continue;
            }
            state.remove_member(i, now);
        }
        for place in &info.replicas {
            if !state.present().any(|(_, m)| m.place == *place) {
                state.add_member(*place, now);
            }
        }
        state.set_config(info.config);
    }

    /// The set is not being changed any more; returns the writes that are durable enough now.
    fn end_attest(&self, min_copies: usize) -> Vec<Rc<WriteOp>> {
        let mut state = self.state.borrow_mut();
        state.attested = 0;
        state.answer_durable(min_copies)
    }

    /// Whether so many newcomers would find a slot.
    fn has_slots(&self, count: usize, now: Duration) -> bool {
        self.state.borrow().free_slots(now).take(count).count() == count
    }
}

impl ChunkState {
    pub fn remove_member(&mut self, i: usize, now: Duration) {
        let owes = std::mem::take(&mut self.members[i].owes);
        let member = &mut self.members[i];
        member.gone = Some(now);
        member.live = false;
        self.forget_acks(i);
        owes.values().for_each(|op| self.settle(i, op));
    }

    fn add_member(&mut self, place: ReplicaPlace, now: Duration) {
        let slot = self.free_slots(now).next().expect("looked at before the change was asked for");
        crate::reached!("newcomer joined a chunk");
        let full = crate::mutant!("a newcomer counts as filled");
        let missing = if full { Missing { create: true, ..Missing::default() } } else { Missing::newcomer() };
        let newcomer = Member::new(place, missing);
        if slot == self.members.len() {
            self.members.push(newcomer);
        } else {
            self.members[slot] = newcomer;
        }
    }

    /// Slots that were never used, in order, then those that were given up long ago.
    fn free_slots(&self, now: Duration) -> impl Iterator<Item = usize> + '_ {
        let is_rested = move |m: &Member| m.gone.is_some_and(|since| since + SLOT_REST < now);
        let rested = self.members.iter().enumerate().filter(move |(_, m)| is_rested(m)).map(|(i, _)| i);
        (self.members.len()..MAX_SLOTS).chain(rested)
    }
}

/// The members that should go, and how many should come.
fn to_change(state: &ChunkState, copies: usize, leaving: &Leaving) -> Option<(Slots, u8)> {
    let of = |wanted: &dyn Fn(&Member) -> bool| -> Vec<usize> {
        state.present().filter(|(_, m)| wanted(m)).map(|(i, _)| i).collect()
    };
    let slots = |members: &[usize]| -> Slots { members.iter().map(|i| 1 << i).sum() };
    let present = state.present().count();
    let dead = of(&|m| leaving.is_dead(&m.place));
    if !dead.is_empty() {
        let missing = copies.saturating_sub(present - dead.len());
        return Some((slots(&dead), missing as u8));
    }
    let moving = of(&|m| leaving.contains(&m.place));
    if present > copies {
        // The copy is there: the old one may go. Or nobody goes any more, and there is one too many: of two on one node, if
        // there are; one that is behind; the newest.
        let on_node = |m: &Member| state.present().filter(|(_, o)| o.place.node == m.place.node).count();
        let rank = |m: &Member| (on_node(m) > 1, !m.is_good(), m.place.replica);
        let spare = || state.present().max_by_key(|(_, m)| rank(m)).map(|(i, _)| i);
        let goes = moving.first().copied().or_else(spare)?;
        return Some((1 << goes, 0));
    }
    (!moving.is_empty() || present < copies).then_some((0, 1))
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// These disks are to be emptied of replicas: those on dead ones are replaced, those on draining ones are moved.
    pub fn evacuate(&self, disks: BTreeMap<DiskId, DiskState>) {
        self.0.leaving.borrow_mut().set_disks(disks);
        self.0.changed.notify();
    }

    /// These replicas are to be put elsewhere, whatever becomes of their disks. Those that were named before and are not any more
    /// stay: what was begun for them is undone.
    pub fn move_replicas(&self, replicas: BTreeSet<ReplicaId>) {
        self.0.leaving.borrow_mut().set_replicas(replicas);
        self.0.changed.notify();
    }

    /// Replicas that are to be put elsewhere.
    pub fn leaving_replicas(&self) -> usize {
        let leaving = self.0.leaving.borrow();
        self.chunks().iter().map(|c| c.leaving(&leaving)).sum()
    }

    pub(super) fn spawn_changes(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move {
            while !this.is_stopped() {
                let changed = this.0.changed.listen();
                if this.plans().is_empty() {
                    timeout(&this.0.rt, LOOK, changed).await;
                } else if !this.change_what_can_be().await {
                    this.pause(REFUSED_RETRY).await;
                }
            }
        });
    }

    /// What should be changed now: first what has the fewest copies.
    fn plans(&self) -> Vec<Plan> {
        let leaving = self.0.leaving.borrow();
        let copies = usize::from(self.0.volume.copies);
        let chunks = self.chunks();
        let moving = chunks.iter().filter(|c| c.copies() > copies).count();
        let mut moves = MOVES.saturating_sub(moving);
        let has_short = || chunks.iter().any(|c| c.copies() < copies);
        if leaving.is_empty() && moving == 0 && !has_short() {
            return vec![];
        }
        let mut plans = vec![];
        for chunk in &chunks {
            let Some(plan) = chunk.plan(copies, &leaving) else { continue };
            let is_move = plan.remove.is_empty();
            if (is_move && moves == 0) || !chunk.has_slots(usize::from(plan.add), self.0.rt.now()) {
                continue;
            }
            moves -= usize::from(is_move);
            plans.push(plan);
        }
        plans.sort_by_key(|p| p.stay.count_ones());
        plans.truncate(BATCH);
        plans
    }

    /// Has background work make way, and then makes changes as they are right by then.
    async fn change_what_can_be(&self) -> bool {
        let _still = self.hold_still().await;
        let plans = self.plans();
        self.carry_out(plans).await
    }

    /// Has changes made; whether anything came of it.
    async fn carry_out(&self, plans: Vec<Plan>) -> bool {
        let begun = self.0.rt.now();
        plans.iter().for_each(|p| p.chunk.attest(p.stay));
        let plans = self.until_attested(plans).await;
        if plans.is_empty() {
            self.0.rt.sleep(RETRY).await;
            return true;
        }
        let changes = plans.iter().map(|p| ReplicaChange {
            index: p.chunk.index,
            config: p.config,
            remove: p.remove.clone(),
            add: p.add,
        });
        let Some(infos) = self.ask_for_changes(changes.collect()).await else { return false };
        let mut changed = 0;
        for (plan, info) in plans.iter().zip(&infos) {
            if info.config > plan.config {
                self.apply_change(&plan.chunk, info);
                changed += 1;
            }
            self.end_attest(&plan.chunk);
        }
        let took = (self.0.rt.now() - begun).as_millis();
        debug!(volume = %self.0.volume.name, "{changed} chunks changed; their writes waited for all copies for {took} ms");
        self.0.changed.notify();
        changed == plans.len()
    }

    /// Waits until the members that stay hold everything. Gives up those of which one is lost or too slow.
    async fn until_attested(&self, plans: Vec<Plan>) -> Vec<Plan> {
        let end = self.0.rt.now() + ATTEST_LIMIT;
        while self.0.rt.now() < end && !self.is_stopped() && !plans.iter().all(|p| p.chunk.is_attested()) {
            self.0.rt.sleep(Duration::from_millis(1)).await;
        }
        let (ready, late): (Vec<Plan>, Vec<Plan>) = plans.into_iter().partition(|p| p.chunk.is_attested());
        late.iter().for_each(|p| self.end_attest(&p.chunk));
        ready
    }

    fn end_attest(&self, chunk: &Rc<Chunk>) {
        for op in chunk.end_attest(self.min_copies()) {
            self.answer(chunk, &op);
        }
        chunk.changed.notify();
    }

    /// Asks until the outcome is known, as the present state of the chunks. `None`: the gateway stopped.
    async fn ask_for_changes(&self, changes: Vec<ReplicaChange>) -> Option<Vec<ChunkInfo>> {
        let check = |answer: &ChangedReplicas| self.check_changed(&changes, &answer.chunks);
        let answer = self.change_surely(&changes, "a change of copies waits for", check).await?;
        answer.refused.iter().for_each(|why| {
            warn!(volume = %self.0.volume.name, "copies cannot be put elsewhere yet: {why}");
        });
        Some(answer.chunks)
    }

    /// Asks the meta server for changes until it gives a good answer. `None`: the gateway stopped. `waiting`: what waits for the meta
    /// server, to be said once.
    pub(super) async fn change_surely(
        &self,
        changes: &[ReplicaChange],
        waiting: &str,
        check: impl Fn(&ChangedReplicas) -> Result<(), String>,
    ) -> Option<ChangedReplicas> {
        let mut said = false;
        while !self.is_stopped() {
            match self.0.cluster.change(changes.to_vec()).await {
                Ok(answer) => match check(&answer) {
                    Ok(()) => return Some(answer),
                    Err(why) => warn!(volume = %self.0.volume.name, "the meta server's chunks are refused: {why}"),
                },
                Err(AllocError::Fenced(why)) => self.stop(&why),
                Err(AllocError::Retry(why)) if !std::mem::replace(&mut said, true) => {
                    warn!(volume = %self.0.volume.name, "{waiting} the meta server: {why}");
                }
                Err(AllocError::Retry(_)) => {}
            }
            self.pause(RETRY).await;
        }
        None
    }

    /// Whether the answer is about the chunks asked for, and what stays is what was attested.
    fn check_changed(&self, changes: &[ReplicaChange], chunks: &[ChunkInfo]) -> Result<(), String> {
        super::check_chunks(&self.0.volume, self.size(), chunks)?;
        if !chunks.iter().map(|c| c.index).eq(changes.iter().map(|c| c.index)) {
            return Err("other chunks were asked for".into());
        }
        for (change, info) in changes.iter().zip(chunks).filter(|(change, info)| info.config != change.config) {
            let Some(chunk) = self.chunk(info.index).filter(|c| c.id == info.chunk) else {
                return Err(format!("chunk {} is not at {}", info.chunk, info.index));
            };
            let members = chunk.members();
            let newcomers = info.replicas.iter().filter(|r| !members.iter().any(|(_, m)| m == *r)).count();
            let stay = members.iter().filter(|(_, m)| info.replicas.contains(m)).count();
            let gone = info.replicas.iter().any(|r| change.remove.contains(&r.replica));
            let wrong_stay = stay + change.remove.len() != members.len();
            if info.config < change.config || gone || wrong_stay || newcomers != usize::from(change.add) {
                return Err(format!("chunk {} was changed in another way than asked for", info.chunk));
            }
        }
        Ok(())
    }

    fn apply_change(&self, chunk: &Rc<Chunk>, info: &ChunkInfo) {
        info!(volume = %self.0.volume.name, chunk = %chunk.id, config = %info.config, "copies are now {}", places(info));
        chunk.change(info, self.0.rt.now());
        for (i, place) in chunk.members() {
            let session = self.session(place);
            // What the fence said of those that take part already is outdated.
            let is_out = !chunk.state.borrow().members[i].live;
            if is_out && session.is_up() {
                self.rejoin(chunk, &session);
            }
            session.changed.notify();
        }
    }

    /// Whether enough is known of a chunk's members to tell what was acknowledged before its present set came into
    /// being: a newcomer holds only what it was given since.
    pub(super) fn has_elder(&self, config: ConfigNo, mut adopted: impl Iterator<Item = Epoch>) -> bool {
        config == ConfigNo::FIRST || adopted.any(|epoch| epoch > Epoch(0)) || crate::mutant!("newcomers alone decide")
    }
}

fn places(info: &ChunkInfo) -> String {
    let all = info.replicas.iter().map(|r| format!("node {} disk {}", r.node, r.disk));
    all.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::{ChunkId, NodeId};

    #[test]
    fn slots_are_used_again_after_a_rest_and_never_promised_twice() {
        let place = |n: u64| ReplicaPlace { replica: ReplicaId(n), node: NodeId(n as u32), disk: DiskId(n as u32) };
        let replicas = (0..3).map(place).collect();
        let info = ChunkInfo { index: 0, chunk: ChunkId(1), config: ConfigNo::FIRST, replicas };
        let chunk = Chunk::new(&info, true, Rc::default());
        let now = SLOT_REST * 2;
        for n in 3..MAX_SLOTS as u64 - 1 {
            assert!(chunk.has_slots(1, now));
            chunk.state.borrow_mut().add_member(place(n), now);
            chunk.state.borrow_mut().remove_member(n as usize, now);
        }
        assert!(chunk.has_slots(1, now) && !chunk.has_slots(2, now));
        assert!(chunk.has_slots(0, now));
        let later = now + SLOT_REST + Duration::from_secs(1);
        assert!(chunk.has_slots(MAX_SLOTS - 3, later) && !chunk.has_slots(MAX_SLOTS - 2, later));
    }
}
