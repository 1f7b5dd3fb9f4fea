//! Everything ends at once, and starts again.

use crate::cluster::Cluster;
use crate::guest::Load;

const SIZE: u64 = 64 << 20;

#[test]
fn a_cluster_that_lost_power_has_all_that_was_answered() {
    let cluster = Cluster::start(&["--disks-per-node", "2", "--cores", "2", "--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M"]);
    let socket = cluster.attach("vol", "node-1");
    let files = tempfile::tempdir().unwrap();
    let state = files.path().join("expected.json");

    // A first load ends in good order and is verified.
    let load = Load::start(&socket, SIZE, 1, Some(state.clone()));
    load.progress(2000);
    load.finish();
    cluster.verify_equal("vol");

    // The second one is cut off in the middle, guest's requests in flight.
    let load = Load::start(&socket, SIZE, 2, Some(state));
    load.progress(2000);
    cluster.kill_all();
    cluster.up();
    load.progress(500);
    let report = load.finish();
    assert!(report.reconnects >= 1, "{report:?}");
    cluster.verify_equal("vol");

    // And once more with nothing in flight; the volume is served again without being asked for.
    cluster.kill_all();
    cluster.up();
    cluster.until("the volume is served again", |c| {
        (c.volume("vol")["attachment"]["report"]["state"] == "serving").then_some(())
    });
    cluster.verify_equal("vol");
}
