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
//! - [`snapshots`]: of guests' volumes, what each may show, and clones of them.
//! - [`run`]: one run. [`campaign`]: many, and what they [reached](coverage). [`mutants`]: whether deliberate bugs are found.
//!
//! # Bounds
//!
//! Crashes, with and without loss of power, of one node or of all; stopped processes; cut, broken and slow links; lost meta
//! servers; moved volumes; disk errors: in any order and number. What a disk does to data at rest is bounded as
//! [`damage`] says. A node is lost for ever only once in a run, when all copies were whole, and where `min_copies` others are
//! left. Disks are not damaged in runs in which others are given up.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod check;
pub mod coverage;
pub mod damage;
pub mod faults;
pub mod gateway;
pub mod guest;
pub mod inventory;
pub mod meta;
pub mod moves;
pub mod mutants;
pub mod net;
pub mod process;
pub mod recreate;
pub mod restore;
pub mod run;
pub mod setup;
pub mod snapshots;
pub mod world;
