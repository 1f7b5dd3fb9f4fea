//! Identifiers and generations.
//!
//! Each is a newtype, so that an epoch cannot be passed where a version is meant. Ids are given out
//! by the meta server, start at 1 and are never reused; 0 means "none".

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident, $raw:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype!(
    /// A virtual disk.
    VolumeId, u64
);
newtype!(
    /// 64 MiB of a volume's address space: the unit of placement and repair.
    ChunkId, u64
);
newtype!(
    /// One copy of a chunk on one disk. A replaced disk, or a member that is added again, is a new replica.
    ReplicaId, u64
);
newtype!(
    /// A storage daemon (one per host).
    NodeId, u32
);
newtype!(
    /// A disk of a node. An emptied disk comes back under a new id.
    DiskId, u32
);
newtype!(
    /// Attachment generation of a volume: the fencing token. See `docs/protocol.md`.
    Epoch, u32
);
newtype!(
    /// How often a volume was given its epochs anew: see [`Fence`].
    Era, u8
);
newtype!(
    /// Snapshot generation of a volume.
    Version, u32
);
newtype!(
    /// Number of a chunk's replica set.
    ConfigNo, u32
);

/// The largest id that is ever given out: numbers in JSON are exact up to here.
pub const MAX_ID: u64 = (1 << 53) - 1;

impl Epoch {
    /// The largest epoch that a [`Seq`] can carry.
    pub const MAX: Epoch = Epoch((1 << 24) - 1);

    /// The epoch that follows, or `None` when the numbers are used up.
    pub fn next(self) -> Option<Epoch> {
        (self < Self::MAX).then(|| Epoch(self.0 + 1))
    }
}

/// Below what a volume's gateways are refused: `(era, epoch)`, compared as one number.
///
/// Epochs alone order the gateways: the meta server gives each a larger one than any before, whatever the era. But a fence at an
/// epoch that nobody was given would refuse all of them. Then an operator has the meta server begin another *era*, which the
/// daemons learn from it and from nobody else; a fence of a later era stands above all of earlier ones. Nothing is ever lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u32);

impl Fence {
    /// Below every gateway.
    pub const NONE: Fence = Fence(0);
    const EPOCH_BITS: u32 = 24;

    pub fn new(era: Era, epoch: Epoch) -> Fence {
        Fence((u32::from(era.0) << Self::EPOCH_BITS) | epoch.0.min(Epoch::MAX.0))
    }

    pub fn era(self) -> Era {
        Era((self.0 >> Self::EPOCH_BITS) as u8)
    }

    pub fn epoch(self) -> Epoch {
        Epoch(self.0 & Epoch::MAX.0)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.era() {
            Era(0) => write!(f, "{}", self.epoch()),
            era => write!(f, "{} of era {era}", self.epoch()),
        }
    }
}

impl Era {
    /// The era that follows, or `None` when the numbers are used up.
    pub fn next(self) -> Option<Era> {
        self.0.checked_add(1).map(Era)
    }
}

impl Version {
    /// The version of a volume that was never snapshotted.
    pub const FIRST: Version = Version(1);
    /// Above every version: where a listing of all begins.
    pub const MAX: Version = Version(u32::MAX);

    /// The version that follows, or `None` when the numbers are used up.
    pub fn next(self) -> Option<Version> {
        self.0.checked_add(1).map(Version).filter(|next| *next < Self::MAX)
    }
}

impl ConfigNo {
    /// The replica set that a chunk is allocated with.
    pub const FIRST: ConfigNo = ConfigNo(1);

    /// The replica set that follows, or `None` when the numbers are used up.
    pub fn next(self) -> Option<ConfigNo> {
        self.0.checked_add(1).map(ConfigNo)
    }
}

/// Order of one chunk's writes: `(epoch, counter)`, compared as one number.
///
/// 24 bits of epoch and 40 bits of counter: 16 million attachments, and 10^12 writes to one chunk
/// within one attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Below every write.
    pub const ZERO: Seq = Seq(0);
    /// The largest counter within one epoch.
    pub const MAX_COUNTER: u64 = (1 << 40) - 1;

    /// # Panics
    /// If either part does not fit: the meta server bounds epochs, the gateway bounds counters.
    pub fn new(epoch: Epoch, counter: u64) -> Seq {
        assert!(epoch <= Epoch::MAX && counter <= Self::MAX_COUNTER, "seq out of range: {epoch}/{counter}");
        Seq((u64::from(epoch.0) << 40) | counter)
    }

    /// The epoch in which the write was made.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 40) as u32)
    }

    /// The write's number within its epoch.
    pub fn counter(self) -> u64 {
        self.0 & Self::MAX_COUNTER
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.counter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seq_orders_by_epoch_then_counter() {
        let early = Seq::new(Epoch(3), Seq::MAX_COUNTER);
        let late = Seq::new(Epoch(4), 0);
        assert!(early < late);
        assert_eq!((late.epoch(), late.counter()), (Epoch(4), 0));
        assert_eq!(Epoch::MAX.next(), None);
    }

    #[test]
    fn a_later_era_stands_above_every_epoch_of_an_earlier_one() {
        let (spent, anew) = (Fence::new(Era(0), Epoch::MAX), Fence::new(Era(1), Epoch(7)));
        assert!(spent < anew && Fence::new(Era(1), Epoch(6)) < anew && Fence::NONE < spent);
        assert_eq!((anew.era(), anew.epoch()), (Era(1), Epoch(7)));
        assert_eq!(Fence::new(Era(0), Epoch(9)), Fence(9), "a fence of the first era is its epoch");
        assert_eq!((anew.to_string(), spent.to_string()), ("7 of era 1".into(), "16777215".into()));
    }
}
