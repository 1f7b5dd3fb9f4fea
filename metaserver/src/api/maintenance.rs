//! Times in which nothing is repaired.

use super::Failure;
use super::extract::{Answer, Body, Query};
use crate::app::App;
use crate::clock::now_ms;
use axum::extract::State;
use levee_meta_state::Command;
use levee_proto::api::*;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Of which window.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Name of the node; absent: that of the whole cluster.
    #[serde(default)]
    node: Option<String>,
}

fn current(app: &App) -> Answer<MaintenanceInfo> {
    Answer(app.replicated.read(|state| state.maintenance(now_ms())))
}

/// The maintenance windows that are not over
#[utoipa::path(get, path = "/v1/maintenance", tag = "repair",
    responses((status = 200, body = MaintenanceInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>) -> Result<Answer<MaintenanceInfo>, Failure> {
    app.barrier.pass().await?;
    Ok(current(&app))
}

/// Begins a time in which no disk is given up because nothing is heard of it, or gives it another end
#[utoipa::path(post, path = "/v1/maintenance", tag = "repair", request_body = StartMaintenance,
    responses((status = 200, body = MaintenanceInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn start(
    State(app): State<Arc<App>>,
    Body(request): Body<StartMaintenance>,
) -> Result<Answer<MaintenanceInfo>, Failure> {
    app.proposer.propose(Command::StartMaintenance(request)).await?;
    Ok(current(&app))
}

/// Ends it
#[utoipa::path(delete, path = "/v1/maintenance", tag = "repair", params(Which),
    responses((status = 200, body = MaintenanceInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn end(State(app): State<Arc<App>>, Query(which): Query<Which>) -> Result<Answer<MaintenanceInfo>, Failure> {
    app.proposer.propose(Command::EndMaintenance { node: which.node }).await?;
    Ok(current(&app))
}
