//! How the cluster does.

use super::Failure;
use super::extract::Answer;
use crate::app::App;
use crate::health;
use crate::members;
use axum::extract::State;
use levee_proto::api::{Health, Problem};
use std::sync::Arc;

/// Every state that an operator should know of, and what is done about it
#[utoipa::path(get, path = "/v1/health", tag = "cluster",
    responses((status = 200, body = Health), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>) -> Result<Answer<Health>, Failure> {
    app.barrier.pass().await?;
    let members = members::status(&app);
    Ok(Answer(health::with_view(&app, |view| health::health(view, &members))))
}
