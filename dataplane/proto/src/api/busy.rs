//! Who works most: the load of the whole cluster in one answer, and how that of volumes went on.

use super::{ChunkLoad, DiskLoad, DiskState, Load, NodeState};
use crate::ids::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What comes first where the busiest are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BusyBy {
    #[default]
    Requests,
    Bytes,
    /// Of disks, the age of the oldest operation; chunks and nodes are ordered by requests.
    Latency,
}

/// The load of the cluster, as daemons report it: at most `limit` of each kind, the busiest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterLoad {
    /// Of all guests.
    pub guests: Load,
    /// Of all disks, copying included.
    pub disk_load: Load,
    pub redundancy: Redundancy,
    pub volumes: Vec<BusyVolume>,
    pub chunks: Vec<BusyChunk>,
    pub disks: Vec<BusyDisk>,
    pub nodes: Vec<BusyNode>,
}

/// How whole the copies of all volumes are that are served; sums over what their gateways report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redundancy {
    /// Volumes that a gateway reports on.
    pub volumes: u64,
    pub healthy_chunks: u64,
    pub degraded_chunks: u64,
    /// Of the degraded ones: those that lack a quorum.
    pub waiting_chunks: u64,
    /// Volumes whose guests' requests have waited for more than a second.
    #[serde(default)]
    pub stalled_volumes: u64,
    /// Replicas on disks that are dead or being drained.
    pub leaving_replicas: u64,
    /// Bytes copied to make members whole, since each volume was opened.
    pub copied_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusyVolume {
    pub volume: String,
    pub node: NodeId,
    pub node_name: String,
    pub load: Load,
    /// Latency of its requests, microseconds; 0: there were none.
    pub p50_us: u64,
    pub p99_us: u64,
    /// Age of the oldest request that is not answered, if it is older than a second, milliseconds.
    #[serde(default)]
    pub stalled_ms: u64,
    /// As [`VolumeInfo::status`](super::VolumeInfo::status).
    #[serde(default)]
    pub status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusyChunk {
    pub volume: String,
    #[serde(flatten)]
    pub chunk: ChunkLoad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusyDisk {
    pub disk: DiskId,
    pub node: NodeId,
    pub node_name: String,
    pub path: String,
    pub state: DiskState,
    #[serde(default)]
    pub status: String,
    /// Bytes.
    pub capacity: u64,
    /// Bytes; absent when nothing was heard yet.
    pub used: Option<u64>,
    /// As last reported; nothing of a disk whose node is down.
    pub load: DiskLoad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusyNode {
    pub node: NodeId,
    pub name: String,
    pub state: NodeState,
    #[serde(default)]
    pub status: String,
    /// Of the volumes that it serves.
    pub guests: Load,
    /// Of its disks.
    pub disks: Load,
    /// Volumes that it serves.
    pub volumes: u64,
}

/// The load of volumes over the last ten minutes, as far as the present leader leads that long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadHistory {
    /// Milliseconds between two moments.
    pub step_ms: u64,
    /// Milliseconds since 1970, oldest first.
    pub moments: Vec<u64>,
    /// Those that were busiest over the time.
    pub volumes: Vec<VolumeHistory>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeHistory {
    pub volume: String,
    /// One for each moment; null: nothing was reported.
    pub points: Vec<Option<LoadPoint>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadPoint {
    /// Requests and bytes a second.
    pub requests: u64,
    pub bytes: u64,
    /// Microseconds; 0: there were no requests.
    pub p50_us: u64,
    pub p99_us: u64,
}
