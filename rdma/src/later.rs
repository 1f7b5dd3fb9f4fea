//! Work put off to the next turn of the executor, in order.

use glommio::timer::sleep;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::limits::{PAUSE, TURNS_PER_PAUSE};

/// Lets every other runnable task go first.
pub(crate) async fn turn() {
    let mut first = true;
    poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// Paces a loop that may never run dry. Giving way to other tasks alone would keep the executor from
/// its reactor, and with it from all I/O; so every few rounds it waits for a timer.
#[derive(Default)]
pub(crate) struct Pacer(u32);

impl Pacer {
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    pub async fn pause(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(TURNS_PER_PAUSE) { sleep(PAUSE).await } else { turn().await }
    }
}

type Job = Box<dyn FnOnce()>;

/// A queue of jobs that run on a later turn. Jobs may queue more.
#[derive(Default)]
pub(crate) struct Later {
    jobs: RefCell<VecDeque<Job>>,
    running: Cell<bool>,
}

impl Later {
    /// Runs `job` soon, after those queued before, and never inside this call.
    pub fn push(self: &Rc<Self>, job: impl FnOnce() + 'static) {
        self.jobs.borrow_mut().push_back(Box::new(job));
        if !self.running.replace(true) {
            glommio::spawn_local(self.clone().drain()).detach();
        }
    }

    async fn drain(self: Rc<Self>) {
        // A spawned task is polled at once, inside its spawner: step out of it first.
        turn().await;
        let mut pacer = Pacer::default();
        loop {
            let round = self.jobs.borrow().len();
            for _ in 0..round {
                let job = self.jobs.borrow_mut().pop_front();
                job.into_iter().for_each(|job| job());
            }
            if self.jobs.borrow().is_empty() {
                break;
            }
            pacer.pause().await;
        }
        self.running.set(false);
    }
}
