//! A shard on a small disk, and the model that it is compared with.

use crate::store::superblock::format_as;
use crate::store::*;
use crate::testing::{CrashStyle, MemDisk, TestRuntime};
use bytes::Bytes;
use levee_proto::view::{Keep, View};
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, Scope};
use levee_proto::{ChunkId, ConfigNo, Epoch, Fence, ReplicaId, Seq, Version, VolumeId};
use std::collections::BTreeMap;

pub type TestShard = Shard<MemDisk, TestRuntime>;

pub const SEGMENT: u32 = 2 << 20;
pub const SEGMENTS: u32 = 16;
pub const VOLUME: VolumeId = VolumeId(1);
pub const CHUNK: ChunkId = ChunkId(11);

/// A block's content, told apart by a number.
pub fn block(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(512)
}

pub fn blocks(from: u64, count: u32) -> Bytes {
    (from..from + u64::from(count)).flat_map(block).collect::<Vec<u8>>().into()
}

/// What a volume that was never rolled back reads.
pub fn newest() -> View {
    View::of(Version::MAX)
}

pub fn seq(epoch: u32, counter: u64) -> Seq {
    Seq::new(Epoch(epoch), counter)
}

pub fn new_replica(chunk: ChunkId, replica: u64) -> NewReplica {
    NewReplica { volume: VOLUME, chunk, replica: ReplicaId(replica), config: ConfigNo(1), adopted: Epoch(1) }
}

/// A request, in a form that shard and model both take.
#[derive(Clone, Debug)]
pub enum Op {
    Create(ChunkId, u64),
    Delete(ChunkId, u64),
    /// Content `n`, `n + 1`, … from `block` on.
    Write {
        chunk: ChunkId,
        version: u32,
        seq: Seq,
        block: u32,
        count: u32,
        n: u64,
    },
    Zero {
        chunk: ChunkId,
        version: u32,
        seq: Seq,
        block: u32,
        count: u32,
    },
    /// One block to a state: content, zeros, or absent.
    Repair {
        chunk: ChunkId,
        epoch: u32,
        version: u32,
        block: u32,
        seq: Seq,
        to: Option<Option<u64>>,
    },
    Fence(u32),
    Adopt(u32, ChunkId),
    /// For a replica of which it is known that it takes it.
    Commit {
        epoch: u32,
        point: CommitPoint,
    },
    /// Likewise.
    Seal {
        epoch: u32,
        seal: Seal,
    },
    /// What is to be dropped by it is known.
    Prune {
        chunk: ChunkId,
        replica: ReplicaId,
        epoch: u32,
        keep: Vec<View>,
        drops: Vec<(Key, Seq)>,
    },
    /// Nothing is to be in a scope; what is void by it is known.
    Void {
        chunk: ChunkId,
        epoch: u32,
        scope: Scope,
        void: Vec<Key>,
    },
}

impl Op {
    fn repair_entry(version: u32, block: u32, seq: Seq, to: Option<Option<u64>>) -> BlockEntry {
        match to {
            Some(Some(n)) => {
                let crc = crc32c::crc32c(&self::block(n));
                BlockEntry { block, kind: BlockKind::Data, version: Version(version), seq, crc }
            }
            Some(None) => BlockEntry { block, kind: BlockKind::Zero, version: Version(version), seq, crc: 0 },
            None => BlockEntry { version: Version(version), ..BlockEntry::absent(block) },
        }
    }

    pub fn issue(&self, shard: &TestShard) -> Ticket {
        match *self {
            Op::Create(chunk, replica) => shard.create_replica(new_replica(chunk, replica)),
            Op::Delete(chunk, replica) => shard.delete_replica(chunk, ReplicaId(replica)),
            Op::Write { chunk, version, seq, block, count, n } => {
                let data = blocks(n, count);
                shard.write(chunk, BlockKind::Data, Version(version), seq, block, count, Crcs::of(&data), data)
            }
            Op::Zero { chunk, version, seq, block, count } => {
                shard.write(chunk, BlockKind::Zero, Version(version), seq, block, count, Crcs::none(), Bytes::new())
            }
            Op::Repair { chunk, epoch, version, block, seq, to } => {
                let data = to.flatten().map_or(Bytes::new(), |n| self::block(n).into());
                shard.repair(chunk, Epoch(epoch), Scope::Named, vec![Self::repair_entry(version, block, seq, to)], data)
            }
            Op::Fence(epoch) => shard.set_fence(VOLUME, Fence(epoch)),
            Op::Adopt(epoch, chunk) => shard.set_adopted(Epoch(epoch), vec![chunk]),
            Op::Commit { epoch, point } => shard.set_commit(Epoch(epoch), vec![point]),
            Op::Seal { epoch, seal } => shard.seal(Epoch(epoch), &[seal]),
            Op::Prune { chunk, replica, epoch, ref keep, ref drops } => {
                let step = shard.prune(chunk, replica, Epoch(epoch), &Keep::new(keep), 0);
                assert_eq!(step.dropped, drops.len() as u64);
                step.done
            }
            Op::Void { chunk, epoch, scope, .. } => shard.repair(chunk, Epoch(epoch), scope, vec![], Bytes::new()),
        }
    }
}

