//! Disks that take seconds for each operation: writes wait for them where they cannot do without, and everything becomes whole.
//! Three nodes, two of whose copies acknowledge a write; gateways run on node 1.

use crate::cases::{assert_heals, content, get, pass, put, put_later, told, within};
use crate::world::{TestGateway, World};
use levee_core::ports::Runtime;
use levee_proto::wire::Request;
use levee_proto::{BLOCK_SIZE, NodeId};
use std::cell::Cell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

/// More than a gateway waits for a copy that it can do without.
const SLOW: Duration = Duration::from_millis(1100);
/// As slow as any disk that its daemon does not give up.
const SLOWEST: Duration = Duration::from_secs(5);

fn scenario<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    told(5, 3, 2, story);
}

/// From now on every operation of the disks of these nodes takes so long.
fn set_pace(world: &World, nodes: RangeInclusive<u32>, time: Duration) {
    nodes.for_each(|n| world.disk(NodeId(n)).set_pace(world.rt(), time, time));
}

/// Counts requests to write.
fn count_writes(world: &World) -> Rc<Cell<u32>> {
    let writes = Rc::new(Cell::new(0));
    let counted = writes.clone();
    world.rule(move |_, _, r| {
        counted.set(counted.get() + u32::from(matches!(r, Request::Write { .. })));
        crate::world::Fate::Deliver
    });
    writes
}

async fn until_whole(world: &World, gateway: &TestGateway) {
    let end = world.rt().now() + Duration::from_secs(600);
    while gateway.health().degraded + gateway.health().waiting > 0 {
        assert!(world.rt().now() < end, "it does not become whole: {:?}", gateway.report());
        pass(world, 100).await;
    }
}

#[test]
fn writes_are_answered_when_all_copies_are_slow() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        pass(&world, 500).await;
        set_pace(&world, 1..=3, SLOW);
        let writes = count_writes(&world);
        put(&world, &gateway, 1, 2).await;
        assert!(writes.get() <= 6, "it was sent {} times", writes.get());
        assert!(gateway.report().evictions <= 1, "copies were left behind that are needed");
        for stamp in 3..8 {
            put(&world, &gateway, stamp, stamp).await;
        }
        assert_eq!(get(&world, &gateway, 1).await, 2);
        until_whole(&world, &gateway).await;
        set_pace(&world, 1..=3, Duration::ZERO);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn one_quick_copy_is_not_enough_and_one_slow_one_is_left_behind() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        pass(&world, 500).await;
        set_pace(&world, 2..=3, SLOW);
        put(&world, &gateway, 1, 2).await;
        until_whole(&world, &gateway).await;
        set_pace(&world, 3..=3, Duration::ZERO);
        let before = gateway.report().evictions;
        for stamp in 3..6 {
            let begun = world.rt().now();
            put(&world, &gateway, 1, stamp).await;
            assert!(world.rt().now() - begun < SLOW, "it waited for the slow copy");
            pass(&world, 1500).await;
        }
        assert!(gateway.report().evictions > before, "the slow copy was never left behind");
        // While nobody writes, it is caught up at its own pace, however slow.
        until_whole(&world, &gateway).await;
        set_pace(&world, 2..=2, Duration::ZERO);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_volume_is_taken_over_and_grows_on_the_slowest_disks() {
    scenario(|world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        pass(&world, 500).await;
        set_pace(&world, 1..=3, SLOWEST);
        let undecided = put_later(&world, &first, 1, content(2));
        pass(&world, 3000).await;
        world.cut_off(number);
        let (second, _) = world.attach();
        // Block 1 << 16 begins a group of chunks that are not there yet.
        let blocks = [1, 2, 1 << 16];
        let done: Vec<_> = blocks.iter().map(|b| put_later(&world, &second, *b, content(100 + b))).collect();
        let end = world.rt().now() + Duration::from_secs(300);
        while !done.iter().all(|d| d.get()) {
            assert!(world.rt().now() < end, "writes are not answered: {:?}", second.report());
            pass(&world, 100).await;
        }
        assert!(!undecided.get());
        until_whole(&world, &second).await;
        set_pace(&world, 1..=3, Duration::ZERO);
        for b in blocks {
            assert_eq!(get(&world, &second, b).await, 100 + b);
        }
        first.stop("the test ends");
        assert_heals(&world, &second).await;
    });
}

/// A copy that is sent a write again because its link broke has it in its log once.
#[test]
fn what_is_sent_again_is_written_once() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        pass(&world, 3000).await;
        set_pace(&world, 1..=3, SLOWEST);
        let data: Vec<u8> = (0..64 * BLOCK_SIZE).map(|i| i as u8).collect();
        let len = data.len() as u64;
        let done = put_later(&world, &gateway, 8, data);
        pass(&world, 300).await;
        let before: u64 = (1..=3).map(|n| world.disk(NodeId(n)).bytes_written()).sum();
        for _ in 0..20 {
            // Answers are lost for a moment, and with them the links.
            world.rule(|_, _, r| match r {
                Request::Scan { .. } | Request::Fence { .. } => crate::world::Fate::Deliver,
                _ => crate::world::Fate::Lose,
            });
            put_later(&world, &gateway, 1, content(7));
            pass(&world, 100).await;
            world.no_rule();
            pass(&world, 400).await;
        }
        within(&world, "the write", async {
            while !done.get() {
                pass(&world, 100).await;
            }
        })
        .await;
        let written: u64 = (1..=3).map(|n| world.disk(NodeId(n)).bytes_written()).sum();
        assert!(written - before < 3 * len, "{} bytes for {len}", written - before);
        until_whole(&world, &gateway).await;
        set_pace(&world, 1..=3, Duration::ZERO);
        assert_heals(&world, &gateway).await;
    });
}
