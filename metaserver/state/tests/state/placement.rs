//! Where copies go: zones, racks, classes, weights, groups, reserves.

use crate::common::*;
use levee_meta_state::{Command, State};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::{BTreeMap, BTreeSet};

struct Host {
    zone: Option<&'static str>,
    rack: Option<&'static str>,
    class: DiskClass,
    chunks: u64,
}

fn host(zone: &'static str, rack: &'static str) -> Host {
    Host { zone: Some(zone), rack: Some(rack), class: DiskClass::Ssd, chunks: 10_000 }
}

/// Node `n<i>` with disk `i`.
fn join(state: &mut State, i: u64, host: &Host) {
    let mut node = node_named(&format!("n{i}"), 100 + i, &[(1000 + i, host.chunks)]);
    (node.zone, node.rack) = (host.zone.map(Into::into), host.rack.map(Into::into));
    node.disks[0].class = host.class;
    register(state, &node).expect("registered");
}

fn build(hosts: &[Host]) -> State {
    let mut state = State::default();
    state.apply(&Command::Found { cluster: CLUSTER }).unwrap();
    (1..).zip(hosts).for_each(|(i, host)| join(&mut state, i, host));
    state
}

fn set(state: &mut State, change: ChangePlacement) {
    state.apply(&Command::SetPlacement(change)).expect("a policy");
}

/// A volume served by node `n<node>`, with so many chunks.
fn filled(state: &mut State, name: &str, class: Option<DiskClass>, node: u64, chunks: u32) -> Vec<ChunkInfo> {
    let create = CreateVolume { name: name.into(), size: 1 << 44, copies: 3, min_copies: 2, class };
    state.apply(&Command::CreateVolume(create)).expect("created");
    attach(state, name, Some(&format!("n{node}"))).expect("attached");
    let epoch = open(state, name, 100 + node).expect("opened").epoch;
    let indexes: Vec<u32> = (0..chunks).collect();
    let placed = indexes.chunks(256).flat_map(|some| allocate(state, name, epoch, some).expect("placed")).collect();
    state.check().expect("sound");
    placed
}

fn nodes(chunk: &ChunkInfo) -> BTreeSet<NodeId> {
    chunk.replicas.iter().map(|r| r.node).collect()
}

fn per_disk(chunks: &[ChunkInfo]) -> BTreeMap<DiskId, usize> {
    let mut count = BTreeMap::new();
    chunks.iter().flat_map(|c| &c.replicas).for_each(|r| *count.entry(r.disk).or_default() += 1);
    count
}

#[test]
fn copies_are_in_distinct_zones_and_where_there_are_too_few_in_distinct_racks() {
    let zones = ["a", "a", "b", "b", "c", "c"];
    let racks = ["r1", "r2", "r1", "r2", "r1", "r2"];
    let three: Vec<Host> = zones.iter().zip(racks).map(|(z, r)| host(z, r)).collect();
    let mut state = build(&three);
    let zone = |node: NodeId| zones[node.0 as usize - 1];
    for chunk in filled(&mut state, "v", None, 1, 500) {
        let zones: BTreeSet<&str> = nodes(&chunk).into_iter().map(zone).collect();
        assert_eq!(zones.len(), 3, "{chunk:?}");
    }
    let two: Vec<Host> =
        ["a", "a", "a", "b", "b", "b"].iter().zip(["1", "1", "2", "1", "1", "2"]).map(|(z, r)| host(z, r)).collect();
    let mut state = build(&two);
    for chunk in filled(&mut state, "v", None, 2, 500) {
        let state = &state;
        let place = |node: NodeId| state.node(node).map(|n| (n.zone.clone(), n.rack.clone())).expect("a node");
        let racks: BTreeSet<_> = nodes(&chunk).into_iter().map(place).collect();
        let zones: BTreeSet<_> = racks.iter().map(|(zone, _)| zone.clone()).collect();
        assert_eq!((zones.len(), racks.len()), (2, 3), "{chunk:?}");
    }
}

