//! What operators do to nodes and disks while guests go on: empty, remove, add, replace them, move copies about.

use crate::cluster::Cluster;
use crate::guest::{Guest, Load};
use serde_json::Value;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn disks(cluster: &Cluster) -> Vec<Value> {
    cluster.ok(&["disk", "list"]).as_array().unwrap().clone()
}

fn disk_of(cluster: &Cluster, node: &str) -> Value {
    let path = cluster.disk(node);
    disks(cluster)
        .into_iter()
        .find(|d| d["path"].as_str() == path.to_str())
        .unwrap_or_else(|| panic!("no disk of {node}"))
}

/// How far the fullest disk is above the mean, percent, by what daemons report.
fn excess(cluster: &Cluster) -> f64 {
    let used: Vec<f64> = disks(cluster).iter().map(|d| d["used"].as_f64().unwrap()).collect();
    let mean = used.iter().sum::<f64>() / used.len() as f64;
    used.iter().fold(0.0_f64, |most, used| most.max(*used)) / mean * 100.0 - 100.0
}

/// Daemons report twice a second.
fn until_whole(cluster: &Cluster, volume: &str) {
    cluster.until("all copies being up to date", |c| is_whole(c, volume).then_some(()));
}

fn is_whole(cluster: &Cluster, volume: &str) -> bool {
    cluster.volume(volume)["attachment"]["report"]["degraded_chunks"] == 0
}

#[test]
fn a_node_is_emptied_removed_and_another_takes_its_share() {
    let cluster = Cluster::start(&["--nodes", "4", "--disk-size", "2G"]);
    cluster.create("vol", &["--size", "1G"]);
    let socket = cluster.attach("vol", "node-1");
    let mut guest = Guest::connect(&socket);
    // What is before that is the load's.
    (1..16).for_each(|i| guest.write(i * 64 * MIB, 8 * MIB));
    guest.close();
    let load = Load::start(&socket, 64 * MIB, 5, None);
    load.progress(200);

    let plan = cluster.ok(&["node", "drain", "node-3", "--dry-run"]);
    let copies = disk_of(&cluster, "node-3")["replicas"].as_u64().unwrap();
    assert!(copies > 0 && plan["copies"] == copies && plan["homeless"] == 0, "{plan}");
    assert_eq!(disk_of(&cluster, "node-3")["state"], "in-service", "only a forecast");
    let line = cluster.refused(&["node", "remove", "node-3"], 1);
    assert!(line.contains("levee node drain node-3"), "{line}");

    cluster.ok(&["node", "drain", "node-3", "--wait", "--timeout", "5m"]);
    assert_eq!(disk_of(&cluster, "node-3")["replicas"], 0);
    load.progress(200);
    cluster.ok(&["node", "remove", "node-3"]);
    assert_eq!(cluster.ok(&["node", "list"]).as_array().unwrap().len(), 3);
    cluster.kill("node-3");
    until_whole(&cluster, "vol");
    let events = cluster.ok(&["events", "--kind", "node"]);
    let texts: Vec<&str> = events["events"].as_array().unwrap().iter().filter_map(|e| e["text"].as_str()).collect();
    assert!(texts.contains(&"is being emptied") && texts.contains(&"has left the cluster"), "{events}");
    let report = load.finish();
    assert_eq!(report.reconnects, 0, "{report:?}");
    cluster.verify_equal("vol");
}

#[test]
fn a_new_disk_takes_its_share_and_an_old_one_is_replaced() {
    let cluster = Cluster::start(&["--nodes", "3", "--disk-size", "2G"]);
    cluster.create("vol", &["--size", "1G", "--copies", "2", "--min-copies", "1"]);
    let socket = cluster.attach("vol", "node-1");
    let mut guest = Guest::connect(&socket);
    (0..16).for_each(|i| guest.write(i * 64 * MIB, 8 * MIB));

    // A second disk on each node: half of what the first has goes there.
    for node in ["node-1", "node-2", "node-3"] {
        let path = cluster.disk(node).with_file_name("second");
        let added = cluster.ok(&["disk", "add", node, shown(&path), "--format", "--size", "2G"]);
        assert_eq!((added["state"].as_str(), added["replicas"].as_u64()), (Some("in-service"), Some(0)), "{added}");
    }
    cluster.until("all disks being reported", |c| disks(c).iter().all(|d| d["used"].is_u64()).then_some(()));
    let plan = cluster.ok(&["rebalance", "plan", "--tolerance", "10"]);
    let moves = plan["count"].as_u64().unwrap();
    assert!(moves > 0 && plan["imbalance_after"].as_u64() < plan["imbalance_before"].as_u64(), "{plan}");
    let before = excess(&cluster);
    let status = cluster.ok(&["rebalance", "run", "--tolerance", "10", "--wait", "--timeout", "5m"]);
    assert_eq!((status["state"].as_str(), status["skipped"].as_u64()), (Some("done"), Some(0)), "{status}");
    assert_eq!(status["done"], status["moves"], "{status}");
    cluster.until("daemons report the difference", |c| (excess(c) < before / 2.0).then_some(()));
    guest.write(4 * MIB, 8 * MIB);

    // One of them is replaced by a third. (The first ones are named on the daemons' command lines.)
    let second = cluster.disk("node-2").with_file_name("second");
    let all = disks(&cluster);
    let old = all.iter().find(|d| d["path"].as_str() == second.to_str()).expect("it was added")["id"].clone();
    let third = cluster.disk("node-2").with_file_name("third");
    let new = cluster.ok(&[
        "disk",
        "replace",
        &old.to_string(),
        shown(&third),
        "--format",
        "--size",
        "2G",
        "--timeout",
        "5m",
    ]);
    assert!(disks(&cluster).iter().all(|d| d["id"] != old), "it has left");
    assert!(new["path"].as_str() == third.to_str(), "{new}");
    until_whole(&cluster, "vol");
    guest.check(0, 12 * MIB);
    guest.close();
    cluster.verify_equal("vol");

    // What was added while it ran is there after a restart.
    cluster.kill("node-2");
    cluster.ok(&["up", "--detach", "node-2"]);
    cluster.until("node-2 serves its disks again", |c| {
        let up = disks(c).iter().all(|d| d["state"] == "in-service" && d["reason"].is_null());
        (up && is_whole(c, "vol")).then_some(())
    });
    cluster.verify_equal("vol");
}

