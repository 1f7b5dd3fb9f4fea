//! A deterministic executor on one thread with virtual time, and processes that can be killed and stopped.

use super::TestRng;
use crate::ports::Runtime;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// What a clock's rate is given in.
const MILLION: u64 = 1_000_000;
/// Slot of the future that [`TestRuntime::run_until`] runs.
const MAIN: usize = usize::MAX;

/// Runs tasks in an order that its seed decides. Time stands still while anything can run and jumps
/// to the next timer when nothing can. Like glommio, `spawn` may poll the new task before it returns.
///
/// Clones are handles to the same process of the same executor. [`TestRuntime::process`] makes another process: its
/// tasks can be killed and stopped together, and its clock has a rate of its own.
#[derive(Clone)]
pub struct TestRuntime {
    world: Rc<World>,
    process: Rc<Process>,
}

struct World {
    /// Nanoseconds.
    now: Cell<u64>,
    next_id: Cell<u64>,
    tasks: RefCell<Vec<Option<Task>>>,
    free: RefCell<Vec<usize>>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    ready: Arc<ReadyList>,
    rng: RefCell<TestRng>,
    polls: Cell<u64>,
    trace: Cell<u64>,
}

struct Process {
    killed: Cell<bool>,
    stopped: Cell<bool>,
    /// Woken while the process was stopped.
    held: RefCell<Vec<Arc<Place>>>,
    /// How long a million of its seconds take.
    rate: u64,
}

struct Task {
    place: Arc<Place>,
    process: Rc<Process>,
    /// Away while it is polled.
    job: Option<Job>,
}

/// Wakes a task. Slots are used again, ids are not.
struct Place {
    slot: usize,
    id: u64,
    queued: AtomicBool,
    ready: Arc<ReadyList>,
}

/// Woken tasks, each at most once. A mutex only because wakers must be `Sync`.
#[derive(Default)]
struct ReadyList(Mutex<Vec<Arc<Place>>>);

impl ReadyList {
    fn push(&self, place: Arc<Place>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }

    fn take(&self, rng: &mut TestRng) -> Option<Arc<Place>> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!list.is_empty()).then(|| {
            let i = rng.index(list.len());
            list.swap_remove(i)
        })
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        Place::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.clone());
        }
    }
}

impl TestRuntime {
    /// An executor whose every choice follows from `seed`, and its first process.
    pub fn new(seed: u64) -> TestRuntime {
        let world = World {
            now: Cell::new(0),
            next_id: Cell::new(1),
            tasks: RefCell::default(),
            free: RefCell::default(),
            timers: RefCell::default(),
            ready: Arc::default(),
            rng: RefCell::new(TestRng::new(seed)),
            polls: Cell::new(0),
            trace: Cell::new(seed),
        };
        TestRuntime { world: Rc::new(world), process: Process::new(MILLION) }
    }

    /// Another process of the same executor. Its clock takes `1 + drift / 1,000,000` seconds for each of its own.
    pub fn process(&self, drift: i32) -> TestRuntime {
        let rate = MILLION.saturating_add_signed(drift.into()).max(1);
        TestRuntime { world: self.world.clone(), process: Process::new(rate) }
    }

    /// Drops every task of this process, wherever it waits. No other is begun.
    pub fn kill(&self) {
        self.process.killed.set(true);
        self.process.held.borrow_mut().clear();
        self.drop_tasks(|process| Rc::ptr_eq(process, &self.process));
    }

    /// Whether the process was not killed.
    pub fn is_alive(&self) -> bool {
        !self.process.killed.get()
    }

    /// Runs none of the tasks of this process until [`TestRuntime::go_on`]. Time goes on.
    pub fn stop(&self) {
        self.process.stopped.set(true);
    }

    /// Ends what [`TestRuntime::stop`] began.
    pub fn go_on(&self) {
        self.process.stopped.set(false);
        self.process.held.take().into_iter().for_each(|place| self.world.ready.push(place));
    }

