//! Every state, from what is decided and reported to what is told of it.

use super::*;
use crate::limits::{FLAPS, LINK_PATIENCE, SETTLE, SLOW_LINK};
use levee_meta_state::{Answer, Command, Decider, Note};
use levee_proto::api::ConditionWord as W;
use levee_proto::{CHUNK_SIZE, ChunkId, ConfigNo, DiskId, Epoch, ReplicaId, Version, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

const DOWN: Duration = Duration::from_secs(3);
const CHUNKS: u64 = 10;

/// Three nodes with a disk each; volume `v`, whose copies are on all of them, is served by the first one.
struct Scene {
    state: State,
    observed: Observed,
    now: Instant,
    held: Option<String>,
    members: Members,
    /// What each node says of itself.
    beats: BTreeMap<u32, Heartbeat>,
    told: Vec<Note>,
    teller: Teller,
}

fn apply(state: &mut State, command: Command) -> Answer {
    state.apply(&command).unwrap_or_else(|problem| panic!("{command:?}: {problem}"))
}

fn register(state: &mut State, node: u32, incarnation: u128) {
    let disk = RegisterDisk {
        uuid: Uuid::from_u128(100 + u128::from(node)),
        path: format!("/d{node}"),
        capacity: CHUNKS * CHUNK_SIZE,
        shards: 1,
        class: DiskClass::default(),
    };
    let request = RegisterNode {
        name: format!("n{node}"),
        incarnation: Uuid::from_u128(incarnation),
        admin_url: "http://h:1".into(),
        cores: vec!["h:2".into()],
        cluster: None,
        disks: vec![disk],
        zone: None,
        rack: None,
        leave_out_removed: false,
        locks: vec![],
        missing: vec![],
        seen: Default::default(),
    };
    apply(state, Command::RegisterNode(request));
}

fn beat(node: u32) -> Heartbeat {
    let disk = DiskUsage { disk: DiskId(node), used: 1, failed: None, load: DiskLoad::default() };
    let link = |other| LinkReport { node: NodeId(other), up: true, latency_us: 100 };
    let links = (1..=3).filter(|other| *other != node).map(link).collect();
    let (incarnation, volumes, deleted, locks) = (Uuid::from_u128(u128::from(node)), vec![], vec![], vec![]);
    Heartbeat { incarnation, disks: vec![disk], volumes, part: None, deleted, links, locks, stopping: false }
}

fn member(id: u64, alive: bool) -> MemberStatus {
    let (role, level, matched, trouble) = (MemberRole::Voter, Some(4), Some(10_000), None);
    MemberStatus { id, url: format!("http://m{id}"), role, alive, level, matched, trouble }
}

impl Scene {
    fn well() -> Scene {
        let mut state = State::default();
        apply(&mut state, Command::Found { cluster: Uuid::from_u128(7) });
        (1..=3).for_each(|node| register(&mut state, node, node.into()));
        let (name, size) = ("v".to_string(), 4 * CHUNK_SIZE);
        apply(&mut state, Command::CreateVolume(CreateVolume { name, size, copies: 3, min_copies: 2, class: None }));
        let now = Instant::now();
        let members = (1..=3).map(|id| member(id, true)).collect();
        let members = Members { leader: 1, level: 4, last: 10_000, changing: false, members };
        let beats = (1..=3).map(|node| (node, beat(node))).collect();
        let (told, teller) = (vec![], Teller::default());
        let observed = Observed::new(1, now, DOWN);
        let mut scene = Scene { state, observed, now, held: None, members, beats, told, teller };
        scene.serve();
        scene.pass(DOWN * 4);
        scene
    }

    /// Volume `v` is attached to the first node, opened, and has a chunk.
    fn serve(&mut self) {
        let alive: BTreeSet<NodeId> = self.state.node_ids().collect();
        let node = Some("n1".to_string());
        let Answer::Volume(info) = self.apply(Command::Attach { name: "v".into(), node, alive: alive.clone() }) else {
            panic!()
        };
        let attachment = info.attachment.expect("attached").attachment;
        let request = OpenVolume { node: NodeId(1), incarnation: Uuid::from_u128(1), attachment, fenced: None };
        let Answer::Opened(opened) = self.apply(Command::Open { name: "v".into(), request }) else { panic!() };
        let request = AllocateChunks { epoch: opened.epoch, indexes: vec![0] };
        self.apply(Command::Allocate { name: "v".into(), request, alive, full: BTreeSet::new() });
        let report = serde_json::json!({
            "volume": opened.id, "epoch": opened.epoch, "state": "serving", "healthy_chunks": 1, "degraded_chunks": 0,
        });
        self.beats.get_mut(&1).expect("it is there").volumes = vec![serde_json::from_value(report).expect("a report")];
    }

    fn apply(&mut self, command: Command) -> Answer {
        apply(&mut self.state, command)
    }

    fn report(&mut self) -> &mut VolumeReport {
        &mut self.beats.get_mut(&1).expect("it is there").volumes[0]
    }

    fn view(&self) -> View<'_> {
        let policy = Policy { down_after: DOWN, after: Duration::from_secs(600), rate: None };
        let view = View::new(&self.state, &self.observed, policy, self.now, self.held.as_deref());
        View { now_ms: 1_000_000, ..view }
    }

    /// Time passes, in which those nodes that have something to say say it.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let is_silent = |node: NodeId| self.beats.get(&node.0).is_none_or(|beat| beat.stopping);
            for (node, beat) in &self.beats {
                let mut beat = beat.clone();
                beat.links.iter_mut().for_each(|link| link.up &= !is_silent(link.node));
                self.observed.heartbeat(NodeId(*node), beat, self.now);
            }
            let mut commands = Vec::new();
            let mut teller = std::mem::take(&mut self.teller);
            teller.tell(&self.view(), &self.members, &mut commands);
            self.teller = teller;
            for command in commands {
                self.told.extend(match &command {
                    Command::Note(notes) => notes.clone(),
                    Command::Conditions(change) => change.notes.clone(),
                    other => panic!("{other:?}"),
                });
                self.apply(command);
            }
            self.now += Duration::from_millis(500);
        }
    }

    fn found(&self) -> Vec<(EventKind, W, Severity)> {
        derive(&self.view(), &self.members).iter().map(|c| (c.kind, c.word, c.severity)).collect()
    }

    fn drain(&mut self, node: u32) {
        let request = SetNodeState { drain: true, reason: None };
        self.apply(Command::SetNode { node: NodeId(node), request });
    }

    fn set_disk(&mut self, disk: u32, state: DiskState) {
        self.apply(Command::SetDisk { disk: DiskId(disk), state, reason: None, by: Decider::Operator });
    }

    fn degrade(&mut self) {
        let report = self.report();
        report.degraded_chunks = 1;
        let behind = MemberReport { node: NodeId(2), disk: DiskId(2), doing: "waits".into(), missing_blocks: 0 };
        report.degraded = vec![ChunkReport { index: 0, current: 2, wanted: 3, served: true, behind: vec![behind] }];
    }

    fn recover(&mut self, chunk: ChunkId, volume: VolumeId) {
        self.apply(Command::Recover { at_ms: 1000 });
        let replica = HeldReplica {
            disk: DiskId(1),
            volume,
            chunk,
            replica: ReplicaId(99),
            config: ConfigNo(1),
            version: Version(1),
        };
        let (generation, fences) = (self.state.generation(), vec![]);
        for node in 1..=3 {
            let (replicas, fences) = (if node == 1 { vec![replica] } else { vec![] }, fences.clone());
            let incarnation = Uuid::from_u128(u128::from(node));
            let request = Inventory { incarnation, generation, replicas, fences, complete: true };
            self.apply(Command::Inventory { node: NodeId(node), request });
        }
    }

    /// The node reaches all others.
    fn mend(&mut self, node: u32) {
        let links = &mut self.beats.get_mut(&node).expect("it is there").links;
        links.iter_mut().for_each(|link| link.up = true);
    }

    /// Another node takes no notice of this one.
    fn cut(&mut self, from: u32, to: u32) {
        let links = &mut self.beats.get_mut(&from).expect("it is there").links;
        links.iter_mut().filter(|link| link.node == NodeId(to)).for_each(|link| link.up = false);
    }
}

