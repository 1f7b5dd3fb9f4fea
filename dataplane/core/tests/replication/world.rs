//! A whole cluster in one thread: storage nodes on failing disks, a network that delays and loses,
//! and a meta server that gives out epochs and chunks.
//!
//! A node has one disk with one shard on each of its [`CORES`], and fails as a whole. What becomes of each request can be
//! decided by a test ([`World::rule`]).

use bytes::Bytes;
use levee_core::gateway::{Accomplished, AllocError, Cluster, Done, Gateway, LinkDown, Options};
use levee_core::ports::Runtime;
use levee_core::replica::{DiskShards, MAX_EPOCH_GAP, ReplicaService};
use levee_core::shared::SharedBlocks;
use levee_core::store::{self, NewReplica, Options as StoreOptions, Shard};
use levee_core::sync::join_all;
use levee_core::testing::{CrashStyle, MemDisk, TestRng, TestRuntime};
use levee_proto::api::{
    ChangedReplicas, ChunkInfo, DiskState, MirrorInfo, OpenedVolume, ParentInfo, ReplicaChange, ReplicaPlace,
    VolumeVersions,
};
use levee_proto::wire::{Reply, Request, Status};
use levee_proto::{ChunkId, ConfigNo, DiskId, Epoch, Era, Geometry, NodeId, ReplicaId, Version, View, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Not;
use std::rc::Rc;
use std::time::Duration;

pub const VOLUME_SIZE: u64 = 512 << 20;
pub const DISK_SIZE: u64 = 256 << 20;
/// The volume that most tests are about.
pub const VOLUME: VolumeId = VolumeId(1);
/// Chunk ids of one volume.
const CHUNKS_OF_VOLUME: u64 = 1000;
/// Cores of a node, each with a shard of the disk.
const CORES: u16 = 2;
/// Replicas of which a fenced disk tells at a time: so few that there are several pages.
const PAGE: u32 = 1;
/// Bytes looked at together when a disk is searched.
const SEARCH_STEP: usize = 1 << 20;

pub type TestGateway = Gateway<TestRuntime, TestLinks>;
type Service = ReplicaService<MemDisk, TestRuntime>;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Deliver,
    /// The link breaks before it arrives.
    Lose,
    /// It is carried out, and the link breaks before the answer arrives.
    LoseAnswer,
    /// It never arrives, and nobody says so.
    Hold,
    /// It is carried out at once, and the answer arrives so many milliseconds later.
    Slow(u64),
    /// The data of its answer arrives with a bit flipped.
    Garble,
    /// It is not carried out, and answered with this.
    Refuse(Status),
}

/// Decides about a gateway's request to a node.
type Rule = Rc<dyn Fn(u64, NodeId, &Request) -> Fate>;

struct Node {
    disk: MemDisk,
    /// One per core; none while the node is down.
    services: Vec<Service>,
    /// As many.
    shards: Vec<Shard<MemDisk, TestRuntime>>,
    /// Counts lives: messages to an earlier one are lost.
    life: u64,
    /// It is stopped: takes messages, and answers them when it goes on.
    hung: bool,
    /// What it took meanwhile, in order.
    parked: Vec<Box<dyn FnOnce()>>,
}

/// What the meta server knows of a volume.
struct Volume {
    epoch: u32,
    era: Era,
    chunks: BTreeMap<u32, ChunkInfo>,
    versions: VolumeVersions,
    /// The snapshot that it was cloned from.
    parent: Option<(VolumeId, View)>,
    /// It is that snapshot, attached for reading.
    read_only: bool,
}

impl Volume {
    fn new(parent: Option<(VolumeId, View)>) -> Volume {
        let versions = VolumeVersions {
            number: 1,
            version: Version::FIRST,
            view: View::default(),
            size: VOLUME_SIZE,
            ..VolumeVersions::default()
        };
        Volume { epoch: 0, era: Era(0), chunks: BTreeMap::new(), versions, parent, read_only: false }
    }
}

