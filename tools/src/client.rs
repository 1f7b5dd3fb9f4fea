//! Typed clients of the meta servers' API and of a storage daemon's admin endpoint.
//!
//! A request goes to one meta server after the other until one answers, and is repeated while they
//! have no leader or are too busy. A request whose answer is `unavailable`, or got lost, may have taken effect all the same: each
//! change has a key ([`name`]) by which the servers know it when it comes again, and answer as they did the first time. A
//! repeated one that finds its work done has succeeded in any case.

mod events;
mod group;
mod members;
mod name;
mod operate;
mod versions;

use crate::limits::*;
use levee_proto::api::*;
use levee_proto::ids::DiskId;
use reqwest::{Method, Response};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::Cell;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server took the request.
    #[error("cannot reach {what}: {reason}; is it running? ({hint})")]
    Unreachable { what: String, reason: String, hint: String },
    /// The request was sent and no answer came.
    #[error(
        "{url} did not answer: {reason}; whether the request took effect is not known, so look before repeating it (request {})",
        name::request_id()
    )]
    NoAnswer { url: String, reason: String },
    /// The server refused.
    #[error("{0}")]
    Problem(Problem),
    /// Something answered, but not as the API says.
    #[error("{url} answered unexpectedly: {detail}; is it a Levee server of this version?")]
    Unexpected { url: String, detail: String },
}

pub use group::{Survey, Surveyed};

pub type Result<T> = std::result::Result<T, ClientError>;

impl ClientError {
    /// Whether the server refused for this reason.
    pub fn is(&self, kind: ProblemKind) -> bool {
        matches!(self, ClientError::Problem(problem) if problem.kind == kind)
    }
}

/// What became of one attempt at one server.
enum Attempt {
    /// The request was not delivered.
    NotTaken(String),
    /// It was sent, but the answer is missing.
    Lost(String),
}

fn http_client() -> reqwest::Client {
    // A proxy from the environment has no business between the parts of a cluster.
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .default_headers(name::headers())
        .build()
        .expect("a client without TLS has nothing that can fail")
}

/// The meta servers of one cluster.
pub struct MetaClient {
    http: reqwest::Client,
    urls: Vec<String>,
    /// What to do when none answers.
    hint: String,
    /// The server that answered last; none: they were not asked yet.
    preferred: Cell<Option<usize>>,
}

impl MetaClient {
    /// `urls` are roots without a slash at the end, at least one.
    pub fn new(urls: Vec<String>, hint: String) -> MetaClient {
        MetaClient { http: http_client(), urls, hint, preferred: Cell::new(None) }
    }

    pub async fn cluster(&self) -> Result<ClusterInfo> {
        self.call(Method::GET, "/v1/cluster", None::<&()>).await
    }

