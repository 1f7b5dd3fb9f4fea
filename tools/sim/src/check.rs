//! What must hold when faults have stopped.

use crate::guest::Guest;
use crate::snapshots;
use crate::world::World;
use levee_core::store::ReplicaMeta;
use levee_proto::api::{ChunkInfo, DiskState, ReplicaPlace};
use levee_proto::view::Keep;
use levee_proto::wire::{BlockEntry, BlockKind};
use levee_proto::{BLOCK_SIZE, ChunkId, Seq, Version};
use std::time::Duration;

/// How long a comparison may wait for copies that are behind, of simulated time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Blocks read at a time.
const STEP: usize = 256;

/// What is still to be waited for; `None`: nothing.
pub fn unfinished(world: &World) -> Option<String> {
    world.guests().iter().find_map(|guest| {
        if !guest.is_finished() {
            let report = guest.device().map(|d| d.gateway.report());
            return Some(format!("{}: requests are not answered: {:?}; {report:?}", guest.name(), guest.waits_for()));
        }
        let Some(device) = guest.device().filter(|d| d.process.rt.is_alive()) else {
            return Some(format!("{} is not served", guest.name()));
        };
        let newest = world.meta().epoch(guest.volume());
        if device.epoch.0 != newest {
            return Some(format!("{} is served at epoch {}, not at {newest}", guest.name(), device.epoch));
        }
        if let Some(stopped) = device.gateway.stopped() {
            return Some(format!("{}: its gateway stopped: {}", guest.name(), stopped.0));
        }
        let health = device.gateway.health();
        if health.degraded + health.waiting > short_chunks(world, guest) {
            return Some(format!("{} does not become whole: {:?}", guest.name(), device.gateway.report()));
        }
        snapshots::unfinished(world, guest).or_else(|| replicas_to_move(world, guest))
    })
}

/// Nodes that may be given copies.
pub fn nodes_in_service(world: &World) -> usize {
    let state = world.meta().state();
    let in_service = |n: &&std::rc::Rc<crate::world::Node>| {
        let mut disks = n.disks.iter().filter_map(|d| state.disk(d.id.get()));
        !n.lost.get() && disks.any(|d| d.state() == DiskState::InService)
    };
    world.nodes().iter().filter(in_service).count()
}

/// Chunks that began with fewer copies, and for which there are no nodes.
fn short_chunks(world: &World, guest: &Guest) -> u32 {
    let nodes = nodes_in_service(world);
    let state = world.meta().state();
    let Some(volume) = state.volume(guest.volume()) else { return 0 };
    let copies = usize::from(volume.copies);
    let short = volume.chunks.values().filter(|c| c.replicas.len() < copies && nodes < copies).count();
    short as u32
}

/// Whether members are left on disks that are out of service although there is room elsewhere.
fn replicas_to_move(world: &World, guest: &Guest) -> Option<String> {
    let nodes = nodes_in_service(world);
    let state = world.meta().state();
    let volume = state.volume(guest.volume())?;
    let copies = usize::from(volume.copies);
    if nodes < copies {
        return None;
    }
    let leaving = |r: &ReplicaPlace| state.disk(r.disk).is_some_and(|d| d.state() != DiskState::InService);
    // A disk that was given up may be the only one that still has the data.
    let kept = |r: &ReplicaPlace| state.disk(r.disk).is_some_and(|d| d.state() != DiskState::Dead);
    let late = volume
        .chunks
        .values()
        .filter(|c| c.replicas.iter().any(kept))
        .find(|c| c.replicas.len() != copies || c.replicas.iter().any(leaving))?;
    Some(format!("{}: chunk {} is not moved: {:?}", guest.name(), late.id, late.replicas))
}

/// All copies are equal and readable, and what they hold is possible.
pub async fn compare(world: &World) {
    for guest in world.guests() {
        guest.read_all().await;
        verify(world, &guest).await;
        snapshots::compare(world, &guest).await;
        let chunks = world.meta().state().volume(guest.volume()).map(|v| v.chunks.clone()).unwrap_or_default();
        let keep = keep(world, &guest);
        for (index, chunk) in chunks {
            let info = ChunkInfo { index, chunk: chunk.id, config: chunk.config, replicas: chunk.replicas };
            compare_chunk(world, &info, &keep).await;
        }
    }
    account_for_space(world);
}

