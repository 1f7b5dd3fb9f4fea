//! Completing snapshots: sealing replicas.
//!
//! A snapshot is taken when the volume's version moves ([`Gateway::set_versions`]): what was written before belongs to it. Then
//! replicas are *sealed*: told that they hold everything that was ever written at versions up to the frozen one, so that
//! anybody may read it there. When every chunk has `min_copies` sealed members, the snapshot is complete, and the meta server is told.
//!
//! Invariants:
//! - A member is sealed only while it is up to date and owes nothing of those versions, and when every write of them in its
//!   chunk is answered.
//! - Members that come, or come back, later are sealed when they are up to date: also of chunks that are newer than the
//!   snapshot.

use super::chunk::{Chunk, ChunkState, Stage};
use super::session::Waits;
use super::{Accomplished, AllocError, Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use levee_proto::wire::{MAX_LIST, Reply, Request, Status};
use levee_proto::{ChunkId, DiskId, ReplicaId, Version};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tracing::{info, warn};

/// Between two looks at writes and copies that a snapshot waits for: at first, and at most.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// And at members that are to be sealed although nobody waits for it, unless something is heard of them.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// Before the meta server, or a replica that refused, is asked again.
const RETRY: Duration = Duration::from_millis(250);

type Named = (DiskId, ChunkId, ReplicaId);

impl ChunkState {
    /// Whether every write at versions up to this one is answered.
    fn is_written(&self, version: Version) -> bool {
        !self.open.values().any(|op| op.version <= version && !op.answered.get())
    }
}

impl Chunk {
    /// Members that can be sealed at a version, and are not.
    fn to_seal(&self, version: Version) -> Vec<(DiskId, ReplicaId)> {
        let state = self.state.borrow();
        if state.stage != Stage::Served || !state.is_written(version) {
            return vec![];
        }
        let due = state.present().filter(|(_, m)| {
            let owes = m.owes.values().any(|op| op.version <= version);
            m.live && m.is_current() && m.sealed < version && (!owes || crate::mutant!("sealed while it owes writes"))
        });
        due.map(|(_, m)| (m.place.disk, m.place.replica)).collect()
    }

    /// A replica is sealed.
    fn note_sealed(&self, replica: ReplicaId, version: Version) {
        let mut state = self.state.borrow_mut();
        if let Some(member) = state.members.iter_mut().find(|m| m.place.replica == replica) {
            member.sealed = member.sealed.max(version);
        }
    }

    /// Whether so many members are sealed at a version.
    fn is_sealed(&self, version: Version, copies: usize) -> bool {
        self.state.borrow().present().filter(|(_, m)| m.sealed >= version).count() >= copies
    }

    /// Whether all are.
    fn is_wholly_sealed(&self, version: Version) -> bool {
        self.state.borrow().present().all(|(_, m)| m.sealed >= version)
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    pub(super) fn spawn_seals(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move { this.keep_sealed().await });
    }

    /// Seals whatever can be sealed, for as long as the gateway runs.
    async fn keep_sealed(&self) {
        let mut pause = LOOK_MIN;
        while !self.is_stopped() {
            let changed = self.0.changed.listen();
            let head = self.head();
            let Some(frozen) = head.0.checked_sub(1).map(Version).filter(|v| *v >= Version::FIRST) else {
                changed.await;
                continue;
            };
            let sealed = self.seal(frozen).await;
            self.complete_snapshots().await;
            if self.head() != head || sealed > 0 {
                pause = LOOK_MIN;
                continue;
            }
            if self.chunks().iter().all(|c| c.is_wholly_sealed(frozen)) {
                changed.await;
            } else {
                // What it waits for, answers to writes above all, is not told to everybody.
                let is_pending = self.told_versions().pending.is_some();
                timeout(&self.0.rt, pause, changed).await;
                pause = (pause * 2).min(if is_pending { LOOK_MAX } else { IDLE_LOOK });
            }
        }
    }

    /// Seals all members that can be, in one request per core; how many were.
    async fn seal(&self, version: Version) -> usize {
        let mut by_core: BTreeMap<(DiskId, u16), Vec<Named>> = BTreeMap::new();
        let chunks: BTreeMap<ChunkId, Rc<Chunk>> = self.chunks().into_iter().map(|c| (c.id, c)).collect();
        for chunk in chunks.values() {
            for (disk, replica) in chunk.to_seal(version) {
                let Some(session) = self.0.sessions.borrow().get(&disk).filter(|s| s.is_up()).cloned() else {
                    continue;
                };
                let core = self.0.cluster.core_of(session.node, disk, chunk.id);
                by_core.entry((disk, core)).or_default().push((disk, chunk.id, replica));
            }
        }
        let asks = by_core.into_iter().map(|((disk, core), replicas)| {
            let chunks = &chunks;
            async move {
                let mut sealed = 0;
                for part in replicas.chunks(MAX_LIST) {
                    if self.seal_on(disk, core, version, part.to_vec()).await {
                        sealed += part.len();
                        part.iter().for_each(|(_, chunk, replica)| chunks[chunk].note_sealed(*replica, version));
                    }
                }
                sealed
            }
        });
        let sealed: usize = join_all(asks.collect::<Vec<_>>()).await.into_iter().sum();
        self.advance_versions(sealed as u64);
        sealed
    }

    async fn seal_on(&self, disk: DiskId, core: u16, version: Version, replicas: Vec<Named>) -> bool {
        let Some(session) = self.0.sessions.borrow().get(&disk).filter(|s| s.is_up()).cloned() else { return false };
        let (volume, epoch, generation) = (self.0.volume.id, self.0.volume.epoch, session.generation.get());
        let request = Request::Seal { volume, epoch, version, replicas };
        match self.ask_core(Waits::Nobody, &session, core, request).await {
            Ok((Reply::Done, _)) => session.is_live(generation),
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
                false
            }
            Ok((Reply::Error { status: Status::FenceFirst, .. }, _)) => {
                self.distrust(&session, "it was started again");
                false
            }
            Ok((reply, _)) => {
                if session.complain() {
                    warn!(volume = %self.0.volume.name, node = %session.node, "replicas were not sealed: {reply:?}");
                }
                self.pause(RETRY).await;
                false
            }
            Err(_) => false,
        }
    }

    /// Tells the meta server of snapshots that are complete now.
    async fn complete_snapshots(&self) {
        let told = self.told_versions();
        if self.0.hold.is_undecided() {
            return;
        }
        let Some(pending) = told.pending.filter(|v| *v > told.sealed && *v < told.version) else { return };
        let copies = self.min_copies();
        if !self.chunks().iter().all(|c| c.is_sealed(pending, copies)) {
            return;
        }
        self.accomplished(Accomplished::Sealed(pending)).await;
    }

    /// Tells the meta server what was done, until it has heard; and follows what it says then.
    pub(super) async fn accomplished(&self, what: Accomplished) {
        let mut said = false;
        while !self.is_stopped() {
            match self.0.cluster.accomplished(what).await {
                Ok(versions) => {
                    info!(volume = %self.0.volume.name, "{what:?}");
                    if let Err(why) = self.set_versions(versions) {
                        warn!(volume = %self.0.volume.name, "the meta server's versions are refused: {why}");
                    }
                    return self.advance_versions(1);
                }
                Err(AllocError::Fenced(why)) => self.stop(&why),
                Err(AllocError::Retry(why)) => {
                    if !std::mem::replace(&mut said, true) {
                        warn!(volume = %self.0.volume.name, "{what:?} is not known to the meta server: {why}");
                    }
                    self.pause(RETRY).await;
                }
            }
        }
    }
}
