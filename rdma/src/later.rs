//! Work put off to the next turn of the executor, in order.

use glommio::timer::sleep;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

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
///
/// One task runs them, from the first job until the queue is dropped and empty: queueing a job wakes it
/// and no more, so that jobs can also be queued while an executor is being torn down.
#[derive(Default)]
pub(crate) struct Later {
    queue: Rc<Queue>,
    started: Cell<bool>,
}

#[derive(Default)]
struct Queue {
    jobs: RefCell<VecDeque<Job>>,
    /// The task, while it waits for jobs.
    runner: RefCell<Option<Waker>>,
    /// No more jobs will come.
    ended: Cell<bool>,
}

impl Later {
    /// Runs `job` soon, after those queued before, and never inside this call.
    pub fn push(&self, job: impl FnOnce() + 'static) {
        self.queue.jobs.borrow_mut().push_back(Box::new(job));
        self.queue.wake();
        if !self.started.replace(true) {
            glommio::spawn_local(self.queue.clone().drain()).detach();
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.queue.ended.set(true);
        self.queue.wake();
    }
}

impl Queue {
    fn wake(&self) {
        let waker = self.runner.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    async fn drain(self: Rc<Self>) {
        // A spawned task is polled at once, inside its spawner: step out of it first.
        turn().await;
        let mut pacer = Pacer::default();
        while let Some(round) = self.next_round().await {
            for _ in 0..round {
                let job = self.jobs.borrow_mut().pop_front();
                job.into_iter().for_each(|job| job());
            }
            if self.jobs.borrow().is_empty() { pacer.reset() } else { pacer.pause().await }
        }
    }

    /// Waits for jobs, and says how many there are; `None` once there will be none.
    async fn next_round(&self) -> Option<usize> {
        poll_fn(|cx| {
            let jobs = self.jobs.borrow().len();
            if jobs > 0 {
                return Poll::Ready(Some(jobs));
            }
            if self.ended.get() {
                return Poll::Ready(None);
            }
            *self.runner.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}
