//! Order among the requests of one chunk that touch the same blocks.
//!
//! A write waits for every earlier read and write that overlaps it, a read for every earlier write:
//! what a read has returned can then never be undone by a takeover. First come, first served.
//!
//! The order belongs to a position of the volume, not to the chunk that is there: whoever comes while there is none yet, or while
//! it is being given back, has a place as well, and keeps it. Else a write of a guest that died meanwhile could land after one that
//! came later, and was answered.
//!
//! Who cannot read a block now must not hold up what makes it good again. A read gives its place up between tries, and when somebody
//! presses. A merge, which writes a part of one block, keeps its place, but stands aside: whoever overwrites the block, or tries to
//! read it, passes. Once that has overwritten it the merge is done without having been begun, as it came before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Reads.
    Shared,
    /// Keeps everybody off, and does not overwrite what others would write.
    Exclusive,
    /// Reads one block and writes it with a part of it changed.
    Merge,
    /// Writes whole blocks, whatever was there.
    Overwrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Granted,
    /// Keeps its place only: others may pass.
    Aside,
    /// Somebody who came later has overwritten all of it.
    Overwritten,
}

struct Claim {
    id: u64,
    blocks: Range<u32>,
    mode: Mode,
    stage: Stage,
    /// Somebody has waited for it for long.
    pressed: bool,
    waker: Option<Waker>,
}

impl Claim {
    fn overlaps(&self, other: &Claim) -> bool {
        self.blocks.start < other.blocks.end && other.blocks.start < self.blocks.end
    }

    fn conflicts(&self, other: &Claim) -> bool {
        if crate::mutant!("overlaps not ordered") {
            return false;
        }
        let reads = self.mode == Mode::Shared || other.mode == Mode::Shared;
        if crate::mutant!("reads do not wait for writes") && reads {
            return false;
        }
        self.overlaps(other) && (self.mode != Mode::Shared || other.mode != Mode::Shared)
    }

    /// What stands aside writes one block: whatever overlaps it has all of it.
    fn is_overwritten_by(&self, later: &Claim) -> bool {
        self.mode == Mode::Merge && later.mode == Mode::Overwrite && self.overlaps(later)
    }
}

/// The claims of one chunk, in order of arrival.
#[derive(Default)]
struct Claims(Vec<Claim>);

impl Claims {
    fn place_of(&self, id: u64) -> usize {
        self.0.iter().position(|c| c.id == id).expect("a held claim is listed")
    }

    fn of(&mut self, id: u64) -> &mut Claim {
        let at = self.place_of(id);
        &mut self.0[at]
    }

    /// Of each claim, whether it waits, in the end, for nothing but who stands aside. A write of whole blocks passes those itself.
    fn passable(&self) -> Vec<bool> {
        let mut passable = vec![];
        for claim in &self.0 {
            passable.push(self.is_passable(claim, &passable));
        }
        passable
    }

    /// `earlier`: the same of those before it.
    fn is_passable(&self, claim: &Claim, earlier: &[bool]) -> bool {
        let waits_for = |(other, passable): (&Claim, &bool)| *passable && other.conflicts(claim);
        match claim.stage {
            Stage::Aside => true,
            Stage::Waiting => claim.mode != Mode::Overwrite && self.0.iter().zip(earlier).any(waits_for),
            Stage::Granted | Stage::Overwritten => false,
        }
    }

    fn can_be_granted(&self, at: usize, passable: &[bool]) -> bool {
        let claim = &self.0[at];
        let passes = matches!(claim.mode, Mode::Shared | Mode::Overwrite);
        let mut earlier = self.0[..at].iter().zip(passable);
        let is_held_off = earlier.any(|(c, passable)| c.conflicts(claim) && !(passes && *passable));
        // Those that have passed it are waited for, too.
        let has_passed = |later: &Claim| later.stage == Stage::Granted && later.conflicts(claim);
        !is_held_off && !self.0[at + 1..].iter().any(has_passed)
    }

    /// Grants what can be granted; who is to be told.
    fn grant(&mut self) -> Vec<Waker> {
        let (mut wake, mut passable) = (vec![], vec![]);
        for at in 0..self.0.len() {
            if self.0[at].stage == Stage::Waiting && self.can_be_granted(at, &passable) {
                self.0[at].stage = Stage::Granted;
                wake.extend(self.0[at].waker.take());
            }
            passable.push(self.is_passable(&self.0[at], &passable));
        }
        wake
    }

