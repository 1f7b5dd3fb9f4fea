//! The rules of repair: disks out of service, changes of replica sets, volumes repaired while nobody uses them.

use crate::common::*;
use levee_meta_state::{Command, Decider, State};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeSet;

const GIB: u64 = 1 << 30;

/// Node `n<i>` with disks `10 * i` and `10 * i + 1`, ids in that order; `v` with three copies, opened on n1.
fn two_disks_each(nodes: u64) -> (State, Epoch) {
    let mut state = cluster(&[]);
    for i in 1..=nodes {
        register(&mut state, &node_named(&format!("n{i}"), 100 + i, &[(10 * i, 20), (10 * i + 1, 20)])).unwrap();
    }
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    (state, epoch)
}

fn one_chunk(state: &mut State, epoch: Epoch) -> ChunkInfo {
    allocate(state, "v", epoch, &[0]).unwrap().remove(0)
}

fn nodes(chunk: &ChunkInfo) -> BTreeSet<u32> {
    chunk.replicas.iter().map(|r| r.node.0).collect()
}

fn ids(nodes: &[u32]) -> BTreeSet<NodeId> {
    nodes.iter().map(|n| NodeId(*n)).collect()
}

fn detach(state: &mut State) {
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
}

#[test]
fn a_dead_member_is_replaced_in_one_change() {
    let (mut state, epoch) = two_disks_each(4);
    let chunk = one_chunk(&mut state, epoch);
    let (dead, kept) = (chunk.replicas[1], [chunk.replicas[0], chunk.replicas[2]]);
    let revision = state.intent_revision(dead.node).unwrap();
    let before = state.disk(dead.disk).unwrap().live();

    let changed = change(&mut state, "v", epoch, &[(&chunk, &[dead.replica], 1)]).unwrap();
    assert_eq!(changed.refused, None);
    let now = &changed.chunks[0];
    assert_eq!((now.config, &now.replicas[..2]), (ConfigNo(2), &kept[..]));
    assert_eq!(now.replicas.len(), 3);
    let free = (1..=4).find(|n| !nodes(&chunk).contains(n)).unwrap();
    assert_eq!(now.replicas[2].node.0, free, "the node that had no member");

    let gone = ReplicaRef { disk: dead.disk, chunk: chunk.chunk, replica: dead.replica };
    assert_eq!(state.disk(dead.disk).unwrap().live(), before - 1);
    let intent = state.intent(dead.node).unwrap();
    assert!(intent.deletes == [gone] && intent.revision > revision, "{intent:?}");

    let again = change(&mut state, "v", epoch, &[(&chunk, &[dead.replica], 1)]).unwrap();
    assert_eq!(again, changed, "a change of an earlier set changes nothing and says what is");
    assert_eq!(open(&mut state, "v", 101).unwrap().chunks, changed.chunks);
}

#[test]
fn a_chunk_without_data_is_given_back_once() {
    let (mut state, epoch) = two_disks_each(3);
    let chunk = one_chunk(&mut state, epoch);
    let all: Vec<ReplicaId> = chunk.replicas.iter().map(|r| r.replica).collect();
    let freed = change(&mut state, "v", epoch, &[(&chunk, &all, 0)]).unwrap();
    assert_eq!((freed.chunks.len(), &freed.refused), (0, &None));
    for place in &chunk.replicas {
        assert_eq!(state.disk(place.disk).unwrap().live(), 0);
        assert_eq!(state.intent(place.node).unwrap().deletes.len(), 1);
    }
    assert_eq!(change(&mut state, "v", epoch, &[(&chunk, &all, 0)]).unwrap(), freed, "asked again");

    let next = one_chunk(&mut state, epoch);
    assert!(next.chunk > chunk.chunk && next.config == chunk.config);
    let late = change(&mut state, "v", epoch, &[(&chunk, &all, 0)]).unwrap();
    assert_eq!(late.chunks, [next], "a late repetition does not free what took its place");
}

