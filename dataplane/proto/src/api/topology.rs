//! Where nodes and disks stand: failure domains, kinds of disks.

use crate::ids::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a disk is made of. A volume may ask for one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskClass {
    #[default]
    Ssd,
    Hdd,
}

/// `POST /v1/disks` of a storage daemon's admin endpoint: it takes one more disk while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddDisk {
    /// File or block device on the daemon's host.
    pub path: String,
    /// Formats it first: it must be empty. Without, it must have been formatted.
    #[serde(default)]
    pub format: bool,
    /// Formats also a block device that holds something, which is lost.
    #[serde(default)]
    pub force: bool,
    /// Bytes, of a file that is to be made.
    #[serde(default)]
    pub size: Option<u64>,
    /// Found out from the device if absent.
    #[serde(default)]
    pub class: Option<DiskClass>,
}

/// Answer to [`AddDisk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddedDisk {
    pub disk: DiskId,
    pub uuid: Uuid,
    /// Bytes usable for data.
    pub capacity: u64,
}

/// `POST /v1/disks/{id}/remove` of the admin endpoint answers this: the daemon has let go of the disk, and does not take it
/// again at its next start unless it is told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedDisk {
    pub disk: DiskId,
    pub path: String,
    /// What is left to do, if anything: one line for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `GET /v1/replicas` of the admin endpoint: what a replica on the node's disks takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaSize {
    pub disk: DiskId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
    /// Bytes of blocks, all versions.
    pub bytes: u64,
}
