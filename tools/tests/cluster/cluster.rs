//! A cluster of real daemons in a folder of its own, driven through the `levee` command.

use crate::support::ports::{self, Ports};
use crate::support::{Ran, built, levee};
use levee_perf::process::daemons_of;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take that is waited for. Only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// One cluster at a time: they are heavy, and a test must hold on two slow cores. `cargo test` runs tests as
/// threads of one process; for nextest, `.config/nextest.toml` says the same.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running cluster. Dropping it ends its daemons and deletes its folder. If the test is killed, the next
/// one that gets its ports does.
pub struct Cluster {
    pub dir: PathBuf,
    ports: Ports,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// `levee up` with these options besides folder and ports.
    pub fn start(options: &[&str]) -> Cluster {
        for daemon in ["levee-metad", "levee-stored"] {
            let path = built().with_file_name(daemon);
            assert!(path.is_file(), "{} is missing: run `cargo build --release` first", path.display());
        }
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = ports::reserve(|base| destroy(&folder(base)));
        let cluster = Cluster { dir: folder(ports.base), ports, _alone: alone };
        let base_port = cluster.ports.base.to_string();
        cluster.ok(&[&["up", "--detach", "--base-port", &base_port], options].concat());
        cluster
    }

    /// A command to this cluster, with `--json`.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(command(&self.dir).args(args).arg("--json"))
    }

    /// A command to this cluster, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.dir);
        command.args(args);
        command
    }

    /// A command that succeeds; its document.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Value {
        self.run(args).expect(0).json()
    }

    /// A command as a person gives it, that fails: one line on standard error, which is returned.
    #[track_caller]
    pub fn refused(&self, args: &[&str], status: i32) -> String {
        let ran = Ran::of(command(&self.dir).args(args)).expect(status);
        assert_eq!(ran.stdout, "", "{args:?}: {}", ran.stderr);
        let line = ran.stderr.trim_end().to_string();
        assert!(line.starts_with("levee: ") && !line.contains('\n'), "{args:?}: {line}");
        // A program gets the same in its document.
        let document = self.run(args).expect(status).json();
        let detail = document["error"]["detail"].as_str().map(without_request);
        assert_eq!(detail, line.strip_prefix("levee: ").map(without_request), "{args:?}");
        line
    }

    /// Starts what does not run.
    pub fn up(&self) {
        self.ok(&["up", "--detach"]);
    }

    pub fn create(&self, name: &str, options: &[&str]) {
        self.ok(&[&["volume", "create", name], options].concat());
    }

    /// Attaches a volume; the path of its socket.
    pub fn attach(&self, name: &str, node: &str) -> PathBuf {
        let served = self.ok(&["volume", "attach", name, "--node", node, "--timeout", "60s"]);
        assert_eq!(served["node"], node);
        PathBuf::from(served["socket"].as_str().unwrap())
    }

    pub fn volume(&self, name: &str) -> Value {
        self.ok(&["volume", "show", name])
    }

    /// What a verification of all copies says, whether they are equal or not.
    pub fn verify(&self, name: &str) -> Value {
        let ran = self.run(&["volume", "verify", name, "--timeout", "60s"]);
        let verdict = ran.json();
        assert_eq!(ran.status, if verdict["equal"] == true { 0 } else { 1 }, "{verdict}\n{}", ran.stderr);
        verdict
    }

    #[track_caller]
    pub fn verify_equal(&self, name: &str) {
        let verdict = self.verify(name);
        assert_eq!(verdict["equal"], true, "{verdict}");
    }

    /// Kills one daemon and waits until it is gone.
    pub fn kill(&self, name: &str) {
        self.ok(&["down", name, "--kill"]);
    }

    /// Kills all daemons at once, as a power failure would end them.
    pub fn kill_all(&self) {
        let daemons = daemons_of(&self.dir).unwrap();
        daemons.iter().for_each(|daemon| daemon.kill().unwrap());
        // Also waits until all of them are gone.
        self.ok(&["down", "--kill"]);
    }

    /// The file that is a node's disk.
    pub fn disk(&self, node: &str) -> PathBuf {
        self.dir.join(node).join("disk-1.img")
    }

    /// Where the socket of a volume is.
    pub fn socket(&self, volume: &str) -> PathBuf {
        self.dir.join("run").join(format!("{volume}.sock"))
    }

    pub fn meta_url(&self, id: u16) -> String {
        format!("http://127.0.0.1:{}", self.ports.base + id - 1)
    }

    /// Asks again until the answer is there.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Cluster) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "waited too long: {what}\n{}", self.logs());
            std::thread::sleep(LOOK);
        }
    }

    /// The end of every daemon's log, for a test that fails.
    fn logs(&self) -> String {
        let Ok(logs) = std::fs::read_dir(self.dir.join("log")) else { return String::new() };
        let paths = logs.flatten().map(|entry| entry.path());
        let tail = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(20).collect();
            format!("--- {}\n{}\n", path.display(), lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        paths.map(tail).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        destroy(&self.dir);
    }
}

fn folder(base_port: u16) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("c{base_port}"))
}

fn command(dir: &Path) -> Command {
    let mut command = levee(built(), Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

/// Ends a cluster and deletes it, whatever state it is in.
fn destroy(dir: &Path) {
    if dir.join("cluster.json").exists() {
        let _ = command(dir).args(["down", "--kill", "--destroy"]).output();
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// Every request has a name of its own.
fn without_request(line: &str) -> &str {
    line.rsplit_once(" (request ").map_or(line, |(text, _)| text)
}