    /// Merges that this one has passed are done.
    fn overwrite(&mut self, at: usize) -> Vec<Waker> {
        if crate::mutant!("who stood aside writes over what has passed") {
            return vec![];
        }
        let (earlier, rest) = self.0.split_at_mut(at);
        let passed = earlier.iter_mut().filter(|claim| claim.is_overwritten_by(&rest[0]));
        let done = passed.filter_map(|claim| {
            debug_assert_ne!(claim.stage, Stage::Granted, "it was passed while it held its block");
            claim.stage = Stage::Overwritten;
            claim.waker.take()
        });
        done.collect()
    }
}

/// The order of one chunk's requests.
#[derive(Default)]
pub(super) struct RangeLocks {
    claims: RefCell<Claims>,
    next_id: Cell<u64>,
    /// Some may not be granted.
    has_waiting: Cell<bool>,
}

impl RangeLocks {
    /// Takes a place in the order now; completes when it has its turn. The blocks are held until what it returns is dropped. A merge
    /// is of one block.
    pub fn acquire(self: &Rc<Self>, blocks: Range<u32>, mode: Mode) -> Acquire {
        debug_assert!(mode != Mode::Merge || blocks.len() <= 1, "a merge of {blocks:?}");
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let claims = &mut *self.claims.borrow_mut();
        let claim = Claim { id, blocks, mode, stage: Stage::Granted, pressed: false, waker: None };
        let at = claims.0.len();
        let meets = claims.0.iter().any(|c| c.conflicts(&claim));
        claims.0.push(claim);
        if meets && !claims.can_be_granted(at, &claims.passable()) {
            claims.0[at].stage = Stage::Waiting;
            self.has_waiting.set(true);
        }
        Acquire { held: Some(Held { locks: self.clone(), id, wrote: false }) }
    }

