//! The whole cluster: nodes and their disks, the network, the meta servers, the guests; and what has gone wrong so far.

use crate::guest::{Device, Guest};
use crate::meta::Meta;
use crate::net::Net;
use crate::process::{Process, SimDisk};
use crate::setup::Setup;
use bytes::Bytes;
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_core::store::{self, NewReplica, RecoveryReport, Shard, Superblock};
use levee_core::testing::{CrashStyle, MemDisk, Registers, TestRng, TestRuntime};
use levee_meta_state::{Answer, Command};
use levee_proto::api::{CreateVolume, RegisterDisk, RegisterNode};
use levee_proto::wire::{BlockKind, Crcs};
use levee_proto::{
    BLOCK_SIZE, CHUNK_SIZE, ChunkId, ConfigNo, DiskId, Epoch, NodeId, ReplicaId, Seq, Version, VolumeId,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use uuid::Uuid;

/// Smaller than any real disk: what is to be compacted, and replayed, is there soon.
const SEGMENT: u32 = 2 << 20;
const SEGMENTS: u32 = 14;
/// The fewest that a shard may have; and with these, of one that is nearly full, the blocks that are filled beforehand.
const FEW_SEGMENTS: u32 = 12;
const FILLED: u32 = 1250;
/// Whose they are: a volume that the meta servers do not know, in chunks far beyond theirs.
pub const FILLER: VolumeId = VolumeId(u64::MAX);
const FILLER_CHUNK: u64 = 1 << 40;
/// When runs begin, milliseconds since 1970.
const CLOCK_MS: u64 = 1_800_000_000_000;
/// Events that are kept to be shown with a failure.
const EVENTS: usize = 400;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which check found it.
    pub check: &'static str,
    pub what: String,
}

/// A machine: its disks, and the daemon that runs there, if one does.
pub struct Node {
    pub id: NodeId,
    pub disks: Vec<Rc<SimDisk>>,
    pub process: RefCell<Option<Rc<Process>>>,
    /// It never starts again.
    pub lost: Cell<bool>,
}

/// A cheap handle.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    rt: TestRuntime,
    setup: Setup,
    rng: RefCell<TestRng>,
    meta: Meta,
    net: Net,
    nodes: RefCell<BTreeMap<NodeId, Rc<Node>>>,
    guests: RefCell<Vec<Guest>>,
    /// Those whose volumes are gone.
    retired: RefCell<Vec<Guest>>,
    processes: Cell<u64>,
    failure: RefCell<Option<Failure>>,
    failed: Cell<bool>,
    /// Whether events are kept.
    logging: bool,
    events: RefCell<VecDeque<String>>,
}

impl World {
    /// A cluster whose nodes are down.
    pub async fn new(rt: &TestRuntime, setup: Setup, logging: bool) -> World {
        let seed = setup.seed;
        let meta = Meta::new(seed ^ 1);
        let net = Net::new(rt.clone(), seed ^ 2, setup.network_delay);
        let world = World(Rc::new(Inner {
            rt: rt.clone(),
            rng: RefCell::new(TestRng::new(seed ^ 3)),
            meta,
            net,
            nodes: RefCell::default(),
            guests: RefCell::default(),
            retired: RefCell::default(),
            processes: Cell::new(0),
            failure: RefCell::default(),
            failed: Cell::new(false),
            logging,
            events: RefCell::default(),
            setup,
        }));
        world.0.meta.belong_to(Some(world.clone()));
        for n in 1..=world.setup().nodes {
            world.add_node(NodeId(n)).await;
        }
        for n in 0..world.setup().volumes.len() {
            world.add_volume(n);
        }
        world
    }

