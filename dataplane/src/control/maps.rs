//! The rest of a map: what describes a volume has only its first chunks.

use super::meta::{MetaClient, MetaError};
use levee_proto::api::{ChunkInfo, ParentInfo};
use levee_proto::{Epoch, VolumeId};

type Result<T> = std::result::Result<T, MetaError>;

fn again(e: MetaError) -> MetaError {
    MetaError::Unreachable(e.to_string())
}

impl MetaClient {
    /// Asks for what is missing of a volume's map; `epoch`: only while it is the volume's newest.
    pub(super) async fn complete_map(
        &self,
        volume: VolumeId,
        epoch: Option<Epoch>,
        chunks: &mut Vec<ChunkInfo>,
        more: &mut bool,
    ) -> Result<()> {
        while *more {
            let last = chunks.last().map(|c| c.index);
            let page = self.map_page(volume, epoch, last).await?;
            let goes_on = page.chunks.first().is_none_or(|c| last.is_none_or(|last| c.index > last));
            if !goes_on || (page.more && page.chunks.is_empty()) {
                return Err(MetaError::Unreachable(format!(
                    "the map of volume {volume} does not go on where it ended"
                )));
            }
            chunks.extend(page.chunks);
            *more = page.more;
        }
        Ok(())
    }

    /// The same of a volume's ancestors, and of what mirrors them. One that is gone meanwhile says nothing of the volume itself:
    /// it is asked again which there are.
    pub(super) async fn complete_ancestors(&self, parent: &mut Option<ParentInfo>) -> Result<()> {
        let mut next = parent.as_mut();
        while let Some(ancestor) = next {
            let ParentInfo { volume, chunks, more, .. } = ancestor;
            self.complete_map(*volume, None, chunks, more).await.map_err(again)?;
            for mirror in &mut ancestor.mirrors {
                self.complete_map(mirror.volume, None, &mut mirror.chunks, &mut mirror.more).await.map_err(again)?;
            }
            next = ancestor.parent.as_deref_mut();
        }
        Ok(())
    }
}
