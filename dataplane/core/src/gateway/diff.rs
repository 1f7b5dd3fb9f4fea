//! Where two versions of a volume differ, as the entries of its blocks tell.
//!
//! Two views that read the same entry of a block read the same. So data need not be compared: a block that was
//! written anew with what it held counts as changed, and none that reads differently is left out.

use super::chunk::Chunk;
use super::{Cluster, Gateway, Stopped};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::{BlockEntry, BlockKind};
use levee_proto::{BLOCKS_PER_CHUNK, Seq, Version, View};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Before entries that could not be listed are asked for again.
const RETRY: Duration = Duration::from_millis(200);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// What the live snapshot shows that froze this version.
    pub fn snapshot_view(&self, version: Version) -> Option<View> {
        self.told_versions().snapshots.iter().find(|v| v.version == version).cloned()
    }

    /// The groups of chunks in which there is anything.
    pub fn groups(&self) -> BTreeSet<u32> {
        let group_chunks = u32::from(self.0.volume.geometry.group_chunks);
        self.chunks().iter().map(|c| c.index / group_chunks).collect()
    }

    /// The parts of the volume in which it, or an ancestor, may hold anything: bytes, in order. Everything else reads as zeros.
    pub fn mapped(&self) -> Vec<Range<u64>> {
        let geometry = self.0.volume.geometry;
        let group_chunks = u32::from(geometry.group_chunks);
        let mut groups = self.groups();
        groups.extend(self.0.ancestors.indexes().into_iter().map(|index| index / group_chunks));
        let size = self.size();
        let range = |group: u32| {
            let start = u64::from(group) * geometry.group_size();
            start..(start + geometry.group_size()).min(size)
        };
        joined(groups.into_iter().map(range).filter(|range| !range.is_empty()).collect())
    }

    /// The parts of one group of chunks that two live views read differently: bytes of the volume, in order.
    pub async fn changed(&self, group: u32, from: &View, to: &View) -> Result<Vec<Range<u64>>, Stopped> {
        let geometry = self.0.volume.geometry;
        let unit = geometry.stripe_unit / BLOCK_SIZE as u32;
        let mut pieces = vec![];
        for index in geometry.group_of(group * u32::from(geometry.group_chunks)) {
            let Some(chunk) = self.chunk(index) else { continue };
            for run in self.changed_blocks(&chunk, from, to).await?.runs(BLOCKS_PER_CHUNK, usize::MAX) {
                pieces.extend(units(run, unit).map(|piece| {
                    let start = geometry.address(index, piece.start * BLOCK_SIZE as u32);
                    start..start + piece.len() as u64 * BLOCK_SIZE as u64
                }));
            }
        }
        pieces.sort_unstable_by_key(|piece| piece.start);
        Ok(joined(pieces))
    }

    async fn changed_blocks(&self, chunk: &Rc<Chunk>, from: &View, to: &View) -> Result<BlockSet, Stopped> {
        loop {
            self.until_served(chunk).await?;
            if chunk.is_freed() {
                // It held no data, at any version.
                return Ok(BlockSet::default());
            }
            if let Some(member) = chunk.some_current() {
                // Looked at first: what has arrived when it lists its entries may be on its way now.
                let doubtful = chunk.doubtful(member);
                if let Some(entries) = self.list(chunk, member, Seq::ZERO).await {
                    let mut changed = differing(&entries, from, to, self.is_clone());
                    changed.extend(&doubtful.blocks(|version| from.sees(version) != to.sees(version)));
                    return Ok(changed);
                }
            }
            self.check_stopped()?;
            self.pause(RETRY).await;
        }
    }
}

/// What tells apart how a block reads.
#[derive(PartialEq)]
enum Reading {
    /// As ancestors have it.
    Inherited,
    Zeros,
    Data(Version, Seq),
}

impl Reading {
    /// Of one block, whose entries are given newest first.
    fn of(chain: &[BlockEntry], view: &View, is_clone: bool) -> Reading {
        match chain.iter().find(|e| view.sees(e.version)) {
            Some(e) if e.kind == BlockKind::Data => Reading::Data(e.version, e.seq),
            None if is_clone => Reading::Inherited,
            _ => Reading::Zeros,
        }
    }
}

/// The blocks that two views read differently.
fn differing(entries: &[BlockEntry], from: &View, to: &View, is_clone: bool) -> BlockSet {
    let mut changed = BlockSet::default();
    for chain in entries.chunk_by(|a, b| a.block == b.block) {
        if Reading::of(chain, from, is_clone) != Reading::of(chain, to, is_clone) {
            changed.insert(chain[0].block);
        }
    }
    changed
}

/// The parts of a run that lie in one stripe unit each.
fn units(run: Range<u32>, unit: u32) -> impl Iterator<Item = Range<u32>> {
    let cut = move |n: u32| (n * unit).max(run.start)..((n + 1) * unit).min(run.end);
    (run.start / unit..run.end.div_ceil(unit)).map(cut)
}

/// Ranges in order, those that touch as one.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = vec![];
    for range in ranges {
        match all.last_mut().filter(|last| last.end == range.start) {
            Some(last) => last.end = range.end,
            None => all.push(range),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::Epoch;

    fn entry(block: u32, version: u32, kind: BlockKind) -> BlockEntry {
        BlockEntry { block, kind, version: Version(version), seq: Seq::new(Epoch(1), u64::from(version)), crc: 0 }
    }

    #[test]
    fn blocks_differ_where_views_read_other_entries() {
        use BlockKind::{Data, Zero};
        let entries = [
            entry(0, 1, Data),
            entry(1, 2, Data),
            entry(1, 1, Data),
            entry(2, 2, Zero),
            entry(2, 1, Data),
            entry(3, 2, Zero),
            entry(4, 3, Data),
        ];
        let changed = |from: &View, to: &View, is_clone| {
            let found = differing(&entries, from, to, is_clone);
            (0..5).filter(|b| found.contains(*b)).collect::<Vec<u32>>()
        };
        let [first, second, third] = [1, 2, 3].map(|v| View::of(Version(v)));
        assert_eq!(changed(&first, &second, false), [1, 2]);
        assert_eq!(changed(&second, &first, false), [1, 2]);
        assert_eq!(changed(&first, &second, true), [1, 2, 3], "zeros hide what ancestors have");
        assert_eq!(changed(&first, &third, false), [1, 2, 4]);
        assert_eq!(changed(&second, &second, true), Vec::<u32>::new());
        let back = first.rolled_back(Version(3)).unwrap();
        assert_eq!(changed(&first, &back, true), Vec::<u32>::new());
        assert_eq!(changed(&back, &third, false), [1, 2, 4]);
    }

    #[test]
    fn runs_are_cut_at_stripe_units_and_joined_where_they_touch() {
        assert_eq!(units(3..17, 8).collect::<Vec<_>>(), [3..8, 8..16, 16..17]);
        assert_eq!(units(7..16, 8).collect::<Vec<_>>(), [7..8, 8..16]);
        assert_eq!(joined(vec![0..4, 4..8, 9..10]), [0..8, 9..10]);
    }
}
