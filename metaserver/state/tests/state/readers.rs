//! Snapshots that are attached for reading.

use crate::common::*;
use levee_meta_state::{Answer, Command, State, limits};
use levee_proto::api::*;
use levee_proto::*;

const GIB: u64 = 1 << 30;

fn detach(state: &mut State, name: &str) -> VolumeInfo {
    let Answer::Volume(info) = state.apply(&Command::Detach { name: name.into() }).unwrap() else { panic!() };
    state.check().unwrap();
    info
}

fn names(state: &State) -> Vec<String> {
    state.volumes_after("", 99).into_iter().map(|v| v.name).collect()
}

#[test]
fn a_snapshot_is_a_read_only_volume_while_it_is_attached() {
    let mut state = golden();
    let before = state.volume_named("golden@s").unwrap();
    assert_eq!((before.id, before.size, before.read_only, &before.attachment), (VolumeId(0), GIB, true, &None));
    let Answer::Volume(attached) = attach(&mut state, "golden@s", Some("n2")).unwrap() else { panic!() };
    state.check().unwrap();
    assert_eq!((attached.id, attached.read_only, attached.size), (VolumeId(2), true, GIB));
    assert_eq!(attached.attachment.as_ref().unwrap().node_name, "n2");
    assert_eq!(state.volume_named("golden@s"), Ok(attached));
    assert_eq!(names(&state), ["golden", "golden@s"]);
    assert_eq!(state.snapshot_named(&at("golden@s")).unwrap().clones, 0, "it is no clone");
    let intent = state.intent(NodeId(2)).unwrap().attach;
    assert_eq!((intent[0].name.as_str(), intent[0].repair), ("golden@s", false));

    let opened = open(&mut state, "golden@s", 102).unwrap();
    assert!(opened.read_only && opened.chunks.is_empty());
    let parent = opened.parent.unwrap();
    assert_eq!((parent.volume, &parent.view), (VolumeId(1), &View::of(Version(1))));
    assert_eq!(parent.chunks.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 3]);
    let refused = allocate(&mut state, "golden@s", opened.epoch, &[1]).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Invalid);

    let detached = detach(&mut state, "golden@s");
    assert_eq!((detached.id, detached.attachment), (VolumeId(2), None));
    assert_eq!(names(&state), ["golden"]);
    assert!(state.intent(NodeId(2)).unwrap().attach.is_empty());
    assert_eq!(state.counts()[2], 1);
    let again = state.clone();
    detach(&mut state, "golden@s");
    assert_eq!(state, again, "detaching what is detached is no change");
    attach(&mut state, "golden@s", None).unwrap();
    assert_eq!(state.volume_named("golden@s").unwrap().id, VolumeId(3), "ids are not used again");
}

#[test]
fn attaching_follows_the_rules_for_volumes() {
    let mut state = golden();
    attach(&mut state, "golden@s", Some("n2")).unwrap();
    let attached = state.clone();
    attach(&mut state, "golden@s", None).unwrap();
    attach(&mut state, "golden@s", Some("n2")).unwrap();
    let elsewhere = attach(&mut state, "golden@s", Some("n3")).unwrap_err();
    assert!(elsewhere.kind == ProblemKind::Conflict && elsewhere.detail.contains("'n2'"), "{elsewhere}");
    assert_eq!(state, attached);
    snapshot(&mut state, &["golden@pending"]).unwrap();
    let before = state.clone();
    assert_eq!(kind(attach(&mut state, "golden@pending", None)), ProblemKind::Conflict);
    assert_eq!(kind(attach(&mut state, "golden@nope", None)), ProblemKind::NotFound);
    assert_eq!(kind(attach(&mut state, "nope@s", None)), ProblemKind::NotFound);
    assert_eq!(kind(attach(&mut state, "golden@s@s", None)), ProblemKind::NotFound);
    assert_eq!(kind(attach(&mut state, "golden@s", Some("n9"))), ProblemKind::NotFound);
    for name in ["golden@nope", "nope@s"] {
        assert_eq!(kind(state.apply(&Command::Detach { name: name.into() })), ProblemKind::NotFound);
    }
    assert_eq!(state, before, "nothing is left of what was refused");
}

