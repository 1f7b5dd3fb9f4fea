//! What a block holds, and the order of writes.

/// Blocks that a chunk can have here.
pub const MAX_BLOCKS: usize = 2;
/// Counters per epoch that a [`Seq`] can tell apart.
const COUNTERS: u8 = 8;

pub type Epoch = u8;

/// `(epoch, counter)`, in that order; 0 is below every write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(u8);

impl Seq {
    pub fn new(epoch: Epoch, counter: u8) -> Seq {
        assert!(counter < COUNTERS && epoch < u8::MAX / COUNTERS);
        Seq(epoch * COUNTERS + counter)
    }

    pub fn epoch(self) -> Epoch {
        self.0 / COUNTERS
    }

    pub fn counter(self) -> u8 {
        self.0 % COUNTERS
    }
}

impl std::fmt::Debug for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.counter())
    }
}

/// What a replica holds of a block. The data itself is told by who wrote it: `origin` takes the CRC's place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Entry {
    pub seq: Seq,
    /// The incarnation of the gateway that wrote it.
    pub origin: u8,
    /// A tombstone: the block was discarded.
    pub zero: bool,
}

impl Entry {
    pub const ABSENT: Entry = Entry { seq: Seq(0), origin: 0, zero: false };

    /// What a reader sees: a tombstone reads as a block that was never written.
    pub fn value(self) -> Entry {
        if self.zero { Entry::ABSENT } else { self }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            e if *e == Entry::ABSENT => write!(f, "nothing"),
            Entry { seq, zero: true, .. } => write!(f, "discard {seq:?}"),
            Entry { seq, .. } => write!(f, "write {seq:?}"),
        }
    }
}

/// One entry per block.
pub type Blocks = [Entry; MAX_BLOCKS];

/// A set of blocks, or of a gateway's writes by counter: bit per element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Set(pub u8);

impl Set {
    pub const ALL_BLOCKS: Set = Set((1 << MAX_BLOCKS) - 1);

    pub fn has(self, i: u8) -> bool {
        self.0 & (1 << i) != 0
    }

    pub fn add(&mut self, i: u8) {
        self.0 |= 1 << i;
    }

    pub fn remove(&mut self, i: u8) {
        self.0 &= !(1 << i);
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn or(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub fn and(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |i| self.has(*i))
    }
}
