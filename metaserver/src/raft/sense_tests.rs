//! A member that stands somewhere, and what it is told.

use super::*;
use crate::raft::Batch;
use levee_meta_state::LEVEL;
use openraft::{CommittedLeaderId, StoredMembership};
use std::collections::{BTreeMap, BTreeSet};

const OWN: u64 = 2;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

/// Member 2 follows member 1 in term 5: entries 3 to 10 are kept, those up to 7 are committed, and up to 9 the leader agreed.
fn standing() -> Standing {
    let mut log = Positions::after(Some(id(1, 2)));
    (3..=10).for_each(|index| log.push(id(if index < 6 { 1 } else { 4 }, index)));
    let vote = Vote::new_committed(5, 1);
    Standing { own: OWN, level: LEVEL, vote, committed: Some(id(4, 7)), agreed: Some(id(4, 9)), log }
}

fn batch(level: u32, at_ms: u64) -> EntryPayload<Types> {
    EntryPayload::Normal(Batch { level, at_ms, commands: Vec::new() })
}

fn entry(id: LogId) -> Entry {
    Entry { log_id: id, payload: batch(LEVEL, 1_700_000_000_000) }
}

fn append(prev: Option<LogId>, entries: &[LogId], commit: Option<LogId>) -> AppendEntriesRequest<Types> {
    let entries = entries.iter().map(|id| entry(*id)).collect();
    AppendEntriesRequest { vote: Vote::new_committed(5, 1), prev_log_id: prev, entries, leader_commit: commit }
}

fn taken(rpc: &AppendEntriesRequest<Types>) -> Option<LogId> {
    standing().check_append(rpc).expect("it makes sense")
}

fn refused(rpc: &AppendEntriesRequest<Types>) -> String {
    match standing().check_append(rpc) {
        Err(Refusal::Senseless(why)) => why,
        other => panic!("{other:?} for {rpc:?}"),
    }
}

#[test]
fn what_a_leader_says_is_taken() {
    assert_eq!(taken(&append(Some(id(4, 9)), &[], Some(id(4, 9)))), Some(id(4, 9)));
    assert_eq!(taken(&append(Some(id(4, 10)), &[id(5, 11), id(5, 12)], Some(id(4, 9)))), Some(id(5, 12)));
    // One that looks for where the logs part: behind what it agreed with, it is told so.
    assert_eq!(taken(&append(Some(id(5, 10)), &[id(5, 11)], Some(id(4, 8)))), None);
    assert_eq!(taken(&append(Some(id(5, 40)), &[id(5, 41)], Some(id(5, 40)))), None);
    // An entry that was not agreed on is another one.
    assert_eq!(taken(&append(Some(id(4, 9)), &[id(5, 10)], Some(id(5, 10)))), Some(id(5, 10)));
    // What is not kept any more, or was sent before.
    assert_eq!(taken(&append(Some(id(1, 1)), &[id(1, 2), id(1, 3)], Some(id(1, 1)))), Some(id(4, 9)));
    assert_eq!(taken(&append(None, &[LogId::new(CommittedLeaderId::new(0, 0), 0)], None)), Some(id(4, 9)));
    // A member that lags hears how far the others are.
    assert_eq!(taken(&append(Some(id(4, 9)), &[], Some(id(5, 70)))), Some(id(4, 9)));
}

