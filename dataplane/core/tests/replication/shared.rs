//! What a host remembers of snapshots: many clones that read the same at once have each block read once, and never see
//! anything but their own snapshot.

use crate::cases::{get, pass, put, within};
use crate::snapshots::{scenario, snapshot, snapshot_of};
use crate::world::{Fate, TestGateway, VOLUME, World};
use levee_core::sync::join_all;
use levee_proto::wire::{Request, Status};
use levee_proto::{BLOCK_SIZE, NodeId, View, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

const CLONES: usize = 100;
/// Of one host.
const ROOM: u64 = 16 << 20;
/// Blocks that the snapshot has data in, in two chunks.
const BLOCKS: [u64; 12] = [0, 1, 2, 3, 7, 8, 9, 40, 41, 256, 257, 300];

/// A snapshot of a volume that shows in each of [`BLOCKS`] the block's number and one.
async fn image(world: &World) -> View {
    let (gateway, _) = world.attach();
    for block in BLOCKS {
        put(world, &gateway, block, block + 1).await;
    }
    snapshot(world, &gateway).await
}

fn clones(world: &World, of: VolumeId, view: &View, count: usize) -> Vec<TestGateway> {
    (0..count).map(|_| world.attach_volume(world.clone_volume(of, view)).0).collect()
}

/// What replicas are asked by clones from now on: how often each block is read, and how many bitmaps.
#[derive(Clone, Default)]
struct Asked {
    blocks: Rc<RefCell<BTreeMap<(u64, u32), u64>>>,
    bitmaps: Rc<Cell<u64>>,
}

impl Asked {
    fn count(world: &World, fate: impl Fn(u64, NodeId) -> Fate + 'static) -> Asked {
        let asked = Asked::default();
        let count = asked.clone();
        world.rule(move |gateway, node, request| match request {
            Request::ReadShared { chunk, block, count: blocks, .. } => {
                for b in *block..block + blocks {
                    *count.blocks.borrow_mut().entry((chunk.0, b)).or_default() += 1;
                }
                fate(gateway, node)
            }
            Request::Presence { .. } => {
                count.bitmaps.set(count.bitmaps.get() + 1);
                Fate::Deliver
            }
            _ => Fate::Deliver,
        });
        asked
    }

    /// How often the block was read that was read most.
    fn most(&self) -> u64 {
        self.blocks.borrow().values().copied().max().unwrap_or(0)
    }
}

/// All clones read all blocks, at once: some one by one, others with one large read.
async fn read_all(world: &World, clones: &[TestGateway]) {
    let reads = clones.iter().enumerate().map(|(i, gateway)| async move {
        let ends = BLOCKS.iter().map(|block| async move {
            let wide = i % 3 == 0 && *block < 42;
            if !wide {
                assert_eq!(get(world, gateway, *block).await, block + 1);
            } else {
                let all = within(world, "a read", gateway.read(0, 42 * BLOCK_SIZE)).await.unwrap().concat();
                let at = *block as usize * BLOCK_SIZE;
                assert_eq!(crate::model::stamp_of(&all[at..at + BLOCK_SIZE]), block + 1);
                assert!(all[10 * BLOCK_SIZE..40 * BLOCK_SIZE].iter().all(|b| *b == 0));
            }
        });
        join_all(ends).await;
    });
    join_all(reads).await;
}

#[test]
fn a_hundred_clones_have_each_block_read_once_per_host() {
    scenario(|world| async move {
        let view = image(&world).await;
        for _host in 0..2 {
            let shared = world.remember(ROOM);
            let asked = Asked::count(&world, |_, _| Fate::Deliver);
            read_all(&world, &clones(&world, VOLUME, &view, CLONES)).await;
            assert_eq!(asked.most(), 1);
            let once = shared.report();
            assert!(once.waits > 0 && once.misses as usize <= asked.blocks.borrow().len(), "{once:?}");
            // Those that come later ask nobody.
            asked.blocks.take();
            read_all(&world, &clones(&world, VOLUME, &view, 3)).await;
            assert_eq!((asked.most(), shared.report().misses), (0, once.misses));
            assert!(shared.report().hits > once.hits && shared.report().bytes <= ROOM);
        }
    });
}

#[test]
fn which_blocks_an_ancestor_has_is_asked_once_per_host() {
    scenario(|world| async move {
        let view = image(&world).await;
        let child = world.clone_volume(VOLUME, &view);
        let (gateway, _) = world.attach_volume(child);
        put(&world, &gateway, 5, 55).await;
        let view = snapshot_of(&world, child, &gateway).await;
        put(&world, &gateway, 0, 99).await;
        world.remember(ROOM);
        let asked = Asked::count(&world, |_, _| Fate::Deliver);
        let grandchildren = clones(&world, child, &view, CLONES);
        let seen = join_all(grandchildren.iter().map(|g| get(&world, g, 5))).await;
        assert!(seen.iter().all(|stamp| *stamp == 55));
        join_all(grandchildren.iter().map(|g| get(&world, g, 0))).await;
        let seen = join_all(grandchildren.iter().map(|g| get(&world, g, 0))).await;
        assert!(seen.iter().all(|stamp| *stamp == 1));
        assert_eq!((asked.most(), asked.bitmaps.get()), (1, 1));
    });
}

#[test]
fn an_answer_that_is_not_what_its_checksum_says_is_not_remembered() {
    scenario(|world| async move {
        let view = image(&world).await;
        world.remember(ROOM);
        // Two of three copies, so that some must be asked in vain.
        let asked = Asked::count(&world, |_, node| if node == NodeId(2) { Fate::Deliver } else { Fate::Garble });
        read_all(&world, &clones(&world, VOLUME, &view, 10)).await;
        assert!(asked.most() > 1);
        Asked::count(&world, |_, _| Fate::Refuse(Status::Corrupt));
        read_all(&world, &clones(&world, VOLUME, &view, 10)).await;
    });
}

#[test]
fn versions_of_one_volume_are_told_apart_also_after_a_rollback() {
    scenario(|world| async move {
        world.remember(ROOM);
        let (gateway, _) = world.attach();
        let mut views = vec![];
        for stamp in 1..=3 {
            put(&world, &gateway, 0, stamp).await;
            put(&world, &gateway, stamp, stamp).await;
            views.push(snapshot(&world, &gateway).await);
        }
        gateway.stop("the volume is rolled back");
        world.roll_back(VOLUME, &views[0]);
        let (gateway, _) = world.attach();
        put(&world, &gateway, 4, 4).await;
        views.push(snapshot(&world, &gateway).await);
        let expected = [[1, 1, 0, 0, 0], [2, 1, 2, 0, 0], [3, 1, 2, 3, 0], [1, 1, 0, 0, 4]];
        for _ in 0..2 {
            for (view, expected) in views.iter().zip(expected) {
                let clone = clones(&world, VOLUME, view, 1).remove(0);
                let mut seen = vec![];
                for block in 0..5 {
                    seen.push(get(&world, &clone, block).await);
                }
                assert_eq!(seen, expected, "{view:?}");
            }
        }
    });
}

/// One clone asks and is never answered; others want the same. Returns what they see.
async fn behind_one_without_answers(world: &World, ends: bool) -> Vec<u64> {
    let view = image(world).await;
    world.remember(ROOM);
    let (first, number) = world.attach_volume(world.clone_volume(VOLUME, &view));
    let asked = Rc::new(Cell::new(0));
    let count = asked.clone();
    Asked::count(world, move |gateway, _| {
        let is_first = gateway == number;
        count.set(count.get() + u64::from(!is_first));
        if is_first { Fate::Hold } else { Fate::Deliver }
    });
    use levee_core::ports::Runtime as _;
    let (w, reader) = (world.clone(), first.clone());
    world.rt().spawn(async move {
        let _ = within(&w, "a read that is given up", reader.read(0, BLOCK_SIZE)).await;
    });
    pass(world, 10).await;
    let others = clones(world, VOLUME, &view, 20);
    let seen = join_all(others.iter().map(|gateway| get(world, gateway, 0)));
    if ends {
        let end = async {
            pass(world, 20).await;
            first.stop("the test ends");
            vec![]
        };
        let both: [std::pin::Pin<Box<dyn Future<Output = Vec<u64>>>>; 2] = [Box::pin(seen), Box::pin(end)];
        let seen = join_all(both).await.remove(0);
        assert_eq!(asked.get(), 1, "one of them goes on");
        return seen;
    }
    let seen = seen.await;
    assert_eq!(asked.get(), 1, "one of them takes its place");
    first.stop("the test ends");
    seen
}

#[test]
fn a_reader_that_ends_leaves_its_place_to_another() {
    scenario(|world| async move {
        let before = levee_core::ports::Runtime::now(world.rt());
        assert_eq!(behind_one_without_answers(&world, true).await, [1; 20]);
        let took = levee_core::ports::Runtime::now(world.rt()) - before;
        assert!(took.as_secs() < 2, "they waited for {took:?}");
    });
}

#[test]
fn a_reader_that_gets_no_answers_is_not_waited_for_for_ever() {
    scenario(|world| async move {
        assert_eq!(behind_one_without_answers(&world, false).await, [1; 20]);
    });
}
