//! Snapshots that guests' volumes were given, what each may show, and clones of them.
//!
//! A snapshot shows what there was when the volume's version moved: the moment in which its gateway was told, or, if that one
//! died first, in which the next one was opened. What may be there is kept from then on; what gateways that were replaced still do
//! may have been made before.
//!
//! Snapshots of several volumes that are taken together are of one moment: what a guest begins to write after another write was answered is in
//! none of them if the answered one is not.

use crate::faults;
use crate::guest::Guest;
use crate::process::{Process, core_of_shard};
use crate::world::World;
use bytes::Bytes;
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_core::sync::oneshot;
use levee_core::testing::{Registers, SECTOR, stamp_of};
use levee_meta_state::{Answer, Command};
use levee_proto::api::{
    ChunkInfo, CreateClones, CreateSnapshots, Family, Problem, ProblemKind, ReplicaPlace, SnapshotInfo, SnapshotName,
    SnapshotState,
};
use levee_proto::units::Extent;
use levee_proto::wire::{BlockKind, Reply, Request};
use levee_proto::{BLOCK_SIZE, Epoch, Geometry, Version, View, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Sectors of a block.
const SECTORS: u64 = (BLOCK_SIZE / SECTOR) as u64;
/// Snapshots of one volume at a time.
const MAX_SNAPSHOTS: usize = 5;
/// Volumes at a time.
const MAX_GUESTS: usize = 5;

/// What a snapshot may show, once that is so.
struct Shown {
    registers: Registers,
    /// Of the first gateway that writes at later versions.
    epoch: Epoch,
    /// Since when it does.
    at: Duration,
}

/// What is known of the order of writes to all volumes of which snapshots were taken together.
#[derive(Default)]
struct Order {
    /// When the first write that none of the snapshots has was answered.
    after: Cell<Option<Duration>>,
    /// When the last write that one of them has was begun.
    before: Cell<Duration>,
}

impl Order {
    fn is_broken(&self) -> bool {
        self.after.get().is_some_and(|after| after < self.before.get())
    }
}

struct Taken {
    name: String,
    version: Version,
    shown: Option<Shown>,
    together: Option<Rc<Order>>,
}

impl Taken {
    /// What a volume holds that begins with it.
    fn begin_with(&self) -> Option<Registers> {
        self.shown.as_ref().map(|s| s.registers.frozen())
    }
}

/// The snapshots of one volume.
#[derive(Default)]
pub struct Snapshots {
    taken: RefCell<Vec<Taken>>,
    named: Cell<u64>,
}

impl Snapshots {
    /// A gateway writes at `head` from now on.
    pub fn moved(&self, at: Duration, head: Version, epoch: Epoch, registers: &Registers) {
        for taken in self.taken.borrow_mut().iter_mut().filter(|t| t.version < head && t.shown.is_none()) {
            taken.shown = Some(Shown { registers: registers.frozen(), epoch, at });
        }
    }

    /// A write that a gateway was asked for at `begun` has been answered.
    pub fn answered(&self, epoch: Epoch, begun: Duration, now: Duration) {
        for taken in &*self.taken.borrow() {
            let Some(order) = &taken.together else { continue };
            match &taken.shown {
                Some(shown) if epoch >= shown.epoch => {
                    if begun > shown.at {
                        order.after.set(order.after.get().or(Some(now)));
                    }
                }
                _ => order.before.set(order.before.get().max(begun)),
            }
        }
    }

    /// Those that the meta server has given up are forgotten.
    fn forget_given_up(&self, world: &World, volume: &str) {
        let state = world.meta().state();
        let is_there = |t: &Taken| state.snapshot_named(&name_of(volume, &t.name)).is_ok();
        self.taken.borrow_mut().retain(|t| {
            let gone = t.together.is_some() && !is_there(t);
            if gone {
                reached!("group given up");
            }
            !gone
        });
    }

    /// A gateway is asked to write something.
    pub fn write(&self, sectors: &Range<u64>, epoch: Epoch, stamp: u64) {
        let shown = |t: &mut Taken| t.shown.as_mut().is_some_and(|s| s.epoch > epoch);
        for taken in self.taken.borrow_mut().iter_mut().filter_map(|t| shown(t).then_some(t)) {
            if let Some(shown) = &mut taken.shown {
                shown.registers.may_hold(sectors.clone(), stamp);
            }
        }
    }
}

fn name_of(volume: &str, snapshot: &str) -> SnapshotName {
    SnapshotName { volume: volume.into(), snapshot: snapshot.into() }
}

/// Takes a snapshot of some volume, or of several together, deletes one, clones one, goes back to one; or makes a clone independent.
pub async fn strike(world: &World) {
    let guests = world.guests();
    guests.iter().for_each(|g| g.snapshots().forget_given_up(world, g.name()));
    let Some(guest) = &world.some_guest() else { return };
    let count = guest.snapshots().taken.borrow().len();
    match world.below(10) {
        0..3 if guests.len() > 1 && world.one_in(2) => take_together(world, &guests),
        0..3 if count < MAX_SNAPSHOTS => take(world, guest),
        3 | 4 if count > 0 => delete(world, guest),
        5 | 6 if count > 0 && world.guests().len() < MAX_GUESTS => clone(world, guest),
        7 if count > 0 => compare(world, guest).await,
        8 if count > 0 => rollback(world, guest),
        9 if count == 0 && is_clone(world, guest) => flatten(world, guest),
        _ => take(world, guest),
    }
    // Often something happens right then.
    if world.one_in(2) {
        world.rt().sleep(world.some_time(60)).await;
        faults::unsettle(world);
    }
}

impl Snapshots {
    fn next_name(&self) -> String {
        format!("s{}", self.named.replace(self.named.get() + 1))
    }

    fn is_full(&self) -> bool {
        self.taken.borrow().len() >= MAX_SNAPSHOTS
    }

    fn push(&self, name: String, version: Version, together: Option<Rc<Order>>) {
        self.taken.borrow_mut().push(Taken { name, version, shown: None, together });
    }
}

fn begin(world: &World, snapshots: Vec<SnapshotName>) -> Result<Vec<SnapshotInfo>, Problem> {
    let request = CreateSnapshots { snapshots, image: None };
    match world.meta().apply(&Command::BeginSnapshots { request, created_ms: 0 })? {
        Answer::Snapshots(made) => {
            made.iter().for_each(|m| world.log(|| format!("{}@{} freezes version {}", m.volume, m.name, m.version)));
            Ok(made)
        }
        other => Err(Problem::new(ProblemKind::Internal, format!("a wrong answer: {other:?}"))),
    }
}

fn take(world: &World, guest: &Guest) {
    let snapshots = guest.snapshots();
    if snapshots.is_full() {
        return delete(world, guest);
    }
    let name = snapshots.next_name();
    match begin(world, vec![name_of(guest.name(), &name)]) {
        Ok(made) => {
            reached!("snapshot taken");
            made.iter().for_each(|m| snapshots.push(name.clone(), m.version, None));
        }
        // What a clone has is not complete while it is flattened.
        Err(problem) if world.meta().state().volume_versions(guest.name()).is_ok_and(|v| v.flatten) => {
            world.log(|| format!("no snapshot: {}", problem.detail));
        }
        Err(problem) => world.fail("meta", &format!("no snapshot of {}: {}", guest.name(), problem.detail)),
    }
}

fn take_together(world: &World, guests: &[Guest]) {
    let some: Vec<&Guest> = guests.iter().filter(|g| !g.snapshots().is_full()).collect();
    let names: Vec<String> = some.iter().map(|g| g.snapshots().next_name()).collect();
    let wanted = some.iter().zip(&names).map(|(g, name)| name_of(g.name(), name)).collect::<Vec<_>>();
    if wanted.len() < 2 {
        return;
    }
    match begin(world, wanted) {
        Ok(made) => {
            reached!("snapshots taken together");
            let order = Rc::new(Order::default());
            for ((guest, name), made) in some.iter().zip(names).zip(made) {
                guest.snapshots().push(name, made.version, Some(order.clone()));
            }
        }
        // One is flattened, or is in such a group already.
        Err(problem) => world.log(|| format!("no snapshots: {}", problem.detail)),
    }
}

fn delete(world: &World, guest: &Guest) {
    let snapshots = guest.snapshots();
    let at = world.below(snapshots.taken.borrow().len() as u64) as usize;
    let gone = snapshots.taken.borrow_mut().remove(at);
    let name = name_of(guest.name(), &gone.name);
    world.log(|| format!("{name} is deleted"));
    reached!("snapshot deleted");
    if let Err(problem) = world.meta().apply(&Command::DeleteSnapshot(name)) {
        world.fail("meta", &format!("a snapshot cannot be deleted: {}", problem.detail));
    }
}

/// A new guest, whose volume begins with a snapshot.
fn clone(world: &World, guest: &Guest) {
    let snapshots = guest.snapshots();
    let complete = complete(world, guest);
    if complete.is_empty() || world.alive().is_empty() {
        return;
    }
    let (name, _) = &complete[world.below(complete.len() as u64) as usize];
    let taken = snapshots.taken.borrow();
    let Some(shown) = taken.iter().find(|t| t.name == *name).and_then(Taken::begin_with) else { return };
    let names = Family::single(format!("c{}", world.guests().len()));
    let from = name_of(guest.name(), name);
    let request = CreateClones { from, names: names.clone(), size: None, copies: None, min_copies: None };
    match world.meta().apply(&Command::CreateClones(request)) {
        Ok(_) => reached!("snapshot cloned"),
        // Not deeper than is allowed.
        Err(problem) => return world.log(|| format!("no clone: {}", problem.detail)),
    }
    world.add_clone(&names.name, shown);
    faults::attach(world, &names.name);
}

/// The volume is detached, holds again what it held when a snapshot was taken, and is attached somewhere.
fn rollback(world: &World, guest: &Guest) {
    let complete = complete(world, guest);
    if complete.is_empty() || world.alive().is_empty() {
        return;
    }
    let (name, _) = &complete[world.below(complete.len() as u64) as usize];
    let name = name_of(guest.name(), name);
    let shown = guest.snapshots().taken.borrow().iter().find(|t| t.name == name.snapshot).and_then(Taken::begin_with);
    let Some(shown) = shown else { return };
    if let Err(problem) = world.meta().apply(&Command::Detach { name: guest.name().into() }) {
        return world.fail("meta", &format!("{} cannot be detached: {}", guest.name(), problem.detail));
    }
    world.log(|| format!("{} goes back to {name}", guest.name()));
    match world.meta().apply(&Command::Rollback(name)) {
        Ok(_) => {
            reached!("volume rolled back");
            guest.rolled_back(shown);
        }
        // Not while it is flattened, nor too often.
        Err(problem) => world.log(|| format!("no rollback: {}", problem.detail)),
    }
    faults::attach(world, guest.name());
}

fn is_clone(world: &World, guest: &Guest) -> bool {
    world.meta().state().volume(guest.volume()).is_some_and(|v| v.parent.is_some())
}

fn flatten(world: &World, guest: &Guest) {
    world.log(|| format!("{} is flattened", guest.name()));
    match world.meta().apply(&Command::Flatten { name: guest.name().into() }) {
        Ok(_) => reached!("clone flattened"),
        // It was, or has a snapshot that is being deleted.
        Err(problem) => world.log(|| format!("not flattened: {}", problem.detail)),
    }
}

/// Snapshots of which every replica set has enough sealed members, and what they see.
fn complete(world: &World, guest: &Guest) -> Vec<(String, View)> {
    let state = world.meta().state();
    let Ok(versions) = state.volume_versions(guest.name()) else { return vec![] };
    let mut all = vec![];
    for taken in &*guest.snapshots().taken.borrow() {
        let name = name_of(guest.name(), &taken.name);
        let is_done = state.snapshot_named(&name).is_ok_and(|s| s.state == SnapshotState::Done);
        let view = versions.snapshots.iter().find(|v| v.version == taken.version);
        if is_done && taken.shown.is_some() {
            all.extend(view.map(|v| (taken.name.clone(), v.clone())));
        }
    }
    all
}

/// What is left to be done about versions; `None`: nothing.
pub fn unfinished(world: &World, guest: &Guest) -> Option<String> {
    let versions = world.meta().state().volume_versions(guest.name()).ok()?;
    if let Some(version) = versions.pending {
        return Some(format!("{}: the snapshot of version {version} is not complete", guest.name()));
    }
    if versions.flatten {
        return Some(format!("{}: it still depends on its parent", guest.name()));
    }
    versions.prune.then(|| format!("{}: what no snapshot needs is not dropped", guest.name()))
}

/// Reads complete snapshots from every replica that says that it can: what all of them show has to be the same, and possible.
pub async fn compare(world: &World, guest: &Guest) {
    check_order(world, guest);
    if is_clone(world, guest) {
        // Clones of it, which read all ancestors, tell more.
        return;
    }
    for (name, view) in complete(world, guest) {
        let written: Vec<u64> = {
            let taken = guest.snapshots().taken.borrow();
            let shown = taken.iter().find(|t| t.name == name).and_then(|t| t.shown.as_ref());
            shown.map(|s| s.registers.sectors()).unwrap_or_default()
        };
        let blocks: BTreeSet<u64> = written.iter().map(|s| s / SECTORS).collect();
        let seen = read(world, guest.volume(), &view, &blocks).await;
        let mut taken = guest.snapshots().taken.borrow_mut();
        // It may have been deleted meanwhile.
        let Some(shown) = taken.iter_mut().find(|t| t.name == name).and_then(|t| t.shown.as_mut()) else { continue };
        for (block, bytes) in seen {
            for (sector, number) in bytes.chunks(SECTOR).zip(block * SECTORS..) {
                let begun = shown.registers.begin(u64::MAX);
                let found = stamp_of(sector, number).and_then(|stamp| shown.registers.saw(number, begun, stamp));
                if let Err(why) = found {
                    return world.fail("snapshots", &format!("{}@{name}: {why}", guest.name()));
                }
                reached!("snapshot read");
            }
        }
    }
}

/// Those of a group are of one moment.
fn check_order(world: &World, guest: &Guest) {
    for taken in &*guest.snapshots().taken.borrow() {
        let Some(order) = taken.together.as_ref() else { continue };
        let name = name_of(guest.name(), &taken.name);
        let state = world.meta().state();
        if state.snapshot_named(&name).is_ok_and(|s| s.state == SnapshotState::Done) {
            reached!("group of snapshots complete");
            if order.is_broken() {
                let (after, before) = (order.after.get(), order.before.get());
                let why = format!(
                    "{name}: a write that no snapshot has was answered at {after:?}, one that is in a snapshot begun at {before:?}"
                );
                return world.fail("one moment", &why);
            }
        }
    }
}

/// Blocks of a snapshot, by their number in the volume, from each replica that has them.
async fn read(world: &World, volume: VolumeId, view: &View, blocks: &BTreeSet<u64>) -> Vec<(u64, Bytes)> {
    let chunks = world.meta().state().volume(volume).map(|v| v.chunks.clone()).unwrap_or_default();
    let chunks: BTreeMap<u32, ChunkInfo> = chunks
        .into_iter()
        .map(|(index, c)| (index, ChunkInfo { index, chunk: c.id, config: c.config, replicas: c.replicas }))
        .collect();
    let mut seen = vec![];
    for block in blocks {
        let place: Extent = Geometry::default().locate(block * BLOCK_SIZE as u64, BLOCK_SIZE as u64);
        let Some(chunk) = chunks.get(&place.chunk_index) else {
            seen.push((*block, Bytes::from(vec![0; BLOCK_SIZE])));
            continue;
        };
        for replica in &chunk.replicas {
            let node = world.nodes().into_iter().find(|n| n.id == replica.node);
            let Some(process) = node.and_then(|n| n.process.borrow().clone()) else { continue };
            let within = place.offset / BLOCK_SIZE as u32;
            if let Some(bytes) = read_one(world, &process, volume, chunk, replica, view, within).await {
                seen.push((*block, bytes));
            }
        }
    }
    seen
}

async fn read_one(
    world: &World,
    process: &Rc<Process>,
    volume: VolumeId,
    chunk: &ChunkInfo,
    at: &ReplicaPlace,
    view: &View,
    block: u32,
) -> Option<Bytes> {
    let (replica, disk) = (at.replica, at.disk);
    let request =
        Request::ReadShared { volume, chunk: chunk.chunk, replica, disk, view: view.clone(), block, count: 1 };
    let core = core_of_shard((chunk.chunk.0 % u64::from(world.setup().shards)) as u16, world.setup().cores);
    let (answer, answered) = oneshot();
    process.handle(core, request, Bytes::new(), Box::new(move |reply, data| answer.send((reply, data))));
    // A process that dies, or is stopped, never answers.
    let answered = levee_core::sync::timeout(world.rt(), Duration::from_secs(2), answered).await;
    match answered.flatten()? {
        (Reply::Read { entries }, data) => match entries.first()?.kind {
            BlockKind::Data => Some(data),
            _ => Some(Bytes::from(vec![0; BLOCK_SIZE])),
        },
        _ => None,
    }
}
