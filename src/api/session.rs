//! Signing in at the page: a token once, then a cookie (RFC 6265). What the browser holds cannot be read by its pages, is
//! sent by this gateway's own pages only, ends when nobody uses it, and with the token that it stands for.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand;
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Api, Problem, auth, limits::Peer};
use crate::{
    district::{clock::Mono, digest::sha256},
    gateway::access::{Access, Caller, TokenHash},
    host::{clock, doors::network},
};

/// The cookie's name.
const COOKIE: &str = "chowki-session";

/// A session ends when it is not used for so long, and after so long in any case.
const IDLE: Duration = Duration::from_secs(3_600);
const LONGEST: Duration = Duration::from_secs(12 * 3_600);

/// Sessions at a time. With more the one that was not used for longest ends.
const SESSIONS: usize = 1_024;

/// Wrong tokens from one address, each another, after which it is locked out: whoever sends one again and again that was
/// taken back locks nobody out. First for this long, then twice as long each time, up to that.
const WRONG: u32 = 10;
const LOCKED: Duration = Duration::from_secs(30);
const LOCKED_MOST: Duration = Duration::from_secs(900);

/// Wrong tokens are forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(1_800);

/// Addresses that are remembered.
const ADDRESSES: usize = 4_096;

/// Who has signed in, and who may not try for now.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<[u8; 32], Session>>,
    wrong: Mutex<HashMap<IpAddr, Wrong>>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    token: TokenHash,
    begun: Mono,
    used: Mono,
}

/// What came from an address.
#[derive(Debug, Clone)]
struct Wrong {
    count: u32,
    /// The latest of them, hashed.
    tokens: VecDeque<[u8; 32]>,
    last: Mono,
    locked_until: Option<Mono>,
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<IpAddr, Wrong>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session of a token's holder; the cookie's value.
    fn begin(&self, token: TokenHash) -> Option<String> {
        let mut random = [0; 32];
        rand::fill(&mut random).ok()?;
        let value = URL_SAFE_NO_PAD.encode(random);
        let now = clock::mono();
        let mut open = self.open();
        open.retain(|_, session| session.is_open(now));
        if open.len() >= SESSIONS
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| *key)
        {
            open.remove(&oldest);
        }
        open.insert(sha256(value.as_bytes()), Session { token, begun: now, used: now });
        Some(value)
    }

    /// Whose session a request is of.
    pub(super) fn caller(&self, headers: &HeaderMap, access: &Access) -> Option<Caller> {
        let now = clock::mono();
        let key = sha256(cookie(headers)?.as_bytes());
        let mut open = self.open();
        let session = open.get_mut(&key).filter(|session| session.is_open(now))?;
        session.used = now;
        // A token that was taken back ends what it began.
        access.by_hash(&session.token)
    }

    fn end(&self, headers: &HeaderMap) {
        if let Some(value) = cookie(headers) {
            self.open().remove(&sha256(value.as_bytes()));
        }
    }

    /// For how long an address is locked out yet.
    ///
    /// # Errors
    /// Seconds, when it is.
    pub(super) fn may_try(&self, from: Option<&Peer>) -> Result<(), u32> {
        let Some(peer) = from else { return Ok(()) };
        let wrong = self.wrong();
        let until = wrong.get(&network(peer.address)).and_then(|wrong| wrong.locked_until);
        let left = until.map_or(Duration::ZERO, |until| until.since(clock::mono()));
        if left.is_zero() { Ok(()) } else { Err(u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(1)) }
    }

    /// A wrong token came from there.
    pub(super) fn was_wrong(&self, token: &str, from: Option<&Peer>) {
        let Some(peer) = from else { return };
        let now = clock::mono();
        let mut wrong = self.wrong();
        if wrong.len() >= ADDRESSES {
            wrong.retain(|_, wrong| now.since(wrong.last) < FORGOTTEN);
        }
        if wrong.len() >= ADDRESSES {
            return;
        }
        let entry = wrong.entry(network(peer.address)).or_insert_with(|| Wrong {
            count: 0,
            tokens: VecDeque::new(),
            last: now,
            locked_until: None,
        });
        let token = sha256(token.as_bytes());
        if entry.tokens.contains(&token) {
            return;
        }
        if entry.tokens.len() == WRONG as usize {
            entry.tokens.pop_front();
        }
        entry.tokens.push_back(token);
        if now.since(entry.last) >= FORGOTTEN {
            entry.count = 0;
        }
        (entry.count, entry.last) = (entry.count + 1, now);
        if entry.count >= WRONG {
            let times = 2_u32.saturating_pow(entry.count - WRONG);
            entry.locked_until = Some(now + LOCKED.saturating_mul(times).min(LOCKED_MOST));
        }
    }

    /// A right one came.
    pub(super) fn was_right(&self, from: Option<&Peer>) {
        if let Some(peer) = from {
            self.wrong().remove(&network(peer.address));
        }
    }
}

