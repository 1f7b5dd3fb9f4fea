//! The segments of a shard: what each is used for, how much of it is live, which may be reused.
//!
//! A log segment is reused only if (1) no entry refers to it, (2) replay starts after it, and
//! (3) nobody is reading it. A reader that found its location in the index pins the segment first,
//! so what it reads cannot be overwritten under it.

use super::index::{Ledger, Place};
use super::limits::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Must be written with zeros first: never used, or unsure.
    Unused,
    /// Being written with zeros.
    Zeroing,
    /// May be opened at once.
    Ready,
    /// Part of the log; generation.
    Log(u64),
    Checkpoint,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    state: State,
    /// Entries that refer to it.
    live: u32,
    /// Compaction could not read all of it: leave it alone.
    unmovable: bool,
}

/// Readers per segment, shared with their guards.
type Readers = Rc<RefCell<Vec<u32>>>;

pub struct SegmentTable {
    segments: Vec<Segment>,
    readers: Readers,
    /// A segment without live blocks lost its last reader: look again.
    released: Rc<Cell<bool>>,
    ready: VecDeque<u32>,
    unused: VecDeque<u32>,
    /// What lies below the disk has no room for segments that are still to be written for the first time: they do not count as free.
    starved: bool,
    blocks_per_segment: u32,
    live: u64,
    /// Generations below are not needed for replay.
    replay_from: u64,
    /// The checkpoint before, kept with the log since it while there is plenty of space.
    retained: Option<Retained>,
    open_generation: u64,
}

/// What an older root needs.
struct Retained {
    segments: Vec<u32>,
    replay_from: u64,
}

impl Ledger for SegmentTable {
    fn change(&mut self, old: Place, new: Place) {
        if let Some(l) = old.location() {
            let s = l / self.blocks_per_segment;
            if !crate::mutant!("overwritten blocks stay live") {
                self.segments[s as usize].live -= 1;
                self.live -= 1;
            }
            if self.segments[s as usize].live == 0 {
                self.reclaim(s);
            }
        }
        if let Some(l) = new.location() {
            self.segments[(l / self.blocks_per_segment) as usize].live += 1;
            self.live += 1;
        }
    }
}

impl SegmentTable {
    /// All segments unused, nothing live.
    pub fn new(count: u32, blocks_per_segment: u32) -> SegmentTable {
        SegmentTable {
            segments: vec![Segment { state: State::Unused, live: 0, unmovable: false }; count as usize],
            readers: Rc::new(RefCell::new(vec![0; count as usize])),
            released: Rc::default(),
            ready: VecDeque::new(),
            unused: VecDeque::new(),
            starved: false,
            blocks_per_segment,
            live: 0,
            replay_from: 0,
            retained: None,
            open_generation: 0,
        }
    }

    pub fn count(&self) -> u32 {
        self.segments.len() as u32
    }

    /// Blocks of a segment beside its header.
    pub fn blocks(&self) -> u32 {
        self.blocks_per_segment - 1
    }

    pub fn state(&self, segment: u32) -> State {
        self.segments[segment as usize].state
    }

    pub fn live(&self, segment: u32) -> u32 {
        self.segments[segment as usize].live
    }

    /// Blocks that entries refer to.
    pub fn live_blocks(&self) -> u64 {
        self.live
    }

    /// Sets what recovery found a segment to be.
    pub fn set_state(&mut self, segment: u32, state: State) {
        self.segments[segment as usize].state = state;
    }

    /// Builds the free lists, after recovery set every state.
    pub fn collect_free(&mut self, replay_from: u64, open_generation: u64) {
        self.replay_from = replay_from;
        self.open_generation = open_generation;
        for s in 0..self.count() {
            match self.state(s) {
                State::Unused => self.unused.push_back(s),
                State::Ready => self.ready.push_back(s),
                _ => self.reclaim(s),
            }
        }
    }

    /// Segments that can be opened, now or after zeroing.
    pub fn free(&self) -> u32 {
        let unused = if self.starved { 0 } else { self.unused.len() };
        (self.ready.len() + unused) as u32
    }

    pub fn ready(&self) -> u32 {
        self.ready.len() as u32
    }

    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// There was no room to write the segment for the first time.
    pub fn starve(&mut self, segment: u32) {
        self.starved = true;
        self.set_state(segment, State::Unused);
        // In their order: after a restart the first ones may have room that later ones have not.
        self.unused.push_front(segment);
    }

    /// Log segments that only a newer checkpoint keeps from being free.
    pub fn dead(&self) -> u32 {
        let waits =
            |s: &&Segment| matches!(s.state, State::Log(g) if g >= self.replay_from && g < self.open_generation);
        self.segments.iter().filter(waits).filter(|s| s.live == 0).count() as u32
    }

    /// A free segment, and whether it has to be written with zeros first.
    pub fn take_free(&mut self) -> Option<(u32, bool)> {
        let taken = self.ready.pop_front().map(|s| (s, false));
        let taken = match taken {
            None if !self.starved => self.unused.pop_front().map(|s| (s, true)),
            taken => taken,
        };
        if let Some((s, true)) = taken {
            self.set_state(s, State::Zeroing);
        }
        taken
    }

