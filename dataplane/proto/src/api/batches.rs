//! Many things by one request.

use super::{CreateVolume, Problem};
use crate::ids::VolumeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Creates volumes that need not have anything in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateVolumes {
    /// 1 to 10,000.
    #[schema(min_items = 1, max_items = 10_000)]
    pub volumes: Vec<CreateVolume>,
    /// All of them or none; if false, each by itself.
    #[serde(default)]
    pub atomic: bool,
}

/// What became of one volume of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedVolume {
    pub name: String,
    /// Absent if it was not created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<VolumeId>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedVolumes {
    pub created: u32,
    /// How many were not created.
    pub refused: u32,
    /// In the order asked for.
    pub items: Vec<CreatedVolume>,
}
