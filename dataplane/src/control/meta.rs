//! The meta servers as the daemon calls them.
//!
//! Which ones there are is learned from themselves: the command line's URLs are only where that begins. What was learned is
//! remembered in the daemon's folder, so that a group all of whose members were replaced meanwhile is found again.

use super::NotTheNode;
use super::members::Members;
use super::request_id;
use crate::asks::Attached;
use levee_proto::api::*;
use levee_proto::{DiskId, Epoch, NodeId, VolumeId};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tracing::debug;
use uuid::Uuid;

/// An answer has to come within this, beside what the call itself waits for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug)]
pub enum MetaError {
    /// The meta server says no.
    Refused(Problem),
    /// None of the meta servers answers as it should; why.
    Unreachable(String),
}

impl std::fmt::Display for MetaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MetaError::Refused(p) => write!(f, "{}", p.detail),
            MetaError::Unreachable(why) => f.write_str(why),
        }
    }
}

impl MetaError {
    /// Another process is the node that asked.
    pub fn replaced(&self) -> Option<NotTheNode> {
        match self {
            MetaError::Refused(p) if p.kind == ProblemKind::Fenced => Some(NotTheNode(p.detail.clone())),
            _ => None,
        }
    }
}

type Result<T> = std::result::Result<T, MetaError>;

/// One request, whichever meta server answers it.
struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Option<Vec<u8>>,
    timeout: Duration,
}

/// Calls whichever meta server answers.
pub struct MetaClient {
    http: reqwest::Client,
    pub members: Members,
}

