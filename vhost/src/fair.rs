//! Shares an executor out among the volumes that it serves.
//!
//! Requests are carried out in pieces of at most [`PIECE_LEN`]. A piece begins when its volume may have more in flight:
//! as long as no other volume is used, up to the volume's budget; otherwise up to its part of a window that is just large
//! enough to keep disks and links busy, so that a neighbour's request meets a short queue wherever it goes. Volumes with
//! pieces that wait get turns of [`QUANTUM`] bytes, round robin. What all volumes of the executor have in flight is bounded
//! too; a volume that has nothing in flight may always begin one piece.
//!
//! Writes wait when disks are full, reads when copies are away, for as long as it takes. Neither may keep the other, or a
//! discard, which makes room, from the disk: each has a lane of its own, in the order of submission.
//!
//! Taking requests from a ring costs the executor time without any piece: see [`Share::pause`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use glommio::timer::sleep;

use crate::limits::{
    CONTESTED_WINDOW, DESCRIPTOR_TIME, MAX_OWED, PIECE_LEN, QUANTUM, RECENT, REQUEST_DESCRIPTORS, TURN, TURN_BYTES,
};

/// Kinds of requests that must not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Read,
    Write,
    /// Changes that carry no data. They take a part of the window, and no memory.
    Other,
}

const LANES: [Lane; 3] = [Lane::Read, Lane::Write, Lane::Other];

/// What a piece takes while the disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub lane: Lane,
    /// At most [`PIECE_LEN`].
    pub bytes: u64,
}

impl Cost {
    fn memory(self) -> u64 {
        if self.lane == Lane::Other { 0 } else { self.bytes }
    }
}

/// A request whose pieces are begun one by one.
pub(crate) trait Work {
    /// What the next piece takes; `None` if there is none.
    fn cost(&self) -> Option<Cost>;
    /// Begins the next piece.
    fn begin(self: Rc<Self>);
    /// Nobody will see what is begun now.
    fn is_left(&self) -> bool;
    /// No further piece will be begun.
    fn forget(&self);
}

/// Bytes in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Of one volume, reads and writes apart.
    pub volume: u64,
    /// Of all volumes of the executor.
    pub all: u64,
}

#[derive(Default)]
struct Core {
    shares: RefCell<Vec<Weak<Share>>>,
    in_flight: Cell<u64>,
    waiting: Cell<usize>,
    /// How many volumes are used, and when they were counted.
    users: Cell<Option<(Instant, usize)>>,
    pumping: Cell<bool>,
    /// Bytes begun since the executor's other tasks had a turn.
    begun: Cell<u64>,
    /// A task is there that goes on after their turn.
    goes_on: Cell<bool>,
}

thread_local! {
    static CORE: Rc<Core> = Rc::default();
}

/// How long a count of volumes that are used is good for.
const COUNTED: Duration = Duration::from_millis(1);

impl Core {
    fn users(&self, now: Instant) -> usize {
        if let Some((at, users)) = self.users.get()
            && now.saturating_duration_since(at) < COUNTED
        {
            return users;
        }
        let mut shares = self.shares.borrow_mut();
        shares.retain(|share| share.strong_count() > 0);
        let users = shares.iter().filter_map(Weak::upgrade).filter(|share| share.is_used(now)).count();
        self.users.set(Some((now, users)));
        users
    }

    /// Begins what may begin. A piece may be done at once and come here again: what it set free is used by the loop that
    /// began it.
    fn pump(self: &Rc<Self>) {
        if self.waiting.get() == 0 || self.pumping.replace(true) {
            return;
        }
        let shares: Vec<_> = self.shares.borrow().iter().filter_map(Weak::upgrade).collect();
        while !self.is_turn_over() && shares.iter().filter(|share| share.take_turn()).count() > 0 {}
        self.pumping.set(false);
        // Small requests share one such task.
        if self.begun.get() >= TURN_BYTES / 4 && !self.goes_on.replace(true) {
            let core = self.clone();
            glommio::spawn_local(async move {
                sleep(TURN).await;
                core.begun.set(0);
                core.goes_on.set(false);
                core.pump();
            })
            .detach();
        }
    }

    fn is_turn_over(&self) -> bool {
        self.begun.get() >= TURN_BYTES
    }
}

/// One volume's part of an executor.
pub(crate) struct Share {
    core: Rc<Core>,
    budget: Budget,
    in_flight: [Cell<u64>; LANES.len()],
    waiting: [RefCell<VecDeque<Rc<dyn Work>>>; LANES.len()],
    used_at: Cell<Option<Instant>>,
    /// Until when the volume has used the executor's time in advance.
    owed_until: Cell<Option<Instant>>,
}

