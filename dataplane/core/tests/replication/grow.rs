//! A volume that grows while it is served.

use crate::cases::{assert_heals, get, put, scenario};
use crate::world::VOLUME_SIZE;
use levee_proto::BLOCK_SIZE;
use levee_proto::units::MAX_VOLUME_SIZE;

/// Blocks of the volume before it grows.
const BLOCKS: u64 = VOLUME_SIZE / BLOCK_SIZE as u64;

#[test]
fn what_a_volume_gains_is_zero_and_holds_what_is_written() {
    scenario(2, |world| async move {
        let (gateway, _) = world.attach();
        put(&world, &gateway, BLOCKS - 1, 1).await;
        // More than a group of chunks further on.
        let size = 3 * VOLUME_SIZE + (1 << 30);
        assert_eq!(gateway.grow(size), Ok(true));
        assert_eq!(gateway.size(), size);
        let last = size / BLOCK_SIZE as u64 - 1;
        assert_eq!(get(&world, &gateway, last).await, 0);
        put(&world, &gateway, last, 2).await;
        put(&world, &gateway, BLOCKS, 3).await;
        for (block, stamp) in [(BLOCKS - 1, 1), (BLOCKS, 3), (last, 2)] {
            assert_eq!(get(&world, &gateway, block).await, stamp);
        }
        assert_heals(&world, &gateway).await;
    });
}

#[test]
fn sizes_that_are_older_or_impossible_change_nothing() {
    scenario(2, |world| async move {
        let (gateway, _) = world.attach();
        assert_eq!(gateway.grow(VOLUME_SIZE), Ok(false));
        assert_eq!(gateway.grow(BLOCK_SIZE as u64), Ok(false));
        for size in [0, VOLUME_SIZE + 512, MAX_VOLUME_SIZE + BLOCK_SIZE as u64] {
            assert!(gateway.grow(size).is_err(), "{size}");
        }
        assert_eq!(gateway.size(), VOLUME_SIZE);
        gateway.stop("the test ends");
    });
}
