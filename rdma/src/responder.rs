//! What answers requests, and with what.

use crate::errors::LinkError;
use crate::later::Later;
use crate::limits::MAX_DETAIL;
use crate::pending::Done;
use crate::server::Conn;
use bytes::Bytes;
use levee_proto::NodeId;
use levee_proto::wire::{Reply, Request, Status};
use std::rc::Rc;

/// What answers requests on this core.
///
/// Called for the requests of each link in the order of their arrival. It must not block, and may
/// answer later and in any order.
pub trait Service: 'static {
    /// A request of `node`, with the data beside it: its length fits the request, its checksums have not
    /// been looked at.
    fn handle(&self, from: NodeId, request: Request, data: Bytes, reply: Responder);
}

/// The obligation to answer one request. Dropping it answers [`Status::Unavailable`].
#[must_use]
pub struct Responder(Option<Route>);

enum Route {
    Link { conn: Rc<Conn>, id: u64, kind: u16, cost: usize },
    Local { later: Rc<Later>, done: Done },
}

impl Responder {
    pub(crate) fn link(conn: Rc<Conn>, id: u64, kind: u16, cost: usize) -> Responder {
        Responder(Some(Route::Link { conn, id, kind, cost }))
    }

    pub(crate) fn local(later: Rc<Later>, done: Done) -> Responder {
        Responder(Some(Route::Local { later, done }))
    }

    /// Answers the request. The answer leaves at the end of the executor's turn; if the link has gone
    /// meanwhile, nobody hears it.
    pub fn send(mut self, reply: Reply, data: Bytes) {
        self.answer(reply, data);
    }

    fn answer(&mut self, reply: Reply, data: Bytes) {
        match self.0.take() {
            Some(Route::Link { conn, id, kind, cost }) => conn.answer(id, kind, cost, &bounded(reply), data),
            Some(Route::Local { later, done }) => later.push(move || done(Ok((reply, data)))),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.0.is_some() {
            let reply = Reply::error(Status::Unavailable, "the request was dropped unanswered: try again");
            self.answer(reply, Bytes::new());
        }
    }
}

/// Cuts the text of an error reply to its bound.
fn bounded(mut reply: Reply) -> Reply {
    if let Reply::Error { detail, .. } = &mut reply {
        let mut end = detail.len().min(MAX_DETAIL);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
    }
    reply
}

/// The error of a request to a link that is closed for good.
pub(crate) fn dropped() -> LinkError {
    LinkError::Down("the link was dropped".into())
}
