//! What goes wrong, and for how long.
//!
//! Everything that can happen to processes, links and meta servers happens without bounds: no acknowledged write may be lost
//! whatever the order. What a disk does to data at rest is bounded by what copies are for; see [`crate`].

use crate::check;
use crate::damage;
use crate::meta::META;
use crate::moves;
use crate::process::SimDisk;
use crate::recreate;
use crate::restore;
use crate::setup::{Fault, SLOWEST};
use crate::snapshots;
use crate::world::{Node, World};
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_meta_state::{Command, Decider};
use levee_proto::NodeId;
use levee_proto::api::DiskState;
use std::rc::Rc;
use std::time::Duration;

/// How long any fault lasts.
pub const LONGEST: Duration = Duration::from_secs(9);
/// How many disk operations an armed fault may wait for.
const SOON: u64 = 30;

/// One of the faults of this run.
pub async fn strike(world: &World) {
    let faults = &world.setup().faults;
    if faults.iter().any(|(fault, _)| *fault == Fault::Snapshot) && world.one_in(2) {
        // Not instead of something else, but in the middle of it.
        snapshots::strike(world).await;
    }
    let mut at = world.below(faults.iter().map(|(_, weight)| weight).sum());
    for (fault, weight) in faults {
        if at < *weight {
            return one(world, *fault).await;
        }
        at -= weight;
    }
}

async fn one(world: &World, fault: Fault) {
    let node = world.some_node();
    world.log(|| format!("-- {fault:?}, node {}", node.id));
    match fault {
        Fault::Kill => down(world, &node, false, 2000),
        Fault::PowerLoss => down(world, &node, true, 3000),
        Fault::Blackout => world.nodes().iter().for_each(|n| down(world, n, true, 500)),
        Fault::Freeze => freeze(world, &node),
        Fault::Partition => partition(world, &node),
        Fault::BreakLinks => world.net().break_links(node.id, world.some_node().id),
        Fault::Move => move_volume(world),
        Fault::GuestCrash => {
            if let Some(guest) = world.some_guest() {
                guest.crash();
            }
        }
        Fault::MetaOutage => {
            world.meta().set_up(false);
            let (meta, time) = (world.meta().clone(), world.some_time(4000));
            after(world, time, move || meta.set_up(true));
        }
        Fault::DiskError => disk_error(world, &node),
        Fault::SlowDisk => slow_disk(world, &node),
        Fault::BadRead => {
            if let Some(disk) = running_disk(world, &node) {
                disk.disk.flip_read(world.below(SOON));
            }
        }
        Fault::Storm => storm(world).await,
        Fault::Failover => failover(world).await,
        Fault::Takeovers => takeovers(world).await,
        Fault::Corruption => corruption(world, damage::strike).await,
        Fault::BadSectors => corruption(world, damage::spoil).await,
        Fault::Evacuate if world.one_in(3) => moves::strike(world).await,
        Fault::Evacuate => evacuate(world, &node).await,
        Fault::LoseNode => lose_node(world, &node),
        Fault::Snapshot => snapshots::strike(world).await,
        Fault::OldMeta => restore::strike(world),
        Fault::Recreate => recreate::strike(world).await,
        Fault::Restart => restart(world, &node),
        Fault::Checkpoint => {
            let process = node.process.borrow().clone();
            let shards = process.iter().flat_map(|p| p.shards.borrow().values().cloned().collect::<Vec<_>>());
            for (shard, process) in shards.zip(process.iter().cycle()) {
                process.rt.spawn(async move { drop(shard.checkpoint().await) });
            }
        }
    }
}

/// Something small, in the middle of something else.
pub fn unsettle(world: &World) {
    let node = world.some_node();
    match world.below(4) {
        0 => down(world, &node, world.one_in(2), 1000),
        1 => move_volume(world),
        2 => world.net().break_links(node.id, world.some_node().id),
        _ => freeze(world, &node),
    }
}

/// A disk of a node whose daemon has read it.
fn running_disk(world: &World, node: &Rc<Node>) -> Option<Rc<SimDisk>> {
    let running = node.process.borrow().as_ref().is_some_and(|p| p.is_serving());
    running.then(|| node.disks[world.below(node.disks.len() as u64) as usize].clone())
}