    async fn add_node(&self, id: NodeId) {
        let setup = self.setup();
        let mut disks = vec![];
        for d in 0..setup.disks_per_node {
            let uuid = Uuid::from_u128((u128::from(id.0) << 32) | (u128::from(d) + 1));
            let segments = if setup.nearly_full { FEW_SEGMENTS } else { SEGMENTS };
            let size = store::limits::SHARDS_START
                + u64::from(setup.shards) * (store::limits::ROOT_AREA + u64::from(SEGMENT) * u64::from(segments));
            let disk = MemDisk::new(size, self.next_u64());
            let superblock = Superblock::with_layout(size, setup.shards, *uuid.as_bytes(), SEGMENT, segments);
            store::format_as(&disk, &superblock).await.expect("a fresh disk can be formatted");
            if setup.nearly_full {
                self.fill(&disk, &superblock).await;
            }
            disk.set_pace(&self.0.rt, setup.disk_delay.0, setup.disk_delay.1);
            let (id, tainted) = (Cell::new(DiskId(0)), Cell::new(false));
            disks.push(Rc::new(SimDisk { uuid, disk, layout: superblock, id, tainted }));
        }
        let register = RegisterNode {
            name: format!("n{id}"),
            incarnation: Uuid::from_u128(u128::from(self.next_u64())),
            admin_url: "http://localhost:1".into(),
            cores: (0..setup.cores).map(|core| format!("localhost:{}", 2 + core)).collect(),
            cluster: None,
            disks: disks.iter().map(|d| self.describe(d)).collect(),
            zone: None,
            rack: None,
            leave_out_removed: false,
            locks: Vec::new(),
            missing: Vec::new(),
            seen: Default::default(),
        };
        match self.0.meta.apply(&Command::RegisterNode(register)) {
            Ok(Answer::Registered(r)) => {
                assert_eq!(r.node, id, "nodes are numbered in order");
                disks.iter().zip(r.disks).for_each(|(disk, id)| disk.id.set(id));
            }
            other => panic!("a node cannot join an empty cluster: {other:?}"),
        }
        self.0
            .nodes
            .borrow_mut()
            .insert(id, Rc::new(Node { id, disks, process: RefCell::default(), lost: Cell::new(false) }));
    }

    /// Fills most of a disk with data that nobody needs.
    async fn fill(&self, disk: &MemDisk, superblock: &Superblock) {
        let rt = self.0.rt.process(0);
        for number in 0..superblock.shards {
            let opened = Shard::open(disk.clone(), rt.clone(), superblock, number, store::Options::default()).await;
            let (shard, _) = opened.expect("a fresh disk can be opened");
            let chunk = ChunkId(FILLER_CHUNK + u64::from(number));
            let replica =
                NewReplica { volume: FILLER, chunk, replica: ReplicaId(1), config: ConfigNo::FIRST, adopted: Epoch(1) };
            shard.create_replica(replica).await.expect("there is room");
            let data = Bytes::from(vec![number as u8 + 1; BLOCK_SIZE]);
            let crcs = Crcs::of(&data);
            for block in 0..FILLED {
                // One by one: in segments that are partly overwritten later.
                let seq = Seq::new(Epoch(1), u64::from(block) + 1);
                let kind = BlockKind::Data;
                let write = shard.write(chunk, kind, Version::FIRST, seq, block, 1, crcs.clone(), data.clone());
                if block % 64 == 63 || block + 1 == FILLED {
                    write.await.expect("there is room");
                }
            }
        }
        rt.kill();
    }

    fn describe(&self, disk: &SimDisk) -> RegisterDisk {
        let capacity = 64 * CHUNK_SIZE;
        RegisterDisk {
            uuid: disk.uuid,
            path: format!("/disk/{}", disk.uuid),
            capacity,
            shards: self.setup().shards,
            class: levee_proto::api::DiskClass::default(),
        }
    }

    fn add_volume(&self, n: usize) {
        let volume = self.setup().volumes[n];
        let name = format!("v{}", n + 1);
        let create = CreateVolume {
            name: name.clone(),
            size: volume.size,
            copies: volume.copies,
            min_copies: volume.min_copies,
            class: None,
        };
        let created = self.0.meta.apply(&Command::CreateVolume(create));
        let Ok(Answer::Volume(info)) = created else { panic!("a volume cannot be created: {created:?}") };
        let guest = Guest::new(self.clone(), name, info.id, volume.size, self.next_u64(), Registers::default());
        self.0.guests.borrow_mut().push(guest);
    }

