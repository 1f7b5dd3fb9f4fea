//! What the gateway knows of one chunk: its members, and the writes that not all of them have yet.

use super::locks::RangeLocks;
use crate::bitmap::BlockSet;
use crate::sync::{Event, Sender};
use bytes::Bytes;
use levee_proto::api::{ChunkInfo, ReplicaPlace};
use levee_proto::wire::{BlockKind, Crcs};
use levee_proto::{Epoch, NodeId, Seq, Version};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// How far a chunk is from being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of it is decided in this epoch.
    InDoubt,
    /// Its state is decided; fewer than `min_copies` members have adopted it.
    Adopting,
    /// Reads and writes are served.
    Served,
}

/// Whether a member may be read.
pub(super) enum Sync {
    /// It adopted this epoch and misses nothing but unacknowledged open writes.
    Current,
    /// It misses something.
    Behind(Missing),
}

/// What a member misses.
#[derive(Default)]
pub(super) struct Missing {
    /// It does not exist at its daemon yet.
    pub create: bool,
    /// Unknown: all its entries have to be compared. Also set until it has adopted this epoch.
    pub compare: bool,
    /// It must still adopt this epoch.
    pub adopt: bool,
    /// Blocks to send.
    pub dirty: BlockSet,
    /// Blocks being sent right now: dirty again if that fails.
    pub sending: Vec<Range<u32>>,
}

impl Missing {
    /// Everything: it has to be compared entry by entry and adopted.
    pub fn unknown() -> Missing {
        Missing { compare: true, adopt: true, ..Missing::default() }
    }
}

pub(super) struct Member {
    pub place: ReplicaPlace,
    /// The replica is known to have existed in this epoch.
    pub made: bool,
    /// Its daemon is fenced and reachable and the replica exists: writes are sent to it.
    pub live: bool,
    /// A step of catching it up is under way.
    pub busy: bool,
    pub sync: Sync,
}

impl Member {
    pub fn is_current(&self) -> bool {
        matches!(self.sync, Sync::Current)
    }

    /// Notes that the member misses `blocks`.
    pub fn miss(&mut self, blocks: Range<u32>) {
        match &mut self.sync {
            Sync::Behind(missing) => missing.dirty.insert_range(blocks),
            Sync::Current => {
                let mut missing = Missing::default();
                missing.dirty.insert_range(blocks);
                self.sync = Sync::Behind(missing);
            }
        }
    }
}

/// A write between being ordered and being held by every member that is not known to miss it.
pub(super) struct WriteOp {
    pub seq: Seq,
    pub version: Version,
    pub kind: BlockKind,
    pub block: u32,
    pub count: u32,
    /// All sends and retries use this buffer: the guest may change its pages.
    pub data: Bytes,
    pub crcs: Crcs,
    /// Bit per member.
    pub acked: Cell<u8>,
    /// Taken when the guest is answered.
    pub answer: Cell<Option<Sender<()>>>,
    pub answered: Cell<bool>,
}

impl WriteOp {
    pub fn blocks(&self) -> Range<u32> {
        self.block..self.block + self.count
    }

    pub fn overlaps(&self, blocks: &Range<u32>) -> bool {
        self.block < blocks.end && blocks.start < self.block + self.count
    }

    pub fn acked_by(&self, member: usize) -> bool {
        self.acked.get() & (1 << member) != 0
    }
}

pub(super) struct ChunkState {
    pub stage: Stage,
    /// Counter of the next write's seq.
    pub next: u64,
    pub members: Vec<Member>,
    /// In seq order.
    pub open: VecDeque<Rc<WriteOp>>,
}

pub(super) struct Chunk {
    pub info: ChunkInfo,
    pub fresh: bool,
    pub locks: Rc<RangeLocks>,
    pub state: RefCell<ChunkState>,
    /// A member or the stage changed.
    pub changed: Event,
}

impl Chunk {
    /// A chunk as the meta server describes it. `fresh`: allocated in this epoch, so that nothing of it is in
    /// doubt, and a replica misses exactly the writes that we know it to miss.
    pub fn new(info: ChunkInfo, fresh: bool) -> Rc<Chunk> {
        let missing = || if fresh { Missing { create: true, ..Missing::default() } } else { Missing::unknown() };
        let member = |place: &ReplicaPlace| Member {
            place: *place,
            made: false,
            live: false,
            busy: false,
            sync: Sync::Behind(missing()),
        };
        let members = info.replicas.iter().map(member).collect();
        let stage = if fresh { Stage::Adopting } else { Stage::InDoubt };
        Rc::new(Chunk {
            info,
            fresh,
            locks: Rc::default(),
            state: RefCell::new(ChunkState { stage, next: 1, members, open: VecDeque::new() }),
            changed: Event::new(),
        })
    }

