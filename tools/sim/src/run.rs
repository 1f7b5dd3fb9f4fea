//! One run: a safety phase, in which everything goes wrong, and a liveness phase, in which nothing does any more and
//! everything has to become whole in bounded time.

use crate::check;
use crate::faults;
use crate::setup::Setup;
use crate::world::{Failure, World};
use levee_core::ports::Runtime;
use levee_core::probe;
use levee_core::testing::TestRuntime;
use std::collections::BTreeMap;
use std::time::Duration;

/// Before the first fault.
const WARM_UP: Duration = Duration::from_millis(300);
/// Within which everything has to be whole again, of simulated time.
const RECOVERY: Duration = Duration::from_secs(240);
/// The same where disks stay slow.
const SLOW_RECOVERY: Duration = Duration::from_secs(2400);
/// More is an endless loop.
const MAX_POLLS: u64 = 30_000_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub failure: Option<Failure>,
    /// Equal for equal runs.
    pub trace: u64,
    /// Requests that guests had answered.
    pub answered: u64,
    /// What it cost.
    pub polls: u64,
    /// Of simulated time.
    pub time: Duration,
    /// How often rare branches were taken.
    pub reached: BTreeMap<&'static str, u64>,
    /// The last events, if they were kept.
    pub events: Vec<String>,
}

/// Runs a seed. `logging`: events are kept.
pub fn run(seed: u64, logging: bool) -> Outcome {
    probe::take_counts();
    let rt = TestRuntime::new(seed);
    let mut world = None;
    let setup = Setup::of(seed);
    rt.block_on(async { world = Some(World::new(&rt, setup, logging).await) });
    let world = world.expect("made");
    let is_over = || world.has_failed() || rt.polls() > MAX_POLLS;
    let ended = rt.run_until(story(&world), is_over);
    if ended.is_none() && !world.has_failed() {
        world.fail("stuck", "it runs and runs");
    }
    let outcome = Outcome {
        seed,
        failure: world.failure(),
        trace: rt.trace(),
        answered: world.guests().iter().map(|g| g.answered()).sum(),
        polls: rt.polls(),
        time: rt.now(),
        reached: probe::take_counts(),
        events: world.events(),
    };
    world.end();
    outcome
}

async fn story(world: &World) {
    world.log(|| format!("{:?}", world.setup()));
    let nodes = world.nodes();
    nodes.iter().for_each(|n| world.start(n));
    for (guest, volume) in world.guests().iter().zip(&world.setup().volumes) {
        faults::attach(world, guest.name());
        guest.start(volume.depth, world.setup().think);
    }
    world.rt().sleep(WARM_UP).await;
    for _ in 0..world.setup().rounds {
        faults::strike(world).await;
        let pause = world.below(world.setup().pause.as_micros() as u64);
        world.rt().sleep(Duration::from_micros(pause)).await;
    }
    recover(world).await;
}

/// Faults stop: everything becomes healthy, all copies equal, every sector as it may be.
async fn recover(world: &World) {
    // What was begun by faults comes to its end.
    world.log(|| "-- faults stop".into());
    faults::stop_all(world);
    world.rt().sleep(Duration::from_millis(300)).await;
    world.guests().iter().for_each(|g| g.finish());
    world.rt().sleep(faults::LONGEST).await;
    faults::stop_all(world);
    let end = world.rt().now() + if world.setup().slow.is_some() { SLOW_RECOVERY } else { RECOVERY };
    while let Some(why) = check::unfinished(world) {
        if world.rt().now() > end {
            return world.fail("stuck", &why);
        }
        world.rt().sleep(Duration::from_millis(100)).await;
    }
    faults::end_slowness(world);
    check::compare(world).await;
}
