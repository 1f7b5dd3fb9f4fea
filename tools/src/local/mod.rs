//! A whole cluster on one machine, in one folder: `levee up` and `levee down`.
//!
//! The folder holds `cluster.json` (what the cluster consists of), one folder per daemon, `log/`,
//! `pid/` and `run/` (the volumes' sockets). One command at a time changes it, under a lock.

mod disks;
pub mod down;
mod keeper;
pub mod layout;
mod lock;
mod place;
mod plan;
mod process;
#[allow(unsafe_code)]
mod spawn;
mod start;
pub mod up;

pub use place::Network;
