//! What the gateway knows of one chunk: its members, and the writes that not all of them have yet.
//!
//! Invariant: what a live member does not hold is noted. For every block and every write that it was to get since it has been
//! caught up, it has acknowledged the write, or the write is among those that it *owes*, or the block is among those that it
//! *misses*. A block can be read, or copied, from every member that neither owes nor misses anything of it: several members of
//! which each misses something can so heal each other.

use super::entry_set::EntrySet;
use super::layered::Presence;
use super::locks::RangeLocks;
use super::member::{Member, Missing, Slots, Sync, WriteOp};
use super::prune::PruneState;
use super::session::Waits;
use super::traffic::Traffic;
use crate::bitmap::BlockSet;
use crate::sync::Event;
use levee_proto::api::{ChunkInfo, ReplicaPlace};
use levee_proto::{ChunkId, ConfigNo, DiskId, Epoch, Seq, Version};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// How far a chunk is from being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of it is decided in this epoch.
    InDoubt,
    /// Its state is decided, and at least `min_copies` members durably hold it; fewer are known to have adopted it.
    Adopting,
    /// Reads and writes are served.
    Served,
    /// It is given back: the volume has another in its place, or none.
    Freed,
}

pub(super) struct ChunkState {
    pub stage: Stage,
    /// Number of the replica set.
    config: ConfigNo,
    /// Counter of the next write's seq.
    next: u64,
    /// By slot; those that are gone included.
    pub members: Vec<Member>,
    /// Members of which each is to hold every acknowledged write, while the replica set is being changed.
    pub attested: Slots,
    /// Writes that are not answered, or that a member owes.
    pub open: BTreeMap<Seq, Rc<WriteOp>>,
}

impl ChunkState {
    /// Present members, with their slots.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(|(_, m)| !m.is_gone())
    }

    /// Whether the guest may be told that the write is durable.
    fn is_durable(&self, op: &WriteOp, min_copies: usize) -> bool {
        let acked = op.acked.get();
        let enough = acked.count_ones() as usize + usize::from(crate::mutant!("acknowledged by one copy too few"));
        enough >= min_copies
            && (acked & self.attested == self.attested || crate::mutant!("attested copies not waited for"))
    }

    pub fn config(&self) -> ConfigNo {
        self.config
    }

    /// Counter of the next write's seq.
    pub fn next_counter(&self) -> u64 {
        self.next
    }

    pub fn set_config(&mut self, config: ConfigNo) {
        self.config = config;
    }

    /// Notes and returns the writes that the guest may be told of now.
    pub fn answer_durable(&mut self, min_copies: usize) -> Vec<Rc<WriteOp>> {
        let ready = |op: &&Rc<WriteOp>| !op.answered.get() && self.is_durable(op, min_copies);
        let durable: Vec<_> = self.open.values().filter(ready).cloned().collect();
        for op in &durable {
            op.answered.set(true);
            self.retire(op);
        }
        durable
    }

    /// Whether each of these members is up to date and has every acknowledged write.
    pub fn hold_everything(&self, slots: Slots) -> bool {
        let all = self.members.iter().enumerate().filter(|(i, _)| slots & (1 << i) != 0);
        let owed = |op: &Rc<WriteOp>| op.answered.get() && op.owed_by.get() & slots != 0;
        all.clone().all(|(_, m)| m.live && m.is_current()) && !self.open.values().any(owed)
    }

    fn owe(&mut self, i: usize, op: &Rc<WriteOp>) {
        op.owed_by.set(op.owed_by.get() | (1 << i));
        self.members[i].owes.insert(op.seq, op.clone());
    }

    /// The member does not owe the write any more.
    pub fn settle(&mut self, i: usize, op: &WriteOp) {
        self.members[i].settle(op);
        op.owed_by.set(op.owed_by.get() & !(1 << i));
        self.retire(op);
    }

    /// Forgets a write that is answered and that nobody owes.
    fn retire(&mut self, op: &WriteOp) {
        if op.answered.get() && op.owed_by.get() == 0 {
            self.open.remove(&op.seq);
        }
    }

    /// What the member acknowledged is not to be relied on: it is to get it again.
    pub fn forget_acks(&mut self, i: usize) {
        self.open.values().for_each(|op| op.acked.set(op.acked.get() & !(1 << i)));
    }
}

