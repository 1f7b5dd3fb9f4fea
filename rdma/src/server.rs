//! The answering end of links: accepting, the hello, handing requests to the service.
//!
//! Invariants: a connection reaches the service only after its hello was accepted and it has entered, by which older ones
//! of its caller have ended; and never after a newer one has entered. What it may have in
//! flight is what was granted to it, counted from the arrival of a request to its answer being queued;
//! the answers that it does not take are bounded by the same grant. Whatever a connection does wrong
//! ends that connection alone.

use crate::callers::{Callers, Seat};
use crate::credits::{Credits, cost};
use crate::errors::{Reason, ServeError};
use crate::frame::{Batch, Frame, Label, TooLarge};
use crate::limits::{ACCEPT_RETRY, MAX_DETAIL, MAX_DRAINED_READS, MAX_FRAME, MAX_HELLO_FRAME, ServerLimits};
use crate::link::{Link, receive, receive_one, transmit};
use crate::recv::RecvBuffer;
use crate::responder::{Responder, Service};
use crate::tcp::{Listener, Stream};
use bytes::Bytes;
use futures_lite::future;
use glommio::task::JoinHandle;
use glommio::timer::sleep;
use levee_proto::NodeId;
use levee_proto::wire::{HELLO, Hello, PROTO_VERSION, REPLY_BIT, Reply, Request, Status};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

/// Who a server is: a client that looks for somebody else is refused.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster: [u8; 16],
    pub node: NodeId,
    pub core: u16,
}

/// Answers the links of one core until it is stopped or dropped.
pub struct Server {
    shared: Rc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    identity: Identity,
    callers: Callers,
    limits: ServerLimits,
    service: Rc<dyn Service>,
    listener: Listener,
    stopping: Cell<bool>,
    conns: RefCell<BTreeMap<u64, Rc<Conn>>>,
    next_conn: Cell<u64>,
}

/// One accepted connection.
pub(crate) struct Conn {
    link: Rc<Link>,
    /// Its place among the links of its caller, once it has said hello.
    seat: OnceCell<Seat>,
    /// Who calls, once it has entered.
    peer: Cell<Option<NodeId>>,
    credits: RefCell<Credits>,
    /// Most bytes of answers that the peer may leave untaken.
    max_queued: usize,
}

