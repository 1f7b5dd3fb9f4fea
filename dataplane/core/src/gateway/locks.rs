//! Order among the requests of one chunk that touch the same blocks.
//!
//! A write waits for every earlier read and write that overlaps it, a read for every earlier write:
//! what a read has returned can then never be undone by a takeover. First come, first served.
//!
//! The order belongs to a position of the volume, not to the chunk that is there: whoever comes while there is none yet, or while
//! it is being given back, has a place as well, and keeps it. Else a write of a guest that died meanwhile could land after one that
//! came later, and was answered.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

struct Claim {
    id: u64,
    blocks: Range<u32>,
    mode: Mode,
    granted: bool,
    waker: Option<Waker>,
}

impl Claim {
    fn conflicts(&self, other: &Claim) -> bool {
        if crate::mutant!("overlaps not ordered") {
            return false;
        }
        if crate::mutant!("reads do not wait for writes") && (self.mode == Mode::Shared || other.mode == Mode::Shared) {
            return false;
        }
        self.blocks.start < other.blocks.end
            && other.blocks.start < self.blocks.end
            && (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
    }
}

/// The claims of one chunk, in order of arrival.
#[derive(Default)]
pub(super) struct RangeLocks {
    claims: RefCell<Vec<Claim>>,
    next_id: Cell<u64>,
    waiting: Cell<usize>,
}

impl RangeLocks {
    /// Takes a place in the order now; completes when nothing earlier conflicts. The blocks are held
    /// until what it returns is dropped.
    pub fn acquire(self: &Rc<Self>, blocks: Range<u32>, mode: Mode) -> Acquire {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let mut claim = Claim { id, blocks, mode, granted: true, waker: None };
        let mut claims = self.claims.borrow_mut();
        if claims.iter().any(|c| c.conflicts(&claim)) {
            claim.granted = false;
            self.waiting.set(self.waiting.get() + 1);
        }
        claims.push(claim);
        Acquire { held: Some(Held { locks: self.clone(), id }) }
    }

    fn release(&self, id: u64) {
        let mut claims = self.claims.borrow_mut();
        let at = claims.iter().position(|c| c.id == id).expect("a held claim is listed");
        let gone = claims.remove(at);
        if !gone.granted {
            self.waiting.set(self.waiting.get() - 1);
        }
        if self.waiting.get() == 0 {
            return;
        }
        let mut wake = vec![];
        for i in at..claims.len() {
            if !claims[i].granted && !claims[..i].iter().any(|c| c.conflicts(&claims[i])) {
                claims[i].granted = true;
                self.waiting.set(self.waiting.get() - 1);
                wake.extend(claims[i].waker.take());
            }
        }
        drop(claims);
        wake.into_iter().for_each(Waker::wake);
    }
}

/// The orders of a volume's requests, by position of the chunk.
#[derive(Default)]
pub(super) struct Orders(RefCell<BTreeMap<u32, Rc<RangeLocks>>>);

impl Orders {
    /// The order at a position; a chunk that comes to be there takes it over.
    pub fn at(&self, index: u32) -> Rc<RangeLocks> {
        self.0.borrow_mut().entry(index).or_default().clone()
    }

    /// Forgets the order at a position if nobody has a place in it, and no chunk has it.
    pub fn tidy(&self, index: u32) {
        let mut all = self.0.borrow_mut();
        if all.get(&index).is_some_and(|order| Rc::strong_count(order) == 1) {
            all.remove(&index);
        }
    }
}

/// Blocks held; released by dropping it.
pub(super) struct Held {
    locks: Rc<RangeLocks>,
    id: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.release(self.id);
    }
}

/// Waits for its turn. Dropped early, it gives its place up.
pub(super) struct Acquire {
    held: Option<Held>,
}

impl Future for Acquire {
    type Output = Held;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Held> {
        let held = self.held.take().expect("polled after completion");
        {
            let mut claims = held.locks.claims.borrow_mut();
            let claim = claims.iter_mut().find(|c| c.id == held.id).expect("a held claim is listed");
            if !claim.granted {
                claim.waker = Some(cx.waker().clone());
                drop(claims);
                self.held = Some(held);
                return Poll::Pending;
            }
        }
        Poll::Ready(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn ready(a: Pin<&mut Acquire>) -> Option<Held> {
        match a.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(h) => Some(h),
            Poll::Pending => None,
        }
    }

    #[test]
    fn overlaps_wait_in_order_and_others_do_not() {
        let locks = Rc::new(RangeLocks::default());
        let first = ready(pin!(locks.acquire(0..4, Mode::Exclusive))).unwrap();
        let mut second = pin!(locks.acquire(3..5, Mode::Exclusive));
        assert!(ready(second.as_mut()).is_none());
        let mut third = pin!(locks.acquire(4..6, Mode::Shared));
        assert!(ready(third.as_mut()).is_none(), "must not overtake the second");
        let apart = ready(pin!(locks.acquire(6..7, Mode::Exclusive)));
        assert!(apart.is_some());
        drop(first);
        let second = ready(second).unwrap();
        assert!(ready(third.as_mut()).is_none());
        drop(second);
        assert!(ready(third).is_some());
    }

    #[test]
    fn an_order_is_forgotten_when_nobody_is_in_it() {
        let orders = Orders::default();
        let mut first = pin!(orders.at(7).acquire(0..1, Mode::Exclusive));
        let held = ready(first.as_mut()).unwrap();
        orders.tidy(7);
        let mut second = pin!(orders.at(7).acquire(0..1, Mode::Shared));
        assert!(ready(second.as_mut()).is_none(), "it waits for the first");
        drop(held);
        drop(ready(second).unwrap());
        orders.tidy(7);
        assert!(orders.0.borrow().is_empty());
    }

    #[test]
    fn readers_share_and_hold_writers_off() {
        let locks = Rc::new(RangeLocks::default());
        let a = ready(pin!(locks.acquire(0..1, Mode::Shared))).unwrap();
        let b = ready(pin!(locks.acquire(0..1, Mode::Shared))).unwrap();
        let mut writer = Box::pin(locks.acquire(0..1, Mode::Exclusive));
        assert!(ready(writer.as_mut()).is_none());
        let mut late = pin!(locks.acquire(0..1, Mode::Shared));
        assert!(ready(late.as_mut()).is_none());
        drop((a, b));
        drop(writer);
        assert!(ready(late).is_some(), "a writer that gave up holds nobody off");
    }
}
