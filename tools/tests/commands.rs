//! The commands against a meta server and a gateway that answer as told: exit status, the shape of
//! the JSON, and what is said when something is wrong.

mod support;

use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use support::http::Response;
use support::script::*;
use support::{Ran, built, levee};

#[test]
fn wrong_usage_is_told_from_failure() {
    let refused: [&[&str]; 57] = [
        &[],
        &["frobnicate"],
        &["volume"],
        &["volume", "create", "v"],
        &["volume", "create", "v", "--size", "0"],
        &["volume", "create", "v", "--size", "4097"],
        &["volume", "create", "v", "--size", "ten"],
        &["volume", "create", "a/b", "--size", "1G"],
        &["volume", "create", "v", "--size", "1G", "--copies", "6"],
        &["volume", "create", "v", "--size", "1G", "--copies", "1", "--min-copies", "2"],
        &["volume", "attach", "v", "--timeout", "soon"],
        &["volume", "attach", "v@"],
        &["volume", "attach", "v@a@b"],
        &["volume", "import", "file", "v@a"],
        &["volume", "delete", "v@a"],
        &["volume", "flatten", "v@a"],
        &["volume", "verify", "v@a"],
        &["snapshot", "list", "v@a"],
        &["volume", "create", "v{}", "--size", "1G"],
        &["volume", "create", "v", "--size", "1G", "--count", "3"],
        &["volume", "create", "v", "--from", "a/b"],
        &["volume", "import", "file"],
        &["volume", "import", "file", "v", "--format", "vmdk"],
        &["image", "import", "file", "v", "--size", "1"],
        &["image", "import", "file", "v", "--copies", "1", "--min-copies", "2"],
        &["image", "export", "v"],
        &["volume", "create", "v", "--from", "a@b@c"],
        &["volume", "create", "v", "--from", "a@b", "--count", "0"],
        &["volume", "create", "v", "--from", "a@b", "--count", "65537"],
        &["volume", "create", "v", "--from", "a@b", "--first", "2"],
        &["volume", "create", "v{}", "--from", "a@b"],
        &["volume", "create", "v", "--from", "a@b", "--copies", "1", "--min-copies", "2"],
        &["volume", "delete"],
        &["volume", "delete", "v{}"],
        &["volume", "delete", "v", "a/b"],
        &["volume", "resize", "v"],
        &["volume", "resize", "v", "--size", "0"],
        &["volume", "recover-epochs"],
        &["volume", "recover-epochs", "v@a"],
        &["volume", "flatten"],
        &["snapshot"],
        &["snapshot", "create"],
        &["snapshot", "create", "v"],
        &["snapshot", "create", "v@a", "v@"],
        &["snapshot", "delete", "v"],
        &["snapshot", "rollback", "v@a", "w@a"],
        &["up", "--metas", "2"],
        &["up", "--cores", "9"],
        &["up", "--repair-after", "0"],
        &["disk", "drain"],
        &["disk", "fail", "node-1"],
        &["cluster"],
        &["cluster", "limits", "--over-provision", "0"],
        &["cluster", "limits", "--over-provision", "many"],
        &["cluster", "limits", "--warn", "101%"],
        &["cluster", "limits", "--full", ""],
        &["volume", "show", "v", "--timeout", "3s"],
    ];
    for args in refused {
        let ran = run(args, "http://127.0.0.1:1").expect(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}");
    }
    let ran = run(&["volume", "create", "v", "--size", "0", "--json"], "http://127.0.0.1:1").expect(2);
    assert_eq!(ran.json()["error"]["kind"], "usage");
    run(&["status"], "http://h/path").expect(2);
}

