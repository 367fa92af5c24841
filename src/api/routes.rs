//! All routes, in one table: where, what answers, what it takes and gives, and whose it is.

use axum::{
    extract::DefaultBodyLimit,
    http::Method,
    routing::{MethodRouter, delete, get, post},
};
use serde_json::{Value, json};

use super::{
    Api, audit, call, evidence, incidents, inventory, live,
    openapi::{self, For, Noted, Operation, Route, does, route},
    proof, recordings, sdp, session, unit, watch,
};
use crate::{
    district::incident::Incident,
    gateway::{access::Right, audit::Page},
};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

const MP4: &str = "video/mp4";
const HLS: &str = "application/vnd.apple.mpegurl";

/// Whose, and what.
pub(super) fn all() -> Vec<(For, Vec<Route>)> {
    vec![
        (For::Anybody, open()),
        (For::Right(Right::States, Noted::No), states()),
        (For::Right(Right::Incidents, Noted::No), documents()),
        (For::Right(Right::Incidents, Noted::Yes), media()),
        (For::Right(Right::Steps, Noted::Yes), steps()),
        (For::Right(Right::Audit, Noted::Yes), notes()),
        (For::Units, units()),
    ]
}

fn open() -> Vec<Route> {
    let sign_in = does(POST, "Sign in at the page: a session's cookie for a token")
        .takes::<session::SignIn>(true)
        .says(204, "signed in")
        .refuses(&[
            (401, "nobody has this token"),
            (422, "the body is not what is wanted"),
            (429, "too many wrong tokens"),
        ]);
    vec![
        route(
            "/healthz",
            get(inventory::healthz),
            [does(GET, "Whether presses are taken and written down").gives_as(200, "text/plain", text(), "they are")],
        ),
        route(
            "/v1/openapi.json",
            get(openapi::openapi),
            [does(GET, "This document").gives_fields(&["openapi", "paths"], "OpenAPI 3.1")],
        ),
        route(
            "/v1/session",
            post(session::begin).delete(session::end),
            [sign_in, does(DELETE, "Sign out").says(204, "signed out")],
        ),
    ]
}

fn states() -> Vec<Route> {
    let metrics = "application/openmetrics-text";
    vec![
        route(
            "/metrics",
            get(inventory::metrics),
            [does(GET, "Metrics").gives_as(200, metrics, text(), "OpenMetrics")],
        ),
        route(
            "/v1/district",
            get(inventory::district),
            [does(GET, "The district").gives_fields(&["district", "version"], "its name and bounds")],
        ),
        route(
            "/v1/status",
            get(inventory::status),
            // Nothing before the first look.
            [does(GET, "How the gateway is").gives_as(
                200,
                JSON,
                json!({ "type": ["object", "null"] }),
                "as headquarters gets it",
            )],
        ),
        route(
            "/v1/buttons",
            get(inventory::buttons),
            [does(GET, "Buttons and how they are").gives_fields(&["buttons"], "all of them")],
        ),
        route(
            "/v1/cameras",
            get(inventory::cameras),
            [does(GET, "Cameras and how they are").gives_fields(&["cameras"], "all of them")],
        ),
        route("/v1/me", get(call::me), [does(GET, "Who calls").gives_fields(&["name", "role"], "its name and role")]),
    ]
}

const JSON: &str = "application/json";

fn documents() -> Vec<Route> {
    let events = does(GET, "Every change as it happens, as server-sent events")
        .heeds("Last-Event-ID", "goes on behind that one without loss, or says `reset` where it cannot")
        .gives_as(200, "text/event-stream", text(), "it goes on for ever");
    vec![
        route("/v1/events", get(live::events), [events]),
        route(
            "/v1/incidents",
            get(incidents::list),
            [does(GET, "Incidents, the newest first; or in the order of their changes since a cursor")
                .query::<incidents::Asked>()
                .gives_fields(&["incidents", "next"], "a page, and what to ask for next")],
        ),
        route(
            "/v1/incidents/{id}",
            get(incidents::one),
            [does(GET, "An incident").gives::<Incident>("its document").refuses(&[NONE])],
        ),
        route(
            "/v1/incidents/{id}/proof.json",
            get(proof::proof),
            [does(GET, "The signed proof of an incident as it is served now: its document and its cameras' lists")
                .gives_fields(&["signature"], "see `chowki schema proof`")
                .refuses(&[NONE])],
        ),
        route(
            "/v1/cameras/{id}/coverage",
            get(recordings::coverage),
            [does(GET, "What is held of a camera, and why not the rest")
                .query::<recordings::Asked>()
                .gives_fields(&["camera", "from", "to", "intervals", "gaps"], "intervals and gaps")
                .refuses(&[NONE])],
        ),
        route(
            "/v1/calls",
            get(call::list),
            [does(GET, "Calls of open incidents").gives_fields(&["calls"], "all of them")],
        ),
        route(
            "/v1/ice-servers",
            get(call::ice_servers),
            [does(GET, "STUN and TURN servers for browsers")
                .gives_fields(&["ice_servers"], "as RTCConfiguration has them")],
        ),
    ]
}

const NONE: (u16, &str) = (404, "there is no such thing here");

/// A file that is made while it is sent.
fn file(summary: &'static str) -> Operation {
    does(GET, summary)
        .heeds("Range", "bytes=FROM-TO (RFC 9110 section 14.2)")
        .heeds("If-Range", "the ETag that the range is of")
        .heeds("If-None-Match", "ETags that are known")
        .gives_as(200, MP4, bytes(), "all of it; Chowki-From, Chowki-To and Chowki-Gaps say what it is of")
        .gives_as(206, MP4, bytes(), "the range")
        .says(304, "it is as it was")
        .refuses(&[NONE, (416, "the range lies outside"), (422, "it has too many formats for one file")])
}

