//! What the requests of one run of `levee` are called, so that they are found in the logs of servers and daemons, and so that
//! one which is sent again is known to be the same.

use levee_proto::api::{IDEMPOTENCY_HEADER, REQUEST_ID_HEADER};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

/// The id of all requests of this run.
pub fn request_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| Uuid::new_v4().simple().to_string())
}

/// A key for one change, however often it is sent.
pub fn new_key() -> String {
    static CHANGES: AtomicU32 = AtomicU32::new(0);
    format!("levee-{}-{}", request_id(), CHANGES.fetch_add(1, Ordering::Relaxed))
}

/// What every request carries.
pub fn headers() -> HeaderMap {
    let id = HeaderValue::from_static(request_id());
    HeaderMap::from_iter([(HeaderName::from_static(REQUEST_ID_HEADER), id)])
}

/// What a change carries beside.
pub fn key_header(key: &str) -> (&'static str, &str) {
    (IDEMPOTENCY_HEADER, key)
}
