//! Volumes that a daemon is to serve.

use crate::common::meta::FakeMeta;
use crate::common::{Node, until};
use levee_proto::api::{OpenedVolume, ServeState, VolumeReport};
use serde_json::json;

fn volume(copies: u8) -> OpenedVolume {
    let view = json!({ "version": 1, "hidden": [] });
    let versions =
        json!({ "number": 1, "epoch": 1, "version": 1, "view": view, "snapshots": [], "sealed": 0, "size": 1 << 20 });
    serde_json::from_value(json!({
        "id": 1, "name": "v", "epoch": 1, "version": 1, "size": 1 << 20, "copies": copies, "min_copies": 1,
        "geometry": { "stripe_unit": 1 << 20, "group_chunks": 4 }, "chunks": [], "view": view, "versions": versions,
    }))
    .unwrap()
}

/// One that its core does not take is not served: that is reported, and it is asked for again.
#[test]
fn a_volume_that_is_refused_is_reported_and_tried_again() {
    let (node, meta) = (Node::new(1), FakeMeta::start());
    meta.say(|told| told.volume = Some(volume(9)));
    let daemon = node.start(&meta.url);
    let told = |state: ServeState| {
        let is_so = |v: &&VolumeReport| v.state == state;
        meta.told(|t| t.heartbeat.as_ref()?.volumes.iter().find(is_so).cloned())
    };
    let failed = until("the refusal is reported", || told(ServeState::Failed));
    assert!(failed.detail.unwrap().contains("copies are out of range"));
    until("it is asked for again", || meta.told(|t| (t.opens > 1).then_some(())));
    meta.say(|told| told.volume = Some(volume(1)));
    until("it is served", || told(ServeState::Serving));
    daemon.stop();
}
