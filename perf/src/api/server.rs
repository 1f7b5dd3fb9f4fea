//! Meta servers of one's own.

use super::connection::Connection;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long it may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A group of meta servers on neighbouring ports. Ended when dropped; their folder goes, too.
pub struct Group {
    children: Vec<Child>,
    dir: PathBuf,
    /// Of the first one.
    port: u16,
}

impl Group {
    pub fn start(dir: &Path, port: u16, members: u16) -> Result<Group> {
        let dir = dir.join("api");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir)?;
        let mut group = Group { children: Vec::new(), dir, port };
        for id in 1..=members {
            group.children.push(group.spawn(id, members)?);
        }
        Ok(group)
    }

    fn spawn(&self, id: u16, members: u16) -> Result<Child> {
        let program = std::env::current_exe()?.with_file_name("levee-metad");
        let address = |id: u16| format!("127.0.0.1:{}", self.port + id - 1);
        let mut command = Command::new(&program);
        command
            .args(["--client-rate", "0", "--change-rate", "0", "--down-after", "3600"])
            .args(["--id", &id.to_string(), "--listen", &address(id)])
            .arg("--dir")
            .arg(self.dir.join(format!("meta-{id}")));
        if members > 1 {
            let peers: Vec<_> = (1..=members).map(|id| format!("{id}=http://{}", address(id))).collect();
            command.args(["--peers", &peers.join(",")]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log(id))?)
            .spawn()
            .with_context(|| format!("cannot start {}: make build", program.display()))
    }

    fn log(&self, id: u16) -> PathBuf {
        self.dir.join(format!("log-{id}"))
    }

    /// The port of the one that leads, as soon as one does.
    pub fn leader(&mut self) -> Result<u16> {
        let began = Instant::now();
        loop {
            let told = crate::http::get(self.port, "/v1/cluster");
            let leader = told.ok().and_then(|cluster| u16::try_from(cluster["leader"].as_u64()?).ok());
            if let Some(leader) = leader {
                return Ok(self.port + leader - 1);
            }
            for (id, child) in (1..).zip(&mut self.children) {
                if child.try_wait()?.is_some() {
                    bail!("levee-metad has ended: {}", std::fs::read_to_string(self.log(id)).unwrap_or_default());
                }
            }
            ensure!(began.elapsed() < START_LIMIT, "no levee-metad leads from port {} on", self.port);
            sleep(Duration::from_millis(20));
        }
    }

    /// Gives it a node, without which no volume is created.
    pub fn register(&mut self) -> Result<()> {
        let uuid = "00000000-0000-4000-8000-000000000001";
        let disk = json!({ "uuid": uuid, "path": "/disk", "capacity": 1_u64 << 40, "shards": 1 });
        let node = json!({
            "name": "n1", "incarnation": uuid, "admin_url": "http://127.0.0.1:1", "cores": ["127.0.0.1:1"], "disks": [disk],
        });
        // A cluster that was not founded yet takes no node.
        let began = Instant::now();
        loop {
            match Connection::open(self.leader()?)?.post("/v1/nodes", &node, 200) {
                Err(_) if began.elapsed() < START_LIMIT => sleep(Duration::from_millis(20)),
                answer => return answer.map(drop),
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // They may have ended by themselves, and a folder that stays does no harm.
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
