//! How much a volume and its snapshots hold, counted from the indexes of its replicas: no data is read.
//!
//! A member counts for its whole chunk: which blocks the head has an entry of, where that is data, and which data entries only one
//! of the live views reads. Blocks of a clone that have no entry are looked up in its ancestors.
//!
//! Exact while nothing is written: the member that is asked has every write that was answered, or as much as any has after a while.

use super::ancestors::within;
use super::chunk::Chunk;
use super::session::Waits;
use super::versions::live;
use super::{Cluster, Gateway, Stopped};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::api::{SnapshotUsage, VolumeUsage, VolumeVersions};
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::{Reply, Request, Status};
use levee_proto::{BLOCKS_PER_CHUNK, Geometry, View};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Chunks that are counted at a time.
const AT_A_TIME: usize = 8;
/// Before a member is looked for again that has everything.
const RETRY: Duration = Duration::from_millis(50);
/// So often one is looked for that has every answered write; then any will do that is up to date but for what it is being sent.
const LOOKS: usize = 20;
/// A chunk that cannot be counted for so long makes the count fail.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the count is begun anew because snapshots came or went meanwhile.
const ATTEMPTS: u32 = 5;

/// Blocks.
#[derive(Default)]
struct Count {
    stored: u64,
    written: u64,
    /// By view, the head's first.
    alone: Vec<u64>,
}

/// What one member tells of its chunk.
struct Told {
    stored: u32,
    /// By view, the head's first.
    alone: Vec<u32>,
    /// Blocks that the head reads an entry of, and those where it is data.
    entries: BlockSet,
    data: BlockSet,
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Counts what the volume takes up; `tell` hears how many chunks have been looked at, of how many. An error says why
    /// that is not possible, for a person.
    pub async fn usage(&self, mut tell: impl FnMut(u64, u64)) -> Result<VolumeUsage, String> {
        for _ in 0..ATTEMPTS {
            let told = self.told_versions();
            let mut views = live(&told);
            views.rotate_right(1);
            let count = self.count(&views, &mut tell).await?;
            if self.told_versions().number == told.number {
                return Ok(self.in_bytes(&count, &told));
            }
        }
        Err("snapshots of it came and went all the time: try again".into())
    }

    fn in_bytes(&self, count: &Count, told: &VolumeVersions) -> VolumeUsage {
        let bytes = |blocks: u64| blocks * BLOCK_SIZE as u64;
        let alone = |view: usize| bytes(count.alone.get(view).copied().unwrap_or(0));
        let snapshot = |(i, view): (usize, &View)| SnapshotUsage { version: view.version, exclusive: alone(i + 1) };
        let (written, exclusive, stored) = (bytes(count.written), alone(0), bytes(count.stored));
        VolumeUsage {
            provisioned: self.size(),
            written,
            exclusive,
            shared: written.saturating_sub(exclusive),
            stored,
            on_disks: stored * u64::from(self.0.volume.copies),
            snapshots: told.snapshots.iter().enumerate().map(snapshot).collect(),
        }
    }

    /// All chunks, of the volume and its ancestors. `views`: the head's first.
    async fn count(&self, views: &[View], tell: &mut impl FnMut(u64, u64)) -> Result<Count, String> {
        let mut indexes: BTreeSet<u32> = self.chunks().iter().map(|c| c.index).collect();
        indexes.extend(self.0.ancestors.indexes());
        let indexes: Vec<u32> = indexes.into_iter().collect();
        let mut sum = Count { alone: vec![0; views.len()], ..Count::default() };
        for (step, part) in indexes.chunks(AT_A_TIME).enumerate() {
            tell((step * AT_A_TIME) as u64, indexes.len() as u64);
            let counts = join_all(part.iter().map(|index| self.count_patiently(*index, views))).await;
            for count in counts {
                let count = count?;
                sum.stored += count.stored;
                sum.written += count.written;
                sum.alone.iter_mut().zip(&count.alone).for_each(|(sum, n)| *sum += n);
            }
        }
        Ok(sum)
    }

    async fn count_patiently(&self, index: u32, views: &[View]) -> Result<Count, String> {
        match timeout(&self.0.rt, PATIENCE, self.count_chunk(index, views)).await {
            Some(counted) => counted.map_err(|stopped| stopped.0),
            None => Err(format!(
                "no copy of its chunk {index}, or of what it was cloned from there, can tell what it holds"
            )),
        }
    }

