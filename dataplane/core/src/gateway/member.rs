//! One member of a chunk: what it misses, and which writes it owes.

use super::entry_set::EntrySet;
use super::locks::Held;
use crate::bitmap::BlockSet;
use crate::sync::Sender;
use bytes::Bytes;
use levee_proto::api::ReplicaPlace;
use levee_proto::wire::{BlockKind, Crcs};
use levee_proto::{Seq, Version};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// A member that owes more writes is slow, and not worth finding out whether it could be read.
const MAX_OWED_WHEN_READ: usize = 4096;

/// How up to date a member is.
pub(super) enum Sync {
    /// It adopted this epoch and misses nothing but writes that it owes.
    Current,
    /// It misses something.
    Behind(Missing),
}

/// What a member misses.
#[derive(Default)]
pub(super) struct Missing {
    /// It does not exist at its daemon yet.
    pub create: bool,
    /// Unknown: all its entries have to be compared. The blocks noted are those missed since.
    pub compare: bool,
    /// It lost entries: not even what it acknowledged in this epoch can be relied on.
    pub damaged: bool,
    /// It must still adopt this epoch.
    pub adopt: bool,
    /// It refuses to be read, as it lost entries, until it has adopted.
    pub unreadable: bool,
    /// While it has to be compared: entries of which it has got the newest state since that is so.
    pub renewed: EntrySet,
    /// Entries to send.
    pub dirty: EntrySet,
    /// Entries being sent right now: dirty again if that fails.
    pub sending: EntrySet,
}

impl Missing {
    /// Everything: it has to be compared entry by entry and adopted.
    pub fn unknown() -> Missing {
        Missing { compare: true, adopt: true, ..Missing::default() }
    }

    /// Everything, and the replica itself: it is to be made.
    pub fn newcomer() -> Missing {
        Missing { create: true, ..Missing::unknown() }
    }

    /// Nothing of the decided state, which it only has to adopt.
    pub fn adoption() -> Missing {
        Missing { adopt: true, ..Missing::default() }
    }

    fn is_nothing(&self) -> bool {
        !self.create && !self.compare && !self.adopt && self.dirty.is_empty() && self.sending.is_empty()
    }

    /// Entries of which it is not known that the member holds them; `compare` aside.
    pub fn doubtful(&self) -> EntrySet {
        let mut entries = self.dirty.clone();
        entries.extend(&self.sending);
        entries
    }
}

/// A set of a chunk's members: bit per slot.
pub(super) type Slots = u32;
/// Members that a chunk can have had within one epoch without using a slot again.
pub(super) const MAX_SLOTS: usize = Slots::BITS as usize;

pub(super) struct Member {
    pub place: ReplicaPlace,
    /// When it left the chunk. Its slot is kept for a while: answers to what it was asked may still come.
    pub gone: Option<Duration>,
    /// The replica is known to have existed in this epoch.
    pub made: bool,
    /// Its daemon is fenced and reachable and the replica exists: writes are sent to it.
    pub live: bool,
    /// A step of catching it up is under way.
    pub busy: bool,
    pub sync: Sync,
    /// Entries that it holds and could not read when it was asked last: it may miss them as well, to be sent them again.
    pub bad: EntrySet,
    /// The largest seq that it acknowledged in this epoch.
    pub acked: Seq,
    /// It holds everything that was ever written at versions up to this one, and knows that.
    pub sealed: Version,
    /// Writes sent in this session that it has not acknowledged.
    pub owes: BTreeMap<Seq, Rc<WriteOp>>,
    /// Of those: the blocks of which it acknowledged something newer.
    overtaken: BTreeMap<Seq, BlockSet>,
}

