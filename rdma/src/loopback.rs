//! The link of a core to itself: nothing is serialised, the same promises hold.

use crate::credits::{Credits, cost};
use crate::errors::LinkError;
use crate::later::Later;
use crate::limits::ClientLimits;
use crate::pending::Done;
use crate::responder::{Responder, Service};
use bytes::Bytes;
use levee_proto::NodeId;
use levee_proto::wire::Request;
use std::cell::RefCell;
use std::rc::Rc;

pub(crate) struct Loopback {
    from: NodeId,
    service: Rc<dyn Service>,
    /// Requests to handle and answers to deliver: neither happens inside the call that causes it.
    later: Rc<Later>,
    credits: Rc<RefCell<Credits>>,
}

impl Loopback {
    pub fn new(from: NodeId, service: Rc<dyn Service>, limits: &ClientLimits) -> Loopback {
        let bytes = u32::try_from(limits.queue_bytes).unwrap_or(u32::MAX);
        let requests = u32::try_from(limits.queue_requests).unwrap_or(u32::MAX);
        let credits = Rc::new(RefCell::new(Credits::new(requests, bytes)));
        Loopback { from, service, later: Rc::default(), credits }
    }

    pub fn call(&self, request: Request, data: Bytes, done: Done) {
        let cost = cost(&request, data.len());
        if !self.credits.borrow_mut().take(cost) {
            return self.later.push(move || done(Err(LinkError::Overloaded)));
        }
        let credits = self.credits.clone();
        let done = Box::new(move |answer| {
            credits.borrow_mut().release(cost);
            done(answer);
        });
        let responder = Responder::local(self.later.clone(), done);
        let (service, from) = (self.service.clone(), self.from);
        self.later.push(move || service.handle(from, request, data, responder));
    }
}