    /// A guest for a volume that was cloned. It works as hard as the first one.
    pub fn add_clone(&self, name: &str, registers: Registers) {
        let info = self.0.meta.state().volume_named(name);
        let Ok(info) = info else { return self.fail("meta", &format!("clone {name} is not there")) };
        let guest = Guest::new(self.clone(), name.into(), info.id, info.size, self.next_u64(), registers);
        guest.start(self.setup().volumes[0].depth, self.setup().think);
        self.0.guests.borrow_mut().push(guest);
    }

    /// A new guest in place of one whose volume is gone. The old one goes on with whatever still serves it.
    pub fn replace_guest(&self, old: &Guest, volume: VolumeId) -> Guest {
        self.retire_guest(old);
        let size = self.0.meta.state().volume(volume).map_or(0, |v| v.size);
        let (name, seed) = (old.name().to_string(), self.next_u64());
        let guest = Guest::new(self.clone(), name, volume, size, seed, Registers::default());
        guest.start(self.setup().volumes[0].depth, self.setup().think);
        self.0.guests.borrow_mut().push(guest.clone());
        guest
    }

    /// Nobody asks any more what the guest has.
    pub fn retire_guest(&self, old: &Guest) {
        self.0.guests.borrow_mut().retain(|guest| guest.volume() != old.volume());
        self.0.retired.borrow_mut().push(old.clone());
    }

    /// The meta servers' clock: milliseconds since 1970.
    pub fn clock_ms(&self) -> u64 {
        CLOCK_MS + self.0.rt.now().as_millis() as u64
    }

    pub fn rt(&self) -> &TestRuntime {
        &self.0.rt
    }

    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    pub fn net(&self) -> &Net {
        &self.0.net
    }

    pub fn guests(&self) -> Vec<Guest> {
        self.0.guests.borrow().clone()
    }

    pub fn nodes(&self) -> Vec<Rc<Node>> {
        self.0.nodes.borrow().values().cloned().collect()
    }

    pub fn some_node(&self) -> Rc<Node> {
        let nodes = self.nodes();
        nodes[self.below(nodes.len() as u64) as usize].clone()
    }

    /// Volumes that are deleted, and cannot be made again, leave fewer and fewer.
    pub fn some_guest(&self) -> Option<Guest> {
        let guests = self.guests();
        let some = (!guests.is_empty()).then(|| self.below(guests.len() as u64) as usize)?;
        Some(guests[some].clone())
    }

    pub fn next_u64(&self) -> u64 {
        self.0.rng.borrow_mut().next_u64()
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.0.rng.borrow_mut().below(bound)
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.0.rng.borrow_mut().one_in(n)
    }

    /// Of any order of magnitude up to `most`, milliseconds.
    pub fn some_time(&self, most: u64) -> Duration {
        Duration::from_millis(self.0.rng.borrow_mut().spread(1, most))
    }

    /// Makes what was seen part of the trace.
    pub fn note(&self, what: u64) {
        self.0.rt.note(what);
    }

    /// Keeps an event, if events are kept.
    pub fn log(&self, event: impl FnOnce() -> String) {
        if self.0.logging {
            let line = format!("{:>10.3} ms  {}", self.0.rt.now().as_secs_f64() * 1000.0, event());
            let events = &mut *self.0.events.borrow_mut();
            tracing::info!("{line}");
            if events.len() == EVENTS {
                events.pop_front();
            }
            events.push_back(line);
        }
    }

    /// The last events.
    pub fn events(&self) -> Vec<String> {
        self.0.events.borrow().iter().cloned().collect()
    }

    /// A check has failed: the run is over.
    pub fn fail(&self, check: &'static str, what: &str) {
        self.log(|| format!("FAILED: {check}: {what}"));
        if !self.0.failed.replace(true) {
            *self.0.failure.borrow_mut() = Some(Failure { check, what: what.to_string() });
        }
    }

