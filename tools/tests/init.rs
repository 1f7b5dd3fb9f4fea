//! `levee init`: what it writes for a cluster of several hosts, and what it finds on one.

mod support;

use levee_options::file::{self, Text};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use support::{Ran, built, levee};
use tempfile::TempDir;

/// Under the target folder, whose file system takes direct I/O.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn init(args: &[&str]) -> Ran {
    Ran::of(levee(built(), Path::new("/")).arg("init").args(args))
}

/// Three meta servers, two of them on nodes.
fn write(out: &Path, more: &[&str]) -> Ran {
    let out = out.to_str().unwrap();
    let mut args = vec!["--meta", "10.0.0.1,10.0.0.2,10.0.0.9", "--out", out, "--cores", "2"];
    args.extend([
        "--node",
        "host-1=10.0.0.1:/dev/nvme1n1,class=hdd,/dev/nvme2n1",
        "--node",
        "host-2=10.0.0.2:/srv/levee/disk",
    ]);
    args.extend(["--node", "host-3=10.0.0.3", "--disk-size", "100G", "--json"]);
    args.extend(["--zone", "host-1=z1", "--rack", "host-1=r7", "--zone", "host-2=z2"]);
    args.extend(more);
    init(&args)
}

fn value(file: &Path, key: &str) -> Text {
    let given = file::read(file).unwrap();
    given.into_iter().find(|given| given.key == key).unwrap_or_else(|| panic!("no {key} in {}", file.display())).value
}

fn many(values: &[&str]) -> Text {
    Text::Many(values.iter().map(ToString::to_string).collect())
}

