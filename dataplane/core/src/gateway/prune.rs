//! Pruning: what no live view reads is dropped, in the background.
//!
//! It comes into being when a snapshot is deleted, and, from then on, whenever the head overwrites what only the deleted
//! snapshot's version shows. Replicas decide entry by entry, up to their commit point, which is the same on all members: so what
//! one of them drops, the others hold or have dropped as well.
//!
//! Only chunks all of whose members are up to date are pruned: the commit point of others does not move.

use super::chunk::Chunk;
use super::session::Waits;
use super::versions::live;
use super::{Accomplished, Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::timeout;
use levee_proto::api::VolumeVersions;
use levee_proto::wire::{Reply, Request, Status};
use levee_proto::{ChunkId, DiskId, Epoch, ReplicaId, Seq, Version};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Replicas in one request: each may be a walk over all its entries.
const REPLICAS: usize = 8;
const _: () = assert!(REPLICAS <= levee_proto::wire::MAX_PRUNE);
/// Between looks at chunks that cannot be pruned yet.
const LOOK: Duration = Duration::from_millis(500);
/// What the head overwrites is looked for so often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between requests, so that guests have their turn.
const PAUSE: Duration = Duration::from_millis(1);

/// The number of the versions that are, or were, applied, and the counter of the next write when that was begun.
type Pass = (u64, u64);
type Named = (DiskId, ChunkId, ReplicaId);

/// How far a chunk has been pruned.
#[derive(Default)]
pub(super) struct PruneState {
    /// Waits until everything before it is committed.
    wanted: Cell<Option<Pass>>,
    done: Cell<Option<Pass>>,
}

impl Chunk {
    /// Whether something may be there to be dropped: the views or, if that counts, the chunk have changed.
    fn is_prune_due(&self, number: u64, is_asked: bool) -> bool {
        match self.pruned.done.get() {
            Some((done, _)) if is_asked => done != number,
            done => done != Some((number, self.state.borrow().next_counter())),
        }
    }

    /// The pass that is to be made, if everything that was written before it began is committed by all members.
    fn ready_to_prune(&self, number: u64, epoch: Epoch) -> Option<Pass> {
        let begin = || (number, self.state.borrow().next_counter());
        let pass = self.pruned.wanted.get().filter(|(wanted, _)| *wanted == number).unwrap_or_else(begin);
        self.pruned.wanted.set(Some(pass));
        let is_whole = self.is_served() && self.is_healthy();
        let is_committed = || self.committed.get() >= Seq::new(epoch, pass.1 - 1) && !self.untold.get();
        (is_whole && (pass.1 == 1 || is_committed())).then_some(pass)
    }

    fn pruned(&self, pass: Pass) {
        self.pruned.done.set(Some(pass));
        self.pruned.wanted.set(None);
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    pub(super) fn spawn_prune(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move { this.keep_pruned().await });
    }

    async fn keep_pruned(&self) {
        while !self.is_stopped() {
            let changed = self.0.changed.listen();
            let told = self.told_versions();
            if self.head() == Version::FIRST {
                changed.await;
                continue;
            }
            let is_asked = told.prune;
            let left = self.prune_chunks(&told).await;
            match is_asked {
                true if left == 0 && self.told_versions().number == told.number => {
                    self.accomplished(Accomplished::Pruned(told.number)).await;
                    if self.told_versions().number == told.number {
                        self.pause(LOOK).await;
                    }
                }
                true => self.pause(LOOK).await,
                false => self.wait_for_prune(&told).await,
            }
        }
    }

    /// Waits until the meta server wants something pruned, or it is time to look again.
    async fn wait_for_prune(&self, told: &Rc<VolumeVersions>) {
        let end = self.0.rt.now() + INTERVAL;
        while !self.is_stopped() && self.0.rt.now() < end && !self.told_versions().prune {
            let changed = self.0.changed.listen();
            if Rc::ptr_eq(told, &self.told_versions()) {
                // Never so short that clocks do not show it.
                timeout(&self.0.rt, end.saturating_sub(self.0.rt.now()).max(LOOK), changed).await;
            } else {
                return self.pause(LOOK).await;
            }
        }
    }

    /// Prunes the chunks that can be; how many cannot yet.
    async fn prune_chunks(&self, told: &Rc<VolumeVersions>) -> usize {
        let (keep, number) = (live(told), told.number);
        let due: Vec<_> = self.chunks().into_iter().filter(|c| c.is_prune_due(number, told.prune)).collect();
        self.commit_unwritten(&due).await;
        let mut left = 0;
        for part in due.chunks(REPLICAS) {
            if self.is_stopped() || self.told_versions().number != number {
                return due.len();
            }
            let ready = part.iter().filter_map(|c| Some((c.ready_to_prune(number, self.0.volume.epoch)?, c)));
            let ready: Vec<(Pass, &Rc<Chunk>)> = ready.collect();
            left += part.len() - ready.len();
            if ready.is_empty() {
                continue;
            }
            match self.prune_replicas(&ready, &keep).await {
                true => ready.iter().for_each(|(pass, c)| c.pruned(*pass)),
                false => left += ready.len(),
            }
            self.pause(PAUSE).await;
        }
        left
    }

    /// Has all replicas of chunks pruned; whether all were.
    async fn prune_replicas(&self, chunks: &[(Pass, &Rc<Chunk>)], keep: &[levee_proto::View]) -> bool {
        let mut by_core: BTreeMap<(DiskId, u16), Vec<Named>> = BTreeMap::new();
        for (_, chunk) in chunks {
            for (_, place) in chunk.members() {
                let core = self.0.cluster.core_of(place.node, place.disk, chunk.id);
                by_core.entry((place.disk, core)).or_default().push((place.disk, chunk.id, place.replica));
            }
        }
        let mut all = true;
        for ((disk, core), replicas) in by_core {
            let Some(session) = self.0.sessions.borrow().get(&disk).filter(|s| s.is_up()).cloned() else {
                return false;
            };
            let (volume, epoch, keep) = (self.0.volume.id, self.0.volume.epoch, keep.to_vec());
            let request = Request::Prune { volume, epoch, keep, replicas };
            match self.ask_core(Waits::Nobody, &session, core, request).await {
                Ok((Reply::Pruned { dropped }, _)) => self.advance_versions(dropped + 1),
                Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                    self.stop(&format!("a newer gateway exists: {detail}"));
                    return false;
                }
                // Asked again and again, it would never count as quiet, and nobody would find out.
                Ok((Reply::Error { status: Status::FenceFirst, .. }, _)) => {
                    self.distrust(&session, "it was started again");
                    all = false;
                }
                // Something happened to a replica, which other requests find out and deal with.
                _ => all = false,
            }
        }
        all
    }
}
