//! The API of a group of one.

use crate::common::*;
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeSet;
use std::time::Duration;

/// Nodes that send no heartbeats stay up, however slow the machine is.
const PATIENT: [&str; 2] = ["--down-after", "3600"];

#[tokio::test]
async fn volumes_are_created_listed_and_deleted() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let early = c.create("v", 1).await.unwrap_err();
    assert!(early.kind == ProblemKind::NoSpace && early.detail.contains("needs 1 nodes"), "{early}");
    c.register(1, 11).await;

    let names: Vec<String> = (0..25).map(|i| format!("v{i:02}")).collect();
    for name in &names {
        let created = c.create(name, 1).await.unwrap();
        assert_eq!((&created.name, created.epoch, created.version), (name, Epoch(0), Version::FIRST));
    }
    assert_eq!(c.create("v00", 1).await.unwrap_err().kind, ProblemKind::Exists);
    for limit in [1, 7, 25, 5000] {
        assert_eq!(c.names(limit.min(MAX_PAGE)).await, names, "pages of {limit}");
    }
    c.delete("/v1/volumes/v07").await.unwrap();
    assert_eq!(c.delete("/v1/volumes/v07").await.unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(c.names(10).await.len(), 24);
}

/// Requests that are refused, and how.
const WRONG: &[(&str, &str, &str, u16)] = &[
    ("GET", "/v1/nope", "", 404),
    ("PATCH", "/v1/volumes", "", 405),
    ("POST", "/v1/cluster", "", 405),
    ("POST", "/raft/append", "{}", 409),
    ("GET", "/raft/canvass", "", 409),
    ("GET", "/raft/read-index", "", 409),
    ("POST", "/v1/members", "", 400),
    ("POST", "/v1/members", r#"{"url":"ftp://x"}"#, 400),
    ("POST", "/v1/members", r#"{"url":"http://127.0.0.1:1"}"#, 409),
    ("DELETE", "/v1/members/x", "", 400),
    ("DELETE", "/v1/members/77", "", 404),
    ("DELETE", "/v1/members/1", "", 409),
    ("DELETE", "/v1/members/1?force=maybe", "", 400),
    ("POST", "/v1/members/77/replace", "", 404),
    ("POST", "/v1/members/1/replace", "", 409),
    ("POST", "/v1/volumes", "", 400),
    ("POST", "/v1/volumes", "{", 400),
    ("POST", "/v1/volumes", r#"{"name":"a/b","size":4096}"#, 400),
    ("POST", "/v1/volumes", r#"{"name":"v","size":-1}"#, 400),
    ("POST", "/v1/volumes", r#"{"name":"v","size":5000}"#, 400),
    ("GET", "/v1/volumes?limit=0", "", 400),
    ("GET", "/v1/volumes?limit=x", "", 400),
    ("GET", "/v1/volumes/%ff", "", 400),
    ("GET", "/v1/volumes/none", "", 404),
    ("GET", "/v1/nodes?after=x", "", 400),
    ("GET", "/v1/watch?kinds=volume,x", "", 400),
    ("GET", "/v1/watch?after=-1", "", 400),
    ("GET", "/v1/load?limit=0", "", 400),
    ("GET", "/v1/load?by=x", "", 400),
    ("GET", "/v1/history?limit=1001", "", 400),
    ("GET", "/v1/nodes/x/intent", "", 400),
    ("GET", "/v1/nodes/7/intent?wait_ms=-1", "", 400),
    ("GET", "/v1/nodes/7/intent?after=1&wait_ms=1", "", 404),
    ("DELETE", "/v1/volumes/none", "", 404),
    ("POST", "/v1/volumes/none/attach", "", 404),
    ("POST", "/v1/volumes/none/detach", "", 404),
    ("POST", "/v1/nodes/7/heartbeat", r#"{"incarnation":"x"}"#, 400),
    ("POST", "/v1/disks/7/state", r#"{"state":"dead"}"#, 404),
    ("POST", "/v1/disks/7/state", r#"{"state":"lost"}"#, 400),
    ("POST", "/v1/volumes/none/replicas", r#"{"epoch":1,"changes":[]}"#, 404),
    ("POST", "/v1/snapshots", "", 400),
    ("POST", "/v1/snapshots", r#"{"snapshots":[]}"#, 400),
    ("POST", "/v1/snapshots?wait_ms=x", r#"{"snapshots":[]}"#, 400),
    ("POST", "/v1/snapshots", r#"{"snapshots":[{"volume":"none","snapshot":"s"}]}"#, 404),
    ("POST", "/v1/snapshots", r#"{"snapshots":[{"volume":"none","snapshot":"a@b"}]}"#, 400),
    ("GET", "/v1/snapshots?volume=none", "", 404),
    ("GET", "/v1/snapshots?after=1", "", 400),
    ("GET", "/v1/snapshots?limit=0", "", 400),
    ("GET", "/v1/volumes/none/snapshots/s", "", 404),
    ("DELETE", "/v1/volumes/none/snapshots/s", "", 404),
    ("POST", "/v1/volumes/none/rollback", r#"{"snapshot":"s"}"#, 404),
    ("POST", "/v1/volumes/none/rollback", "", 400),
    ("POST", "/v1/volumes/none/resize", r#"{"size":4096}"#, 404),
    ("POST", "/v1/volumes/none/resize", r#"{"size":1}"#, 400),
    ("POST", "/v1/volumes/none/flatten", "", 404),
    ("GET", "/v1/volumes/none/versions", "", 404),
    ("GET", "/v1/volumes/none/parent", "", 404),
    ("POST", "/v1/volumes/none/sealed", r#"{"epoch":1,"version":1}"#, 404),
    ("POST", "/v1/volumes/none/moved", r#"{"epoch":1,"version":1,"held":true}"#, 404),
    ("POST", "/v1/volumes/none/pruned", r#"{"epoch":1,"number":1}"#, 404),
    ("POST", "/v1/volumes/none/flattened", r#"{"epoch":1}"#, 404),
    ("POST", "/v1/clones", r#"{"from":{"volume":"none","snapshot":"s"},"name":"c"}"#, 404),
    ("POST", "/v1/clones", r#"{"from":{"volume":"none","snapshot":"s"},"name":"c","count":0}"#, 400),
    ("POST", "/v1/clones", r#"{"from":{"volume":"none","snapshot":"s"},"name":"c","count":65537}"#, 400),
    ("POST", "/v1/clones", r#"{"from":{"volume":"none","snapshot":"s"},"name":"c","count":4294967295}"#, 400),
    ("POST", "/v1/deletions", r#"{"volumes":[]}"#, 400),
    ("POST", "/v1/deletions", r#"{"volumes":[{"name":"a b"}]}"#, 400),
    ("POST", "/v1/deletions", r#"{"volumes":[{"name":"a","count":65000},{"name":"b","count":65000}]}"#, 400),
    ("POST", "/v1/volumes/none/replicas", r#"{"epoch":1}"#, 400),
    ("POST", "/v1/nodes/77/state", r#"{"drain":true}"#, 404),
    ("POST", "/v1/nodes/77/state", "", 400),
    ("DELETE", "/v1/nodes/77", "", 404),
    ("DELETE", "/v1/nodes/x", "", 400),
    ("DELETE", "/v1/disks/77?force=true", "", 404),
    ("DELETE", "/v1/disks/77?force=maybe", "", 400),
    ("POST", "/v1/disks/77/weight", r#"{"weight":1001}"#, 400),
    ("POST", "/v1/disks/77/weight", r#"{"weight":1}"#, 404),
    ("POST", "/v1/placement", r#"{"scatter_width":2}"#, 400),
    ("POST", "/v1/placement", r#"{"reserve_percent":51}"#, 400),
    ("POST", "/v1/what-if", r#"{"nodes":["none"]}"#, 404),
    ("POST", "/v1/what-if", r#"{"disks":[77]}"#, 404),
    ("POST", "/v1/rebalance/plan", r#"{"tolerance_percent":0}"#, 400),
    ("POST", "/v1/rebalance", r#"{"goal":"beauty"}"#, 400),
    ("POST", "/v1/maintenance", r#"{"seconds":0}"#, 400),
    ("POST", "/v1/maintenance", r#"{"seconds":9,"node":"none"}"#, 404),
    ("DELETE", "/v1/maintenance?node=none", "", 404),
    ("GET", "/v1/events?limit=0", "", 400),
    ("GET", "/v1/events?after=x", "", 400),
];

#[tokio::test]
async fn everything_wrong_is_a_problem() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let base = &group.members[0].url;
    let request = |method: &str, path: &str, body: &str| {
        let method = method.parse().unwrap();
        group.http.request(method, format!("{base}{path}")).body(body.to_string()).send()
    };
    let huge = format!(r#"{{"name":"{}"}}"#, "x".repeat(3 << 20));
    let long = [("POST", "/v1/volumes", huge.as_str(), 413)];
    for (method, path, body, status) in WRONG.iter().copied().chain(long) {
        let response = request(method, path, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
        let problem: Problem = response.json().await.unwrap();
        assert!(problem.status == status && !problem.detail.is_empty(), "{problem:?}");
    }
    assert_eq!(c.beat(NodeId(9), &heartbeat(1)).await.unwrap_err().kind, ProblemKind::NotFound);
    let addressed = group.http.post(format!("{base}/raft/snapshot")).header("levee-member", "1").body("\u{1}nonsense");
    assert_eq!(addressed.send().await.unwrap().status(), 400);
    let wrong_method =
        group.http.get(format!("{base}/raft/snapshot")).header("levee-member", "1").send().await.unwrap();
    assert_eq!(
        (wrong_method.status().as_u16(), &wrong_method.headers()["content-type"] == "application/problem+json"),
        (405, true)
    );
}

/// Every operation of the API.
const OPERATIONS: [&str; 66] = [
    "get /v1/cluster",
    "get /v1/health",
    "post /v1/members/{id}/lead",
    "post /v1/volumes/{name}/job",
    "delete /v1/volumes/{name}/job",
    "get /v1/members",
    "post /v1/members",
    "delete /v1/members/{id}",
    "post /v1/members/{id}/replace",
    "get /v1/capacity",
    "post /v1/capacity/limits",
    "post /v1/clones",
    "post /v1/deletions",
    "get /v1/snapshots",
    "post /v1/snapshots",
    "get /v1/volumes/{name}/snapshots/{snapshot}",
    "delete /v1/volumes/{name}/snapshots/{snapshot}",
    "post /v1/volumes/{name}/rollback",
    "post /v1/volumes/{name}/resize",
    "post /v1/volumes/{name}/flatten",
    "get /v1/volumes/{name}/versions",
    "get /v1/volumes/{name}/parent",
    "get /v1/maps/{volume}",
    "post /v1/volumes/{name}/moved",
    "post /v1/volumes/{name}/sealed",
    "post /v1/volumes/{name}/pruned",
    "post /v1/volumes/{name}/flattened",
    "get /v1/disks",
    "post /v1/disks/{id}/state",
    "post /v1/disks/{id}/weight",
    "delete /v1/disks/{id}",
    "post /v1/nodes/{id}/state",
    "delete /v1/nodes/{id}",
    "get /v1/placement",
    "post /v1/placement",
    "post /v1/what-if",
    "post /v1/rebalance/plan",
    "post /v1/rebalance",
    "get /v1/rebalance",
    "get /v1/recovery",
    "delete /v1/rebalance",
    "get /v1/maintenance",
    "post /v1/maintenance",
    "delete /v1/maintenance",
    "get /v1/events",
    "get /v1/nodes",
    "post /v1/nodes",
    "get /v1/nodes/{id}/intent",
    "post /v1/nodes/{id}/heartbeat",
    "post /v1/nodes/{id}/inventory",
    "get /v1/repair",
    "get /v1/watch",
    "get /v1/load",
    "get /v1/history",
    "get /v1/volumes",
    "post /v1/volumes",
    "post /v1/volumes/batch",
    "delete /v1/volumes/{name}",
    "get /v1/volumes/{name}",
    "post /v1/volumes/{name}/allocate",
    "post /v1/volumes/{name}/accept-loss",
    "post /v1/volumes/{name}/attach",
    "post /v1/volumes/{name}/detach",
    "post /v1/volumes/{name}/open",
    "post /v1/volumes/{name}/recover-epochs",
    "post /v1/volumes/{name}/replicas",
];

#[tokio::test]
async fn the_openapi_document_has_every_path() {
    let group = Group::start(1, &PATIENT).await;
    let document: serde_json::Value = group.client(0).get("/v1/openapi.json").await.unwrap();
    let operations: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| format!("{m} {path}")))
        .collect();
    assert_eq!(operations, OPERATIONS.iter().map(|s| s.to_string()).collect());
    let mut ids = BTreeSet::new();
    let all = document["paths"].as_object().unwrap().values().flat_map(|m| m.as_object().unwrap().values());
    for operation in all {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "an operation id is there twice: {operation}");
        assert!(operation["responses"]["503"].is_object() && operation["tags"][0].is_string(), "{operation}");
    }
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = &reference[..reference.find('"').unwrap()];
        assert!(schemas.contains_key(name), "schema {name} is missing");
    }
    let metrics = group.http.get(format!("{}/metrics", group.members[0].url)).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("\nlevee_meta_leader 1\n"));
}

fn serving(volume: VolumeId, epoch: Epoch) -> VolumeReport {
    VolumeReport { socket: Some("/run/v.sock".into()), ..well(volume, epoch) }
}

#[tokio::test]
async fn reports_show_up_and_belong_to_their_attachment() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let node = c.register(1, 11).await;
    let volume = c.create("v", 1).await.unwrap();
    let at = c.attach("v", None).await.unwrap().attachment.unwrap();
    assert_eq!((at.node, at.report), (node.node, None));
    let at = c.volume("v").await.attachment.unwrap();
    let epoch = c.open("v", &at, 11).await.unwrap().epoch;

    let mut beat = heartbeat(11);
    beat.volumes.push(serving(volume.id, epoch));
    beat.disks.push(DiskUsage { disk: node.disks[0], used: 4711, failed: None, load: DiskLoad::default() });
    c.beat(node.node, &beat).await.unwrap();
    let report = c.volume("v").await.attachment.unwrap().report;
    assert_eq!(report.as_ref(), beat.volumes.first());
    let disks: Page<DiskInfo> = c.get("/v1/disks").await.unwrap();
    assert_eq!((disks.items[0].used, disks.items[0].replicas), (Some(4711), 0));
    let nodes: Page<NodeInfo> = c.get("/v1/nodes").await.unwrap();
    assert_eq!(nodes.items[0].name, "n1");

    c.detach("v").await.unwrap();
    assert_eq!(c.detach("v").await.unwrap().attachment, None);
    let again = c.attach("v", Some("n1")).await.unwrap().attachment.unwrap();
    assert_eq!(again.report, None, "the old attachment's report is not the new one's");
    c.open("v", &again, 11).await.unwrap();
    assert_eq!(c.volume("v").await.attachment.unwrap().report, None);

    c.register(1, 12).await;
    assert_eq!(c.beat(node.node, &beat).await.unwrap_err().kind, ProblemKind::Fenced);
}

#[tokio::test]
async fn an_intent_is_waited_for_and_deletions_are_confirmed() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let node = c.register(1, 11).await;
    c.create("v", 1).await.unwrap();
    let intent_path =
        |after: u64, wait_ms: u64| format!("/v1/nodes/{}/intent?after={after}&wait_ms={wait_ms}", node.node);
    let first: Intent = c.get(&format!("/v1/nodes/{}/intent", node.node)).await.unwrap();
    let same: Intent = c.get(&intent_path(first.revision, 1)).await.unwrap();
    assert_eq!(same, first, "nothing moved: the same intent after the wait");

    let poll = tokio::spawn({
        let (c, path) = (c.clone(), intent_path(first.revision, MAX_WAIT_MS));
        async move { c.get::<Intent>(&path).await.unwrap() }
    });
    // Whether it is waiting by now or not, it must see the change.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let at = c.attach("v", None).await.unwrap().attachment.unwrap();
    let woken = poll.await.unwrap();
    assert_eq!(woken.attach[0].attachment, at.attachment);

    let epoch = c.open("v", &at, 11).await.unwrap().epoch;
    c.allocate("v", epoch, vec![0, 1]).await.unwrap();
    assert_eq!(c.delete("/v1/volumes/v").await.unwrap_err().kind, ProblemKind::Conflict);
    c.detach("v").await.unwrap();
    c.delete("/v1/volumes/v").await.unwrap();
    let intent: Intent = c.get(&intent_path(woken.revision, 0)).await.unwrap();
    assert_eq!((intent.attach.len(), intent.deletes.len()), (0, 2));

    let mut beat = heartbeat(11);
    beat.deleted = intent.deletes;
    let ack = c.beat(node.node, &beat).await.unwrap();
    assert!(ack.revision > intent.revision);
    assert_eq!(c.beat(node.node, &beat).await.unwrap(), ack, "a repeated confirmation changes nothing");
    let done: Intent = c.get(&intent_path(intent.revision, 0)).await.unwrap();
    assert_eq!((done.revision, done.deletes.len()), (ack.revision, 0));
}

#[tokio::test]
async fn a_silent_node_is_down_and_gets_no_volume() {
    let group = Group::start(1, &[]).await;
    let c = group.client(0);
    c.register(1, 11).await;
    c.create("v", 1).await.unwrap();
    patiently("the node going down", async || {
        let nodes: Page<NodeInfo> = c.get("/v1/nodes").await.unwrap();
        (nodes.items[0].state == NodeState::Down).then_some(())
    })
    .await;
    let refused = c.attach("v", Some("n1")).await.unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("down"), "{refused}");
    assert_eq!(c.attach("v", None).await.unwrap_err().kind, ProblemKind::Conflict);
}

#[tokio::test]
async fn gateways_do_not_get_into_each_others_way() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    for i in 1..=3 {
        c.register(i, u128::from(i) + 10).await;
    }
    let gateways = (0..16u32).map(|i| {
        let c = c.clone();
        tokio::spawn(async move {
            let name = format!("v{i}");
            c.create(&name, 3).await.unwrap();
            let (a, b) = tokio::join!(c.attach(&name, Some("n1")), c.attach(&name, Some("n2")));
            assert!(a.is_ok() != b.is_ok(), "exactly one of two nodes gets the volume");
            let lost = a.as_ref().err().or(b.as_ref().err()).unwrap();
            assert!(lost.kind == ProblemKind::Conflict && lost.detail.contains("attached to node 'n"), "{lost}");
            let at = a.or(b).unwrap().attachment.unwrap();
            let incarnation = u128::from(at.node.0) + 10;
            let (x, y) = tokio::join!(c.open(&name, &at, incarnation), c.open(&name, &at, incarnation));
            assert_eq!((x.unwrap().epoch, y.unwrap().epoch), (Epoch(1), Epoch(1)));
            let (x, y) =
                tokio::join!(c.allocate(&name, Epoch(1), vec![0, 1, 2, 3]), c.allocate(&name, Epoch(1), vec![3, 4]));
            let (x, y) = (x.unwrap().chunks, y.unwrap().chunks);
            assert_eq!(x[3], y[0], "one chunk, whoever asks first");
            x.into_iter().chain(y.into_iter().skip(1)).collect::<Vec<_>>()
        })
    });
    let mut chunks = BTreeSet::new();
    let mut replicas = BTreeSet::new();
    for gateway in gateways.collect::<Vec<_>>() {
        for chunk in gateway.await.unwrap() {
            assert!(chunks.insert(chunk.chunk));
            assert_eq!(chunk.replicas.iter().map(|r| r.node).collect::<BTreeSet<_>>().len(), 3);
            chunk.replicas.iter().for_each(|r| assert!(replicas.insert(r.replica)));
        }
    }
    assert_eq!((chunks.len(), replicas.len()), (16 * 5, 16 * 5 * 3));
}

#[tokio::test]
async fn a_map_is_told_from_an_index_on_and_to_the_newest_gateway() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    let id = c.create("v", 1).await.unwrap().id;
    let at = c.attach("v", None).await.unwrap().attachment.unwrap();
    let opened = c.open("v", &at, 11).await.unwrap();
    assert!(opened.chunks.is_empty() && !opened.more);
    let chunks = c.allocate("v", opened.epoch, vec![0, 1, 2, 3]).await.unwrap().chunks;
    let map = async |query: &str| c.get::<ChunkPage>(&format!("/v1/maps/{id}{query}")).await;
    assert_eq!(map("").await.unwrap(), ChunkPage { chunks: chunks.clone(), more: false });
    assert_eq!(map("?after=1&epoch=1").await.unwrap().chunks, chunks[2..]);
    assert_eq!(map("?after=99999999999").await.unwrap(), ChunkPage::default());
    assert_eq!(map("?epoch=2").await.unwrap_err().kind, ProblemKind::Fenced);
    assert_eq!(c.get::<ChunkPage>("/v1/maps/77").await.unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(c.get::<ChunkPage>("/v1/maps/v").await.unwrap_err().kind, ProblemKind::Invalid);
}
