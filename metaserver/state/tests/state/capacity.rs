//! What volumes may come to hold, and what is refused for that.

use crate::common::*;
use levee_meta_state::{Command, Decider, State};
use levee_proto::api::*;
use levee_proto::*;

const GIB: u64 = 1 << 30;

/// Three nodes with a disk of 16 GiB each, on which so much may be promised.
fn limited(percent: u32) -> State {
    let mut state = cluster(&[256, 256, 256]);
    set(&mut state, ChangeLimits { over_provision: Some(Limit::Percent(percent)), ..ChangeLimits::default() }).unwrap();
    state
}

fn set(state: &mut State, change: ChangeLimits) -> Result<(), Problem> {
    let outcome = state.apply(&Command::SetLimits(change)).map(drop);
    state.check().unwrap();
    outcome
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Problem>) -> String {
    let problem = outcome.expect_err("more than may be promised");
    assert_eq!(problem.kind, ProblemKind::NoSpace, "{problem}");
    problem.detail
}

#[test]
fn without_a_limit_anything_may_be_promised() {
    let mut state = cluster(&[1, 1, 1]);
    assert_eq!(state.limits(), CapacityLimits::default());
    assert_eq!((state.capacity(), state.provisionable()), (3 * CHUNK_SIZE, None));
    create(&mut state, "v", 1 << 40, 3).unwrap();
    assert_eq!(state.provisioned(), 3 << 40);
}

#[test]
fn volumes_count_with_their_sizes_in_all_copies() {
    // 96 GiB on 48.
    let mut state = limited(200);
    create(&mut state, "a", 30 * GIB, 3).unwrap();
    let why = refused(create(&mut state, "b", 4 * GIB, 2));
    for words in [
        "volume 'b' cannot be created",
        "98 GiB in all copies",
        "the 96 GiB",
        "48 GiB",
        "2.00 times",
        "--over-provision",
    ] {
        assert!(why.contains(words), "{words} is not in {why}");
    }
    create(&mut state, "b", 3 * GIB, 2).unwrap();
    refused(create(&mut state, "c", 4096, 1));
    // Growing counts, shrinking is always possible.
    assert!(refused(resize(&mut state, "b", 4 * GIB, false)).contains("volume 'b' cannot grow"));
    resize(&mut state, "b", GIB, true).unwrap();
    resize(&mut state, "b", 2 * GIB, false).unwrap();
    state.check().unwrap();
    // What is deleted does not count.
    state.apply(&Command::DeleteVolume { name: "a".into() }).unwrap();
    assert_eq!(state.provisioned(), u128::from(4 * GIB));
    create(&mut state, "c", 46 * GIB, 2).unwrap();
    refused(resize(&mut state, "c", 46 * GIB + 4096, false));
}

#[test]
fn clones_count_in_full_and_all_or_none_are_made() {
    let mut state = limited(100);
    create(&mut state, "golden", 2 * GIB, 2).unwrap();
    attach(&mut state, "golden", Some("n1")).unwrap();
    let opened = open(&mut state, "golden", 101).unwrap();
    snapshot(&mut state, &["golden@s"]).unwrap();
    sealed(&mut state, "golden", opened.epoch, 1).unwrap();
    state.apply(&Command::Detach { name: "golden".into() }).unwrap();
    // Eleven of 4 GiB each fit beside it.
    let family = |count| Family { name: "c".into(), count: Some(count), first: 1 };
    assert!(refused(clone(&mut state, "golden@s", family(12))).contains("12 clones of golden@s cannot be created"));
    assert_eq!(state.volumes_after("", 100).len(), 1);
    let request =
        |count| CreateClones { from: at("golden@s"), names: family(count), size: None, copies: None, min_copies: None };
    assert!(state.check_room_for(&request(11)).is_ok() && state.check_room_for(&request(12)).is_err());
    clone(&mut state, "golden@s", family(11)).unwrap();
    state.check().unwrap();
    assert!(refused(clone(&mut state, "golden@s", Family::single("d"))).contains("clone 'd' of golden@s"));
    // A parent that is deleted cannot be written any more; its clones keep what it holds.
    state.apply(&Command::DeleteSnapshot(at("golden@s"))).unwrap();
    state.apply(&Command::DeleteVolume { name: "golden".into() }).unwrap();
    state.check().unwrap();
    assert_eq!(state.provisioned(), u128::from(44 * GIB));
    for i in 1..=11 {
        state.apply(&Command::DeleteVolume { name: format!("c-{i}") }).unwrap();
        state.check().unwrap();
    }
    assert_eq!(state.provisioned(), 0);
}

