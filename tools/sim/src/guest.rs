//! A guest: workers that read, write, zero and discard one volume through whatever serves it, and compare what comes
//! back with what is possible.
//!
//! When its device goes away, its requests stay with it, and are made again of the next device, in their order, before
//! any new one: as with in-flight tracking. When the guest itself dies, they are forgotten, and mostly cancelled as its queues
//! end: each takes effect before what comes later, or never will.

use crate::gateway::SimGateway;
use crate::process::Process;
use crate::snapshots::Snapshots;
use crate::world::World;
use bytes::Bytes;
use levee_core::gateway::Failure;
use levee_core::ports::Runtime;
use levee_core::reached;
use levee_core::sync::{Event, Listener, Sender, oneshot};
use levee_core::testing::{Begun, Registers, SECTOR, TestRng, ZERO, fill, stamp_of};
use levee_proto::{BLOCK_SIZE, Epoch, Version, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Blocks that most requests are about, at the start of the first two chunks: few, so that requests collide.
const HOT: u64 = 5;
/// Where the second chunk begins.
const SECOND_CHUNK: u64 = 1 << 20;
/// Where the second group of chunks begins.
const SECOND_GROUP: u64 = 1 << 28;
/// Blocks of the first chunk that are now and then written or read many at a time.
const WIDE: Range<u64> = 16..120;
/// One request in so many goes to a gateway that was replaced.
const GHOST: u64 = 12;
/// One discard in so many is about all that is written of a chunk: it is given back then.
const EMPTYING: u64 = 4;
/// Mean pause within a burst.
const BURST_US: u64 = 300;

/// What serves the guest.
pub struct Device {
    pub process: Rc<Process>,
    pub gateway: SimGateway,
    pub epoch: Epoch,
}

impl Device {
    pub fn new(process: Rc<Process>, gateway: SimGateway, epoch: Epoch) -> Rc<Device> {
        Rc::new(Device { process, gateway, epoch })
    }

    /// Whether every copy of the volume is up to date, as far as it knows.
    pub fn is_whole(&self) -> bool {
        let health = self.gateway.health();
        !self.is_over() && health.degraded + health.waiting == 0
    }

    /// Whether it can do nothing any more.
    fn is_over(&self) -> bool {
        !self.process.rt.is_alive() || self.gateway.stopped().is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Zero,
    Discard,
}

#[derive(Clone, Debug)]
struct Op {
    kind: Kind,
    /// Bytes, whole sectors.
    range: Range<u64>,
    stamp: u64,
}

impl Op {
    /// What it changes, sectors.
    fn sectors(&self) -> Range<u64> {
        let size = SECTOR as u64;
        match self.kind {
            // Only whole blocks are discarded.
            Kind::Discard => {
                let (first, last) = (self.range.start.div_ceil(BLOCK), self.range.end / BLOCK);
                first * BLOCK / size..last.max(first) * BLOCK / size
            }
            _ => self.range.start / size..self.range.end / size,
        }
    }
}

struct Outstanding {
    op: Op,
    done: Sender<()>,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Guest(Rc<Inner>);

struct Inner {
    world: World,
    name: String,
    volume: VolumeId,
    size: u64,
    rng: RefCell<TestRng>,
    registers: RefCell<Registers>,
    /// Epoch of the first gateway that has to do with `registers`: the volume was rolled back before.
    since: Cell<Epoch>,
    device: RefCell<Option<Rc<Device>>>,
    /// Devices that were replaced.
    ghosts: RefCell<Vec<Rc<Device>>>,
    outstanding: RefCell<BTreeMap<u64, Outstanding>>,
    next: Cell<u64>,
    stopping: Cell<bool>,
    workers: Cell<u64>,
    answered: Cell<u64>,
    changed: Event,
    /// The guest died, and with it its queues.
    cancelled: Event,
    snapshots: Snapshots,
}

impl Guest {
    /// `registers`: what the volume begins with.
    pub fn new(world: World, name: String, volume: VolumeId, size: u64, seed: u64, registers: Registers) -> Guest {
        Guest(Rc::new(Inner {
            world,
            name,
            volume,
            size,
            rng: RefCell::new(TestRng::new(seed)),
            registers: RefCell::new(registers),
            since: Cell::default(),
            device: RefCell::default(),
            ghosts: RefCell::default(),
            outstanding: RefCell::default(),
            next: Cell::new(1),
            stopping: Cell::new(false),
            workers: Cell::new(0),
            answered: Cell::new(0),
            changed: Event::new(),
            cancelled: Event::new(),
            snapshots: Snapshots::default(),
        }))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    /// A gateway of the volume writes at `head` from now on.
    pub fn moved(&self, head: Version, epoch: Epoch) {
        self.0.snapshots.moved(self.0.world.rt().now(), head, epoch, &self.0.registers.borrow());
    }

    pub fn volume(&self) -> VolumeId {
        self.0.volume
    }

    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.0.answered.get()
    }

    pub fn device(&self) -> Option<Rc<Device>> {
        self.0.device.borrow().clone()
    }

    /// Begins to make requests, `depth` at a time.
    pub fn start(&self, depth: u64, think: Duration) {
        for _ in 0..depth {
            self.0.workers.set(self.0.workers.get() + 1);
            let guest = self.clone();
            self.0.world.rt().spawn(async move { guest.work(think).await });
        }
    }

    /// Makes no more requests; what is outstanding is waited for.
    pub fn finish(&self) {
        self.0.stopping.set(true);
    }

    /// Whether nothing is outstanding any more.
    pub fn is_finished(&self) -> bool {
        self.0.workers.get() == 0
    }

    /// What keeps it from being finished.
    pub fn waits_for(&self) -> Vec<String> {
        self.0.outstanding.borrow().values().map(|o| format!("{:?}", o.op)).collect()
    }

    /// Another gateway serves the volume. It gets what the one before left unanswered, if that is over; else the guest
    /// is on another machine, and its first life is lost. One that was held up while it opened, and was replaced, finds that the
    /// guest has gone on.
    pub fn attach(&self, device: Rc<Device>, head: Version) {
        if self.device().is_some_and(|newer| newer.epoch > device.epoch) {
            return self.0.ghosts.borrow_mut().push(device);
        }
        self.moved(head, device.epoch);
        let old = self.0.device.replace(Some(device.clone()));
        if let Some(old) = old {
            let replay = old.is_over() && !self.0.rng.borrow_mut().one_in(4);
            self.0.ghosts.borrow_mut().push(old);
            if !replay {
                self.crash();
            }
        }
        let replayed: Vec<(u64, Op)> = self.0.outstanding.borrow().iter().map(|(id, o)| (*id, o.op.clone())).collect();
        if !replayed.is_empty() {
            reached!("guest replays requests");
        }
        for (id, op) in replayed {
            self.send(&device, Some(id), &op);
        }
    }

    /// The volume was rolled back: it holds this from the next gateway on, and what others still do is gone.
    pub fn rolled_back(&self, to: Registers) {
        let since = Epoch(self.0.world.meta().epoch(self.0.volume) + 1);
        self.moved(Version::MAX, since);
        self.0.since.set(since);
        self.0.registers.replace(to);
        let old = self.0.device.take();
        self.0.ghosts.borrow_mut().extend(old);
        self.crash();
    }

    /// Lets go of its devices: the end of a run.
    pub fn forget(&self) {
        self.0.outstanding.take();
        self.0.device.take();
        self.0.ghosts.take();
    }

    /// The guest dies: nobody waits for its requests any more. What its gateway still does about them is left to it, or cancelled.
    pub fn crash(&self) {
        self.0.outstanding.take();
        if self.0.rng.borrow_mut().one_in(2) {
            self.0.cancelled.notify();
        }
    }

    async fn work(&self, think: Duration) {
        while !self.0.stopping.get() {
            // In bursts: what matters is what meets.
            let pause = match self.0.rng.borrow_mut().below(3) {
                0 => think.as_micros() as u64 * 2,
                _ => BURST_US,
            };
            let pause = 1 + self.0.rng.borrow_mut().below(2 * pause);
            self.0.world.rt().sleep(Duration::from_micros(pause)).await;
            if self.0.stopping.get() {
                break;
            }
            let op = self.some_op();
            let ghost = self.some_ghost();
            if let Some(ghost) = ghost {
                // Nobody waits for it.
                self.send(&ghost, None, &op);
                continue;
            }
            let id = self.0.next.replace(self.0.next.get() + 1);
            let (done, waits) = oneshot();
            self.0.outstanding.borrow_mut().insert(id, Outstanding { op: op.clone(), done });
            if let Some(device) = self.device() {
                self.send(&device, Some(id), &op);
            }
            // `None`: the guest was started again.
            waits.await;
        }
        self.0.workers.set(self.0.workers.get() - 1);
        self.0.changed.notify();
    }

    /// Now and then, a gateway that may not know that it was replaced.
    fn some_ghost(&self) -> Option<Rc<Device>> {
        let rng = &mut *self.0.rng.borrow_mut();
        let ghosts = &mut *self.0.ghosts.borrow_mut();
        ghosts.retain(|g| !g.is_over());
        let there = !ghosts.is_empty() && rng.one_in(GHOST);
        there.then(|| ghosts[rng.index(ghosts.len())].clone())
    }

    fn some_op(&self) -> Op {
        let rng = &mut *self.0.rng.borrow_mut();
        let kind = match rng.below(20) {
            0..7 => Kind::Read,
            7..17 => Kind::Write,
            17 | 18 => Kind::Zero,
            _ => Kind::Discard,
        };
        let range = match kind {
            Kind::Discard if rng.one_in(EMPTYING) => all_of_a_chunk(rng, self.0.size),
            _ => some_range(rng, self.0.size),
        };
        let stamp = if kind == Kind::Write { rng.next_u64() | 1 } else { ZERO };
        Op { kind, range, stamp }
    }

    /// Makes the request in the device's process.
    fn send(&self, device: &Rc<Device>, id: Option<u64>, op: &Op) {
        let (guest, target, op, sent) = (self.clone(), device.clone(), op.clone(), self.0.world.rt().now());
        let cancelled = self.0.cancelled.listen();
        let run = async move {
            // It takes its place in the order with the first poll.
            let begun = guest.begin(&target, &op);
            if until(cancelled, guest.make(&target, &op, begun)).await == Some(true) {
                if op.kind == Kind::Write {
                    guest.0.snapshots.answered(target.epoch, sent, guest.0.world.rt().now());
                }
                let done = id.and_then(|id| guest.0.outstanding.borrow_mut().remove(&id));
                if let Some(outstanding) = done {
                    guest.0.answered.set(guest.0.answered.get() + 1);
                    outstanding.done.send(());
                }
            }
        };
        device.process.rt.spawn(run);
    }

    /// Notes that a request is made of a device.
    fn begin(&self, device: &Device, op: &Op) -> Begun {
        let begun = self.0.registers.borrow_mut().begin(device.epoch.0.into());
        if op.kind != Kind::Read {
            if device.epoch >= self.0.since.get() {
                self.0.registers.borrow_mut().write(op.sectors(), begun, op.stamp);
            }
            self.0.snapshots.write(&op.sectors(), device.epoch, op.stamp);
        }
        begun
    }

    /// Makes one attempt at a request; whether it was answered.
    async fn make(&self, device: &Device, op: &Op, begun: Begun) -> bool {
        let (start, len) = (op.range.start, op.range.end - op.range.start);
        let gateway = &device.gateway;
        let outcome = match op.kind {
            Kind::Read => match gateway.read(start, len as usize).await {
                Ok(pieces) => {
                    self.check_read(device, op, begun, &pieces.concat());
                    return true;
                }
                Err(stopped) => Err(stopped),
            },
            Kind::Write => {
                let mut data = vec![0; len as usize];
                fill(&mut data, start / SECTOR as u64, op.stamp);
                gateway.write(start, Bytes::from(data)).await
            }
            Kind::Zero => gateway.write_zeroes(start, len).await,
            Kind::Discard => gateway.discard(start, len).await,
        };
        match outcome {
            Ok(()) => {}
            Err(Failure::Stopped(_)) => return false,
            Err(Failure::Lost) => {
                self.fail_lost(device, op);
                return false;
            }
        }
        self.0.world.log(|| format!("{}: {op:x?} acknowledged at epoch {}", self.0.name, device.epoch));
        // A gateway that was replaced promises nothing about what it discards.
        let is_replaced = || self.0.world.meta().epoch(self.0.volume) != device.epoch.0;
        if device.epoch < self.0.since.get() || (op.kind == Kind::Discard && is_replaced()) {
            return true;
        }
        if let Err(why) = self.0.registers.borrow_mut().acknowledge(op.sectors(), begun) {
            self.0.world.fail("acknowledged", &format!("{}: {why}", self.0.name));
        }
        true
    }

    /// The guest is told that what it asks for is on no copy. Only one node's disks go bad in a run, and all that is written is
    /// on others, too.
    fn fail_lost(&self, device: &Device, op: &Op) {
        let (name, epoch) = (&self.0.name, device.epoch);
        self.0.world.fail("lost", &format!("{name}: {op:x?} at epoch {epoch}: an I/O error, and a good copy exists"));
    }

    fn check_read(&self, device: &Device, op: &Op, begun: Begun, bytes: &[u8]) {
        // A gateway that was replaced may still read its own epoch's state: only the newest one counts.
        let is_replaced =
            self.0.world.meta().epoch(self.0.volume) != device.epoch.0 || device.epoch < self.0.since.get();
        if is_replaced || device.gateway.stopped().is_some() {
            return reached!("read by a gateway that was replaced");
        }
        for (sector, number) in bytes.chunks(SECTOR).zip(op.sectors()) {
            let seen = stamp_of(sector, number).and_then(|stamp| {
                self.0.world.note(stamp);
                self.0.registers.borrow_mut().saw(number, begun, stamp)
            });
            if let Err(why) = seen {
                let (name, epoch) = (&self.0.name, device.epoch);
                self.0.world.fail("linearizable", &format!("{name}: read at epoch {epoch}: {why}"));
            }
        }
    }

    /// Reads everything that was ever written.
    pub async fn read_all(&self) {
        let Some(device) = self.device() else { return self.0.world.fail("stuck", "the volume is not served") };
        let mut sectors = self.0.registers.borrow().sectors().into_iter().peekable();
        while let Some(first) = sectors.next() {
            let mut last = first;
            while let Some(next) = sectors.next_if(|next| *next == last + 1 && *next < first + 256) {
                last = next;
            }
            let size = SECTOR as u64;
            let op = Op { kind: Kind::Read, range: first * size..(last + 1) * size, stamp: ZERO };
            let begun = self.0.registers.borrow_mut().begin(device.epoch.0.into());
            self.make(&device, &op, begun).await;
        }
    }
}

/// What comes of `work`, unless `end` comes first: then it is dropped.
async fn until<T>(end: Listener, work: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut work) = (pin!(end), pin!(work));
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
        done => done.map(Some),
    })
    .await
}

