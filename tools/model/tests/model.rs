//! Every scenario holds with all rules in force, and every rule is needed.

use levee_model::{Bounds, MUTANTS, Mutant, Rule, Rules, SCENARIOS, explore, scenario};
use std::collections::BTreeSet;

const THREADS: usize = 2;

/// More states than a scenario that is explored in every test run may have.
const MOST_STATES: usize = 2_000_000;

#[track_caller]
fn holds(name: &str) {
    let scenario = scenario(name).expect("a scenario of that name");
    let outcome = explore(scenario, Rules::ALL, true, THREADS);
    assert!(outcome.broken.is_none(), "{name}: {:#?}", outcome.broken);
    assert!(outcome.states < MOST_STATES, "{name} has grown to {} states", outcome.states);
    println!("{name}: {} states, depth {}, {:?}", outcome.states, outcome.depth, outcome.took);
}

macro_rules! holds {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { holds($name); })*

        #[test]
        fn every_small_scenario_is_explored() {
            let here = BTreeSet::from([$($name,)*]);
            let all: BTreeSet<_> = SCENARIOS.iter().filter(|s| !s.large).map(|s| s.name).collect();
            assert_eq!(here, all);
        }
    };
}

holds! {
    base_2_1 "base-2-1"
    base_2_2 "base-2-2"
    base_3_1 "base-3-1"
    base_3_2 "base-3-2"
    base_3_3 "base-3-3"
    two_blocks "two-blocks"
    four_epochs "four-epochs"
    links "links"
    restarts "restarts"
    buffered "buffered"
    damage "damage"
    double_damage "double-damage"
    replace "replace"
    replace_two "replace-two"
    drain "drain"
    replace_and_lose "replace-and-lose"
    discard "discard"
    snapshot "snapshot"
    allocation "allocation"
}

#[test]
fn every_rule_is_needed() {
    for mutant in MUTANTS {
        let scenario = scenario(mutant.scenario).expect("a mutant's scenario exists");
        let outcome = explore(scenario, Rules::without(&mutant.off()), mutant.live, THREADS);
        let name = mutant.rule.name();
        let broken = outcome.broken.unwrap_or_else(|| panic!("nothing breaks without {name}"));
        assert!(broken.invariant.is_some(), "{name}: the execution cannot be told: {broken:#?}");
        println!("{name}: {:?} after {} states, in {} steps", broken.invariant, outcome.states, broken.steps.len());
    }
}

#[test]
fn every_rule_has_a_mutant() {
    let missing: Vec<_> = Rule::ALL.iter().filter(|r| Mutant::of(**r).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_base_scenarios_have_every_number_of_copies() {
    let bounds = |name: &str| scenario(name).map(|s| s.bounds);
    for (copies, min) in [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)] {
        let Some(Bounds { copies: r, min: m, .. }) = bounds(&format!("base-{copies}-{min}")) else { panic!("missing") };
        assert_eq!((r, m), (copies, min));
    }
}