type Step = fn(&mut Scene);

/// How each state comes about, and whether an event is told of it.
const STATES: &[(EventKind, W, Severity, bool, Step)] = {
    use EventKind::*;
    use Severity::*;
    &[
        (Node, W::Down, Warning, true, |s| drop(s.beats.remove(&2))),
        (Node, W::Stopped, Warning, true, |s| s.beats.get_mut(&2).expect("it is there").stopping = true),
        (Node, W::Partitioned, Warning, true, |s| {
            s.cut(1, 2);
            s.cut(3, 2);
        }),
        (Node, W::Slow, Warning, true, |s| {
            for node in [1, 3] {
                let links = &mut s.beats.get_mut(&node).expect("it is there").links;
                links
                    .iter_mut()
                    .filter(|l| l.node == NodeId(2))
                    .for_each(|l| l.latency_us = SLOW_LINK.as_micros() as u64);
            }
        }),
        (Node, W::Flapping, Warning, true, |s| {
            for _ in 0..FLAPS {
                let beat = s.beats.remove(&2).expect("it is there");
                s.pass(DOWN * 2);
                s.beats.insert(2, beat);
                s.pass(DOWN);
            }
        }),
        (Node, W::Doubled, Warning, false, |s| {
            let (now, mut request) = (s.now, None);
            register(&mut s.state, 2, 2);
            request.get_or_insert(RegisterNode {
                name: "n2".into(),
                incarnation: Uuid::from_u128(9),
                admin_url: "http://x:1".into(),
                cores: vec![],
                cluster: None,
                disks: vec![],
                zone: None,
                rack: None,
                leave_out_removed: false,
                locks: vec![],
                missing: vec![],
                seen: Default::default(),
            });
            s.observed.refused(NodeId(2), &request.expect("just made"), now);
        }),
        (Node, W::Awaited, Error, false, |s| drop(s.apply(Command::Recover { at_ms: 1000 }))),
        (Node, W::Draining, Info, false, |s| s.drain(2)),
        (Node, W::Drained, Info, true, |s| {
            register(&mut s.state, 4, 4);
            s.beats.insert(4, beat(4));
            s.drain(4);
        }),
        (Link, W::Cut, Warning, true, |s| {
            register(&mut s.state, 4, 4);
            s.beats.insert(4, beat(4));
            for from in [1, 2, 3] {
                let link = LinkReport { node: NodeId(4), up: true, latency_us: 1 };
                s.beats.get_mut(&from).expect("it is there").links.push(link);
            }
            s.cut(1, 2);
        }),
        (Disk, W::Draining, Info, false, |s| s.set_disk(2, DiskState::Draining)),
        (Disk, W::Drained, Info, true, |s| {
            register(&mut s.state, 4, 4);
            s.beats.insert(4, beat(4));
            s.set_disk(4, DiskState::Draining);
        }),
        (Disk, W::Failed, Error, true, |s| {
            s.beats.get_mut(&2).expect("it is there").disks[0].failed = Some("write error".into());
        }),
        (Disk, W::Dead, Warning, false, |s| s.set_disk(2, DiskState::Dead)),
        (Disk, W::Full, Warning, true, |s| {
            s.beats.get_mut(&2).expect("it is there").disks[0].used = CHUNKS * CHUNK_SIZE;
        }),
        (Disk, W::Unknown, Info, false, |s| s.recover(ChunkId(55), VolumeId(77))),
        (Capacity, W::Filling, Info, true, |s| {
            s.beats.values_mut().for_each(|beat| beat.disks[0].used = CHUNKS * CHUNK_SIZE / 100 * 85);
        }),
        (Capacity, W::Full, Error, true, |s| {
            s.beats.values_mut().for_each(|beat| beat.disks[0].used = CHUNKS * CHUNK_SIZE);
        }),
        (Volume, W::Down, Error, true, |s| drop(s.beats.remove(&1))),
        (Volume, W::Unserved, Error, true, |s| s.report().state = ServeState::Failed),
        (Volume, W::Opening, Warning, false, |s| s.report().state = ServeState::Opening),
        (Volume, W::Stalled, Error, true, |s| {
            s.report().stall = Some(StallReport { requests: 3, oldest_ms: 4200, why: "copies are away".into() });
        }),
        (Volume, W::Waiting, Error, true, |s| s.report().waiting_chunks = 1),
        (Volume, W::Full, Error, true, |s| s.report().full = true),
        (Volume, W::Lost, Error, true, |s| s.report().lost = vec![ByteRange { offset: 0, length: 4096 }]),
        (Volume, W::Held, Error, false, |s| s.recover(ChunkId(55), VolumeId(1))),
        (Volume, W::Unfinished, Warning, false, |s| {
            s.apply(Command::Detach { name: "v".into() });
            let request = BeginJob { id: Uuid::from_u128(1), kind: JobKind::Import, by: "levee".into() };
            s.apply(Command::BeginJob { name: "v".into(), request });
        }),
        (Volume, W::Repairing, Info, false, |s| {
            s.apply(Command::Detach { name: "v".into() });
            s.apply(Command::AttachRepair { volume: VolumeId(1), node: NodeId(1) });
            let attachment = s.state.volume_named("v").expect("it is there").attachment.expect("attached").attachment;
            let request = OpenVolume { node: NodeId(1), incarnation: Uuid::from_u128(1), attachment, fenced: None };
            let Answer::Opened(opened) = s.apply(Command::Open { name: "v".into(), request }) else { panic!() };
            s.report().epoch = opened.epoch;
        }),
        (Repair, W::Degraded, Warning, true, Scene::degrade),
        (Repair, W::Held, Warning, true, |s| s.held = Some("2 of 3 nodes are down".into())),
        (Repair, W::NoPlace, Warning, true, |s| {
            s.set_disk(2, DiskState::Draining);
            s.report().leaving_replicas = 1;
        }),
        (Repair, W::Leaving, Info, false, |s| {
            register(&mut s.state, 4, 4);
            s.beats.insert(4, beat(4));
            s.set_disk(2, DiskState::Draining);
        }),
        (Member, W::Silent, Warning, true, |s| s.members.members[1].alive = false),
        (Member, W::Behind, Warning, true, |s| s.members.members[1].matched = Some(1)),
        (Member, W::Unfit, Error, true, |s| s.members.members[1].trouble = Some("its folder was lost".into())),
        (Member, W::Learning, Info, false, |s| s.members.members[1].role = MemberRole::Learner),
        (Maintenance, W::Open, Info, false, |s| {
            s.state.set_clock(1_000_000);
            s.apply(Command::StartMaintenance(StartMaintenance { node: None, seconds: 600, reason: None }));
        }),
        (Rebalance, W::Running, Info, false, |s| {
            register(&mut s.state, 4, 4);
            s.beats.insert(4, beat(4));
            let chunk = s.state.volume(VolumeId(1)).expect("it is there").chunks[&0].clone();
            let from = chunk.replicas[2];
            let one = PlannedMove {
                volume: VolumeId(1),
                index: 0,
                replica: from.replica,
                from: from.disk,
                to: DiskId(4),
                bytes: 1,
            };
            s.apply(Command::StartRebalance { goal: RebalanceGoal::Space, moves: vec![one] });
        }),
    ]
};

