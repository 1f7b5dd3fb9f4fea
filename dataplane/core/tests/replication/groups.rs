//! Answers that wait for the other volumes of a group to move to their next versions.

use crate::cases::{content, get, pass, put, put_later};
use crate::snapshots::{scenario, shown, until};
use crate::world::{Fate, VOLUME};
use levee_core::ports::Runtime;
use levee_proto::wire::Request;
use levee_proto::{NodeId, Version};

#[test]
fn writes_after_the_cut_are_answered_when_all_have_moved() {
    scenario(|world| async move {
        let other = world.add_volume();
        let ((first, _), (second, _)) = (world.attach(), world.attach_volume(other));
        put(&world, &first, 1, 1).await;
        put(&world, &second, 1, 1).await;
        let ((cut, view), (cut_other, _)) = (world.begin_in_group(VOLUME), world.begin_in_group(other));
        first.set_versions(cut).unwrap();
        let held = put_later(&world, &first, 1, content(2));
        until(&world, "the report", || world.moves() == [(VOLUME, true)]).await;
        // The other is still written at its old version, and answered.
        put(&world, &second, 1, 2).await;
        pass(&world, 100).await;
        assert!(!held.get(), "answered while a volume of the group has not moved");
        // Nor does anybody see it.
        let (reader, gateway) = (world.clone(), first.clone());
        world.rt().spawn(async move { assert_eq!(get(&reader, &gateway, 1).await, 2) });
        second.set_versions(cut_other).unwrap();
        until(&world, "the other report", || world.moves() == [(VOLUME, true), (other, true)]).await;
        assert!(!held.get() && world.versions(VOLUME).sealed == Version(0), "nobody has said that it may");
        first.set_versions(world.let_go(VOLUME)).unwrap();
        second.set_versions(world.let_go(other)).unwrap();
        until(&world, "the answer", || held.get()).await;
        until(&world, "the snapshots", || [VOLUME, other].iter().all(|v| world.versions(*v).pending.is_none())).await;
        assert_eq!(shown(&world, &view, [1]).await, [1]);
        assert_eq!(get(&world, &first, 1).await, 2);
        first.stop("the test ends");
        second.stop("the test ends");
    });
}

#[test]
fn nobody_waits_for_long_and_that_is_confessed_before_it_is_sealed() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        let (cut, _) = world.begin_in_group(VOLUME);
        gateway.set_versions(cut).unwrap();
        // Longer than a second, and answered all the same.
        put(&world, &gateway, 1, 2).await;
        until(&world, "the confession", || world.moves() == [(VOLUME, true), (VOLUME, false)]).await;
        until(&world, "the seal", || world.versions(VOLUME).sealed == Version(1)).await;
        assert_eq!(world.moves().len(), 2);
        // The next group is another matter.
        let (cut, _) = world.begin_in_group(VOLUME);
        gateway.set_versions(cut).unwrap();
        let held = put_later(&world, &gateway, 1, content(3));
        pass(&world, 100).await;
        assert!(!held.get());
        gateway.set_versions(world.let_go(VOLUME)).unwrap();
        until(&world, "the answer", || held.get()).await;
        gateway.stop("the test ends");
    });
}

#[test]
fn a_volume_has_not_moved_while_the_gateway_before_may_still_answer() {
    scenario(|world| async move {
        let (before, number) = world.attach();
        put(&world, &before, 1, 1).await;
        world.begin_in_group(VOLUME);
        // The new gateway reaches nobody but the node that it runs on.
        world.rule(move |from, node, r| match r {
            Request::Fence { .. } if from != number && node != NodeId(1) => Fate::Lose,
            _ => Fate::Deliver,
        });
        let (after, _) = world.attach();
        put(&world, &before, 1, 2).await;
        pass(&world, 100).await;
        assert_eq!(world.moves(), [], "the one before has just answered");
        world.no_rule();
        until(&world, "the report", || world.moves() == [(VOLUME, true)]).await;
        after.set_versions(world.let_go(VOLUME)).unwrap();
        assert_eq!(get(&world, &after, 1).await, 2);
        after.stop("the test ends");
    });
}
