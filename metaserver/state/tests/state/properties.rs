//! What holds after any sequence of commands.

use crate::common::*;
use levee_meta_state::{Answer, Command, Decider, State};
use levee_proto::api::*;
use levee_proto::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that was ever given out.
#[derive(Default)]
struct History {
    volumes: BTreeSet<VolumeId>,
    chunks: BTreeMap<(ChunkId, ConfigNo), ChunkInfo>,
    replicas: BTreeMap<ReplicaId, (ChunkId, NodeId, DiskId)>,
    /// Who got which epoch: one owner each.
    epochs: BTreeMap<(VolumeId, Epoch), (u64, uuid::Uuid)>,
    newest: BTreeMap<VolumeId, Epoch>,
}

impl History {
    fn record(&mut self, command: &Command, answer: &Answer) {
        match (command, answer) {
            (Command::CreateVolume(_), Answer::Volume(v)) => {
                assert!(self.volumes.insert(v.id), "volume id {} given out twice", v.id);
            }
            (Command::Open { request, .. }, Answer::Opened(o)) => {
                let owner = (request.attachment, request.incarnation);
                let first = *self.epochs.entry((o.id, o.epoch)).or_insert(owner);
                assert_eq!(first, owner, "epoch {} of volume {} has two owners", o.epoch, o.id);
                let newest = self.newest.entry(o.id).or_default();
                assert!(o.epoch >= *newest, "epoch went back");
                *newest = o.epoch;
                o.chunks.iter().for_each(|c| self.record_chunk(c));
            }
            (_, Answer::Allocated(a)) => a.chunks.iter().for_each(|c| self.record_chunk(c)),
            (_, Answer::Changed(c)) => c.chunks.iter().for_each(|c| self.record_chunk(c)),
            _ => {}
        }
    }

    fn record_chunk(&mut self, chunk: &ChunkInfo) {
        let known = self.chunks.entry((chunk.chunk, chunk.config)).or_insert_with(|| chunk.clone());
        assert_eq!(known, chunk, "a chunk changed its place without a new number");
        for place in &chunk.replicas {
            let home = (chunk.chunk, place.node, place.disk);
            let first = *self.replicas.entry(place.replica).or_insert(home);
            assert_eq!(first, home, "replica {} given out twice", place.replica);
        }
        let before = chunk.config.0.checked_sub(1).and_then(|n| self.chunks.get(&(chunk.chunk, ConfigNo(n))));
        if let Some(before) = before {
            let stays = chunk.replicas.iter().any(|r| before.replicas.contains(r));
            assert!(stays, "nobody is left who knows what was written");
        }
    }
}

/// A newcomer is on a disk in service, and shares its node only with members that are to go.
fn check_newcomers(before: &State, after: &ChangedReplicas) {
    let moving: BTreeSet<ReplicaId> = before.moves_under_way().map(|one| one.replica).collect();
    for chunk in &after.chunks {
        for new in chunk.replicas.iter().filter(|r| r.replica.0 > newest_replica(before)) {
            let state = |disk| before.disk(disk).map(|d| d.state()).unwrap_or_default();
            assert_eq!(state(new.disk), DiskState::InService);
            let mut neighbours = chunk.replicas.iter().filter(|r| r.node == new.node && r.replica != new.replica);
            assert!(
                neighbours.all(|r| state(r.disk) == DiskState::Draining || moving.contains(&r.replica)),
                "{chunk:?}"
            );
        }
    }
}

fn newest_replica(state: &State) -> u64 {
    let json = serde_json::to_value(state).expect("a snapshot");
    json["last"]["replica"].as_u64().expect("a number")
}

/// A frozen version says the same for ever, and versions only grow.
fn check_frozen(before: &State, after: &State) {
    for (id, old, new) in (1..60).map(VolumeId).filter_map(|id| Some((id, before.volume(id)?, after.volume(id)?))) {
        assert!(new.version >= old.version, "the version of volume {id} went back");
        assert!(new.history().sealed >= old.history().sealed, "volume {id} is sealed no more");
        let now = &new.history().snapshots;
        for (version, was) in &old.history().snapshots {
            let same = now.get(version).is_none_or(|is| {
                (&is.name, &is.hidden, is.size, is.created_ms) == (&was.name, &was.hidden, was.size, was.created_ms)
            });
            assert!(same, "snapshot {id}@{version} is another: {was:?}, {:?}", now.get(version));
        }
        let added = now.keys().filter(|version| !old.history().snapshots.contains_key(*version));
        added.for_each(|version| assert_eq!(*version, old.version, "only what was written last is frozen"));
    }
}

