//! Moves of single replicas, step by step and under load. Gateways run on node 1; of four or five nodes, chunk 0 is on 2, 3 and 4.

use crate::cases::{assert_heals, get, pass, put, told};
use crate::changes::{fill, until};
use crate::world::{Fate, TestGateway, World};
use crate::{Load, first_seed, seeds, settle_and_check, spawn_workers, start};
use levee_core::ports::Runtime;
use levee_core::testing::TestRuntime;
use levee_proto::NodeId;
use levee_proto::api::DiskState;
use levee_proto::wire::{Request, Status};
use std::rc::Rc;
use std::time::Duration;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const N4: NodeId = NodeId(4);
const N5: NodeId = NodeId(5);

fn scenario<F: Future<Output = ()>>(nodes: u32, story: impl FnOnce(World) -> F) {
    told(5, nodes, 2, story);
}

/// Nothing is copied to this node for now.
fn starve(world: &World, starved: NodeId) {
    world.rule(move |_, node, r| match r {
        Request::Repair { .. } if node == starved => Fate::Refuse(Status::Full),
        _ => Fate::Deliver,
    });
}

fn sorted(world: &World) -> Vec<NodeId> {
    let mut members = world.members(0);
    members.sort();
    members
}

/// A gateway with some data that has begun to move a copy from node 2 to node 5, and does not get on.
async fn half_moved(world: &World) -> (TestGateway, u64) {
    let (gateway, number) = world.attach();
    fill(world, &gateway, 20).await;
    starve(world, N5);
    gateway.move_replicas(world.move_copy(0, N2, N5));
    until(world, "a newcomer", || world.members(0).len() == 4).await;
    (gateway, number)
}

/// Waits until chunk 0 is on these nodes, all is whole, and the gateway knows.
async fn until_at(world: &World, gateway: &TestGateway, nodes: &[NodeId]) {
    let is_done = || gateway.health().degraded == 0 && gateway.leaving_replicas() == 0;
    until(world, "the members", || sorted(world) == nodes && is_done()).await;
}

