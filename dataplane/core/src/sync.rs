//! Waiting, within one executor: a one-shot value, an event, a timer race, and "all of these".
//!
//! Single-threaded (`Rc`), without a runtime, and deterministic: waiters wake in the order they came.

use crate::ports::Runtime;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

struct Slot<T> {
    value: Option<T>,
    closed: bool,
    waker: Option<Waker>,
}

/// The giving end of [`oneshot`]. Dropped unused, the receiver gets `None`.
pub struct Sender<T>(Rc<RefCell<Slot<T>>>);

/// The waiting end of [`oneshot`].
pub struct Receiver<T>(Rc<RefCell<Slot<T>>>);

/// A place for one value, and a future for it.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Rc::new(RefCell::new(Slot { value: None, closed: false, waker: None }));
    (Sender(slot.clone()), Receiver(slot))
}

impl<T> Sender<T> {
    /// Hands the value over.
    pub fn send(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = self.0.borrow_mut();
            slot.closed = true;
            slot.waker.take()
        };
        if let Some(w) = waker {
            w.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.borrow_mut();
        if slot.value.is_some() || slot.closed {
            return Poll::Ready(slot.value.take());
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Something that may have changed: wakes everybody who waits for the next change.
#[derive(Clone, Default)]
pub struct Event(Rc<EventInner>);

#[derive(Default)]
struct EventInner {
    round: Cell<u64>,
    next_id: Cell<u64>,
    waiters: RefCell<BTreeMap<u64, Waker>>,
}

impl Event {
    /// An event that nobody waits for yet.
    pub fn new() -> Event {
        Event::default()
    }

    /// Wakes all current waiters.
    pub fn notify(&self) {
        self.0.round.set(self.0.round.get() + 1);
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        waiters.into_values().for_each(Waker::wake);
    }

    /// Completes at the first [`Event::notify`] after this call (not after the first poll).
    pub fn listen(&self) -> Listener {
        let id = self.0.next_id.get();
        self.0.next_id.set(id + 1);
        Listener { event: self.0.clone(), round: self.0.round.get(), id }
    }
}

/// Waits for an [`Event`].
pub struct Listener {
    event: Rc<EventInner>,
    round: u64,
    id: u64,
}

impl Future for Listener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.event.round.get() != self.round {
            return Poll::Ready(());
        }
        self.event.waiters.borrow_mut().insert(self.id, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.event.waiters.borrow_mut().remove(&self.id);
    }
}

/// `future`'s output, or `None` if `limit` passes first.
pub async fn timeout<R: Runtime, T>(rt: &R, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut timer) = (pin!(future), pin!(rt.sleep(limit)));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(v) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(v));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Runs all futures at once and returns their outputs in order. Each is polled once, in order,
/// before any is waited for.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Some(Box::pin(f)), None)).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for (future, output) in &mut running {
            if let Some(f) = future {
                match f.as_mut().poll(cx) {
                    Poll::Ready(v) => {
                        *output = Some(v);
                        *future = None;
                    }
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return Poll::Pending;
        }
        Poll::Ready(running.drain(..).filter_map(|(_, v)| v).collect())
    })
    .await
}
