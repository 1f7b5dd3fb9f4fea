//! The shipping store, replicas and gateway as a cluster in memory, under crashes.

mod bad_sectors;
mod cases;
mod changes;
mod clones;
mod corruption;
mod epochs;
mod frees;
mod groups;
mod grow;
mod large;
mod mirrors;
mod model;
mod moves;
mod order;
mod readers;
mod replica;
mod shared;
mod slow_ancestors;
mod slow_disks;
mod snapshots;
mod upkeep;
mod usage;
mod versions;
mod world;

use bytes::Bytes;
use levee_core::ports::Runtime;
use levee_core::testing::TestRuntime;
use levee_proto::api::DiskState;
use levee_proto::wire::{BlockKind, Request, Status};
use levee_proto::{BLOCK_SIZE, NodeId};
use model::{Model, SECTOR, ZERO, content, stamp_of};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use world::{Fate, TestGateway, World};

/// Blocks that most of the load is about: few, so that they collide. Half are in chunk 0, half in chunk 1.
const HOT_BLOCKS: u64 = 12;
/// Where chunk 1 begins.
const SECOND_CHUNK: u64 = 1 << 20;
/// Blocks of chunk 0 that are now and then written or read many at a time.
const WIDE: Range<u64> = 16..250;
/// Mean pause of a worker between requests.
const PAUSE_US: u64 = 3000;

/// Bytes of the volume, whole sectors.
fn sectors(range: &Range<u64>) -> Range<u64> {
    range.start / SECTOR as u64..range.end / SECTOR as u64
}

/// Load on one volume, through whichever gateway is current.
struct Load {
    world: World,
    gateway: RefCell<TestGateway>,
    number: Cell<u64>,
    /// Earlier gateways: some never hear that they are.
    deposed: RefCell<Vec<TestGateway>>,
    model: RefCell<Model>,
    done: Cell<u64>,
    stopping: Cell<bool>,
    running: Cell<u32>,
}

impl Load {
    async fn step(&self) {
        let range = self.some_range();
        let (gateway, number) = (self.gateway.borrow().clone(), self.number.get() + 1);
        match self.world.below(10) {
            0..4 => self.read(&gateway, number, range).await,
            4..9 => self.write(&gateway, number, range).await,
            _ => self.zero(&gateway, number, range).await,
        }
        self.done.set(self.done.get() + 1);
    }

    /// Mostly one block; sometimes some sectors, sometimes many blocks.
    fn some_range(&self) -> Range<u64> {
        const BLOCK: u64 = BLOCK_SIZE as u64;
        let below = |n| self.world.below(n);
        let base = below(2) * SECOND_CHUNK;
        let size = HOT_BLOCKS / 2 * BLOCK;
        match below(40) {
            0 => {
                let (a, b) = (WIDE.start + below(WIDE.end - WIDE.start), WIDE.start + below(WIDE.end - WIDE.start));
                a.min(b) * BLOCK..(a.max(b) + 1) * BLOCK
            }
            1..8 => {
                let at = below(size / SECTOR as u64) * SECTOR as u64;
                let len = ((1 + below(20)) * SECTOR as u64).min(size - at);
                base + at..base + at + len
            }
            8..14 => {
                let (a, b) = (below(HOT_BLOCKS / 2), below(HOT_BLOCKS / 2));
                base + a.min(b) * BLOCK..base + (a.max(b) + 1) * BLOCK
            }
            _ => {
                let at = base + below(HOT_BLOCKS / 2) * BLOCK;
                at..at + BLOCK
            }
        }
    }

    async fn read(&self, gateway: &TestGateway, number: u64, range: Range<u64>) {
        let begun = self.model.borrow_mut().begin(number);
        if let Ok(pieces) = gateway.read(range.start, (range.end - range.start) as usize).await
            // A deposed gateway may still read its own epoch's state: only the newest one counts.
            && gateway.stopped().is_none()
            && self.is_current(gateway)
        {
            for (bytes, sector) in pieces.concat().chunks(SECTOR).zip(sectors(&range)) {
                self.model.borrow_mut().saw(sector, begun, stamp_of(bytes));
            }
        }
    }

    async fn write(&self, gateway: &TestGateway, number: u64, range: Range<u64>) {
        let begun = self.model.borrow_mut().begin(number);
        self.model.borrow_mut().write(sectors(&range), begun, begun.at);
        let data = Bytes::from(content(begun.at, (range.end - range.start) as usize));
        if gateway.write(range.start, data).await.is_ok() {
            self.model.borrow_mut().acknowledge(sectors(&range), begun);
        }
    }

    async fn zero(&self, gateway: &TestGateway, number: u64, range: Range<u64>) {
        let begun = self.model.borrow_mut().begin(number);
        self.model.borrow_mut().write(sectors(&range), begun, ZERO);
        if gateway.write_zeroes(range.start, range.end - range.start).await.is_ok() {
            self.model.borrow_mut().acknowledge(sectors(&range), begun);
        }
    }

