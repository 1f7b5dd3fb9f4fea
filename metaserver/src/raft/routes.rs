//! Messages from the other members.

use super::gate::Gate;
use super::network::{identity, unpack_snapshot};
use super::receive::Receiver;
use super::refuse::Refusals;
use super::sense::Refusal;
use super::{
    Contact, Directory, EXPECTED_HEADER, FOLDER_HEADER, FROM_HEADER, LEVEL_HEADER, LogId, LogStore, Raft, Replicated,
    TO_HEADER, Types,
};
use crate::api::Failure;
use crate::barrier::Barrier;
use crate::limits::{LEASE_MS, MAX_RAFT_BODY};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use levee_proto::api::{Hello, ProblemKind};
use openraft::Vote;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the routes work with.
#[derive(Clone)]
pub struct Local {
    pub raft: Raft,
    pub directory: Directory,
    pub replicated: Replicated,
    pub contact: Contact,
    pub barrier: Barrier,
    pub log: LogStore,
    pub gate: Gate,
    pub receiver: Receiver,
    pub refusals: Refusals,
}

/// A member's answer to one that would like to lead.
#[derive(Debug, Serialize, Deserialize)]
pub struct Canvass {
    /// It hears no leader.
    pub silent: bool,
    /// The newest entry of its log.
    pub last: Option<LogId>,
}

/// `/raft/...` of this member.
pub fn router(local: Local) -> Router {
    let addressed_only = Router::new()
        .route("/raft/append", post(append))
        .route("/raft/vote", post(vote))
        .route("/raft/snapshot", post(snapshot))
        .route("/raft/canvass", get(canvass))
        .route("/raft/read-index", get(read_index))
        .route("/raft/stand", post(stand))
        .with_state(local.clone())
        .layer(from_fn_with_state(local.clone(), addressed));
    Router::new()
        .route("/raft/hello", get(hello))
        .with_state(local)
        .merge(addressed_only)
        .layer(DefaultBodyLimit::max(MAX_RAFT_BODY))
}

/// Refuses what is meant for another member, or comes from one that must not count.
async fn addressed(State(local): State<Local>, request: Request, next: Next) -> Response {
    let mut response = match check(&local, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => Failure::new(ProblemKind::Conflict, why).into_response(),
    };
    let own = local.directory.own;
    if let Ok(folder) = HeaderValue::from_str(&own.folder.to_string()) {
        response.headers_mut().insert(FOLDER_HEADER, folder);
    }
    response.headers_mut().insert(LEVEL_HEADER, HeaderValue::from(own.level));
    response
}

fn check(local: &Local, headers: &HeaderMap) -> Result<(), String> {
    let own = local.directory.own;
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if text(TO_HEADER).and_then(|v| v.parse().ok()) != Some(own.id) {
        return Err(format!("this is member {}, the message is for another: check --peers", own.id));
    }
    if let Some(expected) = text(EXPECTED_HEADER) {
        let trouble = (expected != own.folder.to_string()).then(|| {
            let id = own.id;
            format!(
                "the folder of this meta server is not the one that the group knows: what meta server {id} had promised is \
                 lost, so it does not count. Put the old folder back, or start this one with an empty folder and run \
                 `levee meta replace {id}`"
            )
        });
        local.directory.trouble(own.id, trouble.clone());
        trouble.map_or(Ok(()), Err)?;
    }
    let from = text(FROM_HEADER).and_then(|v| v.parse::<u64>().ok());
    if let (Some(from), Some((folder, level))) = (from, identity(headers)) {
        let stranger = local.directory.stranger(from, folder);
        local.directory.trouble(from, stranger.clone());
        stranger.map_or(Ok(()), Err)?;
        local.directory.heard(from, folder, level);
    }
    Ok(())
}

/// A body that arrived whole.
type Body = Result<Bytes, BytesRejection>;

