//! Snapshots, rollback and what gateways are told of them.

use crate::common::*;
use levee_meta_state::{Command, State, limits};
use levee_proto::api::*;
use levee_proto::*;

const GIB: u64 = 1 << 30;

/// A volume that was written: attached, opened as epoch 1, with chunks.
fn written(chunks: &[u32]) -> State {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let opened = open(&mut state, "v", 101).unwrap();
    allocate(&mut state, "v", opened.epoch, chunks).unwrap();
    state
}

fn views(state: &State, name: &str) -> (View, Vec<View>) {
    let versions = state.volume_versions(name).unwrap();
    (versions.view, versions.snapshots)
}

fn view(version: u32, hidden: &[(u32, u32)]) -> View {
    View { version: Version(version), hidden: hidden.iter().map(|(a, b)| (Version(*a), Version(*b))).collect() }
}

#[test]
fn a_snapshot_freezes_the_version_and_is_done_when_the_gateway_says_so() {
    let mut state = written(&[0]);
    let before = state.intent(NodeId(1)).unwrap();
    let taken = snapshot(&mut state, &["v@a"]).unwrap();
    assert_eq!((taken[0].state, taken[0].version, taken[0].size), (SnapshotState::Pending, Version(1), GIB));
    let after = state.intent(NodeId(1)).unwrap();
    assert!(after.revision > before.revision && after.attach[0].versions > before.attach[0].versions);

    let versions = state.volume_versions("v").unwrap();
    assert_eq!((versions.version, versions.pending, versions.sealed), (Version(2), Some(Version(1)), Version(0)));
    assert_eq!(versions.number, after.attach[0].versions);

    let early = sealed(&mut state, "v", Epoch(1), 2).unwrap_err();
    assert_eq!(early.kind, ProblemKind::Invalid, "the head is being written");
    assert_eq!(sealed(&mut state, "v", Epoch(0), 1).unwrap_err().kind, ProblemKind::Fenced);
    let done = sealed(&mut state, "v", Epoch(1), 1).unwrap();
    assert_eq!((done.pending, done.sealed, done.number > versions.number), (None, Version(1), true));
    assert_eq!(sealed(&mut state, "v", Epoch(1), 1).unwrap(), done, "again: nothing new");
    assert_eq!(state.snapshot_named(&at("v@a")).unwrap().state, SnapshotState::Done);
}

#[test]
fn the_next_gateway_completes_what_the_last_one_did_not() {
    let mut state = written(&[0]);
    snapshot(&mut state, &["v@a"]).unwrap();
    snapshot(&mut state, &["v@b"]).unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    assert_eq!(state.chores().collect::<Vec<_>>(), [VolumeId(1)]);
    state.apply(&Command::AttachRepair { volume: VolumeId(1), node: NodeId(2) }).unwrap();
    assert_eq!(state.chores().count(), 0, "it is being looked after");
    let opened = open(&mut state, "v", 102).unwrap();
    assert_eq!((opened.version, opened.versions.pending), (Version(3), Some(Version(2))));
    assert_eq!(opened.snapshots, [view(1, &[]), view(2, &[])]);
    sealed(&mut state, "v", opened.epoch, 2).unwrap();
    assert!(
        state.snapshots_after(None, Default::default(), 9).unwrap().iter().all(|(_, s)| s.state == SnapshotState::Done)
    );
    assert!(!state.has_chores(VolumeId(1)));
}

#[test]
fn a_volume_without_chunks_needs_no_gateway_for_it() {
    let mut state = cluster(&[10]);
    create(&mut state, "v", GIB, 1).unwrap();
    assert_eq!(snapshot(&mut state, &["v@a"]).unwrap()[0].state, SnapshotState::Done);
    state.apply(&Command::Rollback(at("v@a"))).unwrap();
    state.apply(&Command::DeleteSnapshot(at("v@a"))).unwrap();
    assert_eq!(state.chores().count(), 0);
    state.check().unwrap();
}

