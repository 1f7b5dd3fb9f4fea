//! A disk under watch: how long its operations take, and when it is given up.
//!
//! Everything that a shard does to its disk passes here. The first write or sync that fails, too many places that
//! cannot be read within some time, or a decision from outside ([`Watch::fail`]: an operation does not complete) end it for
//! good: from then on every operation fails at once, those that are outstanding too. The operations
//! themselves cannot be taken back. They are run to their end, and until the last one has ended nobody may
//! open the same place anew: a late write would land in the successor's log.

use levee_core::load::Totals;
use levee_core::ports::{Disk, Runtime, is_no_space};
use levee_proto::BLOCK_SIZE;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// So many blocks may fail to be read within this time before the disk is given up. Single ones do on a disk that is
/// otherwise good: those are replaced from another copy.
pub(super) const MAX_BAD_PLACES: usize = 64;
pub(super) const BAD_PLACES_PERIOD: Duration = Duration::from_secs(3600);

/// What is known of a disk's operations. A cheap handle.
#[derive(Clone, Default)]
pub struct Watch(Rc<State>);

#[derive(Default)]
struct State {
    failed: RefCell<Option<Rc<str>>>,
    operations: RefCell<Slots>,
    read_errors: Cell<u32>,
    /// Blocks that could not be read, and when last.
    bad_places: RefCell<BTreeMap<u64, Duration>>,
    totals: Cell<Totals>,
}

/// Outstanding operations by number, and numbers to use again.
#[derive(Default)]
struct Slots {
    all: Vec<Option<Operation>>,
    free: Vec<usize>,
}

struct Operation {
    since: Duration,
    waker: Option<Waker>,
}

impl Watch {
    /// Why the disk was given up, if it was.
    pub fn failed(&self) -> Option<Rc<str>> {
        self.0.failed.borrow().clone()
    }

    /// Gives the disk up. The first reason stands.
    pub fn fail(&self, why: &str) {
        if self.0.failed.borrow().is_some() {
            return;
        }
        *self.0.failed.borrow_mut() = Some(why.into());
        let wakers: Vec<Waker> = {
            let mut slots = self.0.operations.borrow_mut();
            slots.all.iter_mut().flatten().filter_map(|op| op.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether an operation has not ended: also after the disk was given up.
    pub fn is_busy(&self) -> bool {
        self.0.operations.borrow().all.iter().any(Option::is_some)
    }

    /// `now`: by the clock that the operations' beginnings were noted by; only [`Watched`] knows which.
    fn oldest(&self, now: Duration) -> Duration {
        let slots = self.0.operations.borrow();
        let ages = slots.all.iter().flatten().map(|op| now.saturating_sub(op.since));
        ages.max().unwrap_or_default()
    }

    /// Reads that failed.
    pub fn read_errors(&self) -> u32 {
        self.0.read_errors.get()
    }

    /// What it has read and written.
    pub fn totals(&self) -> Totals {
        self.0.totals.get()
    }

    fn count(&self, add: impl FnOnce(&mut Totals)) {
        let mut totals = self.0.totals.get();
        add(&mut totals);
        self.0.totals.set(totals);
    }

    fn begin(&self, since: Duration) -> usize {
        let slots = &mut *self.0.operations.borrow_mut();
        let operation = Some(Operation { since, waker: None });
        match slots.free.pop() {
            Some(slot) => {
                slots.all[slot] = operation;
                slot
            }
            None => {
                slots.all.push(operation);
                slots.all.len() - 1
            }
        }
    }

    fn end(&self, slot: usize) {
        let slots = &mut *self.0.operations.borrow_mut();
        slots.all[slot] = None;
        slots.free.push(slot);
    }

    fn wake_later(&self, slot: usize, cx: &Context<'_>) {
        if let Some(op) = &mut self.0.operations.borrow_mut().all[slot]
            && op.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker()))
        {
            op.waker = Some(cx.waker().clone());
        }
    }

    /// A bad block is replaced from another copy. Only where many go bad in a short time is it the disk: one that is read
    /// again and again, because no other copy is there, is still one. Longer reads that fail are made again block by block.
    fn read_failed(&self, e: &io::Error, pos: u64, len: usize, now: Duration) {
        self.0.read_errors.set(self.0.read_errors.get().saturating_add(1));
        if e.kind() == io::ErrorKind::UnexpectedEof {
            return self.fail(&format!("it has become smaller: {e}"));
        }
        if len > BLOCK_SIZE {
            return;
        }
        let bad = {
            let places = &mut *self.0.bad_places.borrow_mut();
            places.retain(|_, at| *at + BAD_PLACES_PERIOD > now);
            places.insert(pos, now);
            places.len()
        };
        if bad >= MAX_BAD_PLACES {
            let minutes = BAD_PLACES_PERIOD.as_secs() / 60;
            self.fail(&format!("{bad} blocks could not be read within {minutes} minutes, the last one with: {e}"));
        }
    }
}

/// A disk that a [`Watch`] watches. Clones are handles to the same one.
pub struct Watched<D: Disk, R: Runtime> {
    disk: Rc<D>,
    rt: R,
    watch: Watch,
}

impl<D: Disk, R: Runtime> Clone for Watched<D, R> {
    fn clone(&self) -> Self {
        Watched { disk: self.disk.clone(), rt: self.rt.clone(), watch: self.watch.clone() }
    }
}

impl<D: Disk, R: Runtime> Watched<D, R> {
    pub fn new(disk: D, rt: R) -> Self {
        Watched { disk: Rc::new(disk), rt, watch: Watch::default() }
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Age of the oldest operation that has not ended.
    pub fn oldest(&self) -> Duration {
        self.watch.oldest(self.rt.now())
    }

    /// Finds out whether the disk still answers, and reaches to `pos`. A file that was cut short would grow again with the
    /// next write, and a disk that nobody uses would hang unnoticed.
    pub async fn probe(&self, pos: u64) {
        let disk = self.disk.clone();
        let read = self.run(async move { disk.read(pos, BLOCK_SIZE).await }).await;
        if let Err(e) = read
            && e.kind() == io::ErrorKind::UnexpectedEof
        {
            self.watch.read_failed(&e, pos, BLOCK_SIZE, self.rt.now());
        }
    }

    /// Runs an operation on the disk; `Err` at once if it is given up.
    async fn run<T: 'static>(&self, operation: impl Future<Output = io::Result<T>> + 'static) -> io::Result<T> {
        self.alive()?;
        let slot = self.watch.begin(self.rt.now());
        let (watch, rt) = (self.watch.clone(), self.rt.clone());
        Outstanding { operation: Some(Box::pin(operation)), slot, watch, rt }.await
    }

