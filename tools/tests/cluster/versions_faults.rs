//! Snapshots and clones while daemons die: what was complete stays what it was, what was not is completed, and all copies
//! agree in the end.

use crate::clones::snapshot;
use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::snapshots::{exported, held};
use crate::tide::{Moment, ROUND, Tide};

const MIB: u64 = 1 << 20;

/// Waits until a snapshot is complete.
fn until_done(cluster: &Cluster, volume: &str, name: &str) {
    cluster.until("the snapshot is completed", |c| {
        (snapshot(c, volume, name).expect("it was taken")["state"] == "done").then_some(())
    });
}

fn until_served(cluster: &Cluster, volume: &str) {
    cluster.until("the volume is served again", |c| {
        (c.volume(volume)["attachment"]["report"]["state"] == "serving").then_some(())
    });
}

/// Tells the cluster to take a snapshot without waiting for more than the record of it.
fn take(cluster: &Cluster, tide: &Tide, name: &str) -> u64 {
    let answered = tide.answered();
    // Whether it is complete by then is not what is asked.
    let ran = cluster.run(&["snapshot", "create", name, "--timeout", "1ms"]);
    assert!(ran.status == 0 || ran.stderr.contains("is taken, but not complete"), "{}", ran.stderr);
    answered
}

#[test]
fn snapshots_are_completed_whoever_dies() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "2G"]);
    cluster.create("vol", &["--size", "64M"]);
    let tide = Tide::start(&cluster.attach("vol", "node-1"));
    tide.progress(ROUND);
    let mut taken: Vec<(&str, Moment)> = Vec::new();

    // A copy is lost in the middle of it: two of three are enough.
    let answered = take(&cluster, &tide, "vol@copy");
    cluster.kill("node-3");
    until_done(&cluster, "vol", "copy");
    taken.push(("copy", Moment { answered, begun: tide.begun() }));
    tide.progress(ROUND);
    taken.push(("without", tide.snapshot(&cluster, "vol@without")));
    let before = held(&cluster, "vol@copy");
    taken[0].1.check(&before);
    tide.progress(ROUND);
    cluster.up();

    // The gateway is lost right after, and, the next time, in the middle.
    taken.push(("right", tide.snapshot(&cluster, "vol@right")));
    cluster.kill("node-1");
    cluster.up();
    tide.progress(ROUND);
    let answered = take(&cluster, &tide, "vol@middle");
    cluster.kill("node-1");
    cluster.up();
    until_done(&cluster, "vol", "middle");
    taken.push(("middle", Moment { answered, begun: tide.begun() }));
    tide.progress(ROUND);

    // All at once, in the middle of it.
    let answered = take(&cluster, &tide, "vol@dark");
    cluster.kill_all();
    cluster.up();
    until_done(&cluster, "vol", "dark");
    taken.push(("dark", Moment { answered, begun: tide.begun() }));
    tide.progress(ROUND);

    let holds = |name: &str| held(&cluster, &format!("vol@{name}"));
    let bytes: Vec<Vec<u8>> = taken.iter().map(|(name, _)| holds(name)).collect();
    assert!(bytes[0] == before, "vol@copy has changed");
    taken.iter().zip(&bytes).for_each(|((_, moment), bytes)| moment.check(bytes));
    let last = tide.finish();
    cluster.verify_equal("vol");

    // Once more with nobody writing; then some are deleted without one of the nodes.
    cluster.kill_all();
    cluster.up();
    until_served(&cluster, "vol");
    cluster.kill("node-2");
    cluster.ok(&["snapshot", "delete", "vol@without", "vol@middle"]);
    let still = [0, 2, 4];
    let unchanged =
        |when: &str| still.iter().for_each(|i| assert!(holds(taken[*i].0) == bytes[*i], "{} {when}", taken[*i].0));
    unchanged("with a copy missing");
    cluster.up();
    cluster.verify_equal("vol");
    cluster.ok(&["volume", "detach", "vol"]);
    unchanged("in the end");
    last.check(&exported(&cluster, "vol"));
    cluster.verify_equal("vol");
}

#[test]
fn clones_outlive_the_daemons() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "2G"]);
    cluster.create("vol", &["--size", "64M"]);
    let mut parent = Guest::connect(&cluster.attach("vol", "node-1"));
    parent.fill(0..8 * MIB, 1);
    cluster.ok(&["snapshot", "create", "vol@s"]);
    let base = parent.contents(64 * MIB);
    for name in ["one", "two"] {
        cluster.create(name, &["--from", "vol@s"]);
    }
    let mut guest = Guest::connect(&cluster.attach("one", "node-2"));
    guest.fill(MIB..2 * MIB, 2);
    guest.discard(4 * MIB, MIB);
    parent.fill(0..3 * MIB, 9);
    let mut own = base.clone();
    own[MIB as usize..2 * MIB as usize].fill(2);
    own[4 * MIB as usize..5 * MIB as usize].fill(0);

    // Without one of the copies that it reads, and writes; then without its gateway.
    cluster.kill("node-3");
    assert!(guest.contents(64 * MIB) == own);
    guest.fill(6 * MIB..7 * MIB, 2);
    own[6 * MIB as usize..7 * MIB as usize].fill(2);
    cluster.up();
    cluster.kill("node-2");
    parent.fill(3 * MIB..6 * MIB, 9);
    cluster.up();
    assert!(guest.contents(64 * MIB) == own);

    // Flattened while everything dies: it goes on afterwards, and the snapshot that is deleted meanwhile stays for it.
    let flatten = cluster.run(&["volume", "flatten", "one", "--timeout", "1ms"]);
    cluster.kill_all();
    assert!(flatten.status == 0 || flatten.stderr.contains("goes on in the background"), "{}", flatten.stderr);
    cluster.up();
    cluster.ok(&["snapshot", "delete", "vol@s"]);
    cluster.until("it is flattened", |c| c.volume("one")["parent"].is_null().then_some(()));
    assert!(guest.contents(64 * MIB) == own);
    guest.close();
    assert!(exported(&cluster, "two") == base);
    cluster.ok(&["volume", "flatten", "two", "--timeout", "60s"]);
    cluster.until("nobody needs the snapshot", |c| snapshot(c, "vol", "s").is_none().then_some(()));
    assert!(exported(&cluster, "two") == base);
    assert!(parent.contents(6 * MIB).iter().all(|byte| *byte == 9));
    parent.close();
    for name in ["vol", "one", "two"] {
        cluster.verify_equal(name);
    }
}
