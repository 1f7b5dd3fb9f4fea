//! Going on with a state that is older than what daemons have seen.

use crate::common::*;
use levee_meta_state::{Command, Decider, State};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

fn apply(state: &mut State, command: Command) {
    state.apply(&command).unwrap_or_else(|p| panic!("{command:?}: {p}"));
    state.check().expect("a sound state");
}

/// What each daemon's disks hold, in the end of the lost part.
#[derive(Default)]
struct World {
    replicas: BTreeMap<NodeId, Vec<HeldReplica>>,
    fences: BTreeMap<NodeId, Vec<HeldFence>>,
}

impl World {
    /// A gateway has opened the volume: every node of a copy knows its epoch.
    fn opened(&mut self, opened: &OpenedVolume) {
        let nodes = opened.chunks.iter().flat_map(|c| &c.replicas).map(|r| r.node);
        for node in nodes.collect::<std::collections::BTreeSet<_>>() {
            let fence = HeldFence { volume: opened.id, era: Era(0), epoch: opened.epoch };
            self.fences.entry(node).or_default().push(fence);
        }
    }

    /// The copies of a chunk are there, and know of this set.
    fn hold(&mut self, volume: VolumeId, chunk: &ChunkInfo, version: u32) {
        for place in &chunk.replicas {
            let held = HeldReplica {
                disk: place.disk,
                volume,
                chunk: chunk.chunk,
                replica: place.replica,
                config: chunk.config,
                version: Version(version),
            };
            let all = self.replicas.entry(place.node).or_default();
            all.retain(|r| r.chunk != chunk.chunk);
            all.push(held);
        }
    }

    fn told(&self, state: &State, node: NodeId) -> Command {
        let request = Inventory {
            incarnation: state.node(node).expect("it is there").incarnation,
            generation: state.generation(),
            replicas: self.replicas.get(&node).cloned().unwrap_or_default(),
            fences: self.fences.get(&node).cloned().unwrap_or_default(),
            complete: true,
        };
        Command::Inventory { node, request }
    }

    fn all_tell(&self, state: &mut State) {
        for node in everyone(state) {
            let told = self.told(state, node);
            apply(state, told);
        }
    }
}

/// A volume `v` of three copies on four nodes, attached to `n1`, with a chunk at 0; its first gateway.
fn with_volume() -> (State, World, OpenedVolume, ChunkInfo) {
    let mut state = cluster(&[100, 100, 100, 100]);
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let first = open(&mut state, "v", 101).unwrap();
    let chunk = allocate(&mut state, "v", first.epoch, &[0]).unwrap().remove(0);
    let mut world = World::default();
    world.opened(&OpenedVolume { chunks: vec![chunk.clone()], ..first.clone() });
    world.hold(first.id, &chunk, 1);
    (state, world, first, chunk)
}

fn recover(old: &State) -> State {
    let mut state = old.clone();
    apply(&mut state, Command::Recover { at_ms: 1000 });
    state
}

#[test]
fn no_id_and_no_epoch_is_given_out_twice() {
    let (old, mut world, first, _) = with_volume();
    let mut lost = old.clone();
    // Another process of the node serves it, more chunks come, more volumes.
    register(&mut lost, &node_named("n1", 201, &[(1001, 100)])).unwrap();
    let second = open(&mut lost, "v", 201).unwrap();
    world.opened(&second);
    create(&mut lost, "w", GIB, 3).unwrap();
    attach(&mut lost, "w", Some("n2")).unwrap();
    let other = open(&mut lost, "w", 102).unwrap();
    let lost_chunks = allocate(&mut lost, "w", other.epoch, &[0, 1]).unwrap();
    let (attached, lost_volume) = (attachment(&lost, "w").attachment, lost.volume_named("w").unwrap().id);

    let mut state = recover(&old);
    world.all_tell(&mut state);
    let again = open(&mut state, "v", 101).unwrap();
    assert!(again.epoch > second.epoch && second.epoch > first.epoch, "{} after {}", again.epoch, second.epoch);
    create(&mut state, "x", GIB, 3).unwrap();
    attach(&mut state, "x", Some("n2")).unwrap();
    let new = open(&mut state, "x", 102).unwrap();
    let chunks = allocate(&mut state, "x", new.epoch, &[0, 1]).unwrap();
    assert!(new.id > lost_volume && attachment(&state, "x").attachment > attached);
    let largest = |chunks: &[ChunkInfo]| chunks.iter().flat_map(|c| c.replicas.iter().map(|r| r.replica)).max();
    assert!(chunks[0].chunk > lost_chunks[1].chunk);
    assert!(chunks[0].replicas[0].replica > largest(&lost_chunks).unwrap());
    let joined = register(&mut state, &node_named("n9", 109, &[(1009, 100)])).unwrap();
    assert!(joined.node.0 > 1000 && joined.disks[0].0 > 1000);
}

