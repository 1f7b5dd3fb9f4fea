//! What operators see and do about disks and copies: against a meta server that answers as told.

mod support;

use serde_json::{Value, json};
use support::script::*;

const GIB: u64 = 1 << 30;

fn disk(id: u32, state: &str, replicas: u64, reason: Option<&str>) -> Value {
    json!({"id": id, "uuid": UUID, "node": id, "path": "/d", "capacity": 16 * GIB, "used": GIB, "shards": 1,
           "replicas": replicas, "state": state, "reason": reason})
}

fn capacity(level: &str, detail: Value) -> Value {
    json!({"limits": {"over_provision_percent": 300, "warn_percent": 80, "full_percent": 95},
           "capacity": 48 * GIB, "provisioned": 96 * GIB, "provisionable": 144 * GIB,
           "used": 39 * GIB, "reported": 48 * GIB, "level": level, "detail": detail})
}

/// A cluster of one meta server, as `/v1/cluster` and the lists show it.
struct Seen {
    leader: Value,
    members: Value,
    nodes: Vec<Value>,
    disks: Vec<Value>,
    volumes: Vec<Value>,
    held: Value,
    capacity: Value,
}

impl Seen {
    fn well() -> Seen {
        Seen {
            leader: json!(1),
            members: json!([]),
            nodes: (1..=3).map(|id| node(id, "http://127.0.0.1:1")).collect(),
            disks: (1..=3).map(|id| disk(id, "in-service", 4, None)).collect(),
            volumes: vec![volume(attachment(report("serving", Some("/run/vm1.sock"), None)))],
            held: Value::Null,
            capacity: capacity("fine", Value::Null),
        }
    }

