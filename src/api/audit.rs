//! Who saw and did what, for a supervisor and for headquarters' own archive.

use axum::{
    Json,
    extract::{Query, State},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Api, MOST_EXACT, Problem};
use crate::gateway::audit::Page;

/// Notes in an answer when nothing else is asked for, and the most.
const USUAL: usize = 100;
const MOST: usize = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The number of the last one that is known.
    #[schemars(range(max = MOST_EXACT))]
    after: Option<u64>,
    /// How many at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// `GET /v1/audit?after=&limit=`: what was noted after a number, in order.
pub(super) async fn page(State(api): State<Api>, Query(asked): Query<Asked>) -> Result<Json<Page>, Problem> {
    let limit = asked.limit.unwrap_or(USUAL);
    if limit == 0 || limit > MOST {
        return Err(Problem::bad_request(format!("limit: from 1 to {MOST}")));
    }
    if asked.after.is_some_and(|after| after > MOST_EXACT) {
        return Err(Problem::bad_request("after: no answer ever gave this number"));
    }
    Ok(Json(api.audit.page(asked.after.unwrap_or(0), limit)))
}