/// A cheap handle.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    rt: TestRuntime,
    rng: RefCell<TestRng>,
    nodes: RefCell<BTreeMap<NodeId, Node>>,
    volumes: RefCell<BTreeMap<VolumeId, Volume>>,
    min_copies: u8,
    /// Counts gateways: a gateway's messages are lost when it is cut off.
    cut_off: RefCell<BTreeSet<u64>>,
    next_gateway: Cell<u64>,
    /// Per link: nothing arrives before this, so that order holds.
    arrivals: RefCell<BTreeMap<(u64, NodeId, u16), Duration>>,
    rule: RefCell<Option<Rule>>,
    /// Requests sent, by gateway.
    sent: RefCell<BTreeMap<u64, u64>>,
    /// Disks that are to be emptied.
    leaving: RefCell<BTreeMap<DiskId, DiskState>>,
    /// Single replicas that are to be moved, and where to.
    wanted: RefCell<BTreeMap<ReplicaId, NodeId>>,
    last_replica: Cell<u64>,
    /// Changes of replica sets that are carried out but whose answer is lost, and how many were made.
    mute_changes: Cell<bool>,
    changes: Cell<u64>,
    /// Chunks that were given back.
    freed: Cell<u64>,
    /// Volumes that have moved to the next version in a group, and whether their gateways hold answers back.
    moves: RefCell<Vec<(VolumeId, bool)>>,
    /// Volumes, what mirrors them, and how that is read.
    mirrors: RefCell<Vec<(VolumeId, VolumeId, View)>>,
    /// What the gateways that are opened from now on remember of snapshots.
    shared: RefCell<Option<SharedBlocks>>,
    /// Replicas of which a fenced disk tells them at a time.
    page: Cell<u32>,
}

impl World {
    pub async fn new(rt: &TestRuntime, seed: u64, nodes: u32, min_copies: u8) -> World {
        World::with_disks(rt, seed, nodes, min_copies, DISK_SIZE).await
    }

    /// As [`World::new`], with disks of another size.
    pub async fn with_disks(rt: &TestRuntime, seed: u64, nodes: u32, min_copies: u8, disk_size: u64) -> World {
        let world = World(Rc::new(Inner {
            rt: rt.clone(),
            rng: RefCell::new(TestRng::new(seed)),
            nodes: RefCell::default(),
            volumes: RefCell::new(BTreeMap::from([(VOLUME, Volume::new(None))])),
            min_copies,
            cut_off: RefCell::default(),
            next_gateway: Cell::new(0),
            arrivals: RefCell::default(),
            rule: RefCell::default(),
            sent: RefCell::default(),
            leaving: RefCell::default(),
            wanted: RefCell::default(),
            last_replica: Cell::new(1_000_000),
            mute_changes: Cell::new(false),
            changes: Cell::new(0),
            freed: Cell::new(0),
            moves: RefCell::default(),
            mirrors: RefCell::default(),
            shared: RefCell::default(),
            page: Cell::new(PAGE),
        }));
        for n in 1..=nodes {
            let disk = MemDisk::new(disk_size, seed ^ u64::from(n));
            store::format(&disk, disk_size, CORES, [n as u8; 16]).await.unwrap();
            world.0.nodes.borrow_mut().insert(
                NodeId(n),
                Node { disk, services: vec![], shards: vec![], life: 0, hung: false, parked: vec![] },
            );
            world.start(NodeId(n)).await;
        }
        world
    }

    pub fn rt(&self) -> &TestRuntime {
        &self.0.rt
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.0.rng.borrow_mut().below(bound)
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.0.nodes.borrow().keys().copied().collect()
    }

    /// Power fails at the node: what was not durable may be gone.
    pub fn kill(&self, node: NodeId) {
        let seed = self.0.rng.borrow_mut().next_u64();
        let mut nodes = self.0.nodes.borrow_mut();
        let n = nodes.get_mut(&node).unwrap();
        n.life += 1;
        n.services.clear();
        n.shards.clear();
        n.disk.power_off_after(0);
        n.disk = n.disk.fork(CrashStyle::Random, seed);
        let parked = std::mem::take(&mut n.parked);
        drop(nodes);
        parked.into_iter().for_each(|deliver| deliver());
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.0.nodes.borrow()[&node].services.is_empty().not()
    }

    /// Starts a node that was killed.
    pub async fn start(&self, node: NodeId) {
        assert!(self.start_damaged(node).await, "a crash loses nothing");
    }

