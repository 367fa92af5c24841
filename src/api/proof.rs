//! The proof of what whoever pulls is given of an incident: as it is served now, to the byte.

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::json;

use super::{Api, Problem, incidents};
use crate::{
    gateway::shelf,
    media::audit::{MANIFEST, PLAYLIST},
    spool::Kept,
};

/// `GET /v1/incidents/{id}/proof.json`: signs `/v1/incidents/{id}`, and of each camera whose evidence has ended and is all
/// here its `index.m3u8` and `manifest.json`.
pub(super) async fn proof(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = incidents::parse(&id)?;
    let Some(incident) = api.gateway.board().incident_of(id) else {
        return Err(Problem::not_found(format!("no incident {id} here")));
    };
    let failed = |e: crate::spool::Error| Problem::unavailable(format!("the media log cannot be read: {e}"));
    let clock = incident.pressed_at.clock_correction;
    let mut lists = Vec::new();
    for evidence in &incident.evidence {
        let held = api.gateway.media().evidence(id, &evidence.camera).await.map_err(failed)?;
        if !evidence.ended || held.is_empty() || held.len() < evidence.object_count {
            continue;
        }
        let folder = shelf::folder(&api.gateway.district().id, Kept::Evidence { incident: id }, &evidence.camera);
        let manifest = serde_json::to_vec(&shelf::manifest(folder, &held, evidence, clock)).unwrap_or_default();
        let playlist = shelf::playlist(&held, evidence, clock);
        lists.push((format!("{}/{PLAYLIST}", evidence.camera), Bytes::from(playlist)));
        lists.push((format!("{}/{MANIFEST}", evidence.camera), Bytes::from(manifest)));
    }
    let document = serde_json::to_vec(&json!(incident.as_ref())).unwrap_or_default();
    let Some(proof) = api.gateway.sign(&incident, &document, &lists) else {
        return Err(Problem::not_found("evidence is not signed here: see the alarms in /v1/status"));
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, proof.bytes()).into_response())
}
