//! Who calls over HTTP: by bearer token (RFC 6750), client certificate, or the cookie of a session. With no client configured everyone may, for a first look on loopback;
//! then [`door`] sees to it that no web page from elsewhere is among them.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Problem, door,
    limits::Peer,
    session::{self, Sessions},
};
use crate::{
    gateway::{
        access::{Access, Caller, Right},
        audit::{Audit, Note},
    },
    host::clock,
};

/// What stands before some routes.
#[derive(Clone)]
pub struct Guard {
    access: Arc<Access>,
    sessions: Arc<Sessions>,
    audit: Option<Arc<Audit>>,
    right: Right,
}

impl Guard {
    /// Lets through who may do what asks for that right.
    pub fn new(access: Arc<Access>, sessions: Arc<Sessions>, right: Right) -> Self {
        Self { access, sessions, audit: None, right }
    }

    /// And writes down who asked for what, and how it was answered.
    #[must_use]
    pub fn noting(self, audit: Arc<Audit>) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// Who calls, when it may.
    fn admit(&self, request: &Request, peer: Option<&Peer>) -> Result<Caller, (Option<Caller>, Problem)> {
        let refused = |problem| (None, problem);
        let stranger = |stranger: door::Stranger| refused(Problem::new(stranger.status(), stranger.to_string()));
        if self.access.is_open() {
            door::admit(request.method(), request.headers()).map_err(stranger)?;
            return Ok(Caller::anyone());
        }
        let token = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer);
        let caller = match token {
            // Who sends a token wants to be its holder.
            Some(token) => {
                self.sessions.may_try(peer).map_err(|seconds| refused(session::locked_out(seconds)))?;
                let known = self.access.by_token(token).map(|(caller, _)| caller);
                if known.is_none() {
                    self.sessions.was_wrong(token, peer);
                }
                known
            }
            None => {
                let certificate = peer.and_then(|peer| peer.certificate.as_deref());
                let by_certificate = certificate.and_then(|name| self.access.by_certificate(name));
                if by_certificate.is_some() {
                    by_certificate
                } else {
                    let by_cookie = self.sessions.caller(request.headers(), &self.access);
                    if by_cookie.is_some() && !request.method().is_safe() {
                        door::from_own_page(request.headers()).map_err(stranger)?;
                    }
                    by_cookie
                }
            }
        };
        let Some(caller) = caller else {
            let detail = "send `Authorization: Bearer TOKEN` with the token of an [[api.client]] or one by `chowki token new`, \
                          show the certificate of an [[api.client]], or sign in at the page";
            return Err(refused(Problem::new(StatusCode::UNAUTHORIZED, detail)));
        };
        match caller.may(self.right) {
            Ok(()) => Ok(caller),
            Err(refusal) => Err((Some(caller), Problem::new(StatusCode::FORBIDDEN, refusal))),
        }
    }
}

/// Lets a request through whose caller may do it; names the caller to the handler.
pub async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let asked = guard.audit.as_ref().map(|_| (format!("{} {}", request.method(), request.uri()), piece_of(&request)));
    let (caller, response) = match guard.admit(&request, peer.as_ref()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            (Some(caller), next.run(request).await)
        }
        Err((caller, problem)) => (caller, problem.into_response()),
    };
    if let (Some(audit), Some((what, whole))) = (&guard.audit, asked) {
        note(audit, caller.as_ref(), peer.as_ref(), &what, response.status().as_u16(), whole.as_deref());
    }
    response
}

/// Longest address of a request that is written down whole, in bytes.
const WRITTEN: usize = 512;

/// Writes down who asked for what.
pub(super) fn note(
    audit: &Audit,
    caller: Option<&Caller>,
    from: Option<&Peer>,
    what: &str,
    status: u16,
    piece_of: Option<&str>,
) {
    let note = Note {
        n: 0,
        at: clock::wall(),
        who: caller.and_then(|caller| caller.name.as_deref()).map(str::to_owned),
        role: caller.map(|caller| caller.role.name().to_owned()),
        from: from.map(|peer| peer.address.to_canonical().to_string()),
        what: what.chars().take(WRITTEN).collect(),
        status,
    };
    audit.note(note, piece_of);
}

/// Of a request for one of many objects of one thing: that thing.
fn piece_of(request: &Request) -> Option<String> {
    let path = request.uri().path();
    let (folder, object) = path.rsplit_once('/')?;
    let is_one =
        object.ends_with(".m4s") || object.starts_with("init") || object.ends_with(".m3u8") || object.ends_with(".jpg");
    (request.method().is_safe() && is_one).then(|| folder.to_owned())
}

/// The token of an `Authorization` header.
pub(super) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
