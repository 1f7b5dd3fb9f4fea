//! Clones, and what outlives its deletion for them.

use crate::common::*;
use levee_meta_state::{Answer, Command, State, limits};
use levee_proto::api::*;
use levee_proto::*;

const GIB: u64 = 1 << 30;

/// A volume with a chunk and a snapshot that is done.
fn detached_golden() -> State {
    let mut state = golden();
    state.apply(&Command::Detach { name: "golden".into() }).unwrap();
    state
}

fn family(name: &str, count: u32) -> Family {
    Family { name: name.into(), count: Some(count), first: 1 }
}

fn delete(state: &mut State, name: &str) -> Result<Answer, Problem> {
    let answer = state.apply(&Command::DeleteVolume { name: name.into() });
    state.check().unwrap();
    answer
}

/// The volume is attached and opened; the process is that of the node.
fn serve(state: &mut State, name: &str) -> OpenedVolume {
    attach(state, name, Some("n2")).unwrap();
    open(state, name, 102).unwrap()
}

#[test]
fn a_clone_continues_from_its_parent() {
    let mut state = detached_golden();
    let cloned = clone(&mut state, "golden@s", Family::single("c")).unwrap();
    assert_eq!((cloned.count, cloned.first.as_str(), cloned.size), (1, "c", GIB));
    let opened = serve(&mut state, "c");
    assert_eq!((opened.copies, opened.size, opened.chunks.len(), opened.version), (2, GIB, 0, Version::FIRST));
    let parent = opened.parent.expect("a parent");
    assert_eq!((parent.volume, &parent.view, parent.size), (VolumeId(1), &View::of(Version(1)), GIB));
    assert_eq!(parent.chunks.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(state.volume_parent("c").unwrap().parent, Some(parent));
    let info = state.volume_named("c").unwrap().parent.unwrap();
    assert_eq!((info.volume.as_deref(), info.snapshot.as_str()), (Some("golden"), "s"));
    assert_eq!(state.snapshot_named(&at("golden@s")).unwrap().clones, 1);
}

#[test]
fn clones_of_clones_know_all_their_ancestors_up_to_a_depth() {
    let mut state = detached_golden();
    let mut from = "golden@s".to_string();
    for depth in 1..=limits::MAX_ANCESTORS {
        let name = format!("c{depth}");
        clone(&mut state, &from, Family::single(&name)).unwrap();
        snapshot(&mut state, &[&format!("{name}@s")]).unwrap();
        from = format!("{name}@s");
        let mut ancestors = 0;
        let mut next = state.volume_parent(&name).unwrap().parent;
        while let Some(parent) = next {
            ancestors += 1;
            next = parent.parent.map(|boxed| *boxed);
        }
        assert_eq!(ancestors, depth);
    }
    let refused = clone(&mut state, &from, Family::single("deep")).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("flatten"), "{refused}");
}

#[test]
fn what_cannot_be_cloned_is_said() {
    let mut state = detached_golden();
    create(&mut state, "taken-2", GIB, 1).unwrap();
    let before = state.clone();
    let kinds = |state: &mut State, from: &str, names: Family| clone(state, from, names).unwrap_err().kind;
    assert_eq!(kinds(&mut state, "nope@s", Family::single("c")), ProblemKind::NotFound);
    assert_eq!(kinds(&mut state, "golden@nope", Family::single("c")), ProblemKind::NotFound);
    assert_eq!(kinds(&mut state, "golden@s", Family::single("a{}")), ProblemKind::Invalid, "no number to put there");
    assert_eq!(kinds(&mut state, "golden@s", family("c", 0)), ProblemKind::Invalid);
    assert_eq!(kinds(&mut state, "golden@s", family("c", limits::MAX_FAMILY_PER_COMMAND + 1)), ProblemKind::Invalid);
    assert_eq!(
        kinds(&mut state, "golden@s", family(&"x".repeat(126), 10)),
        ProblemKind::Invalid,
        "the last is too long"
    );
    assert_eq!(kinds(&mut state, "golden@s", Family { first: u32::MAX, ..family("c", 2) }), ProblemKind::Invalid);
    let taken = clone(&mut state, "golden@s", family("taken", 3)).unwrap_err();
    assert_eq!((taken.kind, taken.detail.contains("'taken-2'")), (ProblemKind::Exists, true));
    let request = CreateClones {
        from: at("golden@s"),
        names: Family::single("c"),
        size: Some(GIB - 4096),
        copies: None,
        min_copies: None,
    };
    let small = state.apply(&Command::CreateClones(request.clone())).unwrap_err();
    assert_eq!(small.kind, ProblemKind::Invalid);
    assert_eq!(state, before);
    state.apply(&Command::CreateClones(CreateClones { size: Some(2 * GIB), copies: Some(1), ..request })).unwrap();
    let volume = state.volume_named("c").unwrap();
    assert_eq!((volume.size, volume.copies, volume.min_copies), (2 * GIB, 1, 1));
    state.check().unwrap();
}

