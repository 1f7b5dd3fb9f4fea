//! What commands do to whole volumes: known to the cluster, so that one whose command has died is not taken for a finished one.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `POST /v1/volumes/{name}/job` | [`BeginJob`] | [`VolumeInfo`](super::VolumeInfo) |
//! | `DELETE /v1/volumes/{name}/job?id=` | | [`VolumeInfo`](super::VolumeInfo) |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest [`BeginJob::by`], bytes.
pub const MAX_JOB_BY: usize = 200;

/// How often a command says again that it goes on with its job, milliseconds. One that has not for three times as long, and uses the
/// volume no more, makes room for others.
pub const JOB_RENEWAL_MS: u64 = 3000;

/// A command begins something with a volume, or goes on with it. A job that was not finished gives way to another one, unless its
/// command still uses the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BeginJob {
    /// Made by the command: only it may attach the volume, and end the job.
    pub id: Uuid,
    pub kind: JobKind,
    /// Who does it, one line for a person: the process and its host.
    pub by: String,
}

/// What a command does to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeJob {
    pub id: Uuid,
    pub kind: JobKind,
    pub by: String,
    /// Milliseconds since 1970: when it was begun, and when its command said last that it goes on.
    pub since_ms: u64,
    pub renewed_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// The volume is being filled: it is no use to anybody before that has ended.
    Import,
    /// It is read. If the command dies it is detached again.
    Export,
    /// It was made to be read. If the command dies it is deleted.
    Copy,
}
