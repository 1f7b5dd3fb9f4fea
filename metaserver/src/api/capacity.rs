//! How full the cluster is, and how full it may become.

use super::Failure;
use super::extract::{Answer, Body};
use crate::app::App;
use crate::capacity::info;
use axum::extract::State;
use levee_meta_state::Command;
use levee_proto::api::*;
use std::sync::Arc;

fn current(app: &App) -> CapacityInfo {
    app.observed(|observed, _| app.replicated.read(|state| info(state, observed)))
}

/// What the cluster holds, has promised, and may take
#[utoipa::path(get, path = "/v1/capacity", tag = "cluster",
    responses((status = 200, body = CapacityInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>) -> Result<Answer<CapacityInfo>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(current(&app)))
}

/// Changes how much the cluster may promise, and from which use of its disks on it warns and refuses
///
/// What exists stays as it is, also where it is beyond the new limits.
#[utoipa::path(post, path = "/v1/capacity/limits", tag = "cluster", request_body = ChangeLimits,
    responses((status = 200, body = CapacityInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_limits(
    State(app): State<Arc<App>>,
    Body(request): Body<ChangeLimits>,
) -> Result<Answer<CapacityInfo>, Failure> {
    app.proposer.propose(Command::SetLimits(request)).await?;
    Ok(Answer(current(&app)))
}
