//! Messages to the other members.

use super::{TO_HEADER, Types};
use crate::limits::CONNECT_WAIT;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Failure<E> = RPCError<u64, BasicNode, E>;

/// Knows where the members are.
#[derive(Clone)]
pub struct Network {
    http: reqwest::Client,
    /// From the command line: a member that has moved is found there, not at its recorded address.
    members: Arc<BTreeMap<u64, String>>,
}

impl Network {
    pub fn new(members: BTreeMap<u64, String>) -> anyhow::Result<Network> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WAIT).tcp_nodelay(true).build()?;
        Ok(Network { http, members: Arc::new(members) })
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let url = self.members.get(&target).unwrap_or(&node.addr).clone();
        Peer { target, url, http: self.http.clone() }
    }
}

/// One other member.
pub struct Peer {
    target: u64,
    url: String,
    http: reqwest::Client,
}

impl Peer {
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
        let request =
            self.http.post(format!("{}{path}", self.url)).header(TO_HEADER, self.target).timeout(ttl).body(body);
        let response = request.send().await.map_err(transport)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(transport)?;
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&bytes).chars().take(300).collect();
            return Err(RPCError::Unreachable(Unreachable::from(AnyError::error(format!("{status}: {text}")))));
        }
        let answer: Result<T, E> = serde_json::from_slice(&bytes).map_err(|e| NetworkError::new(&e))?;
        answer.map_err(|e| RPCError::RemoteError(RemoteError::new(self.target, e)))
    }
}

fn transport<E: std::error::Error>(error: reqwest::Error) -> Failure<E> {
    if error.is_connect() {
        RPCError::Unreachable(Unreachable::new(&error))
    } else {
        RPCError::Network(NetworkError::new(&error))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<RaftError<u64>>> {
        self.call("/raft/append", serde_json::to_vec(&rpc), option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<RaftError<u64, InstallSnapshotError>>> {
        self.call("/raft/snapshot", pack_snapshot(rpc), option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<RaftError<u64>>> {
        self.call("/raft/vote", serde_json::to_vec(&rpc), option.hard_ttl()).await
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
