//! Versions of a volume: snapshots while nodes and gateways die, what is dropped when nobody needs it any more, and rollback.
//!
//! A snapshot is read through a clone of it.

use crate::cases::{LONG, assert_heals, get, pass, put, put_later, told, within};
use crate::world::{Fate, TestGateway, VOLUME, World};
use levee_core::ports::Runtime;
use levee_proto::wire::{Request, Status};
use levee_proto::{ChunkId, NodeId, Version, View, VolumeId};
use std::cell::Cell;
use std::rc::Rc;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

pub fn scenario<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    told(7, 3, 2, story);
}

/// Takes a snapshot, and waits until it is complete.
pub async fn snapshot(world: &World, gateway: &TestGateway) -> View {
    snapshot_of(world, VOLUME, gateway).await
}

/// The same, of any volume.
pub async fn snapshot_of(world: &World, id: VolumeId, gateway: &TestGateway) -> View {
    let (versions, view) = world.begin_snapshot(id);
    gateway.set_versions(versions).unwrap();
    until_complete(world, id).await;
    view
}

async fn until_complete(world: &World, id: VolumeId) {
    until(world, "the snapshot", || world.versions(id).pending.is_none()).await;
}

/// Waits until something is so.
pub async fn until(world: &World, what: &str, is_so: impl Fn() -> bool) {
    let end = world.rt().now() + LONG;
    while !is_so() {
        assert!(world.rt().now() < end, "{what}: is not there");
        pass(world, 5).await;
    }
}

/// What a snapshot shows.
pub async fn shown(world: &World, view: &View, blocks: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let (clone, _) = world.attach_volume(world.clone_volume(VOLUME, view));
    let mut all = vec![];
    for block in blocks {
        all.push(get(world, &clone, block).await);
    }
    clone.stop("the test has read it");
    all
}

/// Asks for what no snapshot needs to be dropped, and waits for it.
async fn prune(world: &World, gateway: &TestGateway, view: &View) {
    gateway.set_versions(world.delete_snapshot(VOLUME, view)).unwrap();
    until(world, "pruning", || !world.versions(VOLUME).prune).await;
}

fn kill(world: &World, gateway: &(TestGateway, u64)) {
    world.cut_off(gateway.1);
    gateway.0.stop("killed");
}

