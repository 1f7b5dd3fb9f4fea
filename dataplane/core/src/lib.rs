//! Levee's core: the log-structured store, and the replica's and the gateway's side of the
//! replication protocol. No runtime, clock, thread or socket: the world is reached through [`ports`].
#![forbid(unsafe_code)]

pub mod ports;
pub mod testing;
