//! Messages that one meta server might send another, and that make no sense.
//!
//! They come from nobody in the group, who knows its protocol and where its log ends. Most are a message of a leader, a candidate
//! or one that brings a snapshot, in which something is impossible. Not among them is what a leader could well say, such as other
//! entries behind the end of the log: who may speak for a member is another question than what makes sense.

use super::{Port, mutate};
use crate::cluster::Cluster;
use crate::http::ask_with;
use crate::rng::Rng;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a message may take to be answered; only a hang takes so long.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long the group may take to take a change; only one that is bricked takes so long.
const CHANGE_LIMIT: Duration = Duration::from_secs(120);
const CHANGE_PAUSE: Duration = Duration::from_millis(200);
/// Messages of one attack, which are of what was known before it, and attacks between two changes.
const MESSAGES: u32 = 20;
const CHANGE_EVERY: u32 = 25;
/// A level that no version knows.
const UNKNOWN_LEVEL: u64 = 4_000_000_000;

/// A member, as anybody sees it.
#[derive(Clone, Debug)]
struct Seen {
    port: u16,
    id: u64,
    folder: String,
    /// Term, leader and index of its newest entry.
    last: (u64, u64, u64),
}

/// The meta servers of a cluster.
pub struct RaftPort {
    ports: Vec<u16>,
    attacks: u32,
    /// Volumes that were made meanwhile.
    made: u32,
}

impl RaftPort {
    pub fn open(cluster: &Cluster, _rng: &mut Rng) -> Result<RaftPort> {
        Ok(RaftPort { ports: cluster.meta_ports()?, attacks: 0, made: 0 })
    }

    /// The group chooses a leader, and takes a change.
    fn change(&mut self) -> Result<()> {
        let name = format!("fuzzed-{}", self.made);
        let body = json!({ "name": name, "size": 4096, "copies": 1, "min_copies": 1 }).to_string();
        let begun = Instant::now();
        let said = loop {
            let port = self.ports[begun.elapsed().as_millis() as usize % self.ports.len()];
            let answer = ask_with(&address(port), "POST /v1/volumes", &JSON, body.as_bytes(), ANSWER_LIMIT);
            match answer {
                // The first answer may have been lost while a leader was chosen.
                Ok(answer) if (200..300).contains(&answer.status) || answer.status == 409 => break None,
                answer if begun.elapsed() > CHANGE_LIMIT => {
                    break Some(answer.map(|answer| answer.text().into_owned()));
                }
                _ => std::thread::sleep(CHANGE_PAUSE),
            }
        };
        ensure!(said.is_none(), "the meta servers take no change any more: {said:?}");
        self.made += 1;
        Ok(())
    }

    fn exists(&self, volume: u32) -> bool {
        let asked = format!("GET /v1/volumes/fuzzed-{volume}");
        let there =
            |port: &u16| ask_with(&address(*port), &asked, &[], b"", ANSWER_LIMIT).is_ok_and(|a| a.status == 200);
        self.ports.iter().all(there)
    }
}

impl Port for RaftPort {
    fn attack(&mut self, rng: &mut Rng) -> Result<()> {
        let looks =
            self.ports.iter().map(|port| look(*port).with_context(|| format!("asking the meta server at {port}")));
        let members: Vec<Seen> = looks.collect::<Result<_>>()?;
        for _ in 0..MESSAGES {
            let (from, to) = (rng.pick(&members).clone(), rng.pick(&members).clone());
            send(rng, &from, &to)?;
        }
        self.attacks += 1;
        if self.attacks.is_multiple_of(CHANGE_EVERY) { self.change() } else { Ok(()) }
    }

    fn check(&mut self, cluster: &Cluster) -> Result<()> {
        for daemon in cluster.daemons()?.into_iter().filter(|daemon| !daemon.is_storage()) {
            daemon.kill_and_wait()?;
        }
        cluster.up().context("after all meta servers were killed")?;
        self.change()?;
        let begun = Instant::now();
        for volume in 0..self.made {
            while !self.exists(volume) {
                ensure!(begun.elapsed() < CHANGE_LIMIT, "a member has no volume fuzzed-{volume} after a restart");
                std::thread::sleep(CHANGE_PAUSE);
            }
        }
        let strays = strays(cluster.dir())?;
        ensure!(strays.is_empty(), "files outside of their folders: {strays:?}");
        Ok(())
    }
}

/// What was written beside the folders that it belongs in.
fn strays(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false if entry.file_name().to_string_lossy().contains("escaped") => found.push(entry.path()),
                false => {}
            }
        }
    }
    Ok(found)
}

