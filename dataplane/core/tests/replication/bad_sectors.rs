//! Sectors that cannot be read: read elsewhere and written anew, told to the guest only when no copy is left to hope for.

use crate::cases::{LONG, assert_heals, content, get, pass, put, put_later, scenario, told, within};
use crate::model::stamp_of;
use crate::world::{Fate, TestGateway, World};
use bytes::Bytes;
use levee_core::gateway::Failure;
use levee_core::sync::timeout;
use levee_proto::api::DiskState;
use levee_proto::wire::Request;
use levee_proto::{BLOCK_SIZE, NodeId};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const N4: NodeId = NodeId(4);
const BLOCK: u64 = BLOCK_SIZE as u64;

/// The sector under the block with this stamp goes bad.
fn spoil(world: &World, node: NodeId, stamp: u64) {
    let at = world.find(node, &content(stamp)).expect("the block is there");
    world.disk(node).make_unreadable(at);
}

async fn healthy(world: &World, gateway: &TestGateway) {
    within(world, "healing", async {
        while gateway.health().degraded + gateway.health().waiting > 0 {
            pass(world, 5).await;
        }
    })
    .await;
}

/// Eight blocks, on all three copies.
async fn filled(world: &World) -> (TestGateway, u64) {
    let (gateway, number) = world.attach();
    for block in 0..8 {
        put(world, &gateway, block, 100 + block).await;
    }
    pass(world, 500).await;
    healthy(world, &gateway).await;
    (gateway, number)
}

async fn read_error(world: &World, gateway: &TestGateway, block: u64) -> Failure {
    within(world, "a read", gateway.read(block * BLOCK, BLOCK_SIZE)).await.expect_err("no copy has it")
}

#[test]
fn an_unreadable_sector_is_read_elsewhere_and_written_anew() {
    scenario(2, |world| async move {
        let (gateway, _) = filled(&world).await;
        // Nobody starts over with a disk for it.
        let fences = Rc::new(Cell::new(0));
        let counted = fences.clone();
        world.rule(move |_, _, r| {
            counted.set(counted.get() + u32::from(matches!(r, Request::Fence { .. })));
            Fate::Deliver
        });
        spoil(&world, N1, 101);
        spoil(&world, N2, 103);
        spoil(&world, N3, 105);
        let all = within(&world, "a read", gateway.read(0, 8 * BLOCK_SIZE)).await.unwrap().concat();
        assert_eq!(all.chunks(BLOCK_SIZE).map(stamp_of).collect::<Vec<_>>(), (100..108).collect::<Vec<_>>());
        let found = within(&world, "a scrub", gateway.scrub(|_, _| {})).await.unwrap();
        assert!(gateway.report().bad_blocks >= 3 && found.skipped == 0, "{found:?}");
        healthy(&world, &gateway).await;
        let found = within(&world, "a scrub", gateway.scrub(|_, _| {})).await.unwrap();
        assert_eq!((found.bad, found.skipped, fences.get()), (0, 0, 0), "{found:?}");
        assert_heals(&world, &gateway).await;
    });
}

/// The classical end of a degraded array: the last copy has one bad sector.
#[test]
fn a_rebuild_goes_on_beside_a_bad_sector_of_its_only_source() {
    // Of five nodes the chunk is on the second to the fourth.
    told(5, 5, 2, |world| async move {
        let (gateway, _) = filled(&world).await;
        spoil(&world, N4, 103);
        for away in [N2, N3] {
            world.kill(away);
            gateway.evacuate(world.set_disk(away, DiskState::Dead));
        }
        within(&world, "two new copies", async {
            while world.members(0).iter().any(|n| [N2, N3].contains(n)) {
                pass(&world, 50).await;
            }
        })
        .await;
        healthy(&world, &gateway).await;
        assert_eq!(read_error(&world, &gateway, 3).await, Failure::Lost);
        // They have what there is.
        gateway.stop("another takes over");
        world.kill(N4);
        let (next, _) = world.attach();
        for block in [0, 1, 2, 4, 5, 6, 7] {
            assert_eq!(get(&world, &next, block).await, 100 + block);
        }
        // Whether the first one has it nobody can tell.
        let read = timeout(world.rt(), Duration::from_secs(5), next.read(3 * BLOCK, BLOCK_SIZE));
        assert!(read.await.is_none());
        world.start(N4).await;
        assert_eq!(read_error(&world, &next, 3).await, Failure::Lost);
        put(&world, &next, 3, 9).await;
        assert_eq!(get(&world, &next, 3).await, 9);
        assert_heals(&world, &next).await;
    });
}

