//! Three members, and five.

use crate::common::*;
use levee_proto::api::*;

async fn leader(c: &Client) -> usize {
    patiently("choosing a leader", async || {
        let info: ClusterInfo = c.get("/v1/cluster").await.ok()?;
        info.leader.map(|id| usize::try_from(id).unwrap() - 1)
    })
    .await
}

async fn applied(c: &Client) -> u64 {
    c.get::<ClusterInfo>("/v1/cluster").await.map_or(0, |info| info.applied)
}

#[tokio::test]
async fn any_member_takes_any_request() {
    let group = Group::start(3, &[]).await;
    let clients: Vec<Client> = (0..3).map(|i| group.client(i)).collect();
    let info: ClusterInfo = clients[0].get("/v1/cluster").await.unwrap();
    assert_eq!(info.members.iter().map(|m| m.id).collect::<Vec<_>>(), [1, 2, 3]);
    let request = node(1, 11);
    patiently("registering a node", async || clients[0].post::<Registered>("/v1/nodes", &request).await.ok()).await;
    for (i, c) in clients.iter().enumerate() {
        c.create_in_the_end(&format!("v{i}"), 1).await;
        for other in &clients {
            let seen: VolumeInfo =
                patiently("reading a volume", async || match other.get(&format!("/v1/volumes/v{i}")).await {
                    Ok(volume) => Some(volume),
                    Err(p) => (p.kind != ProblemKind::Unavailable).then(|| panic!("a member lags behind: {p}")),
                })
                .await;
            assert_eq!(seen.name, format!("v{i}"));
        }
        let problem = c.get::<VolumeInfo>("/v1/volumes/none").await.unwrap_err();
        assert!(matches!(problem.kind, ProblemKind::NotFound | ProblemKind::Unavailable), "{problem}");
    }
}

#[tokio::test]
async fn the_group_outlives_its_leader_and_takes_it_back() {
    let mut group = Group::start(3, &["--snapshot-every", "10"]).await;
    let first = leader(&group.client(0)).await;
    let survivors: Vec<usize> = (0..3).filter(|i| *i != first).collect();
    let request = node(1, 11);
    let c = group.client(first);
    patiently("registering a node", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    c.create_in_the_end("before", 1).await;

    group.members[first].kill();
    // More entries than the log keeps: the member that was away needs the snapshot.
    for i in 0..40 {
        group.client(survivors[i % 2]).create_in_the_end(&format!("v{i:02}"), 1).await;
    }
    let c = group.client(survivors[0]);
    let goal = applied(&c).await;
    group.members[first].start();
    assert!(group.ready().await);
    let back = group.client(first);
    patiently("catching up", async || (applied(&back).await >= goal).then_some(())).await;

    // Now it counts: with one of the survivors gone, it is half of the majority.
    group.members[survivors[1]].kill();
    back.create_in_the_end("after", 1).await;
    let names = patiently("listing", async || {
        let page: Page<VolumeInfo> = back.get("/v1/volumes?limit=1000").await.ok()?;
        Some(page.items.into_iter().map(|v| v.name).collect::<Vec<_>>())
    })
    .await;
    assert_eq!(names.len(), 42, "{names:?}");
}

#[tokio::test]
async fn a_group_that_was_killed_comes_back_whole() {
    let mut group = Group::start(3, &["--snapshot-every", "10"]).await;
    let request = node(1, 11);
    let c = group.client(0);
    let node = patiently("registering", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    for i in 0..25 {
        group.client(i % 3).create_in_the_end(&format!("v{i:02}"), 1).await;
    }
    group.members.iter_mut().for_each(Member::kill);
    group.members.iter_mut().for_each(Member::start);
    assert!(group.ready().await);
    let c = group.client(2);
    let again = patiently("registering", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    assert_eq!(again, node);
    let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
    assert_eq!(page.items.len(), 25);
}

#[tokio::test]
async fn without_a_majority_nothing_is_promised() {
    let mut group = Group::start(3, &[]).await;
    let first = leader(&group.client(0)).await;
    let others: Vec<usize> = (0..3).filter(|i| *i != first).collect();
    others.iter().for_each(|i| group.members[*i].kill());
    let c = group.client(first);
    let read = c.get::<Page<VolumeInfo>>("/v1/volumes").await.unwrap_err();
    assert_eq!(read.kind, ProblemKind::Unavailable, "{read}");
    group.members[others[0]].start();
    patiently("a majority", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
}

#[tokio::test]
async fn five_members_bear_the_loss_of_two_leaders() {
    let mut group = Group::start(5, &["--snapshot-every", "10"]).await;
    let request = node(1, 11);
    let c = group.client(0);
    patiently("registering a node", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    let mut there: Vec<usize> = (0..5).collect();
    for round in 0..2 {
        let c = group.client(there[0]);
        let led = patiently("a leader that lives", async || Some(leader(&c).await).filter(|l| there.contains(l))).await;
        group.members[led].kill();
        there.retain(|i| *i != led);
        for (n, i) in there.iter().enumerate() {
            group.client(*i).create_in_the_end(&format!("v{round}-{n}"), 1).await;
        }
    }
    group.members[there[0]].kill();
    let refused = group.client(there[1]).create("w", 1).await.unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Unavailable, "two of five promise nothing: {refused}");
    (0..5).filter(|i| !there[1..].contains(i)).for_each(|i| group.members[i].start());
    assert!(group.ready().await);
    for i in 0..5 {
        let c = group.client(i);
        let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
        assert_eq!(page.items.iter().filter(|v| v.name.starts_with('v')).count(), 7);
    }
}