#[test]
fn a_group_is_taken_whole_or_not_at_all() {
    let mut state = written(&[0]);
    create(&mut state, "w", GIB, 1).unwrap();
    snapshot(&mut state, &["w@a"]).unwrap();
    let before = state.clone();
    let refused = snapshot(&mut state, &["v@a", "w@a"]).unwrap_err();
    assert_eq!((refused.kind, refused.detail.as_str()), (ProblemKind::Exists, "there is a snapshot w@a already"));
    assert_eq!(snapshot(&mut state, &["v@b", "nope@b"]).unwrap_err().kind, ProblemKind::NotFound);
    for bad in [&["v@x", "v@y"][..], &["v@"], &["v@a b"], &[]] {
        assert_eq!(snapshot(&mut state, bad).unwrap_err().kind, ProblemKind::Invalid, "{bad:?}");
    }
    assert_eq!(state, before);
    let both = snapshot(&mut state, &["w@b", "v@b"]).unwrap();
    assert_eq!(both.iter().map(|s| (s.volume.as_str(), s.version.0)).collect::<Vec<_>>(), [("w", 2), ("v", 1)]);
}

#[test]
fn the_number_of_snapshots_is_bounded() {
    let mut state = cluster(&[10]);
    create(&mut state, "v", GIB, 1).unwrap();
    for i in 0..limits::MAX_SNAPSHOTS {
        snapshot(&mut state, &[&format!("v@s{i}")]).unwrap();
    }
    let refused = snapshot(&mut state, &["v@more"]).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("delete some"), "{refused}");
    state.apply(&Command::DeleteSnapshot(at("v@s7"))).unwrap();
    snapshot(&mut state, &["v@more"]).unwrap();
}

#[test]
fn a_deleted_snapshot_is_pruned_by_whoever_saw_that_it_is_gone() {
    let mut state = written(&[0]);
    snapshot(&mut state, &["v@a"]).unwrap();
    snapshot(&mut state, &["v@b"]).unwrap();
    let old = sealed(&mut state, "v", Epoch(1), 2).unwrap();
    assert_eq!(kind(state.apply(&Command::DeleteSnapshot(at("v@nope")))), ProblemKind::NotFound);
    state.apply(&Command::DeleteSnapshot(at("v@a"))).unwrap();
    let now = state.volume_versions("v").unwrap();
    assert_eq!((now.prune, now.snapshots.as_slice()), (true, &[view(2, &[])][..]));
    assert!(pruned(&mut state, "v", Epoch(1), old.number).unwrap().prune, "that was before");
    assert_eq!(pruned(&mut state, "v", Epoch(9), now.number).unwrap_err().kind, ProblemKind::Fenced);
    assert!(!pruned(&mut state, "v", Epoch(1), now.number).unwrap().prune);
    assert!(!state.has_chores(VolumeId(1)));
    snapshot(&mut state, &["v@a"]).unwrap();
    state.check().unwrap();
}

#[test]
fn a_rollback_leaves_behind_what_came_since() {
    let mut state = written(&[0]);
    snapshot(&mut state, &["v@a"]).unwrap();
    let back = Command::Rollback(at("v@a"));
    let attached = state.apply(&back).unwrap_err();
    assert_eq!(attached.kind, ProblemKind::Conflict);
    assert!(attached.detail.contains("'n1'") && attached.detail.contains("detached"), "{attached}");
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    assert!(state.apply(&back).unwrap_err().detail.contains("not complete"));

    state.apply(&Command::AttachRepair { volume: VolumeId(1), node: NodeId(2) }).unwrap();
    let opened = open(&mut state, "v", 102).unwrap();
    sealed(&mut state, "v", opened.epoch, 1).unwrap();
    state.apply(&back).unwrap();
    assert_eq!(views(&state, "v"), (view(3, &[(2, 2)]), vec![view(1, &[])]));
    assert!(state.volume_named("v").unwrap().attachment.is_none(), "the gateway that was there is over");
    assert!(state.volume_versions("v").unwrap().prune);

    snapshot(&mut state, &["v@b"]).unwrap();
    state.apply(&back).unwrap();
    assert_eq!(views(&state, "v"), (view(5, &[(2, 4)]), vec![view(1, &[]), view(3, &[(2, 2)])]));
    state.check().unwrap();
}

