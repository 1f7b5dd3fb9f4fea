//! Holding answers back while the volumes of a group move to their next versions.
//!
//! A group of snapshots is of one moment if no answer to a write at a new version comes before all of the group have moved:
//! else a guest could follow it up with a write to another volume that still goes to the frozen version.
//!
//! Invariants:
//! - A write that is held back keeps its blocks: nobody reads what may have to be in no snapshot.
//! - The meta server is told that the volume has moved when no gateway before this one can answer a write any more.
//! - A hold that was given up is reported before anything else about versions is.

use super::member::Waiter;
use super::{Accomplished, Cluster, Gateway};
use crate::ports::Runtime;
use levee_proto::Version;
use levee_proto::api::VolumeVersions;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tracing::warn;

/// Guests wait for their answers no longer than this for the other volumes of a group.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Hold {
    /// Answers to writes above this version wait.
    above: Cell<Option<Version>>,
    waiting: RefCell<Vec<Waiter>>,
    /// The meta server knows that the volume has moved beyond this version.
    moved: Cell<Version>,
    /// Answers were given although the others had not moved beyond theirs, as far as we knew.
    given_up: Cell<Version>,
    /// Up to which the meta server knows that.
    confessed: Cell<Version>,
}

impl Hold {
    /// Answers a write, or keeps the answer for later.
    pub fn answer(&self, version: Version, waiter: Waiter) {
        let is_held = self.above.get().is_some_and(|above| version > above);
        if is_held && !crate::mutant!("answers before its group has moved") {
            crate::reached!("answer held back");
            self.waiting.borrow_mut().push(waiter);
        } else {
            waiter.answer();
        }
    }

    /// Answers what was kept.
    fn release(&self) {
        self.above.set(None);
        self.waiting.take().into_iter().for_each(Waiter::answer);
    }

    /// Drops it: it is never answered.
    pub fn forget(&self) {
        self.waiting.take();
    }

    /// Whether it is not known yet, here or at the meta server, how a hold has ended.
    pub fn is_undecided(&self) -> bool {
        self.above.get().is_some() || self.confessed.get() < self.given_up.get()
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Begins to hold answers back, or ends it, as the meta server says.
    pub(super) fn follow_hold(&self, versions: &VolumeVersions) {
        let hold = &self.0.hold;
        let Some(above) = versions.hold.filter(|v| *v > hold.given_up.get()) else { return hold.release() };
        if hold.above.replace(Some(above)) == Some(above) {
            return;
        }
        let this = self.clone();
        self.0.rt.spawn(async move {
            this.pause(PATIENCE).await;
            this.give_up_hold(above);
        });
    }

    fn give_up_hold(&self, above: Version) {
        let hold = &self.0.hold;
        if self.is_stopped() || hold.above.get() != Some(above) {
            return;
        }
        let waiting = hold.waiting.borrow().len();
        warn!(volume = %self.0.volume.name, "other volumes do not move to their next versions: {waiting} writes are answered, and there will be no snapshot of all of them");
        crate::reached!("hold given up");
        hold.given_up.set(above);
        hold.release();
        self.0.changed.notify();
    }

    pub(super) fn spawn_holds(&self) {
        self.follow_hold(&self.told_versions());
        let this = self.clone();
        self.0.rt.spawn(async move {
            while !this.is_stopped() {
                let changed = this.0.changed.listen();
                if !this.report_hold().await {
                    changed.await;
                }
            }
        });
    }

    /// Whether there was something to report.
    async fn report_hold(&self) -> bool {
        let hold = &self.0.hold;
        let given_up = hold.given_up.get();
        if hold.confessed.get() < given_up {
            self.accomplished(Accomplished::Parted(given_up)).await;
            hold.confessed.set(given_up);
            self.0.changed.notify();
            return true;
        }
        let Some(above) = hold.above.get().filter(|v| *v > hold.moved.get()) else { return false };
        let is_ours = self.chunks().iter().all(|c| c.is_served() || c.is_freed());
        if !is_ours && !crate::mutant!("moved before it is fenced") {
            return false;
        }
        self.accomplished(Accomplished::Moved(above)).await;
        hold.moved.set(above);
        true
    }
}
