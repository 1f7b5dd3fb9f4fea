//! Peers that send what they must not: they lose their link, and nobody else anything.

use crate::common::*;
use bytes::Bytes;
use levee_proto::callers::Ticket;
use levee_proto::wire::{FrameHeader, HEADER_LEN, HELLO, Hello, MAX_DATA, REPLY_BIT, Reply, Request, Status};
use levee_proto::{Caller, NodeId};
use levee_rdma::{Client, Responder, ServerLimits, Service};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Bytes of the answer to a hello.
const WELCOME: usize = HEADER_LEN + 16;

/// Answers every second request and keeps the others.
#[derive(Default)]
struct Half(Hold);

impl Service for Half {
    fn handle(&self, from: NodeId, request: Request, data: Bytes, reply: Responder) {
        match &request {
            Request::List { from: n, .. } if n % 2 == 0 => reply.send(echo(*n), Bytes::new()),
            Request::List { .. } => self.0.handle(from, request, data, reply),
            _ => drop(reply),
        }
    }
}

/// A server on a thread of its own, until dropped.
struct Victim {
    address: SocketAddr,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Victim {
    fn start(limits: ServerLimits) -> Victim {
        let (send_address, address) = channel();
        let (stop, stopped): (_, Receiver<()>) = channel();
        let thread = std::thread::spawn(move || {
            run(move || async move {
                let server = serve_with(Rc::new(Half::default()), limits).await;
                send_address.send(server.local_addr()).expect("the test waits");
                until(|| stopped.try_recv() == Err(TryRecvError::Disconnected)).await;
                server.stop().await;
            });
        });
        Victim { address: address.recv().expect("it starts"), stop: Some(stop), thread: Some(thread) }
    }

    /// Whether an honest client is served.
    fn check_serves(&self) {
        let address = self.address;
        run(move || async move {
            let client = Client::tcp(config(address));
            assert_eq!(client.request(numbered(2), Bytes::new()).await, Ok((echo(2), Bytes::new())));
        });
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        // Only there so that a broken test ends.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    /// A link that has entered.
    fn link(&self) -> TcpStream {
        let mut stream = self.connect();
        enter(&mut stream, caller());
        stream
    }

    /// Sends `bytes` over a link and reads until the server closes, which it must do by itself.
    fn attack_link(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.link();
        let _ = stream.write_all(bytes);
        read_to_close(&mut stream)
    }

    /// Sends `bytes` and reads until the server closes, which it must do by itself.
    fn attack(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may close before it has everything.
        let _ = stream.write_all(bytes);
        read_to_close(&mut stream)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = vec![];
    if let Err(e) = stream.read_to_end(&mut answer) {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "it must close, and did not: {e}");
    }
    answer
}

fn frame(kind: u16, id: u64, meta: &[u8], data: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(kind, id, Status::Ok, meta, data.len());
    [header.as_bytes(), meta, data].concat()
}

fn request(id: u64, request: &Request) -> Vec<u8> {
    let mut meta = vec![];
    request.encode(&mut meta);
    frame(request.kind(), id, &meta, &[])
}

/// A hello of a caller like no other.
fn greeting() -> Vec<u8> {
    request(0, &hello(caller()))
}

/// Sends a hello and reads the ticket that it is answered with.
fn ticket(stream: &mut TcpStream, caller: Caller) -> Ticket {
    stream.write_all(&request(0, &hello(caller))).expect("sent");
    let mut answer = [0; WELCOME];
    stream.read_exact(&mut answer).expect("welcome");
    let meta = Bytes::copy_from_slice(&answer[HEADER_LEN..]);
    match Reply::decode(HELLO, 0, meta, 0) {
        Ok(Reply::Hello { ticket, .. }) => ticket,
        other => panic!("{other:?} instead of a welcome"),
    }
}

/// The same, and enters.
fn enter(stream: &mut TcpStream, caller: Caller) {
    let ticket = ticket(stream, caller);
    stream.write_all(&request(0, &Request::Enter { ticket })).expect("sent");
}

/// A header that announces much more than the limits allow, with valid checksums.
fn oversized() -> Vec<u8> {
    let mut header = FrameHeader::new(4, 1, Status::Ok, b"", 0);
    header.data_len = (MAX_DATA as u32 + 1).into();
    header.header_crc = crc32c::crc32c(&header.as_bytes()[..HEADER_LEN - 4]).into();
    header.as_bytes().to_vec()
}

#[test]
fn every_breach_of_the_protocol_closes_the_link_and_only_that() {
    let victim = Victim::start(ServerLimits::default());
    let mut damaged = request(1, &numbered(1));
    *damaged.last_mut().expect("bytes") ^= 1;
    let entry = |n| request(0, &Request::Enter { ticket: Ticket(n) });
    let greetings: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: somewhere\r\nUser-Agent: curious\r\n\r\n".to_vec()),
        ("no hello", request(0, &numbered(1))),
        ("a long first frame", frame(1, 0, &[0; 5000], &[])),
        ("an entry without a hello", entry(1)),
        ("a guessed ticket", [greeting(), entry(u64::MAX)].concat()),
        ("no ticket", [greeting(), request(1, &numbered(1))].concat()),
        ("two hellos", [greeting(), greeting()].concat()),
        ("zeros", vec![0; 1 << 20]),
    ];
    for (what, bytes) in greetings {
        victim.attack(&bytes);
        println!("closed after {what}");
    }
    let breaches: Vec<(&str, Vec<u8>)> = vec![
        ("a second hello", greeting()),
        ("a second entry", entry(1)),
        ("a reply", frame(6 | REPLY_BIT, 1, &[], &[])),
        ("an unknown kind", frame(999, 1, &[], &[])),
        ("a short message", frame(numbered(1).kind(), 1, &[1, 2, 3], &[])),
        ("unexpected data", frame(10, 1, &[], &[0; 4096])),
        ("a damaged message", damaged),
        ("an oversized frame", oversized()),
    ];
    for (what, bytes) in breaches {
        victim.attack_link(&bytes);
        println!("closed after {what}");
    }
    victim.check_serves();
}

#[test]
fn a_refused_hello_is_answered_before_the_link_closes() {
    let victim = Victim::start(ServerLimits::default());
    let other = Request::Hello(Hello { cluster: [1; 16], caller: caller(), to: SERVER, core: 3 });
    let answer = victim.attack(&request(0, &other));
    let header = FrameHeader::parse(&answer).expect("an answer");
    let reply = Reply::decode(header.kind.get(), header.status.get(), Bytes::copy_from_slice(&answer[HEADER_LEN..]), 0);
    assert!(
        matches!(reply, Ok(Reply::Error { status: Status::Invalid, detail }) if detail.contains("another cluster"))
    );
}

#[test]
fn a_peer_that_exceeds_its_grant_is_cut_off() {
    let victim = Victim::start(ServerLimits { max_requests: 3, ..ServerLimits::default() });
    let held = |n: u64| (0..n).flat_map(|i| request(i, &numbered(1))).collect::<Vec<u8>>();
    // Three are fine, with as many pings as one likes: the link stays until the test closes it.
    let mut stream = victim.link();
    let pings = (0..100).flat_map(|i| request(100 + i, &Request::Ping)).collect::<Vec<u8>>();
    stream.write_all(&[held(3), pings].concat()).expect("sent");
    stream.read_exact(&mut vec![0; 100 * HEADER_LEN]).expect("the pings are answered");
    // One more is not.
    stream.write_all(&request(9, &numbered(1))).expect("sent");
    read_to_close(&mut stream);
    victim.check_serves();
}

#[test]
fn peers_that_dawdle_are_cut_off() {
    let tick = Duration::from_millis(10);
    let limits =
        ServerLimits { tick, hello_ticks: 20, idle_ticks: 1_000_000, frame_ticks: 20, ..ServerLimits::default() };
    let victim = Victim::start(limits.clone());
    victim.attack(b"");
    victim.attack(&greeting()[..30]);
    victim.attack(&greeting());
    victim.attack_link(&request(1, &numbered(1))[..50]);
    let idle = Victim::start(ServerLimits { idle_ticks: 20, ..limits });
    idle.attack_link(b"");
}

#[test]
fn a_peer_that_takes_no_answers_is_cut_off() {
    let victim = Victim::start(ServerLimits { max_bytes: 1 << 20, ..ServerLimits::default() });
    let mut stream = victim.link();
    let pings = request(1, &Request::Ping).repeat(10_000);
    // Far more than its grant, the largest frame and the sockets' buffers hold together.
    let enough = (0..400).any(|_| stream.write_all(&pings).is_err());
    assert!(enough, "the server goes on to pile up answers");
    victim.check_serves();
}

#[test]
fn links_are_bounded_in_number() {
    let victim = Victim::start(ServerLimits { max_links: 2, ..ServerLimits::default() });
    let keep: Vec<TcpStream> = (0..2).map(|_| victim.link()).collect();
    assert_eq!(victim.attack(b""), b"");
    drop(keep);
}

#[test]
fn damaged_and_truncated_streams_never_harm_the_server() {
    let victim = Victim::start(ServerLimits::default());
    let valid: Vec<u8> = (0..20).flat_map(|i| request(i, &numbered(i as u32))).collect();
    let greeted: Vec<u8> = [greeting(), valid.clone()].concat();
    let damage = (0..valid.len(), 1u8..=255, prop::collection::vec(any::<u8>(), 0..60));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let outcome = runner.run(&(damage, 0..valid.len(), any::<bool>()), |((at, flip, insert), cut, enters)| {
        let mut bytes = if enters { valid.clone() } else { greeted.clone() };
        bytes[at] ^= flip;
        bytes.splice(at..at, insert);
        bytes.truncate(valid.len() - cut / 4);
        let mut stream = if enters { victim.link() } else { victim.connect() };
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_close(&mut stream);
        Ok(())
    });
    outcome.expect("every stream is closed");
    victim.check_serves();
}
