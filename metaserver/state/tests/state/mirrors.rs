//! More copies of snapshots that many clones read.

use crate::common::*;
use levee_meta_state::*;
use levee_proto::api::*;
use levee_proto::*;

const GIB: u64 = 1 << 30;

/// Six nodes, and a complete snapshot `v@a` of a volume with three copies of a chunk.
fn golden() -> State {
    let mut state = cluster(&[20; 6]);
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    open(&mut state, "v", 101).unwrap();
    allocate(&mut state, "v", Epoch(1), &[0]).unwrap();
    snapshot(&mut state, &["v@a"]).unwrap();
    sealed(&mut state, "v", Epoch(1), 1).unwrap();
    state
}

fn clones(state: &mut State, name: &str, count: u32) {
    clone(state, "v@a", Family { name: name.into(), count: Some(count), first: 1 }).unwrap();
    state.check().unwrap();
}

fn delete(state: &mut State, name: &str, count: u32) {
    let volumes = vec![Family { name: name.into(), count: Some(count), first: 1 }];
    state.apply(&Command::DeleteVolumes(DeleteVolumes { volumes })).unwrap();
    state.check().unwrap();
}

/// What a clone's gateway is told.
fn mirrors(state: &State, clone: &str) -> Vec<MirrorInfo> {
    state.volume_parent(clone).unwrap().parent.unwrap().mirrors
}

fn read_copies(state: &State) -> u32 {
    state.snapshot_named(&at("v@a")).unwrap().read_copies
}

/// The cluster's own gateway copies everything, and seals it.
fn complete(state: &mut State, name: &str) {
    let id = state.chores().find(|id| state.volume(*id).unwrap().name == name).expect("it is looked after");
    state.apply(&Command::AttachRepair { volume: id, node: NodeId(2) }).unwrap();
    let at = state.volume(id).unwrap().attachment.clone().unwrap();
    let request = OpenVolume { node: NodeId(2), incarnation: uuid(102), attachment: at.id, fenced: None };
    let Ok(Answer::Opened(opened)) = state.apply(&Command::Open { name: name.into(), request }) else {
        panic!("not opened")
    };
    assert!(opened.versions.flatten && opened.parent.is_some());
    allocate(state, name, opened.epoch, &[0]).unwrap();
    state.apply(&Command::Flattened { name: name.into(), request: Flattened { epoch: opened.epoch } }).unwrap();
    state.check().unwrap();
    assert!(mirrors(state, "c-1").is_empty(), "nothing is known to be sealed");
    sealed(state, name, opened.epoch, 1).unwrap();
    state.apply(&Command::DetachRepair { volume: id, attachment: at.id }).unwrap();
    state.check().unwrap();
}

#[test]
fn they_come_with_many_clones_and_go_with_them() {
    let mut state = golden();
    clones(&mut state, "few", 63);
    assert_eq!((state.chores().count(), read_copies(&state)), (0, 3));
    clones(&mut state, "c", 1);
    complete(&mut state, ".mirror-66");
    let found = mirrors(&state, "few-1");
    assert_eq!((found.len(), found[0].chunks.len(), found[0].view.version), (1, 1, Version(1)));
    assert_eq!(read_copies(&state), 6);
    let info = state.snapshot_named(&at("v@a")).unwrap();
    assert_eq!(info.clones, 64, "it is no clone");
    assert!(state.volumes_after("", 999).iter().all(|v| !v.name.starts_with('.')), "nor a user's volume");
    assert_eq!(state.snapshots_after(None, Default::default(), 9).unwrap().len(), 1);
    for command in [Command::DeleteVolume { name: ".mirror-66".into() }, Command::Detach { name: ".mirror-66".into() }]
    {
        assert_eq!(kind(state.apply(&command)), ProblemKind::NotFound);
    }

    // More than disks make no sense, however many clones.
    clones(&mut state, "many", 600);
    assert_eq!((state.chores().count(), read_copies(&state)), (0, 6));
    delete(&mut state, "many", 600);
    delete(&mut state, "few", 31);
    assert_eq!(read_copies(&state), 6, "not at once");
    delete(&mut state, "few", 63);
    assert_eq!(read_copies(&state), 3);
    let waiting: usize = (1..=6).map(|d| state.disk(DiskId(d)).unwrap().deletes.len()).sum();
    assert_eq!(waiting, 3, "its copies are given back");
}

#[test]
fn they_go_with_their_snapshot_also_unfinished() {
    let mut state = golden();
    clones(&mut state, "c", 64);
    state.apply(&Command::DeleteSnapshot(at("v@a"))).unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    complete(&mut state, ".mirror-66");
    delete(&mut state, "c", 64);
    assert_eq!(state.counts()[2], 0, "neither is left");

    let mut state = golden();
    clones(&mut state, "c", 64);
    delete(&mut state, "c", 64);
    assert_eq!((state.chores().count(), state.counts()[2]), (0, 1));
}

#[test]
fn a_cluster_that_is_half_full_or_small_has_none() {
    let mut state = cluster(&[20; 3]);
    create(&mut state, "v", GIB, 3).unwrap();
    snapshot(&mut state, &["v@a"]).unwrap();
    clones(&mut state, "c", 64);
    assert_eq!(state.chores().count(), 0);

    let mut state = golden();
    create(&mut state, "w", 8 * GIB, 3).unwrap();
    attach(&mut state, "w", Some("n1")).unwrap();
    open(&mut state, "w", 101).unwrap();
    allocate(&mut state, "w", Epoch(1), &(0..20).collect::<Vec<_>>()).unwrap();
    clones(&mut state, "c", 64);
    assert_eq!(state.chores().count(), 0);
}
