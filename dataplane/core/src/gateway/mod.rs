//! The gateway's side of the protocol: the single writer of one volume.
//!
//! Lives on one executor and belongs to one epoch, which belongs to one process incarnation. It
//! orders the writes of each chunk, sends each to all copies at once, answers the guest when
//! `min_copies` have it durably, and reads from copies that are known to hold every acknowledged
//! write. Rules and reasons: `docs/protocol.md`.
//!
//! Invariants:
//! - A chunk is served only after `min_copies` members have durably adopted this epoch.
//! - A chunk's state is decided once per epoch: no member is asked to adopt before `min_copies` members hold it
//!   durably, and from then on it stands.
//! - What a member does not hold is noted: writes that it owes, blocks that it misses. It is read where it holds
//!   everything and has adopted this epoch.
//! - A guest's request waits for as long as it takes. It never fails because copies are away; it fails
//!   only with [`Stopped`], when a newer gateway exists or the volume is closed, or when all copies are there and none can
//!   read what it asks for ([`Failure::Lost`]).

mod allocate;
mod ancestors;
mod ask_shared;
mod background;
mod chunk;
mod commit;
mod config;
mod confirm;
mod diff;
mod entry_set;
mod fence;
mod flatten;
mod free;
mod heal;
mod hedge;
mod hold;
mod layered;
mod leaving;
mod locks;
mod member;
mod prune;
mod read;
mod reconcile;
mod report;
mod resync;
mod scrub;
mod session;
mod snapshot;
mod takeover;
mod tally;
mod through;
mod traffic;
mod unread;
mod verify;
mod versions;
mod watch;
mod write;

use crate::ports::Runtime;
use crate::shared::SharedBlocks;
use crate::sync::Event;
use ancestors::Ancestors;
use background::Background;
use bytes::Bytes;
use chunk::{Chunk, Stage};
use confirm::Confirmations;
use hold::Hold;
use leaving::Leaving;
use levee_proto::api::{
    ChangedReplicas, ChunkInfo, OpenedVolume, ParentInfo, ReplicaChange, ReplicaPlace, VolumeVersions,
};
use levee_proto::units::{Extent, MAX_VOLUME_SIZE};
use levee_proto::wire::{MAX_BLOCKS, MAX_SUMMARIES, Reply, Request};
use levee_proto::{ChunkId, DiskId, NodeId, ReplicaId, Version};
use locks::Orders;
use report::Counters;
pub use report::GatewayReport;
pub use scrub::Scrubbed;
use session::Session;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tracing::{info, warn};
use traffic::Sampled;
pub use unread::Failure;
use versions::Versions;

/// An extent fits one request.
const MAX_STRIPE_UNIT: u32 = MAX_BLOCKS * levee_proto::BLOCK_SIZE as u32;

/// The link broke, or no answer came in time: whether the request took effect is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkDown(pub String);

/// Outcome of a request to a daemon.
pub type Answer = Result<(Reply, Bytes), LinkDown>;

/// Called once with the outcome.
pub type Done = Box<dyn FnOnce(Answer)>;

/// Why chunks could not be allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// A newer epoch exists.
    Fenced(String),
    /// For now; why, for a person.
    Retry(String),
}

/// What the meta server is told of a volume's versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accomplished {
    /// Nothing is written at this version any more, and what is written at later ones is not answered.
    Moved(Version),
    /// Such writes were answered before the meta server allowed it.
    Parted(Version),
    /// Every chunk has `min_copies` replicas that are sealed at this version.
    Sealed(Version),
    /// What no view of the versions with this number reads has been dropped.
    Pruned(u64),
    /// The volume holds all that its ancestors had.
    Flattened,
}

