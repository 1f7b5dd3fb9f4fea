//! What guests and copying ask of volumes, chunks and disks, and how nodes see each other: reported with every heartbeat.

use crate::ids::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most chunks named in one [`VolumeLoad`], and in one heartbeat for each volume.
pub const MAX_HOT_CHUNKS: usize = 8;

/// Requests and bytes a second, a mean over about ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Load {
    #[serde(default)]
    pub reads: u64,
    #[serde(default)]
    pub writes: u64,
    #[serde(default)]
    pub read_bytes: u64,
    #[serde(default)]
    pub write_bytes: u64,
}

impl Load {
    /// Reads and writes.
    pub fn requests(&self) -> u64 {
        self.reads.saturating_add(self.writes)
    }

    pub fn bytes(&self) -> u64 {
        self.read_bytes.saturating_add(self.write_bytes)
    }

    /// What is left of it without the other.
    pub fn minus(&self, other: &Load) -> Load {
        Load {
            reads: self.reads.saturating_sub(other.reads),
            writes: self.writes.saturating_sub(other.writes),
            read_bytes: self.read_bytes.saturating_sub(other.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(other.write_bytes),
        }
    }

    pub fn plus(&self, other: &Load) -> Load {
        Load {
            reads: self.reads.saturating_add(other.reads),
            writes: self.writes.saturating_add(other.writes),
            read_bytes: self.read_bytes.saturating_add(other.read_bytes),
            write_bytes: self.write_bytes.saturating_add(other.write_bytes),
        }
    }
}

/// What a volume's guest does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeLoad {
    pub load: Load,
    /// Latency of its requests over the same time, microseconds; 0: there were none.
    #[serde(default)]
    pub p50_us: u64,
    #[serde(default)]
    pub p99_us: u64,
    /// Its busiest chunks, the busiest first; at most [`MAX_HOT_CHUNKS`].
    #[serde(default)]
    pub hot: Vec<ChunkLoad>,
}

/// What a guest does to one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkLoad {
    /// Position of the chunk in the volume.
    pub index: u32,
    pub load: Load,
}

/// What a disk does, for guests and for copying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskLoad {
    pub load: Load,
    /// Age of the oldest operation that the disk has not answered, microseconds; 0: none waits.
    #[serde(default)]
    pub oldest_io_us: u64,
}

/// How a node sees another one's data links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkReport {
    pub node: NodeId,
    /// Whether something was heard from it over a data link within the last three seconds.
    pub up: bool,
    /// Latency of what is answered, microseconds, smoothed; 0: unknown.
    #[serde(default)]
    pub latency_us: u64,
}