/// What a node says of a replica when it is fenced.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// It adopted this epoch.
    pub adopted: bool,
    pub damaged: bool,
    /// The largest seq that it holds.
    pub max_seq: Seq,
    pub sealed: Version,
}

/// What may be copied to a member in one step.
pub(super) struct ToCopy {
    pub source: usize,
    pub version: Version,
    pub runs: Vec<Range<u32>>,
}

/// Of the blocks of which this version is wanted: those of which a member holds it.
fn dirty_and_held(wanted: &BlockSet, source: &Member, version: Version) -> BlockSet {
    let mut can = wanted.clone();
    if let Sync::Behind(theirs) = &source.sync {
        let doubtful = [theirs.dirty.at(version), theirs.sending.at(version)];
        doubtful.into_iter().flatten().for_each(|blocks| can.subtract(blocks));
    }
    source.bad.at(version).into_iter().for_each(|blocks| can.subtract(blocks));
    let owed = source.owes.values().filter(|op| op.version == version);
    owed.for_each(|op| can.remove_range(op.blocks()));
    can
}

pub(super) struct Chunk {
    pub id: ChunkId,
    /// Position in the volume.
    pub index: u32,
    /// Allocated in this epoch: nothing of it is in doubt.
    pub fresh: bool,
    /// A reconciliation changed members, which may have failed: what they said when they were fenced is outdated.
    pub touched: Cell<bool>,
    /// Entries that members hold and cannot read, found while the chunk was in doubt.
    pub unreadable: RefCell<BTreeMap<(u32, Version), Slots>>,
    /// The last commit point that members were told.
    pub committed: Cell<Seq>,
    /// When those who could not read something were last forgotten.
    pub tried_again: Cell<Duration>,
    /// A member has come back since, and may not have heard it.
    pub untold: Cell<bool>,
    /// Blocks were zeroed since it was last looked at whether it still holds data.
    pub zeroed: Cell<bool>,
    /// It is being freed: its members are not changed, and writes wait.
    pub closing: Cell<bool>,
    pub locks: Rc<RangeLocks>,
    pub state: RefCell<ChunkState>,
    /// How far it has been pruned.
    pub pruned: PruneState,
    /// Of a clone: which blocks the volume has itself.
    pub presence: Presence,
    pub traffic: Traffic,
    /// A member or the stage changed.
    pub changed: Event,
}

impl Chunk {
    /// A chunk as the meta server describes it. `fresh`: allocated in this epoch, so that nothing of it is in
    /// doubt, and a replica misses exactly the writes that we know it to miss. `locks`: the order at its position.
    pub fn new(info: &ChunkInfo, fresh: bool, locks: Rc<RangeLocks>) -> Rc<Chunk> {
        let missing = || if fresh { Missing { create: true, ..Missing::default() } } else { Missing::unknown() };
        let members = info.replicas.iter().map(|place| Member::new(*place, missing())).collect();
        let stage = if fresh { Stage::Adopting } else { Stage::InDoubt };
        let (config, open) = (info.config, BTreeMap::new());
        let state = ChunkState { stage, config, next: 1, members, attested: 0, open };
        Rc::new(Chunk {
            id: info.chunk,
            index: info.index,
            fresh,
            touched: Cell::new(false),
            unreadable: RefCell::default(),
            committed: Cell::new(Seq::ZERO),
            tried_again: Cell::default(),
            untold: Cell::new(false),
            zeroed: Cell::new(false),
            closing: Cell::new(false),
            locks,
            state: RefCell::new(state),
            pruned: PruneState::default(),
            presence: if fresh { Presence::of_new_chunk() } else { Presence::default() },
            traffic: Traffic::default(),
            changed: Event::new(),
        })
    }

    pub fn config(&self) -> ConfigNo {
        self.state.borrow().config
    }

    /// Where a member is.
    pub fn place(&self, i: usize) -> ReplicaPlace {
        self.state.borrow().members[i].place
    }

    /// Slots and places of the present members.
    pub fn members(&self) -> Vec<(usize, ReplicaPlace)> {
        self.state.borrow().present().map(|(i, m)| (i, m.place)).collect()
    }

    /// Number of present members.
    pub fn copies(&self) -> usize {
        self.state.borrow().present().count()
    }

    pub fn stage(&self) -> Stage {
        self.state.borrow().stage
    }

