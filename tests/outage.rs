//! The backhaul goes down and nothing is missing: the real program, GStreamer's cameras, mosquitto as headquarters' broker, a
//! directory as its store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chowki::{district::clock::Utc, media::manifest};
use gateway::{Site, quiet_port};
use mqtt::{Button, Headquarters};
use serde_json::Value;
use support::{cameras, eventually, mosquitto};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

/// The days of a camera's recordings at headquarters.
fn days(objects: &Path, camera: &str) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(objects.join("saddar/recordings").join(camera)) else { return Vec::new() };
    let mut days: Vec<_> = found.map(|day| day.unwrap().path()).collect();
    days.sort();
    days
}

/// What headquarters has of a camera: `coverage.json` of each day.
fn coverage(objects: &Path, camera: &str) -> Vec<Value> {
    let read = |day: PathBuf| serde_json::from_slice(&std::fs::read(day.join("coverage.json")).ok()?).ok();
    days(objects, camera).into_iter().filter_map(read).collect()
}

fn time(value: &Value) -> Utc {
    value.as_str().unwrap().parse().unwrap()
}

/// Intervals that headquarters has, over midnight too.
fn intervals(objects: &Path, camera: &str) -> Vec<(Utc, Utc)> {
    let mut found: Vec<(Utc, Utc)> = Vec::new();
    for day in coverage(objects, camera) {
        for interval in day["intervals"].as_array().unwrap() {
            let (from, to) = (time(&interval["from"]), time(&interval["to"]));
            match found.last_mut() {
                Some(last) if from.since(last.1) < SECOND => last.1 = to,
                _ => found.push((from, to)),
            }
        }
    }
    found
}

/// Every object that headquarters lists is there, whole, and each day plays as one.
fn assert_plays(objects: &Path, camera: &str) {
    for day in days(objects, camera) {
        let listed: Value = serde_json::from_slice(&std::fs::read(day.join("coverage.json")).unwrap()).unwrap();
        for (name, object) in listed["objects"].as_object().unwrap() {
            let bytes = std::fs::read(day.join(name)).unwrap();
            assert_eq!(manifest::hex(&manifest::sha256(&bytes)), object["sha256"].as_str().unwrap(), "{name}");
        }
        evidence::decodes(&day.join("index.m3u8"));
    }
}

