//! Snapshots of several volumes are of one moment.

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::snapshots::{held, with_guest};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 8192;
/// Far beyond what is needed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest with two disks, which writes each block of the second after the same block of the first was answered.
struct Journal {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    fn start(first: PathBuf, second: PathBuf) -> Journal {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (written, stopped) = (done.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut disks = [Guest::connect(&first), Guest::connect(&second)];
            for block in (0..BLOCKS).take_while(|_| !stopped.load(Ordering::SeqCst)) {
                disks.iter_mut().for_each(|disk| disk.fill(block * BLOCK..(block + 1) * BLOCK, 1));
                written.store(block + 1, Ordering::SeqCst);
            }
            disks.into_iter().for_each(Guest::close);
        });
        Journal { done, stop, thread: Some(thread) }
    }

    fn written(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Lets it go on a little.
    fn progress(&self) {
        let (until, begun) = ((self.written() + 20).min(BLOCKS), Instant::now());
        while self.written() < until {
            assert!(begun.elapsed() < PATIENCE, "the guest does not go on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|e| e.is_ok()));
    }
}

/// How many blocks are written: the first so many.
fn written(bytes: &[u8]) -> u64 {
    let is_written = |block: &&[u8]| block.iter().all(|b| *b == 1);
    let count = bytes.chunks(BLOCK as usize).take_while(is_written).count();
    assert!(bytes[count * BLOCK as usize..].iter().all(|b| *b == 0), "a hole, or half a block, after {count}");
    count as u64
}

#[test]
fn what_follows_an_answer_is_in_no_snapshot_without_what_was_answered() {
    let cluster = Cluster::start(&["--cores", "2", "--disk-size", "1G"]);
    for name in ["log", "data", "unused"] {
        cluster.create(name, &["--size", "32M"]);
    }
    with_guest(&cluster, "unused", "node-3", |guest| guest.fill(0..BLOCK, 1));
    let journal = Journal::start(cluster.attach("log", "node-1"), cluster.attach("data", "node-2"));
    let rounds = ["a", "b", "c", "d", "e"];
    let mut bounds = Vec::new();
    for round in rounds {
        journal.progress();
        let before = journal.written();
        let all = ["data", "log", "unused"].map(|volume| format!("{volume}@{round}"));
        let taken = cluster.ok(&["snapshot", "create", &all[0], &all[1], &all[2], "--timeout", "60s"]);
        assert!(taken["snapshots"].as_array().unwrap().iter().all(|s| s["state"] == "done"), "{taken}");
        bounds.push((before, journal.written()));
    }
    journal.progress();
    drop(journal);
    for (round, (before, after)) in rounds.iter().zip(bounds) {
        let [log, data] = ["log", "data"].map(|volume| written(&held(&cluster, &format!("{volume}@{round}"))));
        assert!(data <= log && log <= data + 1, "{round}: {log} blocks of the log, {data} of the data");
        assert!(before <= data && log <= after + 1, "{round}: {data} not within {before}..={after}");
        assert_eq!(written(&held(&cluster, &format!("unused@{round}"))), 1);
    }
}

#[test]
fn a_group_without_one_of_its_gateways_is_given_up_and_nobody_waits_for_long() {
    let cluster = Cluster::start(&["--disk-size", "1G"]);
    cluster.create("here", &["--size", "32M"]);
    cluster.create("away", &["--size", "32M"]);
    let mut guest = Guest::connect(&cluster.attach("here", "node-1"));
    guest.fill(0..BLOCK, 1);
    let mut other = Guest::connect(&cluster.attach("away", "node-2"));
    other.fill(0..BLOCK, 1);
    cluster.kill("node-2");
    let line = cluster.refused(&["snapshot", "create", "here@a", "away@a"], 1);
    assert!(line.contains("here@a, away@a") && line.contains("try again"), "{line}");
    assert_eq!(cluster.ok(&["snapshot", "list"]), serde_json::json!([]));
    guest.fill(BLOCK..2 * BLOCK, 1);
    assert_eq!(written(&guest.contents(32 << 20)), 2);
    guest.close();
}
