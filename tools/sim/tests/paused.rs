//! A gateway whose process is stopped for seconds, and goes on.

use levee_core::ports::Runtime;
use levee_core::sync::timeout;
use levee_core::testing::TestRuntime;
use levee_sim::faults::attach;
use levee_sim::setup::{Setup, VolumeSetup};
use levee_sim::world::World;
use std::time::Duration;

fn quiet_setup(seed: u64, think: Duration) -> Setup {
    let volume = VolumeSetup { copies: 3, min_copies: 2, size: 1 << 28, depth: 4 };
    let (volumes, faults) = (vec![volume], vec![]);
    Setup { nodes: 4, disks_per_node: 1, nearly_full: false, volumes, faults, think, slow: None, ..Setup::of(seed) }
}

/// However long it was stopped, it blames nobody for it: no copy is left behind, and its guest goes on.
async fn story(world: &World) {
    world.nodes().iter().for_each(|node| world.start(node));
    let guest = world.guests().remove(0);
    attach(world, guest.name());
    let setup = world.setup();
    guest.start(setup.volumes[0].depth, setup.think);
    world.rt().sleep(Duration::from_secs(3)).await;
    let device = guest.device().expect("the volume is served");
    for pause in [300, 1200, 5000, 20_000, 60_000] {
        let before = (guest.answered(), device.gateway.report().evictions);
        device.process.rt.stop();
        world.rt().sleep(Duration::from_millis(pause)).await;
        assert_eq!(guest.answered(), before.0, "it was stopped");
        device.process.rt.go_on();
        world.rt().sleep(Duration::from_secs(5) + setup.think * 20).await;
        assert!(guest.answered() > before.0, "its guest does not go on after {pause} ms");
        assert_eq!(device.gateway.report().evictions, before.1, "copies were left behind after {pause} ms");
        // Chunks that are just being made, or given back, are not.
        let is_whole = async {
            while !device.is_whole() {
                world.rt().sleep(Duration::from_millis(1)).await;
            }
        };
        let whole = timeout(world.rt(), Duration::from_secs(5), is_whole).await;
        assert!(whole.is_some() && !world.has_failed(), "{:?}, {:?}", device.gateway.report(), world.failure());
    }
}

#[test]
fn a_stopped_gateway_goes_on() {
    for seed in 0..12 {
        let think = Duration::from_millis(if seed % 2 == 0 { 4 } else { 700 });
        let rt = TestRuntime::new(seed);
        rt.block_on(async {
            let world = World::new(&rt, quiet_setup(seed, think), false).await;
            story(&world).await;
            world.end();
        });
    }
}
