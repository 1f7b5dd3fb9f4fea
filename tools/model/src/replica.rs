//! A replica: its durable state, and what it does with each request.
//!
//! Requests are answered at once or refused. What the gateway learns from an answer, and whether it does, is the
//! gateway's affair: an answer that is lost is a gateway that loses the member after the request.

use crate::order::{Blocks, Entry, Epoch, Seq};
use crate::rules::{Rule, Rules};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Replica {
    /// It was created, and not deleted.
    pub exists: bool,
    /// Corruption made it lose entries, and it knows.
    pub damaged: bool,
    /// The highest epoch that fenced it; kept by the node whether the replica exists or not.
    pub fence: Epoch,
    /// That epoch has fenced it since it started.
    pub awake: bool,
    /// The last epoch whose reconciliation it completed.
    pub adopted: Epoch,
    /// Every member holds the same up to here.
    pub commit: Seq,
    pub entries: Blocks,
    /// A write that was accepted and is not durable yet.
    pub unflushed: Option<(u8, Entry)>,
}

/// What a replica says of itself when it is fenced or listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Answer {
    pub exists: bool,
    pub damaged: bool,
    pub adopted: Epoch,
    pub entries: Blocks,
}

impl Replica {
    /// As it is in a chunk that was allocated in epoch 1.
    pub fn new_member() -> Replica {
        Replica { exists: true, fence: 1, awake: true, adopted: 1, ..Replica::default() }
    }

    /// Whether it takes requests of `epoch`.
    pub fn admits(&self, epoch: Epoch, rules: Rules) -> bool {
        if epoch < self.fence {
            return !rules.on(Rule::RefuseBelowFence);
        }
        (self.awake && epoch == self.fence) || !rules.on(Rule::FenceFirst)
    }

    /// Whether guests may read from it.
    pub fn is_readable(&self, epoch: Epoch, rules: Rules) -> bool {
        self.exists && !self.damaged && self.adopted == epoch && self.admits(epoch, rules)
    }

    pub fn answer(&self) -> Answer {
        Answer { exists: self.exists, damaged: self.damaged, adopted: self.adopted, entries: self.entries }
    }

    /// Fences it. What was accepted earlier is made durable first: the log is first in, first out.
    pub fn fence(&mut self, epoch: Epoch) {
        self.fence = self.fence.max(epoch);
        self.awake = true;
    }

    pub fn create(&mut self) {
        *self = Replica { exists: true, fence: self.fence, awake: self.awake, ..Replica::default() };
    }

    /// Makes a write durable. One that is older than what the block has is acknowledged without effect.
    pub fn write(&mut self, block: u8, entry: Entry, rules: Rules) {
        let known = &mut self.entries[usize::from(block)];
        let is_late = entry.seq <= self.commit && rules.on(Rule::WriteAboveCommit);
        if !is_late && (entry.seq > known.seq || !rules.on(Rule::LargerSeqWins)) {
            *known = entry;
        }
    }

    /// Brings a block to the state that the gateway of `epoch` wants; what was written in that epoch stays if it is newer.
    pub fn repair(&mut self, epoch: Epoch, block: u8, entry: Entry, rules: Rules) {
        let known = &mut self.entries[usize::from(block)];
        let merges = known.seq.epoch() >= epoch && rules.on(Rule::MergeNewEntries);
        if !merges || entry.seq > known.seq {
            *known = entry;
        }
    }

    /// It holds the whole state that `epoch` decided.
    pub fn adopt(&mut self, epoch: Epoch) {
        self.adopted = epoch;
        self.damaged = false;
    }

    /// Its daemon is killed and starts again; `lost`: corruption took a block's entry.
    pub fn restart(&mut self, lost: Option<u8>, rules: Rules) {
        self.awake = false;
        self.unflushed = None;
        if !rules.on(Rule::PersistFence) {
            self.fence = 0;
        }
        if let Some(block) = lost {
            self.entries[usize::from(block)] = Entry::ABSENT;
            self.damaged = true;
            self.commit = Seq::default();
        }
    }

    /// Compaction drops a tombstone that hides nothing any more.
    pub fn drop_tombstone(&mut self, block: u8) {
        self.entries[usize::from(block)] = Entry::ABSENT;
    }

    pub fn can_drop(&self, block: u8, rules: Rules) -> bool {
        let entry = self.entries[usize::from(block)];
        entry.zero && (entry.seq <= self.commit || !rules.on(Rule::DropBelowCommit))
    }

    /// The largest seq that it holds.
    pub fn max_seq(&self) -> Seq {
        self.entries.iter().map(|e| e.seq).max().unwrap_or_default()
    }
}