#[test]
fn a_deleted_snapshot_stays_until_its_last_clone_is_gone() {
    let mut state = detached_golden();
    clone(&mut state, "golden@s", family("c-{}-disk", 2)).unwrap();
    let Answer::Snapshots(kept) = state.apply(&Command::DeleteSnapshot(at("golden@s"))).unwrap() else { panic!() };
    assert_eq!((kept[0].state, kept[0].clones), (SnapshotState::Deleting, 2));
    state.check().unwrap();
    assert_eq!(clone(&mut state, "golden@s", Family::single("d")).unwrap_err().kind, ProblemKind::Conflict);
    let again = snapshot(&mut state, &["golden@s"]).unwrap_err();
    assert!(again.kind == ProblemKind::Exists && again.detail.contains("2 clones"), "{again}");
    delete(&mut state, "c-1-disk").unwrap();
    assert_eq!(state.volume_versions("golden").unwrap().snapshots.len(), 1);
    delete(&mut state, "c-2-disk").unwrap();
    let versions = state.volume_versions("golden").unwrap();
    assert_eq!((versions.snapshots.len(), versions.prune), (0, true));
}

#[test]
fn a_deleted_volume_stays_out_of_sight_for_its_clones() {
    let mut state = detached_golden();
    clone(&mut state, "golden@s", Family::single("c")).unwrap();
    snapshot(&mut state, &["c@s"]).unwrap();
    clone(&mut state, "c@s", Family::single("d")).unwrap();
    for name in ["golden", "c"] {
        state.apply(&Command::DeleteSnapshot(at(&format!("{name}@s")))).unwrap();
        delete(&mut state, name).unwrap();
        assert_eq!(state.volume_named(name).unwrap_err().kind, ProblemKind::NotFound);
    }
    assert_eq!(state.volumes_after("", 9).into_iter().map(|v| v.name).collect::<Vec<_>>(), ["d"]);
    assert!(state.snapshots_after(None, Default::default(), 9).unwrap().is_empty());
    assert_eq!(state.volume_named(".deleted-1").unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(kind(attach(&mut state, ".deleted-1", None)), ProblemKind::NotFound);
    create(&mut state, "golden", GIB, 1).expect("the name is free");

    assert_eq!(state.chores().collect::<Vec<_>>(), [VolumeId(1)], "what its head alone saw is dropped");
    state.apply(&Command::AttachRepair { volume: VolumeId(1), node: NodeId(2) }).unwrap();
    let intent = state.intent(NodeId(2)).unwrap();
    assert_eq!(intent.attach[0].name, ".deleted-1");
    let at_node = intent.attach[0].attachment;
    let request = OpenVolume { node: NodeId(2), incarnation: uuid(102), attachment: at_node, fenced: None };
    let Answer::Opened(opened) = state.apply(&Command::Open { name: ".deleted-1".into(), request }).unwrap() else {
        panic!("not opened")
    };
    assert_eq!(opened.view, View { version: Version(3), hidden: vec![(Version(2), Version(2))] });
    assert_eq!(state.volume_parent("d").unwrap().parent.unwrap().parent.unwrap().volume, VolumeId(1));

    delete(&mut state, "d").unwrap();
    assert_eq!(state.volumes_after("", 9).len(), 1, "the new one");
    assert_eq!(state.counts()[2], 1, "and nothing else");
    let released: usize = (1..=3).map(|d| state.disk(DiskId(d)).unwrap().deletes.len()).sum();
    assert_eq!(released, 4, "two chunks in two copies");
}

#[test]
fn a_flattened_clone_needs_its_parent_no_more() {
    let mut state = detached_golden();
    clone(&mut state, "golden@s", family("c", 2)).unwrap();
    let flatten = |state: &mut State, name: &str| state.apply(&Command::Flatten { name: name.into() });
    assert_eq!(kind(flatten(&mut state, "golden")), ProblemKind::Conflict);
    snapshot(&mut state, &["c-2@x"]).unwrap();
    let refused = flatten(&mut state, "c-2").unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("'x'"), "{refused}");

    flatten(&mut state, "c-1").unwrap();
    assert!(state.volume_named("c-1").unwrap().flattening);
    assert_eq!(state.chores().collect::<Vec<_>>(), [VolumeId(2)]);
    assert_eq!(snapshot(&mut state, &["c-1@y"]).unwrap_err().kind, ProblemKind::Conflict);
    let opened = serve(&mut state, "c-1");
    assert!(opened.versions.flatten);
    let done = |epoch| Command::Flattened { name: "c-1".into(), request: Flattened { epoch } };
    assert_eq!(kind(state.apply(&done(Epoch(7)))), ProblemKind::Fenced);
    state.apply(&done(opened.epoch)).unwrap();
    state.apply(&done(opened.epoch)).expect("again: no change");
    let volume = state.volume_named("c-1").unwrap();
    assert_eq!((volume.parent, volume.flattening), (None, false));
    assert_eq!(state.snapshot_named(&at("golden@s")).unwrap().clones, 1);
    state.check().unwrap();
    assert_eq!(kind(resize(&mut state, "c-2", GIB / 2, true)), ProblemKind::Conflict, "a clone does not shrink");
}

