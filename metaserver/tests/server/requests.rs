//! What surrounds every request: ids, idempotency keys, rates.

use crate::common::*;
use levee_proto::api::*;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

const PATIENT: [&str; 2] = ["--down-after", "3600"];

fn create(c: &Client, name: &str, size: u64) -> RequestBuilder {
    c.http
        .post(format!("{}/v1/volumes", c.url))
        .json(&json!({ "name": name, "size": size, "copies": 1, "min_copies": 1 }))
}

fn id_of(response: &Response) -> String {
    response.headers()[REQUEST_ID_HEADER].to_str().unwrap().to_string()
}

async fn sent(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn requests_have_ids_that_are_answered_and_logged_by_all() {
    let group = Group::start(3, &PATIENT).await;
    let clients: Vec<Client> = (0..3).map(|i| group.client(i)).collect();
    patiently("registering a node", async || clients[0].post::<Registered>("/v1/nodes", &node(1, 11)).await.ok()).await;
    for (i, c) in clients.iter().enumerate() {
        let id = format!("from-test_{i}");
        let response = create(c, &format!("v{i}"), 4096).header(REQUEST_ID_HEADER, &id).send().await.unwrap();
        assert_eq!(id_of(&response), id);
        let wrong = c.http.get(format!("{}/v1/nope", c.url)).header(REQUEST_ID_HEADER, "a b").send().await.unwrap();
        assert!(wrong.status() == 404 && is_valid_request_id(&id_of(&wrong)), "another is made");
    }
    let logs: Vec<String> = group.members.iter().map(Member::log).collect();
    let with = |text: &str| logs.iter().filter(|log| log.contains(text)).count();
    let named: Vec<usize> = (0..3).map(|i| with(&format!("request from-test_{i} from 127.0.0.1: POST"))).collect();
    let mut sorted = named.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 2], "the leader's own in one log, the others' in two");
}

#[tokio::test]
async fn a_key_answers_what_was_answered() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    let keyed = |name: &str, size, key: &str| sent(create(&c, name, size).header(IDEMPOTENCY_HEADER, key));
    let first = keyed("v", 4096, "k1").await;
    assert_eq!(first.0, 201);
    assert_eq!(keyed("v", 4096, "k1").await, first);
    assert_eq!(keyed("v", 4096, "k2").await.0, 409, "another request for the same");
    assert_eq!(keyed("v", 4096, "k2").await.0, 409, "and its answer stays");
    let other = keyed("v", 8192, "k1").await;
    assert!(other.0 == 422 && other.1["detail"].as_str().unwrap().contains("used for another request"), "{other:?}");
    for wrong in ["", "a b", &"x".repeat(129)] {
        assert_eq!(keyed("w", 4096, wrong).await.0, 400, "'{wrong}'");
    }

    let delete = || c.http.delete(format!("{}/v1/volumes/v", c.url)).header(IDEMPOTENCY_HEADER, "k3");
    assert_eq!(sent(delete()).await.0, 204);
    assert_eq!(sent(delete()).await.0, 204);
    assert_eq!(keyed("v", 4096, "k1").await, first, "what was answered, though the volume is gone");
    assert!(c.names(10).await.is_empty());
}

#[tokio::test]
async fn keys_outlive_the_leader_and_restarts() {
    let mut group = Group::start(3, &["--snapshot-every", "5", "--down-after", "3600"]).await;
    let c = group.client(0);
    patiently("registering a node", async || c.post::<Registered>("/v1/nodes", &node(1, 11)).await.ok()).await;
    let attempt = |c: Client, key: &'static str| async move {
        patiently("a request with a key", async || {
            let answer = create(&c, key, 4096).header(IDEMPOTENCY_HEADER, key).send().await.ok()?;
            (answer.status() != 503).then_some(answer)
        })
        .await
        .text()
        .await
        .unwrap()
    };
    let mut first = Vec::new();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let answer = attempt(c.clone(), key).await;
        assert!(answer.contains("\"epoch\":0"), "{answer}");
        first.push((key, answer));
    }
    let info: ClusterInfo = c.get("/v1/cluster").await.unwrap();
    let leader = usize::try_from(info.leader.unwrap()).unwrap() - 1;
    group.members[leader].kill();
    let survivor = group.client((leader + 1) % 3);
    for (key, answer) in &first {
        assert_eq!(attempt(survivor.clone(), key).await, *answer);
    }
    group.members.iter_mut().for_each(Member::kill);
    group.members.iter_mut().for_each(Member::start);
    assert!(group.ready().await);
    for (key, answer) in &first {
        assert_eq!(attempt(group.client(1), key).await, *answer);
    }
}

