//! Who may ask for what: fences, epochs, configs, identities.

use super::ReplicaService;
use crate::ports::{Disk, Runtime};
use crate::store::{ReplicaMeta, Shard};
use levee_proto::wire::{Reply, Status, Target};
use levee_proto::{ChunkId, DiskId, Epoch, VolumeId};

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    /// The shard of this core that holds `chunk` on `disk`.
    pub(super) fn shard(&self, disk: DiskId, chunk: ChunkId) -> Option<&Shard<D, R>> {
        self.shard_and_number(disk, chunk).map(|(_, shard)| shard)
    }

    /// The same, with its number on the disk.
    pub(super) fn shard_and_number(&self, disk: DiskId, chunk: ChunkId) -> Option<(u16, &Shard<D, R>)> {
        let disk = self.0.disks.get(&disk)?;
        let number = (chunk.0 % u64::from(disk.total)) as u16;
        Some((number, disk.mine.get(&number)?))
    }

    /// The highest epoch that anybody has fenced the volume with, durable or not.
    pub(super) fn fence_of(&self, volume: VolumeId) -> Epoch {
        self.0.fences.borrow().get(&volume).copied().unwrap_or_default()
    }

    /// The epoch that may make requests; 0: none has fenced the volume since we started.
    pub(super) fn served_epoch(&self, volume: VolumeId) -> Epoch {
        self.0.served.borrow().get(&volume).copied().unwrap_or_default()
    }

    /// Admits a request for the volume's current gateway: its epoch is the durable fence, and it knows this process.
    pub(super) fn admit_volume(&self, t: &Target) -> Result<Shard<D, R>, Reply> {
        let Some(shard) = self.shard(t.disk, t.chunk) else {
            return Err(Reply::error(Status::Invalid, format!("disk {} is not served by this core", t.disk)));
        };
        let fence = self.fence_of(t.volume);
        if t.epoch < fence {
            return Err(Reply::error(Status::Fenced, format!("epoch {} is below {fence}", t.epoch)));
        }
        if t.epoch > self.served_epoch(t.volume) {
            return Err(Reply::error(Status::FenceFirst, format!("epoch {} is not fenced here", t.epoch)));
        }
        Ok(shard.clone())
    }

    /// Admits a request about a replica that exists here.
    pub(super) fn admit(&self, t: &Target) -> Result<(Shard<D, R>, ReplicaMeta), Reply> {
        let shard = self.admit_volume(t)?;
        let meta = match shard.replica(t.chunk) {
            Some(m) if m.replica == t.replica && m.volume == t.volume => m,
            _ => return Err(Reply::error(Status::UnknownReplica, format!("replica {} is not here", t.replica))),
        };
        if t.config < meta.config {
            return Err(Reply::error(Status::StaleConfig, format!("config {} is below {}", t.config, meta.config)));
        }
        if t.config > meta.config {
            // First in the log, so whatever this request writes comes after it.
            drop(shard.set_config(t.chunk, t.config));
        }
        Ok((shard, meta))
    }
}