impl Share {
    /// A part of the executor that this thread runs.
    pub fn new(budget: Budget) -> Rc<Share> {
        let core = CORE.with(Rc::clone);
        let share = Rc::new(Share {
            core: core.clone(),
            budget,
            in_flight: Default::default(),
            waiting: Default::default(),
            used_at: Cell::default(),
            owed_until: Cell::default(),
        });
        core.shares.borrow_mut().push(Rc::downgrade(&share));
        share
    }

    /// Begins the pieces of `work`, now or when there is room for them.
    pub fn submit(&self, work: Rc<dyn Work>) {
        self.used_at.set(Some(Instant::now()));
        let Some(cost) = work.cost() else { return work.begin() };
        self.waiting[cost.lane as usize].borrow_mut().push_back(work);
        self.core.waiting.set(self.core.waiting.get() + 1);
        self.core.pump();
    }

    /// Gives back what a piece took.
    pub fn release(&self, cost: Cost) {
        let lane = &self.in_flight[cost.lane as usize];
        lane.set(lane.get() - cost.bytes);
        self.core.in_flight.set(self.core.in_flight.get() - cost.memory());
        self.used_at.set(Some(Instant::now()));
        self.core.pump();
    }

    /// Lets go of the requests that wait in vain.
    pub fn forget_left(&self) {
        for lane in &self.waiting {
            let mut forgotten = Vec::new();
            lane.borrow_mut().retain(|work| {
                let left = work.is_left();
                if left {
                    forgotten.push(work.clone());
                }
                !left
            });
            self.core.waiting.set(self.core.waiting.get() - forgotten.len());
            forgotten.iter().for_each(|work| work.forget());
        }
    }

    /// Charges what a batch of requests cost to take.
    pub fn charge(&self, requests: usize, descriptors: usize) {
        let now = Instant::now();
        self.used_at.set(Some(now));
        let units = descriptors + requests * REQUEST_DESCRIPTORS;
        let from = self.owed_until.get().map_or(now, |until| until.max(now));
        self.owed_until.set(Some(from + DESCRIPTOR_TIME * units as u32));
    }

    /// How long a queue is to stay away from its ring, because the volume has used more than its part of the executor's
    /// time while others are used.
    pub fn pause(&self) -> Option<Duration> {
        let until = self.owed_until.get()?;
        let now = Instant::now();
        let owed = until.saturating_duration_since(now);
        if owed < MAX_OWED {
            return None;
        }
        if self.core.users(now) < 2 {
            self.owed_until.set(None);
            return None;
        }
        Some(owed)
    }

    fn is_used(&self, now: Instant) -> bool {
        self.used_at.get().is_some_and(|at| now.saturating_duration_since(at) < RECENT)
    }

    /// Begins pieces of each lane, up to a quantum; whether any could begin.
    fn take_turn(&self) -> bool {
        LANES.iter().filter(|lane| self.take_turn_in(**lane)).count() > 0
    }

    fn take_turn_in(&self, lane: Lane) -> bool {
        let mut begun = 0;
        while begun < QUANTUM && !self.core.is_turn_over() {
            let front = self.waiting[lane as usize].borrow().front().cloned();
            let Some(work) = front else { break };
            let cost = if work.is_left() { None } else { work.cost() };
            match cost {
                Some(cost) if !self.has_room_for(cost) => break,
                Some(cost) => {
                    self.take(cost);
                    begun += cost.bytes.max(1);
                    work.clone().begin();
                    if work.cost().is_some() {
                        continue;
                    }
                }
                None => work.forget(),
            }
            self.waiting[lane as usize].borrow_mut().pop_front();
            self.core.waiting.set(self.core.waiting.get() - 1);
        }
        begun > 0
    }

    fn take(&self, cost: Cost) {
        let lane = &self.in_flight[cost.lane as usize];
        lane.set(lane.get() + cost.bytes);
        self.core.in_flight.set(self.core.in_flight.get() + cost.memory());
        self.core.begun.set(self.core.begun.get() + cost.bytes);
    }

    fn has_room_for(&self, cost: Cost) -> bool {
        let in_flight = self.in_flight[cost.lane as usize].get();
        if in_flight == 0 {
            return true;
        }
        let users = self.core.users(Instant::now()).max(1) as u64;
        let most = if users == 1 { self.budget.volume } else { self.budget.volume.min(CONTESTED_WINDOW / users) };
        let fits = in_flight + cost.bytes <= most.max(PIECE_LEN);
        fits && self.core.in_flight.get() + cost.memory() <= self.budget.all
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
