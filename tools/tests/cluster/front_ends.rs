//! Who is connected to a volume, and what is done to it meanwhile.

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::support::Ran;
use serde_json::Value;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const QEMU: &str = "qemu-system-x86_64";
/// Long enough for many attempts to come back.
const A_WHILE: Duration = Duration::from_secs(2);

/// What a person is told.
fn text(cluster: &Cluster, args: &[&str]) -> String {
    Ran::of(&mut cluster.command(args)).expect(0).stdout
}

fn front_end(cluster: &Cluster) -> Value {
    cluster.volume("vol")["attachment"]["report"]["front_end"].clone()
}

#[test]
fn a_volume_is_not_taken_from_its_guest() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let socket = cluster.attach("vol", "node-1");
    assert_eq!(front_end(&cluster)["connected"], false);
    let mut guest = Guest::connect(&socket);
    guest.fill(0..MIB, 1);
    let line = cluster.refused(&["volume", "detach", "vol"], 1);
    let process = std::process::id();
    assert!(
        line.contains(&format!("in use: process {process} on node 'node-1'")) && line.contains("--force"),
        "{line}"
    );
    let shown = front_end(&cluster);
    assert_eq!((&shown["connected"], &shown["started"]), (&true.into(), &true.into()), "{shown}");
    let shown = text(&cluster, &["volume", "show", "vol"]);
    assert!(shown.contains(&format!("Guest       process {process}, connected for")), "{shown}");
    let list = text(&cluster, &["volume", "list"]);
    assert!(list.contains("GUEST"), "{list}");

    // Who comes second is told at once, and so is the operator.
    let mut second = UnixStream::connect(&socket).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap_or(0), 0);
    guest.fill(0..MIB, 2);
    let shown = text(&cluster, &["volume", "show", "vol"]);
    assert!(shown.contains("Turned away 1 connections; the last one: process"), "{shown}");

    // The guest goes, and nothing stands in the way any more.
    guest.close();
    cluster.ok(&["volume", "detach", "vol"]);
}

/// A guest that comes back finds what it left, or nothing.
#[test]
fn a_guest_does_not_go_on_with_another_content() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach("vol", "node-1"));
    guest.fill(0..MIB, 1);
    cluster.ok(&["snapshot", "create", "vol@s"]);
    guest.fill(0..MIB, 2);
    // Elsewhere it is the same disk.
    cluster.ok(&["volume", "detach", "vol", "--force"]);
    cluster.attach("vol", "node-2");
    assert!(guest.try_write(Duration::from_secs(60)), "it was not let in again");

    cluster.ok(&["volume", "detach", "vol", "--force"]);
    cluster.ok(&["snapshot", "rollback", "vol@s"]);
    let socket = cluster.attach("vol", "node-1");
    assert!(!guest.try_write(A_WHILE), "it wrote to an older content");
    let why = front_end(&cluster)["last_refusal"].to_string();
    assert!(why.contains("rolled back") && why.contains("restart the guest"), "{why}");
    let log = std::fs::read_to_string(cluster.dir.join("log/node-1.log")).unwrap();
    assert!(log.contains("rolled back"), "the log does not say why");
    drop(guest);
    let mut guest = Guest::connect(&socket);
    assert!(guest.contents(MIB).iter().all(|byte| *byte == 1));

    cluster.ok(&["volume", "detach", "vol", "--force"]);
    cluster.ok(&["snapshot", "delete", "vol@s"]);
    cluster.ok(&["volume", "delete", "vol"]);
    cluster.create("vol", &["--size", "64M"]);
    cluster.attach("vol", "node-1");
    assert!(!guest.try_write(A_WHILE), "it wrote to another volume");
    drop(guest);
    let mut other = Guest::connect(&socket);
    assert!(other.contents(MIB).iter().all(|byte| *byte == 0));
    other.close();
}

/// The arguments that the README gives, for a guest with more processors than most have.
#[test]
fn qemu_starts_as_the_readme_says() {
    let version = match Command::new(QEMU).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => return eprintln!("skipped: {QEMU} is not installed"),
    };
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let socket = cluster.attach("vol", "node-1");
    let readme = include_str!("../../../README.md");
    let lines = readme
        .lines()
        .filter(|line| line.starts_with("-object") || line.starts_with("-chardev") || line.starts_with("-device"));
    let mut words: Vec<String> = lines
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(|word| word.replace("SOCKET", socket.to_str().unwrap()).replace("size=2G", "size=256M"))
        .collect();
    assert_eq!(words.len(), 8, "{words:?}");
    // As the README's comment says.
    if ["version 7.", "version 8.", "version 9.0", "version 9.1"].iter().any(|old| version.contains(old)) {
        words.iter_mut().for_each(|word| *word = word.replace("reconnect-ms=100", "reconnect=1"));
    }
    let mut qemu = Command::new(QEMU)
        .args(["-display", "none", "-net", "none", "-smp", "16", "-m", "256M"])
        .args(&words)
        .spawn()
        .unwrap();
    cluster.until("QEMU has the volume", |cluster| (front_end(cluster)["connected"] == true).then_some(()));
    assert!(qemu.try_wait().unwrap().is_none(), "QEMU has ended");
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    cluster.ok(&["volume", "detach", "vol"]);
}

/// Whatever can be created can be used, with its longest name.
#[test]
fn a_long_name_has_a_socket() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    let name = "n".repeat(128);
    cluster.create(&name, &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach(&name, "node-1"));
    guest.fill(0..MIB, 1);
    cluster.ok(&["snapshot", "create", &format!("{name}@{name}")]);
    let mut reader = Guest::connect(&cluster.attach(&format!("{name}@{name}"), "node-2"));
    assert!(reader.contents(MIB).iter().all(|byte| *byte == 1));
    reader.close();
    guest.close();
}
