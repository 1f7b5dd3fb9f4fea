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
//! No request outlives its queue: when the connection is lost, what waits for memory is not begun any more, and when the queue
//! ends, what the disk still has is dropped, which is to keep it from having any effect that it has not had yet.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};
use vm_memory::{Bytes as _, GuestAddressSpace};

use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::device::{BlockDevice, IoError};
use crate::kick::Kick;
use crate::limits::{DRAIN_PAUSE, TURN};
use crate::request::{self, Operation, Refusal, Request};
use crate::ring::{Broken, Completion, Ring, Taken};
use crate::signal::Signal;

/// Whether a queue is to run. Set by the protocol thread, followed by a kick.
#[derive(Default)]
pub(crate) struct Control(AtomicU8);

impl Control {
    const RUN: u8 = 0;
    const DRAIN: u8 = 1;
    const ABANDON: u8 = 2;

    /// Take nothing more, and end when everything is completed.
    pub fn drain(&self) {
        // An abandoned queue stays so.
        let _ = self.0.compare_exchange(Self::RUN, Self::DRAIN, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The same, but wait no longer than the drain time: nobody will see the completions.
    pub fn abandon(&self) {
        self.0.store(Self::ABANDON, Ordering::Release);
    }

    fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::RUN
    }

    fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::ABANDON
    }
}

