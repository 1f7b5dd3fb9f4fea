//! The rules of the state machine, one by one.

use crate::common::*;
use levee_meta_state::{Command, State, limits};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::{BTreeMap, BTreeSet};

const GIB: u64 = 1 << 30;

#[test]
fn a_node_keeps_its_id_and_a_disk_its_owner() {
    let mut state = cluster(&[10, 10]);
    let again = register(&mut state, &node_named("n1", 201, &[(1001, 10), (5000, 10)])).unwrap();
    assert_eq!((again.node, again.disks), (NodeId(1), vec![DiskId(1), DiskId(3)]));

    let stolen = register(&mut state, &node_named("n2", 102, &[(1001, 10)])).unwrap_err();
    assert_eq!(stolen.kind, ProblemKind::Conflict);
    assert!(stolen.detail.contains("'n1'"), "{stolen}");

    let mut resharded = node_named("n1", 201, &[(1001, 10)]);
    resharded.disks[0].shards = 4;
    assert_eq!(register(&mut state, &resharded).unwrap_err().kind, ProblemKind::Conflict);

    let mut stranger = node_named("n9", 1, &[]);
    stranger.cluster = Some(uuid(3));
    assert_eq!(register(&mut state, &stranger).unwrap_err().kind, ProblemKind::Conflict);
    state.check().unwrap();
}

#[test]
fn a_late_message_of_an_earlier_process_is_fenced() {
    let mut state = cluster(&[10]);
    let newer = node_named("n1", 201, &[(1001, 10)]);
    register(&mut state, &newer).unwrap();
    let late = register(&mut state, &node_named("n1", 101, &[(1001, 10)])).unwrap_err();
    assert_eq!(late.kind, ProblemKind::Fenced);
    register(&mut state, &newer).unwrap();

    create(&mut state, "v", GIB, 1).unwrap();
    attach(&mut state, "v", None).unwrap();
    assert_eq!(open(&mut state, "v", 101).unwrap_err().kind, ProblemKind::Fenced);
    assert_eq!(open(&mut state, "v", 201).unwrap().epoch, Epoch(1));
}

#[test]
fn only_changes_move_revisions_and_links_concern_all() {
    let mut state = cluster(&[10, 10]);
    let before: Vec<_> = [1, 2].map(|n| state.intent_revision(NodeId(n))).into();
    register(&mut state, &node_named("n1", 300, &[(1001, 10)])).unwrap();
    assert_eq!(before, [1, 2].map(|n| state.intent_revision(NodeId(n))), "a plain restart changes nobody's intent");

    register(&mut state, &node_named("n1", 300, &[(1001, 10), (1005, 10)])).unwrap();
    for (n, old) in (1..).zip(before) {
        assert!(state.intent_revision(NodeId(n)) > old, "node {n} must learn of the new disk");
    }
    let peers = state.intent(NodeId(2)).unwrap().peers;
    assert_eq!(peers[0].disks.iter().map(|d| d.disk).collect::<Vec<_>>(), [DiskId(1), DiskId(3)]);
}

#[test]
fn volumes_are_checked_and_named_once() {
    let mut state = cluster(&[10, 10]);
    for (name, size, copies, min_copies) in [
        ("", GIB, 1, 1),
        ("a b", GIB, 1, 1),
        ("v", 0, 1, 1),
        ("v", 4097, 1, 1),
        ("v", units::MAX_VOLUME_SIZE + 4096, 1, 1),
        ("v", GIB, 0, 0),
        ("v", GIB, 6, 1),
        ("v", GIB, 2, 3),
        ("v", GIB, 2, 0),
    ] {
        let command = Command::CreateVolume(CreateVolume { name: name.into(), size, copies, min_copies, class: None });
        assert_eq!(kind(state.apply(&command)), ProblemKind::Invalid, "{command:?}");
    }
    let refused = create(&mut state, "v", GIB, 3).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::NoSpace);
    assert!(refused.detail.contains("needs 3 nodes") && refused.detail.contains("has 2"), "{refused}");

    create(&mut state, "v", 4096, 2).unwrap();
    assert_eq!(kind(create(&mut state, "v", 4096, 2)), ProblemKind::Exists);
    create(&mut state, "w", units::MAX_VOLUME_SIZE, 1).unwrap();
    let names: Vec<_> = state.volumes_after("", 10).into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["v", "w"]);
    assert_eq!(state.volumes_after("v", 10).len(), 1);
}