#[test]
fn an_epoch_is_above_every_fence_however_often_it_was_opened() {
    let (old, mut world, first, chunk) = with_volume();
    let far = OpenedVolume { epoch: Epoch(90_000), chunks: vec![chunk], ..first.clone() };
    world.opened(&far);
    let mut state = recover(&old);
    world.all_tell(&mut state);
    assert_eq!(open(&mut state, "v", 101).unwrap().epoch, Epoch(90_001));
}

#[test]
fn gateways_of_the_lost_part_are_refused_and_volumes_wait_for_all_nodes() {
    let (old, world, first, _) = with_volume();
    let before = attachment(&old, "v").attachment;
    let mut state = recover(&old);
    assert_ne!(attachment(&state, "v").attachment, before);
    assert_eq!(allocate(&mut state, "v", first.epoch, &[1]).unwrap_err().kind, ProblemKind::Fenced);
    for node in [1, 2, 4] {
        let told = world.told(&state, NodeId(node));
        apply(&mut state, told);
        let refused = open(&mut state, "v", 101).unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Conflict);
        assert!(refused.detail.contains("wait until node 'n3'") || node < 4, "{refused}");
    }
    assert_eq!(state.recovery_info().awaited, ["n3"]);
    // An operator gives it up.
    set_disk(&mut state, 3, DiskState::Dead, Decider::Operator);
    assert!(state.recovery_info().awaited.is_empty());
    open(&mut state, "v", 101).unwrap();
}

#[test]
fn an_inventory_of_another_era_or_process_counts_for_nothing() {
    let (old, world, ..) = with_volume();
    let mut state = recover(&old);
    let told = world.told(&state, NodeId(1));
    apply(&mut state, Command::Recover { at_ms: 2000 });
    apply(&mut state, told);
    assert_eq!(state.recovery_info().awaited.len(), 4);
    let Command::Inventory { node, request } = world.told(&state, NodeId(1)) else { panic!("no inventory") };
    let other = Command::Inventory { node, request: Inventory { incarnation: uuid(9), ..request } };
    assert_eq!(kind(state.apply(&other)), ProblemKind::Fenced);
}

#[test]
fn a_chunk_gets_the_newest_set_that_there_are_copies_of() {
    let (old, mut world, first, chunk) = with_volume();
    let mut lost = old.clone();
    let leaves = chunk.replicas[1];
    let changed = change(&mut lost, "v", first.epoch, &[(&chunk, &[leaves.replica], 1)]).unwrap().chunks.remove(0);
    world.hold(first.id, &changed, 1);
    world.replicas.get_mut(&leaves.node).unwrap().retain(|r| r.replica != leaves.replica);

    let mut state = recover(&old);
    world.all_tell(&mut state);
    let opened = open(&mut state, "v", 101).unwrap();
    let now = &opened.chunks[0];
    assert_eq!((now.chunk, now.config), (chunk.chunk, changed.config.next().unwrap()));
    let sorted = |mut all: Vec<ReplicaPlace>| {
        all.sort_by_key(|r| r.replica);
        all
    };
    assert_eq!(sorted(now.replicas.clone()), sorted(changed.replicas));
    assert!(state.intent(leaves.node).unwrap().deletes.is_empty(), "nothing that is unknown is deleted");
}

