//! Every bound of this crate, in one place.

use std::time::Duration;

pub use levee_frontend::limits::{MAX_QUEUES, SLOTS_PER_QUEUE};

/// Most data of one request under torture, bytes.
pub const MAX_DATA: usize = 64 << 10;
/// Overlapping writes of one unit that may be in flight at a time.
pub const MAX_WRITES_PER_UNIT: usize = 2;
/// Findings that a report spells out; all are counted.
pub const MAX_FINDINGS: usize = 20;
/// Largest area that one torture run covers, in units.
pub const MAX_UNITS: u64 = 1 << 26;
/// Largest discard or write-zeroes of a torture run, bytes.
pub const MAX_RANGE: u64 = 1 << 20;
/// Descriptors in a virtqueue of the load generator, three per request.
pub const LOAD_RING_SIZE: u16 = 256;
/// Most requests in flight on one queue of the load generator.
pub const LOAD_MAX_DEPTH: usize = LOAD_RING_SIZE as usize / 3;
/// The load generator gives up when nothing completes for so long.
pub const LOAD_STALL: Duration = Duration::from_secs(30);
/// Largest request of the load generator, bytes.
pub const LOAD_MAX_BLOCK: usize = 4 << 20;
/// Requests per second of a paced load.
pub const LOAD_MIN_RATE: f64 = 1.0;
pub const LOAD_MAX_RATE: f64 = 1e6;
/// Most storage nodes of a cluster under faults.
pub const MAX_FAULT_NODES: usize = 9;
/// Most volumes under load in a cluster under faults.
pub const MAX_FAULT_VOLUMES: usize = 16;
/// Of a cluster whose ports are attacked: each node's disk, the volumes, and how much of each is under load, bytes.
pub const FUZZ_DISK: u64 = 2 << 30;
pub const FUZZ_VOLUME: u64 = 256 << 20;
pub const FUZZ_AREA: u64 = 16 << 20;
/// The load on a volume is given up when nothing completes for so long.
pub const FUZZ_STALL: Duration = Duration::from_secs(60);
/// Most bytes that one change inserts into a message.
pub const FUZZ_INSERT: u64 = 40;
/// How long one step of an attack may take before the connection is given up.
pub const FUZZ_PATIENCE: Duration = Duration::from_secs(5);
/// Most requests that an attacker sends at once, copies of a node that it remembers, and numbers of disks that it tries.
pub const FUZZ_BATCH: u64 = 8;
pub const FUZZ_KNOWN: usize = 64;
pub const MAX_FUZZ_DISKS: u64 = 3;
