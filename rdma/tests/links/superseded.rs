//! A caller that makes another link: the older one is dead from then on, whatever is still under way on it.

use crate::common::*;
use bytes::Bytes;
use levee_proto::Caller;
use levee_proto::callers::Ticket;
use levee_proto::wire::{FrameHeader, HEADER_LEN, HELLO, Reply, Request, Status};
use levee_rdma::{Callers, Identity, Server, ServerLimits};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use zerocopy::IntoBytes;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;

/// A peer that sends what the test says, when it says so.
struct Raw(TcpStream);

impl Raw {
    async fn connect(address: SocketAddr) -> Raw {
        Raw(TcpStream::connect(address).await.expect("it listens"))
    }

    async fn send(&mut self, id: u64, request: &Request) {
        let mut meta = vec![];
        request.encode(&mut meta);
        let header = FrameHeader::new(request.kind(), id, Status::Ok, &meta, 0);
        // The other end may have closed already: that is what some tests are about.
        let _ = self.0.write_all(&[header.as_bytes(), &meta].concat()).await;
    }

    /// The next answer's kind and message; none once the link is closed.
    async fn hear(&mut self) -> Option<(u16, Bytes)> {
        let mut head = [0; HEADER_LEN];
        self.0.read_exact(&mut head).await.ok()?;
        let header = FrameHeader::parse(&head).expect("a frame");
        let mut meta = vec![0; header.meta_len.get() as usize];
        self.0.read_exact(&mut meta).await.ok()?;
        Some((header.kind.get(), meta.into()))
    }

    /// Says hello to a server that is core `core`, and hears the ticket.
    async fn ticket(&mut self, caller: Caller, core: u16) -> Ticket {
        let Request::Hello(hello) = hello(caller) else { unreachable!() };
        self.send(0, &Request::Hello(levee_proto::wire::Hello { core, ..hello })).await;
        let (_, meta) = self.hear().await.expect("a welcome");
        match Reply::decode(HELLO, 0, meta, 0) {
            Ok(Reply::Hello { ticket, .. }) => ticket,
            other => panic!("{other:?} instead of a welcome"),
        }
    }

    async fn enter(address: SocketAddr, caller: Caller, core: u16) -> Raw {
        let mut raw = Raw::connect(address).await;
        let ticket = raw.ticket(caller, core).await;
        raw.send(0, &Request::Enter { ticket }).await;
        raw
    }
}

/// A server of another core of the same process.
async fn other_core(core: u16, callers: &Callers, service: Rc<Echo>) -> Server {
    let identity = Identity { core, ..identity() };
    let server = Server::listen("127.0.0.1:0", identity, callers.clone(), service, ServerLimits::default());
    server.await.expect("a free port")
}

fn seen(service: &Echo) -> Vec<u32> {
    let seen: &RefCell<Vec<u32>> = &service.seen;
    seen.borrow().clone()
}

#[test]
fn nothing_of_an_older_link_is_handled_after_a_newer_one_has_entered() {
    run(|| async {
        let service = Rc::new(Echo::default());
        let server = serve(service.clone()).await;
        let (address, caller) = (server.local_addr(), caller());
        let mut old = Raw::enter(address, caller, 3).await;
        old.send(1, &numbered(1)).await;
        old.hear().await.expect("an answer");
        let mut new = Raw::enter(address, caller, 3).await;
        new.send(1, &numbered(2)).await;
        new.hear().await.expect("an answer");
        // What was under way on the old one arrives now.
        old.send(2, &numbered(3)).await;
        assert_eq!(old.hear().await, None, "it is closed");
        new.send(2, &numbered(4)).await;
        new.hear().await.expect("an answer");
        assert_eq!(seen(&service), [1, 2, 4]);
        until(|| server.links() == 1).await;
        server.stop().await;
    });
}

#[test]
fn a_link_that_enters_late_is_refused_and_the_newer_one_stays() {
    run(|| async {
        let service = Rc::new(Echo::default());
        let server = serve(service.clone()).await;
        let (address, caller) = (server.local_addr(), caller());
        let mut old = Raw::connect(address).await;
        let ticket = old.ticket(caller, 3).await;
        let mut new = Raw::enter(address, caller, 3).await;
        new.send(1, &numbered(1)).await;
        new.hear().await.expect("an answer");
        old.send(0, &Request::Enter { ticket }).await;
        old.send(1, &numbered(2)).await;
        assert_eq!(old.hear().await, None, "it is refused");
        new.send(2, &numbered(3)).await;
        new.hear().await.expect("it stays");
        assert_eq!(seen(&service), [1, 3]);
        server.stop().await;
    });
}

#[test]
fn a_restarted_daemon_ends_the_links_of_its_predecessor_on_every_core() {
    run(|| async {
        let (service, callers) = (Rc::new(Echo::default()), Callers::default());
        let first = other_core(0, &callers, service.clone()).await;
        let second = other_core(1, &callers, service.clone()).await;
        let dead = caller();
        let mut old = Raw::enter(second.local_addr(), dead, 1).await;
        old.send(1, &numbered(1)).await;
        old.hear().await.expect("an answer");
        // Nothing tells which process is the newer but that it came later.
        let restarted = Caller { incarnation: [0; 16], ..dead };
        let mut new = Raw::enter(first.local_addr(), restarted, 0).await;
        new.send(1, &numbered(2)).await;
        new.hear().await.expect("an answer");
        old.send(2, &numbered(3)).await;
        assert_eq!(old.hear().await, None, "it is closed");
        let mut more = Raw::enter(second.local_addr(), restarted, 1).await;
        for (link, n) in [(&mut more, 4), (&mut new, 5)] {
            link.send(3, &numbered(n)).await;
            link.hear().await.expect("links of one process live side by side");
        }
        assert_eq!(seen(&service), [1, 2, 4, 5]);
        first.stop().await;
        second.stop().await;
    });
}
