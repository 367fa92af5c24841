//! What the gateway holds of a camera: when, and the recordings themselves.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Problem, limits::Peer, media};
use crate::{
    district::{clock::Utc, ids::CameraId},
    gateway::{
        Interval,
        access::Caller,
        pull::{Holdings, Reel, Unreeled},
    },
    host::{bulkhead, clock},
    media::still,
    spool::{self, Kept, ObjectMeta},
};

/// What is asked for when nothing says from when.
const USUAL: Duration = Duration::from_secs(24 * 3_600);

/// The longest interval that is answered; of a longer one its beginning.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3_600);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// From when, RFC 3339. A day before its end when left out.
    #[schemars(with = "Option<Utc>")]
    from: Option<String>,
    /// Until when. Now when left out.
    #[schemars(with = "Option<Utc>")]
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
        // The first part of what is too long; the answer says how far it goes.
        let to = to.max(from).min(from.after(LONGEST));
        Ok(Interval { from, to })
    }
}

/// `GET /v1/cameras/{id}/coverage?from=&to=`: intervals held on this gateway's disk, and gaps with their reasons.
pub(super) async fn coverage(
    State(api): State<Api>,
    Path(camera): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let (camera, asked) = (parse(&camera)?, asked.interval()?);
    let held = api.gateway.holdings(&camera, asked).await.ok_or_else(|| no_camera(&camera))?;
    let held = held.map_err(Unreeled::from)?;
    Ok(Json(json!({
        "camera": camera, "from": asked.from, "to": asked.to, "intervals": held.intervals, "gaps": held.gaps,
    })))
}

/// `GET /v1/cameras/{id}/recording.mp4?from=&to=`: what is held between two moments as one file, from the key frame before
/// the first to the last frame before the second. What nobody holds is a hole in its time line.
pub(super) async fn recording(
    State(api): State<Api>,
    Path(camera): Path<String>,
    Query(asked): Query<Asked>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let camera = parse(&camera)?;
    let pass = api.limiter.file(&caller, peer.as_deref())?;
    let (reel, held) = planned(&api, &camera, &asked).await?;
    media::answer(reel, &held.gaps, &headers, pass)
}

/// `GET /v1/cameras/{id}/recording.m3u8?from=&to=`: the same as HLS, of the objects as they are stored.
pub(super) async fn playlist(
    State(api): State<Api>,
    Path(camera): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let camera = parse(&camera)?;
    let (reel, held) = planned(&api, &camera, &asked).await?;
    // Below the camera's own address, where this playlist is.
    let url = |meta: &ObjectMeta| match meta.kept {
        Kept::Evidence { incident } => format!("../../incidents/{incident}/cameras/{camera}/{}", meta.name),
        Kept::Buffer { .. } => format!("recordings/{}?at={}", meta.name, meta.from),
    };
    let list = reel.playlist(url, &held.gaps).await?;
    let headers = [(header::CONTENT_TYPE, media::HLS), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, list).into_response())
}

/// Which object of a buffer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    /// When it begins, as the playlist has it.
    at: Utc,
}

/// `GET /v1/cameras/{id}/recordings/{day}/{object}?at=`: an object of a buffer, as a playlist names it.
pub(super) async fn object(
    State(api): State<Api>,
    Path((camera, day, name)): Path<(String, String, String)>,
    Query(At { at }): Query<At>,
) -> Result<Response, Problem> {
    let camera = parse(&camera)?;
    let failed = |e: spool::Error| Problem::unavailable(format!("the media log cannot be read: {e}"));
    let held = api.gateway.media().buffer(&camera, (at, at.after(Duration::from_millis(1)))).await.map_err(failed)?;
    let name = format!("{day}/{name}");
    let Some(object) = held.iter().find(|object| object.meta.name == name) else {
        return Err(Problem::not_found(format!(
            "no {name} of {camera} is held; it may have made room for other things"
        )));
    };
    let bytes = api.gateway.media().read(object).await.map_err(failed)?;
    Ok(media::object(&object.meta.name, bytes))
}

/// Which picture.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Moment {
    /// The moment.
    at: Utc,
    /// Pixels across that suffice.
    width: Option<u16>,
}

/// `GET /v1/cameras/{id}/still.jpg?at=&width=`: the last key frame at or before a moment that is held, in its own size or in
/// a whole part of it that is at least so wide.
pub(super) async fn still(
    State(api): State<Api>,
    Path(camera): Path<String>,
    Query(Moment { at, width }): Query<Moment>,
) -> Result<Response, Problem> {
    let camera = parse(&camera)?;
    let (frame, captured) = api.gateway.key_frame(&camera, at).await.ok_or_else(|| no_camera(&camera))??;
    let turn = api.limiter.decoder().await?;
    let decode = move || {
        let _turn = turn;
        bulkhead::behind(|| still::jpeg(&frame, width.map(usize::from)))
    };
    let decoded = api.gateway.scope().spawn_blocking("still", decode).await;
    let jpeg = decoded.map_err(|_| Problem::unavailable("the gateway is stopping"))?;
    let unreadable = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let jpeg = jpeg.map_err(|burst| unreadable(format!("the key frame cannot be decoded: {burst}")))?;
    let jpeg = jpeg.map_err(|error| unreadable(error.to_string()))?;
    let mut answer = ([(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "private, max-age=3600")], jpeg)
        .into_response();
    if let Ok(captured) = HeaderValue::from_str(&captured.to_string()) {
        answer.headers_mut().insert("chowki-at", captured);
    }
    Ok(answer)
}

/// The file of what is asked for, and what of it is held.
async fn planned(api: &Api, camera: &CameraId, asked: &Asked) -> Result<(Reel, Holdings), Problem> {
    let mut asked = asked.interval()?;
    // What is to come is not held.
    asked.to = asked.to.min(clock::wall()).max(asked.from);
    let held = api.gateway.holdings(camera, asked).await.ok_or_else(|| no_camera(camera))?;
    let reel = api.gateway.recording(camera, asked).await.ok_or_else(|| no_camera(camera))?;
    Ok((reel?, held.map_err(Unreeled::from)?))
}

pub(super) fn parse(camera: &str) -> Result<CameraId, Problem> {
    camera.parse().map_err(|e| Problem::bad_request(format!("{camera:?}: {e}")))
}

fn no_camera(camera: &CameraId) -> Problem {
    Problem::not_found(format!("no camera {camera} in this district"))
}
