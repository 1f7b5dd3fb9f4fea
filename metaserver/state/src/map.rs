//! Maps: where the chunks of a volume are, page by page.
//!
//! What describes a volume, its ancestors and their mirrors has room for [`MAP_PAGE`] chunks in all. The rest is asked for volume by
//! volume. Pages of one volume fit together: of one that is open only its gateway changes the map, which asks for it before it
//! does anything else, and names its epoch; of an ancestor, each chunk by itself says where it can be read.

use crate::state::State;
use crate::tables::Volume;
use crate::view::no_volume;
use levee_proto::api::{ChunkInfo, ChunkPage, MAP_PAGE, Problem, ProblemKind};
use levee_proto::{Epoch, VolumeId};
use std::ops::Bound;

/// What an answer has room for.
pub(crate) struct Room(usize);

impl Room {
    pub fn new() -> Room {
        Room(MAP_PAGE)
    }

    /// The volume's first chunks, as many as there is room for, and whether there are more.
    pub fn take(&mut self, volume: &Volume) -> ChunkPage {
        let page = page(volume, None, self.0);
        self.0 -= page.chunks.len();
        page
    }
}

impl State {
    /// The chunks of a volume behind an index; `epoch`: only while it is the volume's newest.
    pub fn map_page(&self, id: VolumeId, epoch: Option<Epoch>, after: Option<u32>) -> Result<ChunkPage, Problem> {
        let volume = self.tables.volumes.get(&id).ok_or_else(|| no_volume(id))?;
        if epoch.is_some_and(|epoch| epoch != volume.epoch) {
            let detail =
                format!("volume '{}' is at epoch {}: this gateway is not its newest", volume.name, volume.epoch);
            return Err(Problem::new(ProblemKind::Fenced, detail));
        }
        Ok(page(volume, after, MAP_PAGE))
    }
}

fn page(volume: &Volume, after: Option<u32>, most: usize) -> ChunkPage {
    let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let mut rest = volume.chunks.range(behind);
    let chunks: Vec<ChunkInfo> = rest.by_ref().take(most).map(|(index, chunk)| chunk.info(*index)).collect();
    ChunkPage { chunks, more: rest.next().is_some() }
}
