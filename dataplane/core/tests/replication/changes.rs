//! Changes of replica sets, told step by step. Four nodes; chunk 0 is on nodes 2, 3 and 4, gateways run on node 1.

use crate::cases::{LONG, assert_heals, content, get, pass, put, put_later, told, within};
use crate::world::{Fate, TestGateway, World};
use levee_core::ports::Runtime;
use levee_proto::api::DiskState;
use levee_proto::wire::{Request, Status};
use levee_proto::{ChunkId, NodeId};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const N4: NodeId = NodeId(4);

fn scenario<F: Future<Output = ()>>(nodes: u32, min_copies: u8, story: impl FnOnce(World) -> F) {
    told(5, nodes, min_copies, story);
}

pub async fn until(world: &World, what: &str, is_so: impl Fn() -> bool) {
    within(world, what, async {
        while !is_so() {
            pass(world, 10).await;
        }
    })
    .await;
}

fn has(world: &World, node: NodeId) -> bool {
    world.members(0).contains(&node)
}

pub async fn fill(world: &World, gateway: &TestGateway, blocks: u64) {
    for block in 0..blocks {
        put(world, gateway, block, 100 + block).await;
    }
    until(world, "all copies", || gateway.health().degraded == 0).await;
}

#[test]
fn a_dead_member_is_replaced_and_the_newcomer_filled() {
    scenario(4, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 40).await;
        world.kill(N3);
        put(&world, &gateway, 3, 7).await;
        gateway.evacuate(world.set_disk(N3, DiskState::Dead));
        until(&world, "a replacement", || has(&world, N1) && !has(&world, N3)).await;
        until(&world, "filling", || gateway.health().degraded == 0).await;
        put(&world, &gateway, 4, 8).await;
        world.start(N3).await;
        assert_eq!(get(&world, &gateway, 3).await, 7);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_member_is_moved_without_a_copy_less() {
    scenario(4, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 40).await;
        // The newcomer cannot be filled for a while: nobody leaves.
        world.rule(|_, node, r| match r {
            Request::Repair { .. } if node == N1 => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        gateway.evacuate(world.set_disk(N2, DiskState::Draining));
        until(&world, "a newcomer", || has(&world, N1)).await;
        pass(&world, 5000).await;
        assert_eq!(world.members(0).len(), 4);
        put(&world, &gateway, 5, 9).await;
        world.no_rule();
        until(&world, "the move", || !has(&world, N2)).await;
        assert_eq!(gateway.leaving_replicas(), 0);
        assert_eq!(get(&world, &gateway, 5).await, 9);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_drain_that_is_called_off_leaves_as_many_copies_as_before() {
    scenario(4, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 10).await;
        world.rule(|_, node, r| match r {
            Request::Repair { .. } if node == N1 => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        gateway.evacuate(world.set_disk(N2, DiskState::Draining));
        until(&world, "a newcomer", || world.members(0).len() == 4).await;
        world.no_rule();
        gateway.evacuate(world.set_disk(N2, DiskState::InService));
        until(&world, "an end", || world.members(0).len() == 3 && has(&world, N2)).await;
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn what_only_a_leaving_member_and_another_hold_reaches_those_that_stay_first() {
    scenario(4, 2, |world| async move {
        let (first, number) = world.attach();
        fill(&world, &first, 4).await;
        // Node 4 is slow: what is written is on nodes 2 and 3 only.
        let slow = Rc::new(Cell::new(true));
        let is_slow = slow.clone();
        world.rule(move |_, node, r| match r {
            Request::Write { .. } if node == N4 && is_slow.get() => Fate::Hold,
            _ => Fate::Deliver,
        });
        put(&world, &first, 1, 50).await;
        first.evacuate(world.set_disk(N3, DiskState::Dead));
        pass(&world, 300).await;
        assert!(has(&world, N3), "node 4 lacks what was acknowledged");
        slow.set(false);
        until(&world, "a replacement", || !has(&world, N3)).await;
        // Of the new set, only node 4 and the newcomer are left.
        world.cut_off(number);
        world.kill(N2);
        let (second, _) = world.attach();
        assert_eq!(get(&world, &second, 1).await, 50);
        world.start(N2).await;
        assert_heals(&world, &second).await;
    });
}

#[test]
fn an_unfilled_newcomer_does_not_speak_for_what_was_before() {
    scenario(5, 2, |world| async move {
        let (first, number) = world.attach();
        fill(&world, &first, 20).await;
        // Two die; the one that stays is attested. The newcomers cannot be filled.
        world.rule(|_, _, r| match r {
            Request::Repair { .. } => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        let members = world.members(0);
        let (stays, dead) = (members[0], [members[1], members[2]]);
        dead.iter().for_each(|n| world.kill(*n));
        world.set_disk(dead[0], DiskState::Dead);
        first.evacuate(world.set_disk(dead[1], DiskState::Dead));
        until(&world, "replacements", || !has(&world, dead[0]) && !has(&world, dead[1])).await;
        put(&world, &first, 30, 60).await;
        pass(&world, 500).await;
        world.cut_off(number);
        world.kill(stays);
        let (second, _) = world.attach();
        pass(&world, 5000).await;
        assert!(second.health().waiting > 0, "nobody is there who knows");
        world.no_rule();
        world.start(stays).await;
        assert_eq!(get(&world, &second, 7).await, 107);
        assert_eq!(get(&world, &second, 30).await, 60);
        assert_heals(&world, &second).await;
    });
}

#[test]
fn the_dead_are_replaced_after_a_takeover_although_too_few_are_left_to_serve() {
    scenario(4, 3, |world| async move {
        let (first, number) = world.attach();
        fill(&world, &first, 10).await;
        world.kill(N3);
        world.cut_off(number);
        let (second, _) = world.attach();
        pass(&world, 3000).await;
        assert!(second.health().waiting > 0, "two copies cannot take writes");
        second.evacuate(world.set_disk(N3, DiskState::Dead));
        assert_eq!(get(&world, &second, 1).await, 101);
        put(&world, &second, 1, 9).await;
        assert!(!has(&world, N3));
        world.start(N3).await;
        assert_heals(&world, &second).await;
    });
}

#[test]
fn a_write_while_the_set_changes_is_answered_only_when_all_that_stay_have_it() {
    scenario(4, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 10).await;
        world.mute_changes(true);
        let before = world.changes();
        gateway.evacuate(world.set_disk(N3, DiskState::Dead));
        until(&world, "a change", || world.changes() > before && !has(&world, N3)).await;
        // The gateway has not heard of it: nodes 2 and 3 alone would be enough for the old set.
        let slow = Rc::new(Cell::new(true));
        let is_slow = slow.clone();
        world.rule(move |_, node, r| match r {
            Request::Write { .. } if node == N4 && is_slow.get() => Fate::Hold,
            _ => Fate::Deliver,
        });
        let done = put_later(&world, &gateway, 2, content(80));
        pass(&world, 300).await;
        assert!(!done.get(), "node 4 stays, and does not have it");
        slow.set(false);
        world.mute_changes(false);
        until(&world, "the write", || done.get()).await;
        world.no_rule();
        assert_eq!(get(&world, &gateway, 2).await, 80);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_change_whose_answer_is_lost_is_found_out() {
    scenario(4, 2, |world| async move {
        let (first, number) = world.attach();
        fill(&world, &first, 10).await;
        world.mute_changes(true);
        first.evacuate(world.set_disk(N3, DiskState::Dead));
        until(&world, "a replacement", || !has(&world, N3)).await;
        // The gateway does not know yet, and goes on with those that stay.
        put(&world, &first, 1, 70).await;
        assert_eq!(get(&world, &first, 1).await, 70);
        // It dies without having heard.
        let heard = world.below(2) == 0;
        world.mute_changes(false);
        if heard {
            pass(&world, 1000).await;
        }
        world.cut_off(number);
        let (second, _) = world.attach();
        assert_eq!(get(&world, &second, 1).await, 70);
        assert_heals(&world, &second).await;
    });
}

#[test]
fn a_member_lost_while_the_set_changes_stalls_nobody_for_ever() {
    scenario(5, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 10).await;
        let members = world.members(0);
        world.mute_changes(true);
        gateway.evacuate(world.set_disk(members[0], DiskState::Draining));
        until(&world, "a newcomer", || world.members(0).len() == 4).await;
        world.kill(members[1]);
        let done = put_later(&world, &gateway, 2, content(80));
        pass(&world, 3000).await;
        world.mute_changes(false);
        until(&world, "the write", || done.get()).await;
        world.start(members[1]).await;
        until(&world, "the move", || !has(&world, members[0])).await;
        assert_eq!(get(&world, &gateway, 2).await, 80);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn moving_the_same_chunk_again_and_again_needs_no_new_slots() {
    scenario(5, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 2).await;
        for round in 0..40 {
            let node = world.members(0)[0];
            gateway.evacuate(world.set_disk(node, DiskState::Draining));
            until(&world, "a move", || !has(&world, node)).await;
            gateway.evacuate(world.set_disk(node, DiskState::InService));
            put(&world, &gateway, 1, 1000 + round).await;
            world.rt().sleep(LONG / 4).await;
        }
        assert_eq!(get(&world, &gateway, 1).await, 1039);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn nothing_moves_without_room_and_everything_goes_on() {
    scenario(3, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 4).await;
        world.kill(N2);
        gateway.evacuate(world.set_disk(N2, DiskState::Dead));
        world.rt().sleep(Duration::from_secs(10)).await;
        assert_eq!(world.changes(), 0);
        put(&world, &gateway, 1, 5).await;
        world.start(N2).await;
        gateway.evacuate(world.set_disk(N2, DiskState::InService));
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_change_does_not_take_an_old_word_about_a_member_for_what_it_holds() {
    scenario(4, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 40).await;
        world.kill(N3);
        world.mute_changes(true);
        gateway.evacuate(world.set_disk(N3, DiskState::Dead));
        until(&world, "a change", || world.changes() > 0).await;
        // Node 2 falls behind by one block while the gateway does not know yet, and cannot be sent it.
        let listed = Rc::new(Cell::new(false));
        let is_listed = listed.clone();
        world.rule(move |_, node, r| match r {
            Request::Repair { .. } if node == N2 => Fate::Refuse(Status::Full),
            Request::List { target, .. } if node == N2 && target.chunk == ChunkId(1) => {
                is_listed.set(true);
                Fate::Deliver
            }
            _ => Fate::Deliver,
        });
        let at = world.find(N2, &content(107)).expect("the block is there");
        world.disk(N2).edit(at, 1, |bytes| bytes[0] ^= 0x10);
        assert_eq!(get(&world, &gateway, 7).await, 107);
        assert_eq!(gateway.report().bad_blocks, 1);
        world.mute_changes(false);
        until(&world, "the change", || gateway.report().copied_bytes >= 40 * 4096).await;
        assert!(!listed.get(), "node 2 was taken for one that had lost what it had");
        world.no_rule();
        world.start(N3).await;
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn what_a_newcomer_alone_got_while_it_was_compared_is_read_from_it() {
    scenario(4, 1, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 40).await;
        // It is asked what it holds, and takes its time to answer.
        let others_lose = Rc::new(Cell::new(false));
        let lose = others_lose.clone();
        world.rule(move |_, node, r| match r {
            Request::List { .. } if node == N1 => Fate::Slow(600),
            Request::Write { .. } if node != N1 && lose.get() => Fate::Lose,
            _ => Fate::Deliver,
        });
        world.kill(N3);
        gateway.evacuate(world.set_disk(N3, DiskState::Dead));
        until(&world, "a newcomer", || has(&world, N1)).await;
        pass(&world, 100).await;
        others_lose.set(true);
        put(&world, &gateway, 3, 77).await;
        others_lose.set(false);
        assert_eq!(get(&world, &gateway, 3).await, 77);
        pass(&world, 2000).await;
        assert_eq!(get(&world, &gateway, 3).await, 77);
        world.no_rule();
        world.start(N3).await;
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_disk_without_copies_is_not_asked_for_anything() {
    scenario(4, 2, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 4).await;
        world.kill(N3);
        gateway.evacuate(world.set_disk(N3, DiskState::Dead));
        // All chunks of the group, not just the first.
        until(&world, "replacements", || gateway.leaving_replicas() == 0 && gateway.health().degraded == 0).await;
        pass(&world, 10_000).await;
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        world.rule(move |_, node, _| {
            count.set(count.get() + u32::from(node == N3));
            Fate::Deliver
        });
        world.start(N3).await;
        pass(&world, 60_000).await;
        assert_eq!(asked.get(), 0);
        // It may get copies again.
        gateway.evacuate(world.set_disk(N3, DiskState::InService));
        gateway.evacuate(world.set_disk(N1, DiskState::Draining));
        until(&world, "a move back", || gateway.leaving_replicas() == 0).await;
        assert!(has(&world, N3) && asked.get() > 0);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_slow_disk_is_waited_for_and_not_left_alone_while_it_alone_has_something() {
    scenario(3, 1, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 4).await;
        let (is_slow, is_alone) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(false)));
        let (slow, alone) = (is_slow.clone(), is_alone.clone());
        world.rule(move |_, node, r| match r {
            Request::Write { .. } if node == N2 && slow.get() => Fate::Hold,
            Request::Write { .. } if node != N2 && alone.get() => Fate::Lose,
            Request::Repair { .. } => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        // It is lost again and again.
        while gateway.report().evictions < 5 {
            put(&world, &gateway, 1, 10).await;
            pass(&world, 100).await;
        }
        is_slow.set(false);
        until(&world, "its return", || world.rt().now() > Duration::from_secs(60)).await;
        // What is written now, no other gets.
        is_alone.set(true);
        put(&world, &gateway, 2, 11).await;
        is_alone.set(false);
        pass(&world, 1000).await;
        is_slow.set(true);
        let _ = put_later(&world, &gateway, 3, content(12));
        pass(&world, 20_000).await;
        assert_eq!(gateway.report().evictions, 5, "it was left behind with what it alone has");
        pass(&world, 25_000).await;
        assert_eq!(gateway.report().evictions, 6, "it does not answer at all");
        is_slow.set(false);
        let begun = world.rt().now();
        assert_eq!(get(&world, &gateway, 2).await, 11);
        assert!(world.rt().now() - begun < Duration::from_secs(1), "it stayed in quarantine");
        world.no_rule();
        assert_heals(&world, &gateway).await;
    });
}