fn volume_name() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => (0..4u8).prop_map(|n| format!("v{n}")),
        3 => (1..4u8).prop_map(|n| format!("c-{n}")),
        1 => (1..9u8).prop_map(|n| format!(".deleted-{n}")),
        1 => (4..80u8).prop_map(|n| format!(".mirror-{n}")),
        1 => (0..4u8, 0..3u8).prop_map(|(v, s)| format!("v{v}@s{s}")),
    ]
}

fn snapshot_name() -> impl Strategy<Value = SnapshotName> {
    (volume_name(), 0..3u8).prop_map(|(volume, n)| SnapshotName { volume, snapshot: format!("s{n}") })
}

fn family() -> impl Strategy<Value = Family> {
    let count = prop_oneof![8 => 1..4u32, 1 => 64..80u32];
    (count, 1..3u32).prop_map(|(count, first)| Family { name: "c".into(), count: Some(count), first })
}

/// Epochs, versions and numbers count back from the newest until the command is aimed.
fn version_command() -> impl Strategy<Value = Command> {
    let back = || 0..4u32;
    prop_oneof![
        6 => proptest::collection::vec(snapshot_name(), 1..3).prop_map(|snapshots| {
            Command::BeginSnapshots { request: CreateSnapshots { snapshots, image: None }, created_ms: 1 }
        }),
        8 => (volume_name(), back(), back()).prop_map(|(name, epoch, held)| {
            let request = Moved { epoch: Epoch(epoch), version: Version(0), held: held > 0 };
            Command::Moved { name, request }
        }),
        5 => (volume_name(), back(), back()).prop_map(|(name, epoch, version)| {
            Command::FinishSnapshots { name, request: Sealed { epoch: Epoch(epoch), version: Version(version) } }
        }),
        3 => snapshot_name().prop_map(Command::DeleteSnapshot),
        4 => snapshot_name().prop_map(Command::Rollback),
        5 => (snapshot_name(), family()).prop_map(|(from, names)| {
            Command::CreateClones(CreateClones { from, names, size: None, copies: None, min_copies: None })
        }),
        2 => proptest::collection::vec(family(), 1..2).prop_map(|volumes| Command::DeleteVolumes(DeleteVolumes { volumes })),
        3 => (volume_name(), back(), 0..3u64).prop_map(|(name, epoch, number)| {
            Command::Pruned { name, request: Pruned { epoch: Epoch(epoch), number } }
        }),
        3 => volume_name().prop_map(|name| Command::Flatten { name }),
        3 => (volume_name(), back()).prop_map(|(name, epoch)| {
            Command::Flattened { name, request: Flattened { epoch: Epoch(epoch) } }
        }),
        3 => (volume_name(), 1..1200u64, proptest::bool::ANY).prop_map(|(name, mib, allow_shrink)| {
            Command::Resize { name, request: ResizeVolume { size: mib << 20, allow_shrink } }
        }),
    ]
}

fn alive() -> impl Strategy<Value = BTreeSet<NodeId>> {
    prop_oneof![
        6 => Just((1..=8).map(NodeId).collect::<BTreeSet<_>>()),
        1 => proptest::collection::btree_set((1..=6u32).prop_map(NodeId), 0..6),
    ]
}

fn register_command() -> impl Strategy<Value = Command> {
    let disks = proptest::collection::vec((0..3u64, 0..8u64), 0..3);
    (0..5u64, 0..3u64, disks, 0..20u8).prop_map(|(node, incarnation, disks, stolen)| {
        let owner = if stolen == 0 { (node + 1) % 5 } else { node };
        let disks: Vec<_> = disks.into_iter().map(|(d, chunks)| (1000 + owner * 10 + d, chunks)).collect();
        Command::RegisterNode(node_named(&format!("n{node}"), node * 10 + incarnation, &disks))
    })
}

