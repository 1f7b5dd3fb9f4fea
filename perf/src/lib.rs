//! Load, verification and benchmarks for Levee volumes, as programs outside of the daemons.
//!
//! - [`torture`]: verified random load over a front end that outlives its daemon: every read is checked.
//! - [`faults`]: a cluster under torture while faults are done to it, chosen by a seed.
//! - [`fuzz`]: a cluster whose ports are sent random and mutated messages.
//! - [`failover`]: how long changes wait when the leader of the meta servers is taken away.
//! - [`load`]: an unverified, fast load generator over crate `virtio-driver`.
//! - [`api`]: how many changes a second the meta server takes.
//! - [`moves`]: what a new node, an emptied node and a removed disk take, and what guests notice of it.
//! - [`repair`]: how fast lost copies are made anew, and what that costs guests.
//! - [`snapshots`]: what snapshots and clones cost those who take them, and those who go on working.
//! - [`suite`]: Levee beside raw disks and qemu-storage-daemon, in one run.
//!
//! Nothing here links to the daemons: they are driven through their sockets and the `levee` command.

pub mod api;
pub mod cluster;
pub mod failover;
pub mod faults;
mod figures;
mod foreground;
pub mod fuzz;
mod http;
pub mod limits;
pub mod load;
pub mod moves;
pub mod process;
pub mod repair;
pub mod rng;
pub mod snapshots;
pub mod suite;
pub mod torture;
