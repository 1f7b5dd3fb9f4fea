//! A gateway that was replaced does not pass for that of another volume with the same name.

use crate::common::*;
use levee_meta_state::{Command, Outcome, State};
use levee_proto::api::*;
use levee_proto::*;

/// The attachment that a gateway of the volume has now.
fn caller(state: &State, name: &str) -> AttachmentId {
    let volume = state.volume_named(name).expect("it is there");
    AttachmentId { volume: volume.id, attachment: volume.attachment.expect("attached").attachment }
}

fn call(state: &mut State, caller: AttachmentId, command: Command) -> Outcome {
    let outcome = state.apply(&Command::Of { caller, command: Box::new(command) });
    state.check().expect("a sound state");
    outcome
}

/// Everything that a gateway says, as of its epoch.
fn calls(state: &State, name: &str, node: NodeId, epoch: Epoch, attachment: u64) -> Vec<Command> {
    let (name, alive, full) = (name.to_string(), everyone(state), Default::default());
    let version = Version(1);
    vec![
        Command::Open {
            name: name.clone(),
            request: OpenVolume { node, incarnation: uuid(101), attachment, fenced: None },
        },
        Command::Allocate {
            name: name.clone(),
            request: AllocateChunks { epoch, indexes: vec![0] },
            alive: alive.clone(),
            full,
        },
        Command::ChangeReplicas {
            name: name.clone(),
            request: ChangeReplicas { epoch, changes: vec![] },
            alive,
            full: Default::default(),
        },
        Command::Moved { name: name.clone(), request: Moved { epoch, version, held: false } },
        Command::FinishSnapshots { name: name.clone(), request: Sealed { epoch, version } },
        Command::Pruned { name: name.clone(), request: Pruned { epoch, number: 99 } },
        Command::Flattened { name, request: Flattened { epoch } },
    ]
}

/// A clone `c` of a snapshot, attached to `n1`, open, being flattened.
fn clone_of_golden(state: &mut State) -> OpenedVolume {
    clone(state, "golden@s", Family::single("c")).unwrap();
    attach(state, "c", Some("n1")).unwrap();
    let opened = open(state, "c", 101).unwrap();
    state.apply(&Command::Flatten { name: "c".into() }).unwrap();
    opened
}

#[test]
fn the_gateway_of_a_volume_that_is_gone_is_refused_for_one_of_the_same_name() {
    let mut state = golden();
    let old = clone_of_golden(&mut state);
    let deposed = caller(&state, "c");
    state.apply(&Command::Detach { name: "c".into() }).unwrap();
    state.apply(&Command::DeleteVolume { name: "c".into() }).unwrap();
    let new = clone_of_golden(&mut state);
    assert_eq!((old.epoch, new.epoch), (Epoch(1), Epoch(1)), "epochs begin again");
    let before = state.clone();
    for command in calls(&state, "c", NodeId(1), old.epoch, deposed.attachment) {
        let refused = call(&mut state, deposed, command.clone()).expect_err("it is over");
        assert_eq!(refused.kind, ProblemKind::Fenced, "{command:?}: {refused}");
    }
    assert_eq!(state.versions_for(deposed, "c").unwrap_err().kind, ProblemKind::Fenced);
    assert_eq!(state.parent_for(deposed, "c").unwrap_err().kind, ProblemKind::Fenced);
    assert_eq!(state, before, "nothing was changed");

    let present = caller(&state, "c");
    let asked = calls(&state, "c", NodeId(1), new.epoch, present.attachment);
    for command in asked.into_iter().filter(|c| !matches!(c, Command::FinishSnapshots { .. })) {
        call(&mut state, present, command.clone()).unwrap_or_else(|p| panic!("{command:?}: {p}"));
    }
    assert_eq!(state.versions_for(present, "c").unwrap().epoch, new.epoch);
    assert!(state.parent_for(present, "c").unwrap().parent.is_none(), "it was flattened");
}

#[test]
fn another_attachment_of_the_same_volume_is_another_gateway() {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", 1 << 30, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    open(&mut state, "v", 101).unwrap();
    let first = caller(&state, "v");
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let second = open(&mut state, "v", 101).unwrap();
    for command in calls(&state, "v", NodeId(1), second.epoch, first.attachment) {
        assert_eq!(kind(call(&mut state, first, command)), ProblemKind::Fenced);
    }
    let other = AttachmentId { volume: VolumeId(first.volume.0 + 1), ..caller(&state, "v") };
    let allocate = calls(&state, "v", NodeId(1), second.epoch, 0).remove(1);
    assert_eq!(kind(call(&mut state, other, allocate.clone())), ProblemKind::Fenced);
    let present = caller(&state, "v");
    call(&mut state, present, allocate).expect("it is the present one");
}

#[test]
fn only_what_gateways_ask_is_asked_for_a_gateway() {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", 1 << 30, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let present = caller(&state, "v");
    let detach = Command::Detach { name: "v".into() };
    assert_eq!(kind(call(&mut state, present, detach.clone())), ProblemKind::Invalid);
    let nested = Command::Of { caller: present, command: Box::new(detach) };
    assert_eq!(kind(call(&mut state, present, nested)), ProblemKind::Invalid);
}