    /// Starts a node whose disk may have been damaged; whether the store finds it whole.
    pub async fn start_damaged(&self, node: NodeId) -> bool {
        let disk = self.0.nodes.borrow()[&node].disk.clone();
        let superblock = store::read_superblock(&disk).await.unwrap();
        let (mut services, mut all, mut clean) = (vec![], vec![], true);
        for core in 0..CORES {
            let opened = Shard::open(disk.clone(), self.0.rt.clone(), &superblock, core, StoreOptions::default()).await;
            let (shard, report) = opened.unwrap();
            clean &= report.is_clean();
            all.push(shard.clone());
            let shards = DiskShards { total: CORES, mine: BTreeMap::from([(core, shard)]) };
            services.push(ReplicaService::new(self.0.rt.clone(), BTreeMap::from([(DiskId(node.0), shards)])));
        }
        let mut nodes = self.0.nodes.borrow_mut();
        let n = nodes.get_mut(&node).unwrap();
        (n.services, n.shards) = (services, all);
        clean
    }

    /// From now on gateways are opened on another host, which has so much room for what it remembers of snapshots.
    pub fn remember(&self, capacity: u64) -> SharedBlocks {
        let shared = SharedBlocks::new(capacity);
        self.0.shared.replace(shared.clone());
        shared.unwrap()
    }

    /// Blocks of data that a node stores.
    pub fn used_blocks(&self, node: NodeId) -> u64 {
        let nodes = self.0.nodes.borrow();
        nodes[&node].shards.iter().map(|s| s.usage().used / levee_proto::BLOCK_SIZE as u64).sum()
    }

    /// Starts a node that was killed, without its disk.
    pub fn start_without_disk(&self, node: NodeId) {
        let service = || ReplicaService::new(self.0.rt.clone(), BTreeMap::new());
        self.0.nodes.borrow_mut().get_mut(&node).unwrap().services = (0..CORES).map(|_| service()).collect();
    }

    /// From now on `rule` decides about every request.
    pub fn rule(&self, rule: impl Fn(u64, NodeId, &Request) -> Fate + 'static) {
        *self.0.rule.borrow_mut() = Some(Rc::new(rule));
    }

    /// Requests are delivered again.
    pub fn no_rule(&self) {
        *self.0.rule.borrow_mut() = None;
    }

    /// Requests that a gateway has sent.
    pub fn sent_by(&self, gateway: u64) -> u64 {
        self.0.sent.borrow().get(&gateway).copied().unwrap_or(0)
    }

    /// Where the node's disk holds a page with this content; the last place.
    pub fn find(&self, node: NodeId, content: &[u8]) -> Option<u64> {
        let disk = self.0.nodes.borrow()[&node].disk.clone();
        let mut steps = (0..DISK_SIZE as usize / SEARCH_STEP).rev().map(|step| (step * SEARCH_STEP) as u64);
        steps.find_map(|pos| {
            let bytes = disk.peek(pos, SEARCH_STEP);
            let page = bytes.chunks(content.len()).rposition(|page| page == content)?;
            Some(pos + (page * content.len()) as u64)
        })
    }

    /// The node's disk, to be damaged.
    pub fn disk(&self, node: NodeId) -> MemDisk {
        self.0.nodes.borrow()[&node].disk.clone()
    }

    /// The node stops answering, or goes on.
    pub fn hang(&self, node: NodeId, hung: bool) {
        let mut nodes = self.0.nodes.borrow_mut();
        let n = nodes.get_mut(&node).unwrap();
        n.hung = hung;
        let parked = if hung { vec![] } else { std::mem::take(&mut n.parked) };
        drop(nodes);
        parked.into_iter().for_each(|deliver| deliver());
    }

    /// Attaches the volume: a new epoch, a new gateway. Earlier ones go on as long as they can.
    pub fn attach(&self) -> (TestGateway, u64) {
        self.attach_volume(VOLUME)
    }

    /// Attaches any volume.
    pub fn attach_volume(&self, id: VolumeId) -> (TestGateway, u64) {
        self.attach_with(id, Options::default())
    }

    /// As the cluster opens a volume that nobody uses.
    pub fn attach_unused(&self) -> TestGateway {
        self.attach_with(VOLUME, Options { scrub_at_once: true, ..Options::default() }).0
    }

