//! The meta server's HTTP/JSON API under `/v1`, as types shared by servers and clients.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/cluster` | | [`ClusterInfo`] |
//! | `GET /v1/health` | | [`Health`] |
//! | `/v1/members`... | | see [`Members`] |
//! | `POST /v1/nodes` | [`RegisterNode`] | [`Registered`] |
//! | `GET /v1/nodes?after=&limit=` | | [`Page`]`<`[`NodeInfo`]`>` |
//! | `GET /v1/disks?after=&limit=` | | [`Page`]`<`[`DiskInfo`]`>` |
//! | `POST /v1/nodes/{id}/heartbeat` | [`Heartbeat`] | [`HeartbeatAck`] |
//! | `GET /v1/nodes/{id}/intent?after=REV&wait_ms=N` | | [`Intent`] |
//! | `POST /v1/nodes/{id}/inventory` | [`Inventory`] | 204 |
//! | `GET /v1/recovery` | | [`RecoveryInfo`] |
//! | `POST /v1/volumes/{name}/accept-loss` | | [`VolumeInfo`] |
//! | `POST /v1/volumes` | [`CreateVolume`] | [`VolumeInfo`] (201) |
//! | `POST /v1/volumes/batch` | [`CreateVolumes`] | [`CreatedVolumes`] |
//! | `GET /v1/volumes?after=&limit=` | | [`Page`]`<`[`VolumeInfo`]`>` |
//! | `GET /v1/volumes/{name}` | | [`VolumeInfo`] |
//! | `DELETE /v1/volumes/{name}` | | 204 |
//! | `POST /v1/volumes/{name}/attach` | [`AttachVolume`] | [`VolumeInfo`] |
//! | `POST /v1/volumes/{name}/detach` | | [`VolumeInfo`] |
//! | `POST /v1/volumes/{name}/job` | [`BeginJob`] | [`VolumeInfo`] |
//! | `DELETE /v1/volumes/{name}/job?id=` | | [`VolumeInfo`] |
//! | `POST /v1/volumes/{name}/open` | [`OpenVolume`] | [`OpenedVolume`] |
//! | `POST /v1/volumes/{name}/allocate` | [`AllocateChunks`] | [`AllocatedChunks`] |
//! | `POST /v1/volumes/{name}/replicas` | [`ChangeReplicas`] | [`ChangedReplicas`] |
//! | `POST /v1/volumes/{name}/rollback` | [`Rollback`] | [`VolumeInfo`] |
//! | `POST /v1/volumes/{name}/resize` | [`ResizeVolume`] | [`VolumeInfo`] |
//! | `POST /v1/volumes/{name}/flatten` | | [`VolumeInfo`] |
//! | `POST /v1/volumes/{name}/recover-epochs` | | [`VolumeInfo`] |
//! | `GET /v1/volumes/{name}/versions` | | [`VolumeVersions`] |
//! | `GET /v1/volumes/{name}/parent` | | [`VolumeParent`] |
//! | `GET /v1/maps/{volume}?after=&epoch=` | | [`ChunkPage`] |
//! | `POST /v1/volumes/{name}/moved` | [`Moved`] | [`VolumeVersions`] |
//! | `POST /v1/volumes/{name}/sealed` | [`Sealed`] | [`VolumeVersions`] |
//! | `POST /v1/volumes/{name}/pruned` | [`Pruned`] | [`VolumeVersions`] |
//! | `POST /v1/volumes/{name}/flattened` | [`Flattened`] | [`VolumeVersions`] |
//! | `POST /v1/clones` | [`CreateClones`] | [`CreatedClones`] (201) |
//! | `POST /v1/deletions` | [`DeleteVolumes`] | [`DeletedVolumes`] |
//! | `POST /v1/snapshots?wait_ms=N` | [`CreateSnapshots`] | [`CreatedSnapshots`] (201; 202 while some are pending) |
//! | `GET /v1/snapshots?volume=&after=&limit=` | | [`Page`]`<`[`SnapshotInfo`]`>` |
//! | `GET /v1/volumes/{name}/snapshots/{snapshot}` | | [`SnapshotInfo`] |
//! | `DELETE /v1/volumes/{name}/snapshots/{snapshot}` | | [`SnapshotInfo`] as it was, or as it stays |
//! | `POST /v1/disks/{id}/state` | [`SetDiskState`] | [`DiskInfo`] |
//! | `POST /v1/disks/{id}/weight` | [`SetDiskWeight`] | [`DiskInfo`] |
//! | `DELETE /v1/disks/{id}?force=` | | [`DiskInfo`] as it was, or as it stays until it is empty |
//! | `POST /v1/nodes/{id}/state` | [`SetNodeState`] | [`NodeInfo`] |
//! | `DELETE /v1/nodes/{id}?force=` | | [`NodeInfo`] as it was, or as it stays until it is empty |
//! | `GET /v1/repair` | | [`RepairInfo`] |
//! | `GET /v1/placement` | | [`PlacementPolicy`] |
//! | `POST /v1/placement` | [`ChangePlacement`] | [`PlacementPolicy`] |
//! | `POST /v1/what-if` | [`WhatIf`] | [`Forecast`] |
//! | `POST /v1/rebalance/plan` | [`RebalanceRequest`] | [`RebalancePlan`]; nothing is changed |
//! | `POST /v1/rebalance` | [`RebalanceRequest`] | [`RebalanceStatus`] |
//! | `GET /v1/rebalance` | | [`RebalanceStatus`] |
//! | `DELETE /v1/rebalance` | | [`RebalanceStatus`] |
//! | `GET /v1/maintenance` | | [`MaintenanceInfo`] |
//! | `POST /v1/maintenance` | [`StartMaintenance`] | [`MaintenanceInfo`] |
//! | `DELETE /v1/maintenance?node=` | | [`MaintenanceInfo`] |
//! | `GET /v1/events?after=&wait_ms=&limit=` | | [`EventPage`] |
//! | `GET /v1/load?limit=&by=` | | [`ClusterLoad`] |
//! | `GET /v1/history?limit=` | | [`LoadHistory`] |
//! | `GET /v1/watch?after=REV&wait_ms=N&kinds=` | | [`Changes`] |
//!
//! `attach`, `detach` and `GET` take `VOLUME@NAME` as well: a snapshot is attached for reading.
//!
//! What gateways ask (`open`, `allocate`, `replicas`, `versions`, `parent`, `moved`, `sealed`, `pruned`, `flattened`) names the
//! volume's id and the attachment in its query: see [`AttachmentId`]. The name in the path is for people who read logs.
//!
//! A storage daemon's admin endpoint speaks the same way:
//!
//! | method and path | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`DaemonStatus`] |
//! | `POST /v1/volumes/{name}/verify` | `application/x-ndjson`: [`VerifyEvent`]s, the last one `done` or `failed` |
//! | `POST /v1/volumes/{name}/scrub` | `application/x-ndjson`: [`ScrubEvent`]s, the last one `done` or `failed` |
//! | `POST /v1/volumes/{name}/diff` [`DiffVolume`] | `application/x-ndjson`: [`DiffEvent`]s, the last one `done` or `failed` |
//! | `POST /v1/volumes/{name}/usage` | `application/x-ndjson`: [`UsageEvent`]s, the last one `done` or `failed` |
//! | `GET /v1/replicas?after=` | [`Page`]`<`[`ReplicaSize`]`>` |
//! | `POST /v1/disks` [`AddDisk`] | [`AddedDisk`] |
//! | `POST /v1/disks/{id}/remove` | [`RemovedDisk`] |
//! | `GET /metrics` | Prometheus text |
//!
//! Errors are RFC 9457 problem details: [`Problem`].

