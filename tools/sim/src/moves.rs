//! An operator moves single copies about, wherever they may go, and often changes their mind.

use crate::faults;
use crate::world::World;
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_meta_state::{Answer, Command, State};
use levee_proto::api::{PlannedMove, RebalanceGoal, RebalanceState};
use levee_proto::{DiskId, VolumeId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Moves of one rebalance.
const MOST: u64 = 8;
/// No volume of a run has a larger number.
const VOLUMES: u64 = 200;

pub async fn strike(world: &World) {
    let moves = choose(world);
    if moves.is_empty() {
        return;
    }
    world.log(|| format!("{} copies are to be moved", moves.len()));
    // One that runs already is as good.
    let begun = world.meta().apply(&Command::StartRebalance { goal: RebalanceGoal::Space, moves });
    if let Ok(Answer::Rebalance(status)) = begun
        && status.under_way > 0
    {
        reached!("copies moved one by one");
    }
    world.rt().sleep(Duration::from_millis(5) + world.some_time(300)).await;
    if world.one_in(3) {
        cancel(world);
    }
    if world.one_in(2) {
        faults::failover(world).await;
    }
}

/// Copies that stay where they are from now on.
pub fn cancel(world: &World) {
    if world.meta().state().rebalance_status().state == RebalanceState::Running {
        world.log(|| "no copies are moved any more".into());
        let cancelled = world.meta().apply(&Command::CancelRebalance);
        debug_assert!(cancelled.is_ok());
    }
}

fn choose(world: &World) -> Vec<PlannedMove> {
    let state = world.meta().state();
    let disks: Vec<DiskId> = state.disks().map(|(id, _)| id).collect();
    let mut moves = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..world.below(MOST) + 1 {
        let to = disks[world.below(disks.len() as u64) as usize];
        if let Some(one) = some_copy(world, &state, to).filter(|one| seen.insert(one.replica)) {
            moves.push(one);
        }
    }
    moves
}

fn some_copy(world: &World, state: &State, to: DiskId) -> Option<PlannedMove> {
    let volumes: Vec<VolumeId> = (1..=VOLUMES).map(VolumeId).filter(|id| state.volume(*id).is_some()).collect();
    let volume = *volumes.get(world.below(volumes.len().max(1) as u64) as usize)?;
    let chunks = &state.volume(volume)?.chunks;
    let (index, chunk) = chunks.iter().nth(world.below(chunks.len().max(1) as u64) as usize)?;
    let place = chunk.replicas.get(world.below(chunk.replicas.len().max(1) as u64) as usize)?;
    Some(PlannedMove { volume, index: *index, replica: place.replica, from: place.disk, to, bytes: 0 })
}