    fn server(&self) -> Server {
        let cluster =
            json!({"cluster": UUID, "member": 1, "leader": self.leader, "members": self.members, "applied": 5000});
        Server::start([
            ("GET /v1/cluster", ok(cluster)),
            ("GET /v1/nodes?limit=1000", ok(json!({"items": self.nodes}))),
            ("GET /v1/disks?limit=1000", ok(json!({"items": self.disks}))),
            ("GET /v1/volumes?limit=1000", ok(json!({"items": self.volumes}))),
            ("GET /v1/volumes/vm1", ok(self.volumes[0].clone())),
            ("GET /v1/capacity", ok(self.capacity.clone())),
            ("GET /v1/repair", ok(json!({"after_s": 600, "rate": null, "held": self.held}))),
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
fn a_cluster_that_fills_up_is_told_and_what_to_do() {
    let mut seen = Seen::well();
    for (level, status) in [("warn", 0), ("full", 1)] {
        seen.capacity = capacity(level, json!("the cluster fills up: 39 GiB of 48 GiB are used: add disks or nodes"));
        let (found, text, document) = seen.doctor();
        assert_eq!(found, status, "{text}");
        assert!(text.contains("39 GiB of 48 GiB are used\n") && text.contains("  add disks or nodes\n"), "{text}");
        let list = if status == 0 { "notes" } else { "problems" };
        assert_eq!(document[list][0]["kind"], "capacity", "{document}");
        let server = seen.server();
        let shown = server.run(&["status"]).expect(0).stdout;
        assert!(shown.contains("Capacity      the cluster fills up"), "{shown}");
        assert_eq!(server.run(&["status", "--json"]).expect(0).json()["capacity"]["level"], level);
    }
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
    assert_eq!(text, "All is well: 3 of 3 nodes up, 3 of 3 disks in service, 1 volume, 1 attached.\n");
    assert_eq!((&document["problems"], &document["notes"]), (&json!([]), &json!([])));
}

#[test]
fn ranges_below_their_copies_are_named_and_who_works_on_them() {
    let mut seen = Seen::well();
    seen.volumes = vec![volume(attachment(degraded()))];
    let (status, text, document) = seen.doctor();
    assert_eq!(status, 1);
    for words in [
        "volume vm1: of its chunks, 2 with all copies, 2 below 3 copies, 1 of them without a quorum",
        "chunk 5 (256 MiB to 512 MiB, stripe 2 of 4): 1 of 3 copies, not served until more are there",
        "node-2, disk 2: waits to be compared with another copy",
        "chunk 0 (0 B to 256 MiB, stripe 1 of 4): 2 of 3 copies",
        "node-1, its gateway, makes them whole",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let below = &document["below_copies"][0];
    assert_eq!((&below["volume"], &below["gateway"]), (&json!("vm1"), &json!("node-1")));
    assert_eq!((&below["ranges"][0]["from"], &below["ranges"][0]["to"]), (&json!(256 << 20), &json!(512 << 20)));
    assert_eq!(document["problems"][0]["kind"], "volume");

    let server = seen.server();
    let shown = server.run(&["volume", "show", "vm1"]).expect(0).stdout;
    for words in
        ["3 copies, 2 of them before", "2 below 3 copies", "3 GiB to make copies whole", "Repair      1 copy on disks"]
    {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    let status = server.run(&["status"]).expect(0).stdout;
    assert!(
        status.contains("2 chunks below their copies, 1 of them wait") && status.contains("levee doctor"),
        "{status}"
    );
    let status = server.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&status["repair"]["degraded_chunks"], &status["repair"]["waiting_chunks"]), (&json!(2), &json!(1)));
}

#[test]
fn disks_and_nodes_out_of_service_are_told() {
    let mut seen = Seen::well();
    seen.nodes[2]["state"] = "down".into();
    seen.disks = vec![
        disk(1, "dead", 12, Some("write error")),
        disk(2, "draining", 1, Some("SMART")),
        disk(3, "in-service", 4, None),
        disk(4, "dead", 0, None),
        disk(5, "draining", 0, None),
    ];
    seen.disks[2]["used"] = (16 * GIB - 1).into();
    seen.held = "2 of 3 nodes are down".into();
    let (status, text, document) = seen.doctor();
    assert_eq!(status, 1);
    for words in [
        "repair is held: 2 of 3 nodes are down",
        "copies cannot be put elsewhere: 0 nodes that are up have disks in service",
        "volumes with 3 copies need 3",
        "node node-3 is down",
        "600 s after it was last heard of",
        "disk 1 of node-1 is dead: write error",
        "12 copies to be made anew elsewhere",
        "Note     disk 2 of node-2 is being drained: SMART",
        "1 copy to be put elsewhere",
        "disk 3 of node-3 is full",
        "Note     disk 4 of node 4 is dead",
        "it can be taken out",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let kinds: Vec<_> = document["problems"].as_array().unwrap().iter().map(|p| p["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["repair", "repair", "node", "disk", "disk"]);
    assert_eq!(document["notes"].as_array().unwrap().len(), 3);
}

#[test]
fn volumes_that_cannot_be_used_are_told() {
    let mut full = report("serving", None, None);
    full["full"] = true.into();
    for (state, words) in [
        (full, "writes wait, the cluster is full"),
        (report("failed", None, Some("no disk")), "cannot be served: no disk"),
        (report("opening", None, Some("waits for node-2")), "not served yet: waits for node-2"),
    ] {
        let mut seen = Seen::well();
        seen.volumes = vec![volume(attachment(state))];
        let (status, text, _) = seen.doctor();
        assert!(status == 1 && text.contains(words), "{words} is not in\n{text}");
    }
    let mut seen = Seen::well();
    seen.nodes[0]["state"] = "down".into();
    let (_, text, _) = seen.doctor();
    assert!(text.contains("volume vm1 is attached to node-1, which is down"), "{text}");
}

#[test]
fn meta_servers_that_are_silent_or_have_no_leader_are_told() {
    let mut seen = Seen::well();
    seen.members = json!([{"id": 1, "url": "http://127.0.0.1:1"}]);
    let (status, text, _) = seen.doctor();
    assert!(status == 1 && text.contains("meta server 1 at http://127.0.0.1:1 does not answer"), "{text}");
    seen.leader = Value::Null;
    let (status, text, _) = seen.doctor();
    assert!(status == 1 && text.contains("have no leader"), "{text}");

    let answer =
        |applied: u64| ok(json!({"cluster": UUID, "member": 2, "leader": 1, "members": [], "applied": applied}));
    let leader = Server::start([("GET /v1/cluster", answer(5000))]);
    let late = Server::start([("GET /v1/cluster", answer(7))]);
    let mut seen = Seen::well();
    seen.members = json!([{"id": 2, "url": late.url}, {"id": 1, "url": leader.url}]);
    let (status, text, _) = seen.doctor();
    assert!(status == 1 && text.contains("is 4993 log entries behind"), "{text}");
}

#[test]
fn a_volume_in_repair_is_detached_to_its_users() {
    let mut at = attachment(report("serving", None, None));
    at["repair"] = true.into();
    let mut seen = Seen::well();
    seen.volumes = vec![volume(at.clone())];
    let (status, text, _) = seen.doctor();
    assert!(status == 0 && text.contains("being repaired on node-1"), "{text}");
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