#[test]
fn while_nodes_are_out_of_service_chunks_begin_with_fewer_copies() {
    let (mut state, epoch) = two_disks_each(3);
    let chunk = one_chunk(&mut state, epoch);
    let lost = chunk.replicas[2].node;
    let disks: Vec<DiskId> = state.node(lost).unwrap().disks.iter().copied().collect();
    let set = |state: &mut State, disk: DiskId, to: DiskState| {
        state.apply(&Command::SetDisk { disk, state: to, reason: None, by: Decider::Operator }).unwrap();
    };
    disks.iter().for_each(|d| set(&mut state, *d, DiskState::Dead));
    let short = allocate(&mut state, "v", epoch, &[1]).unwrap().remove(0);
    assert_eq!(short.replicas.len(), 2);
    let refused = change(&mut state, "v", epoch, &[(&short, &[], 1)]).unwrap();
    assert!(refused.refused.is_some() && refused.chunks == [short.clone()]);
    // Below what a write waits for, nothing is allocated.
    let second = short.replicas[1].node;
    let more: Vec<DiskId> = state.node(second).unwrap().disks.iter().copied().collect();
    more.iter().for_each(|d| set(&mut state, *d, DiskState::Draining));
    assert_eq!(allocate(&mut state, "v", epoch, &[2]).unwrap_err().kind, ProblemKind::NoSpace);

    disks.iter().for_each(|d| set(&mut state, *d, DiskState::InService));
    let whole = change(&mut state, "v", epoch, &[(&short, &[], 1)]).unwrap();
    assert_eq!(whole.chunks[0].replicas.len(), 3);
}

#[test]
fn only_the_gateway_of_the_present_epoch_changes_sets() {
    let (mut state, epoch) = two_disks_each(4);
    let chunk = one_chunk(&mut state, epoch);
    let attempt: (&ChunkInfo, &[ReplicaId], u8) = (&chunk, &[chunk.replicas[0].replica], 1);
    for wrong in [Epoch(0), Epoch(2)] {
        assert_eq!(change(&mut state, "v", wrong, &[attempt]).unwrap_err().kind, ProblemKind::Fenced);
    }
    assert_eq!(change(&mut state, "v", epoch, &[attempt, attempt]).unwrap_err().kind, ProblemKind::Invalid);
    assert_eq!(change(&mut state, "v", epoch, &[]).unwrap().chunks, [], "whether the epoch is the newest");
    assert_eq!(change(&mut state, "v", Epoch(0), &[]).unwrap_err().kind, ProblemKind::Fenced);
    let unknown = ChunkInfo { index: 5, ..chunk.clone() };
    let none = change(&mut state, "v", epoch, &[attempt, (&unknown, &[], 1)]).unwrap_err();
    assert_eq!(none.kind, ProblemKind::NotFound);
    detach(&mut state);
    attach(&mut state, "v", Some("n1")).unwrap();
    let not_open = change(&mut state, "v", epoch, &[attempt]).unwrap_err();
    assert_eq!(not_open.kind, ProblemKind::Fenced, "the new attachment is not open");
    assert_eq!(open(&mut state, "v", 101).unwrap().chunks, [chunk]);
}

#[test]
fn what_makes_no_sense_is_refused_by_itself() {
    let (mut state, epoch) = two_disks_each(4);
    let chunks = allocate(&mut state, "v", epoch, &[0, 1]).unwrap();
    let (sick, well) = (&chunks[0], &chunks[1]);
    let all: Vec<ReplicaId> = sick.replicas.iter().map(|r| r.replica).collect();
    let before = state.clone();
    for (remove, add, why) in [
        (&all[..0], 0, "nothing"),
        (&all[..1], 0, "2 members"),
        (&all[..0], 2, "5 members"),
        (&all[..], 3, "all members"),
        (&[well.replicas[0].replica], 1, "not a member"),
    ] {
        let answer = change(&mut state, "v", epoch, &[(sick, remove, add)]).unwrap();
        assert!(answer.refused.as_ref().is_some_and(|r| r.contains(why) && r.contains("chunk 0")), "{answer:?}");
        assert_eq!((&answer.chunks[0], &state), (sick, &before));
    }
    // The others are made all the same.
    let both = change(&mut state, "v", epoch, &[(sick, &all, 3), (well, &[well.replicas[0].replica], 1)]).unwrap();
    assert!(both.refused.is_some() && both.chunks[0] == *sick && both.chunks[1].config == ConfigNo(2));
}

