//! Requests in flight on a link, by the id in their frames.

use crate::Answer;

/// What takes the answer to one request.
pub(crate) type Done = Box<dyn FnOnce(Answer)>;

/// A request that the peer owes an answer to.
pub(crate) struct Pending {
    pub kind: u16,
    pub cost: usize,
    pub done: Done,
}

/// A table with a slot per request. An id holds the slot in its lower half and a running number in its
/// upper: ids do not repeat, and their order by number is the order of calls.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Option<(u64, Pending)>>,
    free: Vec<u32>,
    last: u32,
}

impl Table {
    /// Adds a request and returns its id.
    pub fn insert(&mut self, pending: Pending) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.last = self.last.wrapping_add(1);
        let id = (u64::from(self.last) << 32) | u64::from(slot);
        self.slots[slot as usize] = Some((id, pending));
        id
    }

    /// Takes out the request with this id, if it is in flight and of this kind.
    pub fn remove(&mut self, id: u64, kind: u16) -> Option<Pending> {
        let slot = id as u32;
        let entry = self.slots.get_mut(slot as usize)?;
        if !entry.as_ref().is_some_and(|(i, p)| *i == id && p.kind == kind) {
            return None;
        }
        self.free.push(slot);
        entry.take().map(|(_, p)| p)
    }

    /// Takes out everything, in the order of calls.
    pub fn drain(&mut self) -> Vec<Pending> {
        let last = self.last;
        let mut all: Vec<_> = std::mem::take(self).slots.into_iter().flatten().collect();
        // Numbers wrap around: what counts is how far back they are.
        all.sort_by_key(|(id, _)| std::cmp::Reverse(last.wrapping_sub((id >> 32) as u32)));
        self.last = last;
        all.into_iter().map(|(_, p)| p).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(cost: usize) -> Pending {
        Pending { kind: 1, cost, done: Box::new(|_| {}) }
    }

    #[test]
    fn ids_find_their_request_once_and_old_ids_find_nothing() {
        let mut t = Table::default();
        let a = t.insert(pending(1));
        let b = t.insert(pending(2));
        assert!(t.remove(a, 2).is_none(), "another kind");
        assert_eq!(t.remove(a, 1).map(|p| p.cost), Some(1));
        let c = t.insert(pending(3));
        assert_eq!(c as u32, a as u32, "the slot is used again");
        assert!(t.remove(a, 1).is_none());
        assert!(t.remove(u64::MAX, 1).is_none());
        assert_eq!(t.drain().iter().map(|p| p.cost).collect::<Vec<_>>(), [2, 3]);
        assert!(t.remove(b, 1).is_none());
    }

    #[test]
    fn requests_are_drained_in_call_order_across_the_wrap() {
        let mut t = Table { last: u32::MAX - 1, ..Table::default() };
        for cost in 0..4 {
            t.insert(pending(cost));
        }
        assert_eq!(t.drain().iter().map(|p| p.cost).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
