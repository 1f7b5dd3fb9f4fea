//! Which disks there are when the daemon starts: what is found at the paths that it looks at, known by the uuid in its superblock.
//!
//! A path says where to look, and nothing more: names of devices shift when one is away. So a disk may be found at another's path; a path at
//! which nothing usable is stands for a disk that was here before and was not found anywhere. Only if there is none, the
//! configuration is wrong.

use super::lock::LOCK_PATIENCE;
use super::owned::{OwnedDisk, Unusable};
use super::{Disk, DiskState, KnownDisk, KnownDisks, class_of};
use crate::args::DiskArg;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tracing::{error, warn};
use uuid::Uuid;

/// Somewhere to look, and what was there.
struct Look {
    arg: DiskArg,
    /// The configuration names it; otherwise a disk was there that was added while the daemon ran.
    named: bool,
    found: Result<OwnedDisk>,
}

/// Opens all disks of the command line, and those that were added while the daemon ran.
pub fn open_all(named: &[DiskArg], dir: &Path) -> Result<(Vec<Disk>, KnownDisks)> {
    let known = KnownDisks::load(dir).context("cannot tell which disks were here before")?;
    let mut looks = look(named, &known)?;
    give_up_copies(&mut looks);
    let found: BTreeSet<Uuid> = looks.iter().filter_map(|l| Some(l.found.as_ref().ok()?.uuid())).collect();
    let mut missing: Vec<&KnownDisk> = known.all().iter().filter(|k| !found.contains(&k.uuid)).collect();
    // First those that were at the very path, whatever the order.
    let there: Vec<Option<&KnownDisk>> = looks.iter().map(|l| l.take_missing(&mut missing, true)).collect();
    let mut disks = vec![];
    for (look, there) in looks.into_iter().zip(there) {
        let stands_for = there.or_else(|| look.take_missing(&mut missing, false));
        disks.extend(look.settle(stands_for, &known)?);
    }
    for gone in missing {
        warn!(
            "disk {} ({}), last seen at {}, was not found at any path that is looked at",
            gone.disk,
            gone.uuid,
            gone.path.display()
        );
    }
    Ok((disks, known))
}

fn look(named: &[DiskArg], known: &KnownDisks) -> Result<Vec<Look>> {
    let is_new = |k: &&KnownDisk| !named.iter().any(|n| n.path == k.path);
    let added = known.added().filter(is_new).map(|k| DiskArg { path: k.path.clone(), class: Some(k.class) });
    let places = named.iter().cloned().map(|arg| (arg, true)).chain(added.map(|arg| (arg, false)));
    let (mut looks, mut seen) = (vec![], BTreeSet::new());
    for (arg, named) in places {
        if let Some(file) = file_of(&arg.path)
            && !seen.insert(file)
        {
            warn!("{} leads to a disk that another path has led to: it is used once", arg.path.display());
            continue;
        }
        let found = match OwnedDisk::open(&arg.path, LOCK_PATIENCE) {
            Ok(owned) => Ok(owned),
            Err(Unusable { in_use: true, why }) => bail!(why),
            Err(unusable) => Err(unusable.why),
        };
        looks.push(Look { arg, named, found });
    }
    Ok(looks)
}

/// The device or file that a path leads to.
fn file_of(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some(match file.file_type().is_block_device() {
        true => (file.rdev(), 0),
        false => (file.dev(), file.ino()),
    })
}

/// Of two disks with one uuid at least one is a copy, and nobody can tell which is older: neither is used.
fn give_up_copies(looks: &mut [Look]) {
    let mut seen = BTreeSet::new();
    let uuids = looks.iter().filter_map(|look| Some(look.found.as_ref().ok()?.uuid()));
    let twice: BTreeSet<Uuid> = uuids.filter(|uuid| !seen.insert(*uuid)).collect();
    let mut told = BTreeSet::new();
    for look in looks {
        if let Ok(owned) = &look.found
            && twice.contains(&owned.uuid())
        {
            let (path, uuid) = (look.arg.path.display(), owned.uuid());
            error!("disk {path} ({uuid}) was found twice: one of them is a copy, and neither is used");
            // One path stands for the disk that is missing now.
            look.named &= told.insert(uuid);
            look.found = Err(anyhow!("it was found twice, one of them is a copy: take the wrong one away"));
        }
    }
}

impl Look {
    /// The missing disk that a path without a usable disk stands for.
    fn take_missing<'k>(&self, missing: &mut Vec<&'k KnownDisk>, at_this_path: bool) -> Option<&'k KnownDisk> {
        let fits = |k: &&KnownDisk| k.path == self.arg.path || (!at_this_path && self.named);
        let position = missing.iter().position(fits).filter(|_| self.found.is_err())?;
        Some(missing.remove(position))
    }

    /// The disk that is to be served, or told of.
    fn settle(self, stands_for: Option<&KnownDisk>, known: &KnownDisks) -> Result<Option<Disk>> {
        let Look { arg, named, found } = self;
        match (found, stands_for) {
            (Ok(owned), _) if named || known.of(owned.uuid()).is_some() => Ok(Some(Disk::found(&arg, owned, known))),
            // Nobody has named it: it is only where a disk was that was added.
            (Ok(_), _) => Ok(None),
            (Err(why), Some(gone)) => Ok(Some(Disk::missing(gone, &why))),
            (Err(why), None) if named => Err(why),
            (Err(_), None) => Ok(None),
        }
    }
}

impl Disk {
    /// Opens a disk that the daemon has not had before.
    pub fn take(arg: &DiskArg) -> Result<Disk> {
        let owned = OwnedDisk::open(&arg.path, LOCK_PATIENCE).map_err(|unusable| unusable.why)?;
        Ok(Disk { added: true, ..Disk::found(arg, owned, &KnownDisks::default()) })
    }

    fn found(arg: &DiskArg, owned: OwnedDisk, known: &KnownDisks) -> Disk {
        let (path, known) = (arg.path.clone(), known.of(owned.uuid()));
        let class = match known {
            // What is said of a path was said of the disk that was there.
            Some(known) if known.path != path => known.class,
            _ => arg.class.unwrap_or_else(|| class_of(&path)),
        };
        Disk { path, class, added: known.is_some_and(|k| k.added), state: DiskState::Owned(owned) }
    }

    fn missing(known: &KnownDisk, why: &anyhow::Error) -> Disk {
        let path = known.path.clone();
        let why = format!("disk {} ({}), last seen at {}, is missing: {why:#}", known.disk, known.uuid, path.display());
        error!("{why}; going on without it");
        let state = DiskState::Missing { known: known.clone(), why };
        // Of a device that is away nothing can be found out.
        Disk { path, class: known.class, added: known.added, state }
    }
}
