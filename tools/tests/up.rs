//! `levee up` and `levee down` on stand-ins for the daemons: what is started, what is left running,
//! and that nobody else's process is touched.

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::ports::{self, Ports, cluster_ports, is_free};
use support::{Ran, built, levee};

const NODES: &str = "2";

/// A folder with `levee` and stand-ins for the daemons, and ports that no other test uses.
struct Place {
    temp: tempfile::TempDir,
    ports: Ports,
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bin = temp.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        // Links, not copies: a file that was just written cannot always be executed at once.
        std::fs::hard_link(built(), bin.join("levee")).unwrap();
        let fake = built().with_file_name("examples").join("fake-daemon");
        for name in ["levee-metad", "levee-stored"] {
            std::fs::hard_link(&fake, bin.join(name)).unwrap_or_else(|e| panic!("{}: {e}", fake.display()));
        }
        Place { temp, ports: ports::reserve(|_| {}) }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("c")
    }

    fn levee(&self, args: &[&str]) -> Command {
        let mut command = levee(&self.temp.path().join("bin/levee"), self.temp.path());
        command.args(args).arg("--json").arg("--dir").arg(self.dir());
        command
    }

    fn up(&self) -> Command {
        self.levee(&[
            "up",
            "--detach",
            "--nodes",
            NODES,
            "--disk-size",
            "1M",
            "--base-port",
            &self.ports.base.to_string(),
        ])
    }

    fn pid(&self, daemon: &str) -> i64 {
        self.pid_file(daemon)["pid"].as_i64().unwrap()
    }

    fn pid_file(&self, daemon: &str) -> Value {
        let path = self.dir().join(format!("pid/{daemon}.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn nothing_listens(&self) -> bool {
        cluster_ports(self.ports.base).all(is_free)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.dir().join("cluster.json").exists() {
            let _ = self.levee(&["down", "--kill", "--destroy"]).output();
        }
    }
}

fn is_alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

fn kill(pid: i64) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    while is_alive(pid) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_starts_and_stops_and_starts_again() {
    let place = Place::new();
    let report = Ran::of(&mut place.up()).expect(0).json();
    assert_eq!(report["started"], serde_json::json!(["meta-1", "node-1", "node-2"]));
    assert_eq!(report["url"], format!("http://127.0.0.1:{}", place.ports.base));
    assert_eq!(report["nodes"][1]["pid"], place.pid("node-2"));
    assert!(place.dir().join("node-2/disk-1.img").exists());
    // In sessions of their own, out of the terminal's reach.
    for daemon in ["meta-1", "node-1", "node-2"] {
        let pid = nix::unistd::Pid::from_raw(place.pid(daemon) as i32);
        assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid, "{daemon}");
    }
    let status = Ran::of(&mut place.levee(&["status"])).expect(0).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 2);

    let again = Ran::of(&mut place.up()).expect(0).json();
    assert_eq!(again["started"], serde_json::json!([]));

    let down = Ran::of(&mut place.levee(&["down"])).expect(0).json();
    assert!(down["daemons"].as_array().unwrap().iter().all(|d| d["ending"] == "stopped"), "{down}");
    assert!(place.nothing_listens());
    // Nothing but the folder is needed to have the same cluster again.
    let back = Ran::of(&mut place.levee(&["up", "--detach"])).expect(0).json();
    assert_eq!((back["nodes"].as_array().unwrap().len(), &back["url"]), (2, &report["url"]));

    let destroyed = Ran::of(&mut place.levee(&["down", "--destroy"])).expect(0).json();
    assert_eq!(destroyed["destroyed"], true);
    assert!(!place.dir().exists());
}

#[test]
fn what_died_is_started_again_and_the_rest_is_left_alone() {
    let place = Place::new();
    Ran::of(&mut place.up()).expect(0);
    let (first, second) = (place.pid("node-1"), place.pid("node-2"));
    kill(second);
    let again = Ran::of(&mut place.up()).expect(0).json();
    assert_eq!(again["started"], serde_json::json!(["node-2"]));
    assert_eq!(place.pid("node-1"), first);
    assert_ne!(place.pid("node-2"), second);

    let down = Ran::of(&mut place.levee(&["down", "node-1", "--kill"])).expect(0).json();
    assert_eq!(down["daemons"], serde_json::json!([{"name": "node-1", "ending": "killed"}]));
    assert!(is_alive(place.pid("node-2")));
    let more = Ran::of(&mut place.levee(&["up", "--detach", "--nodes", "3"])).expect(0).json();
    assert_eq!(more["started"], serde_json::json!(["node-1", "node-3"]));
}

