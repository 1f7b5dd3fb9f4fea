//! Clones: many of one snapshot, clones of clones, what they share and what they do not, and what keeps their parents.

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::snapshots::{exported, held, used, with_guest};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// `parent`, but with these bytes in a range.
fn changed(parent: &[u8], range: std::ops::Range<u64>, byte: u8) -> Vec<u8> {
    let mut bytes = parent.to_vec();
    bytes[range.start as usize..range.end as usize].fill(byte);
    bytes
}

pub fn snapshot(cluster: &Cluster, volume: &str, name: &str) -> Option<Value> {
    let all = cluster.ok(&["snapshot", "list", volume]);
    all.as_array().unwrap().iter().find(|s| s["name"] == name).cloned()
}

#[test]
fn fifty_clones_go_their_own_ways() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "2G"]);
    cluster.create("golden", &["--size", "64M"]);
    with_guest(&cluster, "golden", "node-1", |guest| {
        guest.fill(0..6 * MIB, 1);
        guest.discard(5 * MIB, MIB);
        guest.fill(32 * MIB..34 * MIB + 1536, 2);
    });
    cluster.ok(&["snapshot", "create", "golden@v1"]);
    let golden = exported(&cluster, "golden");
    let before = used(&cluster);
    let made = cluster.ok(&["volume", "create", "desk", "--from", "golden@v1", "--count", "50"]);
    assert_eq!((&made["count"], &made["first"], &made["last"]), (&json!(50), &json!("desk-1"), &json!("desk-50")));
    assert_eq!(snapshot(&cluster, "golden", "v1").unwrap()["clones"], 50);
    let line = cluster.refused(&["volume", "create", "desk", "--from", "golden@v1", "--count", "51"], 1);
    assert!(line.contains("desk-1'"), "{line}");
    let line = cluster.refused(&["volume", "create", "other", "--from", "golden@v2"], 1);
    assert!(line.contains("no snapshot 'v2'"), "{line}");

    // Several of them in use at once, and the parent as well: nobody sees what another does.
    let mut golden_guest = Guest::connect(&cluster.attach("golden", "node-1"));
    let mut guests: Vec<Guest> =
        (1..4).map(|i| Guest::connect(&cluster.attach(&format!("desk-{i}"), &format!("node-{i}")))).collect();
    golden_guest.fill(0..2 * MIB, 9);
    for (guest, byte) in guests.iter_mut().zip(10..) {
        assert!(guest.contents(64 * MIB) == golden);
        // Over a part of what the parent has, with ends within blocks; beside it; and a part is discarded.
        guest.fill(MIB + 512..2 * MIB + 1024, byte);
        guest.fill(40 * MIB..40 * MIB + 4096, byte);
        guest.discard(3 * MIB, MIB);
    }
    golden_guest.fill(2 * MIB..5 * MIB, 9);
    for (guest, byte) in guests.iter_mut().zip(10..) {
        let mut expected = changed(&golden, MIB + 512..2 * MIB + 1024, byte);
        expected = changed(&expected, 40 * MIB..40 * MIB + 4096, byte);
        expected = changed(&expected, 3 * MIB..4 * MIB, 0);
        assert!(guest.contents(64 * MIB) == expected, "of the clone that wrote {byte}");
    }
    guests.into_iter().for_each(Guest::close);
    golden_guest.close();
    for i in 1..4 {
        cluster.verify_equal(&format!("desk-{i}"));
        cluster.ok(&["volume", "detach", &format!("desk-{i}")]);
    }
    assert!(exported(&cluster, "desk-50") == golden);

    // What is in use, or is needed, stays; the others go.
    cluster.attach("desk-7", "node-2");
    let line = cluster.refused(&["volume", "delete", "desk-7"], 1);
    assert!(line.contains("attached to node 'node-2'") && line.contains("detach it first"), "{line}");
    let ran = cluster.run(&["volume", "delete", "desk", "--count", "50"]).expect(1);
    let said = ran.json();
    assert_eq!((&said["deleted"], &said["refused"][0]["volume"]), (&json!(49), &json!("desk-7")), "{said}");
    cluster.ok(&["volume", "detach", "desk-7"]);
    let line = cluster.refused(&["volume", "delete", "golden"], 1);
    assert!(line.contains("in use") || line.contains("attached"), "{line}");
    cluster.ok(&["volume", "detach", "golden"]);
    let line = cluster.refused(&["volume", "delete", "golden"], 1);
    assert!(line.contains("snapshot 'v1':") && line.contains("levee snapshot delete"), "{line}");
    assert!(exported(&cluster, "desk-7") == golden);
    cluster.ok(&["volume", "delete", "desk-7"]);
    cluster.ok(&["snapshot", "delete", "golden@v1"]);
    cluster.until("the clones' space comes back", |c| (used(c) < before + MIB).then_some(()));
}

