//! From the buttons and cameras as they were read to the inventory. Pure.

use std::collections::HashMap;

use super::{
    assemble::{login, outside, twins},
    fault::{At, Code},
    keys,
    reader::{Read, Reader},
};
use crate::district::{
    ids::{ButtonId, CameraId, MAX_ID, OPERATOR, UNIT_PREFIX},
    inventory::{Button, ButtonCredential, Camera, RecordPolicy, Source, View, Voice},
    place::{Bearing, Bounds, Place},
};

/// What the items need to know of the rest of the config.
pub(super) struct Around<'k> {
    /// The district's bounds.
    pub bounds: Option<&'k Read<Bounds>>,
    /// Whether buttons may show certificates; `None` when that part of the config is faulty.
    pub certificates: Option<bool>,
    /// Linked cameras are within this many metres.
    pub radius_m: Option<f64>,
}

/// A button and its unit.
pub(super) fn button(reader: &mut Reader<'_>, keys: &keys::Button, around: &Around<'_>) -> Option<Button> {
    if let Some(id) = &keys.id
        && id.value.as_str().len() + UNIT_PREFIX.len() > MAX_ID
    {
        // The unit's camera id is this one with a prefix, and must be an id too.
        let longest = MAX_ID - UNIT_PREFIX.len();
        reader
            .error(Code::BadValue, &id.at, format!("a button's id has at most {longest} characters"))
            .write("a shorter id");
    }
    if let (Some(at), Some(bounds)) = (&keys.at, around.bounds) {
        outside(reader, at, bounds);
    }
    let credential = match &keys.password_file {
        Some(secret) => Some(ButtonCredential::Password(secret.value.clone())),
        None if reader.has_fault_at(&format!("{}.password_file", keys.here.key)) => None,
        None => {
            if around.certificates == Some(false) {
                let example = keys.id.as_ref().map_or("NAME", |id| id.value.as_str());
                reader
                    .error(
                        Code::Missing,
                        &keys.here,
                        "this button can prove itself neither by password nor by certificate",
                    )
                    .write(format!("password_file = \"buttons/{example}.password\", or client_ca under [broker.tls]"));
            }
            Some(ButtonCredential::Certificate)
        }
    };
    let (unit, voice) = match &keys.unit {
        Some(unit) => unit_of(reader, &unit.value)?,
        None => (None, Voice::None),
    };
    let extras = keys.unit.as_ref().map(|unit| &unit.value);
    Some(Button {
        id: keys.id.as_ref()?.value.clone(),
        name: keys.name.as_ref()?.value.clone(),
        at: keys.at.as_ref()?.value,
        credential: credential?,
        silent_after: keys.silent_after.as_ref()?.value,
        unit,
        record: extras.and_then(|unit| unit.record.as_ref()).map_or_else(RecordPolicy::default, |record| record.value),
        voice,
        volume: extras.and_then(|unit| unit.volume.as_ref()).map_or(1.0, |volume| volume.value),
        half_duplex: extras.and_then(|unit| unit.half_duplex.as_ref()).is_some_and(|half| half.value),
    })
}

fn unit_of(reader: &mut Reader<'_>, keys: &keys::Unit) -> Option<(Option<Source>, Voice)> {
    let login = login(reader, keys.username.as_ref(), keys.password_file.as_ref(), &keys.here);
    let screen = keys.screen.as_ref()?;
    if keys.url.is_none() && !screen.value && !reader.has_fault_at(&format!("{}.url", keys.here.key)) {
        reader
            .error(Code::Missing, &keys.here, "a unit has a camera, or a screen")
            .write("url = \"rtsp://10.1.0.11/av\", or screen = true with token_file");
    }
    if let Some(url) = keys.url.as_ref().filter(|_| screen.value) {
        reader
            .error(Code::Conflict, &url.at, "a unit with a screen is seen by the screen's own camera")
            .write("a [[camera]] of its own for that address, beside it");
    }
    if let Some(sub_url) = keys.sub_url.as_ref().filter(|_| keys.url.is_none()) {
        reader.warning(Code::NoEffect, &sub_url.at, "sub_url has no effect without url");
    }
    if let Some(record) = keys.record.as_ref().filter(|record| record.at.span != keys.here.span && keys.url.is_none()) {
        reader.warning(Code::NoEffect, &record.at, "record has no effect without url");
    }
    match (screen.value, &keys.token_file) {
        (true, None) if !reader.has_fault_at(&format!("{}.token_file", keys.here.key)) => {
            reader
                .error(Code::Missing, &screen.at, "a screen needs the token of its kiosk page")
                .write("token_file = \"units/NAME.token\" beside it");
        }
        (false, Some(token)) => {
            reader
                .warning(Code::NoEffect, &token.at, "token_file has no effect without a screen")
                .write("screen = true beside it");
        }
        _ => {}
    }
    if let Some(talkback) = &keys.talkback {
        if screen.value {
            reader
                .error(Code::Conflict, &talkback.at, "a unit with a screen speaks through it")
                .write("talkback or screen, not both");
        } else if keys.url.is_none() && talkback.value == Voice::Backchannel {
            reader
                .error(
                    Code::Conflict,
                    &talkback.at,
                    "the backchannel belongs to the unit's RTSP stream, and there is no url",
                )
                .write("url = \"rtsp://...\" beside it, or talkback = \"rtp://HOST:PORT\"");
        }
    }
    let transport = keys.transport.as_ref()?.value;
    let source = keys.url.as_ref().map(|url| Source {
        url: url.value.clone(),
        sub_url: keys.sub_url.as_ref().map(|url| url.value.clone()),
        login,
        transport,
    });
    let token = keys.token_file.as_ref().filter(|_| screen.value).map(|token| Voice::Screen(token.value.clone()));
    let speaker = keys.talkback.as_ref().map(|talkback| talkback.value.clone());
    Some((source, token.or(speaker).unwrap_or_default()))
}

