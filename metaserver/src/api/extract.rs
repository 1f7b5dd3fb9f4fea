//! Path, query and body of a request, with problem details for what is wrong with them.

use super::Failure;
use crate::limits::{DEFAULT_PAGE, MAX_BODY, MAX_DISCARD};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_lite::StreamExt;
use levee_proto::api::{MAX_PAGE, Page, ProblemKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

fn invalid(detail: impl Into<String>) -> Failure {
    Failure::new(ProblemKind::Invalid, detail)
}

/// A JSON body, whatever its content type says; an empty one counts as `{}`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request.into_body()).await?;
        let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
        let value = serde_json::from_slice(bytes).map_err(|e| invalid(format!("the request's body is wrong: {e}")))?;
        Ok(Body(value))
    }
}

/// Reads a body of at most [`MAX_BODY`] bytes. What is too long is read and dropped, within a bound: a
/// connection that is closed with data under way may lose the answer.
pub async fn read(body: axum::body::Body) -> Result<Bytes, Failure> {
    let mut stream = body.into_data_stream();
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|e| invalid(format!("the request's body is incomplete: {e}")))?;
        length += piece.len();
        if length <= MAX_BODY {
            kept.extend_from_slice(&piece);
        } else if length > MAX_DISCARD {
            break;
        }
    }
    if length > MAX_BODY {
        return Err(invalid(format!("the request's body is longer than {MAX_BODY} bytes")).with_status(413));
    }
    Ok(kept.into())
}

/// Path parameters.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(rejection) => Err(invalid(format!("the request's path is wrong: {}", rejection.body_text()))),
        }
    }
}

/// Query parameters.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(rejection) => Err(invalid(format!("the request's query is wrong: {}", rejection.body_text()))),
        }
    }
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// `next` of the page before; absent for the first one.
    pub after: Option<String>,
    /// Most items to answer, 1 to 1000.
    limit: Option<usize>,
}

impl Paging {
    pub fn limit(&self) -> Result<usize, Failure> {
        match self.limit.unwrap_or(DEFAULT_PAGE) {
            0 => Err(invalid("limit must be at least 1")),
            limit => Ok(limit.min(MAX_PAGE)),
        }
    }

    /// `after` as the number of the last item that was answered.
    pub fn after_number(&self) -> Result<u32, Failure> {
        let Some(text) = &self.after else { return Ok(0) };
        text.parse().map_err(|_| invalid("after must be the 'next' of an earlier page"))
    }
}

/// Cuts a list that was read with one item too many into a page.
pub fn page<T>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}

/// A JSON answer. Built by hand so that a failure to encode is a problem, too.
pub struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let kind = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], bytes).into_response()
            }
            Err(error) => {
                Failure::new(ProblemKind::Internal, format!("the answer cannot be encoded: {error}")).into_response()
            }
        }
    }
}