/// The meta API takes documents only if they are said to be some.
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn send(rng: &mut Rng, from: &Seen, to: &Seen) -> Result<()> {
    let (path, body) = message(rng, from, to);
    let what = format!("{} /raft/{path}", if body.is_empty() { "GET" } else { "POST" });
    let headers = headers(rng, from, to);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Whatever is answered, it is answered.
    let answer = ask_with(&address(to.port), &what, &headers, &body, ANSWER_LIMIT);
    answer.map(drop).with_context(|| {
        let start = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
        format!("meta server {} has not answered {what} with {headers:?} and {start}", to.id)
    })
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn look(port: u16) -> Result<Seen> {
    let ask = |path: &str, headers: &[(&str, &str)]| -> Result<Value> {
        let answer = ask_with(&address(port), &format!("GET /raft/{path}"), headers, b"", ANSWER_LIMIT)?;
        answer.json()
    };
    let hello = ask("hello", &[])?;
    let id = hello["id"].as_u64().context("it does not say who it is")?;
    let canvass = ask("canvass", &[("levee-member", &id.to_string())])?;
    let last = &canvass["last"];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let last = (number(&last["leader_id"]["term"]), number(&last["leader_id"]["node_id"]), number(&last["index"]));
    Ok(Seen { port, id, folder: hello["folder"].as_str().unwrap_or_default().into(), last })
}

/// Who it is from and for; now and then somebody else.
fn headers(rng: &mut Rng, from: &Seen, to: &Seen) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("levee-member", to.id.to_string()),
        ("levee-from", from.id.to_string()),
        ("levee-folder", from.folder.clone()),
        ("levee-level", "2".to_string()),
        ("levee-expected-folder", to.folder.clone()),
    ];
    match rng.below(12) {
        0 => headers[0].1 = mutate::number(rng).to_string(),
        1 => headers[1].1 = mutate::number(rng).to_string(),
        2 => headers[2].1 = format!("{:032x}", u128::from(rng.next_u64())),
        3 => headers[3].1 = mutate::number(rng).to_string(),
        4 => headers[4].1 = "x".repeat(rng.below(5000) as usize),
        5 => headers.truncate(1),
        _ => {}
    }
    headers
}

fn message(rng: &mut Rng, from: &Seen, to: &Seen) -> (&'static str, Vec<u8>) {
    match rng.below(20) {
        0 => (*rng.pick(&["canvass", "read-index", "hello", "nothing", "append"]), Vec::new()),
        1 => (*rng.pick(&["append", "vote", "snapshot"]), mutate::bytes(rng, 3000)),
        2..7 => ("vote", vote(rng, from, to)),
        7..11 => ("snapshot", snapshot(rng, from, to)),
        _ => ("append", append(rng, from, to)),
    }
}

fn log_id(term: u64, node: u64, index: u64) -> Value {
    json!({ "leader_id": { "term": term, "node_id": node }, "index": index })
}

/// Anybody may stand for election: this one need not be senseless.
fn vote(rng: &mut Rng, from: &Seen, to: &Seen) -> Vec<u8> {
    let (term, node, index) = to.last;
    let term_now = term + rng.below(4);
    let mut rpc = json!({
        "vote": { "leader_id": { "term": term_now, "node_id": from.id }, "committed": false },
        "last_log_id": log_id(term, node, index),
    });
    for _ in 0..rng.below(3) {
        mutate::change(&mut rpc, rng);
    }
    mutate::spoil(&rpc, rng)
}

fn append(rng: &mut Rng, from: &Seen, to: &Seen) -> Vec<u8> {
    let (term, node, index) = to.last;
    let leads = term + rng.below(2);
    let entries: Vec<Value> = (1..=rng.below(4)).map(|n| entry(rng, leads, from.id, index + n)).collect();
    let mut rpc = json!({
        "vote": { "leader_id": { "term": leads, "node_id": from.id }, "committed": true },
        "prev_log_id": log_id(term, node, index),
        "entries": entries,
        "leader_commit": log_id(term, node, index),
    });
    for _ in 0..rng.below(3) {
        mutate::change(&mut rpc, rng);
    }
    make_senseless(&mut rpc, rng, (leads, from.id), to.id);
    let spoilt = mutate::spoil(&rpc, rng);
    // A batch says its level first, and fields are written in the order of their names.
    match String::from_utf8(spoilt) {
        Ok(text) => text.replace("0level", "level").into_bytes(),
        Err(bytes) => bytes.into_bytes(),
    }
}

fn entry(rng: &mut Rng, term: u64, node: u64, index: u64) -> Value {
    let create = json!({ "create-volume": { "name": format!("forged-{}", rng.below(9)), "size": 4096, "copies": 1, "min_copies": 1 } });
    let payload = match rng.below(3) {
        0 => json!("Blank"),
        1 => json!({ "Normal": { "0level": 2, "at_ms": 1, "commands": [create] } }),
        _ => membership(),
    };
    json!({ "log_id": log_id(term, node, index), "payload": payload })
}