#[test]
fn a_stranger_with_a_daemons_pid_is_left_alone() {
    let place = Place::new();
    Ran::of(&mut place.up()).expect(0);
    kill(place.pid("node-1"));
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut remembered = place.pid_file("node-1");
    remembered["pid"] = stranger.id().into();
    std::fs::write(place.dir().join("pid/node-1.json"), remembered.to_string()).unwrap();

    let down = Ran::of(&mut place.levee(&["down", "--kill"])).expect(0).json();
    let survived = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(survived);
    assert_eq!(down["daemons"][0], serde_json::json!({"name": "node-1", "ending": "not-running"}));
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_running() {
    let place = Place::new();
    let port = place.ports.base + 111;
    let _squatter = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let ran = Ran::of(&mut place.up()).expect(1);
    assert!(ran.stderr.contains(&format!("port {port} of node-2 is in use")), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.json()["error"]["detail"].is_string());
    assert!(is_free(place.ports.base) && is_free(place.ports.base + 100));
    assert!(!place.dir().exists());
}

#[test]
fn a_daemon_that_dies_at_its_start_takes_the_start_with_it() {
    let place = Place::new();
    let ran = Ran::of(place.up().env("LEVEE_FAKE", "die")).expect(1);
    assert!(ran.stderr.contains("node-1 stopped at its start"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the disk is broken"), "{}", ran.stderr);
    assert!(place.nothing_listens());
    // The fault is gone: the same command finishes what was begun.
    Ran::of(&mut place.up()).expect(0);
}

#[test]
fn a_disk_that_cannot_be_formatted_is_not_kept() {
    let place = Place::new();
    let ran = Ran::of(place.up().env("LEVEE_FAKE", "full")).expect(1);
    assert!(ran.stderr.contains("no space left on device"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(place.dir().join("node-1")).unwrap().count(), 0);
    assert!(place.nothing_listens());
}

#[test]
fn a_daemon_that_will_not_stop_is_killed() {
    let place = Place::new();
    Ran::of(place.up().env("LEVEE_FAKE", "stubborn")).expect(0);
    let down = Ran::of(&mut place.levee(&["down", "--timeout", "10ms"])).expect(0).json();
    assert!(down["daemons"].as_array().unwrap().iter().all(|d| d["ending"] == "killed"), "{down}");
}

#[test]
fn what_a_cluster_is_made_of_stays() {
    let place = Place::new();
    Ran::of(&mut place.up()).expect(0);
    for (option, value) in [("--metas", "3"), ("--cores", "2"), ("--disk-size", "2M"), ("--nodes", "1")] {
        let ran = Ran::of(&mut place.levee(&["up", "--detach", option, value])).expect(2);
        assert!(ran.stderr.contains(option), "{}", ran.stderr);
    }
    let ran = Ran::of(&mut place.levee(&["down", "node-9"])).expect(2);
    assert!(ran.stderr.contains("node-9") && ran.stderr.contains("node-2"), "{}", ran.stderr);
}

#[test]
fn foreign_folders_are_refused() {
    let place = Place::new();
    std::fs::create_dir(place.dir()).unwrap();
    std::fs::write(place.dir().join("precious"), "x").unwrap();
    let ran = Ran::of(&mut place.up()).expect(1);
    assert!(ran.stderr.contains("holds other files"), "{}", ran.stderr);
    Ran::of(&mut place.levee(&["down", "--destroy"])).expect(1);
    assert!(place.dir().join("precious").exists());
}

/// A `levee up` in the foreground; killed if a test fails.
struct Foreground(Child);

impl Foreground {
    /// Waits for the whole document: the cluster is up then.
    fn start(place: &Place) -> Foreground {
        let port = place.ports.base.to_string();
        let mut command = place.levee(&["up", "--nodes", NODES, "--disk-size", "1M", "--base-port", &port]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let document = BufReader::new(child.stdout.take().unwrap());
        let last = document.lines().map(Result::unwrap).find(|line| line == "}");
        assert!(last.is_some(), "levee up ended early");
        Foreground(child)
    }

    fn end(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn in_the_foreground_a_signal_stops_everything() {
    let place = Place::new();
    let up = Foreground::start(&place);
    // A second one starts what is missing and leaves the keeping to the first.
    kill(place.pid("node-2"));
    let port = place.ports.base.to_string();
    let second = Ran::of(&mut place.levee(&["up", "--base-port", &port])).expect(0).json();
    assert_eq!(second["started"], serde_json::json!(["node-2"]));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(up.0.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(up.end(), Some(0));
    assert!(place.nothing_listens());
}

#[test]
fn levee_down_ends_the_foreground_too() {
    let place = Place::new();
    let up = Foreground::start(&place);
    Ran::of(&mut place.levee(&["down"])).expect(0);
    assert_eq!(up.end(), Some(0));
}
