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