/// Block and version.
pub type Key = (u32, u32);

/// What a block holds at a version: seq and content, `None` for zeros.
pub type Held = (Seq, Option<u64>);

/// The same semantics, in the plainest way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub fence: u32,
    /// Replica id, adopted epoch, blocks.
    pub chunks: BTreeMap<ChunkId, (u64, u32, BTreeMap<Key, Held>)>,
    /// Commit points other than 0.
    pub commits: BTreeMap<ChunkId, Seq>,
    /// What is sealed, up to which version.
    pub seals: BTreeMap<ChunkId, u32>,
}

impl Model {
    pub fn apply(&mut self, op: &Op) {
        self.apply_part(op, u32::MAX);
    }

    /// Applies a write's first `part` blocks only.
    pub fn apply_part(&mut self, op: &Op, part: u32) {
        match *op {
            Op::Create(chunk, replica) => {
                if self.chunks.get(&chunk).is_none_or(|c| c.0 < replica) {
                    self.chunks.insert(chunk, (replica, 1, BTreeMap::new()));
                    self.commits.remove(&chunk);
                    self.seals.remove(&chunk);
                }
            }
            Op::Delete(chunk, replica) => {
                if self.chunks.get(&chunk).is_some_and(|c| c.0 == replica) {
                    self.chunks.remove(&chunk);
                    self.commits.remove(&chunk);
                    self.seals.remove(&chunk);
                }
            }
            Op::Write { chunk, version, seq, block, count, n } => {
                for i in 0..count.min(part) {
                    self.put(chunk, (block + i, version), seq, Some(n + u64::from(i)));
                }
            }
            Op::Zero { chunk, version, seq, block, count } => {
                (0..count.min(part)).for_each(|i| self.put(chunk, (block + i, version), seq, None));
            }
            Op::Repair { chunk, epoch, version, block, seq, to } => {
                self.repair(chunk, epoch, (block, version), seq, to)
            }
            Op::Fence(epoch) => self.fence = self.fence.max(epoch),
            Op::Adopt(epoch, chunk) => {
                if let Some(c) = self.chunks.get_mut(&chunk) {
                    c.1 = c.1.max(epoch);
                }
            }
            Op::Commit { point, .. } => {
                if self.chunks.get(&point.chunk).is_some_and(|c| c.0 == point.replica.0) {
                    let commit = self.commits.entry(point.chunk).or_default();
                    *commit = point.seq.max(*commit);
                }
            }
            Op::Seal { seal, .. } => {
                if self.chunks.get(&seal.chunk).is_some_and(|c| c.0 == seal.replica.0) {
                    let sealed = self.seals.entry(seal.chunk).or_default();
                    *sealed = seal.version.0.max(*sealed);
                }
            }
            Op::Prune { chunk, ref drops, .. } => {
                let Some((_, _, blocks)) = self.chunks.get_mut(&chunk) else { return };
                for (key, seq) in drops {
                    blocks.remove(key).filter(|held| held.0 != *seq).map(|held| blocks.insert(*key, held));
                }
            }
            Op::Void { chunk, epoch, ref void, .. } => {
                void.iter().for_each(|key| self.repair(chunk, epoch, *key, Seq::ZERO, None));
            }
        }
    }

    fn put(&mut self, chunk: ChunkId, key: Key, seq: Seq, to: Option<u64>) {
        let Some((_, _, blocks)) = self.chunks.get_mut(&chunk) else { return };
        if blocks.get(&key).is_none_or(|(old, _)| *old < seq) {
            blocks.insert(key, (seq, to));
        }
    }

