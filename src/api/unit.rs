//! A unit with a screen: its page, its session, its press, and what it is told. It has a token of its own, and sees
//! nothing of any other.

use std::{convert::Infallible, time::Duration};

use aws_lc_rs::{constant_time, digest};
use axum::{
    Extension,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Api, Problem, auth, sdp};
use crate::{
    call::{SessionId, talkback::Prompt},
    district::{
        call::CallState,
        clock::Utc,
        ids::{ButtonId, IncidentId, PressId},
        inventory::Voice,
        press::{Press, PressKind, Progress},
    },
    host::clock,
};

/// A comment goes out at this pace, so that a broken connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which unit calls.
#[derive(Debug, Clone)]
pub(super) struct Unit(ButtonId);

/// Lets a unit through to what is its own.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    // /v1/units/{button}/...
    let named = request.uri().path().split('/').nth(3).and_then(|id| id.parse::<ButtonId>().ok());
    let button = named.and_then(|id| api.gateway.inventory().button(&id).cloned());
    let token = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(auth::bearer);
    // The same answer whether the unit or the token is not known.
    let known = button.filter(|button| matches!(&button.voice, Voice::Screen(of) if is(token, of.reveal())));
    match known {
        Some(button) => {
            request.extensions_mut().insert(Unit(button.id.clone()));
            next.run(request).await
        }
        None => {
            let detail = "send `Authorization: Bearer TOKEN` with the token of this unit's screen (token_file)";
            Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
        }
    }
}

fn is(token: Option<&str>, of: &str) -> bool {
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    token.is_some_and(|t| constant_time::verify_slices_are_equal(hash(t).as_ref(), hash(of).as_ref()).is_ok())
}

/// `POST /v1/units/{button}/session`: 201 with the answer; `Location` is the session.
pub(super) async fn begin(
    State(api): State<Api>,
    Extension(Unit(button)): Extension<Unit>,
    headers: HeaderMap,
    offer: String,
) -> Result<Response, Problem> {
    sdp::is_offer(&headers)?;
    let answered = api.gateway.screen(&button, &offer).map_err(|e| sdp::problem(&e))?;
    Ok(sdp::created(answered, &format!("/v1/units/{button}/session"), None))
}

/// `DELETE` of what `Location` said.
pub(super) async fn end(
    State(api): State<Api>,
    Path((_, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match api.gateway.hang_up(&SessionId::of(&session)) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("no such session; it may have ended already")),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PressBody {
    /// Its own id: sent again with the same until it is answered.
    #[schemars(with = "PressId")]
    press: String,
    #[serde(default)]
    kind: PressKind,
    #[serde(default)]
    at: Option<Utc>,
}

/// `POST /v1/units/{button}/press`: answered when it is on disk.
pub(super) async fn press(
    State(api): State<Api>,
    Extension(Unit(button)): Extension<Unit>,
    body: Bytes,
) -> Result<Response, Problem> {
    let body: PressBody = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is {{\"press\": \"<unique id>\", \"kind\": ..}}: {e}")))?;
    let id = body.press.parse().map_err(|e| Problem::bad_request(format!("{:?} is no press's id: {e}", body.press)))?;
    let press = Press {
        button,
        press: Some(id),
        claimed_at: body.at,
        kind: body.kind,
        // Known by its id.
        payload_hash: [0; 16],
        received: clock::now(),
    };
    match api.gateway.press(press).await {
        true => Ok(axum::Json(json!({ "state": "recorded" })).into_response()),
        false => Err(Problem::unavailable("it is not on disk; send it again with the same id")),
    }
}

/// `GET /v1/units/{button}/prompts/{name}`: a WAV file.
pub(super) async fn prompt(
    State(api): State<Api>,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let prompt = name.strip_suffix(".wav").and_then(Prompt::named);
    let prompt = prompt.ok_or_else(|| Problem::not_found(format!("no prompt {name:?}")))?;
    let file = api.gateway.prompts().file(prompt).clone();
    Ok(([(header::CONTENT_TYPE, "audio/wav"), (header::CACHE_CONTROL, "private, max-age=300")], file).into_response())
}

/// What a unit is told.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
struct Told {
    incident: Option<IncidentId>,
    state: Option<Progress>,
    call: Option<CallState>,
    /// Whether the operator's picture and voice are on their way.
    speaking: bool,
    /// Whether somebody at headquarters knows: its broker has it, or an operator saw it.
    reached: bool,
}

fn told(api: &Api, button: &ButtonId) -> Told {
    let Some((incident, call)) = api.gateway.board().help_at(button) else { return Told::default() };
    // `received` is what no button is ever told.
    let state = Some(incident.state).filter(|state| *state >= Progress::Recorded);
    let call = call.map(|news| news.event.call.clone());
    let speaking = call.as_ref().is_some_and(|call| call.state == CallState::Answered);
    let reached = call.as_ref().map_or(incident.state >= Progress::Delivered, |call| call.reached);
    Told { incident: Some(incident.id), state, call: call.map(|call| call.state), speaking, reached }
}

/// `GET /v1/units/{button}/events`.
pub(super) async fn events(
    State(api): State<Api>,
    Extension(Unit(button)): Extension<Unit>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + Send> {
    let (_, receiver) = api.gateway.board().follow(None);
    let stopping = Box::pin(api.gateway.stopping());
    let changes = stream::unfold((api, button, receiver, stopping, None), |state| async move {
        let (api, button, mut receiver, mut stopping, last) = state;
        loop {
            let now = told(&api, &button);
            if last.as_ref() != Some(&now) {
                let data = serde_json::to_string(&now).unwrap_or_default();
                let event = Event::default().event("state").data(data);
                return Some((event, (api, button, receiver, stopping, Some(now))));
            }
            // Falling behind loses nothing: what is told is how it is now.
            tokio::select! {
                change = receiver.recv() => {
                    if matches!(change, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                        return None;
                    }
                }
                () = &mut stopping => return None,
            }
        }
    });
    Sse::new(changes.map(Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