#[test]
fn a_later_leader_may_not_agree_with_what_was_not_committed() {
    let later = |prev, entries: &[LogId], commit| {
        let rpc = append(prev, entries, commit);
        AppendEntriesRequest { vote: Vote::new_committed(6, 3), ..rpc }
    };
    assert_eq!(taken(&later(Some(id(4, 7)), &[id(4, 8), id(5, 9)], Some(id(4, 8)))), Some(id(5, 9)));
    assert_eq!(taken(&later(Some(id(5, 8)), &[], None)), None);
    // It probes before entries of ours that are others' there.
    let rpc = later(Some(id(4, 7)), &[], Some(LogId::new(CommittedLeaderId::new(4, 3), 9)));
    assert_eq!(taken(&rpc), Some(id(4, 7)));
    let why = refused(&later(Some(id(3, 7)), &[], None));
    assert!(why.contains("what was agreed on"), "{why}");
    // One of before counts for nothing, whatever it says.
    let before = AppendEntriesRequest { vote: Vote::new_committed(4, 1), ..append(Some(id(9, 7)), &[id(1, 1)], None) };
    assert_eq!(taken(&before), None);
}

#[test]
fn what_no_leader_says_is_not() {
    let cases = [
        // Not in order, or with a gap that a start would stumble over.
        append(Some(id(4, 9)), &[id(5, 11)], None),
        append(Some(id(4, 9)), &[id(5, 10), id(4, 11)], None),
        append(Some(id(4, 9)), &[id(3, 10)], None),
        append(None, &[id(1, 1)], None),
        append(None, &[id(5, 999)], None),
        // Later than its leader.
        append(Some(id(4, 9)), &[id(6, 10)], None),
        append(Some(id(6, 10)), &[], None),
        // Against what is committed, or what it said itself.
        append(Some(id(5, 7)), &[], None),
        append(Some(id(4, 6)), &[id(5, 7)], None),
        append(Some(id(4, 8)), &[id(5, 9)], None),
        append(Some(id(5, 9)), &[], None),
        // Beyond all numbers.
        append(Some(id(5, u64::MAX)), &[], None),
        append(Some(id(4, 9)), &[], Some(id(5, u64::MAX))),
        // Committed, and not what is there; or of another order than the log.
        append(Some(id(4, 9)), &[], Some(id(5, 9))),
        append(Some(id(4, 9)), &[], Some(id(1, 70))),
        append(Some(id(4, 9)), &[], Some(id(6, 70))),
        append(Some(id(4, 9)), &[], Some(id(5, 1))),
    ];
    cases.iter().for_each(|rpc| drop(refused(rpc)));
}

#[test]
fn votes_are_bounded_and_nobody_speaks_for_this_member() {
    let with = |vote| AppendEntriesRequest { vote, ..append(Some(id(4, 9)), &[], None) };
    for vote in [
        Vote::new(5, 1),
        Vote::new_committed(9, OWN),
        Vote::new_committed(0, 1),
        Vote::new_committed(9, 0),
        Vote::new_committed(5 + MAX_TERM_JUMP + 1, 1),
        Vote::new_committed(u64::MAX, 1),
    ] {
        refused(&with(vote));
    }
    assert!(standing().check_append(&with(Vote::new_committed(5 + MAX_TERM_JUMP, 1))).is_ok());
    let asks = |vote, last| standing().check_vote_request(&VoteRequest::new(vote, last)).is_ok();
    assert!(asks(Vote::new(6, 3), Some(id(5, 40))) && asks(Vote::new(6, 77), None));
    assert!(!asks(Vote::new_committed(6, 3), None) && !asks(Vote::new(6, OWN), None));
    assert!(!asks(Vote::new(6, 3), Some(id(6, 40))) && !asks(Vote::new(u64::MAX, 3), None));
    assert!(!asks(Vote::new(6, 3), Some(id(5, u64::MAX))));
    // One that knows of no term yet is taken into a group of any.
    let fresh =
        Standing { vote: Vote::default(), committed: None, agreed: None, log: Positions::default(), ..standing() };
    assert!(
        fresh
            .check_append(&AppendEntriesRequest { vote: Vote::new_committed(1 << 40, 1), ..append(None, &[], None) })
            .is_ok()
    );
    assert!(fresh.check_vote_request(&VoteRequest::new(Vote::new(u64::MAX, 1), None)).is_err());
}