#[test]
fn a_block_that_is_bad_everywhere_fails_alone_and_is_good_once_it_is_written() {
    scenario(2, |world| async move {
        let (gateway, _) = filled(&world).await;
        [N1, N2, N3].iter().for_each(|n| spoil(&world, *n, 103));
        assert_eq!(read_error(&world, &gateway, 3).await, Failure::Lost);
        let all = within(&world, "a read", gateway.read(2 * BLOCK, 3 * BLOCK_SIZE)).await;
        assert_eq!(all.unwrap_err(), Failure::Lost);
        for block in [0, 1, 2, 4, 5, 6, 7] {
            assert_eq!(get(&world, &gateway, block).await, 100 + block);
        }
        let part = within(&world, "a write", gateway.write(3 * BLOCK + 512, Bytes::from(vec![1; 512]))).await;
        assert_eq!(part, Err(Failure::Lost), "what it leaves as it is cannot be read");
        healthy(&world, &gateway).await;
        let report = gateway.report();
        assert_eq!(report.lost.iter().map(|l| (l.offset, l.length)).collect::<Vec<_>>(), [(3 * BLOCK, BLOCK)]);
        put(&world, &gateway, 3, 9).await;
        assert_eq!(get(&world, &gateway, 3).await, 9);
        assert_eq!(gateway.report().lost, []);
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn a_copy_that_is_away_is_waited_for_and_an_overwrite_is_not_held_up() {
    scenario(2, |world| async move {
        let (gateway, _) = filled(&world).await;
        for node in [N1, N2] {
            spoil(&world, node, 103);
            spoil(&world, node, 104);
        }
        world.hang(N3, true);
        pass(&world, 3000).await;
        let reads: Vec<_> = [3, 4]
            .into_iter()
            .map(|block| {
                let (gateway, seen) = (gateway.clone(), Rc::new(Cell::new(None)));
                let told = seen.clone();
                levee_core::ports::Runtime::spawn(world.rt(), async move {
                    told.set(Some(gateway.read(block * BLOCK, BLOCK_SIZE).await.map(|r| stamp_of(&r.concat()))));
                });
                seen
            })
            .collect();
        pass(&world, 5000).await;
        assert!(reads.iter().all(|seen| seen.take().is_none()), "the third copy may be good");
        let done = put_later(&world, &gateway, 3, content(9));
        pass(&world, 2000).await;
        assert!(done.get(), "a write does not wait for who cannot read");
        assert_eq!((reads[0].take(), reads[1].take()), (Some(Ok(9)), None));
        world.hang(N3, false);
        within(&world, "the third copy", async {
            loop {
                if let Some(seen) = reads[1].take() {
                    break assert_eq!(seen, Ok(104));
                }
                pass(&world, 50).await;
            }
        })
        .await;
        assert_heals(&world, &gateway).await;
    });
}

/// The copy that has nothing of the write is no reason to keep the chunk closed, nor are those that cannot read it.
#[test]
fn a_takeover_goes_on_where_all_who_hold_a_block_cannot_read_it() {
    scenario(2, |world| async move {
        let (gateway, _) = filled(&world).await;
        world.kill(N3);
        put(&world, &gateway, 3, 9).await;
        gateway.stop("another takes over");
        world.start(N3).await;
        [N1, N2].iter().for_each(|n| spoil(&world, *n, 9));
        let (next, _) = world.attach();
        assert_eq!(get(&world, &next, 2).await, 102);
        assert_eq!(read_error(&world, &next, 3).await, Failure::Lost);
        healthy(&world, &next).await;
        put(&world, &next, 3, 10).await;
        assert_eq!(get(&world, &next, 3).await, 10);
        assert_heals(&world, &next).await;
    });
}

#[test]
fn a_volume_that_is_open_for_its_copies_sake_is_scrubbed_at_once() {
    scenario(2, |world| async move {
        let (gateway, _) = filled(&world).await;
        gateway.stop("nobody uses it");
        for (node, stamp) in [(N1, 101), (N2, 103), (N3, 105)] {
            spoil(&world, node, stamp);
        }
        let unused = world.attach_unused();
        within(&world, "a scrub", async {
            while unused.report().scrub_passes == 0 {
                pass(&world, 50).await;
            }
        })
        .await;
        healthy(&world, &unused).await;
        assert_eq!(unused.report().bad_blocks, 3);
        let found = within(&world, "a scrub", unused.scrub(|_, _| {})).await.unwrap();
        assert_eq!((found.bad, found.skipped), (0, 0));
        assert_heals(&world, &unused).await;
    });
}

/// Of a snapshot that a clone reads, too.
#[test]
fn a_clone_reads_each_block_of_its_ancestor_where_it_is_good() {
    scenario(2, |world| async move {
        let (gateway, _) = filled(&world).await;
        let (versions, view) = world.begin_snapshot(crate::world::VOLUME);
        gateway.set_versions(versions).unwrap();
        within(&world, "a snapshot", async {
            while world.versions(crate::world::VOLUME).sealed < view.version {
                pass(&world, 20).await;
            }
        })
        .await;
        gateway.stop("it is detached");
        for (node, stamp) in [(N1, 101), (N2, 103), (N3, 105)] {
            spoil(&world, node, stamp);
        }
        let (clone, _) = world.attach_volume(world.clone_volume(crate::world::VOLUME, &view));
        let all = within(&world, "a read", clone.read(0, 8 * BLOCK_SIZE)).await.unwrap().concat();
        assert_eq!(all.chunks(BLOCK_SIZE).map(stamp_of).collect::<Vec<_>>(), (100..108).collect::<Vec<_>>());
        [N2, N3].iter().for_each(|n| spoil(&world, *n, 101));
        assert_eq!(read_error(&world, &clone, 1).await, Failure::Lost);
        assert_eq!(get(&world, &clone, 2).await, 102);
        put(&world, &clone, 1, 9).await;
        assert_eq!(get(&world, &clone, 1).await, 9);
        let _ = timeout(world.rt(), LONG, clone.ready()).await;
        clone.stop("the test ends");
    });
}
