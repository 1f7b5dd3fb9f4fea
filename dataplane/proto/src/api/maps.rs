//! Where the chunks of volumes are, page by page: those of a large one do not fit into one answer.

use super::ChunkInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Chunks that one answer describes, those of ancestors and mirrors included.
pub const MAP_PAGE: usize = 4096;

/// Chunks of a volume, in index order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkPage {
    pub chunks: Vec<ChunkInfo>,
    /// There are others behind the last one.
    #[serde(default)]
    pub more: bool,
}
