//! Following what changes, without asking for everything again and again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThingKind {
    /// What holds for the whole cluster.
    Cluster,
    Node,
    Disk,
    Volume,
    /// Named `VOLUME@NAME`.
    Snapshot,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    Created,
    Changed,
    Deleted,
}

/// Something is another than it was. Look it up to see what it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// At which it changed; several changes may have the same.
    pub revision: u64,
    pub kind: ThingKind,
    /// Name of the node, volume or snapshot, number of the disk, or of a node that was removed; empty for the cluster.
    pub name: String,
    pub change: ChangeKind,
}

/// What changed since a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// The `after` of the request that follows.
    pub revision: u64,
    /// What happened since the revision that was asked for is not known any more, or none was asked for: look at everything anew,
    /// and go on from this revision.
    pub reset: bool,
    /// In order. What daemons report, such as loads and whether a node is up, is no change.
    pub changes: Vec<Change>,
}
