//! Serves one queue on an executor.
//!
//! Two tasks per running queue: one takes requests from the ring and starts each as a small task of its own, one
//! publishes completions. The publisher runs behind the tasks that completed in the same turn of the executor, so
//! that they share one update of the ring and at most one signal.
//!
//! While there is work the ring is looked at every turn and the guest is asked not to kick. After a quiet time (the
//! configured `poll`) the queue asks for kicks and sleeps until one comes.
//!
//! Every request that was taken is published exactly once, with three exceptions, in which it stays marked as in
//! flight for the next daemon: the disk answered [`IoError::Stopped`], the connection was lost and the drain time ran
//! out, or the ring broke.
//!
//! Guest and front end decide how much a queue has to do; how much of the executor it gets is decided by [`crate::fair`].
//!
//! No request outlives its queue: when the connection is lost, what waits for memory is not begun any more, and when the queue
//! ends, what the disk still has is dropped, which is to keep it from having any effect that it has not had yet.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use futures_lite::future::or;
use glommio::timer::sleep;
use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};
use vm_memory::{Bytes as _, GuestAddress, GuestAddressSpace};

use crate::call::{CallError, Signalled};
use crate::cancel::Cancel;
use crate::carry::{Job, Outcome};
use crate::device::{BlockDevice, IoError};
use crate::fair::Share;
use crate::kick::Kick;
use crate::limits::{DRAIN_PAUSE, TURN};
use crate::log::limited;
use crate::request::{Refusal, Request};
use crate::ring::{Batch, Broken, Completion, Ring, Taken};
use crate::server::Shared;
use crate::signal::Signal;

/// Whether a queue is to run. Set by the protocol thread; the queue needs nothing of its front end to see it.
pub(crate) struct Control {
    state: AtomicU8,
    /// The guest is to be signalled, whether it has something to see or not.
    signal: AtomicBool,
    /// Wakes the queue; closed when it is to end.
    wakes: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

impl Default for Control {
    fn default() -> Self {
        let (state, signal) = (AtomicU8::new(Self::RUN), AtomicBool::default());
        Control { state, signal, wakes: async_channel::bounded(1) }
    }
}

impl Control {
    const RUN: u8 = 0;
    const DRAIN: u8 = 1;
    const ABANDON: u8 = 2;
    const LEAVE: u8 = 3;

    /// Take nothing more, and end when everything is completed.
    pub fn drain(&self) {
        self.end(Self::DRAIN);
    }

    /// The same, but wait no longer than the drain time: nobody will see the completions.
    pub fn abandon(&self) {
        self.end(Self::ABANDON);
    }

    /// End at once. What is not completed stays in flight.
    pub fn leave(&self) {
        self.end(Self::LEAVE);
    }

    /// A queue that ends may only be told to end sooner.
    fn end(&self, how: u8) {
        self.state.fetch_max(how, Ordering::AcqRel);
        self.wakes.0.close();
    }

    /// Signal the guest: it may have missed what was completed before.
    pub fn signal(&self) {
        self.signal.store(true, Ordering::Release);
        // One that is full, or closed, wakes the queue as well.
        let _ = self.wakes.0.try_send(());
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    fn is_running(&self) -> bool {
        self.state() == Self::RUN
    }

    /// Returns when there is something to be seen here.
    async fn changed(&self) {
        // An error tells that the queue is to end.
        let _ = self.wakes.1.recv().await;
    }
}

/// Everything an executor needs to run a queue.
pub(crate) struct Start {
    pub name: String,
    pub ring: Ring,
    pub kick: Option<OwnedFd>,
    pub control: Arc<Control>,
    pub shared: Arc<Shared>,
    /// Told when the queue has ended.
    pub ended: SyncSender<()>,
}

/// How queues are run.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// How long a queue without work is looked at before it sleeps.
    pub poll: Duration,
    /// How long requests in flight are waited for once the connection is lost.
    pub drain: Duration,
}

/// Runs a queue until its control says otherwise or its ring breaks.
pub(crate) async fn run<D: BlockDevice>(start: Start, device: Rc<D>, share: Rc<Share>, pace: Pace) {
    let Start { name, ring, kick, control, shared, ended } = start;
    let queue = Rc::new(Queue::new(name, ring, control, shared, device, share));
    let kick = Kick::new(kick);
    let publisher = glommio::spawn_local(queue.clone().publish_as_completed());
    if let Err(broken) = queue.serve(&kick, pace.poll).await {
        queue.break_off(&broken);
    }
    queue.drain(pace.drain).await;
    queue.end();
    queue.cancel().await;
    publisher.await;
    kick.close().await;
    // Only fails if the thread that started the queue no longer waits.
    let _ = ended.send(());
}

pub(crate) struct Queue<D> {
    name: String,
    pub ring: Ring,
    size: usize,
    control: Arc<Control>,
    shared: Arc<Shared>,
    pub device: Rc<D>,
    read_only: bool,
    /// Requests taken and neither completed nor left to the next daemon.
    outstanding: Cell<usize>,
    pub share: Rc<Share>,
    completed: RefCell<Vec<Completion>>,
    /// Signals that are given by the kernel's workers: one under way and one after it, at most.
    signals: Cell<u8>,
    publish: Signal,
    /// Guest memory and ring are no longer touched: broken, or left to the next connection.
    detached: Cell<bool>,
    ended: Cell<bool>,
    pub cancel: Cancel,
}

impl<D: BlockDevice> Queue<D> {
    fn new(
        name: String,
        ring: Ring,
        control: Arc<Control>,
        shared: Arc<Shared>,
        device: Rc<D>,
        share: Rc<Share>,
    ) -> Self {
        Queue {
            name,
            size: ring.size(),
            ring,
            control,
            shared,
            read_only: device.is_read_only(),
            device,
            outstanding: Cell::new(0),
            share,
            completed: RefCell::default(),
            signals: Cell::default(),
            publish: Signal::default(),
            detached: Cell::new(false),
            ended: Cell::new(false),
            cancel: Cancel::default(),
        }
    }

