//! The cluster as a gateway of the simulation sees it.

use crate::meta::MetaError;
use crate::process::{Process, core_of_shard};
use crate::world::World;
use bytes::Bytes;
use levee_core::gateway::{Accomplished, AllocError, Cluster, Done, Gateway};
use levee_core::shared::SharedBlocks;
use levee_core::testing::TestRuntime;
use levee_meta_state::{Answer, Command};
use levee_proto::api::{
    AllocateChunks, AttachmentId, ChangeReplicas, ChangedReplicas, ChunkInfo, Flattened, Moved, ParentInfo,
    ProblemKind, Pruned, ReplicaChange, Sealed, VolumeVersions,
};
use levee_proto::wire::Request;
use levee_proto::{ChunkId, DiskId, Epoch, NodeId};
use std::rc::Rc;

pub type SimGateway = Gateway<TestRuntime, Links>;

/// One gateway's links. A cheap handle.
#[derive(Clone)]
pub struct Links {
    world: World,
    process: Rc<Process>,
    volume: String,
    caller: AttachmentId,
    epoch: Epoch,
}

impl Links {
    pub fn new(world: World, process: Rc<Process>, volume: String, caller: AttachmentId, epoch: Epoch) -> Links {
        Links { world, process, volume, caller, epoch }
    }

    /// Asks the meta servers as this gateway.
    async fn ask(&self, command: Command) -> Result<Answer, MetaError> {
        self.world.meta().ask_as(&self.process, self.caller, command).await
    }
}

impl Cluster for Links {
    fn cores(&self, _: NodeId) -> u16 {
        self.world.setup().cores
    }

    fn core_of(&self, _: NodeId, _: DiskId, chunk: ChunkId) -> u16 {
        let shard = (chunk.0 % u64::from(self.world.setup().shards)) as u16;
        core_of_shard(shard, self.world.setup().cores)
    }

    fn call(&self, node: NodeId, core: u16, request: Request, data: Bytes, done: Done) {
        self.world.net().call(&self.process, node, core, request, data, done);
    }

    fn change(
        &self,
        changes: Vec<ReplicaChange>,
    ) -> impl Future<Output = Result<ChangedReplicas, AllocError>> + 'static {
        let this = self.clone();
        async move {
            let request = ChangeReplicas { epoch: this.epoch, changes };
            let (name, alive, full) = (this.volume.clone(), this.world.meta().alive(), Default::default());
            match this.ask(Command::ChangeReplicas { name, request, alive, full }).await {
                Ok(Answer::Changed(changed)) => Ok(changed),
                other => Err(not_done(other)),
            }
        }
    }

    fn allocate(&self, indexes: Vec<u32>) -> impl Future<Output = Result<Vec<ChunkInfo>, AllocError>> + 'static {
        let this = self.clone();
        async move {
            let request = AllocateChunks { epoch: this.epoch, indexes };
            let (name, alive, full) = (this.volume.clone(), this.world.meta().alive(), Default::default());
            match this.ask(Command::Allocate { name, request, alive, full }).await {
                Ok(Answer::Allocated(allocated)) => Ok(allocated.chunks),
                other => Err(not_done(other)),
            }
        }
    }

    fn accomplished(&self, what: Accomplished) -> impl Future<Output = Result<VolumeVersions, AllocError>> + 'static {
        let this = self.clone();
        async move {
            let (name, epoch) = (this.volume.clone(), this.epoch);
            let command = match what {
                Accomplished::Moved(version) => Command::Moved { name, request: Moved { epoch, version, held: true } },
                Accomplished::Parted(version) => {
                    Command::Moved { name, request: Moved { epoch, version, held: false } }
                }
                Accomplished::Sealed(version) => Command::FinishSnapshots { name, request: Sealed { epoch, version } },
                Accomplished::Pruned(number) => Command::Pruned { name, request: Pruned { epoch, number } },
                Accomplished::Flattened => Command::Flattened { name, request: Flattened { epoch } },
            };
            match this.ask(command).await {
                Ok(Answer::Versions(versions)) => {
                    // They are followed at once.
                    this.world.moved(this.caller.volume, versions.version, epoch);
                    Ok(versions)
                }
                other => Err(not_done(other)),
            }
        }
    }

    fn parent(&self) -> impl Future<Output = Result<Option<ParentInfo>, AllocError>> + 'static {
        let this = self.clone();
        async move {
            let unreachable = |_| AllocError::Retry("the meta server cannot be reached".into());
            this.world.meta().parent(&this.process, this.caller, &this.volume).await.map_err(unreachable)
        }
    }

    fn shared(&self) -> Option<&SharedBlocks> {
        self.process.shared.as_ref()
    }
}

fn not_done(outcome: Result<Answer, MetaError>) -> AllocError {
    match outcome {
        Ok(other) => AllocError::Retry(format!("a wrong answer: {other:?}")),
        Err(MetaError::Refused(p)) if matches!(p.kind, ProblemKind::Fenced | ProblemKind::NotFound) => {
            AllocError::Fenced(p.detail)
        }
        Err(MetaError::Refused(p)) => AllocError::Retry(p.detail),
        Err(MetaError::Unreachable) => AllocError::Retry("the meta server cannot be reached".into()),
    }
}
