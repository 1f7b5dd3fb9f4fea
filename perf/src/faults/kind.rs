//! The kinds of faults that can be asked for.

use std::collections::BTreeSet;
use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// What a round does to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A storage daemon is killed and started again
    Kill,
    /// A storage daemon is stopped (SIGSTOP) for a while
    Stop,
    /// Links fail: all of a node's, those between two, or one direction
    Cut,
    /// A disk fails accesses: once, for a while, or until its daemon is started again
    DiskError,
    /// A disk answers late
    DiskStall,
    /// Every write to a disk, to all but one, or to all takes 1.5 s for a while
    DiskSlow,
    /// All disks are full for a while
    Full,
    /// Bits flip in the data on a disk
    Corrupt,
    /// Sectors of a disk cannot be read, until they are written
    BadSectors,
    /// All daemons are killed at once
    AllKilled,
    /// A meta server, the leader or another, is killed, stopped or cut off
    Meta,
    /// Two disks of a node exchange their paths while its daemon is down
    DiskNames,
    /// A second daemon with a node's name is started beside it
    SecondDaemon,
    /// Two of the other kinds that are asked for, at overlapping times
    Two,
}

impl Kind {
    /// Whether its faults need disks that can be made to fail.
    pub fn is_of_disks(self) -> bool {
        let of_disks = [Kind::DiskError, Kind::DiskStall, Kind::DiskSlow, Kind::Corrupt, Kind::BadSectors];
        of_disks.contains(&self)
    }

    /// Whether a fault of this kind can be one of two. Rot and bad sectors are not: with another copy gone they may be a loss. Nor is what
    /// may only be done to a daemon that is surely down, or surely up.
    pub fn pairs(self) -> bool {
        let of_copies = matches!(self, Kind::Corrupt | Kind::BadSectors);
        !of_copies && !matches!(self, Kind::Two | Kind::AllKilled | Kind::DiskNames | Kind::SecondDaemon)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}

/// What this machine must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Network namespaces.
    Networks,
    /// File systems in user space.
    Disks,
}

/// All kinds.
pub fn all() -> BTreeSet<Kind> {
    Kind::value_variants().iter().copied().collect()
}
