//! Snapshots of volumes in use and not in use: what they hold, going back to them, and the space that they give back.

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::tide::{Moment, REACH, ROUND, Tide};
use serde_json::Value;
use std::ops::Range;

const MIB: u64 = 1 << 20;
const COPIES: u64 = 3;

/// All bytes of a volume that is not in use.
pub fn exported(cluster: &Cluster, volume: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.raw");
    cluster.ok(&["volume", "export", volume, file.to_str().unwrap(), "--format", "raw"]);
    std::fs::read(file).unwrap()
}

/// All bytes of a snapshot, by way of a clone that is deleted again.
pub fn held(cluster: &Cluster, snapshot: &str) -> Vec<u8> {
    cluster.create("look", &["--from", snapshot]);
    let bytes = exported(cluster, "look");
    cluster.ok(&["volume", "delete", "look"]);
    bytes
}

/// The parts that differ, bytes.
fn differences(cluster: &Cluster, from: &str, to: &str) -> Vec<Range<u64>> {
    let found = cluster.ok(&["snapshot", "diff", from, to]);
    let range = |r: &Value| {
        let offset = r["offset"].as_u64().unwrap();
        offset..offset + r["length"].as_u64().unwrap()
    };
    found["ranges"].as_array().unwrap().iter().map(range).collect()
}

/// `from`, but with what `to` has in these parts.
fn patched(from: &[u8], to: &[u8], parts: &[Range<u64>]) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for part in parts {
        let part = part.start as usize..part.end as usize;
        bytes[part.clone()].copy_from_slice(&to[part]);
    }
    bytes
}

/// Bytes that the disks hold, all copies counted.
pub fn used(cluster: &Cluster) -> u64 {
    let disks = cluster.ok(&["disk", "list"]);
    disks.as_array().unwrap().iter().map(|d| d["used"].as_u64().unwrap_or(u64::MAX / 16)).sum()
}

/// Connects to a volume for a moment.
pub fn with_guest(cluster: &Cluster, volume: &str, node: &str, work: impl FnOnce(&mut Guest)) {
    let mut guest = Guest::connect(&cluster.attach(volume, node));
    work(&mut guest);
    guest.close();
    cluster.ok(&["volume", "detach", volume]);
}

#[test]
fn snapshots_under_load_each_show_one_moment() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let tide = Tide::start(&cluster.attach("vol", "node-1"));
    let mut taken: Vec<(&str, Moment)> = Vec::new();
    for name in ["vol@a", "vol@b", "vol@c"] {
        // Each holds data that no other has.
        tide.progress(ROUND);
        taken.push((name, tide.snapshot(&cluster, name)));
    }
    tide.progress(ROUND);
    let before: Vec<Vec<u8>> = taken.iter().map(|(name, _)| held(&cluster, name)).collect();
    for ((_, moment), bytes) in taken.iter().zip(&before) {
        moment.check(bytes);
    }
    for pair in [0, 1] {
        let parts = differences(&cluster, taken[pair].0, taken[pair + 1].0);
        assert!(patched(&before[pair], &before[pair + 1], &parts) == before[pair + 1], "{parts:?}");
    }
    // What clones read does not move while the volume is written.
    tide.progress(ROUND);
    for ((name, _), bytes) in taken.iter().zip(&before) {
        assert!(held(&cluster, name) == *bytes, "{name} has changed");
    }

    // The middle one goes, under load, and takes along what only it had.
    let full = used(&cluster);
    cluster.ok(&["snapshot", "delete", "vol@b"]);
    tide.progress(ROUND);
    cluster.until("the space of a snapshot comes back", |c| (used(c) + COPIES * 8 * MIB < full).then_some(()));
    for i in [0, 2] {
        assert!(held(&cluster, taken[i].0) == before[i], "{} has changed", taken[i].0);
    }
    let last = tide.finish();
    cluster.verify_equal("vol");

    // With nobody writing, and then with nobody there.
    cluster.ok(&["snapshot", "delete", "vol@a"]);
    cluster.until("the space of another comes back", |c| (used(c) < COPIES * (2 * REACH + MIB)).then_some(()));
    cluster.ok(&["volume", "detach", "vol"]);
    assert!(held(&cluster, "vol@c") == before[2], "vol@c has changed");
    cluster.ok(&["snapshot", "delete", "vol@c"]);
    cluster.until("all space comes back", |c| (used(c) < COPIES * (REACH + MIB)).then_some(()));
    last.check(&exported(&cluster, "vol"));
    assert_eq!(cluster.ok(&["snapshot", "list", "vol"]), serde_json::json!([]));
    cluster.ok(&["volume", "delete", "vol"]);
    cluster.until("nothing is left", |c| (used(c) == 0).then_some(()));
}

