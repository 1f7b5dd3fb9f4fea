//! Members of different versions.

use crate::common::*;
use levee_meta_state::LEVEL;
use levee_proto::api::*;

/// What only the newer version knows.
fn newer() -> RegisterNode {
    RegisterNode { zone: Some("east".into()), ..node(2, 22) }
}

async fn level(c: &Client) -> u32 {
    patiently("asking for the level", async || c.get::<Members>("/v1/members").await.ok()).await.level
}

async fn level_becomes(c: &Client, goal: u32) {
    patiently("raising the level", async || (level(c).await == goal).then_some(())).await;
}

#[tokio::test]
async fn members_are_upgraded_one_by_one() {
    let mut group = Group::start(3, &["--level", "1", "--snapshot-every", "10"]).await;
    let c = group.client(0);
    let request = node(1, 11);
    patiently("registering", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    for upgraded in 0..3 {
        for i in 0..8 {
            c.create_in_the_end(&format!("v{upgraded}-{i}"), 1).await;
        }
        assert_eq!(level(&c).await, 1);
        let refused = group.client(1).post::<Registered>("/v1/nodes", &newer()).await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Unavailable, "{refused}");
        group.members[upgraded].terminate();
        group.members[upgraded].change_args("--level", &[]);
        group.members[upgraded].start();
        assert!(group.ready().await);
    }
    level_becomes(&c, LEVEL).await;
    let request = newer();
    patiently("registering", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;

    // One that is older again cannot follow, and says so.
    group.members[2].terminate();
    group.members[2].change_args("--none", &["--level", "1"]);
    group.members[2].start();
    assert_eq!(group.members[2].ended().await.code(), Some(1));
    let log = group.members[2].log();
    assert!(log.lines().last().unwrap_or_default().contains("this levee-metad knows 1"), "{log}");
    group.members[2].change_args("--level", &[]);
    group.members[2].start();
    assert!(group.ready().await);
    let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
    assert_eq!(page.items.len(), 24);
}

#[tokio::test]
async fn an_older_member_is_not_taken_in_and_one_that_is_empty_stops() {
    let group = Group::start(1, &[]).await;
    let c = group.client(0);
    level_becomes(&c, LEVEL).await;
    let mut older = Member::joining(&group, 2, &["--level", "1"]);
    older.start();
    patiently("being refused", async || older.log().contains("is older than the group").then_some(())).await;
    older.kill();
    older.change_args("--level", &[]);
    older.start();
    patiently("joining", async || {
        let now = c.get::<Members>("/v1/members").await.ok()?;
        (now.members.len() == 2 && !now.changing).then_some(())
    })
    .await;
}
