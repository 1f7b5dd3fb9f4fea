//! What operators see and do about disks and copies: against a meta server that answers as told.

mod support;

use levee_proto::api::ConditionWord;
use serde_json::{Value, json};
use support::script::*;

const GIB: u64 = 1 << 30;

fn disk(id: u32, state: &str, replicas: u64, reason: Option<&str>) -> Value {
    json!({"id": id, "uuid": UUID, "node": id, "path": "/d", "capacity": 16 * GIB, "used": GIB, "shards": 1,
           "replicas": replicas, "state": state, "status": state, "reason": reason})
}

fn condition(kind: &str, word: &str, severity: &str) -> Value {
    json!({"kind": kind, "subject": "vm1", "word": word, "severity": severity, "since_ms": 1,
           "text": format!("vm1 is {word}"), "doing": ["start it again"]})
}

fn capacity(level: &str, detail: Value) -> Value {
    json!({"limits": {"over_provision_percent": 300, "warn_percent": 80, "full_percent": 95},
           "capacity": 48 * GIB, "provisioned": 96 * GIB, "provisionable": 144 * GIB,
           "used": 39 * GIB, "reported": 48 * GIB, "level": level, "detail": detail})
}

/// A cluster of one meta server, as `/v1/cluster` and the lists show it.
struct Seen {
    leader: Value,
    nodes: Vec<Value>,
    disks: Vec<Value>,
    volumes: Vec<Value>,
    conditions: Vec<Value>,
    capacity: Value,
}

impl Seen {
    fn well() -> Seen {
        Seen {
            leader: json!(1),
            nodes: (1..=3).map(|id| node(id, "http://127.0.0.1:1")).collect(),
            disks: (1..=3).map(|id| disk(id, "in-service", 4, None)).collect(),
            volumes: vec![volume(attachment(report("serving", Some("/run/vm1.sock"), None)))],
            conditions: vec![],
            capacity: capacity("fine", Value::Null),
        }
    }

    fn server(&self) -> Server {
        let cluster = json!({"cluster": UUID, "member": 1, "leader": self.leader, "members": [], "applied": 5000});
        let healthy = self.conditions.iter().all(|c| c["severity"] == "info");
        let health = json!({"healthy": healthy, "summary": "3 of 3 nodes up", "conditions": self.conditions});
        Server::start([
            ("GET /v1/cluster", ok(cluster)),
            ("GET /v1/health", ok(health)),
            ("GET /v1/nodes?limit=1000", ok(json!({"items": self.nodes}))),
            ("GET /v1/disks?limit=1000", ok(json!({"items": self.disks}))),
            ("GET /v1/volumes?limit=1000", ok(json!({"items": self.volumes}))),
            ("GET /v1/volumes/vm1", ok(self.volumes[0].clone())),
            ("GET /v1/capacity", ok(self.capacity.clone())),
            ("GET /v1/maintenance", ok(json!({"windows": []}))),
            (
                "GET /v1/rebalance",
                ok(json!({"state": "none", "goal": "space", "moves": 0, "done": 0, "under_way": 0,
                "skipped": 0, "bytes": 0, "done_bytes": 0})),
            ),
        ])
    }

    /// The exit status, the text, and the document.
    fn doctor(&self) -> (i32, String, Value) {
        let server = self.server();
        let text = server.run(&["doctor"]);
        let document = server.run(&["doctor", "--json"]);
        assert_eq!(text.status, document.status);
        let document = document.json();
        assert_eq!(document["healthy"], text.status == 0, "{document}");
        (text.status, text.stdout, document)
    }
}

#[test]
fn a_cluster_that_fills_up_is_told() {
    let mut seen = Seen::well();
    seen.capacity = capacity("warn", json!("the cluster fills up: 39 GiB of 48 GiB are used: add disks or nodes"));
    let server = seen.server();
    let shown = server.run(&["status"]).expect(0).stdout;
    assert!(shown.contains("Capacity      the cluster fills up"), "{shown}");
    assert_eq!(server.run(&["status", "--json"]).expect(0).json()["capacity"]["level"], "warn");
}

