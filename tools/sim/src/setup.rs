//! What a seed decides before anything runs: how large the cluster is, what it holds, and which faults it will see.
//!
//! Each seed sees only some kinds of faults, each with a weight of its own: a run that sees everything at once seldom gets
//! far enough into any one of them.

use levee_core::testing::TestRng;
use std::time::Duration;

/// The longest that an operation of a slow disk takes, milliseconds.
pub const SLOWEST: u64 = 5000;

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A daemon is killed, and started again.
    Kill,
    /// A node loses power, and gets it back.
    PowerLoss,
    /// All nodes lose power at once.
    Blackout,
    /// A daemon is stopped for a while, and goes on as if nothing had happened.
    Freeze,
    /// A node is cut off from the others, in both directions or in one.
    Partition,
    /// A link breaks; what was sent on it may arrive later.
    BreakLinks,
    /// The operator has a volume served by another node.
    Move,
    /// The guest of a volume dies, and is started again.
    GuestCrash,
    /// The meta servers cannot be reached.
    MetaOutage,
    /// A disk fails an operation, and with it a shard.
    DiskError,
    /// A disk is slow, or all of them are, or one does nothing for a while.
    SlowDisk,
    /// What a disk holds is not what was written to it.
    Corruption,
    /// Sectors of a disk cannot be read, until they are written.
    BadSectors,
    /// What a disk returns is not what it holds.
    BadRead,
    /// Several faults in a row, too fast to recover between.
    Storm,
    /// The node of a gateway is cut off while its guest writes, and another takes over.
    Failover,
    /// Takeovers one after the other, each with other nodes away.
    Takeovers,
    /// A disk's replicas are to be put elsewhere, because the operator drains it or gives it up.
    Evacuate,
    /// A node is gone for ever, and given up.
    LoseNode,
    /// A daemon is stopped and started in good order.
    Restart,
    /// A store writes a checkpoint.
    Checkpoint,
    /// A snapshot is taken, deleted, cloned or read.
    Snapshot,
    /// The meta servers go on with an older state.
    OldMeta,
    /// A volume is deleted, and another gets its name.
    Recreate,
}

const ALL: [Fault; 21] = [
    Fault::Kill,
    Fault::PowerLoss,
    Fault::Blackout,
    Fault::Freeze,
    Fault::Partition,
    Fault::BreakLinks,
    Fault::Move,
    Fault::GuestCrash,
    Fault::MetaOutage,
    Fault::DiskError,
    Fault::SlowDisk,
    Fault::Corruption,
    Fault::BadRead,
    Fault::Storm,
    Fault::Failover,
    Fault::Takeovers,
    Fault::Evacuate,
    Fault::LoseNode,
    Fault::Restart,
    Fault::Checkpoint,
    Fault::Snapshot,
];

/// How a volume is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSetup {
    pub copies: u8,
    pub min_copies: u8,
    pub size: u64,
    /// Requests that its guest has outstanding at a time.
    pub depth: u64,
}

/// One cluster and its fate.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub nodes: u32,
    pub disks_per_node: u32,
    pub cores: u16,
    /// Shards of each disk.
    pub shards: u16,
    /// Whether disks begin so full that space has to be made all the time.
    pub nearly_full: bool,
    pub volumes: Vec<VolumeSetup>,
    /// Faults, and how likely each is.
    pub faults: Vec<(Fault, u64)>,
    /// How many faults there are.
    pub rounds: u64,
    /// Longest pause between faults.
    pub pause: Duration,
    /// One way.
    pub network_delay: (Duration, Duration),
    pub disk_delay: (Duration, Duration),
    /// Mean pause of a guest's worker between requests.
    pub think: Duration,
    /// When faults stop, a disk that is out of service is put back into it; else what was on it must get elsewhere.
    pub revive: bool,
    /// Of daemons' clocks, parts per million.
    pub drift: i32,
    /// Between looks at what may be committed.
    pub commit_period: Duration,
    /// Bytes of snapshots that a daemon remembers; 0: none.
    pub shared_cache: u64,
    /// Disks that are still slow when faults have stopped.
    pub slow: Option<SlowDisks>,
}

/// Disks that are slow for good, in some of the runs with slow disks: everything has to become whole all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowDisks {
    /// Nodes whose disks are.
    pub nodes: u32,
    /// The longest time of an operation.
    pub most: Duration,
}

