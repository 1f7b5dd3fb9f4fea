//! Messages to the other members.

use super::directory::Directory;
use super::routes::Canvass;
use super::sense::{Refusal, Verdict, check_higher, check_term};
use super::{EXPECTED_HEADER, FOLDER_HEADER, FROM_HEADER, LEVEL_HEADER, LogId, TO_HEADER, Types};
use crate::limits::*;
use levee_proto::api::Hello;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode, Vote};
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use std::time::Duration;
use uuid::Uuid;

type Failure<E> = RPCError<u64, BasicNode, E>;

/// Makes connections to members.
#[derive(Clone)]
pub struct Network {
    http: reqwest::Client,
    pub directory: Directory,
}

impl Network {
    pub fn new(directory: Directory) -> anyhow::Result<Network> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WAIT).tcp_nodelay(true).build()?;
        Ok(Network { http, directory })
    }

    /// `url`: where it is if nothing else is known.
    pub fn peer(&self, target: u64, url: &str) -> Peer {
        Peer { target, recorded: url.into(), http: self.http.clone(), directory: self.directory.clone() }
    }

    /// Asks whoever listens there who it is.
    pub async fn hello(&self, url: &str) -> Result<Hello, String> {
        let request = self.http.get(format!("{}/raft/hello", url.trim_end_matches('/'))).timeout(HELLO_WAIT);
        let response = request.send().await.map_err(|e| said(&e))?;
        if !response.status().is_success() {
            return Err(format!("it is no meta server of this version (status {})", response.status()));
        }
        let body = whole(response).await.map_err(|e| e.as_ref().map_or("its answer is too long".into(), said))?;
        serde_json::from_slice(&body).map_err(|_| "its answer is not understood".into())
    }
}

/// The whole answer; the error is none if it is longer than any.
async fn whole(mut response: reqwest::Response) -> Result<Vec<u8>, Option<reqwest::Error>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

async fn understood<T: DeserializeOwned>(response: reqwest::Response) -> Option<T> {
    serde_json::from_slice(&whole(response.error_for_status().ok()?).await.ok()?).ok()
}

fn said(error: &reqwest::Error) -> String {
    match (error.is_connect(), error.is_timeout()) {
        (true, _) => "nothing listens there".into(),
        (_, true) => "it does not answer".into(),
        _ => error.to_string(),
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, &node.addr)
    }
}

/// One other member.
pub struct Peer {
    target: u64,
    recorded: String,
    http: reqwest::Client,
    directory: Directory,
}

impl Peer {
    fn request(&self, method: reqwest::Method, path: &str, ttl: Duration) -> reqwest::RequestBuilder {
        let url = self.directory.url(self.target, Some(&self.recorded)).unwrap_or_else(|| self.recorded.clone());
        let own = self.directory.own;
        let mut request = self
            .http
            .request(method, format!("{url}{path}"))
            .header(TO_HEADER, self.target)
            .header(FROM_HEADER, own.id)
            .header(FOLDER_HEADER, own.folder.to_string())
            .header(LEVEL_HEADER, own.level)
            .timeout(ttl);
        if let Some(folder) = self.directory.pinned(self.target) {
            request = request.header(EXPECTED_HEADER, folder.to_string());
        }
        request
    }

    /// Notes who has answered; an error if what it says must not count.
    fn recognise(&self, headers: &HeaderMap) -> Result<(), String> {
        let Some((folder, level)) = identity(headers) else { return Ok(()) };
        let stranger = self.directory.stranger(self.target, folder);
        self.directory.trouble(self.target, stranger.clone());
        match stranger {
            Some(stranger) => Err(stranger),
            None => {
                self.directory.heard(self.target, folder, level);
                Ok(())
            }
        }
    }

