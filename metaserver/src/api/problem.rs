//! Errors as answers: `application/problem+json`, always.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use levee_proto::api::{Problem, ProblemKind};

/// A refused request.
#[derive(Debug)]
pub struct Failure(Problem);

impl Failure {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Failure {
        Failure(Problem::new(kind, detail))
    }

    /// Where HTTP has a more precise status than the kind.
    pub fn with_status(mut self, status: u16) -> Failure {
        self.0.status = status;
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.0)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
