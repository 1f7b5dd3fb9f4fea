//! Peers that send what they must not: they lose their link, and nobody else anything.

mod common;

use bytes::Bytes;
use common::*;
use levee_proto::NodeId;
use levee_proto::wire::{FrameHeader, HEADER_LEN, MAX_DATA, REPLY_BIT, Reply, Request, Status};
use levee_rdma::{Client, Responder, ServerLimits, Service};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use zerocopy::IntoBytes;

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

fn hello() -> Vec<u8> {
    request(0, &Request::Hello { cluster: cluster(), from: CALLER, to: SERVER, core: 3 })
}

fn after_hello(rest: &[u8]) -> Vec<u8> {
    [&hello(), rest].concat()
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
    let breaches: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: somewhere\r\nUser-Agent: curious\r\n\r\n".to_vec()),
        ("no hello", request(0, &numbered(1))),
        ("a long first frame", frame(1, 0, &[0; 5000], &[])),
        ("a second hello", after_hello(&hello())),
        ("a reply", after_hello(&frame(6 | REPLY_BIT, 1, &[], &[]))),
        ("an unknown kind", after_hello(&frame(999, 1, &[], &[]))),
        ("a short message", after_hello(&frame(numbered(1).kind(), 1, &[1, 2, 3], &[]))),
        ("unexpected data", after_hello(&frame(10, 1, &[], &[0; 4096]))),
        ("a damaged message", after_hello(&damaged)),
        ("an oversized frame", after_hello(&oversized())),
        ("zeros", vec![0; 1 << 20]),
    ];
    for (what, bytes) in breaches {
        victim.attack(&bytes);
        println!("closed after {what}");
    }
    victim.check_serves();
}

#[test]
fn a_refused_hello_is_answered_before_the_link_closes() {
    let victim = Victim::start(ServerLimits::default());
    let other = Request::Hello { cluster: [1; 16], from: CALLER, to: SERVER, core: 3 };
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
    let mut stream = victim.connect();
    let pings = (0..100).flat_map(|i| request(100 + i, &Request::Ping)).collect::<Vec<u8>>();
    stream.write_all(&after_hello(&[held(3), pings].concat())).expect("sent");
    let mut answers = vec![0; (HEADER_LEN + 8) + 100 * HEADER_LEN];
    stream.read_exact(&mut answers).expect("the hello and the pings are answered");
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
    victim.attack(&hello()[..30]);
    victim.attack(&after_hello(&request(1, &numbered(1))[..50]));
    let idle = Victim::start(ServerLimits { idle_ticks: 20, ..limits });
    idle.attack(&hello());
}

#[test]
fn a_peer_that_takes_no_answers_is_cut_off() {
    let victim = Victim::start(ServerLimits { max_bytes: 1 << 20, ..ServerLimits::default() });
    let mut stream = victim.connect();
    stream.write_all(&hello()).expect("sent");
    let pings = request(1, &Request::Ping).repeat(10_000);
    // Far more than its grant, the largest frame and the sockets' buffers hold together.
    let enough = (0..400).any(|_| stream.write_all(&pings).is_err());
    assert!(enough, "the server goes on to pile up answers");
    victim.check_serves();
}

#[test]
fn links_are_bounded_in_number() {
    let victim = Victim::start(ServerLimits { max_links: 2, ..ServerLimits::default() });
    let keep: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = victim.connect();
            stream.write_all(&hello()).expect("sent");
            stream.read_exact(&mut [0; HEADER_LEN + 8]).expect("welcome");
            stream
        })
        .collect();
    assert_eq!(victim.attack(b""), b"");
    drop(keep);
}

#[test]
fn damaged_and_truncated_streams_never_harm_the_server() {
    let victim = Victim::start(ServerLimits::default());
    let valid: Vec<u8> = after_hello(&(0..20).flat_map(|i| request(i, &numbered(i as u32))).collect::<Vec<u8>>());
    let damage = (0..valid.len(), 1u8..=255, prop::collection::vec(any::<u8>(), 0..60));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let outcome = runner.run(&(damage, 0..valid.len()), |((at, flip, insert), cut)| {
        let mut bytes = valid.clone();
        bytes[at] ^= flip;
        bytes.splice(at..at, insert);
        bytes.truncate(valid.len() - cut / 4);
        let mut stream = victim.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_close(&mut stream);
        Ok(())
    });
    outcome.expect("every stream is closed");
    victim.check_serves();
}
