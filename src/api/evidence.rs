//! Evidence as it stands in this gateway's media log: as one file, as a playlist, while it still grows, and its objects.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{Api, Problem, incidents, limits::Peer, media, recordings};
use crate::{
    gateway::{access::Caller, shelf},
    spool::Kept,
};

/// `GET /v1/incidents/{id}/cameras/{camera}.mp4`: all of it as one file, also while it still grows.
pub(super) async fn file(
    State(api): State<Api>,
    Path((id, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = incidents::parse(&id)?;
    let Some(camera) = name.strip_suffix(".mp4") else {
        return Err(Problem::not_found(format!("no such file; ask for {name}.mp4, or for {name}/index.m3u8")));
    };
    let camera = recordings::parse(camera)?;
    let pass = api.limiter.file(&caller, peer.as_deref())?;
    let Some(evidence) = api.gateway.evidence(id, &camera).await else {
        return Err(Problem::not_found(format!("no evidence of {camera} is kept for an incident {id}")));
    };
    let (reel, gaps) = evidence?;
    media::answer(reel, &gaps, &headers, pass)
}

/// `GET /v1/incidents/{id}/cameras/{camera}/{object}`: `index.m3u8`, `manifest.json`, `init.mp4`, `00001.m4s`, ...
pub(super) async fn object(
    State(api): State<Api>,
    Path((id, camera, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let id = incidents::parse(&id)?;
    let camera = recordings::parse(&camera)?;
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
        let headers = [(header::CONTENT_TYPE, media::HLS), (header::CACHE_CONTROL, "no-store")];
        return Ok((headers, list).into_response());
    }
    if name == "manifest.json" {
        let subject = shelf::folder(&api.gateway.district().id, Kept::Evidence { incident: id }, &camera);
        let manifest = shelf::manifest(subject, &held, evidence, incident.pressed_at.clock_correction);
        return Ok(([(header::CACHE_CONTROL, "no-store")], Json(manifest)).into_response());
    }
    let Some(object) = held.iter().find(|o| o.meta.name == name) else {
        return Err(Problem::not_found(format!("{camera} has no {name} for this incident; see index.m3u8")));
    };
    let bytes = api.gateway.media().read(object).await.map_err(failed)?;
    Ok(media::object(&name, bytes))
}