    async fn serve(self: &Rc<Self>, kick: &Kick, poll: Duration) -> Result<(), Broken> {
        let mut batch = Batch::default();
        self.resume(&mut batch).await?;
        self.ring.disable_kicks()?;
        let mut busy_at = Instant::now();
        while self.is_serving() {
            if let Some(pause) = self.share.pause() {
                sleep(pause).await;
            }
            if self.control.signal.swap(false, Ordering::AcqRel) {
                self.signal_slowly();
            }
            let most = self.size.saturating_sub(self.outstanding.get());
            self.ring.take(most, self.device.capacity(), &mut batch)?;
            if !batch.taken.is_empty() {
                self.start_all(&mut batch);
                busy_at = Instant::now();
            }
            if busy_at.elapsed() < poll {
                sleep(TURN).await;
            } else if self.ring.enable_kicks()? {
                // More came meanwhile; what was started gets a turn first.
                self.ring.disable_kicks()?;
                sleep(TURN).await;
            } else {
                self.wait_for_kick(kick).await?;
                self.ring.disable_kicks()?;
                busy_at = Instant::now();
            }
        }
        self.ring.check_memory()
    }

    /// Starts what was in flight when the last connection, or daemon, ended.
    async fn resume(self: &Rc<Self>, batch: &mut Batch) -> Result<(), Broken> {
        let heads = self.ring.resume()?;
        if !heads.is_empty() {
            limited!(self.shared.log, info, queue = %self.name, requests = heads.len(), "resuming requests in flight");
        }
        let mut heads = heads.into_iter();
        while heads.len() > 0 {
            self.ring.read_resumed(&mut heads, self.device.capacity(), batch);
            self.start_all(batch);
            if heads.len() > 0 {
                sleep(self.share.pause().unwrap_or(TURN)).await;
            }
        }
        Ok(())
    }

    async fn wait_for_kick(&self, kick: &Kick) -> Result<(), Broken> {
        let end = async {
            self.control.changed().await;
            Ok(())
        };
        or(kick.wait(), end).await.map_err(|e| Broken::Kick(e.to_string()))
    }

    /// Starts every request in order, and publishes what was completed at once.
    fn start_all(self: &Rc<Self>, batch: &mut Batch) {
        self.share.charge(batch.taken.len(), std::mem::take(&mut batch.descriptors));
        for Taken { head, request } in batch.taken.drain(..) {
            match request {
                Ok(request) if self.read_only && request.is_change() => {
                    self.refuse(head, &request.refused("the disk is read-only"));
                }
                Ok(request) => self.start(head, request),
                Err(refusal) => self.refuse(head, &refusal),
            }
        }
        self.publish_completed();
    }

    fn start(self: &Rc<Self>, head: u16, request: Request) {
        self.outstanding.set(self.outstanding.get() + 1);
        self.share.submit(Job::new(self.clone(), head, request));
    }

    fn is_serving(&self) -> bool {
        self.control.is_running() && !self.is_detached()
    }

    /// Whether guest memory is no longer to be touched.
    pub fn is_detached(&self) -> bool {
        self.detached.get() || self.ring.breakage.is_broken()
    }

