//! Links that break, are refused, overloaded or silent.

use crate::common::*;
use bytes::Bytes;
use glommio::timer::sleep;
use levee_proto::callers::Ticket;
use levee_proto::wire::{FrameHeader, HEADER_LEN, REPLY_BIT, Reply, Request, Status};
use levee_proto::{Caller, NodeId};
use levee_rdma::{Answer, Client, ClientConfig, ClientLimits, LinkError, ServerLimits};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Counts how often each of a series of calls was answered, and how.
#[derive(Default)]
struct Answers(Rc<RefCell<Vec<(u32, Answer)>>>);

impl Answers {
    fn call(&self, client: &Client, n: u32) {
        let answers = self.0.clone();
        client.call(numbered(n), Bytes::new(), move |answer| answers.borrow_mut().push((n, answer)));
    }

    fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// The numbers answered, once all of them are down.
    fn all_down(&self) -> Vec<u32> {
        let answers = self.0.borrow();
        assert!(answers.iter().all(|(_, a)| is_down(a)), "{answers:?}");
        answers.iter().map(|(n, _)| *n).collect()
    }
}

fn is_down(answer: &Answer) -> bool {
    matches!(answer, Err(LinkError::Down(_)))
}

#[test]
fn a_broken_link_fails_everything_outstanding_once_and_comes_back() {
    run(|| async {
        let service = Rc::new(Hold::default());
        let server = serve_with(service.clone(), ServerLimits { max_requests: 5, ..ServerLimits::default() }).await;
        let address = server.local_addr();
        let client = client(&server);
        let answers = Answers::default();
        for n in 0..20 {
            answers.call(&client, n);
        }
        until(|| service.held() == 5).await;
        server.stop().await;
        until(|| answers.len() == 20).await;
        assert_eq!(answers.all_down(), (0..20).collect::<Vec<_>>());
        // Answers of a service that outlived its link go nowhere.
        service.answer_backwards();

        let server = serve_at(address, Rc::new(Echo::default())).await;
        while is_down(&client.request(numbered(1), Bytes::new()).await) {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(client.is_up());
        assert_eq!(client.request(numbered(2), Bytes::new()).await, Ok((echo(2), Bytes::new())));
        assert_eq!(answers.len(), 20);
        server.stop().await;
    });
}

#[test]
fn calls_fail_while_nobody_listens_and_a_new_address_helps() {
    run(|| async {
        let server = serve(Rc::new(Echo::default())).await;
        // No test and no ordinary program listens on port 1.
        let client = Client::tcp(config("127.0.0.1:1"));
        let answers = Answers::default();
        answers.call(&client, 1);
        assert_eq!(answers.len(), 0);
        until(|| answers.len() == 1).await;
        answers.call(&client, 2);
        assert_eq!(answers.len(), 1, "answered inside call");
        until(|| answers.len() == 2).await;
        answers.all_down();
        assert!(!client.is_up());
        client.set_address(server.local_addr().to_string());
        until(|| client.is_up()).await;
        assert_eq!(client.request(numbered(3), Bytes::new()).await, Ok((echo(3), Bytes::new())));
        server.stop().await;
    });
}

#[test]
fn a_dropped_client_fails_what_is_outstanding() {
    run(|| async {
        let service = Rc::new(Hold::default());
        let server = serve(service.clone()).await;
        let client = client(&server);
        let answers = Answers::default();
        answers.call(&client, 1);
        answers.call(&client.clone(), 2);
        until(|| service.held() == 2).await;
        drop(client);
        assert_eq!(answers.len(), 0);
        until(|| answers.len() == 2).await;
        assert_eq!(answers.all_down(), [1, 2]);
        until(|| server.links() == 0).await;
        server.stop().await;
    });
}

#[test]
fn who_looks_for_somebody_else_is_refused_with_the_reason() {
    run(|| async {
        let server = serve(Rc::new(Echo::default())).await;
        let right = config(server.local_addr());
        let wrong = [
            (ClientConfig { cluster: [1; 16], ..right.clone() }, "another cluster"),
            (ClientConfig { to: NodeId(9), ..right.clone() }, "this is node 2 core 3, not node 9"),
            (ClientConfig { core: 0, ..right.clone() }, "not node 2 core 0"),
            (ClientConfig { caller: Caller { node: NodeId(0), ..right.caller }, ..right.clone() }, "no node id"),
        ];
        for (config, why) in wrong {
            match Client::tcp(config).request(numbered(1), Bytes::new()).await {
                Err(LinkError::Down(reason)) => assert!(reason.contains(why), "{reason}"),
                other => panic!("{other:?} instead of {why:?}"),
            }
        }
        let by_name = format!("localhost:{}", server.local_addr().port());
        let client = Client::tcp(ClientConfig { address: by_name, ..right });
        assert_eq!(client.request(numbered(1), Bytes::new()).await, Ok((echo(1), Bytes::new())));
        let nowhere = Client::tcp(config("not an address"));
        assert!(is_down(&nowhere.request(numbered(1), Bytes::new()).await));
        server.stop().await;
    });
}

#[test]
fn the_grant_is_kept_and_what_exceeds_the_queue_is_overload() {
    run(|| async {
        let service = Rc::new(Hold::default());
        let server = serve_with(service.clone(), ServerLimits { max_requests: 4, ..ServerLimits::default() }).await;
        let mut config = config(server.local_addr());
        config.limits.queue_requests = 30;
        let client = Client::tcp(config);
        assert_eq!(client.request(Request::Ping, Bytes::new()).await, Ok((Reply::Done, Bytes::new())));
        let answers = Answers::default();
        for n in 0..40 {
            answers.call(&client, n);
        }
        until(|| answers.len() == 6).await;
        assert!(answers.0.borrow().iter().all(|(n, a)| *n >= 34 && *a == Err(LinkError::Overloaded)));
        until(|| service.held() == 4).await;
        while answers.len() < 40 {
            service.answer_backwards();
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(service.most.get(), 4);
        let good = |(n, answer): &(u32, Answer)| (*answer == Ok((echo(*n), Bytes::new()))).then_some(*n);
        let ok: std::collections::BTreeSet<u32> = answers.0.borrow().iter().filter_map(good).collect();
        assert_eq!(ok, (0..34).collect());
        server.stop().await;
    });
}

/// A peer that accepts one connection after the other, perhaps says hello, and then only listens.
fn silent_peer(hello: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if hello {
                let reply = Reply::Hello { max_requests: 8, max_bytes: 1 << 20, ticket: Ticket(1) };
                let mut meta = vec![];
                reply.encode(&mut meta);
                let header = FrameHeader::new(1 | REPLY_BIT, 0, Status::Ok, &meta, 0);
                let mut request = [0; HEADER_LEN];
                let _ = stream.read_exact(&mut request);
                let _ = stream.write_all(&[header.as_bytes(), &meta].concat());
            }
            // Until the other side gives up.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    address
}

#[test]
fn a_silent_peer_is_given_up() {
    run(|| async {
        let mut config = config(silent_peer(true));
        config.limits.tick = Duration::from_millis(20);
        config.limits.down_ticks = 10;
        let client = Client::tcp(config);
        match client.request(numbered(1), Bytes::new()).await {
            Err(LinkError::Down(reason)) => assert!(reason.contains("silent"), "{reason}"),
            other => panic!("{other:?} from a silent peer"),
        }
        // It is noticed without a request, too: pings go unanswered.
        until(|| client.is_up()).await;
        until(|| !client.is_up()).await;
    });
}

#[test]
fn a_peer_that_never_says_hello_is_given_up() {
    run(|| async {
        let limits = ClientLimits { connect_timeout: Duration::from_millis(200), ..patient() };
        let client = Client::tcp(ClientConfig { limits, ..config(silent_peer(false)) });
        match client.request(numbered(1), Bytes::new()).await {
            Err(LinkError::Down(reason)) => assert!(reason.contains("no answer within"), "{reason}"),
            other => panic!("{other:?} from a silent peer"),
        }
    });
}

#[test]
fn an_idle_link_stays_up_by_its_pings() {
    run(|| async {
        let limits = ServerLimits { tick: Duration::from_millis(10), idle_ticks: 100, ..ServerLimits::default() };
        let server = serve_with(Rc::new(Hold::default()), limits).await;
        let mut config = config(server.local_addr());
        config.limits.tick = Duration::from_millis(10);
        config.limits.down_ticks = 60;
        let client = Client::tcp(config);
        let answers = Answers::default();
        // The service takes its time, longer than silence would be tolerated: pings bridge it.
        answers.call(&client, 1);
        sleep(Duration::from_secs(2)).await;
        assert!(client.is_up());
        assert_eq!((server.links(), answers.len()), (1, 0));
        server.stop().await;
    });
}

#[test]
fn an_executor_may_end_with_requests_outstanding() {
    run(|| async {
        let service = Rc::new(Hold::default());
        let server = serve(service.clone()).await;
        let (remote, local) = (client(&server), Client::loopback(CALLER, service.clone(), &patient()));
        for client in [remote, local] {
            let keep = client.clone();
            client.call(numbered(1), Bytes::new(), move |_| drop(keep));
        }
        until(|| service.held() == 2).await;
        let held = std::mem::take(&mut *service.held.borrow_mut());
        glommio::spawn_local(async move {
            std::future::pending::<()>().await;
            drop((held, server));
        })
        .detach();
    });
}

#[test]
fn a_dropped_client_fails_what_waits_for_a_connection() {
    run(|| async {
        let limits = ClientLimits { connect_timeout: Duration::from_millis(200), ..patient() };
        let client = Client::tcp(ClientConfig { limits, ..config(silent_peer(false)) });
        let answers = Answers::default();
        answers.call(&client, 1);
        drop(client);
        until(|| answers.len() == 1).await;
        answers.all_down();
    });
}
