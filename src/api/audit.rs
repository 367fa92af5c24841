//! Who saw and did what, for a supervisor and for headquarters' own archive.

use axum::{
    Json,
    extract::{Query, State},
};
use serde::Deserialize;

use super::{Api, Problem};
use crate::gateway::audit::Page;

/// Notes in an answer when nothing else is asked for, and the most.
const USUAL: usize = 100;
const MOST: usize = 1_000;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/audit?after=&limit=`: what was noted after a number, in order.
pub(super) async fn page(State(api): State<Api>, Query(asked): Query<Asked>) -> Result<Json<Page>, Problem> {
    let limit = asked.limit.unwrap_or(USUAL);
    if limit == 0 || limit > MOST {
        return Err(Problem::bad_request(format!("limit: from 1 to {MOST}")));
    }
    Ok(Json(api.audit.page(asked.after.unwrap_or(0), limit)))
}
