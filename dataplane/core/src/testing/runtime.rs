//! A deterministic executor on one thread with virtual time.

use super::TestRng;
use crate::ports::Runtime;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Runs tasks in an order that its seed decides. Time stands still while anything can run and jumps
/// to the next timer when nothing can. Like glommio, `spawn` may poll the new task before it returns.
///
/// Clones are handles to the same executor.
#[derive(Clone)]
pub struct TestRuntime(Rc<Inner>);

struct Inner {
    now: Cell<Duration>,
    next_id: Cell<u64>,
    /// A task is taken out while it is polled.
    tasks: RefCell<BTreeMap<u64, Task>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    ready: Arc<ReadyList>,
    rng: RefCell<TestRng>,
}

/// Ids of woken tasks, each at most once. A mutex only because wakers must be `Sync`.
#[derive(Default)]
struct ReadyList(Mutex<Vec<u64>>);

impl ReadyList {
    fn push(&self, id: u64) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !list.contains(&id) {
            list.push(id);
        }
    }

    fn take(&self, rng: &mut TestRng) -> Option<u64> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!list.is_empty()).then(|| {
            let i = rng.index(list.len());
            list.remove(i)
        })
    }
}

struct TaskWaker {
    id: u64,
    ready: Arc<ReadyList>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.id);
    }
}

impl TestRuntime {
    /// An executor whose every choice follows from `seed`.
    pub fn new(seed: u64) -> TestRuntime {
        TestRuntime(Rc::new(Inner {
            now: Cell::new(Duration::ZERO),
            next_id: Cell::new(1),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            ready: Arc::default(),
            rng: RefCell::new(TestRng::new(seed)),
        }))
    }

    /// Runs everything until `future` completes.
    ///
    /// # Panics
    /// If nothing can run any more and no timer is left: `future` would wait for ever.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.run_until(future, || false).expect("only `stop` ends a run early")
    }

    /// Like [`TestRuntime::block_on`], but gives up with `None` as soon as `stop` says so. It is
    /// asked after every poll. `future` is then dropped, as when its process dies.
    pub fn run_until<T>(&self, future: impl Future<Output = T>, stop: impl Fn() -> bool) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let id = self.fresh_id();
        let waker = self.waker(id);
        self.0.ready.push(id);
        loop {
            if stop() {
                return None;
            }
            let Some(next) = self.next_ready() else {
                assert!(self.advance(), "deadlock: nothing can run, no timer is set, and the future is not done");
                continue;
            };
            if next != id {
                self.poll_task(next);
            } else if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(value);
            }
        }
    }

    /// Runs everything for `time` of virtual time.
    pub fn run_for(&self, time: Duration) {
        self.block_on(self.sleep(time));
    }

    /// Drops every task, as when the process is killed. A runtime holds tasks that hold it: call
    /// this at the end of a test that made tasks which never end.
    pub fn abort_all(&self) {
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
        self.0.timers.borrow_mut().clear();
    }

    /// Tasks that have not ended.
    pub fn task_count(&self) -> usize {
        self.0.tasks.borrow().len()
    }

    fn next_ready(&self) -> Option<u64> {
        self.0.ready.take(&mut self.0.rng.borrow_mut())
    }

    /// Jumps to the next timer, if there is one.
    fn advance(&self) -> bool {
        let Some(((at, _), waker)) = self.0.timers.borrow_mut().pop_first() else { return false };
        self.0.now.set(at.max(self.0.now.get()));
        waker.wake();
        true
    }

    fn poll_task(&self, id: u64) {
        let Some(mut task) = self.0.tasks.borrow_mut().remove(&id) else { return };
        if task.as_mut().poll(&mut Context::from_waker(&self.waker(id))).is_pending() {
            self.0.tasks.borrow_mut().insert(id, task);
        }
    }

    fn waker(&self, id: u64) -> Waker {
        Arc::new(TaskWaker { id, ready: self.0.ready.clone() }).into()
    }

    fn fresh_id(&self) -> u64 {
        let id = self.0.next_id.get();
        self.0.next_id.set(id + 1);
        id
    }
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> {
        Sleep { inner: self.0.clone(), key: (self.0.now.get() + time, self.fresh_id()) }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.fresh_id();
        self.0.tasks.borrow_mut().insert(id, Box::pin(task));
        let at_once = self.0.rng.borrow_mut().one_in(2);
        if at_once {
            self.poll_task(id);
        } else {
            self.0.ready.push(id);
        }
    }
}

struct Sleep {
    inner: Rc<Inner>,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner.now.get() >= self.key.0 {
            return Poll::Ready(());
        }
        self.inner.timers.borrow_mut().insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // A timer cleared by `abort_all` may drop its task's last handle while the map is borrowed.
        if let Ok(mut timers) = self.inner.timers.try_borrow_mut() {
            timers.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(seed: u64) -> Vec<(u64, u64)> {
        let rt = TestRuntime::new(seed);
        let log = Rc::new(RefCell::new(Vec::new()));
        for task in 0..8u64 {
            let (rt2, log) = (rt.clone(), log.clone());
            rt.spawn(async move {
                for step in 0..3 {
                    rt2.sleep(Duration::from_millis(step * (task % 3))).await;
                    log.borrow_mut().push((task, rt2.now().as_millis() as u64));
                }
            });
        }
        rt.run_for(Duration::from_secs(1));
        assert_eq!(rt.task_count(), 0);
        log.take()
    }

    #[test]
    fn a_seed_repeats_and_time_is_virtual() {
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
        assert!(trace(1).contains(&(2, 6)));
    }

    #[test]
    fn stop_and_abort_end_a_run() {
        let rt = TestRuntime::new(1);
        let rt2 = rt.clone();
        rt.spawn(async move {
            loop {
                rt2.sleep(Duration::from_millis(1)).await;
            }
        });
        let at = rt.clone();
        assert_eq!(rt.run_until(std::future::pending::<()>(), || at.now() > Duration::from_secs(1)), None);
        rt.abort_all();
        assert_eq!(rt.task_count(), 0);
    }
}