    pub fn is_served(&self) -> bool {
        self.stage() == Stage::Served
    }

    pub fn is_freed(&self) -> bool {
        self.stage() == Stage::Freed
    }

    pub fn is_healthy(&self) -> bool {
        self.state.borrow().present().all(|(_, m)| m.live && m.is_current())
    }

    /// The next seq of this chunk in `epoch`.
    pub fn next_seq(&self, epoch: Epoch) -> Seq {
        let mut state = self.state.borrow_mut();
        let seq = Seq::new(epoch, state.next);
        state.next += 1;
        seq
    }

    /// Serves the chunk once enough members are current.
    pub fn serve_if_adopted(&self, min_copies: usize) {
        {
            let mut state = self.state.borrow_mut();
            let current = state.present().filter(|(_, m)| m.is_current()).count();
            let needed = if crate::mutant!("served before enough have adopted") { 1 } else { min_copies };
            if state.stage == Stage::Adopting && current >= needed {
                state.stage = Stage::Served;
            }
        }
        self.changed.notify();
    }

    /// Whether a chunk that is decided cannot do without the member: the others are too few, or may lack what this one has, or
    /// writes wait for it.
    pub fn needs(&self, i: usize, min_copies: usize) -> bool {
        let state = self.state.borrow();
        let is_served = state.stage == Stage::Served;
        let others = state.present().filter(|(j, m)| *j != i && m.live && (m.is_current() || !is_served)).count();
        others < min_copies || state.attested & (1 << i) != 0
    }

    /// Whether it was just allocated: nothing of it has been made anywhere, and nothing written.
    pub fn is_new(&self) -> bool {
        let made = |m: &Member| !matches!(&m.sync, Sync::Behind(Missing { create: true, .. }));
        !self.is_served() && !self.state.borrow().present().any(|(_, m)| made(m))
    }

    /// How many of its members can be written to.
    pub fn live_members(&self) -> usize {
        self.state.borrow().present().filter(|(_, m)| m.live).count()
    }

    /// Who waits for what is asked of its members to make them whole.
    pub fn waits(&self) -> Waits {
        if self.is_served() { Waits::Nobody } else { Waits::Guests }
    }

    /// The member on a disk, if any: members are on distinct disks.
    pub fn member_on(&self, disk: DiskId) -> Option<usize> {
        self.state.borrow().present().find(|(_, m)| m.place.disk == disk).map(|(i, _)| i)
    }