mod attachment;
mod batches;
mod busy;
mod capacity;
mod events;
mod health;
mod intent;
mod jobs;
mod load;
mod maintenance;
mod maps;
mod members;
mod placement;
mod rebalance;
mod recovery;
mod registration;
mod topology;
mod usage;
mod versions;
mod watch;

pub use attachment::*;
pub use batches::*;
pub use busy::*;
pub use capacity::*;
pub use events::*;
pub use health::*;
pub use intent::*;
pub use jobs::*;
pub use load::*;
pub use maintenance::*;
pub use maps::*;
pub use members::*;
pub use placement::*;
pub use rebalance::*;
pub use recovery::*;
pub use registration::*;
pub use topology::*;
pub use usage::*;
pub use versions::*;
pub use watch::*;

use crate::ids::*;
use crate::units::Geometry;
use crate::view::View;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most items in one page of a list.
pub const MAX_PAGE: usize = 1000;
/// Longest name of a volume or node, bytes.
pub const MAX_NAME: usize = 128;
/// Header that names a request in the logs of every process that touched it: 1 to [`MAX_REQUEST_ID`] of letters, digits, `_`
/// and `-`. Made by the server if the client does not; always answered.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Longest request id.
pub const MAX_REQUEST_ID: usize = 64;
/// Header with a key of the client's: a request that comes again with the same one is answered as it was the first time.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Longest wait of one long poll, milliseconds.
pub const MAX_WAIT_MS: u64 = 30_000;

