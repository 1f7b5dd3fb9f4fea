//! One connected link, without a notion of client or server: frames out, frames in, its end.
//!
//! Two tasks serve a link. [`transmit`] sends whatever is in the outbox: everything that was queued in
//! one turn of the executor leaves together. [`receive`] reads, and hands out all frames of a read
//! before it waits again. Whoever finds a reason first ends the link with [`Link::close`]; both tasks
//! then come to their end, and only then the owner says so to those who wait.

use crate::errors::Reason;
use crate::frame::{Batch, Frame, Label, TooLarge};
use crate::later::Pacer;
use crate::recv::RecvBuffer;
use crate::tcp::Stream;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

pub(crate) struct Link {
    stream: Stream,
    outbox: RefCell<Batch>,
    /// The transmitting task, while it waits for something to send.
    transmitter: RefCell<Option<Waker>>,
    /// Bytes in the outbox and in the batch that is being sent.
    queued: Cell<usize>,
    closed: RefCell<Option<Reason>>,
    silence: Silence,
}

/// What a link has been waiting for, in ticks of its owner.
#[derive(Default)]
pub(crate) struct Silence {
    /// Since the last byte arrived.
    quiet: Cell<u32>,
    /// Since the frame that is arriving began.
    partial: Cell<Option<u32>>,
}

impl Silence {
    /// A tick went by. Returns the ticks without a byte, and the ticks that a frame has been arriving.
    pub fn tick(&self) -> (u32, u32) {
        self.quiet.set(self.quiet.get().saturating_add(1));
        self.partial.set(self.partial.get().map(|t| t.saturating_add(1)));
        (self.quiet.get(), self.partial.get().unwrap_or(0))
    }

    /// Bytes arrived; `progress` if they completed a frame, `partial` if they began another.
    fn heard(&self, progress: bool, partial: bool) {
        self.quiet.set(0);
        let since = self.partial.get().filter(|_| !progress).unwrap_or(0);
        self.partial.set(partial.then_some(since));
    }

    /// Forgets the silence so far: nothing was to be expected.
    pub fn reset(&self) {
        self.quiet.set(0);
    }
}

impl Link {
    pub fn new(stream: Stream) -> Link {
        Link {
            stream,
            outbox: RefCell::default(),
            transmitter: RefCell::default(),
            queued: Cell::new(0),
            closed: RefCell::default(),
            silence: Silence::default(),
        }
    }

    /// Queues a frame. It leaves at the end of the executor's turn.
    pub fn send(&self, label: Label, encode: impl FnOnce(&mut Vec<u8>), data: Bytes) -> Result<(), TooLarge> {
        let mut outbox = self.outbox.borrow_mut();
        let before = outbox.bytes();
        outbox.push(label, encode, data)?;
        self.queued.set(self.queued.get() + outbox.bytes() - before);
        drop(outbox);
        self.wake();
        Ok(())
    }

    /// Bytes queued and not yet taken by the network.
    pub fn queued(&self) -> usize {
        self.queued.get()
    }

    /// Ends the link. The first reason stays.
    pub fn close(&self, reason: Reason) {
        let mut closed = self.closed.borrow_mut();
        if closed.is_none() {
            *closed = Some(reason);
            self.stream.shutdown();
        }
        drop(closed);
        self.wake();
    }

    /// Why the link was ended, if it was.
    pub fn closed(&self) -> Option<Reason> {
        self.closed.borrow().clone()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    pub fn silence(&self) -> &Silence {
        &self.silence
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    fn wake(&self) {
        let waker = self.transmitter.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Swaps the queued frames into `batch`, which must be empty; false once the link is closed.
    async fn next_batch(&self, batch: &mut Batch) -> bool {
        poll_fn(|cx| {
            if self.is_closed() {
                return Poll::Ready(false);
            }
            let mut outbox = self.outbox.borrow_mut();
            if outbox.is_empty() {
                *self.transmitter.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(batch, &mut *outbox);
            Poll::Ready(true)
        })
        .await
    }
}

/// Sends what is queued until the link ends.
pub(crate) async fn transmit(link: Rc<Link>) {
    let mut batch = Batch::default();
    while link.next_batch(&mut batch).await {
        if let Err(e) = link.stream.send(&mut batch).await {
            link.close(format!("sending failed: {e}").into());
        }
        link.queued.set(link.queued.get() - batch.bytes());
        batch.clear();
    }
}

/// Hands each frame that arrives to `deliver` until the link ends, and returns why it did.
///
/// `settle` runs after the frames of each read.
pub(crate) async fn receive(
    link: &Link,
    buf: &mut RecvBuffer,
    mut deliver: impl FnMut(Frame) -> Result<(), Reason>,
    mut settle: impl FnMut(),
) -> Reason {
    let mut pacer = Pacer::default();
    loop {
        // First what came together with the hello, then what each read brings.
        if let Err(reason) = deliver_frames(link, buf, &mut deliver) {
            return reason;
        }
        settle();
        let room = buf.room();
        let len = room.len();
        let read = link.stream.read(room).await;
        if let Some(reason) = link.closed() {
            return reason;
        }
        let n = match read {
            Ok(0) => return "the peer closed the connection".into(),
            Ok(n) => n,
            Err(e) => return format!("the connection broke: {e}").into(),
        };
        buf.advance(n);
        if n == len { pacer.pause().await } else { pacer.reset() }
    }
}

fn deliver_frames(
    link: &Link,
    buf: &mut RecvBuffer,
    deliver: &mut impl FnMut(Frame) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let mut progress = false;
    while let Some(frame) = buf.next_frame().map_err(|e| Reason::from(e.to_string()))? {
        progress = true;
        deliver(frame)?;
        if let Some(reason) = link.closed() {
            return Err(reason);
        }
    }
    link.silence.heard(progress, buf.is_partial());
    Ok(())
}

/// Waits for one frame of the greeting. An error says why there is none.
pub(crate) async fn receive_one(stream: &Stream, buf: &mut RecvBuffer) -> Result<Frame, Reason> {
    loop {
        if let Some(frame) = buf.next_frame().map_err(|e| Reason::from(e.to_string()))? {
            return Ok(frame);
        }
        match stream.read(buf.room()).await {
            Ok(0) => return Err("the peer closed the connection before the greeting was over".into()),
            Ok(n) => buf.advance(n),
            Err(e) => return Err(format!("the connection broke: {e}").into()),
        }
    }
}
