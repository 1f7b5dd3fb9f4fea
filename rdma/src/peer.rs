//! A client's side of a TCP link across its connections: state, queue, reconnecting.
//!
//! Invariants: a request is in exactly one place, `waiting` or `table`, until its `done` is taken out to
//! be called. `waiting` is empty or something keeps it waiting: no connection yet, or no credits. No
//! borrow of `state` is held while a `done` runs.

use crate::client::ClientConfig;
use crate::credits::{Credits, cost};
use crate::errors::{LinkError, Reason};
use crate::frame::{Frame, Label};
use crate::latency::Latency;
use crate::later::Later;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, MAX_FRAME, MAX_HELLO_FRAME};
use crate::link::{Link, receive, receive_one, transmit};
use crate::pending::{Done, Pending, Table};
use crate::recv::RecvBuffer;
use crate::responder::dropped;
use crate::tcp::{Stream, resolve};
use bytes::Bytes;
use futures_lite::future;
use glommio::timer::sleep;
use levee_proto::callers::Ticket;
use levee_proto::wire::{Hello, REPLY_BIT, Reply, Request, Status};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Id of the link's own pings; no request has it.
const PING_ID: u64 = u64::MAX;
/// Id of the hello.
const HELLO_ID: u64 = 0;

pub(crate) struct Peer {
    config: ClientConfig,
    address: RefCell<String>,
    state: RefCell<State>,
    /// Failures found inside `call` are delivered from here.
    later: Rc<Later>,
    pinging: Cell<bool>,
    latency: Latency,
}

struct State {
    phase: Phase,
    credits: Credits,
    table: Table,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

enum Phase {
    /// Nobody has called yet.
    Idle,
    /// The first attempt, or the first one after a working link: calls wait for it.
    Connecting,
    Up(Rc<Link>),
    /// The last attempt failed; the next one is to come.
    Down(Reason),
    /// Nobody holds the client any more, so nobody calls.
    Closed,
}

struct Waiting {
    request: Request,
    data: Bytes,
    cost: usize,
    done: Done,
}

/// Requests taken out of the state, to be failed once no borrow is held.
type Failed = Vec<(Done, LinkError)>;

impl Peer {
    pub fn new(config: ClientConfig) -> Rc<Peer> {
        let state = State {
            phase: Phase::Idle,
            credits: Credits::default(),
            table: Table::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        };
        let address = RefCell::new(config.address.clone());
        Rc::new(Peer {
            config,
            address,
            state: RefCell::new(state),
            later: Rc::default(),
            pinging: Cell::new(false),
            latency: Latency::default(),
        })
    }

    pub fn call(self: &Rc<Self>, request: Request, data: Bytes, done: Done) {
        let cost = cost(&request, data.len());
        let refused = self.state.borrow_mut().submit(self, Waiting { request, data, cost, done });
        if let Err((done, error)) = refused {
            self.fail_later(done, error);
        }
        self.start();
    }

    pub fn fail_later(&self, done: Done, error: LinkError) {
        self.later.push(move || done(Err(error)));
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state.borrow().phase, Phase::Up(_))
    }

    pub fn latency(&self) -> Option<Duration> {
        self.latency.smoothed()
    }

    pub fn set_address(&self, address: String) {
        *self.address.borrow_mut() = address;
    }

    /// Starts the task that keeps the link connected, if it does not run yet.
    pub fn start(self: &Rc<Self>) {
        let idle = {
            let mut state = self.state.borrow_mut();
            let idle = matches!(state.phase, Phase::Idle);
            if idle {
                state.phase = Phase::Connecting;
            }
            idle
        };
        if idle {
            glommio::spawn_local(drive(self.clone())).detach();
        }
    }

    /// Ends the link for good. The task that keeps it fails what is outstanding.
    pub fn close(&self) {
        let phase = std::mem::replace(&mut self.state.borrow_mut().phase, Phase::Closed);
        if let Phase::Up(link) = phase {
            link.close("the client was dropped".into());
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.state.borrow().phase, Phase::Closed)
    }

    /// Enters a phase; false if the client is gone, which nothing changes any more.
    fn enter(&self, phase: Phase) -> bool {
        let mut state = self.state.borrow_mut();
        let alive = !matches!(state.phase, Phase::Closed);
        if alive {
            state.phase = phase;
        }
        alive
    }

    fn fail_all(&self, reason: &Reason) {
        let failed = self.state.borrow_mut().take_all(&LinkError::Down(reason.clone()));
        for (done, error) in failed {
            done(Err(error));
        }
    }

    /// Sends what waits, as far as the credits go.
    fn pump(&self) {
        let failed = self.state.borrow_mut().pump(&self.latency);
        for (done, error) in failed {
            done(Err(error));
        }
    }

