//! A vhost-user-blk device on a glommio executor.
//!
//! [`serve`] offers a [`BlockDevice`] to virtual machines at a Unix socket. All queues of a device are served by the
//! executor that called it, without a hand-over between threads on the path of a request; only the protocol's
//! messages are handled on a thread of their own.
//!
//! ```text
//!  front end ──socket──▶ server, handler, vring      one thread per device: set-up, start and stop
//!                               │ start / stop, wait
//!  guest memory ◀──────▶ queue, ring, chain, request   executor: take, check
//!  in-flight region ◀──▶ inflight       │
//!   (both through guard)           fair, carry         turns, pieces, copies
//!                                       │
//!                                  BlockDevice
//! ```
//!
//! Guest and front end are not trusted: whatever they put into rings, descriptors, shared memory and messages, the
//! worst they get is their own requests failed, their own queue stopped or their own connection closed. Memory that they
//! take away breaks their own connection (`guard`), descriptors that they send or change are closed or refused (`notice`,
//! `call`), what they can make the executor do and the daemon keep is bounded and shared out (`fair`), and so is what
//! they can make it log (`log`).
//!
//! A daemon that is killed and started again at the same socket resumes every request where it was, if the front end
//! keeps the in-flight region (QEMU does, with `reconnect-ms`).
//!
//! The executor needs a permanent task that wakes it every few milliseconds, as the daemon runs one: glommio can
//! otherwise sleep while tasks are ready. That task cannot help before it runs: an executor built with a preempt timer
//! of a few milliseconds may, on a busy machine, sleep before its first task. Build it with a long one, and give the
//! task queue that needs a short one a latency instead.

mod call;
mod cancel;
mod carry;
mod chain;
mod config;
mod device;
mod eventfd;
mod fair;
mod front_end;
mod guard;
mod handler;
mod inflight;
mod kick;
pub mod limits;
mod log;
mod memory;
mod message;
mod notice;
mod queue;
mod request;
mod ring;
mod server;
mod signal;
mod socket;
mod vring;

pub use device::{BlockDevice, IoError};
pub use front_end::{Connected, FrontEnd};
pub use server::{ServerConfig, ServerHandle, serve};
pub use socket::{Access, ServeError};
