//! Disks that fill up, and space that is given back.

use crate::cluster::Cluster;
use crate::guest::{Guest, REQUEST};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Nothing completes for so long: the guest's requests wait. That a slow machine is taken for a full disk
/// would do no harm: the test then goes on earlier.
const QUIET: Duration = Duration::from_secs(2);

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
        if !guest.has_room() && guest.is_stuck_for(QUIET) && !guest.has_room() {
            break;
        }
        guest.begin_write(offset);
        begun += 1;
    }
    assert!(guest.is_stuck_for(QUIET), "a disk of {} bytes takes a whole chunk in one shard", used(&cluster));
    assert!(begun as u64 * REQUEST as u64 > 16 * MIB, "only {begun} requests fit");

    // A full disk is a state, not a fault: reads go on, and everything is served.
    let volume = cluster.volume("vol");
    assert_eq!(volume["attachment"]["report"]["state"], "serving", "{volume}");
    cluster.ok(&["status"]);
}
