//! Runs the checker.

use crate::check;
use crate::steps::Step;
use crate::world::{Setup, World};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::time::{Duration, Instant};

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

const SAFE: &str = "every invariant holds";

/// Nothing can happen any more, and something is left to do.
pub fn is_stuck(world: &World, setup: &Setup) -> bool {
    let mut steps = vec![];
    world.steps(setup, &mut steps);
    steps.is_empty() && !check::is_settled(world, setup)
}

/// What an exploration found.
#[derive(Debug)]
pub struct Outcome {
    pub states: usize,
    pub depth: usize,
    pub took: Duration,
    /// The execution that breaks an invariant: the states after each step.
    pub counterexample: Option<Vec<World>>,
}

pub fn explore(setup: &Setup, threads: usize) -> Outcome {
    let begin = Instant::now();
    let checker = setup.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let counterexample = checker.discovery(SAFE).map(|path| path.into_states());
    Outcome { states: checker.unique_state_count(), depth: checker.max_depth(), took: begin.elapsed(), counterexample }
}