/// The daemon ends in good order, and is started again.
fn restart(world: &World, node: &Rc<Node>) {
    let Some(process) = node.process.borrow().clone() else { return };
    let (world2, node2, ending) = (world.clone(), node.clone(), process.clone());
    process.rt.spawn(async move {
        ending.served.borrow().values().for_each(|s| s.gateway.stop("the daemon stops"));
        let shards: Vec<_> = ending.shards.borrow().values().cloned().collect();
        for shard in shards {
            drop(shard.close().await);
        }
        let (world, node) = (world2.clone(), node2.clone());
        after(&world2, Duration::from_millis(1), move || {
            if node.process.borrow().as_ref().is_some_and(|p| Rc::ptr_eq(p, &ending)) {
                world.kill(&node, false);
                world.start(&node);
            }
        });
    });
    // It may take too long for the operator.
    let (world2, node) = (world.clone(), node.clone());
    after(world, Duration::from_secs(5), move || {
        if node.process.borrow().as_ref().is_some_and(|p| Rc::ptr_eq(p, &process)) {
            world2.kill(&node, false);
            world2.start(&node);
        }
    });
}

fn set_disk(world: &World, disk: &SimDisk, state: DiskState) {
    world.log(|| format!("disk {} is {state:?} now", disk.id.get()));
    let set = Command::SetDisk { disk: disk.id.get(), state, reason: None, by: Decider::Operator };
    if let Err(problem) = world.meta().apply(&set) {
        world.fail("meta", &format!("a disk's state cannot be set: {}", problem.detail));
    }
}

/// A disk is drained or given up, or back in service; and often something else happens while replicas are being moved.
async fn evacuate(world: &World, node: &Rc<Node>) {
    let disk = &node.disks[world.below(node.disks.len() as u64) as usize];
    // What is bad on one disk may be good on the one that is given up, and nowhere else.
    let may_be_bad = world.setup().faults.iter().any(|(fault, _)| *fault == Fault::BadSectors);
    let state = match world.below(5) {
        0..2 => DiskState::Draining,
        2..4 if may_be_bad => DiskState::Draining,
        2..4 => DiskState::Dead,
        _ => DiskState::InService,
    };
    if world.one_in(2) {
        // Another copy lags behind, and its gateway does not know yet.
        let gateway = world.guests().first().and_then(|g| g.device()).map(|d| d.process.node);
        world.net().cut(gateway.unwrap_or(node.id), world.some_node().id);
        world.rt().sleep(world.some_time(50)).await;
    }
    // It may have been lost meanwhile: no operator puts such a disk back.
    set_disk(world, disk, if node.lost.get() { DiskState::Dead } else { state });
    world.rt().sleep(Duration::from_millis(5) + world.some_time(300)).await;
    match world.below(4) {
        0 | 1 => failover(world).await,
        2 => takeovers(world).await,
        _ => down(world, &world.some_node(), true, 2000),
    }
    world.net().heal();
}

/// A disk has damaged what it holds; often that is found at once, by a restart, and there are takeovers.
async fn corruption(world: &World, strike: impl Fn(&World)) {
    strike(world);
    let nodes = world.nodes();
    let struck = nodes.iter().find(|n| n.disks.iter().any(|d| d.tainted.get()));
    if let Some(node) = struck.filter(|_| world.one_in(2)) {
        world.kill(node, true);
        world.start(node);
        world.rt().sleep(world.some_time(100)).await;
        takeovers(world).await;
    }
}

/// A node burns down, and the operator gives it up. Only one that holds nothing that is nowhere else.
fn lose_node(world: &World, node: &Rc<Node>) {
    let whole = world.guests().iter().all(|g| g.device().is_some_and(|d| d.is_whole()));
    let alone = world.nodes().iter().all(|n| !n.lost.get());
    let volumes = &world.setup().volumes;
    let enough = volumes.iter().all(|v| v.min_copies < v.copies && u32::from(v.copies) < world.setup().nodes);
    if !whole || !alone || !enough {
        return;
    }
    reached!("node lost for ever");
    node.lost.set(true);
    world.kill(node, true);
    node.disks.iter().for_each(|d| set_disk(world, d, DiskState::Dead));
    for guest in world.guests() {
        if guest.device().is_none_or(|d| d.process.node == node.id) {
            attach(world, guest.name());
        }
    }
}

/// Does something later.
fn after(world: &World, time: Duration, what: impl FnOnce() + 'static) {
    let rt = world.rt().clone();
    world.rt().spawn(async move {
        rt.sleep(time).await;
        what();
    });
}