    pub fn stage(&self) -> Stage {
        self.state.borrow().stage
    }

    pub fn is_served(&self) -> bool {
        self.stage() == Stage::Served
    }

    pub fn is_healthy(&self) -> bool {
        self.state.borrow().members.iter().all(|m| m.live && m.is_current())
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
            let current = state.members.iter().filter(|m| m.is_current()).count();
            if state.stage == Stage::Adopting && current >= min_copies {
                state.stage = Stage::Served;
            }
        }
        self.changed.notify();
    }

    /// Forgets open writes that every member either has or is known to miss.
    pub fn retire(&self) {
        let mut state = self.state.borrow_mut();
        let live: u8 = state.members.iter().enumerate().filter(|(_, m)| m.live).map(|(i, _)| 1 << i).sum();
        state.open.retain(|op| !op.answered.get() || live & !op.acked.get() != 0);
    }

    /// The member on `node`, if any: members are on distinct nodes.
    pub fn member_of(&self, node: NodeId) -> Option<usize> {
        self.info.replicas.iter().position(|r| r.node == node)
    }

    /// The node is lost: its member gets no writes, and misses what it has not acknowledged.
    pub fn lose_members_of(&self, node: NodeId) {
        let Some(i) = self.member_of(node) else { return };
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let member = &mut state.members[i];
            member.live = false;
            for op in state.open.iter().filter(|op| !op.acked_by(i)) {
                member.miss(op.blocks());
            }
            member.miss(0..0);
            if let Sync::Behind(missing) = &mut member.sync {
                std::mem::take(&mut missing.sending).into_iter().for_each(|run| missing.dirty.insert_range(run));
            }
        }
        self.retire();
        self.changed.notify();
    }

    /// The node is back and fenced. `known`: the replica exists there; `sound`: it adopted this epoch, so
    /// that only the noted blocks are missing. Returns whether the member is live again.
    pub fn readmit(&self, i: usize, known: bool, sound: bool) -> bool {
        let mut state = self.state.borrow_mut();
        let member = &mut state.members[i];
        let Sync::Behind(missing) = &mut member.sync else { unreachable!("a lost member is behind") };
        missing.create = !known;
        let lost = !known && (member.made || !self.fresh);
        if lost || (known && !sound) {
            missing.compare = true;
            missing.adopt = true;
        } else if !missing.compare {
            missing.adopt = false;
        }
        member.live = known;
        member.made |= known;
        known
    }

    /// The replica was made in the current session.
    pub fn made(&self, i: usize) {
        let mut state = self.state.borrow_mut();
        let member = &mut state.members[i];
        member.made = true;
        member.live = true;
        if let Sync::Behind(missing) = &mut member.sync {
            missing.create = false;
        }
    }

    /// A member acknowledged a write that the guest still waits for. It holds its blocks exclusively, so nothing
    /// newer exists: the member misses none of them any more. (When all copies were away at once, this is what
    /// gives the others something to copy from.)
    pub fn has_newest(&self, i: usize, blocks: Range<u32>) {
        if let Sync::Behind(missing) = &mut self.state.borrow_mut().members[i].sync {
            blocks.for_each(|b| missing.dirty.remove(b));
        }
    }

    /// Stops waiting for a member to take a write that the guest has its answer to: the member misses it.
    pub fn give_up(&self, op: &WriteOp, i: usize) {
        self.state.borrow_mut().members[i].miss(op.blocks());
        op.acked.set(op.acked.get() | (1 << i));
        self.retire();
        self.changed.notify();
    }

    /// A copy is bad: it is to be sent again from another. Not noted if there is no other to send from.
    pub fn mark_corrupt(&self, i: usize, blocks: Range<u32>) -> bool {
        let mut state = self.state.borrow_mut();
        let others = state.members.iter().enumerate().any(|(j, m)| j != i && m.live && m.is_current());
        if others {
            state.members[i].miss(blocks);
        }
        others
    }

    /// Changes what a member is known to miss. False if it misses nothing.
    pub fn update_missing(&self, i: usize, change: impl FnOnce(&mut Missing)) -> bool {
        match &mut self.state.borrow_mut().members[i].sync {
            Sync::Behind(missing) => change(missing),
            Sync::Current => return false,
        }
        true
    }

    /// A current member to copy from.
    pub fn source_for(&self, i: usize) -> Option<usize> {
        let state = self.state.borrow();
        state.members.iter().enumerate().position(|(j, m)| j != i && m.live && m.is_current())
    }

    /// The gateway stopped: nobody will be answered any more.
    pub fn abandon(&self) {
        let open = std::mem::take(&mut self.state.borrow_mut().open);
        open.iter().for_each(|op| drop(op.answer.take()));
        self.changed.notify();
    }
}
