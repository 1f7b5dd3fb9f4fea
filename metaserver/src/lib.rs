//! The meta server: a Raft group that holds what the cluster should be, behind an HTTP API.
//!
//! - [`raft`]: consensus. The log, the vote and snapshots are in one redb file; the replicated state is
//!   `levee-meta-state`, kept in memory and rebuilt from snapshot and log at start.
//! - [`proposer`] packs requests that wait into one Raft entry; [`barrier`] shares one leadership check
//!   among the reads that wait.
//! - [`observe`]: what daemons report. In the leader's memory only: it is worthless after seconds.
//! - [`health`]: every state that an operator should know of, derived once from both.
//! - [`api`]: HTTP. Any member takes requests; those that are not the leader pass them on.
#![forbid(unsafe_code)]

mod api;
mod app;
pub mod args;
mod barrier;
mod capacity;
mod changes;
mod clock;
mod condition;
mod health;
mod history;
mod limits;
mod members;
mod meters;
mod observe;
mod proposer;
mod raft;
mod rates;
mod rebalance;
pub mod recover;
mod repair;
mod request;
pub mod server;
mod successor;
