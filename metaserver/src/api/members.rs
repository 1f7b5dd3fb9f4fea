//! The meta servers as a group: who is in it, and changes of that.

use super::Failure;
use super::extract::{Answer, Body, Path, Query};
use crate::app::App;
use crate::members;
use axum::extract::State;
use axum::http::StatusCode;
use levee_proto::api::*;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Whether to do what leaves too few members.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Forcing {
    /// Also if those that are left and answer are no majority.
    #[serde(default)]
    force: bool,
}

/// The meta servers, as the leader sees them
#[utoipa::path(get, path = "/v1/members", tag = "cluster",
    responses((status = 200, body = Members), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Answer<Members>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(members::status(&app)))
}

/// Takes a meta server in that runs with an empty folder, or notes where one is now
///
/// It is given the log first, and counts for majorities once it has it.
#[utoipa::path(post, path = "/v1/members", tag = "cluster", request_body = AddMember,
    responses((status = 202, body = Members), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add(
    State(app): State<Arc<App>>,
    Body(request): Body<AddMember>,
) -> Result<(StatusCode, Answer<Members>), Failure> {
    members::add(&app, request).await?;
    Ok((StatusCode::ACCEPTED, Answer(members::status(&app))))
}

/// Takes a meta server out of the group; it stops by itself
#[utoipa::path(delete, path = "/v1/members/{id}", tag = "cluster", params(Forcing, ("id" = u64, Path, description = "The meta server")),
    responses((status = 200, body = Members), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Query(forcing): Query<Forcing>,
) -> Result<Answer<Members>, Failure> {
    members::remove(&app, id, forcing.force).await?;
    Ok(Answer(members::status(&app)))
}

/// Has a meta server lead; answered by the one that led, once it does
#[utoipa::path(post, path = "/v1/members/{id}/lead", tag = "cluster", params(("id" = u64, Path, description = "The meta server")),
    responses((status = 200, body = Members), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn lead(State(app): State<Arc<App>>, Path(id): Path<u64>) -> Result<Answer<Members>, Failure> {
    app.barrier.pass().await?;
    members::hand_over(&app, id).await?;
    Ok(Answer(Members { leader: id, ..members::status(&app) }))
}

/// Has a meta server begin anew with an empty folder
#[utoipa::path(post, path = "/v1/members/{id}/replace", tag = "cluster", request_body = ReplaceMember,
    params(Forcing, ("id" = u64, Path, description = "The meta server")),
    responses((status = 202, body = Members), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn replace(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Query(forcing): Query<Forcing>,
    Body(request): Body<ReplaceMember>,
) -> Result<(StatusCode, Answer<Members>), Failure> {
    members::replace(&app, id, request, forcing.force).await?;
    Ok((StatusCode::ACCEPTED, Answer(members::status(&app))))
}
