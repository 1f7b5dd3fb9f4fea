//! A small cluster to send commands to.
#![allow(dead_code)]

use levee_meta_state::{Answer, Command, Decider, Outcome, State};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeSet;
use uuid::Uuid;

pub fn uuid(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

pub const CLUSTER: Uuid = Uuid::from_u128(77);

pub fn node_named(name: &str, incarnation: u64, disks: &[(u64, u64)]) -> RegisterNode {
    RegisterNode {
        name: name.into(),
        incarnation: uuid(incarnation),
        admin_url: "http://127.0.0.1:1".into(),
        cores: vec!["127.0.0.1:2".into()],
        cluster: None,
        disks: disks
            .iter()
            .map(|(id, chunks)| RegisterDisk {
                uuid: uuid(*id),
                path: format!("/disk{id}"),
                capacity: chunks * CHUNK_SIZE,
                shards: 2,
                class: DiskClass::default(),
            })
            .collect(),
        zone: None,
        rack: None,
        leave_out_removed: false,
        locks: Vec::new(),
        missing: Vec::new(),
        seen: Default::default(),
    }
}

/// Node `n<i>` with one disk of `chunks`, run by incarnation `100 + i`.
pub fn cluster(chunks: &[u64]) -> State {
    let mut state = State::default();
    state.apply(&Command::Found { cluster: CLUSTER }).unwrap();
    for (i, chunks) in (1..).zip(chunks) {
        register(&mut state, &node_named(&format!("n{i}"), 100 + i, &[(1000 + i, *chunks)])).unwrap();
    }
    state
}

pub fn register(state: &mut State, request: &RegisterNode) -> Result<Registered, Problem> {
    match state.apply(&Command::RegisterNode(request.clone()))? {
        Answer::Registered(r) => Ok(r),
        other => panic!("{other:?}"),
    }
}

pub fn create(state: &mut State, name: &str, size: u64, copies: u8) -> Outcome {
    let min_copies = copies.min(2);
    state.apply(&Command::CreateVolume(CreateVolume { name: name.into(), size, copies, min_copies, class: None }))
}

pub fn everyone(state: &State) -> BTreeSet<NodeId> {
    state.node_ids().collect()
}

pub fn attach(state: &mut State, name: &str, node: Option<&str>) -> Outcome {
    let alive = everyone(state);
    state.apply(&Command::Attach { name: name.into(), node: node.map(Into::into), alive })
}

pub fn attachment(state: &State, name: &str) -> Attachment {
    state.volume_named(name).unwrap().attachment.expect("attached")
}

pub fn open(state: &mut State, name: &str, incarnation: u64) -> Result<OpenedVolume, Problem> {
    let at = attachment(state, name);
    let request = OpenVolume { node: at.node, incarnation: uuid(incarnation), attachment: at.attachment, fenced: None };
    match state.apply(&Command::Open { name: name.into(), request })? {
        Answer::Opened(o) => Ok(o),
        other => panic!("{other:?}"),
    }
}

pub fn allocate(state: &mut State, name: &str, epoch: Epoch, indexes: &[u32]) -> Result<Vec<ChunkInfo>, Problem> {
    let alive = everyone(state);
    let request = AllocateChunks { epoch, indexes: indexes.to_vec() };
    match state.apply(&Command::Allocate { name: name.into(), request, alive, full: Default::default() })? {
        Answer::Allocated(a) => Ok(a.chunks),
        other => panic!("{other:?}"),
    }
}

/// Replaces the members `remove` of each chunk by `add` others.
pub fn change(
    state: &mut State,
    name: &str,
    epoch: Epoch,
    changes: &[(&ChunkInfo, &[ReplicaId], u8)],
) -> Result<ChangedReplicas, Problem> {
    let alive = everyone(state);
    change_alive(state, name, epoch, changes, alive)
}

pub fn change_alive(
    state: &mut State,
    name: &str,
    epoch: Epoch,
    changes: &[(&ChunkInfo, &[ReplicaId], u8)],
    alive: BTreeSet<NodeId>,
) -> Result<ChangedReplicas, Problem> {
    let change = |(chunk, remove, add): &(&ChunkInfo, &[ReplicaId], u8)| ReplicaChange {
        index: chunk.index,
        config: chunk.config,
        remove: remove.to_vec(),
        add: *add,
    };
    let request = ChangeReplicas { epoch, changes: changes.iter().map(change).collect() };
    let answer =
        state.apply(&Command::ChangeReplicas { name: name.into(), request, alive, full: Default::default() })?;
    state.check().expect("a sound state");
    match answer {
        Answer::Changed(changed) => Ok(changed),
        other => panic!("{other:?}"),
    }
}

/// A disk taken out of service, or put back.
pub fn set_disk(state: &mut State, disk: u32, to: DiskState, by: Decider) -> DiskInfo {
    let reason = Some(format!("{by:?}"));
    let answer = state.apply(&Command::SetDisk { disk: DiskId(disk), state: to, reason, by }).expect("a known disk");
    state.check().expect("a sound state");
    match answer {
        Answer::Disk(disk) => disk,
        other => panic!("{other:?}"),
    }
}

pub fn kind(outcome: Outcome) -> ProblemKind {
    outcome.expect_err("refused").kind
}

/// `VOLUME@NAME`.
pub fn at(text: &str) -> SnapshotName {
    let (volume, snapshot) = text.split_once('@').expect("VOLUME@NAME");
    SnapshotName { volume: volume.into(), snapshot: snapshot.into() }
}

/// Takes snapshots, all in one.
pub fn snapshot(state: &mut State, names: &[&str]) -> Result<Vec<SnapshotInfo>, Problem> {
    let request = CreateSnapshots { snapshots: names.iter().map(|name| at(name)).collect(), image: None };
    match state.apply(&Command::BeginSnapshots { request, created_ms: 5 })? {
        Answer::Snapshots(taken) => Ok(taken),
        other => panic!("{other:?}"),
    }
}

fn versions(answer: Answer) -> VolumeVersions {
    match answer {
        Answer::Versions(versions) => versions,
        other => panic!("{other:?}"),
    }
}

/// The gateway writes beyond the version; whether it has held answers back.
pub fn moved(state: &mut State, name: &str, epoch: Epoch, version: u32, held: bool) -> Result<VolumeVersions, Problem> {
    let request = Moved { epoch, version: Version(version), held };
    state.apply(&Command::Moved { name: name.into(), request }).map(versions)
}

/// The gateway has sealed the version.
pub fn sealed(state: &mut State, name: &str, epoch: Epoch, version: u32) -> Result<VolumeVersions, Problem> {
    let request = Sealed { epoch, version: Version(version) };
    state.apply(&Command::FinishSnapshots { name: name.into(), request }).map(versions)
}

/// The gateway has dropped what nobody sees.
pub fn pruned(state: &mut State, name: &str, epoch: Epoch, number: u64) -> Result<VolumeVersions, Problem> {
    state.apply(&Command::Pruned { name: name.into(), request: Pruned { epoch, number } }).map(versions)
}

pub fn clone(state: &mut State, from: &str, names: Family) -> Result<CreatedClones, Problem> {
    let request = CreateClones { from: at(from), names, size: None, copies: None, min_copies: None };
    match state.apply(&Command::CreateClones(request))? {
        Answer::Cloned(cloned) => Ok(cloned),
        other => panic!("{other:?}"),
    }
}

pub fn resize(state: &mut State, name: &str, size: u64, allow_shrink: bool) -> Outcome {
    state.apply(&Command::Resize { name: name.into(), request: ResizeVolume { size, allow_shrink } })
}

/// A volume `golden` of 1 GiB with two chunks and a snapshot `s` that is done, attached to `n1`.
pub fn golden() -> State {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "golden", 1 << 30, 2).unwrap();
    attach(&mut state, "golden", Some("n1")).unwrap();
    let opened = open(&mut state, "golden", 101).unwrap();
    allocate(&mut state, "golden", opened.epoch, &[0, 3]).unwrap();
    snapshot(&mut state, &["golden@s"]).unwrap();
    sealed(&mut state, "golden", opened.epoch, 1).unwrap();
    state
}