    /// Whether the process is stopped.
    pub fn is_stopped(&self) -> bool {
        self.process.stopped.get()
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
        let main = self.place(MAIN);
        let waker = Waker::from(main.clone());
        waker.wake_by_ref();
        loop {
            if stop() {
                return None;
            }
            let Some(next) = self.next_ready() else {
                assert!(self.advance(), "deadlock: nothing can run, no timer is set, and the future is not done");
                continue;
            };
            if next.slot != MAIN {
                self.poll_task(&next);
            } else if next.id == main.id {
                next.queued.store(false, Ordering::Relaxed);
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(value);
                }
            }
        }
    }

    /// Runs everything for `time` of virtual time.
    pub fn run_for(&self, time: Duration) {
        self.block_on(self.sleep(time));
    }

    /// Drops every task of every process, as when the machine is switched off. A runtime holds tasks that hold it: call
    /// this at the end of a test that made tasks which never end.
    pub fn abort_all(&self) {
        self.drop_tasks(|_| true);
        let timers = std::mem::take(&mut *self.world.timers.borrow_mut());
        drop(timers);
    }

    /// Tasks that have not ended.
    pub fn task_count(&self) -> usize {
        self.world.tasks.borrow().iter().flatten().count()
    }

    /// How often tasks were polled: what a run costs.
    pub fn polls(&self) -> u64 {
        self.world.polls.get()
    }

    /// A hash over everything that ran, and when: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.world.trace.get()
    }

    /// Makes something else part of [`TestRuntime::trace`].
    pub fn note(&self, what: u64) {
        self.world.note(what);
    }

    fn drop_tasks(&self, of: impl Fn(&Rc<Process>) -> bool) {
        let mut gone = vec![];
        for (slot, task) in self.world.tasks.borrow_mut().iter_mut().enumerate() {
            if task.as_ref().is_some_and(|t| of(&t.process)) {
                gone.extend(task.take());
                self.world.free.borrow_mut().push(slot);
            }
        }
        // What is dropped may wake others, or try to begin more.
        drop(gone);
    }

    fn next_ready(&self) -> Option<Arc<Place>> {
        self.world.ready.take(&mut self.world.rng.borrow_mut())
    }

    /// Jumps to the next timer, if there is one.
    fn advance(&self) -> bool {
        let Some(((at, _), waker)) = self.world.timers.borrow_mut().pop_first() else { return false };
        self.world.now.set(at.max(self.world.now.get()));
        waker.wake();
        true
    }

    fn poll_task(&self, place: &Arc<Place>) {
        let (mut job, process) = {
            let mut tasks = self.world.tasks.borrow_mut();
            let Some(task) = tasks[place.slot].as_mut().filter(|t| t.place.id == place.id) else { return };
            if task.process.stopped.get() {
                return task.process.held.borrow_mut().push(place.clone());
            }
            place.queued.store(false, Ordering::Relaxed);
            let Some(job) = task.job.take() else { return };
            (job, task.process.clone())
        };
        self.world.note(place.id);
        self.world.polls.set(self.world.polls.get() + 1);
        let waker = Waker::from(place.clone());
        let pending = job.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        let mut tasks = self.world.tasks.borrow_mut();
        let task = tasks[place.slot].as_mut().filter(|t| t.place.id == place.id);
        match task {
            Some(task) if pending && !process.killed.get() => task.job = Some(job),
            Some(_) => {
                let gone = tasks[place.slot].take();
                self.world.free.borrow_mut().push(place.slot);
                drop(tasks);
                drop((gone, job));
            }
            None => {
                drop(tasks);
                drop(job);
            }
        }
    }

    fn place(&self, slot: usize) -> Arc<Place> {
        Arc::new(Place { slot, id: self.fresh_id(), queued: AtomicBool::new(false), ready: self.world.ready.clone() })
    }

    fn fresh_id(&self) -> u64 {
        let id = self.world.next_id.get();
        self.world.next_id.set(id + 1);
        id
    }
}

impl Process {
    fn new(rate: u64) -> Rc<Process> {
        Rc::new(Process { killed: Cell::new(false), stopped: Cell::new(false), held: RefCell::default(), rate })
    }

