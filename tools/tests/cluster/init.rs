//! A cluster of three hosts out of the files that `levee init` writes. The hosts are addresses of the loopback.

use crate::support::{Ran, built, levee, ports};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far beyond what is needed: only a hang reaches it, never a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
const HOSTS: [(&str, &str); 3] = [("a", "127.0.0.2"), ("b", "127.0.0.3"), ("c", "127.0.0.4")];

/// Killed when dropped.
#[derive(Default)]
struct Daemons(Vec<Child>);

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program(name: &str) -> PathBuf {
    built().with_file_name(name)
}

/// Starts a daemon with its file, and with its folders in `dir`: what is on the command line wins.
fn start(daemons: &mut Daemons, dir: &Path, host: &str, name: &str) {
    let log = std::fs::File::create(dir.join(format!("{name}-{host}.log"))).unwrap();
    let mut command = Command::new(program(name));
    if name == "levee-stored" {
        command.arg("run").arg("--sockets").arg(dir.join(format!("run-{host}")));
    }
    command.arg("--config").arg(dir.join("cluster").join(host).join(format!("{name}.toml")));
    command.arg("--dir").arg(dir.join(format!("{name}-{host}")));
    command.env_remove("LEVEE_CLUSTER").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    daemons.0.push(command.spawn().unwrap_or_else(|e| panic!("{name}: {e}")));
}

fn ask(dir: &Path, args: &[&str]) -> Ran {
    Ran::of(levee(built(), dir).args(args).arg("--json"))
}

/// Repeats a command until its answer is as wanted.
#[track_caller]
fn wait_for(dir: &Path, args: &[&str], done: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ran = ask(dir, args);
        if ran.status == 0 && done(&ran.json()) {
            return ran.json();
        }
        assert!(Instant::now() < deadline, "{args:?}: {}{}", ran.stdout, ran.stderr);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn files_of_init_make_a_cluster() {
    let ports = ports::reserve(|_| {});
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    let (meta_port, node_port) = (ports.base.to_string(), (ports.base + 100).to_string());
    let metas = HOSTS.map(|(_, address)| address).join(",");
    let mut args = vec!["init", "--meta", &metas, "--out", "cluster", "--disk-size", "512M"];
    args.extend(["--meta-port", &meta_port, "--node-port", &node_port]);
    let disks = HOSTS.map(|(host, _)| dir.join(format!("disk-{host}")));
    let nodes: Vec<_> = HOSTS
        .iter()
        .zip(&disks)
        .map(|((host, address), disk)| format!("{host}={address}:{}", disk.display()))
        .collect();
    args.extend(nodes.iter().flat_map(|node| ["--node", node]));
    ask(dir, &args).expect(0);

    let mut daemons = Daemons::default();
    for ((host, _), disk) in HOSTS.iter().zip(&disks) {
        let formatted = Command::new(program("levee-stored")).arg("format").arg(disk).args(["--size", "512M"]).output();
        assert!(formatted.unwrap().status.success());
        start(&mut daemons, dir, host, "levee-metad");
        start(&mut daemons, dir, host, "levee-stored");
    }
    let cluster = HOSTS.map(|(_, address)| format!("{address}:{meta_port}")).join(",");
    let up = |nodes: &Value| nodes.as_array().is_some_and(|all| all.iter().filter(|n| n["state"] == "up").count() == 3);
    wait_for(dir, &["--cluster", &cluster, "node", "list"], up);
    ask(dir, &["--cluster", &cluster, "volume", "create", "vm1", "--size", "64M"]).expect(0);
    ask(dir, &["--cluster", &cluster, "volume", "attach", "vm1", "--timeout", "2m"]).expect(0);

    // Ports that its own daemons hold are no obstacle, nor is a name that it has already.
    let findings = ask(dir, &["init", "check", "--config", "cluster/b", "--timeout", "60s"]).json();
    for (what, detail) in [
        (format!("address 127.0.0.3:{meta_port}"), "the meta server runs"),
        (format!("address 127.0.0.3:{node_port}"), "the storage daemon runs"),
        (format!("meta server 127.0.0.2:{meta_port}"), "answers"),
        ("name b".into(), "known to the cluster as this node"),
    ] {
        let one = findings["findings"].as_array().unwrap().iter().find(|one| one["what"] == what.as_str());
        assert_eq!(one.unwrap_or_else(|| panic!("{what} is not in {findings}"))["detail"], detail);
    }
}
