//! A vhost-user-blk device on a glommio executor.
//!
//! [`serve`] offers a [`BlockDevice`] to virtual machines at a Unix socket. All queues of a device are served by the
//! executor that called it, without a hand-over between threads on the path of a request; only the protocol's
//! messages are handled on a thread of their own.
//!
//! ```text
//!  front end ──socket──▶ server, handler, vring      one thread per device: set-up, start and stop
//!                               │ start / stop, wait
//!  guest memory ◀──────▶ queue, ring, chain, request   executor: take, check, copy, complete
//!  in-flight region ◀──▶ inflight                              │
//!                                                        BlockDevice
//! ```
//!
//! Guest and front end are not trusted: whatever they put into rings, descriptors, shared memory and messages, the
//! worst they get is their own requests failed, their own queue stopped or their own connection closed.
//!
//! A daemon that is killed and started again at the same socket resumes every request where it was, if the front end
//! keeps the in-flight region (QEMU does, with `reconnect-ms`).
//!
//! The executor needs a permanent task that wakes it every few milliseconds, as the daemon runs one: glommio can
//! otherwise sleep while tasks are ready. That task cannot help before it runs: an executor built with a preempt timer
//! of a few milliseconds may, on a busy machine, sleep before its first task. Build it with a long one, and give the
//! task queue that needs a short one a latency instead.

mod budget;
mod cancel;
mod chain;
mod config;
mod device;
mod handler;
mod inflight;
mod kick;
pub mod limits;
mod memory;
mod notice;
mod queue;
mod request;
mod ring;
mod server;
mod signal;
mod socket;
mod vring;

pub use device::{BlockDevice, IoError};
pub use server::{ServerConfig, ServerHandle, serve};
pub use socket::ServeError;
