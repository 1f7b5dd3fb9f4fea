//! The state machine: rules, refusals, and random sequences of commands.

mod callers;
mod capacity;
mod clones;
mod common;
mod groups;
mod hostile;
mod jobs;
mod keys;
mod maps;
mod mirrors;
mod operations;
mod placement;
mod plan;
mod properties;
mod readers;
mod rebalance;
mod recovery;
mod repair;
mod rules;
mod snapshots;