#[test]
fn a_newcomer_goes_to_the_zone_that_lost_its_copy() {
    let mut state =
        build(&[host("a", "1"), host("b", "1"), host("c", "1"), host("a", "2"), host("b", "2"), host("c", "2")]);
    let chunks = filled(&mut state, "v", None, 1, 6);
    let epoch = state.volume_named("v").unwrap().epoch;
    for chunk in &chunks {
        let gone = chunk.replicas[1];
        let lost = state.node(gone.node).unwrap().zone.clone();
        state
            .apply(&Command::SetDisk {
                disk: gone.disk,
                state: DiskState::Dead,
                reason: None,
                by: levee_meta_state::Decider::Operator,
            })
            .unwrap();
        let changed = change(&mut state, "v", epoch, &[(chunk, &[gone.replica], 1)]).unwrap();
        let new = changed.chunks[0].replicas.last().unwrap();
        assert_eq!(state.node(new.node).unwrap().zone, lost);
        state
            .apply(&Command::SetDisk {
                disk: gone.disk,
                state: DiskState::InService,
                reason: None,
                by: levee_meta_state::Decider::Operator,
            })
            .unwrap();
    }
}

#[test]
fn a_class_is_kept_to_and_its_lack_is_said() {
    let mut hosts: Vec<Host> = (0..4).map(|_| host("z", "r")).collect();
    hosts.extend((0..3).map(|_| Host { class: DiskClass::Hdd, ..host("z", "r") }));
    let mut state = build(&hosts);
    for (name, class, range) in [("fast", DiskClass::Ssd, 1..=4), ("slow", DiskClass::Hdd, 5..=7)] {
        let chunks = filled(&mut state, name, Some(class), 1, 50);
        assert!(per_disk(&chunks).keys().all(|disk| range.contains(&disk.0)), "{name}");
    }
    let create =
        CreateVolume { name: "x".into(), size: 1 << 30, copies: 4, min_copies: 2, class: Some(DiskClass::Hdd) };
    let problem = state.apply(&Command::CreateVolume(create)).expect_err("three nodes have such disks");
    assert!(problem.detail.contains("HDD disks in service, the cluster has 3"), "{problem}");
}

#[test]
fn disks_fill_by_size_and_weight() {
    let sized = |chunks| Host { zone: None, rack: None, class: DiskClass::Ssd, chunks };
    let mut state = build(&[sized(1000), sized(2000), sized(1000), sized(2000), sized(2000)]);
    state.apply(&Command::SetDiskWeight { disk: DiskId(5), weight: 50 }).unwrap();
    set(&mut state, ChangePlacement { local_copy: Some(false), ..Default::default() });
    let count = per_disk(&filled(&mut state, "v", None, 1, 700));
    let expected = [(1, 300), (2, 600), (3, 300), (4, 600), (5, 300)];
    for (disk, wanted) in expected {
        let got = count[&DiskId(disk)];
        assert!((wanted - 3..=wanted + 3).contains(&got), "disk {disk}: {got}, not {wanted}");
    }
    state.apply(&Command::SetDiskWeight { disk: DiskId(5), weight: 0 }).unwrap();
    let more = per_disk(&filled(&mut state, "w", None, 1, 100));
    assert_eq!(more.get(&DiskId(5)), None, "a disk of no weight gets nothing");
    let heavy = Command::SetDiskWeight { disk: DiskId(5), weight: MAX_WEIGHT + 1 };
    assert_eq!(state.apply(&heavy).expect_err("too much").kind, ProblemKind::Invalid);
}