    /// Takes one reply.
    fn deliver(&self, frame: Frame) -> Result<(), Reason> {
        self.pinging.set(false);
        let (kind, id) = (frame.header.kind.get(), frame.header.id.get());
        if !frame.header.is_reply() {
            return Err("malformed frame: a request where a reply was due".into());
        }
        self.latency.answered(id);
        if id == PING_ID {
            return Ok(());
        }
        let pending = {
            let mut state = self.state.borrow_mut();
            let pending = state.table.remove(id, kind & !REPLY_BIT);
            pending.inspect(|p| state.credits.release(p.cost))
        };
        let Some(pending) = pending else {
            return Err("malformed frame: a reply to nothing".into());
        };
        match Reply::decode(kind, frame.header.status.get(), frame.meta, frame.data.len()) {
            Ok(reply) => {
                (pending.done)(Ok((reply, frame.data)));
                Ok(())
            }
            Err(e) => {
                let reason: Reason = e.to_string().into();
                (pending.done)(Err(LinkError::Down(reason.clone())));
                Err(reason)
            }
        }
    }

    /// Looks at a link once per tick: pings a quiet peer, gives up a silent one.
    fn tick(&self, link: &Link) {
        let limits = &self.config.limits;
        let (quiet, _) = link.silence().tick();
        let owing = self.pinging.get() || self.state.borrow().credits.in_flight() > 0;
        if owing && quiet >= limits.down_ticks {
            let silent = limits.tick * limits.down_ticks;
            return link.close(format!("the peer has been silent for {} ms", silent.as_millis()).into());
        }
        if quiet >= limits.ping_ticks && !self.pinging.replace(true) {
            let label = Label { kind: Request::Ping.kind(), id: PING_ID, status: Status::Ok };
            // An empty message always fits.
            let _ = link.send(label, |out| Request::Ping.encode(out), Bytes::new());
            self.latency.sent(PING_ID);
            if !owing {
                link.silence().reset();
            }
        }
    }

    fn name(&self) -> String {
        format!("node {} core {} at {}", self.config.to, self.config.core, self.address.borrow())
    }
}

impl State {
    /// Sends a request or queues it; what can be neither comes back with the reason.
    fn submit(&mut self, peer: &Peer, call: Waiting) -> Result<(), (Done, LinkError)> {
        match &self.phase {
            Phase::Down(reason) => return Err((call.done, LinkError::Down(reason.clone()))),
            Phase::Closed => return Err((call.done, dropped())),
            Phase::Up(link) if self.waiting.is_empty() && self.credits.take(call.cost) => {
                return transmit_call(link, &mut self.table, &mut self.credits, &peer.latency, call);
            }
            _ => {}
        }
        let limits = &peer.config.limits;
        let bytes = self.waiting_bytes + call.cost;
        if self.waiting.len() >= limits.queue_requests || bytes > limits.queue_bytes {
            return Err((call.done, LinkError::Overloaded));
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(call);
        Ok(())
    }

    fn pump(&mut self, latency: &Latency) -> Failed {
        let mut failed = Failed::new();
        let Phase::Up(link) = &self.phase else { return failed };
        while let Some(call) = self.waiting.front() {
            if !self.credits.take(call.cost) {
                break;
            }
            self.waiting_bytes -= call.cost;
            let Some(call) = self.waiting.pop_front() else { break };
            failed.extend(transmit_call(link, &mut self.table, &mut self.credits, latency, call).err());
        }
        failed
    }

    fn take_all(&mut self, error: &LinkError) -> Failed {
        self.credits = Credits::default();
        self.waiting_bytes = 0;
        let sent = self.table.drain().into_iter().map(|p| p.done);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|w| w.done);
        sent.chain(waiting).map(|done| (done, error.clone())).collect()
    }
}

/// Puts a request, whose credits are taken, on the link.
fn transmit_call(
    link: &Link,
    table: &mut Table,
    credits: &mut Credits,
    latency: &Latency,
    call: Waiting,
) -> Result<(), (Done, LinkError)> {
    let Waiting { request, data, cost, done } = call;
    let kind = request.kind();
    let id = table.insert(Pending { kind, cost, done });
    let label = Label { kind, id, status: Status::Ok };
    latency.sent(id);
    if link.send(label, |out| request.encode(out), data).is_err() {
        credits.release(cost);
        if let Some(pending) = table.remove(id, kind) {
            return Err((pending.done, LinkError::Invalid("the message is too long for one request")));
        }
    }
    Ok(())
}

/// Keeps a link connected until nobody holds its client any more.
async fn drive(peer: Rc<Peer>) {
    // This is first polled inside a call, in which nothing may fail yet.
    crate::later::turn().await;
    let mut backoff = Backoff::new(&peer.config);
    while !peer.is_closed() {
        match connect(&peer).await {
            Ok(connected) => {
                tracing::debug!("link to {} is up", peer.name());
                backoff.reset();
                let reason = run(&peer, connected).await;
                let reason: Reason = format!("lost the link to {}: {reason}", peer.name()).into();
                if peer.enter(Phase::Connecting) {
                    tracing::warn!("{reason}");
                }
                peer.fail_all(&reason);
            }
            Err(reason) => {
                let reason: Reason = format!("no link to {}: {reason}", peer.name()).into();
                tracing::debug!("{reason}");
                peer.enter(Phase::Down(reason.clone()));
                peer.fail_all(&reason);
            }
        }
        if !peer.is_closed() {
            sleep(backoff.next()).await;
        }
    }
    // Calls that were waiting for a connection when the client was dropped.
    peer.fail_all(&"the client was dropped".into());
}

