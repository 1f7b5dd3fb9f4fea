//! Many clones of one snapshot on one host, read at once.

use crate::cluster::{Cluster, PATIENCE};
use crate::guest::{BLOCK, Guest};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Instant;

const MIB: u64 = 1 << 20;
/// On both of a node's cores.
const CLONES: usize = 16;
/// What the snapshot has, from the beginning.
const DATA: u64 = 2 * MIB;

/// Values of a daemon's metrics, by name and labels.
fn metrics(cluster: &Cluster, node: usize) -> BTreeMap<String, f64> {
    let up = cluster.ok(&["up", "--detach"]);
    let url = up["nodes"][node]["admin_url"].as_str().unwrap();
    let mut link = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    link.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    link.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?))).collect()
}

fn blocks(metrics: &BTreeMap<String, f64>, outcome: &str) -> f64 {
    metrics[&format!("levee_shared_cache_blocks_total{{outcome=\"{outcome}\"}}")]
}

#[test]
fn what_clones_have_in_common_is_read_once() {
    let cluster = Cluster::start(&["--disk-size", "1G", "--cores", "2"]);
    cluster.create("golden", &["--size", "64M"]);
    let mut guest = Guest::connect(&cluster.attach("golden", "node-1"));
    guest.write(0, DATA);
    guest.close();
    cluster.ok(&["snapshot", "create", "golden@v1"]);
    cluster.create("desk", &["--from", "golden@v1", "--count", &CLONES.to_string()]);
    let begun = Instant::now();
    let sockets: Vec<PathBuf> = (1..=CLONES).map(|n| cluster.attach(&format!("desk-{n}"), "node-1")).collect();
    println!("attached one by one, each after {:?}", begun.elapsed() / CLONES as u32);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for socket in &sockets {
            // With a part that the snapshot has nothing of.
            scope.spawn(|| {
                let mut guest = Guest::connect(socket);
                guest.check(0, DATA);
                guest.check_zeroes(DATA, MIB);
                guest.close();
            });
        }
    });
    println!("read by all after {:?}", begun.elapsed());
    let metrics = metrics(&cluster, 0);
    let (hits, waits, misses) = (blocks(&metrics, "hit"), blocks(&metrics, "wait"), blocks(&metrics, "miss"));
    println!("{hits} blocks remembered, {waits} waited for, {misses} read");
    assert_eq!(misses, (DATA + MIB) as f64 / BLOCK as f64);
    assert_eq!(hits + waits, misses * (CLONES - 1) as f64);
    let held = metrics["levee_shared_cache_used_bytes{}"];
    assert!(held >= DATA as f64 && held <= metrics["levee_shared_cache_capacity_bytes{}"], "{held}");
}
