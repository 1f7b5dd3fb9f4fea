//! What keeps copies whole and readable while nothing dies: scrubbing, slow copies, commit points. Three nodes; blocks of
//! chunk 0, which is on all of them; gateways run on node 1.

use crate::cases::{assert_heals, content, get, pass, put, told, within};
use crate::world::{Fate, TestGateway, World};
use levee_core::ports::Runtime;
use levee_proto::NodeId;
use levee_proto::wire::{Request, Status};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

fn scenario<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    told(5, 3, 2, story);
}

async fn fill(world: &World, gateway: &TestGateway, blocks: u64) {
    for block in 0..blocks {
        put(world, gateway, block, 100 + block).await;
    }
    healthy(world, gateway).await;
}

async fn healthy(world: &World, gateway: &TestGateway) {
    within(world, "healing", async {
        while gateway.health().degraded + gateway.health().waiting > 0 {
            pass(world, 10).await;
        }
    })
    .await;
}

/// Flips a bit of what the node's disk holds of a block.
fn rot(world: &World, node: NodeId, stamp: u64) {
    let at = world.find(node, &content(stamp)).expect("the block is there");
    world.disk(node).edit(at, 1, |bytes| bytes[0] ^= 0x10);
}

#[test]
fn a_scrub_finds_and_replaces_what_has_rotted() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 60).await;
        for (block, node) in [(3, N1), (17, N2), (18, N2), (59, N3)] {
            rot(&world, node, 100 + block);
        }
        let found = within(&world, "a scrub", gateway.scrub(|_, _| {})).await.unwrap();
        assert_eq!((found.bad, found.different), (4, 0), "{found:?}");
        healthy(&world, &gateway).await;
        let found = within(&world, "a scrub", gateway.scrub(|_, _| {})).await.unwrap();
        assert_eq!((found.bad, found.different, found.blocks), (0, 0, 3 * 60), "{found:?}");
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_read_does_not_wait_for_a_slow_copy_and_later_ones_avoid_it() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 20).await;
        // The local copy takes reads and does not answer.
        world.rule(|_, node, r| match r {
            Request::Read { .. } if node == N1 => Fate::Hold,
            _ => Fate::Deliver,
        });
        let begun = world.rt().now();
        assert_eq!(get(&world, &gateway, 7).await, 107);
        assert!(world.rt().now() - begun < Duration::from_millis(200), "it waited");
        let begun = world.rt().now();
        for block in 0..20 {
            assert_eq!(get(&world, &gateway, block).await, 100 + block);
        }
        assert!(world.rt().now() - begun < Duration::from_millis(100), "the slow one was asked again");
        assert_eq!(gateway.report().hedged_reads, 1);
        world.no_rule();
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_disk_that_does_not_answer_is_left_alone_longer_each_time_unless_it_is_needed() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 4).await;
        let slow = Rc::new(Cell::new(true));
        let is_slow = slow.clone();
        world.rule(move |_, node, r| match r {
            Request::Write { .. } if node == N2 && is_slow.get() => Fate::Hold,
            _ => Fate::Deliver,
        });
        for round in 0..200 {
            put(&world, &gateway, 1, 1000 + round).await;
            pass(&world, 100).await;
        }
        let evictions = gateway.report().evictions;
        assert!((2..=6).contains(&evictions), "{evictions} evictions in 20 s");
        // Without node 3, the slow one is needed.
        slow.set(false);
        world.kill(N3);
        let begun = world.rt().now();
        put(&world, &gateway, 2, 5).await;
        assert!(world.rt().now() - begun < Duration::from_secs(2), "it stayed in quarantine");
        world.start(N3).await;
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_takeover_lists_only_what_may_be_in_doubt() {
    scenario(|world| async move {
        let (first, number) = world.attach();
        fill(&world, &first, 50).await;
        // Commit points are told, and some time later made durable by whatever is written then.
        pass(&world, 5000).await;
        let listed = Rc::new(Cell::new(0));
        let sum = listed.clone();
        // One write that only node 3 has, so that the copies differ.
        world.rule(move |gateway, node, r| match r {
            Request::Write { .. } if gateway == 0 && node != N3 => Fate::Hold,
            Request::List { above, .. } => {
                sum.set(sum.get() + 1);
                assert!(above.counter() >= 50, "everything was listed: {gateway} {node} {r:?}");
                Fate::Deliver
            }
            _ => Fate::Deliver,
        });
        let _ = crate::cases::put_later(&world, &first, 9, content(7));
        pass(&world, 100).await;
        world.cut_off(number);
        let (second, _) = world.attach();
        let seen = get(&world, &second, 9).await;
        assert!(seen == 7 || seen == 109, "{seen}");
        assert!(listed.get() >= 3, "nothing was listed");
        world.no_rule();
        for block in (0..50).filter(|b| *b != 9) {
            assert_eq!(get(&world, &second, block).await, 100 + block);
        }
        assert_heals(&world, &second).await;
    });
}

