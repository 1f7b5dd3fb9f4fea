//! The shard: what callers see of the store.

use super::background;
use super::error::StoreError;
use super::firm;
use super::index::{Replica, ReplicaMeta};
use super::layout::ShardGeometry;
use super::limits::*;
use super::log;
use super::queue::Item;
use super::record::{CommitPoint, NewReplica, Record};
use super::recovery::{self, RecoveryReport};
use super::state::State;
use super::superblock::Superblock;
use super::tickets::{Earlier, Ticket, Write};
use crate::ports::{Disk, Runtime};
use crate::sync::Event;
use bytes::Bytes;
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, Scope};
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, ConfigNo, Epoch, Fence, ReplicaId, Seq, Version, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

const NO_VERSION: &str = "an entry at version 0";

/// How a shard is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The device keeps what it has acknowledged through a power failure: no syncs. Only the
    /// operator can know.
    pub power_safe_cache: bool,
}

/// How full a shard is. Bytes, but for the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What may hold live data.
    pub capacity: u64,
    /// Live data.
    pub used: u64,
    pub segments: u32,
    pub free_segments: u32,
    /// Log that a restart would have to replay.
    pub replay: u64,
}

/// What a replica takes: its blocks with data, of all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaBytes {
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub bytes: u64,
}

/// One log on one region of a disk, owned by one executor. Clones are handles to the same shard.
///
/// Requests are enqueued when the function is called, in the order of the calls; the returned
/// [`Ticket`] completes when the request is durable and visible. Fences, epochs and the checksums
/// of incoming data are the caller's to check.
pub struct Shard<D: Disk, R: Runtime>(Rc<Inner<D, R>>);

impl<D: Disk, R: Runtime> Clone for Shard<D, R> {
    fn clone(&self) -> Self {
        Shard(self.0.clone())
    }
}

pub struct Inner<D, R> {
    pub disk: D,
    pub rt: R,
    pub geometry: ShardGeometry,
    pub options: Options,
    pub state: RefCell<State>,
    /// The log writer has something to look at.
    pub work: Event,
    /// The background task has.
    pub background: Event,
    /// A checkpoint was finished or given up, or a task has ended.
    pub checkpoints: Event,
    /// Tasks that have not ended.
    tasks: Cell<u32>,
}