#[test]
fn a_snapshot_is_not_deleted_while_it_is_attached() {
    let mut state = golden();
    clone(&mut state, "golden@s", Family::single("c")).unwrap();
    attach(&mut state, "golden@s", Some("n3")).unwrap();
    let refused = state.apply(&Command::DeleteSnapshot(at("golden@s"))).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("'n3'") && refused.detail.contains("levee volume detach golden@s"), "{refused}");
    detach(&mut state, "golden");
    assert_eq!(kind(state.apply(&Command::DeleteVolume { name: "golden".into() })), ProblemKind::Conflict);
    state.apply(&Command::Rollback(at("golden@s"))).expect("it stays as it is");
    state.check().unwrap();

    detach(&mut state, "golden@s");
    state.apply(&Command::DeleteSnapshot(at("golden@s"))).unwrap();
    assert_eq!(kind(attach(&mut state, "golden@s", None)), ProblemKind::Conflict, "kept for the clone alone");
    state.apply(&Command::DeleteVolume { name: "c".into() }).unwrap();
    let versions = state.volume_versions("golden").unwrap();
    assert_eq!((versions.snapshots.len(), versions.prune), (0, true));
    state.check().unwrap();
}

#[test]
fn what_is_done_to_volumes_is_refused() {
    let mut state = golden();
    for attached in [false, true] {
        if attached {
            attach(&mut state, "golden@s", None).unwrap();
        }
        let before = state.clone();
        let name = || "golden@s".to_string();
        let of_it = || SnapshotName { volume: name(), snapshot: "t".into() };
        let taken = CreateSnapshots { snapshots: vec![of_it()], image: None };
        let request = ResizeVolume { size: 2 * GIB, allow_shrink: false };
        for command in [
            Command::DeleteVolume { name: name() },
            Command::Flatten { name: name() },
            Command::Resize { name: name(), request },
            Command::BeginSnapshots { request: taken, created_ms: 1 },
            Command::Rollback(of_it()),
            Command::DeleteSnapshot(of_it()),
        ] {
            let refused = state.apply(&command).unwrap_err();
            assert_eq!(refused.kind, ProblemKind::Invalid, "{command:?}");
            assert!(refused.detail.contains("golden@s is a snapshot"), "{refused}");
        }
        let clones =
            CreateClones { from: of_it(), names: Family::single("d"), size: None, copies: None, min_copies: None };
        assert_eq!(kind(state.apply(&Command::CreateClones(clones))), ProblemKind::Invalid);
        assert_eq!(kind(create(&mut state, "golden@s", GIB, 1)), ProblemKind::Invalid);
        let volumes = vec![Family::single("golden@s")];
        assert_eq!(kind(state.apply(&Command::DeleteVolumes(DeleteVolumes { volumes }))), ProblemKind::Invalid);
        assert_eq!(state, before);
    }
}

#[test]
fn snapshots_of_the_deepest_clones_are_not_attached() {
    let mut state = golden();
    let mut from = "golden@s".to_string();
    for depth in 1..=limits::MAX_ANCESTORS {
        let name = format!("c{depth}");
        clone(&mut state, &from, Family::single(&name)).unwrap();
        snapshot(&mut state, &[&format!("{name}@s")]).unwrap();
        from = format!("{name}@s");
    }
    let refused = attach(&mut state, &from, None).unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("flatten"), "{refused}");
    state.check().unwrap();
}

#[test]
fn readers_survive_in_the_snapshot_of_the_state() {
    let mut state = golden();
    attach(&mut state, "golden@s", Some("n2")).unwrap();
    let bytes = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<State>(&bytes).unwrap(), state);
}