    async fn count_chunk(&self, index: u32, views: &[View]) -> Result<Count, Stopped> {
        let told = match self.chunk(index) {
            Some(chunk) => self.tally(&chunk, views).await?,
            None => None,
        };
        let mut missing = BlockSet::default();
        missing.insert_range(0..BLOCKS_PER_CHUNK);
        let mut count = Count::default();
        if let Some(told) = told {
            count.alone = told.alone.into_iter().map(u64::from).collect();
            count.stored = u64::from(told.stored);
            count.written = u64::from(told.data.len());
            missing.subtract(&told.entries);
        }
        count.written += self.inherited_data(index, missing).await?;
        Ok(count)
    }

    /// How many of some blocks, which the volume has no entry of, its ancestors have data in.
    async fn inherited_data(&self, index: u32, mut missing: BlockSet) -> Result<u64, Stopped> {
        let layers = self.0.ancestors.layers();
        let mut found = 0;
        for (i, layer) in layers.iter().enumerate() {
            missing.subtract(&beyond(self.0.volume.geometry, index, layer.size));
            if missing.is_empty() {
                break;
            }
            if !layer.chunks.contains_key(&index) {
                continue;
            }
            let mut data = self.present_data(layer, index).await?;
            data.keep_only(&missing);
            found += u64::from(data.len());
            if i + 1 < layers.len() {
                missing.subtract(&*self.presence(layer, index).await?);
            }
        }
        Ok(found)
    }

    /// Asks a member of a chunk until one tells. `None`: the chunk was freed, so it held no data at any version.
    async fn tally(&self, chunk: &Rc<Chunk>, views: &[View]) -> Result<Option<Told>, Stopped> {
        let mut looks = 0;
        loop {
            self.until_served(chunk).await?;
            if chunk.is_freed() {
                return Ok(None);
            }
            let any = || chunk.some_current().filter(|_| looks >= LOOKS);
            if let Some(member) = chunk.some_complete(looks).or_else(any)
                && let Some(told) = self.ask_tally(chunk, member, views).await
            {
                return Ok(Some(told));
            }
            self.check_stopped()?;
            looks += 1;
            self.pause(RETRY).await;
        }
    }

    async fn ask_tally(&self, chunk: &Rc<Chunk>, member: usize, views: &[View]) -> Option<Told> {
        let (session, target) = (self.session_of(chunk, member), self.target(chunk, member));
        let request = Request::Tally { target, views: views.to_vec() };
        match self.ask(Waits::Guests, &session, &target, request, Bytes::new()).await {
            Ok((Reply::Tally { stored, alone, entries, data }, _)) if alone.len() == views.len() => {
                let (entries, data) = (BlockSet::from_bits(&entries)?, BlockSet::from_bits(&data)?);
                Some(Told { stored, alone, entries, data })
            }
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
                None
            }
            Ok((reply, _)) => {
                self.distrust_member(chunk, member, &session, &format!("no tally: {reply:?}"));
                None
            }
            Err(_) => None,
        }
    }
}

/// The blocks of a chunk that lie beyond a size.
fn beyond(geometry: Geometry, index: u32, size: u64) -> BlockSet {
    let unit = geometry.stripe_unit / BLOCK_SIZE as u32;
    let mut beyond = BlockSet::default();
    for first in (0..BLOCKS_PER_CHUNK).step_by(unit as usize) {
        let blocks = first..first + unit;
        let inside = within(size, geometry.address(index, first * BLOCK_SIZE as u32), &blocks);
        beyond.insert_range(inside.end..blocks.end);
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beyond_a_size_is_told_stripe_by_stripe() {
        let geometry = Geometry::default();
        let stripe = u64::from(geometry.stripe_unit) * u64::from(geometry.group_chunks);
        let unit = geometry.stripe_unit / BLOCK_SIZE as u32;
        let runs = |index, size| beyond(geometry, index, size).runs(BLOCKS_PER_CHUNK, 9);
        assert_eq!(runs(0, 0), vec![0..BLOCKS_PER_CHUNK; 1]);
        assert_eq!(runs(3, geometry.group_size()), []);
        assert_eq!(runs(4, geometry.group_size()), vec![0..BLOCKS_PER_CHUNK; 1]);
        // Two stripes, and three blocks of the third one's part of the first chunk.
        let size = 2 * stripe + 3 * BLOCK_SIZE as u64;
        assert_eq!(runs(0, size), vec![2 * unit + 3..BLOCKS_PER_CHUNK; 1]);
        assert_eq!(runs(1, size), vec![2 * unit..BLOCKS_PER_CHUNK; 1]);
    }
}