#[test]
fn every_command_has_help_with_examples() {
    let commands: [&[&str]; 35] = [
        &[],
        &["up"],
        &["down"],
        &["status"],
        &["top"],
        &["volume", "create"],
        &["volume", "list"],
        &["volume", "show"],
        &["volume", "delete"],
        &["volume", "attach"],
        &["volume", "detach"],
        &["volume", "import"],
        &["volume", "export"],
        &["volume", "verify"],
        &["volume", "resize"],
        &["volume", "flatten"],
        &["volume", "recover-epochs"],
        &["snapshot", "create"],
        &["snapshot", "list"],
        &["snapshot", "diff"],
        &["snapshot", "delete"],
        &["snapshot", "rollback"],
        &["image", "import"],
        &["image", "export"],
        &["image", "list"],
        &["image", "delete"],
        &["node", "list"],
        &["disk", "list"],
        &["disk", "drain"],
        &["disk", "undrain"],
        &["disk", "fail"],
        &["cluster", "limits"],
        &["doctor"],
        &["qemu"],
        &["--json", "status"],
    ];
    for command in commands {
        let help = run(&[command, &["--help"]].concat(), "http://127.0.0.1:1").expect(0).stdout;
        assert!(help.contains("Example") && help.contains("levee"), "{command:?}: {help}");
    }
}

#[test]
fn a_server_that_does_not_run_is_named() {
    let url = dead_url();
    let ran = run(&["volume", "list"], &url).expect(1);
    assert_eq!(
        ran.stderr,
        format!(
            "levee: cannot reach the meta server at {url}: connection refused; is it running? \
             (`levee up` starts a cluster on this machine)\n"
        )
    );
    let ran = run(&["volume", "list", "--json"], &url).expect(1);
    assert_eq!(ran.json()["error"]["kind"], "unreachable");
}

#[test]
fn the_cluster_is_found() {
    let server = Server::start([("GET /v1/volumes?limit=1000", ok(json!({"items": []})))]);
    // By the environment.
    let folder = tempfile::tempdir().unwrap();
    let list =
        |env: &str| Ran::of(levee(built(), folder.path()).env("LEVEE_CLUSTER", env).args(["volume", "list", "--json"]));
    assert_eq!(list(&server.url).expect(0).json(), json!([]));
    assert!(list("http://a/b").expect(2).stderr.contains("LEVEE_CLUSTER"));
    // The command line goes first, and a folder without a cluster is not silently passed over.
    let elsewhere = Ran::of(
        levee(built(), folder.path()).env("LEVEE_CLUSTER", &server.url).args(["volume", "list", "--dir", "nothing"]),
    );
    assert!(elsewhere.expect(1).stderr.contains("there is no cluster in nothing"));
    // The next server is asked when the first is dead.
    run(&["volume", "list"], &format!("{},{}", dead_url(), server.url)).expect(0);
}

#[test]
fn volumes_are_created_with_what_was_asked() {
    let server = Server::start([("POST /v1/volumes", Response::json(201, volume(Value::Null)))]);
    let ran = server.run(&["volume", "create", "vm1", "--size", "1G", "--copies", "1", "--json"]).expect(0);
    assert_eq!(ran.json()["size"], 1u64 << 30);
    let (line, body) =
        server.asked().remove(0).split_once(" {").map(|(l, b)| (l.to_string(), format!("{{{b}"))).unwrap();
    assert_eq!(line, "POST /v1/volumes");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"name": "vm1", "size": 1u64 << 30, "copies": 1, "min_copies": 1}));
}

#[test]
fn lists_follow_their_pages() {
    let mut second = volume(Value::Null);
    second["name"] = "vm2".into();
    let server = Server::start([
        ("GET /v1/volumes?limit=1000", ok(json!({"items": [volume(Value::Null)], "next": "vm1 &"}))),
        ("GET /v1/volumes?limit=1000&after=vm1%20%26", ok(json!({"items": [second]}))),
    ]);
    let names = server.run(&["volume", "list", "--json"]).expect(0).json();
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!("vm1"), &json!("vm2")));
    let text = server.run(&["volume", "list"]).expect(0).stdout;
    // Plain columns when it is not a terminal that reads.
    assert!(text.is_ascii() && text.starts_with("VOLUME") && text.contains("1 GiB"), "{text}");
}

#[test]
fn a_list_without_end_is_given_up() {
    let page = || ok(json!({"items": [], "next": "x"}));
    let server =
        Server::start([("GET /v1/volumes?limit=1000", page()), ("GET /v1/volumes?limit=1000&after=x", page())]);
    server.run(&["volume", "list"]).expect(1);
}