#[test]
fn a_snapshot_keeps_what_was_acknowledged_before_it() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        put(&world, &gateway, 2, 1).await;
        let first = snapshot(&world, &gateway).await;
        assert_eq!(world.versions(VOLUME).sealed, Version(1));
        put(&world, &gateway, 1, 2).await;
        put(&world, &gateway, 3, 2).await;
        let second = snapshot(&world, &gateway).await;
        gateway.discard(0, 4096 * 3).await.unwrap();
        for (view, expected) in [(&first, [1, 1, 0]), (&second, [2, 1, 2])] {
            assert_eq!(shown(&world, view, 1..=3).await, expected);
        }
        assert_eq!([get(&world, &gateway, 1).await, get(&world, &gateway, 2).await], [0, 0]);
        assert_eq!(get(&world, &gateway, 3).await, 2);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_member_that_owes_a_write_is_not_sealed() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        let sealed = Rc::new(Cell::new(0));
        let count = sealed.clone();
        world.rule(move |_, node, r| match r {
            Request::Write { .. } if node == N3 => Fate::Hold,
            Request::Seal { replicas, .. } if node == N3 => {
                count.set(count.get() + replicas.iter().filter(|(_, chunk, _)| *chunk == ChunkId(1)).count());
                Fate::Deliver
            }
            _ => Fate::Deliver,
        });
        // Two of three have it, and it is answered.
        put(&world, &gateway, 1, 2).await;
        let (versions, view) = world.begin_snapshot(VOLUME);
        gateway.set_versions(versions).unwrap();
        pass(&world, 50).await;
        assert_eq!(sealed.get(), 0, "what it has not written yet is of the snapshot");
        world.no_rule();
        until_complete(&world, VOLUME).await;
        assert_eq!(shown(&world, &view, 1..=1).await, [2]);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_snapshot_waits_for_writes_that_are_not_answered() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        world.rule(|_, node, r| match r {
            Request::Write { version: Version(1), .. } if node != N1 => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        let late = put_later(&world, &gateway, 1, crate::cases::content(2));
        pass(&world, 50).await;
        let (versions, view) = world.begin_snapshot(VOLUME);
        gateway.set_versions(versions).unwrap();
        // What comes after the flip goes on.
        put(&world, &gateway, 2, 3).await;
        pass(&world, 2000).await;
        assert!(!late.get() && world.versions(VOLUME).pending.is_some());
        world.no_rule();
        until_complete(&world, VOLUME).await;
        assert!(late.get());
        assert_eq!(shown(&world, &view, 1..=2).await, [2, 0]);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_snapshot_that_a_dead_gateway_left_pending_is_completed_by_the_next() {
    for told in [false, true] {
        scenario(|world| async move {
            let first = world.attach();
            put(&world, &first.0, 1, 1).await;
            // Nobody is sealed.
            world.rule(|_, _, r| if matches!(r, Request::Seal { .. }) { Fate::Hold } else { Fate::Deliver });
            let (versions, view) = world.begin_snapshot(VOLUME);
            if told {
                first.0.set_versions(versions).unwrap();
                put(&world, &first.0, 1, 2).await;
            }
            kill(&world, &first);
            world.no_rule();
            let (gateway, _) = world.attach();
            put(&world, &gateway, 1, 3).await;
            until_complete(&world, VOLUME).await;
            assert_eq!(shown(&world, &view, [1]).await, [1]);
            assert_eq!(get(&world, &gateway, 1).await, 3);
            assert_heals(&world, &gateway).await;
        });
    }
}

#[test]
fn a_member_that_was_away_gets_every_version_and_is_sealed() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        put(&world, &gateway, 2, 1).await;
        world.kill(N3);
        let mut views = vec![];
        for stamp in 2..6 {
            put(&world, &gateway, 1, stamp).await;
            put(&world, &gateway, 10 + stamp, stamp).await;
            views.push(snapshot(&world, &gateway).await);
        }
        put(&world, &gateway, 1, 6).await;
        world.start(N3).await;
        until(&world, "catching up", || gateway.health().degraded == 0).await;
        pass(&world, 1000).await;
        // It alone can be read now.
        gateway.stop("the test goes on without");
        world.kill(N1);
        world.kill(N2);
        for (i, view) in views.iter().enumerate() {
            let stamp = i as u64 + 2;
            assert_eq!(shown(&world, view, [1, 2, 10 + stamp, 11 + stamp]).await, [stamp, 1, stamp, 0]);
        }
        world.start(N1).await;
        world.start(N2).await;
        let (gateway, _) = world.attach();
        assert_eq!(get(&world, &gateway, 1).await, 6);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn members_of_which_each_misses_another_version_heal_each_other() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        // Nothing is copied for a while: the disks are full, it seems.
        world.rule(|_, _, r| match r {
            Request::Repair { .. } => Fate::Refuse(Status::Full),
            _ => Fate::Deliver,
        });
        let mut views = vec![];
        for (away, stamp) in [(N1, 2), (N2, 3), (N3, 4)] {
            world.kill(away);
            put(&world, &gateway, 1, stamp).await;
            world.start(away).await;
            pass(&world, 3000).await;
            let (versions, view) = world.begin_snapshot(VOLUME);
            gateway.set_versions(versions).unwrap();
            views.push(view);
        }
        assert!(world.versions(VOLUME).pending.is_some(), "nobody holds all of it");
        world.no_rule();
        until_complete(&world, VOLUME).await;
        for (view, stamp) in views.iter().zip(2..) {
            assert_eq!(shown(&world, view, [1]).await, [stamp]);
        }
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_takeover_decides_each_version_by_itself() {
    scenario(|world| async move {
        let first = world.attach();
        put(&world, &first.0, 1, 1).await;
        let old = snapshot(&world, &first.0).await;
        // Only two have version 2, and other two what comes after.
        world.kill(N2);
        put(&world, &first.0, 1, 2).await;
        let new = snapshot(&world, &first.0).await;
        world.start(N2).await;
        world.rule(|_, node, r| match r {
            Request::Repair { .. } => Fate::Refuse(Status::Full),
            Request::Write { .. } if node == N3 => Fate::Hold,
            _ => Fate::Deliver,
        });
        pass(&world, 2000).await;
        put(&world, &first.0, 1, 3).await;
        kill(&world, &first);
        world.no_rule();
        // Those that remain have something of it each.
        world.kill(N1);
        let (gateway, _) = world.attach();
        assert_eq!(get(&world, &gateway, 1).await, 3);
        assert_eq!(shown(&world, &old, [1]).await, [1]);
        assert_eq!(shown(&world, &new, [1]).await, [2]);
        world.start(N1).await;
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_void_entry_of_an_older_version_is_removed() {
    scenario(|world| async move {
        let first = world.attach();
        put(&world, &first.0, 1, 1).await;
        pass(&world, 3000).await;
        // Node 1 alone gets a write of two blocks, one of which is new.
        world.rule(|_, node, r| match r {
            Request::Write { .. } if node != N1 => Fate::Hold,
            _ => Fate::Deliver,
        });
        put_later(&world, &first.0, 1, [crate::cases::content(9), crate::cases::content(9)].concat());
        pass(&world, 50).await;
        world.kill(N1);
        kill(&world, &first);
        world.no_rule();
        let second = world.attach();
        assert_eq!(get(&world, &second.0, 1).await, 1);
        let view = snapshot(&world, &second.0).await;
        put(&world, &second.0, 1, 2).await;
        world.start(N1).await;
        until(&world, "catching up", || second.0.health().degraded == 0).await;
        pass(&world, 500).await;
        kill(&world, &second);
        for away in [N2, N3] {
            world.kill(away);
        }
        assert_eq!(shown(&world, &view, 1..=2).await, [1, 0], "node 1 alone");
        for away in [N2, N3] {
            world.start(away).await;
        }
        let (gateway, _) = world.attach();
        assert_eq!([get(&world, &gateway, 1).await, get(&world, &gateway, 2).await], [2, 0]);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn what_no_snapshot_needs_is_dropped() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        let mut views = vec![];
        for stamp in 1..=3 {
            for block in 0..4 {
                put(&world, &gateway, block, stamp).await;
            }
            views.push(snapshot(&world, &gateway).await);
        }
        put(&world, &gateway, 0, 4).await;
        pass(&world, 100).await;
        assert_eq!(world.used_blocks(N1), 13);
        prune(&world, &gateway, &views[1]).await;
        for node in [N1, N2, N3] {
            assert_eq!(world.used_blocks(node), 9);
        }
        assert_eq!(shown(&world, &views[0], 0..4).await, [1; 4]);
        assert_eq!(shown(&world, &views[2], 0..4).await, [3; 4]);
        prune(&world, &gateway, &views[2]).await;
        assert_eq!(world.used_blocks(N1), 8, "the head still shows three blocks of it");
        prune(&world, &gateway, &views[0]).await;
        assert_eq!(world.used_blocks(N1), 4);
        // What the head overwrites now is not needed either.
        put(&world, &gateway, 1, 5).await;
        pass(&world, 200_000).await;
        assert_eq!(world.used_blocks(N2), 4);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_member_that_was_started_again_drops_what_the_others_do() {
    scenario(|world| async move {
        let (gateway, _) = world.attach();
        for block in 0..20 {
            put(&world, &gateway, block, 1).await;
        }
        let view = snapshot(&world, &gateway).await;
        for block in 0..20 {
            put(&world, &gateway, block, 2).await;
        }
        // It dies before it hears that all is committed.
        world.rule(|_, node, r| match r {
            Request::Commit { .. } if node == N3 => Fate::Hold,
            _ => Fate::Deliver,
        });
        pass(&world, 5000).await;
        world.kill(N3);
        world.no_rule();
        world.start(N3).await;
        until(&world, "catching up", || gateway.health().degraded == 0).await;
        prune(&world, &gateway, &view).await;
        for node in [N1, N2, N3] {
            assert_eq!(world.used_blocks(node), 20, "node {node}");
        }
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_member_that_was_away_while_others_pruned_is_neither_copied_to_nor_takes_anything_back() {
    scenario(|world| async move {
        let first = world.attach();
        for block in 0..50 {
            put(&world, &first.0, block, 1).await;
        }
        let view = snapshot(&world, &first.0).await;
        for block in 0..50 {
            put(&world, &first.0, block, 2).await;
        }
        pass(&world, 5000).await;
        // Node 3 is not told.
        world.rule(|_, node, r| match r {
            Request::Prune { .. } if node == N3 => Fate::Hold,
            _ => Fate::Deliver,
        });
        first.0.set_versions(world.delete_snapshot(VOLUME, &view)).unwrap();
        until(&world, "pruning", || world.used_blocks(N1) == 50 && world.used_blocks(N2) == 50).await;
        assert_eq!(world.used_blocks(N3), 100);
        kill(&world, &first);
        world.kill(N3);
        // It does not prune at once, and what was copied can be seen.
        world.rule(|_, _, r| if matches!(r, Request::Prune { .. }) { Fate::Hold } else { Fate::Deliver });
        let (gateway, _) = world.attach();
        within(&world, "the open", gateway.ready()).await.unwrap();
        put(&world, &gateway, 60, 3).await;
        world.start(N3).await;
        until(&world, "catching up", || gateway.health().degraded == 0).await;
        assert!(gateway.report().copied_bytes <= 4096, "{:?}", gateway.report());
        assert_eq!([world.used_blocks(N1), world.used_blocks(N3)], [51, 101]);
        let report = within(&world, "a verification", gateway.verify(LONG, |_| {})).await.unwrap();
        assert_eq!(report.mismatches, [], "they differ in nothing that matters");
        world.no_rule();
        until(&world, "pruning", || world.used_blocks(N3) == 51).await;
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_rollback_shows_what_the_snapshot_did_and_later_snapshots_stay() {
    scenario(|world| async move {
        let first = world.attach();
        for block in 1..=3 {
            put(&world, &first.0, block, 1).await;
        }
        let old = snapshot(&world, &first.0).await;
        put(&world, &first.0, 1, 2).await;
        put(&world, &first.0, 4, 2).await;
        let new = snapshot(&world, &first.0).await;
        put(&world, &first.0, 2, 3).await;
        kill(&world, &first);
        world.roll_back(VOLUME, &old);
        let second = world.attach();
        put(&world, &second.0, 3, 4).await;
        let read = async |gateway: &TestGateway| {
            let mut all = vec![];
            for block in 1..=4 {
                all.push(get(&world, gateway, block).await);
            }
            all
        };
        assert_eq!(read(&second.0).await, [1, 1, 4, 0]);
        let branch = snapshot(&world, &second.0).await;
        put(&world, &second.0, 4, 5).await;
        // Everything is copied to one that was emptied of nothing but its memory.
        world.kill(N2);
        put(&world, &second.0, 1, 6).await;
        world.start(N2).await;
        assert_eq!(read(&second.0).await, [6, 1, 4, 5]);
        for (view, expected) in [(&old, [1, 1, 1, 0]), (&new, [2, 1, 1, 2]), (&branch, [1, 1, 4, 0])] {
            assert_eq!(shown(&world, view, 1..=4).await, expected);
        }
        prune(&world, &second.0, &new).await;
        assert_eq!(read(&second.0).await, [6, 1, 4, 5]);
        assert_heals(&world, &second.0).await;
    });
}