#[test]
fn a_set_that_only_one_member_has_heard_of_is_added_to_the_old_one() {
    let (old, mut world, first, chunk) = with_volume();
    let mut lost = old.clone();
    let leaves = chunk.replicas[1];
    let changed = change(&mut lost, "v", first.epoch, &[(&chunk, &[leaves.replica], 1)]).unwrap().chunks.remove(0);
    let newcomer = *changed.replicas.iter().find(|r| !chunk.replicas.contains(r)).unwrap();
    world.hold(first.id, &ChunkInfo { replicas: vec![newcomer], ..changed.clone() }, 1);
    let mut state = recover(&old);
    world.all_tell(&mut state);
    let now = open(&mut state, "v", 101).unwrap().chunks.remove(0);
    assert_eq!(now.replicas.len(), 4, "no answered write may be missed");
    assert!(chunk.replicas.iter().chain([&newcomer]).all(|r| now.replicas.contains(r)));
}

#[test]
fn a_volume_whose_chunks_are_unknown_is_held_and_nothing_is_deleted() {
    let (old, mut world, first, _) = with_volume();
    let mut lost = old.clone();
    let lost_chunk = allocate(&mut lost, "v", first.epoch, &[1]).unwrap().remove(0);
    world.hold(first.id, &lost_chunk, 1);
    let mut state = recover(&old);
    world.all_tell(&mut state);
    let refused = open(&mut state, "v", 101).unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("1 of its chunks"), "{refused}");
    let info = state.recovery_info();
    assert_eq!((info.held[0].name.as_deref(), info.held[0].lost_chunks), (Some("v"), 1));
    // Told again, and after one more recovery, it is still held.
    world.all_tell(&mut state);
    apply(&mut state, Command::Recover { at_ms: 3000 });
    world.all_tell(&mut state);
    open(&mut state, "v", 101).unwrap_err();
    assert!(everyone(&state).iter().all(|n| state.intent(*n).unwrap().deletes.is_empty()));

    apply(&mut state, Command::AcceptLoss { name: "v".into() });
    let opened = open(&mut state, "v", 101).unwrap();
    let anew = allocate(&mut state, "v", opened.epoch, &[1]).unwrap().remove(0);
    assert!(anew.chunk > lost_chunk.chunk);
}

#[test]
fn a_clone_waits_for_what_its_ancestor_lacks() {
    let old = golden();
    let mut lost = old.clone();
    let golden = lost.volume_named("golden").unwrap();
    let chunk = allocate(&mut lost, "golden", golden.epoch, &[1]).unwrap().remove(0);
    let mut world = World::default();
    world.hold(golden.id, &chunk, 2);
    let mut state = recover(&old);
    world.all_tell(&mut state);
    clone(&mut state, "golden@s", Family::single("c")).unwrap();
    attach(&mut state, "c", Some("n2")).unwrap();
    assert!(open(&mut state, "c", 102).unwrap_err().detail.contains("volume 'golden' is held"));
}

#[test]
fn a_volume_is_written_above_every_version_that_was_written() {
    let (old, mut world, first, chunk) = with_volume();
    // A snapshot was taken, and writes went on at the next version; another was sealed.
    world.hold(first.id, &chunk, 4);
    let mut state = recover(&old);
    world.all_tell(&mut state);
    let opened = open(&mut state, "v", 101).unwrap();
    assert_eq!(opened.version, Version(4));
    assert_eq!(opened.view, View { version: Version(4), hidden: vec![] });
}

