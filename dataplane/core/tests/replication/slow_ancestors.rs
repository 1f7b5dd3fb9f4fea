//! Ancestors whose replicas answer late: each question is put once, and its answer is used whenever it comes.

use crate::cases::{get, pass, put};
use crate::snapshots::{scenario, snapshot, until};
use crate::world::{Fate, TestGateway, VOLUME, World};
use levee_core::ports::Runtime;
use levee_core::sync::join_all;
use levee_proto::NodeId;
use levee_proto::wire::{Request, Status};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// A clone of a volume with `1` in block 1, on the node of the first replica.
async fn clone(world: &World) -> TestGateway {
    let (volume, _) = world.attach();
    put(world, &volume, 1, 1).await;
    let view = snapshot(world, &volume).await;
    world.attach_volume(world.clone_volume(VOLUME, &view)).0
}

/// Which nodes are asked for what the snapshot holds, in order; each answers as `fate` says.
fn asked(world: &World, fate: impl Fn(NodeId) -> Fate + 'static) -> Rc<RefCell<Vec<u32>>> {
    let asked = Rc::new(RefCell::new(vec![]));
    let log = asked.clone();
    world.rule(move |_, node, request| {
        if !matches!(request, Request::ReadShared { .. }) {
            return Fate::Deliver;
        }
        log.borrow_mut().push(node.0);
        fate(node)
    });
    asked
}

/// Reads block 1; how long that takes.
async fn read(world: &World, gateway: &TestGateway) -> Duration {
    let begun = world.rt().now();
    assert_eq!(get(world, gateway, 1).await, 1);
    world.rt().now() - begun
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_late_answer_is_used_and_nobody_is_asked_twice() {
    scenario(|world| async move {
        let gateway = clone(&world).await;
        // The first is asked alone for 100 ms, and with one other for 100 more.
        for (late, most) in [(50, 1), (150, 2), (250, 3), (3000, 3), (8000, 3)] {
            let asked = asked(&world, move |_| Fate::Slow(late));
            let took = read(&world, &gateway).await;
            assert!(
                (ms(late)..ms(late + 10)).contains(&took),
                "the first answer came after {late} ms, used at {took:?}"
            );
            assert_eq!(asked.borrow().len(), most, "{:?} were asked, each late by {late} ms", asked.borrow());
            pass(&world, late + 1000).await;
            assert_eq!(asked.borrow().len(), most);
        }
    });
}

#[test]
fn one_slow_copy_costs_no_more_than_a_moment() {
    scenario(|world| async move {
        let gateway = clone(&world).await;
        let asked = asked(&world, |node| if node == NodeId(1) { Fate::Slow(5000) } else { Fate::Deliver });
        let took = read(&world, &gateway).await;
        assert!((ms(100)..ms(110)).contains(&took), "{took:?}");
        assert_eq!((asked.borrow().len(), asked.borrow()[0]), (2, 1), "the near one first");
    });
}

#[test]
fn a_copy_that_fails_is_asked_again_while_another_is_late() {
    scenario(|world| async move {
        let gateway = clone(&world).await;
        let fails = Rc::new(Cell::new(true));
        let failing = fails.clone();
        let asked = asked(&world, move |node| match node {
            NodeId(1) => Fate::Slow(9500),
            _ if failing.get() => Fate::Refuse(Status::NotSealed),
            _ => Fate::Deliver,
        });
        let read = {
            let (world, gateway) = (world.clone(), gateway.clone());
            let done = Rc::new(Cell::new(false));
            let flag = done.clone();
            world.rt().spawn({
                let world = world.clone();
                async move { flag.set(get(&world, &gateway, 1).await == 1) }
            });
            done
        };
        pass(&world, 5500).await;
        let count = asked.borrow().len();
        assert!(!read.get() && (3..=13).contains(&count), "{count} questions");
        assert_eq!(asked.borrow().iter().filter(|n| **n == 1).count(), 1, "the late one is left alone");
        fails.set(false);
        until(&world, "the read", || read.get()).await;
    });
}

#[test]
fn a_question_that_is_lost_is_put_again() {
    scenario(|world| async move {
        let gateway = clone(&world).await;
        let begun = world.rt().now();
        let rt = world.rt().clone();
        let asked =
            asked(&world, move |_| if rt.now() < begun + ms(5000) { Fate::Slow(60_000) } else { Fate::Deliver });
        let took = read(&world, &gateway).await;
        assert!(took > ms(9000) && took < ms(12_000), "{took:?}");
        assert_eq!(asked.borrow().len(), 4, "three that were lost, and one");
        gateway.stop("the test ends");
    });
}

#[test]
fn many_clones_on_a_busy_disk_ask_no_more_than_one() {
    scenario(|world| async move {
        let first = clone(&world).await;
        first.stop("others have their turn");
        world.remember(16 << 20);
        let view = world.versions(VOLUME).snapshots[0].clone();
        let clones: Vec<_> = (0..20).map(|_| world.attach_volume(world.clone_volume(VOLUME, &view)).0).collect();
        let asked = asked(&world, |_| Fate::Slow(1500));
        let seen = join_all(clones.iter().map(|gateway| get(&world, gateway, 1))).await;
        assert_eq!((seen, asked.borrow().len()), (vec![1; 20], 3), "each copy is asked once");
    });
}