    /// Whether nobody will see what is begun now.
    pub fn is_left(&self) -> bool {
        self.control.state() >= Control::ABANDON || self.is_detached()
    }

    /// The disk has done with a request.
    pub fn ended(&self, job: &Job<D>, outcome: Outcome) {
        self.outstanding.set(self.outstanding.get() - 1);
        let (status, data_len) = match outcome {
            Ok(len) => (VIRTIO_BLK_S_OK, len),
            Err(IoError::Failed) => (VIRTIO_BLK_S_IOERR, 0),
            Err(IoError::Stopped) if self.ring.breakage.is_broken() => return self.break_off(&Broken::Memory),
            Err(IoError::Stopped) => return,
        };
        if status != VIRTIO_BLK_S_OK {
            limited!(self.shared.log, warn, queue = %self.name, operation = ?job.operation, "request failed");
        }
        self.complete(job.head, Some(job.status_at), status as u8, data_len);
        self.publish.set();
    }

    fn refuse(&self, head: u16, refusal: &Refusal) {
        limited!(self.shared.log, warn, queue = %self.name, head, "request refused: {}", refusal.why);
        self.complete(head, refusal.status_at, refusal.status, 0);
    }

    fn complete(&self, head: u16, status_at: Option<GuestAddress>, status: u8, data_len: u32) {
        if self.detached.get() {
            return;
        }
        let answered = status_at.is_some_and(|at| self.ring.memory.memory().write_obj(status, at).is_ok());
        let written = if answered { data_len + 1 } else { 0 };
        self.completed.borrow_mut().push(Completion { head, written });
    }

    async fn publish_as_completed(self: Rc<Self>) {
        while !self.ended.get() {
            self.publish.wait().await;
            self.publish_completed();
        }
    }

    fn publish_completed(self: &Rc<Self>) {
        let mut completed = self.completed.borrow_mut();
        if completed.is_empty() || self.detached.get() {
            return;
        }
        let published = self.ring.publish(&completed);
        completed.clear();
        drop(completed);
        match published {
            Ok(Signalled::Done) => {}
            Ok(Signalled::WouldBlock) => self.signal_slowly(),
            Err(broken) => self.break_off(&broken),
        }
    }

    /// Signals the guest without waiting for it. What is completed while one signal is under way shares the next.
    fn signal_slowly(self: &Rc<Self>) {
        let under_way = self.signals.get();
        self.signals.set(2.min(under_way + 1));
        if under_way > 0 {
            return;
        }
        let queue = self.clone();
        glommio::spawn_local(async move {
            while queue.signals.get() > 0
                && queue.cancel.unless_cancelled(queue.ring.call.signal_slowly()).await.is_some()
            {
                queue.signals.set(queue.signals.get() - 1);
            }
        })
        .detach();
    }

    fn break_off(&self, broken: &Broken) {
        if self.detached.replace(true) {
            return;
        }
        if broken.ends_connection() {
            limited!(self.shared.log, error, queue = %self.name, "the connection is ended: {broken}");
            self.shared.end_connection(matches!(broken, Broken::Call(CallError::Blocked)));
        } else {
            limited!(
                self.shared.log, error, queue = %self.name,
                "queue stopped: {broken}; reset the device in the guest to use it again"
            );
        }
    }

    /// Waits until nothing is in flight; once abandoned, no longer than `time`.
    async fn drain(self: &Rc<Self>, time: Duration) {
        let mut abandoned_at = None;
        while self.outstanding.get() > 0 {
            if self.is_left() {
                self.share.forget_left();
                let since = *abandoned_at.get_or_insert_with(Instant::now);
                let time = if self.control.state() == Control::LEAVE { Duration::ZERO } else { time };
                if since.elapsed() >= time && self.outstanding.get() > 0 {
                    let requests = self.outstanding.get();
                    limited!(self.shared.log, info, queue = %self.name, requests, "requests stay in flight for the next start");
                    break;
                }
            }
            sleep(DRAIN_PAUSE).await;
        }
        self.publish_completed();
    }

    /// From here on nobody sees what becomes of requests that are still at the disk.
    fn end(&self) {
        self.detached.set(true);
        self.ended.set(true);
        self.publish.set();
    }

    /// Has the disk drop what it still has. The next connection's requests begin when that is done.
    async fn cancel(&self) {
        self.share.forget_left();
        self.cancel.cancel();
        while self.outstanding.get() > 0 {
            sleep(DRAIN_PAUSE).await;
        }
    }
}
