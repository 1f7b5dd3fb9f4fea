//! Snapshots, clones, sizes: the commands against a meta server that answers as told.

mod support;

use serde_json::{Value, json};
use support::http::Response;
use support::script::*;

fn snapshot(name: &str, state: &str, clones: u64) -> Value {
    json!({"volume": "vm1", "name": name, "version": 1, "size": 1u64 << 30, "state": state,
           "created_ms": 1_709_164_800_000u64, "clones": clones})
}

fn taken(status: u16, snapshots: &[Value]) -> Response {
    Response::json(status, json!({ "snapshots": snapshots }))
}

/// The body of the only request to `path`.
fn body(server: &Server, line: &str) -> Value {
    let asked = server.asked();
    let found: Vec<&String> = asked.iter().filter(|a| a.starts_with(line)).collect();
    assert_eq!(found.len(), 1, "{asked:?}");
    serde_json::from_str(found[0][line.len()..].trim()).expect("a JSON body")
}

const TAKE: &str = "POST /v1/snapshots?wait_ms=5000";

#[test]
fn a_snapshot_is_taken() {
    let server = Server::start([(TAKE, taken(201, &[snapshot("a", "done", 0)]))]);
    let text = server.run(&["snapshot", "create", "vm1@a"]).expect(0).stdout;
    assert!(text.starts_with("Snapshot vm1@a taken;") && text.contains("--from vm1@a"), "{text}");
    let wanted = json!({"snapshots": [{"volume": "vm1", "snapshot": "a"}]});
    assert_eq!(body(&server, TAKE), wanted);
    let json = server.run(&["snapshot", "create", "vm1@a", "--json"]).expect(0).json();
    assert_eq!(json["snapshots"][0]["state"], "done");
}

