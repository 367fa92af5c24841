//! Floor 4: HTTP for headquarters and the page. Thin handlers over what `gateway` shows and takes.

pub mod auth;
mod call;
pub mod door;
mod evidence;
mod incidents;
mod inventory;
pub mod limits;
mod live;
mod media;
pub mod page;
mod problem;
mod proof;
mod recordings;
mod sdp;
mod server;
mod stream;
mod unit;
mod watch;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderMap, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::{MethodRouter, delete, get, post},
};

use crate::gateway::{
    Facade,
    access::{Access, Right},
};

pub use problem::Problem;
pub use server::{Limits, serve};

/// What every handler works with.
#[derive(Clone)]
pub struct Api {
    /// The gateway, as seen from outside.
    pub gateway: Facade,
    /// Who may do what.
    pub access: Arc<Access>,
    /// How much each may ask for.
    pub limiter: Arc<limits::Limiter>,
    /// Whether this is the demo, whose page can press buttons.
    pub demo: bool,
}

/// Largest body of a request, in bytes: who does a step, and its id.
const MAX_BODY: usize = 16 * 1024;

/// All routes. `extra` is merged behind the same door: the demo's own.
pub fn router(api: Api, extra: Router) -> Router {
    let open = Router::new().route("/healthz", get(inventory::healthz)).merge(page_routes());
    let measure = middleware::from_fn_with_state(api.limiter.clone(), limits::in_measure);
    let behind = |right| middleware::from_fn_with_state((api.access.clone(), right), auth::guard);
    let states = Router::new()
        .route("/metrics", get(inventory::metrics))
        .route("/v1/district", get(inventory::district))
        .route("/v1/status", get(inventory::status))
        .route("/v1/buttons", get(inventory::buttons))
        .route("/v1/cameras", get(inventory::cameras))
        .route("/v1/me", get(call::me))
        .route_layer(measure.clone())
        .route_layer(behind(Right::States));
    let incidents = Router::new()
        .route("/v1/events", get(live::events))
        .route("/v1/incidents", get(incidents::list))
        .route("/v1/incidents/{id}", get(incidents::one))
        .route("/v1/incidents/{id}/proof.json", get(proof::proof))
        .route("/v1/cameras/{id}/coverage", get(recordings::coverage))
        .route("/v1/cameras/{id}/recording.mp4", get(recordings::recording))
        .route("/v1/cameras/{id}/recording.m3u8", get(recordings::playlist))
        .route("/v1/cameras/{id}/still.jpg", get(recordings::still))
        .route("/v1/cameras/{id}/recordings/{day}/{object}", get(recordings::object))
        .route("/v1/cameras/{id}/whep", offer(post(watch::begin)))
        .route("/v1/cameras/{id}/whep/{session}", delete(watch::end))
        .route("/v1/incidents/{id}/cameras/{file}", get(evidence::file))
        .route("/v1/incidents/{id}/cameras/{camera}/{object}", get(evidence::object))
        .route("/v1/calls", get(call::list))
        .route("/v1/ice-servers", get(call::ice_servers))
        .route_layer(measure.clone())
        .route_layer(behind(Right::Incidents));
    let steps = Router::new()
        .route("/v1/incidents/{id}/seen", post(incidents::seen))
        .route("/v1/incidents/{id}/dispatched", post(incidents::dispatched))
        .route("/v1/incidents/{id}/close", post(incidents::close))
        .route("/v1/incidents/{id}/call", offer(post(call::join)))
        .route("/v1/incidents/{id}/call/{session}", delete(call::leave))
        .route("/v1/incidents/{id}/call/{session}/hand-over", post(call::hand_over))
        .route("/v1/incidents/{id}/call/{session}/{what}", post(call::ask))
        .route_layer(measure.clone())
        .route_layer(behind(Right::Steps));
    let units = Router::new()
        .route("/v1/units/{button}/session", offer(post(unit::begin)))
        .route("/v1/units/{button}/session/{session}", delete(unit::end))
        .route("/v1/units/{button}/press", post(unit::press))
        .route("/v1/units/{button}/events", get(unit::events))
        .route("/v1/units/{button}/ice-servers", get(call::ice_servers))
        .route("/v1/units/{button}/prompts/{name}", get(unit::prompt))
        .route_layer(middleware::from_fn_with_state(api.clone(), unit::guard));
    let extra = extra.layer(behind(Right::Steps));
    open.merge(states)
        .merge(incidents)
        .merge(steps)
        .merge(units)
        .with_state(api)
        .merge(extra)
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::map_response(problem::shape))
        .layer(middleware::from_fn(security_headers))
}

/// SDP is larger than what else is sent.
fn offer(route: MethodRouter<Api>) -> MethodRouter<Api> {
    route.layer(DefaultBodyLimit::max(sdp::MAX_OFFER))
}

/// The page's own files need no token: without one they show nothing.
fn page_routes() -> Router<Api> {
    let file = |request: Request| async move { page_file(request.uri().path()) };
    let assets = page::ASSETS.iter().fold(Router::new(), |router, asset| router.route(asset.path, get(file)));
    assets.route("/unit/{button}", get(|| async { page_file("/page/unit.html") }))
}

fn page_file(path: &str) -> Response {
    use axum::response::IntoResponse;
    match page::asset(path) {
        Some(asset) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            if path == page::UNIT_WORKER {
                headers.insert("service-worker-allowed", HeaderValue::from_static("/unit/"));
            }
            (headers, asset.bytes).into_response()
        }
        None => Problem::not_found("no such file").into_response(),
    }
}

async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
