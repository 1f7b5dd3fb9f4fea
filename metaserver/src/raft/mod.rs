//! Consensus: types, storage and transport for openraft.
//!
//! A [`Batch`] of commands is one log entry; its response has one outcome per command. Members talk
//! JSON over HTTP under `/raft`, on the same port as the API; each message says between whom, and from
//! which folders, so that neither a wrong address nor a folder that was lost mixes promises up. What makes
//! no sense does not reach openraft (`sense`, `gate`, `receive`).

mod batch;
mod database;
mod directory;
mod election;
mod gate;
mod log;
mod machine;
mod network;
mod positions;
mod receive;
mod refuse;
mod routes;
mod sense;
mod snapshots;

pub use batch::Batch;
pub use database::Database;
pub use directory::{Directory, Identity};
pub use election::{Contact, run as elect};
pub use gate::Gate;
pub use log::LogStore;
pub use machine::{Machine, Replay, Replicated};
pub use network::Network;
pub use receive::Receiver;
pub use refuse::Refusals;
pub use routes::{Local, router};
pub use snapshots::{SnapshotFile, Snapshots};

use crate::limits::*;
use levee_meta_state::Outcome;
use openraft::{Config, EntryPayload, SnapshotPolicy};

openraft::declare_raft_types!(
    /// What openraft is instantiated with.
    pub Types: D = Batch, R = Vec<Outcome>, SnapshotData = SnapshotFile
);

pub type Raft = openraft::Raft<Types>;
pub type NodeError = openraft::StorageError<u64>;
pub type LogId = openraft::LogId<u64>;
pub type Entry = openraft::Entry<Types>;
pub type Meta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
pub type Membership = openraft::StoredMembership<u64, openraft::BasicNode>;

/// Header that names the member a Raft message is meant for: a wrong peer list must not mix up groups.
pub const TO_HEADER: &str = "levee-member";
/// Headers that name the member a message is from, its folder, and the newest level that it knows; answers carry the latter two.
pub const FROM_HEADER: &str = "levee-from";
pub const FOLDER_HEADER: &str = "levee-folder";
pub const LEVEL_HEADER: &str = "levee-level";
/// Header that names the folder which the receiver is known to have.
pub const EXPECTED_HEADER: &str = "levee-expected-folder";

/// The level that one must know to apply the entry.
pub fn entry_level(entry: &Entry) -> u32 {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.level,
        _ => 0,
    }
}

/// Why a member cannot go on with what later ones have written.
pub fn too_old(needed: u32, known: u32) -> String {
    format!(
        "the group is at level {needed}, this levee-metad knows {known}: it is older than the others, install their version"
    )
}

pub fn config(snapshot_every: u64) -> anyhow::Result<Config> {
    let config = Config {
        cluster_name: "levee".into(),
        heartbeat_interval: HEARTBEAT_MS,
        // The larger one is the time for which a member that heard the leader votes for nobody else.
        election_timeout_min: VOTE_MS,
        election_timeout_max: LEASE_MS,
        // See `election`.
        enable_elect: false,
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
