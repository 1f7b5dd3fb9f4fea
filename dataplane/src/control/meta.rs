//! The meta server as the daemon calls it.

use levee_proto::NodeId;
use levee_proto::api::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::time::Duration;

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

type Result<T> = std::result::Result<T, MetaError>;

/// Calls whichever meta server answers.
pub struct MetaClient {
    http: reqwest::Client,
    urls: Vec<String>,
    /// The one that answered last.
    current: Cell<usize>,
}

impl MetaClient {
    pub fn new(urls: &[String]) -> MetaClient {
        let urls = urls.iter().map(|u| u.trim_end_matches('/').to_string()).collect();
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(1)).no_proxy();
        MetaClient { http: http.build().expect("a plain HTTP client needs nothing"), urls, current: Cell::new(0) }
    }

    pub async fn register(&self, node: &RegisterNode) -> Result<Registered> {
        self.post("/v1/nodes", node).await
    }

    pub async fn heartbeat(&self, node: NodeId, beat: &Heartbeat) -> Result<HeartbeatAck> {
        self.post(&format!("/v1/nodes/{node}/heartbeat"), beat).await
    }

    /// Waits at most `wait` for an intent newer than `after`.
    pub async fn intent(&self, node: NodeId, after: u64, wait: Duration) -> Result<Intent> {
        let path = format!("/v1/nodes/{node}/intent?after={after}&wait_ms={}", wait.as_millis());
        self.call(|url| self.http.get(format!("{url}{path}")).timeout(wait + TIMEOUT)).await
    }

    pub async fn open(&self, volume: &str, open: &OpenVolume) -> Result<OpenedVolume> {
        self.post(&format!("/v1/volumes/{volume}/open"), open).await
    }

    pub async fn allocate(&self, volume: &str, ask: &AllocateChunks) -> Result<AllocatedChunks> {
        self.post(&format!("/v1/volumes/{volume}/allocate"), ask).await
    }

    pub async fn change(&self, volume: &str, ask: &ChangeReplicas) -> Result<ChangedReplicas> {
        self.post(&format!("/v1/volumes/{volume}/replicas"), ask).await
    }

    pub async fn versions(&self, volume: &str) -> Result<VolumeVersions> {
        self.get(&format!("/v1/volumes/{volume}/versions")).await
    }

    pub async fn parent(&self, volume: &str) -> Result<VolumeParent> {
        self.get(&format!("/v1/volumes/{volume}/parent")).await
    }

    pub async fn moved(&self, volume: &str, report: &Moved) -> Result<VolumeVersions> {
        self.post(&format!("/v1/volumes/{volume}/moved"), report).await
    }

    pub async fn sealed(&self, volume: &str, report: &Sealed) -> Result<VolumeVersions> {
        self.post(&format!("/v1/volumes/{volume}/sealed"), report).await
    }

    pub async fn pruned(&self, volume: &str, report: &Pruned) -> Result<VolumeVersions> {
        self.post(&format!("/v1/volumes/{volume}/pruned"), report).await
    }

    pub async fn flattened(&self, volume: &str, report: &Flattened) -> Result<VolumeVersions> {
        self.post(&format!("/v1/volumes/{volume}/flattened"), report).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(|url| self.http.get(format!("{url}{path}")).timeout(TIMEOUT)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.call(|url| self.http.post(format!("{url}{path}")).timeout(TIMEOUT).json(body)).await
    }

    /// Tries each meta server once, the last good one first.
    async fn call<T: DeserializeOwned>(&self, request: impl Fn(&str) -> reqwest::RequestBuilder) -> Result<T> {
        let first = self.current.get();
        let mut last = MetaError::Unreachable("no meta server is named".into());
        for i in 0..self.urls.len() {
            let n = (first + i) % self.urls.len();
            match answer(&self.urls[n], request(&self.urls[n])).await {
                Err(e @ MetaError::Unreachable(_)) => last = e,
                done => {
                    self.current.set(n);
                    return done;
                }
            }
        }
        Err(last)
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
        return serde_json::from_slice(&body).map_err(malformed);
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(malformed)?;
    match problem.kind {
        ProblemKind::Unavailable | ProblemKind::TooMany | ProblemKind::Internal => {
            Err(MetaError::Unreachable(format!("the meta server at {url} is not ready: {}", problem.detail)))
        }
        _ => Err(MetaError::Refused(problem)),
    }
}
