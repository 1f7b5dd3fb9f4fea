//! What a shard holds, as its daemon tells the meta servers: they must never give it out again.

use super::shard::Shard;
use crate::ports::{Disk, Runtime};
use levee_proto::{ChunkId, ReplicaId, Version, VolumeId};

/// The largest ids that a shard has come across; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargestIds {
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
}

impl LargestIds {
    /// The larger ones.
    pub fn with(self, other: LargestIds) -> LargestIds {
        LargestIds {
            volume: self.volume.max(other.volume),
            chunk: self.chunk.max(other.chunk),
            replica: self.replica.max(other.replica),
        }
    }
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Of replicas, and of fences, which outlive them.
    pub fn largest_ids(&self) -> LargestIds {
        let state = self.inner().state.borrow();
        let fenced = state.index.fences().map(|(volume, _)| LargestIds { volume, ..LargestIds::default() });
        let here = state.index.replicas().map(|r| LargestIds { volume: r.volume, chunk: r.chunk, replica: r.replica });
        fenced.chain(here).fold(LargestIds::default(), LargestIds::with)
    }

    /// The largest version that the chunk was written at here, or is written at by what is sealed.
    pub fn newest_version(&self, chunk: ChunkId) -> Version {
        let state = self.inner().state.borrow();
        let Some(replica) = state.index.get(chunk) else { return Version(0) };
        let written = replica.chains.heads(0).map(|(_, slot)| slot.version).max();
        let after_sealed = Some(replica.sealed).filter(|v| *v > Version(0)).and_then(Version::next);
        written.max(after_sealed).unwrap_or_default()
    }
}
