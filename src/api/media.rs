//! Media files that are made while they are sent, with ranges and conditions (RFC 9110 sections 13 and 14).

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::StreamExt;

use super::{Problem, limits::Pass};
use crate::gateway::{
    Unheld,
    pull::{Reel, Unreeled},
};

/// The media type of HLS playlists.
pub(super) const HLS: &str = "application/vnd.apple.mpegurl";

/// Answers with an object as it is stored: it never changes.
pub(super) fn object(name: &str, bytes: Bytes) -> Response {
    let kind = if name.ends_with(".mp4") { "video/mp4" } else { "video/iso.segment" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=86400, immutable")];
    (headers, bytes).into_response()
}

/// Most gaps that a header tells; the coverage tells all of them.
const GAPS: usize = 32;

/// Answers with such a file, or the part of it that is asked for. Its gaps are told in a header.
pub(super) fn answer(reel: Reel, gaps: &[Unheld], asked: &HeaderMap, pass: Pass) -> Result<Response, Problem> {
    let (len, tag) = (reel.len(), format!("\"{}\"", reel.etag()));
    let mut headers = HeaderMap::new();
    let mut say = |name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    };
    say(header::ETAG, tag.clone());
    say(header::CACHE_CONTROL, "private, no-cache".into());
    say(header::ACCEPT_RANGES, "bytes".into());
    say(header::HeaderName::from_static("chowki-from"), reel.held().from.to_string());
    say(header::HeaderName::from_static("chowki-to"), reel.held().to.to_string());
    say(header::HeaderName::from_static("chowki-gaps"), told(gaps));
    if lists(asked, header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    say(header::CONTENT_TYPE, "video/mp4".into());
    let range = match range(asked, &tag, len) {
        Ok(range) => range,
        Err(()) => {
            let detail = format!("the file has {len} bytes; ask for a range within them, or for all of it");
            let mut refused = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail).into_response();
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{len}")) {
                refused.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(refused);
        }
    };
    let (status, range) = match range {
        Some(range) => {
            say(header::CONTENT_RANGE, format!("bytes {}-{}/{len}", range.start, range.end - 1));
            (StatusCode::PARTIAL_CONTENT, range)
        }
        None => (StatusCode::OK, 0..len),
    };
    say(header::CONTENT_LENGTH, (range.end - range.start).to_string());
    // The pass is held until all is sent, or the caller breaks off.
    let bytes = Arc::new(reel).bytes(range).inspect(move |_| _ = &pass);
    Ok((status, headers, Body::from_stream(bytes)).into_response())
}

/// Gaps as a list of strings with the reason as a parameter (RFC 9651): `"from/to";reason=camera-down`.
fn told(gaps: &[Unheld]) -> String {
    let gap = |gap: &Unheld| {
        let reason = serde_json::to_value(gap).ok().and_then(|gap| Some(gap.get("reason")?.as_str()?.to_owned()));
        format!("\"{}/{}\";reason={}", gap.from, gap.to, reason.unwrap_or_default())
    };
    let mut told: Vec<_> = gaps.iter().take(GAPS).map(gap).collect();
    if gaps.len() > GAPS {
        told.push(format!("\"more\";count={}", gaps.len() - GAPS));
    }
    told.join(", ")
}

/// The one range that is asked for; of several none, so that all is sent (section 14.2). An error where it lies outside.
fn range(asked: &HeaderMap, tag: &str, len: u64) -> Result<Option<Range<u64>>, ()> {
    let Some(text) = asked.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    if asked.contains_key(header::IF_RANGE) && !lists(asked, header::IF_RANGE, tag) {
        return Ok(None);
    }
    let Ok(parsed) = http_range_header::parse_range_header(text) else { return Ok(None) };
    match parsed.validate(len) {
        Ok(ranges) => Ok(match &ranges[..] {
            [one] => Some(*one.start()..one.end().saturating_add(1)),
            _ => None,
        }),
        Err(_) => Err(()),
    }
}

/// Whether a condition names this file or document.
pub(super) fn lists(asked: &HeaderMap, condition: header::HeaderName, tag: &str) -> bool {
    let values = asked.get_all(condition).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim() == tag || value.trim() == "*")
}

impl From<Unreeled> for Problem {
    fn from(error: Unreeled) -> Self {
        let status = match error {
            Unreeled::Nothing => StatusCode::NOT_FOUND,
            Unreeled::Formats => StatusCode::UNPROCESSABLE_ENTITY,
            Unreeled::Store(_) | Unreeled::Reel(_) | Unreeled::Changed => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}
