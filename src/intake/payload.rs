//! What a button's payloads mean. Lenient on purpose: a person pressed, so whatever the payload is, it is a press. Pure.

use serde_json::Value;

use crate::district::{
    button::ButtonStatus,
    clock::{Now, Utc},
    ids::{ButtonId, PressId},
    press::{Press, PressKind},
};

/// What was odd about a payload that was taken all the same: for the log and the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// Not a JSON object.
    NotJson,
    /// `press` is not 1 to 64 visible ASCII characters; it was left out.
    PressId,
    /// `at` is not an RFC 3339 time; it was left out.
    Time,
    /// `kind` is none of the known ones; it was taken for a panic.
    Kind,
    /// A field that nobody knows; it was left out.
    Field,
    /// `battery` is not a number from 0.0 to 1.0; it was left out.
    Battery,
}

impl Oddity {
    /// In words, for a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Oddity::NotJson => "payload is not a JSON object",
            Oddity::PressId => "press id is not 1 to 64 visible ASCII characters",
            Oddity::Time => "at is not an RFC 3339 time",
            Oddity::Kind => "kind is unknown",
            Oddity::Field => "unknown field",
            Oddity::Battery => "battery is not a number from 0.0 to 1.0",
        }
    }
}

/// Reads the payload of `buttons/{id}/press`. Empty is a panic press; anything that cannot be understood is one too.
pub fn press(button: &ButtonId, payload: &[u8], now: Now) -> (Press, Option<Oddity>) {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, payload);
    let mut payload_hash = [0; 16];
    payload_hash.copy_from_slice(&hash.as_ref()[..16]);
    let mut press = Press {
        button: button.clone(),
        press: None,
        claimed_at: None,
        kind: PressKind::Panic,
        payload_hash,
        received: now,
    };
    let odd = if payload.is_empty() { None } else { fill(&mut press, payload) };
    (press, odd)
}

fn fill(press: &mut Press, payload: &[u8]) -> Option<Oddity> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(payload) else { return Some(Oddity::NotJson) };
    let mut odd = None;
    for (name, value) in fields {
        let understood = match (name.as_str(), value) {
            (_, Value::Null) => Ok(()),
            ("press", value) => press_id(&value).map(|id| press.press = Some(id)).ok_or(Oddity::PressId),
            ("at", value) => time(&value).map(|at| press.claimed_at = Some(at)).ok_or(Oddity::Time),
            ("kind", value) => kind(&value).map(|kind| press.kind = kind).ok_or(Oddity::Kind),
            _ => Err(Oddity::Field),
        };
        odd = odd.or(understood.err());
    }
    odd
}