fn some_chunk(rng: &mut TestRng, size: u64) -> u64 {
    match rng.below(16) {
        0 if size > SECOND_GROUP => SECOND_GROUP,
        n => n % 2 * SECOND_CHUNK,
    }
}

fn all_of_a_chunk(rng: &mut TestRng, size: u64) -> Range<u64> {
    let base = some_chunk(rng, size);
    base..base + SECOND_CHUNK
}

/// Mostly one block; sometimes some sectors, sometimes many blocks.
fn some_range(rng: &mut TestRng, size: u64) -> Range<u64> {
    let base = some_chunk(rng, size);
    let hot = HOT * BLOCK;
    match rng.below(60) {
        0 => {
            let (a, b) = (rng.between(WIDE.start, WIDE.end - 1), rng.between(WIDE.start, WIDE.end - 1));
            a.min(b) * BLOCK..(a.max(b) + 1) * BLOCK
        }
        // Across two chunks.
        1 => SECOND_CHUNK - rng.between(1, 8) * SECTOR as u64..SECOND_CHUNK + rng.between(1, 8) * SECTOR as u64,
        2..14 => {
            let at = rng.below(hot / SECTOR as u64) * SECTOR as u64;
            let len = (rng.between(1, 20) * SECTOR as u64).min(hot - at);
            base + at..base + at + len
        }
        14..20 => {
            let (a, b) = (rng.below(HOT), rng.below(HOT));
            base + a.min(b) * BLOCK..base + (a.max(b) + 1) * BLOCK
        }
        _ => {
            let at = base + rng.below(HOT) * BLOCK;
            at..at + BLOCK
        }
    }
}
