//! Requests that look right: about copies that there are, at epochs that are served, with some numbers that are not.

use std::collections::BTreeMap;

use bytes::Bytes;
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, Malformed, Reply, Request, Scope, Target};
use levee_proto::{
    BLOCK_SIZE, BLOCKS_PER_CHUNK, ChunkId, ConfigNo, DiskId, Epoch, Era, NodeId, ReplicaId, Seq, Version, View,
    VolumeId,
};

use super::super::bytes::{mutate, odd_number};
use crate::limits::{FUZZ_KNOWN, MAX_FUZZ_DISKS};
use crate::rng::Rng;

/// One of a number of fields is none that the volume ever had.
const ODD_PERCENT: u64 = 4;

/// What the attacker has heard.
pub struct Known {
    victim: VolumeId,
    bystander: VolumeId,
    /// Copies of the victim on each node.
    copies: BTreeMap<NodeId, Vec<(DiskId, ChunkId, ReplicaId)>>,
    /// What each node serves.
    epochs: BTreeMap<NodeId, Epoch>,
}

impl Known {
    pub fn new(victim: VolumeId, bystander: VolumeId) -> Known {
        Known { victim, bystander, copies: BTreeMap::new(), epochs: BTreeMap::new() }
    }

    /// Remembers what an answer tells.
    pub fn learn(&mut self, node: NodeId, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Fence { volume, epoch, .. }, Reply::Fenced { .. }) if *volume == self.victim => {
                self.epochs.insert(node, *epoch);
            }
            (Request::Replicas { volume, disk, .. }, Reply::Replicas { replicas, .. }) if *volume == self.victim => {
                let copies = self.copies.entry(node).or_default();
                let found = replicas.iter().map(|r| (*disk, r.chunk, r.replica));
                let new: Vec<_> = found.filter(|copy| !copies.contains(copy)).collect();
                copies.extend(new);
                copies.truncate(FUZZ_KNOWN);
            }
            _ => {}
        }
    }

    /// Fences the victim a little higher, and asks what there is of it.
    pub fn look(&self, rng: &mut Rng) -> [Request; 2] {
        let highest = self.epochs.values().max().copied().unwrap_or(Epoch(1));
        let epoch = Epoch((highest.0 + rng.below(2) as u32).min(Epoch::MAX.0));
        let (volume, disk) = (self.victim, DiskId(rng.between(1, MAX_FUZZ_DISKS) as u32));
        let fence = Request::Fence { volume, era: Era(0), epoch, disks: vec![disk] };
        [fence, Request::Replicas { volume, epoch, disk, after: ChunkId(0), max: FUZZ_KNOWN as u32 }]
    }

    /// Any request to a node. What would be understood as one about the bystander is not sent.
    pub fn request(&self, rng: &mut Rng, node: NodeId) -> (Request, Bytes) {
        loop {
            let (request, data) = Draw { known: self, node, rng }.request();
            let (request, data) = if rng.chance(30) { self.damaged(rng, request, data) } else { (request, data) };
            if volume_of(&request) != Some(self.bystander) {
                return (request, data);
            }
        }
    }

    /// The request with its bytes changed, if that is still a request.
    fn damaged(&self, rng: &mut Rng, request: Request, data: Bytes) -> (Request, Bytes) {
        let mut meta = vec![];
        request.encode(&mut meta);
        mutate(rng, &mut meta);
        let decoded: Result<Request, Malformed> = Request::decode(request.kind(), meta.into(), data.len());
        (decoded.unwrap_or(request), data)
    }
}

/// The volume that a request concerns.
fn volume_of(request: &Request) -> Option<VolumeId> {
    match request {
        Request::Fence { volume, .. }
        | Request::Replicas { volume, .. }
        | Request::Adopt { volume, .. }
        | Request::Commit { volume, .. }
        | Request::Prune { volume, .. }
        | Request::Seal { volume, .. }
        | Request::ReadShared { volume, .. }
        | Request::Presence { volume, .. }
        | Request::PresentData { volume, .. } => Some(*volume),
        Request::Create { target, .. }
        | Request::Write { target, .. }
        | Request::Read { target, .. }
        | Request::ReadVersions { target, .. }
        | Request::List { target, .. }
        | Request::Repair { target, .. }
        | Request::Tally { target, .. }
        | Request::Scan { target, .. } => Some(target.volume),
        Request::Hello(_) | Request::Enter { .. } | Request::Ping => None,
    }
}

/// One request being made up.
struct Draw<'a> {
    known: &'a Known,
    node: NodeId,
    rng: &'a mut Rng,
}

