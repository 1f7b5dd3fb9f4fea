//! Snapshots and clones through the API, with gateways that a test plays.

use crate::common::*;
use levee_proto::api::*;
use levee_proto::*;

/// Nodes that send no heartbeats stay up, however slow the machine is.
const PATIENT: [&str; 2] = ["--down-after", "3600"];
/// A wait that only a hang reaches.
const LONG_MS: u64 = MAX_WAIT_MS;

fn at(text: &str) -> SnapshotName {
    let (volume, snapshot) = text.split_once('@').expect("VOLUME@NAME");
    SnapshotName { volume: volume.into(), snapshot: snapshot.into() }
}

async fn snapshot(c: &Client, names: &[&str], wait_ms: u64) -> Result<Vec<SnapshotInfo>, Problem> {
    let request = CreateSnapshots { snapshots: names.iter().map(|n| at(n)).collect(), image: None };
    let answer: CreatedSnapshots = c.post(&format!("/v1/snapshots?wait_ms={wait_ms}"), &request).await?;
    Ok(answer.snapshots)
}

async fn intent(c: &Client, node: NodeId) -> Intent {
    c.get(&format!("/v1/nodes/{node}/intent")).await.expect("an intent")
}

async fn versions(c: &Client, name: &str) -> VolumeVersions {
    c.get(&format!("/v1/volumes/{name}/versions")).await.expect("the versions")
}

async fn seal(c: &Client, name: &str, epoch: Epoch) -> VolumeVersions {
    let pending = versions(c, name).await.pending.expect("a pending snapshot");
    c.post(&format!("/v1/volumes/{name}/sealed"), &Sealed { epoch, version: pending }).await.expect("sealed")
}

async fn moved(c: &Client, name: &str, epoch: Epoch, held: bool) -> VolumeVersions {
    let version = versions(c, name).await.hold.expect("an answer that is held back");
    c.post(&format!("/v1/volumes/{name}/moved"), &Moved { epoch, version, held }).await.expect("moved")
}

async fn find(c: &Client, text: &str) -> Result<SnapshotInfo, Problem> {
    let SnapshotName { volume, snapshot } = at(text);
    c.get(&format!("/v1/volumes/{volume}/snapshots/{snapshot}")).await
}

/// A volume with a chunk, served by node `n1`.
async fn served(c: &Client, name: &str) -> OpenedVolume {
    c.create(name, 1).await.expect("created");
    let at = c.attach(name, Some("n1")).await.expect("attached").attachment.expect("an attachment");
    let opened = c.open(name, &at, 11).await.expect("opened");
    c.allocate(name, opened.epoch, vec![0]).await.expect("allocated");
    opened
}

async fn entries(group: &Group) -> u64 {
    let text = group.http.get(format!("{}/metrics", group.members[0].url)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|l| l.starts_with("levee_meta_entries_total ")).expect("the metric");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_request_for_snapshots_waits_for_the_gateway() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let node = c.register(1, 11).await.node;
    let opened = served(&c, "v").await;
    let before = intent(&c, node).await;

    let asked = tokio::spawn({
        let c = c.clone();
        async move { snapshot(&c, &["v@a"], LONG_MS).await }
    });
    patiently("the gateway being told", async || {
        let now = intent(&c, node).await;
        (now.attach[0].versions > before.attach[0].versions).then_some(())
    })
    .await;
    assert_eq!(seal(&c, "v", opened.epoch).await.sealed, Version(1));
    let taken = asked.await.unwrap().unwrap();
    assert_eq!((taken[0].state, taken[0].version, &*taken[0].name), (SnapshotState::Done, Version(1), "a"));
    assert!(taken[0].created_ms > 1_600_000_000_000, "a time of our days");
    assert_eq!(c.volume("v").await.snapshots, 1);
}

