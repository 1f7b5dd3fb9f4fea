//! What is said of many replicas at once: adoption, the last durable step of a takeover, and commit points.

use super::admit::not_served;
use super::{ReplicaService, ReplyFn, refuse, store_refusal};
use crate::ports::{Disk, Runtime};
use crate::store::{CommitPoint, Shard};
use crate::sync::join_all;
use bytes::Bytes;
use levee_proto::wire::{Reply, Status};
use levee_proto::{ChunkId, DiskId, Epoch, ReplicaId, Seq, VolumeId};
use std::collections::BTreeMap;

/// A replica that a list names.
pub(super) type Named = (DiskId, ChunkId, ReplicaId);
/// Per shard of this core, what concerns it: thousands of chunks are a few records.
pub(super) type ByShard<D, R, T> = BTreeMap<(DiskId, u16), (Shard<D, R>, Vec<T>)>;

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    pub(super) fn adopt(&self, volume: VolumeId, epoch: Epoch, replicas: Vec<Named>, reply: ReplyFn) {
        let by_shard = match self.admit_list(volume, epoch, replicas, |r| *r) {
            Ok(by_shard) => by_shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        let mut durable = vec![];
        for (shard, replicas) in by_shard.into_values() {
            let chunks: Vec<_> = replicas.into_iter().map(|(_, chunk, _)| chunk).collect();
            // What corruption had lost has been compared and repaired: that comes before adopting.
            let damaged = chunks.iter().filter(|c| shard.replica(**c).is_some_and(|r| r.damaged));
            durable.extend(damaged.map(|c| shard.clear_damaged(*c)).collect::<Vec<_>>());
            durable.push(shard.set_adopted(epoch, chunks));
        }
        self.answer_when_done(async move { join_all(durable).await.into_iter().collect() }, reply);
    }

    /// Admitted like an adoption. Answered when the points are durable: that bounds how many wait.
    pub(super) fn commit(
        &self,
        volume: VolumeId,
        epoch: Epoch,
        points: Vec<(DiskId, ChunkId, ReplicaId, Seq)>,
        reply: ReplyFn,
    ) {
        if points.iter().any(|(.., seq)| seq.epoch() > epoch) {
            return refuse(reply, Status::Invalid, "commit point of a later epoch");
        }
        let by_shard =
            match self.admit_list(volume, epoch, points, |(disk, chunk, replica, _)| (*disk, *chunk, *replica)) {
                Ok(by_shard) => by_shard,
                Err(refusal) => return reply(refusal, Bytes::new()),
            };
        let point = |(_, chunk, replica, seq)| CommitPoint { chunk, replica, seq };
        let set =
            by_shard.into_values().map(|(s, points)| s.set_commit(epoch, points.into_iter().map(point).collect()));
        let durable: Vec<_> = set.collect();
        self.answer_when_done(async move { join_all(durable).await.into_iter().collect() }, reply);
    }

    /// Admits a list all of whose items are about replicas that exist here: all of it, or none.
    pub(super) fn admit_list<T>(
        &self,
        volume: VolumeId,
        epoch: Epoch,
        items: Vec<T>,
        name: impl Fn(&T) -> Named,
    ) -> Result<ByShard<D, R, T>, Reply> {
        let fence = self.fence_of(volume);
        if epoch < fence.epoch() {
            return Err(Reply::error(Status::Fenced, format!("epoch {epoch} is below {fence}")));
        }
        let mut by_shard: ByShard<D, R, T> = BTreeMap::new();
        for item in items {
            let (id, chunk, replica) = name(&item);
            let Some(disk) = self.disk(id) else { return Err(Reply::error(Status::Io, not_served(id))) };
            let Some((number, shard)) = disk.shard(chunk) else {
                return Err(Reply::error(Status::Invalid, format!("chunk {chunk} is not this core's")));
            };
            if let Some(e) = shard.failed() {
                return Err(store_refusal(&e));
            }
            if disk.served_epoch(volume) != epoch {
                return Err(Reply::error(Status::FenceFirst, format!("epoch {epoch} is not fenced here")));
            }
            if shard.replica(chunk).is_none_or(|r| r.replica != replica || r.volume != volume) {
                return Err(Reply::error(Status::UnknownReplica, format!("replica {replica} is not here")));
            }
            by_shard.entry((id, number)).or_insert_with(|| (shard.clone(), vec![])).1.push(item);
        }
        Ok(by_shard)
    }
}
