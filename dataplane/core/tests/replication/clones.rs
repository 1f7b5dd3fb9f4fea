//! Clones: what they have not written is read from the snapshots that they grew from, whatever happens to their replicas.

use crate::cases::{assert_heals, content, get, pass, put, within};
use crate::snapshots::{scenario, shown, snapshot, snapshot_of, until};
use crate::world::{Fate, VOLUME, World};
use bytes::Bytes;
use levee_proto::wire::{Request, Status};
use levee_proto::{BLOCK_SIZE, NodeId, VolumeId};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const BLOCK: u64 = BLOCK_SIZE as u64;

/// A clone of a snapshot that shows `1` in blocks 1 to 8, and in the first block of the second chunk; detached from all that
/// its parent's head holds.
async fn clone(world: &World) -> VolumeId {
    let (parent, _) = world.attach();
    for block in (1..=8).chain([256]) {
        put(world, &parent, block, 1).await;
    }
    let view = snapshot(world, &parent).await;
    put(world, &parent, 1, 99).await;
    put(world, &parent, 9, 99).await;
    world.clone_volume(VOLUME, &view)
}

#[test]
fn a_clone_begins_with_the_snapshot_and_goes_its_own_way() {
    scenario(|world| async move {
        let id = clone(&world).await;
        let (gateway, _) = world.attach_volume(id);
        let all = gateway.read(0, 10 * BLOCK_SIZE).await.unwrap().concat();
        let stamps: Vec<u64> = all.chunks(BLOCK_SIZE).map(crate::model::stamp_of).collect();
        assert_eq!(stamps, [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(get(&world, &gateway, 256).await, 1);
        put(&world, &gateway, 2, 2).await;
        gateway.discard(3 * BLOCK, BLOCK).await.unwrap();
        // A part of a block keeps the rest of it.
        gateway.write(4 * BLOCK + 512, Bytes::from(vec![7; 512])).await.unwrap();
        gateway.write_zeroes(5 * BLOCK, BLOCK + 1024).await.unwrap();
        let all = gateway.read(0, 10 * BLOCK_SIZE).await.unwrap().concat();
        let old = content(1);
        let block = |n: usize| &all[n * BLOCK_SIZE..(n + 1) * BLOCK_SIZE];
        assert_eq!(block(1), old);
        assert_eq!(block(2), content(2));
        assert!(block(3).iter().all(|b| *b == 0) && block(5).iter().all(|b| *b == 0));
        assert!(block(4)[512..1024].iter().all(|b| *b == 7));
        assert_eq!([&block(4)[..512], &block(4)[1024..]], [&old[..512], &old[1024..]]);
        assert!(block(6)[..1024].iter().all(|b| *b == 0));
        assert_eq!(block(6)[1024..], old[1024..]);
        assert_eq!(block(7), old);
        // The next gateway has to find out what the clone has itself.
        gateway.stop("killed");
        let (gateway, _) = world.attach_volume(id);
        assert_eq!(gateway.read(0, 10 * BLOCK_SIZE).await.unwrap().concat(), all);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_discard_hides_what_an_ancestor_has_where_the_clone_has_nothing() {
    scenario(|world| async move {
        let id = clone(&world).await;
        for _ in 0..2 {
            let (gateway, _) = world.attach_volume(id);
            gateway.discard(256 * BLOCK, BLOCK).await.unwrap();
            assert_eq!([get(&world, &gateway, 256).await, get(&world, &gateway, 1).await], [0, 1]);
            gateway.stop("killed");
        }
    });
}

#[test]
fn an_ancestors_copy_that_cannot_be_read_is_left_for_another() {
    scenario(|world| async move {
        let id = clone(&world).await;
        for (away, status) in [(N1, Status::NotSealed), (N2, Status::Corrupt), (N1, Status::UnknownReplica)] {
            let (gateway, _) = world.attach_volume(id);
            world.rule(move |_, node, r| match r {
                Request::ReadShared { .. } if node == away => Fate::Refuse(status),
                Request::ReadShared { .. } if node.0 == away.0 + 1 => Fate::Lose,
                _ => Fate::Deliver,
            });
            assert_eq!(get(&world, &gateway, 2).await, 1);
            world.rule(|_, node, r| match r {
                Request::ReadShared { .. } if node == N1 => Fate::Hold,
                _ => Fate::Deliver,
            });
            assert_eq!(get(&world, &gateway, 3).await, 1);
            world.no_rule();
            gateway.stop("killed");
        }
        // None of them, for a while.
        let (gateway, _) = world.attach_volume(id);
        world.nodes().iter().for_each(|n| world.kill(*n));
        let read = gateway.clone();
        let seen = std::rc::Rc::new(std::cell::Cell::new(None));
        let (w, flag) = (world.clone(), seen.clone());
        use levee_core::ports::Runtime as _;
        world.rt().spawn(async move { flag.set(Some(get(&w, &read, 4).await)) });
        pass(&world, 5000).await;
        assert_eq!(seen.get(), None);
        for node in world.nodes() {
            world.start(node).await;
        }
        until(&world, "the read", || seen.get() == Some(1)).await;
        gateway.stop("the test ends");
    });
}

#[test]
fn clones_of_clones_read_each_block_from_the_nearest_that_has_it() {
    scenario(|world| async move {
        let child = clone(&world).await;
        let (gateway, _) = world.attach_volume(child);
        put(&world, &gateway, 2, 2).await;
        gateway.discard(3 * BLOCK, BLOCK).await.unwrap();
        let view = snapshot_of(&world, child, &gateway).await;
        put(&world, &gateway, 4, 3).await;
        let grandchild = world.clone_volume(child, &view);
        let (gateway, _) = world.attach_volume(grandchild);
        put(&world, &gateway, 5, 5).await;
        let mut seen = vec![];
        for block in 0..=6 {
            seen.push(get(&world, &gateway, block).await);
        }
        assert_eq!(seen, [0, 1, 2, 0, 1, 5, 1]);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_flattened_clone_needs_its_ancestors_no_more() {
    scenario(|world| async move {
        let id = clone(&world).await;
        let (gateway, _) = world.attach_volume(id);
        put(&world, &gateway, 2, 2).await;
        gateway.discard(3 * BLOCK, BLOCK).await.unwrap();
        gateway.set_versions(world.flatten(id)).unwrap();
        put(&world, &gateway, 4, 4).await;
        until(&world, "flattening", || !world.versions(id).flatten).await;
        world.rule(|_, _, r| if matches!(r, Request::ReadShared { .. }) { Fate::Hold } else { Fate::Deliver });
        let read = async |gateway| {
            let mut seen = vec![];
            for block in (0..=9).chain([256]) {
                seen.push(get(&world, gateway, block).await);
            }
            seen
        };
        let expected = [0, 1, 2, 0, 4, 1, 1, 1, 1, 0, 1];
        assert_eq!(read(&gateway).await, expected);
        gateway.stop("killed");
        let (gateway, _) = world.attach_volume(id);
        assert_eq!(read(&gateway).await, expected);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_snapshot_can_be_read_from_chunks_that_are_newer_than_it() {
    scenario(|world| async move {
        let (parent, _) = world.attach();
        put(&world, &parent, 1, 1).await;
        let view = snapshot(&world, &parent).await;
        let beyond = (256 << 20) / BLOCK + 1;
        put(&world, &parent, beyond, 2).await;
        assert_eq!(within(&world, "the reads", shown(&world, &view, [1, beyond])).await, [1, 0]);
        parent.stop("the test ends");
    });
}