fn disk_state() -> impl Strategy<Value = DiskState> {
    prop_oneof![3 => Just(DiskState::InService), 2 => Just(DiskState::Draining), 2 => Just(DiskState::Dead)]
}

/// The members to remove are positions until the command is aimed.
fn change_command() -> impl Strategy<Value = Command> {
    let remove = proptest::collection::btree_set(0..4u64, 0..3);
    let change = (0..6u32, 0..5u32, remove, 0..3u8).prop_map(|(index, back, remove, add)| {
        let remove = remove.into_iter().map(ReplicaId).collect();
        ReplicaChange { index, config: ConfigNo(back), remove, add }
    });
    (volume_name(), 0..4u32, proptest::collection::vec(change, 1..4), alive()).prop_map(
        |(name, back, changes, alive)| Command::ChangeReplicas {
            name,
            request: ChangeReplicas { epoch: Epoch(back), changes },
            alive,
            full: Default::default(),
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => register_command(),
        6 => (volume_name(), 1..=3u8, 1..1200u64).prop_map(|(name, copies, mib)| {
            let min_copies = copies.div_ceil(2);
            Command::CreateVolume(CreateVolume { name, size: mib << 20, copies, min_copies, class: None })
        }),
        1 => volume_name().prop_map(|name| Command::DeleteVolume { name }),
        35 => version_command(),
        5 => (volume_name(), proptest::option::of((0..5u8).prop_map(|n| format!("n{n}"))), alive())
            .prop_map(|(name, node, alive)| Command::Attach { name, node, alive }),
        3 => volume_name().prop_map(|name| Command::Detach { name }),
        2 => (volume_name(), 0..3u64, 0..3u8).prop_map(|(name, id, kind)| {
            let kind = [JobKind::Import, JobKind::Export, JobKind::Copy][usize::from(kind)];
            Command::BeginJob { name, request: BeginJob { id: uuid(id), kind, by: "levee".into() } }
        }),
        3 => (volume_name(), 0..3u64).prop_map(|(name, id)| Command::EndJob { name, id: uuid(id) }),
        8 => (volume_name(), 0..4u64, 0..8u64).prop_map(|(name, attachment, incarnation)| {
            // Resolved against the state before it is applied: see `aim`.
            let request = OpenVolume { node: NodeId(0), incarnation: uuid(incarnation), attachment, fenced: None };
            Command::Open { name, request }
        }),
        12 => (volume_name(), 0..4u32, proptest::collection::vec(0..12u32, 1..6), alive())
            .prop_map(|(name, back, indexes, alive)| {
                Command::Allocate { name, request: AllocateChunks { epoch: Epoch(back), indexes }, alive, full: Default::default() }
            }),
        2 => (1..=5u32).prop_map(|node| Command::ConfirmDeleted { node: NodeId(node), replicas: Vec::new() }),
        20 => change_command(),
        3 => (1..=8u32, disk_state(), 0..3u8).prop_map(|(disk, state, by)| {
            let by = [Decider::Silence, Decider::Failure, Decider::Operator][usize::from(by)];
            Command::SetDisk { disk: DiskId(disk), state, reason: None, by }
        }),
        2 => (1..6u64, 1..6u32).prop_map(|(v, n)| Command::AttachRepair { volume: VolumeId(v), node: NodeId(n) }),
        1 => (1..6u64, 0..40u64).prop_map(|(v, attachment)| Command::DetachRepair { volume: VolumeId(v), attachment }),
        1 => (0..2u64).prop_map(|rate| Command::SetBackgroundRate { rate: Some(rate) }),
        12 => operator_command(),
        2 => (0..400u32).prop_map(|percent| {
            let over_provision = Some(if percent < 200 { Limit::None } else { Limit::Percent(percent) });
            Command::SetLimits(ChangeLimits { over_provision, ..ChangeLimits::default() })
        }),
    ]
}

/// Moves are aimed at copies that are there.
fn operator_command() -> impl Strategy<Value = Command> {
    let moves = proptest::collection::vec((0..60u64, 1..9u32), 1..6);
    prop_oneof![
        2 => (1..6u32, proptest::bool::ANY).prop_map(|(node, drain)| {
            Command::SetNode { node: NodeId(node), request: SetNodeState { drain, reason: None } }
        }),
        1 => (1..6u32, proptest::bool::ANY).prop_map(|(n, force)| Command::RemoveNode { node: NodeId(n), force }),
        1 => (1..9u32, proptest::bool::ANY).prop_map(|(d, force)| Command::RemoveDisk { disk: DiskId(d), force }),
        1 => (1..9u32, 0..200u32).prop_map(|(d, weight)| Command::SetDiskWeight { disk: DiskId(d), weight }),
        1 => proptest::option::of(4..8u16).prop_map(|width| {
            Command::SetPlacement(ChangePlacement { scatter_width: Some(width.unwrap_or(0)), ..Default::default() })
        }),
        4 => moves.prop_map(|moves| {
            let one = |(replica, to)| PlannedMove {
                volume: VolumeId(0), index: 0, replica: ReplicaId(replica), from: DiskId(0), to: DiskId(to), bytes: 1,
            };
            Command::StartRebalance { goal: RebalanceGoal::Space, moves: moves.into_iter().map(one).collect() }
        }),
        1 => Just(Command::CancelRebalance),
        1 => (0..60u64).prop_map(|r| Command::SkipMoves { replicas: BTreeSet::from([ReplicaId(r)]) }),
        1 => (0..2u32, 1..100u64).prop_map(|(node, seconds)| {
            let node = (node > 0).then(|| "n1".to_string());
            Command::StartMaintenance(StartMaintenance { node, seconds, reason: None })
        }),
        1 => Just(Command::EndMaintenance { node: None }),
    ]
}

/// Copies that are there, by position; each once.
fn aim_moves(moves: Vec<PlannedMove>, state: &State) -> Vec<PlannedMove> {
    let volumes = (1..60).map(VolumeId).filter_map(|id| Some((id, state.volume(id)?)));
    let all: Vec<(VolumeId, u32, ReplicaPlace)> = volumes
        .flat_map(|(id, v)| v.chunks.iter().flat_map(move |(i, c)| c.replicas.iter().map(move |r| (id, *i, *r))))
        .collect();
    let mut seen = BTreeSet::new();
    let aimed = moves.into_iter().map(|one| match all.get(one.replica.0 as usize % all.len().max(1)) {
        Some((volume, index, r)) => {
            PlannedMove { volume: *volume, index: *index, replica: r.replica, from: r.disk, ..one }
        }
        None => one,
    });
    aimed.filter(|one| seen.insert(one.replica)).collect()
}

/// Makes most commands meaningful: a random epoch or attachment would nearly always be refused.
fn aim(command: Command, state: &State) -> Command {
    match command {
        Command::Open { name, request } => {
            let Some(at) = state.volume_named(&name).ok().and_then(|v| v.attachment) else {
                return Command::Open { name, request };
            };
            let current = state.node(at.node).map_or(request.incarnation, |n| n.incarnation);
            let incarnation = if request.incarnation > uuid(1) { current } else { request.incarnation };
            let attachment = at.attachment.saturating_sub(request.attachment / 3);
            Command::Open { name, request: OpenVolume { node: at.node, incarnation, attachment, fenced: None } }
        }
        Command::Allocate { name, request, alive, full } => {
            let newest = state.volume_named(&name).map_or(0, |v| v.epoch.0);
            let epoch = Epoch(newest.saturating_sub(request.epoch.0 / 3));
            Command::Allocate { name, request: AllocateChunks { epoch, ..request }, alive, full }
        }
        Command::ConfirmDeleted { node, .. } => {
            let mut replicas = state.intent(node).map(|i| i.deletes).unwrap_or_default();
            replicas.truncate(3);
            Command::ConfirmDeleted { node, replicas }
        }
        Command::ChangeReplicas { name, request, alive, full } => {
            let Ok(volume) = state.volume_named(&name) else {
                return Command::ChangeReplicas { name, request, alive, full };
            };
            let epoch = Epoch(volume.epoch.0.saturating_sub(request.epoch.0 / 3));
            let changes = request.changes.into_iter().map(|c| aim_change(c, state, volume.id)).collect();
            Command::ChangeReplicas { name, request: ChangeReplicas { epoch, changes }, alive, full }
        }
        Command::StartRebalance { goal, moves } => Command::StartRebalance { goal, moves: aim_moves(moves, state) },
        other => aim_version(other, state),
    }
}

fn aim_version(command: Command, state: &State) -> Command {
    let epoch = |name: &str, back: Epoch| {
        let newest = (1..60).filter_map(|id| state.volume(VolumeId(id))).find(|v| v.name == name);
        Epoch(newest.map_or(0, |v| v.epoch.0.saturating_sub(back.0 / 3)))
    };
    let versions = |name: &str| state.volume_versions(name).unwrap_or_default();
    let aim_name = |name: String| match SnapshotName::parse(&name) {
        Some(snapshot) => aim_snapshot(snapshot, state).to_string(),
        None => name,
    };
    match command {
        Command::Attach { name, node, alive } => Command::Attach { name: aim_name(name), node, alive },
        Command::Detach { name } => Command::Detach { name: aim_name(name) },
        Command::DeleteSnapshot(name) => Command::DeleteSnapshot(aim_snapshot(name, state)),
        Command::Rollback(name) => Command::Rollback(aim_snapshot(name, state)),
        Command::CreateClones(request) => {
            let from = aim_snapshot(request.from, state);
            Command::CreateClones(CreateClones { from, ..request })
        }
        Command::Moved { name, request: Moved { epoch: back, held, .. } } => {
            let version = versions(&name).hold.unwrap_or_default();
            let request = Moved { epoch: epoch(&name, back), version, held };
            Command::Moved { name, request }
        }
        Command::FinishSnapshots { name, request: Sealed { epoch: back, version } } => {
            let version = Version(versions(&name).version.0.saturating_sub(version.0));
            let request = Sealed { epoch: epoch(&name, back), version };
            Command::FinishSnapshots { name, request }
        }
        Command::Pruned { name, request: Pruned { epoch: back, number } } => {
            let number = versions(&name).number.saturating_sub(number);
            let request = Pruned { epoch: epoch(&name, back), number };
            Command::Pruned { name, request }
        }
        Command::Flattened { name, request } => {
            let request = Flattened { epoch: epoch(&name, request.epoch) };
            Command::Flattened { name, request }
        }
        other => other,
    }
}

/// One that is there; which, the name says.
fn aim_snapshot(name: SnapshotName, state: &State) -> SnapshotName {
    let all = state.snapshots_after(None, Default::default(), 99).unwrap_or_default();
    let position: usize = name.volume.bytes().chain(name.snapshot.bytes()).map(usize::from).sum();
    match all.get(position % all.len().max(1)) {
        Some((_, snapshot)) => SnapshotName { volume: snapshot.volume.clone(), snapshot: snapshot.name.clone() },
        None => name,
    }
}

fn aim_change(change: ReplicaChange, state: &State, volume: VolumeId) -> ReplicaChange {
    let chunks = state.volume(volume).map(|v| v.chunks.clone()).unwrap_or_default();
    let index = chunks.keys().cycle().nth(change.index as usize).copied().unwrap_or(change.index);
    let Some(chunk) = chunks.get(&index) else { return change };
    let member = |r: &ReplicaId| chunk.replicas.get(r.0 as usize).map_or(*r, |place| place.replica);
    ReplicaChange {
        index,
        config: ConfigNo(chunk.config.0.saturating_sub(change.config.0 / 4)),
        remove: change.remove.iter().map(member).collect(),
        add: change.add,
    }
}

/// Four nodes and three volumes that are open: most commands then have something to work on.
fn start() -> State {
    let mut state = cluster(&[12, 12, 12, 12]);
    for (i, copies) in (0..3).zip(1..) {
        let name = format!("v{i}");
        create(&mut state, &name, 1 << 30, copies).expect("created");
        attach(&mut state, &name, Some(&format!("n{copies}"))).expect("attached");
        open(&mut state, &name, 100 + u64::from(copies)).expect("opened");
    }
    state
}

fn bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.freeze().save(&mut bytes).expect("a snapshot");
    bytes
}