impl MetaClient {
    pub fn new(members: Members) -> MetaClient {
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(1)).no_proxy();
        MetaClient { http: http.build().expect("a plain HTTP client needs nothing"), members }
    }

    pub async fn register(&self, node: &RegisterNode) -> Result<Registered> {
        self.post("/v1/nodes", node).await
    }

    pub async fn heartbeat(&self, node: NodeId, beat: &Heartbeat) -> Result<HeartbeatAck> {
        self.post(&format!("/v1/nodes/{node}/heartbeat"), beat).await
    }

    /// Waits at most `wait` for an intent newer than `after`.
    pub async fn intent(&self, node: NodeId, incarnation: Uuid, after: u64, wait: Duration) -> Result<Intent> {
        let wait_ms = wait.as_millis();
        let path = format!("/v1/nodes/{node}/intent?after={after}&wait_ms={wait_ms}&incarnation={incarnation}");
        self.call(Call { method: Method::GET, path: &path, body: None, timeout: wait + TIMEOUT }).await
    }

    pub async fn inventory(&self, node: NodeId, inventory: &Inventory) -> Result<()> {
        self.post(&format!("/v1/nodes/{node}/inventory"), inventory).await
    }

    /// A disk as the cluster knows it; `None`: it does not.
    pub async fn disk(&self, id: DiskId) -> Result<Option<DiskInfo>> {
        let page: Page<DiskInfo> = self.get(&format!("/v1/disks?after={}&limit=1", id.0.saturating_sub(1))).await?;
        Ok(page.items.into_iter().find(|d| d.id == id))
    }

    pub async fn set_disk_state(&self, id: DiskId, state: &SetDiskState) -> Result<DiskInfo> {
        self.post(&format!("/v1/disks/{id}/state"), state).await
    }

    pub async fn open(&self, by: &Attached, open: &OpenVolume) -> Result<OpenedVolume> {
        let mut opened: OpenedVolume = self.post(&by.path("open"), open).await?;
        self.complete_map(opened.id, Some(opened.epoch), &mut opened.chunks, &mut opened.more).await?;
        self.complete_ancestors(&mut opened.parent).await?;
        Ok(opened)
    }

    pub async fn allocate(&self, by: &Attached, ask: &AllocateChunks) -> Result<AllocatedChunks> {
        self.post(&by.path("allocate"), ask).await
    }

    pub async fn change(&self, by: &Attached, ask: &ChangeReplicas) -> Result<ChangedReplicas> {
        self.post(&by.path("replicas"), ask).await
    }

    pub async fn versions(&self, by: &Attached) -> Result<VolumeVersions> {
        self.get(&by.path("versions")).await
    }

    pub async fn parent(&self, by: &Attached) -> Result<VolumeParent> {
        let mut found: VolumeParent = self.get(&by.path("parent")).await?;
        self.complete_ancestors(&mut found.parent).await?;
        Ok(found)
    }

    /// Chunks of a volume behind an index.
    pub(super) async fn map_page(
        &self,
        volume: VolumeId,
        epoch: Option<Epoch>,
        after: Option<u32>,
    ) -> Result<ChunkPage> {
        let after = after.map(|index| format!("after={index}"));
        let epoch = epoch.map(|epoch| format!("epoch={epoch}"));
        let query: Vec<String> = after.into_iter().chain(epoch).collect();
        self.get(&format!("/v1/maps/{volume}?{}", query.join("&"))).await
    }

    pub async fn moved(&self, by: &Attached, report: &Moved) -> Result<VolumeVersions> {
        self.post(&by.path("moved"), report).await
    }

    pub async fn sealed(&self, by: &Attached, report: &Sealed) -> Result<VolumeVersions> {
        self.post(&by.path("sealed"), report).await
    }

    pub async fn pruned(&self, by: &Attached, report: &Pruned) -> Result<VolumeVersions> {
        self.post(&by.path("pruned"), report).await
    }

    pub async fn flattened(&self, by: &Attached, report: &Flattened) -> Result<VolumeVersions> {
        self.post(&by.path("flattened"), report).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Call { method: Method::GET, path, body: None, timeout: TIMEOUT }).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body =
            serde_json::to_vec(body).map_err(|e| MetaError::Unreachable(format!("cannot ask for {path}: {e}")))?;
        self.call(Call { method: Method::POST, path, body: Some(body), timeout: TIMEOUT }).await
    }

    /// Tries each meta server once, the last good one first.
    async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T> {
        let id = request_id::fresh();
        let mut last = MetaError::Unreachable("no meta server is named".into());
        for url in self.members.in_order() {
            match self.ask(&url, &call, &id).await {
                Err(e @ MetaError::Unreachable(_)) => {
                    self.members.failed();
                    last = e;
                }
                done => {
                    self.members.answered(&url);
                    return done;
                }
            }
        }
        Err(last)
    }

    /// What one meta server knows of all.
    pub async fn cluster_at(&self, url: &str) -> Result<ClusterInfo> {
        let call = Call { method: Method::GET, path: "/v1/cluster", body: None, timeout: TIMEOUT };
        self.ask(url, &call, &request_id::fresh()).await
    }

    async fn ask<T: DeserializeOwned>(&self, url: &str, call: &Call<'_>, id: &str) -> Result<T> {
        let Call { method, path, body, timeout } = call;
        let mut request = self.http.request(method.clone(), format!("{url}{path}")).timeout(*timeout);
        request = request.header(REQUEST_ID_HEADER, id);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let answer = answer(url, request).await;
        match &answer {
            Ok(_) => debug!(request_id = id, meta = url, "{method} {path}: done"),
            Err(e) => debug!(request_id = id, meta = url, "{method} {path}: {e}"),
        }
        answer
    }
}

async fn answer<T: DeserializeOwned>(url: &str, request: reqwest::RequestBuilder) -> Result<T> {
    let unreachable = |e: reqwest::Error| {
        let mut why = format!("cannot reach the meta server at {url}: {e}");
        let mut source = std::error::Error::source(&e);
        while let Some(s) = source {
            why = format!("{why}: {s}");
            source = s.source();
        }
        MetaError::Unreachable(why)
    };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unreachable)?;
    let malformed =
        |e| MetaError::Unreachable(format!("the meta server at {url} answered {status} with something else: {e}"));
    if status.is_success() {
        // Where there is nothing to say the body is empty.
        let body = if body.is_empty() { &b"null"[..] } else { &body[..] };
        return serde_json::from_slice(body).map_err(malformed);
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(malformed)?;
    match problem.kind {
        ProblemKind::Unavailable | ProblemKind::TooMany | ProblemKind::Internal => {
            Err(MetaError::Unreachable(format!("the meta server at {url} is not ready: {}", problem.detail)))
        }
        _ => Err(MetaError::Refused(problem)),
    }
}
