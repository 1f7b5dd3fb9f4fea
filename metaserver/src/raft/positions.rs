//! Which entries the log holds, by their ids alone: what is received is compared with it before it is stored.
//!
//! Entries of one leader are consecutive, so it is enough to remember where each leader's begin.

use super::LogId;
use openraft::CommittedLeaderId;
use std::collections::BTreeMap;

/// The ids of the entries of one member's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// The last entry that is not kept any more.
    purged: Option<LogId>,
    /// The first index of each leader's entries.
    begins: BTreeMap<u64, CommittedLeaderId<u64>>,
    last: Option<u64>,
}

impl Positions {
    pub fn after(purged: Option<LogId>) -> Positions {
        Positions { purged, ..Positions::default() }
    }

    /// The id of the entry at an index, if that is known.
    pub fn get(&self, index: u64) -> Option<LogId> {
        if let Some(purged) = self.purged.filter(|purged| index <= purged.index) {
            return (purged.index == index).then_some(purged);
        }
        let (_, leader) = self.begins.range(..=index).next_back()?;
        (index <= self.last?).then(|| LogId::new(*leader, index))
    }

    /// The newest entry.
    pub fn last(&self) -> Option<LogId> {
        self.last.and_then(|index| self.get(index)).or(self.purged)
    }

    /// An entry was added; entries come in order.
    pub fn push(&mut self, id: LogId) {
        if self.begins.values().next_back() != Some(&id.leader_id) {
            self.begins.insert(id.index, id.leader_id);
        }
        self.last = Some(id.index);
    }

    /// All from this index on are gone.
    pub fn truncate(&mut self, from: u64) {
        self.begins.split_off(&from);
        self.last = if self.begins.is_empty() { None } else { self.last.min(from.checked_sub(1)) };
    }

    /// All up to this one are gone.
    pub fn purge(&mut self, upto: LogId) {
        let next = self.last.filter(|last| *last > upto.index).and_then(|_| self.get(upto.index + 1));
        self.begins.retain(|index, _| *index > upto.index);
        match next {
            Some(next) => _ = self.begins.insert(next.index, next.leader_id),
            None => self.last = None,
        }
        self.purged = self.purged.max(Some(upto));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    /// What the log of these ids is compared with: a plain list.
    fn check(positions: &Positions, purged: Option<LogId>, kept: &[LogId]) {
        for index in 0..30 {
            let expected = kept.iter().chain(&purged).find(|id| id.index == index).copied();
            assert_eq!(positions.get(index), expected, "{index} of {positions:?}");
        }
        assert_eq!(positions.last(), kept.last().copied().or(purged));
    }

    #[test]
    fn ids_are_known_after_any_change() {
        let all: Vec<LogId> = (0..20).map(|index| id([0, 1, 1, 4, 7][index as usize / 4], index)).collect();
        let mut whole = Positions::default();
        check(&whole, None, &[]);
        all.iter().for_each(|id| whole.push(*id));
        check(&whole, None, &all);
        for cut in 0..=20 {
            let mut shorter = whole.clone();
            shorter.truncate(cut as u64);
            check(&shorter, None, &all[..cut]);
            for upto in 0..20 {
                let mut purged = shorter.clone();
                purged.purge(all[upto]);
                check(&purged, Some(all[upto]), all[..cut].get(upto + 1..).unwrap_or_default());
                purged.truncate(upto as u64 + 2);
                check(&purged, Some(all[upto]), all[..cut.min(upto + 2)].get(upto + 1..).unwrap_or_default());
                let next = id(9, purged.last().map_or(0, |id| id.index + 1));
                purged.push(next);
                assert_eq!((purged.get(next.index), purged.last()), (Some(next), Some(next)));
            }
        }
        let mut empty = Positions::after(Some(id(3, 9)));
        check(&empty, Some(id(3, 9)), &[]);
        empty.push(id(3, 10));
        check(&empty, Some(id(3, 9)), &[id(3, 10)]);
    }
}