/// What a snapshot makes of it.
fn reread(state: &State) -> State {
    let read = State::load(bytes(state).as_slice()).expect("a valid snapshot");
    assert_eq!((&read, read.check()), (state, Ok(())));
    read
}

/// Little else than versions, and gateways that do their part.
fn versions_only() -> impl Strategy<Value = Command> {
    let everyone = || (1..=4).map(NodeId).collect::<BTreeSet<_>>();
    prop_oneof![
        12 => version_command(),
        2 => volume_name().prop_map(|name| Command::DeleteVolume { name }),
        2 => volume_name().prop_map(move |name| Command::Attach { name, node: None, alive: everyone() }),
        4 => volume_name().prop_map(|name| Command::Detach { name }),
        3 => snapshot_name().prop_map(move |name| Command::Attach { name: name.to_string(), node: None, alive: everyone() }),
        1 => snapshot_name().prop_map(|name| Command::Detach { name: name.to_string() }),
        4 => volume_name().prop_map(|name| {
            Command::Open { name, request: OpenVolume { node: NodeId(0), incarnation: uuid(9), attachment: 0, fenced: None } }
        }),
        3 => (volume_name(), 0..16u32).prop_map(move |(name, index)| {
            let request = AllocateChunks { epoch: Epoch(0), indexes: vec![index] };
            Command::Allocate { name, request, alive: everyone(), full: Default::default() }
        }),
        3 => (1..12u64, 1..4u32).prop_map(|(v, n)| Command::AttachRepair { volume: VolumeId(v), node: NodeId(n) }),
    ]
}