#[test]
fn nothing_is_said_of_a_cluster_that_is_well() {
    let scene = Scene::well();
    assert_eq!(scene.found(), []);
    let health = health(&scene.view(), &scene.members);
    assert!(health.healthy);
    assert_eq!(health.summary, "3 of 3 nodes up, 3 of 3 disks in service, 1 volume, 1 attached");
    let told: Vec<_> = scene.told.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(told, ["leads the meta servers now"]);
}

#[test]
fn each_state_is_found_and_told_as_it_should_be() {
    for (kind, word, severity, is_told, step) in STATES {
        let mut scene = Scene::well();
        step(&mut scene);
        scene.pass(DOWN * 2 + LINK_PATIENCE + SETTLE);
        let found = scene.found();
        assert!(found.contains(&(*kind, *word, *severity)), "{kind:?} {word:?} is not in {found:?}");
        let known = scene.state.told_conditions().any(|(key, _)| (key.kind, key.word) == (*kind, *word));
        assert!(known, "{kind:?} {word:?} is not remembered");
        let all = derive(&scene.view(), &scene.members);
        let this = all.iter().find(|c| (c.kind, c.word) == (*kind, *word)).expect("found above");
        assert!(this.since_ms.is_some() && !this.text.is_empty());
        let events = scene.told.iter().filter(|note| note.kind == *kind && note.subject == this.subject).count();
        // A node that comes and goes has told much of that before.
        assert!((events > 0) == *is_told || *word == W::Flapping, "{kind:?} {word:?}: {:?}", scene.told);
    }
}