#[test]
fn a_disk_that_was_removed_meanwhile_does_not_stop_its_daemon() {
    let cluster = Cluster::start(&["--nodes", "1", "--disk-size", "1G"]);
    let first = disk_of(&cluster, "node-1")["id"].to_string();
    let path = cluster.disk("node-1").with_file_name("second");
    cluster.ok(&["disk", "add", "node-1", shown(&path), "--format", "--size", "1G"]);
    cluster.kill("node-1");
    cluster.ok(&["disk", "remove", &first]);
    // It is named on the daemon's command line.
    cluster.ok(&["up", "--detach", "node-1"]);
    cluster.until("the other disk being served", |c| {
        let all = disks(c);
        (all.len() == 1 && all[0]["path"].as_str() == path.to_str() && all[0]["reason"].is_null()).then_some(())
    });
    cluster.create("vol", &["--size", "64M", "--copies", "1", "--min-copies", "1"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, MIB);
    guest.check(0, MIB);
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("plain paths")
}

#[test]
fn a_rebalance_is_cancelled_and_goes_on_under_another_leader() {
    let cluster = Cluster::start(&["--nodes", "3", "--metas", "3", "--disk-size", "2G"]);
    cluster.create("vol", &["--size", "1G", "--copies", "2", "--min-copies", "1"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    (0..16).for_each(|i| guest.write(i * 64 * MIB, 4 * MIB));
    let path = cluster.disk("node-1").with_file_name("second");
    cluster.ok(&["disk", "add", "node-1", shown(&path), "--format", "--size", "2G"]);
    cluster.until("all disks being reported", |c| disks(c).iter().all(|d| d["used"].is_u64()).then_some(()));

    let begun = cluster.ok(&["rebalance", "run"]);
    assert_eq!(begun["state"], "running", "{begun}");
    let cancelled = cluster.ok(&["rebalance", "cancel"]);
    assert!(["cancelled", "done"].contains(&cancelled["state"].as_str().unwrap()), "{cancelled}");
    guest.check(0, 4 * MIB);
    until_whole(&cluster, "vol");

    let again = cluster.ok(&["rebalance", "run"]);
    let leader = cluster.ok(&["status"])["leader"].as_u64().expect("a leader");
    cluster.kill(&format!("meta-{leader}"));
    if again["state"] == "running" {
        cluster.until("the rebalance being done under another leader", |c| {
            (c.ok(&["rebalance", "status"])["state"] == "done").then_some(())
        });
    }
    guest.check(0, 4 * MIB);
    guest.close();
    cluster.up();
    cluster.verify_equal("vol");
}

#[test]
fn nothing_is_repaired_during_maintenance() {
    let cluster = Cluster::start(&["--nodes", "4", "--disk-size", "1G", "--repair-after", "2"]);
    cluster.create("vol", &["--size", "256M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, 8 * MIB);
    let others = ["node-2", "node-3", "node-4"];
    let away = others.into_iter().find(|node| disk_of(&cluster, node)["replicas"] != 0).unwrap();
    cluster.ok(&["maintenance", "start", "--for", "1h", "--node", away, "--reason", "a test"]);
    cluster.kill(away);
    cluster.until("the node being down", |c| {
        let nodes = c.ok(&["node", "list"]);
        nodes.as_array().unwrap().iter().any(|n| n["name"] == away && n["state"] == "down").then_some(())
    });
    // Longer than silence is borne otherwise: had it counted, it would have by now.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(disk_of(&cluster, away)["state"], "in-service");
    let doctor = cluster.run(&["doctor"]).json();
    assert!(doctor["notes"].to_string().contains("maintenance"), "{doctor}");
    cluster.ok(&["maintenance", "stop", "--node", away]);
    cluster.until("its copies being made anew", |c| {
        (disk_of(c, away)["state"] == "dead" && disk_of(c, away)["replicas"] == 0).then_some(())
    });
    guest.check(0, 8 * MIB);
    guest.close();
}
