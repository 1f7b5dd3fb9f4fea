//! Blocks that are being read: one reads them, others wait for what it finds.
//!
//! A waiter that is dropped takes its waker back, on its own thread. Whoever ends a flight wakes all who wait, outside of every lock.

use super::{Content, Key, Source, lock};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What is being read on one shelf: by first block. No two overlap.
#[derive(Default)]
pub(super) struct Flights(BTreeMap<Key, Arc<Flight>>);

impl Flights {
    /// Those that read some of the blocks, in order.
    pub fn overlapping(&self, source: Source, blocks: &Range<u32>) -> Vec<Arc<Flight>> {
        let before = self.0.range(..Key { source, block: blocks.end }).rev();
        let meets = |(key, flight): &(&Key, &Arc<Flight>)| key.source == source && flight.blocks.end > blocks.start;
        let mut all: Vec<_> = before.take_while(meets).map(|(_, flight)| flight.clone()).collect();
        all.reverse();
        all
    }

    /// Blocks that nobody reads begin to be read.
    pub fn begin(&mut self, source: Source, blocks: Range<u32>) -> Arc<Flight> {
        let key = Key { source, block: blocks.start };
        let flight = Arc::new(Flight { blocks, state: Mutex::default() });
        self.0.insert(key, flight.clone());
        flight
    }

    /// Whether it was still there, and nobody had taken its place.
    pub fn end(&mut self, source: Source, flight: &Arc<Flight>) -> bool {
        let key = Key { source, block: flight.blocks.start };
        let is_there = self.0.get(&key).is_some_and(|there| Arc::ptr_eq(there, flight));
        if is_there {
            self.0.remove(&key);
        }
        is_there
    }
}

/// Blocks that are being read.
pub(super) struct Flight {
    pub blocks: Range<u32>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: bool,
    /// Of all its blocks, if it ended well.
    contents: Option<Vec<Content>>,
    next_waiter: u64,
    waiters: BTreeMap<u64, Waker>,
}

impl Flight {
    pub fn end(&self, contents: Option<Vec<Content>>) {
        let waiters = {
            let mut state = lock(&self.state);
            (state.ended, state.contents) = (true, contents);
            std::mem::take(&mut state.waiters)
        };
        waiters.into_values().for_each(Waker::wake);
    }
}

/// Waits for blocks that another reads. `None`: it gave up; look them up again.
pub(crate) struct Wait {
    flight: Arc<Flight>,
    blocks: Range<u32>,
    /// Where its waker is.
    place: Option<u64>,
}

impl Wait {
    pub(super) fn new(flight: Arc<Flight>, block: u32) -> Wait {
        Wait { flight, blocks: block..block + 1, place: None }
    }

    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(super) fn is_for(&self, flight: &Arc<Flight>) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }

    /// Up to this block as well, which the flight has. Blocks between may be known: they are the same.
    pub(super) fn extend(&mut self, block: u32) {
        self.blocks.end = block + 1;
    }

    /// What is waited for.
    pub(crate) fn blocks(&self) -> Range<u32> {
        self.blocks.clone()
    }
}

impl Future for Wait {
    type Output = Option<Vec<Content>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let flight = self.flight.clone();
        let mut state = lock(&flight.state);
        if state.ended {
            self.place = None;
            let of = |b: u32| (b - flight.blocks.start) as usize;
            let wanted = of(self.blocks.start)..of(self.blocks.end);
            return Poll::Ready(state.contents.as_ref().map(|all| all[wanted].to_vec()));
        }
        let place = self.place.unwrap_or(state.next_waiter);
        if self.place.replace(place).is_none() {
            state.next_waiter += 1;
        }
        let before = state.waiters.insert(place, cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let waker = self.place.and_then(|place| lock(&self.flight.state).waiters.remove(&place));
        drop(waker);
    }
}