#[test]
fn limits_are_shown_and_changed() {
    let fine = || ok(capacity("fine", Value::Null));
    let server = Server::start([("GET /v1/capacity", fine()), ("POST /v1/capacity/limits", fine())]);
    let text = server.run(&["cluster", "limits"]).expect(0).stdout;
    assert!(
        text.contains("at most 3.00 times, 144 GiB") && text.contains("96 GiB in all copies (2.00 times)"),
        "{text}"
    );
    assert_eq!(server.asked(), ["GET /v1/capacity"]);
    let shown =
        server.run(&["cluster", "limits", "--warn", "70%", "--over-provision", "2.5", "--json"]).expect(0).json();
    assert_eq!(shown["limits"]["full_percent"], 95);
    server.run(&["cluster", "limits", "--full", "none"]).expect(0);
    let asked = server.asked();
    let bodies: Vec<Value> = asked[1..]
        .iter()
        .map(|line| serde_json::from_str(line.strip_prefix("POST /v1/capacity/limits ").expect("a change")).unwrap())
        .collect();
    assert_eq!(bodies, [json!({"over_provision": {"percent": 250}, "warn": {"percent": 70}}), json!({"full": "none"})]);
}

fn degraded() -> Value {
    let mut report = report("serving", None, None);
    report["healthy_chunks"] = 2.into();
    report["degraded_chunks"] = 2.into();
    report["waiting_chunks"] = 1.into();
    report["leaving_replicas"] = 1.into();
    report["copied_bytes"] = (3 * GIB).into();
    report["stall"] = json!({"requests": 3, "oldest_ms": 4200, "why": "copies are away"});
    report["degraded"] = json!([
        {"index": 5, "current": 1, "wanted": 3, "served": false, "behind": [
            {"node": 2, "disk": 2, "doing": "waits to be compared with another copy", "missing_blocks": 7},
            {"node": 3, "disk": 3, "doing": "its disk is dead: waits to be replaced", "missing_blocks": 0}]},
        {"index": 0, "current": 2, "wanted": 3, "served": true, "behind": []}
    ]);
    report
}

#[test]
fn a_well_cluster_is_told_in_a_line() {
    let (status, text, document) = Seen::well().doctor();
    assert_eq!(status, 0, "{text}");
    assert_eq!(text, "All is well: 3 of 3 nodes up.\n");
    assert_eq!((&document["problems"], &document["notes"]), (&json!([]), &json!([])));
}

/// Whatever the meta servers say is the matter is shown by all commands alike.
#[test]
fn every_condition_is_shown_by_doctor_and_status() {
    for word in ConditionWord::ALL {
        for (severity, list) in [("error", "problems"), ("warning", "problems"), ("info", "notes")] {
            let mut seen = Seen::well();
            seen.conditions = vec![condition("volume", &word.name(), severity)];
            let (found, text, document) = seen.doctor();
            assert_eq!(found, i32::from(list == "problems"), "{text}");
            let head = if list == "problems" { "Problem  " } else { "Note     " };
            assert!(text.contains(&format!("{head}vm1 is {}\n         start it again\n", word.name())), "{text}");
            let told = &document[list][0];
            assert_eq!(
                (&told["word"], &told["kind"], &told["subject"]),
                (&json!(word.name()), &json!("volume"), &json!("vm1"))
            );
            let status = seen.server().run(&["status"]).expect(0).stdout;
            let line = format!("Problem       vm1 is {}\n", word.name());
            assert_eq!(status.contains(&line), list == "problems", "{status}");
        }
    }
}

#[test]
fn ranges_below_their_copies_are_named_with_their_volume() {
    let mut seen = Seen::well();
    seen.volumes = vec![volume(attachment(degraded()))];
    let server = seen.server();
    let shown = server.run(&["volume", "show", "vm1"]).expect(0).stdout;
    for words in [
        "3 copies, 2 of them before",
        "2 below 3 copies, 1 of them without a quorum",
        "3 GiB to make copies whole",
        "Repair      1 copy on disks",
        "chunk 5 (256 MiB to 512 MiB, stripe 2 of 4): 1 of 3 copies, not served until more are there",
        "node-2, disk 2: waits to be compared with another copy",
        "chunk 0 (0 B to 256 MiB, stripe 1 of 4): 2 of 3 copies",
        "Stalled     3 requests, the oldest for 4 s: copies are away",
    ] {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    let status = server.run(&["status"]).expect(0).stdout;
    for words in ["2 chunks below their copies, 1 of them wait", "1 stalled"] {
        assert!(status.contains(words), "{words} is not in\n{status}");
    }
    let status = server.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&status["repair"]["degraded_chunks"], &status["repair"]["waiting_chunks"]), (&json!(2), &json!(1)));
    assert_eq!(status["volumes"]["stalled"], 1);
}

