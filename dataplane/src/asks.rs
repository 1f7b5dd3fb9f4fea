//! What a core asks of the meta server, through the control thread.

use levee_core::gateway::{Accomplished, AllocError};
use levee_proto::Epoch;
use levee_proto::api::{AttachmentId, ChangedReplicas, ChunkInfo, ParentInfo, ReplicaChange, VolumeVersions};
use std::future::Future;
use std::sync::Arc;

/// Questions that may wait for the control thread.
pub const QUEUE: usize = 256;

/// An answer, or why there is none.
pub type Answer<T> = Result<T, AllocError>;

/// On whose behalf the meta server is asked: the gateway of one attachment of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// What the volume is called: for messages, and for those who read them.
    pub name: Arc<str>,
    pub caller: AttachmentId,
}

impl Attached {
    /// Of a call.
    pub fn path(&self, what: &str) -> String {
        format!("/v1/volumes/{}/{what}?{}", self.name, self.caller.query())
    }
}

/// Chunks that a volume needs.
pub struct AllocateAsk {
    pub volume: Attached,
    pub epoch: Epoch,
    pub indexes: Vec<u32>,
    pub answer: async_channel::Sender<Answer<Vec<ChunkInfo>>>,
}

/// Other replica sets for chunks of a volume.
pub struct ChangeAsk {
    pub volume: Attached,
    pub epoch: Epoch,
    pub changes: Vec<ReplicaChange>,
    pub answer: async_channel::Sender<Answer<ChangedReplicas>>,
}

/// What was done about a volume's versions.
pub struct VersionsAsk {
    pub volume: Attached,
    pub epoch: Epoch,
    pub what: Accomplished,
    pub answer: async_channel::Sender<Answer<VolumeVersions>>,
}

/// Where a volume's ancestors are.
pub struct ParentAsk {
    pub volume: Attached,
    pub answer: async_channel::Sender<Answer<Option<ParentInfo>>>,
}

/// A core's way to the control thread. A cheap handle.
#[derive(Clone)]
pub struct Asks {
    allocate: async_channel::Sender<AllocateAsk>,
    change: async_channel::Sender<ChangeAsk>,
    versions: async_channel::Sender<VersionsAsk>,
    parent: async_channel::Sender<ParentAsk>,
}

/// The control thread's end.
pub struct Asked {
    pub allocate: async_channel::Receiver<AllocateAsk>,
    pub change: async_channel::Receiver<ChangeAsk>,
    pub versions: async_channel::Receiver<VersionsAsk>,
    pub parent: async_channel::Receiver<ParentAsk>,
}

/// Both ends.
pub fn channel() -> (Asks, Asked) {
    let (allocate, allocates) = async_channel::bounded(QUEUE);
    let (change, changes) = async_channel::bounded(QUEUE);
    let (versions, versions_asked) = async_channel::bounded(QUEUE);
    let (parent, parents) = async_channel::bounded(QUEUE);
    let asked = Asked { allocate: allocates, change: changes, versions: versions_asked, parent: parents };
    (Asks { allocate, change, versions, parent }, asked)
}

impl Asks {
    /// Asks for chunks of a volume.
    pub fn allocate(
        &self,
        volume: &Attached,
        epoch: Epoch,
        indexes: Vec<u32>,
    ) -> impl Future<Output = Answer<Vec<ChunkInfo>>> + use<> {
        let (answer, answered) = async_channel::bounded(1);
        let ask = AllocateAsk { volume: volume.clone(), epoch, indexes, answer };
        outcome(self.allocate.clone(), ask, answered)
    }

    /// Asks for changes of replica sets. With [`AllocError::Retry`] it is not known whether they were made.
    pub fn change(
        &self,
        volume: &Attached,
        epoch: Epoch,
        changes: Vec<ReplicaChange>,
    ) -> impl Future<Output = Answer<ChangedReplicas>> + use<> {
        let (answer, answered) = async_channel::bounded(1);
        let ask = ChangeAsk { volume: volume.clone(), epoch, changes, answer };
        outcome(self.change.clone(), ask, answered)
    }

    /// Tells what was done about a volume's versions; answers what they are then.
    pub fn accomplished(
        &self,
        volume: &Attached,
        epoch: Epoch,
        what: Accomplished,
    ) -> impl Future<Output = Answer<VolumeVersions>> + use<> {
        let (answer, answered) = async_channel::bounded(1);
        let ask = VersionsAsk { volume: volume.clone(), epoch, what, answer };
        outcome(self.versions.clone(), ask, answered)
    }

    /// Asks where a volume's ancestors are.
    pub fn parent(&self, volume: &Attached) -> impl Future<Output = Answer<Option<ParentInfo>>> + use<> {
        let (answer, answered) = async_channel::bounded(1);
        outcome(self.parent.clone(), ParentAsk { volume: volume.clone(), answer }, answered)
    }
}

async fn outcome<A, T>(
    asks: async_channel::Sender<A>,
    ask: A,
    answered: async_channel::Receiver<Answer<T>>,
) -> Answer<T> {
    let gone = || AllocError::Retry("the daemon is stopping".into());
    asks.send(ask).await.map_err(|_| gone())?;
    answered.recv().await.unwrap_or_else(|_| Err(gone()))
}
