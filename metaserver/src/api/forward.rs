//! Brings each request to the leader, over one hop at most.
//!
//! A request waits for a bounded time while no leader is known. It is sent again only if it surely was
//! not executed: the connection could not be made, or it changes nothing.

use super::Failure;
use super::extract;
use crate::app::App;
use crate::limits::*;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use levee_proto::api::{MAX_WAIT_MS, ProblemKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Marks a request that came from another member.
const FORWARDED: &str = "levee-forwarded";

pub async fn to_leader(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = match extract::read(body).await {
        Ok(body) => body,
        Err(failure) => return failure.into_response(),
    };
    let forwarded = parts.headers.contains_key(FORWARDED);
    let deadline = Instant::now() + LEADER_WAIT;
    loop {
        match app.leader() {
            Some(id) if id == app.id && founded(&app) => {
                return next.run(Request::from_parts(parts, Body::from(body))).await;
            }
            Some(leader) if leader != app.id && !forwarded => match send(&app, leader, &parts, body.clone()).await {
                Ok(response) => return response,
                Err(Unsent::Lost) => {
                    return unavailable("the connection to the leader broke; the request may have been executed");
                }
                Err(Unsent::Again) => {}
            },
            _ => {}
        }
        if Instant::now() >= deadline {
            return unavailable("the meta servers have no leader: are most of them running?");
        }
        sleep(LEADER_RETRY).await;
    }
}

/// A leader that has just started may not have applied its log yet.
fn founded(app: &App) -> bool {
    app.replicated.read(|state| state.cluster().is_some())
}

fn unavailable(detail: &str) -> Response {
    Failure::new(ProblemKind::Unavailable, format!("{detail} Try again in a moment.")).into_response()
}

enum Unsent {
    /// Not executed: send it again.
    Again,
    /// Perhaps executed.
    Lost,
}

async fn send(app: &App, leader: u64, parts: &Parts, body: Bytes) -> Result<Response, Unsent> {
    let url = app.members.get(&leader).ok_or(Unsent::Again)?;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let request = app
        .http
        .request(parts.method.clone(), format!("{url}{path}"))
        .header(FORWARDED, app.id)
        .timeout(FORWARD_WAIT + asked_wait(parts.uri.query()))
        .body(body);
    let unsent = |error: reqwest::Error| {
        if error.is_connect() || (parts.method == Method::GET && !error.is_timeout()) {
            Unsent::Again
        } else {
            Unsent::Lost
        }
    };
    let answer = async { request.send().await.map_err(unsent) };
    let response = tokio::select! {
        response = answer => response?,
        // The old leader may never answer: a read is better off with the new one.
        () = deposed(app, leader), if parts.method == Method::GET => return Err(Unsent::Again),
    };
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = response.bytes().await.map_err(unsent)?;
    let kind = kind.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"));
    Ok((status, [(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// Returns once another member leads, or none.
async fn deposed(app: &App, leader: u64) {
    let mut metrics = app.raft.metrics();
    let _ = metrics.wait_for(|m| m.current_leader != Some(leader)).await;
}

/// How long the request itself asks to wait.
fn asked_wait(query: Option<&str>) -> Duration {
    let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let asked = pairs.find(|(name, _)| *name == "wait_ms").and_then(|(_, value)| value.parse().ok());
    Duration::from_millis(asked.unwrap_or(0).min(MAX_WAIT_MS))
}
