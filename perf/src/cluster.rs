//! A cluster on this machine, driven through the `levee` command as an operator would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::http;
use crate::process::{Daemon, daemons_of};

/// Pause between two looks at something that is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Volumes that one command deletes.
const NAMES_PER_COMMAND: usize = 1000;

/// A cluster in a folder of its own. Dropping it ends its daemons; the folder stays.
pub struct Cluster {
    levee: PathBuf,
    /// Absolute, without links.
    dir: PathBuf,
    /// What `levee up` is told each time.
    shape: Vec<String>,
}

/// What a new cluster consists of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub base_port: u16,
    pub nodes: usize,
    pub metas: usize,
    pub disks_per_node: usize,
    /// Of each disk, bytes.
    pub disk_size: u64,
    /// What `--network` is told, if the daemons have one.
    pub network: Option<String>,
    /// How long a node may be silent before copies of its data are made elsewhere; absent: as is usual.
    pub repair_after: Option<Duration>,
}

impl Shape {
    fn arguments(&self) -> Vec<String> {
        let options = [
            ("--base-port", u64::from(self.base_port)),
            ("--nodes", self.nodes as u64),
            ("--metas", self.metas as u64),
            ("--disks-per-node", self.disks_per_node as u64),
            ("--disk-size", self.disk_size),
        ];
        let options = options.iter().map(|(name, value)| (*name, value.to_string()));
        let network = self.network.iter().map(|network| ("--network", network.clone()));
        let repair = self.repair_after.map(|time| ("--repair-after", time.as_secs().to_string()));
        options.chain(network).chain(repair).flat_map(|(name, value)| [name.to_string(), value]).collect()
    }
}

/// A volume that is served.
#[derive(Clone, Debug, Deserialize)]
pub struct Attached {
    /// Name of the gateway's node.
    pub node: String,
    pub epoch: u64,
    pub socket: PathBuf,
}

impl Cluster {
    /// Starts a new cluster in `dir`. What an earlier run left there is deleted, if it was a cluster.
    pub fn create(dir: &Path, base_port: u16) -> Result<Cluster> {
        let shape = vec!["--base-port".into(), base_port.to_string()];
        Cluster::create_with(beside_this_program("levee")?, dir, shape)
    }

    /// The same for a cluster of a given shape.
    pub fn create_shaped(dir: &Path, shape: &Shape) -> Result<Cluster> {
        Cluster::create_with(beside_this_program("levee")?, dir, shape.arguments())
    }

    fn create_with(levee: PathBuf, dir: &Path, shape: Vec<String>) -> Result<Cluster> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        let cluster = Cluster { levee, dir, shape };
        if cluster.dir.join("cluster.json").exists() {
            cluster.destroy()?;
        }
        cluster.up()?;
        Ok(cluster)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts whatever does not run.
    pub fn up(&self) -> Result<()> {
        self.up_only(&[])
    }

    /// Starts those of the named daemons that do not run.
    pub fn up_only(&self, names: &[&str]) -> Result<()> {
        let shape = self.shape.iter().map(String::as_str);
        let arguments: Vec<&str> =
            ["up"].into_iter().chain(shape).chain(["--detach"]).chain(names.iter().copied()).collect();
        self.levee(&arguments).map(drop)
    }

    pub fn create_volume(&self, name: &str, size: u64) -> Result<()> {
        self.levee(&["volume", "create", name, "--size", &size.to_string()]).map(drop)
    }

    pub fn attach(&self, name: &str) -> Result<Attached> {
        let answer = self.levee(&["volume", "attach", name, "--timeout", "60s"])?;
        serde_json::from_value(answer).context("`levee volume attach --json` printed something else than expected")
    }

    /// Has one node serve the volume.
    pub fn attach_at(&self, name: &str, node: &str) -> Result<Attached> {
        let answer = self.levee(&["volume", "attach", name, "--node", node, "--timeout", "60s"])?;
        serde_json::from_value(answer).context("`levee volume attach --json` printed something else than expected")
    }

    /// Takes a volume away from its node, and deletes it.
    pub fn delete_volume(&self, name: &str, limit: Duration) -> Result<()> {
        self.detach(name, limit)?;
        self.levee(&["volume", "delete", name]).map(drop)
    }