fn press_id(value: &Value) -> Option<PressId> {
    match value {
        Value::String(text) => text.parse().ok(),
        // Counters are common in small firmware.
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn time(value: &Value) -> Option<Utc> {
    value.as_str()?.parse().ok()
}

fn kind(value: &Value) -> Option<PressKind> {
    match value.as_str()?.to_ascii_lowercase().as_str() {
        "panic" => Some(PressKind::Panic),
        "medical" => Some(PressKind::Medical),
        "fire" => Some(PressKind::Fire),
        "accident" => Some(PressKind::Accident),
        "tamper" => Some(PressKind::Tamper),
        "test" => Some(PressKind::Test),
        _ => None,
    }
}

/// Reads the payload of `buttons/{id}/status`. `None` when nothing of it can be understood; a field that cannot be is
/// left out, so that one bad sensor does not hide the battery. A charge that nobody measured would raise an alarm or hide
/// one: percent are not guessed at.
pub fn status(payload: &[u8]) -> (Option<ButtonStatus>, Option<Oddity>) {
    let Ok(Value::Object(fields)) = serde_json::from_slice(payload) else { return (None, Some(Oddity::NotJson)) };
    let number = |name: &str| fields.get(name).and_then(Value::as_f64);
    let battery = number("battery").filter(|b| (0.0..=1.0).contains(b));
    let odd = fields.get("battery").is_some_and(|b| !b.is_null()) && battery.is_none();
    let status = ButtonStatus {
        online: fields.get("online").and_then(Value::as_bool).unwrap_or(true),
        battery,
        rssi: number("rssi"),
        firmware: fields.get("firmware").and_then(Value::as_str).map(|f| f.chars().take(64).collect()),
        tamper: fields.get("tamper").and_then(Value::as_bool),
    };
    (Some(status), odd.then_some(Oddity::Battery))
}

/// Reads a will: what a button left to be said when it vanishes. It is offline whatever the payload is.
pub fn will(payload: &[u8]) -> ButtonStatus {
    ButtonStatus { online: false, ..status(payload).0.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::district::clock::Mono;

    fn read(payload: &[u8]) -> (Press, Option<Oddity>) {
        let now = Now { mono: Mono::default(), wall: Utc::default(), synchronised: true };
        press(&"b1".parse().unwrap(), payload, now)
    }

    #[test]
    fn an_empty_payload_is_a_panic_press() {
        let (press, odd) = read(b"");
        assert_eq!((press.kind, press.press, odd), (PressKind::Panic, None, None));
    }

    #[test]
    fn a_whole_payload_is_understood() {
        let (press, odd) = read(br#"{"press":"p-1","at":"2026-03-01T12:00:00Z","kind":"fire"}"#);
        assert_eq!(press.press.unwrap().as_str(), "p-1");
        assert_eq!((press.kind, odd), (PressKind::Fire, None));
        assert_eq!(press.claimed_at.unwrap().to_string(), "2026-03-01T12:00:00.000Z");
    }

    #[test]
    fn whatever_cannot_be_understood_is_still_a_press() {
        for (payload, odd) in [
            (&b"help!"[..], Oddity::NotJson),
            (b"\xff\xfe", Oddity::NotJson),
            (b"[1]", Oddity::NotJson),
            (br#"{"kind":"zombies"}"#, Oddity::Kind),
            (br#"{"kind":7}"#, Oddity::Kind),
            (br#"{"press":"with space"}"#, Oddity::PressId),
            (br#"{"at":"noon"}"#, Oddity::Time),
            (br#"{"colour":"red"}"#, Oddity::Field),
        ] {
            let (press, found) = read(payload);
            assert_eq!((press.kind, press.press, found), (PressKind::Panic, None, Some(odd)), "{payload:?}");
        }
    }

    #[test]
    fn one_odd_field_does_not_hide_the_others() {
        let (press, odd) = read(br#"{"at":"noon","kind":"TEST","press":17,"x":1}"#);
        assert_eq!((press.kind, press.press.unwrap().as_str()), (PressKind::Test, "17"));
        assert_eq!(odd, Some(Oddity::Time));
    }

    #[test]
    fn a_will_says_offline_whatever_it_says() {
        assert!(!will(b"").online);
        assert!(!will(br#"{"online":true}"#).online);
        assert_eq!(will(br#"{"online":false,"battery":0.5}"#).battery, Some(0.5));
    }

    #[test]
    fn a_status_keeps_what_it_understands() {
        let (s, odd) = status(br#"{"online":true,"battery":"full","rssi":-61,"firmware":"1.4"}"#);
        let s = s.unwrap();
        assert_eq!(odd, Some(Oddity::Battery));
        for (said, battery) in [("93", None), ("-1", None), ("1.01", None), ("0", Some(0.0)), ("1", Some(1.0))] {
            let (s, odd) = status(format!(r#"{{"battery":{said}}}"#).as_bytes());
            assert_eq!((s.unwrap().battery, odd.is_some()), (battery, battery.is_none()), "{said}");
        }
        assert_eq!((s.online, s.battery, s.rssi, s.firmware.as_deref()), (true, None, Some(-61.0), Some("1.4")));
        assert_eq!(status(b"on"), (None, Some(Oddity::NotJson)));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&payload);
            let _ = status(&payload);
        }
    }
}
