//! Disks in files: brought into a cluster and taken out of it again.

use crate::cluster::Cluster;
use crate::guest::{Guest, REQUEST};
use crate::support::Ran;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const MIB: u64 = 1 << 20;
/// Of the disk in the file: it ends within a block.
const SIZE: u64 = 24 * MIB + 512;
/// Where the file has data, in units of the guest's pattern.
const DATA: [u64; 5] = [0, 16, 17, 200, 383];

/// A raw file with data, zeros that are written out, and holes.
fn raw_disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    for unit in DATA {
        file.write_all_at(&vec![unit as u8 + 1; REQUEST], unit * REQUEST as u64).unwrap();
    }
    file.write_all_at(&vec![0; 2 * MIB as usize], 8 * MIB).unwrap();
    file.write_all_at(&[0xee; 512], SIZE - 512).unwrap();
    path
}

/// What a volume of `size` bytes holds that was filled from `path`.
fn padded(path: &Path, size: u64) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.resize(size as usize, 0);
    bytes
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn is_attached(cluster: &Cluster, volume: &str) -> bool {
    let attachment = &cluster.volume(volume)["attachment"];
    !attachment.is_null() && attachment["repair"] != true
}

#[test]
fn a_disk_comes_in_and_goes_out_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_disk(dir.path());
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    let imported = cluster.ok(&["volume", "import", text(&raw), "vol"]);
    assert_eq!((&imported["format"], &imported["size"]), (&Value::from("raw"), &Value::from(64 * MIB)));
    assert_eq!(imported["data"], (DATA.len() * REQUEST) as u64 + 4096, "zeros take no space");
    assert!(!is_attached(&cluster, "vol"));

    // Out as both formats, and each of them in again.
    for format in ["raw", "qcow2"] {
        let out = dir.path().join(format!("out.{format}"));
        let exported = cluster.ok(&["volume", "export", "vol", text(&out), "--format", format]);
        assert_eq!(exported["crc32c"], imported["crc32c"]);
        let blocks = out.metadata().unwrap().blocks() * 512;
        assert!(blocks < 12 * MIB, "{format}: {blocks} bytes of the file system");
        let again = format!("again-{format}");
        cluster.create(&again, &["--size", "64M", "--copies", "1"]);
        assert_eq!(cluster.ok(&["volume", "import", text(&out), &again])["crc32c"], imported["crc32c"]);
    }
    assert!(std::fs::read(dir.path().join("out.raw")).unwrap() == padded(&raw, 64 * MIB));
    cluster.verify_equal("vol");
}

/// A volume that held something else holds the file afterwards, and zeros where the file has none.
#[test]
fn an_import_replaces_everything_when_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_disk(dir.path());
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "32M"]);
    let socket = cluster.attach("vol", "node-1");
    let mut guest = Guest::connect(&socket);
    guest.write(0, 32 * MIB);

    let line = cluster.refused(&["volume", "import", text(&raw), "vol", "--overwrite"], 1);
    assert!(line.contains("in use on node-1") && line.contains("detach vol"), "{line}");
    drop(guest);
    cluster.ok(&["volume", "detach", "vol"]);
    let line = cluster.refused(&["volume", "import", text(&raw), "vol"], 1);
    assert!(line.contains("holds data already") && line.contains("--overwrite"), "{line}");
    cluster.ok(&["volume", "import", text(&raw), "vol", "--overwrite"]);

    let out = dir.path().join("out.raw");
    cluster.ok(&["volume", "export", "vol", text(&out), "--format", "raw"]);
    assert!(std::fs::read(&out).unwrap() == padded(&raw, 32 * MIB));
    let line = cluster.refused(&["volume", "export", "vol", text(&out)], 1);
    assert!(line.contains("exists") && line.contains("--overwrite"), "{line}");

    cluster.create("small", &["--size", "16M"]);
    let line = cluster.refused(&["volume", "import", text(&raw), "small"], 1);
    assert!(line.contains("too small"), "{line}");
    let line = cluster.refused(&["volume", "import", text(dir.path()), "small"], 1);
    assert!(line.contains("not a file"), "{line}");
    assert!(!is_attached(&cluster, "small") && !is_attached(&cluster, "vol"));
}

/// With one copy of three there, writes wait; so does an import, until it is told to end.
#[test]
fn an_interrupted_import_leaves_the_volume_free() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_disk(dir.path());
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("vol", &["--size", "64M"]);
    cluster.kill("node-2");
    cluster.kill("node-3");
    let mut import = cluster.command(&["volume", "import", text(&raw), "vol", "--node", "node-1"]);
    let import = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    cluster.until("the import begins", |cluster| is_attached(cluster, "vol").then_some(()));
    kill(Pid::from_raw(import.id() as i32), Signal::SIGINT).unwrap();
    let output = import.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(!is_attached(&cluster, "vol"));
}

