//! Who waits for which request to become durable.
//!
//! Requests of one queue complete in order, so a request is a number and completion is a high-water
//! mark: no allocation per request. A write that is made again while the first is under way joins it.

use super::error::StoreError;
use levee_proto::{ChunkId, Seq, Version};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Queue {
    /// Requests up to here are durable.
    done: u64,
    issued: u64,
    /// The requests after `done`, in order.
    waiting: VecDeque<Waiting>,
    /// Of those who wait for a request that is not theirs.
    others: Vec<(u64, Waker)>,
    failed: Option<StoreError>,
}

/// What a request does to which chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Write(Write),
    /// It may take entries away.
    Change(ChunkId),
    Other,
}

/// Which write it is: a gateway never gives a seq to two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub chunk: ChunkId,
    pub version: Version,
    pub seq: Seq,
    pub block: u32,
    pub count: u32,
}

/// What is known of a write that is made again.
pub enum Earlier {
    /// It is under way, and done with this.
    UnderWay(Ticket),
    /// It is not, and nothing is that takes entries of its chunk away.
    NotUnderWay,
    /// Whatever was there may be gone by the time of this one.
    MayBeUndone,
}

/// One request.
struct Waiting {
    subject: Subject,
    waker: Option<Waker>,
}

/// Gives out tickets, and completes them in order.
#[derive(Clone, Default)]
pub struct Tickets(Rc<RefCell<Queue>>);

impl Tickets {
    /// A ticket for the next request.
    pub fn issue(&self, subject: Subject) -> Ticket {
        let q = &mut *self.0.borrow_mut();
        q.issued += 1;
        q.waiting.push_back(Waiting { subject, waker: None });
        Ticket(Inner::Waiting { queue: self.clone(), number: q.issued, own: true })
    }

    /// A ticket that completes with the last one issued.
    pub fn last(&self) -> Ticket {
        Ticket(Inner::Waiting { queue: self.clone(), number: self.0.borrow().issued, own: false })
    }

    /// Looks for a write among those that are under way.
    pub fn earlier(&self, write: Write) -> Earlier {
        let q = self.0.borrow();
        for (at, w) in q.waiting.iter().enumerate().rev() {
            if w.subject == Subject::Write(write) {
                let number = q.done + 1 + at as u64;
                return Earlier::UnderWay(Ticket(Inner::Waiting { queue: self.clone(), number, own: false }));
            }
            if w.subject == Subject::Change(write.chunk) {
                return Earlier::MayBeUndone;
            }
        }
        Earlier::NotUnderWay
    }

    /// Completes the next `count` requests.
    pub fn complete(&self, count: u64) {
        let mut woken = Vec::new();
        {
            let q = &mut *self.0.borrow_mut();
            q.done += count;
            let n = (count as usize).min(q.waiting.len());
            woken.extend(q.waiting.drain(..n).filter_map(|w| w.waker));
            let done = q.done;
            woken.extend(q.others.extract_if(.., |(number, _)| *number <= done).map(|(_, w)| w));
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Fails all requests that are not done, now and later.
    pub fn fail(&self, error: StoreError) {
        let (own, others) = {
            let q = &mut *self.0.borrow_mut();
            q.failed = Some(error);
            (std::mem::take(&mut q.waiting), std::mem::take(&mut q.others))
        };
        own.into_iter().filter_map(|w| w.waker).chain(others.into_iter().map(|(_, w)| w)).for_each(Waker::wake);
    }

    fn poll(&self, number: u64, own: bool, cx: &Context<'_>) -> Poll<Result<(), StoreError>> {
        let q = &mut *self.0.borrow_mut();
        if number <= q.done {
            return Poll::Ready(Ok(()));
        }
        if let Some(e) = &q.failed {
            return Poll::Ready(Err(e.clone()));
        }
        if own {
            q.waiting[(number - q.done - 1) as usize].waker = Some(cx.waker().clone());
        } else {
            q.others.push((number, cx.waker().clone()));
        }
        Poll::Pending
    }
}

/// Completes when the request is durable, with `'static` lifetime so that it can be spawned. Dropping
/// it does not take the request back.
#[must_use = "the request's outcome"]
pub struct Ticket(Inner);

enum Inner {
    Done,
    Refused(Option<StoreError>),
    Waiting { queue: Tickets, number: u64, own: bool },
}

impl Ticket {
    /// The request is durable already.
    pub fn done() -> Ticket {
        Ticket(Inner::Done)
    }

    /// The request was not accepted.
    pub fn refused(error: StoreError) -> Ticket {
        Ticket(Inner::Refused(Some(error)))
    }
}

impl Future for Ticket {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Done => Poll::Ready(Ok(())),
            Inner::Refused(e) => Poll::Ready(Err(e.take().unwrap_or(StoreError::Closed))),
            Inner::Waiting { queue, number, own } => queue.poll(*number, *own, cx),
        }
    }
}
