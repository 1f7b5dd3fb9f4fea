//! Over-provisioning and watermarks through the API, with daemons that a test plays.

use crate::common::*;
use levee_proto::api::*;

/// Nodes that send no heartbeats stay up, however slow the machine is.
const PATIENT: [&str; 2] = ["--down-after", "3600"];
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

async fn capacity(c: &Client) -> CapacityInfo {
    c.get("/v1/capacity").await.expect("the capacity")
}

async fn set(c: &Client, change: ChangeLimits) -> Result<CapacityInfo, Problem> {
    c.post("/v1/capacity/limits", &change).await
}

/// The daemon of node `i`, which has one disk, says how much of it is used.
async fn report(c: &Client, registered: &Registered, incarnation: u128, used: u64) {
    let disk = registered.disks[0];
    let usage: DiskUsage = serde_json::from_value(serde_json::json!({ "disk": disk, "used": used })).unwrap();
    let beat = Heartbeat { disks: vec![usage], ..heartbeat(incarnation) };
    c.beat(registered.node, &beat).await.expect("a heartbeat");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Problem>, words: &str) {
    let problem = outcome.expect_err("refused");
    assert!(problem.kind == ProblemKind::NoSpace && problem.detail.contains(words), "{problem}");
}

async fn metric(group: &Group, name: &str) -> Option<u64> {
    let text = group.http.get(format!("{}/metrics", group.members[0].url)).send().await.unwrap().text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn no_more_is_promised_than_is_allowed() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    c.register(1, 11).await;
    c.register(2, 12).await;
    let info = capacity(&c).await;
    assert_eq!((info.capacity, info.provisioned, info.provisionable), (2 * TIB, 0, None));
    assert_eq!((info.limits, info.level, info.reported), (CapacityLimits::default(), CapacityLevel::Fine, 0));

    let ratio = |limit| ChangeLimits { over_provision: Some(limit), ..ChangeLimits::default() };
    // 1 % of 2 TiB.
    let info = set(&c, ratio(Limit::Percent(1))).await.unwrap();
    assert_eq!(info.provisionable, Some(2 * TIB / 100));
    for i in 0..10 {
        c.create(&format!("v{i}"), 2).await.expect("within the limit");
    }
    refused(c.create("v10", 2).await, "volume 'v10' cannot be created");
    let larger = ResizeVolume { size: 2 * GIB, allow_shrink: false };
    refused(c.post::<VolumeInfo>("/v1/volumes/v1/resize", &larger).await, "volume 'v1' cannot grow");
    assert_eq!(capacity(&c).await.provisioned, 20 * GIB);
    assert_eq!(metric(&group, "levee_provisioned_bytes ").await, Some(20 * GIB));
    assert_eq!(metric(&group, "levee_provisionable_bytes ").await, info.provisionable);
    set(&c, ratio(Limit::None)).await.unwrap();
    c.create("v10", 2).await.expect("no limit");
    assert_eq!(metric(&group, "levee_provisionable_bytes ").await, None);
    let problem = set(&c, ratio(Limit::Percent(0))).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Invalid);
}

#[tokio::test]
async fn limits_outlive_the_members() {
    let mut group = Group::start(3, &PATIENT).await;
    let change = ChangeLimits { warn: Some(Limit::Percent(60)), full: Some(Limit::None), ..ChangeLimits::default() };
    let limits = patiently("setting limits", async || set(&group.client(1), change).await.ok()).await.limits;
    group.members.iter_mut().for_each(Member::kill);
    group.members.iter_mut().for_each(Member::start);
    assert!(group.ready().await);
    let after = patiently("a leader", async || group.client(2).get::<CapacityInfo>("/v1/capacity").await.ok()).await;
    assert_eq!((after.limits, limits.warn_percent, limits.full_percent), (limits, Some(60), None));
}