/// Whether `name` may name a volume or a node: letters, digits, `.`, `_` and `-`, at most
/// [`MAX_NAME`] of them, the first a letter or digit.
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// What somebody calls something, whether it can be called so or not, for a message: no longer than a name can be.
pub fn shown_name(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

/// Whether `text` may be a request id.
pub fn is_valid_request_id(text: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// What kind of thing went wrong. Stable: programs may act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request is malformed or breaks a limit (400).
    Invalid,
    /// No such thing (404).
    NotFound,
    /// The name is taken (409).
    Exists,
    /// The thing is in the wrong state for this: attached, detached, in use (409).
    Conflict,
    /// A newer epoch or incarnation exists: the caller must stop (409).
    Fenced,
    /// Not enough nodes, disks or space (507).
    NoSpace,
    /// No leader, or this member is not it and cannot say who is; try again (503).
    Unavailable,
    /// The caller, or all callers together, ask more often than is allowed; try again later (429).
    TooMany,
    /// A bug (500).
    Internal,
}

impl ProblemKind {
    /// The HTTP status that goes with the kind.
    pub fn http_status(self) -> u16 {
        match self {
            ProblemKind::Invalid => 400,
            ProblemKind::NotFound => 404,
            ProblemKind::Exists | ProblemKind::Conflict | ProblemKind::Fenced => 409,
            ProblemKind::NoSpace => 507,
            ProblemKind::Unavailable => 503,
            ProblemKind::TooMany => 429,
            ProblemKind::Internal => 500,
        }
    }
}

/// Problem details, RFC 9457 (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `kind` says more.
    #[serde(rename = "type")]
    pub type_uri: String,
    pub title: String,
    pub status: u16,
    /// What happened, to what, and what to do: one line for a person.
    pub detail: String,
    pub kind: ProblemKind,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        let title = match kind {
            ProblemKind::Invalid => "Invalid request",
            ProblemKind::NotFound => "Not found",
            ProblemKind::Exists => "Already exists",
            ProblemKind::Conflict => "Wrong state",
            ProblemKind::Fenced => "Fenced",
            ProblemKind::NoSpace => "Not enough space",
            ProblemKind::Unavailable => "Unavailable",
            ProblemKind::TooMany => "Too many requests",
            ProblemKind::Internal => "Internal error",
        };
        Problem {
            type_uri: "about:blank".into(),
            title: title.into(),
            status: kind.http_status(),
            detail: detail.into(),
            kind,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

/// One page of a list. `next` is the `after` of the page that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The meta servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterInfo {
    pub cluster: Uuid,
    /// Raft id of the member that answers.
    pub member: u64,
    /// Raft id of the leader, if one is known.
    pub leader: Option<u64>,
    pub members: Vec<MemberInfo>,
    /// Raft log index that this member has applied.
    pub applied: u64,
    /// Milliseconds for which this member has heard nothing of a leader that most members follow; absent: it hears one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaderless_ms: Option<u64>,
}

/// One meta server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberInfo {
    pub id: u64,
    /// `http://host:port`
    pub url: String,
    /// Milliseconds since the member that answers heard of this one; absent: it did not since it started, or is it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
}

