//! A meta server of one's own.

use super::connection::Connection;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long it may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Ended when dropped; its folder goes, too.
pub struct Server {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Server {
    pub fn start(dir: &Path, port: u16) -> Result<Server> {
        let dir = dir.join("api");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir)?;
        let program = std::env::current_exe()?.with_file_name("levee-metad");
        let child = Command::new(&program)
            .args(["--id", "1", "--client-rate", "0", "--change-rate", "0", "--down-after", "3600"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--dir")
            .arg(dir.join("meta"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log"))?)
            .spawn()
            .with_context(|| format!("cannot start {}: make build", program.display()))?;
        let mut server = Server { child, dir, port };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while crate::http::get(self.port, "/v1/cluster").is_err() {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            ensure!(self.child.try_wait()?.is_none(), "levee-metad has ended: {}", log());
            ensure!(began.elapsed() < START_LIMIT, "levee-metad does not answer on port {}", self.port);
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Gives it a node, without which no volume is created.
    pub fn register(&self) -> Result<()> {
        let uuid = "00000000-0000-4000-8000-000000000001";
        let disk = json!({ "uuid": uuid, "path": "/disk", "capacity": 1_u64 << 40, "shards": 1 });
        let node = json!({
            "name": "n1", "incarnation": uuid, "admin_url": "http://127.0.0.1:1", "cores": ["127.0.0.1:1"], "disks": [disk],
        });
        Connection::open(self.port)?.post("/v1/nodes", &node, 200).map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and a folder that stays does no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
