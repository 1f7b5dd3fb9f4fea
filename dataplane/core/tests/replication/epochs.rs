//! Epochs that grow very large, or that somebody uses up.

use crate::cases::{LONG, assert_heals, get, pass, put, put_later, scenario, within};
use crate::world::VOLUME;
use levee_core::replica::MAX_EPOCH_GAP;
use levee_core::sync::timeout;
use levee_proto::{BLOCK_SIZE, Epoch, NodeId};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

#[test]
fn a_volume_that_was_opened_very_often_is_opened_on_disks_that_never_heard_of_it() {
    scenario(2, |world| async move {
        world.set_epoch(VOLUME, Epoch(3 * MAX_EPOCH_GAP + 7));
        let (gateway, _) = world.attach();
        put(&world, &gateway, 1, 1).await;
        world.set_epoch(VOLUME, Epoch(9 * MAX_EPOCH_GAP));
        let (next, _) = world.attach();
        assert_eq!(get(&world, &next, 1).await, 1);
        assert!(within(&world, "the end", gateway.wait_stopped()).await.0.contains("newer gateway"));
        put(&world, &next, 1, 2).await;
        assert_heals(&world, &next).await;
    });
}

#[test]
fn a_volume_whose_epochs_were_spent_is_opened_in_another_era_with_all_that_was_written() {
    scenario(2, |world| async move {
        let (old, _) = world.attach();
        put(&world, &old, 1, 1).await;
        for node in NODES {
            world.spend_epochs(VOLUME, node).await;
        }
        let (refused, _) = world.attach();
        within(&world, "the end", refused.wait_stopped()).await;
        world.begin_era(VOLUME);
        let (gateway, _) = world.attach();
        let early = timeout(world.rt(), LONG, gateway.read(BLOCK_SIZE as u64, BLOCK_SIZE)).await;
        assert!(early.is_none(), "no daemon has heard of the era, and it is not for gateways to say so");
        // Two of three are enough, as ever; the third is caught up when it hears.
        world.tell_era(VOLUME, NODES[0]);
        world.tell_era(VOLUME, NODES[1]);
        assert_eq!(get(&world, &gateway, 1).await, 1);
        put(&world, &gateway, 1, 2).await;
        // The first one, which has not heard anything, can do nothing any more.
        let late = put_later(&world, &old, 1, crate::cases::content(9));
        pass(&world, 5000).await;
        assert!(!late.get() && old.stopped().is_some());
        world.tell_era(VOLUME, NODES[2]);
        assert_eq!(get(&world, &gateway, 1).await, 2);
        assert_heals(&world, &gateway).await;
    });
}
