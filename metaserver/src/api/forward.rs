//! Brings each request to the leader, over one hop at most.
//!
//! A request waits for a bounded time while no leader is known. It is sent again only if it surely was
//! not executed: the connection could not be made, or it changes nothing.

use super::Failure;
use super::trace::{Client, FORWARDED};
use super::{extract, limit};
use crate::app::App;
use crate::limits::*;
use crate::request::{Keyed, fingerprint};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use levee_meta_state::is_valid_key;
use levee_meta_state::limits::MAX_KEY;
use levee_proto::api::{IDEMPOTENCY_HEADER, MAX_WAIT_MS, ProblemKind, REQUEST_ID_HEADER};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What goes on to the leader beside method, path and body.
const CARRIED: [&str; 2] = [REQUEST_ID_HEADER, IDEMPOTENCY_HEADER];
/// The level from which on the group knows keys. Before, during an upgrade, changes are made without.
const LEVEL_OF_KEYS: u32 = 2;
/// What comes back from it beside status and body.
const ANSWERED: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

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
                return carry_out(&app, parts, body, next).await;
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

/// Here, for this member leads.
async fn carry_out(app: &App, parts: Parts, body: Bytes, next: Next) -> Response {
    if let Err(refusal) = limit::change(app, &parts.method, parts.uri.path()) {
        return *refusal;
    }
    let keyed = match keyed(app, &parts, &body).await {
        Ok(keyed) => keyed,
        Err(failure) => return failure.into_response(),
    };
    let work = next.run(Request::from_parts(parts, Body::from(body)));
    match keyed {
        Some(keyed) => keyed.scope(work).await,
        None => work.await,
    }
}

/// The request's idempotency key, if it has one and changes something.
async fn keyed(app: &App, parts: &Parts, body: &Bytes) -> Result<Option<Keyed>, Failure> {
    let Some(header) = parts.headers.get(IDEMPOTENCY_HEADER).filter(|_| parts.method != Method::GET) else {
        return Ok(None);
    };
    let key = header.to_str().ok().filter(|key| is_valid_key(key)).ok_or_else(|| {
        let detail = format!("{IDEMPOTENCY_HEADER} must be 1 to {MAX_KEY} printable ASCII characters");
        Failure::new(ProblemKind::Invalid, detail)
    })?;
    if app.replicated.read(|state| state.level()) < LEVEL_OF_KEYS {
        return Ok(None);
    }
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let fingerprint = fingerprint(&[parts.method.as_str().as_bytes(), path.as_bytes(), body]);
    // A leader that has not caught up would not know that it was answered.
    app.barrier.pass().await?;
    let repeated = app.replicated.read(|state| state.knows_key(key, &fingerprint))?;
    Ok(Some(Keyed::new(key.to_string(), fingerprint, repeated)))
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
    let url = app.directory().url(leader, None).ok_or(Unsent::Again)?;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let request = app
        .http
        .request(parts.method.clone(), format!("{url}{path}"))
        .header(FORWARDED, parts.extensions.get().map_or_else(String::new, |Client(address)| address.to_string()))
        .timeout(FORWARD_WAIT + asked_wait(parts.uri.query()))
        .body(body);
    let request = CARRIED.iter().fold(request, |request, name| match parts.headers.get(*name) {
        Some(value) => request.header(*name, value),
        None => request,
    });
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
        // The old leader may never answer: a read is better off with the new one, and a change is perhaps done.
        () = deposed(app, leader) => {
            return Err(if parts.method == Method::GET { Unsent::Again } else { Unsent::Lost });
        }
    };
    let status = response.status();
    let headers: HeaderMap =
        ANSWERED.iter().filter_map(|name| Some((name.clone(), response.headers().get(name)?.clone()))).collect();
    let bytes = response.bytes().await.map_err(unsent)?;
    // Without a body of its own, the answer's type is none.
    let mut answer = (status, bytes).into_response();
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer.headers_mut().extend(headers);
    Ok(answer)
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