#[test]
fn newcomers_go_to_live_nodes_with_disks_in_service() {
    let (mut state, epoch) = two_disks_each(6);
    let chunk = one_chunk(&mut state, epoch);
    let free: Vec<u32> = (1..=6).filter(|n| !nodes(&chunk).contains(n)).collect();
    // Of the three free nodes one is down, one has a draining and a dead disk.
    for (disk, to) in [(2 * free[0] - 1, DiskState::Draining), (2 * free[0], DiskState::Dead)] {
        set_disk(&mut state, disk, to, Decider::Operator);
    }
    let alive: BTreeSet<NodeId> = everyone(&state).into_iter().filter(|n| n.0 != free[1]).collect();
    let first = &chunk.replicas[0];
    let to_one: (&ChunkInfo, &[ReplicaId], u8) = (&chunk, &[first.replica], 1);
    let changed = change_alive(&mut state, "v", epoch, &[to_one], alive.clone()).unwrap();
    assert_eq!(changed.chunks[0].replicas[2].node.0, free[2]);

    // Its node takes another one, on the other disk: the replica on this one is not deleted yet.
    let chunk = &changed.chunks[0];
    let changed = change_alive(&mut state, "v", epoch, &[(chunk, &[], 1)], alive.clone()).unwrap();
    let back = changed.chunks[0].replicas[3];
    assert!(back.node == first.node && back.disk != first.disk, "{back:?}");

    let chunk = &changed.chunks[0];
    let two = [chunk.replicas[0].replica, chunk.replicas[1].replica];
    let one_place = change_alive(&mut state, "v", epoch, &[(chunk, &two, 2)], ids(&[free[2]])).unwrap();
    assert!(one_place.refused.unwrap().contains("room"), "all of a change or nothing");
    assert_eq!(one_place.chunks[0], *chunk);
}

#[test]
fn a_disk_is_drained_where_every_node_has_a_copy() {
    let (mut state, epoch) = two_disks_each(3);
    let chunk = one_chunk(&mut state, epoch);
    let leaving = chunk.replicas[1];
    let refused = change(&mut state, "v", epoch, &[(&chunk, &[], 1)]).unwrap();
    assert!(refused.refused.is_some(), "no node is without a member");

    set_disk(&mut state, leaving.disk.0, DiskState::Draining, Decider::Operator);
    let evacuate = EvacuateDisk { disk: leaving.disk, state: DiskState::Draining };
    assert_eq!(state.intent(NodeId(3)).unwrap().evacuate, [evacuate]);
    let wider = change(&mut state, "v", epoch, &[(&chunk, &[], 1)]).unwrap().chunks.remove(0);
    assert_eq!((wider.replicas.len(), wider.replicas[3].node), (4, leaving.node));
    assert_ne!(wider.replicas[3].disk, leaving.disk);
    let again = change(&mut state, "v", epoch, &[(&wider, &[], 1)]).unwrap();
    assert!(again.refused.unwrap().contains("5 members"));
    let other = [wider.replicas[0].replica];
    let wrong = change(&mut state, "v", epoch, &[(&wider, &other, 0)]).unwrap();
    assert!(wrong.refused.unwrap().contains("on one node"), "the drained one is the one to leave");

    let done = change(&mut state, "v", epoch, &[(&wider, &[leaving.replica], 0)]).unwrap();
    assert_eq!((done.chunks[0].config, nodes(&done.chunks[0]).len()), (ConfigNo(3), 3));
    assert_eq!(state.intent(NodeId(3)).unwrap().evacuate, [], "nothing is left on it");
}

