//! A vhost-user-blk front end whose rings outlive the daemon behind them.
//!
//! It plays QEMU and the guest in one: guest memory is a memfd, the virtqueues lie in it, and when the
//! daemon goes away the requests in flight stay where they are. The next daemon on the same socket is
//! given the same memory, rings and in-flight region again, just as QEMU does with `reconnect-ms`, and
//! has to finish every one of them exactly once.
//!
//! Everything that the daemon says (messages, used entries, lengths) is checked; a daemon that breaks
//! the protocol is an error, never a panic.

mod device;
mod layout;
pub mod limits;
mod memory;
mod message;
mod notices;
mod request;
mod ring;
mod session;

pub use device::{Completion, FrontEnd, FrontEndOptions, Reconnect, Tag};
pub use memory::GuestMemory;
pub use request::{Operation, Shape};
pub use session::DeviceConfig;