    /// Takes a volume away from its node, whether a guest has it or not.
    pub fn detach(&self, name: &str, limit: Duration) -> Result<()> {
        self.levee(&["volume", "detach", name, "--force"])?;
        let begun = Instant::now();
        while !self.volume(name)?["attachment"].is_null() {
            ensure!(begun.elapsed() < limit, "volume {name} was not detached within {} s", limit.as_secs());
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    /// Takes a snapshot, named `VOLUME@SNAPSHOT`; returns when it is complete.
    pub fn snapshot(&self, name: &str) -> Result<()> {
        self.levee(&["snapshot", "create", name]).map(drop)
    }

    pub fn delete_snapshot(&self, name: &str) -> Result<()> {
        self.levee(&["snapshot", "delete", name]).map(drop)
    }

    /// Makes `count` volumes that continue from a snapshot.
    pub fn clone_snapshot(&self, from: &str, name: &str, count: u32) -> Result<()> {
        self.levee(&["volume", "create", name, "--from", from, "--count", &count.to_string()]).map(drop)
    }

    /// Deletes the volumes `PREFIX-FIRST` to `PREFIX-LAST`, which nobody uses.
    pub fn delete_volumes(&self, prefix: &str, first: u32, last: u32) -> Result<()> {
        let names: Vec<String> = (first..=last).map(|n| format!("{prefix}-{n}")).collect();
        for some in names.chunks(NAMES_PER_COMMAND) {
            let command = ["volume", "delete"].into_iter().chain(some.iter().map(String::as_str));
            self.levee(&command.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// What `levee status`, `levee disk list` and `levee volume show` say.
    pub fn status(&self) -> Result<Value> {
        self.levee(&["status"])
    }

    pub fn disks(&self) -> Result<Vec<Value>> {
        let disks = self.levee(&["disk", "list"])?;
        disks.as_array().cloned().context("`levee disk list --json` printed no list")
    }

    /// The only disk of a node.
    pub fn disk_of(&self, node: &str) -> Result<Value> {
        find_disk(&self.status()?, &self.disks()?, node).with_context(|| format!("{node} has no disk"))
    }

    /// Bytes used on each disk.
    pub fn used(&self) -> Result<Vec<u64>> {
        let used = |disk: &Value| disk["used"].as_u64().context("a disk says nothing of its space");
        self.disks()?.iter().map(used).collect()
    }

    /// A figure that a node's daemon publishes; `name` with its labels.
    pub fn gauge(&self, node: &str, name: &str) -> Result<f64> {
        let nodes = self.levee(&["node", "list"])?;
        let all = nodes.as_array().context("`levee node list --json` printed no list")?;
        let url = all.iter().find(|n| n["name"] == node).and_then(|n| n["admin_url"].as_str());
        let host =
            url.and_then(|url| url.strip_prefix("http://")).with_context(|| format!("node {node} has no address"))?;
        let answer = http::ask(host, "GET", "/metrics", "", http::TIMEOUT).with_context(|| format!("asking {host}"))?;
        let text = answer.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("{host} publishes no {name}"))
    }

    /// The cluster's id, as bytes.
    pub fn id(&self) -> Result<[u8; 16]> {
        let text = self.status()?["cluster"].as_str().context("`levee status` names no cluster")?.replace('-', "");
        let number = u128::from_str_radix(&text, 16).context("the cluster's id is no uuid")?;
        Ok(number.to_be_bytes())
    }

    /// Declares a disk lost.
    pub fn fail_disk(&self, disk: u64) -> Result<()> {
        self.levee(&["disk", "fail", &disk.to_string()]).map(drop)
    }

    /// Takes a disk back into service.
    pub fn undrain(&self, disk: u64) -> Result<()> {
        self.levee(&["disk", "undrain", &disk.to_string()]).map(drop)
    }

    pub fn volume(&self, name: &str) -> Result<Value> {
        self.levee(&["volume", "show", name])
    }

    /// Compares all copies of the volume; an error if they differ.
    pub fn verify(&self, name: &str) -> Result<Value> {
        self.levee(&["volume", "verify", name])
    }

    /// The ports of the first meta server, and of a node's admin endpoint.
    pub fn ports(&self, node: &str) -> Result<(u16, u16)> {
        let found = find_ports(&self.layout()?, node);
        found.with_context(|| format!("the cluster's layout names no port of {node}"))
    }

    fn layout(&self) -> Result<Value> {
        let layout = std::fs::read(self.dir.join("cluster.json")).context("cannot read the cluster's layout")?;
        Ok(serde_json::from_slice(&layout)?)
    }

    /// The ports of all meta servers.
    pub fn meta_ports(&self) -> Result<Vec<u16>> {
        let layout = self.layout()?;
        let ports = layout["metas"].as_array().into_iter().flatten();
        let ports = ports.map(|meta| u16::try_from(meta["port"].as_u64()?).ok());
        ports.collect::<Option<_>>().context("the cluster's layout names no ports")
    }

    /// Where the meta servers listen.
    pub fn meta_urls(&self) -> Result<Vec<String>> {
        find_metas(&self.layout()?).context("the cluster's layout names no meta servers")
    }

    pub fn daemons(&self) -> Result<Vec<Daemon>> {
        daemons_of(&self.dir)
    }

    pub fn down(&self) -> Result<()> {
        self.levee(&["down"]).map(drop)
    }

    /// Stops the cluster and deletes its folder.
    pub fn destroy(&self) -> Result<()> {
        self.levee(&["down", "--destroy"]).map(drop)
    }

    /// Runs one command; answers with the JSON document it printed.
    pub fn levee(&self, arguments: &[&str]) -> Result<Value> {
        let shown = format!("levee {}", arguments.join(" "));
        let output = Command::new(&self.levee)
            .args(arguments)
            .arg("--json")
            .arg("--dir")
            .arg(&self.dir)
            .env_remove("LEVEE_CLUSTER")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.levee.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{shown}` failed ({}): {}", output.status, said.trim());
        }
        if output.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("`{shown}` printed no JSON document"))
    }
}

fn find_disk(status: &Value, disks: &[Value], node: &str) -> Option<Value> {
    let node = status["nodes"].as_array()?.iter().find(|n| n["name"] == node)?;
    disks.iter().find(|disk| disk["node"] == node["id"]).cloned()
}

fn find_metas(layout: &Value) -> Option<Vec<String>> {
    let url = |meta: &Value| {
        let host = meta["host"].as_str().unwrap_or("127.0.0.1");
        Some(format!("http://{host}:{}", meta["port"].as_u64()?))
    };
    layout["metas"].as_array()?.iter().map(url).collect()
}

fn find_ports(layout: &Value, node: &str) -> Option<(u16, u16)> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let node = layout["nodes"].as_array()?.iter().find(|other| other["name"] == node)?;
    Some((port(&layout["metas"][0]["port"])?, port(&node["admin_port"])?))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in self.daemons().unwrap_or_default() {
            let _ = daemon.kill();
        }
    }
}

/// A program in the folder of the running one.
pub fn beside_this_program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find out where this program is")?;
    let path = here.with_file_name(name);
    ensure!(path.is_file(), "cannot find {}: run `make build` first", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A command that notes what it is asked, answers an attach, and fails a verify.
    const STAND_IN: &str = r#"#!/bin/sh
echo "$*" >> "$(dirname "$0")/asked"
case "$*" in
"volume attach"*) echo '{"volume":"v","node":"node-2","epoch":3,"socket":"/run/v.sock"}' ;;
"volume verify"*) echo 'copies differ' >&2; exit 1 ;;
"up"*) touch "$(dirname "$0")/c/cluster.json"; echo '{}' ;;
esac
"#;

    #[test]
    fn ports_are_read_from_the_layout() {
        let layout = serde_json::json!({"metas": [{"port": 7400}], "nodes": [{"name": "node-1", "admin_port": 7500}]});
        assert_eq!(find_ports(&layout, "node-1"), Some((7400, 7500)));
        assert_eq!(find_metas(&layout), Some(vec!["http://127.0.0.1:7400".into()]));
        assert!(find_ports(&layout, "node-2").is_none() && find_ports(&Value::Null, "node-1").is_none());
    }

    #[test]
    fn the_disk_of_a_node_is_found() {
        let status = serde_json::json!({"nodes": [{"id": 5, "name": "node-1"}, {"id": 6, "name": "node-2"}]});
        let disks = [serde_json::json!({"id": 1, "node": 5}), serde_json::json!({"id": 9, "node": 6})];
        assert_eq!(find_disk(&status, &disks, "node-2").unwrap()["id"], 9);
        assert_eq!(find_disk(&status, &disks, "node-3"), None);
    }

    #[test]
    fn commands_are_spoken_as_an_operator_would() {
        let dir = tempfile::tempdir().unwrap();
        let levee = dir.path().join("levee");
        std::fs::write(&levee, STAND_IN).unwrap();
        std::fs::set_permissions(&levee, PermissionsExt::from_mode(0o755)).unwrap();
        for _ in 0..2 {
            let cluster =
                Cluster::create_with(levee.clone(), &dir.path().join("c"), vec!["--base-port".into(), "4000".into()])
                    .unwrap();
            cluster.create_volume("v", 4096).unwrap();
            let attached = cluster.attach("v").unwrap();
            assert_eq!((attached.node.as_str(), attached.epoch), ("node-2", 3));
            let refused = cluster.verify("v").unwrap_err().to_string();
            assert!(
                refused.contains("`levee volume verify v` failed") && refused.ends_with("copies differ"),
                "{refused}"
            );
            assert_eq!(cluster.daemons().unwrap(), []);
        }
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
        let lines: Vec<_> = asked.lines().map(|l| l.split(" --json").next().unwrap()).collect();
        let round = [
            "up --base-port 4000 --detach",
            "volume create v --size 4096",
            "volume attach v --timeout 60s",
            "volume verify v",
        ];
        assert_eq!(lines[..4], round);
        assert_eq!(lines[4], "down --destroy", "what an earlier run left is deleted");
        assert_eq!(lines[5..], round);
    }
}
