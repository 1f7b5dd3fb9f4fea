//! The link of a core to itself.

use crate::common::*;
use bytes::Bytes;
use levee_proto::NodeId;
use levee_proto::wire::{Request, Status};
use levee_rdma::{Client, ClientLimits, LinkError, Responder, Service};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[test]
fn neither_the_service_nor_the_callback_runs_inside_call() {
    run(|| async {
        let service = Rc::new(Echo::default());
        let client = Client::loopback(CALLER, service.clone(), &ClientLimits::default());
        let answers = Rc::new(RefCell::new(vec![]));
        for n in 0..100 {
            let to = answers.clone();
            client.call(numbered(n), Bytes::new(), move |answer| {
                assert_eq!(answer, Ok((echo(n), Bytes::new())));
                to.borrow_mut().push(n);
            });
        }
        assert!(service.seen.borrow().is_empty() && answers.borrow().is_empty());
        assert!(client.is_up());
        until(|| answers.borrow().len() == 100).await;
        assert_eq!(*service.seen.borrow(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn callbacks_call_again_without_end_and_without_starving_others() {
    fn again(client: Client, n: Rc<Cell<u32>>) {
        let next = client.clone();
        client.call(numbered(n.get()), Bytes::new(), move |answer| {
            assert!(answer.is_ok());
            n.set(n.get() + 1);
            again(next, n);
        });
    }
    run(|| async {
        let client = Client::loopback(CALLER, Rc::new(Echo::default()), &ClientLimits::default());
        let n = Rc::new(Cell::new(0));
        again(client, n.clone());
        // The timers behind this only fire if the chain lets the reactor run.
        until(|| n.get() > 2000).await;
    });
}

#[test]
fn data_is_handed_over_and_not_copied() {
    struct Same(Cell<*const u8>);
    impl Service for Same {
        fn handle(&self, _from: NodeId, request: Request, data: Bytes, reply: Responder) {
            self.0.set(data.as_ptr());
            reply.send(echo(number(&request)), data);
        }
    }
    run(|| async {
        let service = Rc::new(Same(Cell::new(std::ptr::null())));
        let client = Client::loopback(CALLER, service.clone(), &ClientLimits::default());
        let data = Bytes::from(vec![7; 4096]);
        let (_, back) = client.request(numbered(1), data.clone()).await.expect("an answer");
        assert_eq!((service.0.get(), back.as_ptr()), (data.as_ptr(), data.as_ptr()));
    });
}

#[test]
fn a_dropped_request_is_unavailable_and_too_many_are_overload() {
    run(|| async {
        let service = Rc::new(Hold::default());
        let limits = ClientLimits { queue_requests: 2, ..ClientLimits::default() };
        let client = Client::loopback(CALLER, service.clone(), &limits);
        let answers = Rc::new(RefCell::new(vec![]));
        for n in 0..3 {
            let to = answers.clone();
            client.call(numbered(n), Bytes::new(), move |answer| {
                to.borrow_mut().push(answer.map(|(reply, _)| reply.status()));
            });
        }
        until(|| answers.borrow().len() == 1).await;
        assert_eq!(*answers.borrow(), [Err(LinkError::Overloaded)]);
        until(|| service.held() == 2).await;
        drop(std::mem::take(&mut *service.held.borrow_mut()));
        until(|| answers.borrow().len() == 3).await;
        assert_eq!(answers.borrow()[1..], [Ok(Status::Unavailable), Ok(Status::Unavailable)]);
    });
}

#[test]
fn a_call_is_answered_though_the_client_is_dropped_at_once() {
    run(|| async {
        let answered = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let (client, n) =
                (Client::loopback(CALLER, Rc::new(Echo::default()), &ClientLimits::default()), answered.clone());
            client.call(numbered(1), Bytes::new(), move |answer| {
                assert!(answer.is_ok());
                n.set(n.get() + 1);
            });
        }
        until(|| answered.get() == 3).await;
    });
}