#[test]
fn what_was_there_before_a_void_write_comes_back_although_it_was_committed() {
    scenario(|world| async move {
        let (first, number) = world.attach();
        fill(&world, &first, 10).await;
        pass(&world, 5000).await;
        // Node 3 alone takes a write, and misses the next takeover.
        let n3_away = Rc::new(Cell::new(false));
        let away = n3_away.clone();
        world.rule(move |gateway, node, r| match r {
            _ if gateway > 0 && node == N3 && away.get() => Fate::Lose,
            Request::Write { .. } if gateway == 0 && node != N3 => Fate::Hold,
            _ => Fate::Deliver,
        });
        let _ = crate::cases::put_later(&world, &first, 4, content(7));
        pass(&world, 100).await;
        n3_away.set(true);
        world.cut_off(number);
        let (second, number) = world.attach();
        assert_eq!(get(&world, &second, 4).await, 104);
        world.cut_off(number);
        n3_away.set(false);
        // It is part of the third, whose other answer comes from one that adopted the second.
        let (third, _) = world.attach();
        assert_eq!(get(&world, &third, 4).await, 104);
        assert_heals(&world, &third).await;
    });
}

#[test]
fn full_disks_make_writes_wait_and_say_so() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 4).await;
        world.rule(|_, _, r| match r {
            Request::Write { kind: levee_proto::wire::BlockKind::Data, .. } => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        let done = crate::cases::put_later(&world, &gateway, 1, content(5));
        pass(&world, 100).await;
        for _ in 0..1000 {
            pass(&world, 1).await;
            assert!(gateway.report().full && !done.get());
        }
        within(&world, "a discard", gateway.discard(2 * 4096, 4096)).await.unwrap();
        assert_eq!(get(&world, &gateway, 2).await, 0);
        world.no_rule();
        pass(&world, 1000).await;
        assert!(done.get() && !gateway.report().full);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_volume_that_nobody_uses_notices_a_lost_and_a_restarted_node() {
    scenario(|world| async move {
        let (gateway, number) = world.attach();
        fill(&world, &gateway, 4).await;
        pass(&world, 20_000).await;
        let before = world.sent_by(number);
        pass(&world, 60_000).await;
        let asked = world.sent_by(number) - before;
        assert!((1..=3 * 12 + 3).contains(&asked), "{asked} requests in a minute in which nobody wanted anything");
        world.kill(N2);
        pass(&world, 10_000).await;
        assert!(gateway.health().degraded > 0, "nobody noticed that the node is away");
        world.start(N2).await;
        healthy(&world, &gateway).await;
        // A restart between two looks: the daemon says that it does not know this gateway.
        let fenced = Rc::new(Cell::new(false));
        let is_fenced = fenced.clone();
        world.rule(move |_, node, r| {
            is_fenced.set(is_fenced.get() || (node == N3 && matches!(r, Request::Fence { .. })));
            Fate::Deliver
        });
        world.kill(N3);
        world.start(N3).await;
        pass(&world, 10_000).await;
        assert!(fenced.get(), "nobody noticed that the node was started again");
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_verification_that_waits_for_writes_does_not_hold_up_reads() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 4).await;
        world.kill(N2);
        world.kill(N3);
        let done = crate::cases::put_later(&world, &gateway, 1, content(9));
        pass(&world, 100).await;
        let (verifying, ended) = (gateway.clone(), Rc::new(Cell::new(0)));
        let mismatches = ended.clone();
        world.rt().spawn(async move {
            let report = verifying.verify(Duration::from_secs(20), |_| {}).await.unwrap();
            mismatches.set(report.mismatches.len());
        });
        for _ in 0..25 {
            pass(&world, 1000).await;
            assert_eq!(get(&world, &gateway, 2).await, 102);
        }
        within(&world, "the verification", async {
            while ended.get() == 0 {
                pass(&world, 100).await;
            }
        })
        .await;
        assert!(!done.get());
        world.start(N2).await;
        world.start(N3).await;
        assert_heals(&world, &gateway).await;
        assert!(done.get());
    });
}
