//! Times in which nothing is repaired, because somebody works on the machines.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest window, seconds: a week. One that is forgotten must not leave the cluster without repair for ever.
pub const MAX_MAINTENANCE_S: u64 = 7 * 24 * 3600;

/// Begins a window, or gives the present one another end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartMaintenance {
    /// Name of the node that is worked on; absent: the whole cluster.
    #[serde(default)]
    pub node: Option<String>,
    /// How long, at most [`MAX_MAINTENANCE_S`].
    pub seconds: u64,
    /// One line for a person.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MaintenanceWindow {
    /// Absent: the whole cluster.
    #[serde(default)]
    pub node: Option<String>,
    /// Milliseconds since 1970.
    pub since_ms: u64,
    pub until_ms: u64,
    #[serde(default)]
    pub reason: Option<String>,
}

/// The windows that are not over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MaintenanceInfo {
    pub windows: Vec<MaintenanceWindow>,
}