#[test]
fn a_detached_volume_goes_back_to_its_snapshots() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "32M"]);
    with_guest(&cluster, "vol", "node-1", |guest| guest.fill(0..8 * MIB, 1));
    cluster.ok(&["snapshot", "create", "vol@first"]);
    let first = exported(&cluster, "vol");
    assert!(held(&cluster, "vol@first") == first);

    // Another disk in all respects: overwritten, discarded, written anew, and larger.
    cluster.ok(&["volume", "resize", "vol", "--size", "48M"]);
    with_guest(&cluster, "vol", "node-2", |guest| {
        guest.fill(MIB..3 * MIB + 512, 2);
        guest.discard(4 * MIB, MIB);
        guest.fill(40 * MIB..44 * MIB, 3);
    });
    cluster.ok(&["snapshot", "create", "vol@second"]);
    let second = exported(&cluster, "vol");

    // Not under a guest: that would have its disk changed under it.
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.fill(0..MIB, 4);
    let line = cluster.refused(&["snapshot", "rollback", "vol@first"], 1);
    assert!(line.contains("attached to node 'node-1'") && line.contains("detached"), "{line}");
    let now = guest.contents(48 * MIB);
    assert!(now[..MIB as usize].iter().all(|b| *b == 4) && now[MIB as usize..] == second[MIB as usize..]);
    guest.close();
    cluster.ok(&["volume", "detach", "vol"]);
    let line = cluster.refused(&["snapshot", "rollback", "vol@third"], 1);
    assert!(line.contains("no snapshot 'third'") && line.contains("levee snapshot list vol"), "{line}");

    // Back and forth, and every snapshot stays what it is.
    let goes_to = |name: &str, bytes: &[u8]| {
        assert_eq!(cluster.ok(&["snapshot", "rollback", name])["size"], bytes.len());
        assert!(exported(&cluster, "vol") == bytes, "the volume is not what {name} was");
        for (name, bytes) in [("vol@first", &first), ("vol@second", &second)] {
            assert!(held(&cluster, name) == *bytes, "{name} has changed");
        }
        cluster.verify_equal("vol");
    };
    goes_to("vol@first", &first);
    goes_to("vol@second", &second);
    goes_to("vol@first", &first);

    // What is written after a rollback continues from there, and is in the next snapshot.
    with_guest(&cluster, "vol", "node-3", |guest| guest.fill(7 * MIB..9 * MIB, 5));
    cluster.ok(&["snapshot", "create", "vol@third"]);
    let mut third = first.clone();
    third[7 * MIB as usize..9 * MIB as usize].fill(5);
    assert!(held(&cluster, "vol@third") == third);
    cluster.ok(&["snapshot", "delete", "vol@first", "vol@second"]);
    cluster.until("space comes back", |c| (used(c) < COPIES * 10 * MIB).then_some(()));
    assert!(held(&cluster, "vol@third") == third);
    assert!(exported(&cluster, "vol") == third);
}

