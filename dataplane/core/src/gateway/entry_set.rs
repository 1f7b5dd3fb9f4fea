//! A set of entries of one chunk: which versions of which blocks.

use crate::bitmap::BlockSet;
use levee_proto::Version;
use std::collections::BTreeMap;
use std::ops::Range;

/// Which (block, version) pairs of a chunk: a bit each, per version that has any.
#[derive(Clone, Default)]
pub(super) struct EntrySet(BTreeMap<Version, BlockSet>);

impl EntrySet {
    pub fn contains(&self, block: u32, version: Version) -> bool {
        self.0.get(&version).is_some_and(|blocks| blocks.contains(block))
    }

    pub fn insert(&mut self, block: u32, version: Version) {
        self.0.entry(version).or_default().insert(block);
    }

    /// Puts one version of a range of blocks in.
    pub fn insert_range(&mut self, blocks: Range<u32>, version: Version) {
        if !blocks.is_empty() {
            self.0.entry(version).or_default().insert_range(blocks);
        }
    }

    pub fn remove(&mut self, block: u32, version: Version) {
        self.remove_range(block..block + 1, version);
    }

    /// Takes one version of a range of blocks out.
    pub fn remove_range(&mut self, blocks: Range<u32>, version: Version) {
        if let Some(set) = self.0.get_mut(&version) {
            set.remove_range(blocks);
        }
    }

    /// Puts in what `other` has.
    pub fn extend(&mut self, other: &EntrySet) {
        for (version, blocks) in &other.0 {
            self.0.entry(*version).or_default().extend(blocks);
        }
    }

    /// Takes out what `other` has.
    pub fn subtract(&mut self, other: &EntrySet) {
        for (version, blocks) in &mut self.0 {
            if let Some(theirs) = other.0.get(version) {
                blocks.subtract(theirs);
            }
        }
        self.0.retain(|_, blocks| !blocks.is_empty());
    }

    /// The blocks of which a version of these is in the set.
    pub fn blocks(&self, is_meant: impl Fn(Version) -> bool) -> BlockSet {
        let mut all = BlockSet::default();
        self.0.iter().filter(|(version, _)| is_meant(**version)).for_each(|(_, blocks)| all.extend(blocks));
        all
    }

    /// What of a range of blocks is in the set.
    pub fn within<'a>(&'a self, blocks: &'a Range<u32>) -> impl Iterator<Item = (u32, Version)> + 'a {
        let sets = self.0.iter().filter(|(_, set)| set.meets(blocks));
        sets.flat_map(|(version, set)| blocks.clone().filter(|b| set.contains(*b)).map(|b| (b, *version)))
    }

    /// Whether any version of a block of the range is in the set.
    pub fn meets(&self, blocks: &Range<u32>) -> bool {
        self.0.values().any(|set| set.meets(blocks))
    }

    pub fn is_empty(&self) -> bool {
        self.0.values().all(BlockSet::is_empty)
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        self.0.values().map(BlockSet::len).sum()
    }

    /// The blocks per version, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = (Version, &BlockSet)> {
        self.0.iter().filter(|(_, blocks)| !blocks.is_empty()).map(|(version, blocks)| (*version, blocks))
    }

    /// The blocks of which this version is in the set.
    pub fn at(&self, version: Version) -> Option<&BlockSet> {
        self.0.get(&version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_block_are_told_apart() {
        let (old, new) = (Version(1), Version(2));
        let mut set = EntrySet::default();
        set.insert_range(3..6, old);
        set.insert(4, new);
        set.remove(4, old);
        assert!(set.contains(4, new) && !set.contains(4, old) && set.contains(5, old));
        assert!(set.meets(&(4..5)) && !set.meets(&(6..9)));
        assert_eq!(set.len(), 3);
        let mut other = EntrySet::default();
        other.insert_range(0..9, old);
        set.subtract(&other);
        assert_eq!(set.versions().map(|(v, blocks)| (v, blocks.len())).collect::<Vec<_>>(), [(new, 1)]);
        set.remove(4, new);
        assert!(set.is_empty() && set.versions().next().is_none());
    }
}
