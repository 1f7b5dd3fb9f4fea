//! The meta servers go on with an older state: most of them were lost for good, and the one that is left had not heard of everything.
//!
//! What gateways did meanwhile stays: what was answered must be there when they have been taken over. A state is only gone back to if
//! no chunk and no snapshot was made or dropped since: what becomes of those is for an operator to decide (and tests of the state
//! machine tell it).

use crate::meta::Meta;
use crate::world::World;
use levee_core::{mutant, reached};
use levee_meta_state::{Command, Decider, Parent, Snapshot, State};
use levee_proto::api::DiskState;
use levee_proto::{ChunkId, Version, VolumeId};
use std::collections::BTreeMap;

/// What an operator would have to decide about if it differed.
#[derive(PartialEq)]
struct Kept {
    name: String,
    size: u64,
    chunks: BTreeMap<u32, ChunkId>,
    parent: Option<Parent>,
    hidden: Vec<(Version, Version)>,
    snapshots: BTreeMap<Version, Snapshot>,
}

fn kept(state: &State, id: VolumeId) -> Option<Kept> {
    let volume = state.volume(id)?;
    let history = volume.history();
    Some(Kept {
        name: volume.name.clone(),
        size: volume.size,
        chunks: volume.chunks.iter().map(|(index, chunk)| (*index, chunk.id)).collect(),
        parent: volume.parent,
        hidden: history.hidden.clone(),
        snapshots: history.snapshots.clone(),
    })
}

/// Keeps the state as it is, or goes back to the one that was kept.
pub fn strike(world: &World) {
    let meta = world.meta();
    match meta.kept() {
        Some(old) if is_possible(world, &old) => go_back(world, meta, old),
        _ => meta.keep(),
    }
}

fn is_possible(world: &World, old: &State) -> bool {
    let now = meta_state(world);
    let ids = |state: &State| state.volume_ids().collect::<Vec<_>>();
    ids(&now) == ids(old) && ids(old).into_iter().all(|id| kept(&now, id) == kept(old, id))
}

fn meta_state(world: &World) -> State {
    world.meta().state().clone()
}

fn go_back(world: &World, meta: &Meta, old: State) {
    reached!("meta servers went on with an older state");
    world.log(|| "-- the meta servers go on with an older state".into());
    meta.replace(old);
    if !mutant!("epochs are given out again") {
        let at_ms = world.clock_ms();
        if let Err(problem) = meta.apply(&Command::Recover { at_ms }) {
            world.fail("meta", &format!("the state cannot be gone on with: {}", problem.detail));
        }
    }
    // An operator knows which nodes are gone.
    for disk in world.nodes().iter().filter(|n| n.lost.get()).flat_map(|n| n.disks.clone()) {
        let dead =
            Command::SetDisk { disk: disk.id.get(), state: DiskState::Dead, reason: None, by: Decider::Operator };
        if let Err(problem) = meta.apply(&dead) {
            world.fail("meta", &format!("a disk cannot be given up: {}", problem.detail));
        }
    }
}
