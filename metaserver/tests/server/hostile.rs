//! Messages between members that make no sense: nobody ends, nothing of them is kept, and the group goes on.

use crate::common::*;
use levee_proto::api::*;
use serde_json::{Value, json};

/// Whether it was taken.
async fn send(group: &Group, to: usize, path: &str, body: Vec<u8>) -> Result<String, String> {
    let url = format!("{}/raft/{path}", group.members[to].url);
    let request = group.http.post(url).header("levee-member", (to + 1).to_string()).body(body);
    let response = request.send().await.unwrap_or_else(|e| panic!("member {} answers nothing to {path}: {e}", to + 1));
    let taken = response.status().is_success();
    let text = response.text().await.expect("a text");
    if taken { Ok(text) } else { Err(text) }
}

fn vote(term: u64, node: u64, committed: bool) -> Value {
    json!({ "leader_id": { "term": term, "node_id": node }, "committed": committed })
}

fn log_id(term: u64, node: u64, index: u64) -> Value {
    json!({ "leader_id": { "term": term, "node_id": node }, "index": index })
}

fn append(vote: Value, prev: Value, entries: Value, commit: Value) -> Vec<u8> {
    let rpc = json!({ "vote": vote, "prev_log_id": prev, "entries": entries, "leader_commit": commit });
    // A batch says its level first, and fields are written in the order of their names.
    rpc.to_string().replace("0level", "level").into_bytes()
}

fn snapshot(vote: Value, last: Value, name: &str, data: &[u8]) -> Vec<u8> {
    let membership =
        json!({ "log_id": log_id(0, 0, 0), "membership": { "configs": [[1]], "nodes": { "1": { "addr": "" } } } });
    let meta = json!({ "last_log_id": last, "last_membership": membership, "snapshot_id": name });
    let rpc = json!({ "vote": vote, "meta": meta, "offset": 0, "data": [], "done": true }).to_string();
    [&(rpc.len() as u32).to_le_bytes()[..], rpc.as_bytes(), data].concat()
}

/// Names, and the messages that each poisoned a member once.
fn nonsense() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let leader = || vote(9, 7, true);
    let entry = |index, payload: Value| json!([{ "log_id": log_id(9, 7, index), "payload": payload }]);
    let batch = |level: u64, at_ms: u64, commands: Value| json!({ "Normal": { "0level": level, "at_ms": at_ms, "commands": commands } });
    let none = || Value::Null;
    vec![
        ("a level", "append", append(leader(), none(), entry(999, batch(4_000_000_000, 0, json!([]))), none())),
        (
            "a level in order",
            "append",
            append(leader(), log_id(9, 7, 900), entry(901, batch(4_000_000_000, 0, json!([]))), none()),
        ),
        (
            "a raised level",
            "append",
            append(
                leader(),
                log_id(9, 7, 900),
                entry(901, batch(2, 0, json!([{ "set-level": { "level": u32::MAX } }]))),
                none(),
            ),
        ),
        ("a time", "append", append(leader(), log_id(9, 7, 900), entry(901, batch(2, u64::MAX, json!([]))), none())),
        ("a hole", "append", append(leader(), none(), entry(999, json!("Blank")), log_id(9, 7, 999))),
        ("another beginning", "append", append(leader(), log_id(9, 7, 0), json!([]), none())),
        ("a leader's term", "append", append(vote(u64::MAX, 7, true), none(), json!([]), none())),
        (
            "a candidate's term",
            "vote",
            json!({ "vote": vote(u64::MAX, 7, false), "last_log_id": log_id(9, 7, 1 << 40) }).to_string().into_bytes(),
        ),
        (
            "a vote that is won",
            "vote",
            json!({ "vote": vote(9, 7, true), "last_log_id": log_id(8, 7, 1 << 40) }).to_string().into_bytes(),
        ),
        ("its own name", "append", append(vote(9, 1, true), none(), json!([]), none())),
        (
            "nobody's group",
            "append",
            append(
                leader(),
                log_id(9, 7, 900),
                entry(901, json!({ "Membership": { "configs": [], "nodes": {} } })),
                none(),
            ),
        ),
        ("a place", "snapshot", snapshot(leader(), log_id(9, 7, 1 << 40), "../../../escaped", b"")),
        (
            "no snapshot",
            "snapshot",
            snapshot(leader(), log_id(9, 7, 1 << 40), "9-7-1099511627776", b"LVMETA1\nnothing"),
        ),
        ("a snapshot of the end", "snapshot", snapshot(leader(), log_id(9, 7, u64::MAX), "9-7-1", b"")),
    ]
}

#[tokio::test]
async fn messages_that_make_no_sense_end_nobody_and_are_not_kept() {
    let mut group = Group::start(3, &[]).await;
    let c = group.client(0);
    let request = node(1, 11);
    patiently("registering", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    c.create_in_the_end("before", 1).await;
    for to in 0..3 {
        // One that lags has nothing yet that could be contradicted.
        let c = group.client(to);
        patiently("catching up", async || c.get::<VolumeInfo>("/v1/volumes/before").await.ok()).await;
    }
    for (what, path, body) in nonsense() {
        // Whoever would speak for member 1 is refused by it alone.
        let members = if what == "its own name" { 0..1 } else { 0..3 };
        for to in members {
            let refused = send(&group, to, path, body.clone()).await;
            let why = refused.expect_err(what);
            assert!(why.contains("not taken"), "{what}: {why}");
        }
    }
    for round in ["at once", "after a restart"] {
        for i in 0..12 {
            c.create_in_the_end(&format!("v-{}-{i}", round.len()), 1).await;
        }
        for to in 0..3 {
            let page =
                patiently("listing", async || group.client(to).get::<Page<VolumeInfo>>("/v1/volumes").await.ok());
            assert!(page.await.items.iter().any(|v| v.name == "before"), "member {to} {round}");
        }
        group.members.iter_mut().for_each(Member::kill);
        group.members.iter_mut().for_each(Member::start);
        assert!(group.ready().await);
    }
    let base = std::fs::read_dir(group.base.path()).expect("the folder");
    let names: Vec<_> = base.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    assert!(names.iter().all(|name| !name.contains("escaped")), "{names:?}");
}
