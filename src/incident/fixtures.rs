//! A small district for the tests of this floor.

use std::{sync::Arc, time::Duration};

use crate::{
    district::{
        clock::{Mono, Now, Utc},
        ids::IncidentId,
        inventory::{Button, ButtonCredential, Camera, Inventory, RecordPolicy, Source, Transport, View, Voice},
        place::Place,
        press::{Press, PressKind},
        secret::Secret,
    },
    incident::{
        engine::{Calls, Engine, Outputs, Settings},
        nearby::Choice,
        record::{Command, Record, Verb},
    },
};

/// `b1`.. in a row 200 m apart, each with a unit; `c1`.. dome cameras 20 m north of each.
pub fn inventory(buttons: usize, cameras: usize) -> Inventory {
    let corner = Place::new(34.0, 71.5).unwrap();
    let source = |path: &str| Source {
        url: format!("rtsp://127.0.0.1/{path}").parse().unwrap(),
        sub_url: None,
        login: None,
        transport: Transport::Tcp,
    };
    let button = |i: usize| Button {
        id: format!("b{i}").parse().unwrap(),
        name: format!("Button {i}"),
        at: corner.offset_m(0.0, 200.0 * i as f64),
        credential: ButtonCredential::Password(Secret::new("x")),
        silent_after: Duration::from_secs(90),
        unit: Some(source(&format!("unit{i}"))),
        voice: Voice::Backchannel,
        volume: 1.0,
        half_duplex: false,
        record: RecordPolicy::default(),
    };
    let camera = |i: usize| Camera {
        id: format!("c{i}").parse().unwrap(),
        name: format!("Camera {i}"),
        at: corner.offset_m(20.0, 200.0 * i as f64),
        view: View { sector: None, range_m: 50.0 },
        source: source(&format!("cam{i}")),
        record: RecordPolicy::Outage,
    };
    Inventory::new((1..=buttons).map(button).collect(), (1..=cameras).map(camera).collect())
}

pub fn at(ms: u64) -> Now {
    let epoch = 1_772_366_400_000_000;
    Now {
        mono: Mono::from_boot(Duration::from_millis(1_000_000 + ms)),
        wall: Utc::from_micros(epoch + ms as i64 * 1_000),
        synchronised: true,
    }
}

/// As [`at`], in another boot, which began an hour after it; the clock on the wall goes on.
pub fn rebooted(ms: u64) -> Now {
    Now { mono: Mono::from_boot(Duration::from_millis(ms)), ..at(3_600_000 + ms) }
}

pub fn engine(buttons: usize, cameras: usize) -> Engine {
    engine_of("boot-1", false, buttons, cameras)
}

pub fn engine_of(boot: &str, alone: bool, buttons: usize, cameras: usize) -> Engine {
    let settings = Settings {
        district: "saddar".parse().unwrap(),
        boot: boot.into(),
        before: Duration::from_secs(30),
        after: Duration::from_secs(60),
        choice: Choice { cameras: 4, radius_m: 150.0 },
        debounce: Duration::from_secs(2),
        low_battery: 0.2,
        alone,
        calls: Calls {
            groups: vec!["operators".into(), "shift-leaders".into()],
            escalate_after: Duration::from_secs(20),
            ringing: Duration::ZERO,
        },
    };
    Engine::new(settings, Arc::new(inventory(buttons, cameras)), at(0))
}

pub fn press(button: usize, id: Option<&str>, kind: PressKind, ms: u64) -> Press {
    Press {
        button: format!("b{button}").parse().unwrap(),
        press: id.map(|id| id.parse().unwrap()),
        claimed_at: None,
        kind,
        payload_hash: [kind as u8; 16],
        received: at(ms),
    }
}

pub fn pressed(e: &mut Engine, button: usize, id: &str, kind: PressKind, ms: u64) -> Outputs {
    let mut out = Outputs::default();
    e.press(press(button, Some(id), kind, ms), &mut out);
    out
}

pub fn only(e: &Engine) -> IncidentId {
    let ids: Vec<_> = e.incidents().collect();
    assert_eq!(ids.len(), 1);
    ids[0]
}

pub fn command(verb: Verb, incident: IncidentId, id: &str) -> Command {
    Command { command: verb, incident: Some(incident), button: None, by: "op".into(), id: Some(id.into()) }
}

/// What an engine is after a restart: from records that went through the disk.
pub fn restarted(boot: &str, records: &[Record], now: Now) -> (Engine, Outputs) {
    let mut e = engine_of(boot, false, 2, 2);
    for record in records {
        e.replay(serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap());
    }
    let mut out = Outputs::default();
    e.resume(now, &mut out);
    (e, out)
}