    pub async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.list("/v1/nodes").await
    }

    pub async fn disks(&self) -> Result<Vec<DiskInfo>> {
        self.list("/v1/disks").await
    }

    pub async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.list("/v1/volumes").await
    }

    pub async fn volume(&self, name: &str) -> Result<VolumeInfo> {
        self.call(Method::GET, &format!("/v1/volumes/{name}"), None::<&()>).await
    }

    pub async fn create_volume(&self, request: &CreateVolume) -> Result<VolumeInfo> {
        let mut repeated = false;
        let answer = self.send_noting(Method::POST, "/v1/volumes", Some(request), &mut repeated).await;
        match answer {
            Err(error) if repeated && error.is(ProblemKind::Exists) => {
                let found = self.volume(&request.name).await?;
                let same = (found.size, found.copies, found.min_copies, found.epoch.0)
                    == (request.size, request.copies, request.min_copies, 0);
                if same { Ok(found) } else { Err(error) }
            }
            answer => self.decode("/v1/volumes", &answer?),
        }
    }

    pub async fn delete_volume(&self, name: &str) -> Result<()> {
        let mut repeated = false;
        let path = format!("/v1/volumes/{name}");
        match self.send_noting(Method::DELETE, &path, None::<&()>, &mut repeated).await {
            Err(error) if repeated && error.is(ProblemKind::NotFound) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    pub async fn attach(&self, name: &str, request: &AttachVolume) -> Result<VolumeInfo> {
        self.call(Method::POST, &format!("/v1/volumes/{name}/attach"), Some(request)).await
    }

    /// Refused while a guest is connected, unless `force`.
    pub async fn detach(&self, name: &str, force: bool) -> Result<VolumeInfo> {
        let query = if force { "?force=true" } else { "" };
        self.call(Method::POST, &format!("/v1/volumes/{name}/detach{query}"), None::<&()>).await
    }

    /// Detaches a volume that nobody uses any more: the daemon may not have told yet that its last user is gone.
    pub async fn detach_unused(&self, name: &str, patience: Duration) -> Result<VolumeInfo> {
        let begun = Instant::now();
        loop {
            match self.detach(name, false).await {
                Err(e) if e.is(ProblemKind::Conflict) && begun.elapsed() < patience => {
                    tokio::time::sleep(DETACH_RETRY).await;
                }
                detached => return detached,
            }
        }
    }

    pub async fn capacity(&self) -> Result<CapacityInfo> {
        self.call(Method::GET, "/v1/capacity", None::<&()>).await
    }

    /// The busiest, at most `limit` of each kind; `by`: requests, bytes or latency.
    pub async fn load(&self, limit: u16, by: &str) -> Result<ClusterLoad> {
        self.call(Method::GET, &format!("/v1/load?limit={limit}&by={by}"), None::<&()>).await
    }

    pub async fn set_limits(&self, change: &ChangeLimits) -> Result<CapacityInfo> {
        self.call(Method::POST, "/v1/capacity/limits", Some(change)).await
    }

    pub async fn set_disk(&self, disk: DiskId, request: &SetDiskState) -> Result<DiskInfo> {
        self.call(Method::POST, &format!("/v1/disks/{disk}/state"), Some(request)).await
    }

    /// Every state that an operator should know of.
    pub async fn health(&self) -> Result<Health> {
        self.call(Method::GET, "/v1/health", None::<&()>).await
    }

    /// Marks the volume as one that a command works on, or says that it goes on.
    pub async fn begin_job(&self, volume: &str, request: &BeginJob) -> Result<VolumeInfo> {
        self.call(Method::POST, &format!("/v1/volumes/{volume}/job"), Some(request)).await
    }

    pub async fn end_job(&self, volume: &str, id: Uuid) -> Result<()> {
        let path = format!("/v1/volumes/{volume}/job?id={id}");
        self.call::<(), VolumeInfo>(Method::DELETE, &path, None).await.map(|_| ())
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        self.list_with(path, "").await
    }

    /// `query` narrows the list; empty, or `NAME=VALUE` in the form that goes into a URL.
    async fn list_with<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<Vec<T>> {
        let more = if query.is_empty() { String::new() } else { format!("&{query}") };
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let query = match &after {
                Some(after) => format!("{path}?limit={MAX_PAGE}{more}&after={}", percent_encode(after)),
                None => format!("{path}?limit={MAX_PAGE}{more}"),
            };
            let page: Page<T> = self.call(Method::GET, &query, None::<&()>).await?;
            items.extend(page.items);
            match page.next {
                None => return Ok(items),
                same if same == after => break,
                next => after = next,
            }
        }
        Err(self.unexpected(path, "the list never ends".into()))
    }

    async fn call<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T> {
        let answer = self.send_noting(method, path, body, &mut false).await?;
        self.decode(path, &answer)
    }

    fn decode<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T> {
        serde_json::from_slice(answer).map_err(|e| self.unexpected(path, e.to_string()))
    }

    fn unexpected(&self, path: &str, detail: String) -> ClientError {
        ClientError::Unexpected { url: format!("{}{path}", self.urls[self.preferred.get().unwrap_or(0)]), detail }
    }

    /// Sends a request to the servers in turn, again while they have no leader. Notes in `repeated`
    /// whether an earlier attempt may have taken effect.
    async fn send_noting<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        repeated: &mut bool,
    ) -> Result<Vec<u8>> {
        let started = Instant::now();
        let key = (method != Method::GET).then(name::new_key);
        loop {
            let pause = match self.send_round(&method, path, body, key.as_deref(), repeated).await {
                Err(error) if started.elapsed() < NO_LEADER_TIMEOUT => match error {
                    error if error.is(ProblemKind::TooMany) => BUSY_PAUSE,
                    error if error.is(ProblemKind::Unavailable) => POLL_PAUSE,
                    // It may have taken effect, but the servers know it by its key.
                    ClientError::NoAnswer { .. } => POLL_PAUSE,
                    error => return Err(error),
                },
                outcome => return outcome,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_round<B: Serialize>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&B>,
        key: Option<&str>,
        repeated: &mut bool,
    ) -> Result<Vec<u8>> {
        let mut reasons = Vec::new();
        let mut unavailable = None;
        let first = self.first_to_ask().await;
        for turn in 0..self.urls.len() {
            let index = (first + turn) % self.urls.len();
            let url = &self.urls[index];
            match attempt(&self.http, method, &format!("{url}{path}"), body, key).await {
                Ok(Err(error)) if error.is(ProblemKind::Unavailable) => {
                    *repeated = true;
                    unavailable = Some(error);
                }
                Ok(answer) => {
                    self.preferred.set(Some(index));
                    return answer;
                }
                Err(Attempt::Lost(reason)) if *method != Method::GET => {
                    *repeated = true;
                    unavailable = Some(ClientError::NoAnswer { url: url.clone(), reason });
                }
                Err(Attempt::NotTaken(reason) | Attempt::Lost(reason)) => reasons.push((url, reason)),
            }
        }
        Err(unavailable.unwrap_or_else(|| self.unreachable(&reasons)))
    }

    fn unreachable(&self, reasons: &[(&String, String)]) -> ClientError {
        let hint = self.hint.clone();
        if let [(url, reason)] = reasons {
            return ClientError::Unreachable {
                what: format!("the meta server at {url}"),
                reason: reason.clone(),
                hint,
            };
        }
        let reason = reasons.iter().map(|(url, reason)| format!("{url}: {reason}")).collect::<Vec<_>>().join(", ");
        ClientError::Unreachable { what: "any meta server".into(), reason, hint }
    }
}

/// A storage daemon's admin endpoint.
pub struct AdminClient {
    http: reqwest::Client,
    url: String,
}

impl AdminClient {
    pub fn new(url: impl Into<String>) -> AdminClient {
        AdminClient { http: http_client(), url: url.into() }
    }

    pub async fn status(&self) -> Result<DaemonStatus> {
        let url = format!("{}/v1/status", self.url);
        let answer = match attempt(&self.http, &Method::GET, &url, None::<&()>, None).await {
            Ok(answer) => answer?,
            Err(Attempt::NotTaken(reason) | Attempt::Lost(reason)) => return Err(self.unreachable(reason)),
        };
        serde_json::from_slice(&answer).map_err(|e| ClientError::Unexpected { url, detail: e.to_string() })
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            what: format!("the storage daemon at {}", self.url),
            reason,
            hint: "`levee node list` shows the nodes".into(),
        }
    }
}

