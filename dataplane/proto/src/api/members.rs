//! The meta servers as a group: who is in it, and changes of that.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/members` | | [`Members`] |
//! | `POST /v1/members` | [`AddMember`] | [`Members`] (202: it is being given the log) |
//! | `DELETE /v1/members/{id}?force=` | | [`Members`] |
//! | `POST /v1/members/{id}/replace?force=` | [`ReplaceMember`] | [`Members`] (202) |
//! | `POST /v1/members/{id}/lead` | | [`Members`] |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    pub leader: u64,
    /// Which commands may be given: all members know them.
    pub level: u32,
    /// Raft log index of the newest entry.
    pub last: u64,
    /// A change is under way.
    pub changing: bool,
    pub members: Vec<MemberStatus>,
}

/// One meta server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    pub id: u64,
    /// `http://host:port`
    pub url: String,
    pub role: MemberRole,
    /// Whether it answered the leader lately.
    pub alive: bool,
    /// The newest level that its program knows, if it was heard.
    pub level: Option<u32>,
    /// Raft log index up to which it has all entries, if that is known.
    pub matched: Option<u64>,
    /// What is wrong with it and what to do, if something is.
    pub trouble: Option<String>,
}

/// What a meta server counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemberRole {
    /// Counts for majorities.
    Voter,
    /// Is being given the log, and becomes a voter once it has it.
    Learner,
}

/// Adds a meta server that runs with an empty folder and `--join`; or says where one that is in the group has moved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddMember {
    /// Its `--id`; absent: as it says itself.
    #[serde(default)]
    pub id: Option<u64>,
    /// Where it listens: `http://host:port`.
    pub url: String,
}

/// Has a member begin anew with an empty folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplaceMember {
    /// Where it listens now; absent: where it did.
    #[serde(default)]
    pub url: Option<String>,
}

/// What a meta server says of itself to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub id: u64,
    /// Of its folder.
    pub folder: Uuid,
    /// The newest level that it knows.
    pub level: u32,
    pub cluster: Option<Uuid>,
    /// Whether it has no log: it was never in a group.
    pub fresh: bool,
    /// Who leads, if it knows.
    pub leader: Option<u64>,
    /// Ids of the members by the newest committed word.
    pub members: Vec<u64>,
    /// Raft log index of that word.
    pub members_at: u64,
}
