//! The calling end of a link.

use crate::Answer;
use crate::errors::LinkError;
use crate::limits::ClientLimits;
use crate::loopback::Loopback;
use crate::oneshot::oneshot;
use crate::peer::Peer;
use crate::pending::Done;
use crate::responder::Service;
use bytes::Bytes;
use levee_proto::wire::{MAX_DATA, Request};
use levee_proto::{Caller, NodeId};
use std::rc::Rc;
use std::time::Duration;

/// Whom a [`Client`] calls, and as whom.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub cluster: [u8; 16],
    /// This node, process and core.
    pub caller: Caller,
    /// The node, and which of its cores, that must answer at `address`.
    pub to: NodeId,
    pub core: u16,
    /// `HOST:PORT`.
    pub address: String,
    pub limits: ClientLimits,
}

/// A link to one core of a node. Clones share the link; it ends with the last of them.
///
/// Over TCP the link connects with the first call, and from then on connects again whenever it breaks,
/// with growing pauses. Calls made while an attempt after a working link is under way wait for it;
/// once an attempt has failed they fail at once, until one succeeds.
#[derive(Clone)]
pub struct Client(Rc<Handle>);

enum Handle {
    Tcp(Rc<Peer>),
    Loopback(Loopback),
}

impl Client {
    /// A link over TCP. Nothing happens before the first call.
    pub fn tcp(config: ClientConfig) -> Client {
        Client(Rc::new(Handle::Tcp(Peer::new(config))))
    }

    /// The link of a core to its own service, which sees requests as coming `from` this node.
    pub fn loopback(from: NodeId, service: Rc<dyn Service>, limits: &ClientLimits) -> Client {
        Client(Rc::new(Handle::Loopback(Loopback::new(from, service, limits))))
    }

    /// Sends a request with the data beside it, which is not copied. `done` gets the answer, once, on a
    /// later turn of the executor and never inside this call.
    pub fn call(&self, request: Request, data: Bytes, done: impl FnOnce(Answer) + 'static) {
        self.call_boxed(request, data, Box::new(done));
    }

    fn call_boxed(&self, request: Request, data: Bytes, done: Done) {
        match &*self.0 {
            Handle::Tcp(peer) => match invalid(&request, &data) {
                Some(why) => peer.fail_later(done, LinkError::Invalid(why)),
                None => peer.call(request, data, done),
            },
            Handle::Loopback(local) => local.call(request, data, done),
        }
    }

    /// [`Client::call`], waiting for the answer. The request is sent when the future is first polled;
    /// dropping the future then does not undo it.
    pub async fn request(&self, request: Request, data: Bytes) -> Answer {
        let (sender, receiver) = oneshot();
        self.call(request, data, move |answer| sender.send(answer));
        receiver.receive().await
    }

    /// Whether the link is connected now. False before the first call.
    pub fn is_up(&self) -> bool {
        match &*self.0 {
            Handle::Tcp(peer) => peer.is_up(),
            Handle::Loopback(_) => true,
        }
    }

    /// Time from a request to its answer, smoothed; `None` while nothing has been answered over the present connection.
    pub fn latency(&self) -> Option<Duration> {
        match &*self.0 {
            Handle::Tcp(peer) => peer.latency(),
            Handle::Loopback(_) => None,
        }
    }

    /// Starts connecting without a call to wait for it.
    pub fn connect(&self) {
        if let Handle::Tcp(peer) = &*self.0 {
            peer.start();
        }
    }

    /// Changes the peer's address, from the next attempt to connect on. A working link stays.
    pub fn set_address(&self, address: impl Into<String>) {
        if let Handle::Tcp(peer) = &*self.0 {
            peer.set_address(address.into());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Handle::Tcp(peer) = self {
            peer.close();
        }
    }
}

fn invalid(request: &Request, data: &Bytes) -> Option<&'static str> {
    match request {
        Request::Hello(_) | Request::Enter { .. } => Some("the link says hello by itself"),
        _ if data.len() > MAX_DATA => Some("too much data for one request"),
        _ => None,
    }
}
