//! Most members are lost for good.

use crate::common::*;
use levee_proto::api::*;

#[tokio::test]
async fn one_member_of_three_goes_on_alone_and_others_are_added() {
    let mut group = Group::start(3, &["--snapshot-every", "10"]).await;
    let c = group.client(0);
    let request = node(1, 11);
    patiently("registering", async || c.post::<Registered>("/v1/nodes", &request).await.ok()).await;
    for i in 0..25 {
        c.create_in_the_end(&format!("v{i:02}"), 1).await;
    }
    // What all have is what was answered; a member that lags would have less.
    let last = patiently("asking", async || c.get::<Members>("/v1/members").await.ok()).await.last;
    for i in 0..3 {
        let c = group.client(i);
        patiently("catching up", async || {
            let info: ClusterInfo = c.get("/v1/cluster").await.ok()?;
            (info.applied >= last).then_some(())
        })
        .await;
    }
    group.members.iter_mut().for_each(Member::kill);
    for lost in [0, 2] {
        std::fs::remove_dir_all(&group.members[lost].dir).expect("the member's folder");
    }
    let survivor = group.members[1].dir.display().to_string();
    let url = group.members[1].url.clone();
    let command = ["recover", "--dir", &survivor, "--id", "2", "--url", &url];
    let shown = run(&command);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("25 volumes") && text.contains("Nothing was changed"), "{text}");
    let digits = text.trim().rsplit(' ').next().expect("a word").to_string();
    let wrong = run(&[&command[..], &["--confirm", "00000000"]].concat());
    assert_eq!(wrong.status.code(), Some(1));
    let stranger = run(&["recover", "--dir", &survivor, "--id", "3", "--url", &url, "--confirm", &digits]);
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("belongs to member 2"));
    let done = run(&[&command[..], &["--confirm", &digits]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    group.members[1].change_args("--peers", &[]);
    group.members[1].start();
    let c = group.client(1);
    let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
    assert_eq!(page.items.len(), 25);
    // What daemons have seen is not known: they are asked.
    let recovery: RecoveryInfo = c.get("/v1/recovery").await.expect("it tells");
    assert!(recovery.generation > 0 && recovery.awaited == [request.name.clone()], "{recovery:?}");
    c.create_in_the_end("alone", 1).await;
    let alone: VolumeInfo = c.get("/v1/volumes/alone").await.expect("it is there");
    assert!(alone.id > page.items.iter().map(|v| v.id).max().expect("some") && alone.id.0 > 1 << 32, "{alone:?}");
    for back in [0, 2] {
        group.members[back].change_args("--peers", &["--join", &url]);
        group.members[back].start();
        let count = if back == 0 { 2 } else { 3 };
        patiently("joining", async || {
            let now = c.get::<Members>("/v1/members").await.ok()?;
            let voters = now.members.iter().filter(|m| m.role == MemberRole::Voter).count();
            (voters == count && !now.changing).then_some(())
        })
        .await;
    }
    group.members[1].kill();
    let c = group.client(0);
    let page = patiently("listing", async || c.get::<Page<VolumeInfo>>("/v1/volumes").await.ok()).await;
    assert_eq!(page.items.len(), 26);
    let refused = run(&["recover", "--dir", &group.base.path().display().to_string(), "--id", "1", "--url", &url]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no folder of a meta server"));
}
