//! Every request to the admin endpoint has an id, the client's or one of ours; it is answered, and logged with the outcome.

use crate::control::request_id::taken_over;
use axum::extract::Request;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use levee_proto::api::REQUEST_ID_HEADER;
use std::time::Instant;
use tracing::{debug, info};

pub async fn log(request: Request, next: Next) -> Response {
    let id = taken_over(request.headers().get(REQUEST_ID_HEADER).and_then(|v| v.to_str().ok()));
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let begun = Instant::now();
    let mut response = next.run(request).await;
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_millis());
    match method {
        Method::GET | Method::HEAD => debug!(request_id = id, "{method} {path}: {status} after {ms} ms"),
        _ => info!(request_id = id, "{method} {path}: {status} after {ms} ms"),
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}