impl Member {
    pub fn new(place: ReplicaPlace, missing: Missing) -> Member {
        Member {
            place,
            gone: None,
            made: false,
            live: false,
            busy: false,
            sync: Sync::Behind(missing),
            bad: EntrySet::default(),
            acked: Seq::ZERO,
            sealed: Version(0),
            owes: BTreeMap::new(),
            overtaken: BTreeMap::new(),
        }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    pub fn is_current(&self) -> bool {
        matches!(self.sync, Sync::Current)
    }

    /// It has everything, and gets what is written.
    pub fn is_good(&self) -> bool {
        self.live && self.is_current()
    }

    /// It may miss something from now on.
    pub fn fall_behind(&mut self) -> &mut Missing {
        if self.is_current() {
            self.sync = Sync::Behind(Missing::default());
        }
        match &mut self.sync {
            Sync::Behind(missing) => missing,
            Sync::Current => unreachable!("it was put behind"),
        }
    }

    /// Notes that the member misses this version of `blocks`.
    pub fn miss(&mut self, blocks: Range<u32>, version: Version) {
        self.bad.remove_range(blocks.clone(), version);
        let missing = self.fall_behind();
        missing.renewed.remove_range(blocks.clone(), version);
        missing.dirty.insert_range(blocks, version);
    }

    /// Notes that the member could not read an entry that it holds, and is to be sent it again.
    pub fn miss_bad(&mut self, block: u32, version: Version) {
        self.miss(block..block + 1, version);
        self.bad.insert(block, version);
    }

    /// It acknowledged a write: what it owes of older ones to these entries does not matter any more.
    pub fn overtake(&mut self, op: &WriteOp) {
        let same = |older: &WriteOp| older.version == op.version && older.overlaps(&op.blocks());
        for (seq, older) in self.owes.range(..op.seq).filter(|(_, older)| same(older)) {
            let blocks = op.block.max(older.block)..op.blocks().end.min(older.blocks().end);
            self.overtaken.entry(*seq).or_default().insert_range(blocks);
        }
    }

    /// It does not get a write that it owes: it misses the blocks of which it has nothing newer.
    pub fn miss_write(&mut self, op: &WriteOp) {
        let newer = self.overtaken.remove(&op.seq).unwrap_or_default();
        op.blocks().filter(|b| !newer.contains(*b)).for_each(|b| self.miss(b..b + 1, op.version));
    }

    /// It does not owe the write any more.
    pub fn settle(&mut self, op: &WriteOp) {
        self.owes.remove(&op.seq);
        self.overtaken.remove(&op.seq);
    }

    /// It has the newest state of this version of these blocks.
    pub fn renew(&mut self, blocks: Range<u32>, version: Version) {
        self.bad.remove_range(blocks.clone(), version);
        let Sync::Behind(missing) = &mut self.sync else { return };
        missing.dirty.remove_range(blocks.clone(), version);
        missing.sending.remove_range(blocks.clone(), version);
        if missing.compare {
            missing.renewed.insert_range(blocks, version);
        }
    }

    /// Whether others may be sent what it holds.
    pub fn is_source(&self) -> bool {
        self.is_known() && !matches!(&self.sync, Sync::Behind(Missing { unreadable: true, .. }))
    }

    /// What it holds can be told from what it is noted to miss.
    pub fn is_known(&self) -> bool {
        self.live && matches!(&self.sync, Sync::Current | Sync::Behind(Missing { create: false, compare: false, .. }))
    }

    /// Whether it holds the newest state of these blocks.
    pub fn holds(&self, blocks: &Range<u32>) -> bool {
        let misses = match &self.sync {
            Sync::Current => false,
            Sync::Behind(m) => m.dirty.meets(blocks) || m.sending.meets(blocks),
        };
        self.is_known()
            && !misses
            && self.owes.len() <= MAX_OWED_WHEN_READ
            && !self.owes.values().any(|op| op.overlaps(blocks))
    }

    /// Whether it is noted to miss this version of a block.
    pub fn misses(&self, block: u32, version: Version) -> bool {
        match &self.sync {
            Sync::Current => false,
            Sync::Behind(m) => m.dirty.contains(block, version) || m.sending.contains(block, version),
        }
    }

    /// Whether it holds the newest state of this version of a block, and has not failed to read it.
    pub fn gives(&self, block: u32, version: Version) -> bool {
        self.holds_entry(block, version) && !self.bad.contains(block, version)
    }

    /// Whether it holds the newest state of this version of a block.
    pub fn holds_entry(&self, block: u32, version: Version) -> bool {
        let owes = |op: &Rc<WriteOp>| op.version == version && op.overlaps(&(block..block + 1));
        self.is_known() && !self.misses(block, version) && !self.owes.values().any(owes)
    }

    /// Whether guests may read these blocks from it.
    pub fn is_readable(&self, blocks: &Range<u32>) -> bool {
        let adopted = !matches!(&self.sync, Sync::Behind(Missing { adopt: true, .. }));
        (adopted || crate::mutant!("read before adopted")) && self.holds(blocks)
    }

    /// Current, if nothing is missing any more.
    pub fn become_current(&mut self) {
        if matches!(&self.sync, Sync::Behind(missing) if missing.is_nothing()) {
            self.sync = Sync::Current;
        }
    }
}

/// The guest's request that a write belongs to. It holds its blocks until it is answered, whether anybody waits or not.
pub(super) struct Waiter {
    pub answer: Sender<()>,
    pub held: Held,
}

impl Waiter {
    /// The write is durable.
    pub fn answer(self) {
        self.held.wrote();
        self.answer.send(());
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
    /// Who has it durably.
    pub acked: Cell<Slots>,
    /// Who owes it.
    pub owed_by: Cell<Slots>,
    /// Taken when the guest is answered.
    pub waiter: Cell<Option<Waiter>>,
    /// A full disk refused it, and it is not answered.
    pub starved: Cell<bool>,
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

    pub fn is_owed_by(&self, member: usize) -> bool {
        self.owed_by.get() & (1 << member) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::{DiskId, Epoch, NodeId, ReplicaId};

    fn write(counter: u64, blocks: Range<u32>) -> Rc<WriteOp> {
        Rc::new(WriteOp {
            seq: Seq::new(Epoch(1), counter),
            version: Version(1),
            kind: BlockKind::Data,
            block: blocks.start,
            count: blocks.end - blocks.start,
            data: Bytes::new(),
            crcs: Crcs::none(),
            acked: Cell::default(),
            owed_by: Cell::default(),
            waiter: Cell::default(),
            starved: Cell::default(),
            answered: Cell::default(),
        })
    }

    /// A full disk refused a write, had room for the next one to the same block, and is given up for the first: it holds the newest
    /// state, perhaps alone.
    #[test]
    fn a_write_that_is_given_up_hides_nothing_newer() {
        let place = ReplicaPlace { replica: ReplicaId(1), disk: DiskId(1), node: NodeId(1) };
        let mut member = Member::new(place, Missing::default());
        member.live = true;
        let (refused, newer) = (write(1, 1..5), write(2, 2..4));
        member.owes.insert(refused.seq, refused.clone());
        member.overtake(&newer);
        member.miss_write(&refused);
        member.settle(&refused);
        assert!(member.holds(&(2..4)) && !member.holds(&(1..2)) && !member.holds(&(4..5)));
        assert!(member.overtaken.is_empty());
    }
}
