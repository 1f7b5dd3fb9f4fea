//! Requests and answers over TCP between real executors.

use crate::common::*;
use bytes::Bytes;
use levee_proto::callers::Ticket;
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, Reply, Request, Scope, Status};
use levee_proto::{BLOCK_SIZE, Epoch, NodeId, Seq, Version, View};
use levee_rdma::{Callers, Client, LinkError, Responder, ServeError, Server, ServerLimits, Service};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[test]
fn requests_arrive_in_order_and_late_answers_find_their_callers() {
    run(|| async {
        let service = Rc::new(Hold::default());
        let server = serve(service.clone()).await;
        let client = client(&server);
        let answers = Rc::new(RefCell::new(vec![]));
        for n in 0..200 {
            let to = answers.clone();
            client.call(numbered(n), Bytes::new(), move |answer| {
                assert_eq!(answer, Ok((echo(n), Bytes::new())));
                to.borrow_mut().push(n);
            });
            assert!(answers.borrow().is_empty(), "answered inside call");
        }
        until(|| service.held() == 200).await;
        assert!(client.is_up());
        let seen: Vec<u32> = service.held.borrow().iter().map(|(n, _)| *n).collect();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        service.answer_backwards();
        until(|| answers.borrow().len() == 200).await;
        assert_eq!(*answers.borrow(), (0..200).rev().collect::<Vec<_>>());
        server.stop().await;
    });
}

#[test]
fn a_request_crosses_executors() {
    let (send_address, address) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        run(move || async move {
            let server = serve(Rc::new(Echo::default())).await;
            send_address.send(server.local_addr()).expect("the test waits");
            until(|| stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty)).await;
            server.stop().await;
        });
    });
    let address = address.recv().expect("the server starts");
    run(move || async move {
        let client = Client::tcp(config(address));
        for n in 0..100 {
            assert_eq!(client.request(numbered(n), Bytes::new()).await, Ok((echo(n), Bytes::new())));
        }
    });
    drop(stop);
    server.join().expect("the server");
}

/// Verifies writes, and answers reads with data of the block's number.
struct Blocks;

impl Service for Blocks {
    fn handle(&self, _from: NodeId, request: Request, data: Bytes, reply: Responder) {
        match request {
            Request::Write { crcs, .. } if crcs.verify(&data) => reply.send(Reply::Done, Bytes::new()),
            Request::Read { block, count, .. } => {
                let entry = |block| BlockEntry { kind: BlockKind::Data, crc: 1, ..BlockEntry::absent(block) };
                let entries = (block..block + count).map(entry).collect();
                reply.send(Reply::Read { entries }, read_data(block, count));
            }
            _ => reply.send(Reply::error(Status::BadChecksum, "damaged on the way"), Bytes::new()),
        }
    }
}

fn read_data(block: u32, count: u32) -> Bytes {
    (block..block + count).flat_map(|b| [b as u8; BLOCK_SIZE]).collect::<Vec<u8>>().into()
}

fn write(block: u32, count: u32) -> (Request, Bytes) {
    let data: Bytes = (0..count as usize * BLOCK_SIZE).map(|i| (i * 31 + i / 4096) as u8).collect::<Vec<_>>().into();
    let request = Request::Write {
        target: target(),
        kind: BlockKind::Data,
        version: Version::FIRST,
        seq: Seq::new(Epoch(5), 1),
        block,
        count,
        crcs: Crcs::of(&data),
    };
    (request, data)
}