    /// Begins a write: every live member owes it, the others miss it. Returns the former.
    pub fn begin(&self, op: &Rc<WriteOp>) -> Vec<usize> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.open.insert(op.seq, op.clone());
        let mut live = Vec::with_capacity(state.members.len());
        for i in 0..state.members.len() {
            if state.members[i].live {
                state.owe(i, op);
                live.push(i);
            } else if !state.members[i].is_gone() {
                state.members[i].miss(op.blocks(), op.version);
            }
        }
        live
    }

    /// What a member that is live again is to get again; it owes that from now on.
    pub fn owe_open(&self, i: usize) -> Vec<Rc<WriteOp>> {
        let mut state = self.state.borrow_mut();
        let lacks = |op: &&Rc<WriteOp>| !op.acked_by(i) && !op.is_owed_by(i);
        let lacking: Vec<_> = state.open.values().filter(lacks).cloned().collect();
        lacking.iter().for_each(|op| state.owe(i, op));
        lacking
    }

    /// A member has a write durably. Returns whether with this one enough have.
    pub fn acknowledge(&self, op: &WriteOp, i: usize, min_copies: usize) -> bool {
        let mut state = self.state.borrow_mut();
        if !op.is_owed_by(i) {
            return false;
        }
        op.acked.set(op.acked.get() | (1 << i));
        state.members[i].bad.remove_range(op.blocks(), op.version);
        state.members[i].acked = state.members[i].acked.max(op.seq);
        if !op.answered.get() {
            // An unanswered write holds its blocks exclusively, so nothing newer exists: the member misses none of
            // them any more. (When all copies were away at once, this is what the others can copy from.)
            state.members[i].renew(op.blocks(), op.version);
        }
        state.members[i].overtake(op);
        let now = !op.answered.get() && state.is_durable(op, min_copies);
        op.answered.set(op.answered.get() || now);
        state.settle(i, op);
        now
    }

    /// Stops waiting for a member to take a write that the guest has its answer to: the member misses it.
    pub fn give_up(&self, op: &WriteOp, i: usize) {
        {
            let mut state = self.state.borrow_mut();
            state.members[i].miss_write(op);
            state.settle(i, op);
        }
        self.changed.notify();
    }

    /// The disk is lost: its member gets no writes, and misses what it owes.
    pub fn lose_member_on(&self, disk: DiskId) {
        let Some(i) = self.member_on(disk) else { return };
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let member = &mut state.members[i];
            member.live = false;
            let missing = member.fall_behind();
            missing.dirty.extend(&std::mem::take(&mut missing.sending));
            for op in std::mem::take(&mut member.owes).into_values() {
                crate::reached!("member lost while it owed writes");
                if crate::mutant!("a lost copy misses nothing") {
                    state.settle(i, &op);
                    continue;
                }
                state.members[i].miss_write(&op);
                state.settle(i, &op);
            }
        }
        self.changed.notify();
    }

    /// The node is back and fenced, and says this of the replica. Returns whether the member is live again.
    pub fn readmit(&self, i: usize, found: Option<Found>) -> bool {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let member = &mut state.members[i];
        if member.is_gone() {
            return false;
        }
        member.bad = EntrySet::default();
        let Sync::Behind(missing) = &mut member.sync else { return member.live };
        missing.create = found.is_none();
        missing.unreadable = found.is_some_and(|f| f.damaged);
        let is_lost = match found {
            None => member.made || !self.fresh,
            // It had adopted, and has not: whatever happened there, its entries are not what they were.
            // Nor if it lacks what it acknowledged: a rotted last batch of its log looks like one that was torn by a crash.
            Some(f) => f.damaged || f.max_seq < member.acked || (!f.adopted && !missing.compare && !missing.adopt),
        };
        let is_lost = is_lost && !crate::mutant!("what a copy lost is not compared");
        if is_lost {
            crate::reached!("member came back without what it had");
            missing.damaged |= member.made;
            missing.renewed = EntrySet::default();
            missing.compare = true;
            missing.adopt = true;
        } else if !missing.compare {
            missing.adopt = found.is_some_and(|f| !f.adopted);
        }
        member.live = found.is_some();
        member.made |= found.is_some();
        member.sealed = found.filter(|_| !is_lost).map_or(Version(0), |f| f.sealed);
        let live = member.live;
        if is_lost {
            member.acked = Seq::ZERO;
            state.forget_acks(i);
        }
        live
    }

    /// The replica was made in the current session; on a disk that may have `forgotten` it, it says that it lost entries.
    pub fn made(&self, i: usize, forgotten: bool) {
        let mut state = self.state.borrow_mut();
        let member = &mut state.members[i];
        if member.is_gone() {
            return;
        }
        member.made = true;
        member.live = true;
        if let Sync::Behind(missing) = &mut member.sync {
            missing.create = false;
            missing.unreadable = forgotten;
        }
    }

    /// The chunk's state is decided: `holders` durably hold it. Those of which `is_live` says so take part from
    /// now on, and are kept busy until [`Chunk::adopted`].
    pub fn decided(&self, holders: &[usize], is_live: impl Fn(usize) -> bool) {
        let mut state = self.state.borrow_mut();
        state.stage = Stage::Adopting;
        for (i, member) in state.members.iter_mut().enumerate().filter(|(_, m)| !m.is_gone()) {
            let holds = holders.contains(&i);
            member.made |= holds;
            member.live = holds && is_live(i);
            member.busy = member.live;
            member.sync = Sync::Behind(if holds { Missing::adoption() } else { Missing::unknown() });
        }
    }

    /// A member has adopted this epoch, or (`false`) is to try it by itself.
    pub fn adopted(&self, i: usize, done: bool) {
        let member = &mut self.state.borrow_mut().members[i];
        member.busy = false;
        if let Sync::Behind(missing) = &mut member.sync
            && done
        {
            missing.adopt = false;
            missing.unreadable = false;
            member.become_current();
        }
    }

    /// A copy of one version of a block is bad: it is to be sent again from another, if there is one that can give it. What the
    /// member is to get anyway is left alone.
    pub fn mark_corrupt(&self, i: usize, block: u32, version: Version) -> bool {
        let mut state = self.state.borrow_mut();
        if !state.members[i].holds_entry(block, version) {
            return false;
        }
        let others = state.present().any(|(j, m)| j != i && m.gives(block, version));
        match others {
            true => state.members[i].miss_bad(block, version),
            false => state.members[i].bad.insert(block, version),
        }
        others
    }

    /// These blocks were sent to a member again.
    pub fn healed(&self, i: usize, blocks: &[u32], version: Version) {
        let bad = &mut self.state.borrow_mut().members[i].bad;
        if !bad.is_empty() {
            blocks.iter().for_each(|b| bad.remove(*b, version));
        }
    }

    /// What a replica said of its seal when it was fenced.
    pub fn found_sealed(&self, i: usize, version: Version) {
        self.state.borrow_mut().members[i].sealed = version;
    }

    /// Changes what a member is known to miss. False if it misses nothing.
    pub fn update_missing(&self, i: usize, change: impl FnOnce(&mut Missing)) -> bool {
        match &mut self.state.borrow_mut().members[i].sync {
            Sync::Behind(missing) => change(missing),
            Sync::Current => return false,
        }
        true
    }

    /// Nothing is missing any more. Whether that is so.
    pub fn finish(&self, i: usize) -> bool {
        let member = &mut self.state.borrow_mut().members[i];
        member.become_current();
        self.untold.set(true);
        member.is_current()
    }

    /// Whether the member has adopted this epoch, as far as we know.
    pub fn has_adopted(&self, i: usize) -> bool {
        !matches!(&self.state.borrow().members[i].sync, Sync::Behind(Missing { adopt: true, .. }))
    }

    /// A member to compare with: one that misses as little as possible.
    pub fn to_compare_with(&self, i: usize) -> Option<usize> {
        let state = self.state.borrow();
        let others = || state.present().filter(|(j, m)| *j != i && m.is_known());
        others().find(|(_, m)| m.is_current()).or_else(|| others().next()).map(|(j, _)| j)
    }

    /// A member that has everything.
    pub fn some_current(&self) -> Option<usize> {
        let state = self.state.borrow();
        state.present().find(|(_, m)| m.live && m.is_current()).map(|(i, _)| i)
    }

    /// A member that has everything, every write that was answered included; another one each `turn`.
    pub fn some_complete(&self, turn: usize) -> Option<usize> {
        let state = self.state.borrow();
        let all: Vec<usize> = state.present().map(|(i, _)| i).filter(|i| state.hold_everything(1 << i)).collect();
        all.get(turn % all.len().max(1)).copied()
    }

    /// Entries of which it is not known that the member holds them: it misses them, or owes a write of them.
    pub fn doubtful(&self, i: usize) -> EntrySet {
        let member = &self.state.borrow().members[i];
        let mut entries = match &member.sync {
            Sync::Current => EntrySet::default(),
            Sync::Behind(missing) => missing.doubtful(),
        };
        member.owes.values().for_each(|op| entries.insert_range(op.blocks(), op.version));
        entries
    }

    /// What a member misses and another holds: at most `blocks` blocks in at most `runs` runs of one version. The others are
    /// tried from the `turn`th on.
    pub fn to_copy(&self, i: usize, blocks: u32, runs: usize, turn: usize) -> Option<ToCopy> {
        let state = self.state.borrow();
        let Sync::Behind(missing) = &state.members[i].sync else { return None };
        let mut others: Vec<_> = state.present().filter(|(j, m)| *j != i && m.is_source()).collect();
        let first = turn % others.len().max(1);
        others.rotate_left(first);
        let mut offers = missing.dirty.versions().flat_map(|(version, dirty)| {
            others.iter().map(move |(source, theirs)| {
                let runs = dirty_and_held(dirty, theirs, version).runs(blocks, runs);
                ToCopy { source: *source, version, runs }
            })
        });
        offers.find(|offer| !offer.runs.is_empty())
    }

    /// The gateway stopped: nobody will be answered any more.
    pub fn abandon(&self) {
        let open = {
            let mut state = self.state.borrow_mut();
            state.members.iter_mut().for_each(|m| m.owes.clear());
            std::mem::take(&mut state.open)
        };
        open.values().for_each(|op| drop(op.waiter.take()));
        self.changed.notify();
    }
}