#[test]
fn a_rollback_brings_the_size_of_the_snapshot_back() {
    let mut state = cluster(&[256, 256, 256]);
    create(&mut state, "v", GIB, 1).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let opened = open(&mut state, "v", 101).unwrap();
    snapshot(&mut state, &["v@s"]).unwrap();
    sealed(&mut state, "v", opened.epoch, 1).unwrap();
    resize(&mut state, "v", 3 * GIB, false).unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    assert_eq!(state.provisioned(), u128::from(3 * GIB));
    state.apply(&Command::Rollback(at("v@s"))).unwrap();
    state.check().unwrap();
    assert_eq!(state.provisioned(), u128::from(GIB));
}

#[test]
fn disks_out_of_service_are_no_capacity() {
    let mut state = limited(100);
    create(&mut state, "v", 30 * GIB, 1).unwrap();
    assert_eq!(state.capacity(), 48 * GIB);
    set_disk(&mut state, 1, DiskState::Dead, Decider::Operator);
    set_disk(&mut state, 2, DiskState::Draining, Decider::Operator);
    assert_eq!((state.capacity(), state.provisionable()), (16 * GIB, Some(u128::from(16 * GIB))));
    // What exists stays, and may even get smaller.
    refused(create(&mut state, "w", 4096, 1));
    resize(&mut state, "v", 29 * GIB, true).unwrap();
    refused(resize(&mut state, "v", 30 * GIB, false));
    set_disk(&mut state, 1, DiskState::InService, Decider::Operator);
    create(&mut state, "w", 3 * GIB, 1).unwrap();
}

#[test]
fn limits_are_changed_one_by_one_and_must_make_sense() {
    let mut state = cluster(&[1]);
    let change = |over, warn, full| ChangeLimits { over_provision: over, warn, full };
    let percent = |n| Some(Limit::Percent(n));
    set(&mut state, change(percent(250), None, percent(90))).unwrap();
    let now = CapacityLimits { over_provision_percent: Some(250), warn_percent: Some(80), full_percent: Some(90) };
    assert_eq!(state.limits(), now);
    for bad in [
        change(percent(0), None, None),
        change(percent(MAX_OVER_PROVISION_PERCENT + 1), None, None),
        change(None, percent(101), None),
        change(None, None, percent(0)),
        change(None, percent(91), None),
        change(percent(1), None, percent(79)),
    ] {
        assert_eq!(set(&mut state, bad).unwrap_err().kind, ProblemKind::Invalid, "{bad:?}");
        assert_eq!(state.limits(), now, "{bad:?}");
    }
    set(&mut state, change(Some(Limit::None), percent(95), Some(Limit::None))).unwrap();
    let now = CapacityLimits { over_provision_percent: None, warn_percent: Some(95), full_percent: None };
    assert_eq!(state.limits(), now);
    set(&mut state, ChangeLimits::default()).unwrap();
    assert_eq!(state.limits(), now);
    // They are part of the snapshot; one from before there were any has the defaults.
    let mut json = serde_json::to_value(&state).unwrap();
    assert_eq!(serde_json::from_value::<State>(json.clone()).unwrap(), state);
    json.as_object_mut().unwrap().remove("limits");
    assert_eq!(serde_json::from_value::<State>(json).unwrap().limits(), CapacityLimits::default());
}

#[test]
fn the_largest_volumes_and_families_do_not_overflow() {
    let mut state = limited(MAX_OVER_PROVISION_PERCENT);
    let most = levee_proto::units::MAX_VOLUME_SIZE;
    set(&mut state, ChangeLimits { over_provision: Some(Limit::None), ..ChangeLimits::default() }).unwrap();
    create(&mut state, "v", most, 3).unwrap();
    snapshot(&mut state, &["v@s"]).unwrap();
    assert_eq!(state.provisioned(), 3 * u128::from(most));
    state.check().unwrap();
}
