//! The two-way call: an operator's browser takes part, and does what a party of a call does.

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Problem, incidents, sdp};
use crate::{
    call::{
        SessionId,
        state::{Ask, Denied},
    },
    config::Role,
    gateway::{Uncalled, access::Caller, exchange::Joining},
    incident::{engine::CallError, record::COMMANDER},
};

/// Of the answer: the number of the party.
const PARTY: &str = "chowki-party";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinQuery {
    /// Whether she speaks or listens.
    #[serde(default, rename = "as")]
    how: How,
    /// Her name, where nobody is configured.
    #[serde(default)]
    by: String,
    /// The session that this one takes the place of.
    replaces: Option<String>,
}

#[derive(Deserialize, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum How {
    #[default]
    Speak,
    Listen,
}

/// `GET /v1/calls`: those of open incidents.
pub(super) async fn list(State(api): State<Api>) -> Json<Value> {
    let calls = api.gateway.board().calls();
    let events: Vec<_> = calls.iter().map(|call| &call.event).collect();
    Json(json!({ "calls": events, "groups": api.gateway.groups() }))
}

/// `GET /v1/me`: who calls.
pub(super) async fn me(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({ "name": caller.name.as_deref(), "role": caller.role, "group": caller.group.as_deref() }))
}

/// `GET /v1/ice-servers`: as `RTCConfiguration.iceServers` wants them.
pub(super) async fn ice_servers(State(api): State<Api>) -> Json<Value> {
    let server = |s: &crate::config::IceServer| match &s.login {
        Some(login) => json!({ "urls": s.url, "username": login.username, "credential": login.password.reveal() }),
        None => json!({ "urls": s.url }),
    };
    Json(json!({ "ice_servers": api.gateway.ice_servers().iter().map(server).collect::<Vec<_>>() }))
}

/// `POST /v1/incidents/{id}/call`: 201 with the answer; `Location` is the session.
pub(super) async fn join(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<JoinQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    offer: String,
) -> Result<Response, Problem> {
    sdp::is_offer(&headers)?;
    let incident = incidents::parse(&id)?;
    // Who has a token is who the token says, unless several people share it and say who they are.
    let said: String = query.by.chars().filter(|c| !c.is_control()).take(COMMANDER).collect();
    let name = match caller.name {
        _ if !said.trim().is_empty() && caller.name.is_none() => said,
        Some(name) => name.to_string(),
        None => "operator".into(),
    };
    let joining = Joining {
        incident,
        name,
        speak: query.how == How::Speak,
        supervisor: caller.role == Role::Supervisor,
        replaces: query.replaces.as_deref().map(last_part),
    };
    let joined = api.gateway.join(joining, &offer).map_err(|e| match e {
        Uncalled::Call(error) => problem(&error),
        Uncalled::Pictures(error) => sdp::problem(&error),
    })?;
    Ok(sdp::created(joined.answered, &format!("/v1/incidents/{incident}/call"), Some((PARTY, joined.party))))
}

/// `DELETE` of what `Location` said: hangs up.
pub(super) async fn leave(
    State(api): State<Api>,
    Path((_, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match api.gateway.leave(&SessionId::of(&session)) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_session()),
    }
}

/// To whom a call goes.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum HandOver {
    /// To a party of the call.
    To(ToParty),
    /// To whoever answers of a group.
    ToGroup(ToGroup),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToParty {
    /// Its number.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(max = 4_294_967_295_u32))]
    party: u32,
}

/// A whole number, also where JSON has it with a fraction of nothing.
fn whole<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let number = f64::deserialize(d)?;
    let whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    whole.then_some(number as u32).ok_or_else(|| serde::de::Error::custom("no party's number"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToGroup {
    /// Its name.
    group: String,
}

/// `POST .../speak`, `.../hold`, `.../resume`.
pub(super) async fn ask(
    State(api): State<Api>,
    Path((id, session, what)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    let what = match what.as_str() {
        "speak" => Ask::Speak,
        "hold" => Ask::Hold,
        "resume" => Ask::Resume,
        other => {
            return Err(Problem::not_found(format!("a call knows speak, hold, resume and hand-over, not {other:?}")));
        }
    };
    carry_out(&api, &id, &session, what).await
}

/// `POST .../hand-over`.
pub(super) async fn hand_over(
    State(api): State<Api>,
    Path((id, session)): Path<(String, String)>,
    body: axum::body::Bytes,
) -> Result<StatusCode, Problem> {
    let wanted = "the body is {\"party\": 2} or {\"group\": \"...\"}";
    let body: HandOver = serde_json::from_slice(&body).map_err(|e| Problem::bad_request(format!("{wanted}: {e}")))?;
    let what = match body {
        HandOver::To(ToParty { party }) => Ask::HandOverTo(party),
        HandOver::ToGroup(ToGroup { group }) => Ask::HandOverToGroup(group),
    };
    carry_out(&api, &id, &session, what).await
}

async fn carry_out(api: &Api, id: &str, session: &str, what: Ask) -> Result<StatusCode, Problem> {
    let incident = incidents::parse(id)?;
    match api.gateway.ask(incident, &SessionId::of(session), what).await {
        Some(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Some(Err(error)) => Err(problem(&error)),
        None => Err(no_session()),
    }
}

fn problem(error: &CallError) -> Problem {
    let detail = error.to_string();
    match error {
        CallError::NoCall(_) => Problem::not_found(detail),
        CallError::Denied(Denied::Full) => Problem::unavailable(detail),
        CallError::Denied(_) => Problem::new(StatusCode::CONFLICT, detail),
    }
}

fn no_session() -> Problem {
    Problem::not_found("no such session in this call; it may have ended already")
}

/// A session's name, also where its whole path is given.
fn last_part(session: &str) -> SessionId {
    SessionId::of(session.rsplit('/').next().unwrap_or_default())
}
