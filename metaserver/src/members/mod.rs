//! Who is in the group, and changes of that.
//!
//! A new member is a learner first, which is given the log and counts for nothing, and becomes a voter once it has it. What was
//! begun is in the log, so every leader goes on with it: learners are promoted, and a change that its leader did not live to
//! finish is finished. One change at a time: majorities of two changes might not overlap.

mod change;
mod join;
mod lead;
mod quorum;
mod tend;

pub use change::{Changes, add, remove, replace, status};
pub use join::{announce, found, watch_removal};
pub use lead::hand_over;
pub use quorum::{leaderless, watch as watch_quorum};
pub use tend::run;