#[test]
fn every_host_gets_its_files() {
    let dir = folder();
    let out = dir.path().join("cluster");
    let written = write(&out, &[]).expect(0).json();
    let files: Vec<_> = written["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    let expected = [
        "host-1/levee-metad.toml",
        "host-1/levee-stored.toml",
        "host-2/levee-metad.toml",
        "host-2/levee-stored.toml",
        "host-3/levee-stored.toml",
        "meta-3/levee-metad.toml",
        "STEPS.md",
    ];
    assert_eq!(files, expected);
    assert!(written["notes"][0].as_str().unwrap().contains("2 nodes have disks"));

    let meta = out.join("meta-3/levee-metad.toml");
    assert_eq!(value(&meta, "id"), Text::One("3".into()));
    assert_eq!(value(&meta, "listen"), Text::One("10.0.0.9:7400".into()));
    let peers = ["1=http://10.0.0.1:7400", "2=http://10.0.0.2:7400", "3=http://10.0.0.9:7400"];
    assert_eq!(value(&meta, "peers"), many(&peers));
    let node = out.join("host-1/levee-stored.toml");
    assert_eq!(value(&node, "disk"), many(&["/dev/nvme1n1,class=hdd", "/dev/nvme2n1"]));
    assert_eq!((value(&node, "zone"), value(&node, "rack")), (Text::One("z1".into()), Text::One("r7".into())));
    assert_eq!(value(&node, "data"), many(&["10.0.0.1:7501", "10.0.0.1:7502"]));
    assert_eq!(value(&node, "admin"), Text::One("10.0.0.1:7500".into()));
    assert!(!file::read(&out.join("host-3/levee-stored.toml")).unwrap().iter().any(|given| given.key == "disk"));

    let steps = std::fs::read_to_string(out.join("STEPS.md")).unwrap();
    for part in [
        "levee-stored format /dev/nvme2n1 --cores 2\n",
        "levee-stored format /srv/levee/disk --size 100G --cores 2 &&",
        "LEVEE_CLUSTER=http://10.0.0.1:7400,http://10.0.0.2:7400,http://10.0.0.9:7400",
        "Every meta server (host-1, host-2, meta-3)",
    ] {
        assert!(steps.contains(part), "{part} is not in {steps}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let dir = folder();
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    let ran = write(dir.path(), &[]).expect(1);
    assert!(ran.stderr.contains("is not empty, and nothing in it is replaced"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn clusters_that_cannot_work_are_refused() {
    let dir = folder();
    let out = dir.path().join("new");
    let node = ["--node", "a=10.0.0.1:/dev/x"];
    for (args, part) in [
        (&["--meta", "10.0.0.1,10.0.0.2", node[0], node[1]][..], "use 1, 3 or 5"),
        (&["--meta", "10.0.0.1,10.0.0.2,10.0.0.1", node[0], node[1]], "twice"),
        (&["--meta", "10.0.0.1", node[0], node[1], "--node", "a=10.0.0.2"], "two nodes are called a"),
        (&["--meta", "10.0.0.1", node[0], node[1], "--node", "b=10.0.0.1"], "address 10.0.0.1"),
        (&["--meta", "0.0.0.0", node[0], node[1]], "no address that other hosts can reach"),
        (&["--meta", "10.0.0.1", "--node", "a=10.0.0.1:/srv/disk"], "--disk-size"),
        (&["--meta", "10.0.0.1", node[0], node[1], "--meta-port", "7501"], "choose others"),
        (&["--meta", "10.0.0.1", node[0], node[1], "--node-port", "65535"], "choose others"),
        (&["--meta", "10.0.0.1", "--node", "a=host:/dev/x"], "no IP address"),
        (&["--meta", "10.0.0.1", node[0], node[1], "--zone", "b=z"], "no --node is called b"),
        (&["--meta", "10.0.0.1"], "--node"),
    ] {
        let ran = init(&[args, &["--out", out.to_str().unwrap()]].concat()).expect(2);
        assert!(ran.stderr.contains(part), "{part} is not in {}", ran.stderr);
        assert!(!out.exists());
    }
    init(&["--meta", "10.0.0.1", node[0], node[1]]).expect(2);
}

/// A host's configuration: `disk`, and ports that are free unless somebody holds them.
fn host(disk: &Path, admin: SocketAddr, data: SocketAddr) -> TempDir {
    let dir = folder();
    let meta = free();
    let text = format!(
        "name = 'h'\nmeta = ['http://{meta}']\ndir = '/d'\nsockets = '/s'\nadmin = '{admin}'\ndata = ['{data}']\n\
         disk = ['{}']\n",
        disk.display()
    );
    std::fs::write(dir.path().join("levee-stored.toml"), text).unwrap();
    dir
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// What `levee init check` says about one thing.
fn finding(findings: &Value, what: &str) -> (String, String) {
    let all = findings["findings"].as_array().unwrap();
    let one = all.iter().find(|one| one["what"].as_str().unwrap().starts_with(what));
    let one = one.unwrap_or_else(|| panic!("nothing about {what} in {findings}"));
    (one["verdict"].as_str().unwrap().into(), one["detail"].as_str().unwrap().into())
}

fn check(config: &Path) -> Ran {
    init(&["check", "--config", config.to_str().unwrap(), "--json"])
}

fn disk_with(dir: &Path, head: &[u8]) -> PathBuf {
    let path = dir.join("disk");
    let mut bytes = head.to_vec();
    bytes.resize(2 << 20, 0);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn superblock(cores: u8) -> Vec<u8> {
    let mut head = b"LEVEEDSK".to_vec();
    head.resize(4096, 0);
    head[76] = cores;
    head
}

#[test]
fn disks_are_looked_at() {
    let dir = folder();
    for (head, part) in [
        (vec![], "not formatted yet"),
        (b"MBR".to_vec(), "something that is not Levee's"),
        (superblock(2), "formatted for 2 core(s), and `data` has 1"),
    ] {
        let disk = disk_with(dir.path(), &head);
        let before = std::fs::read(&disk).unwrap();
        let config = host(&disk, free(), free());
        let (verdict, detail) = finding(&check(config.path()).expect(1).json(), "disk ");
        assert!(verdict == "missing" && detail.contains(part), "{verdict}: {detail}");
        assert_eq!(std::fs::read(&disk).unwrap(), before, "looking changes nothing");
    }
    let config = host(&dir.path().join("none"), free(), free());
    assert!(finding(&check(config.path()).expect(1).json(), "disk ").1.contains("is not there"));
}

#[test]
fn ports_and_addresses_are_looked_at() {
    let dir = folder();
    let disk = disk_with(dir.path(), &superblock(1));
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let foreign: SocketAddr = "192.0.2.1:7501".parse().unwrap();
    let config = host(&disk, held.local_addr().unwrap(), foreign);
    let findings = check(config.path()).expect(1).json();
    assert!(!findings["ready"].as_bool().unwrap());
    let (verdict, detail) = finding(&findings, &format!("address {}", held.local_addr().unwrap()));
    assert!(verdict == "missing" && detail.contains("another program"), "{detail}");
    let (verdict, detail) = finding(&findings, "address 192.0.2.1");
    assert!(verdict == "missing" && detail.contains("does not have the address"), "{detail}");
    assert_eq!(finding(&findings, "meta server ").0, "note", "it need not run yet");
}

#[test]
fn files_that_cannot_be_read_are_findings() {
    let dir = folder();
    check(dir.path()).expect(1);
    std::fs::write(dir.path().join("levee-metad.toml"), "id = \n").unwrap();
    let (verdict, detail) = finding(&check(dir.path()).expect(1).json(), dir.path().to_str().unwrap());
    assert!(verdict == "missing" && detail.contains("line 1"), "{detail}");
}