/// Everything an executor needs to run a queue.
pub(crate) struct Start {
    pub name: String,
    pub ring: Ring,
    pub kick: Option<std::os::fd::OwnedFd>,
    pub control: Arc<Control>,
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
pub(crate) async fn run<D: BlockDevice>(start: Start, device: Rc<D>, pace: Pace) {
    let Start { name, ring, kick, control, ended } = start;
    let queue = Rc::new(Queue::new(name, ring, control, device));
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

/// Data and status of a request that was carried out: bytes written to the guest.
type Outcome = Result<u32, IoError>;

struct Queue<D> {
    name: String,
    ring: Ring,
    size: usize,
    control: Arc<Control>,
    device: Rc<D>,
    read_only: bool,
    /// Requests taken and neither completed nor left to the next daemon.
    outstanding: Cell<usize>,
    budget: Budget,
    /// Requests that waited for memory are being begun.
    beginning: Cell<bool>,
    completed: RefCell<Vec<Completion>>,
    publish: Signal,
    /// Guest memory and ring are no longer touched: broken, or left to the next connection.
    detached: Cell<bool>,
    ended: Cell<bool>,
    cancel: Cancel,
}

impl<D: BlockDevice> Queue<D> {
    fn new(name: String, ring: Ring, control: Arc<Control>, device: Rc<D>) -> Self {
        Queue {
            name,
            size: ring.size(),
            ring,
            control,
            read_only: device.is_read_only(),
            device,
            outstanding: Cell::new(0),
            budget: Budget::default(),
            beginning: Cell::new(false),
            completed: RefCell::default(),
            publish: Signal::default(),
            detached: Cell::new(false),
            ended: Cell::new(false),
            cancel: Cancel::default(),
        }
    }

    async fn serve(self: &Rc<Self>, kick: &Kick, poll: Duration) -> Result<(), Broken> {
        let mut batch = self.ring.resume(self.device.capacity())?;
        if !batch.is_empty() {
            tracing::info!(queue = %self.name, requests = batch.len(), "resuming requests in flight");
        }
        self.start_all(&mut batch);
        self.ring.disable_kicks()?;
        let mut busy_at = Instant::now();
        while self.control.is_running() && !self.detached.get() {
            let most = self.size.saturating_sub(self.outstanding.get());
            self.ring.take(most, self.device.capacity(), &mut batch)?;
            if !batch.is_empty() {
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
                kick.wait().await.map_err(|e| Broken::Kick(e.to_string()))?;
                self.ring.disable_kicks()?;
                busy_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Starts every request in order, and publishes what was completed at once.
    fn start_all(self: &Rc<Self>, batch: &mut Vec<Taken>) {
        for Taken { head, request } in batch.drain(..) {
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
        if let Some((head, request)) = self.budget.admit((head, request)) {
            self.begin(head, request);
        }
    }

    /// Gives a request to the disk. Its memory has been admitted.
    fn begin(self: &Rc<Self>, head: u16, request: Request) {
        let queue = self.clone();
        glommio::spawn_local(async move {
            let outcome = queue.cancel.unless_cancelled(queue.carry_out(&request)).await;
            queue.outstanding.set(queue.outstanding.get() - 1);
            queue.budget.release(request.cost());
            queue.finish(head, &request, outcome.unwrap_or(Err(IoError::Stopped)));
            queue.begin_waiting();
        })
        .detach();
    }

    /// Begins requests that waited for memory that is there now. One may be done at once and come here again: what
    /// it set free is used by the loop that began it.
    fn begin_waiting(self: &Rc<Self>) {
        if self.beginning.replace(true) {
            return;
        }
        while !self.is_left()
            && let Some((head, request)) = self.budget.next()
        {
            self.begin(head, request);
        }
        self.beginning.set(false);
    }

    /// Whether nobody will see what is begun now.
    fn is_left(&self) -> bool {
        self.control.is_abandoned() || self.detached.get()
    }

    async fn carry_out(&self, request: &Request) -> Outcome {
        match request.operation {
            Operation::Read { len: 0, .. } | Operation::Write { len: 0, .. } => Ok(0),
            Operation::Discard { len: 0, .. } | Operation::WriteZeroes { len: 0, .. } => Ok(0),
            Operation::Read { offset, len } => {
                let pieces = self.device.read(offset, len).await?;
                self.copy_to_guest(|mem| request::scatter(mem, &request.data, pieces.iter().map(|piece| &piece[..])))
            }
            Operation::Write { offset, len } => {
                let data = request::gather(&self.ring.memory.memory(), &request.data, len).ok_or(IoError::Failed)?;
                self.device.write(offset, data).await.map(|()| 0)
            }
            Operation::Flush => self.device.flush().await.map(|()| 0),
            Operation::Discard { offset, len } => self.device.discard(offset, len).await.map(|()| 0),
            Operation::WriteZeroes { offset, len, unmap } => {
                self.device.write_zeroes(offset, len, unmap).await.map(|()| 0)
            }
            Operation::GetId => {
                self.copy_to_guest(|mem| request::scatter_serial(mem, &request.data, &self.device.id()))
            }
        }
    }

    /// Copies into guest memory, unless it belongs to somebody else by now.
    fn copy_to_guest(&self, copy: impl FnOnce(&vm_memory::GuestMemoryMmap<()>) -> Option<u32>) -> Outcome {
        if self.detached.get() {
            return Err(IoError::Stopped);
        }
        copy(&self.ring.memory.memory()).ok_or(IoError::Failed)
    }

    fn finish(&self, head: u16, request: &Request, outcome: Outcome) {
        let (status, data_len) = match outcome {
            Ok(len) => (VIRTIO_BLK_S_OK, len),
            Err(IoError::Failed) => (VIRTIO_BLK_S_IOERR, 0),
            Err(IoError::Stopped) => return,
        };
        if status != VIRTIO_BLK_S_OK {
            tracing::warn!(queue = %self.name, operation = ?request.operation, "request failed");
        }
        self.complete(head, Some(request.status_at), status as u8, data_len);
        self.publish.set();
    }

    fn refuse(&self, head: u16, refusal: &Refusal) {
        tracing::debug!(queue = %self.name, head, "request refused: {}", refusal.why);
        self.complete(head, refusal.status_at, refusal.status, 0);
    }

    fn complete(&self, head: u16, status_at: Option<vm_memory::GuestAddress>, status: u8, data_len: u32) {
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

    fn publish_completed(&self) {
        let mut completed = self.completed.borrow_mut();
        if completed.is_empty() || self.detached.get() {
            return;
        }
        let published = self.ring.publish(&completed);
        completed.clear();
        drop(completed);
        if let Err(broken) = published {
            self.break_off(&broken);
        }
    }

    fn break_off(&self, broken: &Broken) {
        tracing::error!(queue = %self.name, "queue stopped: {broken}; reset the device in the guest to use it again");
        self.detached.set(true);
    }

    /// Waits until nothing is in flight; once abandoned, no longer than `time`.
    async fn drain(&self, time: Duration) {
        let mut abandoned_at = None;
        while self.outstanding.get() > 0 {
            if self.is_left() {
                let never_begun = self.budget.forget_waiting();
                self.outstanding.set(self.outstanding.get() - never_begun);
                let since = *abandoned_at.get_or_insert_with(Instant::now);
                if since.elapsed() >= time && self.outstanding.get() > 0 {
                    let requests = self.outstanding.get();
                    tracing::info!(queue = %self.name, requests, "connection lost; requests stay in flight");
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
        self.cancel.cancel();
        while self.outstanding.get() > 0 {
            sleep(DRAIN_PAUSE).await;
        }
    }
}