#[test]
fn differences_name_what_was_written_and_nothing_else() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "2G"]);
    // More than a group of chunks.
    cluster.create("vol", &["--size", "320M"]);
    with_guest(&cluster, "vol", "node-1", |guest| guest.fill(0..4 * MIB, 1));
    cluster.ok(&["snapshot", "create", "vol@a"]);
    with_guest(&cluster, "vol", "node-2", |guest| {
        // Across the border of two chunks, and with an end within a block.
        guest.fill(MIB - 4096..MIB + 512, 2);
        guest.discard(2 * MIB, MIB / 2);
        // There was nothing before, and there is nothing now.
        guest.discard(6 * MIB, MIB);
        guest.fill(300 * MIB..300 * MIB + 8192, 2);
    });
    cluster.ok(&["snapshot", "create", "vol@b"]);
    let changed = [MIB - 4096..MIB + 4096, 2 * MIB..2 * MIB + MIB / 2, 300 * MIB..300 * MIB + 8192];
    assert_eq!(differences(&cluster, "vol@a", "vol@b"), changed);
    assert_eq!(differences(&cluster, "vol@b", "vol@a"), changed);
    assert_eq!(differences(&cluster, "vol@a", "vol"), changed);
    assert_eq!(differences(&cluster, "vol@b", "vol"), []);
    assert!(cluster.volume("vol")["attachment"].is_null(), "it is free again");

    // Of a volume in use, and as a person sees it.
    let mut guest = Guest::connect(&cluster.attach("vol", "node-3"));
    guest.fill(10 * MIB..10 * MIB + 4096, 3);
    let shown = cluster.command(&["snapshot", "diff", "vol@b", "vol"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), format!("{} 4096\n", 10 * MIB));
    assert_eq!(differences(&cluster, "vol@a", "vol@b"), changed);
    guest.close();
    cluster.ok(&["volume", "detach", "vol"]);

    // After a rollback the volume is what the snapshot is, and nothing of it comes back.
    cluster.ok(&["snapshot", "rollback", "vol@a"]);
    assert_eq!(differences(&cluster, "vol@a", "vol"), []);
    assert_eq!(differences(&cluster, "vol@b", "vol"), changed);

    // What a clone discards hides what its parent has.
    cluster.create("clone", &["--from", "vol@a"]);
    cluster.ok(&["snapshot", "create", "clone@a"]);
    with_guest(&cluster, "clone", "node-1", |guest| guest.discard(0, MIB / 2));
    let hidden = 0..MIB / 2;
    assert_eq!(differences(&cluster, "clone@a", "clone"), [hidden]);

    let line = cluster.refused(&["snapshot", "diff", "vol@a", "clone"], 2);
    assert!(line.contains("of different volumes"), "{line}");
    let line = cluster.refused(&["snapshot", "diff", "vol@a", "vol@c"], 1);
    assert!(line.contains("no snapshot 'c'"), "{line}");
}

#[test]
fn what_cannot_be_done_with_snapshots_is_said() {
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "32M"]);
    let line = cluster.refused(&["snapshot", "create", "other@s"], 1);
    assert!(line.contains("other"), "{line}");
    let empty = cluster.ok(&["snapshot", "create", "vol@empty"]);
    assert_eq!(empty["snapshots"][0]["state"], "done", "{empty}");
    let line = cluster.refused(&["snapshot", "create", "vol@empty"], 1);
    assert!(line.contains("snapshot vol@empty already"), "{line}");
    let line = cluster.refused(&["snapshot", "delete", "vol@none"], 1);
    assert!(line.contains("no snapshot 'none'"), "{line}");
    let line = cluster.refused(&["volume", "delete", "vol"], 1);
    assert!(line.contains("snapshot 'empty':") && line.contains("levee snapshot delete vol@empty"), "{line}");
    assert!(held(&cluster, "vol@empty").iter().all(|b| *b == 0));
    // All of a group, or none.
    cluster.create("twin", &["--size", "32M"]);
    let line = cluster.refused(&["snapshot", "create", "twin@empty", "vol@empty"], 1);
    assert!(line.contains("snapshot vol@empty already"), "{line}");
    assert_eq!(cluster.ok(&["snapshot", "list", "twin"]), serde_json::json!([]));
    let both = cluster.ok(&["snapshot", "create", "twin@both", "vol@both"]);
    assert!(both["snapshots"].as_array().unwrap().iter().all(|s: &Value| s["state"] == "done"), "{both}");
    cluster.ok(&["snapshot", "delete", "vol@empty", "vol@both"]);
    cluster.ok(&["volume", "delete", "vol"]);
}