fn down(world: &World, node: &Rc<Node>, power: bool, most: u64) {
    world.kill(node, power);
    let (world2, node) = (world.clone(), node.clone());
    after(world, world.some_time(most), move || world2.start(&node));
}

fn freeze(world: &World, node: &Rc<Node>) {
    let Some(process) = node.process.borrow().clone() else { return };
    process.rt.stop();
    after(world, world.some_time(8000), move || process.rt.go_on());
}

fn partition(world: &World, node: &Rc<Node>) {
    let others: Vec<_> = world.nodes().iter().map(|n| n.id).chain([META]).filter(|n| *n != node.id).collect();
    let (there, back) = match world.below(4) {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    };
    // From all others, or from some.
    let all = world.one_in(2);
    for other in others {
        if all || world.one_in(2) {
            if there {
                world.net().cut(node.id, other);
            }
            if back {
                world.net().cut(other, node.id);
            }
        }
    }
    let net = world.net().clone();
    after(world, world.some_time(5000), move || net.heal());
    if world.one_in(2) {
        world.nodes().iter().for_each(|n| world.net().break_links(node.id, n.id));
    }
}

/// Another node is to serve the volume. The present one may not hear of it for a while.
fn move_volume(world: &World) {
    if let Some(guest) = world.some_guest() {
        attach(world, guest.name());
    }
}

/// Has a volume served by some node that is up.
pub fn attach(world: &World, name: &str) {
    attach_elsewhere(world, name, META);
}

/// Has a volume served by another node that is up.
fn attach_elsewhere(world: &World, name: &str, than: NodeId) {
    let alive = world.alive();
    let nodes: Vec<_> = alive.iter().filter(|n| **n != than).collect();
    if nodes.is_empty() {
        return;
    }
    let node = format!("n{}", nodes[world.below(nodes.len() as u64) as usize]);
    world.log(|| format!("{name} is to be served by {node}"));
    let detached = world.meta().apply(&Command::Detach { name: name.into() });
    let attached = world.meta().apply(&Command::Attach { name: name.into(), node: Some(node), alive });
    if let Some(problem) = [detached, attached].into_iter().find_map(Result::err) {
        world.fail("meta", &format!("{name} cannot be moved: {}", problem.detail));
    }
}

fn disk_error(world: &World, node: &Rc<Node>) {
    let Some(disk) = running_disk(world, node).map(|d| d.disk.clone()) else { return };
    let when = world.below(SOON);
    match world.below(3) {
        0 => disk.fail_write(when),
        // A disk tells each of its users, once, that a sync failed; the one in memory tells only who asked.
        1 if world.setup().shards == 1 => disk.fail_sync(when),
        1 => disk.fail_write(when),
        _ => disk.fail_read(when),
    }
    // Somebody looks after failed shards, as an operator would.
    let (world2, node) = (world.clone(), node.clone());
    after(world, Duration::from_millis(500) + world.some_time(3000), move || {
        let failed = node.process.borrow().as_ref().is_some_and(|p| p.has_failed_shard());
        if failed {
            let power = world2.one_in(4);
            world2.kill(&node, power);
            world2.start(&node);
        }
    });
}

/// A disk stalls, or is slow for a while, or all of them are.
fn slow_disk(world: &World, node: &Rc<Node>) {
    let disk = node.disks[world.below(node.disks.len() as u64) as usize].clone();
    if world.one_in(3) {
        return disk.disk.stall(world.some_time(4000));
    }
    let disks = if world.one_in(4) { all_disks(world) } else { vec![disk] };
    let most = world.some_time(if world.one_in(2) { 200 } else { SLOWEST });
    disks.iter().for_each(|d| d.disk.set_pace(world.rt(), most / 4, most));
    let (rt, (least, most)) = (world.rt().clone(), world.setup().disk_delay);
    after(world, world.some_time(8000), move || disks.iter().for_each(|d| d.disk.set_pace(&rt, least, most)));
}

fn all_disks(world: &World) -> Vec<Rc<SimDisk>> {
    world.nodes().iter().flat_map(|node| node.disks.clone()).collect()
}

/// Disks that are slow for good stay so; the others are as quick as they were.
fn set_final_paces(world: &World) {
    let usual = world.setup().disk_delay;
    for node in world.nodes() {
        let slow = world.setup().slow.filter(|slow| node.id.0 <= slow.nodes);
        let (least, most) = slow.map_or(usual, |slow| (slow.most / 4, slow.most));
        node.disks.iter().for_each(|d| d.disk.set_pace(world.rt(), least, most));
    }
}