#[test]
fn a_named_replica_goes_where_it_is_wanted_once_its_successor_is_whole() {
    scenario(5, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 40).await;
        starve(&world, N5);
        gateway.move_replicas(world.move_copy(0, N2, N5));
        assert_eq!(gateway.leaving_replicas(), 1);
        until(&world, "a newcomer", || sorted(&world) == [N2, N3, N4, N5]).await;
        put(&world, &gateway, 5, 9).await;
        pass(&world, 5000).await;
        assert_eq!((sorted(&world), gateway.report().leaving_replicas), (vec![N2, N3, N4, N5], 1));
        world.no_rule();
        until_at(&world, &gateway, &[N3, N4, N5]).await;
        assert_eq!((world.changes(), gateway.leaving_replicas()), (2, 0));
        assert_eq!(get(&world, &gateway, 5).await, 9);
        // The word is outdated by now, and means nothing.
        pass(&world, 5000).await;
        assert_eq!(world.changes(), 2);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn two_replicas_of_a_chunk_are_moved_one_after_the_other() {
    scenario(5, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 10).await;
        world.move_copy(0, N2, N5);
        gateway.move_replicas(world.move_copy(0, N3, N1));
        until(&world, "both", || gateway.leaving_replicas() == 0).await;
        until_at(&world, &gateway, &[N1, N4, N5]).await;
        assert_eq!(world.changes(), 4);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn of_a_move_that_is_called_off_the_unfilled_newcomer_leaves() {
    scenario(5, |world| async move {
        let (gateway, _) = half_moved(&world).await;
        put(&world, &gateway, 5, 9).await;
        gateway.move_replicas(world.move_nothing());
        until_at(&world, &gateway, &[N2, N3, N4]).await;
        assert_eq!(get(&world, &gateway, 5).await, 9);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn of_a_move_that_is_called_off_the_newcomer_stays_where_another_is_away() {
    scenario(5, |world| async move {
        let (gateway, _) = half_moved(&world).await;
        world.kill(N3);
        put(&world, &gateway, 5, 9).await;
        world.no_rule();
        // Whole: but nobody leaves who would be missed.
        pass(&world, 5000).await;
        assert_eq!(world.members(0).len(), 4);
        gateway.move_replicas(world.move_nothing());
        until(&world, "an end", || sorted(&world) == [N2, N4, N5]).await;
        world.start(N3).await;
        assert_eq!(get(&world, &gateway, 5).await, 9);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_move_whose_target_dies_goes_elsewhere_or_is_called_off() {
    for called_off in [false, true] {
        scenario(5, |world| async move {
            let (gateway, _) = half_moved(&world).await;
            world.kill(N5);
            put(&world, &gateway, 5, 9).await;
            pass(&world, 3000).await;
            assert_eq!(world.members(0).len(), 4, "all three are needed as long as the fourth is away");
            match called_off {
                true => gateway.move_replicas(world.move_nothing()),
                false => gateway.evacuate(world.set_disk(N5, DiskState::Dead)),
            }
            let end = if called_off { [N2, N3, N4] } else { [N1, N3, N4] };
            until(&world, "an end", || sorted(&world) == end).await;
            world.no_rule();
            world.start(N5).await;
            assert_eq!(get(&world, &gateway, 5).await, 9);
            assert_heals(&world, &gateway).await;
        });
    }
}

#[test]
fn the_next_gateway_goes_on_with_the_same_newcomer() {
    scenario(5, |world| async move {
        let (first, number) = half_moved(&world).await;
        put(&world, &first, 5, 9).await;
        world.cut_off(number);
        let (second, _) = world.attach();
        put(&world, &second, 6, 10).await;
        pass(&world, 3000).await;
        assert_eq!(world.changes(), 1);
        world.no_rule();
        until_at(&world, &second, &[N3, N4, N5]).await;
        assert_eq!((world.changes(), second.leaving_replicas()), (2, 0));
        assert_eq!((get(&world, &second, 5).await, get(&world, &second, 6).await), (9, 10));
        assert_heals(&world, &second).await;
    });
}

#[test]
fn a_move_and_its_end_whose_answers_are_lost_are_found_out() {
    scenario(5, |world| async move {
        let (gateway, _) = world.attach();
        fill(&world, &gateway, 10).await;
        world.mute_changes(true);
        gateway.move_replicas(world.move_copy(0, N2, N5));
        until(&world, "a newcomer", || world.members(0).len() == 4).await;
        gateway.move_replicas(world.move_nothing());
        put(&world, &gateway, 1, 70).await;
        world.mute_changes(false);
        until(&world, "an end", || world.members(0).len() == 3).await;
        assert_eq!(get(&world, &gateway, 1).await, 70);
        assert_heals(&world, &gateway).await;
    });
}

/// One thing that happens while copies are moved.
async fn one_event(load: &Rc<Load>) {
    let world = &load.world;
    let nodes = world.nodes();
    let node = nodes[world.below(nodes.len() as u64) as usize];
    let gateway = load.gateway.borrow().clone();
    match world.below(10) {
        0..5 => {
            let index = world.below(2) as u32;
            let members = world.members(index);
            let from = members[world.below(members.len() as u64) as usize];
            gateway.move_replicas(world.move_copy(index, from, node));
        }
        5 => gateway.move_replicas(world.move_nothing()),
        6 => load.replace_gateway(),
        7 if world.is_up(node) => world.kill(node),
        _ if !world.is_up(node) => world.start(node).await,
        _ => {}
    }
    let pause = Duration::from_millis(world.below(400));
    world.rt().sleep(pause).await;
}

#[test]
fn a_guest_that_writes_throughout_finds_every_byte() {
    for seed in (first_seed(700)..).take(seeds(6) as usize) {
        println!("seed {seed}");
        let rt = TestRuntime::new(seed);
        rt.block_on(async {
            let world = World::new(&rt, seed, 5, 2).await;
            let load = start(&world);
            spawn_workers(&load, 8);
            until(&world, "chunks", || world.chunks_of(crate::world::VOLUME) >= 2).await;
            for _ in 0..30 {
                one_event(&load).await;
            }
            let gateway = load.gateway.borrow().clone();
            for node in world.nodes() {
                if !world.is_up(node) {
                    world.start(node).await;
                }
            }
            gateway.move_replicas(world.move_nothing());
            until(&world, "an end", || (0..2).all(|index| world.members(index).len() == 3)).await;
            settle_and_check(&load).await;
        });
        rt.abort_all();
    }
}