#[tokio::test]
async fn a_full_cluster_takes_nothing_new_and_lets_everything_else_go_on() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let (first, second) = (c.register(1, 11).await, c.register(2, 12).await);
    c.create("v", 1).await.expect("created");
    c.create("other", 1).await.expect("created");
    let at = c.attach("v", Some("n1")).await.expect("attached").attachment.expect("an attachment");
    let opened = c.open("v", &at, 11).await.expect("opened");

    report(&c, &first, 11, 7 * TIB / 10).await;
    report(&c, &second, 12, 85 * TIB / 100).await;
    let info = capacity(&c).await;
    assert_eq!((info.level, info.detail, info.reported), (CapacityLevel::Fine, None, 2 * TIB));
    report(&c, &first, 11, 8 * TIB / 10).await;
    let info = capacity(&c).await;
    assert_eq!(info.level, CapacityLevel::Warn);
    assert!(info.detail.unwrap().contains("add disks or nodes"));
    assert_eq!(metric(&group, "levee_capacity_level ").await, Some(1));
    c.create("w", 1).await.expect("a warning refuses nothing");
    patiently("the log's word", async || group.members[0].log().contains("the cluster fills up").then_some(())).await;

    report(&c, &first, 11, TIB).await;
    report(&c, &second, 12, 95 * TIB / 100).await;
    assert_eq!(
        (capacity(&c).await.level, metric(&group, "levee_capacity_level ").await),
        (CapacityLevel::Full, Some(2))
    );
    refused(c.create("x", 1).await, "volume 'x' cannot be created: the cluster is full");
    let snapshot = |name: &str| SnapshotName { volume: "v".into(), snapshot: name.into() };
    let request = CreateSnapshots { snapshots: vec![snapshot("s")], image: None };
    refused(c.post::<CreatedSnapshots>("/v1/snapshots?wait_ms=0", &request).await, "snapshot v@s cannot be taken");
    let names = Family { name: "c".into(), count: Some(2), first: 1 };
    let clones = CreateClones { from: snapshot("s"), names, size: None, copies: None, min_copies: None };
    refused(c.post::<CreatedClones>("/v1/clones", &clones).await, "the cluster is full");
    let resize = |size| ResizeVolume { size, allow_shrink: true };
    refused(c.post::<VolumeInfo>("/v1/volumes/other/resize", &resize(2 * GIB)).await, "volume 'other' cannot grow");
    patiently("the log's word", async || group.members[0].log().contains("the cluster is full").then_some(())).await;

    // Writing to what exists, which takes chunks; shrinking; deleting.
    c.allocate("v", opened.epoch, vec![0]).await.expect("chunks");
    c.post::<VolumeInfo>("/v1/volumes/other/resize", &resize(GIB / 2)).await.expect("smaller");
    c.delete("/v1/volumes/other").await.expect("deleted");

    // A dead disk is no capacity, and what is on it does not count.
    let dead = SetDiskState { state: DiskState::Dead, reason: None };
    report(&c, &second, 12, TIB / 2).await;
    let path = format!("/v1/disks/{}/state", first.disks[0]);
    c.post::<DiskInfo>(&path, &dead).await.expect("given up");
    let info = capacity(&c).await;
    assert_eq!((info.capacity, info.reported, info.used, info.level), (TIB, TIB, TIB / 2, CapacityLevel::Fine));
    c.create("x", 1).await.expect("room again");
    patiently("the log's word", async || group.members[0].log().contains("has room again").then_some(())).await;

    // Another limit.
    let low = ChangeLimits { warn: Some(Limit::None), full: Some(Limit::Percent(50)), ..ChangeLimits::default() };
    assert_eq!(set(&c, low).await.expect("changed").level, CapacityLevel::Full);
    refused(c.create("y", 1).await, "the cluster is full");
    let never = ChangeLimits { full: Some(Limit::None), ..ChangeLimits::default() };
    assert_eq!(set(&c, never).await.expect("changed").level, CapacityLevel::Fine);
    c.create("y", 1).await.expect("no limit");
}
