//! Moves of single copies.

use crate::common::*;
use levee_meta_state::{Answer, Command, Decider, State};
use levee_proto::api::*;
use levee_proto::*;

/// Four nodes; a volume on the first three, served by the first. The fourth is empty.
fn uneven() -> (State, Vec<ChunkInfo>) {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", 1 << 40, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    let chunks = allocate(&mut state, "v", epoch, &(0..40).collect::<Vec<_>>()).unwrap();
    register(&mut state, &node_named("n4", 104, &[(1004, 100)])).unwrap();
    (state, chunks)
}

fn on(chunk: &ChunkInfo, disk: u32) -> ReplicaPlace {
    *chunk.replicas.iter().find(|r| r.disk == DiskId(disk)).expect("a copy there")
}

/// Of the only volume.
fn to_fourth(chunk: &ChunkInfo, from: u32) -> PlannedMove {
    let volume = VolumeId(1);
    let replica = on(chunk, from).replica;
    PlannedMove { volume, index: chunk.index, replica, from: DiskId(from), to: DiskId(4), bytes: 1 << 20 }
}

fn start(state: &mut State, moves: Vec<PlannedMove>) -> Result<RebalanceStatus, Problem> {
    match state.apply(&Command::StartRebalance { goal: RebalanceGoal::Space, moves })? {
        Answer::Rebalance(status) => Ok(status),
        other => panic!("{other:?}"),
    }
}

fn moving(state: &State) -> Vec<MoveReplica> {
    state.intent(NodeId(1)).expect("a node").moves
}

/// What the gateway does for every copy that its intent names. Returns how many it moved.
fn obey(state: &mut State) -> usize {
    let moves = moving(state);
    let volume = state.volume_named("v").unwrap();
    let done = moves.iter().filter(|one| {
        let chunks = &state.volume(one.volume).unwrap().chunks;
        let found = chunks.iter().find(|(_, c)| c.replicas.iter().any(|r| r.replica == one.replica));
        let (index, chunk) = found.map(|(i, c)| (*i, c.clone())).expect("it is in a chunk");
        let info = ChunkInfo { index, chunk: chunk.id, config: chunk.config, replicas: chunk.replicas };
        let grown = change(state, "v", volume.epoch, &[(&info, &[], 1)]).unwrap();
        if grown.chunks[0].replicas.len() == info.replicas.len() {
            return false;
        }
        let shrunk = change(state, "v", volume.epoch, &[(&grown.chunks[0], &[one.replica], 0)]).unwrap();
        shrunk.chunks[0].replicas.len() == 3
    });
    done.count()
}

#[test]
fn copies_go_where_the_plan_says_a_few_at_a_time() {
    let (mut state, chunks) = uneven();
    let moves: Vec<PlannedMove> =
        chunks.iter().take(30).enumerate().map(|(i, c)| to_fourth(c, 1 + i as u32 % 3)).collect();
    let status = start(&mut state, moves).unwrap();
    assert_eq!((status.state, status.moves, status.bytes), (RebalanceState::Running, 30, 30 << 20));
    assert_eq!(moving(&state).len(), 2, "two at a time to one disk");
    let again = start(&mut state, vec![to_fourth(&chunks[35], 2)]).expect_err("one at a time");
    assert!(again.detail.contains("rebalance cancel"), "{again}");
    let mut rounds = 0;
    while !moving(&state).is_empty() {
        assert!(obey(&mut state) > 0);
        rounds += 1;
        state.check().unwrap();
    }
    let status = state.rebalance_status();
    assert_eq!((status.state, status.done, status.done_bytes, status.skipped), (RebalanceState::Done, 30, 30 << 20, 0));
    assert!(rounds >= 15);
    assert_eq!(state.disk(DiskId(4)).unwrap().live(), 30);
}

#[test]
fn it_can_be_cancelled_at_any_moment_and_started_again() {
    let (mut state, chunks) = uneven();
    let moves: Vec<PlannedMove> = chunks.iter().take(9).map(|c| to_fourth(c, 2)).collect();
    start(&mut state, moves.clone()).unwrap();
    obey(&mut state);
    let before = state.intent_revision(NodeId(1));
    state.apply(&Command::CancelRebalance).unwrap();
    assert!(moving(&state).is_empty() && state.intent_revision(NodeId(1)) > before);
    assert_eq!(state.rebalance_status().state, RebalanceState::Cancelled);
    // Those that have moved already are not where the plan says: they are left alone.
    start(&mut state, moves).unwrap();
    while !moving(&state).is_empty() {
        obey(&mut state);
    }
    let status = state.rebalance_status();
    assert_eq!((status.state, status.done, status.skipped), (RebalanceState::Done, 7, 2));
}

#[test]
fn a_target_that_fails_and_a_copy_that_goes_end_their_moves() {
    let (mut state, chunks) = uneven();
    let moves: Vec<PlannedMove> = chunks.iter().take(5).map(|c| to_fourth(c, 3)).collect();
    start(&mut state, moves).unwrap();
    let dead = Command::SetDisk { disk: DiskId(4), state: DiskState::Dead, reason: None, by: Decider::Failure };
    state.apply(&dead).unwrap();
    state.check().unwrap();
    let status = state.rebalance_status();
    assert_eq!((status.state, status.done, status.skipped), (RebalanceState::Done, 0, 5));
    assert!(moving(&state).is_empty());

    let (mut state, chunks) = uneven();
    start(&mut state, vec![to_fourth(&chunks[0], 3)]).unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    assert_eq!(state.moving_volumes().len(), 1, "whoever serves it next moves it");
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    let status = state.rebalance_status();
    assert_eq!((status.state, status.done, status.skipped), (RebalanceState::Done, 0, 1));
}

#[test]
fn nothing_moves_that_would_bring_copies_closer_to_each_other() {
    let mut state = State::default();
    state.apply(&Command::Found { cluster: CLUSTER }).unwrap();
    for (i, zone) in (1..).zip(["a", "b", "c", "a"]) {
        let mut node = node_named(&format!("n{i}"), 100 + i, &[(1000 + i, 100)]);
        node.zone = Some(zone.into());
        register(&mut state, &node).unwrap();
    }
    create(&mut state, "v", 1 << 40, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    let chunk = allocate(&mut state, "v", epoch, &[0]).unwrap().remove(0);
    start(&mut state, vec![to_fourth(&chunk, 2)]).unwrap();
    let status = state.rebalance_status();
    assert_eq!((status.state, status.skipped), (RebalanceState::Done, 1), "zone a would have two");
    start(&mut state, vec![to_fourth(&chunk, 1)]).unwrap();
    assert_eq!(obey(&mut state), 1, "within zone a");
}
