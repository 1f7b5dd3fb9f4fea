//! Copies that are lost for good are made anew elsewhere, and disks are emptied, while guests go on.

use crate::cluster::Cluster;
use crate::guest::Guest;
use serde_json::Value;

const MIB: u64 = 1 << 20;
const LEN: u64 = 8 * MIB;

fn disk_of(cluster: &Cluster, node: &str) -> Value {
    let path = cluster.disk(node);
    let disks = cluster.ok(&["disk", "list"]);
    let found = disks.as_array().unwrap().iter().find(|d| d["path"].as_str() == path.to_str());
    found.unwrap_or_else(|| panic!("no disk of {node} in {disks}")).clone()
}

fn copies_on(cluster: &Cluster, node: &str) -> u64 {
    disk_of(cluster, node)["replicas"].as_u64().unwrap()
}

/// The disk is as told and nothing is on it any more, and every chunk has all its copies.
fn wait_until_whole(cluster: &Cluster, node: &str, state: &str) {
    cluster.until("everything on the disk is elsewhere", |c| {
        let empty = disk_of(c, node)["state"] == state && copies_on(c, node) == 0;
        let attachment = &c.volume("vol")["attachment"];
        let whole = attachment.is_null() || attachment["report"]["degraded_chunks"] == 0;
        (empty && whole).then_some(())
    });
}

#[test]
fn copies_of_a_lost_node_are_made_anew() {
    let cluster = Cluster::start(&["--nodes", "4", "--disk-size", "1G", "--repair-after", "5"]);
    cluster.create("vol", &["--size", "512M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, LEN);
    guest.write(256 * MIB, LEN);
    let others = ["node-2", "node-3", "node-4"];
    let lost = others.into_iter().max_by_key(|node| copies_on(&cluster, node)).unwrap();
    assert!(copies_on(&cluster, lost) > 0);

    cluster.kill(lost);
    guest.write(LEN / 2, LEN);
    wait_until_whole(&cluster, lost, "dead");
    cluster.verify_equal("vol");
    let doctor = cluster.run(&["doctor"]);
    assert!(!doctor.stdout.contains("\"degraded\""), "{}", doctor.stdout);

    // The new copies are as good as the old: another node may go now.
    let next = others.into_iter().find(|node| *node != lost).unwrap();
    cluster.kill(next);
    guest.check(0, LEN / 2 + LEN);
    guest.check(256 * MIB, LEN);
    guest.write(LEN, LEN);
    cluster.up();
    cluster.until("the disks are in service again, and all copies there", |c| {
        let back = others.into_iter().all(|node| disk_of(c, node)["state"] == "in-service");
        (back && c.volume("vol")["attachment"]["report"]["degraded_chunks"] == 0).then_some(())
    });
    cluster.verify_equal("vol");
    guest.check(0, 2 * LEN);
    guest.close();
}

#[test]
fn a_disk_is_drained_under_load_and_while_nobody_uses_the_volume() {
    let cluster = Cluster::start(&["--nodes", "4", "--disk-size", "1G"]);
    cluster.create("vol", &["--size", "256M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, LEN);
    let drain = |node: &str, command: &str| {
        let id = disk_of(&cluster, node)["id"].to_string();
        cluster.ok(&["disk", command, &id, "--reason", "a test"]);
    };
    drain("node-1", "drain");
    guest.write(LEN / 2, LEN);
    wait_until_whole(&cluster, "node-1", "draining");
    guest.check(0, LEN / 2 + LEN);
    guest.close();
    cluster.verify_equal("vol");
    cluster.ok(&["volume", "detach", "vol"]);

    drain("node-1", "undrain");
    drain("node-2", "drain");
    wait_until_whole(&cluster, "node-2", "draining");
    cluster.until("the repair ends", |c| c.volume("vol")["attachment"].is_null().then_some(()));
    let mut guest = Guest::connect(&cluster.attach("vol", "node-3"));
    guest.check(0, LEN / 2 + LEN);
    guest.close();
    cluster.verify_equal("vol");
}
