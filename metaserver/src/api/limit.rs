//! Refuses requests of clients that ask too often. What daemons need to do their work is never refused.

use super::Failure;
use super::trace::Client;
use crate::app::App;
use crate::rates::Busy;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use levee_proto::api::{Problem, ProblemKind};
use std::sync::Arc;
use std::time::Instant;

/// Counts each request for its client.
pub async fn by_client(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(Client(address)) = request.extensions().get().copied() else { return next.run(request).await };
    if is_free(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    match app.limiter.client(address, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(busy) => refuse(&app, busy),
    }
}

/// Counts each change for the cluster; the leader's alone.
pub fn change(app: &App, method: &Method, path: &str) -> Result<(), Box<Response>> {
    if *method == Method::GET || is_free(method, path) {
        return Ok(());
    }
    app.limiter.change(Instant::now()).map_err(|busy| Box::new(refuse(app, busy)))
}

/// What storage daemons ask, and what watches the members.
fn is_free(method: &Method, path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["v1", "nodes"] => *method == Method::POST,
        ["v1", "nodes", _, "heartbeat" | "intent"] => true,
        ["v1", "volumes", _, last] => GATEWAYS.contains(last),
        ["metrics" | "healthz"] => true,
        _ => false,
    }
}

/// What gateways ask of a volume.
const GATEWAYS: [&str; 9] =
    ["open", "allocate", "replicas", "versions", "parent", "moved", "sealed", "pruned", "flattened"];

fn refuse(app: &App, busy: Busy) -> Response {
    let rates = app.limiter.rates();
    let (detail, wait) = match busy {
        Busy::Client(wait) => {
            let rate = rates.client.unwrap_or_default();
            (format!("this address asks more than {rate} times a second, which is what a client may"), wait)
        }
        Busy::Changes(wait) => {
            let rate = rates.changes.unwrap_or_default();
            (
                format!(
                    "all clients together ask for more than {rate} changes a second, which is what the cluster takes"
                ),
                wait,
            )
        }
    };
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let detail = format!("{detail}: nothing was done; try again in {} s", seconds.max(1));
    let mut response = Failure::from(Problem::new(ProblemKind::TooMany, detail)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_are_never_refused() {
        for (method, path) in [
            (Method::POST, "/v1/nodes"),
            (Method::POST, "/v1/nodes/7/heartbeat"),
            (Method::GET, "/v1/nodes/7/intent"),
            (Method::POST, "/v1/volumes/v/open"),
            (Method::GET, "/v1/volumes/v/versions"),
            (Method::GET, "/metrics"),
        ] {
            assert!(is_free(&method, path), "{method} {path}");
        }
        for (method, path) in [
            (Method::GET, "/v1/nodes"),
            (Method::POST, "/v1/volumes"),
            (Method::POST, "/v1/volumes/open"),
            (Method::POST, "/v1/volumes/v/attach"),
            (Method::DELETE, "/v1/volumes/v"),
        ] {
            assert!(!is_free(&method, path), "{method} {path}");
        }
    }
}
