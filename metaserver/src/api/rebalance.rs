//! Making disks even: plans, and carrying them out.

use super::Failure;
use super::extract::{Answer, Body};
use crate::app::App;
use crate::proposer::unexpected;
use crate::rebalance;
use axum::extract::State;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_proto::api::*;
use std::sync::Arc;

async fn change(app: &App, command: Command) -> Result<Answer<RebalanceStatus>, Failure> {
    match app.proposer.propose(command).await? {
        state::Answer::Rebalance(status) => Ok(Answer(status)),
        other => Err(unexpected(other).into()),
    }
}

/// What a rebalance would move; nothing is changed
#[utoipa::path(post, path = "/v1/rebalance/plan", tag = "repair", request_body = RebalanceRequest,
    responses((status = 200, body = RebalancePlan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn plan(
    State(app): State<Arc<App>>,
    Body(request): Body<RebalanceRequest>,
) -> Result<Answer<RebalancePlan>, Failure> {
    app.barrier.pass().await?;
    let mut plan = rebalance::plan(&app, request).await?;
    plan.moves.truncate(MAX_SHOWN_MOVES);
    Ok(Answer(plan))
}

/// Plans a rebalance and begins to carry it out
///
/// A few copies are moved at a time, by the gateways of their volumes, as slowly as all background copying. None is given up before its
/// successor is whole. If there is nothing to move, nothing is begun.
#[utoipa::path(post, path = "/v1/rebalance", tag = "repair", request_body = RebalanceRequest,
    responses((status = 200, body = RebalanceStatus), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn run(
    State(app): State<Arc<App>>,
    Body(request): Body<RebalanceRequest>,
) -> Result<Answer<RebalanceStatus>, Failure> {
    app.barrier.pass().await?;
    let plan = rebalance::plan(&app, request).await?;
    if plan.moves.is_empty() {
        return Ok(Answer(RebalanceStatus { state: RebalanceState::Done, goal: plan.goal, ..Default::default() }));
    }
    change(&app, Command::StartRebalance { goal: plan.goal, moves: plan.moves }).await
}

/// How the last rebalance does
#[utoipa::path(get, path = "/v1/rebalance", tag = "repair",
    responses((status = 200, body = RebalanceStatus), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn status(State(app): State<Arc<App>>) -> Result<Answer<RebalanceStatus>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| state.rebalance_status())))
}

/// Ends a rebalance; what was moved stays where it is
#[utoipa::path(delete, path = "/v1/rebalance", tag = "repair",
    responses((status = 200, body = RebalanceStatus), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn cancel(State(app): State<Arc<App>>) -> Result<Answer<RebalanceStatus>, Failure> {
    change(&app, Command::CancelRebalance).await
}
