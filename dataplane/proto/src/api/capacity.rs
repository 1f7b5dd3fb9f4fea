//! How much the cluster holds, has promised, and may take, in the API's terms.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most that may be promised, in percent of the capacity: a thousand times.
pub const MAX_OVER_PROVISION_PERCENT: u32 = 100_000;

/// What operators allow. The whole cluster's, kept by the meta servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapacityLimits {
    /// Volumes may have so much in all, size times copies, in percent of the capacity of the disks in service: 300 is three
    /// times as much. None: no limit.
    pub over_provision_percent: Option<u32>,
    /// From this use of the disks on, in percent, the cluster says that it fills up. None: never.
    pub warn_percent: Option<u8>,
    /// From this use on, in percent, what would take more is refused: new volumes, clones, snapshots, larger sizes. None: never.
    pub full_percent: Option<u8>,
}

impl Default for CapacityLimits {
    fn default() -> CapacityLimits {
        CapacityLimits { over_provision_percent: None, warn_percent: Some(80), full_percent: Some(95) }
    }
}

/// Another value for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    None,
    Percent(u32),
}

impl Limit {
    pub fn percent(self) -> Option<u32> {
        match self {
            Limit::None => None,
            Limit::Percent(percent) => Some(percent),
        }
    }
}

/// Changes limits; those that are absent stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeLimits {
    /// 1 to 100,000 percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_provision: Option<Limit>,
    /// 1 to 100 percent, no more than `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Limit>,
    /// 1 to 100 percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Limit>,
}

/// How full the cluster is, by its own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityLevel {
    #[default]
    Fine,
    /// It fills up.
    Warn,
    /// What would take more is refused.
    Full,
}

/// What the cluster holds and may take. All in bytes; only disks in service count, and of volumes those that were not deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapacityInfo {
    pub limits: CapacityLimits,
    pub capacity: u64,
    /// What volumes may come to hold: the sum of their sizes, times copies.
    pub provisioned: u64,
    /// The most that this may be; absent: no limit.
    #[serde(default)]
    pub provisionable: Option<u64>,
    /// What is used of `reported`.
    pub used: u64,
    /// Capacity of the disks that their daemons have reported on since the present leader leads.
    pub reported: u64,
    pub level: CapacityLevel,
    /// If it is not fine: what is so, and what to do; one line for a person.
    #[serde(default)]
    pub detail: Option<String>,
}