impl Session {
    fn is_open(&self, now: Mono) -> bool {
        now.since(self.used) < IDLE && now.since(self.begun) < LONGEST
    }
}

/// The session's cookie of a request.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// What is sent to sign in.
#[derive(Deserialize, JsonSchema)]
pub(super) struct SignIn {
    /// Of an [[api.client]], or one by `chowki token new`.
    token: String,
}

/// `POST /v1/session`: signs in. 204 with the cookie; 401 for a wrong token; 429 after too many of them.
pub(super) async fn begin(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Json(SignIn { token }): Json<SignIn>,
) -> Result<Response, Problem> {
    let from = peer.as_deref();
    let refused = |problem: Problem| {
        auth::note(&api.audit, None, from, "POST /v1/session", problem.status, None);
        Err(problem)
    };
    if let Err(seconds) = api.sessions.may_try(from) {
        return refused(locked_out(seconds));
    }
    let Some((caller, hash)) = api.access.by_token(&token) else {
        api.sessions.was_wrong(&token, from);
        return refused(Problem::new(StatusCode::UNAUTHORIZED, "nobody has this token, or it was taken back"));
    };
    api.sessions.was_right(from);
    // Signed in anew: what was there before ends.
    api.sessions.end(&headers);
    let Some(value) = api.sessions.begin(hash) else {
        return refused(Problem::unavailable("the system gives no random numbers"));
    };
    auth::note(&api.audit, Some(&caller), from, "POST /v1/session", StatusCode::NO_CONTENT.as_u16(), None);
    Ok(set(&value, LONGEST, from))
}

/// `DELETE /v1/session`: signs out.
pub(super) async fn end(State(api): State<Api>, peer: Option<Extension<Peer>>, headers: HeaderMap) -> Response {
    api.sessions.end(&headers);
    set("", Duration::ZERO, peer.as_deref())
}

/// What an address that sent too many wrong tokens is told.
pub(super) fn locked_out(seconds: u32) -> Problem {
    Problem::too_many("too many wrong tokens came from your address; it has to wait", seconds)
}

fn set(value: &str, age: Duration, from: Option<&Peer>) -> Response {
    let secure = if from.is_some_and(|peer| peer.secure) { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", age.as_secs());
    let mut answer = StatusCode::NO_CONTENT.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer { address: address.parse().unwrap(), certificate: None, secure: false }
    }

    #[test]
    fn an_address_that_guesses_is_locked_out_for_longer_and_longer_and_no_other_is() {
        let sessions = Sessions::default();
        let (bad, good) = (peer("10.0.0.1"), peer("10.0.0.2"));
        for n in 1..WRONG {
            for _ in 0..20 {
                sessions.was_wrong(&n.to_string(), Some(&bad));
            }
            assert_eq!(sessions.may_try(Some(&bad)), Ok(()), "one again and again is one");
        }
        sessions.was_wrong("a", Some(&bad));
        let first = sessions.may_try(Some(&bad)).unwrap_err();
        assert!((29..=31).contains(&first), "{first}");
        sessions.was_wrong("b", Some(&bad));
        assert!(sessions.may_try(Some(&bad)).unwrap_err() > 55);
        for n in 0..20 {
            sessions.was_wrong(&format!("c{n}"), Some(&bad));
        }
        assert!(sessions.may_try(Some(&bad)).unwrap_err() <= 901);
        assert_eq!(sessions.may_try(Some(&good)), Ok(()));
        sessions.was_right(Some(&bad));
        assert_eq!(sessions.may_try(Some(&bad)), Ok(()));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let headers = |text: &str| [(header::COOKIE, text.parse().unwrap())].into_iter().collect::<HeaderMap>();
        assert_eq!(cookie(&headers("a=b; chowki-session=x_y; c=d")), Some("x_y"));
        assert_eq!(cookie(&headers("chowki-sessions=1;xchowki-session=2")), None);
    }
}
