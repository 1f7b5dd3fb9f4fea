//! What a check explores: how many of everything.

/// Every step that could go on for ever takes one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Budget {
    pub writes: u8,
    pub discards: u8,
    /// A gateway loses a member: a link breaks, a request times out, an answer is lost.
    pub losses: u8,
    /// A replica's daemon is killed and starts again.
    pub restarts: u8,
    /// A replica loses an entry to corruption.
    pub damages: u8,
    /// Changes of the replica set.
    pub changes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Members of the first config (R).
    pub copies: usize,
    /// Members that have an acknowledged write (m).
    pub min: usize,
    /// Nodes that are in no config at first.
    pub spares: usize,
    pub blocks: u8,
    pub epochs: u8,
    pub budget: Budget,
    /// Accepting a write and making it durable are two steps.
    pub buffered: bool,
}

impl Bounds {
    /// R and m with one block, and nothing that goes wrong but gateways.
    pub const fn of(copies: usize, min: usize) -> Bounds {
        let budget = Budget { writes: 2, discards: 0, losses: 0, restarts: 0, damages: 0, changes: 0 };
        Bounds { copies, min, spares: 0, blocks: 1, epochs: 3, budget, buffered: false }
    }

    pub const fn budget(self, budget: Budget) -> Bounds {
        Bounds { budget, ..self }
    }
}
