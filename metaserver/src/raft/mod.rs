//! Consensus: types, storage and transport for openraft.
//!
//! A [`Batch`] of commands is one log entry; its response has one outcome per command. Members talk
//! JSON over HTTP under `/raft`, on the same port as the API.

mod batch;
mod database;
mod log;
mod machine;
mod network;
mod routes;

pub use batch::Batch;
pub use database::Database;
pub use log::LogStore;
pub use machine::{Machine, Replicated};
pub use network::Network;
pub use routes::router;

use crate::limits::*;
use levee_meta_state::Outcome;
use openraft::{Config, SnapshotPolicy};
use std::io::Cursor;

openraft::declare_raft_types!(
    /// What openraft is instantiated with.
    pub Types: D = Batch, R = Vec<Outcome>
);

pub type Raft = openraft::Raft<Types>;
pub type NodeError = openraft::StorageError<u64>;
pub type LogId = openraft::LogId<u64>;
pub type Entry = openraft::Entry<Types>;
pub type Meta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
pub type Membership = openraft::StoredMembership<u64, openraft::BasicNode>;

/// Header that names the member a Raft message is meant for: a wrong peer list must not mix up groups.
pub const TO_HEADER: &str = "levee-member";

pub fn config(snapshot_every: u64) -> anyhow::Result<Config> {
    let config = Config {
        cluster_name: "levee".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.start,
        election_timeout_max: ELECTION_MS.end,
        install_snapshot_timeout: SNAPSHOT_CHUNK_MS,
        max_payload_entries: MAX_ENTRIES_PER_MESSAGE,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        // A member that was away shortly catches up from the log rather than by a snapshot.
        max_in_snapshot_log_to_keep: snapshot_every / 4,
        replication_lag_threshold: snapshot_every,
        ..Config::default()
    };
    Ok(config.validate()?)
}
