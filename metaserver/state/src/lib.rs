//! The replicated state machine of the meta servers: what the cluster *should* be.
//!
//! A [`Command`] goes in, an [`Outcome`] comes out, and the [`State`] has moved. Every member applies the
//! same commands in the same order and must end up with the same bytes, so nothing in here knows a
//! clock, randomness, threads or the iteration order of a hash map: whatever a decision needs from the
//! outside (which nodes are alive, a fresh uuid) is part of the command.
//!
//! What is observed (heartbeats, reports of gateways) is not replicated and lives with the leader.
//!
//! Invariants, all of them asserted by [`State::check`]:
//! - ids of nodes, disks, volumes, chunks, replicas and attachments are given out once, ever;
//! - a chunk has as many replicas as its volume has copies, or one more while one is moved, each on
//!   another disk; on another node, too, as it is allocated;
//! - a disk has one replica of a chunk at most, those that wait to be deleted included;
//! - an epoch only grows, and belongs to one incarnation of one attachment;
//! - a disk's count of placed replicas includes those that wait to be deleted: space is given out
//!   again only after the daemon confirmed that it is free;
//! - a volume's version is above those of all its snapshots; a snapshot is done once its version is sealed;
//! - a clone's parent is a snapshot that exists, of an older volume with the same geometry, which counts it; only what has
//!   clones outlives its deletion;
//! - an idempotency key is remembered once for each part of its request;
//! - a command works on volumes that exist;
//! - a snapshot that is attached for reading has one reader: a volume without chunks that is named as the snapshot, exists while
//!   it is attached, and keeps the snapshot from being deleted.
#![forbid(unsafe_code)]

mod attach;
mod batches;
mod caller;
mod capacity;
mod changes;
mod check;
mod clones;
mod command;
mod conditions;
mod copysets;
mod disks;
mod eras;
mod events;
mod groups;
mod history;
mod intent;
mod jobs;
mod keys;
mod level;
pub mod limits;
mod maintenance;
mod map;
mod members;
mod mirrors;
mod nodes;
mod placement;
mod plan;
mod readers;
mod rebalance;
mod recovery;
mod removal;
mod repair;
mod resize;
mod room;
mod snapshot_file;
mod snapshots;
mod state;
mod table;
mod tables;
mod versions;
mod view;
mod volumes;
mod what_if;

pub use command::{Answer, Command, Decider, Outcome, validate_locks};
pub use conditions::ConditionChange;
pub use events::Note;
pub use groups::{Group, Member, Stage};
pub use history::{History, Parent, Snapshot};
pub use keys::{Key, is_valid_key};
pub use level::{CALLERS, CONDITIONS, FIRST_LEVEL, LEVEL};
pub use plan::{Bounds, Weights};
pub use repair::RepairScan;
pub use snapshot_file::Frozen;
pub use state::State;
pub use tables::{Chunk, Decision, Disk, Node, Volume, VolumeAttachment};
pub use what_if::Surroundings;