/// Whether a daemon is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Heartbeats arrive.
    Up,
    /// None arrived for a while.
    Down,
    /// This meta server started, or became leader, too recently to say.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeInfo {
    pub id: NodeId,
    pub name: String,
    pub state: NodeState,
    pub admin_url: String,
    pub cores: Vec<String>,
    pub disks: Vec<DiskId>,
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default)]
    pub rack: Option<String>,
    /// The nodes of a group share chunks, and with no others; absent: no scatter width is set.
    #[serde(default)]
    pub group: Option<u32>,
    /// It is being emptied, and takes nothing new.
    #[serde(default)]
    pub draining: bool,
    /// It leaves the cluster as soon as it holds nothing any more.
    #[serde(default)]
    pub removed: bool,
    #[serde(default)]
    pub condition: NodeCondition,
    /// What is the matter with it, if something is: one line for a person.
    #[serde(default)]
    pub detail: Option<String>,
    /// Its state in a few words, with all that is known: what every output shows.
    #[serde(default)]
    pub status: String,
}

/// What is known about a node beside whether it is heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCondition {
    #[default]
    Fine,
    /// It answers, but late: other nodes wait for it, or its disks do not answer.
    Slow,
    /// The meta servers and other nodes do not agree on whether it is there: a link is cut, not the node.
    Partitioned,
    /// It went away and came back several times: nothing new is put there until it has stayed for a while.
    Flapping,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskInfo {
    pub id: DiskId,
    pub uuid: Uuid,
    pub node: NodeId,
    pub path: String,
    /// Bytes usable for data.
    pub capacity: u64,
    /// Bytes in use as last reported; absent when nothing was heard yet.
    pub used: Option<u64>,
    pub shards: u16,
    /// Replicas on the disk, without those that wait to be deleted.
    pub replicas: u64,
    #[serde(default)]
    pub state: DiskState,
    /// Why it is dead or being drained: one line for a person.
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub class: DiskClass,
    /// As [`SetDiskWeight`].
    #[serde(default = "full_weight")]
    pub weight: u32,
    /// It leaves the cluster as soon as it holds nothing any more.
    #[serde(default)]
    pub removed: bool,
    #[serde(default)]
    pub load: DiskLoad,
    /// As [`NodeInfo::status`].
    #[serde(default)]
    pub status: String,
}

fn full_weight() -> u32 {
    FULL_WEIGHT
}

/// What becomes of the replicas on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// They stay, and new ones are placed.
    #[default]
    InService,
    /// They are copied elsewhere and then removed; no new ones are placed.
    Draining,
    /// They count as lost, and are replaced.
    Dead,
}

/// An operator decides about a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetDiskState {
    pub state: DiskState,
    /// One line for a person.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How the cluster keeps its copies whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepairInfo {
    /// Seconds without word of a node after which its disks count as lost.
    pub after_s: u64,
    /// Bytes per second that background copying may take in the whole cluster; absent: no limit.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Why disks that should count as lost do not, if so: one line for a person.
    #[serde(default)]
    pub held: Option<String>,
}

/// A daemon reports what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// The one that the process registered with; an older one is refused as fenced.
    pub incarnation: Uuid,
    pub disks: Vec<DiskUsage>,
    pub volumes: Vec<VolumeReport>,
    /// It speaks of the volumes with these ids, and says nothing of others; absent: it speaks of all. A daemon that serves
    /// thousands needs several heartbeats to name them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<VolumeSpan>,
    /// Replicas that are gone from disk, as asked for in [`Intent::deletes`]; at most 1000.
    #[serde(default)]
    pub deleted: Vec<ReplicaRef>,
    /// The other nodes, as this one sees them.
    #[serde(default)]
    pub links: Vec<LinkReport>,
    /// As in [`RegisterNode::locks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// The last one: the daemon was asked to stop, and does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskUsage {
    pub disk: DiskId,
    /// Bytes in use.
    pub used: u64,
    /// Why the disk cannot be used any more; absent while it works.
    #[serde(default)]
    pub failed: Option<String>,
    #[serde(default)]
    pub load: DiskLoad,
}

