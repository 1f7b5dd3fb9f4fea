//! How large a state can be: fills one with volumes and chunks by commands, as a log would, and says what memory, a
//! snapshot, and reading it again take.
//!
//! `cargo run --release -p levee-sim --example scale -- VOLUMES CHUNKS-PER-VOLUME [SNAPSHOT-FILE]`

use levee_meta_state::{Answer, Command, State};
use levee_proto::api::*;
use levee_proto::*;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::time::{Duration, Instant};
use uuid::Uuid;

const NODES: u128 = 100;
const DISKS: u128 = 4;
const CAPACITY: u64 = 64 << 40;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().map_or(default, |text| text.parse().expect("a number"));
    let (volumes, chunks): (u64, u32) = (number(1_000_000), number(10) as u32);
    let path = args.next().unwrap_or_else(|| "/tmp/levee-scale-snapshot".into());

    let empty = resident();
    let (mut state, alive) = cluster();
    let begun = Instant::now();
    for i in 0..volumes {
        create(&mut state, i);
        use_once(&mut state, i, chunks, &alive);
    }
    let [nodes, disks, all] = state.counts();
    let took = begun.elapsed();
    println!("state: {nodes} nodes, {disks} disks, {all} volumes, {} chunks", volumes * u64::from(chunks));
    println!(
        "built by commands in {:.1} s: {:.0} commands a second",
        took.as_secs_f64(),
        volumes as f64 * 5.0 / took.as_secs_f64()
    );
    println!("memory: {} MiB", (resident() - empty) >> 20);

    let (frozen, pause) = timed(|| state.freeze());
    println!("copy for a snapshot: {pause:?}");
    let (size, took) = timed(|| {
        let mut file = BufWriter::new(File::create(&path).expect("a file"));
        frozen.save(&mut file).expect("written");
        file.flush().expect("written");
        std::fs::metadata(&path).expect("a file").len()
    });
    println!(
        "snapshot: {} MiB before compression, in {:.1} s; memory meanwhile {} MiB",
        size >> 20,
        took.as_secs_f64(),
        (resident() - empty) >> 20
    );
    let worst = (0..2000.min(volumes)).map(|i| timed(|| use_once(&mut state, i, 0, &alive)).1).max();
    println!("a volume attached, opened and detached with a copy beside it, at most {:?}", worst.unwrap_or_default());
    drop(frozen);
    let (read, took) = timed(|| State::load(BufReader::with_capacity(1 << 20, File::open(&path).expect("a file"))));
    println!("read again in {:.1} s: {}", took.as_secs_f64(), read.is_ok());
    let _ = std::fs::remove_file(&path);
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed())
}

fn cluster() -> (State, BTreeSet<NodeId>) {
    let mut state = State::default();
    state.apply(&Command::Found { cluster: Uuid::from_u128(1) }).expect("founded");
    for n in 1..=NODES {
        let disk = |d| RegisterDisk {
            uuid: Uuid::from_u128(n * 1000 + d),
            path: format!("/dev/nvme{d}n1"),
            capacity: CAPACITY,
            shards: 4,
            class: DiskClass::Ssd,
        };
        let node = RegisterNode {
            name: format!("host-{n}"),
            incarnation: Uuid::from_u128(n),
            admin_url: format!("http://10.0.0.{n}:7500"),
            cores: (0..4).map(|core| format!("10.0.0.{n}:{}", 7501 + core)).collect(),
            cluster: None,
            disks: (0..DISKS).map(disk).collect(),
            zone: Some(format!("zone-{}", n % 3)),
            rack: Some(format!("rack-{}", n % 20)),
            leave_out_removed: false,
            locks: Vec::new(),
            missing: Vec::new(),
            seen: Default::default(),
        };
        state.apply(&Command::RegisterNode(node)).expect("registered");
    }
    let alive = state.node_ids().collect();
    (state, alive)
}

fn create(state: &mut State, i: u64) {
    let volume = CreateVolume { name: format!("volume-{i:07}"), size: 1 << 40, copies: 3, min_copies: 2, class: None };
    state
        .apply(&Command::SetLimits(ChangeLimits { over_provision: Some(Limit::None), ..Default::default() }))
        .expect("set");
    state.apply(&Command::CreateVolume(volume)).expect("created");
}

/// Attaches a volume, has its gateway open it and allocate chunks, and detaches it.
fn use_once(state: &mut State, i: u64, chunks: u32, alive: &BTreeSet<NodeId>) {
    let name = format!("volume-{i:07}");
    let attach = Command::Attach { name: name.clone(), node: None, alive: alive.clone() };
    let Ok(Answer::Volume(info)) = state.apply(&attach) else { panic!("not attached") };
    let at = info.attachment.expect("attached");
    let incarnation = Uuid::from_u128(u128::from(at.node.0));
    let request = OpenVolume { node: at.node, incarnation, attachment: at.attachment, fenced: None };
    let Ok(Answer::Opened(opened)) = state.apply(&Command::Open { name: name.clone(), request }) else {
        panic!("not opened")
    };
    if chunks > 0 {
        let request = AllocateChunks { epoch: opened.epoch, indexes: (0..chunks).collect() };
        let (alive, full) = (alive.clone(), BTreeSet::new());
        state.apply(&Command::Allocate { name: name.clone(), request, alive, full }).expect("placed");
    }
    state.apply(&Command::Detach { name }).expect("detached");
}

/// Bytes of memory that the process takes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}
