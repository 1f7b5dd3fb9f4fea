//! The volume's versions as its gateway follows them: at which one it writes, what its head sees, and which views are live.
//!
//! Invariants:
//! - A write's seq and version are taken in one moment: of two writes of a chunk, the one with the larger seq has no
//!   smaller version.
//! - Nothing is written at a version before the meta server has opened it, for our epoch: else a gateway that does not know yet
//!   that it was replaced would leave entries behind at a version which its successor opens only later, and which would then
//!   hide what that one has written before.
//! - The views that are kept are those of one moment: the head's, and those of the snapshots that are live then.

use super::{Cluster, Gateway};
use crate::ports::Runtime;
use levee_proto::api::{OpenedVolume, VolumeVersions};
use levee_proto::view::Keep;
use levee_proto::{Version, View};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tracing::info;

/// What the gateway knows of its volume's versions.
pub(super) struct Versions {
    /// Writes are made at it.
    head: Cell<Version>,
    /// The head's.
    view: RefCell<View>,
    /// What is read by live views.
    keep: RefCell<Rc<Keep>>,
    /// As the meta server told them last.
    told: RefCell<Rc<VolumeVersions>>,
    /// Moves while something is done about them.
    progress: Cell<u64>,
}

impl Versions {
    pub fn new(volume: &OpenedVolume) -> Versions {
        let told = volume.versions.clone();
        Versions {
            head: Cell::new(told.version),
            view: RefCell::new(told.view.clone()),
            keep: RefCell::new(Rc::new(keep(&told))),
            told: RefCell::new(Rc::new(told)),
            progress: Cell::new(1),
        }
    }
}

/// Everything that is read by the head or a snapshot.
fn keep(versions: &VolumeVersions) -> Keep {
    Keep::new(&live(versions))
}

/// The views that are to be kept.
pub(super) fn live(versions: &VolumeVersions) -> Vec<View> {
    let mut views = versions.snapshots.clone();
    views.push(versions.view.clone());
    views
}

/// Whether versions, as the meta server described them, can be followed.
pub(super) fn check(versions: &VolumeVersions) -> Result<(), String> {
    let views = || versions.snapshots.iter().chain([&versions.view]);
    let frozen = |v: &View| v.version < versions.version;
    match () {
        () if versions.version < Version::FIRST || versions.view.version != versions.version => {
            Err("the head's view is of another version".into())
        }
        () if !views().all(View::is_valid) || !versions.snapshots.iter().all(frozen) => {
            Err("a snapshot's view is unusable".into())
        }
        () if versions.hold.is_some_and(|v| v >= versions.version) => Err("the head would be held back".into()),
        () if versions.snapshots.len() >= levee_proto::wire::MAX_KEEP => Err("it has too many snapshots".into()),
        () => Ok(()),
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Follows the volume's versions, as the meta server tells them now. Writes that begin after this call are made at the new version:
    /// all that was acknowledged before belongs to the snapshot. What is older than what is known changes nothing.
    pub fn set_versions(&self, versions: VolumeVersions) -> Result<(), String> {
        check(&versions)?;
        let known = &self.0.versions;
        if versions.number <= known.told.borrow().number {
            return Ok(());
        }
        if versions.epoch != self.0.volume.epoch {
            let epoch = versions.epoch;
            self.stop(&format!("a newer gateway exists: the volume is at epoch {epoch}"));
            return Ok(());
        }
        if versions.view.hidden != known.view.borrow().hidden {
            self.stop("the volume was detached and rolled back");
            return Ok(());
        }
        if versions.version < known.head.get() {
            return Err(format!("version {} is below {}, at which it writes", versions.version, known.head.get()));
        }
        if versions.version > known.head.get() {
            info!(volume = %self.0.volume.name, "writes at version {} from now on", versions.version);
        }
        known.head.set(versions.version);
        known.view.replace(versions.view.clone());
        known.keep.replace(Rc::new(keep(&versions)));
        self.follow_hold(&versions);
        known.told.replace(Rc::new(versions));
        self.0.changed.notify();
        Ok(())
    }

    /// Moves while snapshots are completed, entries dropped, or ancestors' blocks copied; 0 while there is nothing to do.
    pub fn versions_progress(&self) -> u64 {
        let told = self.0.versions.told.borrow();
        let is_busy = told.pending.is_some() || told.prune || told.flatten;
        if is_busy { self.0.versions.progress.get() } else { 0 }
    }

    pub(super) fn advance_versions(&self, by: u64) {
        let progress = &self.0.versions.progress;
        progress.set(progress.get() + by);
    }

    /// The version at which writes are made.
    pub(super) fn head(&self) -> Version {
        self.0.versions.head.get()
    }

    /// What the head sees.
    pub fn head_view(&self) -> View {
        self.0.versions.view.borrow().clone()
    }

    /// What live views read.
    pub(super) fn keep(&self) -> Rc<Keep> {
        self.0.versions.keep.borrow().clone()
    }

    /// As the meta server told them last.
    pub(super) fn told_versions(&self) -> Rc<VolumeVersions> {
        self.0.versions.told.borrow().clone()
    }
}
