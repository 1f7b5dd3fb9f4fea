//! What this daemon knows that the meta servers may not, where they go on with a state that is too old: what its disks hold, and
//! how far the state had come.

use super::{Control, MetaError};
use crate::core::Command;
use crate::disks::Holdings;
use levee_core::store::LargestIds;
use levee_proto::api::*;
use tracing::{info, warn};

impl Control {
    /// What shows whether the meta servers know all that was given out.
    pub(super) async fn seen(&self) -> Seen {
        let largest = self.cores.ask_all(|done| Command::LargestIds { done }).await;
        let LargestIds { volume, chunk, replica } = largest.into_iter().fold(LargestIds::default(), LargestIds::with);
        let (node, disks) = self.disks.borrow().claims();
        Seen { state: self.state.get(), node, disks, volume, chunk, replica }
    }

    /// Whether the intent is of a state that follows what was seen before. If not, the meta servers are told: they are to go on with
    /// care. Nothing of such an intent is done.
    pub(super) async fn is_newer(&self, intent: &Intent) -> bool {
        let seen = self.state.get();
        if intent.state >= seen {
            self.state.set(intent.state);
            return true;
        }
        warn!(
            "the meta servers' state is older than one that this node has seen: entry {} of generation {}, after {} of {}; they are told",
            intent.state.applied, intent.state.generation, seen.applied, seen.generation
        );
        let _one = self.changing_disks.lock().await;
        if let Err(e) = self.register_again().await {
            warn!("the meta servers could not be told that their state is too old: {e}");
        }
        false
    }

    /// The meta servers do not know this node: it has joined in a part of their state that is lost. One that was removed is refused
    /// by its disks.
    pub(super) async fn join_again(&self, error: &MetaError) {
        let unknown = matches!(error, MetaError::Refused(p) if p.kind == ProblemKind::NotFound);
        if !unknown || self.disks.borrow().len() == 0 {
            return;
        }
        let _one = self.changing_disks.lock().await;
        if let Err(e) = self.register_again().await {
            warn!("the cluster does not know this node any more, and does not take it: {e}");
        }
    }

    /// Reports what the disks hold, once in each generation; whether that is settled.
    pub(super) async fn tell_inventory(&self, generation: u64) -> bool {
        if generation == 0 || self.told_generation.get() == generation {
            return true;
        }
        let registered = {
            let _one = self.changing_disks.lock().await;
            // The state may know another process of this node, or other disks.
            self.register_again().await
        };
        if let Err(e) = registered {
            warn!("what the disks hold could not be told: {e}");
            return false;
        }
        let mut all = Holdings::default();
        let parts = self.cores.ask_all(|done| Command::Holdings { done }).await;
        parts.into_iter().for_each(|part| all.join(part));
        let (count, told) = (all.replicas.len(), self.tell_all(generation, &all).await);
        match told {
            Ok(()) => {
                info!("told the meta servers, who have begun generation {generation}, of {count} copies");
                self.told_generation.set(generation);
                true
            }
            Err(e) => {
                warn!("what the disks hold could not be told: {e}");
                false
            }
        }
    }

    async fn tell_all(&self, generation: u64, all: &Holdings) -> Result<(), MetaError> {
        let (node, incarnation) = (self.joined().node, self.incarnation);
        let fences = all.fences();
        let page = |replicas: &[HeldReplica], fences: &[HeldFence], complete| Inventory {
            incarnation,
            generation,
            replicas: replicas.to_vec(),
            fences: fences.to_vec(),
            complete,
        };
        for some in fences.chunks(MAX_INVENTORY) {
            self.meta.inventory(node, &page(&[], some, false)).await?;
        }
        for some in all.replicas.chunks(MAX_INVENTORY) {
            self.meta.inventory(node, &page(some, &[], false)).await?;
        }
        self.meta.inventory(node, &page(&[], &[], true)).await
    }
}
