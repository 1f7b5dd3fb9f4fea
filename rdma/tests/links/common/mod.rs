//! Executors, services and peers for the tests of links.
#![allow(dead_code, reason = "each test binary uses its part")]

use bytes::Bytes;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use levee_proto::wire::{BlockEntry, Hello, Reply, Request, Target};
use levee_proto::{Caller, ChunkId, ConfigNo, DiskId, Epoch, NodeId, ReplicaId, Version, VolumeId};
use levee_rdma::{Callers, Client, ClientConfig, ClientLimits, Identity, Responder, Server, ServerLimits, Service};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub const SERVER: NodeId = NodeId(2);
pub const CALLER: NodeId = NodeId(1);

/// The cluster of this test process: tests that run beside it cannot be taken for its peers.
pub fn cluster() -> [u8; 16] {
    (u128::from(std::process::id()) + (1 << 64)).to_le_bytes()
}

/// Runs a test on an executor set up like a daemon's.
pub fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(Duration::from_millis(2))
        .spawn(move || async move {
            keep_awake();
            test().await;
        })
        .expect("an executor")
        .join()
        .expect("the test");
}

/// An executor may miss runnable tasks unless a timer is always running.
pub fn keep_awake() {
    glommio::spawn_local(async {
        loop {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .detach();
}

pub fn identity() -> Identity {
    Identity { cluster: cluster(), node: SERVER, core: 3 }
}

/// Bounds so generous that no noise on the machine breaks a link.
pub fn patient() -> ClientLimits {
    ClientLimits { connect_timeout: Duration::from_secs(60), down_ticks: 120, ..ClientLimits::default() }
}

/// A caller like no other: links of the same one would end each other.
pub fn caller() -> Caller {
    static LAST: AtomicU16 = AtomicU16::new(0);
    Caller { node: CALLER, core: LAST.fetch_add(1, Ordering::Relaxed), incarnation: cluster() }
}

pub fn hello(caller: Caller) -> Request {
    Request::Hello(Hello { cluster: cluster(), caller, to: SERVER, core: 3 })
}

pub fn config(address: impl ToString) -> ClientConfig {
    ClientConfig {
        cluster: cluster(),
        caller: caller(),
        to: SERVER,
        core: 3,
        address: address.to_string(),
        limits: patient(),
    }
}

pub fn client(server: &Server) -> Client {
    Client::tcp(config(server.local_addr()))
}

pub async fn serve(service: Rc<dyn Service>) -> Server {
    serve_with(service, ServerLimits::default()).await
}

pub async fn serve_with(service: Rc<dyn Service>, limits: ServerLimits) -> Server {
    Server::listen("127.0.0.1:0", identity(), Callers::default(), service, limits).await.expect("a free port")
}

/// Listens again where a server has just stopped; the kernel may need a moment to let go.
pub async fn serve_at(address: SocketAddr, service: Rc<dyn Service>) -> Server {
    loop {
        let (address, callers) = (address.to_string(), Callers::default());
        match Server::listen(&address, identity(), callers, service.clone(), ServerLimits::default()).await {
            Ok(server) => return server,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(1)).await;
    }
}

pub fn target() -> Target {
    Target {
        volume: VolumeId(1),
        chunk: ChunkId(2),
        replica: ReplicaId(3),
        disk: DiskId(4),
        epoch: Epoch(5),
        config: ConfigNo(6),
    }
}

/// A request that carries a number.
pub fn numbered(n: u32) -> Request {
    Request::List { target: target(), from: n, from_version: Version::MAX, max: 1, above: levee_proto::Seq::ZERO }
}

pub fn number(request: &Request) -> u32 {
    match request {
        Request::List { from, .. } => *from,
        other => panic!("not a numbered request: {other:?}"),
    }
}

/// The answer to [`numbered`], which carries the number back.
pub fn echo(n: u32) -> Reply {
    Reply::List { entries: vec![BlockEntry::absent(n)], more: false }
}

/// Answers numbered requests at once, and remembers them.
#[derive(Default)]
pub struct Echo {
    pub seen: RefCell<Vec<u32>>,
}

impl Service for Echo {
    fn handle(&self, from: NodeId, request: Request, _data: Bytes, reply: Responder) {
        assert_eq!(from, CALLER);
        let n = number(&request);
        self.seen.borrow_mut().push(n);
        reply.send(echo(n), Bytes::new());
    }
}

/// Keeps requests until the test answers them.
#[derive(Default)]
pub struct Hold {
    pub held: RefCell<Vec<(u32, Responder)>>,
    pub most: Cell<usize>,
}

impl Hold {
    pub fn held(&self) -> usize {
        self.held.borrow().len()
    }

    /// Answers everything held, the latest first.
    pub fn answer_backwards(&self) {
        let held = std::mem::take(&mut *self.held.borrow_mut());
        for (n, reply) in held.into_iter().rev() {
            reply.send(echo(n), Bytes::new());
        }
    }
}

impl Service for Hold {
    fn handle(&self, _from: NodeId, request: Request, _data: Bytes, reply: Responder) {
        let mut held = self.held.borrow_mut();
        held.push((number(&request), reply));
        self.most.set(self.most.get().max(held.len()));
    }
}
