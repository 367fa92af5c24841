//! Documents that are as the caller knows them are not sent again (RFC 9110 section 13.1.2); others are made smaller.

use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::compression::{CompressionLayer, predicate::Predicate};

use super::media::lists;
use crate::district::{digest::sha256, hex};

/// Answers that are larger have no tag.
const MOST: usize = 16 << 20;

/// Smaller ones are not worth it.
const WORTH: u64 = 256;

/// Gives each JSON answer to a GET a tag of what it says.
pub async fn tagged(request: Request, next: Next) -> Response {
    let asked = (request.method() == Method::GET).then(|| request.headers().clone());
    let response = next.run(request).await;
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let Some(asked) = asked.filter(|_| json && response.status() == StatusCode::OK) else { return response };
    // What is in memory already has a known length.
    if response.body().size_hint().exact().is_none_or(|length| length > MOST as u64) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MOST).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let tag = format!("W/\"{}\"", &hex::encode(&sha256(&bytes))[..32]);
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    parts.headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    if lists(&asked, header::IF_NONE_MATCH, &tag) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// Compresses documents, for who takes it: thin links. Media is compressed already, and events are not to wait.
pub fn compressed() -> CompressionLayer<impl Predicate> {
    CompressionLayer::new().compress_when(
        |status: StatusCode, _: axum::http::Version, headers: &axum::http::HeaderMap, _: &axum::http::Extensions| {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let document = kind.starts_with("application/json") || kind.starts_with("application/openmetrics-text");
            let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
            status.is_success() && document && length.is_none_or(|length| length >= WORTH)
        },
    )
}
