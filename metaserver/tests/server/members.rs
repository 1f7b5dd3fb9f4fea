//! Members that come, go, move, and lose their folders.

use crate::common::*;
use levee_proto::api::*;
use nix::sys::signal::Signal;

async fn members(c: &Client) -> Members {
    patiently("asking who is there", async || c.get::<Members>("/v1/members").await.ok()).await
}

/// Waits until exactly these are voters, and nothing is under way.
async fn voters(c: &Client, ids: &[u64]) -> Members {
    patiently("changing the group", async || {
        let now = c.get::<Members>("/v1/members").await.ok()?;
        let voters: Vec<u64> = now.members.iter().filter(|m| m.role == MemberRole::Voter).map(|m| m.id).collect();
        (voters == ids && !now.changing).then_some(now)
    })
    .await
}

/// Repeats a change of the group while it has no leader.
async fn insist(what: &str, mut ask: impl AsyncFnMut() -> Result<Members, Problem>) -> Result<Members, Problem> {
    patiently(what, async || match ask().await {
        Err(p) if p.kind == ProblemKind::Unavailable => None,
        answer => Some(answer),
    })
    .await
}

async fn register(c: &Client) {
    let request = node(1, 11);
    patiently("registering a node", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
}

async fn pinned(c: &Client) {
    // Folders are noted at level 2 within a second; the members' list tells of the level only.
    patiently("noting folders", async || {
        let now = c.get::<Members>("/v1/members").await.ok()?;
        (now.level >= 2 && now.members.iter().all(|m| m.alive)).then_some(())
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_new_member_is_taken_in_and_an_old_one_leaves() {
    let mut group = Group::start(3, &["--snapshot-every", "10"]).await;
    let c = group.client(0);
    register(&c).await;
    for i in 0..30 {
        c.create_in_the_end(&format!("v{i:02}"), 1).await;
    }
    let mut fourth = Member::joining(&group, 4, &[]);
    fourth.start();
    let now = voters(&c, &[1, 2, 3, 4]).await;
    assert_eq!(now.members[3].url, fourth.url);
    group.members.push(fourth);

    // The leader itself leaves.
    let leaving = usize::try_from(now.leader).unwrap();
    let c = group.client(leaving % 3);
    // The answer may get lost with the leadership of who gives it.
    let left = insist("leaving", async || c.delete_for(&format!("/v1/members/{leaving}")).await).await;
    assert!(left.is_ok() || left.is_err_and(|p| p.kind == ProblemKind::NotFound));
    let status = group.members[leaving - 1].ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(group.members[leaving - 1].log().contains("was removed from the group"), "it says why it ends");
    let rest: Vec<u64> = (1..=4).filter(|id| *id != leaving as u64).collect();
    voters(&c, &rest).await;
    group.members[leaving - 1].start();
    group.members[leaving - 1].ended().await;

    // The new one counts: with one of the old ones gone, it is half of the majority.
    let gone = (0..3).find(|i| *i != leaving - 1 && *i != leaving % 3).unwrap();
    group.members[gone].kill();
    let c = group.client(3);
    c.create_in_the_end("after", 1).await;
    let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes?limit=100").await.ok()).await;
    assert_eq!(page.items.len(), 31);

    // Two are left that answer: without one of them there is no majority.
    let at = |id: u64| format!("/v1/members/{id}");
    let refused = insist("refusing", async || c.delete_for(&at(4)).await).await.unwrap_err();
    assert!(refused.kind == ProblemKind::Conflict && refused.detail.contains("no majority"), "{refused}");
    insist("removing what is gone", async || c.delete_for(&at(gone as u64 + 1)).await).await.unwrap();
    let unknown = insist("refusing", async || c.delete_for(&at(77)).await).await.unwrap_err();
    assert_eq!(unknown.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn a_folder_of_a_member_that_was_removed_is_of_no_use_any_more() {
    let mut group = Group::start(3, &[]).await;
    let c = group.client(0);
    register(&c).await;
    let leaving = usize::try_from(voters(&c, &[1, 2, 3]).await.leader).unwrap();
    let c = group.client(leaving % 3);
    let left = insist("leaving", async || c.delete_for(&format!("/v1/members/{leaving}")).await).await;
    assert!(left.is_ok() || left.is_err_and(|p| p.kind == ProblemKind::NotFound));
    group.members[leaving - 1].ended().await;
    group.members[leaving - 1].start();
    group.members[leaving - 1].ended().await;
    c.create_in_the_end("after", 1).await;
}

#[tokio::test]
async fn a_member_that_lost_its_folder_counts_for_nothing_until_it_is_replaced() {
    let mut group = Group::start(3, &["--snapshot-every", "10"]).await;
    let c = group.client(0);
    register(&c).await;
    pinned(&c).await;
    // Each in turn, so that the leader is among them, and the one that sets a new group up.
    for lost in 0..3 {
        group.members[lost].kill();
        std::fs::remove_dir_all(&group.members[lost].dir).expect("the member's folder");
        let other = group.client((lost + 1) % 3);
        other.create_in_the_end(&format!("without-{lost}"), 1).await;
        group.members[lost].start();
        let id = lost as u64 + 1;
        let trouble = patiently("noticing the loss", async || {
            let now = other.get::<Members>("/v1/members").await.ok()?;
            now.members.iter().find(|m| m.id == id).and_then(|m| m.trouble.clone())
        })
        .await;
        assert!(trouble.contains(&format!("levee meta replace {id}")), "{trouble}");
        let replace = format!("/v1/members/{id}/replace");
        insist("replacing", async || other.post(&replace, &ReplaceMember::default()).await).await.unwrap();
        voters(&other, &[1, 2, 3]).await;
        let again = insist("refusing", async || other.post(&replace, &ReplaceMember::default()).await).await;
        assert!(again.unwrap_err().detail.contains("nothing to replace"));
    }
    // Whatever was answered is there, whoever has seen it.
    group.members[0].kill();
    let c = group.client(2);
    let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
    assert_eq!(page.items.len(), 3);
}

#[tokio::test]
async fn an_empty_member_does_not_bring_a_minority_to_a_majority() {
    let mut group = Group::start(3, &[]).await;
    let c = group.client(0);
    register(&c).await;
    pinned(&c).await;
    let leader = usize::try_from(members(&c).await.leader).unwrap() - 1;
    let (lost, gone) = ((leader + 1) % 3, (leader + 2) % 3);
    group.members[lost].kill();
    group.members[gone].kill();
    std::fs::remove_dir_all(&group.members[lost].dir).expect("the member's folder");
    group.members[lost].start();
    let c = group.client(leader);
    let refused = c.create("v", 1).await.unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Unavailable, "{refused}");
    let log = || std::fs::read_to_string(group.base.path().join(format!("m{}.log", lost + 1))).unwrap_or_default();
    patiently("saying what to do", async || log().contains("levee meta replace").then_some(())).await;
    group.members[gone].start();
    c.create_in_the_end("w", 1).await;
}

#[tokio::test]
async fn a_member_that_moved_is_found() {
    let mut group = Group::start(3, &[]).await;
    let c = group.client(0);
    register(&c).await;
    pinned(&c).await;
    let elsewhere = Member::joining(&group, 9, &[]);
    let address = elsewhere.url.trim_start_matches("http://").to_string();
    group.members[2].kill();
    group.members[2].change_args("--listen", &["--listen", &address, "--url", &elsewhere.url]);
    group.members[2].url = elsewhere.url.clone();
    group.members[2].start();
    patiently("moving", async || {
        let now = c.get::<Members>("/v1/members").await.ok()?;
        now.members.iter().any(|m| m.id == 3 && m.url == elsewhere.url && m.alive).then_some(())
    })
    .await;
    group.members[1].kill();
    group.client(0).create_in_the_end("v", 1).await;
}

#[tokio::test]
async fn any_member_reads_what_was_answered_anywhere() {
    let group = Group::start(3, &[]).await;
    let clients: Vec<Client> = (0..3).map(|i| group.client(i)).collect();
    register(&clients[0]).await;
    for i in 0..60 {
        let name = format!("v{i}");
        clients[i % 3].create_in_the_end(&name, 1).await;
        let path = format!("/v1/volumes/{name}/versions");
        for c in &clients {
            let read = insist_read(c, &path).await;
            assert!(read.is_ok(), "member {} does not show {name}: {read:?}", c.url);
        }
    }
}

async fn insist_read(c: &Client, path: &str) -> Result<VolumeVersions, Problem> {
    patiently("reading", async || match c.get::<VolumeVersions>(path).await {
        Err(p) if p.kind == ProblemKind::Unavailable => None,
        answer => Some(answer),
    })
    .await
}

#[tokio::test]
async fn a_leader_that_was_stopped_shows_nothing_old() {
    let group = Group::start(3, &[]).await;
    let c = group.client(0);
    register(&c).await;
    for round in 0..3 {
        let old = usize::try_from(members(&group.client(round)).await.leader).unwrap() - 1;
        group.members[old].signal(Signal::SIGSTOP);
        let name = format!("v{round}");
        // Through one that follows: another one leads soon, and the change is answered.
        group.client((old + 1) % 3).create_in_the_end(&name, 1).await;
        group.members[old].signal(Signal::SIGCONT);
        // The one that led believes for a moment that it still does.
        let back = insist_read(&group.client(old), &format!("/v1/volumes/{name}/versions")).await;
        assert!(back.is_ok(), "round {round}: {back:?}");
    }
}
