//! Wrong input to `levee-stored`: one clear line that says what to do, the right exit status, nothing changed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

struct Rig {
    dir: TempDir,
}

/// A daemon that is killed when the test ends.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stored(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levee-stored"));
    command.args(args).stdin(Stdio::null()).env_remove("LEVEE_CLUSTER").env_remove("RUST_LOG");
    command
}

/// The one line on stderr, after the program's name.
fn complaint(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("levee-stored: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_string()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Rig {
    fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn format(&self, name: &str, size: &str) -> Output {
        stored(&["format", self.path(name).to_str().unwrap(), "--size", size]).output().unwrap()
    }

    fn disk(&self, name: &str) -> PathBuf {
        let made = self.format(name, "256M");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.path(name)
    }

    /// `run` with a meta server that is not there: a daemon with nothing wrong waits for it.
    fn run(&self, dir: &str, disk: &Path, admin: u16, data: u16) -> Command {
        let text = |p: PathBuf| p.to_str().unwrap().to_string();
        let (dir, sockets) = (text(self.path(dir)), text(self.path("sockets")));
        let mut command = stored(&["run", "--name", "n1", "--meta", "http://127.0.0.1:1", "--dir", &dir]);
        command.args(["--sockets", &sockets, "--disk", disk.to_str().unwrap()]);
        command.args(["--admin", &format!("127.0.0.1:{admin}"), "--data", &format!("127.0.0.1:{data}")]);
        command
    }

    fn refused(&self, disk: &Path) -> String {
        complaint(&self.run("other", disk, free_port(), free_port()).output().unwrap(), 1)
    }

    /// A daemon that waits for its meta server, with the disk open.
    fn waiting(&self, disk: &Path) -> Daemon {
        use std::io::{BufRead, BufReader};
        let mut command = self.run("first", disk, free_port(), free_port());
        let mut daemon = Daemon(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(daemon.0.stderr.take().unwrap()).lines();
        let waits = |line: std::io::Result<String>| line.unwrap().contains("waiting to join");
        assert!(lines.any(waits), "the daemon ended");
        // It goes on telling.
        std::thread::spawn(move || lines.for_each(drop));
        daemon
    }
}

#[test]
fn format_refuses_what_it_should_and_leaves_nothing_behind() {
    let rig = Rig::new();
    let small = complaint(&rig.format("small", "16M"), 1);
    assert!(small.contains("16777216 bytes") && small.contains("larger"), "{small}");
    assert!(!rig.path("small").exists());

    std::fs::write(rig.path("taken"), b"precious").unwrap();
    let taken = complaint(&rig.format("taken", "256M"), 1);
    assert!(taken.contains("exists and has 8 B"), "{taken}");
    let whole = stored(&["format", rig.path("taken").to_str().unwrap()]).output().unwrap();
    assert!(complaint(&whole, 1).contains("use --force"));
    assert_eq!(std::fs::read(rig.path("taken")).unwrap(), b"precious");

    let disk = rig.disk("disk");
    let again = complaint(&rig.format("disk", "256M"), 1);
    assert!(again.contains("a Levee disk on it"), "{again}");
    assert_eq!(std::fs::metadata(disk).unwrap().len(), 256 * MIB);

    // What a file system, or somebody, has made room for is as good as a new one.
    let reserved = std::fs::File::create(rig.path("reserved")).unwrap();
    reserved.set_len(256 * MIB).unwrap();
    assert!(stored(&["format", rig.path("reserved").to_str().unwrap()]).output().unwrap().status.success());

    let no_size = stored(&["format", rig.path("x").to_str().unwrap()]).output().unwrap();
    assert!(complaint(&no_size, 1).contains("--size"));
    assert!(!rig.path("x").exists());
    let folder = stored(&["format", rig.dir.path().to_str().unwrap(), "--size", "256M"]).output().unwrap();
    assert!(complaint(&folder, 1).contains("neither a file nor a block device"));
    assert_eq!(rig.format("y", "-3").status.code(), Some(2));
    assert_eq!(stored(&["frobnicate"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn run_refuses_disks_that_are_not_its_own() {
    let rig = Rig::new();
    let missing = rig.refused(&rig.path("none"));
    assert!(missing.contains("there is no disk") && missing.contains("levee-stored format"), "{missing}");

    std::fs::write(rig.path("photos"), vec![7; MIB as usize]).unwrap();
    let stranger = rig.refused(&rig.path("photos"));
    assert!(stranger.contains("not a Levee disk"), "{stranger}");
    assert_eq!(std::fs::read(rig.path("photos")).unwrap(), vec![7; MIB as usize]);

    let cut = rig.disk("cut");
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(100 * MIB).unwrap();
    let short = rig.refused(&cut);
    assert!(short.contains("100 MiB") && short.contains("256 MiB"), "{short}");
}

#[test]
fn a_disk_and_a_folder_belong_to_one_daemon_at_a_time() {
    let rig = Rig::new();
    let disk = rig.disk("disk");
    let _daemon = rig.waiting(&disk);
    let busy = rig.refused(&disk);
    assert!(busy.contains("in use by another daemon"), "{busy}");
    let second = rig.disk("second");
    let output = rig.run("first", &second, free_port(), free_port()).output().unwrap();
    let folder = complaint(&output, 1);
    assert!(folder.contains("first is in use by another daemon"), "{folder}");
}

#[test]
fn run_says_which_port_is_taken() {
    let rig = Rig::new();
    let disk = rig.disk("disk");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (admin, data) in [(port, free_port()), (free_port(), port)] {
        let said = complaint(&rig.run("d", &disk, admin, data).output().unwrap(), 1);
        assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("another port"), "{said}");
    }
}

#[test]
fn names_and_urls_are_checked() {
    let rig = Rig::new();
    let disk = rig.disk("disk");
    let mut command = rig.run("d", &disk, free_port(), free_port());
    let bad_name = command.args(["--name", "a/b"]).output().unwrap();
    assert_eq!(bad_name.status.code(), Some(2), "given twice");
    let text = |p: &Path| p.to_str().unwrap().to_string();
    let run = |name: &str, meta: &str| {
        let mut command = stored(&["run", "--name", name, "--meta", meta, "--dir", &text(&rig.path("d"))]);
        command.args(["--sockets", &text(&rig.path("s")), "--disk", &text(&disk)]);
        command.args(["--admin", "127.0.0.1:0", "--data", "127.0.0.1:0"]).output().unwrap()
    };
    assert!(complaint(&run("a/b", "http://127.0.0.1:1"), 1).contains("cannot name a node"));
    assert!(complaint(&run("n1", "127.0.0.1:1"), 1).contains("http://"));
}