#[tokio::test]
async fn a_request_that_does_not_wait_says_that_they_are_pending() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    let opened = served(&c, "v").await;
    c.create("w", 1).await.unwrap();

    let body = CreateSnapshots { snapshots: vec![at("v@a"), at("w@a")], image: None };
    let url = format!("{}/v1/snapshots?wait_ms=0", group.members[0].url);
    let response = group.http.post(&url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let taken: CreatedSnapshots = response.json().await.unwrap();
    let states: Vec<_> = taken.snapshots.iter().map(|s| s.state).collect();
    assert_eq!(states, [SnapshotState::Pending; 2], "nobody has written to w, but they are of one moment");
    assert_eq!(group.http.post(&url).json(&body).send().await.unwrap().status(), 409);

    let rollback = Rollback { snapshot: "a".into() };
    let refused = c.post::<VolumeInfo>("/v1/volumes/v/rollback", &rollback).await.unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert_eq!(moved(&c, "v", opened.epoch, true).await.hold, None, "it was the last");
    seal(&c, "v", opened.epoch).await;
    assert_eq!(find(&c, "w@a").await.unwrap().state, SnapshotState::Done);
    c.detach("v").await.unwrap();
    let back: VolumeInfo = c.post("/v1/volumes/v/rollback", &rollback).await.unwrap();
    assert_eq!(back.version, Version(3));

    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page: Page<SnapshotInfo> = c.get(&format!("/v1/snapshots?limit=1&after={after}")).await.unwrap();
        listed.extend(page.items.into_iter().map(|s| format!("{}@{}", s.volume, s.name)));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(listed, ["v@a", "w@a"]);
}

#[tokio::test]
async fn a_detached_volume_is_opened_to_complete_its_snapshot_and_to_prune() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let node = c.register(1, 11).await.node;
    served(&c, "v").await;
    c.detach("v").await.unwrap();
    assert_eq!(snapshot(&c, &["v@a"], 0).await.unwrap()[0].state, SnapshotState::Pending);

    let opened = open_for_chores(&c, node).await;
    assert_eq!(opened.versions.pending, Some(Version(1)));
    seal(&c, "v", opened.epoch).await;
    assert_eq!(find(&c, "v@a").await.unwrap().state, SnapshotState::Done);
    put_in_order(&c, node, &opened).await;

    let deleted = group.http.delete(format!("{}/v1/volumes/v/snapshots/a", group.members[0].url)).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    assert_eq!(find(&c, "v@a").await.unwrap_err().kind, ProblemKind::NotFound);
    let opened = open_for_chores(&c, node).await;
    assert!(opened.versions.prune && opened.snapshots.is_empty());
    let report = Pruned { epoch: opened.epoch, number: opened.versions.number };
    let now: VolumeVersions = c.post("/v1/volumes/v/pruned", &report).await.unwrap();
    assert!(!now.prune);
    put_in_order(&c, node, &opened).await;
}

/// Waits until the only volume is given to the node for what has to be done, and opens it.
async fn open_for_chores(c: &Client, node: NodeId) -> OpenedVolume {
    let at = patiently("the volume being given to a node", async || {
        intent(c, node).await.attach.into_iter().find(|a| a.repair)
    })
    .await;
    let at = Attachment { node, node_name: String::new(), attachment: at.attachment, repair: true, report: None };
    c.open("v", &at, 11).await.expect("opened")
}

