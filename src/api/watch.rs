//! Live pictures for browsers: WHEP (draft-ietf-wish-whep-03). An SDP offer in, the answer out; the session lives until the
//! browser goes or deletes it.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Api, Problem};
use crate::{
    call::{Refused, SessionId},
    gateway::Unwatched,
};

/// Largest offer, in bytes.
pub(super) const MAX_OFFER: usize = 64 * 1024;

const SDP: &str = "application/sdp";

/// `POST /v1/cameras/{id}/whep`: 201 with the answer; `Location` is the session.
pub(super) async fn begin(
    State(api): State<Api>,
    Path(camera): Path<String>,
    headers: HeaderMap,
    offer: String,
) -> Result<Response, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(SDP)) {
        let detail = format!("send an SDP offer as {SDP}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let id = camera.parse().map_err(|e| Problem::bad_request(format!("{camera:?} is no camera's id: {e}")))?;
    let answered = api.gateway.watch(&id, &offer).map_err(problem)?;
    let location = format!("/v1/cameras/{id}/whep/{}", answered.session);
    let headers = [(header::CONTENT_TYPE, SDP.to_owned()), (header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, answered.answer).into_response())
}

/// `DELETE` of what `Location` said: ends the session.
pub(super) async fn end(
    State(api): State<Api>,
    Path((_, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match api.gateway.hang_up(&SessionId::of(&session)) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("no such session; it may have ended already")),
    }
}

fn problem(error: Unwatched) -> Problem {
    let detail = error.to_string();
    match error {
        Unwatched::NoCamera(_) => Problem::not_found(detail),
        Unwatched::Refused(Refused::Codec(_)) => Problem::new(StatusCode::NOT_ACCEPTABLE, detail),
        Unwatched::Refused(Refused::Offer(_)) => Problem::bad_request(detail),
        Unwatched::NoPort | Unwatched::Refused(Refused::Full(_) | Refused::NoAddress) => Problem::unavailable(detail),
    }
}
