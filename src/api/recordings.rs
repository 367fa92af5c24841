//! What the gateway holds of a camera.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Problem};
use crate::{
    district::{clock::Utc, ids::CameraId},
    gateway::Interval,
    host::clock,
};

/// What is asked for when nothing says from when.
const USUAL: Duration = Duration::from_secs(24 * 3_600);

/// The longest interval that is answered.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3_600);

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    from: Option<String>,
    to: Option<String>,
}

impl Asked {
    /// From when to when: until now and for a day, where that is left out.
    fn interval(&self) -> Result<Interval, Problem> {
        let time = |name: &str, text: &Option<String>| {
            let parse = |text: &String| text.parse::<Utc>().map_err(|e| Problem::bad_request(format!("{name}: {e}")));
            text.as_ref().map(parse).transpose()
        };
        let to = time("to", &self.to)?.unwrap_or_else(clock::wall);
        let from = time("from", &self.from)?.unwrap_or_else(|| to.before(USUAL));
        if from >= to {
            return Err(Problem::bad_request(format!("from ({from}) is not before to ({to})")));
        }
        if to.since(from) > LONGEST {
            return Err(Problem::bad_request("ask for at most 31 days at a time"));
        }
        Ok(Interval { from, to })
    }
}

/// `GET /v1/cameras/{id}/coverage?from=&to=`: intervals held on this gateway's disk, and gaps with their reasons.
pub(super) async fn coverage(
    State(api): State<Api>,
    Path(camera): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let camera: CameraId = camera.parse().map_err(|e| Problem::bad_request(format!("{camera:?}: {e}")))?;
    let asked = asked.interval()?;
    let Some(held) = api.gateway.holdings(&camera, asked).await else {
        return Err(Problem::not_found(format!("no camera {camera} in this district")));
    };
    let held = held.map_err(|e| Problem::unavailable(format!("the media log cannot be read: {e}")))?;
    Ok(Json(json!({
        "camera": camera, "from": asked.from, "to": asked.to, "intervals": held.intervals, "gaps": held.gaps,
    })))
}
