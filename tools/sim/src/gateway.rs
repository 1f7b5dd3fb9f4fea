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
    AllocateChunks, ChangeReplicas, ChangedReplicas, ChunkInfo, Flattened, Moved, ParentInfo, ProblemKind, Pruned,
    ReplicaChange, Sealed, VolumeVersions,
};
use levee_proto::wire::Request;
use levee_proto::{ChunkId, DiskId, Epoch, NodeId};
use std::rc::Rc;

pub type SimGateway = Gateway<TestRuntime, Links>;

/// One gateway's links.
pub struct Links {
    world: World,
    process: Rc<Process>,
    volume: String,
    epoch: Epoch,
}

impl Links {
    pub fn new(world: World, process: Rc<Process>, volume: String, epoch: Epoch) -> Links {
        Links { world, process, volume, epoch }
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
        let (world, process, name, epoch) = (self.world.clone(), self.process.clone(), self.volume.clone(), self.epoch);
        async move {
            let request = ChangeReplicas { epoch, changes };
            let alive = world.meta().alive();
            match world
                .meta()
                .ask(&process, Command::ChangeReplicas { name, request, alive, full: Default::default() })
                .await
            {
                Ok(Answer::Changed(changed)) => Ok(changed),
                other => Err(not_done(other)),
            }
        }
    }

    fn allocate(&self, indexes: Vec<u32>) -> impl Future<Output = Result<Vec<ChunkInfo>, AllocError>> + 'static {
        let (world, process, name, epoch) = (self.world.clone(), self.process.clone(), self.volume.clone(), self.epoch);
        async move {
            let request = AllocateChunks { epoch, indexes };
            let alive = world.meta().alive();
            match world.meta().ask(&process, Command::Allocate { name, request, alive, full: Default::default() }).await
            {
                Ok(Answer::Allocated(allocated)) => Ok(allocated.chunks),
                other => Err(not_done(other)),
            }
        }
    }

    fn accomplished(&self, what: Accomplished) -> impl Future<Output = Result<VolumeVersions, AllocError>> + 'static {
        let (world, process, name, epoch) = (self.world.clone(), self.process.clone(), self.volume.clone(), self.epoch);
        async move {
            let volume = name.clone();
            let command = match what {
                Accomplished::Moved(version) => Command::Moved { name, request: Moved { epoch, version, held: true } },
                Accomplished::Parted(version) => {
                    Command::Moved { name, request: Moved { epoch, version, held: false } }
                }
                Accomplished::Sealed(version) => Command::FinishSnapshots { name, request: Sealed { epoch, version } },
                Accomplished::Pruned(number) => Command::Pruned { name, request: Pruned { epoch, number } },
                Accomplished::Flattened => Command::Flattened { name, request: Flattened { epoch } },
            };
            match world.meta().ask(&process, command).await {
                Ok(Answer::Versions(versions)) => {
                    // They are followed at once.
                    world.moved(&volume, versions.version, epoch);
                    Ok(versions)
                }
                other => Err(not_done(other)),
            }
        }
    }

    fn parent(&self) -> impl Future<Output = Result<Option<ParentInfo>, AllocError>> + 'static {
        let (world, process, name) = (self.world.clone(), self.process.clone(), self.volume.clone());
        async move {
            let unreachable = |_| AllocError::Retry("the meta server cannot be reached".into());
            world.meta().parent(&process, &name).await.map_err(unreachable)
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