    /// Whoever holds blocks that this one waits for is asked to give them up, if it only waits itself.
    fn press(&self, id: u64) {
        let mut claims = self.claims.borrow_mut();
        let at = claims.place_of(id);
        let (earlier, rest) = claims.0.split_at_mut(at);
        let holders = earlier.iter_mut().filter(|c| c.stage == Stage::Granted && c.conflicts(&rest[0]));
        let wake: Vec<Waker> = holders
            .filter_map(|c| {
                c.pressed = true;
                c.waker.take()
            })
            .collect();
        drop(claims);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Changes the stage of a claim, and grants what can be granted then.
    fn enter(&self, id: u64, stage: Stage) {
        let mut claims = self.claims.borrow_mut();
        let claim = claims.of(id);
        if claim.stage == Stage::Overwritten {
            return;
        }
        claim.stage = stage;
        self.has_waiting.set(true);
        let wake = claims.grant();
        drop(claims);
        wake.into_iter().for_each(Waker::wake);
    }

    /// `wrote`: it has written what it held.
    fn release(&self, id: u64, wrote: bool) {
        let mut claims = self.claims.borrow_mut();
        let at = claims.place_of(id);
        let mut wake = vec![];
        if self.has_waiting.get() && wrote {
            wake = claims.overwrite(at);
        }
        claims.0.remove(at);
        if !self.has_waiting.get() {
            return;
        }
        wake.extend(claims.grant());
        self.has_waiting.set(claims.0.iter().any(|c| c.stage != Stage::Granted));
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
    wrote: bool,
}

impl Held {
    /// What was held has been written.
    pub fn wrote(mut self) {
        self.wrote = true;
    }

    /// Whether merges that came earlier stand aside.
    pub fn has_passed_merges(&self) -> bool {
        let claims = self.locks.claims.borrow();
        let at = claims.place_of(self.id);
        claims.0[..at].iter().any(|c| c.mode == Mode::Merge && c.overlaps(&claims.0[at]))
    }

    /// Whether somebody has waited for these blocks for long, since this was last asked. Else who polls is told of it.
    pub fn poll_pressed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut claims = self.locks.claims.borrow_mut();
        let claim = claims.of(self.id);
        if std::mem::take(&mut claim.pressed) {
            return Poll::Ready(());
        }
        if claim.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            claim.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Lets others pass, and keeps its place: see the head of this file.
    pub fn stand_aside(self) -> Aside {
        self.locks.enter(self.id, Stage::Aside);
        Aside(self)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.release(self.id, self.wrote);
    }
}

/// A place in the order.
pub(super) struct Aside(Held);

impl Aside {
    /// Waits for its turn once more.
    pub fn resume(self) -> Acquire {
        self.0.locks.enter(self.0.id, Stage::Waiting);
        Acquire { held: Some(self.0) }
    }
}

/// Waits for its turn. Dropped early, it gives its place up. `None`: it was a merge, and somebody who came later has overwritten
/// its block meanwhile, and has been answered.
pub(super) struct Acquire {
    held: Option<Held>,
}

impl Acquire {
    /// What comes of any other claim than a merge.
    pub async fn held(self) -> Held {
        self.await.expect("only a merge is overwritten")
    }

    pub fn is_granted(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.locks.claims.borrow_mut().of(held.id).stage == Stage::Granted)
    }

    /// Asks those that it waits for to give way.
    pub fn press(&self) {
        if let Some(held) = &self.held {
            held.locks.press(held.id);
        }
    }
}

impl Future for Acquire {
    type Output = Option<Held>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Held>> {
        let held = self.held.take().expect("polled after completion");
        let stage = {
            let mut claims = held.locks.claims.borrow_mut();
            let claim = claims.of(held.id);
            if claim.stage == Stage::Waiting {
                claim.waker = Some(cx.waker().clone());
            }
            claim.stage
        };
        match stage {
            Stage::Granted => Poll::Ready(Some(held)),
            Stage::Overwritten => Poll::Ready(None),
            Stage::Waiting | Stage::Aside => {
                self.held = Some(held);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn ready(a: Pin<&mut Acquire>) -> Option<Held> {
        match a.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(held) => Some(held.expect("nobody has passed it")),
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

    #[test]
    fn who_cannot_read_is_passed_and_what_it_would_have_written_is_overwritten() {
        let locks = Rc::new(RangeLocks::default());
        let claim = |blocks, mode| Box::pin(locks.acquire(blocks, mode));
        let first = ready(pin!(locks.acquire(3..4, Mode::Merge))).unwrap();
        let mut second = claim(3..4, Mode::Merge);
        let mut copying = claim(2..5, Mode::Exclusive);
        let mut over = claim(0..8, Mode::Overwrite);
        let mut behind = claim(0..1, Mode::Overwrite);
        assert!([&mut second, &mut copying, &mut over, &mut behind].into_iter().all(|c| ready(c.as_mut()).is_none()));
        let aside = first.stand_aside();
        let read = ready(claim(9..10, Mode::Shared).as_mut());
        assert!(ready(second.as_mut()).is_none() && ready(copying.as_mut()).is_none(), "they would change the block");
        let over = ready(over.as_mut()).expect("it needs nothing of what is there");
        assert!(ready(behind.as_mut()).is_none(), "whole blocks are written in their order");
        let mut resumed = Box::pin(aside.resume());
        assert!(ready(resumed.as_mut()).is_none());
        over.wrote();
        let mut cx = Context::from_waker(Waker::noop());
        for merge in [&mut resumed, &mut second] {
            assert!(matches!(merge.as_mut().poll(&mut cx), Poll::Ready(None)), "it came before");
        }
        assert!(ready(copying.as_mut()).is_some() && ready(behind.as_mut()).is_some());
        drop(read);
    }

    #[test]
    fn who_was_passed_by_what_came_to_nothing_has_its_turn() {
        let locks = Rc::new(RangeLocks::default());
        let merge = ready(pin!(locks.acquire(3..4, Mode::Merge))).unwrap();
        let aside = merge.stand_aside();
        let passing = [Mode::Overwrite, Mode::Shared].map(|mode| {
            let held = ready(pin!(locks.acquire(3..4, mode)));
            held.inspect(|held| assert!(held.has_passed_merges()))
        });
        let [Some(over), None] = passing else { panic!("the read waits for the write") };
        let mut resumed = Box::pin(aside.resume());
        assert!(ready(resumed.as_mut()).is_none());
        drop(over);
        assert!(ready(resumed.as_mut()).is_some());
    }

    #[test]
    fn those_who_are_waited_for_can_be_pressed() {
        let locks = Rc::new(RangeLocks::default());
        let [read, other] = [3..4, 5..6].map(|blocks| ready(pin!(locks.acquire(blocks, Mode::Shared))).unwrap());
        let mut cx = Context::from_waker(Waker::noop());
        let waits = locks.acquire(0..4, Mode::Overwrite);
        assert!(read.poll_pressed(&mut cx).is_pending());
        waits.press();
        assert!(read.poll_pressed(&mut cx).is_ready() && other.poll_pressed(&mut cx).is_pending());
        assert!(read.poll_pressed(&mut cx).is_pending(), "once for each time");
    }
}
