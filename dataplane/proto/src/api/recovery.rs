//! When the meta servers go on with a state that may be older than what daemons have seen: what daemons tell of that, and what is
//! done about it.
//!
//! Each time it happens a new *generation* begins. Daemons then report what they hold ([`Inventory`]), and no volume is opened before
//! all have.

use crate::ids::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Most items of one [`Inventory`].
pub const MAX_INVENTORY: usize = 1000;
/// No larger id can have been come across: what is left above it is for ids that are yet to be given out.
pub const MAX_SEEN_ID: u64 = MAX_ID / 2;
/// The same of nodes and disks.
pub const MAX_SEEN_SMALL_ID: u32 = u32::MAX / 2;

/// Proof of what has been given out: what a daemon has come across. Nothing of it is ever given out again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// The newest state that the daemon was told of.
    #[serde(default)]
    pub state: StateMark,
    /// Who the daemon's disks say that it is.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Ids that its disks have, by uuid.
    #[serde(default)]
    pub disks: BTreeMap<Uuid, DiskId>,
    /// The largest ids on its disks; 0: none.
    #[serde(default)]
    pub volume: VolumeId,
    #[serde(default)]
    pub chunk: ChunkId,
    #[serde(default)]
    pub replica: ReplicaId,
}

impl Seen {
    pub fn is_nothing(&self) -> bool {
        *self == Seen::default()
    }
}

/// How far the meta servers' state has come. It never goes back, unless they go on with an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct StateMark {
    pub generation: u64,
    /// Index of the log.
    pub applied: u64,
}

/// `POST /v1/nodes/{id}/inventory`: some of what a daemon's disks hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inventory {
    /// The one that the process registered with.
    pub incarnation: Uuid,
    /// That it is reported for.
    pub generation: u64,
    /// At most [`MAX_INVENTORY`].
    pub replicas: Vec<HeldReplica>,
    /// At most [`MAX_INVENTORY`].
    pub fences: Vec<HeldFence>,
    /// Everything has been reported.
    pub complete: bool,
}

/// A replica on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct HeldReplica {
    pub disk: DiskId,
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    pub config: ConfigNo,
    /// The largest version that something was written at, or that may be by what is sealed.
    pub version: Version,
}

/// A volume's fence on a node: [`crate::Fence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct HeldFence {
    pub volume: VolumeId,
    /// As in [`super::VolumeEra`].
    #[serde(default)]
    pub era: Era,
    pub epoch: Epoch,
}

/// `GET /v1/recovery`: what is left to do since the meta servers went on with a state that may be too old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryInfo {
    /// 0: it never happened.
    pub generation: u64,
    /// Nodes that have not reported yet what they hold: no volume is opened before they have, or their disks are given up.
    pub awaited: Vec<String>,
    /// Volumes that are not opened because of what they lack.
    pub held: Vec<HeldVolume>,
    /// Copies that nobody knows, of volumes that are not there. They are kept.
    pub unknown_replicas: u64,
}

/// A volume of which there are chunks on disks that the state does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldVolume {
    pub volume: VolumeId,
    /// Absent: users do not see it.
    #[serde(default)]
    pub name: Option<String>,
    pub lost_chunks: u64,
}
