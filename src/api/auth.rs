//! Who calls over HTTP, by bearer token (RFC 6750). With no client configured everyone may, for a first look on loopback;
//! then [`door`] sees to it that no web page from elsewhere is among them.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Problem, door};
use crate::gateway::access::{Access, Caller, Right};

/// Lets a request through whose caller may do it; names the caller to the handler.
pub async fn guard(State((access, right)): State<(Arc<Access>, Right)>, mut request: Request, next: Next) -> Response {
    if access.is_open() {
        if let Err(stranger) = door::admit(request.method(), request.headers()) {
            return Problem::new(stranger.status(), stranger.to_string()).into_response();
        }
        request.extensions_mut().insert(Caller::anyone());
        return next.run(request).await;
    }
    let token = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer);
    let Some(caller) = token.and_then(|t| access.by_token(t)) else {
        let detail = "send `Authorization: Bearer TOKEN` with the token of an [[api.client]]";
        return Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    };
    if let Err(refusal) = caller.may(right) {
        return Problem::new(StatusCode::FORBIDDEN, refusal).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The token of an `Authorization` header.
pub(super) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
