//! A gateway takes writes in the order in which they come, whatever they have to wait for: what a dead guest has left lands before
//! what comes later, or never. Three nodes; two of whose copies acknowledge a write.

use crate::cases::{content, get, pass, put, told, within};
use crate::world::{Fate, TestGateway, World};
use bytes::Bytes;
use levee_core::gateway::Failure;
use levee_core::ports::Runtime;
use levee_proto::BLOCK_SIZE;
use levee_proto::wire::Request;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// What a request can reach of the first chunk: the first stripe unit.
const UNIT: u64 = 1 << 20;

/// A request that has been made and may wait for something.
type Begun = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Runs a story with several seeds: each wakes those who wait in another order.
fn scenario<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    (0..12).for_each(|seed| told(seed, 3, 2, &story));
}

/// Makes a request: whatever it has to wait for, its place in the order is taken.
fn begin(request: impl Future<Output = Result<(), Failure>> + 'static) -> Begun {
    let mut request: Begun = Box::pin(request);
    assert!(matches!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending), "it is done");
    request
}

fn write(gateway: &TestGateway, block: u64, stamp: u64) -> Begun {
    let gateway = gateway.clone();
    begin(async move { gateway.write(block * BLOCK, Bytes::from(content(stamp))).await })
}

/// Lets requests go on, each by itself.
async fn finish(world: &World, requests: Vec<Begun>) {
    let left = Rc::new(Cell::new(requests.len()));
    for request in requests {
        let left = left.clone();
        world.rt().spawn(async move {
            request.await.unwrap();
            left.set(left.get() - 1);
        });
    }
    within(world, "requests", async {
        while left.get() > 0 {
            pass(world, 1).await;
        }
    })
    .await;
}

#[test]
fn writes_to_a_chunk_that_is_not_there_yet() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        let first: Vec<Begun> = (1..=4).map(|stamp| write(&gateway, 3, stamp)).collect();
        let second = world.clone();
        let late = gateway.clone();
        // And one that comes when the chunk is there, but not those who waited for it.
        let last = Rc::new(Cell::new(false));
        let done = last.clone();
        world.rt().spawn(async move {
            while second.chunks_of(crate::world::VOLUME) == 0 {
                second.rt().sleep(Duration::from_micros(1)).await;
            }
            late.write(3 * BLOCK, Bytes::from(content(5))).await.unwrap();
            done.set(true);
        });
        finish(&world, first).await;
        within(&world, "the last write", async {
            while !last.get() {
                pass(&world, 1).await;
            }
        })
        .await;
        assert_eq!(get(&world, &gateway, 3).await, 5);
    });
}

#[test]
fn writes_to_a_chunk_that_is_being_given_back() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 3, 7).await;
        world.mute_changes(true);
        within(&world, "a discard", gateway.discard(0, UNIT)).await.unwrap();
        within(&world, "freeing", async {
            while world.freed() == 0 {
                pass(&world, 10).await;
            }
        })
        .await;
        let writes: Vec<Begun> = (1..=4).map(|stamp| write(&gateway, 3, stamp)).collect();
        world.mute_changes(false);
        finish(&world, writes).await;
        assert_eq!(get(&world, &gateway, 3).await, 4);
    });
}

#[test]
fn zeroes_take_all_their_places_at_once() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        for block in 0..4 {
            put(&world, &gateway, block, 7).await;
        }
        world.rule(|_, _, r| if matches!(r, Request::Write { .. }) { Fate::Slow(20) } else { Fate::Deliver });
        let zeroing = gateway.clone();
        let zeroes = begin(async move { zeroing.write_zeroes(512, 4 * BLOCK - 1024).await });
        let writes = [zeroes, write(&gateway, 0, 8), write(&gateway, 2, 8), write(&gateway, 3, 8)];
        finish(&world, writes.into()).await;
        for (block, stamp) in [(0, 8), (1, 0), (2, 8), (3, 8)] {
            assert_eq!(get(&world, &gateway, block).await, stamp, "block {block}");
        }
    });
}

#[test]
fn what_is_dropped_before_it_began_never_lands() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        // It waits for a chunk.
        drop(write(&gateway, 1 << 16, 2));
        put(&world, &gateway, 3, 7).await;
        world.rule(|_, _, r| if matches!(r, Request::Write { .. }) { Fate::Slow(50) } else { Fate::Deliver });
        // The first has begun, the second waits for it.
        let (held, waiting) = (write(&gateway, 3, 1), write(&gateway, 3, 2));
        let last = write(&gateway, 3, 3);
        drop((held, waiting));
        finish(&world, vec![last]).await;
        pass(&world, 1000).await;
        assert_eq!((get(&world, &gateway, 3).await, get(&world, &gateway, 1 << 16).await), (3, 0));
    });
}
