//! One life of a daemon: from its start to its end, by whatever means.
//!
//! It opens its disks, registers, and follows the meta server's intent, as the shipping daemon's control thread does:
//! volumes are opened and closed, replicas deleted. Every part of it is a task of its process, so that it dies, and is
//! stopped, as a whole, at any place where it waits.

use crate::gateway::{Links, SimGateway};
use crate::guest::Device;
use crate::meta::MetaError;
use crate::net::Link;
use crate::world::World;
use bytes::Bytes;
use levee_core::gateway::{Gateway, Options};
use levee_core::mutant;
use levee_core::ports::Runtime;
use levee_core::replica::{DiskShards, ReplicaService, ReplyFn};
use levee_core::shared::SharedBlocks;
use levee_core::store::{self, Shard, Superblock};
use levee_core::sync::timeout;
use levee_core::testing::{MemDisk, TestRuntime};
use levee_meta_state::{Answer, Command};
use levee_proto::api::{
    AttachIntent, AttachmentId, DiskState, Intent, OpenVolume, OpenedVolume, ProblemKind, RegisterDisk, RegisterNode,
    Registered, ReplicaRef,
};
use levee_proto::callers::Callers;
use levee_proto::wire::{Reply, Request, Status};
use levee_proto::{CHUNK_SIZE, DiskId, Epoch, NodeId, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

pub type SimShard = Shard<MemDisk, TestRuntime>;
type SimService = ReplicaService<MemDisk, TestRuntime>;

/// Before the meta server is asked again.
const RETRY: Duration = Duration::from_millis(200);
/// Replicas of which a fenced disk tells at a time: volumes are small here, and there are to be several pages.
const REPLICAS_PER_PAGE: u32 = 1;
/// How often the intent is looked at when nothing is heard.
const LOOK: Duration = Duration::from_secs(1);
/// What a disk says it has room for, chunks.
const SLOTS: u64 = 64;

/// A disk, which outlives the processes that use it.
pub struct SimDisk {
    pub uuid: Uuid,
    pub disk: MemDisk,
    pub layout: Superblock,
    /// Given by the meta server.
    pub id: Cell<DiskId>,
    /// Its content was changed behind the store's back, and not all of that may have been found.
    pub tainted: Cell<bool>,
}

/// A volume that the process serves.
pub struct Served {
    pub attachment: u64,
    pub gateway: SimGateway,
    epoch: Epoch,
    /// Number of the versions that it was told last.
    versions: Cell<u64>,
}

pub struct Process {
    pub number: u64,
    pub node: NodeId,
    pub rt: TestRuntime,
    pub incarnation: Uuid,
    pub disks: Vec<Rc<SimDisk>>,
    /// By disk and number.
    pub shards: RefCell<BTreeMap<(DiskId, u16), SimShard>>,
    /// One per core; none until the meta server knows the process.
    services: RefCell<Vec<SimService>>,
    pub served: RefCell<BTreeMap<VolumeId, Served>>,
    /// The links to it, on all of its cores.
    pub callers: RefCell<Callers<Rc<Link>>>,
    /// What it remembers of snapshots.
    pub shared: Option<SharedBlocks>,
    /// The generation in which it told what its disks hold.
    pub(crate) told_generation: Cell<u64>,
}

/// The core that owns a shard.
pub fn core_of_shard(shard: u16, cores: u16) -> u16 {
    shard % cores.max(1)
}

impl Process {
    pub fn new(
        number: u64,
        node: NodeId,
        rt: TestRuntime,
        incarnation: Uuid,
        disks: Vec<Rc<SimDisk>>,
        shared_cache: u64,
    ) -> Rc<Process> {
        let (shards, services, served) = (RefCell::default(), RefCell::default(), RefCell::default());
        let callers = RefCell::default();
        let shared = SharedBlocks::new(shared_cache);
        Rc::new(Process {
            number,
            node,
            rt,
            incarnation,
            disks,
            shards,
            services,
            served,
            callers,
            shared,
            told_generation: Cell::new(0),
        })
    }

    /// Takes a request from a link.
    pub fn handle(&self, core: u16, request: Request, data: Bytes, reply: ReplyFn) {
        let service = self.services.borrow().get(usize::from(core)).cloned();
        match service {
            Some(service) => service.handle(request, data, reply),
            None => reply(Reply::error(Status::Unavailable, "the daemon is starting"), Bytes::new()),
        }
    }

    /// Whether it has opened its disks and joined.
    pub fn is_serving(&self) -> bool {
        !self.services.borrow().is_empty()
    }

    /// Whether one of its shards has failed.
    pub fn has_failed_shard(&self) -> bool {
        // A shard that failed refuses a flush at once.
        self.shards.borrow().values().any(|s| crate::world::poll_once(s.flush()).is_some_and(|r| r.is_err()))
    }

    /// Ends everything: the process is gone.
    pub fn kill(&self) {
        self.rt.kill();
        self.shards.take();
        self.services.take();
        self.callers.take();
        self.served.take().values().for_each(|s| s.gateway.abandon());
    }

    /// The daemon's life.
    pub async fn run(self: Rc<Self>, world: World) {
        let Some(opened) = self.open_disks(&world).await else { return };
        let Some(registered) = self.register(&world, &opened).await else { return };
        world.meta().joined(self.node, registered.node);
        for (disk, id) in self.disks.iter().zip(&registered.disks) {
            disk.id.set(*id);
        }
        self.serve_replicas(&world, opened);
        world.net().listen(&self);
        self.follow_intent(&world).await;
    }

    async fn open_disks(&self, world: &World) -> Option<Vec<BTreeMap<u16, SimShard>>> {
        let mut all = vec![];
        for disk in &self.disks {
            let mut shards = BTreeMap::new();
            let superblock = match store::read_superblock(&disk.disk).await {
                Ok(superblock) => superblock,
                Err(e) => {
                    world.daemon_gave_up(self, disk, &e.to_string());
                    return None;
                }
            };
            for number in 0..superblock.shards {
                let shard =
                    Shard::open(disk.disk.clone(), self.rt.clone(), &superblock, number, store::Options::default());
                match shard.await {
                    Ok((shard, report)) => {
                        world.recovered(self, disk, number, &report);
                        shards.insert(number, shard);
                    }
                    Err(e) => {
                        world.daemon_gave_up(self, disk, &e.to_string());
                        return None;
                    }
                }
            }
            all.push(shards);
        }
        Some(all)
    }

    pub(crate) async fn register(&self, world: &World, opened: &[BTreeMap<u16, SimShard>]) -> Option<Registered> {
        let disk = |d: &Rc<SimDisk>| RegisterDisk {
            uuid: d.uuid,
            path: format!("/disk/{}", d.uuid),
            capacity: SLOTS * CHUNK_SIZE,
            shards: world.setup().shards,
            class: levee_proto::api::DiskClass::default(),
        };
        let request = RegisterNode {
            name: format!("n{}", self.node),
            incarnation: self.incarnation,
            admin_url: "http://localhost:1".into(),
            cores: (0..world.setup().cores).map(|core| format!("localhost:{}", 2 + core)).collect(),
            cluster: None,
            disks: self.disks.iter().map(disk).collect(),
            zone: None,
            rack: None,
            leave_out_removed: false,
            locks: Vec::new(),
            missing: Vec::new(),
            seen: self.seen(opened),
        };
        loop {
            match world.meta().ask(self, Command::RegisterNode(request.clone())).await {
                Ok(Answer::Registered(registered)) => return Some(registered),
                Ok(other) => world.fail("meta", &format!("a wrong answer: {other:?}")),
                Err(MetaError::Refused(p)) => {
                    world.fail("meta", &format!("{} may not join: {}", self.node, p.detail));
                    return None;
                }
                Err(MetaError::Unreachable) => {}
            }
            self.rt.sleep(RETRY).await;
        }
    }

    fn serve_replicas(&self, world: &World, opened: Vec<BTreeMap<u16, SimShard>>) {
        for (disk, shards) in self.disks.iter().zip(&opened) {
            self.shards.borrow_mut().extend(shards.iter().map(|(n, s)| ((disk.id.get(), *n), s.clone())));
        }
        let cores = world.setup().cores;
        for core in 0..cores {
            let mut disks = BTreeMap::new();
            for (disk, shards) in self.disks.iter().zip(&opened) {
                let mine = shards.iter().filter(|(n, _)| core_of_shard(**n, cores) == core);
                let mine = mine.map(|(n, s)| (*n, s.clone())).collect();
                disks.insert(disk.id.get(), DiskShards { total: shards.len() as u16, mine });
            }
            self.services.borrow_mut().push(ReplicaService::new(self.rt.clone(), disks));
        }
    }

    async fn follow_intent(self: &Rc<Self>, world: &World) {
        let mut revision = 0;
        loop {
            let changed = world.meta().changed();
            let intent = match world.meta().intent(self).await {
                Some(intent) => intent,
                None => {
                    self.rt.sleep(RETRY).await;
                    continue;
                }
            };
            let stopped = self.served.borrow().keys().any(|volume| self.has_stopped(*volume));
            if stopped && intent.revision == revision {
                self.fulfil(world, &intent).await;
            } else if intent.revision != revision && self.fulfil(world, &intent).await {
                revision = intent.revision;
            } else if intent.revision != revision {
                self.rt.sleep(RETRY).await;
                continue;
            }
            timeout(&self.rt, LOOK, changed).await;
        }
    }

    /// Makes it so; whether everything was done.
    async fn fulfil(self: &Rc<Self>, world: &World, intent: &Intent) -> bool {
        let wanted: BTreeMap<VolumeId, &AttachIntent> = intent.attach.iter().map(|a| (a.volume, a)).collect();
        let served: Vec<(VolumeId, u64)> = self.served.borrow().iter().map(|(v, s)| (*v, s.attachment)).collect();
        for (volume, attachment) in &served {
            if wanted.get(volume).is_none_or(|w| w.attachment != *attachment) {
                let gone = self.served.borrow_mut().remove(volume);
                gone.iter().for_each(|s| s.gateway.stop("the volume was detached"));
            }
        }
        for service in self.services.borrow().iter() {
            service.set_eras(intent.eras.iter().map(|e| (e.volume, e.era)));
        }
        if !self.tell_inventory(world, intent.state.generation).await {
            return false;
        }
        let evacuate: BTreeMap<DiskId, DiskState> = intent.evacuate.iter().map(|e| (e.disk, e.state)).collect();
        let moves = intent.moves_by_volume();
        let mut all = true;
        for want in wanted.values() {
            if !served.contains(&(want.volume, want.attachment)) || self.has_stopped(want.volume) {
                all &= self.open(world, want).await;
            }
        }
        for want in wanted.values() {
            all &= self.follow_versions(world, want).await;
        }
        for (volume, served) in self.served.borrow().iter() {
            served.gateway.evacuate(evacuate.clone());
            served.gateway.move_replicas(moves.get(volume).cloned().unwrap_or_default());
        }
        if !intent.deletes.is_empty() {
            all &= self.delete(world, &intent.deletes).await;
        }
        all
    }

    /// Whether the gateway of a volume that is to be served has ended by itself.
    fn has_stopped(&self, volume: VolumeId) -> bool {
        self.served.borrow().get(&volume).is_some_and(|s| s.gateway.stopped().is_some())
    }

    async fn open(self: &Rc<Self>, world: &World, want: &AttachIntent) -> bool {
        // One that is still there has stopped by itself.
        let fenced = self.served.borrow().get(&want.volume).map(|s| s.epoch);
        let (node, incarnation, attachment) = (self.node, self.incarnation, want.attachment);
        let request = OpenVolume { node, incarnation, attachment, fenced };
        let caller = caller(want);
        let opened = match world.meta().ask_as(self, caller, Command::Open { name: want.name.clone(), request }).await {
            Ok(Answer::Opened(opened)) if mutant!("every process gets the same epoch") => {
                OpenedVolume { epoch: Epoch(1), ..opened }
            }
            Ok(Answer::Opened(opened)) => opened,
            Ok(other) => {
                world.fail("meta", &format!("a wrong answer: {other:?}"));
                return false;
            }
            Err(MetaError::Refused(p)) => return matches!(p.kind, ProblemKind::Fenced | ProblemKind::NotFound),
            Err(MetaError::Unreachable) => return false,
        };
        if fenced.is_some_and(|before| opened.epoch <= before) {
            return false;
        }
        if let Err(why) = levee_core::gateway::check(&opened) {
            world.fail("meta", &format!("the volume's description is refused: {why}"));
            return false;
        }
        let (volume, epoch, name) = (opened.id, opened.epoch, opened.name.clone());
        let (number, head) = (opened.versions.number, opened.versions.version);
        world.log(|| format!("{}: {name} opened at epoch {epoch}", self.node));
        let links = Links::new(world.clone(), self.clone(), name.clone(), caller, epoch);
        let commit_period = world.setup().commit_period;
        let options = Options { commit_period, replicas_per_page: REPLICAS_PER_PAGE, ..Options::default() };
        let gateway = Gateway::open(self.rt.clone(), links, self.node, opened, options);
        let versions = Cell::new(number);
        let served = Served { attachment: want.attachment, gateway: gateway.clone(), epoch, versions };
        self.served.borrow_mut().insert(volume, served);
        let device = Device::new(self.clone(), gateway, epoch);
        world.attached(volume, device, head);
        true
    }

    /// Passes on the versions of a served volume if they have moved; whether that is settled.
    async fn follow_versions(&self, world: &World, want: &AttachIntent) -> bool {
        let behind = |s: &&Served| s.versions.get() < want.versions;
        let served = |s: &Served| (s.gateway.clone(), s.epoch);
        let Some((gateway, mine)) = self.served.borrow().get(&want.volume).filter(behind).map(served) else {
            return true;
        };
        let Ok(versions) = world.meta().versions(self, caller(want), &want.name).await else { return false };
        let (number, head, epoch) = (versions.number, versions.version, versions.epoch);
        if epoch == mine && gateway.stopped().is_none() {
            // The guest's requests that come after this belong to the new version.
            world.moved(want.volume, head, epoch);
        }
        if let Err(why) = gateway.set_versions(versions) {
            world.fail("meta", &format!("{}: its versions are refused: {why}", want.name));
        }
        if let Some(served) = self.served.borrow().get(&want.volume).filter(|s| s.gateway.same_as(&gateway)) {
            served.versions.set(number);
        }
        true
    }

    async fn delete(self: &Rc<Self>, world: &World, deletes: &[ReplicaRef]) -> bool {
        let mut gone = vec![];
        for r in deletes {
            let total = world.setup().shards;
            let core = core_of_shard((r.chunk.0 % u64::from(total)) as u16, world.setup().cores);
            let service = self.services.borrow().get(usize::from(core)).cloned();
            if let Some(service) = service
                && service.delete(r.disk, r.chunk, r.replica).await.is_ok()
            {
                gone.push(*r);
            }
        }
        let done = gone.len() == deletes.len();
        let confirm = Command::ConfirmDeleted { node: self.node, replicas: gone };
        done & world.meta().ask(self, confirm).await.is_ok()
    }
}

/// Whose gateway speaks.
fn caller(want: &AttachIntent) -> AttachmentId {
    AttachmentId { volume: want.volume, attachment: want.attachment }
}
