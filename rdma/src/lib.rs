//! Links between storage daemons: requests out, answers back, block data beside both.
//!
//! A daemon has one executor per core; each listens on its own port with a [`Server`] and holds one
//! [`Client`] per core of every peer that it talks to. Nothing here is `Send`: a link lives and dies on
//! its executor, and no lock is taken on the I/O path. The executor is expected to run a permanent
//! short timer (a sleeping executor may otherwise miss runnable tasks).
//!
//! What a caller may rely on:
//!
//! - Requests of one client reach the service in the order of [`Client::call`], or not at all. Answers
//!   come in any order.
//! - Every call is answered exactly once, and never from inside `call`. [`LinkError::Down`] means that
//!   the outcome is *unknown*: the request may have been carried out, or may still be.
//! - Nothing of an older link of the same caller reaches a service once a newer one is served there: see
//!   [`levee_proto::callers`]. So whatever was sent over a link that broke comes before everything that is sent after it, or never.
//! - Memory is bounded on both ends. The server grants each link a number of requests and bytes in
//!   flight; what exceeds the grant waits in the client's bounded queue, and beyond that the call fails
//!   with [`LinkError::Overloaded`]. A peer that exceeds its grant is cut off.
//! - Whatever arrives is checked before it is used. A malformed frame costs its sender the link, and
//!   nobody else anything. The checksums of block data are left to the service, which verifies them
//!   where the data lands.
//! - A peer that falls silent while it owes an answer is noticed within seconds, by missing bytes and not
//!   by a clock comparison: a stalled executor does not blame its peers.
//! - No borrow is held while a callback or a service runs: both may call back into the same link.
//!
//! Layers, from the outside in: [`Client`] and [`Server`] know requests and answers; `credits` and
//! `pending` are plain bookkeeping; `link` moves frames in batches (everything queued in one turn of the
//! executor leaves in one gathered system call, everything that one read brought is parsed at once and
//! handed out without copying); `tcp` is the only file that touches a socket.
//!
//! RDMA is not built in yet. It belongs beside `tcp`, behind the same three operations that `link` uses
//! (send a batch, receive into the frame buffer, shut down), with message receives of the same frames
//! and registered memory under `recv`; the hello (which takes extensions), the tickets, grants, ordering and failure rules stay as they are.
//! A [`Client::loopback`] serves the local core without serialising anything.

mod callers;
mod client;
mod credits;
mod errors;
mod frame;
mod latency;
mod later;
mod limits;
mod link;
mod loopback;
mod oneshot;
mod peer;
mod pending;
mod recv;
mod responder;
mod server;
mod tcp;

pub use callers::Callers;
pub use client::{Client, ClientConfig};
pub use errors::{LinkError, ServeError};
pub use limits::{ClientLimits, ServerLimits};
pub use responder::{Responder, Service};
pub use server::{Identity, Server};

use bytes::Bytes;
use levee_proto::wire::Reply;

/// What became of a request: the peer's reply and the data beside it, or why there is none.
pub type Answer = Result<(Reply, Bytes), LinkError>;