#[test]
fn what_cameras_sent_around_an_outage_is_at_headquarters_without_a_hole_and_a_press_meanwhile_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let (port, rig) = (broker.port, cameras(quiet_port(), 3));
    let hq = Headquarters::subscribe(port);
    let url = |n: u32| format!("rtsp://127.0.0.1:{}/cam{n}", rig.port);
    let login = "username = \"admin\"\npassword_file = \"cameras.password\"\n";
    let unit = format!("[button.unit]\nurl = \"{}\"\n{login}", url(2));
    let site = Site::new().headquarters(port).window(2, 3).button("b2", &unit).buttons(1);
    let site = site.camera("kept", 10, &url(0)).camera("evidence-only", 20, &url(1)).with("record = \"incident\"\n");
    let gateway = site.start();
    gateway.cameras_live(3, 3 * SECOND);
    let began = Utc::from_micros(now_us());
    let backhaul = |state: &str| {
        eventually(LONG, state, || (gateway.get("/v1/status").json()["backhaul"] == state).then_some(()));
    };
    backhaul("up");
    std::thread::sleep(4 * SECOND);
    assert!(days(&site.objects(), "kept").is_empty(), "nothing is kept beside evidence while the backhaul is up");

    let broke = now_us();
    broker.signal("STOP");
    backhaul("down");
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    std::thread::sleep(5 * SECOND);
    broker.signal("CONT");
    backhaul("up");
    let works = now_us();
    hq.incident("all evidence of the press", LONG, evidence::all_there);

    // From before it broke until half a minute after it works again, in one piece. (It is said a second or two late.)
    let wanted = Utc::from_micros(works + 26_000_000);
    let kept = ["kept", "unit-b2"];
    for camera in kept {
        let held = eventually(Duration::from_secs(120), "the outage's recording", || {
            let held = intervals(&site.objects(), camera);
            held.last().is_some_and(|last| last.1 >= wanted).then_some(held)
        });
        assert_eq!(held.len(), 1, "{camera}: {held:?}");
        assert!(held[0].0 <= Utc::from_micros(broke).before(3 * SECOND), "{camera}: {held:?} began at {began}");
    }
    eventually(LONG, "headquarters has confirmed all", || {
        (gateway.get("/v1/status").json()["pending_objects"] == 0).then_some(())
    });
    for camera in kept {
        let gaps: Vec<_> = coverage(&site.objects(), camera).iter().map(|day| day["gaps"].clone()).collect();
        assert!(gaps.iter().all(|g| g.as_array().unwrap().is_empty()), "{camera}: {gaps:?}");
        assert_plays(&site.objects(), camera);
    }
    assert!(days(&site.objects(), "evidence-only").is_empty());

    // The gateway says the same of its own disk.
    let said = |camera: &str, from: Utc| {
        let said = gateway.get(&format!("/v1/cameras/{camera}/coverage?from={from}")).json();
        let reasons = said["gaps"].as_array().unwrap().iter().map(|g| g["reason"].as_str().unwrap().to_owned());
        let reasons: Vec<_> = reasons.collect();
        let intervals = said["intervals"].as_array().unwrap().iter().map(|i| (time(&i["from"]), time(&i["to"])));
        (intervals.collect::<Vec<_>>(), reasons)
    };
    for camera in kept {
        let (held, reasons) = said(camera, began.before(LONG));
        assert_eq!(held, intervals(&site.objects(), camera), "{camera}");
        assert_eq!(reasons, ["not-recorded", "not-recorded"], "{camera}: before and after it");
        let (held, reasons) = said(camera, Utc::from_micros(broke));
        assert_eq!(
            (held[0].0, reasons.len()),
            (Utc::from_micros(broke / 1_000 * 1_000), 1),
            "{camera}: cut where it was asked"
        );
    }
    let (held, _) = said("evidence-only", began);
    assert!(matches!(held[..], [(from, to)] if to.since(from) > 4 * SECOND), "{held:?}");
}

#[test]
fn a_camera_that_is_always_recorded_and_sends_nothing_is_an_alarm_and_then_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().headquarters(broker.port).window(2, 3).buttons(1);
    let site = site.camera("all", 10, &url).with("record = \"always\"\n");
    let gateway = site.start();
    gateway.cameras_live(1, SECOND);
    let held = || intervals(&site.objects(), "all");
    eventually(LONG, "it is at headquarters", || (!held().is_empty()).then_some(()));
    let alarms = || gateway.get("/v1/status").json()["not_recorded"].clone();
    assert_eq!(alarms().as_array().unwrap().len(), 0);

    let stopped = now_us();
    rig.signal("STOP");
    let alarm = eventually(LONG, "the alarm", || alarms().get(0).cloned());
    assert_eq!(alarm["camera"], "all");
    assert!(alarm["why"].as_str().unwrap().contains("camera is"), "{alarm}");
    rig.signal("CONT");
    eventually(LONG, "no alarm any more", || alarms().as_array().unwrap().is_empty().then_some(()));
    let gap = eventually(Duration::from_secs(120), "the gap at headquarters", || {
        coverage(&site.objects(), "all").iter().find_map(|day| day["gaps"].get(0).cloned())
    });
    assert!(time(&gap["from"]).since(Utc::from_micros(stopped)) < 5 * SECOND, "{gap}");
    assert!(gap["reason"].as_str().unwrap().starts_with("camera-"), "{gap}");
    let said = gateway.get("/v1/cameras/all/coverage").json();
    let told = said["gaps"].as_array().unwrap().iter().any(|g| (&g["from"], &g["to"]) == (&gap["from"], &gap["to"]));
    assert!(told, "{gap} in {said}");
}

/// Microseconds since 1970.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
