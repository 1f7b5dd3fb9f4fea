//! Levee's core: the log-structured store, and the replica's and the gateway's side of the
//! replication protocol. No runtime, clock, thread or socket: the world is reached through [`ports`]. Everything belongs to one
//! executor, but for what [`shared`] remembers for all of them.
#![forbid(unsafe_code)]

mod bitmap;
pub mod gateway;
pub mod load;
pub mod ports;
pub mod probe;
pub mod replica;
pub mod shared;
pub mod store;
pub mod sync;
pub mod testing;
