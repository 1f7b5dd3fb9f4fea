//! Single executions that a protocol like this can get wrong, each told step by step.
//!
//! Three nodes, and blocks of chunk 0, whose members are on nodes 2, 3 and 1 in this order; gateways run on node 1.

use crate::model::stamp_of;
use crate::world::{DISK_SIZE, Fate, TestGateway, World};
use bytes::Bytes;
use levee_core::ports::Runtime;
use levee_core::sync::timeout;
use levee_core::testing::TestRuntime;
use levee_proto::wire::{Request, Status};
use levee_proto::{BLOCK_SIZE, NodeId};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

pub const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
/// Of virtual time, for anything that is possible at all.
pub const LONG: Duration = Duration::from_secs(60);

/// A block full of `stamp`.
pub fn content(stamp: u64) -> Vec<u8> {
    crate::model::content(stamp, BLOCK_SIZE)
}

/// Tells a story in a new world of so many nodes.
pub fn told<F: Future<Output = ()>>(seed: u64, nodes: u32, min_copies: u8, story: impl FnOnce(World) -> F) {
    let rt = TestRuntime::new(seed);
    rt.block_on(async {
        let world = World::new(&rt, seed, nodes, min_copies).await;
        story(world).await;
    });
    rt.abort_all();
}

pub fn scenario<F: Future<Output = ()>>(min_copies: u8, story: impl FnOnce(World) -> F) {
    told(5, 3, min_copies, story);
}

pub async fn within<T>(world: &World, what: &str, future: impl Future<Output = T>) -> T {
    timeout(world.rt(), LONG, future).await.unwrap_or_else(|| panic!("{what}: does not end"))
}

pub async fn pass(world: &World, ms: u64) {
    world.rt().sleep(Duration::from_millis(ms)).await;
}

pub async fn put(world: &World, gateway: &TestGateway, block: u64, stamp: u64) {
    let write = gateway.write(block * BLOCK_SIZE as u64, Bytes::from(content(stamp)));
    within(world, "a write", write).await.unwrap();
}

/// Begins a write that is not waited for.
pub fn put_later(world: &World, gateway: &TestGateway, block: u64, data: Vec<u8>) -> Rc<Cell<bool>> {
    let (gateway, done) = (gateway.clone(), Rc::new(Cell::new(false)));
    let flag = done.clone();
    world.rt().spawn(async move {
        flag.set(gateway.write(block * BLOCK_SIZE as u64, Bytes::from(data)).await.is_ok());
    });
    done
}

pub async fn get(world: &World, gateway: &TestGateway, block: u64) -> u64 {
    let read = gateway.read(block * BLOCK_SIZE as u64, BLOCK_SIZE);
    stamp_of(&within(world, "a read", read).await.unwrap().concat())
}

/// All copies become healthy and equal.
pub async fn assert_heals(world: &World, gateway: &TestGateway) {
    // Finds blocks that nobody has read since they became bad.
    within(world, "a verification", gateway.verify(LONG / 2, |_| {})).await.unwrap();
    let report = within(world, "a verification", gateway.verify(LONG / 2, |_| {})).await.unwrap();
    assert_eq!(report.mismatches, [], "copies differ");
    gateway.stop("the test ends");
}

fn is_write(request: &Request) -> bool {
    matches!(request, Request::Write { .. })
}