/// All disks are quick again.
pub fn end_slowness(world: &World) {
    let (least, most) = world.setup().disk_delay;
    all_disks(world).iter().for_each(|d| d.disk.set_pace(world.rt(), least, most));
}

/// A takeover during which nodes are started again, and taken over once more.
async fn storm(world: &World) {
    for _ in 0..2 + world.below(6) {
        match world.below(4) {
            0 => move_volume(world),
            1 => world.net().break_links(world.some_node().id, world.some_node().id),
            _ => {
                let node = world.some_node();
                world.kill(&node, world.one_in(2));
                world.start(&node);
            }
        }
        world.rt().sleep(world.some_time(100)).await;
    }
}

/// The gateway's node, or what it says, gets no further than to some others; then another takes over, which hears of it what
/// it hears; then the first is back, perhaps without what it had not written yet.
pub async fn failover(world: &World) {
    let Some(guest) = world.some_guest() else { return };
    let Some(device) = guest.device() else { return };
    let nodes = world.nodes();
    let Some(node) = nodes.iter().find(|n| n.id == device.process.node) else { return };
    let (one_way, reached) = (world.one_in(2), world.below(3));
    for other in nodes.iter().filter(|n| n.id != node.id) {
        if world.below(3) >= reached {
            world.net().cut(node.id, other.id);
            if !one_way {
                world.net().cut(other.id, node.id);
            }
        }
    }
    // The guest goes on meanwhile.
    world.rt().sleep(Duration::from_millis(2) + world.some_time(300)).await;
    match world.below(3) {
        0 => world.kill(node, true),
        1 => freeze(world, node),
        _ => {}
    }
    attach_elsewhere(world, guest.name(), node.id);
    world.rt().sleep(world.some_time(1000)).await;
    if world.one_in(2) {
        nodes.iter().for_each(|n| world.net().break_links(node.id, n.id));
    }
    world.net().heal();
    world.start(node);
}

/// Takeovers in a row: of each, some nodes hear nothing, or are not heard; some lose power when it is over.
async fn takeovers(world: &World) {
    for _ in 0..2 + world.below(3) {
        if world.below(4) > 0 {
            move_volume(world);
        }
        let nodes = world.nodes();
        for (a, b) in nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b))) {
            if world.one_in(6) {
                world.net().cut(a.id, b.id);
            }
        }
        if world.one_in(2) {
            let alone = world.some_node();
            nodes.iter().for_each(|n| world.net().break_links(alone.id, n.id));
        }
        world.rt().sleep(Duration::from_millis(5) + world.some_time(700)).await;
        for node in nodes.iter().filter(|_| world.one_in(4)) {
            world.kill(node, true);
            world.start(node);
        }
        if world.one_in(3) {
            continue;
        }
        world.net().heal();
        if world.one_in(2) {
            world.rt().sleep(world.some_time(200)).await;
        }
    }
    world.net().heal();
}

/// All faults end, as far as they can end by themselves.
pub fn stop_all(world: &World) {
    world.net().heal();
    world.meta().set_up(true);
    set_final_paces(world);
    for node in world.nodes() {
        node.disks.iter().for_each(|d| d.disk.clear_faults());
        if let Some(process) = node.process.borrow().clone() {
            process.rt.go_on();
        }
        let failed = node.process.borrow().as_ref().is_some_and(|p| p.has_failed_shard());
        if failed {
            world.kill(&node, false);
        }
        world.start(&node);
        // Where a node is gone, the others are needed; and without `min_copies` nodes, nothing new can be written.
        let needed = world.setup().volumes.iter().map(|v| usize::from(v.min_copies)).max().unwrap_or(0);
        let few = world.nodes().iter().any(|n| n.lost.get()) || check::nodes_in_service(world) < needed;
        let revive = world.setup().revive || few;
        if revive && !node.lost.get() {
            node.disks.iter().for_each(|d| set_disk(world, d, DiskState::InService));
        }
    }
    if world.one_in(2) {
        moves::cancel(world);
    }
    // A volume whose node is gone for ever is served elsewhere, and one that could be served nowhere when it was made.
    for guest in world.guests() {
        let on = world.meta().state().volume(guest.volume()).and_then(|v| v.attachment.as_ref().map(|a| a.node));
        if on.is_none() || world.nodes().iter().any(|n| n.lost.get() && on == Some(n.id)) {
            attach(world, guest.name());
        }
    }
}
