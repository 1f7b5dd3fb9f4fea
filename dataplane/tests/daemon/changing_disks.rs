//! Disks that are added to and removed from a daemon while it runs.

use crate::common::meta::FakeMeta;
use crate::common::{Daemon, MIB, Node, format, until};
use levee_proto::DiskId;
use levee_proto::api::{DiskClass, DiskState};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;

fn running(node: &Node, meta: &FakeMeta) -> Daemon {
    meta.forget();
    let daemon = node.start(&meta.url);
    until("it joins", || meta.told(|t| t.heartbeat.as_ref().map(|_| ())));
    daemon
}

fn add(daemon: &Daemon, body: Value) -> (u16, Value) {
    let (status, answer, _) = daemon.ask("/v1/disks", Some(body), None);
    (status, answer)
}

fn remove(daemon: &Daemon, disk: impl std::fmt::Display) -> (u16, Value) {
    let (status, answer, _) = daemon.ask(&format!("/v1/disks/{disk}/remove"), Some(json!({})), None);
    (status, answer)
}

/// Waits until the daemon reports just these disks, all in good health.
#[track_caller]
fn until_reports(meta: &FakeMeta, ids: &[u32]) {
    let told = |meta: &FakeMeta| {
        meta.told(|t| {
            let disks = &t.heartbeat.as_ref()?.disks;
            let good = disks.iter().all(|d| d.failed.is_none());
            good.then(|| disks.iter().map(|d| d.disk.0).collect::<Vec<_>>())
        })
    };
    until("the report", || (told(meta)? == ids).then_some(()));
}

fn registered(meta: &FakeMeta) -> Vec<(String, DiskClass)> {
    meta.told(|t| t.registered.as_ref().unwrap().disks.iter().map(|d| (d.path.clone(), d.class)).collect())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

#[test]
fn a_disk_is_added_served_and_taken_again_at_the_next_start() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let daemon = running(&node, &meta);
    let incarnation = meta.told(|t| t.registered.as_ref().unwrap().incarnation);
    let new = text(&node.dir.path().join("disk-new"));
    let (status, added) = add(&daemon, json!({"path": new, "format": true, "size": 256 * MIB, "class": "hdd"}));
    assert_eq!((status, &added["disk"]), (200, &json!(2)), "{added}");
    assert!(added["capacity"].as_u64().unwrap() > 100 * MIB, "{added}");
    until_reports(&meta, &[1, 2]);
    assert_eq!(meta.told(|t| t.registered.as_ref().unwrap().incarnation), incarnation);
    // What was formatted before.
    let other = node.dir.path().join("disk-other");
    format(&other);
    let (status, added) = add(&daemon, json!({"path": text(&other)}));
    assert_eq!((status, &added["disk"]), (200, &json!(3)), "{added}");
    until_reports(&meta, &[1, 2, 3]);
    assert_eq!(daemon.ask("/v1/replicas", None, None).1, json!({"items": []}));
    daemon.stop();

    let daemon = running(&node, &meta);
    until_reports(&meta, &[1, 2, 3]);
    assert_eq!(registered(&meta)[1], (new, DiskClass::Hdd));
    assert_eq!(registered(&meta)[2].0, text(&other));
    daemon.stop();
}

#[test]
fn what_cannot_be_added_is_refused_and_changes_nothing() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let daemon = running(&node, &meta);
    let path = |name: &str| text(&node.dir.path().join(name));
    std::fs::write(path("garbage"), vec![7; MIB as usize]).unwrap();
    for (body, status, why) in [
        (json!({"path": "disk-2"}), 400, "no absolute path"),
        (json!({"path": path("disk-2"), "size": 256 * MIB}), 400, "formatted"),
        (json!({"paht": path("disk-2")}), 400, "path"),
        (json!({"path": text(&node.disks[0])}), 409, "already"),
        (json!({"path": path("none")}), 409, "there is no disk"),
        (json!({"path": path("garbage")}), 409, "cannot be used"),
        (json!({"path": path("garbage"), "format": true, "size": 256 * MIB}), 409, "exists and has"),
        (json!({"path": path("small"), "format": true, "size": 4096}), 409, "cannot make"),
        (json!({"path": path("device"), "format": true}), 409, "--size"),
    ] {
        let (answered, problem) = add(&daemon, body.clone());
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(answered == status && detail.contains(why), "{body}: {answered} {problem}");
    }
    for (disk, status) in [("9", 404), ("x", 400), ("99999999999", 400)] {
        assert_eq!(remove(&daemon, disk).0, status, "{disk}");
    }
    until_reports(&meta, &[1]);
    assert!(!Path::new(&path("small")).exists());
    daemon.stop();
}

#[test]
fn a_disk_is_removed_once_nothing_is_on_it() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let daemon = running(&node, &meta);
    let new = text(&node.dir.path().join("disk-new"));
    let (status, answer) = add(&daemon, json!({"path": new, "format": true, "size": 256 * MIB}));
    assert_eq!(status, 200, "{answer}");
    meta.say(|t| t.replicas = [(DiskId(2), 3)].into());
    let (status, problem) = remove(&daemon, 2);
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("3 replicas"), "{problem}");
    assert_eq!(meta.told(|t| t.states.get(&DiskId(2)).copied()), None);
    meta.say(|t| t.replicas.clear());
    let (status, removed) = remove(&daemon, 2);
    assert_eq!((status, removed), (200, json!({"disk": 2, "path": new})));
    assert_eq!(meta.told(|t| t.states.get(&DiskId(2)).copied()), Some(DiskState::Draining), "nothing is placed there");
    until_reports(&meta, &[1]);
    assert_eq!(registered(&meta).len(), 1);
    assert_eq!(remove(&daemon, 2).0, 404);
    // It is nobody's by now, and is the same disk when it comes back.
    let (status, added) = add(&daemon, json!({"path": new}));
    assert_eq!((status, &added["disk"]), (200, &json!(2)), "{added}");
    assert_eq!(remove(&daemon, 2).0, 200);
    daemon.stop();
    let daemon = running(&node, &meta);
    until_reports(&meta, &[1]);
    // One that the command line names would be taken again.
    let (status, removed) = remove(&daemon, 1);
    assert!(status == 200 && removed["note"].as_str().unwrap().contains("command line"), "{removed}");
    until_reports(&meta, &[]);
    daemon.stop();
}

#[test]
fn a_broken_disk_is_removed_whatever_was_on_it_and_another_takes_its_place() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let daemon = running(&node, &meta);
    let new = node.dir.path().join("disk-new");
    let (status, answer) = add(&daemon, json!({"path": text(&new), "format": true, "size": 256 * MIB}));
    assert_eq!(status, 200, "{answer}");
    meta.say(|t| t.replicas = [(DiskId(2), 3)].into());
    File::options().write(true).open(&new).unwrap().set_len(MIB).unwrap();
    until("the failure is reported", || meta.failures()?.iter().any(Option::is_some).then_some(()));
    assert_eq!(remove(&daemon, 2).0, 200);
    until_reports(&meta, &[1]);
    std::fs::remove_file(&new).unwrap();
    let (status, added) = add(&daemon, json!({"path": text(&new), "format": true, "size": 256 * MIB}));
    assert_eq!((status, &added["disk"]), (200, &json!(3)), "{added}");
    until_reports(&meta, &[1, 3]);
    daemon.stop();
}
