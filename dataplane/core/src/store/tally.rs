//! Counting what views read of a replica, from the index alone: no data is touched.

use super::chains::is_data;
use super::error::StoreError;
use super::index::Replica;
use super::limits::PRUNE_BLOCKS;
use super::shard::Shard;
use crate::ports::{Disk, Runtime};
use levee_proto::readers::{Reader, Readers};
use levee_proto::wire::PRESENCE_LEN;
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, ReplicaId, Version, View};
use std::ops::Range;

/// A count that goes on, block by block.
pub struct Tally {
    /// Whose entries and data are noted block by block.
    head: View,
    readers: Readers,
    /// Block to go on with.
    next: u32,
    /// Entries with data, of all versions.
    pub stored: u32,
    /// Of these, by view: those that nobody else reads.
    pub alone: Vec<u32>,
    /// A bit per block, the lowest of each byte first: the head reads an entry.
    pub entries: Vec<u8>,
    /// The head reads data.
    pub data: Vec<u8>,
}

impl Tally {
    /// Of these views; the first is the head's.
    pub fn new(views: &[View]) -> Tally {
        Tally {
            head: views.first().cloned().unwrap_or_default(),
            readers: Readers::new(views),
            next: 0,
            stored: 0,
            alone: vec![0; views.len()],
            entries: vec![0; PRESENCE_LEN],
            data: vec![0; PRESENCE_LEN],
        }
    }

    /// Whether all blocks have been counted.
    pub fn is_done(&self) -> bool {
        self.next >= BLOCKS_PER_CHUNK
    }

    fn count(&mut self, r: &Replica, blocks: Range<u32>) {
        let mut versions: Vec<Version> = Vec::new();
        for (block, _) in r.chains.heads(blocks.start).take_while(|(block, _)| *block < blocks.end) {
            let visible = r.chains.visible(block, &self.head);
            let (at, bit) = (block as usize / 8, block % 8);
            self.entries[at] |= u8::from(visible.place != super::index::Place::ABSENT) << bit;
            self.data[at] |= u8::from(is_data(visible)) << bit;
            versions.clear();
            versions.extend(r.chains.chain(block).map(|s| s.version));
            for (i, _) in r.chains.chain(block).enumerate().filter(|(_, s)| is_data(*s)) {
                self.stored += 1;
                if let Reader::Only(view) = self.readers.of(&versions, i) {
                    self.alone[view] += 1;
                }
            }
        }
    }
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Counts some blocks more. What is written meanwhile may count or not.
    pub fn tally(&self, chunk: ChunkId, replica: ReplicaId, tally: &mut Tally) -> Result<(), StoreError> {
        let s = self.inner().state.borrow();
        let r = s.index.get(chunk).filter(|r| r.replica == replica).ok_or(StoreError::UnknownReplica(chunk))?;
        let end = BLOCKS_PER_CHUNK.min(tally.next + PRUNE_BLOCKS);
        tally.count(r, tally.next..end);
        tally.next = end;
        Ok(())
    }
}
