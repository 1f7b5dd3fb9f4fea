//! Starting, stopping and killing a single member.

use crate::common::*;
use levee_proto::api::*;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Output;
use std::sync::{Arc, Mutex};

fn fails(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(last.starts_with("levee-metad: ") && last.contains(what), "'{what}' is not in: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn wrong_usage_is_told_and_help_is_complete() {
    for args in
        [&["--id", "1"][..], &["--id", "0", "--dir", "d"], &["--id", "2", "--dir", "d", "--peers", "1=http://a:1"]]
    {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("Example") && text.contains("--peers"), "{text}");
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why() {
    let mut group = Group::start(1, &[]).await;
    let dir = group.members[0].dir.display().to_string();
    let elsewhere = group.base.path().join("elsewhere").display().to_string();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&run(&["--id", "1", "--listen", &address, "--dir", &elsewhere]), "cannot listen on");
    let start = |id: &str, dir: &str| run(&["--id", id, "--listen", "127.0.0.1:0", "--dir", dir]);
    fails(&start("1", &dir), "in use by another levee-metad");
    fails(&start("1", "/proc/nowhere"), "cannot create the folder");

    assert!(group.members[0].terminate().success(), "{}", group.members[0].log());
    fails(&start("2", &dir), "belongs to member 1");
    let file = group.members[0].dir.join("meta.redb");
    let good = std::fs::read(&file).unwrap();
    for (what, bytes) in [
        ("zeros", vec![0; good.len()]),
        ("cut", good[..5000].to_vec()),
        ("text", b"this is not a database, but it is long enough to be read as one".repeat(200)),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let output = start("1", &dir);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        assert!(text.lines().last().unwrap_or_default().contains("is damaged"), "{what}: {text}");
    }
    std::fs::write(&file, good).unwrap();
    group.members[0].start();
    assert!(group.ready().await);
}

#[tokio::test]
async fn what_was_answered_survives_sigkill() {
    // Snapshots often, so that starts from a snapshot, a purged log and both are covered.
    let mut group = Group::start(1, &["--snapshot-every", "7"]).await;
    group.client(0).register(1, 11).await;
    let cluster: ClusterInfo = group.client(0).get("/v1/cluster").await.unwrap();
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..4 {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (c, answered) = (group.client(0), answered.clone());
                tokio::spawn(async move {
                    for i in 0.. {
                        let name = format!("v-{round}-{worker}-{i}");
                        if c.create(&name, 1).await.is_err() {
                            return;
                        }
                        answered.lock().unwrap().insert(name);
                    }
                })
            })
            .collect();
        let goal = answered.lock().unwrap().len() + 40;
        patiently("creating volumes", async || (answered.lock().unwrap().len() >= goal).then_some(())).await;
        group.members[0].kill();
        for worker in workers {
            worker.await.unwrap();
        }
        group.members[0].start();
        assert!(group.ready().await);
        let names: BTreeSet<String> = group.client(0).names(MAX_PAGE).await.into_iter().collect();
        let missing: Vec<_> = answered.lock().unwrap().difference(&names).cloned().collect();
        assert!(missing.is_empty(), "lost after kill {round}: {missing:?}");
    }
    let again: ClusterInfo = group.client(0).get("/v1/cluster").await.unwrap();
    assert_eq!(again.cluster, cluster.cluster);
    assert_eq!(group.client(0).register(1, 12).await.node, levee_proto::NodeId(1));
}
