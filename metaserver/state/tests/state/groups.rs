//! Snapshots of several volumes at one moment: complete together, or gone together.

use crate::common::*;
use levee_meta_state::*;
use levee_proto::api::*;
use levee_proto::*;

const GIB: u64 = 1 << 30;

/// Two volumes with a chunk each, served, of which snapshots were asked for together.
fn begun() -> State {
    let mut state = cluster(&[10, 10]);
    for name in ["v", "w"] {
        create(&mut state, name, GIB, 1).unwrap();
        attach(&mut state, name, Some("n1")).unwrap();
        open(&mut state, name, 101).unwrap();
        allocate(&mut state, name, Epoch(1), &[0]).unwrap();
    }
    snapshot(&mut state, &["v@a", "w@a"]).unwrap();
    state
}

fn is_done(state: &State, name: &str) -> bool {
    state.check().unwrap();
    state.snapshot_named(&at(name)).unwrap().state == SnapshotState::Done
}

fn hold(state: &State, name: &str) -> Option<Version> {
    state.volume_versions(name).unwrap().hold
}

/// Nothing of the group is left.
fn assert_given_up(state: &State) {
    state.check().unwrap();
    for name in ["v", "w"] {
        let versions = state.volume_versions(name).unwrap();
        assert_eq!((versions.snapshots.len(), versions.hold, versions.prune), (0, None, true), "{name}");
    }
}

#[test]
fn answers_are_held_until_all_have_moved_and_they_are_done_when_all_are_sealed() {
    let mut state = begun();
    assert_eq!((hold(&state, "v"), hold(&state, "w")), (Some(Version(1)), Some(Version(1))));
    assert_eq!(moved(&mut state, "v", Epoch(0), 1, true).unwrap_err().kind, ProblemKind::Fenced);
    assert_eq!(moved(&mut state, "v", Epoch(1), 7, true).unwrap().hold, Some(Version(1)), "not what was asked");
    assert_eq!(moved(&mut state, "v", Epoch(1), 1, true).unwrap().hold, Some(Version(1)));
    let before = state.intent(NodeId(1)).unwrap().revision;
    assert_eq!(moved(&mut state, "w", Epoch(1), 1, true).unwrap().hold, None);
    assert_eq!(hold(&state, "v"), None);
    assert!(state.intent(NodeId(1)).unwrap().revision > before, "both are told");
    sealed(&mut state, "v", Epoch(1), 1).unwrap();
    assert!(!is_done(&state, "v@a"), "the other is not");
    let names = Family::single("c");
    assert_eq!(clone(&mut state, "v@a", names.clone()).unwrap_err().kind, ProblemKind::Conflict);
    sealed(&mut state, "w", Epoch(1), 1).unwrap();
    assert!(is_done(&state, "v@a") && is_done(&state, "w@a"));
    clone(&mut state, "v@a", names).unwrap();
    moved(&mut state, "v", Epoch(1), 1, false).unwrap();
    assert!(is_done(&state, "v@a"), "too late to be given up");
}

#[test]
fn it_is_given_up_when_a_gateway_could_not_wait() {
    let mut state = begun();
    moved(&mut state, "v", Epoch(1), 1, true).unwrap();
    moved(&mut state, "w", Epoch(1), 1, false).unwrap();
    assert_given_up(&state);
    // Also after the last has moved: somebody had answered before that.
    let mut state = begun();
    moved(&mut state, "v", Epoch(1), 1, true).unwrap();
    moved(&mut state, "w", Epoch(1), 1, true).unwrap();
    sealed(&mut state, "w", Epoch(1), 1).unwrap();
    moved(&mut state, "v", Epoch(1), 1, false).unwrap();
    assert_given_up(&state);
    snapshot(&mut state, &["v@a", "w@a"]).unwrap();
    // Sealed without having moved.
    sealed(&mut state, "w", Epoch(1), 2).unwrap();
    assert_given_up(&state);
}

#[test]
fn it_is_given_up_when_a_gateway_is_replaced() {
    for all_moved in [false, true] {
        let mut state = begun();
        moved(&mut state, "v", Epoch(1), 1, true).unwrap();
        if all_moved {
            moved(&mut state, "w", Epoch(1), 1, true).unwrap();
        }
        state.apply(&Command::Detach { name: "v".into() }).unwrap();
        assert_eq!(hold(&state, "w").is_some(), !all_moved);
        attach(&mut state, "v", Some("n2")).unwrap();
        let opened = open(&mut state, "v", 102).unwrap();
        assert_eq!((opened.epoch, opened.versions.hold), (Epoch(2), None));
        assert_given_up(&state);
    }
}

#[test]
fn volumes_that_nobody_has_open_move_when_they_are_opened() {
    let mut state = begun();
    for name in ["v", "w"] {
        state.apply(&Command::DeleteSnapshot(at(&format!("{name}@a")))).unwrap();
    }
    state.apply(&Command::Detach { name: "w".into() }).unwrap();
    create(&mut state, "unused", GIB, 1).unwrap();
    snapshot(&mut state, &["v@b", "w@b", "unused@b"]).unwrap();
    moved(&mut state, "v", Epoch(1), 2, true).unwrap();
    state.apply(&Command::AttachRepair { volume: VolumeId(2), node: NodeId(2) }).unwrap();
    let opened = open(&mut state, "w", 102).unwrap();
    assert_eq!((opened.epoch, opened.versions.hold), (Epoch(2), Some(Version(2))));
    moved(&mut state, "w", Epoch(2), 2, true).unwrap();
    for (name, epoch) in [("v", 1), ("w", 2)] {
        assert!(!is_done(&state, "unused@b"), "before {name} is");
        sealed(&mut state, name, Epoch(epoch), 2).unwrap();
    }
    assert!(["v@b", "w@b", "unused@b"].iter().all(|name| is_done(&state, name)));

    // Nobody has to be asked at all.
    create(&mut state, "other", GIB, 1).unwrap();
    snapshot(&mut state, &["unused@c", "other@c"]).unwrap();
    assert!(is_done(&state, "unused@c") && is_done(&state, "other@c"));
}

#[test]
fn the_rest_goes_on_when_one_of_them_is_deleted() {
    let mut state = begun();
    moved(&mut state, "v", Epoch(1), 1, true).unwrap();
    state.apply(&Command::DeleteSnapshot(at("w@a"))).unwrap();
    assert_eq!((hold(&state, "v"), hold(&state, "w")), (None, None));
    sealed(&mut state, "v", Epoch(1), 1).unwrap();
    assert!(is_done(&state, "v@a"));
}

#[test]
fn a_volume_is_in_one_group_at_a_time() {
    let mut state = begun();
    create(&mut state, "u", GIB, 1).unwrap();
    let refused = snapshot(&mut state, &["u@b", "v@b"]).unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("'v'"), "{refused}");
    // Alone it can have another.
    snapshot(&mut state, &["v@b"]).unwrap();
    for name in ["v", "w"] {
        assert_eq!(moved(&mut state, name, Epoch(1), 1, true).unwrap().hold.is_some(), name == "v");
    }
    sealed(&mut state, "v", Epoch(1), 2).unwrap();
    assert!(is_done(&state, "v@b") && !is_done(&state, "v@a"));
    sealed(&mut state, "w", Epoch(1), 1).unwrap();
    assert!(is_done(&state, "v@a"));
}
