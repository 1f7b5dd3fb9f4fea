//! `levee image` and the moving of disks, against a meta server that answers as told.

mod support;

use serde_json::{Value, json};
use support::script::*;

fn snapshot(name: &str, clones: u32, image: Value) -> Value {
    json!({
        "volume": "golden", "name": name, "version": 1, "size": 1 << 30, "state": "done", "created_ms": 0,
        "clones": clones, "image": image
    })
}

fn image(clones: u32) -> Value {
    snapshot("image", clones, json!({"format": "qcow2", "disk_size": 1 << 30, "data": 1 << 20, "crc32c": 0xabc}))
}

#[test]
fn images_are_told_from_other_snapshots() {
    let both = || ok(json!({"items": [snapshot("monday", 0, Value::Null), image(3)]}));
    let meta = Server::start([("GET /v1/snapshots?limit=1000", both())]);
    let text = meta.run(&["image", "list"]).expect(0).stdout;
    assert!(text.contains("golden") && text.contains("qcow2") && text.contains("00000abc"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(meta.run(&["image", "list", "--json"]).expect(0).json().as_array().unwrap().len(), 1);
}

#[test]
fn an_image_is_deleted_with_its_volume() {
    let meta = Server::start([
        ("GET /v1/volumes/golden/snapshots/image", ok(image(2))),
        ("DELETE /v1/volumes/golden/snapshots/image", ok(image(2))),
        ("DELETE /v1/volumes/golden", ok(Value::Null)),
    ]);
    let text = meta.run(&["image", "delete", "golden"]).expect(0).stdout;
    assert!(text.contains("2 clones"), "{text}");
    assert_eq!(meta.asked().len(), 3);
}

/// A volume that somebody named so is not deleted for it.
#[test]
fn a_snapshot_that_is_no_image_is_left_alone() {
    let plain = || ok(snapshot("image", 0, Value::Null));
    let meta = Server::start([("GET /v1/volumes/golden/snapshots/image", plain())]);
    for command in [&["image", "delete", "golden"][..], &["image", "export", "golden", "file"]] {
        let said = meta.run(command).expect(1).stderr;
        assert!(said.contains("is not an image"), "{said}");
    }
    assert!(meta.asked().iter().all(|line| line.starts_with("GET")), "{:?}", meta.asked());
}

#[test]
fn a_file_that_is_no_image_makes_no_volume() {
    let meta = Server::start([]);
    let said = meta.run(&["image", "import", "missing.qcow2", "golden"]).expect(1).stderr;
    assert!(said.contains("missing.qcow2") && said.contains("cannot be opened"), "{said}");
    assert_eq!(meta.asked(), [""; 0]);
}
