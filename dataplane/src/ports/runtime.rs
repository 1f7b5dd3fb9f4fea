//! Time and tasks of a glommio executor.

use levee_core::ports::Runtime;
use std::future::Future;
use std::time::{Duration, Instant};

/// The executor that the calling thread runs.
#[derive(Clone, Copy)]
pub struct GlommioRuntime {
    start: Instant,
}

impl GlommioRuntime {
    pub fn new() -> Self {
        GlommioRuntime { start: Instant::now() }
    }
}

impl Runtime for GlommioRuntime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        glommio::timer::sleep(time).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}
