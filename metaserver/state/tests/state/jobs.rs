//! What commands do to whole volumes, and what is left of those that died.

use crate::common::*;
use levee_meta_state::{Answer, Command, ConditionChange, Note, State};
use levee_proto::api::*;

const GIB: u64 = 1 << 30;

fn begin(state: &mut State, name: &str, id: u64, kind: JobKind) -> Result<VolumeInfo, Problem> {
    let request = BeginJob { id: uuid(id), kind, by: "levee (process 1) on h".into() };
    match state.apply(&Command::BeginJob { name: name.into(), request })? {
        Answer::Volume(volume) => Ok(volume),
        other => panic!("{other:?}"),
    }
}

fn end(state: &mut State, name: &str, id: u64) {
    state.apply(&Command::EndJob { name: name.into(), id: uuid(id) }).unwrap();
}

fn snapshot(state: &mut State, name: &str, image: Option<ImageInfo>) -> Result<Answer, Problem> {
    let request =
        CreateSnapshots { snapshots: vec![SnapshotName { volume: name.into(), snapshot: "s".into() }], image };
    state.apply(&Command::BeginSnapshots { request, created_ms: 1 })
}

fn job(state: &State) -> Option<Box<VolumeJob>> {
    state.volume_named("v").unwrap().job
}

#[test]
fn an_import_stays_marked_until_its_own_command_ends_it() {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", GIB, 3).unwrap();
    state.set_clock(5);
    begin(&mut state, "v", 1, JobKind::Import).unwrap();
    state.set_clock(9);
    begin(&mut state, "v", 1, JobKind::Import).unwrap();
    let marked = job(&state).unwrap();
    assert_eq!((marked.since_ms, marked.renewed_ms), (5, 9), "it goes on");
    end(&mut state, "v", 2);
    assert!(job(&state).is_some(), "another's");
    for refused in
        [snapshot(&mut state, "v", None).unwrap_err(), begin(&mut state, "v", 2, JobKind::Export).unwrap_err()]
    {
        assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("filled in part"), "{refused}");
    }
    begin(&mut state, "v", 2, JobKind::Import).unwrap();
    end(&mut state, "v", 1);
    assert_eq!(job(&state).unwrap().id, uuid(2), "another command has begun anew");
    end(&mut state, "v", 2);
    assert_eq!(job(&state), None);
    snapshot(&mut state, "v", None).unwrap();
    state.check().unwrap();
}

#[test]
fn what_is_made_an_image_of_or_is_gone_is_marked_no_more() {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", GIB, 3).unwrap();
    begin(&mut state, "v", 1, JobKind::Import).unwrap();
    let image = ImageInfo { format: "raw".into(), disk_size: GIB, data: 1, crc32c: 7 };
    snapshot(&mut state, "v", Some(image)).unwrap();
    assert_eq!(job(&state), None);
    create(&mut state, "w", GIB, 3).unwrap();
    begin(&mut state, "w", 1, JobKind::Import).unwrap();
    state.apply(&Command::DeleteVolume { name: "w".into() }).unwrap();
    assert_eq!(state.jobs().count(), 0);
    let bytes = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<State>(&bytes).unwrap(), state);
}

#[test]
fn who_does_a_job_is_plain_text() {
    let mut state = cluster(&[100]);
    create(&mut state, "v", GIB, 1).unwrap();
    for by in [String::new(), "a\nb".into(), "x".repeat(MAX_JOB_BY + 1)] {
        let request = BeginJob { id: uuid(1), kind: JobKind::Copy, by };
        assert_eq!(kind(state.apply(&Command::BeginJob { name: "v".into(), request })), ProblemKind::Invalid);
    }
}

#[test]
fn conditions_are_remembered_with_their_time_and_survive_a_snapshot_of_the_state() {
    let mut state = cluster(&[100]);
    let key =
        |subject: &str| ConditionKey { kind: EventKind::Node, subject: subject.into(), word: ConditionWord::Down };
    let note =
        Note { kind: EventKind::Node, severity: Severity::Warning, subject: "n1".into(), text: "is down".into() };
    let mut tell = |at_ms, began: Vec<ConditionKey>, ended: Vec<ConditionKey>, notes: Vec<Note>| {
        state.set_clock(at_ms);
        state.apply(&Command::Conditions(ConditionChange { began, ended, notes })).unwrap();
        state.clone()
    };
    tell(5, vec![key("n1")], vec![], vec![note]);
    let state = tell(9, vec![key("n1"), key("n2")], vec![], vec![]);
    assert_eq!((state.told_since(&key("n1")), state.told_since(&key("n2"))), (Some(5), Some(9)));
    let bytes = serde_json::to_vec(&state).unwrap();
    let mut state = serde_json::from_slice::<State>(&bytes).unwrap();
    assert_eq!(state.told_conditions().count(), 2);
    let change = ConditionChange { began: vec![], ended: vec![key("n1")], notes: vec![] };
    state.apply(&Command::Conditions(change)).unwrap();
    assert_eq!(state.told_since(&key("n1")), None);
    assert_eq!(state.events_after(0, 100).events.last().unwrap().text, "is down");
}

#[test]
fn a_volume_that_somebody_uses_is_not_marked_and_not_cleaned_up() {
    let mut state = cluster(&[100, 100, 100]);
    create(&mut state, "v", GIB, 3).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let refused = begin(&mut state, "v", 1, JobKind::Export).unwrap_err();
    assert!(refused.detail.contains("is attached to node 'n1'"), "{refused}");
    let id = state.volume_named("v").unwrap().id;
    state.apply(&Command::Detach { name: "v".into() }).unwrap();
    begin(&mut state, "v", 1, JobKind::Export).unwrap();
    attach(&mut state, "v", Some("n1")).unwrap();
    let clean_up = |state: &mut State, renewed_ms| {
        let command = Command::CleanUpJob { volume: id, job: uuid(1), renewed_ms };
        state.apply(&command).unwrap();
        (state.volume_named("v").unwrap().attachment.is_some(), job(state).is_some())
    };
    let renewed = job(&state).unwrap().renewed_ms;
    assert_eq!(clean_up(&mut state, renewed + 1), (true, true), "it has been renewed since");
    assert_eq!(clean_up(&mut state, renewed), (false, true), "one step after the other");
    assert_eq!(clean_up(&mut state, renewed), (false, false));
    assert_eq!(clean_up(&mut state, renewed), (false, false), "nothing is left to do");
    begin(&mut state, "v", 1, JobKind::Copy).unwrap();
    let renewed = job(&state).unwrap().renewed_ms;
    state.apply(&Command::CleanUpJob { volume: id, job: uuid(1), renewed_ms: renewed }).unwrap();
    assert!(state.volume_named("v").is_err(), "it was made for the command alone");
    state.check().unwrap();
}