    /// A segment to be written with zeros ahead of need.
    pub fn take_unused(&mut self) -> Option<u32> {
        let s = self.unused.pop_front()?;
        self.set_state(s, State::Zeroing);
        Some(s)
    }

    pub fn zeroed(&mut self, segment: u32) {
        self.starved = false;
        self.make_ready(segment);
    }

    pub fn open(&mut self, segment: u32, generation: u64) {
        self.set_state(segment, State::Log(generation));
        self.segments[segment as usize].unmovable = false;
        self.open_generation = generation;
    }

    pub fn use_for_checkpoint(&mut self, segment: u32) {
        self.set_state(segment, State::Checkpoint);
    }

    /// Checkpoint segments are not needed any more.
    pub fn release_checkpoint(&mut self, segments: &[u32]) {
        for s in segments {
            if self.state(*s) == State::Checkpoint {
                self.make_ready(*s);
            }
        }
    }

    /// A checkpoint is durable from which replay starts at this generation. What its predecessor
    /// consisted of is kept in its place as the one to fall back to.
    pub fn set_replay_from(&mut self, generation: u64, predecessor: Vec<u32>) {
        let replay_from = std::mem::replace(&mut self.replay_from, generation);
        if let Some(older) = self.retained.replace(Retained { segments: predecessor, replay_from }) {
            self.release_checkpoint(&older.segments);
        }
        self.reclaim_all();
    }

    /// Recovery found an older root whose checkpoint is still there.
    pub fn retain(&mut self, segments: Vec<u32>, replay_from: u64) {
        self.retained = Some(Retained { segments, replay_from });
    }

    /// Space is short: gives up the older checkpoint. Whether there was one.
    pub fn drop_retained(&mut self) -> bool {
        let Some(older) = self.retained.take() else { return false };
        self.release_checkpoint(&older.segments);
        self.reclaim_all();
        true
    }

    /// Looks again at segments whose readers have gone.
    pub fn reclaim_released(&mut self) {
        if self.released.replace(false) {
            self.reclaim_all();
        }
    }

    fn reclaim_all(&mut self) {
        (0..self.count()).for_each(|s| self.reclaim(s));
    }

    fn reclaim(&mut self, segment: u32) {
        let s = &self.segments[segment as usize];
        let replay_from = self.retained.as_ref().map_or(self.replay_from, |r| r.replay_from.min(self.replay_from));
        let needed_for_replay = |g: u64| g >= replay_from || g >= self.open_generation;
        if s.live == 0
            && matches!(s.state, State::Log(g) if !needed_for_replay(g))
            && self.readers.borrow()[segment as usize] == 0
        {
            self.make_ready(segment);
        }
    }

    fn make_ready(&mut self, segment: u32) {
        self.set_state(segment, State::Ready);
        self.ready.push_back(segment);
    }

    /// The log segment with the fewest live blocks, the open one excepted.
    pub fn emptiest(&self) -> Option<u32> {
        let candidate =
            |s: &Segment| matches!(s.state, State::Log(g) if g < self.open_generation) && s.live > 0 && !s.unmovable;
        (0..self.count()).filter(|s| candidate(&self.segments[*s as usize])).min_by_key(|s| self.live(*s))
    }

    /// Compaction cannot empty it.
    pub fn set_unmovable(&mut self, segment: u32) {
        self.segments[segment as usize].unmovable = true;
    }

    /// Keeps a segment from being reused until the guard is dropped.
    pub fn pin(&self, segment: u32) -> Pin {
        self.readers.borrow_mut()[segment as usize] += 1;
        Pin { segment, readers: self.readers.clone(), released: self.released.clone() }
    }

    /// Segments that have been written, or are being written, for the first time.
    pub fn allocated(&self) -> u32 {
        self.count() - self.unused.len() as u32
    }

    /// Segments that there are as far as is known.
    fn in_play(&self) -> u32 {
        if self.starved { self.allocated() } else { self.count() }
    }

    /// Segments that only compaction may open.
    pub fn move_reserve(&self) -> u32 {
        move_reserve_of(self.in_play())
    }

    /// Blocks that may be live: what neither the log's reserve, two checkpoints of `checkpoint`
    /// segments, nor compaction's working space takes.
    pub fn usable_blocks(&self, checkpoint: u32) -> u64 {
        self.usable_of(self.in_play(), checkpoint)
    }

    /// The same if there were only so many segments.
    pub fn usable_of(&self, segments: u32, checkpoint: u32) -> u64 {
        let fixed = FIXED_RESERVE_SEGMENTS + move_reserve_of(segments);
        let reserve = fixed.saturating_add(checkpoint.saturating_mul(2));
        let segments = u64::from(segments.saturating_sub(reserve));
        segments * u64::from(self.blocks_per_segment - 1) * FILL_NUMERATOR / FILL_DENOMINATOR
    }
}

/// Of so many segments.
fn move_reserve_of(segments: u32) -> u32 {
    MOVE_RESERVE_SEGMENTS.max(segments / MOVE_RESERVE_FRACTION)
}

/// A read in progress.
pub struct Pin {
    segment: u32,
    readers: Readers,
    released: Rc<Cell<bool>>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let n = &mut self.readers.borrow_mut()[self.segment as usize];
        *n -= 1;
        if *n == 0 {
            self.released.set(true);
        }
    }
}
