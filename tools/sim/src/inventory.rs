//! What a daemon tells of what its disks hold, as the shipping daemon's control thread does.

use crate::process::{Process, SimShard};
use crate::world::{FILLER, World};
use levee_core::mutant;
use levee_core::store::LargestIds;
use levee_meta_state::Command;
use levee_proto::DiskId;
use levee_proto::api::{HeldFence, HeldReplica, Inventory, MAX_INVENTORY, Seen};
use std::collections::BTreeMap;

/// What disks are filled with belongs to nobody.
fn is_real(shard: &SimShard) -> bool {
    !shard.all_replicas().iter().any(|r| r.volume == FILLER)
}

impl Process {
    /// What shows whether the meta servers know all that was given out.
    pub(crate) fn seen(&self, opened: &[BTreeMap<u16, SimShard>]) -> Seen {
        let shards = opened.iter().flat_map(BTreeMap::values).filter(|shard| is_real(shard));
        let largest = shards.map(|shard| shard.largest_ids()).fold(LargestIds::default(), LargestIds::with);
        let LargestIds { volume, chunk, replica } = largest;
        Seen { volume, chunk, replica, ..Seen::default() }
    }

    /// Reports what the disks hold, once in each generation; whether that is settled.
    pub(crate) async fn tell_inventory(&self, world: &World, generation: u64) -> bool {
        if generation == 0 || self.told_generation.get() == generation {
            return true;
        }
        // The state may know another process of this node.
        if self.register(world, &[]).await.is_none() {
            return false;
        }
        let (replicas, fences) =
            if mutant!("nothing is told of what disks hold") { Default::default() } else { self.held() };
        let page = |replicas: &[HeldReplica], fences: &[HeldFence], complete| Inventory {
            incarnation: self.incarnation,
            generation,
            replicas: replicas.to_vec(),
            fences: fences.to_vec(),
            complete,
        };
        let pages = fences.chunks(MAX_INVENTORY).map(|some| page(&[], some, false));
        let pages = pages.chain(replicas.chunks(MAX_INVENTORY).map(|some| page(some, &[], false)));
        for request in pages.chain([page(&[], &[], true)]) {
            if world.meta().ask(self, Command::Inventory { node: self.node, request }).await.is_err() {
                return false;
            }
        }
        self.told_generation.set(generation);
        true
    }

    fn held(&self) -> (Vec<HeldReplica>, Vec<HeldFence>) {
        let (mut replicas, mut fences) = (vec![], vec![]);
        for ((disk, _), shard) in &*self.shards.borrow() {
            fences.extend(shard.fences().into_iter().map(|(volume, f)| HeldFence {
                volume,
                era: f.era(),
                epoch: f.epoch(),
            }));
            replicas.extend(shard.all_replicas().iter().filter(|r| r.volume != FILLER).map(|r| held(*disk, shard, r)));
        }
        (replicas, fences)
    }
}

fn held(disk: DiskId, shard: &SimShard, r: &levee_core::store::ReplicaMeta) -> HeldReplica {
    let version = shard.newest_version(r.chunk);
    HeldReplica { disk, volume: r.volume, chunk: r.chunk, replica: r.replica, config: r.config, version }
}
