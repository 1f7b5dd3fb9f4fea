//! Time and tasks of a glommio executor.

use levee_core::ports::Runtime;
use nix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::time::Duration;

/// The executor that the calling thread runs.
///
/// It holds nothing, so that no two of it can disagree: moments that different parts of a core note are compared.
#[derive(Clone, Copy)]
pub struct GlommioRuntime;

impl Runtime for GlommioRuntime {
    fn now(&self) -> Duration {
        // It always works: the clock exists, and so does the memory for the answer.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
    }

    async fn sleep(&self, time: Duration) {
        glommio::timer::sleep(time).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}
