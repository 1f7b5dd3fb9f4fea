//! Base ports for clusters of tests, which may run at the same time.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;

/// Below the ports that the kernel gives out.
const BASES: std::ops::Range<u16> = 20_000..31_000;
/// Ports between two bases: more than a cluster of tests uses.
const STEP: u16 = 200;
const MOST_METAS: u16 = 3;
const MOST_NODES: u16 = 4;
/// The admin endpoint and the cores.
const PORTS_PER_NODE: u16 = 9;

/// A base port that no other test has while this lives.
pub struct Ports {
    pub base: u16,
    _lock: Flock<File>,
}

/// Takes a base port whose ports are free. `clean_up` is called first with a base that nobody holds: it
/// may end what a test that was killed left there.
pub fn reserve(clean_up: impl Fn(u16)) -> Ports {
    for base in BASES.step_by(usize::from(STEP)) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ports-{base}.lock"));
        let Ok(lock) = Flock::lock(File::create(path).unwrap(), FlockArg::LockExclusiveNonblock) else { continue };
        clean_up(base);
        if cluster_ports(base).all(is_free) {
            return Ports { base, _lock: lock };
        }
    }
    panic!("no ports are free");
}

/// The ports that the largest cluster of the tests would use.
pub fn cluster_ports(base: u16) -> impl Iterator<Item = u16> {
    let metas = base..base + MOST_METAS;
    metas
        .chain((0..MOST_NODES).flat_map(move |node| (0..PORTS_PER_NODE).map(move |port| base + 100 + 10 * node + port)))
}

pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
