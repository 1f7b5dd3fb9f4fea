//! Reading ancestors through what the host remembers of them ([`crate::shared`]).
//!
//! What nobody knows is read for everybody. What another reader has asked for already, on whichever core, is waited for; if it gives up,
//! whoever waited looks again, and one of them goes on. A wait has an end: who asked first may know less than we do about where the
//! replicas are.

use super::ancestors::Layer;
use super::layered::Found;
use super::{Cluster, Gateway, Stopped};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use crate::shared::{Claim, Content, LookUp, SharedBlocks, Wait};
use crate::sync::{join_all, timeout};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// So long another reader is waited for, before we read ourselves. Long: where disks are slow, nothing is gained by
/// having a hundred readers ask for the same.
const PATIENCE: Duration = Duration::from_secs(2);

impl Found {
    fn take_content(&mut self, block: u32, content: &Content) {
        match content {
            Content::Data(data) => self.take_block(block, Some(data)),
            Content::Zero => self.take_block(block, None),
            Content::Absent | Content::Presence(_) => {}
        }
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Reads blocks of one stripe unit of an ancestor.
    pub(super) async fn read_through(
        &self,
        shared: &SharedBlocks,
        layer: &Layer,
        index: u32,
        mut runs: Vec<Range<u32>>,
        found: &mut Found,
    ) -> Result<(), Stopped> {
        let deadline = self.0.rt.now() + PATIENCE;
        while !runs.is_empty() && self.0.rt.now() < deadline {
            let LookUp { known, claims, waits } = shared.look_up(layer.source(index), &runs);
            known.iter().for_each(|(block, content)| found.take_content(*block, content));
            self.read_claimed(layer, index, claims, found).await?;
            runs.clear();
            for wait in waits {
                let blocks = wait.blocks();
                match self.wait_for(wait, deadline).await? {
                    Some(contents) => blocks.zip(&contents).for_each(|(b, content)| found.take_content(b, content)),
                    None => runs.push(blocks),
                }
            }
        }
        for run in runs {
            if let Some((entries, data)) = self.read_shared(layer, index, &run).await? {
                shared.put(layer.source(index), run.start, &Content::of(&entries, &data));
                found.take(&entries, &data);
            }
        }
        Ok(())
    }

    /// Reads for everybody.
    async fn read_claimed(
        &self,
        layer: &Layer,
        index: u32,
        claims: Vec<Claim>,
        found: &mut Found,
    ) -> Result<(), Stopped> {
        let read = async |claim: Claim| {
            let read = self.read_shared(layer, index, &claim.blocks()).await?;
            if let Some((entries, data)) = &read {
                claim.fulfil(Content::of(entries, data));
            }
            Ok(read)
        };
        for read in join_all(claims.into_iter().map(read)).await {
            if let Some((entries, data)) = read? {
                found.take(&entries, &data);
            }
        }
        Ok(())
    }

    /// What another reader finds; `None` if it gives up, or takes too long.
    async fn wait_for(&self, wait: Wait, deadline: Duration) -> Result<Option<Vec<Content>>, Stopped> {
        let left = deadline.saturating_sub(self.0.rt.now());
        let contents = timeout(&self.0.rt, left, wait).await.flatten();
        crate::reached!("reader of an ancestor waited for another");
        self.check_stopped()?;
        Ok(contents)
    }

    /// The blocks that an ancestor has of a chunk.
    pub(super) async fn presence_through(
        &self,
        shared: &SharedBlocks,
        layer: &Layer,
        index: u32,
    ) -> Result<Arc<BlockSet>, Stopped> {
        let deadline = self.0.rt.now() + PATIENCE;
        while self.0.rt.now() < deadline {
            let LookUp { mut known, mut claims, mut waits } = shared.look_up_presence(layer.source(index));
            let content = if let Some(claim) = claims.pop() {
                let found = self.ask_presence(layer, index).await?;
                let Some(found) = found else { return Ok(Arc::default()) };
                claim.fulfil(vec![Content::Presence(found.clone())]);
                Some(Content::Presence(found))
            } else if let Some(wait) = waits.pop() {
                self.wait_for(wait, deadline).await?.and_then(|mut contents| contents.pop())
            } else {
                known.pop().map(|(_, content)| content)
            };
            if let Some(Content::Presence(found)) = content {
                return Ok(found);
            }
        }
        Ok(self.ask_presence(layer, index).await?.unwrap_or_default())
    }
}
