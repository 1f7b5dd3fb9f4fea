//! A model of levee's replication protocol, explored exhaustively within bounds.
//!
//! It has the rules of `docs/protocol.md`, not the code of `dataplane/core`: each rule can be switched off, and
//! the checker must then find an execution that breaks an invariant. A rule of which it does not is not needed, or the
//! model is too coarse to show why.

#![forbid(unsafe_code)]

mod allocation;
mod bounds;
mod catch_up;
mod change;
mod check;
mod commit;
mod explain;
mod explore;
mod gateway;
mod meta;
mod network;
mod order;
mod replica;
mod rules;
mod scenario;
mod steps;
mod takeover;
mod versions;
mod world;
mod writes;

pub use bounds::{Bounds, Budget};
pub use check::Invariant;
pub use explain::Told;
pub use explore::{Broken, Outcome, explore};
pub use rules::{Rule, Rules};
pub use scenario::{Kind, MUTANTS, Mutant, SCENARIOS, Scenario, scenario};