/// The cluster as a gateway needs it.
pub trait Cluster: 'static {
    /// Number of cores of a node; 0 while the node is not known.
    fn cores(&self, node: NodeId) -> u16;

    /// The core of `node` that holds `chunk` on `disk`.
    fn core_of(&self, node: NodeId, disk: DiskId, chunk: ChunkId) -> u16;

    /// Sends a request. `done` is never called from inside. Requests to one core arrive in call order.
    fn call(&self, node: NodeId, core: u16, request: Request, data: Bytes, done: Done);

    /// Asks the meta server for other replica sets, or (all members leave, none comes) to free chunks, or (no changes)
    /// whether the epoch is the newest. What is answered twice takes effect once.
    fn change(
        &self,
        changes: Vec<ReplicaChange>,
    ) -> impl Future<Output = Result<ChangedReplicas, AllocError>> + 'static;

    /// Asks the meta server for chunks of the volume.
    fn allocate(&self, indexes: Vec<u32>) -> impl Future<Output = Result<Vec<ChunkInfo>, AllocError>> + 'static;

    /// Tells the meta server what was done; answers the volume's versions as they are then. What is told twice takes
    /// effect once.
    fn accomplished(&self, what: Accomplished) -> impl Future<Output = Result<VolumeVersions, AllocError>> + 'static;

    /// Asks the meta server where the volume's ancestors are now: their replicas move, too. `None`: it has none any more.
    fn parent(&self) -> impl Future<Output = Result<Option<ParentInfo>, AllocError>> + 'static;

    /// What all gateways of this process remember of snapshots; `None`: nothing is remembered.
    fn shared(&self) -> Option<&SharedBlocks> {
        None
    }
}

/// The gateway has stopped; why, for a person. The request stays unanswered: the next gateway replays it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped(pub String);

/// Times that a deployment may want to change.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A daemon that leaves a request unanswered for so long is left behind and caught up later.
    pub answer_timeout: Duration,
    /// In about this time every block of every copy is read back once; none: never.
    pub scrub_period: Option<Duration>,
    /// The first scrub is made without pauses: nobody uses the volume, which is open for its copies' sake.
    pub scrub_at_once: bool,
    /// Between two looks at whether commit points may be told.
    pub commit_period: Duration,
    /// At an open, how long to wait for the copies beyond a quorum before going on without them.
    pub takeover_grace: Duration,
    /// Replicas of which a fenced disk tells in one message.
    pub replicas_per_page: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            answer_timeout: Duration::from_secs(1),
            scrub_period: Some(Duration::from_secs(7 * 24 * 3600)),
            scrub_at_once: false,
            commit_period: Duration::from_secs(2),
            takeover_grace: Duration::from_millis(300),
            replicas_per_page: MAX_SUMMARIES as u32,
        }
    }
}

/// How redundant a volume is right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Chunks of which every copy is up to date.
    pub healthy: u32,
    /// Chunks with at least one copy away or behind.
    pub degraded: u32,
    /// Of these: chunks with fewer copies that are up to date than they should have. The others have one more, which is being made.
    pub short: u32,
    /// Of these: chunks that are served, and too few of whose copies can be reached to acknowledge a write.
    pub unwritable: u32,
    /// Chunks that wait for a quorum and are not served.
    pub waiting: u32,
    /// Of these: chunks that were just allocated. It is normal for them, and over in a moment.
    pub new: u32,
}

/// One open volume. A cheap handle.
pub struct Gateway<R: Runtime, C: Cluster>(Rc<Inner<R, C>>);

struct Inner<R: Runtime, C: Cluster> {
    rt: R,
    cluster: C,
    /// The node we run on: its copies are read first.
    node: NodeId,
    volume: OpenedVolume,
    /// Bytes; grows while the volume is served.
    size: Cell<u64>,
    versions: Versions,
    hold: Hold,
    ancestors: Ancestors,
    options: Options,
    /// By index; `None`: not allocated, as far as we know.
    chunks: RefCell<Vec<Option<Rc<Chunk>>>>,
    orders: Orders,
    /// By disk: one disk's failure is not its node's.
    sessions: RefCell<BTreeMap<DiskId, Rc<Session>>>,
    allocating: RefCell<BTreeMap<u32, Event>>,
    /// Replicas that are to be put elsewhere.
    leaving: RefCell<Leaving>,
    background: Background,
    sampled: Sampled,
    /// A chunk may hold no data any more.
    emptied: Event,
    confirmations: Confirmations,
    counters: Counters,
    /// No request is outstanding, and the watchdog sleeps.
    idle: Cell<bool>,
    woken: Event,
    stopped: RefCell<Option<Stopped>>,
    ended: Event,
    /// A session came or went, a chunk changed its stage, or the gateway stopped.
    changed: Event,
}

