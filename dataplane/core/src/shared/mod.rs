//! What a daemon remembers of snapshots: blocks that clones read of their ancestors, for all volumes and cores of one process.
//!
//! A hundred clones of one image that start at once read the same blocks. What a snapshot shows never changes, so a block that
//! one of them has read is right for all of them, for ever: there is nothing to invalidate, and a block is read once
//! per host as long as there is room for it. While it is being read, others that want it wait for the same answer.
//!
//! Invariants:
//! - A block is told by volume, version, chunk index and number. A volume's version has one view: a head's view changes only together
//!   with its version, which only grows (a rollback makes a new one), and a snapshot keeps the view of the head that it froze. So what
//!   the view hides need not be part of the key.
//! - Only what its reader has found intact comes in here.
//! - At most `capacity` bytes are held, what it takes to find them included.
//! - A block is being read by one holder of a [`Claim`], until somebody has waited for that one for too long and takes its place: one of
//!   all who wait. A claim ends when it is fulfilled or dropped, and either wakes everybody who waits for it.
//!
//! This is the one object of the core that belongs to no single executor. Locks are held to look something up, never while waiting or
//! copying, and one lock serves all blocks of a request. Waiters are woken from other threads by [`std::task::Waker::wake`] alone;
//! every other use of a waker, dropping it unused as well, stays on its own thread.

mod flight;
mod kept;
#[cfg(test)]
mod tests;

use crate::bitmap::BlockSet;
pub(crate) use flight::Wait;
use flight::{Flight, Flights};
use kept::Kept;
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::{BlockEntry, BlockKind, MAX_BLOCKS};
use levee_proto::{BLOCKS_PER_CHUNK, Version, VolumeId};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts with a lock each.
const SHELVES: usize = 8;
/// Neighbouring blocks on one shelf: all of a stripe unit.
const GROUP: u32 = MAX_BLOCKS;
/// So many known blocks between two unknown ones are read once more, rather than with two requests.
const GAP: u32 = 8;
/// What is known of a chunk as a whole stands behind its last block.
const PRESENCE: u32 = BLOCKS_PER_CHUNK;

/// One chunk of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source {
    pub volume: VolumeId,
    pub version: Version,
    pub index: u32,
}

/// One block of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    source: Source,
    block: u32,
}

/// What a snapshot shows of a block.
#[derive(Clone)]
pub(crate) enum Content {
    /// Nothing: what lies beneath is seen.
    Absent,
    Zero,
    Data(Arc<[u8]>),
    /// Of the chunk as a whole: the blocks that are not absent.
    Presence(Arc<BlockSet>),
}

impl Content {
    /// What an answer says of each of its blocks. The answer has been found intact.
    pub(crate) fn of(entries: &[BlockEntry], data: &[u8]) -> Vec<Content> {
        let mut data = data.chunks_exact(BLOCK_SIZE);
        let content = |e: &BlockEntry| match e.kind {
            BlockKind::Absent => Content::Absent,
            BlockKind::Zero => Content::Zero,
            BlockKind::Data => Content::Data(data.next().expect("an intact answer has all its data").into()),
        };
        entries.iter().map(content).collect()
    }

    fn bytes(&self) -> u64 {
        match self {
            Content::Absent | Content::Zero => 0,
            Content::Data(data) => data.len() as u64,
            Content::Presence(_) => u64::from(BLOCKS_PER_CHUNK / 8),
        }
    }
}

/// What has been asked for since the start, in blocks, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedReport {
    /// Found here.
    pub hits: u64,
    /// To be read by who asked.
    pub misses: u64,
    /// Being read for somebody else already.
    pub waits: u64,
    pub bytes: u64,
    pub capacity: u64,
}

/// What is remembered of snapshots. A cheap handle.
#[derive(Clone)]
pub struct SharedBlocks(Arc<[Mutex<Shelf>]>);

struct Shelf {
    kept: Kept,
    flights: Flights,
    report: SharedReport,
}

/// What became of a look-up: each block that was asked for is in one of these.
#[derive(Default)]
pub(crate) struct LookUp {
    pub known: Vec<(u32, Content)>,
    /// To be read by who asked. May cover blocks that are known.
    pub claims: Vec<Claim>,
    /// Being read by others. To be waited for once the claims are done with: else two could wait for each other.
    pub waits: Vec<Wait>,
}

impl SharedBlocks {
    /// Room for so many bytes; `None` for none.
    pub fn new(capacity: u64) -> Option<SharedBlocks> {
        let shelf = || {
            let capacity = capacity / SHELVES as u64;
            let report = SharedReport { capacity, ..SharedReport::default() };
            Mutex::new(Shelf { kept: Kept::new(capacity), flights: Flights::default(), report })
        };
        (capacity > 0).then(|| SharedBlocks((0..SHELVES).map(|_| shelf()).collect()))
    }

