//! Reading ancestors through what the host remembers of them ([`crate::shared`]).
//!
//! What nobody knows is read for everybody. What another reader has asked for already, on whichever core, is waited for; if it gives up,
//! whoever waited looks again, and one of them goes on. A wait has an end, for who asked first may know less than others about where the
//! replicas are: then one of those who wait takes its place. Never all of them at once: where disks are slow, a hundred readers
//! that ask for the same make it worse.

use super::ancestors::Layer;
use super::layered::Found;
use super::unread::Unread;
use super::{Cluster, Gateway, Stopped};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use crate::shared::{Claim, Content, LookUp, SharedBlocks, Source, Wait};
use crate::sync::{join_all, timeout};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// So long another reader is waited for, before one of those who wait reads as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a wait.
enum Waited {
    Found(Vec<Content>),
    /// Somebody else's turn: to be looked up again.
    GaveUp,
    /// Our turn.
    TooLong(Claim),
}

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
    ) -> Result<(), Unread> {
        let source = layer.source(index);
        while !runs.is_empty() {
            let LookUp { known, claims, waits } = shared.look_up(source, &runs);
            known.iter().for_each(|(block, content)| found.take_content(*block, content));
            self.read_claimed(layer, index, claims, found).await?;
            runs.clear();
            for wait in waits {
                let blocks = wait.blocks();
                match self.wait_for(shared, source, wait).await? {
                    Waited::Found(all) => blocks.zip(&all).for_each(|(b, content)| found.take_content(b, content)),
                    Waited::GaveUp => runs.push(blocks),
                    Waited::TooLong(claim) => self.read_claimed(layer, index, vec![claim], found).await?,
                }
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
    ) -> Result<(), Unread> {
        let read = async |claim: Claim| {
            let read = self.read_shared(layer, index, &claim.blocks()).await?;
            if let Some((entries, data)) = &read {
                claim.fulfil(Content::of(entries, data));
            }
            Ok::<_, Unread>(read)
        };
        for read in join_all(claims.into_iter().map(read)).await {
            if let Some((entries, data)) = read? {
                found.take(&entries, &data);
            }
        }
        Ok(())
    }

    /// Waits for what another reader finds.
    async fn wait_for(&self, shared: &SharedBlocks, source: Source, mut wait: Wait) -> Result<Waited, Stopped> {
        let ended = timeout(&self.0.rt, PATIENCE, &mut wait).await;
        crate::reached!("reader of an ancestor waited for another");
        self.check_stopped()?;
        Ok(match ended {
            Some(Some(contents)) => Waited::Found(contents),
            Some(None) => Waited::GaveUp,
            None => shared.supersede(source, &wait).map_or(Waited::GaveUp, Waited::TooLong),
        })
    }

    /// The blocks that an ancestor has of a chunk.
    pub(super) async fn presence_through(
        &self,
        shared: &SharedBlocks,
        layer: &Layer,
        index: u32,
    ) -> Result<Arc<BlockSet>, Stopped> {
        let source = layer.source(index);
        loop {
            let LookUp { mut known, mut claims, mut waits } = shared.look_up_presence(source);
            let mut content = known.pop().map(|(_, content)| content);
            if let Some(wait) = waits.pop() {
                match self.wait_for(shared, source, wait).await? {
                    Waited::Found(mut contents) => content = contents.pop(),
                    Waited::GaveUp => {}
                    Waited::TooLong(claim) => claims.push(claim),
                }
            }
            if let Some(claim) = claims.pop() {
                let found = self.ask_presence(layer, index).await?;
                let Some(found) = found else { return Ok(Arc::default()) };
                claim.fulfil(vec![Content::Presence(found.clone())]);
                return Ok(found);
            }
            if let Some(Content::Presence(found)) = content {
                return Ok(found);
            }
        }
    }
}