#[test]
fn a_clone_keeps_chunks_without_data() {
    let mut state = detached_golden();
    clone(&mut state, "golden@s", Family::single("c")).unwrap();
    let opened = serve(&mut state, "c");
    let chunk = allocate(&mut state, "c", opened.epoch, &[0]).unwrap().remove(0);
    let all: Vec<ReplicaId> = chunk.replicas.iter().map(|r| r.replica).collect();
    let asked = change(&mut state, "c", opened.epoch, &[(&chunk, &all, 0)]).unwrap();
    assert_eq!(asked.chunks, [chunk], "discarded blocks must go on hiding those of the parent");
    assert!(asked.refused.is_some());
}

#[test]
fn a_flattened_clone_can_be_the_last_that_kept_its_parent() {
    let mut state = detached_golden();
    clone(&mut state, "golden@s", Family::single("c")).unwrap();
    state.apply(&Command::DeleteSnapshot(at("golden@s"))).unwrap();
    delete(&mut state, "golden").unwrap();
    state.apply(&Command::Flatten { name: "c".into() }).unwrap();
    let opened = serve(&mut state, "c");
    state.apply(&Command::Flattened { name: "c".into(), request: Flattened { epoch: opened.epoch } }).unwrap();
    assert_eq!(state.counts()[2], 1);
    state.check().unwrap();
}

#[test]
fn many_are_deleted_at_once_each_by_itself() {
    let mut state = detached_golden();
    clone(&mut state, "golden@s", family("c", 500)).unwrap();
    attach(&mut state, "c-7", Some("n3")).unwrap();
    let volumes = vec![family("c", 400), Family::single("golden"), Family { first: 401, ..family("c", 200) }];
    let Answer::Deleted(deleted) = state.apply(&Command::DeleteVolumes(DeleteVolumes { volumes })).unwrap() else {
        panic!("no answer")
    };
    assert_eq!((deleted.deleted, deleted.refusals, deleted.refused.len()), (499, 102, limits::MAX_REFUSALS));
    let kinds: Vec<_> = deleted.refused.iter().take(3).map(|r| (r.volume.as_str(), r.kind)).collect();
    use ProblemKind::*;
    assert_eq!(kinds, [("c-7", Conflict), ("golden", Conflict), ("c-501", NotFound)]);
    state.check().unwrap();
    assert_eq!(state.snapshot_named(&at("golden@s")).unwrap().clones, 1);
}
