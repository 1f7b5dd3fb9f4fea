//! Tells systemd, if it has started the daemon, that it runs, and that its cores and this thread still do anything.
//!
//! A core that stops ends the daemon by itself (`watchdog.rs`); this is for what that does not see.

use super::Control;
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::time::Duration;

/// Between two signs of life: a few fit into the service's `WatchdogSec`.
const SIGN: Duration = Duration::from_secs(5);

/// From now on the admin endpoint answers. Whether the meta servers do is not waited for: they may start later.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

impl Control {
    /// Signs of life, as long as every core answers.
    pub(super) async fn sign(&self) -> Infallible {
        loop {
            self.cores.report().await;
            tell(NotifyState::Watchdog);
            tokio::time::sleep(SIGN).await;
        }
    }
}

fn tell(state: NotifyState<'_>) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("systemd was not told: {error}");
    }
}
