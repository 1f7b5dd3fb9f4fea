//! What a core's disks hold, told to the meta servers when their state may be too old.

use super::shards::ServedShards;
use levee_proto::api::{HeldFence, HeldReplica};
use levee_proto::{DiskId, Fence, VolumeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Replicas looked at before others have their turn: each has thousands of entries.
const SLICE: usize = 64;

/// Replicas and fences.
#[derive(Debug, Default)]
pub struct Holdings {
    pub replicas: Vec<HeldReplica>,
    fences: BTreeMap<VolumeId, Fence>,
}

impl Holdings {
    /// Adds what a disk holds; nothing is known of one that was never recovered.
    pub(crate) async fn add(&mut self, disk: DiskId, shards: Option<ServedShards>) {
        for shard in shards.iter().flat_map(|shards| shards.mine.values()) {
            shard.fences().into_iter().for_each(|(volume, fence)| self.fence(volume, fence));
            for some in shard.all_replicas().chunks(SLICE) {
                self.replicas.extend(some.iter().map(|r| HeldReplica {
                    disk,
                    volume: r.volume,
                    chunk: r.chunk,
                    replica: r.replica,
                    config: r.config,
                    version: shard.newest_version(r.chunk),
                }));
                glommio::timer::sleep(Duration::from_micros(1)).await;
            }
        }
    }

    /// Adds what another core's disks hold.
    pub fn join(&mut self, other: Holdings) {
        self.replicas.extend(other.replicas);
        other.fences.into_iter().for_each(|(volume, fence)| self.fence(volume, fence));
    }

    fn fence(&mut self, volume: VolumeId, fence: Fence) {
        let highest = self.fences.entry(volume).or_insert(fence);
        *highest = fence.max(*highest);
    }

    pub fn fences(&self) -> Vec<HeldFence> {
        let held = |(volume, f): (&VolumeId, &Fence)| HeldFence { volume: *volume, era: f.era(), epoch: f.epoch() };
        self.fences.iter().map(held).collect()
    }
}