/// Two clones of a volume that is gone, one of them with a snapshot of its own.
fn start_with_clones() -> State {
    let mut state = start();
    let names = Family { name: "c".into(), count: Some(2), first: 1 };
    snapshot(&mut state, &["v0@s0"]).expect("taken");
    snapshot(&mut state, &["v1@s0"]).expect("taken");
    sealed(&mut state, "v0", Epoch(1), 1).expect("sealed");
    clone(&mut state, "v0@s0", names).expect("cloned");
    state.apply(&Command::Detach { name: "v0".into() }).expect("detached");
    state.apply(&Command::DeleteSnapshot(at("v0@s0"))).expect("deleted");
    state.apply(&Command::DeleteVolume { name: "v0".into() }).expect("deleted");
    snapshot(&mut state, &["c-1@s0"]).expect("taken");
    state
}

/// Applies the commands, and checks everything that can be checked after each.
fn run(start: fn() -> State, raw: Vec<Command>) -> Result<(), TestCaseError> {
    let mut state = start();
    let mut history = History::default();
    let mut log = Vec::new();
    for command in raw {
        let command = aim(command, &state);
        let before = state.clone();
        match state.apply(&command) {
            Ok(answer) => {
                history.record(&command, &answer);
                if let Answer::Changed(changed) = &answer {
                    check_newcomers(&before, changed);
                }
            }
            Err(_) => prop_assert_eq!(&before, &state, "a refusal changed the state: {:?}", command),
        }
        prop_assert_eq!(state.check(), Ok(()), "after {:?}", command);
        check_frozen(&before, &state);
        for node in state.node_ids() {
            let (old, new) = (before.intent(node), state.intent(node));
            if let (Some(old), Some(new)) = (old, new) {
                prop_assert!(new.revision >= old.revision);
                prop_assert!(old == new || new.revision > old.revision, "intent moved silently: {:?}", command);
            }
        }
        log.push(command);
    }

    // The log as other members read it, with a snapshot taken half-way.
    let wire = serde_json::to_vec(&log).expect("a log");
    let log: Vec<Command> = serde_json::from_slice(&wire).expect("the same log");
    let mut replayed = start();
    for (i, command) in log.iter().enumerate() {
        if i == log.len() / 2 {
            replayed = reread(&replayed);
        }
        let _ = replayed.apply(command);
    }
    prop_assert_eq!(bytes(&replayed), bytes(&state));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_replay_is_exact(raw in proptest::collection::vec(command(), 1..120)) {
        run(start, raw)?;
    }

    #[test]
    fn so_they_do_when_all_is_about_versions(raw in proptest::collection::vec(versions_only(), 1..120)) {
        run(start_with_clones, raw)?;
    }
}