#[test]
fn all_states_are_walked_through() {
    let walked: BTreeSet<W> = STATES.iter().map(|(_, word, ..)| *word).collect();
    let left: Vec<_> = W::ALL.iter().filter(|word| !walked.contains(word)).collect();
    // Without a leader there is nobody to say so: the command line does.
    assert_eq!(left, [&W::Leaderless]);
}

#[test]
fn a_restart_in_order_is_no_partition_and_no_flapping() {
    let mut scene = Scene::well();
    for _ in 0..=FLAPS {
        scene.beats.get_mut(&2).expect("it is there").stopping = true;
        scene.pass(DOWN * 3);
        assert_eq!(scene.found(), [(EventKind::Node, W::Stopped, Severity::Warning)]);
        scene.beats.insert(2, beat(2));
        scene.observed.registered(NodeId(2), vec![], BTreeSet::new(), scene.now);
        // The others have not heard it yet.
        scene.cut(1, 2);
        scene.cut(3, 2);
        scene.pass(Duration::from_secs(1));
        assert_eq!(scene.found(), []);
        (1..=3).for_each(|node| scene.mend(node));
        scene.pass(DOWN);
        assert_eq!(scene.found(), []);
    }
}

#[test]
fn one_cause_is_told_once() {
    let mut scene = Scene::well();
    scene.beats.remove(&2);
    scene.degrade();
    scene.pass(DOWN * 3);
    let found = scene.found();
    use EventKind::{Node, Repair};
    assert_eq!(found, [(Node, W::Down, Severity::Warning), (Repair, W::Degraded, Severity::Warning)]);
    let all = derive(&scene.view(), &scene.members);
    assert_eq!(all[1].doing, ["some of their copies are on node n2, which is away"]);
    // Somebody works on it.
    scene.state.set_clock(1_000_000);
    let request = StartMaintenance { node: Some("n2".into()), seconds: 600, reason: None };
    scene.apply(Command::StartMaintenance(request));
    assert!(scene.found().iter().all(|(.., severity)| *severity == Severity::Info), "{:?}", scene.found());
    assert_eq!(words::node(&scene.view(), NodeId(2)), "down, in maintenance");
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let mut scene = Scene::well();
    scene.beats.remove(&2);
    scene.pass(DOWN * 3);
    let told = scene.told.len();
    let since = derive(&scene.view(), &scene.members)[0].since_ms;
    // The next leader has heard of nobody yet.
    (scene.observed, scene.teller) = (Observed::new(2, scene.now, DOWN), Teller::default());
    scene.members.leader = 2;
    scene.pass(DOWN * 3);
    let more: Vec<_> = scene.told[told..].iter().map(|note| note.text.as_str()).collect();
    assert_eq!(more, ["leads the meta servers now"], "nothing is told twice");
    assert_eq!(derive(&scene.view(), &scene.members)[0].since_ms, since);
    // What ends while nobody leads is told as well.
    scene.beats.insert(2, beat(2));
    (scene.observed, scene.teller) = (Observed::new(3, scene.now, DOWN), Teller::default());
    let told = scene.told.len();
    scene.pass(DOWN * 4);
    let more: Vec<_> = scene.told[told..].iter().map(|n| (n.subject.as_str(), n.text.as_str())).collect();
    assert_eq!(more, [("2", "leads the meta servers now"), ("n2", "is up")]);
}

#[test]
fn words_say_what_is_true_of_disks_and_volumes_of_a_node_that_is_away() {
    let mut scene = Scene::well();
    let words = |scene: &Scene| {
        let view = scene.view();
        let disk = view.state.disk(DiskId(1)).expect("it is there");
        let mut volume = view.state.volume_named("v").expect("it is there");
        view.fill_volume(&mut volume);
        (words::node(&view, NodeId(1)), words::disk(&view, DiskId(1), disk), volume.status)
    };
    assert_eq!(words(&scene), ("up".into(), "in service".into(), "serving".into()));
    scene.beats.remove(&1);
    scene.pass(DOWN * 2);
    assert_eq!(words(&scene), ("down".into(), "unreachable".into(), "its node is down".into()));
    assert_eq!(Epoch(1), scene.state.volume_named("v").unwrap().epoch);
}
