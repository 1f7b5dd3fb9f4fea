//! Runs the checker over a scenario.

use crate::allocation::Allocation;
use crate::check::{self, Invariant};
use crate::explain::{Told, tell, tell_plainly};
use crate::rules::Rules;
use crate::scenario::{Kind, Scenario};
use crate::steps::Step;
use crate::versions::Versions;
use crate::world::{Setup, World};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use std::hash::Hash;
use std::time::{Duration, Instant};

pub const SAFE: &str = "every invariant holds";

impl Model for Setup {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::first(&self.bounds).canonical()]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        state.steps(self, actions);
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut next = last.clone();
        next.take(step, self);
        let next = next.canonical();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Setup>> {
        vec![Property::always(SAFE, |setup, world| check::broken(world, setup).is_none() && !is_stuck(world, setup))]
    }
}

/// Nothing can happen any more, and something is left to do.
pub fn is_stuck(world: &World, setup: &Setup) -> bool {
    let mut steps = vec![];
    if !setup.live {
        return false;
    }
    world.steps(setup, &mut steps);
    steps.is_empty() && !check::is_settled(world, setup)
}

/// What an exploration found.
#[derive(Debug)]
pub struct Outcome {
    pub states: usize,
    pub depth: usize,
    pub took: Duration,
    /// The shortest execution that breaks an invariant.
    pub broken: Option<Broken>,
}

#[derive(Debug)]
pub struct Broken {
    pub invariant: Option<Invariant>,
    pub steps: Vec<Told>,
}

/// Explores a scenario under some rules. `live`: it is also an error if the chunk stays unserved.
pub fn explore(scenario: &Scenario, rules: Rules, live: bool, threads: usize) -> Outcome {
    let bounds = scenario.bounds;
    match scenario.kind {
        Kind::Replication => {
            let setup = Setup { bounds, rules, live };
            run(setup, threads, |path| {
                let (steps, invariant) = tell(&path.into_states(), &setup);
                Broken { invariant, steps }
            })
        }
        Kind::Versions => run(Versions { bounds, rules }, threads, |path| {
            let invariant = path.last_state().broken;
            Broken { invariant, steps: tell_plainly(path) }
        }),
        Kind::Allocation => run(Allocation { bounds, rules }, threads, |path| {
            let invariant = path.last_state().broken;
            Broken { invariant, steps: tell_plainly(path) }
        }),
    }
}

/// Breadth first, so that what is found is the shortest there is, or nearly so with several threads.
fn run<M>(model: M, threads: usize, tell: impl FnOnce(Path<M::State, M::Action>) -> Broken) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Send + Sync + Hash + Clone + std::fmt::Debug + PartialEq + 'static,
    M::Action: Send + Sync + Clone + std::fmt::Debug + PartialEq,
{
    let begin = Instant::now();
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let took = begin.elapsed();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    Outcome { states, depth, took, broken: checker.discovery(SAFE).map(tell) }
}