impl<D: Disk, R: Runtime> Inner<D, R> {
    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let inner = self.clone();
        self.tasks.set(self.tasks.get() + 1);
        self.rt.spawn(async move {
            task.await;
            inner.tasks.set(inner.tasks.get() - 1);
            inner.checkpoints.notify();
        });
    }
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Recovers the shard and starts its tasks.
    pub async fn open(
        disk: D,
        rt: R,
        superblock: &Superblock,
        shard_no: u16,
        options: Options,
    ) -> Result<(Shard<D, R>, RecoveryReport), StoreError> {
        let geometry = superblock.shard(shard_no).ok_or(StoreError::NoSuchShard(shard_no))?;
        let recovered = recovery::recover(&disk, &geometry).await?;
        firm::make_durable(&disk, &geometry, &options, &recovered).await?;
        let (mut state, report) = (recovered.state, recovered.report);
        state.thin = disk.is_thin();
        let state = RefCell::new(state);
        let (work, background, checkpoints) = (Event::new(), Event::new(), Event::new());
        let inner =
            Rc::new(Inner { disk, rt, geometry, options, state, work, background, checkpoints, tasks: Cell::new(0) });
        inner.spawn(log::run(inner.clone()));
        inner.spawn(background::run(inner.clone()));
        let shard = Shard(inner);
        if !report.is_clean() {
            // What was found damaged must not depend on finding it again.
            match shard.checkpoint().await {
                Ok(()) => {}
                Err(StoreError::Full) => tracing::warn!(shard = shard_no, "no room to record what is damaged"),
                Err(e) => return Err(e),
            }
        }
        Ok((shard, report))
    }

    /// Why the shard has stopped, if it has: a write or sync failed, and all requests fail from then on. What it says of
    /// its replicas is what was true before.
    pub fn failed(&self) -> Option<StoreError> {
        self.0.state.borrow().failed.clone()
    }

    /// Whether the log has once lost something that may have made a replica: that one is not here is not to be
    /// taken for its never having been here. So for the rest of the disk's life.
    pub fn has_log_gap(&self) -> bool {
        self.0.state.borrow().log_gap
    }

    /// The volume's fence.
    pub fn fence(&self, volume: VolumeId) -> Fence {
        self.0.state.borrow().index.fence(volume)
    }

    /// All fences.
    pub fn fences(&self) -> Vec<(VolumeId, Fence)> {
        self.0.state.borrow().index.fences().collect()
    }

    /// What is known of the chunk's replica.
    pub fn replica(&self, chunk: ChunkId) -> Option<ReplicaMeta> {
        self.0.state.borrow().index.get(chunk).map(|r| r.meta())
    }

    /// The volume's replicas of chunks above `after`, by chunk, at most `max`.
    pub fn replicas_of(&self, volume: VolumeId, after: ChunkId, max: usize) -> Vec<ReplicaMeta> {
        self.0.state.borrow().index.of_volume(volume, after).take(max).map(|r| r.meta()).collect()
    }

    /// All replicas, by chunk.
    pub fn all_replicas(&self) -> Vec<ReplicaMeta> {
        self.0.state.borrow().index.replicas().map(|r| r.meta()).collect()
    }

    /// At most `max` entries that are not absent and have a larger seq than `above`, by block, of each the newest first, from
    /// version `from_version` of block `from` on, and whether there are more.
    pub fn entries(
        &self,
        chunk: ChunkId,
        from: u32,
        from_version: Version,
        max: usize,
        above: Seq,
    ) -> (Vec<BlockEntry>, bool) {
        let s = self.0.state.borrow();
        let Some(r) = s.index.get(chunk) else { return (Vec::new(), false) };
        let all = r.chains.all_from(from, from_version);
        let mut all = all.map(|(block, slot)| slot.entry(block)).filter(|e| e.seq > above);
        let entries = all.by_ref().take(max).collect();
        (entries, all.next().is_some())
    }

    /// Remembers the volume's fence, unless it is below one that is known; all requests made before are durable then, too.
    pub fn set_fence(&self, volume: VolumeId, fence: Fence) -> Ticket {
        self.enqueue_one(Record::Fence { volume, fence })
    }

    /// Makes an empty replica. Repeating does nothing; a higher replica id replaces a lower one.
    ///
    /// If the shard may have forgotten replicas, this may be one of them: it is born damaged. Not so with one that is new
    /// with its chunk (adopted from birth): nobody has been acknowledged anything by that one.
    pub fn create_replica(&self, new: NewReplica) -> Ticket {
        let damaged = self.has_log_gap() && new.adopted == Epoch(0);
        self.enqueue_one(Record::Create { new, damaged })
    }

    /// Forgets the chunk, if this replica of it is here.
    pub fn delete_replica(&self, chunk: ChunkId, replica: ReplicaId) -> Ticket {
        self.enqueue_one(Record::Delete { chunk, replica })
    }

    /// Records that these chunks hold the reconciled state of `epoch`.
    pub fn set_adopted(&self, epoch: Epoch, chunks: Vec<ChunkId>) -> Ticket {
        if chunks.is_empty() {
            return self.flush();
        }
        let lists = chunks.chunks(MAX_ADOPT_CHUNKS);
        self.enqueue(lists.map(|list| item(Record::Adopt { epoch, chunks: list.to_vec() })))
    }

    /// Records commit points. Those of replicas that are damaged or have not adopted `epoch` are left out: what is true of
    /// their chunks need not be true of them. A point above what a replica holds is an error, and records none.
    pub fn set_commit(&self, epoch: Epoch, points: Vec<CommitPoint>) -> Ticket {
        let mut valid = Vec::with_capacity(points.len());
        for p in points {
            match self.replica(p.chunk).filter(|r| r.replica == p.replica) {
                Some(r) if r.damaged || r.adopted != epoch => {}
                Some(r) if r.max_seq < p.seq => {
                    return Ticket::refused(StoreError::Invalid("commit point above what the replica holds"));
                }
                Some(_) => valid.push(p),
                None => return Ticket::refused(StoreError::UnknownReplica(p.chunk)),
            }
        }
        if valid.is_empty() {
            return self.flush();
        }
        let lists = valid.chunks(MAX_COMMIT_POINTS);
        self.enqueue(lists.map(|list| item(Record::Commit { points: list.to_vec() })))
    }

    /// Records the config number; a lower one than is known does nothing.
    pub fn set_config(&self, chunk: ChunkId, config: ConfigNo) -> Ticket {
        self.enqueue_one(Record::Config { chunk, config })
    }

    /// The replica has been made whole from others.
    pub fn clear_damaged(&self, chunk: ChunkId) -> Ticket {
        self.enqueue_one(Record::ClearDamaged { chunk })
    }

    /// Writes `count` blocks at a version. Takes effect for each block whose entry of that version has a smaller seq.
    ///
    /// Made again, it is not written again: it is done when the first is. However often a gateway sends a write to a slow disk, it costs
    /// the disk no more.
    #[expect(clippy::too_many_arguments, reason = "a write has that many parts, and no one holds them as one")]
    pub fn write(
        &self,
        chunk: ChunkId,
        kind: BlockKind,
        version: Version,
        seq: Seq,
        block: u32,
        count: u32,
        crcs: Crcs,
        data: Bytes,
    ) -> Ticket {
        let blocks = if kind == BlockKind::Data { count as usize } else { 0 };
        let in_chunk = count > 0 && block.checked_add(count).is_some_and(|end| end <= BLOCKS_PER_CHUNK);
        if kind == BlockKind::Absent || !in_chunk || blocks * BLOCK > MAX_BATCH_DATA {
            return Ticket::refused(StoreError::Invalid("block range of a write"));
        }
        if version == Version(0) {
            return Ticket::refused(StoreError::Invalid(NO_VERSION));
        }
        if crcs.len() != blocks || data.len() != blocks * BLOCK {
            return Ticket::refused(StoreError::Invalid("length of a write"));
        }
        if let Some(first) = self.repeated(Write { chunk, version, seq, block, count }) {
            crate::reached!("repeated write joined the first");
            return first;
        }
        let growth =
            match self.admit(chunk, |s| if blocks == 0 { 0 } else { s.index.growth(chunk, version, block, count) }) {
                Ok(growth) => growth,
                Err(e) => return Ticket::refused(e),
            };
        self.note_taken(chunk, seq);
        let record = Record::Write { chunk, kind, version, seq, block, count, crcs };
        self.enqueue([Item { record, data, growth, last: true }])
    }

    /// If a write was made before: a ticket that completes when it is durable.
    fn repeated(&self, write: Write) -> Option<Ticket> {
        let s = self.0.state.borrow();
        let r = s.index.get(write.chunk)?;
        if write.seq > r.taken.get() {
            return None;
        }
        match s.foreground.tickets().earlier(write) {
            Earlier::UnderWay(ticket) => Some(ticket),
            Earlier::MayBeUndone => None,
            Earlier::NotUnderWay => {
                let mut blocks = write.block..write.block + write.count;
                blocks.all(|b| r.chains.get(b, write.version).seq() >= write.seq).then(Ticket::done)
            }
        }
    }

    fn note_taken(&self, chunk: ChunkId, seq: Seq) {
        if let Some(r) = self.0.state.borrow().index.get(chunk) {
            r.taken.set(r.taken.get().max(seq));
        }
    }

    /// Brings entries to the given states, as epoch `epoch` reconciled them: those of older epochs
    /// are replaced, those of `epoch` and later merged by seq. `data` holds the blocks of kind Data, unless these are gone by the
    /// scope: then they are noted as such, to be answered as corrupt, and a later repair brings them back.
    ///
    /// What is void by the scope is found now: repairs of the same blocks that are on their way must be done first.
    pub fn repair(
        &self,
        chunk: ChunkId,
        epoch: Epoch,
        scope: Scope,
        mut entries: Vec<BlockEntry>,
        data: Bytes,
    ) -> Ticket {
        let is_data = |e: &BlockEntry| e.kind == BlockKind::Data;
        if scope == Scope::Gone && !entries.iter().all(is_data) {
            return Ticket::refused(StoreError::Invalid("an entry without data that is to be gone"));
        }
        let blocks = if scope == Scope::Gone { 0 } else { entries.iter().filter(|e| is_data(e)).count() };
        if data.len() != blocks * BLOCK || data.len() > MAX_CALL_DATA {
            return Ticket::refused(StoreError::Invalid("length of a repair"));
        }
        if entries.iter().any(|e| e.block >= BLOCKS_PER_CHUNK) {
            return Ticket::refused(StoreError::Invalid("block of a repair"));
        }
        if entries.iter().any(|e| e.kind != BlockKind::Absent && e.version == Version(0)) {
            return Ticket::refused(StoreError::Invalid(NO_VERSION));
        }
        self.add_void(chunk, epoch, scope, &mut entries);
        if entries.is_empty() {
            return self.flush();
        }
        if scope == Scope::Gone {
            let lists = entries.chunks(MAX_REPAIR_ENTRIES);
            return match self.admit(chunk, |_| 0) {
                Ok(_) => self.enqueue(lists.map(|list| item(Record::Gone { chunk, epoch, entries: list.to_vec() }))),
                Err(e) => Ticket::refused(e),
            };
        }
        let new_data =
            |s: &State, e: &&BlockEntry| e.kind == BlockKind::Data && s.index.growth(chunk, e.version, e.block, 1) > 0;
        if let Err(e) = self.admit(chunk, |s| entries.iter().filter(|e| new_data(s, e)).count() as u32) {
            return Ticket::refused(e);
        }
        self.enqueue(repair_items(chunk, epoch, &entries, data))
    }

    /// Adds, as absent, what is here within a scope and older than the epoch, and is not among the entries.
    fn add_void(&self, chunk: ChunkId, epoch: Epoch, scope: Scope, entries: &mut Vec<BlockEntry>) {
        let Scope::Versions { block, count, first, last } = scope else { return };
        let s = self.0.state.borrow();
        let Some(r) = s.index.get(chunk) else { return };
        let named: BTreeSet<_> = entries.iter().map(|e| (e.block, e.version)).collect();
        let here = r.chains.all_from(block, Version::MAX).take_while(|(b, _)| *b - block < count);
        let in_scope = here.filter(|(b, s)| (first..=last).contains(&s.version) && !named.contains(&(*b, s.version)));
        let void = in_scope.filter(|(_, s)| s.seq().epoch() < epoch);
        entries.extend(void.map(|(b, s)| BlockEntry { version: s.version, ..BlockEntry::absent(b) }));
    }

    /// How full the shard is.
    pub fn usage(&self) -> Usage {
        let s = self.0.state.borrow();
        Usage {
            capacity: s.usable_blocks() * BLOCK as u64,
            used: s.segments.live_blocks() * BLOCK as u64,
            segments: s.segments.count(),
            free_segments: s.segments.free(),
            replay: s.checkpoint.log_bytes,
        }
    }

    /// What each replica takes, as the index counts it: those of chunks from `from` on, by chunk, at most `max`.
    pub fn replica_bytes(&self, from: ChunkId, max: usize) -> Vec<ReplicaBytes> {
        let s = self.0.state.borrow();
        let of = |r: &Replica| ReplicaBytes {
            chunk: r.chunk,
            replica: r.replica,
            bytes: u64::from(r.chains.data_entries()) * BLOCK as u64,
        };
        s.index.replicas_from(from).take(max).map(of).collect()
    }

    /// Completes when all requests made so far are durable.
    pub fn flush(&self) -> Ticket {
        match self.0.state.borrow().failed.clone() {
            Some(e) => Ticket::refused(e),
            None => self.0.state.borrow().foreground.tickets().last(),
        }
    }

    /// Writes a checkpoint, so that a restart replays only what comes after this call.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let mine = {
            let s = &mut *self.0.state.borrow_mut();
            s.checkpoint.requested += 1;
            s.checkpoint.requested
        };
        self.0.background.notify();
        loop {
            let changed = self.0.checkpoints.listen();
            {
                let s = self.0.state.borrow();
                if let Some(e) = &s.failed {
                    return Err(e.clone());
                }
                if s.checkpoint.served >= mine {
                    return if s.checkpoint.no_room { Err(StoreError::Full) } else { Ok(()) };
                }
                if s.stopping {
                    return Err(StoreError::Closed);
                }
            }
            changed.await;
        }
    }

    /// Completes what was asked, refuses what comes, writes a checkpoint and ends the tasks.
    ///
    /// A shard that has failed answers with its error, but not before its tasks have ended: from then on nothing is
    /// written any more, and the shard may be opened again.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.state.borrow_mut().closing = true;
        let flushed = self.flush().await;
        let written = match flushed {
            Ok(()) => self.checkpoint().await,
            Err(e) => Err(e),
        };
        self.0.state.borrow_mut().stopping = true;
        self.0.work.notify();
        self.0.background.notify();
        self.0.checkpoints.notify();
        loop {
            let changed = self.0.checkpoints.listen();
            if self.0.tasks.get() == 0 {
                return written;
            }
            changed.await;
        }
    }

    pub(super) fn inner(&self) -> &Inner<D, R> {
        &self.0
    }

    /// Checks that there is a replica, and room for what a request adds.
    fn admit(&self, chunk: ChunkId, growth: impl FnOnce(&State) -> u32) -> Result<u32, StoreError> {
        let s = self.0.state.borrow();
        if s.index.get(chunk).is_none() {
            return Err(StoreError::UnknownReplica(chunk));
        }
        let growth = growth(&s);
        if s.has_room_for(growth) { Ok(growth) } else { Err(StoreError::Full) }
    }

    fn enqueue_one(&self, record: Record) -> Ticket {
        self.enqueue([item(record)])
    }

    pub(super) fn enqueue(&self, items: impl IntoIterator<Item = Item>) -> Ticket {
        let ticket = {
            let s = &mut *self.0.state.borrow_mut();
            if let Some(e) = &s.failed {
                return Ticket::refused(e.clone());
            }
            if s.closing {
                return Ticket::refused(StoreError::Closed);
            }
            s.foreground.push(items)
        };
        self.0.work.notify();
        ticket
    }
}

pub fn item(record: Record) -> Item {
    Item { record, data: Bytes::new(), growth: 0, last: false }
}

/// Cuts a repair into records that fit a batch.
fn repair_items(chunk: ChunkId, epoch: Epoch, entries: &[BlockEntry], mut data: Bytes) -> Vec<Item> {
    const MAX_BLOCKS: usize = MAX_BATCH_DATA / BLOCK;
    let lists = entries.chunks(MAX_REPAIR_ENTRIES.min(MAX_BLOCKS));
    let mut items = Vec::with_capacity(lists.len());
    for list in lists {
        let blocks = list.iter().filter(|e| e.kind == BlockKind::Data).count();
        let record = Record::Repair { chunk, epoch, entries: list.to_vec() };
        items.push(Item { record, data: data.split_to(blocks * BLOCK), growth: blocks as u32, last: false });
    }
    items
}