/// Whichever node died a moment ago and still counts as up: another one of this machine does it.
#[test]
fn an_export_does_not_wait_for_a_node_that_just_died() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "16M"]);
    for (i, node) in ["node-1", "node-2", "node-3"].iter().enumerate() {
        cluster.kill(node);
        cluster.ok(&["volume", "export", "vol", text(&dir.path().join(i.to_string())), "--timeout", "20s"]);
        cluster.up();
    }
    // If it is named, it is waited for, and the volume is free again.
    cluster.kill("node-1");
    let out = dir.path().join("out");
    let named = ["volume", "export", "vol", text(&out), "--node", "node-1", "--timeout", "100ms"];
    let said = cluster.run(&named).expect(1).stderr;
    assert!(said.contains("node-1") && !said.contains("stays attached"), "{said}");
    assert!(!out.exists() && !is_attached(&cluster, "vol"));
}

/// Refused before anything is asked of the cluster.
#[test]
fn files_that_are_no_images_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&["--disk-size", "512M"]);
    cluster.create("vol", &["--size", "16M"]);
    let file = dir.path().join("file");
    let cases: [(&[u8], &[&str], &str); 3] = [
        (b"", &[], "empty"),
        (b"not an image", &["--format", "qcow2"], "too short"),
        (b"QFI\xfb\0\0\0\x09 and so on, until it is as long as a header of such a file is at least", &[], "version 9"),
    ];
    for (content, options, words) in cases {
        std::fs::write(&file, content).unwrap();
        let line = cluster.refused(&[&["volume", "import", text(&file), "vol"], options].concat(), 1);
        assert!(line.contains(words) && line.contains(text(&file)), "{line}");
    }
    let missing: Ran = cluster.run(&["volume", "import", text(&dir.path().join("missing")), "vol"]).expect(1);
    assert!(missing.stderr.contains("missing"), "{}", missing.stderr);
}

/// What was made of an image goes its own way; the image stays what it is until it is deleted.
#[test]
fn an_image_is_made_cloned_exported_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_disk(dir.path());
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    let made = cluster.ok(&["image", "import", text(&raw), "golden", "--size", "64M"]);
    let crc = made["import"]["crc32c"].clone();
    let listed = cluster.ok(&["image", "list"]);
    assert_eq!((&listed[0]["volume"], &listed[0]["image"]["format"]), (&Value::from("golden"), &Value::from("raw")));
    assert_eq!(listed[0]["image"]["disk_size"], SIZE);

    cluster.ok(&["volume", "create", "vm", "--from", "golden@image", "--size", "96M"]);
    let out = dir.path().join("vm.raw");
    cluster.ok(&["volume", "export", "vm", text(&out), "--format", "raw"]);
    assert!(std::fs::read(&out).unwrap() == padded(&raw, 96 * MIB));

    // The volume behind the image changes; the image does not.
    let mut guest = Guest::connect(&cluster.attach("golden", "node-1"));
    guest.write(0, 8 * MIB);
    drop(guest);
    cluster.ok(&["volume", "detach", "golden"]);
    let out = dir.path().join("golden.qcow2");
    assert_eq!(cluster.ok(&["image", "export", "golden", text(&out)])["export"]["crc32c"], crc);
    assert_eq!(cluster.ok(&["volume", "list"]).as_array().unwrap().len(), 2, "the clone for the export is gone");

    assert_eq!(cluster.ok(&["image", "delete", "golden"])["clones"], 1);
    assert_eq!(cluster.ok(&["image", "list"]), serde_json::json!([]));
    let line = cluster.refused(&["image", "export", "golden", text(&dir.path().join("none"))], 1);
    assert!(line.contains("golden"), "{line}");
    let out = dir.path().join("again.raw");
    cluster.ok(&["volume", "export", "vm", text(&out), "--format", "raw"]);
    assert!(std::fs::read(&out).unwrap() == padded(&raw, 96 * MIB));

    // A failed import leaves nothing.
    std::fs::write(dir.path().join("bad"), b"QFI\xfb").unwrap();
    cluster.refused(&["image", "import", text(&dir.path().join("bad")), "bad"], 1);
    assert_eq!(cluster.ok(&["volume", "list"]).as_array().unwrap().len(), 1);
}
