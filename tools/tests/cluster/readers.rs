//! Snapshots that are attached for reading.

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::snapshots::{exported, used};
use levee_frontend::Operation;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const COPIES: u64 = 3;
const IO_ERROR: u8 = 1;

fn names(cluster: &Cluster) -> Vec<String> {
    let volumes = cluster.ok(&["volume", "list"]);
    volumes.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_string()).collect()
}

/// The guest does not care that the disk says that it is read-only.
fn assert_refuses_changes(reader: &mut Guest) {
    for operation in [
        Operation::Write { offset: 0, len: 4096 },
        Operation::Write { offset: 40 * MIB, len: 512 },
        Operation::Discard { offset: 0, len: MIB },
        Operation::WriteZeroes { offset: 0, len: MIB, unmap: true },
        Operation::WriteZeroes { offset: 40 * MIB, len: 512, unmap: false },
    ] {
        assert_eq!(reader.status_of(operation), IO_ERROR, "{operation:?}");
    }
    assert_eq!(reader.status_of(Operation::Flush), 0);
}

#[test]
fn a_snapshot_is_read_while_its_volume_is_written() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.fill(0..4 * MIB, 1);
    guest.fill(32 * MIB..33 * MIB + 512, 1);
    guest.discard(2 * MIB, MIB);
    let frozen = guest.contents(SIZE);
    cluster.ok(&["snapshot", "create", "vol@s"]);
    assert_eq!(cluster.volume("vol@s")["attachment"], Value::Null);
    let mut reader = Guest::connect(&cluster.attach("vol@s", "node-2"));
    for byte in 2..4 {
        guest.fill(0..6 * MIB, byte);
        assert!(reader.contents(SIZE) == frozen, "after {byte} was written");
        assert_refuses_changes(&mut reader);
    }
    assert!(guest.contents(6 * MIB).iter().all(|byte| *byte == 3));

    let shown = cluster.volume("vol@s");
    assert_eq!((&shown["read_only"], &shown["chunks"]), (&json!(true), &json!(0)), "{shown}");
    assert_eq!(shown["attachment"]["report"]["state"], "serving", "{shown}");
    assert_eq!(names(&cluster), ["vol", "vol@s"]);
    let qemu = cluster.ok(&["qemu", "vol@s"])["command"].to_string();
    assert!(qemu.contains("path=") && qemu.contains("vol@s.sock") && qemu.contains("chardev=levee-vol.s"), "{qemu}");
    let line = cluster.refused(&["volume", "attach", "vol@s", "--node", "node-3"], 1);
    assert!(line.contains("attached to node 'node-2': detach it first"), "{line}");
    let line = cluster.refused(&["snapshot", "delete", "vol@s"], 1);
    assert!(line.contains("attached to node 'node-2'") && line.contains("levee volume detach vol@s"), "{line}");
    for args in [["snapshot", "create", "vol@s@t"], ["volume", "flatten", "vol@s"], ["volume", "delete", "vol@s"]] {
        cluster.run(&args).expect(2);
    }

    // Its daemon dies, and it goes on where it was; with a node less, too.
    reader.close();
    cluster.kill("node-2");
    cluster.up();
    let mut reader = Guest::connect(&cluster.attach("vol@s", "node-2"));
    cluster.kill("node-3");
    assert!(reader.contents(SIZE) == frozen);
    assert_refuses_changes(&mut reader);
    cluster.up();
    reader.close();

    // All that only the snapshot had comes back when it has been detached and deleted.
    cluster.ok(&["volume", "detach", "vol@s"]);
    cluster.ok(&["volume", "detach", "vol@s"]);
    assert_eq!(names(&cluster), ["vol"]);
    assert!(exported(&cluster, "vol@s") == frozen, "exported while the volume is in use");
    assert_eq!(names(&cluster), ["vol"]);
    cluster.until("all copies being counted", |c| {
        let is_whole = c.volume("vol")["attachment"]["report"]["degraded_chunks"] == 0;
        let disks = c.ok(&["disk", "list"]);
        (is_whole && disks.as_array().unwrap().iter().all(|d| d["used"].is_u64())).then_some(())
    });
    let before = used(&cluster);
    cluster.ok(&["snapshot", "delete", "vol@s"]);
    let line = cluster.refused(&["volume", "attach", "vol@s"], 1);
    assert!(line.contains("no snapshot 's'"), "{line}");
    cluster.until("the space of the snapshot", |c| (used(c) + COPIES * 2 * MIB < before).then_some(()));
    assert!(guest.contents(6 * MIB).iter().all(|byte| *byte == 3));
    guest.close();
    cluster.verify_equal("vol");
    cluster.ok(&["volume", "detach", "vol"]);
    cluster.ok(&["volume", "delete", "vol"]);
    cluster.until("nothing is left", |c| (used(c) == 0).then_some(()));
}