#[test]
fn attach_is_idempotent_and_exclusive() {
    let mut state = cluster(&[10, 10]);
    create(&mut state, "v", GIB, 1).unwrap();
    create(&mut state, "w", GIB, 1).unwrap();
    assert_eq!(kind(attach(&mut state, "nope", None)), ProblemKind::NotFound);
    assert_eq!(kind(attach(&mut state, "v", Some("nope"))), ProblemKind::NotFound);

    attach(&mut state, "v", Some("n1")).unwrap();
    let first = attachment(&state, "v");
    attach(&mut state, "v", Some("n1")).unwrap();
    attach(&mut state, "v", None).unwrap();
    assert_eq!(attachment(&state, "v"), first);
    let elsewhere = attach(&mut state, "v", Some("n2")).unwrap_err();
    assert_eq!(elsewhere.kind, ProblemKind::Conflict);
    assert!(elsewhere.detail.contains("'n1'"), "{elsewhere}");

    attach(&mut state, "w", None).unwrap();
    assert_eq!(attachment(&state, "w").node, NodeId(2), "the node with the fewest attachments");
    assert_eq!(state.intent(NodeId(2)).unwrap().attach[0].name, "w");
}

#[test]
fn a_node_that_is_down_takes_no_volume() {
    let mut state = cluster(&[10, 10]);
    create(&mut state, "v", GIB, 1).unwrap();
    let attach_alive = |state: &mut State, node: Option<&str>, alive: &[u32]| {
        let alive = alive.iter().map(|n| NodeId(*n)).collect();
        state.apply(&Command::Attach { name: "v".into(), node: node.map(Into::into), alive })
    };
    let down = attach_alive(&mut state, Some("n1"), &[2]).unwrap_err();
    assert!(down.kind == ProblemKind::Conflict && down.detail.contains("down"), "{down}");
    assert_eq!(kind(attach_alive(&mut state, None, &[])), ProblemKind::Conflict);
    attach_alive(&mut state, None, &[2]).unwrap();
    assert_eq!(attachment(&state, "v").node, NodeId(2));
}

#[test]
fn an_epoch_belongs_to_one_incarnation_of_one_attachment() {
    let mut state = cluster(&[10, 10]);
    create(&mut state, "v", GIB, 2).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    assert_eq!(open(&mut state, "v", 101).unwrap().epoch, Epoch(1));
    assert_eq!(open(&mut state, "v", 101).unwrap().epoch, Epoch(1), "a retry gets the same epoch");

    register(&mut state, &node_named("n1", 201, &[(1001, 10)])).unwrap();
    assert_eq!(open(&mut state, "v", 201).unwrap().epoch, Epoch(2), "a restarted daemon gets a new one");

    let old = attachment(&state, "v");
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    assert_eq!(allocate(&mut state, "v", Epoch(2), &[0]).unwrap_err().kind, ProblemKind::Fenced);
    attach(&mut state, "v", Some("n1")).unwrap();
    let late = OpenVolume { node: old.node, incarnation: uuid(201), attachment: old.attachment, fenced: None };
    assert_eq!(kind(state.apply(&Command::Open { name: "v".into(), request: late })), ProblemKind::Fenced);
    assert_eq!(
        allocate(&mut state, "v", Epoch(2), &[0]).unwrap_err().kind,
        ProblemKind::Fenced,
        "the new attachment is not open yet"
    );
    assert_eq!(open(&mut state, "v", 201).unwrap().epoch, Epoch(3), "a new attachment gets a new epoch");
}

