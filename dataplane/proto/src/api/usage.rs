//! What a volume and its snapshots take up, in the API's terms.

use crate::ids::Version;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a volume takes up: bytes of its blocks of 4096, counted in whole. Blocks that were zeroed or discarded hold no data.
///
/// Exact while nothing is written; a write that is in flight counts or does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeUsage {
    /// The volume's size.
    pub provisioned: u64,
    /// Blocks that read as data, the volume's own and those that it has from ancestors.
    pub written: u64,
    /// Those of `written` that the volume has itself and that no snapshot of it shows.
    pub exclusive: u64,
    /// The rest of `written`: snapshots of it, or its ancestors, hold them as well.
    pub shared: u64,
    /// All blocks with data in the volume's own chunks: what it shows itself, what its snapshots show, and what is to be
    /// dropped because nobody shows it any more. Ancestors' are not counted.
    pub stored: u64,
    /// `stored`, times the volume's copies.
    pub on_disks: u64,
    /// Of each snapshot that is kept, oldest first.
    pub snapshots: Vec<SnapshotUsage>,
}

/// What only one snapshot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotUsage {
    /// That it froze.
    pub version: Version,
    /// Bytes that it alone shows: neither the volume as it is nor another snapshot does. Deleting it gives them back, in each
    /// copy.
    pub exclusive: u64,
}

/// What a daemon tells while it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum UsageEvent {
    /// Chunks that were looked at, of so many.
    Progress {
        done: u64,
        total: u64,
    },
    Done(VolumeUsage),
    Failed {
        detail: String,
    },
}
