//! What a daemon tells of itself and of others, and how it finds the meta servers.

use crate::common::meta::FakeMeta;
use crate::common::{Daemon, Node, until};
use levee_proto::NodeId;
use levee_proto::api::{DiskClass, LinkReport};

fn named(name: &str, disks: usize) -> Node {
    Node { name: name.into(), ..Node::new(disks) }
}

/// How one node sees another.
fn sight(meta: &FakeMeta, from: &str, to: u32) -> Option<LinkReport> {
    meta.told(|t| t.heartbeats.get(from)?.links.iter().find(|l| l.node == NodeId(to)).copied())
}

#[track_caller]
fn until_joined(meta: &FakeMeta, name: &str) {
    until("it joins", || meta.told(|t| t.heartbeats.get(name).map(|_| ())));
}

#[test]
fn nodes_without_traffic_tell_whether_they_see_each_other() {
    let meta = FakeMeta::start();
    let (one, two, gateway) = (named("one", 1), named("two", 1), named("gateway", 0));
    let start = |node: &Node| -> Daemon {
        let daemon = node.start(&meta.url);
        until_joined(&meta, &node.name);
        daemon
    };
    let (first, mut second, third) = (start(&one), start(&two), start(&gateway));
    let sees = |from: &str, to: u32, up: bool| {
        until(&format!("{from} sees node {to}: {up}"), || sight(&meta, from, to).filter(|l| l.up == up).map(|_| ()));
    };
    for (from, to) in [("one", 2), ("two", 1), ("gateway", 1), ("gateway", 2)] {
        sees(from, to, true);
        until("a latency", || sight(&meta, from, to).filter(|l| l.latency_us > 0).map(|_| ()));
    }
    assert_eq!(sight(&meta, "one", 3), None, "it stores nothing");
    // One that hangs says nothing, and is not told from one that is gone.
    second.freeze();
    sees("one", 2, false);
    sees("gateway", 2, false);
    sees("gateway", 1, true);
    second.thaw();
    sees("one", 2, true);
    second.child.kill().unwrap();
    second.child.wait().unwrap();
    sees("one", 2, false);
    first.stop();
    third.stop();
}

#[test]
fn a_node_says_where_it_stands_and_what_its_disks_are_made_of() {
    let meta = FakeMeta::start();
    let mut node = Node::new(1);
    let named = format!("{},class=hdd", node.disks[0].display());
    node.disks[0] = named.into();
    node.args = ["--zone", "z1", "--rack", "row-3"].map(String::from).to_vec();
    let daemon = node.start(&meta.url);
    until_joined(&meta, "n1");
    let told = meta.told(|t| t.registered.clone().unwrap());
    assert_eq!((told.zone.as_deref(), told.rack.as_deref()), (Some("z1"), Some("row-3")));
    assert_eq!(told.disks[0].class, DiskClass::Hdd);
    assert!(!told.disks[0].path.contains("class"), "{told:?}");
    daemon.stop();
    node.args[1] = "no zone".into();
    let refused = node.refused(&meta.url);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--zone"));
}

#[test]
fn a_group_whose_members_were_all_replaced_is_found_again() {
    let (old, new) = (FakeMeta::start(), FakeMeta::start());
    let node = Node::new(1);
    let daemon = node.start(&old.url);
    until_joined(&old, "n1");
    // Another member joins, then the old one goes.
    old.say(|t| t.members.push(new.url.clone()));
    let remembered = node.dir.path().join("state/meta.json");
    until("it learns", || std::fs::read_to_string(&remembered).ok()?.contains(&new.url).then_some(()));
    let first = old.url.clone();
    new.say(|t| t.members = vec![new.url.clone()]);
    drop(old);
    until("it turns to the other", || new.told(|t| t.heartbeat.as_ref().map(|_| ())));
    until("it forgets the old one", || (!std::fs::read_to_string(&remembered).ok()?.contains(&first)).then_some(()));
    daemon.stop();
    new.forget();
    let daemon = node.start(&first);
    until_joined(&new, "n1");
    daemon.stop();
}

#[test]
fn requests_carry_ids() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    let mut daemon = node.start(&meta.url);
    until_joined(&meta, "n1");
    let ids = meta.told(|t| t.request_ids.clone());
    assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
    let (_, _, made) = daemon.ask("/v1/status", None, None);
    assert_eq!(made.len(), 16);
    let (_, _, kept) = daemon.ask("/v1/disks/77/remove", Some(serde_json::json!({})), Some("client-7"));
    assert_eq!(kept, "client-7");
    let said = daemon.log.find(|l| l.contains("client-7")).expect("it is logged");
    assert!(said.contains("POST /v1/disks/77/remove: 404"), "{said}");
    daemon.stop();
}
