//! Live pictures for browsers: WHEP (draft-ietf-wish-whep-03). An SDP offer in, the answer out; the session lives until the
//! browser goes or deletes it.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{Api, Problem, sdp};
use crate::{call::SessionId, district::ids::CameraId};

/// `POST /v1/cameras/{id}/whep`: 201 with the answer; `Location` is the session.
pub(super) async fn begin(
    State(api): State<Api>,
    Path(camera): Path<String>,
    headers: HeaderMap,
    offer: String,
) -> Result<Response, Problem> {
    sdp::is_offer(&headers)?;
    let id: CameraId =
        camera.parse().map_err(|e| Problem::bad_request(format!("{camera:?} is no camera's id: {e}")))?;
    let answered = api.gateway.watch(&id, &offer).map_err(|e| sdp::problem(&e))?;
    Ok(sdp::created(answered, &format!("/v1/cameras/{id}/whep"), None))
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
