//! What the tests share: daemons that do not outlive their test, and a meta server that takes any node.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod meta;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
/// Longer than anything takes that is waited for. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn stored(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levee-stored"));
    command.args(args).stdin(Stdio::null()).env_remove("LEVEE_CLUSTER").env_remove("RUST_LOG");
    command
}

/// Waits until `look` finds something.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of one node.
pub struct Node {
    pub dir: TempDir,
    pub disks: Vec<PathBuf>,
    pub name: String,
    /// More of the command line.
    pub args: Vec<String>,
}

impl Node {
    /// A node with so many formatted disks.
    pub fn new(disks: usize) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let disks: Vec<_> = (1..=disks).map(|n| dir.path().join(format!("disk-{n}"))).collect();
        disks.iter().for_each(|path| format(path));
        Node { dir, disks, name: "n1".into(), args: vec![] }
    }

    fn run(&self, meta: &str, admin: &str) -> Command {
        let text = |path: &Path| path.to_str().unwrap().to_string();
        let address = || format!("127.0.0.1:{}", free_port());
        let (state, sockets) = (text(&self.dir.path().join("state")), text(&self.dir.path().join("run")));
        let mut command =
            stored(&["run", "--name", &self.name, "--meta", meta, "--dir", &state, "--sockets", &sockets]);
        command.args(["--admin", admin, "--data", &address()]).args(&self.args);
        for disk in &self.disks {
            command.args(["--disk", &text(disk)]);
        }
        command
    }

    pub fn start(&self, meta: &str) -> Daemon {
        let admin = format!("127.0.0.1:{}", free_port());
        let mut child = self.run(meta, &admin).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        Daemon { child, admin: format!("http://{admin}"), log: Log(BufReader::new(stderr)) }
    }

    /// A start that the daemon refuses.
    pub fn refused(&self, meta: &str) -> Output {
        self.run(meta, &format!("127.0.0.1:{}", free_port())).output().unwrap()
    }
}

pub fn format(path: &Path) {
    let made = stored(&["format", path.to_str().unwrap(), "--size", "256M"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A daemon that is killed when the test ends.
pub struct Daemon {
    pub child: Child,
    /// URL of its admin endpoint.
    pub admin: String,
    pub log: Log,
}

/// What it says, line by line.
pub struct Log(BufReader<ChildStderr>);

impl Iterator for Log {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then_some(line)
    }
}

impl Daemon {
    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Stops it in the middle of everything.
    pub fn freeze(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }

    /// Asks its admin endpoint; with a body it is a POST. Status, answer, and the request's id.
    pub fn ask(
        &self,
        path: &str,
        body: Option<serde_json::Value>,
        id: Option<&str>,
    ) -> (u16, serde_json::Value, String) {
        let url = format!("{}{path}", self.admin);
        let asked = async {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = match body {
                Some(body) => http.post(&url).json(&body),
                None => http.get(&url),
            };
            let request = id.iter().fold(request, |request, id| request.header("x-request-id", *id));
            let response = request.send().await.unwrap();
            let id = response.headers()["x-request-id"].to_str().unwrap().to_string();
            (response.status().as_u16(), response.json().await.unwrap(), id)
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(asked)
    }

    /// Ends it in good order; the rest of its log.
    pub fn stop(mut self) -> String {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let rest = self.log.by_ref().collect();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