    /// A disk is to be emptied, or not; at most one, so that there is room.
    fn set_disk(&self, node: NodeId, state: DiskState) {
        self.world.nodes().iter().for_each(|other| drop(self.world.set_disk(*other, DiskState::InService)));
        self.gateway.borrow().evacuate(self.world.set_disk(node, state));
    }

    fn is_current(&self, gateway: &TestGateway) -> bool {
        gateway.same_as(&self.gateway.borrow())
    }

    /// A new process takes the volume over; the old one is cut off, or goes on until it is fenced.
    fn replace_gateway(&self) {
        if self.world.below(2) == 0 {
            self.world.cut_off(self.number.get());
        }
        let (gateway, number) = self.world.attach();
        let old = self.gateway.replace(gateway);
        if self.world.below(2) == 0 {
            old.stop("killed");
        }
        self.deposed.borrow_mut().push(old);
        self.number.set(number);
    }
}

fn start(world: &World) -> Rc<Load> {
    let (gateway, number) = world.attach();
    Rc::new(Load {
        world: world.clone(),
        gateway: RefCell::new(gateway),
        number: Cell::new(number),
        deposed: RefCell::default(),
        model: RefCell::default(),
        done: Cell::new(0),
        stopping: Cell::new(false),
        running: Cell::new(0),
    })
}

fn spawn_workers(load: &Rc<Load>, n: u32) {
    for _ in 0..n {
        load.running.set(load.running.get() + 1);
        let load = load.clone();
        load.world.rt().clone().spawn(async move {
            while !load.stopping.get() {
                load.step().await;
                // A guest thinks, too: without this most of a run is requests between faults.
                let pause = Duration::from_micros(load.world.below(2 * PAUSE_US));
                load.world.rt().sleep(pause).await;
            }
            load.running.set(load.running.get() - 1);
        });
    }
}

/// Faults stop: everything becomes healthy, all copies equal, every block as the model says.
async fn settle_and_check(load: &Rc<Load>) {
    let world = &load.world;
    for node in world.nodes() {
        world.hang(node, false);
        if !world.is_up(node) {
            world.start(node).await;
        }
    }
    let gateway = load.gateway.borrow().clone();
    load.stopping.set(true);
    let end = world.rt().now() + Duration::from_secs(600);
    load.deposed.borrow().iter().for_each(|g| g.stop("the test ends"));
    while load.running.get() > 0 {
        assert!(world.rt().now() < end, "requests hang: {:?}", gateway.report());
        world.rt().sleep(Duration::from_millis(10)).await;
    }
    gateway.ready().await.unwrap();
    let report = gateway.verify(Duration::from_secs(60), |_| {}).await.unwrap();
    assert_eq!(report.mismatches, [], "copies differ");
    let written = load.model.borrow().sectors();
    for sector in written {
        let begun = load.model.borrow_mut().begin(load.number.get() + 1);
        let pieces = gateway.read(sector * SECTOR as u64, SECTOR).await.unwrap();
        load.model.borrow_mut().saw(sector, begun, stamp_of(&pieces.concat()));
    }
    gateway.stop("the test ends");
}

async fn one_fault(load: &Rc<Load>) {
    let world = &load.world;
    let nodes = world.nodes();
    let node = nodes[world.below(nodes.len() as u64) as usize];
    match world.below(16) {
        0..3 if world.is_up(node) => world.kill(node),
        0..5 if !world.is_up(node) => world.start(node).await,
        5 | 6 => load.replace_gateway(),
        7 => {
            world.hang(node, true);
            world.rt().sleep(Duration::from_millis(world.below(3000))).await;
            world.hang(node, false);
        }
        8 if world.below(4) == 0 => {
            // The whole cluster, and the gateway with it.
            nodes.iter().filter(|n| world.is_up(**n)).for_each(|n| world.kill(*n));
            for n in &nodes {
                world.start(*n).await;
            }
            load.replace_gateway();
        }
        9 => {
            // A takeover during which nodes are started again, each once or twice.
            load.replace_gateway();
            for _ in 0..1 + world.below(5) {
                world.rt().sleep(Duration::from_micros(world.below(20_000))).await;
                let node = nodes[world.below(nodes.len() as u64) as usize];
                if world.is_up(node) {
                    world.kill(node);
                }
                world.start(node).await;
            }
        }
        10 => {
            disturb(world, |world, _| match world.below(30) {
                0 => Fate::Lose,
                1 => Fate::LoseAnswer,
                _ => Fate::Deliver,
            })
            .await
        }
        11 => {
            // A takeover with one node from which no answer comes.
            load.replace_gateway();
            disturb(world, move |_, n| if n == node { Fate::LoseAnswer } else { Fate::Deliver }).await;
        }
        12 => disturb_full(world, node).await,
        13 | 14 => {
            let state = [DiskState::Dead, DiskState::Draining][world.below(2) as usize];
            world.mute_changes(world.below(4) == 0);
            load.set_disk(node, state);
            world.rt().sleep(Duration::from_millis(world.below(1000))).await;
            world.mute_changes(false);
        }
        15 => nodes.iter().for_each(|node| load.set_disk(*node, DiskState::InService)),
        _ => {}
    }
    let pause = Duration::from_millis(world.below(400));
    world.rt().sleep(pause).await;
}

