//! Repair, as far as it is the leader's: disks given up and taken back, unused volumes repaired, rates shared.

use crate::common::*;
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// Nodes that send no heartbeats stay up, however slow the machine is.
const PATIENT: [&str; 2] = ["--down-after", "3600"];
/// Whoever is silent is given up soon.
const HASTY: [&str; 4] = ["--down-after", "1", "--repair-after", "1"];

/// A daemon that lives in a test: it sends heartbeats until it is dropped.
struct Daemon {
    node: NodeId,
    disk: DiskId,
    beats: tokio::task::JoinHandle<()>,
}

impl Daemon {
    async fn start(c: &Client, i: u32, failed: Option<&str>) -> Daemon {
        let registered = c.register(i, u128::from(i) + 10).await;
        let (node, disk) = (registered.node, registered.disks[0]);
        let mut beat = heartbeat(u128::from(i) + 10);
        beat.disks.push(DiskUsage { disk, used: 0, failed: failed.map(Into::into), load: DiskLoad::default() });
        let c = c.clone();
        let beats = tokio::spawn(async move {
            loop {
                // A leader that is being chosen is not this test's subject.
                let _ = c.beat(node, &beat).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Daemon { node, disk, beats }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

async fn disks(c: &Client) -> BTreeMap<DiskId, DiskInfo> {
    let page: Page<DiskInfo> = c.get("/v1/disks").await.unwrap();
    page.items.into_iter().map(|d| (d.id, d)).collect()
}

async fn until(c: &Client, disk: DiskId, state: DiskState) -> DiskInfo {
    patiently("a disk's change of state", async || Some(disks(c).await.remove(&disk)?).filter(|d| d.state == state))
        .await
}

async fn set(c: &Client, disk: DiskId, state: DiskState) -> Result<DiskInfo, Problem> {
    c.post(&format!("/v1/disks/{disk}/state"), &SetDiskState { state, reason: Some("a test".into()) }).await
}

async fn intent(c: &Client, node: NodeId) -> Intent {
    c.get(&format!("/v1/nodes/{node}/intent")).await.unwrap()
}

/// A report of a gateway that serves the volume.
fn serving(opened: &OpenedVolume, leaving_replicas: u32) -> VolumeReport {
    let degraded_chunks = leaving_replicas;
    VolumeReport { degraded_chunks, leaving_replicas, copied_bytes: 77, ..well(opened.id, opened.epoch) }
}

#[tokio::test]
async fn a_silent_nodes_disk_is_given_up_and_taken_back() {
    let group = Group::start(1, &HASTY).await;
    let c = group.client(0);
    let _others = (Daemon::start(&c, 2, None).await, Daemon::start(&c, 3, None).await);
    let silent = Daemon::start(&c, 1, None).await;
    let (node, disk) = (silent.node, silent.disk);
    drop(silent);
    let dead = until(&c, disk, DiskState::Dead).await;
    let reason = dead.reason.unwrap();
    assert!(reason.contains("nothing was heard of node 'n1' for"), "{reason}");

    let back = Daemon::start(&c, 1, None).await;
    assert_eq!((back.node, back.disk), (node, disk));
    assert_eq!(until(&c, disk, DiskState::InService).await.reason, None);
}

#[tokio::test]
async fn most_nodes_are_not_given_up_at_once() {
    let mut group = Group::start(1, &HASTY).await;
    let c = group.client(0);
    for i in [2, 3] {
        c.register(i, u128::from(i) + 10).await;
    }
    // To a leader that begins its term now, both are silent since the same moment.
    group.members[0].kill();
    group.members[0].start();
    group.ready().await;
    let only = Daemon::start(&c, 1, None).await;
    let held = patiently("repair being held", async || c.get::<RepairInfo>("/v1/repair").await.unwrap().held).await;
    assert!(held.contains("of 3 nodes are down"), "{held}");
    let others = disks(&c).await.into_values().filter(|d| d.node != only.node);
    assert!(others.into_iter().all(|d| d.state == DiskState::InService));
    // One comes back: the other may be given up.
    let _back = Daemon::start(&c, 2, None).await;
    until(&c, DiskId(2), DiskState::Dead).await;
    patiently("repair going on", async || {
        c.get::<RepairInfo>("/v1/repair").await.unwrap().held.is_none().then_some(())
    })
    .await;
    drop(only);
}

#[tokio::test]
async fn a_failed_disk_is_given_up_at_once_until_an_operator_says_otherwise() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    let sick = Daemon::start(&c, 1, Some("write error\nat offset 7")).await;
    let dead = until(&c, sick.disk, DiskState::Dead).await;
    assert_eq!(dead.reason.as_deref(), Some("write error at offset 7"));
    let refused = set(&c, sick.disk, DiskState::InService).await.unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("has failed"), "{refused}");

    let disk = sick.disk;
    drop(sick);
    let mended = Daemon::start(&c, 1, None).await;
    assert_eq!(mended.disk, disk);
    let info = patiently("the disk working", async || set(&c, disk, DiskState::InService).await.ok()).await;
    assert_eq!((info.state, info.reason), (DiskState::InService, None));
    assert_eq!(set(&c, DiskId(99), DiskState::Dead).await.unwrap_err().kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn a_disk_that_its_node_runs_without_is_given_up() {
    let group = Group::start(1, &["--repair-after", "1", "--down-after", "3600"]).await;
    let c = group.client(0);
    let locks = vec!["here:dir".to_string()];
    let known: Registered = c.post("/v1/nodes", &RegisterNode { locks: locks.clone(), ..node(1, 11) }).await.unwrap();
    let without = RegisterNode { disks: vec![], locks, ..node(1, 12) };
    c.post::<Registered>("/v1/nodes", &without).await.unwrap();
    let dead = until(&c, known.disks[0], DiskState::Dead).await;
    assert!(dead.reason.as_ref().is_some_and(|r| r.contains("without it")), "{dead:?}");
}

#[tokio::test]
async fn an_unused_volume_is_repaired_and_let_go() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    for i in 1..=3 {
        c.register(i, u128::from(i) + 10).await;
    }
    c.create("v", 2).await.unwrap();
    let at = c.attach("v", Some("n1")).await.unwrap().attachment.unwrap();
    let opened = c.open("v", &at, 11).await.unwrap();
    let chunk = c.allocate("v", opened.epoch, vec![0]).await.unwrap().chunks.remove(0);
    c.detach("v").await.unwrap();
    let drained = chunk.replicas[1];
    let set_to = set(&c, drained.disk, DiskState::Draining).await.unwrap();
    assert_eq!((set_to.state, set_to.replicas, set_to.reason.as_deref()), (DiskState::Draining, 1, Some("a test")));

    let repair = patiently("the repair", async || c.volume("v").await.attachment).await;
    assert!(repair.repair);
    let told = intent(&c, repair.node).await;
    assert!(
        told.attach[0].repair && told.evacuate == [EvacuateDisk { disk: drained.disk, state: DiskState::Draining }]
    );
    let incarnation = u128::from(repair.node.0) + 10;
    let opened = c.open("v", &repair, incarnation).await.unwrap();
    let moved = |remove: Vec<ReplicaId>, config, add| ChangeReplicas {
        epoch: opened.epoch,
        changes: vec![ReplicaChange { index: 0, config, remove, add }],
    };
    let wider: ChangedReplicas = c.post("/v1/volumes/v/replicas", &moved(vec![], chunk.config, 1)).await.unwrap();
    assert_eq!((wider.chunks[0].replicas.len(), wider.refused), (3, None));
    let config = wider.chunks[0].config;
    let done: ChangedReplicas =
        c.post("/v1/volumes/v/replicas", &moved(vec![drained.replica], config, 0)).await.unwrap();
    assert!(done.chunks[0].replicas.len() == 2 && !done.chunks[0].replicas.contains(&drained));
    let late = ChangeReplicas { epoch: Epoch(1), ..moved(vec![], config, 1) };
    let late = c.post::<ChangedReplicas>("/v1/volumes/v/replicas", &late).await.unwrap_err();
    assert_eq!(late.kind, ProblemKind::Fenced);

    let mut beat = heartbeat(incarnation);
    beat.volumes.push(serving(&opened, 0));
    patiently("the end of the repair", async || {
        c.beat(repair.node, &beat).await.unwrap();
        c.volume("v").await.attachment.is_none().then_some(())
    })
    .await;
    assert_eq!(disks(&c).await[&drained.disk].replicas, 0);
}

#[tokio::test]
async fn a_repair_gives_way_to_a_user() {
    let group = Group::start(1, &PATIENT).await;
    let c = group.client(0);
    for i in 1..=2 {
        c.register(i, u128::from(i) + 10).await;
    }
    c.create("v", 1).await.unwrap();
    let at = c.attach("v", Some("n1")).await.unwrap().attachment.unwrap();
    let opened = c.open("v", &at, 11).await.unwrap();
    let chunk = c.allocate("v", opened.epoch, vec![0]).await.unwrap().chunks.remove(0);
    c.detach("v").await.unwrap();
    set(&c, chunk.replicas[0].disk, DiskState::Draining).await.unwrap();
    patiently("the repair", async || c.volume("v").await.attachment).await;
    assert!(c.detach("v").await.unwrap().attachment.is_some_and(|a| a.repair), "detached it was already");
    let user = c.attach("v", Some("n2")).await.unwrap().attachment.unwrap();
    assert!(!user.repair && user.node == NodeId(2));
    c.detach("v").await.unwrap();
    patiently("the next repair", async || c.volume("v").await.attachment).await;
    c.delete("/v1/volumes/v").await.unwrap();
}

#[tokio::test]
async fn the_clusters_rate_is_shared_by_those_who_copy() {
    let group = Group::start(1, &["--down-after", "3600", "--repair-rate", "100M"]).await;
    let c = group.client(0);
    let mut beats = Vec::new();
    for i in 1..=2u32 {
        let registered = c.register(i, u128::from(i) + 10).await;
        let name = format!("v{i}");
        c.create(&name, 1).await.unwrap();
        let at = c.attach(&name, Some(&format!("n{i}"))).await.unwrap().attachment.unwrap();
        let opened = c.open(&name, &at, u128::from(i) + 10).await.unwrap();
        let mut beat = heartbeat(u128::from(i) + 10);
        beat.volumes.push(serving(&opened, 1));
        beats.push((registered.node, beat));
    }
    let rate = async |wanted| {
        patiently("the rate", async || (intent(&c, NodeId(1)).await.background_rate == Some(wanted)).then_some(()))
            .await;
    };
    rate(100 << 20).await;
    for (node, beat) in &beats {
        c.beat(*node, beat).await.unwrap();
    }
    rate(50 << 20).await;
    let info: RepairInfo = c.get("/v1/repair").await.unwrap();
    assert_eq!((info.after_s, info.rate, info.held), (600, Some(100 << 20), None));

    let text = group.http.get(format!("{}/metrics", c.url)).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"levee_chunks_below_copies{volume="v1"} 1"#,
        r#"levee_chunks_waiting{volume="v1"} 0"#,
        r#"levee_repair_leaving_replicas{volume="v2"} 1"#,
        r#"levee_repair_copied_bytes{volume="v2"} 77"#,
        r#"levee_disk_state{disk="1",node="n1",state="in-service"} 1"#,
        r#"levee_disk_state{disk="1",node="n1",state="dead"} 0"#,
        r#"levee_node_up{node="n2"} 1"#,
        "levee_repair_held 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