impl<R: Runtime, C: Cluster> Clone for Gateway<R, C> {
    fn clone(&self) -> Self {
        Gateway(self.0.clone())
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Takes the volume over: fences its replicas and reconciles what is in doubt, in the background.
    /// Requests may be made at once; each waits until its chunk is served.
    ///
    /// # Panics
    /// If the meta server's answer contradicts itself; [`check`] it first.
    pub fn open(rt: R, cluster: C, node: NodeId, volume: OpenedVolume, options: Options) -> Self {
        let chunks = RefCell::new(Vec::new());
        let (versions, ancestors) = (Versions::new(&volume), Ancestors::new(&volume));
        let gateway = Gateway(Rc::new(Inner {
            sampled: Sampled::new(rt.now()),
            rt,
            cluster,
            node,
            size: Cell::new(volume.size),
            volume,
            versions,
            hold: Hold::default(),
            ancestors,
            options,
            chunks,
            orders: Orders::default(),
            sessions: RefCell::default(),
            allocating: RefCell::default(),
            leaving: RefCell::default(),
            background: Background::default(),
            emptied: Event::new(),
            confirmations: Confirmations::default(),
            counters: Counters::default(),
            idle: Cell::new(false),
            woken: Event::new(),
            stopped: RefCell::new(None),
            ended: Event::new(),
            changed: Event::new(),
        }));
        for info in &gateway.0.volume.chunks {
            gateway.add_chunk(Chunk::new(info, false, gateway.0.orders.at(info.index)));
        }
        gateway.spawn_takeover();
        gateway.spawn_watchdog();
        gateway.spawn_changes();
        gateway.spawn_commits();
        gateway.spawn_seals();
        gateway.spawn_holds();
        gateway.spawn_prune();
        gateway.spawn_flatten();
        gateway.spawn_scrub();
        gateway.spawn_frees();
        gateway
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.size.get()
    }

    /// Lets requests reach up to `size` bytes, at once; whether that is more than before. A volume never shrinks: a
    /// smaller size is an older one.
    ///
    /// What lies between was never written, so it reads as zeros; its chunks are allocated when they are written.
    pub fn grow(&self, size: u64) -> Result<bool, String> {
        check_size(size)?;
        let before = self.0.size.get();
        if size > before {
            info!(volume = %self.0.volume.name, "grows from {before} to {size} bytes");
            self.0.size.set(size);
        }
        Ok(size > before)
    }

    /// Whether it serves a snapshot, which nobody can write to. It has no chunks, so it asks replicas for nothing but
    /// what they are sealed at.
    pub fn is_read_only(&self) -> bool {
        self.0.volume.read_only
    }

    /// Nothing is written to a snapshot. Those who serve guests have refused it before; what comes here is left unanswered.
    fn check_writable(&self) -> Result<(), Stopped> {
        if self.is_read_only() && !crate::mutant!("a snapshot is written to") {
            return Err(Stopped(format!("{} is read-only", self.0.volume.name)));
        }
        self.check_stopped()
    }

    /// Whether both are handles to one gateway.
    pub fn same_as(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Completes when every chunk that has its quorum is served.
    pub async fn ready(&self) -> Result<(), Stopped> {
        let grace = self.0.rt.now() + self.0.options.takeover_grace * 2;
        loop {
            let changed = self.0.changed.listen();
            self.check_stopped()?;
            let waiting = self.health().waiting;
            let late = self.0.rt.now() >= grace;
            if waiting == 0 || (late && self.chunks().iter().all(|c| c.is_served() || !self.has_quorum(c))) {
                return Ok(());
            }
            crate::sync::timeout(&self.0.rt, Duration::from_millis(20), changed).await;
        }
    }

    /// Stops for good: outstanding requests stay unanswered. Idempotent.
    pub fn stop(&self, why: &str) {
        if self.0.stopped.borrow().is_some() {
            return;
        }
        info!(volume = %self.0.volume.name, epoch = %self.0.volume.epoch, "gateway stops: {why}");
        *self.0.stopped.borrow_mut() = Some(Stopped(why.to_string()));
        let sessions: Vec<_> = self.0.sessions.borrow().values().cloned().collect();
        sessions.iter().for_each(|s| s.fail("the gateway stopped"));
        for chunk in self.chunks() {
            chunk.abandon();
        }
        self.0.hold.forget();
        self.0.allocating.borrow().values().for_each(Event::notify);
        self.0.ended.notify();
        self.0.emptied.notify();
        self.0.changed.notify();
    }

    /// Lets go of what is outstanding, without a word to anybody: for a process that is gone, whose tasks are dropped.
    /// (Callbacks of requests own the gateway, which owns them.)
    pub fn abandon(&self) {
        let sessions = self.0.sessions.take();
        sessions.values().for_each(|s| s.forget());
        self.chunks().iter().for_each(|c| c.abandon());
        self.0.hold.forget();
    }

    /// Why it stopped, if it did.
    pub fn stopped(&self) -> Option<Stopped> {
        self.0.stopped.borrow().clone()
    }

    /// Completes when the gateway has stopped.
    pub async fn wait_stopped(&self) -> Stopped {
        loop {
            let changed = self.0.changed.listen();
            if let Some(s) = self.stopped() {
                return s;
            }
            changed.await;
        }
    }

    /// Counts chunks by redundancy.
    pub fn health(&self) -> Health {
        let mut health = Health::default();
        for chunk in self.chunks() {
            if !chunk.is_served() {
                health.waiting += 1;
                health.new += u32::from(chunk.is_new());
            } else if self.is_whole(&chunk) {
                health.healthy += 1;
            } else {
                health.degraded += 1;
                health.short += u32::from(self.is_short(&chunk));
                health.unwritable += u32::from(chunk.live_members() < usize::from(self.0.volume.min_copies));
            }
        }
        health
    }

    /// Whether a chunk has fewer copies that are up to date than it should.
    fn is_short(&self, chunk: &Chunk) -> bool {
        chunk.current_members() < self.0.volume.copies
    }

    /// Whether a chunk has all its copies, up to date.
    fn is_whole(&self, chunk: &Chunk) -> bool {
        chunk.is_healthy() && chunk.copies() >= usize::from(self.0.volume.copies)
    }

    fn check_stopped(&self) -> Result<(), Stopped> {
        match &*self.0.stopped.borrow() {
            Some(s) => Err(s.clone()),
            None => Ok(()),
        }
    }

    fn is_stopped(&self) -> bool {
        self.0.stopped.borrow().is_some()
    }

    fn min_copies(&self) -> usize {
        usize::from(self.0.volume.min_copies)
    }

    /// All allocated chunks, in index order.
    fn chunks(&self) -> Vec<Rc<Chunk>> {
        self.0.chunks.borrow().iter().flatten().cloned().collect()
    }

    fn chunk(&self, index: u32) -> Option<Rc<Chunk>> {
        self.0.chunks.borrow().get(index as usize).cloned().flatten()
    }

    fn add_chunk(&self, chunk: Rc<Chunk>) {
        let (index, members) = (chunk.index as usize, chunk.members());
        {
            let mut chunks = self.0.chunks.borrow_mut();
            if chunks.len() <= index {
                chunks.resize(index + 1, None);
            }
            chunks[index] = Some(chunk);
        }
        for (_, place) in members {
            self.session(place);
        }
    }

    /// Sleeps, at most until the gateway stops.
    async fn pause(&self, time: Duration) {
        let ended = self.0.ended.listen();
        if !self.is_stopped() {
            crate::sync::timeout(&self.0.rt, time, ended).await;
        }
    }

    /// The session with the daemon that has a disk, about that disk; begun when there is none.
    fn session(&self, place: ReplicaPlace) -> Rc<Session> {
        if let Some(s) = self.0.sessions.borrow().get(&place.disk) {
            return s.clone();
        }
        let session = Session::new(place.node, place.disk);
        self.0.sessions.borrow_mut().insert(place.disk, session.clone());
        self.spawn_session(session.clone());
        session
    }

    /// The session that a chunk's member belongs to.
    fn session_of(&self, chunk: &Chunk, member: usize) -> Rc<Session> {
        self.session(chunk.place(member))
    }

    fn extents(&self, offset: u64, len: u64) -> impl Iterator<Item = Extent> + use<R, C> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.size()), "request beyond the volume's end");
        self.0.volume.geometry.extents(offset, len)
    }

    /// A wrong answer from a daemon, or one that says it cannot go on: begin the session anew.
    fn distrust(&self, session: &Rc<Session>, why: &str) {
        warn!(volume = %self.0.volume.name, node = %session.node, disk = %session.disk, "{why}; starting over with this disk");
        self.lose(session, why);
    }

    /// As [`Gateway::distrust`], about what was asked of a member; unless it has left the chunk meanwhile, and its replica
    /// may be deleted.
    fn distrust_member(&self, chunk: &Chunk, member: usize, session: &Rc<Session>, why: &str) {
        if !chunk.state.borrow().members[member].is_gone() {
            self.distrust(session, why);
        }
    }
}

