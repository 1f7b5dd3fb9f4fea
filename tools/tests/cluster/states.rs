//! What guests feel, and what killed commands leave, is said alike by everything that says anything.

use crate::cluster::Cluster;
use crate::guest::Guest;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

const MIB: u64 = 1 << 20;

fn metrics(cluster: &Cluster) -> String {
    let url = cluster.meta_url(1);
    let mut connection = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// Whether `doctor` names this, and how bad it is.
fn severity(cluster: &Cluster, word: &str, subject: &str) -> Option<String> {
    let told = cluster.run(&["doctor"]).json();
    let all = ["problems", "notes"].into_iter().flat_map(|list| told[list].as_array().cloned().unwrap_or_default());
    let this = all.into_iter().find(|c| c["word"] == word && c["subject"] == subject)?;
    this["severity"].as_str().map(String::from)
}

/// What is reported is up to half a second old.
fn is_well(cluster: &Cluster) {
    cluster.until("all is well", |c| (c.run(&["doctor"]).status == 0).then_some(()));
}

fn events(cluster: &Cluster) -> String {
    cluster.ok(&["events"])["events"].to_string()
}

#[test]
fn a_guest_that_waits_is_seen_by_everybody() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.write(0, MIB);
    is_well(&cluster);
    cluster.kill("node-2");
    cluster.kill("node-3");
    guest.begin_write(0);
    cluster.until("the stall is told", |c| {
        let _ = guest.is_stuck_for(std::time::Duration::from_millis(100));
        (severity(c, "stalled", "vol").as_deref() == Some("error")).then_some(())
    });
    let volume = cluster.volume("vol");
    assert_eq!(volume["status"], "serving, stalled");
    let stall = &volume["attachment"]["report"]["stall"];
    assert!(
        stall["requests"].as_u64() > Some(0) && stall["why"].as_str().is_some_and(|w| w.contains("chunks wait")),
        "{stall}"
    );
    let status = cluster.ok(&["status"]);
    assert_eq!((&status["volumes"]["stalled"], status["health"]["healthy"].as_bool()), (&Value::from(1), Some(false)));
    assert!(cluster.ok(&["top"])["redundancy"]["stalled_volumes"] == 1);
    let text = metrics(&cluster);
    let stalled = text.lines().find(|l| l.starts_with("levee_volume_stalled_requests{volume=\"vol\"}"));
    assert!(stalled.is_some_and(|line| !line.ends_with(" 0")), "{stalled:?}");
    assert!(
        text.contains("levee_condition{kind=\"volume\",subject=\"vol\",condition=\"stalled\",severity=\"error\"} 1")
    );
    cluster.up();
    guest.finish();
    is_well(&cluster);
    cluster
        .until("its end is an event", |c| events(c).contains("its guest's requests are answered again").then_some(()));
    let told = events(&cluster);
    assert!(told.contains("is stalled: "), "{told}");
    guest.close();
}

#[test]
fn a_daemon_that_is_stopped_in_order_has_not_died() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.ok(&["down", "node-3"]);
    cluster.until("it is an event", |c| events(c).contains("was stopped").then_some(()));
    assert_eq!(severity(&cluster, "stopped", "node-3").as_deref(), Some("warning"));
    assert_eq!(severity(&cluster, "down", "node-3"), None);
    assert_eq!(severity(&cluster, "partitioned", "node-3"), None);
    let nodes = cluster.ok(&["node", "list"]);
    let stopped = nodes.as_array().unwrap().iter().find(|n| n["name"] == "node-3").unwrap();
    assert_eq!(stopped["status"], "stopped");
    let disks = cluster.ok(&["disk", "list"]);
    let own = disks.as_array().unwrap().iter().find(|disk| disk["node"] == stopped["id"]).unwrap();
    assert_eq!(own["status"], "unreachable");
    cluster.up();
    is_well(&cluster);
    cluster.until("it is an event", |c| events(c).contains("is up").then_some(()));
    let told = events(&cluster);
    assert!(!told.contains("partitioned"), "{told}");
}

/// Begins the command, and kills it when the volume is being filled.
fn killed(cluster: &Cluster, args: &[&str], volume: &str) {
    let mut command = cluster.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    cluster.until("it is being filled", |c| {
        let shown = c.run(&["volume", "show", volume]);
        let info: Value = serde_json::from_str(&shown.stdout).ok()?;
        (info["job"]["kind"] == "import" && info["attachment"]["report"]["front_end"]["connected"] == true)
            .then_some(())
    });
    command.kill().unwrap();
    command.wait().unwrap();
}

fn large_disk(dir: &Path) -> String {
    let path = dir.join("disk.raw");
    // Enough that it is not done before it is killed.
    let block: Vec<u8> = (0..MIB).map(|i| (i * 31 % 251) as u8 + 1).collect();
    let file = std::fs::File::create(&path).unwrap();
    for at in 0..768 {
        std::os::unix::fs::FileExt::write_all_at(&file, &block, at * MIB).unwrap();
    }
    path.to_str().unwrap().into()
}

#[test]
fn what_a_killed_import_leaves_does_not_look_whole() {
    let dir = tempfile::tempdir().unwrap();
    let disk = large_disk(dir.path());
    let cluster = Cluster::start(&["--disk-size", "3G"]);
    killed(&cluster, &["image", "import", &disk, "golden"], "golden");
    cluster.until("it is told", |c| (severity(c, "unfinished", "golden").as_deref() == Some("warning")).then_some(()));
    assert!(cluster.volume("golden")["status"].as_str().unwrap().contains("import unfinished"));
    for refused in [&["volume", "attach", "golden"][..], &["snapshot", "create", "golden@s"]] {
        let said = cluster.refused(refused, 1);
        assert!(said.contains("filled in part"), "{refused:?}: {said}");
    }
    // The same command again does what the first one was to do.
    let again = cluster.ok(&["image", "import", &disk, "golden"]);
    assert_eq!(again["import"]["size"], 768 * MIB);
    assert!(cluster.volume("golden")["job"].is_null());
    is_well(&cluster);

    cluster.create("vol", &["--size", "768M", "--copies", "1"]);
    killed(&cluster, &["volume", "import", &disk, "vol"], "vol");
    cluster.until("it is told", |c| (severity(c, "unfinished", "vol").as_deref() == Some("warning")).then_some(()));
    let filled = cluster.ok(&["volume", "import", &disk, "vol"]);
    assert_eq!(filled["crc32c"], again["import"]["crc32c"]);
    is_well(&cluster);
    // Somebody who has no use for it any more deletes it.
    cluster.ok(&["volume", "delete", "vol"]);
}