#[test]
fn copies_of_which_each_misses_something_heal_each_other() {
    scenario(2, |world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        // Nothing is copied for a while: the disks are full, it seems.
        world.rule(|_, _, r| match r {
            Request::Repair { .. } => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        for (block, away) in [(1, N1), (2, N2), (3, N3)] {
            world.kill(away);
            put(&world, &gateway, block, 10 + block).await;
            world.start(away).await;
            pass(&world, 3000).await;
        }
        world.no_rule();
        for block in 1..=3 {
            assert_eq!(get(&world, &gateway, block).await, 10 + block);
        }
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_copy_with_a_full_disk_is_not_read_before_it_has_the_write() {
    scenario(1, |world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        pass(&world, 500).await;
        // Node 2 is slow, node 3 is full.
        let slow = Rc::new(Cell::new(true));
        let is_slow = slow.clone();
        world.rule(move |_, node, r| match r {
            r if is_write(r) && node == N2 && is_slow.get() => Fate::Hold,
            r if is_write(r) && node == N3 => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        put(&world, &gateway, 1, 2).await;
        // Node 3 has given the write up, and is caught up from somebody.
        pass(&world, 700).await;
        world.kill(N1);
        let end = world.rt().now() + Duration::from_millis(700);
        while world.rt().now() < end {
            let read = gateway.read(BLOCK_SIZE as u64, BLOCK_SIZE);
            if let Some(read) = timeout(world.rt(), Duration::from_millis(50), read).await {
                assert_eq!(stamp_of(&read.unwrap().concat()), 2);
            }
        }
        slow.set(false);
        world.no_rule();
        world.start(N1).await;
        assert_eq!(get(&world, &gateway, 1).await, 2);
        assert_heals(&world, &gateway).await;
    });
}

/// A write of `data` reaches `only` that node, and its gateway dies.
async fn leave_in_doubt(world: &World, gateway: &TestGateway, number: u64, only: NodeId, block: u64, data: Vec<u8>) {
    // Nobody is caught up any more: that would carry it further.
    pass(world, 500).await;
    world.rule(move |_, node, r| if is_write(r) && node != only { Fate::Hold } else { Fate::Deliver });
    let done = put_later(world, gateway, block, data);
    pass(world, 100).await;
    world.cut_off(number);
    assert!(!done.get());
}

#[test]
fn what_one_copy_adopted_without_the_others_does_not_come_back() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        leave_in_doubt(&world, &first, number, N1, 1, content(2)).await;
        // The second gateway reconciles nodes 1 and 2, but only node 1 gets there, and nobody hears of it.
        let adopted = Rc::new(Cell::new(false));
        let seen = adopted.clone();
        world.rule(move |gateway, node, r| match (r, node) {
            _ if gateway < 1 => Fate::Lose,
            (_, N3) if !seen.get() => Fate::Lose,
            (Request::Repair { .. }, N2) if !seen.get() => Fate::Lose,
            (Request::Adopt { .. }, N1) => {
                seen.set(true);
                Fate::LoseAnswer
            }
            (_, N1) if seen.get() => Fate::Lose,
            _ => Fate::Deliver,
        });
        let (second, number) = world.attach();
        pass(&world, 3000).await;
        // Then node 1 is away, and 3 is there.
        adopted.set(true);
        let before = get(&world, &second, 1).await;
        second.stop("killed");
        world.cut_off(number);
        world.no_rule();
        let (third, _) = world.attach();
        assert_eq!(get(&world, &third, 1).await, before);
        assert_heals(&world, &third).await;
    });
}

#[test]
fn a_decision_is_kept_when_nobody_says_that_it_was_adopted() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        leave_in_doubt(&world, &first, number, N1, 1, content(2)).await;
        // Nodes 1 and 2 adopt, but their answers are lost again and again.
        let deaf = Rc::new(Cell::new(true));
        let is_deaf = deaf.clone();
        world.rule(move |gateway, node, r| match (r, node) {
            _ if gateway < 1 => Fate::Lose,
            (_, N3) if is_deaf.get() => Fate::Lose,
            (Request::Adopt { .. }, _) if is_deaf.get() => Fate::LoseAnswer,
            _ => Fate::Deliver,
        });
        let (second, number) = world.attach();
        pass(&world, 2000).await;
        // One of the two that know is enough.
        world.kill(N1);
        deaf.set(false);
        let before = get(&world, &second, 1).await;
        second.stop("killed");
        world.cut_off(number);
        world.no_rule();
        world.start(N1).await;
        let (third, _) = world.attach();
        assert_eq!(get(&world, &third, 1).await, before);
        assert_heals(&world, &third).await;
    });
}