#[test]
fn a_group_waits_until_the_last_is_complete() {
    let mut other = snapshot("a", "done", 0);
    other["volume"] = "vm2".into();
    let server = Server::start([
        (TAKE, taken(202, &[snapshot("a", "pending", 0), other])),
        ("GET /v1/volumes/vm1/snapshots/a", ok(snapshot("a", "pending", 0))),
        ("GET /v1/volumes/vm1/snapshots/a", ok(snapshot("a", "done", 0))),
    ]);
    let ran = server.run(&["snapshot", "create", "vm1@a", "vm2@a", "--json"]).expect(0).json();
    assert_eq!((&ran["snapshots"][0]["state"], &ran["snapshots"][1]["volume"]), (&json!("done"), &json!("vm2")));
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_snapshot_that_is_not_completed_is_not_waited_for_for_ever() {
    let pending = || snapshot("a", "pending", 0);
    let server = Server::start([
        ("POST /v1/snapshots?wait_ms=200", taken(202, &[pending()])),
        ("GET /v1/volumes/vm1/snapshots/a", ok(pending())),
    ]);
    let ran = server.run(&["snapshot", "create", "vm1@a", "--timeout", "200ms"]).expect(1);
    assert!(ran.stderr.starts_with("levee: snapshot vm1@a is taken, but not complete after 0.2 s"), "{}", ran.stderr);
    assert!(ran.stderr.contains("levee snapshot list vm1") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
}

#[test]
fn a_repeated_request_finds_its_snapshots() {
    let server = Server::start([
        (TAKE, problem(503, "unavailable", "no leader")),
        (TAKE, problem(409, "exists", "there is a snapshot vm1@a already")),
        ("GET /v1/volumes/vm1/snapshots/a", ok(snapshot("a", "done", 0))),
    ]);
    server.run(&["snapshot", "create", "vm1@a"]).expect(0);
    let server = Server::start([(TAKE, problem(409, "exists", "there is a snapshot vm1@a already"))]);
    let ran = server.run(&["snapshot", "create", "vm1@a"]).expect(1);
    assert_eq!(ran.stderr, "levee: there is a snapshot vm1@a already\n");
}

#[test]
fn snapshots_are_listed() {
    let page = json!({"items": [snapshot("a", "done", 3), snapshot("b", "deleting", 1)]});
    let server = Server::start([
        ("GET /v1/snapshots?limit=1000", ok(page.clone())),
        ("GET /v1/snapshots?limit=1000&volume=vm1", ok(page)),
        ("GET /v1/snapshots?limit=1000&volume=vm2", ok(json!({"items": []}))),
        ("GET /v1/volumes/vm1", ok(volume(Value::Null))),
    ]);
    let text = server.run(&["snapshot", "list", "vm1"]).expect(0);
    assert!(
        text.stdout.contains("EXCLUSIVE") && text.stderr.contains("levee snapshot list vm1 --measure"),
        "{}",
        text.stderr
    );
    let text = server.run(&["snapshot", "list"]).expect(0).stdout;
    assert!(text.contains("vm1@b") && text.contains("deleting") && text.contains("2024-02-29 00:00:00 UTC"), "{text}");
    assert_eq!(server.run(&["snapshot", "list", "vm1", "--json"]).expect(0).json()[1]["name"], "b");
    let text = server.run(&["snapshot", "list", "vm2"]).expect(0).stdout;
    assert!(text.contains("levee snapshot create vm2@NAME"), "{text}");
}

#[test]
fn deleted_snapshots_with_clones_are_said_to_stay() {
    let server = Server::start([
        ("DELETE /v1/volumes/vm1/snapshots/a", ok(snapshot("a", "done", 0))),
        ("DELETE /v1/volumes/vm1/snapshots/b", ok(snapshot("b", "deleting", 2))),
        ("DELETE /v1/volumes/vm1/snapshots/c", problem(404, "not-found", "volume 'vm1' has no snapshot 'c'")),
    ]);
    let text = server.run(&["snapshot", "delete", "vm1@a", "vm1@b"]).expect(0).stdout;
    assert!(text.starts_with("Snapshot vm1@a is deleted.\n") && text.contains("until its 2 clones"), "{text}");
    let json = server.run(&["snapshot", "delete", "vm1@a", "vm1@b", "--json"]).expect(0).json();
    assert_eq!((&json["deleted"], &json["kept_for_clones"][0]["name"]), (&json!(2), &json!("b")));
    let ran = server.run(&["snapshot", "delete", "vm1@a", "vm1@c"]).expect(1);
    assert!(ran.stderr.contains("after 1 of 2") && ran.stderr.contains("no snapshot 'c'"), "{}", ran.stderr);
}

#[test]
fn a_rollback_names_the_snapshot() {
    let server = Server::start([("POST /v1/volumes/vm1/rollback", ok(volume(Value::Null)))]);
    let text = server.run(&["snapshot", "rollback", "vm1@a"]).expect(0).stdout;
    assert!(text.contains("is what it was at vm1@a"), "{text}");
    assert_eq!(body(&server, "POST /v1/volumes/vm1/rollback"), json!({"snapshot": "a"}));
}

#[test]
fn clones_are_made_one_by_one_or_by_the_thousand() {
    let created = |count: u32, first: &str, last: &str| {
        let from = json!({"volume": "golden", "snapshot": "v3"});
        json!({"from": from, "count": count, "first": first, "last": last, "size": 1u64 << 30})
    };
    let clones = "POST /v1/clones";
    let server = Server::start([(clones, Response::json(201, created(1, "vm2", "vm2")))]);
    let text = server.run(&["volume", "create", "vm2", "--from", "golden@v3"]).expect(0).stdout;
    assert!(text.starts_with("Volume vm2 of 1 GiB continues from golden@v3"), "{text}");
    let wanted = json!({"from": {"volume": "golden", "snapshot": "v3"}, "name": "vm2", "first": 1});
    assert_eq!(body(&server, clones), wanted);

    let server = Server::start([(clones, Response::json(201, created(1000, "d11-x", "d1010-x")))]);
    let args = ["--count", "1000", "--first", "11", "--size", "2G", "--copies", "2"];
    let args = [&["volume", "create", "d{}-x", "--from", "golden@v3"][..], &args].concat();
    let text = server.run(&args).expect(0).stdout;
    assert_eq!(text, "1000 volumes of 1 GiB, d11-x to d1010-x, continue from golden@v3.\n");
    let body = body(&server, clones);
    assert_eq!((&body["count"], &body["first"], &body["copies"]), (&json!(1000), &json!(11), &json!(2)));
}

#[test]
fn many_volumes_are_deleted_and_refusals_are_named() {
    let deletions = "POST /v1/deletions";
    let server = Server::start([
        (deletions, ok(json!({"deleted": 1000, "refused": [], "refusals": 0}))),
        ("DELETE /v1/volumes/vm1", Response { status: 204, content_type: "text/plain", body: String::new() }),
    ]);
    server.run(&["volume", "delete", "vm1"]).expect(0);
    let text = server.run(&["volume", "delete", "desk", "--count", "1000"]).expect(0).stdout;
    assert_eq!(text, "1000 volumes are deleted.\n");
    assert_eq!(body(&server, deletions), json!({"volumes": [{"name": "desk", "count": 1000, "first": 1}]}));

    let refused = json!([{"volume": "vm2", "kind": "conflict", "detail": "volume 'vm2' is attached to node 'n1'"}]);
    let server = Server::start([(deletions, ok(json!({"deleted": 1, "refused": refused, "refusals": 1})))]);
    let ran = server.run(&["volume", "delete", "vm1", "vm2", "--json"]).expect(1);
    assert_eq!(ran.json()["refused"][0]["volume"], "vm2");
    assert!(ran.stderr.contains("1 volumes are not deleted: volume 'vm2' is attached"), "{}", ran.stderr);
}

#[test]
fn sizes_grow_and_shrink_only_when_allowed() {
    let mut larger = volume(Value::Null);
    larger["size"] = (2u64 << 30).into();
    let server =
        Server::start([("GET /v1/volumes/vm1", ok(volume(Value::Null))), ("POST /v1/volumes/vm1/resize", ok(larger))]);
    let text = server.run(&["volume", "resize", "vm1", "--size", "2G"]).expect(0).stdout;
    assert_eq!(text, "Volume vm1 has 2 GiB now.\n");
    assert_eq!(body(&server, "POST /v1/volumes/vm1/resize"), json!({"size": 2u64 << 30, "allow_shrink": false}));
    let ran = server.run(&["volume", "resize", "vm1", "--size", "512M"]).expect(2);
    assert!(ran.stderr.contains("--allow-shrink"), "{}", ran.stderr);
    server.run(&["volume", "resize", "vm1", "--size", "512M", "--allow-shrink"]).expect(0);
}

#[test]
fn flattening_is_waited_for() {
    let mut clone = volume(Value::Null);
    clone["parent"] = json!({"volume": "golden", "id": 3, "snapshot": "v3"});
    clone["flattening"] = true.into();
    let start = ("POST /v1/volumes/vm1/flatten", ok(clone.clone()));
    let show = "GET /v1/volumes/vm1";
    let server = Server::start([start, (show, ok(clone.clone())), (show, ok(volume(Value::Null)))]);
    let json = server.run(&["volume", "flatten", "vm1", "--json"]).expect(0).json();
    assert_eq!(json, json!({"volume": "vm1", "flattened": true}));

    let start = ("POST /v1/volumes/vm1/flatten", ok(clone.clone()));
    let server = Server::start([start, (show, ok(clone))]);
    let ran = server.run(&["volume", "flatten", "vm1", "--timeout", "200ms"]).expect(1);
    assert!(ran.stderr.contains("not flattened after 0.2 s; it goes on in the background"), "{}", ran.stderr);
}

#[test]
fn a_volume_shows_where_it_comes_from_and_its_snapshots() {
    let mut clone = volume(Value::Null);
    clone["parent"] = json!({"volume": "golden", "id": 3, "snapshot": "v3"});
    clone["snapshots"] = 2.into();
    let server = Server::start([
        ("GET /v1/volumes/vm1", ok(clone)),
        ("GET /v1/nodes?limit=1000", ok(json!({"items": []}))),
        (
            "GET /v1/snapshots?limit=1000&volume=vm1",
            ok(json!({"items": [snapshot("a", "done", 0), snapshot("b", "pending", 0)]})),
        ),
    ]);
    let text = server.run(&["volume", "show", "vm1"]).expect(0).stdout;
    assert!(text.contains("Used        not known: nobody serves it"), "{text}");
    assert!(text.contains("Parent      golden@v3\n"), "{text}");
    assert!(text.contains("Snapshots   2, newest first: b, a\n"), "{text}");
}