#[test]
fn a_daemon_that_comes_later_replaces_a_gateway_whose_epoch_it_refuses() {
    let (old, mut world, first, chunk) = with_volume();
    let late = chunk.replicas[2].node;
    let far = HeldFence { volume: first.id, era: Era(0), epoch: Epoch(7000) };
    let mut state = recover(&old);
    for node in everyone(&state).into_iter().filter(|n| *n != late) {
        let told = world.told(&state, node);
        apply(&mut state, told);
    }
    let disk = chunk.replicas[2].disk;
    set_disk(&mut state, disk.0, DiskState::Dead, Decider::Operator);
    let opened = open(&mut state, "v", 101).unwrap();
    assert!(opened.epoch < far.epoch);
    let before = attachment(&state, "v").attachment;
    world.fences.insert(late, vec![far]);
    let told = world.told(&state, late);
    apply(&mut state, told);
    assert_ne!(attachment(&state, "v").attachment, before, "its gateway is to open the volume again");
    assert_eq!(open(&mut state, "v", 101).unwrap().epoch, Epoch(7001));
}

#[test]
fn eras_are_not_begun_twice_and_fences_that_no_gateway_set_are_left_behind() {
    let (old, mut world, first, chunk) = with_volume();
    let fence = |era, epoch| HeldFence { volume: first.id, era: Era(era), epoch };
    for (held, era) in [(fence(3, Epoch(7000)), Era(3)), (fence(0, Epoch::MAX), Era(1)), (fence(2, Epoch::MAX), Era(3))]
    {
        world.fences.insert(chunk.replicas[0].node, vec![held]);
        let mut state = recover(&old);
        world.all_tell(&mut state);
        let opened = open(&mut state, "v", 101).unwrap();
        assert!(Fence::new(opened.era, opened.epoch) > Fence::new(held.era, held.epoch), "{held:?}: {opened:?}");
        assert!(opened.era == era && opened.epoch > first.epoch && opened.epoch < Epoch::MAX, "{opened:?}");
    }
}

#[test]
fn a_gateway_whose_newest_epoch_is_refused_gets_one_above() {
    let (mut state, _, first, _) = with_volume();
    let at = attachment(&state, "v");
    let mut ask = |fenced| {
        let request =
            OpenVolume { node: at.node, incarnation: uuid(101), attachment: at.attachment, fenced: Some(fenced) };
        match state.apply(&Command::Open { name: "v".into(), request }).unwrap() {
            levee_meta_state::Answer::Opened(opened) => opened.epoch,
            other => panic!("{other:?}"),
        }
    };
    let second = ask(first.epoch);
    assert!(second.0 > first.epoch.0 + 1);
    assert_eq!(ask(first.epoch), second, "of an older one it had heard already");
}

#[test]
fn a_daemon_that_holds_what_was_never_given_out_begins_a_generation() {
    let (old, mut world, first, chunk) = with_volume();
    let mut lost = old.clone();
    let lost_chunk = allocate(&mut lost, "v", first.epoch, &[1]).unwrap().remove(0);
    world.hold(first.id, &lost_chunk, 1);
    // Nobody has said that the folder was restored.
    let mut state = old.clone();
    let mut again = node_named("n1", 201, &[(1001, 100)]);
    let known = Seen { volume: first.id, chunk: chunk.chunk, replica: chunk.replicas[2].replica, ..Seen::default() };
    again.seen = known.clone();
    register(&mut state, &again).unwrap();
    assert_eq!(state.generation(), 0, "nothing is new");
    again.seen = Seen { chunk: lost_chunk.chunk, ..known };
    register(&mut state, &again).unwrap();
    assert!(state.generation() > 0 && state.recovery_info().awaited.len() == 4);
    world.all_tell(&mut state);
    open(&mut state, "v", 201).expect_err("its chunk is not known");
    state.check().unwrap();
    again.seen = Seen { replica: ReplicaId(u64::MAX), ..Seen::default() };
    assert_eq!(register(&mut state, &again).unwrap_err().kind, ProblemKind::Invalid);
}

#[test]
fn a_node_that_joined_in_the_lost_part_keeps_its_ids() {
    let (old, ..) = with_volume();
    let mut lost = old.clone();
    let request = node_named("n5", 105, &[(1005, 100)]);
    let joined = register(&mut lost, &request).unwrap();
    let mut state = recover(&old);
    let mut again = request.clone();
    again.seen.node = Some(joined.node);
    again.seen.disks.insert(request.disks[0].uuid, joined.disks[0]);
    let back = register(&mut state, &again).unwrap();
    assert_eq!((back.node, &back.disks), (joined.node, &joined.disks));
    assert_eq!(state.recovery_info().awaited.len(), 5, "what it holds is waited for as well");
    state.check().unwrap();
}

