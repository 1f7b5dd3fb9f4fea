//! Disks that return other data than was written.

use crate::cluster::Cluster;
use crate::guest::{BLOCK, Guest, REQUEST, pattern};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SIZE: u64 = 8 << 20;
const BLOCKS: u64 = SIZE / BLOCK as u64;
/// One block in so many is hit.
const EVERY: u64 = 50;

/// Flips a bit in each of the blocks where the disk holds them.
fn flip_bits(disk: &Path, blocks: impl Iterator<Item = u64>) {
    let file = OpenOptions::new().read(true).write(true).open(disk).unwrap();
    let wanted: BTreeSet<u64> = blocks.collect();
    let mut hit = BTreeSet::new();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut piece, at).unwrap();
        if read == 0 {
            break;
        }
        for (i, stored) in piece[..read].chunks_exact(BLOCK).enumerate() {
            let block = u64::from_le_bytes(stored[8..16].try_into().unwrap());
            if wanted.contains(&block) && stored == pattern(block) {
                file.write_at(&[stored[100] ^ 4], at + (i * BLOCK) as u64 + 100).unwrap();
                hit.insert(block);
            }
        }
        at += read as u64;
    }
    file.sync_all().unwrap();
    assert_eq!(hit, wanted, "the disk does not hold all of the blocks");
}

/// Names of the nodes whose copies are bad.
fn bad_nodes(cluster: &Cluster, verdict: &Value) -> BTreeSet<String> {
    let nodes = cluster.ok(&["node", "list"]);
    let name = |id: &Value| nodes.as_array().unwrap().iter().find(|n| n["id"] == *id).unwrap()["name"].clone();
    let found = verdict["mismatches"].as_array().unwrap();
    found.iter().map(|m| name(&m["node"]).as_str().unwrap().to_string()).collect()
}

#[test]
fn a_bad_copy_is_named_never_read_and_repaired() {
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, SIZE);
    cluster.verify_equal("vol");
    // The last batch of a log is another matter: see the test below.
    guest.write(SIZE, REQUEST as u64);
    cluster.verify_equal("vol");

    // The gateway's own copy rots under its hands: the guest gets what it wrote, from another copy.
    flip_bits(&cluster.disk("node-1"), (0..BLOCKS).step_by(EVERY as usize));
    guest.check(0, SIZE);

    // A copy that nobody reads rots, too, while its node is down. No block is bad twice.
    cluster.kill("node-3");
    flip_bits(&cluster.disk("node-3"), (EVERY / 2..BLOCKS).step_by(EVERY as usize));
    cluster.up();
    let verdict = cluster.verify("vol");
    let bad = bad_nodes(&cluster, &verdict);
    assert!(bad.contains("node-3") && !bad.contains("node-2"), "{verdict}");
    let problem = verdict["mismatches"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("do not match their checksums"), "{problem}");

    // What was found is replaced.
    cluster.until("all copies are repaired", |c| (c.verify("vol")["equal"] == true).then_some(()));
    guest.check(0, SIZE);
    guest.close();
}

/// A bad last batch looks like one that was torn by the crash, which nobody was promised: it is cut. The
/// replica must then not count as one that only misses what was written while it was away.
#[test]
fn a_log_whose_last_batch_rotted_is_not_trusted() {
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, REQUEST as u64);
    guest.close();
    cluster.ok(&["volume", "detach", "vol"]);
    // Served by a node that has no copy, so that any of them may be read.
    cluster.ok(&["up", "--detach", "--nodes", "4"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-4"));
    for (member, at) in ["node-1", "node-2", "node-3"].into_iter().zip((0..).step_by(REQUEST).skip(1)) {
        guest.write(at, REQUEST as u64);
        cluster.verify_equal("vol");
        cluster.kill(member);
        flip_bits(&cluster.disk(member), std::iter::once(at / BLOCK as u64));
        cluster.up();
        for _ in 0..20 {
            guest.check(at, REQUEST as u64);
        }
        cluster.until("the copy is repaired", |c| {
            guest.check(at, REQUEST as u64);
            (c.verify("vol")["equal"] == true).then_some(())
        });
    }
    guest.close();
}