    fn attach_with(&self, id: VolumeId, options: Options) -> (TestGateway, u64) {
        let number = self.0.next_gateway.get();
        self.0.next_gateway.set(number + 1);
        let opened = self.opened(id);
        levee_core::gateway::check(&opened).unwrap();
        let shared = self.0.shared.borrow().clone();
        let links = TestLinks { world: self.clone(), gateway: number, volume: id, epoch: opened.epoch, shared };
        let options = Options { replicas_per_page: self.0.page.get(), ..options };
        let gateway = Gateway::open(self.0.rt.clone(), links, NodeId(1), opened, options);
        gateway.evacuate(self.0.leaving.borrow().clone());
        gateway.move_replicas(self.0.wanted.borrow().keys().copied().collect());
        (gateway, number)
    }

    /// The volume was opened so often already.
    pub fn set_epoch(&self, id: VolumeId, epoch: Epoch) {
        self.0.volumes.borrow_mut().get_mut(&id).unwrap().epoch = epoch.0;
    }

    /// Has the volume's epochs begin anew; a node hears of it with [`World::tell_era`].
    pub fn begin_era(&self, id: VolumeId) {
        let mut volumes = self.0.volumes.borrow_mut();
        let volume = volumes.get_mut(&id).unwrap();
        volume.era = volume.era.next().unwrap();
    }

    pub fn tell_era(&self, id: VolumeId, node: NodeId) {
        let era = self.0.volumes.borrow()[&id].era;
        self.0.nodes.borrow()[&node].services.iter().for_each(|s| s.set_eras([(id, era)]));
    }

    /// Somebody fences the volume on a node at ever larger epochs, until none is left.
    pub async fn spend_epochs(&self, id: VolumeId, node: NodeId) {
        let services = self.0.nodes.borrow()[&node].services.clone();
        let steps = (0..Epoch::MAX.0).step_by(MAX_EPOCH_GAP as usize / 2).skip(1).chain([Epoch::MAX.0]);
        for epoch in steps {
            let fence = Request::Fence { volume: id, era: Era(0), epoch: Epoch(epoch), disks: vec![] };
            services.iter().for_each(|s| s.handle(fence.clone(), Bytes::new(), Box::new(|_, _| {})));
        }
        self.0.rt.sleep(Duration::from_secs(1)).await;
    }

    /// What the meta server answers to the next gateway of a volume.
    pub fn opened(&self, id: VolumeId) -> OpenedVolume {
        self.0.volumes.borrow_mut().get_mut(&id).unwrap().epoch += 1;
        let (parent, volumes) = (self.parent(id), self.0.volumes.borrow());
        let volume = &volumes[&id];
        OpenedVolume {
            id,
            name: format!("v{id}"),
            epoch: Epoch(volume.epoch),
            era: volume.era,
            version: volume.versions.version,
            size: volume.versions.size,
            copies: 3,
            min_copies: self.0.min_copies,
            geometry: Geometry::default(),
            chunks: volume.chunks.values().cloned().collect(),
            more: false,
            view: volume.versions.view.clone(),
            snapshots: volume.versions.snapshots.clone(),
            sealed: volume.versions.sealed,
            parent,
            versions: VolumeVersions { epoch: Epoch(volume.epoch), ..volume.versions.clone() },
            read_only: volume.read_only,
        }
    }

    /// From now on the volume has another size, and a fenced disk tells of as many replicas at a time as a message has room for.
    pub fn enlarge(&self, size: u64) {
        self.change_versions(VOLUME, |v| v.size = size);
        self.0.page.set(Options::default().replicas_per_page);
    }

    /// All chunks of the volume are there, as if something had been written to each and thrown away: the gateway of an
    /// epoch has made them, which ended.
    pub async fn allocate_all(&self, epoch: Epoch) {
        let count = Geometry::default().chunk_count(self.versions(VOLUME).size);
        let chunks = self.allocate(VOLUME, epoch, (0..count).collect()).unwrap();
        for node in self.nodes() {
            let shards = self.0.nodes.borrow()[&node].shards.clone();
            let mut made = vec![];
            for chunk in &chunks {
                let here = chunk.replicas.iter().find(|r| r.node == node);
                let shard = &shards[usize::from(core_of(chunk.chunk))];
                made.extend(here.filter(|_| shard.replica(chunk.chunk).is_none()).map(|place| {
                    let (chunk, config) = (chunk.chunk, chunk.config);
                    let new = NewReplica { volume: VOLUME, chunk, replica: place.replica, config, adopted: epoch };
                    shard.create_replica(new)
                }));
            }
            assert!(join_all(made).await.iter().all(Result::is_ok));
        }
    }