/// How a volume does at its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeReport {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub state: ServeState,
    /// Path of the vhost-user socket on the gateway's host; set once the volume is served.
    #[serde(default)]
    pub socket: Option<String>,
    /// What it waits for, or why it failed: one line for a person.
    #[serde(default)]
    pub detail: Option<String>,
    /// Chunks that have all their copies up to date, and chunks that do not.
    pub healthy_chunks: u32,
    pub degraded_chunks: u32,
    /// Of the degraded ones: those that lack a quorum, so that writes there wait, and reads unless one copy is known to be up to date.
    #[serde(default)]
    pub waiting_chunks: u32,
    /// Replicas that are to be put elsewhere: on disks that are dead or being drained, or named in [`Intent::moves`].
    #[serde(default)]
    pub leaving_replicas: u32,
    /// Writes wait because disks are full.
    #[serde(default)]
    pub full: bool,
    /// Bytes that were copied to make members whole since the volume was opened.
    #[serde(default)]
    pub copied_bytes: u64,
    /// Blocks, of all copies, that were read to find out whether they can be, since the volume was opened; and how often that
    /// was done to all of it.
    #[serde(default)]
    pub scrubbed_blocks: u64,
    #[serde(default)]
    pub scrub_passes: u64,
    /// Moves while snapshots are completed, entries dropped, or ancestors' blocks copied; 0 while there is nothing to do.
    #[serde(default)]
    pub versions_progress: u64,
    /// Chunks that do not have all their copies, at most [`MAX_CHUNK_REPORTS`].
    #[serde(default)]
    pub degraded: Vec<ChunkReport>,
    /// What no copy can give any more, as far as anybody has tried to read it, at most [`MAX_LOST_RANGES`] ranges: the guest
    /// gets an I/O error there until it is written.
    #[serde(default)]
    pub lost: Vec<ByteRange>,
    #[serde(default)]
    pub load: VolumeLoad,
    #[serde(default)]
    pub front_end: FrontEndReport,
    /// What its guest waits for; absent: nothing waits for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallReport>,
}

/// A request counts as stalled from this age on, milliseconds.
pub const STALLED_MS: u64 = 1000;

/// Requests of a guest that are older than [`STALLED_MS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StallReport {
    pub requests: u32,
    /// Milliseconds.
    pub oldest_ms: u64,
    /// What they wait for: one line for a person.
    pub why: String,
}

/// Who uses the socket of a served volume: QEMU, or another vhost-user front end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrontEndReport {
    /// One is connected. It keeps the volume until it goes; the volume is not detached meanwhile, unless that is forced.
    pub connected: bool,
    /// Its process on the gateway's host, as far as that is known.
    #[serde(default)]
    pub process: Option<i32>,
    /// For how long.
    #[serde(default)]
    pub seconds: u64,
    /// A guest's driver has started it.
    #[serde(default)]
    pub started: bool,
    /// Connections that were turned away since the volume was opened, and why the last one was.
    #[serde(default)]
    pub refused: u64,
    #[serde(default)]
    pub last_refusal: Option<String>,
}

/// Most ranges of lost data named in one [`VolumeReport`].
pub const MAX_LOST_RANGES: usize = 32;
/// Most chunks named in one [`VolumeReport`].
pub const MAX_CHUNK_REPORTS: usize = 64;

/// A chunk that does not have all its copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkReport {
    pub index: u32,
    /// Copies that are up to date, and how many there should be.
    pub current: u8,
    pub wanted: u8,
    /// Whether it is served.
    pub served: bool,
    /// The copies that are not up to date.
    pub behind: Vec<MemberReport>,
}

/// A copy that is not up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberReport {
    pub node: NodeId,
    pub disk: DiskId,
    /// What is being done about it: one line for a person.
    pub doing: String,
    /// Blocks that it is known to miss.
    pub missing_blocks: u32,
}