#[test]
fn the_strongest_word_about_a_disk_stands() {
    use Decider::*;
    use DiskState::*;
    let mut state = cluster(&[10, 10]);
    let reason = |d: &DiskInfo| d.reason.clone();
    assert_eq!(set_disk(&mut state, 1, Dead, Silence).state, Dead);
    assert_eq!(set_disk(&mut state, 1, InService, Silence).state, InService, "it is heard of again");
    set_disk(&mut state, 1, Dead, Silence);
    assert_eq!(reason(&set_disk(&mut state, 1, Dead, Failure)).unwrap(), "Failure");
    assert_eq!(reason(&set_disk(&mut state, 1, Dead, Silence)).unwrap(), "Failure");
    assert_eq!(set_disk(&mut state, 1, InService, Silence).state, Dead, "hearing of it does not mend it");
    assert_eq!(set_disk(&mut state, 1, InService, Operator).state, InService);

    assert_eq!(set_disk(&mut state, 1, Draining, Operator).state, Draining);
    set_disk(&mut state, 1, Dead, Silence);
    assert_eq!(set_disk(&mut state, 1, InService, Silence).state, Draining, "it is drained on");
    assert_eq!(set_disk(&mut state, 1, InService, Operator).state, InService);
    set_disk(&mut state, 1, Dead, Operator);
    assert_eq!(set_disk(&mut state, 1, InService, Failure).state, Dead, "an operator's word stands");

    let set =
        |disk, state, reason: &str, by| Command::SetDisk { disk: DiskId(disk), state, reason: Some(reason.into()), by };
    assert_eq!(kind(state.apply(&set(9, Dead, "", Operator))), ProblemKind::NotFound);
    assert_eq!(kind(state.apply(&set(1, Draining, "", Silence))), ProblemKind::Invalid);
    assert_eq!(kind(state.apply(&set(1, Dead, "two\nlines", Operator))), ProblemKind::Invalid);
    let again: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!(again, state);
}

#[test]
fn nothing_new_is_placed_on_a_disk_out_of_service() {
    let (mut state, epoch) = two_disks_each(3);
    set_disk(&mut state, 1, DiskState::Draining, Decider::Operator);
    for chunk in allocate(&mut state, "v", epoch, &[0, 1, 2, 3]).unwrap() {
        assert!(chunk.replicas.iter().all(|r| r.disk != DiskId(1)), "{chunk:?}");
    }
    set_disk(&mut state, 2, DiskState::Dead, Decider::Operator);
    let short = allocate(&mut state, "v", epoch, &[4]).unwrap().remove(0);
    assert!(short.replicas.len() == 2 && short.replicas.iter().all(|r| r.node != NodeId(1)), "{short:?}");
    assert_eq!(kind(create(&mut state, "w", GIB, 3)), ProblemKind::NoSpace, "a node without a disk in service");
}

#[test]
fn a_dead_disk_keeps_up_no_deletions() {
    let mut state = cluster(&[]);
    let many = 2 * levee_meta_state::limits::MAX_DELETES as u64;
    register(&mut state, &node_named("n1", 101, &[(1, many), (2, many)])).unwrap();
    create(&mut state, "v", many * CHUNK_SIZE, 1).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    for first in (0..1500).step_by(250) {
        allocate(&mut state, "v", epoch, &(first..first + 250).collect::<Vec<_>>()).unwrap();
    }
    detach(&mut state);
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    set_disk(&mut state, 1, DiskState::Dead, Decider::Failure);
    let page = state.intent(NodeId(1)).unwrap().deletes;
    assert!(page.len() == 1000 && page[..750].iter().all(|r| r.disk == DiskId(2)), "working disks come first");
    assert_eq!(state.intent(NodeId(1)).unwrap().evacuate, [], "there is nothing to save");
}