    fn change_versions(&self, id: VolumeId, change: impl FnOnce(&mut VolumeVersions)) -> VolumeVersions {
        let mut volumes = self.0.volumes.borrow_mut();
        let volume = volumes.get_mut(&id).unwrap();
        let versions = &mut volume.versions;
        change(versions);
        versions.number += 1;
        VolumeVersions { epoch: Epoch(volume.epoch), ..volume.versions.clone() }
    }

    /// The meta server's part of taking a snapshot: it is pending. What the gateway is to be told, and the snapshot's view.
    pub fn begin_snapshot(&self, id: VolumeId) -> (VolumeVersions, View) {
        let view = self.versions(id).view;
        let versions = self.change_versions(id, |v| {
            v.pending = Some(v.version);
            v.snapshots.push(v.view.clone());
            v.version = v.version.next().unwrap();
            v.view.version = v.version;
        });
        (versions, view)
    }

    /// Another volume than the first.
    pub fn add_volume(&self) -> VolumeId {
        let mut volumes = self.0.volumes.borrow_mut();
        let id = VolumeId(volumes.len() as u64 + 1);
        volumes.insert(id, Volume::new(None));
        id
    }

    /// As [`World::begin_snapshot`], of a volume in a group: answers are to be held back.
    pub fn begin_in_group(&self, id: VolumeId) -> (VolumeVersions, View) {
        let (_, view) = self.begin_snapshot(id);
        (self.change_versions(id, |v| v.hold = Some(view.version)), view)
    }

    /// All of the group have moved.
    pub fn let_go(&self, id: VolumeId) -> VolumeVersions {
        self.change_versions(id, |v| v.hold = None)
    }

    /// Volumes whose gateways have told that they moved, and whether they hold answers back.
    pub fn moves(&self) -> Vec<(VolumeId, bool)> {
        self.0.moves.borrow().clone()
    }

    /// Nobody wants the snapshot any more.
    pub fn delete_snapshot(&self, id: VolumeId, view: &View) -> VolumeVersions {
        self.change_versions(id, |v| {
            v.snapshots.retain(|s| s != view);
            v.prune = true;
        })
    }

    /// The head goes on from a snapshot. The volume is detached.
    pub fn roll_back(&self, id: VolumeId, view: &View) {
        self.change_versions(id, |v| {
            v.view = view.rolled_back(v.version).unwrap();
            v.version = v.view.version;
        });
    }

    /// A volume that begins with what a snapshot shows.
    pub fn clone_volume(&self, from: VolumeId, view: &View) -> VolumeId {
        let mut volumes = self.0.volumes.borrow_mut();
        let id = VolumeId(volumes.len() as u64 + 1);
        volumes.insert(id, Volume::new(Some((from, view.clone()))));
        id
    }

    /// A snapshot, to be attached for reading.
    pub fn reader(&self, of: VolumeId, view: &View) -> VolumeId {
        let id = self.clone_volume(of, view);
        self.0.volumes.borrow_mut().get_mut(&id).unwrap().read_only = true;
        id
    }

    /// How many chunks a volume has.
    pub fn chunks_of(&self, id: VolumeId) -> usize {
        self.0.volumes.borrow()[&id].chunks.len()
    }

    /// All that ancestors have is to be copied.
    pub fn flatten(&self, id: VolumeId) -> VolumeVersions {
        self.change_versions(id, |v| v.flatten = true)
    }

    /// As the meta server knows them.
    pub fn versions(&self, id: VolumeId) -> VolumeVersions {
        self.0.volumes.borrow()[&id].versions.clone()
    }

    /// What clones of a volume are told from now on: its snapshot can be read here as well.
    pub fn add_mirror(&self, of: VolumeId, mirror: VolumeId, view: &View) {
        self.0.mirrors.borrow_mut().push((of, mirror, view.clone()));
    }

    fn mirrors(&self, of: VolumeId) -> Vec<MirrorInfo> {
        let volumes = self.0.volumes.borrow();
        let all = self.0.mirrors.borrow();
        let info = |(_, volume, view): &(VolumeId, VolumeId, View)| MirrorInfo {
            volume: *volume,
            view: view.clone(),
            chunks: volumes[volume].chunks.values().cloned().collect(),
            more: false,
        };
        all.iter().filter(|(original, ..)| *original == of).map(info).collect()
    }

