//! Fencing: from its arrival on nobody else is served, and whoever fenced a disk is told what is there.
//!
//! A fence holds on all disks, and names those that it asks about: only they serve the epoch from then on. A gateway deals
//! with each disk by itself, and must not be served by one of which it has not heard since we were started.
//!
//! Disk by disk: one that has failed, or does not answer in time, is left out of the answer, and holds up none of
//! the others. Nothing is known then of what is on it; it is fenced by the next request that finds it working.
//!
//! What a disk holds is told page by page, as a volume may have any number of replicas there. Each page is what is true at its
//! moment. That is enough: what is said of a replica is said at once, nothing is concluded from two of them together, and between
//! the fence and a page only requests of this very epoch can have changed a replica (`docs/protocol.md`).

use super::admit::not_served;
use super::disks::ServedDisk;
use super::{ReplicaService, ReplyFn, store_refusal};
use crate::ports::{Disk, Runtime};
use crate::store::{ReplicaMeta, Shard};
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::wire::{MAX_FENCED_DISKS, MAX_SUMMARIES, ReplicaSummary, Reply, Status};
use levee_proto::{ChunkId, DiskId, Epoch, Era, Fence, VolumeId};
use std::rc::Rc;
use std::time::Duration;

/// How long a fence waits for a disk before it is answered without it: less than gateways wait for an answer, and
/// far more than a slow disk needs. A fence that does not wait for a slow disk can never be answered for it.
const FENCE_PATIENCE: Duration = Duration::from_secs(35);

/// How far above the volume's fence the next one may be. An epoch grows by one whenever the volume is opened, and who was away
/// has missed some; one message is not to use all of them up. Whoever is farther above comes nearer in steps.
pub const MAX_EPOCH_GAP: u32 = 1 << 20;
/// Volumes with a fence on one core: the cluster has fewer, and each is remembered for ever.
const MAX_FENCED_VOLUMES: usize = 1 << 21;