fn membership() -> Value {
    let node = |n: u64| (n.to_string(), json!({ "addr": format!("http://127.0.0.1:{n}") }));
    let nodes: serde_json::Map<String, Value> = (1..=3).map(node).collect();
    json!({ "Membership": { "configs": [[1, 2, 3]], "nodes": nodes } })
}

/// Whatever else it says by now, this cannot be.
fn make_senseless(rpc: &mut Value, rng: &mut Rng, leader: (u64, u64), receiver: u64) {
    let (term, node) = leader;
    let far = *rng.pick(&[1 << 62, i64::MAX as u64, u64::MAX]);
    let behind = rpc["prev_log_id"]["index"].as_u64().map_or(0, |index| index.wrapping_add(1));
    let payload = |payload: Value| json!([{ "log_id": log_id(term, node, behind), "payload": payload }]);
    let batch = |level: u64, at_ms: u64, commands: Value| {
        payload(json!({ "Normal": { "0level": level, "at_ms": at_ms, "commands": commands } }))
    };
    if !rpc.is_object() {
        return;
    }
    // As a leader of that term would say it, so that it is looked into.
    rpc["vote"] = json!({ "leader_id": { "term": term, "node_id": node }, "committed": true });
    match rng.below(16) {
        0 => rpc["vote"]["leader_id"]["term"] = (*rng.pick(&[1 << 40, 1 << 62, u64::MAX])).into(),
        1 => rpc["vote"]["committed"] = false.into(),
        2 => rpc["vote"]["leader_id"]["node_id"] = (*rng.pick(&[receiver, 0])).into(),
        3 => {
            rpc["entries"] =
                json!([{ "log_id": log_id(term, node, behind.wrapping_add(1 + rng.below(9))), "payload": "Blank" }])
        }
        4 => rpc["entries"] = json!([{ "log_id": log_id(term + 1, node, behind), "payload": "Blank" }]),
        5 => rpc["prev_log_id"] = log_id(term, node, far),
        6 => rpc["prev_log_id"] = log_id(term + 1 + rng.below(3), node, behind),
        7 => rpc["entries"] = batch(UNKNOWN_LEVEL, 1, json!([])),
        8 => rpc["entries"] = batch(2, *rng.pick(&[1 << 43, u64::MAX]), json!([])),
        9 => rpc["entries"] = batch(2, 1, json!([{ "set-level": { "level": u32::MAX } }])),
        10 => rpc["entries"] = batch(2, 1, json!([{ "no-such-command": {} }])),
        11 => rpc["entries"] = payload(json!({ "Membership": { "configs": [], "nodes": {} } })),
        12 => {
            rpc["entries"] =
                payload(json!({ "Membership": { "configs": [[1], []], "nodes": { "1": { "addr": "" } } } }))
        }
        13 => {
            rpc["entries"] = payload(json!({ "Membership": { "configs": [[7, 8]], "nodes": { "1": { "addr": "" } } } }))
        }
        14 => {
            rpc["prev_log_id"] = Value::Null;
            rpc["entries"] = json!([]);
            rpc["leader_commit"] = log_id(term + 1, node, 1);
        }
        _ => {
            // Entry 0 is of no leader.
            rpc["prev_log_id"] = log_id(term, node, 0);
            rpc["entries"] = json!([]);
            rpc["leader_commit"] = Value::Null;
        }
    }
}

/// What it brings is never a snapshot.
fn snapshot(rng: &mut Rng, from: &Seen, to: &Seen) -> Vec<u8> {
    let (term, node, index) = to.last;
    let name = match rng.below(3) {
        0 => mutate::text(rng),
        _ => format!("{term}-{node}-{}", index + 5),
    };
    let membership = json!({ "log_id": log_id(term.min(1), node, 0), "membership": membership()["Membership"] });
    let mut rpc = json!({
        "vote": { "leader_id": { "term": term + rng.below(2), "node_id": from.id }, "committed": true },
        "meta": { "last_log_id": log_id(term, node, index + 5), "last_membership": membership, "snapshot_id": name },
        "offset": *rng.pick(&[0, 0, 0, 1, 1 << 20, u64::MAX]),
        "data": [],
        "done": rng.chance(50),
    });
    for _ in 0..rng.below(3) {
        mutate::change(&mut rpc, rng);
    }
    let head = mutate::spoil(&rpc, rng);
    let length = if rng.chance(5) { u32::MAX } else { head.len() as u32 };
    let begin: &[u8] = if rng.chance(30) { b"LVMETA1\n" } else { b"" };
    [&length.to_le_bytes()[..], &head, begin, &mutate::bytes(rng, 3000)].concat()
}