impl Draw<'_> {
    fn odd(&mut self) -> bool {
        self.rng.chance(ODD_PERCENT)
    }

    fn request(mut self) -> (Request, Bytes) {
        let target = self.target();
        let (volume, epoch) = (target.volume, target.epoch);
        let named = vec![(target.disk, target.chunk, target.replica)];
        let (block, count) = self.range();
        let (view, version) = (self.view(), self.version());
        let (disk, after) = (target.disk, ChunkId(self.rng.below(4)));
        let request = match self.rng.below(20) {
            0..=3 => return self.write(target),
            4..=6 => return self.repair(target),
            7 => {
                let (era, epoch) = self.fence(epoch);
                Request::Fence { volume, era, epoch, disks: vec![target.disk] }
            }
            8 => Request::Create { target, adopted: self.rng.chance(50) },
            9 => Request::Read { target, block, count, view, reconcile: self.rng.chance(50) },
            10 => Request::ReadVersions { target, block, count, from_version: version, reconcile: self.rng.chance(50) },
            11 => Request::List {
                target,
                from: block,
                from_version: version,
                max: odd_number(self.rng) as u32,
                above: self.seq(epoch),
            },
            12 => Request::Adopt { volume, epoch, replicas: named },
            13 => {
                let seq = self.seq(epoch);
                Request::Commit { volume, epoch, points: vec![(target.disk, target.chunk, target.replica, seq)] }
            }
            14 => Request::Prune { volume, epoch, keep: vec![view], replicas: named },
            15 => Request::Seal { volume, epoch, version, replicas: named },
            16 => Request::Tally { target, views: vec![view] },
            17 => Request::Scan { target, block, count },
            18 => Request::Replicas { volume, epoch, disk, after, max: odd_number(self.rng) as u32 },
            _ => {
                let Target { chunk, replica, disk, .. } = target;
                match self.rng.below(3) {
                    0 => Request::ReadShared { volume, chunk, replica, disk, view, block, count },
                    1 => Request::Presence { volume, chunk, replica, disk, view },
                    _ => Request::PresentData { volume, chunk, replica, disk, view },
                }
            }
        };
        (request, Bytes::new())
    }

    fn target(&mut self) -> Target {
        let copies = self.known.copies.get(&self.node).map_or(&[][..], Vec::as_slice);
        let epoch = self.known.epochs.get(&self.node).copied().unwrap_or(Epoch(1));
        let any = (DiskId(1), ChunkId(1), ReplicaId(1));
        let (disk, chunk, replica) = if copies.is_empty() { any } else { *self.rng.pick(copies) };
        let mut target = Target { volume: self.known.victim, chunk, replica, disk, epoch, config: ConfigNo::FIRST };
        if self.odd() {
            target.volume = VolumeId(odd_number(self.rng));
        }
        if self.odd() {
            target.chunk = ChunkId(odd_number(self.rng));
        }
        if self.odd() {
            target.replica = ReplicaId(odd_number(self.rng));
        }
        if self.odd() {
            target.disk = DiskId(odd_number(self.rng) as u32);
        }
        if self.odd() {
            target.epoch = Epoch(odd_number(self.rng) as u32 & Epoch::MAX.0);
        }
        if self.odd() {
            target.config = ConfigNo(odd_number(self.rng) as u32);
        }
        target
    }

    fn fence(&mut self, epoch: Epoch) -> (Era, Epoch) {
        match self.rng.below(4) {
            0 => (Era(self.rng.next_u64() as u8), epoch),
            1 => (Era(0), Epoch::MAX),
            _ => (Era(0), Epoch((epoch.0 + self.rng.below(3) as u32).min(Epoch::MAX.0))),
        }
    }

    fn range(&mut self) -> (u32, u32) {
        let block = self.rng.below(u64::from(BLOCKS_PER_CHUNK) - 4) as u32;
        (block, self.rng.between(1, 4) as u32)
    }

    fn version(&mut self) -> Version {
        if self.odd() { Version(odd_number(self.rng) as u32) } else { Version(self.rng.between(1, 3) as u32) }
    }

    fn view(&mut self) -> View {
        View::of(self.version())
    }

    fn seq(&mut self, epoch: Epoch) -> Seq {
        if self.odd() {
            return Seq(odd_number(self.rng));
        }
        Seq::new(epoch, odd_number(self.rng) & Seq::MAX_COUNTER)
    }

    fn data(&mut self, blocks: u32) -> Bytes {
        vec![self.rng.next_u64() as u8; blocks as usize * BLOCK_SIZE].into()
    }

    fn write(&mut self, target: Target) -> (Request, Bytes) {
        let (block, count) = self.range();
        let kind = if self.rng.chance(70) { BlockKind::Data } else { BlockKind::Zero };
        let data = if kind == BlockKind::Data { self.data(count) } else { Bytes::new() };
        let crcs = Crcs::of(&data);
        let (version, seq) = (self.version(), self.seq(target.epoch));
        (Request::Write { target, kind, version, seq, block, count, crcs }, data)
    }

    fn repair(&mut self, target: Target) -> (Request, Bytes) {
        let (block, count) = self.range();
        let mut data = vec![];
        let mut entries = vec![];
        for n in 0..count {
            let kind = *self.rng.pick(&[BlockKind::Data, BlockKind::Zero, BlockKind::Absent]);
            let content = if kind == BlockKind::Data { self.data(1) } else { Bytes::new() };
            let crc = if kind == BlockKind::Data { crc32c::crc32c(&content) } else { 0 };
            data.extend_from_slice(&content);
            // The same block more than once, too.
            let block = block + if self.rng.chance(80) { n } else { 0 };
            entries.push(BlockEntry { block, kind, version: self.version(), seq: self.seq(target.epoch), crc });
        }
        let (first, last) = (self.version(), self.version());
        let scope = match self.rng.chance(50) {
            true => Scope::Named,
            false => Scope::Versions { block, count, first: first.min(last), last: first.max(last) },
        };
        (Request::Repair { target, scope, entries }, data.into())
    }
}