#[test]
fn parents_stay_for_clones_until_these_are_gone_or_flattened() {
    let cluster = Cluster::start(&["--disk-size", "2G"]);
    cluster.create("a", &["--size", "32M"]);
    with_guest(&cluster, "a", "node-1", |guest| guest.fill(0..8 * MIB, 1));
    cluster.ok(&["snapshot", "create", "a@s"]);
    let a = exported(&cluster, "a");
    cluster.create("b", &["--from", "a@s", "--size", "48M"]);
    with_guest(&cluster, "b", "node-2", |guest| {
        guest.fill(2 * MIB..3 * MIB, 2);
        guest.discard(4 * MIB, MIB);
        guest.fill(40 * MIB..41 * MIB, 2);
    });
    cluster.ok(&["snapshot", "create", "b@s"]);
    let b = exported(&cluster, "b");
    cluster.create("c", &["--from", "b@s"]);
    with_guest(&cluster, "c", "node-3", |guest| {
        guest.fill(5 * MIB..6 * MIB, 3);
        guest.fill(2 * MIB + 512..2 * MIB + 1024, 3);
        guest.discard(MIB, MIB);
    });
    let mut expected = b.clone();
    assert!(b[4 * MIB as usize..5 * MIB as usize].iter().all(|byte| *byte == 0), "not the parent's data");
    for (range, byte) in [(5 * MIB..6 * MIB, 3), (2 * MIB + 512..2 * MIB + 1024, 3), (MIB..2 * MIB, 0)] {
        expected = changed(&expected, range, byte);
    }
    let c = exported(&cluster, "c");
    assert!(c == expected);

    // Deleted, but needed: the names are free, the data stay.
    let kept = cluster.ok(&["snapshot", "delete", "a@s"]);
    assert_eq!(kept["kept_for_clones"][0]["state"], "deleting", "{kept}");
    let line = cluster.refused(&["volume", "create", "d", "--from", "a@s"], 1);
    assert!(line.contains("snapshot a@s was deleted") && line.contains("1 clone"), "{line}");
    cluster.ok(&["volume", "delete", "a"]);
    cluster.create("a", &["--size", "16M"]);
    assert_eq!(cluster.volume("b")["parent"]["volume"], Value::Null);
    assert!(exported(&cluster, "b") == b && exported(&cluster, "c") == c);

    // A clone with a snapshot cannot be flattened; one without can, while it is used.
    let line = cluster.refused(&["volume", "flatten", "b"], 1);
    assert!(line.contains("snapshot 's', for which its parent"), "{line}");
    let mut guest = Guest::connect(&cluster.attach("c", "node-1"));
    guest.fill(7 * MIB..7 * MIB + 4096, 3);
    let c = changed(&c, 7 * MIB..7 * MIB + 4096, 3);
    cluster.ok(&["volume", "flatten", "c", "--timeout", "60s"]);
    assert_eq!(cluster.volume("c")["parent"], Value::Null);
    assert!(guest.contents(48 * MIB) == c);
    guest.close();
    cluster.verify_equal("c");
    cluster.ok(&["volume", "detach", "c"]);
    let line = cluster.refused(&["volume", "flatten", "c"], 1);
    assert!(line.contains("depends on no other volume"), "{line}");

    // Nobody needs b's snapshot now, and then b is flattened with nobody there. All that a had is given back.
    cluster.ok(&["snapshot", "delete", "b@s"]);
    let with_a = used(&cluster);
    cluster.ok(&["volume", "flatten", "b", "--timeout", "60s"]);
    assert!(exported(&cluster, "b") == b && exported(&cluster, "c") == c);
    cluster.verify_equal("b");
    cluster.ok(&["volume", "delete", "b"]);
    cluster.until("what a had comes back", |c| (used(c) + 3 * 8 * MIB <= with_a).then_some(()));
    assert!(exported(&cluster, "c") == c);
    cluster.ok(&["volume", "delete", "c"]);
    cluster.until("nothing is left", |c| (used(c) == 0).then_some(()));
    assert_eq!(a.len() as u64, 32 * MIB);
}

#[test]
fn a_clone_goes_back_to_its_own_snapshot() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "32M"]);
    with_guest(&cluster, "vol", "node-1", |guest| guest.fill(0..4 * MIB, 1));
    cluster.ok(&["snapshot", "create", "vol@s"]);
    cluster.create("clone", &["--from", "vol@s"]);
    // Before it has anything of its own, and then with a part.
    cluster.ok(&["snapshot", "create", "clone@bare"]);
    let bare = exported(&cluster, "clone");
    with_guest(&cluster, "clone", "node-2", |guest| {
        guest.fill(MIB..2 * MIB, 2);
        guest.discard(2 * MIB, MIB);
    });
    cluster.ok(&["snapshot", "create", "clone@own"]);
    let own = exported(&cluster, "clone");
    assert!(own == changed(&changed(&bare, MIB..2 * MIB, 2), 2 * MIB..3 * MIB, 0));
    for (name, bytes) in [("clone@bare", &bare), ("clone@own", &own), ("clone@bare", &bare)] {
        cluster.ok(&["snapshot", "rollback", name]);
        assert!(exported(&cluster, "clone") == *bytes, "the clone is not what {name} was");
        assert!(held(&cluster, "clone@bare") == bare && held(&cluster, "clone@own") == own);
    }
    cluster.ok(&["snapshot", "delete", "clone@own"]);
    cluster.until("what is not seen any more is dropped", |c| (used(c) < 3 * 4 * MIB + MIB).then_some(()));
    assert!(exported(&cluster, "clone") == bare && held(&cluster, "clone@bare") == bare);
    cluster.verify_equal("clone");
}