#[test]
fn chunks_are_allocated_once_and_the_gateway_gets_a_copy() {
    let mut state = cluster(&[100, 100, 100, 100]);
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n4")).unwrap();
    let epoch = open(&mut state, "v", 104).unwrap().epoch;

    let chunks = allocate(&mut state, "v", epoch, &[3, 0, 3]).unwrap();
    assert_eq!(chunks.iter().map(|c| c.index).collect::<Vec<_>>(), [3, 0, 3]);
    assert_eq!(chunks[0], chunks[2]);
    for chunk in &chunks {
        let nodes: BTreeSet<_> = chunk.replicas.iter().map(|r| r.node).collect();
        assert_eq!(nodes.len(), 3);
        assert!(nodes.contains(&NodeId(4)));
    }
    assert_eq!(allocate(&mut state, "v", epoch, &[0, 3]).unwrap()[1], chunks[0], "what exists is answered as it is");
    assert_eq!(open(&mut state, "v", 104).unwrap().chunks, [chunks[1].clone(), chunks[0].clone()]);

    assert_eq!(allocate(&mut state, "v", epoch, &[16]).unwrap_err().kind, ProblemKind::Invalid);
    assert_eq!(allocate(&mut state, "v", epoch, &[]).unwrap_err().kind, ProblemKind::Invalid);
    let many: Vec<u32> = (0..=limits::MAX_ALLOCATE as u32).collect();
    assert_eq!(allocate(&mut state, "v", epoch, &many).unwrap_err().kind, ProblemKind::Invalid);
    assert_eq!(allocate(&mut state, "v", Epoch(9), &[0]).unwrap_err().kind, ProblemKind::Fenced);
    state.check().unwrap();
}

#[test]
fn replicas_spread_in_proportion_to_size() {
    let mut state = cluster(&[400, 100, 100, 100, 100]);
    create(&mut state, "v", 16 * GIB, 2).unwrap();
    // A gateway without disks, so that nothing is preferred.
    register(&mut state, &node_named("compute", 900, &[])).unwrap();
    attach(&mut state, "v", Some("compute")).unwrap();
    let epoch = open(&mut state, "v", 900).unwrap().epoch;
    let indexes: Vec<u32> = (0..160).collect();
    let mut placed: BTreeMap<NodeId, u32> = BTreeMap::new();
    for chunk in allocate(&mut state, "v", epoch, &indexes).unwrap() {
        chunk.replicas.iter().for_each(|r| *placed.entry(r.node).or_default() += 1);
    }
    // 320 replicas over 8 parts of which the first node has 4.
    for (node, expected) in [(1, 160), (2, 40), (3, 40), (4, 40), (5, 40u32)] {
        let have = placed[&NodeId(node)];
        assert!(have.abs_diff(expected) <= 2, "node {node} has {have} replicas, its share is {expected}");
    }
}

