//! Disks that fill up, and space that is given back.

use crate::cluster::Cluster;
use crate::guest::{Guest, REQUEST};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Nothing completes for so long: the guest's requests wait. That a slow machine is taken for a full disk
/// would do no harm: the test then goes on earlier.
const QUIET: Duration = Duration::from_secs(2);
/// The guest keeps the rest of its queue for discards.
const MOST_WAITING: usize = 16;

fn used(cluster: &Cluster) -> u64 {
    let disks = cluster.ok(&["disk", "list"]);
    disks.as_array().unwrap().iter().map(|d| d["used"].as_u64().unwrap_or(u64::MAX / 16)).sum()
}

/// The requests that fill the first chunk of a volume: every fourth stripe unit belongs to it.
fn first_chunk() -> impl Iterator<Item = u64> {
    (0..64).flat_map(|unit| (0..MIB).step_by(REQUEST).map(move |at| unit * 4 * MIB + at))
}

#[test]
fn a_full_disk_makes_writes_wait_until_something_is_discarded() {
    // Six shards share a disk, and a chunk lives in one of them: it is full before the chunk is.
    let cluster = Cluster::start(&["--nodes", "2", "--cores", "6", "--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M", "--copies", "2"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    let mut begun = 0;
    for offset in first_chunk() {
        while guest.in_flight() >= MOST_WAITING && !guest.is_stuck_for(QUIET) {}
        if guest.in_flight() >= MOST_WAITING {
            break;
        }
        guest.begin_write(offset);
        begun += 1;
    }
    assert!(guest.is_stuck_for(QUIET), "{} bytes are used: one shard took a whole chunk", used(&cluster));

    // A full disk is a state, not a fault: everything stays served, and what was answered can be read.
    let volume = cluster.volume("vol");
    assert_eq!(volume["attachment"]["report"]["state"], "serving", "{volume}");

    // Eight stripe units are given back: the waiting requests complete, and others go on.
    for unit in 0..8 {
        guest.discard(unit * 4 * MIB, MIB);
    }
    guest.finish();
    for unit in 0..8 {
        guest.check_zeroes(unit * 4 * MIB, MIB);
    }
    for offset in first_chunk().take(begun).skip(8 * MIB as usize / REQUEST) {
        guest.check(offset, REQUEST as u64);
    }
    guest.write(0, MIB);
    guest.check(0, MIB);
    cluster.verify_equal("vol");
    guest.close();
}

#[test]
fn without_room_for_chunks_writes_wait_and_a_deleted_volume_makes_room() {
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("old", &["--size", "256M"]);
    let mut guest = Guest::connect(&cluster.attach("old", "node-1"));
    guest.write(0, 16 * MIB);
    guest.close();
    cluster.until("the use of space is reported", |c| (used(c) >= 3 * 16 * MIB).then_some(()));

    // Chunks come four at a time, and the disks have room for six whole ones.
    cluster.create("new", &["--size", "256M"]);
    let mut guest = Guest::connect(&cluster.attach("new", "node-2"));
    guest.begin_write(0);
    let detail = cluster.until("it is said why the write waits", |c| {
        c.volume("new")["attachment"]["report"]["detail"].as_str().map(String::from)
    });
    assert!(detail.contains("wait for new chunks") && detail.contains("add disks or nodes"), "{detail}");
    let told = cluster.until("the stall is told", |c| {
        let told = c.ok(&["status"])["health"]["conditions"].clone();
        told.as_array().unwrap().iter().find(|it| it["word"] == "stalled" && it["subject"] == "new").cloned()
    });
    assert!(told["text"].as_str().unwrap().contains("1 request waits on node-2"), "{told}");
    assert!(told["doing"][0].as_str().unwrap().contains("wait for new chunks"), "{told}");
    assert_eq!(guest.in_flight(), 1);

    cluster.ok(&["volume", "detach", "old"]);
    cluster.ok(&["volume", "delete", "old"]);
    guest.finish();
    guest.check(0, REQUEST as u64);
    cluster.until("the space is given back", |c| (used(c) <= 3 * MIB).then_some(()));
    cluster
        .until("nothing waits any more", |c| c.volume("new")["attachment"]["report"]["detail"].is_null().then_some(()));
    let disks = cluster.ok(&["disk", "list"]);
    assert!(disks.as_array().unwrap().iter().all(|d| d["replicas"] == 4), "{disks}");
    guest.close();

    cluster.ok(&["volume", "detach", "new"]);
    cluster.ok(&["volume", "delete", "new"]);
    cluster.until("all space is given back", |c| (used(c) == 0).then_some(()));
}
