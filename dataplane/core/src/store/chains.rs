//! The entries of one replica: for each block a chain, at most one entry per version, newest first.
//!
//! The newest entry of each block, its *head*, is in a page of slots, found by two indexings; older ones are in a map by
//! block and version. A volume without snapshots has none of these, and pays nothing for them; with however many
//! versions, reading or writing a head does not touch the others. What is the head follows from the versions alone: what
//! changes an entry names its block and version, and need not know where it is.
//!
//! Invariants: no block has older entries without a head; a head's version is the largest of its block. The ledger hears
//! of every change; digest, counts and the largest seq are right after each.

use super::index::{Ledger, Place, Slot};
use levee_proto::wire::{BlockKind, Digest};
use levee_proto::{BLOCKS_PER_CHUNK, Seq, Version, View};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

const PAGE_SLOTS: usize = 256;
const PAGES: usize = BLOCKS_PER_CHUNK as usize / PAGE_SLOTS;

type Older = BTreeMap<(u32, Reverse<Version>), Slot>;

pub struct Chains {
    pages: Vec<Option<Box<[Slot; PAGE_SLOTS]>>>,
    /// What is not the newest of its block.
    older: Older,
    digest: Digest,
    entries: u32,
    data_entries: u32,
    /// `None`: to be found by looking, as the entry that had it is gone.
    max_seq: Cell<Option<Seq>>,
}

impl Default for Chains {
    fn default() -> Chains {
        Chains {
            pages: Vec::new(),
            older: Older::new(),
            digest: Digest::default(),
            entries: 0,
            data_entries: 0,
            max_seq: Cell::new(Some(Seq::ZERO)),
        }
    }
}

impl Chains {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Entries of all versions.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Those with data.
    pub fn data_entries(&self) -> u32 {
        self.data_entries
    }

    pub fn max_seq(&self) -> Seq {
        self.max_seq.get().unwrap_or_else(|| {
            let max = self.all().map(|(_, s)| s.seq()).max().unwrap_or_default();
            self.max_seq.set(Some(max));
            max
        })
    }

    /// Whether any block has more than one entry.
    pub fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// The blocks of a range that have more than one entry, in order.
    pub fn blocks_with_older(&self, blocks: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        let range = (blocks.start, Reverse(Version::MAX))..(blocks.end, Reverse(Version::MAX));
        let mut last = None;
        self.older.range(range).map(|((block, _), _)| *block).filter(move |block| last.replace(*block) != Some(*block))
    }

    /// The newest entry of a block.
    #[inline]
    pub fn head(&self, block: u32) -> Slot {
        let (page, at) = (block as usize / PAGE_SLOTS, block as usize % PAGE_SLOTS);
        self.pages.get(page).and_then(Option::as_ref).map_or(Slot::ABSENT, |p| p[at])
    }

    /// The entry of a block at a version.
    #[inline]
    pub fn get(&self, block: u32, version: Version) -> Slot {
        let head = self.head(block);
        if head.version == version { head } else { self.older_at(block, version) }
    }

    #[cold]
    fn older_at(&self, block: u32, version: Version) -> Slot {
        self.older.get(&(block, Reverse(version))).copied().unwrap_or(Slot::ABSENT)
    }

    /// The entry of a block that a view reads.
    #[inline]
    pub fn visible(&self, block: u32, view: &View) -> Slot {
        let head = self.head(block);
        if view.sees(head.version) { head } else { self.visible_below(block, head, view) }
    }

    /// Goes down the chain; over a range that the view hides in one step.
    #[cold]
    fn visible_below(&self, block: u32, head: Slot, view: &View) -> Slot {
        let mut from = view.newest_from(head.version);
        while let Some(version) = from {
            let chain = (block, Reverse(version))..=(block, Reverse(Version(0)));
            match self.older.range(chain).next() {
                Some((_, slot)) if view.sees(slot.version) => return *slot,
                Some((_, slot)) => from = view.newest_from(slot.version),
                None => break,
            }
        }
        Slot::ABSENT
    }

