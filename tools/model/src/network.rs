//! What a gateway sent and has forgotten: it may still arrive, any time, in any order.
//!
//! Everything else that is on its way is a step that its sender can still take (see `gateway`). Requests that can have
//! no effect any more are dropped.

use crate::order::{Entry, Epoch};
use crate::replica::Replica;
use crate::rules::{Rule, Rules};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Write,
    Repair,
}

/// A request whose link broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Late {
    pub epoch: Epoch,
    pub kind: Kind,
    pub block: u8,
    pub entry: Entry,
}

impl Late {
    /// Whether it can still change anything. `drops`: entries can be dropped, and so what is older can matter again.
    pub fn can_matter(&self, replica: &Replica, rules: Rules, drops: bool) -> bool {
        let refused = self.epoch < replica.fence && rules.on(Rule::RefuseBelowFence);
        let known = replica.entries[usize::from(self.block)].seq;
        let reached = if drops && rules.on(Rule::WriteAboveCommit) { replica.commit } else { known };
        let keeps_all = drops && !rules.on(Rule::WriteAboveCommit);
        let older = reached >= self.entry.seq && rules.on(Rule::LargerSeqWins) && !keeps_all;
        replica.exists && !refused && (self.kind == Kind::Repair || !older)
    }

    pub fn arrive(&self, replica: &mut Replica, rules: Rules) {
        match self.kind {
            Kind::Write => replica.write(self.block, self.entry, rules),
            Kind::Repair => replica.repair(self.epoch, self.block, self.entry, rules),
        }
    }
}
