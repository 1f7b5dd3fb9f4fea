//! Messages from the other members.

use super::network::unpack_snapshot;
use super::{Raft, TO_HEADER};
use crate::api::Failure;
use crate::limits::MAX_RAFT_BODY;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use levee_proto::api::ProblemKind;
use serde::de::DeserializeOwned;

/// `/raft/...` of the member `id`.
pub fn router(raft: Raft, id: u64) -> Router {
    Router::new()
        .route("/raft/append", post(append))
        .route("/raft/vote", post(vote))
        .route("/raft/snapshot", post(snapshot))
        .with_state(raft)
        .layer(from_fn_with_state(id, addressed))
        .layer(DefaultBodyLimit::max(MAX_RAFT_BODY))
}

/// Refuses what is meant for another member.
async fn addressed(State(id): State<u64>, request: Request, next: Next) -> Response {
    let to = request.headers().get(TO_HEADER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if to == Some(id) {
        return next.run(request).await;
    }
    Failure::new(ProblemKind::Conflict, format!("this is member {id}, the message is for another: check --peers"))
        .into_response()
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

async fn append(State(raft): State<Raft>, body: Body) -> Result<Response, Failure> {
    Ok(Json(raft.append_entries(parse(body)?).await).into_response())
}

async fn vote(State(raft): State<Raft>, body: Body) -> Result<Response, Failure> {
    Ok(Json(raft.vote(parse(body)?).await).into_response())
}

async fn snapshot(State(raft): State<Raft>, body: Body) -> Result<Response, Failure> {
    let rpc = unpack_snapshot(&whole(body)?)
        .ok_or_else(|| Failure::new(ProblemKind::Invalid, "malformed snapshot message"))?;
    Ok(Json(raft.install_snapshot(rpc).await).into_response())
}