#[test]
fn refusals_are_shown_in_the_servers_words() {
    let server = Server::start([(
        "DELETE /v1/volumes/vm1",
        problem(409, "conflict", "volume vm1 is attached to node-1: detach it first"),
    )]);
    let ran = server.run(&["volume", "delete", "vm1", "--json"]).expect(1);
    assert_eq!(ran.stderr, "levee: volume vm1 is attached to node-1: detach it first\n");
    assert_eq!(ran.json()["error"]["kind"], "conflict");
}

#[test]
fn an_election_is_waited_for() {
    let server = Server::start([
        ("DELETE /v1/volumes/vm1", problem(503, "unavailable", "no leader")),
        ("DELETE /v1/volumes/vm1", Response { status: 204, content_type: "text/plain", body: String::new() }),
    ]);
    let ran = server.run(&["volume", "delete", "vm1", "--json"]).expect(0);
    assert_eq!(ran.json(), json!({"volume": "vm1", "deleted": true}));
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_repeated_request_that_finds_its_work_done_has_succeeded() {
    let mut fresh = volume(Value::Null);
    fresh["epoch"] = 0.into();
    let create = |found: Value| {
        Server::start([
            ("POST /v1/volumes", problem(503, "unavailable", "choosing a leader")),
            ("POST /v1/volumes", problem(409, "exists", "volume vm1 exists")),
            ("GET /v1/volumes/vm1", ok(found)),
        ])
    };
    create(fresh.clone()).run(&["volume", "create", "vm1", "--size", "1G"]).expect(0);
    // Somebody else's volume of that name is no success.
    let ran = create(fresh).run(&["volume", "create", "vm1", "--size", "2G"]).expect(1);
    assert_eq!(ran.stderr, "levee: volume vm1 exists\n");

    let server = Server::start([
        ("DELETE /v1/volumes/vm1", problem(503, "unavailable", "choosing a leader")),
        ("DELETE /v1/volumes/vm1", problem(404, "not-found", "no volume vm1")),
    ]);
    server.run(&["volume", "delete", "vm1"]).expect(0);
    let server = Server::start([("DELETE /v1/volumes/vm1", problem(404, "not-found", "no volume vm1"))]);
    server.run(&["volume", "delete", "vm1"]).expect(1);
}

#[test]
fn answers_that_are_no_api_are_errors() {
    for body in ["<html>", "{}", ""] {
        let answer = Response { status: 200, content_type: "text/html", body: body.into() };
        let server = Server::start([("GET /v1/volumes/vm1", answer)]);
        let ran = server.run(&["volume", "show", "vm1"]).expect(1);
        assert!(ran.stderr.contains("answered unexpectedly"), "{}", ran.stderr);
    }
}

#[test]
fn attach_waits_for_the_gateway() {
    let server = Server::start([
        ("POST /v1/volumes/vm1/attach", ok(volume(attachment(Value::Null)))),
        ("GET /v1/volumes/vm1", ok(volume(attachment(Value::Null)))),
        ("GET /v1/volumes/vm1", ok(volume(attachment(report("opening", None, Some("fencing")))))),
        ("GET /v1/volumes/vm1", serving()),
    ]);
    let ran = server.run(&["volume", "attach", "vm1", "--node", "node-1", "--json"]).expect(0);
    let served = json!({"volume": "vm1", "node": "node-1", "epoch": 4, "socket": "/run/vm1.sock", "read_only": false});
    assert_eq!(ran.json(), served);
    assert_eq!(server.asked()[0], r#"POST /v1/volumes/vm1/attach {"node":"node-1"}"#);
}

#[test]
fn a_snapshot_is_attached_shown_and_detached_by_its_name() {
    let reader = |attachment: Value| {
        let mut reader = volume(attachment);
        (reader["name"], reader["read_only"]) = ("vm1@a".into(), true.into());
        reader["status"] = "serving, read-only".into();
        ok(reader)
    };
    let serving = || reader(attachment(report("serving", Some("/run/vm1@a.sock"), None)));
    let server = Server::start([
        ("POST /v1/volumes/vm1@a/attach", reader(attachment(Value::Null))),
        ("GET /v1/volumes/vm1@a", serving()),
        ("GET /v1/nodes?limit=1000", ok(json!({"items": []}))),
        ("POST /v1/volumes/vm1@a/detach", reader(Value::Null)),
    ]);
    let text = server.run(&["volume", "attach", "vm1@a"]).expect(0).stdout;
    assert!(text.starts_with("Snapshot vm1@a is served by node-1 at /run/vm1@a.sock, for reading only"), "{text}");
    assert_eq!(server.run(&["volume", "attach", "vm1@a", "--json"]).expect(0).json()["read_only"], true);
    let text = server.run(&["volume", "show", "vm1@a"]).expect(0).stdout;
    assert!(text.starts_with("Snapshot    vm1@a\n") && text.contains("serving, read-only"), "{text}");
    let text = server.run(&["volume", "detach", "vm1@a"]).expect(0).stdout;
    assert_eq!(text, "Snapshot vm1@a is detached.\n");
    let ran = server.run(&["volume", "resize", "vm1@a", "--size", "1G"]).expect(2);
    assert!(ran.stderr.contains("not done to a snapshot") && ran.stderr.contains("--from vm1@a"), "{}", ran.stderr);
}

#[test]
fn attach_says_what_the_gateway_reports() {
    let attach = || ("POST /v1/volumes/vm1/attach", ok(volume(attachment(Value::Null))));
    let failed = report("failed", None, Some("node-2 and node-3 do not answer"));
    let server = Server::start([attach(), ("GET /v1/volumes/vm1", ok(volume(attachment(failed))))]);
    let ran = server.run(&["volume", "attach", "vm1"]).expect(1);
    assert!(ran.stderr.contains("node-2 and node-3 do not answer"), "{}", ran.stderr);

    let opening = report("opening", None, Some("waits for node-2"));
    let server = Server::start([attach(), ("GET /v1/volumes/vm1", ok(volume(attachment(opening))))]);
    let ran = server.run(&["volume", "attach", "vm1", "--timeout", "10ms"]).expect(1);
    assert!(
        ran.stderr.contains("waits for node-2") && ran.stderr.contains("levee volume detach vm1"),
        "{}",
        ran.stderr
    );

    let server = Server::start([attach(), ("GET /v1/volumes/vm1", ok(volume(Value::Null)))]);
    let ran = server.run(&["volume", "attach", "vm1"]).expect(1);
    assert!(ran.stderr.contains("detached meanwhile"), "{}", ran.stderr);
}

fn events(lines: &[Value]) -> Response {
    let body = lines.iter().map(|line| format!("{line}\n")).collect();
    Response { status: 200, content_type: "application/x-ndjson", body }
}

fn done(mismatches: Value) -> Value {
    json!({"event": "done", "volume": "vm1", "copies": 3, "chunks": 4, "blocks": 99, "mismatches": mismatches})
}

#[test]
fn verify_asks_the_gateway() {
    let progress = json!({"event": "progress", "done": 1, "total": 4});
    let waiting = json!({"event": "waiting", "degraded_chunks": 2});
    let gateway = Server::start([("POST /v1/volumes/vm1/verify", events(&[waiting, progress, done(json!([]))]))]);
    let meta = Server::start([
        ("GET /v1/volumes/vm1", serving()),
        ("GET /v1/nodes?limit=1000", ok(json!({"items": [node(2, "http://127.0.0.1:1"), node(1, &gateway.url)]}))),
    ]);
    let verdict = meta.run(&["volume", "verify", "vm1", "--json"]).expect(0).json();
    assert_eq!((&verdict["equal"], &verdict["blocks"]), (&json!(true), &json!(99)));
    assert!(meta.asked().iter().all(|line| line.starts_with("GET")), "{:?}", meta.asked());
}

#[test]
fn verify_attaches_for_its_time_and_tells_every_mismatch() {
    let found = json!([
        {"chunk_index": 2, "node": 1, "disk": 5, "problem": "block 9 differs"},
        {"chunk_index": 3, "node": 8, "disk": 6, "problem": "block 1 is missing"}
    ]);
    let gateway = Server::start([("POST /v1/volumes/vm1/verify", events(&[done(found)]))]);
    let script = || {
        [
            ("GET /v1/volumes/vm1", ok(volume(Value::Null))),
            ("POST /v1/volumes/vm1/job", ok(volume(Value::Null))),
            ("POST /v1/volumes/vm1/attach", ok(volume(attachment(Value::Null)))),
            ("GET /v1/volumes/vm1", serving()),
            ("GET /v1/nodes?limit=1000", ok(json!({"items": [node(1, &gateway.url)]}))),
            ("POST /v1/volumes/vm1/detach", ok(volume(Value::Null))),
            ("DELETE /v1/volumes/vm1/job", ok(volume(Value::Null))),
        ]
    };
    let meta = Server::start(script());
    let ran = meta.run(&["volume", "verify", "vm1"]).expect(1);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines, ["chunk 2 on node-1, disk 5: block 9 differs", "chunk 3 on node 8, disk 6: block 1 is missing"]);
    assert!(ran.stderr.contains("2 mismatches"), "{}", ran.stderr);
    let asked = meta.asked();
    let marked = asked.iter().position(|line| line.starts_with("POST /v1/volumes/vm1/job "));
    assert!(marked < asked.iter().position(|line| line.starts_with("POST /v1/volumes/vm1/attach")), "{asked:?}");
    let detached = asked.iter().position(|line| line == "POST /v1/volumes/vm1/detach");
    assert!(detached < asked.iter().position(|line| line.starts_with("DELETE /v1/volumes/vm1/job?id=")), "{asked:?}");

    let verdict = Server::start(script()).run(&["volume", "verify", "vm1", "--json"]).expect(1).json();
    assert_eq!((&verdict["equal"], verdict["mismatches"].as_array().unwrap().len()), (&json!(false), 2));
}

#[test]
fn a_verification_that_breaks_off_has_failed() {
    let failed = json!({"event": "failed", "detail": "node-3 is gone"});
    let progress = json!({"event": "progress", "done": 1, "total": 4});
    for (lines, words) in
        [(vec![failed], "node-3 is gone"), (vec![progress], "before the end"), (vec![], "before the end")]
    {
        let gateway = Server::start([("POST /v1/volumes/vm1/verify", events(&lines))]);
        let meta = Server::start([
            ("GET /v1/volumes/vm1", serving()),
            ("GET /v1/nodes?limit=1000", ok(json!({"items": [node(1, &gateway.url)]}))),
        ]);
        let ran = meta.run(&["volume", "verify", "vm1"]).expect(1);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}

#[test]
fn status_nodes_and_disks_are_shown() {
    let disk = json!({"id": 1, "uuid": UUID, "node": 1, "path": "/d", "capacity": 1u64 << 34, "used": 1u64 << 30,
                      "shards": 1, "replicas": 12});
    let members = json!([{"id": 1, "url": "http://127.0.0.1:2"}, {"id": 2, "url": dead_url()}]);
    let server = Server::start([
        ("GET /v1/cluster", ok(json!({"cluster": UUID, "member": 1, "leader": 1, "members": members, "applied": 9}))),
        ("GET /v1/health", ok(json!({"healthy": true, "summary": "all", "conditions": []}))),
        ("GET /v1/nodes?limit=1000", ok(json!({"items": [node(1, "http://127.0.0.1:1")]}))),
        ("GET /v1/disks?limit=1000", ok(json!({"items": [disk]}))),
        ("GET /v1/capacity", problem(404, "not-found", "there is nothing at /v1/capacity")),
        ("GET /v1/volumes?limit=1000", ok(json!({"items": [volume(attachment(report("serving", None, None)))]}))),
    ]);
    let status = server.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["disks"], json!({"count": 1, "capacity": 1u64 << 34, "used": 1u64 << 30}));
    assert_eq!((&status["members"][0]["answers"], &status["members"][1]["answers"]), (&json!(true), &json!(false)));
    assert_eq!(status["volumes"]["serving"], 1);
    let text = server.run(&["status"]).expect(0).stdout;
    assert!(text.contains("1 GiB of 16 GiB used") && text.contains("node-1"), "{text}");
    assert_eq!(server.run(&["node", "list", "--json"]).expect(0).json()[0]["name"], "node-1");
    assert_eq!(server.run(&["disk", "list", "--json"]).expect(0).json()[0]["replicas"], 12);
    assert!(server.run(&["disk", "list"]).expect(0).stdout.contains("16 GiB"));
}

#[test]
fn top_shows_who_is_busy() {
    let load = json!({"reads": 10, "writes": 20, "read_bytes": 40960, "write_bytes": 81920});
    let server = Server::start([(
        "GET /v1/load?limit=8&by=requests",
        ok(json!({
            "guests": load, "disk_load": load,
            "redundancy": {"volumes": 1, "healthy_chunks": 3, "degraded_chunks": 2, "waiting_chunks": 1,
                           "leaving_replicas": 0, "copied_bytes": 0, "stalled_volumes": 1},
            "volumes": [{"volume": "vm1", "node": 1, "node_name": "node-1", "load": load, "p50_us": 150, "p99_us": 12000,
                         "stalled_ms": 4200, "status": "serving, stalled"}],
            "chunks": [{"volume": "vm1", "index": 7, "load": load}],
            "disks": [{"disk": 1, "node": 1, "node_name": "node-1", "path": "/d", "state": "in-service",
                       "capacity": 100, "used": 25, "load": {"load": load, "oldest_io_us": 0}}],
            "nodes": [{"node": 1, "name": "node-1", "state": "up", "guests": load, "disks": load, "volumes": 1}],
        })),
    )]);
    let text = server.run(&["top", "--once"]).expect(0).stdout;
    for part in [
        "10 reads/s, 20 writes/s, 120 KiB/s",
        "2 chunks lack copies",
        "vm1",
        "1 volumes are stalled",
        "serving, stalled for 4 s",
        "150 µs",
        "12 ms",
        "25 %",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(server.run(&["top", "--json"]).expect(0).json()["chunks"][0]["index"], 7);
    assert!(server.run(&["top", "--limit", "0"]).expect(2).stderr.contains("--limit"));
}

#[test]
fn qemu_wants_the_volume_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm1.sock");
    let text = path.to_str().unwrap();
    let here = || ok(volume(attachment(report("serving", Some(text), None))));
    let server = Server::start([("GET /v1/volumes/vm1", here())]);
    let ran = server.run(&["qemu", "vm1"]).expect(1);
    assert!(ran.stderr.contains("not on this machine"), "{}", ran.stderr);

    let _socket = UnixListener::bind(&path).unwrap();
    let ran = server.run(&["qemu", "vm1", "--qemu", "no-such-qemu", "--json", "--", "-nographic"]).expect(0).json();
    let words: Vec<_> = ran["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert!(words.contains(&format!("socket,id=levee-vm1,path={text},reconnect-ms=100").as_str()), "{words:?}");
    assert_eq!(words.last(), Some(&"-nographic"));
    // Whatever stands for QEMU is run with the command that was shown.
    let ran = server.run(&["qemu", "vm1", "--run", "--qemu", "echo"]).expect(0);
    assert!(ran.stdout.contains("num-queues=2"), "{}", ran.stdout);
    let ran = server.run(&["qemu", "vm1", "--run", "--qemu", "no-such-qemu"]).expect(1);
    assert!(ran.stderr.contains("cannot start no-such-qemu"), "{}", ran.stderr);

    let ran = server.run(&["qemu", "vm1", "--run", "--qemu", "no-such-qemu", "--json"]).expect(1);
    assert!(ran.json()["command"].is_array(), "exactly one document: {}", ran.stdout);

    let server = Server::start([("GET /v1/volumes/vm1", ok(volume(Value::Null)))]);
    let ran = server.run(&["qemu", "vm1"]).expect(1);
    assert!(ran.stderr.contains("levee volume attach vm1"), "{}", ran.stderr);
}
