//! Asking the meta server whether this gateway's epoch is still the newest.
//!
//! A gateway that was replaced, and has not heard of it, must never complete a write. What it writes is refused by the replicas; what
//! needs no replica, zeroes where it knows of no chunk, has to be confirmed: its successor may have written there.

use super::{AllocError, Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::Event;
use std::cell::Cell;
use std::time::Duration;
use tracing::warn;

/// Before the meta server is asked again.
const RETRY: Duration = Duration::from_millis(100);

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
        let mut said = false;
        while !self.is_stopped() {
            match self.0.cluster.change(vec![]).await {
                Ok(_) => break,
                Err(AllocError::Fenced(why)) => self.stop(&why),
                Err(AllocError::Retry(why)) if !std::mem::replace(&mut said, true) => {
                    warn!(volume = %self.0.volume.name, "zeroing what was never written waits for the meta server: {why}");
                }
                Err(AllocError::Retry(_)) => {}
            }
            self.pause(RETRY).await;
        }
        self.0.confirmations.answered.set(self.0.confirmations.asked.get());
        self.0.confirmations.changed.notify();
    }
}
