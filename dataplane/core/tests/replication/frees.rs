//! Chunks that hold no data any more are given back, and whoever writes meanwhile loses nothing. Three nodes.

use crate::cases::{assert_heals, content, get, pass, put, put_later, told, within};
use crate::world::{TestGateway, World};
use levee_proto::NodeId;
use std::rc::Rc;

/// What a request can reach of the first chunk: the first stripe unit.
const UNIT: u64 = 1 << 20;

fn scenario<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    told(5, 3, 2, story);
}

async fn discard(world: &World, gateway: &TestGateway, len: u64) {
    within(world, "a discard", gateway.discard(0, len)).await.unwrap();
}

async fn until_freed(world: &World, count: u64) {
    let freed = async {
        while world.freed() < count {
            pass(world, 10).await;
        }
    };
    within(world, "freeing", freed).await;
}

#[test]
fn an_emptied_chunk_is_given_back_and_a_new_one_takes_its_place() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 3, 7).await;
        put(&world, &gateway, 200, 8).await;
        discard(&world, &gateway, UNIT).await;
        until_freed(&world, 1).await;
        assert_eq!(get(&world, &gateway, 3).await, 0);
        put(&world, &gateway, 200, 9).await;
        assert_eq!((get(&world, &gateway, 3).await, get(&world, &gateway, 200).await), (0, 9));
        let (next, _) = world.attach();
        assert_eq!((get(&world, &next, 3).await, get(&world, &next, 200).await), (0, 9));
        assert_heals(&world, &next).await;
    });
}

#[test]
fn a_chunk_with_a_block_of_data_stays() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 3, 7).await;
        put(&world, &gateway, 200, 8).await;
        discard(&world, &gateway, UNIT / 2).await;
        pass(&world, 3000).await;
        assert_eq!((world.freed(), get(&world, &gateway, 200).await), (0, 8));
        // It is noticed whichever request empties it, and by a gateway that did not see the others.
        let (next, _) = world.attach();
        within(&world, "zeroes", next.write_zeroes(UNIT / 2, UNIT / 2)).await.unwrap();
        until_freed(&world, 1).await;
    });
}

#[test]
fn while_nobody_knows_whether_it_is_freed_reads_go_on_and_writes_wait() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 3, 7).await;
        world.mute_changes(true);
        discard(&world, &gateway, UNIT).await;
        until_freed(&world, 1).await;
        let done = put_later(&world, &gateway, 3, content(9));
        pass(&world, 3000).await;
        assert!(!done.get(), "written to a chunk that is no more");
        assert_eq!(get(&world, &gateway, 4).await, 0);
        world.mute_changes(false);
        within(&world, "the write", async {
            while !done.get() {
                pass(&world, 10).await;
            }
        })
        .await;
        assert_eq!(get(&world, &gateway, 3).await, 9);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn writes_that_race_with_freeing_are_all_there() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        for round in 1..60 {
            put(&world, &gateway, 3, round).await;
            discard(&world, &gateway, UNIT).await;
            pass(&world, world.below(140)).await;
            let writes: Vec<Rc<_>> =
                (0..4).map(|b| put_later(&world, &gateway, b * 50, content(round * 10 + b))).collect();
            let killed = NodeId(1 + world.below(3) as u32);
            if round % 7 == 0 {
                world.kill(killed);
            }
            within(&world, "the writes", async {
                while !writes.iter().all(|done| done.get()) {
                    pass(&world, world.below(150)).await;
                }
            })
            .await;
            if round % 7 == 0 {
                world.start(killed).await;
            }
            for b in 0..4 {
                assert_eq!(get(&world, &gateway, b * 50).await, round * 10 + b, "round {round}");
            }
            pass(&world, world.below(200)).await;
        }
        assert!(world.freed() > 0);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_gateway_that_was_replaced_cannot_zero_what_it_knows_no_chunk_of() {
    scenario(|world| async move {
        let (first, _) = world.attach();
        within(&world, "zeroes", first.write_zeroes(0, UNIT)).await.unwrap();
        let (second, _) = world.attach();
        put(&world, &second, 3, 7).await;
        assert!(within(&world, "zeroes", first.write_zeroes(0, UNIT)).await.is_err());
        assert!(within(&world, "zeroes", first.write_zeroes(512, 512)).await.is_err());
        assert_eq!(get(&world, &second, 3).await, 7);
    });
}