#[test]
fn what_a_failed_reconciliation_changed_is_not_taken_for_equal() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 0, 1).await;
        // More than one repair's worth is on node 3 alone.
        let half = 256 * BLOCK_SIZE;
        let all: Vec<u8> = content(2).repeat(300);
        world.rule(|_, node, r| if is_write(r) && node != N3 { Fate::Hold } else { Fate::Deliver });
        put_later(&world, &first, 0, all[..half].to_vec());
        // The next stripe unit of chunk 0.
        put_later(&world, &first, 4 * 256, all[half..].to_vec());
        pass(&world, 100).await;
        world.cut_off(number);
        // Node 3 goes away when it has been asked for the first part.
        let gone = Rc::new(Cell::new(false));
        let is_gone = gone.clone();
        world.rule(move |gateway, node, r| {
            if let Request::Read { block: 256.., .. } = r {
                is_gone.set(true);
            }
            if gateway < 1 || (node == N3 && is_gone.get()) { Fate::Lose } else { Fate::Deliver }
        });
        let (second, _) = world.attach();
        let before = get(&world, &second, 0).await;
        for away in [N1, N2] {
            world.kill(away);
            world.start(away).await;
            assert_eq!(get(&world, &second, 0).await, before);
        }
        world.no_rule();
        assert_heals(&world, &second).await;
    });
}

#[test]
fn a_node_without_the_disk_holds_nobody_up() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        leave_in_doubt(&world, &first, number, N1, 1, content(2)).await;
        world.no_rule();
        world.kill(N2);
        world.start_without_disk(N2);
        let (second, number) = world.attach();
        within(&world, "the takeover", second.ready()).await.unwrap();
        assert_eq!(get(&world, &second, 1).await, 2);
        put(&world, &second, 1, 3).await;
        let sent = world.sent_by(number);
        pass(&world, 1000).await;
        assert!(world.sent_by(number) < sent + 200, "a missing disk keeps a node busy");
        world.kill(N2);
        world.start(N2).await;
        assert_heals(&world, &second).await;
    });
}

#[test]
fn a_stopped_gateway_is_silent() {
    for us in (0..3000).step_by(150) {
        scenario(2, |world| async move {
            world.rt().sleep(Duration::from_millis(1)).await;
            let (gateway, number) = world.attach();
            put_later(&world, &gateway, 1, content(1));
            world.rt().sleep(Duration::from_micros(us)).await;
            gateway.stop("closed");
            pass(&world, 1).await;
            let sent = world.sent_by(number);
            pass(&world, 5000).await;
            assert_eq!(world.sent_by(number), sent, "stopped after {us} us");
        });
    }
}

#[test]
fn a_write_whose_caller_is_gone_is_not_read_before_it_is_safe() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        world.rule(|_, node, r| if is_write(r) && node != N1 { Fate::Hold } else { Fate::Deliver });
        {
            let mut write = pin!(first.write(BLOCK_SIZE as u64, Bytes::from(content(2))));
            assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        pass(&world, 100).await;
        let read = timeout(world.rt(), Duration::from_millis(500), first.read(BLOCK_SIZE as u64, BLOCK_SIZE)).await;
        let seen = read.map(|r| stamp_of(&r.unwrap().concat()));
        world.cut_off(number);
        world.kill(N1);
        world.no_rule();
        let (second, _) = world.attach();
        let after = get(&world, &second, 1).await;
        assert!(seen.is_none_or(|seen| seen == after), "{seen:?} was read, then {after}");
        world.start(N1).await;
        assert_heals(&world, &second).await;
    });
}

#[test]
fn fewer_nodes_than_copies_wanted_do_not_keep_an_open_waiting() {
    scenario(3, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        world.cut_off(number);
        world.kill(N2);
        let (second, _) = world.attach();
        within(&world, "the open", second.ready()).await.unwrap();
        assert_eq!(second.health().waiting, 8);
        world.start(N2).await;
        assert_eq!(get(&world, &second, 1).await, 1);
        assert_heals(&world, &second).await;
    });
}

/// Flips a bit of the block with this stamp on the node.
fn corrupt(world: &World, node: NodeId, stamp: u64) {
    let at = world.find(node, &content(stamp)).expect("the block is there");
    world.disk(node).flip_bit(at + 100, 3);
}