impl Setup {
    /// Equal seeds give equal setups.
    pub fn of(seed: u64) -> Setup {
        let rng = &mut TestRng::new(seed ^ 0x5e7u64.rotate_left(32));
        let nodes = rng.between(3, 6) as u32;
        let cores = rng.between(1, 2) as u16;
        let volumes: Vec<_> = (0..1 + u64::from(rng.one_in(3))).map(|_| some_volume(rng, nodes)).collect();
        let (rounds, pause) = (rng.between(4, 16), rng.spread(20, 3000));
        let requests = rng.spread(60, 400);
        let depth: u64 = volumes.iter().map(|v| v.depth).sum();
        let think = (rounds * pause / 2 + 300) * 1000 * depth / requests;
        let nearly_full = rng.one_in(12);
        let mut faults = some_faults(rng);
        if volumes.iter().any(|v| v.min_copies < 2) {
            // One copy may be all there is of a write.
            faults.retain(|(fault, _)| !matches!(fault, Fault::Corruption | Fault::LoseNode));
        }
        if faults.iter().any(|(fault, _)| *fault == Fault::Corruption) {
            faults.retain(|(fault, _)| !matches!(fault, Fault::Evacuate | Fault::LoseNode));
        }
        some_bad_sectors(seed, &volumes, &mut faults);
        faults.extend(late_faults(seed));
        if faults.is_empty() {
            faults.push((Fault::Kill, 1));
        }
        let is_slow = faults.iter().any(|(fault, _)| *fault == Fault::SlowDisk);
        Setup {
            seed,
            nodes,
            disks_per_node: if rng.one_in(3) { 2 } else { 1 },
            cores,
            shards: rng.between(1, u64::from(cores)) as u16,
            nearly_full,
            volumes,
            faults,
            rounds,
            pause: Duration::from_millis(pause),
            network_delay: some_range(rng, 5, 2000),
            disk_delay: some_range(rng, 5, 2000),
            think: Duration::from_micros(think.max(1000)),
            revive: rng.one_in(2),
            drift: rng.below(100_000) as i32 - 50_000,
            // Short in half of the runs: no run lasts long.
            commit_period: Duration::from_millis(if rng.one_in(2) { rng.spread(20, 300) } else { 2000 }),
            shared_cache: some_cache(seed),
            slow: if is_slow { some_slow_disks(seed, nodes) } else { None },
        }
    }
}

fn some_volume(rng: &mut TestRng, nodes: u32) -> VolumeSetup {
    // Mostly the usual ones.
    let (copies, min_copies) = match rng.below(8) {
        0..4 => (3, 2),
        4 => (2, rng.between(1, 2)),
        5 => (3, rng.between(1, 3)),
        6 => (u64::from(nodes.min(5)), rng.between(1, 3)),
        _ => (rng.between(1, 3), 1),
    };
    let groups = if rng.one_in(4) { 2 } else { 1 };
    VolumeSetup { copies: copies as u8, min_copies: min_copies as u8, size: groups << 28, depth: rng.between(2, 10) }
}

/// None in half of the runs, and next to none in half of the others. Drawn apart: what else a seed decides does not depend on it.
fn some_cache(seed: u64) -> u64 {
    let rng = &mut TestRng::new(seed ^ 0xcac4e);
    match rng.below(4) {
        0 => 1 << 20,
        1 => rng.between(8 << 10, 256 << 10),
        _ => 0,
    }
}

/// One node's, all, or so many that fewer than two copies of a chunk may be quick. Drawn apart as well.
fn some_slow_disks(seed: u64, nodes: u32) -> Option<SlowDisks> {
    let rng = &mut TestRng::new(seed ^ 0x510e);
    let slow = match rng.below(8) {
        0 => 1,
        1 => nodes - 1,
        2 => nodes,
        _ => return None,
    };
    Some(SlowDisks { nodes: slow, most: Duration::from_millis(rng.spread(100, SLOWEST)) })
}

fn some_faults(rng: &mut TestRng) -> Vec<(Fault, u64)> {
    let mut faults: Vec<(Fault, u64)> = vec![];
    for fault in ALL {
        if rng.one_in(2) {
            faults.push((fault, rng.spread(1, 8)));
        }
    }
    faults
}

/// In a third of the runs, where another copy has every write. Drawn apart, and often: a single bad sector is soon healed.
fn some_bad_sectors(seed: u64, volumes: &[VolumeSetup], faults: &mut Vec<(Fault, u64)>) {
    let rng = &mut TestRng::new(seed ^ 0xbad_5ec7);
    if rng.one_in(3) && volumes.iter().all(|v| v.min_copies >= 2) {
        // The good copy may be on the node that is lost.
        faults.retain(|(fault, _)| *fault != Fault::LoseNode);
        let others: u64 = faults.iter().map(|(_, weight)| weight).sum();
        faults.push((Fault::BadSectors, 1 + others / 3));
    }
}

/// Those that came later are drawn apart, too.
fn late_faults(seed: u64) -> Vec<(Fault, u64)> {
    let rng = &mut TestRng::new(seed ^ 0x01d5_7a7e);
    let mut faults = vec![];
    if rng.one_in(4) {
        faults.push((Fault::OldMeta, rng.spread(2, 12)));
    }
    if rng.one_in(8) {
        faults.push((Fault::Recreate, rng.spread(1, 8)));
    }
    faults
}

/// In microseconds: a least and a most, of any order of magnitude.
fn some_range(rng: &mut TestRng, least: u64, most: u64) -> (Duration, Duration) {
    let high = rng.spread(least * 4, most);
    (Duration::from_micros(rng.between(least, high / 2 + least)), Duration::from_micros(high * 2))
}
