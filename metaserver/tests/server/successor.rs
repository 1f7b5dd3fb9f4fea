//! Two daemons that say that they are the same node.

use crate::common::*;
use levee_proto::api::*;
use uuid::Uuid;

/// A process of node `n1`: its number, and the locks that it holds.
fn process(incarnation: u128, locks: &[&str]) -> RegisterNode {
    RegisterNode { locks: locks.iter().map(ToString::to_string).collect(), ..node(1, incarnation) }
}

fn without_disks(request: RegisterNode) -> RegisterNode {
    RegisterNode { disks: Vec::new(), ..request }
}

async fn register(c: &Client, request: &RegisterNode) -> Result<Registered, Problem> {
    c.post("/v1/nodes", request).await
}

/// A group that has heard of node `n1` just now, and does not forget that.
async fn group_with_node(first: &RegisterNode) -> (Group, Registered) {
    let group = Group::start(1, &["--down-after", "3600"]).await;
    let registered = register(&group.client(0), first).await.expect("the first one joins");
    (group, registered)
}

async fn beat(c: &Client, registered: &Registered, process: &RegisterNode) -> Result<HeartbeatAck, Problem> {
    let load = DiskLoad::default();
    let named = registered.disks.iter().zip(&process.disks);
    let usage = |disk, failed: bool| DiskUsage { disk, used: 0, failed: failed.then(|| "away".into()), load };
    let disks = named.map(|(id, disk)| usage(*id, process.missing.contains(&disk.uuid))).collect();
    let beat = Heartbeat { incarnation: process.incarnation, disks, locks: process.locks.clone(), ..heartbeat(0) };
    c.beat(registered.node, &beat).await
}

async fn refused(c: &Client, request: &RegisterNode) -> String {
    let problem = register(c, request).await.expect_err("it is refused");
    assert_eq!(problem.kind, ProblemKind::Fenced, "{problem}");
    problem.detail
}

#[tokio::test]
async fn a_copied_configuration_does_not_take_a_node_over() {
    let first = process(11, &["here:dir", "here:disk"]);
    let (group, registered) = group_with_node(&first).await;
    let c = group.client(0);
    let strangers = [
        without_disks(process(12, &["there:dir"])),
        // From its folder the stranger knows the disks, and has none of them.
        RegisterNode { missing: vec![first.disks[0].uuid], ..process(13, &["there:dir"]) },
        // The disk was copied, or two hosts can reach it.
        process(14, &["there:dir", "there:disk"]),
        process(15, &["here:dir-2", "here:disk-2"]),
        // One of an older version.
        without_disks(process(16, &[])),
    ];
    for round in 0..2 {
        for stranger in &strangers {
            let said = refused(&c, stranger).await;
            assert!(said.contains("'n1' is alive") && said.contains(&first.admin_url), "{said}");
        }
        beat(&c, &registered, &first).await.expect("the first one goes on");
        assert!(round == 1 || register(&c, &first).await.is_ok(), "and may register again");
    }
    let nodes: Page<NodeInfo> = c.get("/v1/nodes").await.unwrap();
    let detail = nodes.items[0].detail.clone().unwrap_or_default();
    assert!(detail.contains("second daemon with this name"), "{detail}");
    let events: EventPage = c.get("/v1/events").await.unwrap();
    let told: Vec<_> = events.events.iter().filter(|e| e.text.contains("second daemon")).collect();
    assert!(told.len() == 1 && told[0].subject == "n1", "it is told once: {told:?}");
}

#[tokio::test]
async fn who_holds_a_lock_of_the_process_before_is_its_successor() {
    let first = process(11, &["here:dir", "here:disk"]);
    let (group, registered) = group_with_node(&first).await;
    let c = group.client(0);
    beat(&c, &registered, &first).await.unwrap();
    // By its folder alone, by the disk alone, and by both.
    let mut before = first;
    for (incarnation, locks) in
        [(12, &["here:dir"][..]), (13, &["here:dir", "here:disk"]), (14, &["new:dir", "here:disk"])]
    {
        let next = process(incarnation, locks);
        assert_eq!(register(&c, &next).await.expect("it follows").node, registered.node);
        let fenced = beat(&c, &registered, &before).await.unwrap_err();
        assert_eq!(fenced.kind, ProblemKind::Fenced);
        let intent = |process: &RegisterNode| format!("/v1/nodes/1/intent?incarnation={}", process.incarnation);
        assert_eq!(c.get::<Intent>(&intent(&before)).await.unwrap_err().kind, ProblemKind::Fenced);
        c.get::<Intent>(&intent(&next)).await.expect("its intent");
        beat(&c, &registered, &next).await.expect("it is the node");
        before = next;
    }
    // Whoever was replaced does not come back as the same process.
    assert_eq!(register(&c, &process(13, &["here:disk"])).await.unwrap_err().kind, ProblemKind::Fenced);
}

#[tokio::test]
async fn older_daemons_are_told_by_their_disks() {
    let (group, registered) = group_with_node(&process(11, &[])).await;
    let c = group.client(0);
    register(&c, &process(12, &["here:dir", "here:disk"])).await.expect("the one before named no locks");
    register(&c, &process(13, &[])).await.expect("this one names none");
    beat(&c, &registered, &process(13, &[])).await.unwrap();
    refused(&c, &without_disks(process(14, &["there:dir"]))).await;
}

/// Each may have the node when the other is gone; while both are there it is always the same one's.
#[tokio::test]
async fn of_two_the_one_with_a_disk_is_the_node() {
    let group = Group::start(1, &["--down-after", "1"]).await;
    let c = group.client(0);
    let owner = process(11, &["here:dir", "here:disk"]);
    let registered = register(&c, &owner).await.unwrap();
    let stranger = without_disks(process(12, &["there:dir"]));
    refused(&c, &stranger).await;
    // Nothing is heard of the owner for a while.
    patiently("the name of a dead node", async || register(&c, &stranger).await.ok()).await;
    beat(&c, &registered, &stranger).await.expect("the stranger is the node for now");
    let back = process(13, &["here:dir", "here:disk"]);
    register(&c, &back).await.expect("the owner has a disk, the stranger none");
    assert_eq!(beat(&c, &registered, &stranger).await.unwrap_err().kind, ProblemKind::Fenced);
    refused(&c, &RegisterNode { incarnation: Uuid::from_u128(14), ..stranger }).await;
    beat(&c, &registered, &back).await.expect("the owner stays");
}

#[tokio::test]
async fn absurd_locks_are_refused() {
    let group = Group::start(1, &[]).await;
    let c = group.client(0);
    let many = RegisterNode { locks: vec!["a".into(); 1000], ..node(1, 11) };
    let long = RegisterNode { locks: vec!["a".repeat(5000)], ..node(1, 11) };
    for absurd in [many, long] {
        assert_eq!(register(&c, &absurd).await.unwrap_err().kind, ProblemKind::Invalid);
    }
}
