//! What can go wrong with a link.

use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;

/// Why a link ended, for a person. Shared, since it answers every request that was outstanding.
pub(crate) type Reason = Arc<str>;

/// Why a request has no reply.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// The link is down. Whether the request was carried out is unknown.
    #[error("{0}")]
    Down(Arc<str>),
    /// The client's queue is full: the request was not sent.
    #[error("too many requests wait for this link: slow down and try again")]
    Overloaded,
    /// The request cannot be sent at all.
    #[error("the request was not sent: {0}")]
    Invalid(&'static str),
}

/// Why a server could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("{0} is in use by another process: stop that one or choose another port")]
    InUse(SocketAddr),
    #[error("{0:?} is not an address to listen on: write IP:PORT")]
    BadAddress(String),
    #[error("cannot listen on {address}: {source}")]
    Io { address: SocketAddr, source: std::io::Error },
}
