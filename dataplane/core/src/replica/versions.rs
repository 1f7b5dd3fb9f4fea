//! Snapshots: all versions of blocks for copies, what is dropped when a snapshot is gone, seals, and reads by anybody.
//!
//! A snapshot is complete at a replica when its gateway has sealed it there: the replica then holds everything that was ever
//! written up to that version. Nothing can change that any more, so whoever asks is answered, whatever the volume's epoch and
//! set of replicas have become.

use super::admit::not_served;
use super::adopt::Named;
use super::{ReplicaService, ReplyFn, refuse, store_refusal};
use crate::ports::{Disk, Runtime};
use crate::store::{Seal, Shard, StoreError};
use crate::sync::join_all;
use bytes::Bytes;
use levee_proto::view::Keep;
use levee_proto::wire::{BlockEntry, BlockKind, MAX_BLOCKS, MAX_VERSION_ENTRIES, Reply, Status, Target};
use levee_proto::{ChunkId, Epoch, Seq, Version, View, VolumeId};
use std::ops::Range;
use std::time::Duration;

/// Between two steps of pruning, so that it never starves guests.
const PAUSE: Duration = Duration::from_micros(1);

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    pub(super) fn read_versions(
        &self,
        target: Target,
        blocks: Range<u32>,
        from_version: Version,
        reconcile: bool,
        reply: ReplyFn,
    ) {
        let shard = match self.admit_read(&target, reconcile) {
            Ok(shard) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        self.0.rt.spawn(async move {
            let most = (MAX_VERSION_ENTRIES, MAX_BLOCKS as usize);
            let (entries, more) = listed(&shard, target.chunk, &blocks, from_version, most);
            match read_listed(&shard, target.chunk, &entries).await {
                Ok((entries, data)) => reply(Reply::ReadVersions { entries, more }, data),
                Err(e) => reply(store_refusal(&e), Bytes::new()),
            }
        });
    }

    pub(super) fn prune(&self, volume: VolumeId, epoch: Epoch, keep: &[View], replicas: Vec<Named>, reply: ReplyFn) {
        let by_shard = match self.admit_list(volume, epoch, replicas, |r| *r) {
            Ok(by_shard) => by_shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        if keep.is_empty() {
            return refuse(reply, Status::Invalid, "pruning that keeps no view, not even the head's");
        }
        let (keep, this) = (Keep::new(keep), self.clone());
        self.0.rt.spawn(async move {
            let mut dropped = 0;
            for (shard, replicas) in by_shard.into_values() {
                for named in replicas {
                    match this.prune_one(&shard, volume, epoch, &keep, named).await {
                        Ok(n) => dropped += n,
                        Err(refusal) => return reply(refusal, Bytes::new()),
                    }
                }
            }
            reply(Reply::Pruned { dropped }, Bytes::new());
        });
    }

    /// Step by step, each durable before the next; a newer gateway ends it: it may know of views that this one does not.
    async fn prune_one(
        &self,
        shard: &Shard<D, R>,
        volume: VolumeId,
        epoch: Epoch,
        keep: &Keep,
        (_, chunk, replica): Named,
    ) -> Result<u64, Reply> {
        let (mut dropped, mut next) = (0, Some(0));
        while let Some(from) = next {
            let fence = self.fence_of(volume);
            if epoch < fence.epoch() {
                return Err(Reply::error(Status::Fenced, format!("epoch {epoch} is below {fence}")));
            }
            let step = shard.prune(chunk, replica, epoch, keep, from);
            step.done.await.map_err(|e| store_refusal(&e))?;
            dropped += step.dropped;
            next = step.next;
            self.0.rt.sleep(PAUSE).await;
        }
        Ok(dropped)
    }

    pub(super) fn seal(&self, volume: VolumeId, epoch: Epoch, version: Version, replicas: Vec<Named>, reply: ReplyFn) {
        let by_shard = match self.admit_list(volume, epoch, replicas, |r| *r) {
            Ok(by_shard) => by_shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        let is_whole =
            |shard: &Shard<D, R>, chunk| shard.replica(chunk).is_some_and(|r| r.adopted == epoch && !r.damaged);
        if by_shard.values().any(|(shard, named)| named.iter().any(|(_, chunk, _)| !is_whole(shard, *chunk))) {
            return refuse(reply, Status::NotAdopted, "a replica that may lack entries cannot be sealed");
        }
        let seal = |(_, chunk, replica): Named| Seal { chunk, replica, version };
        let sealed =
            by_shard.into_values().map(|(s, named)| s.seal(epoch, &named.into_iter().map(seal).collect::<Vec<_>>()));
        let durable: Vec<_> = sealed.collect();
        self.answer_when_done(async move { join_all(durable).await.into_iter().collect() }, reply);
    }

    pub(super) fn read_shared(&self, volume: VolumeId, named: Named, view: View, blocks: Range<u32>, reply: ReplyFn) {
        let shard = match self.admit_shared(volume, named, &view) {
            Ok(shard) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        self.0.rt.spawn(async move {
            match shard.read(named.1, blocks.start, blocks.end - blocks.start, &view).await {
                Ok((entries, data)) => reply(Reply::Read { entries }, data),
                Err(e) => reply(store_refusal(&e), Bytes::new()),
            }
        });
    }

    pub(super) fn presence(&self, volume: VolumeId, named: Named, view: &View, reply: ReplyFn) {
        let found = self.bits(volume, named, view, Shard::presence).map(|bits| Reply::Presence { bits });
        reply(found.unwrap_or_else(|refusal| refusal), Bytes::new());
    }

    pub(super) fn present_data(&self, volume: VolumeId, named: Named, view: &View, reply: ReplyFn) {
        let found = self.bits(volume, named, view, Shard::present_data).map(|bits| Reply::PresentData { bits });
        reply(found.unwrap_or_else(|refusal| refusal), Bytes::new());
    }

    fn bits(
        &self,
        volume: VolumeId,
        named: Named,
        view: &View,
        find: impl FnOnce(&Shard<D, R>, ChunkId, &View) -> Result<Vec<u8>, StoreError>,
    ) -> Result<Bytes, Reply> {
        let shard = self.admit_shared(volume, named, view)?;
        find(&shard, named.1, view).map(Bytes::from).map_err(|e| store_refusal(&e))
    }

    /// Admits whoever asks for a snapshot that is complete here.
    fn admit_shared(&self, volume: VolumeId, (id, chunk, replica): Named, view: &View) -> Result<Shard<D, R>, Reply> {
        let Some(disk) = self.disk(id) else { return Err(Reply::error(Status::Io, not_served(id))) };
        let Some((_, shard)) = disk.shard(chunk) else {
            return Err(Reply::error(Status::Invalid, format!("chunk {chunk} is not this core's")));
        };
        if let Some(e) = shard.failed() {
            return Err(store_refusal(&e));
        }
        match shard.replica(chunk).filter(|r| r.replica == replica && r.volume == volume) {
            None => Err(Reply::error(Status::UnknownReplica, format!("replica {replica} is not here"))),
            Some(r) if r.damaged || r.sealed < view.version => {
                let detail = format!("version {} is not known to be complete here", view.version);
                Err(Reply::error(Status::NotSealed, detail))
            }
            Some(_) => Ok(shard.clone()),
        }
    }
}

/// The entries of `blocks`, beginning in the first with `from_version`: at most so many in all, and so many with data; and
/// whether there are more.
pub(super) fn listed<D: Disk, R: Runtime>(
    shard: &Shard<D, R>,
    chunk: ChunkId,
    blocks: &Range<u32>,
    from_version: Version,
    (most, most_data): (usize, usize),
) -> (Vec<BlockEntry>, bool) {
    let (mut entries, mut more) = shard.entries(chunk, blocks.start, from_version, most, Seq::ZERO);
    let in_range = entries.partition_point(|e| e.block < blocks.end);
    more &= in_range == entries.len();
    entries.truncate(in_range);
    let mut with_data = entries.iter().enumerate().filter(|(_, e)| e.kind == BlockKind::Data);
    if let Some((cut, _)) = with_data.nth(most_data) {
        entries.truncate(cut);
        more = true;
    }
    (entries, more)
}

/// Reads what was listed just now.
pub(super) async fn read_listed<D: Disk, R: Runtime>(
    shard: &Shard<D, R>,
    chunk: ChunkId,
    entries: &[BlockEntry],
) -> Result<(Vec<BlockEntry>, Bytes), StoreError> {
    let wanted: Vec<_> = entries.iter().map(|e| (e.block, e.version)).collect();
    shard.read_entries(chunk, &wanted).await
}