    /// Looks blocks of one stripe unit up. Those that nobody knows and nobody reads are claimed for the caller.
    pub(crate) fn look_up(&self, source: Source, runs: &[Range<u32>]) -> LookUp {
        let mut found = LookUp::default();
        let Some(first) = runs.first() else { return found };
        let mut claimed = vec![];
        let mut shelf = self.shelf(source, first.start);
        for run in runs {
            shelf.look_up(source, run, &mut found, &mut claimed);
        }
        shelf.report.hits += found.known.len() as u64;
        shelf.report.waits += found.waits.iter().map(|w| w.blocks().len() as u64).sum::<u64>();
        drop(shelf);
        let claim = |flight| Claim { shared: self.clone(), source, flight: Some(flight) };
        found.claims = claimed.into_iter().map(claim).collect();
        found
    }

    /// Asks which blocks of a chunk a snapshot shows.
    pub(crate) fn look_up_presence(&self, source: Source) -> LookUp {
        self.look_up(source, std::slice::from_ref(&(PRESENCE..PRESENCE + 1)))
    }

    /// Takes the place of a reader that was waited for for too long. `None`: it has ended, or another has taken its place;
    /// look the blocks up again.
    pub(crate) fn supersede(&self, source: Source, wait: &Wait) -> Option<Claim> {
        let blocks = wait.flight().blocks.clone();
        let mut shelf = self.shelf(source, blocks.start);
        let is_first = shelf.flights.end(source, wait.flight());
        let flight = is_first.then(|| shelf.flights.begin(source, blocks))?;
        drop(shelf);
        Some(Claim { shared: self.clone(), source, flight: Some(flight) })
    }

    /// Remembers consecutive blocks of one stripe unit.
    #[cfg(test)]
    fn put(&self, source: Source, first: u32, contents: &[Content]) {
        self.shelf(source, first).put(source, first, contents);
    }

    /// What has happened so far.
    pub fn report(&self) -> SharedReport {
        self.0.iter().fold(SharedReport::default(), |sum, shelf| {
            let shelf = lock(shelf);
            SharedReport {
                hits: sum.hits + shelf.report.hits,
                misses: sum.misses + shelf.report.misses,
                waits: sum.waits + shelf.report.waits,
                bytes: sum.bytes + shelf.kept.bytes(),
                capacity: sum.capacity + shelf.report.capacity,
            }
        })
    }

    fn shelf(&self, source: Source, block: u32) -> MutexGuard<'_, Shelf> {
        let mut hasher = DefaultHasher::new();
        (source, block / GROUP).hash(&mut hasher);
        lock(&self.0[hasher.finish() as usize % SHELVES])
    }
}

impl Shelf {
    fn look_up(&mut self, source: Source, run: &Range<u32>, found: &mut LookUp, claimed: &mut Vec<Arc<Flight>>) {
        debug_assert!(run.is_empty() || run.start / GROUP == (run.end - 1) / GROUP, "blocks of one shelf");
        let others = self.flights.overlapping(source, run);
        let mut unknown: Vec<Range<u32>> = vec![];
        let mut waits: Vec<Wait> = vec![];
        for block in run.clone() {
            if let Some(content) = self.kept.get(&Key { source, block }) {
                found.known.push((block, content));
            } else if let Some(other) = others.iter().find(|f| f.blocks.contains(&block)) {
                match waits.last_mut() {
                    Some(wait) if wait.is_for(other) => wait.extend(block),
                    _ => waits.push(Wait::new(other.clone(), block)),
                }
            } else {
                self.report.misses += 1;
                let is_free = |from| !others.iter().any(|f| f.blocks.start < block && f.blocks.end > from);
                match unknown.last_mut() {
                    Some(last) if block - last.end <= GAP && is_free(last.end) => last.end = block + 1,
                    _ => unknown.push(block..block + 1),
                }
            }
        }
        found.waits.append(&mut waits);
        claimed.extend(unknown.into_iter().map(|blocks| self.flights.begin(source, blocks)));
    }

    fn put(&mut self, source: Source, first: u32, contents: &[Content]) {
        for (block, content) in (first..).zip(contents) {
            self.kept.put(Key { source, block }, content.clone());
        }
    }
}

/// The right, and the duty, to read blocks that others may be waiting for.
pub(crate) struct Claim {
    shared: SharedBlocks,
    source: Source,
    /// `None`: ended.
    flight: Option<Arc<Flight>>,
}

impl Claim {
    /// What is to be read.
    pub(crate) fn blocks(&self) -> Range<u32> {
        self.flight.as_ref().map_or(0..0, |f| f.blocks.clone())
    }

    /// This is what they are: remembered, and given to those who wait.
    pub(crate) fn fulfil(mut self, contents: Vec<Content>) {
        debug_assert_eq!(contents.len(), self.blocks().len());
        self.end(Some(contents));
    }

    fn end(&mut self, contents: Option<Vec<Content>>) {
        let Some(flight) = self.flight.take() else { return };
        let mut shelf = self.shared.shelf(self.source, flight.blocks.start);
        shelf.flights.end(self.source, &flight);
        shelf.put(self.source, flight.blocks.start, contents.as_deref().unwrap_or_default());
        drop(shelf);
        flight.end(contents);
    }
}

impl Drop for Claim {
    /// Unfulfilled: one of those who wait has to read the blocks itself.
    fn drop(&mut self) {
        self.end(None);
    }
}

/// A panic ends the process: nobody sees what it left behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