    async fn call<T, E>(
        &self,
        path: &str,
        body: Result<Vec<u8>, serde_json::Error>,
        ttl: Duration,
    ) -> Result<T, Failure<E>>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let body = body.map_err(|e| NetworkError::new(&e))?;
        let sent = self.request(reqwest::Method::POST, path, ttl).body(body).send().await;
        let response = sent.map_err(|e| self.transport(e))?;
        let status = response.status();
        let known = self.recognise(response.headers());
        let bytes = whole(response).await.map_err(|e| match e {
            Some(error) => self.transport(error),
            None => RPCError::Unreachable(Unreachable::from(AnyError::error("the answer is too long"))),
        })?;
        if !status.is_success() {
            self.directory.failed(self.target);
            let text: String = String::from_utf8_lossy(&bytes).chars().take(300).collect();
            return Err(RPCError::Unreachable(Unreachable::from(AnyError::error(format!("{status}: {text}")))));
        }
        known.map_err(|stranger| RPCError::Unreachable(Unreachable::from(AnyError::error(stranger))))?;
        let answer: Result<T, E> = serde_json::from_slice(&bytes).map_err(|e| NetworkError::new(&e))?;
        answer.map_err(|e| RPCError::RemoteError(RemoteError::new(self.target, e)))
    }

    fn transport<E: std::error::Error>(&self, error: reqwest::Error) -> Failure<E> {
        self.directory.failed(self.target);
        if error.is_connect() {
            RPCError::Unreachable(Unreachable::new(&error))
        } else {
            RPCError::Network(NetworkError::new(&error))
        }
    }

    /// Up to where a read must have applied the log, if it leads.
    pub async fn read_index(&self) -> Option<u64> {
        let response = self.request(reqwest::Method::GET, "/raft/read-index", COMMIT_WAIT).send().await;
        let Ok(response) = response else {
            self.directory.failed(self.target);
            return None;
        };
        self.recognise(response.headers()).ok()?;
        understood(response).await
    }

    /// Whether it hears a leader; none if it does not answer, or must not count.
    pub async fn canvass(&self) -> Option<Canvass> {
        let response = self.request(reqwest::Method::GET, "/raft/canvass", CANVASS_WAIT).send().await;
        let Ok(response) = response else {
            self.directory.failed(self.target);
            return None;
        };
        self.recognise(response.headers()).ok()?;
        understood(response).await
    }

    /// Has it stand for election; whether it does.
    pub async fn stand(&self) -> bool {
        let sent = self.request(reqwest::Method::POST, "/raft/stand", HELLO_WAIT).send().await;
        sent.is_ok_and(|response| response.status().is_success())
    }

    /// An answer counts only if it can be one: openraft believes it.
    fn sensible(&self, verdict: Verdict) -> Result<(), Unreachable> {
        verdict.map_err(|refusal| {
            let why = format!("an answer of meta server {} is not taken: {refusal}", self.target);
            Unreachable::from(AnyError::error(why))
        })
    }

    fn check_appended(&self, asked: &Asked, answer: &AppendEntriesResponse<u64>) -> Verdict {
        let senseless = |why: &str| Err(Refusal::Senseless(why.into()));
        match answer {
            AppendEntriesResponse::Success => self.now_holds(asked, asked.last),
            AppendEntriesResponse::PartialSuccess(upto) if *upto < asked.prev || *upto > asked.last => {
                senseless("it has taken what it was not sent")
            }
            AppendEntriesResponse::PartialSuccess(upto) => self.now_holds(asked, *upto),
            AppendEntriesResponse::HigherVote(vote) => check_higher(vote, self.directory.own.id, &asked.vote),
            AppendEntriesResponse::Conflict => match asked.prev {
                None => senseless("what begins a log follows nothing"),
                Some(prev) if self.directory.held(self.target, &asked.vote, prev) => {
                    let lost = format!(
                        "meta server {} does not have entry {} of the log any more, which it had: was an old copy of its \
                         folder put back? `levee meta replace {}` has it begin anew",
                        self.target, prev.index, self.target
                    );
                    self.directory.trouble(self.target, Some(lost.clone()));
                    senseless(&lost)
                }
                Some(_) => Ok(()),
            },
        }
    }

    fn now_holds(&self, asked: &Asked, upto: Option<LogId>) -> Verdict {
        if let Some(upto) = upto {
            self.directory.holds(self.target, &asked.vote, upto);
        }
        Ok(())
    }
}

/// What is left of a message when its answer comes.
struct Asked {
    vote: Vote<u64>,
    prev: Option<LogId>,
    last: Option<LogId>,
}

/// Folder and level that a message's headers name.
pub(super) fn identity(headers: &HeaderMap) -> Option<(Uuid, u32)> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    Some((text(FOLDER_HEADER)?.parse().ok()?, text(LEVEL_HEADER)?.parse().ok()?))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<RaftError<u64>>> {
        if self.directory.is_hushed() {
            return Err(RPCError::Unreachable(Unreachable::from(AnyError::error(
                "the leadership is being handed over",
            ))));
        }
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let asked = Asked { vote: rpc.vote, prev: rpc.prev_log_id, last };
        let answer = self.call("/raft/append", serde_json::to_vec(&rpc), option.hard_ttl()).await?;
        self.sensible(self.check_appended(&asked, &answer))?;
        Ok(answer)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<RaftError<u64, InstallSnapshotError>>> {
        let (last, done) = (rpc.meta.last_log_id, rpc.done);
        let asked = Asked { vote: rpc.vote, prev: None, last };
        let answer: InstallSnapshotResponse<u64> =
            self.call("/raft/snapshot", pack_snapshot(rpc), option.hard_ttl()).await?;
        self.sensible(match answer.vote > asked.vote {
            true => check_higher(&answer.vote, self.directory.own.id, &asked.vote),
            false => self.now_holds(&asked, asked.last.filter(|_| done)),
        })?;
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<RaftError<u64>>> {
        let asked = rpc.vote;
        let answer: VoteResponse<u64> = self.call("/raft/vote", serde_json::to_vec(&rpc), option.hard_ttl()).await?;
        self.sensible(check_term(answer.vote.leader_id.term, Some(asked.leader_id.term)))?;
        Ok(answer)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

/// Length of the JSON (4 bytes, little-endian), the JSON, then the data as it is: bytes as JSON numbers
/// would be four times as large.
pub(super) fn pack_snapshot(mut rpc: InstallSnapshotRequest<Types>) -> Result<Vec<u8>, serde_json::Error> {
    let data = std::mem::take(&mut rpc.data);
    let json = serde_json::to_vec(&rpc)?;
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    Ok([&length.to_le_bytes()[..], &json, &data].concat())
}

/// The reverse; none if it is malformed.
pub(super) fn unpack_snapshot(body: &[u8]) -> Option<InstallSnapshotRequest<Types>> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let (json, data) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let mut rpc: InstallSnapshotRequest<Types> = serde_json::from_slice(json).ok()?;
    rpc.data = data.to_vec();
    Some(rpc)
}
