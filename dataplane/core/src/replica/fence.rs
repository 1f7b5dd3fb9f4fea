//! Fencing and adoption: the two durable steps of a takeover.

use super::{ReplicaService, ReplyFn, refuse, store_refusal};
use crate::ports::{Disk, Runtime};
use crate::store::{ReplicaMeta, Shard};
use crate::sync::join_all;
use bytes::Bytes;
use levee_proto::wire::{MAX_SUMMARIES, ReplicaSummary, Reply, Status};
use levee_proto::{ChunkId, DiskId, Epoch, ReplicaId, VolumeId};
use std::collections::BTreeMap;

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    pub(super) fn fence(&self, volume: VolumeId, epoch: Epoch, reply: ReplyFn) {
        let fence = self.fence_of(volume);
        if epoch < fence {
            return refuse(reply, Status::Fenced, &format!("epoch {epoch} is below {fence}"));
        }
        self.0.fences.borrow_mut().insert(volume, epoch);
        // Also when the fence is durable already: the record flushes every earlier write before it.
        let durable: Vec<_> = self.shards().map(|s| s.set_fence(volume, epoch)).collect();
        let this = self.clone();
        self.0.rt.spawn(async move {
            if let Some(e) = join_all(durable).await.into_iter().find_map(Result::err) {
                return reply(store_refusal(&e), Bytes::new());
            }
            reply(this.fenced(volume, epoch), Bytes::new());
        });
    }

    fn fenced(&self, volume: VolumeId, epoch: Epoch) -> Reply {
        let fence = self.fence_of(volume);
        if epoch < fence {
            return Reply::error(Status::Fenced, format!("epoch {epoch} is below {fence}"));
        }
        self.0.served.borrow_mut().insert(volume, epoch);
        let replicas: Vec<_> = self.shards().flat_map(|s| s.replicas_of(volume)).map(summary).collect();
        if replicas.len() > MAX_SUMMARIES {
            return Reply::error(
                Status::Invalid,
                format!("more than {MAX_SUMMARIES} replicas of one volume on a core"),
            );
        }
        let disks = self.0.disks.keys().copied().collect();
        Reply::Fenced { disks, replicas }
    }

    pub(super) fn adopt(
        &self,
        volume: VolumeId,
        epoch: Epoch,
        replicas: Vec<(DiskId, ChunkId, ReplicaId)>,
        reply: ReplyFn,
    ) {
        let fence = self.fence_of(volume);
        if epoch < fence {
            return refuse(reply, Status::Fenced, &format!("epoch {epoch} is below {fence}"));
        }
        // Grouped by shard, so that a takeover of thousands of chunks is a few records.
        let mut by_shard = BTreeMap::new();
        for (disk, chunk, replica) in replicas {
            let Some((number, shard)) = self.shard_and_number(disk, chunk) else {
                return refuse(reply, Status::UnknownReplica, &format!("disk {disk} is not served by this core"));
            };
            if self.served_epoch(volume) != epoch {
                return refuse(reply, Status::FenceFirst, &format!("epoch {epoch} is not fenced here"));
            }
            if shard.replica(chunk).is_none_or(|r| r.replica != replica || r.volume != volume) {
                return refuse(reply, Status::UnknownReplica, &format!("replica {replica} is not here"));
            }
            let (_, chunks) = by_shard.entry((disk, number)).or_insert_with(|| (shard.clone(), Vec::<ChunkId>::new()));
            chunks.push(chunk);
        }
        let mut durable = vec![];
        for (shard, chunks) in by_shard.into_values() {
            // What corruption had lost has been compared and repaired: that comes before adopting.
            let damaged = chunks.iter().filter(|c| shard.replica(**c).is_some_and(|r| r.damaged));
            durable.extend(damaged.map(|c| shard.clear_damaged(*c)).collect::<Vec<_>>());
            durable.push(shard.set_adopted(epoch, chunks));
        }
        self.0.rt.spawn(async move {
            match join_all(durable).await.into_iter().find_map(Result::err) {
                Some(e) => reply(store_refusal(&e), Bytes::new()),
                None => reply(Reply::Done, Bytes::new()),
            }
        });
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<D, R>> {
        self.0.disks.values().flat_map(|d| d.mine.values())
    }
}

fn summary(m: ReplicaMeta) -> ReplicaSummary {
    ReplicaSummary {
        chunk: m.chunk,
        replica: m.replica,
        config: m.config,
        adopted: m.adopted,
        damaged: m.damaged,
        digest: m.digest,
        entries: m.entries,
        max_seq: m.max_seq,
        commit: levee_proto::Seq::ZERO,
    }
}