    fn parent(&self, id: VolumeId) -> Option<ParentInfo> {
        let (volume, view) = self.0.volumes.borrow()[&id].parent.clone()?;
        let parent = self.parent(volume).map(Box::new);
        let chunks = self.0.volumes.borrow()[&volume].chunks.values().cloned().collect();
        Some(ParentInfo {
            volume,
            view,
            size: VOLUME_SIZE,
            geometry: Geometry::default(),
            copies: 3,
            chunks,
            more: false,
            parent,
            mirrors: self.mirrors(volume),
        })
    }

    fn accomplished(&self, id: VolumeId, epoch: Epoch, what: Accomplished) -> Result<VolumeVersions, AllocError> {
        self.check_epoch(id, epoch)?;
        if what == Accomplished::Flattened {
            self.0.volumes.borrow_mut().get_mut(&id).unwrap().parent = None;
        }
        if let Accomplished::Moved(_) | Accomplished::Parted(_) = what {
            self.0.moves.borrow_mut().push((id, matches!(what, Accomplished::Moved(_))));
        }
        Ok(self.change_versions(id, |v| match what {
            Accomplished::Moved(_) => {}
            Accomplished::Parted(_) => v.hold = None,
            Accomplished::Sealed(version) => {
                v.sealed = v.sealed.max(version);
                v.pending = v.pending.filter(|p| *p > version);
            }
            Accomplished::Pruned(number) => v.prune &= v.number != number,
            Accomplished::Flattened => v.flatten = false,
        }))
    }

    fn check_epoch(&self, id: VolumeId, epoch: Epoch) -> Result<(), AllocError> {
        match epoch.0 == self.0.volumes.borrow()[&id].epoch {
            true => Ok(()),
            false => Err(AllocError::Fenced("a newer epoch exists".into())),
        }
    }

    /// The operator's word about a disk. Gateways are to be told ([`Gateway::evacuate`]).
    pub fn set_disk(&self, node: NodeId, state: DiskState) -> BTreeMap<DiskId, DiskState> {
        let mut leaving = self.0.leaving.borrow_mut();
        match state {
            DiskState::InService => leaving.remove(&DiskId(node.0)),
            state => leaving.insert(DiskId(node.0), state),
        };
        leaving.clone()
    }

    /// The member of chunk `index` on one node is to be put on another. Gateways are to be told ([`Gateway::move_replicas`]).
    pub fn move_copy(&self, index: u32, from: NodeId, to: NodeId) -> BTreeSet<ReplicaId> {
        let replica = self.0.volumes.borrow()[&VOLUME].chunks[&index].replicas.iter().find(|r| r.node == from).copied();
        let mut wanted = self.0.wanted.borrow_mut();
        wanted.extend(replica.map(|r| (r.replica, to)));
        wanted.keys().copied().collect()
    }

    /// Nothing is to be moved any more.
    pub fn move_nothing(&self) -> BTreeSet<ReplicaId> {
        self.0.wanted.borrow_mut().clear();
        BTreeSet::new()
    }

    /// Whether the answers to changes of replica sets are lost.
    pub fn mute_changes(&self, mute: bool) {
        self.0.mute_changes.set(mute);
    }

    /// Changes of replica sets made so far.
    pub fn changes(&self) -> u64 {
        self.0.changes.get()
    }

    /// How many chunks were given back.
    pub fn freed(&self) -> u64 {
        self.0.freed.get()
    }

    /// Where the chunk at this position is.
    pub fn members(&self, index: u32) -> Vec<NodeId> {
        self.0.volumes.borrow()[&VOLUME].chunks[&index].replicas.iter().map(|r| r.node).collect()
    }

    fn change(&self, id: VolumeId, epoch: Epoch, changes: Vec<ReplicaChange>) -> Result<ChangedReplicas, AllocError> {
        self.check_epoch(id, epoch)?;
        let (mut answer, mut refused) = (vec![], None);
        for change in changes {
            let mut volumes = self.0.volumes.borrow_mut();
            let chunks = &mut volumes.get_mut(&id).unwrap().chunks;
            let frees = |info: &ChunkInfo| info.replicas.iter().all(|r| change.remove.contains(&r.replica));
            if change.add == 0 && chunks.get(&change.index).is_none_or(frees) {
                self.0.freed.set(self.0.freed.get() + u64::from(chunks.remove(&change.index).is_some()));
                continue;
            }
            let info = chunks.get_mut(&change.index).expect("a chunk that exists");
            if info.config == change.config && self.changed(info, &change).is_none() {
                refused = Some("no node is free".to_string());
            }
            answer.push(info.clone());
        }
        match self.0.mute_changes.get() {
            true => Err(AllocError::Retry("the answer was lost".into())),
            false => Ok(ChangedReplicas { chunks: answer, refused }),
        }
    }