impl Server {
    /// Listens on `address` (`IP:PORT`; port 0 takes any free one) and answers with `service`. `callers`: the same for
    /// all servers of a process.
    pub async fn listen(
        address: &str,
        identity: Identity,
        callers: Callers,
        service: Rc<dyn Service>,
        limits: ServerLimits,
    ) -> Result<Server, ServeError> {
        let address: SocketAddr = address.parse().map_err(|_| ServeError::BadAddress(address.into()))?;
        let listener = Listener::bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse(address),
            _ => ServeError::Io { address, source },
        })?;
        let shared = Rc::new(Shared {
            identity,
            callers,
            limits,
            service,
            listener,
            stopping: Cell::new(false),
            conns: RefCell::default(),
            next_conn: Cell::new(0),
        });
        glommio::spawn_local(sweep(Rc::downgrade(&shared))).detach();
        let accepting = glommio::spawn_local(accept(shared.clone())).detach();
        Ok(Server { shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.listener.address
    }

    /// Connections open now.
    pub fn links(&self) -> usize {
        self.shared.conns.borrow().len()
    }

    /// Stops listening and ends every link. Requests still with the service are answered to nobody.
    pub async fn stop(mut self) {
        self.shared.stop();
        if let Some(accepting) = self.accepting.take() {
            accepting.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        if self.stopping.replace(true) {
            return;
        }
        self.listener.shutdown();
        for conn in self.conns.borrow().values() {
            conn.link.close("the server stops".into());
        }
    }

    /// Takes up a new connection, if there is room for it.
    fn admit(self: &Rc<Self>, stream: Stream) {
        if self.conns.borrow().len() >= self.limits.max_links {
            tracing::warn!("refused a link from {}: {} are open", stream.peer(), self.limits.max_links);
            return stream.shutdown();
        }
        let number = self.next_conn.get();
        self.next_conn.set(number + 1);
        let conn = Rc::new(Conn::new(stream, &self.limits));
        self.conns.borrow_mut().insert(number, conn.clone());
        let shared = self.clone();
        let task = async move {
            let reason = serve(&shared, &conn).await;
            conn.link.close(reason.clone());
            conn.log_end(&reason, shared.stopping.get());
            conn.seat.get().inspect(|seat| shared.callers.leave(seat));
            shared.conns.borrow_mut().remove(&number);
        };
        glommio::spawn_local(task).detach();
    }
}

async fn accept(shared: Rc<Shared>) {
    while !shared.stopping.get() {
        match shared.listener.accept().await {
            Ok(_) if shared.stopping.get() => {}
            // An error here means that the peer has gone already.
            Ok(socket) => drop(Stream::new(socket).map(|stream| shared.admit(stream))),
            Err(_) if shared.stopping.get() => {}
            Err(e) => {
                tracing::warn!("accepting a link on {} failed: {e}", shared.listener.address);
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Ends links that are silent or too slow, until the server is gone.
async fn sweep(shared: Weak<Shared>) {
    while let Some(server) = shared.upgrade() {
        let tick = server.limits.tick;
        if server.stopping.get() {
            return;
        }
        for conn in server.conns.borrow().values() {
            conn.tick(&server.limits);
        }
        drop(server);
        sleep(tick).await;
    }
}

/// Serves one connection to its end and says why it ended.
async fn serve(shared: &Rc<Shared>, conn: &Rc<Conn>) -> Reason {
    let mut buf = RecvBuffer::new(MAX_HELLO_FRAME);
    let peer = match enter(shared, conn, &mut buf).await {
        Ok(peer) => peer,
        Err(reason) => return reason,
    };
    conn.peer.set(Some(peer));
    buf.set_max_frame(MAX_FRAME);
    glommio::spawn_local(transmit(conn.link.clone())).detach();
    receive(&conn.link, &mut buf, |frame| conn.deliver(&*shared.service, peer, frame), || {}).await
}

/// Hears the hello, and has older links of the caller ended once it has heard the answer. Says who calls.
async fn enter(shared: &Shared, conn: &Conn, buf: &mut RecvBuffer) -> Result<NodeId, Reason> {
    let hello = greet(shared, conn, buf).await?;
    let frame = receive_one(conn.link.stream(), buf).await?;
    let kind = frame.header.kind.get();
    let request = Request::decode(kind, frame.meta, frame.data.len()).map_err(|e| Reason::from(e.to_string()))?;
    let seat = conn.seat.get().filter(|seat| request == Request::Enter { ticket: seat.ticket });
    shared.callers.enter(seat.ok_or("what follows a hello must name its ticket")?)?;
    // Those of other cores see for themselves, before they hand over another request.
    for older in shared.conns.borrow().values().filter(|c| c.is_superseded()) {
        older.link.close(SUPERSEDED.into());
    }
    Ok(hello.caller.node)
}

/// Hears the hello and answers it.
async fn greet(shared: &Shared, conn: &Conn, buf: &mut RecvBuffer) -> Result<Hello, Reason> {
    let stream = conn.link.stream();
    let verdict = receive_one(stream, buf).await.and_then(|frame| shared.identity.check(frame));
    let (reply, result) = match verdict {
        Ok(hello) => {
            let ServerLimits { max_requests, max_bytes, .. } = shared.limits;
            let seat = conn.seat.get_or_init(|| shared.callers.offer(hello.caller, hello.core));
            (Reply::Hello { max_requests: max_requests.max(1), max_bytes, ticket: seat.ticket }, Ok(hello))
        }
        Err(reason) => (Reply::error(Status::Invalid, &*reason), Err(reason)),
    };
    let kind = HELLO | REPLY_BIT;
    let mut batch = Batch::default();
    let label = Label { kind, id: 0, status: reply.status() };
    batch.push(label, |out| reply.encode(out), Bytes::new()).map_err(|TooLarge| "hello too long")?;
    stream.send(&mut batch).await.map_err(|e| format!("answering the hello failed: {e}"))?;
    if result.is_err() {
        stream.finish();
        // Closing over unread bytes would take the answer back: let the peer close first.
        future::or(drain(stream), sleep(shared.limits.tick)).await;
    }
    result
}

/// Why a link ends that is older than another.
const SUPERSEDED: &str = "the caller has made a newer link";

/// Reads what a refused peer still sends until it closes, or has sent more than anyone honest would.
async fn drain(stream: &Stream) {
    let mut sink = [0; MAX_HELLO_FRAME];
    for _ in 0..MAX_DRAINED_READS {
        if !stream.read(&mut sink).await.is_ok_and(|n| n > 0) {
            return;
        }
    }
}

impl Identity {
    /// Whether the hello in `frame` is meant for this server.
    fn check(&self, frame: Frame) -> Result<Hello, Reason> {
        let kind = frame.header.kind.get();
        let request = Request::decode(kind, frame.meta, frame.data.len()).map_err(|e| Reason::from(e.to_string()))?;
        let Request::Hello(hello) = request else {
            return Err("the first message on a link must be a hello".into());
        };
        let Hello { cluster, caller, to, core } = hello;
        if cluster != self.cluster {
            return Err("this daemon belongs to another cluster: check which meta servers both sides use".into());
        }
        if to != self.node || core != self.core {
            let Identity { node, core: own, .. } = self;
            return Err(
                format!("this is node {node} core {own}, not node {to} core {core}: the address is stale").into()
            );
        }
        if caller.node == NodeId(0) {
            return Err("the caller has no node id: it must register with a meta server first".into());
        }
        Ok(hello)
    }
}

impl Conn {
    fn new(stream: Stream, limits: &ServerLimits) -> Conn {
        Conn {
            link: Rc::new(Link::new(stream)),
            seat: OnceCell::new(),
            peer: Cell::new(None),
            credits: RefCell::new(Credits::new(limits.max_requests.max(1), limits.max_bytes)),
            max_queued: limits.max_bytes as usize + MAX_FRAME + limits.max_requests as usize * 2 * MAX_DETAIL,
        }
    }

    /// Whether a newer link of its caller has entered.
    fn is_superseded(&self) -> bool {
        self.seat.get().is_some_and(Seat::is_superseded)
    }

    /// Takes one request and hands it to the service.
    fn deliver(self: &Rc<Self>, service: &dyn Service, from: NodeId, frame: Frame) -> Result<(), Reason> {
        if self.is_superseded() {
            return Err(SUPERSEDED.into());
        }
        let (kind, id) = (frame.header.kind.get(), frame.header.id.get());
        let request = Request::decode(kind, frame.meta, frame.data.len()).map_err(|e| Reason::from(e.to_string()))?;
        match request {
            Request::Hello(_) | Request::Enter { .. } => return Err("a second hello".into()),
            Request::Ping => {
                // Pings need no credits: a peer must be able to send one at any time.
                self.transmit(id, kind, &Reply::Done, Bytes::new());
            }
            request => {
                let cost = cost(&request, frame.data.len());
                if !self.credits.borrow_mut().take(cost) {
                    return Err("the peer sent more than it was granted".into());
                }
                service.handle(from, request, frame.data, Responder::link(self.clone(), id, kind, cost));
            }
        }
        if self.link.queued() > self.max_queued {
            return Err("the peer does not take its answers".into());
        }
        Ok(())
    }

    /// Answers a request and gives its credits back.
    pub fn answer(&self, id: u64, kind: u16, cost: usize, reply: &Reply, data: Bytes) {
        self.credits.borrow_mut().release(cost);
        if !self.link.is_closed() {
            self.transmit(id, kind, reply, data);
        }
    }

    fn transmit(&self, id: u64, kind: u16, reply: &Reply, data: Bytes) {
        let label = |reply: &Reply| Label { kind: kind | REPLY_BIT, id, status: reply.status() };
        if self.link.send(label(reply), |out| reply.encode(out), data).is_err() {
            tracing::error!("the answer to a request of kind {kind} exceeds a frame");
            let reply = Reply::error(Status::Invalid, "the answer is too long: ask for less at a time");
            // A short error always fits.
            let _ = self.link.send(label(&reply), |out| reply.encode(out), Bytes::new());
        }
    }

    fn tick(&self, limits: &ServerLimits) {
        let (quiet, partial) = self.link.silence().tick();
        let reason = match self.peer.get() {
            _ if self.is_superseded() => SUPERSEDED,
            None if quiet >= limits.hello_ticks => "it did not say hello in time",
            Some(_) if quiet >= limits.idle_ticks => "it has been silent too long",
            Some(_) if partial >= limits.frame_ticks => "a frame took too long to arrive",
            _ => return,
        };
        self.link.close(reason.into());
    }

    fn log_end(&self, reason: &Reason, stopping: bool) {
        let address = self.link.stream().peer();
        match self.peer.get() {
            _ if stopping => {}
            Some(node) => tracing::info!("the link of node {node} ({address}) ended: {reason}"),
            None => tracing::warn!("a connection from {address} was refused (protocol {PROTO_VERSION}): {reason}"),
        }
    }
}