/// One request to one server: the outer result tells whether it answered, the inner what.
async fn attempt<B: Serialize>(
    http: &reqwest::Client,
    method: &Method,
    url: &str,
    body: Option<&B>,
    key: Option<&str>,
) -> std::result::Result<Result<Vec<u8>>, Attempt> {
    let mut request = http.request(method.clone(), url).timeout(REQUEST_TIMEOUT);
    if let Some(body) = body {
        request = request.json(body);
    }
    if let Some(key) = key {
        let (name, value) = name::key_header(key);
        request = request.header(name, value);
    }
    let response = request.send().await.map_err(|e| {
        if e.is_connect() || e.is_builder() { Attempt::NotTaken(reason_of(&e)) } else { Attempt::Lost(reason_of(&e)) }
    })?;
    if !response.status().is_success() {
        return Ok(Err(refusal(url, response).await));
    }
    read_body(response).await.map(Ok).map_err(Attempt::Lost)
}

async fn read_body(mut response: Response) -> std::result::Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| reason_of(&e))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error that a server's refusal means.
async fn refusal(url: &str, response: Response) -> ClientError {
    let status = response.status();
    let named = response.headers().get(REQUEST_ID_HEADER).and_then(|id| id.to_str().ok()).map(String::from);
    match read_body(response).await {
        Ok(body) => match serde_json::from_slice::<Problem>(&body) {
            Ok(mut problem) => {
                if let Some(id) = named.filter(|id| is_valid_request_id(id)) {
                    problem.detail.push_str(&format!(" (request {id})"));
                }
                ClientError::Problem(problem)
            }
            Err(_) => ClientError::Unexpected { url: url.into(), detail: format!("status {status}") },
        },
        Err(reason) => ClientError::Unexpected { url: url.into(), detail: format!("status {status}, {reason}") },
    }
}

/// The innermost cause, in words that help.
fn reason_of(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".into();
    }
    let mut cause: &dyn std::error::Error = error;
    loop {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return "connection refused".into(),
                std::io::ErrorKind::ConnectionReset => return "connection reset".into(),
                std::io::ErrorKind::TimedOut => return "timed out".into(),
                _ => {}
            }
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return cause.to_string(),
        }
    }
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Calls `look` until it has something, for at most `timeout`.
pub async fn wait_for<T, E>(
    timeout: Duration,
    mut look: impl AsyncFnMut() -> std::result::Result<Option<T>, E>,
) -> std::result::Result<Option<T>, E> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if started.elapsed() >= timeout {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_PAUSE);
    }
}
