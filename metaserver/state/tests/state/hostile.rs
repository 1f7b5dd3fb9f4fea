//! Whatever numbers a command brings, it is refused or applied: nothing panics, and what is kept fits together.
//!
//! A panic here would end every member of the group at the same entry of the log, and again at each start.

use crate::common::*;
use levee_meta_state::{Command, State};
use levee_proto::api::*;
use levee_proto::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Numbers at the ends of what fits somewhere, and such that exist.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    3,
    255,
    4096,
    u16::MAX as u64,
    (1 << 24) - 1,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 53,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Commands as they may come, each with all of its numbers.
fn samples() -> Vec<Value> {
    let at = json!({ "volume": "v0", "snapshot": "s" });
    let place = json!({ "disk": 1, "chunk": 1, "replica": 1 });
    let node = Command::RegisterNode(node_named("n2", 102, &[(1002, 40), (2002, 9)]));
    let open = |epoch: u64| json!({ "epoch": epoch, "indexes": [0, 5] });
    vec![
        serde_json::to_value(node).expect("JSON"),
        json!({ "create-volume": { "name": "v1", "size": 1 << 30, "copies": 2, "min_copies": 1 } }),
        json!({ "create-volumes": { "volumes": [{ "name": "v2", "size": 1 << 30, "copies": 2, "min_copies": 1 }] } }),
        json!({ "resize": { "name": "v0", "request": { "size": 1_u64 << 31, "allow_shrink": true } } }),
        json!({ "attach": { "name": "v0", "node": null, "alive": [1, 2, 3] } }),
        json!({ "open": { "name": "v0", "request": { "node": 1, "incarnation": uuid(101), "attachment": 1 } } }),
        json!({ "allocate": { "name": "v0", "request": open(1), "alive": [1, 2, 3], "full": [2] } }),
        json!({ "change-replicas": { "name": "v0", "alive": [1, 2, 3], "request": {
            "epoch": 1, "changes": [{ "index": 0, "config": 1, "remove": [1], "add": 1 }] } } }),
        json!({ "confirm-deleted": { "node": 1, "replicas": [place] } }),
        json!({ "set-disk": { "disk": 1, "state": "dead", "reason": null, "by": "operator" } }),
        json!({ "set-disk-weight": { "disk": 1, "weight": 50 } }),
        json!({ "attach-repair": { "volume": 1, "node": 2 } }),
        json!({ "detach-repair": { "volume": 1, "attachment": 2 } }),
        json!({ "set-background-rate": { "rate": 1000 } }),
        json!({ "begin-snapshots": { "request": { "snapshots": [at] }, "created_ms": 1 } }),
        json!({ "moved": { "name": "v0", "request": { "epoch": 1, "version": 1, "held": true } } }),
        json!({ "finish-snapshots": { "name": "v0", "request": { "epoch": 1, "version": 1 } } }),
        json!({ "pruned": { "name": "v0", "request": { "epoch": 1, "number": 1 } } }),
        json!({ "delete-snapshot": at }),
        json!({ "rollback": at }),
        json!({ "create-clones": { "from": at, "name": "c", "count": 2, "first": 1, "size": 1 << 30,
            "copies": 2, "min_copies": 1 } }),
        json!({ "delete-volumes": { "volumes": [{ "name": "c", "count": 2, "first": 1 }] } }),
        json!({ "flatten": { "name": "c-1" } }),
        json!({ "flattened": { "name": "c-1", "request": { "epoch": 1 } } }),
        json!({ "set-limits": { "warn": { "percent": 80 }, "full": { "percent": 90 }, "over_provision": { "percent": 200 } } }),
        json!({ "set-placement": { "scatter_width": 10 } }),
        json!({ "start-rebalance": { "goal": "space", "moves": [
            { "volume": 1, "index": 0, "chunk": 1, "replica": 1, "from": 1, "to": 3, "bytes": 7 }] } }),
        json!({ "skip-moves": { "replicas": [1] } }),
        json!({ "start-maintenance": { "node": "n1", "seconds": 600 } }),
        json!({ "set-node": { "node": 1, "request": { "drain": true } } }),
        json!({ "remove-disk": { "disk": 2, "force": true } }),
        json!({ "remove-node": { "node": 3, "force": true } }),
        json!({ "pin-member": { "id": 1, "folder": uuid(5) } }),
        json!({ "release-member": { "id": 1 } }),
        json!({ "detach": { "name": "v0" } }),
        json!({ "delete-volume": { "name": "v1" } }),
    ]
}

