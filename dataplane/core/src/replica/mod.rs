//! The replica's side of the protocol: what one core of a daemon answers to gateways.
//!
//! Owns the shards of this core. Every request is admitted or refused at once, in the order of
//! arrival; an admitted one is answered when it is durable. The rules (`docs/protocol.md`):
//!
//! - A request below the volume's fence is refused for ever, one above it until the fence is durable.
//! - A fence holds from the moment it arrives, and is answered for a disk only when it is durable on every shard of
//!   it that the core has, with every earlier write durable before it: logs are first in, first out.
//! - Whoever has not fenced a disk, by its name, since we opened it is refused, too: a gateway that did not notice is
//!   to hear what the disk holds now.
//! - A disk that fails, or hangs, fails alone.
//! - Guests' reads are served only for the epoch that the replica has adopted.
//! - Replicas exist only by an explicit `Create`.
//! - A snapshot that is known to be complete here is read by anybody.

mod admit;
mod adopt;
mod disks;
mod fence;
mod scan;
mod tally;
mod versions;

pub use disks::DiskShards;
pub use fence::MAX_EPOCH_GAP;

use crate::ports::{Disk, Runtime};
use crate::store::{NewReplica, Shard, StoreError};
use bytes::Bytes;
use disks::ServedDisk;
use levee_proto::wire::{BlockEntry, BlockKind, MAX_LIST, Reply, Request, Status, Target};
use levee_proto::{ChunkId, DiskId, Epoch, Era, Fence, ReplicaId, Seq, Version, View, VolumeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// Called once with the answer.
pub type ReplyFn = Box<dyn FnOnce(Reply, Bytes)>;

/// All replicas of one core. A cheap handle.
pub struct ReplicaService<D: Disk, R: Runtime>(Rc<Inner<D, R>>);

struct Inner<D: Disk, R: Runtime> {
    rt: R,
    disks: RefCell<BTreeMap<DiskId, Rc<ServedDisk<D, R>>>>,
    /// The highest fence asked for, durable or not: what is below is refused.
    fences: RefCell<BTreeMap<VolumeId, Fence>>,
    /// Those of which the meta server says that they are not in their first.
    eras: RefCell<BTreeMap<VolumeId, Era>>,
}

impl<D: Disk, R: Runtime> Clone for ReplicaService<D, R> {
    fn clone(&self) -> Self {
        ReplicaService(self.0.clone())
    }
}

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    /// Serves the given shards. Fences that were durable on any of them hold on all.
    pub fn new(rt: R, disks: BTreeMap<DiskId, DiskShards<D, R>>) -> Self {
        let service = ReplicaService(Rc::new(Inner {
            rt,
            disks: RefCell::default(),
            fences: RefCell::default(),
            eras: RefCell::default(),
        }));
        for (id, shards) in disks {
            service.replace_disk(id, shards);
        }
        service
    }

    /// Answers one request through `reply`, now or later. Hello and Ping belong to the link.
    pub fn handle(&self, request: Request, data: Bytes, reply: ReplyFn) {
        match request {
            Request::Write { .. } => self.write(request, data, reply),
            Request::Read { target, block, count, view, reconcile } => {
                self.read(target, block..block + count, view, reconcile, reply);
            }
            Request::Repair { .. } => self.repair(request, data, reply),
            Request::Fence { volume, era, epoch, disks } => self.fence(volume, Fence::new(era, epoch), &disks, reply),
            Request::Replicas { volume, epoch, disk, after, max } => {
                reply(self.replicas(volume, epoch, disk, after, max), Bytes::new());
            }
            Request::Create { target, adopted } => self.create(target, adopted, reply),
            Request::List { target, from, from_version, max, above } => {
                self.list(target, (from, from_version), max, above, reply);
            }
            Request::Adopt { volume, epoch, replicas } => self.adopt(volume, epoch, replicas, reply),
            Request::Commit { volume, epoch, points } => self.commit(volume, epoch, points, reply),
            Request::Scan { target, block, count } => self.scan(target, block..block + count, reply),
            Request::Ping => reply(Reply::Done, Bytes::new()),
            Request::Hello(_) | Request::Enter { .. } => refuse(reply, Status::Invalid, "hello on an open link"),
            Request::ReadVersions { target, block, count, from_version, reconcile } => {
                self.read_versions(target, block..block + count, from_version, reconcile, reply);
            }
            Request::Prune { volume, epoch, keep, replicas } => self.prune(volume, epoch, &keep, replicas, reply),
            Request::Seal { volume, epoch, version, replicas } => self.seal(volume, epoch, version, replicas, reply),
            Request::ReadShared { volume, chunk, replica, disk, view, block, count } => {
                self.read_shared(volume, (disk, chunk, replica), view, block..block + count, reply);
            }
            Request::Presence { volume, chunk, replica, disk, view } => {
                self.presence(volume, (disk, chunk, replica), &view, reply);
            }
            Request::PresentData { volume, chunk, replica, disk, view } => {
                self.present_data(volume, (disk, chunk, replica), &view, reply);
            }
            Request::Tally { target, views } => self.tally(target, views, reply),
        }
    }

    fn write(&self, request: Request, data: Bytes, reply: ReplyFn) {
        let Request::Write { target, kind, version, seq, block, count, crcs } = request else { unreachable!() };
        let shard = match self.admit(&target) {
            Ok((shard, _)) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        if seq.epoch() != target.epoch {
            return refuse(reply, Status::Invalid, "seq of another epoch");
        }
        if kind == BlockKind::Data && !crcs.verify(&data) {
            return refuse(reply, Status::BadChecksum, "data does not match its checksum");
        }
        let durable = shard.write(target.chunk, kind, version, seq, block, count, crcs, data);
        self.answer_when_done(durable, reply);
    }

    fn repair(&self, request: Request, data: Bytes, reply: ReplyFn) {
        let Request::Repair { target, scope, entries } = request else { unreachable!() };
        let shard = match self.admit(&target) {
            Ok((shard, _)) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        if entries.iter().any(|e| e.seq.epoch() > target.epoch) {
            return refuse(reply, Status::Invalid, "entry of a later epoch");
        }
        if names_twice(&entries) {
            return refuse(reply, Status::Invalid, "entry that is named twice");
        }
        let blocks = data.chunks_exact(levee_proto::BLOCK_SIZE);
        let stated = entries.iter().filter(|e| e.kind == BlockKind::Data);
        if !blocks.zip(stated).all(|(b, e)| crc32c::crc32c(b) == e.crc) {
            return refuse(reply, Status::BadChecksum, "data does not match its checksum");
        }
        let durable = shard.repair(target.chunk, target.epoch, scope, entries, data);
        self.answer_when_done(durable, reply);
    }

    /// Admits a read by the volume's gateway.
    fn admit_read(&self, target: &Target, reconcile: bool) -> Result<Shard<D, R>, Reply> {
        let (shard, meta) = self.admit(target)?;
        if meta.damaged || (!reconcile && meta.adopted != target.epoch && !crate::mutant!("read before adopted")) {
            return Err(Reply::error(Status::NotAdopted, "the replica has not adopted this epoch"));
        }
        Ok(shard)
    }

    fn read(&self, target: Target, blocks: Range<u32>, view: View, reconcile: bool, reply: ReplyFn) {
        let shard = match self.admit_read(&target, reconcile) {
            Ok(shard) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        self.0.rt.spawn(async move {
            match shard.read(target.chunk, blocks.start, blocks.end - blocks.start, &view).await {
                Ok((entries, data)) => reply(Reply::Read { entries }, data),
                Err(e) => reply(store_refusal(&e), Bytes::new()),
            }
        });
    }

    fn list(&self, target: Target, (block, version): (u32, Version), max: u32, above: Seq, reply: ReplyFn) {
        match self.admit(&target) {
            Ok((shard, _)) => {
                let max = max.min(MAX_LIST as u32) as usize;
                let (entries, more) = shard.entries(target.chunk, block, version, max, above);
                reply(Reply::List { entries, more }, Bytes::new());
            }
            Err(refusal) => reply(refusal, Bytes::new()),
        }
    }

    fn create(&self, target: Target, adopted: bool, reply: ReplyFn) {
        let shard = match self.admit_volume(&target) {
            Ok(shard) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        match shard.replica(target.chunk) {
            Some(r) if r.volume != target.volume => return refuse(reply, Status::Invalid, "chunk of another volume"),
            Some(r) if r.replica == target.replica => return reply(Reply::Done, Bytes::new()),
            Some(r) if r.replica > target.replica => {
                return refuse(reply, Status::UnknownReplica, "a newer replica of the chunk is here");
            }
            _ => {}
        }
        let durable = shard.create_replica(NewReplica {
            volume: target.volume,
            chunk: target.chunk,
            replica: target.replica,
            config: target.config,
            adopted: if adopted { target.epoch } else { Epoch(0) },
        });
        if crate::mutant!("replica answered before it is made") {
            return reply(Reply::Done, Bytes::new());
        }
        self.answer_when_done(durable, reply);
    }

    /// Drops a replica that the meta server says nothing needs any more. `Ok` when it is durably gone.
    pub async fn delete(&self, disk: DiskId, chunk: ChunkId, replica: ReplicaId) -> Result<(), StoreError> {
        let Some(served) = self.disk(disk) else { return Err(StoreError::NoSuchDisk(disk)) };
        let Some((_, shard)) = served.shard(chunk) else { return Ok(()) };
        match shard.failed() {
            Some(e) => Err(e),
            None if shard.replica(chunk).is_some_and(|r| r.replica == replica) => {
                shard.delete_replica(chunk, replica).await
            }
            None => Ok(()),
        }
    }

    fn answer_when_done(&self, durable: impl Future<Output = Result<(), StoreError>> + 'static, reply: ReplyFn) {
        self.0.rt.spawn(async move {
            match durable.await {
                Ok(()) => reply(Reply::Done, Bytes::new()),
                Err(e) => reply(store_refusal(&e), Bytes::new()),
            }
        });
    }
}

/// Whether two entries are about the same block and version. They come in order, as a rule.
fn names_twice(entries: &[BlockEntry]) -> bool {
    let named = |e: &BlockEntry| (e.block, e.version);
    if entries.is_sorted_by(|a, b| (a.block, b.version) < (b.block, a.version)) {
        return false;
    }
    let mut seen = BTreeSet::new();
    !entries.iter().all(|e| seen.insert(named(e)))
}

fn refuse(reply: ReplyFn, status: Status, detail: &str) {
    reply(Reply::error(status, detail), Bytes::new());
}

fn store_refusal(e: &StoreError) -> Reply {
    let status = match e {
        StoreError::Full => Status::Full,
        StoreError::Corrupt { .. } => Status::Corrupt,
        StoreError::UnknownReplica(_) => Status::UnknownReplica,
        StoreError::Invalid(_) => Status::Invalid,
        _ => Status::Io,
    };
    Reply::error(status, e.to_string())
}
