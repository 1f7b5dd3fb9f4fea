//! Moving copies so that disks are used alike.

use super::DiskForecast;
use crate::ids::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most moves of one rebalance.
pub const MAX_MOVES: usize = 100_000;
/// Most moves that a plan names one by one.
pub const MAX_SHOWN_MOVES: usize = 1000;

/// What is to be made even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RebalanceGoal {
    /// The share of each disk that is used.
    #[default]
    Space,
    /// What guests ask of each disk, as far as space allows it.
    Load,
}

/// Asks for a plan, or for it to be carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalanceRequest {
    #[serde(default)]
    pub goal: RebalanceGoal,
    /// How far above the mean the fullest disk may stay, percent, 1 to 100; 3 if absent.
    #[serde(default)]
    pub tolerance_percent: Option<u8>,
    /// Most bytes to move.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

/// What would be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalancePlan {
    pub goal: RebalanceGoal,
    /// How many copies, and their bytes.
    pub count: u64,
    pub bytes: u64,
    /// Seconds at the present limit of background copying; absent: there is no limit.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// The fullest disk's use over the mean, in thousandths, now and afterwards; of the busiest one with goal `load`.
    pub imbalance_before: u64,
    pub imbalance_after: u64,
    pub disks: Vec<DiskForecast>,
    /// At most [`MAX_SHOWN_MOVES`] of them.
    pub moves: Vec<PlannedMove>,
    /// What kept the plan from doing better, if something did: one line for a person.
    #[serde(default)]
    pub remark: Option<String>,
}

/// One copy goes from one disk to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMove {
    pub volume: VolumeId,
    /// Position of the chunk in the volume.
    pub index: u32,
    pub replica: ReplicaId,
    pub from: DiskId,
    pub to: DiskId,
    /// What it held when the plan was made.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RebalanceState {
    /// There never was one.
    #[default]
    None,
    Running,
    Done,
    Cancelled,
}

/// How the last rebalance does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalanceStatus {
    pub state: RebalanceState,
    pub goal: RebalanceGoal,
    /// Moves: all, those that are done, those under way, those that were given up because something had changed.
    pub moves: u64,
    pub done: u64,
    pub under_way: u64,
    pub skipped: u64,
    pub bytes: u64,
    pub done_bytes: u64,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub started_ms: Option<u64>,
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Why the last move that was given up was: one line for a person.
    #[serde(default)]
    pub last_skip: Option<String>,
}