/// A camera.
pub(super) fn camera(reader: &mut Reader<'_>, keys: &keys::Camera, around: &Around<'_>) -> Option<Camera> {
    if let Some(id) = &keys.id
        && let Some(rest) = id.value.as_str().strip_prefix(UNIT_PREFIX)
    {
        let what = format!("camera ids that begin with {UNIT_PREFIX:?} belong to the cameras of buttons' units");
        let better = if rest.parse::<CameraId>().is_ok() { format!("\"cam-{rest}\"") } else { "another id".to_owned() };
        reader.error(Code::Reserved, &id.at, what).write(better);
    }
    if let Some(id) = keys.id.as_ref().filter(|id| id.value.as_str() == OPERATOR) {
        let what = "what an operator says in a call is kept under this id";
        reader.error(Code::Reserved, &id.at, what).write("\"cam-operator\"");
    }
    if let (Some(at), Some(bounds)) = (&keys.at, around.bounds) {
        outside(reader, at, bounds);
    }
    let login = login(reader, keys.username.as_ref(), keys.password_file.as_ref(), &keys.here);
    let sector = sector(reader, keys);
    Some(Camera {
        id: keys.id.as_ref()?.value.clone(),
        name: keys.name.as_ref()?.value.clone(),
        at: keys.at.as_ref()?.value,
        view: View { sector: sector?, range_m: keys.range.as_ref()?.value },
        source: Source {
            url: keys.url.as_ref()?.value.clone(),
            sub_url: keys.sub_url.as_ref().map(|url| url.value.clone()),
            login,
            transport: keys.transport.as_ref()?.value,
        },
        record: keys.record.as_ref()?.value,
    })
}

/// Where a camera looks; outer `None` when that is faulty.
#[allow(clippy::option_option, reason = "faulty, all round, or a sector")]
fn sector(reader: &mut Reader<'_>, keys: &keys::Camera) -> Option<Option<(Bearing, f64)>> {
    let faulty = |reader: &Reader<'_>, key: &str| reader.has_fault_at(&format!("{}.{key}", keys.here.key));
    match (&keys.facing, &keys.field_of_view) {
        (Some(facing), Some(width)) => Some(Some((Bearing::wrapped(facing.value), width.value))),
        (Some(facing), None) if !faulty(reader, "field_of_view") => {
            reader
                .error(Code::Geometry, &facing.at, "a camera that faces somewhere has a field of view")
                .write("field_of_view = 90 beside it, or leave facing out for an all-round dome");
            None
        }
        (None, Some(width)) if !faulty(reader, "facing") => {
            reader
                .error(Code::Geometry, &width.at, "a camera with a field of view faces somewhere")
                .write("facing = 120 beside it (degrees clockwise from north), or leave field_of_view out for a dome");
            None
        }
        (None, None) if !faulty(reader, "facing") && !faulty(reader, "field_of_view") => Some(None),
        _ => None,
    }
}

/// What only all items together show: twins, and buttons that no camera is near.
pub(super) fn together(
    reader: &mut Reader<'_>,
    buttons: &[keys::Button],
    cameras: &[keys::Camera],
    broker: Option<&keys::Broker>,
    around: &Around<'_>,
) {
    twins(reader, "button", buttons.iter().filter_map(|b| b.id.as_ref()), ButtonId::as_str);
    twins(reader, "camera", cameras.iter().filter_map(|c| c.id.as_ref()), CameraId::as_str);
    shared_streams(reader, buttons, cameras);
    if let Some(broker) = broker {
        shared_accounts(reader, buttons, broker);
        shared_passwords(reader, buttons, broker);
    }
    if let Some(radius_m) = around.radius_m {
        unseen(reader, buttons, cameras, radius_m);
    }
}

