//! Counts and times that a member keeps for `/metrics`.
//!
//! Labels are bounded: routes are those of the API, never paths that somebody asked for.

use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where members reach each other.
const BETWEEN_MEMBERS: &str = "/raft/";

/// Upper ends of a histogram's buckets, microseconds; above the last there is one more.
const BOUNDS_US: [u64; 12] =
    [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// How long something took, each time.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn add(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took, Ordering::Relaxed);
    }

    /// Rows of a Prometheus histogram: what is added to the name, and the value.
    pub fn rows(&self) -> Vec<(String, f64)> {
        let mut count = 0;
        let mut rows = Vec::with_capacity(BOUNDS_US.len() + 3);
        for (i, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let end = BOUNDS_US.get(i).map_or("+Inf".to_string(), |us| (*us as f64 / 1e6).to_string());
            rows.push((format!("_bucket{{le=\"{end}\"}}"), count as f64));
        }
        rows.push(("_sum".into(), self.sum_us.load(Ordering::Relaxed) as f64 / 1e6));
        rows.push(("_count".into(), count as f64));
        rows
    }
}

/// Requests of the API that this member answered, by method, route and status.
#[derive(Default)]
pub struct Requests(Mutex<BTreeMap<(&'static str, String, u16), u64>>);

impl Requests {
    fn add(&self, method: &'static str, route: &str, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((method, route.to_string(), status)).or_default() += 1;
    }

    /// Labels and values.
    pub fn rows(&self) -> Vec<(String, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |((method, route, status), count): (&(&str, String, u16), &u64)| {
            (format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"), *count)
        };
        counts.iter().map(row).collect()
    }
}

/// Counts a request of the API once it is answered, refused ones included; those that fit no route are counted as one. What
/// the members say to each other is not counted.
pub async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(BETWEEN_MEMBERS) {
        return next.run(request).await;
    }
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_string();
    let response = next.run(request).await;
    app.requests.add(method, &route, response.status().as_u16());
    response
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let histogram = Histogram::default();
        for us in [100, 500, 501, 9_000_000] {
            histogram.add(Duration::from_micros(us));
        }
        let rows: BTreeMap<_, _> = histogram.rows().into_iter().collect();
        assert_eq!(rows["_bucket{le=\"0.0005\"}"], 2.0);
        assert_eq!(rows["_bucket{le=\"0.001\"}"], 3.0);
        assert_eq!(rows["_bucket{le=\"5\"}"], 3.0);
        assert_eq!(rows["_bucket{le=\"+Inf\"}"], 4.0);
        assert_eq!((rows["_count"], rows["_sum"]), (4.0, 9.001101));
    }

    #[test]
    fn requests_are_counted_by_what_they_were() {
        let requests = Requests::default();
        requests.add("GET", "/v1/volumes", 200);
        requests.add("GET", "/v1/volumes", 200);
        requests.add("GET", "/v1/volumes", 503);
        let rows = requests.rows();
        assert_eq!(rows[0], ("{method=\"GET\",route=\"/v1/volumes\",status=\"200\"}".into(), 2));
        assert_eq!(rows.len(), 2);
        assert_eq!((known(&Method::GET), known(&Method::TRACE)), ("GET", "other"));
    }
}
