//! Load, verification and benchmarks for Levee volumes, as programs outside of the daemons.
//!
//! - [`frontend`]: a vhost-user-blk front end that outlives its daemon, as a virtual machine does.
//! - [`torture`]: verified random load over that front end: every read is checked.
//! - [`faults`]: a cluster under torture while faults are done to it, chosen by a seed.
//! - [`load`]: an unverified, fast load generator over crate `virtio-driver`.
//! - [`repair`]: how fast lost copies are made anew, and what that costs guests.
//! - [`suite`]: Levee beside raw disks and qemu-storage-daemon, in one run.
//!
//! Nothing here links to the daemons: they are driven through their sockets and the `levee` command.

pub mod cluster;
pub mod faults;
pub mod frontend;
pub mod limits;
pub mod load;
pub mod process;
pub mod repair;
pub mod rng;
pub mod suite;
pub mod torture;
