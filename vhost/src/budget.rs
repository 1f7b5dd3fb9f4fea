//! How much memory the requests of a queue take, and which of them wait for some.
//!
//! Writes wait when disks are full, reads when copies are away, for as long as it takes. Neither may keep the other,
//! or what needs no memory (a discard, which makes room), from the disk: each has a budget of its own, and
//! whoever waits for it waits in a line of his own, in the order of submission.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::limits::MAX_BYTES_IN_FLIGHT;
use crate::request::{Cost, Request};

/// A request taken from the ring, by its head.
pub(crate) type Pending = (u16, Request);

/// Memory of one kind of request.
#[derive(Default)]
struct Account {
    used: Cell<u64>,
    /// Bounded by the ring: each has a head of its own.
    waiting: RefCell<VecDeque<Pending>>,
}

/// The memory of one queue.
#[derive(Default)]
pub(crate) struct Budget {
    reads: Account,
    writes: Account,
}

impl Budget {
    /// Takes what the request needs. `None`: it waits, and comes out of [`Budget::next`] later.
    pub fn admit(&self, pending: Pending) -> Option<Pending> {
        let Some((account, bytes)) = self.account(pending.1.cost()) else { return Some(pending) };
        let mut waiting = account.waiting.borrow_mut();
        if !waiting.is_empty() || !account.take(bytes) {
            waiting.push_back(pending);
            return None;
        }
        Some(pending)
    }

    /// Gives back what a request took.
    pub fn release(&self, cost: Cost) {
        if let Some((account, bytes)) = self.account(cost) {
            account.used.set(account.used.get() - bytes);
        }
    }

    /// Lets go of the requests that wait; how many they were.
    pub fn forget_waiting(&self) -> usize {
        [&self.writes, &self.reads].map(|account| std::mem::take(&mut *account.waiting.borrow_mut()).len()).iter().sum()
    }

    /// A request that has waited and need not any more.
    pub fn next(&self) -> Option<Pending> {
        [&self.writes, &self.reads].into_iter().find_map(|account| {
            let mut waiting = account.waiting.borrow_mut();
            let (_, bytes) = self.account(waiting.front()?.1.cost())?;
            if account.take(bytes) { waiting.pop_front() } else { None }
        })
    }

    fn account(&self, cost: Cost) -> Option<(&Account, u64)> {
        match cost {
            Cost::Nothing => None,
            Cost::Read(bytes) => Some((&self.reads, bytes)),
            Cost::Write(bytes) => Some((&self.writes, bytes)),
        }
    }
}

impl Account {
    /// The last one to be let in may go beyond the bound, so that any request fits.
    fn take(&self, bytes: u64) -> bool {
        let fits = self.used.get() < MAX_BYTES_IN_FLIGHT;
        if fits {
            self.used.set(self.used.get() + bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Operation;
    use vm_memory::GuestAddress;

    const QUARTER: usize = MAX_BYTES_IN_FLIGHT as usize / 4;

    fn pending(head: u16, operation: Operation) -> Pending {
        (head, Request { operation, data: vec![], status_at: GuestAddress(0) })
    }

    fn write(head: u16) -> Pending {
        pending(head, Operation::Write { offset: 0, len: QUARTER })
    }

    fn read(head: u16) -> Pending {
        pending(head, Operation::Read { offset: 0, len: QUARTER })
    }

    fn heads(budget: &Budget) -> Vec<u16> {
        std::iter::from_fn(|| budget.next()).map(|(head, _)| head).collect()
    }

    #[test]
    fn writes_wait_in_their_order_and_nobody_else_does() {
        let budget = Budget::default();
        assert!((0..4).all(|head| budget.admit(write(head)).is_some()));
        assert!((4..7).all(|head| budget.admit(write(head)).is_none()));
        assert!((7..11).all(|head| budget.admit(read(head)).is_some()));
        assert!(budget.admit(pending(11, Operation::Discard { offset: 0, len: 512 })).is_some());
        assert!(budget.admit(pending(12, Operation::Flush)).is_some());
        assert!(heads(&budget).is_empty());
        let cost = write(0).1.cost();
        budget.release(cost);
        assert!(budget.admit(write(13)).is_none(), "others wait already");
        assert_eq!(heads(&budget), [4]);
        (0..3).for_each(|_| budget.release(cost));
        assert_eq!(heads(&budget), [5, 6, 13]);
        assert!((14..16).all(|head| budget.admit(write(head)).is_none()));
        assert_eq!(budget.forget_waiting(), 2);
        (0..4).for_each(|_| budget.release(cost));
        assert!(heads(&budget).is_empty());
    }
}
