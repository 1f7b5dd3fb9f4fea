//! More copies of what many clones read.

use crate::clones::snapshot;
use crate::cluster::Cluster;
use crate::snapshots::{exported, used, with_guest};
use serde_json::json;

const MIB: u64 = 1 << 20;

#[test]
fn many_clones_have_more_copies_to_read_and_give_them_back() {
    // As many disks as two sets of three copies need.
    let cluster = Cluster::start(&["--cores", "2", "--disks-per-node", "2", "--disk-size", "1G"]);
    cluster.create("golden", &["--size", "64M"]);
    with_guest(&cluster, "golden", "node-1", |guest| {
        guest.fill(0..4 * MIB, 1);
        guest.fill(32 * MIB..34 * MIB + 1536, 2);
    });
    cluster.ok(&["snapshot", "create", "golden@v1"]);
    let (golden, before) = (exported(&cluster, "golden"), used(&cluster));
    cluster.create("desk", &["--from", "golden@v1", "--count", "64"]);
    cluster.until("a second set of copies", |c| {
        snapshot(c, "golden", "v1").filter(|s| s["read_copies"] == json!(6)).map(drop)
    });
    assert!(used(&cluster) > before, "copies take space");
    let volumes = cluster.ok(&["volume", "list"]);
    assert_eq!(volumes.as_array().unwrap().len(), 65, "it is no volume of the user's");
    for name in ["desk-1", "desk-2", "desk-3"] {
        assert!(exported(&cluster, name) == golden, "{name}");
    }
    // Of the snapshot's own copies and the others, nobody needs to be there alone.
    cluster.kill("node-2");
    assert!(exported(&cluster, "desk-4") == golden);
    cluster.up();
    cluster.ok(&["volume", "delete", "desk", "--count", "64"]);
    cluster.until("the space comes back", |c| (used(c) <= before).then_some(()));
    assert_eq!(snapshot(&cluster, "golden", "v1").unwrap()["read_copies"], 3);
}