#[test]
fn a_volume_is_repaired_while_nobody_uses_it() {
    let (mut state, epoch) = two_disks_each(4);
    let chunk = one_chunk(&mut state, epoch);
    let id = state.volume_named("v").unwrap().id;
    let repair = Command::AttachRepair { volume: id, node: NodeId(2) };
    assert_eq!(kind(state.apply(&repair)), ProblemKind::Conflict, "somebody uses it");
    detach(&mut state);
    assert_eq!(state.scan_for_repair(VolumeId(0), 100).volumes, []);
    set_disk(&mut state, chunk.replicas[0].disk.0, DiskState::Dead, Decider::Silence);
    assert_eq!(state.scan_for_repair(VolumeId(0), 100).volumes, [id]);

    state.apply(&repair).unwrap();
    let at = attachment(&state, "v");
    assert!(at.repair && state.intent(NodeId(2)).unwrap().attach[0].repair);
    assert_eq!(state.repairs().map(|(id, a)| (id, a.node)).collect::<Vec<_>>(), [(id, NodeId(2))]);
    assert_eq!(state.scan_for_repair(VolumeId(0), 100).volumes, [], "it is being repaired");
    let epoch = open(&mut state, "v", 102).unwrap().epoch;
    change(&mut state, "v", epoch, &[(&chunk, &[chunk.replicas[0].replica], 1)]).unwrap();

    // To users it is detached.
    detach(&mut state);
    assert_eq!(attachment(&state, "v"), at);
    attach(&mut state, "v", Some("n3")).unwrap();
    let user = attachment(&state, "v");
    assert!(!user.repair && user.node == NodeId(3) && state.intent(NodeId(2)).unwrap().attach.is_empty());
    assert_eq!(change(&mut state, "v", epoch, &[(&chunk, &[], 1)]).unwrap_err().kind, ProblemKind::Fenced);
    state.apply(&Command::DetachRepair { volume: id, attachment: at.attachment }).unwrap();
    state.apply(&Command::DetachRepair { volume: id, attachment: user.attachment }).unwrap();
    assert_eq!(attachment(&state, "v"), user, "only a repair is ended");

    detach(&mut state);
    state.apply(&repair).unwrap();
    state.check().unwrap();
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    state.check().unwrap();
    assert_eq!(state.repairs().count(), 0);
}

#[test]
fn a_search_for_volumes_to_repair_is_done_in_stretches() {
    let mut state = cluster(&[40, 40]);
    for i in 0..4 {
        let name = format!("v{i}");
        create(&mut state, &name, GIB, 1).unwrap();
        attach(&mut state, &name, Some("n1")).unwrap();
        let epoch = open(&mut state, &name, 101).unwrap().epoch;
        allocate(&mut state, &name, epoch, &[0, 1, 2]).unwrap();
        state.apply(&Command::Detach { name }).unwrap();
    }
    set_disk(&mut state, 1, DiskState::Draining, Decider::Operator);
    let (mut found, mut after, mut stretches) = (Vec::new(), Some(VolumeId(0)), 0);
    while let Some(at) = after {
        let scan = state.scan_for_repair(at, 5);
        found.extend(scan.volumes);
        (after, stretches) = (scan.next, stretches + 1);
    }
    assert_eq!((found.len(), stretches), (4, 2));
}

#[test]
fn a_disk_that_its_node_did_not_bring_is_absent() {
    let mut state = cluster(&[10, 10]);
    assert_eq!(state.absent_disks(), BTreeSet::new());
    register(&mut state, &node_named("n1", 101, &[])).unwrap();
    assert_eq!(state.absent_disks(), BTreeSet::from([DiskId(1)]));
}

#[test]
fn the_rate_of_background_work_is_told_to_all() {
    let mut state = cluster(&[10, 10]);
    let set = |rate| Command::SetBackgroundRate { rate };
    let before = state.intent(NodeId(2)).unwrap();
    state.apply(&set(Some(1000))).unwrap();
    let told = state.intent(NodeId(2)).unwrap();
    assert!(told.background_rate == Some(1000) && told.revision > before.revision);
    state.apply(&set(Some(1000))).unwrap();
    assert_eq!(state.intent(NodeId(2)).unwrap(), told);
}
