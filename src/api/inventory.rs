//! The district, what stands in it, and how the gateway itself is.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Api, Problem};
use crate::district::{
    ids::CameraId,
    inventory::{Camera, View},
};

/// `GET /healthz`: 200 while the desk turns and the journal takes entries, 503 otherwise.
pub(super) async fn healthz(State(api): State<Api>) -> Response {
    match api.gateway.ailment() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(why) => Problem::unavailable(why).into_response(),
    }
}

/// `GET /metrics`: Prometheus text (OpenMetrics 1.0).
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.gateway.metrics()).into_response()
}

/// `GET /v1/district`.
pub(super) async fn district(State(api): State<Api>) -> Json<Value> {
    let district = api.gateway.district();
    let bounds = district.bounds.map(|b| [b.south_west, b.north_east]);
    Json(json!({
        "district": { "id": district.id, "name": district.name, "bounds": bounds },
        "version": env!("CARGO_PKG_VERSION"),
        "demo": api.demo,
    }))
}

/// `GET /v1/status`.
pub(super) async fn status(State(api): State<Api>) -> Json<Value> {
    Json(json!(api.gateway.board().status_now()))
}

/// `GET /v1/buttons`.
pub(super) async fn buttons(State(api): State<Api>) -> Json<Value> {
    let board = api.gateway.board();
    let line = |b: &std::sync::Arc<crate::district::inventory::Button>| {
        json!({
            "id": b.id, "name": b.name, "at": b.at,
            "condition": board.condition_of(&b.id),
            "unit": b.has_camera().then(|| CameraId::of_unit(&b.id)), "kind": b.kind(),
        })
    };
    Json(json!({ "buttons": api.gateway.inventory().buttons().iter().map(line).collect::<Vec<_>>() }))
}

/// `GET /v1/cameras`.
pub(super) async fn cameras(State(api): State<Api>) -> Json<Value> {
    let board = api.gateway.board();
    let line = |c: &std::sync::Arc<Camera>| {
        let View { sector, range_m } = c.view;
        let now = board.camera_of(&c.id);
        json!({
            "id": c.id, "name": c.name, "at": c.at,
            "facing": sector.map(|(facing, _)| facing.degrees()), "field_of_view": sector.map(|(_, width)| width),
            "range": range_m,
            "state": now.as_ref().map(|n| n.state), "detail": now.as_ref().map(|n| n.detail.as_str()),
        })
    };
    Json(json!({ "cameras": api.gateway.inventory().cameras().iter().map(line).collect::<Vec<_>>() }))
}