/// Reports that all is well until the volume is detached.
async fn put_in_order(c: &Client, node: NodeId, opened: &OpenedVolume) {
    let mut beat = heartbeat(11);
    beat.volumes.push(well(opened.id, opened.epoch));
    patiently("the volume being detached again", async || {
        c.beat(node, &beat).await.expect("a heartbeat");
        c.volume("v").await.attachment.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_is_attached_for_reading() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let node = c.register(1, 11).await.node;
    let golden = served(&c, "golden").await;
    snapshot(&c, &["golden@s"], 0).await.unwrap();
    let early = c.attach("golden@s", None).await.unwrap_err();
    assert!(early.kind == ProblemKind::Conflict && early.detail.contains("not complete"), "{early}");
    seal(&c, "golden", golden.epoch).await;

    let before = entries(&group).await;
    let attached = c.attach("golden@s", Some("n1")).await.unwrap();
    assert_eq!(entries(&group).await - before, 1, "made and attached in one entry");
    assert!(attached.read_only);
    let wanted: Vec<String> = intent(&c, node).await.attach.into_iter().map(|a| a.name).collect();
    assert_eq!(wanted, ["golden", "golden@s"]);
    let opened = c.open("golden@s", &attached.attachment.unwrap(), 11).await.unwrap();
    assert!(opened.read_only && opened.parent.unwrap().chunks.len() == 1);
    let refused = c.allocate("golden@s", opened.epoch, vec![0]).await.unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Invalid);
    assert_eq!(c.names(10).await, ["golden", "golden@s"]);
    for call in ["flatten", "resize"] {
        let refused = c
            .post::<VolumeInfo>(
                &format!("/v1/volumes/golden@s/{call}"),
                &ResizeVolume { size: 4096, allow_shrink: true },
            )
            .await
            .unwrap_err();
        assert!(refused.kind == ProblemKind::Invalid && refused.detail.contains("golden@s is a snapshot"), "{refused}");
    }
    let deletion = c.delete("/v1/volumes/golden/snapshots/s").await.unwrap_err();
    assert!(deletion.kind == ProblemKind::Conflict && deletion.detail.contains("'n1'"), "{deletion}");

    // As a client may write it that escapes more than it has to.
    let detached: VolumeInfo = c.post("/v1/volumes/golden%40s/detach", &()).await.unwrap();
    assert!(detached.attachment.is_none() && detached.read_only);
    assert_eq!((c.names(10).await, c.volume("golden@s").await.id), (vec!["golden".to_string()], VolumeId(0)));
    let deleted = group.http.delete(format!("{}/v1/volumes/golden/snapshots/s", c.url)).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
}

#[tokio::test]
async fn a_family_of_clones_is_created_served_flattened_and_deleted() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    let golden = served(&c, "golden").await;
    snapshot(&c, &["golden@s"], 0).await.unwrap();
    let request = |name: &str, count| CreateClones {
        from: at("golden@s"),
        names: Family { name: name.into(), count, first: 1 },
        size: None,
        copies: None,
        min_copies: None,
    };
    let early = c.post::<CreatedClones>("/v1/clones", &request("c", Some(9))).await.unwrap_err();
    assert!(early.kind == ProblemKind::Conflict && early.detail.contains("not complete"), "{early}");
    seal(&c, "golden", golden.epoch).await;

    let before = entries(&group).await;
    let created: CreatedClones = c.post("/v1/clones", &request("c", Some(5000))).await.unwrap();
    assert_eq!((created.count, &*created.first, &*created.last), (5000, "c-1", "c-5000"));
    assert_eq!(entries(&group).await - before, 2, "4096 in one entry, and the rest");
    // The second of two commands fails: what the first one did stays, and is told.
    c.create("d-4999", 1).await.unwrap();
    let half = c.post::<CreatedClones>("/v1/clones", &request("d", Some(5000))).await.unwrap_err();
    assert!(half.kind == ProblemKind::Exists && half.detail.contains("4096 of 5000 clones"), "{half}");

    let at = c.attach("c-17", None).await.unwrap().attachment.unwrap();
    let opened = c.open("c-17", &at, 11).await.unwrap();
    let parent = opened.parent.expect("a parent");
    assert_eq!((parent.volume, parent.chunks.len()), (golden.id, 1));
    let again: VolumeParent = c.get("/v1/volumes/c-17/parent").await.unwrap();
    assert_eq!(again.parent, Some(parent));
    let flattening: VolumeInfo = c.post("/v1/volumes/c-17/flatten", &()).await.unwrap();
    assert!(flattening.flattening && versions(&c, "c-17").await.flatten);
    let report = Flattened { epoch: opened.epoch };
    let _: VolumeVersions = c.post("/v1/volumes/c-17/flattened", &report).await.unwrap();
    assert_eq!(c.volume("c-17").await.parent, None);
    let larger: VolumeInfo =
        c.post("/v1/volumes/c-17/resize", &ResizeVolume { size: 2 << 30, allow_shrink: false }).await.unwrap();
    assert_eq!((larger.size, versions(&c, "c-17").await.size), (2 << 30, 2 << 30));

    let family = |name: &str, count| Family { name: name.into(), count: Some(count), first: 1 };
    let volumes = vec![family("c", 5000), family("d", 4096)];
    let deleted: DeletedVolumes = c.post("/v1/deletions", &DeleteVolumes { volumes }).await.unwrap();
    assert_eq!((deleted.deleted, deleted.refusals), (9095, 1));
    assert_eq!((&*deleted.refused[0].volume, deleted.refused[0].kind), ("c-17", ProblemKind::Conflict));
    assert_eq!(find(&c, "golden@s").await.unwrap().clones, 0);
    assert_eq!(c.names(1000).await, ["c-17", "d-4999", "golden"]);
}

#[tokio::test]
async fn a_group_that_is_given_up_is_said_to_be() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    let (v, w) = (served(&c, "v").await, served(&c, "w").await);
    let asked = tokio::spawn({
        let c = c.clone();
        async move { snapshot(&c, &["v@a", "w@a"], LONG_MS).await }
    });
    patiently("the group", async || versions(&c, "v").await.hold).await;
    assert_eq!(moved(&c, "v", v.epoch, true).await.hold, Some(Version(1)));
    assert_eq!(moved(&c, "w", w.epoch, false).await.pending, None);
    let refused = asked.await.unwrap().unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("v@a, w@a") && refused.detail.contains("again"), "{refused}");
    assert_eq!(find(&c, "v@a").await.unwrap_err().kind, ProblemKind::NotFound);
}
