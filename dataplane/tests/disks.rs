//! Disks that fail, are away or are damaged: the daemon goes on with the others and says which it is; it never panics.

mod common;

use common::meta::FakeMeta;
use common::{MIB, Node, format, until};
use levee_proto::api::RegisterNode;
use std::fs::File;
use std::os::unix::fs::FileExt;

fn cut(path: &std::path::Path, size: u64) {
    File::options().write(true).open(path).unwrap().set_len(size).unwrap();
}

/// Only the disk at `position` has failed, for a reason that says `why`.
fn only_failed(meta: &FakeMeta, position: usize, why: &str) -> Option<()> {
    let failures = meta.failures()?;
    let failed = failures.iter().enumerate().filter(|(_, f)| f.is_some()).map(|(i, _)| i).collect::<Vec<_>>();
    if failed.is_empty() {
        return None;
    }
    assert_eq!(failed, [position], "{failures:?}");
    assert!(failures[position].as_ref().unwrap().contains(why), "{failures:?}");
    Some(())
}

#[test]
fn a_disk_that_fails_is_reported_and_the_others_go_on() {
    let (node, meta) = (Node::new(2), FakeMeta::start());
    let daemon = node.start(&meta.url);
    until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
    cut(&node.disks[1], 100 * MIB);
    until("the failure is reported", || only_failed(&meta, 1, "end cannot be read"));
    let log = daemon.stop();
    let said = log.lines().filter(|l| l.contains("disk-2, shard 0 failed")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].contains("smaller") && said[0].contains("other copies"), "{log}");
    assert!(!log.contains("disk-1, shard 0 failed"), "{log}");
}

#[test]
fn a_disk_that_works_again_comes_back_without_a_restart() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let mut daemon = node.start(&meta.url);
    until("it works", || (meta.failures()? == [None]).then_some(()));
    cut(&node.disks[0], 255 * MIB);
    assert!(daemon.log.any(|l| l.contains("shard 0 failed")), "it is not noticed");
    cut(&node.disks[0], 256 * MIB);
    assert!(daemon.log.any(|l| l.contains("works again and is back in service")), "it does not come back");
    meta.forget();
    until("nothing is reported any more", || (meta.failures()? == [None]).then_some(()));
    daemon.stop();
}

#[test]
fn a_disk_that_was_here_before_and_is_away_is_named() {
    let (node, meta) = (Node::new(2), FakeMeta::start());
    let daemon = node.start(&meta.url);
    let registered = until("it joins", || meta.told(|t| t.heartbeat.as_ref().and(t.registered.clone())));
    daemon.stop();
    std::fs::rename(&node.disks[0], node.dir.path().join("elsewhere")).unwrap();
    meta.forget();
    let daemon = node.start(&meta.url);
    until("the failure is reported", || only_failed(&meta, 0, "there is no disk"));
    let again = meta.told(|t| t.registered.clone()).unwrap();
    let disks = |node: &RegisterNode| node.disks.iter().map(|d| (d.uuid, d.path.clone(), d.shards)).collect::<Vec<_>>();
    assert_eq!(disks(&again), disks(&registered), "it brings the same disks as before");
    assert_eq!(again.disks[0].capacity, registered.disks[0].capacity);
    assert!(daemon.stop().contains("is not served"));

    // Nothing is wrong any more.
    std::fs::rename(node.dir.path().join("elsewhere"), &node.disks[0]).unwrap();
    meta.forget();
    let daemon = node.start(&meta.url);
    until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
    daemon.stop();
}

#[test]
fn a_disk_that_was_never_here_is_refused() {
    let (mut node, meta) = (Node::new(1), FakeMeta::start());
    let daemon = node.start(&meta.url);
    until("it works", || (meta.failures()? == [None]).then_some(()));
    daemon.stop();
    node.disks.push(node.dir.path().join("typo"));
    let refused = node.refused(&meta.url);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no disk") && said.contains("typo"), "{said}");
}

/// Does it to a disk, and what the daemon then says of it.
type Damage<'a> = (&'a dyn Fn(&File), &'a str);

/// What a shard cannot be recovered from is a failure of its disk alone; so is anything else that may be written there.
#[test]
fn whatever_is_on_a_disk_the_others_are_served() {
    let (node, meta) = (Node::new(2), FakeMeta::start());
    let damaged = &node.disks[1];
    let garbage: Vec<u8> = (0..MIB as usize).map(|i| ((i * 7919) >> 3) as u8).collect();
    let roots = |file: &File| file.write_all_at(&garbage[..64 << 10], MIB).unwrap();
    let superblock = |file: &File| file.write_all_at(&garbage[..8192], 0).unwrap();
    let nothing = |file: &File| file.set_len(0).unwrap();
    let zeros = |file: &File| file.write_all_at(&vec![0; 2 * MIB as usize], 0).unwrap();
    let damages: [Damage; 4] = [
        (&roots, "both roots are damaged"),
        (&superblock, "cannot be used"),
        (&nothing, "cannot be used"),
        (&zeros, "not a Levee disk"),
    ];
    for (damage, why) in damages {
        std::fs::remove_file(damaged).unwrap();
        format(damaged);
        meta.forget();
        let daemon = node.start(&meta.url);
        until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
        daemon.stop();
        damage(&File::options().write(true).open(damaged).unwrap());
        meta.forget();
        let daemon = node.start(&meta.url);
        until(why, || only_failed(&meta, 1, why));
        daemon.stop();
    }
}