/// Changes the number at a position, counted through the whole value; whether it was there.
fn change(value: &mut Value, position: &mut usize, number: u64) -> bool {
    match value {
        Value::Number(_) if *position == 0 => {
            *value = number.into();
            true
        }
        Value::Number(_) => {
            *position -= 1;
            false
        }
        Value::Array(items) => items.iter_mut().any(|item| change(item, position, number)),
        Value::Object(fields) => fields.values_mut().any(|field| change(field, position, number)),
        _ => false,
    }
}

fn command() -> impl Strategy<Value = Option<Command>> {
    let changes = proptest::collection::vec((0..12usize, proptest::sample::select(&NUMBERS[..])), 0..3);
    (proptest::sample::select(samples()), changes).prop_map(|(mut value, changes)| {
        for (mut position, number) in changes {
            change(&mut value, &mut position, number);
        }
        // What does not fit is refused at the door.
        serde_json::from_value(value).ok()
    })
}

#[test]
fn the_samples_are_commands() {
    for sample in samples() {
        let text = sample.to_string();
        serde_json::from_value::<Command>(sample).unwrap_or_else(|e| panic!("{e}: {text}"));
    }
}

/// A volume with chunks, served by the first node.
fn used() -> State {
    let mut state = cluster(&[40, 40, 40]);
    create(&mut state, "v0", 1 << 30, 2).unwrap();
    for text in [
        json!({ "attach": { "name": "v0", "node": "n1", "alive": [1, 2, 3] } }),
        json!({ "open": { "name": "v0", "request": { "node": 1, "incarnation": uuid(101), "attachment": 1 } } }),
        json!({ "allocate": { "name": "v0", "request": { "epoch": 1, "indexes": [0] }, "alive": [1, 2, 3] } }),
    ] {
        state.apply(&serde_json::from_value(text).unwrap()).unwrap();
    }
    state
}

/// Reads all that is shown, with numbers that daemons may have said.
fn look(state: &State, said: u64) {
    let alive: BTreeSet<NodeId> = state.node_ids().collect();
    let used = state.disks().map(|(id, _)| (id, said)).collect();
    let around = levee_meta_state::Surroundings { alive, full: BTreeSet::new(), used };
    let what = WhatIf { nodes: vec!["n1".into(), "n2".into()], disks: Vec::new() };
    let _ = state.freeze().what_if(&what, &around);
    let replicas = (1..9).map(|id| (ReplicaId(id), said)).collect();
    let weights = levee_meta_state::Weights { around, bytes: replicas, load: Default::default() };
    for goal in [RebalanceGoal::Space, RebalanceGoal::Load] {
        let bounds =
            levee_meta_state::Bounds { goal, tolerance_percent: 1, max_bytes: u64::MAX, max_moves: usize::MAX };
        state.freeze().plan_rebalance(&weights, bounds);
    }
    state.node_ids().for_each(|node| drop(state.intent(node)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_number_breaks_the_state(
        commands in proptest::collection::vec(command(), 1..60),
        clock in proptest::sample::select(&NUMBERS[..]),
        said in proptest::sample::select(&NUMBERS[..]),
    ) {
        let mut state = used();
        state.set_clock(clock);
        for command in commands.into_iter().flatten() {
            let _ = state.apply(&command);
        }
        look(&state, said);
        let mut saved = Vec::new();
        state.freeze().save(&mut saved).unwrap();
        let loaded = State::load(&saved[..]);
        prop_assert!(loaded.as_ref() == Ok(&state), "{:?}", loaded.err());
    }
}
