//! What happened.

use super::Failure;
use super::extract::{Answer, Query};
use crate::app::App;
use crate::limits::DEFAULT_PAGE;
use axum::extract::State;
use levee_proto::api::*;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// From where on, how many, and how long to wait for the first.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// `next` of the page before; absent: the newest ones.
    after: Option<u64>,
    /// Most milliseconds to wait for an event.
    #[serde(default)]
    #[param(maximum = 30000, required = false)]
    wait_ms: u64,
    /// Most events to answer.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// What happened in the cluster, oldest first; waits while nothing has
#[utoipa::path(get, path = "/v1/events", tag = "cluster", params(EventQuery),
    responses((status = 200, body = EventPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn events(
    State(app): State<Arc<App>>,
    Query(query): Query<EventQuery>,
) -> Result<Answer<EventPage>, Failure> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Failure::new(ProblemKind::Invalid, format!("a page has 1 to {MAX_PAGE} events, not {limit}")));
    }
    app.barrier.pass().await?;
    let newest = || app.replicated.read(|state| state.newest_event());
    let after = query.after.unwrap_or_else(|| newest().saturating_sub(limit as u64));
    let mut moves = app.replicated.moves();
    let mut stopping = app.stopping.clone();
    let mut raft = app.raft.metrics();
    let happened = async { while newest() <= after && moves.changed().await.is_ok() {} };
    // Whatever ends the wait: the look below is the truth of that moment.
    tokio::select! {
        () = happened => {}
        () = tokio::time::sleep(Duration::from_millis(query.wait_ms.min(MAX_WAIT_MS))) => {}
        _ = raft.wait_for(|m| m.current_leader != Some(app.id)) => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| state.events_after(after, limit))))
}