#[test]
fn the_state_knows_whether_a_daemon_has_seen_a_newer_one() {
    let (mut state, ..) = with_volume();
    let mark = |generation, applied| StateMark { generation, applied };
    assert!(!state.is_older_than(&mark(0, 500), 500) && state.is_older_than(&mark(0, 501), 500));
    apply(&mut state, Command::Recover { at_ms: 1000 });
    assert!(!state.is_older_than(&mark(0, 501), 500), "it goes on from there");
    assert!(state.is_older_than(&mark(1001, 1), 500));
    apply(&mut state, Command::Recover { at_ms: 5 });
    assert_eq!(state.generation(), 1001, "a generation never comes again");
}

#[test]
fn revisions_of_intents_are_not_used_again() {
    let (old, ..) = with_volume();
    let mut lost = old.clone();
    for _ in 0..5 {
        lost.apply(&Command::Detach { name: "v".into() }).unwrap();
        attach(&mut lost, "v", Some("n1")).unwrap();
    }
    let state = recover(&old);
    let revision = |state: &State| state.intent_revision(NodeId(1)).unwrap();
    assert!(revision(&state) > revision(&lost));
}

#[test]
fn two_generations_that_go_on_from_one_state_give_out_different_ids_and_epochs() {
    const NOW: u64 = 1_800_000_000_000;
    let (first, ..) = with_volume();
    let generation = |old: &State, at_ms| {
        let mut state = old.clone();
        apply(&mut state, Command::Recover { at_ms });
        state
    };
    // Also one that was itself gone on with shortly before.
    for old in [first.clone(), generation(&first, NOW - 1000)] {
        let (first, second) = (generation(&old, NOW), generation(&old, NOW + 2000));
        let shown = |state: &State| {
            let volume = state.volume_named("v").unwrap();
            (volume.attachment.unwrap().attachment, state.intent_revision(NodeId(1)).unwrap(), volume.epoch)
        };
        assert!(shown(&second).0 > shown(&first).0 + 1_000_000 && shown(&second).1 > shown(&first).1 + 1_000_000);
        assert!(shown(&second).0 < MAX_SEEN_ID && shown(&second).2 > shown(&first).2);
    }
}

/// Who stayed in a set need not know its number: with one copy that acknowledges, the newest write may be there alone.
#[test]
fn who_stayed_in_a_lost_set_is_in_it_though_only_the_newcomer_knows_its_number() {
    let (old, mut world, first, chunk) = with_volume();
    let mut lost = old.clone();
    let leaves = chunk.replicas[1];
    let changed = change(&mut lost, "v", first.epoch, &[(&chunk, &[leaves.replica], 1)]).unwrap().chunks.remove(0);
    let newcomer: Vec<_> = changed.replicas.iter().filter(|r| !chunk.replicas.contains(r)).copied().collect();
    world.hold(first.id, &chunk, 1);
    let stay = world.replicas.clone();
    world.hold(first.id, &ChunkInfo { replicas: newcomer, ..changed.clone() }, 1);
    stay.into_iter().for_each(|(node, held)| world.replicas.entry(node).or_default().extend(held));
    for (is_deleted, members) in [(false, 4), (true, 3)] {
        if is_deleted {
            world.replicas.get_mut(&leaves.node).unwrap().retain(|r| r.replica != leaves.replica);
        }
        let mut state = recover(&old);
        world.all_tell(&mut state);
        let now = open(&mut state, "v", 101).unwrap().chunks.remove(0);
        assert_eq!(now.replicas.len(), members, "{now:?}");
        assert!(changed.replicas.iter().all(|r| now.replicas.contains(r)) && now.config > changed.config);
    }
}