    /// From its clock to the world's. Rounded up: who sleeps finds no less passed on its own clock, however short it was.
    fn real(&self, nanos: u64) -> u64 {
        (u128::from(nanos) * u128::from(self.rate)).div_ceil(u128::from(MILLION)) as u64
    }
}

impl World {
    fn note(&self, what: u64) {
        let mixed = (self.trace.get() ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.now.get();
        self.trace.set(mixed.rotate_left(23));
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        let (now, rate) = (self.world.now.get(), self.process.rate);
        match rate {
            MILLION => Duration::from_nanos(now),
            _ => Duration::from_nanos((u128::from(now) * u128::from(MILLION) / u128::from(rate)) as u64),
        }
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> {
        let at = self.world.now.get().saturating_add(self.process.real(nanos(time)));
        Sleep { world: self.world.clone(), key: (at, self.fresh_id()), set: false }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.process.killed.get() {
            return;
        }
        let slot = self.world.free.borrow_mut().pop();
        let slot = slot.unwrap_or_else(|| {
            let mut tasks = self.world.tasks.borrow_mut();
            tasks.push(None);
            tasks.len() - 1
        });
        let place = self.place(slot);
        let task = Task { place: place.clone(), process: self.process.clone(), job: Some(Box::pin(task)) };
        self.world.tasks.borrow_mut()[slot] = Some(task);
        let at_once = self.world.rng.borrow_mut().one_in(2);
        if at_once && !self.process.stopped.get() {
            self.poll_task(&place);
        } else {
            place.wake();
        }
    }
}

struct Sleep {
    world: Rc<World>,
    key: (u64, u64),
    set: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.world.now.get() >= self.key.0 {
            return Poll::Ready(());
        }
        self.world.timers.borrow_mut().insert(self.key, cx.waker().clone());
        self.set = true;
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.set {
            self.world.timers.borrow_mut().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(seed: u64) -> (u64, Vec<(u64, u64)>) {
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
        (rt.trace(), log.take())
    }

    #[test]
    fn a_seed_repeats_and_time_is_virtual() {
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
        assert!(trace(1).1.contains(&(2, 6)));
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

    /// Counts its steps, one per millisecond of its own clock.
    fn ticking(rt: &TestRuntime) -> Rc<Cell<u32>> {
        let (steps, rt2) = (Rc::new(Cell::new(0)), rt.clone());
        let counter = steps.clone();
        rt.spawn(async move {
            loop {
                rt2.sleep(Duration::from_millis(1)).await;
                counter.set(counter.get() + 1);
            }
        });
        steps
    }

    #[test]
    fn a_process_is_stopped_and_killed_alone() {
        let rt = TestRuntime::new(1);
        let (one, other) = (rt.process(0), rt.process(0));
        let (ones, others) = (ticking(&one), ticking(&other));
        one.stop();
        rt.run_for(Duration::from_millis(10));
        assert_eq!((ones.get(), others.get() > 5), (0, true));
        one.go_on();
        other.kill();
        let before = others.get();
        other.spawn(async { panic!("a killed process begins nothing") });
        rt.run_for(Duration::from_millis(10));
        assert_eq!((ones.get() > 5, others.get()), (true, before));
        rt.abort_all();
    }

    #[test]
    fn clocks_drift() {
        let rt = TestRuntime::new(1);
        let (fast, slow) = (rt.process(-100_000), rt.process(100_000));
        let (fasts, slows) = (ticking(&fast), ticking(&slow));
        rt.run_for(Duration::from_secs(1));
        assert!(fasts.get() > 1090 && slows.get() < 920, "{} {}", fasts.get(), slows.get());
        assert!(fast.now() > rt.now() && slow.now() < rt.now());
        rt.abort_all();
    }

    #[test]
    fn a_sleep_takes_its_time_on_every_clock() {
        let rt = TestRuntime::new(1);
        for drift in [-300_000, -1, 0, 1, 300_000] {
            let process = rt.process(drift);
            for nanos in [1, 2, 3, 1000, 999_999] {
                let (begun, time) = (process.now(), Duration::from_nanos(nanos));
                rt.run_until(process.sleep(time), || false).expect("an end");
                assert!(process.now() - begun >= time, "{drift} {nanos}");
            }
        }
    }
}
