//! Commit points: up to which seq every member of a chunk holds exactly the same entries.
//!
//! What lies at or below it can never be in doubt, so a takeover, and a member that comes back, need only be asked for what
//! lies above. It is told only while every member is up to date: the absent ones, too, have to hold everything (H5 of the
//! protocol), and a newcomer begins at zero.

use super::chunk::Chunk;
use super::session::Waits;
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::join_all;
use levee_proto::wire::{MAX_LIST, Request};
use levee_proto::{ChunkId, DiskId, Epoch, ReplicaId, Seq};
use std::collections::BTreeMap;
use std::rc::Rc;

type Point = (DiskId, ChunkId, ReplicaId, Seq);

impl Chunk {
    /// The largest seq up to which all members hold everything, if they do, and it is news to one of them.
    fn commit_point(&self, epoch: Epoch) -> Option<Seq> {
        if !self.is_served() || !self.is_healthy() {
            return None;
        }
        let state = self.state.borrow();
        let next = match state.open.first_key_value() {
            Some((seq, _)) => seq.counter(),
            None => state.next_counter(),
        };
        // What older epochs left is part of what was adopted. Without a write in this one, members hold nothing so high.
        let point = Seq::new(epoch, next - 1);
        (next > 1 && self.is_news(point)).then_some(point)
    }

    fn is_news(&self, point: Seq) -> bool {
        point > self.committed.get() || (self.untold.get() && point == self.committed.get())
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    pub(super) fn spawn_commits(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move {
            while !this.is_stopped() {
                this.pause(this.0.options.commit_period).await;
                this.commit().await;
            }
        });
    }

    async fn commit(&self) {
        let epoch = self.0.volume.epoch;
        let due = self.chunks().into_iter().filter_map(|c| Some((c.commit_point(epoch)?, c)));
        self.tell_commits(due.collect()).await;
    }

    /// Commits what older epochs left of chunks that are not written to in this one, as far as all members tell that they hold it.
    pub(super) async fn commit_unwritten(&self, chunks: &[Rc<Chunk>]) {
        let due = chunks.iter().filter_map(|c| Some((self.unwritten_point(c)?, c.clone())));
        self.tell_commits(due.collect()).await;
    }

    fn unwritten_point(&self, chunk: &Chunk) -> Option<Seq> {
        if !chunk.is_served() || !chunk.is_healthy() || chunk.state.borrow().next_counter() > 1 {
            return None;
        }
        let held = chunk.members().into_iter().map(|(i, _)| self.summary(chunk, i).map_or(Seq::ZERO, |s| s.max_seq));
        held.min().filter(|point| chunk.is_news(*point))
    }

    /// Tells members the commit points of their chunks.
    async fn tell_commits(&self, due: Vec<(Seq, Rc<Chunk>)>) {
        let epoch = self.0.volume.epoch;
        let mut by_core: BTreeMap<(DiskId, u16), Vec<Point>> = BTreeMap::new();
        for (seq, chunk) in &due {
            chunk.committed.set(*seq);
            chunk.untold.set(false);
            for (_, place) in chunk.members() {
                let core = self.0.cluster.core_of(place.node, place.disk, chunk.id);
                by_core.entry((place.disk, core)).or_default().push((place.disk, chunk.id, place.replica, *seq));
            }
        }
        let asks = by_core.into_iter().map(|((disk, core), points)| async move {
            let session = self.0.sessions.borrow().get(&disk).filter(|s| s.is_up()).cloned();
            let Some(session) = session else { return };
            for points in points.chunks(MAX_LIST) {
                let (volume, points) = (self.0.volume.id, points.to_vec());
                // A refusal says that something happened to the replica, which other requests find out and deal with; it
                // is told again when it has come back.
                let request = Request::Commit { volume, epoch, points };
                let _ = self.ask_core(Waits::Nobody, &session, core, request).await;
            }
        });
        join_all(asks.collect::<Vec<_>>()).await;
    }
}
