//! A set of the blocks of one chunk.

use levee_proto::BLOCKS_PER_CHUNK;
use std::ops::Range;

const WORDS: usize = BLOCKS_PER_CHUNK as usize / 64;

/// Which blocks of a chunk: one bit each (2 KiB, once there are any).
#[derive(Clone, Default)]
pub struct BlockSet {
    words: Option<Box<[u64; WORDS]>>,
}

impl BlockSet {
    /// The set with these bits, the lowest of each byte first; `None` if they are not as many as a chunk has blocks.
    pub fn from_bits(bits: &[u8]) -> Option<BlockSet> {
        let mut words = Box::new([0; WORDS]);
        if bits.len() != WORDS * 8 {
            return None;
        }
        for (word, bytes) in words.iter_mut().zip(bits.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight of them"));
        }
        Some(BlockSet { words: Some(words) })
    }

    /// Whether `block` is in the set.
    pub fn contains(&self, block: u32) -> bool {
        self.words.as_ref().is_some_and(|w| w[block as usize / 64] & (1 << (block % 64)) != 0)
    }

    /// Puts a block in.
    pub fn insert(&mut self, block: u32) {
        self.words.get_or_insert_with(|| Box::new([0; WORDS]))[block as usize / 64] |= 1 << (block % 64);
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: u32) {
        if let Some(words) = &mut self.words {
            words[block as usize / 64] &= !(1 << (block % 64));
        }
    }

    /// Takes a range of blocks out.
    pub fn remove_range(&mut self, range: Range<u32>) {
        range.for_each(|b| self.remove(b));
    }

    /// Takes out what `other` has.
    pub fn subtract(&mut self, other: &BlockSet) {
        if let (Some(words), Some(theirs)) = (&mut self.words, &other.words) {
            words.iter_mut().zip(theirs.iter()).for_each(|(w, t)| *w &= !t);
        }
    }

    /// Takes out what `other` does not have.
    pub fn keep_only(&mut self, other: &BlockSet) {
        match (&mut self.words, &other.words) {
            (Some(words), Some(theirs)) => words.iter_mut().zip(theirs.iter()).for_each(|(w, t)| *w &= t),
            _ => self.words = None,
        }
    }

    /// Puts in what `other` has.
    pub fn extend(&mut self, other: &BlockSet) {
        if let Some(theirs) = &other.words {
            let words = self.words.get_or_insert_with(|| Box::new([0; WORDS]));
            words.iter_mut().zip(theirs.iter()).for_each(|(w, t)| *w |= t);
        }
    }

    /// Number of blocks in the set.
    pub fn len(&self) -> u32 {
        self.words.as_ref().map_or(0, |w| w.iter().map(|w| w.count_ones()).sum())
    }

    /// Whether a block of the range is in the set.
    pub fn meets(&self, range: &Range<u32>) -> bool {
        self.words.is_some() && range.clone().any(|b| self.contains(b))
    }

    /// Puts a range of blocks in.
    pub fn insert_range(&mut self, range: Range<u32>) {
        range.for_each(|b| self.insert(b));
    }

    /// The first run of blocks at or after `from`, at most `max` long.
    pub fn next_run(&self, from: u32, max: u32) -> Option<Range<u32>> {
        let start = self.first_at(from)?;
        let end = (start..BLOCKS_PER_CHUNK.min(start + max)).take_while(|b| self.contains(*b)).last()? + 1;
        Some(start..end)
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.as_ref().is_none_or(|w| w.iter().all(|w| *w == 0))
    }

    /// The first runs: at most `blocks` blocks in at most `runs` runs.
    pub fn runs(&self, blocks: u32, runs: usize) -> Vec<Range<u32>> {
        let (mut found, mut left, mut from) = (Vec::new(), blocks, 0);
        while left > 0 && found.len() < runs {
            let Some(run) = self.next_run(from, left) else { break };
            left -= run.end - run.start;
            from = run.end;
            found.push(run);
        }
        found
    }

    fn first_at(&self, from: u32) -> Option<u32> {
        let words = self.words.as_ref()?;
        let mut word = from as usize / 64;
        let mut bits = words.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *words.get(word)?;
        }
        Some(word as u32 * 64 + bits.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_in_order() {
        let mut s = BlockSet::default();
        s.insert_range(60..70);
        s.insert(BLOCKS_PER_CHUNK - 1);
        s.insert(60);
        assert_eq!(s.next_run(0, 100), Some(60..70));
        assert_eq!(s.next_run(0, 4), Some(60..64));
        assert_eq!(s.next_run(64, 100), Some(64..70));
        assert_eq!(s.next_run(70, 100), Some(BLOCKS_PER_CHUNK - 1..BLOCKS_PER_CHUNK));
        assert_eq!(s.runs(12, 9), [60..70, BLOCKS_PER_CHUNK - 1..BLOCKS_PER_CHUNK]);
        assert_eq!(s.runs(4, 9), vec![60..64; 1]);
        assert_eq!(s.runs(100, 1), vec![60..70; 1]);
        s.remove(BLOCKS_PER_CHUNK - 1);
        assert_eq!(s.next_run(70, 100), None);
        assert_eq!(s.next_run(BLOCKS_PER_CHUNK, 1), None);
        s.insert_range(0..0);
        assert!(!s.is_empty() && BlockSet::default().is_empty());
    }

    #[test]
    fn sets_are_combined() {
        let (mut a, mut b) = (BlockSet::default(), BlockSet::default());
        a.subtract(&b);
        a.extend(&b);
        a.remove(3);
        assert!(a.is_empty() && !a.contains(3) && !a.meets(&(0..BLOCKS_PER_CHUNK)));
        a.insert_range(10..200);
        b.insert_range(100..300);
        a.subtract(&b);
        assert_eq!(a.runs(1000, 9), vec![10..100; 1]);
        a.remove_range(20..90);
        a.extend(&b);
        assert_eq!(a.runs(1000, 9), [10..20, 90..300]);
        assert!(a.meets(&(15..25)) && !a.meets(&(20..90)));
        b.remove_range(150..250);
        a.keep_only(&b);
        assert_eq!((a.runs(1000, 9), a.len()), (vec![100..150, 250..300], 100));
        a.keep_only(&BlockSet::default());
        assert!(a.is_empty());
    }
}