#[test]
fn a_full_cluster_refuses_all_or_nothing_and_recovers() {
    let mut state = cluster(&[4, 4]);
    create(&mut state, "v", GIB, 2).unwrap();
    create(&mut state, "w", GIB, 2).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    attach(&mut state, "w", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    open(&mut state, "w", 101).unwrap();
    let before = state.clone();
    let full = allocate(&mut state, "v", epoch, &[0, 1, 2, 3, 4]).unwrap_err();
    assert_eq!(full.kind, ProblemKind::NoSpace);
    assert!(full.detail.contains("needs 2 nodes"), "{full}");
    assert_eq!(state, before);
    allocate(&mut state, "v", epoch, &[0, 1, 2, 3]).unwrap();

    assert_eq!(kind(state.apply(&Command::DeleteVolume { name: "v".into() })), ProblemKind::Conflict);
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    assert_eq!(
        allocate(&mut state, "w", Epoch(1), &[0]).unwrap_err().kind,
        ProblemKind::NoSpace,
        "space counts until the deletion is confirmed"
    );
    for node in [NodeId(1), NodeId(2)] {
        let intent = state.intent(node).unwrap();
        assert_eq!(intent.deletes.len(), 4);
        assert!(state.awaits_deletion(node, &intent.deletes));
        let foreign = Command::ConfirmDeleted { node: NodeId(3 - node.0), replicas: intent.deletes.clone() };
        state.apply(&foreign).unwrap();
        assert_eq!(state.intent(node).unwrap(), intent, "only the disk's own node can confirm");
        let confirm = Command::ConfirmDeleted { node, replicas: intent.deletes.clone() };
        state.apply(&confirm).unwrap();
        state.apply(&confirm).unwrap();
        let after = state.intent(node).unwrap();
        assert!(after.deletes.is_empty() && after.revision == intent.revision + 1);
        state.check().unwrap();
    }
    allocate(&mut state, "w", Epoch(1), &[0]).unwrap();
}

#[test]
fn live_nodes_come_first_and_enough_of_them() {
    let mut state = cluster(&[10, 10, 10, 10]);
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    let mut places = |index: u32, alive: &[u32]| {
        let alive = alive.iter().map(|n| NodeId(*n)).collect();
        let request = AllocateChunks { epoch, indexes: vec![index] };
        let answer = state.apply(&Command::Allocate { name: "v".into(), request, alive, full: Default::default() });
        state.check().unwrap();
        answer.map(|_| {
            let chunks = open(&mut state, "v", 101).unwrap().chunks;
            chunks[index as usize].replicas.iter().map(|r| r.node.0).collect::<Vec<_>>()
        })
    };
    // Three copies, two of which a write waits for.
    let refused = places(0, &[1]).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::NoSpace);
    assert!(refused.detail.contains("4 nodes have it, 1 of them live"), "{refused}");
    assert_eq!(places(0, &[1, 3, 4]).unwrap(), [1, 3, 4]);
    assert_eq!(places(1, &[1, 4]).unwrap(), [1, 4, 2], "the emptiest of those that are down");
    // Who asks is alive, whatever was heard of it.
    assert_eq!(places(2, &[3]).unwrap(), [1, 3, 2]);
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut state = cluster(&[10]);
    create(&mut state, "v", GIB, 1).unwrap();
    attach(&mut state, "v", None).unwrap();
    let epoch = open(&mut state, "v", 101).unwrap().epoch;
    allocate(&mut state, "v", epoch, &[0]).unwrap();
    let good = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&good).unwrap(), state);
    let bad = good.replace(r#""placed":1"#, r#""placed":2"#);
    assert_ne!(good, bad);
    let error = serde_json::from_str::<State>(&bad).unwrap_err().to_string();
    assert!(error.contains("disk 1 counts 2"), "{error}");
}

#[test]
fn a_detached_volume_is_given_its_epochs_anew_and_every_node_is_told() {
    let mut state = cluster(&[10, 10]);
    for name in ["v", "w"] {
        create(&mut state, name, GIB, 1).unwrap();
    }
    attach(&mut state, "v", Some("n1")).unwrap();
    let opened = |state: &mut State| open(state, "v", 101).map(|o| (o.era, o.epoch));
    assert_eq!(opened(&mut state), Ok((Era(0), Epoch(1))));
    let recover = Command::RecoverEpochs { name: "v".into() };
    assert_eq!(state.apply(&recover).unwrap_err().kind, ProblemKind::Conflict, "it is attached");
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    let before = [1, 2].map(|n| state.intent_revision(NodeId(n)));
    state.apply(&recover).unwrap();
    let volume = state.volume_named("v").unwrap().id;
    for (n, before) in [1, 2].into_iter().zip(before) {
        let intent = state.intent(NodeId(n)).unwrap();
        assert_eq!(intent.eras, [VolumeEra { volume, era: Era(1) }]);
        assert!(Some(intent.revision) > before);
    }
    attach(&mut state, "v", Some("n1")).unwrap();
    assert_eq!(opened(&mut state), Ok((Era(1), Epoch(2))), "epochs go on: who was deposed stays so");
    state.check().unwrap();
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    for era in 2..=u8::MAX {
        state.apply(&recover).unwrap();
        assert_eq!(state.intent(NodeId(1)).unwrap().eras, [VolumeEra { volume, era: Era(era) }]);
    }
    assert_eq!(state.apply(&recover).unwrap_err().kind, ProblemKind::Conflict, "there are no more");
    state.apply(&Command::DeleteVolume { name: "v".into() }).unwrap();
    assert_eq!(state.intent(NodeId(1)).unwrap().eras, []);
}
