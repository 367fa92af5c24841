//! Who may call and what each may do, by bearer token (RFC 6750). With no client configured everyone may, for a first
//! look on loopback; then [`door`] sees to it that no web page from elsewhere is among them.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Problem, door};
use crate::config::{ApiClient, Role};

/// The clients of the config, their tokens hashed.
#[derive(Debug, Default)]
pub struct Access {
    clients: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    role: Role,
    group: Arc<str>,
    token_hash: digest::Digest,
}

/// What a route asks of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To see how the gateway, its buttons and cameras are: everybody.
    States,
    /// To read incidents and their evidence: operators and pullers.
    Incidents,
    /// To take the steps of an incident: operators.
    Steps,
}

impl Right {
    fn of(self, role: Role) -> bool {
        match self {
            Self::States => true,
            Self::Incidents => matches!(role, Role::Operator | Role::Supervisor | Role::Puller),
            Self::Steps => matches!(role, Role::Operator | Role::Supervisor),
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::States => "may not see this",
            Self::Incidents => "sees states and metrics; incidents and their evidence are for operators and pullers",
            Self::Steps => "may read only; the steps of an incident are an operator's",
        }
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name in the config; `None` when no client is configured.
    pub name: Option<Arc<str>>,
    /// What it may do. Where no client is configured everybody may everything.
    pub role: Role,
    /// Which group of the call it belongs to; `None` when no client is configured: it hears every ring.
    pub group: Option<Arc<str>>,
}

impl Access {
    /// These clients may call.
    pub fn new(clients: &[ApiClient]) -> Self {
        let known = |c: &ApiClient| Known {
            name: c.name.as_str().into(),
            role: c.role,
            group: c.group.as_str().into(),
            token_hash: digest::digest(&digest::SHA256, c.token.reveal().as_bytes()),
        };
        Self { clients: clients.iter().map(known).collect() }
    }

    /// Whose token it is. Every token is compared, each in constant time.
    fn identify(&self, token: &str) -> Option<&Known> {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let mut found = None;
        for known in &self.clients {
            if constant_time::verify_slices_are_equal(hash.as_ref(), known.token_hash.as_ref()).is_ok() {
                found = Some(known);
            }
        }
        found
    }
}

/// Lets a request through whose caller may do it; names the caller to the handler.
pub async fn guard(State((access, right)): State<(Arc<Access>, Right)>, mut request: Request, next: Next) -> Response {
    if access.clients.is_empty() {
        if let Err(stranger) = door::admit(request.method(), request.headers()) {
            return Problem::new(stranger.status(), stranger.to_string()).into_response();
        }
        request.extensions_mut().insert(Caller { name: None, role: Role::Supervisor, group: None });
        return next.run(request).await;
    }
    let token = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer);
    let Some(known) = token.and_then(|t| access.identify(t)) else {
        let detail = "send `Authorization: Bearer TOKEN` with the token of an [[api.client]]";
        return Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    };
    if !right.of(known.role) {
        let detail = format!("{} {}", known.name, right.refusal());
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    let (name, group) = (Some(known.name.clone()), Some(known.group.clone()));
    request.extensions_mut().insert(Caller { name, role: known.role, group });
    next.run(request).await
}

/// The token of an `Authorization` header.
pub(super) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
