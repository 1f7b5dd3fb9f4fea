//! What holds after any sequence of commands.

mod common;

use common::*;
use levee_meta_state::{Answer, Command, State};
use levee_proto::api::*;
use levee_proto::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that was ever given out.
#[derive(Default)]
struct History {
    volumes: BTreeSet<VolumeId>,
    chunks: BTreeMap<ChunkId, ChunkInfo>,
    replicas: BTreeMap<ReplicaId, ChunkId>,
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
            _ => {}
        }
    }

    fn record_chunk(&mut self, chunk: &ChunkInfo) {
        let known = self.chunks.entry(chunk.chunk).or_insert_with(|| chunk.clone());
        assert_eq!(known, chunk, "a chunk changed its place");
        let nodes: BTreeSet<_> = chunk.replicas.iter().map(|r| r.node).collect();
        assert_eq!(nodes.len(), chunk.replicas.len(), "two replicas on one node");
        for place in &chunk.replicas {
            let owner = *self.replicas.entry(place.replica).or_insert(chunk.chunk);
            assert_eq!(owner, chunk.chunk, "replica {} given out twice", place.replica);
        }
    }
}

fn volume_name() -> impl Strategy<Value = String> {
    (0..4u8).prop_map(|n| format!("v{n}"))
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

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => register_command(),
        6 => (volume_name(), 1..=3u8, 1..1200u64).prop_map(|(name, copies, mib)| {
            let min_copies = copies.div_ceil(2);
            Command::CreateVolume(CreateVolume { name, size: mib << 20, copies, min_copies })
        }),
        1 => volume_name().prop_map(|name| Command::DeleteVolume { name }),
        5 => (volume_name(), proptest::option::of((0..5u8).prop_map(|n| format!("n{n}"))), alive())
            .prop_map(|(name, node, alive)| Command::Attach { name, node, alive }),
        1 => volume_name().prop_map(|name| Command::Detach { name }),
        8 => (volume_name(), 0..4u64, 0..8u64).prop_map(|(name, attachment, incarnation)| {
            // Resolved against the state before it is applied: see `aim`.
            let request = OpenVolume { node: NodeId(0), incarnation: uuid(incarnation), attachment };
            Command::Open { name, request }
        }),
        12 => (volume_name(), 0..4u32, proptest::collection::vec(0..12u32, 1..6), alive())
            .prop_map(|(name, back, indexes, alive)| {
                Command::Allocate { name, request: AllocateChunks { epoch: Epoch(back), indexes }, alive }
            }),
        2 => (1..=5u32).prop_map(|node| Command::ConfirmDeleted { node: NodeId(node), replicas: Vec::new() }),
    ]
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
            Command::Open { name, request: OpenVolume { node: at.node, incarnation, attachment } }
        }
        Command::Allocate { name, request, alive } => {
            let newest = state.volume_named(&name).map_or(0, |v| v.epoch.0);
            let epoch = Epoch(newest.saturating_sub(request.epoch.0 / 3));
            Command::Allocate { name, request: AllocateChunks { epoch, ..request }, alive }
        }
        Command::ConfirmDeleted { node, .. } => {
            let mut replicas = state.intent(node).map(|i| i.deletes).unwrap_or_default();
            replicas.truncate(3);
            Command::ConfirmDeleted { node, replicas }
        }
        other => other,
    }
}

/// Three nodes and three volumes that are open: most commands then have something to work on.
fn start() -> State {
    let mut state = cluster(&[12, 12, 12]);
    for (i, copies) in (0..3).zip(1..) {
        let name = format!("v{i}");
        create(&mut state, &name, 1 << 30, copies).expect("created");
        attach(&mut state, &name, Some(&format!("n{copies}"))).expect("attached");
        open(&mut state, &name, 100 + u64::from(copies)).expect("opened");
    }
    state
}

fn bytes(state: &State) -> Vec<u8> {
    serde_json::to_vec(state).expect("a snapshot")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_replay_is_exact(raw in proptest::collection::vec(command(), 1..120)) {
        let mut state = start();
        let mut history = History::default();
        let mut log = Vec::new();
        for command in raw {
            let command = aim(command, &state);
            let before = state.clone();
            match state.apply(&command) {
                Ok(answer) => history.record(&command, &answer),
                Err(_) => prop_assert_eq!(&before, &state, "a refusal changed the state: {:?}", command),
            }
            prop_assert_eq!(state.check(), Ok(()), "after {:?}", command);
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
                replayed = serde_json::from_slice(&bytes(&replayed)).expect("a valid snapshot");
            }
            let _ = replayed.apply(command);
        }
        prop_assert_eq!(bytes(&replayed), bytes(&state));
    }
}