/// A broker client with the id of a button: both log in by it.
fn shared_accounts(reader: &mut Reader<'_>, buttons: &[keys::Button], broker: &keys::Broker) {
    let ids: HashMap<&str, &At> =
        buttons.iter().filter_map(|b| b.id.as_ref()).map(|id| (id.value.as_str(), &id.at)).collect();
    let clients = broker.client.iter().flat_map(|clients| &clients.value);
    let mut accounts = ids.len();
    for id in clients.filter_map(|client| client.id.as_ref()) {
        accounts += 1;
        if let Some(button) = ids.get(id.value.as_str()) {
            let what = format!("the button on line {} logs in as {:?} already", reader.line(button), id.value.as_str());
            reader.error(Code::Duplicate, &id.at, what).write("an id that no button has");
        }
    }
    if let Some(most) = &broker.max_connections
        && accounts > most.value
    {
        let what = format!("{accounts} buttons and clients cannot connect at once: max_connections is {}", most.value);
        reader
            .error(Code::Conflict, &most.at, what)
            .write(format!("max_connections = {}", accounts.next_power_of_two() * 2));
    }
}

/// Buttons and clients with one password: one warning for all that share it.
fn shared_passwords(reader: &mut Reader<'_>, buttons: &[keys::Button], broker: &keys::Broker) {
    let clients = broker.client.iter().flat_map(|clients| &clients.value).filter_map(|c| c.password_file.as_ref());
    let mut holders: HashMap<&str, Vec<&At>> = HashMap::new();
    for password in buttons.iter().filter_map(|b| b.password_file.as_ref()).chain(clients) {
        holders.entry(password.value.reveal()).or_default().push(&password.at);
    }
    for (_, holders) in holders.iter().filter(|(password, _)| !password.is_empty()) {
        if let [first, second, ..] = holders.as_slice() {
            let all = format!("{} buttons and clients have this one password, the next", holders.len());
            let what = format!("{all} on line {}: who knows it can log in as each of them", reader.line(second));
            reader.warning(Code::Duplicate, first, what).help("a file with a password of its own for each");
        }
    }
}

/// Two cameras that read one stream: usually a copied line that was not finished.
fn shared_streams(reader: &mut Reader<'_>, buttons: &[keys::Button], cameras: &[keys::Camera]) {
    let units = buttons.iter().filter_map(|b| b.unit.as_ref()).filter_map(|unit| unit.value.url.as_ref());
    let mut first: HashMap<&str, &At> = HashMap::new();
    for url in units.chain(cameras.iter().filter_map(|c| c.url.as_ref())) {
        if let Some(earlier) = first.get(url.value.as_str()) {
            let what = format!("the camera on line {} has this stream already", reader.line(earlier));
            reader.warning(Code::Duplicate, &url.at, what).write("the stream of this camera");
        } else {
            first.insert(url.value.as_str(), &url.at);
        }
    }
}

/// Buttons without a camera of their own and none within the radius.
fn unseen(reader: &mut Reader<'_>, buttons: &[keys::Button], cameras: &[keys::Camera], radius_m: f64) {
    let mut places: Vec<Place> = cameras.iter().filter_map(|c| c.at.as_ref()).map(|at| at.value).collect();
    places.sort_by(|a, b| a.lat().total_cmp(&b.lat()));
    // A degree of latitude is nowhere shorter than 110 km.
    let band = radius_m / 110_000.0;
    let has_camera = |u: &keys::Unit| u.url.is_some() || u.screen.as_ref().is_some_and(|screen| screen.value);
    let alone = buttons.iter().filter(|b| b.unit.as_ref().is_none_or(|u| !has_camera(&u.value)));
    let alone: Vec<&Read<Place>> = alone.filter_map(|b| b.at.as_ref()).collect();
    if let (Some(first), true) = (alone.first(), places.is_empty()) {
        let what = match alone.len() {
            1 => "no camera sees this button: there is none".to_owned(),
            n => format!("no camera sees this button and {} more: there is none", n - 1),
        };
        reader.warning(Code::NoCamera, &first.at, what).help("add a [[camera]]");
        return;
    }
    for at in alone {
        let from = places.partition_point(|p| p.lat() < at.value.lat() - band);
        let near = places[from..].iter().take_while(|p| p.lat() <= at.value.lat() + band);
        if !near.into_iter().any(|p| p.distance_m(at.value) <= radius_m) {
            let nearest = places.iter().map(|p| p.distance_m(at.value)).min_by(f64::total_cmp);
            let away = nearest.map_or_else(String::new, |d| format!(": the nearest is {d:.0} m away"));
            reader
                .warning(Code::NoCamera, &at.at, format!("no camera stands within {radius_m} m of this button{away}"))
                .help(
                    "place a camera nearer to it, give it a [button.unit] with a url, or widen radius under [evidence]",
                );
        }
    }
}