#[test]
fn an_answer_that_another_leads_is_bounded_too() {
    let asked = Vote::new_committed(5, OWN);
    assert!(check_higher(&Vote::new(6, 3), OWN, &asked).is_ok());
    for answer in [Vote::new(5, 1), asked, Vote::new_committed(6, OWN), Vote::new(u64::MAX, 3)] {
        assert!(check_higher(&answer, OWN, &asked).is_err(), "{answer}");
    }
}

fn members(voters: &[&[u64]], nodes: &[(u64, &str)]) -> Membership<u64, BasicNode> {
    let nodes: BTreeMap<_, _> = nodes.iter().map(|(id, addr)| (*id, serde_json::json!({ "addr": addr }))).collect();
    let voters: Vec<BTreeSet<u64>> = voters.iter().map(|config| config.iter().copied().collect()).collect();
    // As it may arrive: made by its own functions it would be in order.
    serde_json::from_value(serde_json::json!({ "configs": voters, "nodes": nodes })).expect("a membership")
}

#[test]
fn entries_are_looked_into() {
    let with = |payload| {
        let mut rpc = append(Some(id(4, 9)), &[id(5, 10)], None);
        rpc.entries[0].payload = payload;
        standing().check_append(&rpc)
    };
    assert!(with(EntryPayload::Blank).is_ok());
    assert_eq!(with(batch(LEVEL + 1, 0)), Err(Refusal::Level(LEVEL + 1)), "it may be true: see `refuse`");
    let raised = Batch { level: LEVEL, at_ms: 0, commands: vec![Command::SetLevel { level: u32::MAX }] };
    assert_eq!(with(EntryPayload::Normal(raised)), Err(Refusal::Level(u32::MAX)));
    assert!(with(batch(LEVEL, u64::MAX)).is_err());
    let membership = |m| with(EntryPayload::Membership(m)).is_ok();
    assert!(membership(members(&[&[1, 2], &[2, 3]], &[(1, "http://a:1"), (2, ""), (3, "http://c:1"), (4, "x")])));
    assert!(!membership(members(&[], &[(1, "a")])) && !membership(members(&[&[1], &[]], &[(1, "a")])));
    assert!(!membership(members(&[&[1, 2]], &[(1, "a")])), "a voter that is nowhere");
    assert!(!membership(members(&[&[0]], &[(0, "a")])) && !membership(members(&[&[1]], &[(1, "a\nb")])));
    let many: Vec<(u64, &str)> = (1..=MAX_MEMBERS as u64 + 1).map(|id| (id, "a")).collect();
    assert!(!membership(members(&[&[1]], &many)));
}

#[test]
fn snapshots_fit_to_the_log_and_are_called_like_files() {
    let piece = |last: Option<LogId>, name: &str| {
        let membership = StoredMembership::new(Some(id(1, 2)), members(&[&[1, 2, 3]], &[(1, "a"), (2, "b"), (3, "c")]));
        let meta = Meta { last_log_id: last, last_membership: membership, snapshot_id: name.into() };
        let vote = Vote::new_committed(5, 1);
        standing().check_snapshot(&InstallSnapshotRequest { vote, meta, offset: 0, data: Vec::new(), done: true })
    };
    for last in [id(1, 2), id(4, 7), id(4, 9), id(5, 9), id(5, 4000)] {
        assert_eq!(piece(Some(last), "5-1-4000"), Ok(()), "{last}");
    }
    for last in [id(5, 7), id(3, 9), id(6, 4000), id(5, u64::MAX), id(5, 1), id(1, 4000)] {
        assert!(piece(Some(last), "5-1-4000").is_err(), "{last}");
    }
    assert!(piece(None, "0").is_err());
    for name in ["", "../../x", "a/b", "5-1-4000.snapshot", "a\0b", &"7".repeat(MAX_SNAPSHOT_NAME + 1)] {
        assert!(piece(Some(id(5, 4000)), name).is_err(), "{name}");
    }
}
