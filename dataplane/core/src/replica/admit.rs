//! Who may ask for what: fences, epochs, identities.
//!
//! The number of the replica set that a request names decides nothing. Within an epoch there is one gateway, which has one set at
//! a time; its requests arrive in their order, or not at all. Between epochs the fence decides. A number that anybody can
//! raise would only be one more way to shut out the right one. (The model never had it: `docs/decisions/0010`.)

use super::{ReplicaService, store_refusal};
use crate::ports::{Disk, Runtime};
use crate::store::{ReplicaMeta, Shard};
use levee_proto::wire::{Reply, Status, Target};
use levee_proto::{Fence, VolumeId};

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    /// The highest fence that anybody has sent, durable or not.
    pub(super) fn fence_of(&self, volume: VolumeId) -> Fence {
        self.0.fences.borrow().get(&volume).copied().unwrap_or_default()
    }

    /// Admits a request for the volume's current gateway: its epoch is the durable fence, it knows this process, and the
    /// disk works.
    pub(super) fn admit_volume(&self, t: &Target) -> Result<Shard<D, R>, Reply> {
        let fence = self.fence_of(t.volume);
        if t.epoch < fence.epoch() && !crate::mutant!("write below the fence accepted") {
            crate::reached!("request below the fence");
            return Err(Reply::error(Status::Fenced, format!("epoch {} is below {fence}", t.epoch)));
        }
        let Some(disk) = self.disk(t.disk) else { return Err(Reply::error(Status::Io, not_served(t.disk))) };
        let Some((_, shard)) = disk.shard(t.chunk) else {
            return Err(Reply::error(Status::Invalid, format!("chunk {} is not this core's", t.chunk)));
        };
        if let Some(e) = shard.failed() {
            return Err(store_refusal(&e));
        }
        if t.epoch > disk.served_epoch(t.volume) && !crate::mutant!("unfenced epoch served") {
            crate::reached!("request before its fence");
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
        Ok((shard, meta))
    }
}

pub(super) fn not_served(disk: levee_proto::DiskId) -> String {
    format!("disk {disk} is not served here: it was taken out, or has failed")
}