/// Serves one connection to its end.
async fn run(peer: &Rc<Peer>, Connected { link, credits, ticket, mut buf }: Connected) -> Reason {
    peer.pinging.set(false);
    peer.latency.reset();
    peer.state.borrow_mut().credits = credits;
    if peer.is_closed() {
        // Whoever is not there any more must not end the links of a successor.
        link.close("the client was dropped".into());
    } else {
        let enter = Request::Enter { ticket };
        let label = Label { kind: enter.kind(), id: HELLO_ID, status: Status::Ok };
        // So short a message always fits.
        let _ = link.send(label, |out| enter.encode(out), Bytes::new());
        peer.enter(Phase::Up(link.clone()));
    }
    glommio::spawn_local(transmit(link.clone())).detach();
    glommio::spawn_local(watch(peer.clone(), link.clone())).detach();
    let reason = receive(&link, &mut buf, |frame| peer.deliver(frame), || peer.pump()).await;
    link.close(reason.clone());
    link.closed().unwrap_or(reason)
}

async fn watch(peer: Rc<Peer>, link: Rc<Link>) {
    loop {
        sleep(peer.config.limits.tick).await;
        if link.is_closed() {
            return;
        }
        peer.tick(&link);
    }
}

/// A connection whose hello was taken.
struct Connected {
    link: Rc<Link>,
    credits: Credits,
    ticket: Ticket,
    buf: RecvBuffer,
}

/// Connects and says hello, within the time allowed.
async fn connect(peer: &Peer) -> Result<Connected, Reason> {
    let allowed = peer.config.limits.connect_timeout;
    let late = async {
        sleep(allowed).await;
        Err(format!("no answer within {} ms", allowed.as_millis()).into())
    };
    future::or(greet(peer), late).await
}

async fn greet(peer: &Peer) -> Result<Connected, Reason> {
    let io = |e: std::io::Error| Reason::from(e.to_string());
    let address = peer.address.borrow().clone();
    let addresses = resolve(address).await.map_err(io)?;
    let stream = Stream::connect(&addresses).await.map_err(io)?;
    let ClientConfig { cluster, caller, to, core, .. } = peer.config;
    let hello = Request::Hello(Hello { cluster, caller, to, core });
    let label = Label { kind: hello.kind(), id: HELLO_ID, status: Status::Ok };
    let mut batch = crate::frame::Batch::default();
    batch.push(label, |out| hello.encode(out), Bytes::new()).map_err(|_| "hello too long")?;
    stream.send(&mut batch).await.map_err(io)?;
    let mut buf = RecvBuffer::new(MAX_HELLO_FRAME);
    let frame = receive_one(&stream, &mut buf).await?;
    buf.set_max_frame(MAX_FRAME);
    let (credits, ticket) = granted(peer, &hello, frame)?;
    Ok(Connected { link: Rc::new(Link::new(stream)), credits, ticket, buf })
}

/// What the peer's answer to the hello grants.
fn granted(peer: &Peer, hello: &Request, frame: Frame) -> Result<(Credits, Ticket), Reason> {
    if frame.header.kind.get() != hello.kind() | REPLY_BIT {
        return Err("malformed frame: not an answer to the hello".into());
    }
    match Reply::decode(frame.header.kind.get(), frame.header.status.get(), frame.meta, frame.data.len()) {
        Ok(Reply::Hello { max_requests, max_bytes, ticket }) if max_requests > 0 => {
            Ok((Credits::new(max_requests.min(peer.config.limits.max_in_flight.max(1)), max_bytes), ticket))
        }
        Ok(Reply::Error { detail, .. }) => Err(format!("it refuses: {detail}").into()),
        Ok(_) => Err("malformed frame: a hello that grants nothing".into()),
        Err(e) => Err(e.to_string().into()),
    }
}

/// Growing pauses between attempts, a little different for each link so that they do not march in step.
struct Backoff {
    next: Duration,
    random: u64,
}

impl Backoff {
    fn new(config: &ClientConfig) -> Backoff {
        let who = (u64::from(config.caller.node.0) << 32) ^ (u64::from(config.to.0) << 16) ^ u64::from(config.core);
        Backoff { next: BACKOFF_MIN, random: who.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn reset(&mut self) {
        self.next = BACKOFF_MIN;
    }

    fn next(&mut self) -> Duration {
        // Xorshift (Marsaglia, 2003) is random enough to spread attempts.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pause = self.next;
        self.next = (pause * 2).min(BACKOFF_MAX);
        pause * 3 / 4 + pause / 2 * (self.random % 1024) as u32 / 1024
    }
}