fn media() -> Vec<Route> {
    let object = |summary| does(GET, summary).gives_as(200, MP4, bytes(), "an init segment").refuses(&[NONE]);
    let still = does(GET, "The picture of a moment: the last key frame before it")
        .query::<recordings::Moment>()
        .gives_as(200, "image/jpeg", bytes(), "Chowki-At says when it was captured")
        .refuses(&[NONE, (422, "it cannot be decoded")]);
    let list = does(GET, "An interval of a camera, as HLS")
        .query::<recordings::Asked>()
        .gives_as(200, HLS, text(), "a playlist")
        .refuses(&[NONE, (422, "it has too many formats for one file")]);
    vec![
        route(
            "/v1/cameras/{id}/recording.mp4",
            get(recordings::recording),
            [file("An interval of a camera, as one MP4").query::<recordings::Asked>()],
        ),
        route("/v1/cameras/{id}/recording.m3u8", get(recordings::playlist), [list]),
        route("/v1/cameras/{id}/still.jpg", get(recordings::still), [still]),
        route(
            "/v1/cameras/{id}/recordings/{day}/{object}",
            get(recordings::object),
            [object("An object that a playlist names").query::<recordings::At>()],
        ),
        route(
            "/v1/cameras/{id}/whep",
            offer(post(watch::begin)),
            [offered("Live pictures by WebRTC (WHEP)").refuses(&[NONE])],
        ),
        route(
            "/v1/cameras/{id}/whep/{session}",
            delete(watch::end),
            [does(DELETE, "End a live session").says(204, "ended").refuses(&[NONE])],
        ),
        route(
            "/v1/incidents/{id}/cameras/{file}",
            get(evidence::file),
            [file("The evidence of a camera as one MP4, also while it grows: CAMERA.mp4")],
        ),
        route(
            "/v1/incidents/{id}/cameras/{camera}/{object}",
            get(evidence::object),
            [object("The evidence of a camera as HLS: index.m3u8, and the objects that it names").gives_as(
                200,
                HLS,
                text(),
                "",
            )],
        ),
    ]
}

/// An SDP offer, answered.
fn offered(summary: &'static str) -> Operation {
    does(POST, summary)
        .takes_as("application/sdp", text(), true)
        .gives_as(201, "application/sdp", text(), "the answer; Location is the session")
        .refuses(&[(406, "no codec that both have")])
}

fn steps() -> Vec<Route> {
    let step =
        |summary| does(POST, summary).takes::<incidents::StepBody>(false).says(204, "it is on disk").refuses(&[NONE]);
    let asked = |summary| does(POST, summary).says(204, "done").refuses(&[NONE, (409, "not as the call stands")]);
    vec![
        route("/v1/incidents/{id}/seen", post(incidents::seen), [step("An operator has opened it")]),
        route("/v1/incidents/{id}/dispatched", post(incidents::dispatched), [step("Help is on its way")]),
        route("/v1/incidents/{id}/close", post(incidents::close), [step("It is over")]),
        route(
            "/v1/incidents/{id}/call",
            offer(post(call::join)),
            [offered("Take part in the call of an incident")
                .query::<call::JoinQuery>()
                .refuses(&[NONE, (409, "not as the call stands")])],
        ),
        route(
            "/v1/incidents/{id}/call/{session}",
            delete(call::leave),
            [does(DELETE, "Hang up").says(204, "done").refuses(&[NONE])],
        ),
        route(
            "/v1/incidents/{id}/call/{session}/hand-over",
            post(call::hand_over),
            [asked("Hand the call over, to a party or a group").takes::<call::HandOver>(true)],
        ),
        route("/v1/incidents/{id}/call/{session}/{what}", post(call::ask), [asked("Speak, hold or resume")]),
    ]
}

fn notes() -> Vec<Route> {
    let page = does(GET, "Who saw and did what").query::<audit::Asked>().gives::<Page>("notes after a number");
    vec![route("/v1/audit", get(audit::page), [page])]
}

fn units() -> Vec<Route> {
    let prompt = does(GET, "What a unit plays").gives_as(200, "audio/wav", bytes(), "a WAV file").refuses(&[NONE]);
    let press = does(POST, "A press on the screen; answered when it is on disk")
        .takes::<unit::PressBody>(true)
        .gives_fields(&["state"], "recorded");
    let events = does(GET, "What a unit has to know, as server-sent events").gives_as(
        200,
        "text/event-stream",
        text(),
        "it goes on for ever",
    );
    vec![
        route(
            "/v1/units/{button}/session",
            offer(post(unit::begin)),
            [offered("The unit's own side of a call").refuses(&[NONE])],
        ),
        route(
            "/v1/units/{button}/session/{session}",
            delete(unit::end),
            [does(DELETE, "End it").says(204, "ended").refuses(&[NONE])],
        ),
        route("/v1/units/{button}/press", post(unit::press), [press]),
        route("/v1/units/{button}/events", get(unit::events), [events]),
        route(
            "/v1/units/{button}/ice-servers",
            get(call::ice_servers),
            [does(GET, "STUN and TURN servers").gives_fields(&["ice_servers"], "as RTCConfiguration has them")],
        ),
        route("/v1/units/{button}/prompts/{name}", get(unit::prompt), [prompt]),
    ]
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn bytes() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// SDP is larger than what else is sent.
fn offer(route: MethodRouter<Api>) -> MethodRouter<Api> {
    route.layer(DefaultBodyLimit::max(sdp::MAX_OFFER))
}