/// Stages of serving a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServeState {
    /// The gateway fences and reconciles the replicas, or waits for enough of them.
    Opening,
    /// The socket is ready.
    Serving,
    /// Writing out the last requests; the socket is closed.
    Closing,
    /// It cannot be served; `detail` says why.
    Failed,
}

/// A replica on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct ReplicaRef {
    pub disk: DiskId,
    pub chunk: ChunkId,
    pub replica: ReplicaId,
}

/// Volumes from one id to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeSpan {
    pub first: VolumeId,
    pub last: VolumeId,
}

impl VolumeSpan {
    /// Whether the volume is one of them.
    pub fn contains(&self, volume: VolumeId) -> bool {
        (self.first..=self.last).contains(&volume)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatAck {
    /// Revision of the node's intent: fetch it when it has moved on.
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateVolume {
    pub name: String,
    /// Bytes: a multiple of 4096, at least 4096.
    pub size: u64,
    /// Copies of every block (R), 1 to 5.
    #[serde(default = "default_copies")]
    pub copies: u8,
    /// Copies that must be durable before a write is answered (m), 1 to `copies`.
    #[serde(default = "default_min_copies")]
    pub min_copies: u8,
    /// On which disks; absent: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<DiskClass>,
}

fn default_copies() -> u8 {
    3
}
fn default_min_copies() -> u8 {
    2
}

/// Where a volume is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    pub node: NodeId,
    pub node_name: String,
    pub attachment: u64,
    /// The cluster's own, to make the volume's copies whole; it gives way to a user's.
    #[serde(default)]
    pub repair: bool,
    /// As last reported by the gateway; absent until it did.
    pub report: Option<VolumeReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeInfo {
    pub id: VolumeId,
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub copies: u8,
    pub min_copies: u8,
    /// The newest attachment's epoch; 0 if it was never opened.
    pub epoch: Epoch,
    pub version: Version,
    pub geometry: Geometry,
    /// Chunks that have been allocated.
    pub chunks: u32,
    pub attachment: Option<Attachment>,
    /// What it was cloned from, unless it was flattened since.
    #[serde(default)]
    pub parent: Option<ParentName>,
    /// How many snapshots it has.
    #[serde(default)]
    pub snapshots: u32,
    /// It is being made independent of its parent.
    #[serde(default)]
    pub flattening: bool,
    /// It is a snapshot, attached for reading under the name `VOLUME@NAME`; while it is not attached, its `id` is 0.
    #[serde(default)]
    pub read_only: bool,
    /// On which disks it is; absent: on all.
    #[serde(default)]
    pub class: Option<DiskClass>,
    /// What a command does to it, or began and never finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<VolumeJob>>,
    /// As [`NodeInfo::status`].
    #[serde(default)]
    pub status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachVolume {
    /// Name of the node; the meta server picks one if absent.
    #[serde(default)]
    pub node: Option<String>,
    /// For the job with this id: a volume that is being filled is attached for nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenedVolume {
    pub id: VolumeId,
    pub name: String,
    pub epoch: Epoch,
    /// As in [`VolumeEra`].
    #[serde(default)]
    pub era: Era,
    pub version: Version,
    pub size: u64,
    pub copies: u8,
    pub min_copies: u8,
    pub geometry: Geometry,
    /// The first allocated chunks as of the commit of `epoch`, in index order.
    pub chunks: Vec<ChunkInfo>,
    /// There are others: `GET /v1/maps/{volume}` has those behind the last one.
    #[serde(default)]
    pub more: bool,
    /// Of the head.
    #[serde(default)]
    pub view: View,
    /// Of the snapshots that are to be kept, oldest first.
    #[serde(default)]
    pub snapshots: Vec<View>,
    /// The highest version whose snapshot is complete; 0: none.
    #[serde(default)]
    pub sealed: Version,
    /// What it was cloned from.
    #[serde(default)]
    pub parent: Option<ParentInfo>,
    /// As of the commit of `epoch`; says the same of versions, views and size.
    #[serde(default)]
    pub versions: VolumeVersions,
    /// A snapshot that is attached for reading: all of it is the parent's, and chunks are refused.
    #[serde(default)]
    pub read_only: bool,
}

/// One chunk's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkInfo {
    /// Position in the volume.
    pub index: u32,
    pub chunk: ChunkId,
    pub config: ConfigNo,
    pub replicas: Vec<ReplicaPlace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaPlace {
    pub replica: ReplicaId,
    pub node: NodeId,
    pub disk: DiskId,
}

/// Asks for chunks. Those that exist already are answered as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocateChunks {
    /// Refused unless it is the volume's current epoch.
    pub epoch: Epoch,
    /// At most 256 at a time.
    pub indexes: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocatedChunks {
    /// In the order asked for.
    pub chunks: Vec<ChunkInfo>,
}

/// A gateway asks for other replica sets. Each change is made or refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeReplicas {
    /// Refused unless it is the volume's current epoch.
    pub epoch: Epoch,
    /// At most 256 at a time, each of another chunk. None: it is only asked whether the epoch is the current one.
    pub changes: Vec<ReplicaChange>,
}

/// One chunk's change. It has an effect only if `config` is the chunk's present number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaChange {
    /// Position of the chunk in the volume.
    pub index: u32,
    pub config: ConfigNo,
    /// Members that are to leave; those that stay hold every acknowledged write. All of them, with none added: the
    /// chunk holds no data and is given back.
    pub remove: Vec<ReplicaId>,
    /// How many new members the meta server is to place. The result has `copies` or one more.
    pub add: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedReplicas {
    /// What the chunks are now, in the order asked for, without those that are no more. A chunk whose config number has
    /// not moved was not changed.
    pub chunks: Vec<ChunkInfo>,
    /// Why some were not, if so: one line for a person.
    #[serde(default)]
    pub refused: Option<String>,
}

/// A storage daemon about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonStatus {
    pub name: String,
    /// Absent until the daemon has registered.
    pub node: Option<NodeId>,
    pub incarnation: Uuid,
    pub pid: u32,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    pub volumes: Vec<VolumeReport>,
    pub disks: Vec<DiskUsage>,
}

/// Progress and outcome of comparing all replicas of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum VerifyEvent {
    /// Waiting for replicas that are still being brought up to date.
    Waiting {
        degraded_chunks: u32,
    },
    Progress {
        done: u32,
        total: u32,
    },
    Done(VerifyReport),
    Failed {
        detail: String,
    },
}

/// Most mismatches that one verification names.
pub const MAX_MISMATCHES: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyReport {
    pub volume: String,
    pub copies: u8,
    pub chunks: u32,
    /// Blocks compared, each in all copies.
    pub blocks: u64,
    /// Empty when all copies are equal; the first of them, at most [`MAX_MISMATCHES`].
    pub mismatches: Vec<VerifyMismatch>,
    /// How many there are beside those.
    #[serde(default)]
    pub more_mismatches: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyMismatch {
    pub chunk_index: u32,
    pub node: NodeId,
    pub disk: DiskId,
    /// What is wrong with this copy: one line for a person.
    pub problem: String,
}

/// Progress and outcome of reading all copies of a volume back while it is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum ScrubEvent {
    Progress { done: u32, total: u32 },
    Done(ScrubReport),
    Failed { detail: String },
}

/// What one pass over a volume found. What is bad is copied anew from another copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubReport {
    pub volume: String,
    /// Blocks read, of all copies.
    pub blocks: u64,
    /// Of these: did not match their checksums.
    pub bad_blocks: u64,
    /// Copies that differed from the others.
    pub different_copies: u64,
    /// Copies that could not be looked at, or were behind anyway.
    pub skipped_copies: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "vm-1.root_disk", "0", &"x".repeat(MAX_NAME)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "a@b", &"x".repeat(MAX_NAME + 1)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn create_volume_has_defaults_and_json_is_plain() {
        let c: CreateVolume = serde_json::from_str(r#"{"name":"v","size":4096}"#).unwrap();
        assert_eq!((c.copies, c.min_copies), (3, 2));
        let p = Problem::new(ProblemKind::NoSpace, "full");
        assert!(serde_json::to_string(&p).unwrap().contains(r#""kind":"no-space""#));
    }
}
