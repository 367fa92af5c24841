//! Incidents and the operator's steps.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, MOST_EXACT, Problem};
use crate::{
    district::ids::IncidentId,
    gateway::access::Caller,
    incident::{
        engine::CommandError,
        record::{Command, Verb},
    },
};

/// Page size when none is asked for, and the largest.
const PAGE: (usize, usize) = (50, 500);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// How many at most.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// Older ones than this: `next` of the page before.
    #[schemars(regex(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    after: Option<String>,
    /// In the order of their changes, those that changed after this: 0 at first, then `next` of the answer before. None is
    /// left out; one that changed twice comes once, as it is now.
    #[schemars(range(max = MOST_EXACT))]
    since: Option<u64>,
}

/// `GET /v1/incidents`: the newest first; or with `since` in the order of their changes, to keep up with them. `next` is the
/// cursor of the page after.
pub(super) async fn list(State(api): State<Api>, Query(asked): Query<Asked>) -> Result<Json<Value>, Problem> {
    let limit = asked.limit.unwrap_or(PAGE.0);
    if limit == 0 || limit > PAGE.1 {
        return Err(Problem::bad_request(format!("limit: from 1 to {}", PAGE.1)));
    }
    if asked.since.is_some_and(|since| since > MOST_EXACT) {
        return Err(Problem::bad_request("since: no answer ever gave this number"));
    }
    let (incidents, next) = match (asked.since, &asked.after) {
        // Who keeps up with changes has no use for the other.
        (Some(since), _) => {
            let (incidents, next) = api.gateway.board().changed(since, limit);
            (incidents, json!(next))
        }
        (None, after) => {
            let after = after.as_deref().map(parse).transpose()?;
            let incidents = api.gateway.board().incidents(after, limit);
            let next = incidents.last().filter(|_| incidents.len() == limit).map(|i| i.id);
            (incidents, json!(next))
        }
    };
    let documents: Vec<_> = incidents.iter().map(|i| i.as_ref()).collect();
    Ok(Json(json!({ "incidents": documents, "next": next })))
}

/// `GET /v1/incidents/{id}`.
pub(super) async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let id = parse(&id)?;
    match api.gateway.board().incident_of(id) {
        Some(incident) => Ok(Json(json!(incident.as_ref()))),
        None => Err(Problem::not_found(format!("no incident {id} here"))),
    }
}

pub(super) async fn seen(api: State<Api>, id: Path<String>, caller: Extension<Caller>, body: Bytes) -> Answer {
    step(api, id, caller, body, Verb::Seen).await
}

pub(super) async fn dispatched(api: State<Api>, id: Path<String>, caller: Extension<Caller>, body: Bytes) -> Answer {
    step(api, id, caller, body, Verb::Dispatched).await
}

pub(super) async fn close(api: State<Api>, id: Path<String>, caller: Extension<Caller>, body: Bytes) -> Answer {
    step(api, id, caller, body, Verb::Close).await
}

type Answer = Result<StatusCode, Problem>;

#[derive(Deserialize, Default, JsonSchema)]
pub(super) struct StepBody {
    /// Who takes it, where nobody is configured.
    #[serde(default)]
    by: String,
    /// Repeats of one id are one step.
    #[serde(default)]
    id: Option<String>,
}

async fn step(
    State(api): State<Api>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
    verb: Verb,
) -> Answer {
    let body: StepBody = if body.is_empty() {
        StepBody::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|e| Problem::bad_request(format!("the body is not {{\"by\": ..}}: {e}")))?
    };
    // Who has a token is who the token says; the body's name is only for a gateway without clients.
    let by = caller.name.map_or(body.by, |name| name.to_string());
    let command = Command { command: verb, incident: Some(parse(&id)?), button: None, by, id: body.id };
    match api.gateway.command(command).await {
        Some(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Some(Err(e @ (CommandError::NoIncident(_) | CommandError::NoButton(_)))) => {
            Err(Problem::not_found(e.to_string()))
        }
        Some(Err(e @ CommandError::LongId(_))) => Err(Problem::bad_request(e.to_string())),
        None => Err(Problem::unavailable("it is not on disk: the gateway is stopping, or its disk fails; try again")),
    }
}

pub(super) fn parse(id: &str) -> Result<IncidentId, Problem> {
    id.parse().map_err(|_| Problem::bad_request(format!("{id:?} is not an incident's id (a UUID)")))
}
