//! Disks that fail, are away or are damaged: the daemon goes on with the others and says which it is; it never panics.

use crate::common::meta::FakeMeta;
use crate::common::{MIB, Node, format, until};
use levee_proto::api::RegisterNode;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use uuid::Uuid;

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

/// The disks as the cluster was told of them last, by uuid; and the failures of those that cannot be used.
fn told_disks(meta: &FakeMeta) -> BTreeMap<Uuid, String> {
    meta.told(|t| t.registered.as_ref().unwrap().disks.iter().map(|d| (d.uuid, d.path.clone())).collect())
}

#[test]
fn names_of_devices_shift_and_disks_stay_who_they_are() {
    let (mut node, meta) = (Node::new(3), FakeMeta::start());
    let daemon = node.start(&meta.url);
    until("all disks work", || (meta.failures()? == [None, None, None]).then_some(()));
    let before = told_disks(&meta);
    daemon.stop();
    let paths = node.disks.clone();
    let at = |disks: &BTreeMap<Uuid, String>, path: &Path| {
        *disks.iter().find(|(_, p)| Path::new(p) == path).expect("there is a disk").0
    };

    // Two have exchanged their names.
    let aside = node.dir.path().join("aside");
    std::fs::rename(&paths[0], &aside).unwrap();
    std::fs::rename(&paths[1], &paths[0]).unwrap();
    std::fs::rename(&aside, &paths[1]).unwrap();
    meta.forget();
    let daemon = node.start(&meta.url);
    until("all disks work", || (meta.failures()? == [None, None, None]).then_some(()));
    let swapped = told_disks(&meta);
    assert_eq!(at(&swapped, &paths[0]), at(&before, &paths[1]));
    assert_eq!(at(&swapped, &paths[1]), at(&before, &paths[0]));
    daemon.stop();

    // The first is dead, and the others have moved up.
    std::fs::rename(&paths[0], &aside).unwrap();
    std::fs::rename(&paths[1], &paths[0]).unwrap();
    std::fs::rename(&paths[2], &paths[1]).unwrap();
    for _ in 0..2 {
        meta.forget();
        let daemon = node.start(&meta.url);
        until("the dead one is reported", || only_failed(&meta, 2, "is missing"));
        let shifted = told_disks(&meta);
        assert_eq!(shifted.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_eq!(meta.told(|t| t.registered.as_ref().unwrap().missing.clone()), [at(&swapped, &paths[0])]);
        daemon.stop();
    }

    // It is there again under another name, which it is added by.
    node.disks.pop();
    meta.forget();
    std::fs::rename(&aside, &paths[2]).unwrap();
    node.disks.push(paths[2].clone());
    let daemon = node.start(&meta.url);
    until("all disks work", || (meta.failures()? == [None, None, None]).then_some(()));
    assert_eq!(told_disks(&meta).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    daemon.stop();
}

#[test]
fn a_disk_that_was_missing_comes_back_while_the_daemon_runs() {
    let (node, meta) = (Node::new(2), FakeMeta::start());
    let daemon = node.start(&meta.url);
    until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
    let before = told_disks(&meta);
    daemon.stop();
    let elsewhere = node.dir.path().join("elsewhere");
    std::fs::rename(&node.disks[0], &elsewhere).unwrap();
    meta.forget();
    let daemon = node.start(&meta.url);
    until("the failure is reported", || only_failed(&meta, 0, "is missing"));
    let add = |path: &Path| daemon.ask("/v1/disks", Some(serde_json::json!({ "path": path })), None);
    let (status, added, _) = add(&elsewhere);
    assert_eq!((status, added["disk"].as_u64()), (200, Some(1)), "{added}");
    until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
    assert_eq!(told_disks(&meta).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    // A copy of what is in use is nobody's disk.
    let copy = node.dir.path().join("copy");
    std::fs::copy(&node.disks[1], &copy).unwrap();
    let (status, problem, _) = add(&copy);
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("is a copy of"), "{problem}");
    daemon.stop();
}

#[test]
fn of_a_disk_and_its_copy_neither_is_used_and_one_disk_with_two_names_is() {
    let (mut node, meta) = (Node::new(2), FakeMeta::start());
    let daemon = node.start(&meta.url);
    until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
    daemon.stop();
    let link = node.dir.path().join("by-id");
    std::os::unix::fs::symlink(&node.disks[0], &link).unwrap();
    node.disks.push(link.clone());
    meta.forget();
    let daemon = node.start(&meta.url);
    until("both disks work", || (meta.failures()? == [None, None]).then_some(()));
    assert!(daemon.stop().contains("used once"));
    std::fs::remove_file(&link).unwrap();
    std::fs::copy(&node.disks[0], &link).unwrap();
    meta.forget();
    let daemon = node.start(&meta.url);
    until("the copied one is reported", || only_failed(&meta, 0, "one of them is a copy"));
    daemon.stop();
}

#[test]
fn either_superblock_is_enough_and_the_other_is_written_anew() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let daemon = node.start(&meta.url);
    until("it works", || (meta.failures()? == [None]).then_some(()));
    let before = told_disks(&meta);
    daemon.stop();
    let head = || std::fs::read(&node.disks[0]).unwrap()[..8192].to_vec();
    let whole = head();
    for (block, byte) in [(0, 0), (0, 0xa5), (4096, 0)] {
        File::options().write(true).open(&node.disks[0]).unwrap().write_all_at(&[byte; 4096], block).unwrap();
        meta.forget();
        let daemon = node.start(&meta.url);
        until("it works", || (meta.failures()? == [None]).then_some(()));
        assert_eq!(told_disks(&meta), before);
        assert!(daemon.stop().contains("it was written anew"));
        assert!(head() == whole, "block at {block}");
    }
}

#[test]
fn a_daemon_that_is_not_the_node_stops_and_says_so() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let mut daemon = node.start(&meta.url);
    until("it works", || (meta.failures()? == [None]).then_some(()));
    meta.say(|t| t.fenced = true);
    let ended = daemon.child.wait().unwrap();
    let log: Vec<String> = daemon.log.by_ref().collect();
    assert_eq!(ended.code(), Some(3), "{log:?}");
    let last = log.last().unwrap();
    assert!(last.starts_with("levee-stored: ") && last.contains("another daemon is this node"), "{log:?}");
    let refused = node.refused(&meta.url);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("another daemon is this node"), "{said}");
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