#[test]
fn a_rollback_restores_the_size_unless_a_larger_snapshot_needs_what_is_beyond() {
    let mut state = written(&[0]);
    snapshot(&mut state, &["v@small"]).unwrap();
    resize(&mut state, "v", 2 * GIB, false).unwrap();
    allocate(&mut state, "v", Epoch(1), &[20]).unwrap();
    snapshot(&mut state, &["v@large"]).unwrap();
    sealed(&mut state, "v", Epoch(1), 2).unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();

    let refused = state.apply(&Command::Rollback(at("v@small"))).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("'large'"), "{refused}");
    state.apply(&Command::DeleteSnapshot(at("v@large"))).unwrap();
    state.apply(&Command::Rollback(at("v@small"))).unwrap();
    let volume = state.volume_named("v").unwrap();
    assert_eq!((volume.size, volume.chunks), (GIB, 1));
    assert_eq!(state.disk(DiskId(1)).unwrap().deletes.len(), 1, "the chunk beyond the end is given back");
    state.check().unwrap();
}

#[test]
fn volumes_grow_at_any_time_and_lose_only_what_was_never_written() {
    let mut state = written(&[0, 5]);
    assert_eq!(resize(&mut state, "v", 0, false).unwrap_err().kind, ProblemKind::Invalid);
    let number = state.volume_versions("v").unwrap().number;
    resize(&mut state, "v", 4 * GIB, false).unwrap();
    let versions = state.volume_versions("v").unwrap();
    assert!((versions.size, versions.number > number) == (4 * GIB, true), "{versions:?}");

    let refused = resize(&mut state, "v", GIB, false).unwrap_err();
    assert!(refused.kind == ProblemKind::Invalid && refused.detail.contains("explicitly"), "{refused}");
    let refused = resize(&mut state, "v", GIB, true).unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("detached"), "{refused}");
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    let refused = resize(&mut state, "v", GIB / 4, true).unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("536870912"), "{refused}");
    assert!(resize(&mut state, "v", GIB / 2 - 4096, true).is_err(), "the end would be within a group that is in use");
    resize(&mut state, "v", GIB / 2, true).unwrap();
    assert_eq!(resize(&mut state, "nope", GIB, true).unwrap_err().kind, ProblemKind::NotFound);
    state.check().unwrap();
}

#[test]
fn lists_of_snapshots_go_on_where_they_stopped() {
    let mut state = cluster(&[10]);
    for (volume, count) in [("w", 3), ("v", 2)] {
        create(&mut state, volume, GIB, 1).unwrap();
        (0..count).for_each(|i| drop(snapshot(&mut state, &[&format!("{volume}@s{i}")]).unwrap()));
    }
    let (mut after, mut seen) = (Default::default(), Vec::new());
    loop {
        let page = state.snapshots_after(None, after, 2).unwrap();
        let Some((id, last)) = page.last() else { break };
        after = (*id, last.version);
        seen.extend(page.into_iter().map(|(_, s)| format!("{}@{}", s.volume, s.name)));
    }
    assert_eq!(seen, ["w@s0", "w@s1", "w@s2", "v@s0", "v@s1"]);
    assert_eq!(state.snapshots_after(Some("v"), Default::default(), 9).unwrap().len(), 2);
    assert!(state.snapshots_after(Some("nope"), Default::default(), 9).is_err());
}

#[test]
fn volumes_with_snapshots_are_not_deleted() {
    let mut state = cluster(&[10]);
    create(&mut state, "v", GIB, 1).unwrap();
    snapshot(&mut state, &["v@a"]).unwrap();
    let refused = state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("levee snapshot delete v@a"), "{refused}");
    state.apply(&Command::DeleteSnapshot(at("v@a"))).unwrap();
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    assert_eq!(state.counts()[2], 0);
}

#[test]
fn an_image_says_what_it_was_made_of() {
    let mut s = written(&[0]);
    let made_of = ImageInfo { format: "qcow2".into(), disk_size: 4096, data: 512, crc32c: 7 };
    let begin = |name: &str, image: &ImageInfo| Command::BeginSnapshots {
        request: CreateSnapshots { snapshots: vec![at(name)], image: Some(image.clone()) },
        created_ms: 5,
    };
    s.apply(&begin("v@image", &made_of)).unwrap();
    assert_eq!(s.snapshot_named(&at("v@image")).unwrap().image, Some(made_of.clone()));
    let nameless = ImageInfo { format: "no/format".into(), ..made_of };
    assert_eq!(s.apply(&begin("v@other", &nameless)).unwrap_err().kind, ProblemKind::Invalid);
    // The next one is no image.
    snapshot(&mut s, &["v@plain"]).unwrap();
    assert_eq!(s.snapshot_named(&at("v@plain")).unwrap().image, None);
}
