//! What volumes and snapshots take up, as `levee volume show` and `levee snapshot list` say.

use crate::clones::snapshot;
use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::snapshots::with_guest;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// Written, exclusive, shared and stored, in MiB, of a volume that may be detached.
#[track_caller]
fn figures(cluster: &Cluster, volume: &str) -> [u64; 4] {
    let shown = cluster.ok(&["volume", "show", volume, "--measure", "--timeout", "60s"]);
    let usage = &shown["usage"];
    let mib = |name: &str| {
        let bytes = usage[name].as_u64().unwrap_or_else(|| panic!("no {name}: {shown}"));
        assert_eq!(bytes % MIB, 0, "{name}: {shown}");
        bytes / MIB
    };
    assert_eq!((mib("provisioned"), mib("on_disks")), (64, 3 * mib("stored")), "{shown}");
    ["written", "exclusive", "shared", "stored"].map(mib)
}

/// What the deletion of each snapshot gives back, in MiB, oldest first.
fn exclusive(cluster: &Cluster, volume: &str) -> Vec<Option<u64>> {
    let all = cluster.ok(&["snapshot", "list", volume]);
    all.as_array().unwrap().iter().map(|s| s["exclusive"].as_u64().map(|bytes| bytes / MIB)).collect()
}

#[test]
fn volumes_snapshots_and_clones_say_what_they_take_up() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    assert_eq!(figures(&cluster, "vol"), [0, 0, 0, 0], "nothing was ever written");
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.fill(0..8 * MIB, 1);
    guest.discard(7 * MIB, MIB);
    assert_eq!(figures(&cluster, "vol"), [7, 7, 0, 7]);
    cluster.ok(&["snapshot", "create", "vol@a"]);
    assert_eq!(figures(&cluster, "vol"), [7, 0, 7, 7], "the snapshot has all of it, too");
    guest.fill(0..2 * MIB, 2);
    cluster.ok(&["snapshot", "create", "vol@b"]);
    guest.fill(MIB..3 * MIB, 3);
    guest.discard(4 * MIB, MIB);
    // The head has 6 MiB, of which 2 are its own alone; `a` has overwritten 0 to 2 alone, `b` 1 to 2.
    assert_eq!(figures(&cluster, "vol"), [6, 2, 4, 11]);
    assert_eq!(exclusive(&cluster, "vol"), [Some(2), Some(1)]);

    // A clone has nothing itself at first.
    cluster.create("clone", &["--from", "vol@a"]);
    assert_eq!(figures(&cluster, "clone"), [7, 0, 7, 0]);
    let detached = cluster.ok(&["volume", "show", "clone"]);
    assert_eq!(detached["usage"], Value::Null);
    let why = detached["usage_unknown"].as_str().unwrap();
    assert!(why.contains("levee volume show clone --measure"), "{why}");
    assert_eq!(detached["attachment"], Value::Null, "it was detached again");
    with_guest(&cluster, "clone", "node-2", |guest| {
        guest.fill(6 * MIB..10 * MIB, 4);
        guest.discard(0, MIB);
    });
    assert_eq!(figures(&cluster, "clone"), [9, 4, 5, 4]);

    // Deleted while a clone needs it: nothing is given back yet.
    cluster.ok(&["snapshot", "delete", "vol@b"]);
    cluster.until("what the snapshot alone had is dropped", |c| (figures(c, "vol")[3] == 10).then_some(()));
    assert_eq!(figures(&cluster, "vol"), [6, 3, 3, 10]);
    assert_eq!(exclusive(&cluster, "vol"), [Some(4)], "2 that were overwritten, 1 more since `b` is gone, 1 discarded");
    cluster.ok(&["snapshot", "delete", "vol@a"]);
    assert_eq!(snapshot(&cluster, "vol", "a").unwrap()["exclusive"], json!(4 * MIB));
    cluster.ok(&["volume", "delete", "clone"]);
    cluster.until("nothing but the head is left", |c| (figures(c, "vol") == [6, 6, 0, 6]).then_some(()));
    guest.close();
}

#[test]
fn a_gateway_that_cannot_be_asked_leaves_the_rest_to_be_shown() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    with_guest(&cluster, "vol", "node-1", |guest| guest.fill(0..MIB, 1));
    cluster.ok(&["snapshot", "create", "vol@s"]);
    cluster.attach("vol", "node-1");
    cluster.kill("node-1");
    let shown = cluster.ok(&["volume", "show", "vol"]);
    assert_eq!((&shown["name"], &shown["usage"]), (&json!("vol"), &Value::Null), "{shown}");
    assert!(!shown["usage_unknown"].as_str().unwrap().is_empty());
    assert_eq!(exclusive(&cluster, "vol"), [None]);
}

#[test]
fn no_more_is_promised_than_is_allowed() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    let capacity = cluster.ok(&["cluster", "limits"])["capacity"].as_u64().unwrap();
    assert!(capacity > 2 << 30, "{capacity}");
    let limits = cluster.ok(&["cluster", "limits", "--over-provision", "0.5", "--warn", "70%"]);
    assert_eq!((&limits["provisionable"], &limits["limits"]["warn_percent"]), (&json!(capacity / 2), &json!(70)));
    cluster.create("vol", &["--size", "400M"]);
    let line = cluster.refused(&["volume", "create", "more", "--size", "400M"], 1);
    assert!(line.contains("2.3 GiB in all copies") && line.contains("--over-provision"), "{line}");
    let line = cluster.refused(&["volume", "resize", "vol", "--size", "800M"], 1);
    assert!(line.contains("volume 'vol' cannot grow"), "{line}");
    cluster.ok(&["snapshot", "create", "vol@s"]);
    let line = cluster.refused(&["volume", "create", "desk", "--from", "vol@s", "--count", "2"], 1);
    assert!(line.contains("2 clones of vol@s cannot be created"), "{line}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.raw");
    std::fs::File::create(&file).unwrap().set_len(400 * MIB).unwrap();
    let line = cluster.refused(&["image", "import", file.to_str().unwrap(), "debian"], 1);
    assert!(line.contains("volume 'debian' cannot be created"), "{line}");
    cluster.ok(&["cluster", "limits", "--over-provision", "none"]);
    cluster.ok(&["volume", "create", "desk", "--from", "vol@s", "--count", "2"]);
    let limits = cluster.ok(&["cluster", "limits"]);
    assert_eq!((&limits["provisioned"], &limits["level"]), (&json!(9 * 400 * MIB), &json!("fine")), "{limits}");
}