/// Soon, and with who is missing: nobody waits for a leader to find out that there is none.
#[test]
fn the_loss_of_most_meta_servers_is_told_by_those_that_are_left() {
    let dead = dead_url();
    let members = json!([{"id": 1, "url": "http://127.0.0.1:2"}, {"id": 2, "url": dead, "silent_ms": 65_000}]);
    let answer = json!({"cluster": UUID, "member": 3, "leader": null, "members": members, "applied": 5,
                        "leaderless_ms": 61_000});
    let server = Server::start([("GET /v1/cluster", ok(answer))]);
    for command in ["status", "doctor"] {
        let ran = server.run(&[command]).expect(1);
        for words in [
            "the meta servers have had no leader for 61 s",
            "1 of 3 answer, and most are needed",
            "meta server 2 at http://127.0.0.1:1 does not answer (connection refused); the others heard it 65 s ago",
            "volumes that are served go on",
        ] {
            assert!(ran.stdout.contains(words), "{words} is not in\n{}", ran.stdout);
        }
    }
    assert!(server.run(&["meta", "list"]).expect(1).stdout.contains("no leader"));
    assert_eq!(server.run(&["status", "--json"]).expect(1).json()["leader"], Value::Null);
    assert!(server.asked().iter().all(|line| line == "GET /v1/cluster"), "{:?}", server.asked());
}

#[test]
fn a_volume_in_repair_is_detached_to_its_users() {
    let mut at = attachment(report("serving", None, None));
    at["repair"] = true.into();
    let mut seen = Seen::well();
    seen.volumes = vec![volume(at.clone())];
    seen.volumes[0]["status"] = "detached (being repaired on node-1)".into();
    let server = seen.server();
    let list = server.run(&["volume", "list"]).expect(0).stdout;
    assert!(list.contains("detached (being repaired on node-1)"), "{list}");
    assert_eq!(server.run(&["status", "--json"]).expect(0).json()["volumes"]["attached"], 0);
    let qemu = server.run(&["qemu", "vm1"]).expect(1);
    assert!(qemu.stderr.contains("is not attached"), "{}", qemu.stderr);
    let detach = Server::start([("POST /v1/volumes/vm1/detach", ok(volume(at)))]);
    let done = detach.run(&["volume", "detach", "vm1", "--json"]).expect(0).json();
    assert_eq!(done, json!({"volume": "vm1", "detached": true}));
}

#[test]
fn disks_are_drained_taken_back_and_given_up() {
    let server = |state: &str| {
        Server::start([
            ("POST /v1/disks/2/state", ok(disk(2, state, 12, None))),
            ("GET /v1/nodes?limit=1000", ok(json!({"items": [node(2, "http://127.0.0.1:1")]}))),
        ])
    };
    for (command, state, words) in [
        ("drain", "draining", "Disk 2 of node-2 is being drained: 12 copies"),
        ("undrain", "in-service", "Disk 2 of node-2 is in service"),
        ("fail", "dead", "Disk 2 of node-2 counts as lost"),
    ] {
        let server = server(state);
        let ran = server.run(&["disk", command, "2", "--reason", "SMART"]).expect(0);
        assert!(ran.stdout.contains(words), "{}", ran.stdout);
        assert_eq!(server.asked()[0], format!(r#"POST /v1/disks/2/state {{"state":"{state}","reason":"SMART"}}"#));
        assert_eq!(server.run(&["disk", command, "2", "--json"]).expect(0).json()["state"], state);
    }
    let list = Server::start([
        ("GET /v1/disks?limit=1000", ok(json!({"items": [disk(2, "draining", 1, Some("SMART"))]}))),
        ("GET /v1/nodes?limit=1000", ok(json!({"items": [node(2, "http://127.0.0.1:1")]}))),
    ]);
    let text = list.run(&["disk", "list"]).expect(0).stdout;
    assert!(text.contains("draining") && text.contains("SMART"), "{text}");
}