    /// The newest entries of the blocks from `from` on, in order.
    pub fn heads(&self, from: u32) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let first_page = from as usize / PAGE_SLOTS;
        let pages = self.pages.iter().enumerate().skip(first_page);
        let present = pages.filter_map(|(n, p)| p.as_ref().map(|p| (n, p)));
        present
            .flat_map(|(n, p)| p.iter().enumerate().map(move |(i, s)| ((n * PAGE_SLOTS + i) as u32, *s)))
            .filter(move |(block, s)| *block >= from && s.place != Place::ABSENT)
    }

    /// A block's entries, the newest first.
    pub fn chain(&self, block: u32) -> impl Iterator<Item = Slot> + '_ {
        let head = Some(self.head(block)).filter(|s| s.place != Place::ABSENT);
        head.into_iter().chain(self.older_of(block, Version::MAX))
    }

    fn older_of(&self, block: u32, from: Version) -> impl Iterator<Item = Slot> + '_ {
        let range = (block, Reverse(from))..=(block, Reverse(Version(0)));
        let older = self.has_older().then(|| self.older.range(range).map(|(_, s)| *s));
        older.into_iter().flatten()
    }

    /// All entries, by block, of each the newest first.
    pub fn all(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.all_from(0, Version::MAX)
    }

    /// The entries from version `version` of block `block` on, in that order.
    pub fn all_from(&self, block: u32, version: Version) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.heads(block).flat_map(move |(b, head)| {
            let from = if b == block { version } else { Version::MAX };
            let head = Some(head).filter(|h| h.version <= from);
            head.into_iter().chain(self.older_of(b, from)).map(move |s| (b, s))
        })
    }

    /// Replaces the entry of a block at a version; `new` is of that version, or absent.
    pub fn put(&mut self, block: u32, version: Version, new: Slot, ledger: &mut impl Ledger) {
        let head = self.head(block);
        if head.place == Place::ABSENT || head.version == version {
            self.put_head(block, new, ledger);
        } else {
            self.put_beside(block, head, version, new, ledger);
        }
    }

    /// Replaces a block's head, if it has one, by another entry of its version; an absent one, by what is below it.
    #[inline]
    pub fn put_head(&mut self, block: u32, new: Slot, ledger: &mut impl Ledger) {
        let next = if new.place == Place::ABSENT { self.take_newest_older(block) } else { new };
        let old = std::mem::replace(self.page_slot(block), next);
        self.account(block, old, new, ledger);
    }

    #[cold]
    fn take_newest_older(&mut self, block: u32) -> Slot {
        let newest = self.older_of(block, Version::MAX).next();
        match newest {
            Some(s) => self.older.remove(&(block, Reverse(s.version))).unwrap_or(Slot::ABSENT),
            None => Slot::ABSENT,
        }
    }

    /// Changes an entry of another version than the head's.
    #[cold]
    fn put_beside(&mut self, block: u32, head: Slot, version: Version, new: Slot, ledger: &mut impl Ledger) {
        let old = if new.place == Place::ABSENT {
            self.older.remove(&(block, Reverse(version)))
        } else if version > head.version {
            self.older.insert((block, Reverse(head.version)), head);
            *self.page_slot(block) = new;
            None
        } else {
            self.older.insert((block, Reverse(version)), new)
        };
        self.account(block, old.unwrap_or(Slot::ABSENT), new, ledger);
    }

    fn page_slot(&mut self, block: u32) -> &mut Slot {
        let (page, at) = (block as usize / PAGE_SLOTS, block as usize % PAGE_SLOTS);
        if self.pages.len() <= page {
            self.pages.resize_with(if page == 0 { 1 } else { PAGES }, || None);
        }
        &mut self.pages[page].get_or_insert_with(|| Box::new([Slot::ABSENT; PAGE_SLOTS]))[at]
    }

    /// One entry became another: keeps digest, counts and ledger right.
    fn account(&mut self, block: u32, old: Slot, new: Slot, ledger: &mut impl Ledger) {
        ledger.change(old.place, new.place);
        self.digest.remove(&old.entry(block));
        self.digest.add(&new.entry(block));
        let count = |n: &mut u32, was: bool, is: bool| *n = *n + u32::from(is) - u32::from(was);
        count(&mut self.entries, old.place != Place::ABSENT, new.place != Place::ABSENT);
        count(&mut self.data_entries, is_data(old), is_data(new));
        match self.max_seq.get() {
            Some(max) if new.seq() >= max => self.max_seq.set(Some(new.seq())),
            Some(max) if old.seq() == max => self.max_seq.set(None),
            _ => {}
        }
    }

    /// Forgets all entries.
    pub fn clear(&mut self, ledger: &mut impl Ledger) {
        self.all().for_each(|(_, s)| ledger.change(s.place, Place::ABSENT));
        *self = Chains::default();
    }
}

pub fn is_data(s: Slot) -> bool {
    s.place.kind() == BlockKind::Data
}

#[cfg(test)]
#[path = "chains_tests.rs"]
mod tests;
