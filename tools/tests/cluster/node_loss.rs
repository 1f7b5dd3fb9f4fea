//! A node that dies: replicas are missing, or the gateway is.

use crate::cluster::Cluster;
use crate::guest::Guest;
use serde_json::Value;

const MIB: u64 = 1 << 20;
const LEN: u64 = 2 * MIB;
/// In chunks that are allocated when the volume's first two groups are not enough any more.
const FAR: u64 = 512 * MIB;

fn wait_until_down(cluster: &Cluster, node: &str) {
    cluster.until("the node counts as down", |c| {
        let is_down = |n: &Value| n["name"] == node && n["state"] == "down";
        c.ok(&["node", "list"]).as_array().unwrap().iter().any(is_down).then_some(())
    });
}

fn degraded(cluster: &Cluster) -> u64 {
    cluster.volume("vol")["attachment"]["report"]["degraded_chunks"].as_u64().unwrap_or(u64::MAX)
}

#[test]
fn a_volume_grows_without_a_node_and_moves_off_a_dead_one() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "768M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, LEN);

    // Three copies need three nodes, but a write needs only two of them, also where nothing was written yet.
    cluster.kill("node-3");
    wait_until_down(&cluster, "node-3");
    guest.write(MIB, LEN);
    guest.write(FAR, LEN);
    guest.check(FAR, LEN);
    cluster.until("the missing copies are reported", |c| (degraded(c) > 0).then_some(()));
    cluster.up();
    cluster.until("all copies are there again", |c| (degraded(c) == 0).then_some(()));
    cluster.verify_equal("vol");
    drop(guest);

    // The gateway's node dies: another serves the volume, with all that was written.
    cluster.kill("node-1");
    cluster.ok(&["volume", "detach", "vol"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-2"));
    guest.check(0, MIB + LEN);
    guest.check(FAR, LEN);
    guest.write(FAR + LEN, LEN);
    cluster.up();
    cluster.until("all copies are there again", |c| (degraded(c) == 0).then_some(()));
    cluster.verify_equal("vol");
    guest.check(FAR, 2 * LEN);
    guest.close();
}