/// Every block that counts as used belongs to an entry.
fn account_for_space(world: &World) {
    let processes = world.nodes().into_iter().filter_map(|n| n.process.borrow().clone());
    for process in processes {
        for ((disk, number), shard) in &*process.shards.borrow() {
            let of = |r: &ReplicaMeta| shard.entries(r.chunk, 0, Version::MAX, usize::MAX, Seq::ZERO).0;
            let entries = shard.all_replicas().iter().flat_map(of).filter(|e| e.kind == BlockKind::Data).count() as u64;
            let used = shard.usage().used / BLOCK_SIZE as u64;
            // What was found to be lost has an entry and takes no space.
            let lost = process.disks.iter().any(|d| d.tainted.get());
            if used > entries || (used < entries && !lost) {
                world.fail("space", &format!("disk {disk}, shard {number}: {used} blocks used, {entries} entries"));
            }
        }
    }
}

/// The volume's own comparison finds nothing. It finds, and heals, blocks that nobody has read since they became bad.
async fn verify(world: &World, guest: &Guest) {
    let Some(device) = guest.device() else { return };
    let mut found = vec![];
    for _ in 0..2 {
        match device.gateway.verify(PATIENCE, |_| {}).await {
            Ok(report) => found = report.mismatches,
            Err(stopped) => return world.fail("stuck", &format!("{}: it stopped: {}", guest.name(), stopped.0)),
        }
        if found.is_empty() {
            return;
        }
        world.log(|| format!("{}: verification found {found:?}", guest.name()));
    }
    world.fail("verify", &format!("{}: {found:?}", guest.name()));
}

/// One copy, as its store tells it.
struct Copy {
    meta: ReplicaMeta,
    entries: Vec<BlockEntry>,
    data: Vec<u8>,
}

/// What is read by the head or a snapshot of the guest's volume.
fn keep(world: &World, guest: &Guest) -> Keep {
    let versions = world.meta().state().volume_versions(guest.name()).unwrap_or_default();
    Keep::new(&[&versions.snapshots[..], &[versions.view]].concat())
}

impl Copy {
    /// Without what nobody needs: not every copy has dropped it.
    fn needed(&self, keep: &Keep) -> Vec<(BlockEntry, &[u8])> {
        let mut data = self.data.chunks(BLOCK_SIZE);
        let (mut all, mut chain, mut block) = (vec![], vec![], None);
        for e in &self.entries {
            if block.replace(e.block) != Some(e.block) {
                chain.clear();
            }
            chain.push(e.version);
            let bytes = if e.kind == BlockKind::Data { data.next().unwrap_or_default() } else { &[] };
            if keep.reads(&chain, chain.len() - 1) {
                all.push((*e, bytes));
            }
        }
        all
    }
}

async fn compare_chunk(world: &World, info: &ChunkInfo, keep: &Keep) {
    let mut first: Option<(ReplicaPlace, Copy)> = None;
    for place in &info.replicas {
        let copy = match read_copy(world, info.chunk, place).await {
            Ok(copy) => copy,
            Err(why) => return world.fail("copies", &format!("chunk {} on node {}: {why}", info.chunk, place.node)),
        };
        if copy.meta.damaged {
            return world.fail("copies", &format!("chunk {} on node {} is damaged", info.chunk, place.node));
        }
        let Some((other, equal)) = &first else {
            first = Some((*place, copy));
            continue;
        };
        let a = (equal.needed(keep), equal.meta.adopted);
        let b = (copy.needed(keep), copy.meta.adopted);
        if a != b {
            let what = format!("chunk {} differs on nodes {} and {}", info.chunk, other.node, place.node);
            return world.fail("copies", &what);
        }
    }
}

async fn read_copy(world: &World, chunk: ChunkId, place: &ReplicaPlace) -> Result<Copy, String> {
    let node = world.nodes().into_iter().find(|n| n.id == place.node).ok_or("no such node")?;
    let process = node.process.borrow().clone().ok_or("its node is down")?;
    let number = (chunk.0 % u64::from(world.setup().shards)) as u16;
    let shard = process.shards.borrow().get(&(place.disk, number)).cloned().ok_or("its shard is not open")?;
    let meta = shard.replica(chunk).filter(|m| m.replica == place.replica).ok_or("it is not there")?;
    let (entries, _) = shard.entries(chunk, 0, Version::MAX, usize::MAX, Seq::ZERO);
    let mut data = vec![];
    for some in entries.chunks(STEP) {
        let wanted: Vec<_> = some.iter().map(|e| (e.block, e.version)).collect();
        let (_, bytes) = shard.read_entries(chunk, &wanted).await.map_err(|e| e.to_string())?;
        data.extend_from_slice(&bytes);
    }
    Ok(Copy { meta, entries, data })
}