#[test]
fn a_node_shares_chunks_with_no_more_others_than_it_is_to() {
    let hosts: Vec<Host> = ["a", "b", "c"].iter().cycle().take(12).map(|z| host(z, "r")).collect();
    let mut state = build(&hosts);
    set(&mut state, ChangePlacement { scatter_width: Some(5), ..Default::default() });
    let mut chunks: Vec<ChunkInfo> =
        (1..=12).flat_map(|n| filled(&mut state, &format!("v{n}"), None, n, 100)).collect();
    (13..=15).for_each(|i| join(&mut state, i, &host("a", "r")));
    // The groups were full: a new one took half of another, with which it shares nothing from now on.
    let before = partners(&chunks);
    assert!(before.values().all(|others| (2..=5).contains(&others.len())), "{before:?}");
    let groups: BTreeSet<Option<u32>> = state.nodes_after(NodeId(0), 99).into_iter().map(|n| n.group).collect();
    assert_eq!(groups.len(), 3);
    chunks = (13..=15).flat_map(|n| filled(&mut state, &format!("v{n}"), None, n, 100)).collect();
    assert!(partners(&chunks).values().all(|others| others.len() <= 5));
    assert!((13..=15).all(|n| partners(&chunks).contains_key(&NodeId(n))), "new nodes are used");
    let spread = |chunk: &ChunkInfo| {
        nodes(chunk).into_iter().map(|n| state.node(n).unwrap().zone.clone()).collect::<BTreeSet<_>>()
    };
    let mixed = chunks.iter().filter(|chunk| spread(chunk).len() >= 2).count();
    assert!(mixed > chunks.len() / 2, "groups are spread over zones");
}

fn partners(chunks: &[ChunkInfo]) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
    let mut partners: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
    for chunk in chunks {
        for node in nodes(chunk) {
            partners.entry(node).or_default().extend(nodes(chunk).into_iter().filter(|other| *other != node));
        }
    }
    partners
}

#[test]
fn what_is_kept_for_repairs_is_given_to_repairs_only_and_full_disks_get_nothing() {
    let mut state = cluster(&[100, 100, 100, 100]);
    set(&mut state, ChangePlacement { reserve_percent: Some(20), local_copy: Some(false), ..Default::default() });
    create(&mut state, "v", 1 << 40, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    let placed = allocate(&mut state, "v", epoch, &(0..105).collect::<Vec<_>>()).unwrap();
    let lost = placed[0].replicas[1];
    let dead =
        |state| Command::SetDisk { disk: lost.disk, state, reason: None, by: levee_meta_state::Decider::Operator };
    state.apply(&dead(DiskState::Dead)).unwrap();
    let mut repaired = 0;
    for chunk in placed.iter().filter(|c| c.replicas.iter().any(|r| r.disk == lost.disk)) {
        let gone = chunk.replicas.iter().find(|r| r.disk == lost.disk).unwrap().replica;
        let changed = change(&mut state, "v", epoch, &[(chunk, &[gone], 1)]).unwrap();
        repaired += usize::from(changed.refused.is_none());
    }
    assert!(repaired >= 50, "{repaired} copies found a place");
    let most = state.disks().filter(|(_, d)| d.state() == DiskState::InService).map(|(_, d)| d.placed).max();
    assert!(most > Some(80), "repairs take what is kept for them");
    state.apply(&dead(DiskState::InService)).unwrap();
    let problem = (105..200).find_map(|i| allocate(&mut state, "v", epoch, &[i]).err()).expect("the rest is kept");
    assert!(problem.kind == ProblemKind::NoSpace && problem.detail.contains("kept for repairs"), "{problem}");

    let mut state = cluster(&[100, 100, 100, 100]);
    create(&mut state, "v", 1 << 40, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    let request = AllocateChunks { epoch, indexes: (0..40).collect() };
    let (alive, full) = (everyone(&state), BTreeSet::from([DiskId(1)]));
    state.apply(&Command::Allocate { name: "v".into(), request, alive, full }).unwrap();
    assert_eq!(state.disk(DiskId(1)).unwrap().placed, 0, "not even as the gateway's own");
}
