//! Idempotency keys.

use crate::common::*;
use levee_meta_state::limits::{KEY_LIFE_MS, MAX_KEYS};
use levee_meta_state::{Answer, Command, Key, State};
use levee_proto::api::*;

fn keyed(key: &str, part: u32, fingerprint: &str, command: Command) -> Command {
    let key = Key { key: key.into(), part, fingerprint: fingerprint.into() };
    Command::Keyed { key, command: Box::new(command) }
}

fn delete(name: &str) -> Command {
    Command::DeleteVolume { name: name.into() }
}

fn limits(percent: u32) -> Command {
    let change = ChangeLimits { over_provision: Some(Limit::Percent(percent)), ..ChangeLimits::default() };
    Command::SetLimits(change)
}

#[test]
fn a_known_key_changes_nothing_and_answers_as_before() {
    let mut state = State::default();
    assert_eq!(state.apply(&keyed("k", 0, "f", limits(100))), Ok(Answer::Done));
    state.apply(&limits(200)).unwrap();
    assert_eq!(state.apply(&keyed("k", 0, "f", limits(100))), Ok(Answer::Done));
    assert_eq!(state.limits().over_provision_percent, Some(200));
    assert_eq!((state.knows_key("k", "f"), state.knows_key("l", "f")), (Ok(true), Ok(false)));
    let refused = state.apply(&keyed("r", 0, "f", delete("v"))).unwrap_err();
    assert_eq!(state.apply(&keyed("r", 0, "f", delete("v"))).unwrap_err(), refused);
    // The next command of the same request is another one.
    state.apply(&keyed("k", 1, "f", limits(300))).unwrap();
    assert_eq!(state.limits().over_provision_percent, Some(300));
    state.check().unwrap();
}

#[test]
fn another_request_by_the_same_key_is_refused() {
    let mut state = State::default();
    state.apply(&keyed("k", 0, "f", limits(100))).unwrap();
    let refused = state.apply(&keyed("k", 0, "g", limits(300))).unwrap_err();
    assert_eq!((refused.status, refused.kind), (422, ProblemKind::Conflict));
    assert!(state.knows_key("k", "g").is_err());
    assert_eq!(state.limits().over_provision_percent, Some(100));
    let twice = keyed("a", 0, "f", keyed("b", 0, "f", limits(1)));
    assert_eq!(state.apply(&twice).unwrap_err().kind, ProblemKind::Invalid);
    for wrong in ["", "a b", "ä", &"x".repeat(129)] {
        assert_eq!(state.apply(&keyed(wrong, 0, "f", limits(1))).unwrap_err().kind, ProblemKind::Invalid);
    }
}

#[test]
fn keys_are_forgotten_after_a_day_by_a_clock_that_never_goes_back() {
    let mut state = State::default();
    let mut at = |key: &str, ms| {
        state.set_clock(ms);
        state.apply(&keyed(key, 0, "f", limits(100))).unwrap();
        ["k", "l", "m"].map(|key| state.knows_key(key, "f").unwrap())
    };
    assert_eq!(at("k", 1000), [true, false, false]);
    assert_eq!(at("l", 999 + KEY_LIFE_MS), [true, true, false], "not quite a day");
    assert_eq!(at("m", 1000 + KEY_LIFE_MS), [false, true, true]);
    assert_eq!(at("n", 0), [false, true, true], "a member whose clock is late");
    state.check().unwrap();
}

#[test]
fn there_are_no_more_keys_than_allowed() {
    let mut state = State::default();
    for i in 0..MAX_KEYS + 10 {
        state.apply(&keyed(&format!("k{i}"), 0, "f", limits(100))).unwrap();
    }
    let known = |n: u64| state.knows_key(&format!("k{n}"), "f").unwrap();
    assert_eq!((known(9), known(10), known(MAX_KEYS + 9)), (false, true, true));
    state.check().unwrap();
}

#[test]
fn keys_are_in_the_snapshot() {
    let mut state = cluster(&[8]);
    let create =
        Command::CreateVolume(CreateVolume { name: "v".into(), size: 1 << 30, copies: 1, min_copies: 1, class: None });
    let first = state.apply(&keyed("k", 0, "f", create.clone())).unwrap();
    let copy: State = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
    assert_eq!(copy, state);
    let mut copy = copy;
    assert_eq!(copy.apply(&keyed("k", 0, "f", create)).unwrap(), first);
}