    pub fn has_failed(&self) -> bool {
        self.0.failed.get()
    }

    pub fn failure(&self) -> Option<Failure> {
        self.0.failure.borrow().clone()
    }

    /// Nodes on which a daemon runs.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.nodes().iter().filter(|n| n.process.borrow().is_some()).map(|n| n.id).collect()
    }

    /// Starts the node's daemon, if none runs.
    pub fn start(&self, node: &Rc<Node>) {
        if node.process.borrow().is_some() || node.lost.get() {
            return;
        }
        let number = self.0.processes.replace(self.0.processes.get() + 1);
        let drift = self.setup().drift;
        let rt = self.0.rt.process(if node.id.0.is_multiple_of(2) { drift } else { -drift });
        let incarnation = Uuid::from_u128((u128::from(self.next_u64()) << 64) | u128::from(number));
        let process = Process::new(number, node.id, rt, incarnation, node.disks.clone(), self.setup().shared_cache);
        *node.process.borrow_mut() = Some(process.clone());
        self.log(|| format!("{}: started", node.id));
        process.rt.clone().spawn(process.run(self.clone()));
    }

    /// The daemon is killed. `power`: with it the machine, and what its disks had not written yet.
    pub fn kill(&self, node: &Rc<Node>, power: bool) {
        let Some(process) = node.process.take() else { return };
        self.log(|| format!("{}: {}", node.id, if power { "loses power" } else { "killed" }));
        self.0.net.hang_up(&process, power && self.one_in(2));
        process.kill();
        for disk in &node.disks {
            match power {
                true => disk.disk.crash(if self.one_in(4) { CrashStyle::LoseAll } else { CrashStyle::Random }),
                false => disk.disk.kill(),
            }
        }
    }

    /// A gateway has been opened for a volume.
    pub fn attached(&self, volume: VolumeId, device: Rc<Device>, head: Version) {
        let guests = self.guests();
        guests.iter().filter(|g| g.volume() == volume).for_each(|g| g.attach(device.clone(), head));
    }

    /// A gateway of a volume has been told that it writes at another version.
    pub fn moved(&self, volume: VolumeId, head: Version, epoch: Epoch) {
        self.log(|| format!("volume {volume}: written at version {head} at epoch {epoch}"));
        self.guests().iter().filter(|g| g.volume() == volume).for_each(|g| g.moved(head, epoch));
    }

    /// A shard was opened: what it found must have a cause.
    pub fn recovered(&self, process: &Process, disk: &SimDisk, shard: u16, report: &RecoveryReport) {
        self.log(|| format!("{}: disk {}, shard {shard}: {report}", process.node, disk.id.get()));
        if report.tail_cut {
            reached!("recovery cut a torn tail");
        }
        if !report.is_clean() {
            reached!("recovery found damage");
            if !disk.tainted.get() {
                self.fail(
                    "recovery",
                    &format!("node {}, shard {shard}: damage without a cause: {report}", process.node),
                );
            }
        }
    }

    /// A daemon cannot use one of its disks.
    pub fn daemon_gave_up(&self, process: &Process, disk: &SimDisk, why: &str) {
        self.log(|| format!("{}: disk {}: {why}", process.node, disk.id.get()));
        if !disk.tainted.get() {
            self.fail("recovery", &format!("node {}: the disk cannot be used: {why}", process.node));
        }
    }

    /// Lets go of everything that refers to everything else.
    pub fn end(&self) {
        for node in self.nodes() {
            if let Some(process) = node.process.take() {
                process.kill();
            }
        }
        self.0.rt.abort_all();
        self.0.net.clear();
        self.0.nodes.take();
        self.0.guests.borrow_mut().drain(..).for_each(|g| g.forget());
        self.0.retired.borrow_mut().drain(..).for_each(|g| g.forget());
        self.0.meta.belong_to(None);
    }
}

/// Polls once, for what is ready or never mind.
pub fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
