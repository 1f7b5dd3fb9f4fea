//! The daemon's disks: formatting and owning them, remembering those that were here before, and each core's
//! shards on them, from recovery to failure and back.

mod class;
mod format;
mod found;
mod holdings;
mod known;
pub mod lock;
mod owned;
mod shards;
mod signature;
mod watched;
#[cfg(test)]
mod watched_tests;

pub use class::class_of;
pub use format::{format, make_disk};
pub use found::open_all;
pub use holdings::Holdings;
pub use known::{KnownDisk, KnownDisks};
pub use lock::lock_dir;
pub use owned::OwnedDisk;
pub use shards::{DaemonDisk, DiskShare, PROBE_EVERY, ShardReport, Shards};

use levee_core::store::Superblock;
use levee_proto::api::DiskClass;
use std::path::PathBuf;

/// A disk that the daemon is to serve. It is told from others by its uuid, wherever it is.
pub struct Disk {
    /// Where it is, or was last.
    pub path: PathBuf,
    pub class: DiskClass,
    /// It was added while the daemon ran, now or earlier.
    pub added: bool,
    pub state: DiskState,
}

/// What became of it when the daemon started.
pub enum DiskState {
    Owned(OwnedDisk),
    /// It cannot be used, but was this daemon's before: the cluster is told so.
    Missing {
        known: KnownDisk,
        why: String,
    },
}

impl Disk {
    pub fn uuid(&self) -> uuid::Uuid {
        match &self.state {
            DiskState::Owned(owned) => owned.uuid(),
            DiskState::Missing { known, .. } => known.uuid,
        }
    }

    /// What is on it, if it can be used.
    pub fn superblock(&self) -> Option<&Superblock> {
        match &self.state {
            DiskState::Owned(owned) => Some(&owned.superblock),
            DiskState::Missing { .. } => None,
        }
    }

    /// The cluster that it belongs to, if it has joined one.
    pub fn cluster(&self) -> Option<uuid::Uuid> {
        match &self.state {
            DiskState::Owned(owned) if !owned.superblock.is_claimed() => None,
            DiskState::Owned(owned) => Some(uuid::Uuid::from_bytes(owned.superblock.cluster_uuid)),
            DiskState::Missing { known, .. } => Some(known.cluster),
        }
    }
}