#[tokio::test]
async fn batches_answer_for_each_volume() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    let volume = |name: String| CreateVolume { name, size: 4096, copies: 1, min_copies: 1, class: None };
    let batch = |names: Vec<String>, atomic| CreateVolumes { volumes: names.into_iter().map(volume).collect(), atomic };
    let names: Vec<String> = (0..2500).map(|i| format!("v{i:04}")).collect();
    let all: CreatedVolumes = c.post("/v1/volumes/batch", &batch(names.clone(), false)).await.unwrap();
    assert_eq!((all.created, all.refused, all.items.len()), (2500, 0, 2500));
    assert!(all.items.iter().zip(&names).all(|(item, name)| item.name == *name && item.id.is_some()));

    let mixed: Vec<String> = ["new", "v0001", "a/b", "new"].map(String::from).into();
    let some: CreatedVolumes = c.post("/v1/volumes/batch", &batch(mixed.clone(), false)).await.unwrap();
    let kinds: Vec<Option<ProblemKind>> = some.items.iter().map(|i| i.problem.as_ref().map(|p| p.kind)).collect();
    let expected = [None, Some(ProblemKind::Exists), Some(ProblemKind::Invalid), Some(ProblemKind::Exists)];
    assert_eq!((some.created, some.refused, kinds.as_slice()), (1, 3, &expected[..]));

    for names in [vec!["x1", "x2", "new"], vec!["x1", "x1"], vec!["x1", ".x"]] {
        let names: Vec<String> = names.into_iter().map(String::from).collect();
        let none = c.post::<CreatedVolumes>("/v1/volumes/batch", &batch(names, true)).await.unwrap_err();
        assert!(none.detail.starts_with("nothing was created, because of item"), "{none}");
    }
    let whole: CreatedVolumes =
        c.post("/v1/volumes/batch", &batch(vec!["x1".into(), "x2".into()], true)).await.unwrap();
    assert_eq!(whole.created, 2);
    assert_eq!(c.names(1000).await.len(), 2503);
    let empty = c.post::<CreatedVolumes>("/v1/volumes/batch", &batch(vec![], true)).await.unwrap_err();
    assert_eq!(empty.kind, ProblemKind::Invalid);
}

#[tokio::test]
async fn what_changes_is_told_to_those_who_watch() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let begin: Changes = c.get("/v1/watch").await.unwrap();
    assert!(begin.reset && begin.changes.is_empty());
    let watched = tokio::spawn({
        let (c, path) = (c.clone(), format!("/v1/watch?after={}&wait_ms=30000&kinds=volume", begin.revision));
        async move { c.get::<Changes>(&path).await.unwrap() }
    });
    c.register(1, 11).await;
    c.create("v", 1).await.unwrap();
    let seen = watched.await.unwrap();
    let names = |changes: &Changes| -> Vec<(ThingKind, String, ChangeKind)> {
        changes.changes.iter().map(|c| (c.kind, c.name.clone(), c.change)).collect()
    };
    assert_eq!(names(&seen), [(ThingKind::Volume, "v".to_string(), ChangeKind::Created)]);
    c.delete("/v1/volumes/v").await.unwrap();
    let after = |revision, kinds| format!("/v1/watch?after={revision}&kinds={kinds}");
    let gone: Changes = c.get(&after(seen.revision, "volume,node")).await.unwrap();
    assert_eq!(names(&gone), [(ThingKind::Volume, "v".to_string(), ChangeKind::Deleted)]);
    let all: Changes = c.get(&after(begin.revision, "node,disk")).await.unwrap();
    let kinds: Vec<ThingKind> = all.changes.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [ThingKind::Disk, ThingKind::Node]);
    let nothing: Changes = c.get(&after(gone.revision, "volume")).await.unwrap();
    assert!(!nothing.reset && nothing.changes.is_empty());
    let future: Changes = c.get(&after(u64::MAX, "volume")).await.unwrap();
    assert!(future.reset);
}

#[tokio::test]
async fn clients_that_ask_too_often_are_told_to_wait() {
    let group = Group::start(1, &["--client-rate", "1", "--change-rate", "0", "--down-after", "3600"]).await;
    let c = group.client(0);
    let list = || c.http.get(format!("{}/v1/nodes", c.url)).send();
    let refused = patiently("being refused", async || Some(list().await.unwrap()).filter(|r| r.status() == 429)).await;
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait >= 1, "{wait}");
    let problem: Problem = refused.json().await.unwrap();
    assert_eq!(problem.kind, ProblemKind::TooMany);
    for i in 0..20 {
        c.register(1, 100 + i).await;
    }
}