    fn changed(&self, info: &mut ChunkInfo, change: &ReplicaChange) -> Option<()> {
        let mut stay: Vec<_> = info.replicas.iter().filter(|r| !change.remove.contains(&r.replica)).copied().collect();
        assert!(stay.len() + usize::from(change.add) >= 3 && !stay.is_empty(), "{change:?} of {info:?}");
        for _ in 0..change.add {
            let leaving = self.0.leaving.borrow();
            let is_free = |n: &NodeId| !leaving.contains_key(&DiskId(n.0)) && !stay.iter().any(|r| r.node == *n);
            let free: Vec<NodeId> = self.nodes().into_iter().filter(is_free).collect();
            let mut up: Vec<NodeId> = free.iter().copied().filter(|n| self.is_up(*n)).collect();
            let wanted = self.0.wanted.borrow();
            if let Some(target) = info.replicas.iter().find_map(|r| wanted.get(&r.replica)).filter(|t| up.contains(t)) {
                up = vec![*target];
            }
            let node = *up.get(self.below(up.len().max(1) as u64) as usize)?;
            let replica = ReplicaId(self.0.last_replica.get() + 1);
            self.0.last_replica.set(replica.0);
            stay.push(ReplicaPlace { replica, node, disk: DiskId(node.0) });
        }
        info.replicas = stay;
        info.config = ConfigNo(info.config.0 + 1);
        self.0.changes.set(self.0.changes.get() + 1);
        Some(())
    }

    /// Nothing that a gateway sends arrives any more, and it hears nothing.
    pub fn cut_off(&self, gateway: u64) {
        self.0.cut_off.borrow_mut().insert(gateway);
    }

    /// A request arrives at a core of a node, in a life of it.
    fn deliver(&self, gateway: u64, (node, core, life): (NodeId, u16, u64), request: Request, data: Bytes, done: Done) {
        let rule = self.0.rule.borrow().clone();
        let fate = rule.map_or(Fate::Deliver, |rule| rule(gateway, node, &request));
        let service = {
            let nodes = self.0.nodes.borrow();
            let n = &nodes[&node];
            if fate == Fate::Hold {
                return;
            }
            let reached = n.life == life && !self.0.cut_off.borrow().contains(&gateway) && fate != Fate::Lose;
            n.services.get(usize::from(core)).filter(|_| reached).cloned()
        };
        let Some(service) = service else { return done(Err(LinkDown("the node is away".into()))) };
        let back = self.clone();
        let reply = move |reply: Reply, data: Bytes| {
            let data = if fate == Fate::Garble { garbled(&data) } else { data };
            let rt = back.0.rt.clone();
            rt.clone().spawn(async move {
                let slow = if let Fate::Slow(ms) = fate { Duration::from_millis(ms) } else { Duration::ZERO };
                rt.sleep(Duration::from_micros(10 + back.below(200)) + slow).await;
                let lost = fate == Fate::LoseAnswer
                    || back.0.cut_off.borrow().contains(&gateway)
                    || back.0.nodes.borrow()[&node].life != life;
                done(if lost { Err(LinkDown("the answer was lost".into())) } else { Ok((reply, data)) });
            });
        };
        match fate {
            Fate::Refuse(status) => reply(Reply::error(status, "as the test wants it"), Bytes::new()),
            _ => service.handle(request, data, Box::new(reply)),
        }
    }