#[test]
fn blocks_that_are_bad_on_different_copies_are_all_read_and_repaired() {
    scenario(2, |world| async move {
        let (gateway, _) = world.attach();
        for block in 0..8 {
            put(&world, &gateway, block, 100 + block).await;
        }
        pass(&world, 500).await;
        corrupt(&world, N1, 101);
        corrupt(&world, N2, 105);
        corrupt(&world, N3, 103);
        let all = within(&world, "a read", gateway.read(0, 8 * BLOCK_SIZE)).await.unwrap().concat();
        let stamps: Vec<u64> = all.chunks(BLOCK_SIZE).map(stamp_of).collect();
        assert_eq!(stamps, (100..108).collect::<Vec<u64>>());
        // Every copy is read; what is bad is found and made good.
        for away in [[N2, N3], [N1, N3], [N1, N2]] {
            away.iter().for_each(|n| world.hang(*n, true));
            let read = timeout(world.rt(), LONG, gateway.read(0, 8 * BLOCK_SIZE));
            let unhang = world.clone();
            world.rt().spawn(async move {
                pass(&unhang, 5000).await;
                away.iter().for_each(|n| unhang.hang(*n, false));
            });
            assert_eq!(read.await.expect("it ends").unwrap().concat(), all);
            pass(&world, 10_000).await;
        }
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_takeover_finds_another_copy_when_one_is_bad() {
    scenario(3, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        // Node 1 misses the newest value, nodes 2 and 3 have it; node 2's is bad.
        world.rule(|_, node, r| if is_write(r) && node == N1 { Fate::Hold } else { Fate::Deliver });
        put_later(&world, &first, 1, content(2));
        pass(&world, 100).await;
        world.cut_off(number);
        world.no_rule();
        corrupt(&world, N2, 2);
        let (second, _) = world.attach();
        assert_eq!(get(&world, &second, 1).await, 2);
        // Finds the bad one.
        world.kill(N1);
        world.kill(N3);
        let read = second.read(BLOCK_SIZE as u64, BLOCK_SIZE);
        assert!(timeout(world.rt(), Duration::from_secs(5), read).await.is_none(), "there is no good copy");
        world.start(N1).await;
        world.start(N3).await;
        assert_eq!(get(&world, &second, 1).await, 2);
        pass(&world, 2000).await;
        assert_heals(&world, &second).await;
    });
}

/// Overwrites what the node's log holds around the block with this stamp.
fn wipe_around(world: &World, node: NodeId, stamp: u64) {
    wipe(world, node, stamp, 32 << 10, 32 << 10);
}

/// Overwrites so many bytes of the node's log before the block with this stamp and from it on.
fn wipe(world: &World, node: NodeId, stamp: u64, before: u64, from: u64) {
    let at = world.find(node, &content(stamp)).expect("the block is there");
    let (start, end) = (at.saturating_sub(before), (at + from).min(DISK_SIZE));
    world.disk(node).edit(start, (end - start) as usize, |bytes| bytes.fill(0x5a));
}

#[test]
fn a_copy_that_lost_part_of_its_log_is_no_witness_and_is_made_whole() {
    for running in [true, false] {
        scenario(2, |world| async move {
            let (first, number) = world.attach();
            for block in 0..40 {
                put(&world, &first, block, 100 + block).await;
            }
            // Node 3 misses the newest, node 2 has it and loses it.
            pass(&world, 500).await;
            world.hang(N3, true);
            for block in 0..40 {
                put(&world, &first, block, 200 + block).await;
            }
            world.kill(N2);
            wipe_around(&world, N2, 220);
            let gateway = if running {
                assert!(!world.start_damaged(N2).await, "nothing was lost");
                world.hang(N3, false);
                first
            } else {
                first.stop("killed");
                world.cut_off(number);
                world.kill(N1);
                assert!(!world.start_damaged(N2).await, "nothing was lost");
                world.hang(N3, false);
                let (second, _) = world.attach();
                pass(&world, 5000).await;
                // Those of the damaged shard: nobody can know what was written.
                assert_eq!(second.health().waiting, 4);
                world.start(N1).await;
                second
            };
            for block in 0..40 {
                assert_eq!(get(&world, &gateway, block).await, 200 + block);
            }
            assert_heals(&world, &gateway).await;
        });
    }
}

#[test]
fn a_write_that_corruption_took_back_is_sent_again() {
    scenario(2, |world| async move {
        let (gateway, _) = world.attach();
        for block in 0..20 {
            put(&world, &gateway, block, 1 + block).await;
        }
        pass(&world, 500).await;
        // Node 2 acknowledges, node 3 does not get it, node 1 is slow: then node 2 loses it.
        let held = Rc::new(RefCell::new(vec![N1, N3]));
        let holds = held.clone();
        world.rule(
            move |_, node, r| if is_write(r) && holds.borrow().contains(&node) { Fate::Hold } else { Fate::Deliver },
        );
        for block in 0..20 {
            put_later(&world, &gateway, block, content(501 + block));
        }
        pass(&world, 100).await;
        world.kill(N2);
        wipe_around(&world, N2, 510);
        let clean = world.start_damaged(N2).await;
        held.borrow_mut().clear();
        pass(&world, 10_000).await;
        println!("clean: {clean}");
        for away in [N1, N3] {
            world.kill(away);
            for block in 0..20 {
                assert_eq!(get(&world, &gateway, block).await, 501 + block);
            }
            world.start(away).await;
            pass(&world, 5000).await;
        }
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn nothing_is_asked_for_by_a_request_without_bytes() {
    scenario(2, |world| async move {
        let (gateway, number) = world.attach();
        put(&world, &gateway, 1, 1).await;
        let sent = world.sent_by(number);
        within(&world, "an empty write", gateway.write(4096, Bytes::new())).await.unwrap();
        within(&world, "an empty read", gateway.read(4096, 0)).await.unwrap();
        within(&world, "an empty write at the end", gateway.write(gateway.size(), Bytes::new())).await.unwrap();
        assert_eq!(world.sent_by(number), sent);
        assert_eq!(get(&world, &gateway, 1).await, 1);
        gateway.stop("the test ends");
    });
}

#[test]
fn a_write_that_a_takeover_did_not_see_does_not_come_back_after_the_next() {
    scenario(2, |world| does_not_come_back(world, 1));
}

#[test]
fn what_a_later_page_of_a_fence_tells_counts_like_the_first() {
    // In chunk 2, whose replicas are told after those of chunk 0.
    scenario(2, |world| does_not_come_back(world, 513));
}

/// A write reaches node 1 alone, a takeover decides without that node, and another one has it back.
async fn does_not_come_back(world: World, block: u64) {
    let (first, number) = world.attach();
    put(&world, &first, block, 1).await;
    leave_in_doubt(&world, &first, number, N1, block, content(2)).await;
    world.rule(|_, node, _| if node == N1 { Fate::Lose } else { Fate::Deliver });
    let (second, number) = world.attach();
    assert_eq!(get(&world, &second, block).await, 1);
    world.cut_off(number);
    world.no_rule();
    let (third, _) = world.attach();
    assert_eq!(get(&world, &third, block).await, 1);
    assert_heals(&world, &third).await;
}

#[test]
fn nothing_is_served_before_enough_copies_have_adopted() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        leave_in_doubt(&world, &first, number, N3, 1, content(2)).await;
        // Nodes 1 and 2 hold the state without the write, but only node 1 adopts it.
        world.rule(|gateway, node, r| match (r, node) {
            _ if gateway < 1 => Fate::Lose,
            (_, N3) | (Request::Adopt { .. }, N2) => Fate::Lose,
            _ => Fate::Deliver,
        });
        let (second, number) = world.attach();
        let read = timeout(world.rt(), Duration::from_secs(3), second.read(BLOCK_SIZE as u64, BLOCK_SIZE)).await;
        let seen = read.map(|r| stamp_of(&r.unwrap().concat()));
        world.cut_off(number);
        world.rule(|_, node, _| if node == N1 { Fate::Lose } else { Fate::Deliver });
        let (third, _) = world.attach();
        let after = get(&world, &third, 1).await;
        assert!(seen.is_none_or(|seen| seen == after), "{seen:?} was read, then {after}");
        world.no_rule();
        assert_heals(&world, &third).await;
    });
}

#[test]
fn what_a_damaged_copy_acknowledged_does_not_count() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        for block in 0..20 {
            put(&world, &first, block, 1 + block).await;
        }
        pass(&world, 500).await;
        // Only node 2 gets the new values, and loses them.
        let held = Rc::new(RefCell::new(vec![N1, N3]));
        let holds = held.clone();
        world.rule(move |_, node, r| match r {
            Request::Write { .. } if holds.borrow().contains(&node) => Fate::Hold,
            Request::Repair { .. } if node == N3 => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        let written: Vec<_> = (0..20).map(|b| put_later(&world, &first, b, content(501 + b))).collect();
        pass(&world, 100).await;
        put_later(&world, &first, 31, content(31));
        pass(&world, 100).await;
        world.kill(N2);
        // From before the batch that the last one is in to its end; a later batch shows that it was not torn.
        wipe(&world, N2, 520, 96 << 10, BLOCK_SIZE as u64);
        assert!(!world.start_damaged(N2).await, "nothing was lost");
        // This is how the gateway hears of it.
        put_later(&world, &first, 30, content(30));
        pass(&world, 300).await;
        // Then node 1 gets them, node 3 does not.
        held.borrow_mut().remove(0);
        pass(&world, 6000).await;
        assert!(written.iter().all(|w| w.get()), "nodes 1 and 2 are enough");
        world.cut_off(number);
        world.kill(N1);
        world.no_rule();
        let (second, _) = world.attach();
        for block in 0..20 {
            assert_eq!(get(&world, &second, block).await, 501 + block);
        }
        world.start(N1).await;
        assert_heals(&world, &second).await;
    });
}

#[test]
fn a_copy_that_was_away_adopts_only_when_it_has_everything() {
    scenario(2, |world| async move {
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        leave_in_doubt(&world, &first, number, N3, 1, content(2)).await;
        // Node 3 comes when the others have decided without it, and cannot be brought up to date.
        let away = Rc::new(Cell::new(true));
        let is_away = away.clone();
        world.rule(move |gateway, node, r| match r {
            _ if gateway < 1 || (node == N3 && is_away.get()) => Fate::Lose,
            Request::Repair { .. } if node == N3 => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        let (second, number) = world.attach();
        assert_eq!(get(&world, &second, 1).await, 1);
        away.set(false);
        pass(&world, 3000).await;
        world.cut_off(number);
        world.rule(|_, node, _| if node == N1 { Fate::Lose } else { Fate::Deliver });
        let (third, _) = world.attach();
        assert_eq!(get(&world, &third, 1).await, 1);
        world.no_rule();
        assert_heals(&world, &third).await;
    });
}

#[test]
fn a_copy_that_is_made_late_voids_nothing() {
    scenario(2, |world| async move {
        // Node 3 is away when the chunk comes into being.
        world.rule(|_, node, _| if node == N3 { Fate::Lose } else { Fate::Deliver });
        let (first, number) = world.attach();
        put(&world, &first, 1, 1).await;
        pass(&world, 500).await;
        world.cut_off(number);
        // It comes when nodes 1 and 2 hold what was decided, of which only node 1 has adopted it.
        let away = Rc::new(Cell::new(true));
        let is_away = away.clone();
        world.rule(move |_, node, r| match (r, node) {
            (_, N3) if is_away.get() => Fate::Lose,
            (Request::Repair { .. }, N3) => Fate::Refuse(Status::Full),
            (Request::Adopt { .. }, N2) => Fate::Lose,
            _ => Fate::Deliver,
        });
        let (_second, number) = world.attach();
        pass(&world, 1000).await;
        away.set(false);
        pass(&world, 3000).await;
        world.cut_off(number);
        world.rule(|_, node, _| if node == N1 { Fate::Lose } else { Fate::Deliver });
        let (third, _) = world.attach();
        assert_eq!(get(&world, &third, 1).await, 1);
        world.no_rule();
        assert_heals(&world, &third).await;
    });
}