#[test]
fn large_and_small_data_crosses_both_ways_unharmed() {
    run(|| async {
        let server = serve(Rc::new(Blocks)).await;
        let client = client(&server);
        let left = Rc::new(Cell::new(0));
        for i in 0..64 {
            let count = [1, 256, 3, 32, 77, 1, 1, 200][i as usize % 8];
            let (request, data) = write(i, count);
            left.set(left.get() + 2);
            let l = left.clone();
            client.call(request, data, move |answer| {
                assert_eq!(answer, Ok((Reply::Done, Bytes::new())));
                l.set(l.get() - 1);
            });
            let read =
                Request::Read { target: target(), block: i, count, view: View::of(Version::FIRST), reconcile: false };
            let l = left.clone();
            client.call(read, Bytes::new(), move |answer| {
                let (reply, data) = answer.expect("an answer");
                assert!(matches!(reply, Reply::Read { entries } if entries.len() == count as usize));
                assert_eq!(data, read_data(i, count));
                l.set(l.get() - 1);
            });
        }
        until(|| left.get() == 0).await;
        server.stop().await;
    });
}

#[test]
fn a_callback_may_call_again() {
    fn chain(client: Rc<Client>, n: u32, end: Rc<Cell<bool>>) {
        let again = client.clone();
        client.call(numbered(n), Bytes::new(), move |answer| {
            assert_eq!(answer, Ok((echo(n), Bytes::new())));
            if n == 300 { end.set(true) } else { chain(again, n + 1, end) }
        });
    }
    run(|| async {
        let server = serve(Rc::new(Echo::default())).await;
        let end = Rc::new(Cell::new(false));
        chain(Rc::new(client(&server)), 0, end.clone());
        until(|| end.get()).await;
        server.stop().await;
    });
}

#[test]
fn a_request_dropped_by_the_service_is_unavailable_and_a_huge_answer_an_error() {
    struct Odd;
    impl Service for Odd {
        fn handle(&self, _from: NodeId, request: Request, _data: Bytes, reply: Responder) {
            match number(&request) {
                0 => drop(reply),
                1 => reply.send(echo(1), vec![0; 5 << 20].into()),
                _ => reply.send(Reply::error(Status::Io, "ä".repeat(100_000)), Bytes::new()),
            }
        }
    }
    run(|| async {
        let server = serve(Rc::new(Odd)).await;
        let client = client(&server);
        let status = async |n| client.request(numbered(n), Bytes::new()).await.map(|(reply, _)| reply.status());
        assert_eq!(status(0).await, Ok(Status::Unavailable));
        assert_eq!(status(1).await, Ok(Status::Invalid));
        assert_eq!(status(2).await, Ok(Status::Io));
        server.stop().await;
    });
}

#[test]
fn what_cannot_be_sent_is_refused_and_harms_nothing() {
    run(|| async {
        let server = serve(Rc::new(Echo::default())).await;
        let client = client(&server);
        for greeting in [hello(caller()), Request::Enter { ticket: Ticket(1) }] {
            assert!(matches!(client.request(greeting, Bytes::new()).await, Err(LinkError::Invalid(_))));
        }
        let huge = Bytes::from(vec![0; 5 << 20]);
        assert!(matches!(client.request(numbered(1), huge).await, Err(LinkError::Invalid(_))));
        let entries = vec![BlockEntry::absent(1); 100_000];
        let long = Request::Repair { target: target(), scope: Scope::Named, entries };
        assert!(matches!(client.request(long, Bytes::new()).await, Err(LinkError::Invalid(_))));
        assert_eq!(client.request(numbered(5), Bytes::new()).await, Ok((echo(5), Bytes::new())));
        assert_eq!(client.request(Request::Ping, Bytes::new()).await, Ok((Reply::Done, Bytes::new())));
        server.stop().await;
    });
}

#[test]
fn a_port_in_use_is_named() {
    run(|| async {
        let server = serve(Rc::new(Echo::default())).await;
        let address = server.local_addr().to_string();
        let listen = async |address: &str| {
            let (callers, limits) = (Callers::default(), ServerLimits::default());
            Server::listen(address, identity(), callers, Rc::new(Echo::default()), limits).await
        };
        let second = listen(&address).await;
        let error = second.err().expect("the port is taken");
        assert!(matches!(error, ServeError::InUse(_)));
        assert!(error.to_string().contains(&address));
        let odd = listen("nowhere").await;
        assert!(matches!(odd.err(), Some(ServeError::BadAddress(_))));
        server.stop().await;
    });
}
