//! The meta server: Raft as one atomic object. Which node is a member is noted at the node.

use crate::order::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meta {
    pub epoch: Epoch,
    /// Number of the chunk's config.
    pub config: u8,
    /// Gateways that were ever opened.
    pub incarnations: u8,
}

impl Meta {
    pub fn first() -> Meta {
        Meta { epoch: 1, config: 1, incarnations: 1 }
    }
}
