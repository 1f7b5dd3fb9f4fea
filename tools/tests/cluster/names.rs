//! Names that lead astray: two daemons with the name of one node, and disks that have exchanged their paths.

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::support::built;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MIB: u64 = 1 << 20;
const LEN: u64 = 2 * MIB;

/// Starts a daemon from a copied configuration, on other ports and in another folder; what it says when it has ended.
fn second_daemon(cluster: &Cluster, name: &str, dir: &Path) -> Output {
    let mut command = Command::new(built().with_file_name("levee-stored"));
    command.args(["run", "--name", name, "--meta", &cluster.meta_url(1)]);
    command.args(["--admin", "127.0.0.1:0", "--data", "127.0.0.1:0"]);
    command.arg("--dir").arg(dir.join("state")).arg("--sockets").arg(dir.join("run"));
    command.stdin(Stdio::null()).output().unwrap()
}

fn wait_until_whole(cluster: &Cluster) {
    cluster.until("all copies are there", |c| {
        let report = c.volume("vol")["attachment"]["report"].clone();
        (report["state"] == "serving" && report["degraded_chunks"] == 0).then_some(())
    });
}

#[test]
fn a_second_daemon_is_refused_and_guests_notice_nothing() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, LEN);
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = second_daemon(&cluster, "node-1", dir.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("'node-1' is alive"), "{said}");
    }
    guest.write(LEN, LEN);
    guest.check(0, 2 * LEN);
    let nodes = cluster.ok(&["node", "list"]);
    let node = nodes.as_array().unwrap().iter().find(|n| n["name"] == "node-1").unwrap();
    let told = |value: &Value| value.as_str().unwrap_or_default().contains("second daemon with this name");
    assert!(node["state"] == "up" && told(&node["detail"]), "{node}");
    // The next process of a node is taken, though its predecessor was heard of just now.
    cluster.kill("node-2");
    cluster.up();
    wait_until_whole(&cluster);
    guest.check(0, 2 * LEN);
    guest.close();
    cluster.verify_equal("vol");
}

#[test]
fn disks_that_have_exchanged_their_paths_are_who_they_were() {
    let cluster = Cluster::start(&["--disk-size", "512M", "--disks-per-node", "2"]);
    cluster.create("vol", &["--size", "512M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, 4 * LEN);
    wait_until_whole(&cluster);
    cluster.kill("node-2");
    let one = cluster.disk("node-2");
    let (other, aside) = (one.with_file_name("disk-2.img"), one.with_file_name("aside"));
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&other, &one).unwrap();
    std::fs::rename(&aside, &other).unwrap();
    cluster.up();
    guest.write(4 * LEN, LEN);
    wait_until_whole(&cluster);
    guest.check(0, 5 * LEN);
    guest.close();
    cluster.verify_equal("vol");
    let disks = cluster.ok(&["disk", "list"]);
    assert!(disks.as_array().unwrap().iter().all(|disk| disk["state"] == "in-service"), "{disks}");
}
