//! How copies are placed, and what would become of them.

use super::{DiskState, Load};
use crate::ids::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most of [`PlacementPolicy::reserve_percent`].
pub const MAX_RESERVE_PERCENT: u8 = 50;
/// Weight of a disk that is used as its size says.
pub const FULL_WEIGHT: u32 = 100;
/// Most of a disk's weight.
pub const MAX_WEIGHT: u32 = 1000;

/// How copies of new chunks are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementPolicy {
    /// With how many other nodes a node shares chunks, at most; absent: with all. Fewer mean that the loss of several nodes at
    /// once is less likely to hit all copies of some chunk, and that fewer nodes help to repair one.
    #[serde(default)]
    pub scatter_width: Option<u16>,
    /// Share of each disk that new chunks leave free for repairs and moves.
    pub reserve_percent: u8,
    /// Whether one copy goes to the node of the volume's gateway.
    pub local_copy: bool,
}

impl Default for PlacementPolicy {
    fn default() -> Self {
        PlacementPolicy { scatter_width: None, reserve_percent: 5, local_copy: true }
    }
}

/// Another policy; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePlacement {
    /// 0: no limit.
    #[serde(default)]
    pub scatter_width: Option<u16>,
    #[serde(default)]
    pub reserve_percent: Option<u8>,
    #[serde(default)]
    pub local_copy: Option<bool>,
}

/// An operator decides about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetNodeState {
    /// Its disks are emptied, and it takes nothing new; or not any more.
    pub drain: bool,
    /// One line for a person.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What share of the cluster's data a disk is to hold: 100 is as much as its size says, 0 nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetDiskWeight {
    pub weight: u32,
}

/// What would happen if these were emptied or lost? Nothing is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhatIf {
    /// Names of nodes.
    #[serde(default)]
    pub nodes: Vec<String>,
    #[serde(default)]
    pub disks: Vec<DiskId>,
}

/// Answer to [`WhatIf`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// Copies that would be put elsewhere.
    pub copies: u64,
    /// Bytes that would be copied: what the disks hold.
    pub bytes: u64,
    /// Copies for which there is no place: their chunks would have fewer copies than they should.
    pub homeless: u64,
    /// Chunks that would have fewer copies than their volumes need to be written.
    pub unwritable: u64,
    /// Chunks with two copies in one zone or rack though they need not be, as they would be.
    pub crowded: u64,
    /// Seconds that it would take at the present limit; absent: there is no limit.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Every disk that would hold something else than now.
    pub disks: Vec<DiskForecast>,
    /// One line for a person.
    pub verdict: String,
}

/// What a disk holds, and would hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskForecast {
    pub disk: DiskId,
    pub node: NodeId,
    pub state: DiskState,
    /// Bytes usable for data.
    pub capacity: u64,
    /// Bytes in use.
    pub before: u64,
    pub after: u64,
    /// What guests ask of it now, and would.
    #[serde(default)]
    pub load_before: Load,
    #[serde(default)]
    pub load_after: Load,
}
