//! One gateway's dealings with one disk of a daemon: fencing it, outstanding requests, and losing it.
//!
//! A session is up from the answer to its fence until anything goes wrong; then every outstanding
//! request fails once, the disk's replicas are behind, and it starts over. When the link to a daemon breaks, the sessions
//! with all its disks end. An answer that comes after
//! that is dropped.

use super::chunk::{Chunk, Found, Stage};
use super::fence::FenceError;
use super::hedge::LATE;
use super::{Answer, Cluster, Done, Gateway, LinkDown};
use crate::ports::Runtime;
use crate::sync::{Event, Listener, Sender, oneshot, timeout};
use bytes::Bytes;
use levee_proto::wire::{ReplicaSummary, Reply, Request, Status, Target};
use levee_proto::{DiskId, NodeId, ReplicaId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tracing::{debug, warn};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Bytes of answered writes that a daemon may still have to make durable before it is left behind.
const MAX_OWED_BYTES: u64 = 128 << 20;
/// A disk that did not answer in time is left alone for this long, twice as long the next time, and so on, unless it
/// is needed: while it is slow, it would only be caught up and lost again and again.
const QUARANTINE: Duration = Duration::from_secs(1);
const MAX_QUARANTINES: u32 = 5;
/// After so long without trouble, earlier trouble is forgotten.
const PARDON: Duration = Duration::from_secs(60);
/// A disk of which nothing was asked for so long is asked whether it is still there.
const PROBE_AFTER: Duration = Duration::from_secs(5);
/// How often a disk in quarantine is looked at.
const QUARANTINE_LOOK: Duration = Duration::from_millis(50);

/// Who waits for an answer, which decides how long it may take.
pub(super) enum Waits {
    /// Guests do, sooner or later.
    Guests,
    /// A guest does, and is told when the answer takes long.
    Guest(Sender<()>),
    /// Nobody does.
    Nobody,
}

struct Call {
    sent: Duration,
    /// Whether guests wait for the answer.
    is_awaited: bool,
    done: Done,
    /// Told when the answer takes long.
    late: Option<Sender<()>>,
}

/// Dealings with one disk of a node.
pub(super) struct Session {
    pub node: NodeId,
    pub disk: DiskId,
    /// Counts sessions: what belongs to an older one is void.
    pub generation: Cell<u64>,
    up: Cell<bool>,
    /// What the disk held when it was fenced, of the replicas that the volume has there; what is missing does not exist.
    pub replicas: RefCell<BTreeMap<ReplicaId, ReplicaSummary>>,
    /// The disk may have forgotten replicas: one that is missing there may have existed.
    pub forgetful: Cell<bool>,
    calls: RefCell<BTreeMap<u64, Call>>,
    next_call: Cell<u64>,
    owed: Cell<u64>,
    /// When it was last asked for something.
    asked: Cell<Duration>,
    /// It was slow to answer a read: others are preferred until then.
    pub shunned_until: Cell<Duration>,
    /// Times that it did not answer in time, and the last one.
    strikes: Cell<u32>,
    struck: Cell<Option<Duration>>,
    /// It is late, and was found to be needed: not to be looked at again until then.
    pub spared_until: Cell<Duration>,
    complained: Cell<bool>,
    /// It went down, or there is work for it.
    pub changed: Event,
}

impl Session {
    pub fn new(node: NodeId, disk: DiskId) -> Rc<Session> {
        Rc::new(Session {
            node,
            disk,
            generation: Cell::new(0),
            up: Cell::new(false),
            replicas: RefCell::default(),
            forgetful: Cell::new(false),
            calls: RefCell::default(),
            next_call: Cell::new(0),
            owed: Cell::new(0),
            asked: Cell::new(Duration::ZERO),
            shunned_until: Cell::new(Duration::ZERO),
            strikes: Cell::new(0),
            struck: Cell::new(None),
            spared_until: Cell::new(Duration::ZERO),
            complained: Cell::new(false),
            changed: Event::new(),
        })
    }

    /// Whether the disk is fenced and its daemon answers.
    pub fn is_up(&self) -> bool {
        self.up.get()
    }

    /// Whether session number `generation` is still going on.
    pub fn is_live(&self, generation: u64) -> bool {
        self.up.get() && self.generation.get() == generation
    }

    /// Ends the session: every outstanding request fails.
    pub fn fail(&self, why: &str) {
        self.up.set(false);
        self.generation.set(self.generation.get() + 1);
        self.owed.set(0);
        self.complained.set(false);
        let calls = std::mem::take(&mut *self.calls.borrow_mut());
        for call in calls.into_values() {
            (call.done)(Err(LinkDown(why.to_string())));
        }
        self.changed.notify();
    }

    /// Drops what is outstanding.
    pub fn forget(&self) {
        drop(self.calls.take());
    }

    fn register(&self, call: Call) -> u64 {
        let id = self.next_call.get();
        self.next_call.set(id + 1);
        self.calls.borrow_mut().insert(id, call);
        id
    }

    /// Tells those who asked to be told that their answers take long.
    pub fn tell_late(&self, now: Duration) {
        let mut calls = self.calls.borrow_mut();
        let late = calls.values_mut().take_while(|c| c.sent + LATE <= now);
        let tell: Vec<_> = late.filter_map(|c| c.late.take()).collect();
        drop(calls);
        tell.into_iter().for_each(|late| late.send(()));
    }

    /// It did not answer in time.
    pub fn strike(&self, now: Duration) {
        let recent = self.struck.replace(Some(now)).is_some_and(|at| at + PARDON > now);
        self.strikes.set(if recent { self.strikes.get() + 1 } else { 1 });
    }

    /// Until when it is better left alone.
    fn quarantined_until(&self) -> Duration {
        let Some(since) = self.struck.get() else { return Duration::ZERO };
        since + QUARANTINE * (1 << (self.strikes.get().clamp(1, MAX_QUARANTINES) - 1))
    }

    fn take(&self, id: u64) -> Option<Done> {
        Some(self.calls.borrow_mut().remove(&id)?.done)
    }

    /// Fails a request that is not sent, soon.
    fn refuse<R: Runtime>(self: &Rc<Self>, id: u64, rt: &R) {
        let session = self.clone();
        let task_rt = rt.clone();
        rt.spawn(async move {
            // `done` must not be called from inside.
            task_rt.sleep(Duration::ZERO).await;
            let done = session.take(id);
            done.into_iter().for_each(|done| done(Err(LinkDown("the gateway stopped".into()))));
        });
    }

    /// Whether a complaint about this session is the first, and worth a line.
    pub fn complain(&self) -> bool {
        !self.complained.replace(true)
    }

    /// The node has yet to write `bytes` that the guest has its answer to. Whether that is too much.
    pub fn owe(&self, bytes: usize) -> bool {
        self.owed.set(self.owed.get() + bytes as u64);
        self.owed.get() > MAX_OWED_BYTES
    }

    /// It has written them.
    pub fn repay(&self, bytes: usize) {
        self.owed.set(self.owed.get().saturating_sub(bytes as u64));
    }

    /// Whether nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        self.calls.borrow().is_empty()
    }

    /// This process was held up: answers had no chance to arrive.
    pub fn excuse(&self, time: Duration) {
        self.calls.borrow_mut().values_mut().for_each(|call| call.sent += time);
    }

    /// So it was before it could look: what was asked meanwhile is as if it were asked now.
    pub fn excuse_until(&self, now: Duration) {
        self.calls.borrow_mut().values_mut().for_each(|call| call.sent = now);
    }

    /// Whether an answer takes longer than `limit`; of those that guests wait for, or of any.
    pub fn is_overdue(&self, now: Duration, limit: Duration, of_awaited: bool) -> bool {
        self.calls.borrow().values().any(|c| (c.is_awaited || !of_awaited) && c.sent + limit < now)
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Sends a request about a chunk within the current session. `done` is never called from inside.
    pub(super) fn send(&self, session: &Rc<Session>, target: &Target, request: Request, data: Bytes, done: Done) {
        let core = self.0.cluster.core_of(session.node, target.disk, target.chunk);
        self.send_to_core(Waits::Guests, session, core, request, data, done);
    }

    fn send_to_core(&self, waits: Waits, session: &Rc<Session>, core: u16, request: Request, data: Bytes, done: Done) {
        let (is_awaited, late) = match waits {
            Waits::Guests => (true, None),
            Waits::Guest(late) => (true, Some(late)),
            Waits::Nobody => (false, None),
        };
        let sent = self.0.rt.now();
        session.asked.set(sent);
        let id = session.register(Call { sent, is_awaited, done, late });
        if self.0.idle.replace(false) {
            self.0.woken.notify();
        }
        if self.is_stopped() {
            return session.refuse(id, &self.0.rt);
        }
        let (this, weak) = (self.clone(), Rc::downgrade(session));
        let finish = move |answer: Answer| {
            let Some(session) = weak.upgrade() else { return };
            let Some(done) = session.take(id) else { return };
            let lost = answer.as_ref().err().map(|e| e.0.clone());
            if let Some(why) = lost {
                this.lose_node(session.node, &why);
            }
            done(answer);
        };
        self.0.cluster.call(session.node, core, request, data, Box::new(finish));
    }

    /// As [`Gateway::send`], waiting for the answer.
    pub(super) async fn ask(
        &self,
        waits: Waits,
        session: &Rc<Session>,
        target: &Target,
        request: Request,
        data: Bytes,
    ) -> Answer {
        let core = self.0.cluster.core_of(session.node, target.disk, target.chunk);
        let (tx, rx) = oneshot();
        self.send_to_core(waits, session, core, request, data, Box::new(move |answer| tx.send(answer)));
        rx.await.unwrap_or_else(|| Err(LinkDown("the gateway stopped".into())))
    }

    pub(super) async fn ask_core(&self, waits: Waits, session: &Rc<Session>, core: u16, request: Request) -> Answer {
        let (tx, rx) = oneshot();
        self.send_to_core(waits, session, core, request, Bytes::new(), Box::new(move |answer| tx.send(answer)));
        rx.await.unwrap_or_else(|| Err(LinkDown("the gateway stopped".into())))
    }

    /// The disk is not to be relied on: its members are behind from now on, and the session starts over.
    pub(super) fn lose(&self, session: &Rc<Session>, why: &str) {
        if session.is_up() {
            warn!(volume = %self.0.volume.name, node = %session.node, disk = %session.disk, "lost: {why}");
            for chunk in self.chunks() {
                chunk.lose_member_on(session.disk);
            }
        }
        session.fail(why);
        self.0.changed.notify();
    }

    /// The link to a node broke.
    fn lose_node(&self, node: NodeId, why: &str) {
        let sessions: Vec<_> = self.0.sessions.borrow().values().filter(|s| s.node == node).cloned().collect();
        sessions.iter().for_each(|session| self.lose(session, why));
    }

    pub(super) fn spawn_session(&self, session: Rc<Session>) {
        let this = self.clone();
        self.0.rt.spawn(async move { this.run_session(session).await });
    }

    async fn run_session(&self, session: Rc<Session>) {
        let mut backoff = BACKOFF_MIN;
        while !self.is_stopped() && self.is_used(&session) {
            match self.fence(&session).await {
                // It may have stopped between the answer and now.
                Ok(_) if self.is_stopped() => return,
                Ok(replicas) => {
                    backoff = BACKOFF_MIN;
                    *session.replicas.borrow_mut() = replicas;
                    session.up.set(true);
                    self.disk_joined(&session);
                    self.catch_up(&session).await;
                }
                Err(FenceError::Deposed(s)) => return self.stop(&s.0),
                Err(FenceError::Down(why)) => debug!(node = %session.node, "not reached: {why}"),
            }
            self.0.rt.sleep(backoff).await;
            while self.0.rt.now() < session.quarantined_until() && !self.is_stopped() && !self.is_needed(&session) {
                self.0.rt.sleep(QUARANTINE_LOOK).await;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        session.fail("no copies are there any more");
        let mut sessions = self.0.sessions.borrow_mut();
        if sessions.get(&session.disk).is_some_and(|s| Rc::ptr_eq(s, &session)) {
            sessions.remove(&session.disk);
        }
    }

    /// Whether a chunk has a member on the disk.
    pub(super) fn is_used(&self, session: &Session) -> bool {
        self.0.chunks.borrow().iter().flatten().any(|c| c.member_on(session.disk).is_some())
    }

    /// Waits until there may be work for the session. If nothing is asked of the disk meanwhile, finds out whether it is
    /// still there: a volume that nobody uses should notice, too.
    pub(super) async fn rest(&self, session: &Rc<Session>, changed: Listener) {
        let quiet = || self.0.rt.now().saturating_sub(session.asked.get());
        let pause = PROBE_AFTER.saturating_sub(quiet()).max(PROBE_AFTER / 4);
        if timeout(&self.0.rt, pause, changed).await.is_some() || quiet() < PROBE_AFTER {
            return;
        }
        let member = |c: &Rc<Chunk>| c.member_on(session.disk).filter(|i| c.state.borrow().members[*i].live);
        let Some((chunk, i)) = self.chunks().into_iter().find_map(|c| Some((member(&c)?, c))).map(|(i, c)| (c, i))
        else {
            return;
        };
        let target = self.target(&chunk, i);
        let probe = Request::Scan { target, block: 0, count: 0 };
        match self.ask(Waits::Guests, session, &target, probe, Bytes::new()).await {
            Ok((Reply::Scan { .. }, _)) | Err(_) => {}
            Ok((Reply::Error { status: Status::Fenced, detail }, _)) => {
                self.stop(&format!("a newer gateway exists: {detail}"));
            }
            Ok((reply, _)) => self.distrust_member(&chunk, i, session, &format!("it is not what it was: {reply:?}")),
        }
    }

    /// The disk is fenced: its members of decided chunks get writes again, and are caught up.
    fn disk_joined(&self, session: &Rc<Session>) {
        debug!(volume = %self.0.volume.name, node = %session.node, disk = %session.disk, "fenced");
        for chunk in self.chunks() {
            if chunk.stage() != Stage::InDoubt {
                self.rejoin(&chunk, session);
            }
        }
        self.0.changed.notify();
    }

    /// Lets a disk's member take part again; what it misses follows.
    pub(super) fn rejoin(&self, chunk: &Rc<Chunk>, session: &Rc<Session>) {
        let Some(i) = chunk.member_on(session.disk) else { return };
        let summary = session.replicas.borrow().get(&chunk.place(i).replica).copied();
        let found = summary.filter(|s| s.chunk == chunk.id).map(|s| Found {
            adopted: s.adopted == self.0.volume.epoch,
            damaged: s.damaged,
            max_seq: s.max_seq,
            sealed: s.sealed,
        });
        if chunk.readmit(i, found) {
            self.resend_open(chunk, i);
            self.heal_bad(chunk);
        }
        session.changed.notify();
    }

    /// The request's address.
    pub(super) fn target(&self, chunk: &Chunk, member: usize) -> Target {
        let place = chunk.place(member);
        Target {
            volume: self.0.volume.id,
            chunk: chunk.id,
            replica: place.replica,
            disk: place.disk,
            epoch: self.0.volume.epoch,
            config: chunk.config(),
        }
    }
}
