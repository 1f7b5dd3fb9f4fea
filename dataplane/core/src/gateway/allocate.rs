//! Chunks come into being when a group of them is first written.

use super::chunk::Chunk;
use super::{AllocError, Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::{Event, join_all};
use bytes::Bytes;
use levee_proto::api::ChunkInfo;
use levee_proto::wire::{Reply, Request, Status};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tracing::warn;

/// Before asking the meta server again.
const RETRY: Duration = Duration::from_millis(250);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// The chunk at `index`, allocated with its whole group if it is not there yet. The group after it
    /// is allocated ahead, so that a sequential writer does not wait for the meta server.
    pub(super) async fn allocated(&self, index: u32) -> Result<Rc<Chunk>, Stopped> {
        self.check_writable()?;
        let group = self.0.volume.geometry.group_of(index);
        self.allocate_group(group.start);
        if group.end < self.0.volume.geometry.chunk_count(self.size()) && self.chunk(group.end).is_none() {
            self.allocate_group(group.end);
        }
        loop {
            self.check_stopped()?;
            if let Some(chunk) = self.chunk(index) {
                return Ok(chunk);
            }
            self.allocate_group(group.start);
            let waiting = self.0.allocating.borrow().get(&group.start).map(Event::listen);
            if let Some(done) = waiting {
                done.await;
            }
        }
    }

    /// Begins to allocate what is not there of a group, unless that is going on.
    fn allocate_group(&self, first: u32) {
        let missing: Vec<u32> =
            self.0.volume.geometry.group_of(first).filter(|index| self.chunk(*index).is_none()).collect();
        if self.0.allocating.borrow().contains_key(&first) || missing.is_empty() {
            return;
        }
        self.0.allocating.borrow_mut().insert(first, Event::new());
        let this = self.clone();
        self.0.rt.spawn(async move {
            let chunks = this.ask_for_chunks(missing).await;
            chunks.iter().for_each(|chunk| this.add_chunk(chunk.clone()));
            let done = this.0.allocating.borrow_mut().remove(&first);
            done.iter().for_each(Event::notify);
            // Writes go on as soon as enough replicas are there: nobody waits for the slowest.
            join_all(chunks.iter().map(|chunk| this.create(chunk))).await;
        });
    }

    /// Asks for chunks until there are some, or the gateway stops.
    async fn ask_for_chunks(&self, indexes: Vec<u32>) -> Vec<Rc<Chunk>> {
        let mut said = None;
        while !self.is_stopped() {
            match self.0.cluster.allocate(indexes.clone()).await {
                Ok(chunks) => match self.check_answer(&indexes, &chunks) {
                    Ok(()) => return chunks.iter().map(|c| Chunk::new(c, true, self.0.orders.at(c.index))).collect(),
                    Err(why) => warn!(volume = %self.0.volume.name, "the meta server's chunks are refused: {why}"),
                },
                Err(AllocError::Fenced(why)) => self.stop(&why),
                Err(AllocError::Retry(why)) if !self.is_stopped() && said.as_ref() != Some(&why) => {
                    warn!(volume = %self.0.volume.name, "writes wait for new chunks: {why}");
                    said = Some(why);
                }
                Err(AllocError::Retry(_)) => {}
            }
            self.pause(RETRY).await;
        }
        vec![]
    }

    /// Whether the chunks are those asked for, each once.
    fn check_answer(&self, indexes: &[u32], chunks: &[ChunkInfo]) -> Result<(), String> {
        super::check_chunks(&self.0.volume, self.size(), chunks)?;
        let got: BTreeSet<u32> = chunks.iter().map(|c| c.index).collect();
        if got.len() != chunks.len() || !got.iter().eq(indexes) {
            return Err(format!("asked for {indexes:?}, it gave {got:?}"));
        }
        Ok(())
    }

    /// Has the replicas of a chunk made that is new in this epoch. There is nothing to reconcile, so
    /// they are born adopted; those that cannot be made now are made when their node is back.
    async fn create(&self, chunk: &Rc<Chunk>) {
        let sessions: Vec<_> = chunk.members().into_iter().map(|(_, place)| self.session(place)).collect();
        join_all(sessions.iter().map(|session| self.catch_up_chunk(chunk, session, session.generation.get()))).await;
        sessions.iter().for_each(|session| session.changed.notify());
    }

    /// Makes one replica. Returns the session in which it was made.
    pub(super) async fn create_replica(&self, chunk: &Rc<Chunk>, member: usize, adopted: bool) -> Option<u64> {
        let session = self.session_of(chunk, member);
        let generation = session.generation.get();
        if !session.is_up() {
            return None;
        }
        let target = self.target(chunk, member);
        match self.ask(chunk.waits(), &session, &target, Request::Create { target, adopted }, Bytes::new()).await {
            Ok((Reply::Done, _)) => Some(generation),
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
                None
            }
            Ok((Reply::Error { status: Status::FenceFirst, detail }, _)) => {
                self.distrust(&session, &format!("a replica could not be made: {detail}"));
                None
            }
            Ok((reply, _)) => {
                // It concerns this replica alone (its disk is gone, perhaps): the node's others go on.
                if session.complain() {
                    let (volume, chunk) = (&self.0.volume.name, chunk.id);
                    warn!(%volume, %chunk, node = %session.node, "a replica could not be made: {reply:?}; trying on");
                }
                None
            }
            Err(_) => None,
        }
    }
}
