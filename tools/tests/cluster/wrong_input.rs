//! What a user gets wrong: each answered with one line that tells what to do, and nothing is changed.

use crate::cluster::Cluster;
use crate::support::Ran;
use serde_json::{Value, json};

const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;

/// What must not change: the volumes, and where they are attached.
fn volumes(cluster: &Cluster) -> Value {
    let list = cluster.ok(&["volume", "list"]);
    let known = |v: &Value| json!([v["name"], v["size"], v["copies"], v["epoch"], v["attachment"]["node_name"]]);
    list.as_array().unwrap().iter().map(known).collect()
}

/// Has each command fail, with words that its message must contain.
#[track_caller]
fn all_refused(cluster: &Cluster, status: i32, cases: &[(&str, &[&str])]) {
    let before = volumes(cluster);
    for (command, words) in cases {
        let line = cluster.refused(&command.split(' ').collect::<Vec<_>>(), status);
        for word in *words {
            assert!(line.contains(word), "levee {command}: {line}");
        }
    }
    assert_eq!(volumes(cluster), before);
}

/// The parser of the command line adds how to get help, so its messages have more than one line.
#[track_caller]
fn usage(cluster: &Cluster, command: &str, word: &str) {
    let ran: Ran = cluster.run(&command.split(' ').collect::<Vec<_>>()).expect(WRONG_USAGE);
    let first = ran.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: ") && first.contains(word), "levee {command}: {}", ran.stderr);
    assert_eq!(ran.json()["error"]["kind"], "usage");
}

#[test]
fn what_cannot_be_done_is_refused_in_one_line() {
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M"]);
    cluster.create("idle", &["--size", "256M"]);
    cluster.attach("vol", "node-1");

    let unknown: &[&str] = &["no volume named 'none'"];
    let cases = ["show", "attach", "delete", "verify", "detach"].map(|verb| format!("volume {verb} none"));
    let unknown: Vec<_> = cases.iter().map(|command| (command.as_str(), unknown)).collect();
    all_refused(&cluster, FAILED, &unknown);
    all_refused(
        &cluster,
        FAILED,
        &[
            ("qemu none", &["no volume named 'none'"]),
            ("qemu idle", &["idle is not attached", "levee volume attach idle"]),
            ("volume create vol --size 1G", &["a volume named 'vol' already"]),
            ("volume create big --size 1G --copies 4", &["4 copies", "the cluster has 3", "add nodes"]),
            ("volume attach idle --node node-9", &["no node named 'node-9'"]),
            ("volume attach vol --node node-2", &["attached to node 'node-1'", "detach it first"]),
            ("volume delete vol", &["attached to node 'node-1'", "detach it first"]),
        ],
    );
    all_refused(
        &cluster,
        WRONG_USAGE,
        &[("volume create odd --size 1G --copies 2 --min-copies 3", &["--min-copies 3 is more than --copies 2"])],
    );
    let before = volumes(&cluster);
    for (command, word) in [
        ("volume create odd --size 0", "not 0"),
        ("volume create odd --size 4097", "multiple of 4096"),
        ("volume create odd --size 2048T", "at most 16 TiB"),
        ("volume create odd --size 99999999999T", "too large"),
        ("volume create odd --size big", "not a size"),
        ("volume create odd --size 1G --copies 6", "--copies"),
        ("volume create odd --size 1G --copies 0", "--copies"),
        ("volume create odd --size 1G --min-copies 0", "--min-copies"),
        ("volume create o/dd --size 1G", "letters, digits"),
        ("volume create odd", "required"),
        ("volume attach idle --timeout soon", "not a duration"),
    ] {
        usage(&cluster, command, word);
    }
    assert_eq!(volumes(&cluster), before);

    // Doing again what is done is no mistake.
    let node = cluster.volume("vol")["attachment"].clone();
    cluster.attach("vol", "node-1");
    assert_eq!(cluster.volume("vol")["attachment"]["attachment"], node["attachment"]);
    cluster.ok(&["volume", "detach", "idle"]);
}

#[test]
fn nodes_that_are_down_and_names_that_are_taken_are_named() {
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "256M"]);

    // Something else lies where the socket goes: it is left alone, and the volume served once it is gone.
    let socket = cluster.socket("vol");
    std::fs::write(&socket, "precious").unwrap();
    let line = cluster.refused(&["volume", "attach", "vol", "--node", "node-1"], FAILED);
    let named = socket.display().to_string();
    assert!(line.contains("node-1 cannot serve volume vol") && line.contains(&named), "{line}");
    assert!(line.contains("is not a socket") && line.contains("remove it"), "{line}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    std::fs::remove_file(&socket).unwrap();
    cluster.until("the volume is served", |c| {
        (c.volume("vol")["attachment"]["report"]["state"] == "serving").then_some(())
    });
    assert_eq!(cluster.attach("vol", "node-1"), socket);
    cluster.ok(&["volume", "detach", "vol"]);

    // A node that is down.
    cluster.kill("node-3");
    cluster.until("the node counts as down", |c| {
        let nodes = c.ok(&["node", "list"]);
        nodes.as_array().unwrap().iter().any(|n| n["name"] == "node-3" && n["state"] == "down").then_some(())
    });
    let words: &[&str] = &["node 'node-3', which is down", "start its daemon, or choose another node"];
    all_refused(&cluster, FAILED, &[("volume attach vol --node node-3", words)]);

    // No meta server at all.
    cluster.kill("meta-1");
    let url = cluster.meta_url(1);
    for command in ["volume list", "volume show vol", "volume create new --size 1G", "volume attach vol", "status"] {
        let line = cluster.refused(&command.split(' ').collect::<Vec<_>>(), FAILED);
        assert!(line.contains(&format!("cannot reach the meta server at {url}: connection refused")), "{line}");
        assert!(line.contains("levee up --dir"), "{line}");
    }
    cluster.up();
    assert_eq!(volumes(&cluster)[0], json!(["vol", 256 << 20, 3, 1, null]));
}
