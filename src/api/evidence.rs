//! Evidence as it stands in this gateway's media log: the playlist, while it still grows, and its objects.

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};

use super::{Api, Problem, incidents};
use crate::{district::ids::CameraId, gateway::shelf};

/// `GET /v1/incidents/{id}/cameras/{camera}/{object}`: `index.m3u8`, `init.mp4`, `00001.m4s`, ...
pub(super) async fn object(
    State(api): State<Api>,
    Path((id, camera, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let id = incidents::parse(&id)?;
    let camera: CameraId = camera.parse().map_err(|e| Problem::bad_request(format!("{camera:?}: {e}")))?;
    let Some(incident) = api.gateway.board().incident_of(id) else {
        return Err(Problem::not_found(format!("no incident {id} here")));
    };
    let Some(evidence) = incident.evidence.iter().find(|e| e.camera == camera) else {
        return Err(Problem::not_found(format!("no evidence of {camera} is kept for this incident")));
    };
    let failed = |e: crate::spool::Error| Problem::unavailable(format!("the media log cannot be read: {e}"));
    let held = api.gateway.media().evidence(id, &camera).await.map_err(failed)?;
    if name == "index.m3u8" {
        let list = shelf::playlist(&held, evidence, incident.pressed_at.clock_correction);
        let headers = [(header::CONTENT_TYPE, "application/vnd.apple.mpegurl"), (header::CACHE_CONTROL, "no-store")];
        return Ok((headers, list).into_response());
    }
    let Some(object) = held.iter().find(|o| o.meta.name == name) else {
        return Err(Problem::not_found(format!("{camera} has no {name} for this incident; see index.m3u8")));
    };
    let bytes = api.gateway.media().read(object).await.map_err(failed)?;
    let kind = if name.ends_with(".mp4") { "video/mp4" } else { "video/iso.segment" };
    // An object of evidence never changes.
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=86400, immutable")];
    Ok((headers, bytes).into_response())
}
