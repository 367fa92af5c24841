//! SDP offers in, answers out (draft-ietf-wish-whep-03, RFC 9725).

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::Problem;
use crate::{
    call::{Answered, Refused},
    gateway::Unwatched,
};

/// Largest offer, in bytes.
pub(super) const MAX_OFFER: usize = 64 * 1024;

const SDP: &str = "application/sdp";

/// Refuses what does not call itself an offer.
pub(super) fn is_offer(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(SDP)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send an SDP offer as {SDP}")))
}

/// 201 with the answer; the session is at `below`, and its name.
pub(super) fn created(answered: Answered, below: &str, more: Option<(&'static str, u32)>) -> Response {
    let location = format!("{below}/{}", answered.session);
    let headers = [(header::CONTENT_TYPE, SDP.to_owned()), (header::LOCATION, location)];
    let mut response = (StatusCode::CREATED, headers, answered.answer).into_response();
    if let Some((name, value)) = more {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    response
}

/// Why there is no answer.
pub(super) fn problem(error: &Unwatched) -> Problem {
    let detail = error.to_string();
    match error {
        Unwatched::NoCamera(_) => Problem::not_found(detail),
        Unwatched::Refused(Refused::Codec(_)) => Problem::new(StatusCode::NOT_ACCEPTABLE, detail),
        Unwatched::Refused(Refused::Offer(_)) => Problem::bad_request(detail),
        Unwatched::NoPort | Unwatched::Refused(Refused::Full(_) | Refused::NoAddress) => Problem::unavailable(detail),
    }
}
