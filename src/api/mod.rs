//! Floor 4: HTTP for headquarters and the page. Thin handlers over what `gateway` shows and takes.

mod audit;
pub mod auth;
mod call;
pub mod door;
mod etag;
mod evidence;
mod incidents;
mod inventory;
pub mod limits;
mod live;
mod media;
mod openapi;
pub mod page;
mod problem;
mod proof;
mod recordings;
mod routes;
mod sdp;
mod server;
pub mod session;
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
    routing::get,
};

use crate::gateway::{
    Facade,
    access::{Access, Right},
    audit::Audit,
};

use openapi::{For, Noted};
pub use problem::Problem;
pub use server::{Limits, serve};

/// What every handler works with.
#[derive(Clone)]
pub struct Api {
    /// The gateway, as seen from outside.
    pub gateway: Facade,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Who has signed in.
    pub sessions: Arc<session::Sessions>,
    /// Who saw and did what.
    pub audit: Arc<Audit>,
    /// How much each may ask for.
    pub limiter: Arc<limits::Limiter>,
    /// Whether this is the demo, whose page can press buttons.
    pub demo: bool,
}

/// The largest whole number that every reader of JSON has exactly: 2^53 - 1.
const MOST_EXACT: u64 = 9_007_199_254_740_991;

/// Largest body of a request, in bytes: who does a step, and its id.
const MAX_BODY: usize = 16 * 1024;

/// All routes. `extra` is merged behind the same door: the demo's own.
pub fn router(api: Api, extra: Router) -> Router {
    let guard = |right| auth::Guard::new(api.access.clone(), api.sessions.clone(), right);
    let behind = |guard| middleware::from_fn_with_state(guard, auth::guard);
    let mut router = page_routes();
    for (whose, routes) in routes::all() {
        let group = routes.into_iter().fold(Router::new(), |group, route| group.route(route.path, route.answers));
        router = router.merge(match whose {
            For::Anybody => group,
            For::Units => group.route_layer(middleware::from_fn_with_state(api.clone(), unit::guard)),
            For::Right(right, noted) => {
                let measured = middleware::from_fn_with_state(api.limiter.clone(), limits::in_measure);
                let guard = match noted {
                    Noted::Yes => guard(right).noting(api.audit.clone()),
                    Noted::No => guard(right),
                };
                group.route_layer(measured).route_layer(behind(guard))
            }
        });
    }
    let extra = extra.layer(behind(guard(Right::Steps)));
    router
        .with_state(api)
        .merge(extra)
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::map_response(problem::shape))
        .layer(middleware::from_fn(etag::tagged))
        .layer(etag::compressed())
        .layer(middleware::from_fn(security_headers))
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
