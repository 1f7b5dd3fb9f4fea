//! The simulator: a whole cluster in one thread, from one seed.
//!
//! The code that ships, [`levee_core`]'s stores, replicas and gateways and [`levee_meta_state`]'s state machine, runs over a
//! network, disks and clocks that fail in every way that they may. All time is simulated. Whatever happens follows from the
//! seed, so that a run that found something can be had again: `levee-sim --seed N`.
//!
//! - [`setup`]: what the seed decides beforehand. [`faults`]: what goes wrong meanwhile.
//! - [`world`]: nodes and disks; [`process`]: a daemon's life; [`net`]: links; [`meta`]: the meta servers; [`gateway`]: the
//!   cluster as a gateway sees it.
//! - [`guest`]: requests, and whether their answers are possible. [`check`]: what must hold in the end.
//! - [`run`]: one run. [`campaign`]: many.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod check;
pub mod damage;
pub mod faults;
pub mod gateway;
pub mod guest;
pub mod meta;
pub mod net;
pub mod process;
pub mod run;
pub mod setup;
pub mod world;