type Fenced<D, R> = Vec<(DiskId, Rc<ServedDisk<D, R>>)>;

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    pub(super) fn fence(&self, volume: VolumeId, fence: Fence, names: &[DiskId], reply: ReplyFn) {
        if let Err(refusal) = self.admit_fence(volume, fence) {
            return reply(refusal, Bytes::new());
        }
        self.0.fences.borrow_mut().insert(volume, fence);
        let disks: Fenced<D, R> = self.0.disks.borrow().iter().map(|(id, d)| (*id, d.clone())).collect();
        let (disks, others): (Fenced<D, R>, Fenced<D, R>) = disks.into_iter().partition(|(id, _)| names.contains(id));
        for shard in others.iter().flat_map(|(_, d)| d.shards.mine.values()).filter(|s| s.fence(volume) < fence) {
            // Nobody waits for it: each is asked about by itself before it serves the epoch.
            drop(shard.set_fence(volume, fence));
        }
        // Also when the fence is durable already: the record flushes every earlier write before it. All are asked for
        // before this returns, so what is admitted from now on comes behind them.
        let is_lazy = crate::mutant!("fence answered before it is durable");
        let set = |d: &ServedDisk<D, R>| d.shards.mine.values().map(|s| s.set_fence(volume, fence)).collect::<Vec<_>>();
        let asked = disks.into_iter().map(|(id, d)| (set(&d), id, d));
        let asked: Vec<_> = asked.map(|(t, id, d)| (if is_lazy { vec![] } else { t }, id, d)).collect();
        let this = self.clone();
        self.0.rt.spawn(async move {
            let done = join_all(asked.into_iter().map(|(durable, id, disk)| this.durably(durable, id, disk))).await;
            reply(this.fenced(volume, fence, done.into_iter().flatten().collect()), Bytes::new());
        });
    }

    /// The volumes that are not in their first era, as the meta server says. Nobody else can begin one.
    pub fn set_eras(&self, eras: impl IntoIterator<Item = (VolumeId, Era)>) {
        let mut known = self.0.eras.borrow_mut();
        for (volume, era) in eras {
            let highest = known.entry(volume).or_default();
            *highest = era.max(*highest);
        }
    }

    fn era_of(&self, volume: VolumeId) -> Era {
        let told = self.0.eras.borrow().get(&volume).copied().unwrap_or_default();
        told.max(self.fence_of(volume).era())
    }

    /// A fence is remembered for ever, so it has to be one that a gateway can have.
    fn admit_fence(&self, volume: VolumeId, fence: Fence) -> Result<(), Reply> {
        let (highest, era) = (self.fence_of(volume), self.era_of(volume));
        if (fence < highest || fence.era() < era) && !crate::mutant!("lower fence accepted") {
            crate::reached!("fence below the fence");
            return Err(Reply::error(Status::Fenced, format!("epoch {fence} is below {highest}, era {era}")));
        }
        if fence.era() > era {
            let detail = format!("nothing is known here yet of era {} of the volume's epochs", fence.era());
            return Err(Reply::error(Status::Unavailable, detail));
        }
        let base = if highest.era() == fence.era() { highest.epoch() } else { Epoch(0) };
        if fence.epoch().0 > base.0 + MAX_EPOCH_GAP {
            return Err(Reply::error(Status::FarAhead, format!("epoch {fence} is far above {highest}")));
        }
        if highest == Fence::NONE && self.0.fences.borrow().len() >= MAX_FENCED_VOLUMES {
            return Err(Reply::error(Status::Unavailable, "more volumes were fenced here than a cluster has"));
        }
        Ok(())
    }

    /// The disk, if all its shards of this core get there in time. What gets there later is not counted: nobody was
    /// told what the disk holds.
    async fn durably(
        &self,
        durable: Vec<crate::store::Ticket>,
        id: DiskId,
        disk: Rc<ServedDisk<D, R>>,
    ) -> Option<(DiskId, Rc<ServedDisk<D, R>>)> {
        let is_hasty = crate::mutant!("a fence does not wait for a slow disk");
        let patience = if is_hasty { FENCE_PATIENCE / 50 } else { FENCE_PATIENCE };
        match timeout(&self.0.rt, patience, join_all(durable)).await {
            Some(done) => match done.into_iter().find_map(Result::err) {
                None => return Some((id, disk)),
                Some(e) => tracing::debug!(disk = %id, "not fenced: {e}"),
            },
            None => tracing::warn!(disk = %id, "the disk does not answer: fences go on without it"),
        }
        None
    }

    fn fenced(&self, volume: VolumeId, fence: Fence, mut done: Fenced<D, R>) -> Reply {
        let highest = self.fence_of(volume);
        if fence < highest {
            return Reply::error(Status::Fenced, format!("epoch {fence} is below {highest}"));
        }
        // A disk that was put in meanwhile has not been fenced.
        done.retain(|(id, disk)| self.is_in(*id, disk));
        let has_gap = |d: &ServedDisk<D, R>| d.shards.mine.values().any(Shard::has_log_gap);
        let gaps = done.iter().filter(|(_, d)| has_gap(d)).map(|(id, _)| *id).collect();
        if done.len() > MAX_FENCED_DISKS {
            return Reply::error(Status::Invalid, format!("more than {MAX_FENCED_DISKS} disks on a core"));
        }
        done.iter().for_each(|(_, disk)| disk.serve(volume, fence.epoch()));
        Reply::Fenced { disks: done.into_iter().map(|(id, _)| id).collect(), gaps }
    }

    /// A page of what this core's part of a disk holds of the volume, for the epoch that has fenced it.
    pub(super) fn replicas(&self, volume: VolumeId, epoch: Epoch, id: DiskId, after: ChunkId, max: u32) -> Reply {
        let fence = self.fence_of(volume);
        if epoch < fence.epoch() {
            return Reply::error(Status::Fenced, format!("epoch {epoch} is below {fence}"));
        }
        let Some(disk) = self.disk(id) else { return Reply::error(Status::Io, not_served(id)) };
        if disk.served_epoch(volume) != epoch {
            crate::reached!("replicas asked for before the fence");
            return Reply::error(Status::FenceFirst, format!("epoch {epoch} is not fenced here"));
        }
        let shards = || disk.shards.mine.values();
        if let Some(e) = shards().find_map(Shard::failed) {
            return store_refusal(&e);
        }
        let max = (max as usize).clamp(1, MAX_SUMMARIES);
        // One more of each shard than is told: whether there are more.
        let mut found: Vec<_> = shards().flat_map(|s| s.replicas_of(volume, after, max + 1)).map(summary).collect();
        found.sort_by_key(|r| r.chunk);
        let more = found.len() > max;
        found.truncate(max);
        Reply::Replicas { replicas: found, more }
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
        commit: m.commit,
        sealed: m.sealed,
    }
}