    fn allocate(&self, volume: VolumeId, epoch: Epoch, indexes: Vec<u32>) -> Result<Vec<ChunkInfo>, AllocError> {
        self.check_epoch(volume, epoch)?;
        let nodes = self.nodes();
        let mut volumes = self.0.volumes.borrow_mut();
        let chunks = &mut volumes.get_mut(&volume).unwrap().chunks;
        let made = indexes.into_iter().map(|index| {
            // Ids are never used again.
            let id = (volume.0 - 1) * CHUNKS_OF_VOLUME + u64::from(index) + 1 + self.0.freed.get() * 100_000;
            let place = |k: u64| {
                let node = nodes[((id + k) % nodes.len() as u64) as usize];
                ReplicaPlace { replica: ReplicaId(id * 10 + k), node, disk: DiskId(node.0) }
            };
            let info =
                ChunkInfo { index, chunk: ChunkId(id), config: ConfigNo::FIRST, replicas: (0..3).map(place).collect() };
            chunks.entry(index).or_insert(info).clone()
        });
        Ok(made.collect())
    }
}

/// The core that has a chunk's replicas.
fn core_of(chunk: ChunkId) -> u16 {
    (chunk.0 % u64::from(CORES)) as u16
}

fn garbled(data: &Bytes) -> Bytes {
    let mut other = data.to_vec();
    other.iter_mut().take(1).for_each(|byte| *byte ^= 1);
    other.into()
}

/// One gateway's links.
pub struct TestLinks {
    world: World,
    gateway: u64,
    volume: VolumeId,
    epoch: Epoch,
    shared: Option<SharedBlocks>,
}

impl Cluster for TestLinks {
    fn shared(&self) -> Option<&SharedBlocks> {
        self.shared.as_ref()
    }

    fn cores(&self, _: NodeId) -> u16 {
        CORES
    }

    fn core_of(&self, _: NodeId, _: DiskId, chunk: ChunkId) -> u16 {
        core_of(chunk)
    }

    fn call(&self, node: NodeId, core: u16, request: Request, data: Bytes, done: Done) {
        let (world, gateway) = (self.world.clone(), self.gateway);
        *world.0.sent.borrow_mut().entry(gateway).or_default() += 1;
        let life = world.0.nodes.borrow()[&node].life;
        let arrival = {
            let delay = Duration::from_micros(10 + world.below(200));
            let mut arrivals = world.0.arrivals.borrow_mut();
            let last = arrivals.entry((gateway, node, core)).or_default();
            *last = (*last + Duration::from_nanos(1)).max(world.0.rt.now() + delay);
            *last
        };
        let rt = world.0.rt.clone();
        rt.clone().spawn(async move {
            rt.sleep(arrival.saturating_sub(rt.now())).await;
            let there = world.clone();
            let deliver = move || world.deliver(gateway, (node, core, life), request, data, done);
            let mut nodes = there.0.nodes.borrow_mut();
            let n = nodes.get_mut(&node).unwrap();
            if n.hung && n.life == life {
                return n.parked.push(Box::new(deliver));
            }
            drop(nodes);
            deliver();
        });
    }

    fn change(
        &self,
        changes: Vec<ReplicaChange>,
    ) -> impl Future<Output = Result<ChangedReplicas, AllocError>> + 'static {
        let (world, id, epoch) = (self.world.clone(), self.volume, self.epoch);
        async move {
            world.0.rt.sleep(Duration::from_micros(world.below(3000))).await;
            let answer = world.change(id, epoch, changes);
            world.0.rt.sleep(Duration::from_micros(world.below(3000))).await;
            answer
        }
    }

    fn allocate(&self, indexes: Vec<u32>) -> impl Future<Output = Result<Vec<ChunkInfo>, AllocError>> + 'static {
        let (world, id, epoch) = (self.world.clone(), self.volume, self.epoch);
        async move {
            world.0.rt.sleep(Duration::from_millis(1)).await;
            world.allocate(id, epoch, indexes)
        }
    }

    fn accomplished(&self, what: Accomplished) -> impl Future<Output = Result<VolumeVersions, AllocError>> + 'static {
        let (world, id, epoch) = (self.world.clone(), self.volume, self.epoch);
        async move {
            world.0.rt.sleep(Duration::from_micros(world.below(3000))).await;
            let answer = world.accomplished(id, epoch, what);
            world.0.rt.sleep(Duration::from_micros(world.below(3000))).await;
            answer
        }
    }

    fn parent(&self) -> impl Future<Output = Result<Option<ParentInfo>, AllocError>> + 'static {
        let (world, id) = (self.world.clone(), self.volume);
        async move {
            world.0.rt.sleep(Duration::from_millis(1)).await;
            Ok(world.parent(id))
        }
    }
}