    fn repair(&mut self, chunk: ChunkId, epoch: u32, key: Key, seq: Seq, to: Option<Option<u64>>) {
        let Some((_, _, blocks)) = self.chunks.get_mut(&chunk) else { return };
        let old = blocks.get(&key).map_or(Seq::ZERO, |b| b.0);
        let seq = if to.is_some() { seq } else { Seq::ZERO };
        if old.epoch().0 >= epoch && seq <= old {
            return;
        }
        match to {
            Some(to) => blocks.insert(key, (seq, to)),
            None => blocks.remove(&key),
        };
    }
}

pub struct World {
    pub rt: TestRuntime,
    pub disk: MemDisk,
    pub sb: Superblock,
}

impl World {
    pub fn new(seed: u64) -> World {
        World::sized(seed, SEGMENTS)
    }

    pub fn sized(seed: u64, segments: u32) -> World {
        let rt = TestRuntime::new(seed);
        let size = limits::SHARDS_START + limits::ROOT_AREA + u64::from(segments) * u64::from(SEGMENT);
        let sb = Superblock::with_layout(size, 1, [7; 16], SEGMENT, segments);
        let disk = MemDisk::new(size, seed);
        rt.block_on(format_as(&disk, &sb)).expect("formats");
        World { rt, disk, sb }
    }

    pub fn try_open(&self) -> Result<(TestShard, RecoveryReport), StoreError> {
        self.rt.block_on(Shard::open(self.disk.clone(), self.rt.clone(), &self.sb, 0, Options::default()))
    }

    /// Opens a shard that must be undamaged.
    pub fn open(&self) -> TestShard {
        let (shard, report) = self.try_open().expect("opens");
        assert!(report.is_clean() && report.damaged.is_empty(), "{report:?}");
        shard
    }

    /// Does it and waits for it.
    pub fn run(&self, shard: &TestShard, op: Op) -> Result<(), StoreError> {
        self.rt.block_on(op.issue(shard))
    }

    /// The process dies and the power fails.
    pub fn crash(&self, style: CrashStyle) {
        self.rt.abort_all();
        self.disk.crash(style);
    }

    /// The world on a copy of the disk.
    pub fn fork(&self, style: CrashStyle, seed: u64) -> World {
        World { rt: TestRuntime::new(seed), disk: self.disk.fork(style, seed), sb: self.sb.clone() }
    }

    /// The shard's whole state, with all data read and checked; corrupt blocks are errors.
    pub fn state(&self, shard: &TestShard) -> Result<Model, StoreError> {
        let mut model = Model { fence: shard.fence(VOLUME).0, ..Model::default() };
        for meta in shard.all_replicas() {
            let mut held = BTreeMap::new();
            let (entries, more) = shard.entries(meta.chunk, 0, Version::MAX, usize::MAX, Seq::ZERO);
            assert!(!more && entries.len() == meta.entries as usize);
            for e in entries {
                let is_head = held.range((e.block, 0)..=(e.block, u32::MAX)).next().is_none();
                let (read, data) = match is_head {
                    true => self.rt.block_on(shard.read(meta.chunk, e.block, 1, &newest()))?,
                    false => self.rt.block_on(shard.read_entries(meta.chunk, &[(e.block, e.version)]))?,
                };
                assert_eq!(read, [e]);
                let content = data.first_chunk().map(|b| u64::from_le_bytes(*b));
                assert_eq!(data, content.map_or(Bytes::new(), |n| block(n).into()));
                held.insert((e.block, e.version.0), (e.seq, content));
            }
            model.chunks.insert(meta.chunk, (meta.replica.0, meta.adopted.0, held));
            if meta.commit > Seq::ZERO {
                model.commits.insert(meta.chunk, meta.commit);
            }
            if meta.sealed > Version(0) {
                model.seals.insert(meta.chunk, meta.sealed.0);
            }
        }
        Ok(model)
    }

    pub fn assert_state(&self, shard: &TestShard, expected: &Model) {
        assert_eq!(&self.state(shard).expect("readable"), expected);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.rt.abort_all();
    }
}

pub fn write(counter: u64, block: u32, count: u32) -> Op {
    Op::Write { chunk: CHUNK, version: 1, seq: seq(1, counter), block, count, n: counter * 1000 }
}