/// Whether an opened volume, as the meta server described it, can be served at all.
pub fn check(volume: &OpenedVolume) -> Result<(), String> {
    check_size(volume.size)?;
    if volume.more {
        return Err("its map is not complete: what is missing would read as zeros".into());
    }
    if !volume.geometry.is_valid() || volume.geometry.stripe_unit > MAX_STRIPE_UNIT {
        return Err("geometry is unusable".into());
    }
    if !(1..=5).contains(&volume.copies) || !(1..=volume.copies).contains(&volume.min_copies) {
        return Err("copies are out of range".into());
    }
    if volume.read_only && (volume.parent.is_none() || !volume.chunks.is_empty()) {
        return Err("it is read-only, but not a snapshot alone".into());
    }
    versions::check(&volume.versions)?;
    ancestors::check(volume)?;
    check_chunks(volume, volume.size, &volume.chunks)
}

/// Whether a volume can have that many bytes.
fn check_size(size: u64) -> Result<(), String> {
    if size == 0 || size > MAX_VOLUME_SIZE || !size.is_multiple_of(levee_proto::BLOCK_SIZE as u64) {
        return Err(format!("a size of {size} bytes is unusable"));
    }
    Ok(())
}

/// Whether chunks fit the volume, which has `size` bytes by now.
pub fn check_chunks(volume: &OpenedVolume, size: u64, chunks: &[ChunkInfo]) -> Result<(), String> {
    let count = volume.geometry.chunk_count(size);
    for c in chunks {
        // One more while a copy is moved; fewer where nodes were out of service.
        let copies = usize::from(volume.min_copies)..=usize::from(volume.copies) + 1;
        if c.index >= count || !copies.contains(&c.replicas.len()) {
            return Err(format!("chunk {} has a wrong index or number of copies", c.chunk));
        }
        let disks: BTreeSet<DiskId> = c.replicas.iter().map(|r| r.disk).collect();
        let replicas: BTreeSet<ReplicaId> = c.replicas.iter().map(|r| r.replica).collect();
        if disks.len() != c.replicas.len() || replicas.len() != c.replicas.len() {
            return Err(format!("chunk {} has two copies on one disk", c.chunk));
        }
    }
    Ok(())
}