/// For a while, requests have another fate.
async fn disturb(world: &World, fate: impl Fn(&World, NodeId) -> Fate + 'static) {
    let rule_world = world.clone();
    world.rule(move |_, node, _| fate(&rule_world, node));
    world.rt().sleep(Duration::from_millis(world.below(800))).await;
    world.no_rule();
}

/// For a while, one disk is full, or all but one.
async fn disturb_full(world: &World, node: NodeId) {
    let one = world.below(2) == 0;
    world.rule(move |_, n, request| match request {
        Request::Write { kind: BlockKind::Data, .. } | Request::Repair { .. } if (n == node) == one => {
            Fate::Refuse(Status::Full)
        }
        _ => Fate::Deliver,
    });
    world.rt().sleep(Duration::from_millis(world.below(1500))).await;
    world.no_rule();
}

fn run(seed: u64, nodes: u32, min_copies: u8, faults: u32) {
    let rt = TestRuntime::new(seed);
    let done = rt.block_on(async {
        let world = World::new(&rt, seed, nodes, min_copies).await;
        let load = start(&world);
        spawn_workers(&load, 8);
        for _ in 0..faults {
            one_fault(&load).await;
        }
        world.rt().sleep(Duration::from_millis(300)).await;
        settle_and_check(&load).await;
        load.done.get()
    });
    rt.abort_all();
    assert!(done >= 8, "seed {seed}: only {done} requests were made");
}

/// How many seeds a test runs: `LEVEE_SEEDS` multiplies it, for campaigns.
fn seeds(usual: u64) -> u64 {
    number("LEVEE_SEEDS").unwrap_or(1) * usual
}

/// The first of them: `LEVEE_SEED`, to look at one again.
fn first_seed(usual: u64) -> u64 {
    number("LEVEE_SEED").unwrap_or(usual)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_faults() {
    run(1, 3, 2, 0);
}

#[test]
fn crashes_of_nodes_and_gateways_lose_nothing() {
    for seed in (first_seed(0)..).take(seeds(6) as usize) {
        println!("seed {seed}");
        run(seed, 3, 2, 30);
    }
}

#[test]
fn five_nodes_and_other_quorums() {
    for seed in (first_seed(100)..).take(seeds(3) as usize) {
        for min_copies in 1..=3 {
            println!("seed {seed}, min copies {min_copies}");
            run(seed, 5, min_copies, 20);
        }
    }
}

#[test]
fn a_volume_can_be_read_and_written_in_any_shape() {
    let rt = TestRuntime::new(7);
    rt.block_on(async {
        let world = World::new(&rt, 7, 3, 2).await;
        let (gateway, _) = world.attach();
        let base = (1 << 20) - 8192u64;
        let mut model = vec![0u8; 64 << 10];
        for step in 0..200u64 {
            let at = world.below(model.len() as u64 / 512) as usize * 512;
            let len = ((1 + world.below(40)) as usize * 512).min(model.len() - at);
            let range = at..at + len;
            match world.below(4) {
                0 => {
                    gateway.write_zeroes(base + at as u64, len as u64).await.unwrap();
                    model[range].fill(0);
                }
                1 => {
                    let pieces = gateway.read(base + at as u64, len).await.unwrap();
                    assert_eq!(pieces.concat(), model[range], "step {step}");
                }
                _ => {
                    let data: Vec<u8> = (0..len).map(|i| (step as usize * 31 + i / 7) as u8).collect();
                    gateway.write(base + at as u64, Bytes::from(data.clone())).await.unwrap();
                    model[range].copy_from_slice(&data);
                }
            }
        }
        let all = gateway.read(base, model.len()).await.unwrap().concat();
        assert_eq!(all, model);
        // Never written: zeros, without chunks being made.
        assert_eq!(gateway.read(300 << 20, 4096).await.unwrap().concat(), vec![0; 4096]);
        gateway.stop("the test ends");
    });
    rt.abort_all();
}

#[test]
fn fewer_copies_than_needed_make_writes_wait_and_nothing_fails() {
    let rt = TestRuntime::new(3);
    rt.block_on(async {
        let world = World::new(&rt, 3, 3, 2).await;
        let (gateway, _) = world.attach();
        gateway.write(0, Bytes::from(content(1, BLOCK_SIZE))).await.unwrap();
        world.kill(NodeId(2));
        world.kill(NodeId(3));
        let (late, ended) = (gateway.clone(), Rc::new(Cell::new(false)));
        let flag = ended.clone();
        rt.spawn(async move {
            late.write(0, Bytes::from(content(2, BLOCK_SIZE))).await.unwrap();
            flag.set(true);
        });
        rt.sleep(Duration::from_secs(30)).await;
        assert!(!ended.get(), "one copy is not enough");
        world.start(NodeId(3)).await;
        rt.sleep(Duration::from_secs(5)).await;
        assert!(ended.get(), "two copies are");
        assert_eq!(stamp_of(&gateway.read(0, 4096).await.unwrap().concat()), 2);
        gateway.stop("the test ends");
    });
    rt.abort_all();
}
