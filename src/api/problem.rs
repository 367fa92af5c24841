//! Errors as RFC 9457 problem documents.

use axum::{
    Json,
    body::{Body, to_bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

/// What went wrong with a request, and what to do next.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// What was wrong with this request.
    pub detail: String,
    /// After how many seconds it may go better.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem of that status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { status: status.as_u16(), title, detail: detail.into(), retry_after: None }
    }
    /// Nothing there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
    /// The request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
    /// Too much at once, or too often; after so many seconds again (RFC 6585 section 4).
    pub fn too_many(detail: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }
    /// The gateway cannot do it now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let kind = axum::http::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Longest refusal of the HTTP library that is repeated, in bytes.
const SAID: usize = 1024;

/// What the HTTP library refuses by itself (a method, a query, a body that is too large) it says in plain text; this makes
/// a problem document of it. Its other headers stay, such as `Allow`.
pub async fn shape(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let shaped = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if !refused || shaped {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = to_bytes(body, SAID).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let detail = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take that method; the header Allow says which it takes",
        _ if said.trim().is_empty() => "the request cannot be answered",
        _ => said.trim(),
    };
    let problem = Problem::new(status, detail).into_response();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(problem.headers().clone());
    Response::from_parts(parts, Body::new(problem.into_body()))
}

/// What an unknown path answers.
pub async fn not_found() -> Problem {
    Problem::not_found("no such path; the API begins at /v1")
}
