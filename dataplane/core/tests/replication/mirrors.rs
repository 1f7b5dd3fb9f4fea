//! Clones that read mirrors of what they grew from.

use crate::cases::{get, put};
use crate::snapshots::{scenario, snapshot_of, until};
use crate::world::{Fate, VOLUME, World};
use levee_proto::wire::{Request, Status};
use levee_proto::{BLOCK_SIZE, View, VolumeId};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// A snapshot of a clone: block 1 is its parent's, block 2 was the parent's and was zeroed, blocks 3 and 256 are its own.
async fn image(world: &World) -> (VolumeId, View) {
    let (base, _) = world.attach();
    put(world, &base, 1, 1).await;
    put(world, &base, 2, 1).await;
    let view = snapshot_of(world, VOLUME, &base).await;
    let id = world.clone_volume(VOLUME, &view);
    let (gateway, _) = world.attach_volume(id);
    gateway.write_zeroes(2 * BLOCK, BLOCK).await.unwrap();
    put(world, &gateway, 3, 3).await;
    put(world, &gateway, 256, 4).await;
    (id, snapshot_of(world, id, &gateway).await)
}

/// A volume that holds all of it.
async fn mirror(world: &World, of: VolumeId, view: &View) -> VolumeId {
    let id = world.clone_volume(of, view);
    let (gateway, _) = world.attach_volume(id);
    gateway.set_versions(world.flatten(id)).unwrap();
    until(world, "flattening", || !world.versions(id).flatten).await;
    let view = snapshot_of(world, id, &gateway).await;
    world.add_mirror(of, id, &view);
    id
}

#[test]
fn a_mirror_shows_what_the_snapshot_shows() {
    scenario(|world| async move {
        let (image, view) = image(&world).await;
        let mirror = mirror(&world, image, &view).await;
        // Nothing of the snapshot itself can be read any more.
        world.rule(move |_, _, r| match r {
            Request::ReadShared { volume, .. } if *volume == image => Fate::Refuse(Status::Corrupt),
            _ => Fate::Deliver,
        });
        for shared in [false, true] {
            if shared {
                world.remember(1 << 20);
            }
            let (clone, _) = world.attach_volume(world.clone_volume(image, &view));
            for (block, stamp) in [(0, 0), (1, 1), (2, 0), (3, 3), (4, 0), (256, 4), (257, 0)] {
                assert_eq!(get(&world, &clone, block).await, stamp, "block {block}");
            }
            clone.stop("the test has read it");
        }
        // And the other way round.
        world.rule(move |_, _, r| match r {
            Request::ReadShared { volume, .. } if *volume == mirror => Fate::Refuse(Status::UnknownReplica),
            _ => Fate::Deliver,
        });
        let (clone, _) = world.attach_volume(world.clone_volume(image, &view));
        assert_eq!([get(&world, &clone, 2).await, get(&world, &clone, 3).await], [0, 3]);
    });
}

#[test]
fn many_clones_spread_their_reads_over_all_copies() {
    scenario(|world| async move {
        let (image, view) = image(&world).await;
        mirror(&world, image, &view).await;
        let asked = Rc::new(RefCell::new(BTreeSet::new()));
        let seen = asked.clone();
        world.rule(move |_, _, r| {
            if let Request::ReadShared { replica, block: 3, .. } = r {
                seen.borrow_mut().insert(*replica);
            }
            Fate::Deliver
        });
        for _ in 0..24 {
            let (clone, _) = world.attach_volume(world.clone_volume(image, &view));
            assert_eq!(get(&world, &clone, 3).await, 3);
            clone.stop("the test has read it");
        }
        // All gateways run on node 1: what is there is nearest, be it the snapshot's or the mirror's.
        assert_eq!(asked.borrow().len(), 2);
    });
}

#[test]
fn where_copies_are_slow_there_may_be_more_by_now() {
    scenario(|world| async move {
        let (image, view) = image(&world).await;
        let (clone, _) = world.attach_volume(world.clone_volume(image, &view));
        let mirror = mirror(&world, image, &view).await;
        crate::cases::pass(&world, 60_000).await;
        let asked = Rc::new(RefCell::new(false));
        let seen = asked.clone();
        world.rule(move |_, _, r| match r {
            Request::ReadShared { volume, .. } if *volume == image => Fate::Slow(250),
            Request::ReadShared { volume, .. } if *volume == mirror => {
                *seen.borrow_mut() = true;
                Fate::Deliver
            }
            _ => Fate::Deliver,
        });
        assert_eq!(get(&world, &clone, 3).await, 3);
        for _ in 0..6 {
            assert_eq!(get(&world, &clone, 256).await, 4);
        }
        assert!(*asked.borrow(), "nobody has asked the mirror");
    });
}
