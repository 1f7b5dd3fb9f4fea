//! Asking the meta server whether this gateway's epoch is still the newest.
//!
//! A gateway that was replaced, and has not heard of it, must never complete a write. What it writes is refused by the replicas; what
//! needs no replica, zeroes where it knows of no chunk, has to be confirmed: its successor may have written there.

use super::{Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::Event;
use std::cell::Cell;

/// Questions so far. One answers everybody who came before it was asked.
#[derive(Default)]
pub(super) struct Confirmations {
    asked: Cell<u64>,
    answered: Cell<u64>,
    changed: Event,
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Completes when the epoch was the newest at some time since the call.
    pub(super) async fn confirm_epoch(&self) -> Result<(), Stopped> {
        let all = &self.0.confirmations;
        let needed = all.asked.get() + 1;
        loop {
            let changed = all.changed.listen();
            self.check_stopped()?;
            if all.answered.get() >= needed {
                return Ok(());
            }
            if all.asked.get() == all.answered.get() {
                all.asked.set(all.asked.get() + 1);
                let this = self.clone();
                self.0.rt.spawn(async move { this.ask_for_epoch().await });
            }
            changed.await;
        }
    }

    async fn ask_for_epoch(&self) {
        self.change_surely(&[], "zeroing what was never written waits for", |_| Ok(())).await;
        self.0.confirmations.answered.set(self.0.confirmations.asked.get());
        self.0.confirmations.changed.notify();
    }
}
