//! Names every request, and logs it.
//!
//! The name comes from the client if it brings a usable one, goes on to the leader, and is in the answer, so that one word finds
//! a request in the logs of every process that touched it.

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use levee_proto::api::{REQUEST_ID_HEADER, is_valid_request_id};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;
use uuid::Uuid;

/// Marks a request that came from another member; its value is the client's address.
pub const FORWARDED: &str = "levee-forwarded";
/// What members ask of each other, thousands of times a second, is none of a client's requests.
const BETWEEN_MEMBERS: &str = "/raft/";
/// Longest path in a log line.
const SHOWN_PATH: usize = 200;

/// Who sent the request, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

pub async fn name_and_log(mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(BETWEEN_MEMBERS) {
        return next.run(request).await;
    }
    let id = asked_id(request.headers()).unwrap_or_else(new_id);
    let header = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"));
    request.headers_mut().insert(REQUEST_ID_HEADER, header.clone());
    let client = client(&request);
    request.extensions_mut().insert(Client(client));
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let began = Instant::now();
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID_HEADER, header);
    log(&id, client, &method, &path, response.status().as_u16(), began);
    response
}

fn asked_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID_HEADER)?.to_str().ok()?;
    is_valid_request_id(text).then(|| text.to_string())
}

fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// That of the member that was asked first, if another has passed the request on.
fn client(request: &Request) -> IpAddr {
    let named = request.headers().get(FORWARDED).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let connected = || request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    named.or_else(connected).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Changes are worth a line; heartbeats come every second from every daemon and are none.
fn log(id: &str, client: IpAddr, method: &Method, path: &str, status: u16, began: Instant) {
    let ms = began.elapsed().as_millis();
    let shown: String = path.chars().take(SHOWN_PATH).flat_map(char::escape_default).collect();
    let changes = matches!(*method, Method::POST | Method::DELETE) && !path.ends_with("/heartbeat");
    if changes {
        tracing::info!("request {id} from {client}: {method} {shown}: {status} in {ms} ms");
    } else {
        tracing::debug!("request {id} from {client}: {method} {shown}: {status} in {ms} ms");
    }
}