fn whole(body: Body) -> Result<Bytes, Failure> {
    body.map_err(|e| Failure::new(ProblemKind::Invalid, e.body_text()).with_status(e.status().as_u16()))
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    serde_json::from_slice(&whole(body)?)
        .map_err(|e| Failure::new(ProblemKind::Invalid, format!("malformed message: {e}")))
}

/// Leaders and candidates speak for themselves. Earlier versions do not say who they are.
fn in_own_name(headers: &HeaderMap, vote: &Vote<u64>) -> Result<(), Failure> {
    let from = headers.get(FROM_HEADER).and_then(|from| from.to_str().ok()?.parse::<u64>().ok());
    match from {
        Some(from) if from != vote.leader_id.node_id => Err(Failure::new(
            ProblemKind::Invalid,
            format!("meta server {from} does not speak for {}", vote.leader_id.node_id),
        )),
        _ => Ok(()),
    }
}

/// What openraft, or what comes before it, has to say.
async fn told<T: Serialize>(local: &Local, answer: Result<T, Refusal>) -> Result<Response, Failure> {
    match answer {
        Ok(answer) => Ok(Json(answer).into_response()),
        Err(refusal) => Err(local.refusals.answer(refusal).await),
    }
}

async fn append(State(local): State<Local>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let rpc: AppendEntriesRequest<Types> = parse(body)?;
    in_own_name(&headers, &rpc.vote)?;
    told(&local, local.gate.append(rpc).await).await
}

async fn vote(State(local): State<Local>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let rpc: VoteRequest<u64> = parse(body)?;
    in_own_name(&headers, &rpc.vote)?;
    told(&local, local.gate.vote(rpc).await).await
}

async fn snapshot(State(local): State<Local>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let rpc = unpack_snapshot(&whole(body)?)
        .ok_or_else(|| Failure::new(ProblemKind::Invalid, "malformed snapshot message"))?;
    in_own_name(&headers, &rpc.vote)?;
    told(&local, local.receiver.piece(rpc).await).await
}

/// For a member that answers a read itself. One that leads asks nobody else.
async fn read_index(State(local): State<Local>) -> Result<Json<u64>, Failure> {
    if local.raft.metrics().borrow().current_leader != Some(local.directory.own.id) {
        return Err(Failure::new(ProblemKind::Unavailable, "this member does not lead"));
    }
    Ok(Json(local.barrier.pass().await?))
}

/// The leader, which hands over to this member, has fallen silent; anybody else is not listened to while one is heard.
async fn stand(State(local): State<Local>) -> Result<Json<()>, Failure> {
    if local.contact.silence() < Duration::from_millis(LEASE_MS) {
        return Err(Failure::new(ProblemKind::Conflict, "this member hears a leader"));
    }
    let stood = local.raft.trigger().elect().await;
    stood.map(Json).map_err(|fatal| Failure::new(ProblemKind::Internal, fatal.to_string()))
}

async fn canvass(State(local): State<Local>) -> Json<Canvass> {
    let leads = local.raft.metrics().borrow().state == openraft::ServerState::Leader;
    let silent = !leads && local.contact.silence() >= Duration::from_millis(LEASE_MS);
    Json(Canvass { silent, last: local.log.last() })
}

async fn hello(State(local): State<Local>) -> Json<Hello> {
    let own = local.directory.own;
    let membership = local.replicated.membership();
    let leader = local.raft.metrics().borrow().current_leader;
    let hears = leader == Some(own.id) || local.contact.silence() < Duration::from_millis(LEASE_MS);
    Json(Hello {
        id: own.id,
        folder: own.folder,
        level: own.level,
        cluster: local.replicated.read(|state| state.cluster()),
        fresh: !local.raft.is_initialized().await.unwrap_or(true),
        leader: leader.filter(|_| hears),
        members: membership.membership().nodes().map(|(id, _)| *id).collect(),
        members_at: membership.log_id().map_or(0, |id| id.index),
    })
}
