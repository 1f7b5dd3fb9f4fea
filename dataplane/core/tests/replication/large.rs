//! Volumes of so many chunks that what is said of them does not fit into one message.

use crate::cases::{N1, pass, put};
use crate::model::stamp_of;
use crate::world::{TestGateway, VOLUME, World};
use levee_core::ports::Runtime;
use levee_core::sync::timeout;
use levee_core::testing::TestRuntime;
use levee_proto::wire::{MAX_META, MAX_SUMMARIES};
use levee_proto::{BLOCK_SIZE, CHUNK_SIZE, Epoch, NodeId};
use std::time::Duration;

/// More on one shard than a message can tell of.
const CHUNKS: u64 = 40_000;
/// What checkpoints of so many replicas need, too.
const DISK: u64 = 1 << 30;

/// Chunks of the volume: `LEVEE_CHUNKS`, to measure others.
fn chunks() -> u64 {
    crate::number("LEVEE_CHUNKS").unwrap_or(CHUNKS)
}

fn last() -> u64 {
    chunks() * CHUNK_SIZE / BLOCK_SIZE as u64 - 1
}

/// All chunks are there, and the first and the last block are written, by a gateway that is killed.
async fn fill(world: &World) {
    world.enlarge(chunks() * CHUNK_SIZE);
    let (first, number) = world.attach();
    put(world, &first, 0, 7).await;
    put(world, &first, last(), 8).await;
    world.allocate_all(Epoch(1)).await;
    assert_eq!(world.chunks_of(VOLUME) as u64, chunks());
    world.cut_off(number);
    first.stop("killed");
}

async fn read(gateway: &TestGateway, block: u64) -> u64 {
    stamp_of(&gateway.read(block * BLOCK_SIZE as u64, BLOCK_SIZE).await.unwrap().concat())
}

/// All chunks are served, with all copies, and soon.
async fn is_whole(world: &World, gateway: &TestGateway, what: &str) {
    let begun = world.rt().now();
    timeout(world.rt(), Duration::from_secs(60), gateway.ready()).await.expect("it is taken over").unwrap();
    let served = world.rt().now() - begun;
    for _ in 0..600 {
        if gateway.health().degraded == 0 {
            break;
        }
        pass(world, 100).await;
    }
    let health = gateway.health();
    assert_eq!((u64::from(health.healthy), health.degraded, health.waiting), (chunks(), 0, 0));
    println!("{what}: served after {served:?}, whole after {:?}", world.rt().now() - begun);
}

#[test]
fn a_volume_of_more_chunks_than_a_message_tells_of_is_taken_over_and_verified() {
    const { assert!(CHUNKS as usize / 2 > MAX_SUMMARIES && CHUNKS as usize / 2 * 65 > MAX_META) };
    let rt = TestRuntime::new(1);
    rt.block_on(async {
        let world = World::with_disks(&rt, 1, 3, 2, DISK).await;
        fill(&world).await;
        println!("filled");
        let (second, number) = world.attach();
        is_whole(&world, &second, "a takeover").await;
        assert_eq!((read(&second, 0).await, read(&second, last()).await), (7, 8));
        put(&world, &second, last(), 9).await;
        // A member of every chunk is started again, and one of another gateway after that.
        world.kill(N1);
        world.start(N1).await;
        is_whole(&world, &second, "a node that was started again").await;
        world.cut_off(number);
        world.kill(NodeId(2));
        world.start(NodeId(2)).await;
        let (third, _) = world.attach();
        is_whole(&world, &third, "another takeover").await;
        assert_eq!((read(&third, 0).await, read(&third, last()).await), (7, 9));
        let report = third.verify(Duration::from_secs(60), |_| {}).await.unwrap();
        assert_eq!((report.mismatches, u64::from(report.chunks)), (vec![], chunks()));
        println!("verified");
        second.stop("the test ends");
        third.stop("the test ends");
    });
    rt.abort_all();
}
