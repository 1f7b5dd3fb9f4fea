//! How a storage daemon joins the cluster, with its disks.

use super::{DiskClass, Seen};
use crate::ids::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A daemon introduces itself. Sent at every start; the same name keeps the same node id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterNode {
    pub name: String,
    /// Chosen at random by the process when it starts.
    pub incarnation: Uuid,
    /// Where the daemon's admin endpoint listens: `http://host:port`.
    pub admin_url: String,
    /// `host:port` of each core's data link; the position is the core's number.
    pub cores: Vec<String>,
    /// Fails if the cluster has another id: the daemon's disks belong elsewhere.
    #[serde(default)]
    pub cluster: Option<Uuid>,
    pub disks: Vec<RegisterDisk>,
    /// Failure domains that the node belongs to; absent: the node is one by itself. Names as those of volumes.
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default)]
    pub rack: Option<String>,
    /// Take the node without disks that were removed from the cluster, if it has others; otherwise one of them has all
    /// refused.
    #[serde(default)]
    pub leave_out_removed: bool,
    /// Locks that the process holds: of its folder, and of its disks. Each is named by the kernel that keeps it and the file that it is
    /// on, so that who holds one that another process held shows that the other is dead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// Which of the disks are only remembered, and not at hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Uuid>,
    /// What shows whether the meta servers know all that was given out.
    #[serde(default, skip_serializing_if = "Seen::is_nothing")]
    pub seen: Seen,
}

/// A disk that a daemon brings along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisterDisk {
    /// From the disk's superblock. A uuid that another node registered is refused.
    pub uuid: Uuid,
    pub path: String,
    /// Bytes usable for data.
    pub capacity: u64,
    /// Logs on the disk: a chunk lives in shard `chunk % shards`, on core `shard % cores`.
    pub shards: u16,
    #[serde(default)]
    pub class: DiskClass,
}

/// Answer to [`RegisterNode`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    pub cluster: Uuid,
    pub node: NodeId,
    /// Ids of the disks, in the order they were named, without those left out.
    pub disks: Vec<DiskId>,
    /// Disks left out: they were removed from the cluster.
    #[serde(default)]
    pub removed: Vec<Uuid>,
}
