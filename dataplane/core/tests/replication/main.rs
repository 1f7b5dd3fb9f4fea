//! The shipping store, replicas and gateway as a cluster in memory, under crashes.

mod cases;
mod model;
mod world;

use bytes::Bytes;
use levee_core::ports::Runtime;
use levee_core::testing::TestRuntime;
use levee_proto::{BLOCK_SIZE, NodeId};
use model::{Model, ZERO, content, stamp_of};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use world::{TestGateway, World};

/// Blocks that the load writes: few, so that they collide; spread over two chunks.
const BLOCKS: u32 = 24;

/// Mean pause of a worker between requests.
const PAUSE_US: u64 = 3000;

fn offset(block: u32) -> u64 {
    // Half in the first chunk, half in the second.
    u64::from(block) * BLOCK_SIZE as u64 + if block < BLOCKS / 2 { 0 } else { 1 << 20 }
}

/// Load on one volume, through whichever gateway is current.
struct Load {
    world: World,
    gateway: RefCell<TestGateway>,
    number: Cell<u64>,
    /// Earlier gateways: some never hear that they are.
    deposed: RefCell<Vec<TestGateway>>,
    model: RefCell<Model>,
    busy: RefCell<BTreeSet<u32>>,
    next_stamp: Cell<u64>,
    done: Cell<u64>,
    stopping: Cell<bool>,
    running: Cell<u32>,
}

impl Load {
    async fn step(&self) {
        let block = self.world.below(u64::from(BLOCKS)) as u32;
        // One request per block at a time, so that the model knows what may be seen.
        if !self.busy.borrow_mut().insert(block) {
            self.world.rt().sleep(Duration::from_micros(50)).await;
            return;
        }
        let gateway = self.gateway.borrow().clone();
        match self.world.below(10) {
            0..4 => self.read(&gateway, block).await,
            4..9 => self.write(&gateway, block).await,
            _ => self.zero(&gateway, block).await,
        }
        self.busy.borrow_mut().remove(&block);
        self.done.set(self.done.get() + 1);
    }

    async fn read(&self, gateway: &TestGateway, block: u32) {
        if let Ok(pieces) = gateway.read(offset(block), BLOCK_SIZE).await {
            let stamp = stamp_of(&pieces.concat());
            // A deposed gateway may still read its own epoch's state: only the newest one counts.
            if gateway.stopped().is_none() && self.is_current(gateway) {
                self.model.borrow_mut().saw(block, stamp);
            }
        }
    }

    async fn write(&self, gateway: &TestGateway, block: u32) {
        let stamp = self.next_stamp.get();
        self.next_stamp.set(stamp + 1);
        self.model.borrow_mut().begin(block, stamp);
        if gateway.write(offset(block), Bytes::from(content(stamp))).await.is_ok() {
            self.model.borrow_mut().acknowledge(block, stamp);
        }
    }

    async fn zero(&self, gateway: &TestGateway, block: u32) {
        self.model.borrow_mut().begin(block, ZERO);
        if gateway.write_zeroes(offset(block), BLOCK_SIZE as u64).await.is_ok() {
            self.model.borrow_mut().acknowledge(block, ZERO);
        }
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
        busy: RefCell::default(),
        next_stamp: Cell::new(1),
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
        assert!(world.rt().now() < end, "requests hang: {:?}", gateway.health());
        world.rt().sleep(Duration::from_millis(10)).await;
    }
    gateway.ready().await.unwrap();
    let report = gateway.verify(Duration::from_secs(60), |_| {}).await.unwrap();
    assert_eq!(report.mismatches, [], "copies differ");
    let blocks = load.model.borrow().blocks();
    for block in blocks {
        let pieces = gateway.read(offset(block), BLOCK_SIZE).await.unwrap();
        load.model.borrow_mut().saw(block, stamp_of(&pieces.concat()));
    }
    gateway.stop("the test ends");
}

async fn one_fault(load: &Rc<Load>) {
    let world = &load.world;
    let nodes = world.nodes();
    let node = nodes[world.below(nodes.len() as u64) as usize];
    match world.below(8) {
        0..3 if world.is_up(node) => world.kill(node),
        0..5 if !world.is_up(node) => world.start(node).await,
        5 => load.replace_gateway(),
        6 => {
            world.hang(node, true);
            world.rt().sleep(Duration::from_millis(world.below(3000))).await;
            world.hang(node, false);
        }
        7 if world.below(4) == 0 => {
            // The whole cluster, and the gateway with it.
            nodes.iter().filter(|n| world.is_up(**n)).for_each(|n| world.kill(*n));
            for n in &nodes {
                world.start(*n).await;
            }
            load.replace_gateway();
        }
        _ => {}
    }
    let pause = Duration::from_millis(world.below(400));
    world.rt().sleep(pause).await;
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
    assert!(done > 20, "seed {seed}: only {done} requests were made");
}

/// How many seeds a test runs: `LEVEE_SEEDS` multiplies it, for campaigns.
fn seeds(usual: u64) -> u64 {
    std::env::var("LEVEE_SEEDS").ok().and_then(|v| v.parse::<u64>().ok()).unwrap_or(1) * usual
}

#[test]
fn no_faults() {
    run(1, 3, 2, 0);
}

#[test]
fn crashes_of_nodes_and_gateways_lose_nothing() {
    for seed in 0..seeds(12) {
        println!("seed {seed}");
        run(seed, 3, 2, 30);
    }
}

#[test]
fn five_nodes_and_other_quorums() {
    for seed in 100..100 + seeds(4) {
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
        gateway.write(0, Bytes::from(content(1))).await.unwrap();
        world.kill(NodeId(2));
        world.kill(NodeId(3));
        let (late, ended) = (gateway.clone(), Rc::new(Cell::new(false)));
        let flag = ended.clone();
        rt.spawn(async move {
            late.write(0, Bytes::from(content(2))).await.unwrap();
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
