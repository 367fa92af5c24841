//! What the demo's page can do beside what every page can: press a button, pull the plug, fail a camera.

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use serde::Deserialize;

use super::Demo;
use crate::api::Problem;

/// The routes; they work once the demo runs.
pub fn routes(demo: Arc<OnceLock<Demo>>) -> Router {
    Router::new()
        .route("/demo/press/{button}", post(press))
        .route("/demo/backhaul", post(backhaul))
        .route("/demo/camera/{camera}", post(camera))
        .with_state(demo)
}

type Shared = State<Arc<OnceLock<Demo>>>;

#[derive(Deserialize)]
struct Up {
    up: bool,
}

fn running(demo: &OnceLock<Demo>) -> Result<&Demo, Problem> {
    demo.get().ok_or_else(|| Problem::unavailable("the demo is still starting"))
}

async fn press(State(demo): Shared, Path(button): Path<String>) -> Result<StatusCode, Problem> {
    match running(&demo)?.devices.press(&button, "panic") {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(Problem::not_found(format!("no demo button {button}"))),
    }
}

async fn backhaul(State(demo): Shared, Json(Up { up }): Json<Up>) -> Result<StatusCode, Problem> {
    match running(&demo)?.plug.set_up(up) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(e) => Err(Problem::unavailable(format!("the plug is stuck: {e}"))),
    }
}

async fn camera(
    State(demo): Shared,
    Path(camera): Path<String>,
    Json(Up { up }): Json<Up>,
) -> Result<StatusCode, Problem> {
    match running(&demo)?.cameras.set_up(&camera, up) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format!("no demo camera {camera}"))),
    }
}
