//! Three meta servers: without a leader, and without all of them.

use crate::cluster::Cluster;
use crate::guest::Load;
use serde_json::Value;

const SIZE: u64 = 32 << 20;
const METAS: [&str; 3] = ["meta-1", "meta-2", "meta-3"];

fn leader(status: &Value) -> Option<String> {
    status["leader"].as_u64().map(|id| format!("meta-{id}"))
}

#[test]
fn volumes_do_not_need_the_meta_servers_that_die() {
    let cluster = Cluster::start(&["--metas", "3", "--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M"]);
    let socket = cluster.attach("vol", "node-2");
    let load = Load::start(&socket, SIZE, 3, None);
    load.progress(500);

    // The leader goes: requests flow on, and what needs the meta servers works as soon as there is another
    // leader. `levee` waits ten seconds for one, so one command is enough.
    let first = leader(&cluster.ok(&["status"])).expect("there is a leader");
    cluster.kill(&first);
    load.progress(500);
    cluster.create("another", &["--size", "1G"]);
    let status = cluster.ok(&["status"]);
    assert_ne!(leader(&status), Some(first.clone()), "{status}");
    let silent: Vec<_> = status["members"].as_array().unwrap().iter().filter(|m| m["answers"] == false).collect();
    assert_eq!(silent.len(), 1, "{status}");

    // A second one goes: there is no majority. Chunks that exist are written and read all the same.
    for meta in METAS {
        cluster.kill(meta);
    }
    load.progress(1000);
    let line = cluster.refused(&["volume", "list"], 1);
    assert!(line.contains("cannot reach any meta server") && line.contains("levee up"), "{line}");
    load.progress(500);

    // All back: as if nothing had been.
    cluster.up();
    assert_eq!(cluster.volume("another")["name"], "another");
    let report = load.finish();
    assert_eq!(report.reconnects, 0, "{report:?}");
    cluster.verify_equal("vol");
}
