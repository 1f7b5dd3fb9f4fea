//! How copies are placed, and what would become of them.

use super::Failure;
use super::extract::{Answer, Body};
use crate::app::App;
use crate::rebalance;
use axum::extract::State;
use levee_meta_state::Command;
use levee_proto::api::*;
use std::sync::Arc;

/// How copies of new chunks are placed
#[utoipa::path(get, path = "/v1/placement", tag = "cluster",
    responses((status = 200, body = PlacementPolicy), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>) -> Result<Answer<PlacementPolicy>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| state.placement())))
}

/// Changes how copies of new chunks are placed
///
/// Those that exist stay where they are.
#[utoipa::path(post, path = "/v1/placement", tag = "cluster", request_body = ChangePlacement,
    responses((status = 200, body = PlacementPolicy), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn change(
    State(app): State<Arc<App>>,
    Body(request): Body<ChangePlacement>,
) -> Result<Answer<PlacementPolicy>, Failure> {
    app.proposer.propose(Command::SetPlacement(request)).await?;
    Ok(Answer(app.replicated.read(|state| state.placement())))
}

/// What would become of copies if nodes or disks were emptied or lost; nothing is changed
#[utoipa::path(post, path = "/v1/what-if", tag = "cluster", request_body = WhatIf,
    responses((status = 200, body = Forecast), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn what_if(State(app): State<Arc<App>>, Body(request): Body<WhatIf>) -> Result<Answer<Forecast>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(rebalance::what_if(&app, request).await?))
}
