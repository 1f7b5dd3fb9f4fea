//! A set of the blocks of one chunk.

use levee_proto::BLOCKS_PER_CHUNK;
use std::ops::Range;

const WORDS: usize = BLOCKS_PER_CHUNK as usize / 64;

/// Which blocks of a chunk: one bit each (2 KiB).
#[derive(Clone)]
pub struct BlockSet {
    words: Box<[u64; WORDS]>,
}

impl Default for BlockSet {
    fn default() -> Self {
        BlockSet { words: Box::new([0; WORDS]) }
    }
}

impl BlockSet {
    /// Whether `block` is in the set.
    pub fn contains(&self, block: u32) -> bool {
        self.words[block as usize / 64] & (1 << (block % 64)) != 0
    }

    /// Puts a block in.
    pub fn insert(&mut self, block: u32) {
        self.words[block as usize / 64] |= 1 << (block % 64);
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: u32) {
        self.words[block as usize / 64] &= !(1 << (block % 64));
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
        self.words.iter().all(|w| *w == 0)
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
        let mut word = from as usize / 64;
        let mut bits = self.words.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
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
}
