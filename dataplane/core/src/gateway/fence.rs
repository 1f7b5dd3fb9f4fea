//! Fencing a disk: from then on older epochs are refused there; then it is asked what it holds of the volume.
//!
//! The fence comes first, and is durable before the first page is asked for. Nothing but what this gateway sends can change a
//! replica after it, and it sends nothing before it has the last page.

use super::session::{Session, Waits};
use super::{Cluster, Gateway, LinkDown, Stopped};
use crate::ports::Runtime;
use crate::replica::MAX_EPOCH_GAP;
use crate::sync::join_all;
use levee_proto::wire::{ReplicaSummary, Reply, Request, Status};
use levee_proto::{ChunkId, Epoch, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a disk holds of the volume.
type Held = BTreeMap<ReplicaId, ReplicaSummary>;

pub(super) enum FenceError {
    /// A newer gateway exists.
    Deposed(Stopped),
    Down(String),
}

impl FenceError {
    fn refused(status: Status, detail: String) -> FenceError {
        match status {
            Status::Fenced => FenceError::Deposed(Stopped(format!("a newer gateway exists: {detail}"))),
            _ => FenceError::Down(detail),
        }
    }

    fn wrong() -> FenceError {
        FenceError::Down("it gave a wrong answer".into())
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Fences the disk on all cores of the node and gathers what they hold of the volume.
    pub(super) async fn fence(&self, session: &Rc<Session>) -> Result<Held, FenceError> {
        let cores = self.0.cluster.cores(session.node);
        if cores == 0 {
            return Err(FenceError::Down("its address is not known".into()));
        }
        let generation = session.generation.get();
        let fenced = join_all((0..cores).map(|core| self.fence_core(session, core))).await;
        let gaps = fenced.into_iter().collect::<Result<Vec<bool>, _>>()?;
        let members = self.replicas_on(session);
        let held = join_all((0..cores).map(|core| self.held_on(session, core, &members))).await;
        let held = held.into_iter().collect::<Result<Vec<Held>, _>>()?;
        if session.generation.get() != generation {
            return Err(FenceError::Down("the link broke meanwhile".into()));
        }
        session.forgetful.set(gaps.contains(&true));
        Ok(held.into_iter().flatten().collect())
    }

    /// Fences a core's part of the disk; whether it may have forgotten replicas.
    async fn fence_core(&self, session: &Rc<Session>, core: u16) -> Result<bool, FenceError> {
        let request = self.fence_at(self.0.volume.epoch, session);
        match self.ask_core(Waits::Nobody, session, core, request).await {
            Ok((Reply::Fenced { disks, .. }, _)) if !disks.contains(&session.disk) => {
                Err(FenceError::Down("the disk is not there, or has failed".into()))
            }
            Ok((Reply::Fenced { gaps, .. }, _)) => Ok(gaps.contains(&session.disk)),
            Ok((Reply::Error { status: Status::FarAhead, detail }, _)) => {
                self.come_nearer(session, core).await;
                Err(FenceError::Down(detail))
            }
            Ok((Reply::Error { status, detail }, _)) => Err(FenceError::refused(status, detail)),
            Ok(_) => Err(FenceError::wrong()),
            Err(LinkDown(why)) => Err(FenceError::Down(why)),
        }
    }

    fn fence_at(&self, epoch: Epoch, session: &Session) -> Request {
        let (volume, era) = (self.0.volume.id, self.0.volume.era);
        Request::Fence { volume, era, epoch, disks: vec![session.disk] }
    }

    /// Fences a core that has last heard of the volume very long ago, or never, at epochs before this one: each is refused or
    /// takes it one step nearer. They are of gateways that are gone.
    async fn come_nearer(&self, session: &Rc<Session>, core: u16) {
        for epoch in (MAX_EPOCH_GAP..self.0.volume.epoch.0).step_by(MAX_EPOCH_GAP as usize) {
            // Whatever is answered: the next attempt tells.
            drop(self.ask_core(Waits::Nobody, session, core, self.fence_at(Epoch(epoch), session)).await);
        }
    }

    /// The replicas that the volume has on the disk, as far as we know.
    fn replicas_on(&self, session: &Session) -> BTreeSet<ReplicaId> {
        let on_disk = |c: &Rc<super::Chunk>| Some(c.place(c.member_on(session.disk)?).replica);
        self.0.chunks.borrow().iter().flatten().filter_map(on_disk).collect()
    }

    /// What a core's part of the disk holds, page by page. Of others than the volume's members nothing is kept: that bounds
    /// what a daemon can make us remember.
    async fn held_on(
        &self,
        session: &Rc<Session>,
        core: u16,
        members: &BTreeSet<ReplicaId>,
    ) -> Result<Held, FenceError> {
        let (volume, epoch, disk) = (self.0.volume.id, self.0.volume.epoch, session.disk);
        let max = self.0.options.replicas_per_page;
        let (mut all, mut after) = (Held::new(), ChunkId(0));
        loop {
            let request = Request::Replicas { volume, epoch, disk, after, max };
            let (replicas, more) = match self.ask_core(Waits::Nobody, session, core, request).await {
                Ok((Reply::Replicas { replicas, more }, _)) => (replicas, more),
                Ok((Reply::Error { status, detail }, _)) => return Err(FenceError::refused(status, detail)),
                Ok(_) => return Err(FenceError::wrong()),
                Err(LinkDown(why)) => return Err(FenceError::Down(why)),
            };
            if !goes_on(&replicas, after, more) {
                return Err(FenceError::wrong());
            }
            after = replicas.last().map_or(after, |r| r.chunk);
            all.extend(replicas.into_iter().filter(|r| members.contains(&r.replica)).map(|r| (r.replica, r)));
            if !more || crate::mutant!("later pages of a fence are ignored") {
                return Ok(all);
            }
            crate::reached!("another page of a fence");
        }
    }
}

/// Whether a page begins behind the one before, and comes nearer to the end.
fn goes_on(page: &[ReplicaSummary], after: ChunkId, more: bool) -> bool {
    page.first().map_or(!more, |r| r.chunk > after) && page.windows(2).all(|w| w[0].chunk < w[1].chunk)
}