    fn alive(&self) -> io::Result<()> {
        match self.watch.failed() {
            Some(why) => Err(given_up(&why)),
            None => Ok(()),
        }
    }

    /// `len`: bytes that were written.
    fn written<T>(&self, result: io::Result<T>, len: usize) -> io::Result<T> {
        match &result {
            Ok(_) => self.watch.count(|t| t.write(len as u64)),
            // Nothing is wrong with the disk: it is what lies below that is full.
            Err(e) if is_no_space(e) => return result,
            Err(_) => {}
        }
        self.or_fail(result, "writing to")
    }

    fn or_fail<T>(&self, result: io::Result<T>, what: &str) -> io::Result<T> {
        if let Err(e) = &result {
            self.watch.fail(&format!("{what} it failed: {e}"));
        }
        result
    }
}

fn given_up(why: &str) -> io::Error {
    io::Error::other(format!("the disk was given up: {why}"))
}

/// An operation on its way. If the disk is given up meanwhile, it goes on by itself.
struct Outstanding<T: 'static, R: Runtime> {
    operation: Option<Pin<Box<dyn Future<Output = io::Result<T>>>>>,
    slot: usize,
    watch: Watch,
    rt: R,
}

/// Nothing in it is pinned in place.
impl<T: 'static, R: Runtime> Unpin for Outstanding<T, R> {}

impl<T: 'static, R: Runtime> Future for Outstanding<T, R> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let this = &mut *self;
        let Some(operation) = &mut this.operation else { return Poll::Ready(Err(given_up("polled again"))) };
        if let Poll::Ready(result) = operation.as_mut().poll(cx) {
            this.operation = None;
            this.watch.end(this.slot);
            return Poll::Ready(result);
        }
        if let Some(why) = this.watch.failed() {
            this.leave();
            return Poll::Ready(Err(given_up(&why)));
        }
        this.watch.wake_later(this.slot, cx);
        Poll::Pending
    }
}

impl<T: 'static, R: Runtime> Outstanding<T, R> {
    /// Lets the operation run to its end with nobody waiting for it.
    fn leave(&mut self) {
        let Some(operation) = self.operation.take() else { return };
        let (watch, slot) = (self.watch.clone(), self.slot);
        self.rt.spawn(async move {
            let _ = operation.await;
            watch.end(slot);
        });
    }
}

impl<D: Disk, R: Runtime> Disk for Watched<D, R> {
    type WriteBuf = D::WriteBuf;
    type ReadBuf = D::ReadBuf;

    fn alloc(&self, len: usize) -> D::WriteBuf {
        self.disk.alloc(len)
    }

    fn is_thin(&self) -> bool {
        self.disk.is_thin()
    }

    async fn write(&self, pos: u64, buf: D::WriteBuf) -> io::Result<()> {
        let (disk, len) = (self.disk.clone(), buf.len());
        let written = self.run(async move { disk.write(pos, buf).await }).await;
        self.written(written, len)
    }

    async fn write_durable(&self, pos: u64, buf: D::WriteBuf) -> io::Result<()> {
        let (disk, len) = (self.disk.clone(), buf.len());
        let written = self.run(async move { disk.write_durable(pos, buf).await }).await;
        self.written(written, len)
    }

    async fn read(&self, pos: u64, len: usize) -> io::Result<D::ReadBuf> {
        let disk = self.disk.clone();
        let read = self.run(async move { disk.read(pos, len).await }).await;
        match &read {
            Ok(_) => self.watch.count(|t| t.read(len as u64)),
            Err(e) if self.watch.failed().is_none() => self.watch.read_failed(e, pos, len, self.rt.now()),
            Err(_) => {}
        }
        read
    }

    fn has_failed(&self) -> bool {
        self.watch.failed().is_some()
    }

    async fn sync(&self) -> io::Result<()> {
        let disk = self.disk.clone();
        let synced = self.run(async move { disk.sync().await }).await;
        self.or_fail(synced, "syncing")
    }
}
