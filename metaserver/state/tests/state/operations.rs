//! Draining and removing nodes and disks, maintenance, events, and what would happen if.

use crate::common::*;
use levee_meta_state::{Answer, Command, State, Surroundings};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeMap;

fn busy() -> (State, Vec<ChunkInfo>) {
    let mut state = cluster(&[100, 100, 100, 100]);
    create(&mut state, "v", 1 << 40, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    let chunks = allocate(&mut state, "v", epoch, &[0, 1, 2, 3, 4, 5]).unwrap();
    (state, chunks)
}

fn drain(state: &mut State, node: u32, drain: bool) {
    let request = SetNodeState { drain, reason: Some("new mainboard".into()) };
    state.apply(&Command::SetNode { node: NodeId(node), request }).expect("a node");
}

fn refused(state: &mut State, command: &Command, words: &str) {
    let problem = state.apply(command).expect_err("refused");
    assert!(problem.detail.contains(words), "{problem}");
}

/// Every copy on the disk goes elsewhere, as gateways do it for disks that are lost.
fn replace_all(state: &mut State, disk: u32) {
    let volume = state.volume_named("v").unwrap();
    let chunks = state.volume(volume.id).unwrap().chunks.clone();
    for (index, chunk) in chunks {
        let Some(gone) = chunk.replicas.iter().find(|r| r.disk == DiskId(disk)).copied() else { continue };
        let info = ChunkInfo { index, chunk: chunk.id, config: chunk.config, replicas: chunk.replicas };
        let changed = change(state, "v", volume.epoch, &[(&info, &[gone.replica], 1)]).unwrap();
        assert_eq!(changed.refused, None);
    }
}

#[test]
fn a_drained_node_is_emptied_and_takes_nothing_new() {
    let (mut state, _) = busy();
    drain(&mut state, 2, true);
    assert_eq!(state.disk(DiskId(2)).unwrap().state(), DiskState::Draining);
    create(&mut state, "w", 1 << 30, 3).unwrap();
    let command = Command::Attach { name: "w".into(), node: Some("n2".into()), alive: everyone(&state) };
    refused(&mut state, &command, "being emptied");
    attach(&mut state, "w", None).unwrap();
    assert_ne!(attachment(&state, "w").node, NodeId(2));
    // A disk that it brings along now is not filled either.
    register(&mut state, &node_named("n2", 102, &[(1002, 100), (1902, 100)])).unwrap();
    assert_eq!(state.disk(DiskId(5)).unwrap().state(), DiskState::Draining);
    drain(&mut state, 2, false);
    assert_eq!(state.disk(DiskId(2)).unwrap().state(), DiskState::InService);
    assert_eq!(state.disk(DiskId(5)).unwrap().state(), DiskState::InService);
    state.check().unwrap();
}

#[test]
fn a_disk_leaves_when_it_is_empty_and_stays_out() {
    let (mut state, _) = busy();
    let remove = |disk, force| Command::RemoveDisk { disk: DiskId(disk), force };
    refused(&mut state, &remove(2, false), "empty it first with `levee disk drain 2`");
    state.apply(&remove(2, true)).unwrap();
    assert_eq!(state.disk(DiskId(2)).unwrap().state(), DiskState::Dead, "its copies are made anew first");
    replace_all(&mut state, 2);
    assert!(state.disk(DiskId(2)).is_none());
    state.check().unwrap();
    let back = node_named("n2", 102, &[(1002, 100)]);
    refused(&mut state, &Command::RegisterNode(back.clone()), "format it again");
    let mut willing = RegisterNode { leave_out_removed: true, ..back };
    refused(&mut state, &Command::RegisterNode(willing.clone()), "format it again");
    willing.disks.extend(node_named("n2", 102, &[(1702, 100)]).disks);
    let taken = register(&mut state, &willing).expect("the other disk is welcome");
    assert_eq!((taken.disks.len(), taken.removed), (1, vec![willing.disks[0].uuid]));
    state.check().unwrap();
    register(&mut state, &node_named("n2", 102, &[(1802, 100)])).expect("another disk is welcome");
    state.apply(&remove(5, false)).expect("an empty disk leaves at once");
    state.check().unwrap();
}

#[test]
fn a_node_leaves_with_its_disks() {
    let (mut state, _) = busy();
    let remove = |node, force| Command::RemoveNode { node: NodeId(node), force };
    refused(&mut state, &remove(1, true), "serves 1 volumes");
    refused(&mut state, &remove(3, false), "levee node drain n3");
    state.apply(&remove(3, true)).unwrap();
    let info = state.nodes_after(NodeId(2), 1).remove(0);
    assert!(info.removed && info.name == "n3");
    refused(&mut state, &Command::RegisterNode(node_named("n3", 103, &[(1003, 100)])), "was removed");
    replace_all(&mut state, 3);
    assert!(state.node(NodeId(3)).is_none() && state.disk(DiskId(3)).is_none());
    let texts: Vec<String> = state.events_after(0, 99).events.into_iter().map(|e| e.text).collect();
    assert!(texts.iter().any(|t| t == "has left the cluster"), "{texts:?}");
    state.check().unwrap();
    // Its name is free again, for a machine with other disks.
    register(&mut state, &node_named("n3", 999, &[(1903, 100)])).unwrap();
    state.check().unwrap();
}

#[test]
fn maintenance_ends_by_itself() {
    let (mut state, _) = busy();
    state.set_clock(1_000_000);
    let start = |node: Option<&str>, seconds| {
        Command::StartMaintenance(StartMaintenance { node: node.map(Into::into), seconds, reason: None })
    };
    state.apply(&start(Some("n2"), 60)).unwrap();
    assert!(state.node_is_maintained(NodeId(2), 1_059_999) && !state.node_is_maintained(NodeId(3), 1_059_999));
    assert!(!state.node_is_maintained(NodeId(2), 1_060_000));
    state.apply(&start(None, 10)).unwrap();
    assert!(state.is_maintained(1_009_999) && state.node_is_maintained(NodeId(3), 1_009_999));
    assert_eq!(state.maintenance(1_000_001).windows.len(), 2);
    state.apply(&Command::EndMaintenance { node: None }).unwrap();
    assert_eq!(state.maintenance(1_000_001).windows.len(), 1);
    refused(&mut state, &start(Some("nobody"), 10), "no node named");
    refused(&mut state, &start(None, MAX_MAINTENANCE_S + 1), "are allowed");
    refused(&mut state, &start(None, 0), "are allowed");
}

#[test]
fn events_are_numbered_without_gaps_and_the_oldest_are_forgotten() {
    let (mut state, _) = busy();
    let all = state.events_after(0, 1000);
    assert!(all.events.iter().map(|e| e.seq).eq(1..=all.newest), "{all:?}");
    assert!(all.events.iter().any(|e| (e.kind, e.subject.as_str()) == (EventKind::Volume, "v")));
    let page = state.events_after(2, 3);
    assert_eq!((page.events[0].seq, page.next, page.events.len()), (3, 5, 3));
    let last = state.events_after(all.newest, 10);
    assert_eq!((last.events.len(), last.next), (0, all.newest));
    for i in 0..levee_meta_state::limits::MAX_EVENTS {
        create(&mut state, &format!("x{i}"), 1 << 20, 1).unwrap();
    }
    let old = state.events_after(0, 1);
    assert_eq!(old.oldest, old.events[0].seq);
    assert_eq!(old.newest - old.oldest + 1, levee_meta_state::limits::MAX_EVENTS as u64);
    assert_eq!(state.events_after(u64::MAX, 5).events, []);
}

#[test]
fn what_would_happen_is_told_and_does_not() {
    let (state, chunks) = busy();
    let before = state.clone();
    let used: BTreeMap<DiskId, u64> = state.disks().map(|(id, disk)| (id, disk.live() << 20)).collect();
    let around = |state: &State| Surroundings { alive: everyone(state), full: Default::default(), used: used.clone() };
    let ask = |state: &State, nodes: &[&str], disks: &[u32]| {
        let nodes = nodes.iter().map(|n| n.to_string()).collect();
        let disks = disks.iter().map(|d| DiskId(*d)).collect();
        state.freeze().what_if(&WhatIf { nodes, disks }, &around(state))
    };
    let forecast = ask(&state, &["n2"], &[]).unwrap();
    let held = chunks.iter().filter(|c| c.replicas.iter().any(|r| r.disk == DiskId(2))).count() as u64;
    assert_eq!((forecast.copies, forecast.bytes, forecast.homeless), (held, held << 20, 0), "{forecast:?}");
    let moved: i64 = forecast.disks.iter().map(|d| d.after as i64 - d.before as i64).sum();
    assert_eq!(moved, 0, "what leaves arrives: {forecast:?}");
    let two = ask(&state, &["n2"], &[3]).unwrap();
    assert!(two.homeless > 0 && two.unwritable == 0 && two.verdict.contains("add disks"), "{two:?}");
    let three = ask(&state, &["n2", "n4"], &[3]).unwrap();
    assert!(three.unwritable > 0, "{three:?}");
    assert!(ask(&state, &["nobody"], &[]).is_err() && ask(&state, &[], &[99]).is_err());
    assert_eq!(state, before);
}

#[test]
fn a_decision_is_answered_with_what_it_came_to() {
    let (mut state, _) = busy();
    let request = SetNodeState { drain: true, reason: None };
    let answer = state.apply(&Command::SetNode { node: NodeId(2), request }).unwrap();
    assert!(matches!(answer, Answer::Node(NodeInfo { draining: true, .. })), "{answer:?}");
    refused(&mut state, &Command::SetDiskWeight { disk: DiskId(77), weight: 1 }, "no disk 77");
    refused(&mut state, &Command::RemoveNode { node: NodeId(77), force: true }, "no node 77");
}
