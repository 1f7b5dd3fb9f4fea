//! The daemon's disks: formatting and owning them, remembering those that were here before, and each core's
//! shards on them, from recovery to failure and back.

mod class;
mod format;
mod known;
mod owned;
mod shards;
mod watched;
#[cfg(test)]
mod watched_tests;

pub use class::class_of;
pub use format::{format, make_disk};
pub use known::{KnownDisk, KnownDisks};
pub use owned::{OwnedDisk, lock_dir};
pub use shards::{DaemonDisk, DiskShare, PROBE_EVERY, ShardReport, Shards};

use crate::args::DiskArg;
use anyhow::{Context, Result, bail};
use levee_core::store::Superblock;
use levee_proto::api::DiskClass;
use std::path::{Path, PathBuf};
use tracing::error;

/// A disk that the daemon is to serve.
pub struct Disk {
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
    /// Opens a disk. One that this daemon has served before may be broken or away: the others are served without it. A
    /// disk that it has never served is refused then: the command line is wrong.
    pub fn open(arg: &DiskArg, known: &KnownDisks) -> Result<Disk> {
        let path = arg.path.as_path();
        let state = match OwnedDisk::open(path) {
            Ok(owned) => DiskState::Owned(owned),
            Err(owned::Unusable { in_use: false, why }) if known.at(path).is_some() => {
                let why = format!("{why:#}");
                error!("{why}; going on without it");
                DiskState::Missing { known: known.at(path).cloned().expect("just seen"), why }
            }
            Err(unusable) => bail!(unusable.why),
        };
        // Of a device that is away nothing can be found out.
        let remembered = known.at(path).filter(|_| matches!(state, DiskState::Missing { .. })).map(|k| k.class);
        let class = arg.class.or(remembered).unwrap_or_else(|| class_of(path));
        Ok(Disk { path: path.to_owned(), class, added: known.at(path).is_some_and(|k| k.added), state })
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

/// Opens all disks of the command line, and those that were added while the daemon ran.
pub fn open_all(named: &[DiskArg], dir: &Path) -> Result<(Vec<Disk>, KnownDisks)> {
    let known = KnownDisks::load(dir).context("cannot tell which disks were here before")?;
    let is_new = |k: &&KnownDisk| !named.iter().any(|n| n.path == k.path);
    let added = known.added().filter(is_new).map(|k| DiskArg { path: k.path.clone(), class: Some(k.class) });
    let disks = named.iter().cloned().chain(added).map(|arg| Disk::open(&arg, &known)).collect::<Result<_>>()?;
    Ok((disks, known))
}
