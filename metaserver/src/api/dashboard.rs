//! The dashboard: a page of our own that shows what the API tells. It needs nothing from anywhere else, and may not: its policy
//! lets it load from, and speak to, this server only.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("../../dashboard/index.html");
const STYLE: &str = include_str!("../../dashboard/style.css");
const ICON: &str = include_str!("../../dashboard/icon.svg");
/// One file of small modules, in this order.
const SCRIPT: &str = concat!(
    include_str!("../../dashboard/dom.js"),
    include_str!("../../dashboard/format.js"),
    include_str!("../../dashboard/tables.js"),
    include_str!("../../dashboard/heatmap.js"),
    include_str!("../../dashboard/main.js"),
);

const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

pub async fn page() -> Response {
    file("text/html; charset=utf-8", PAGE)
}

pub async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

pub async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

pub async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // The server may be another version tomorrow.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}
