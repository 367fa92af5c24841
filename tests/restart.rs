//! What a restart, an absent headquarters and a hung process do to what is under way; and what systemd is told of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::BTreeMap,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use chowki::district::{evidence::GapReason, press::Progress};
use evidence::{all_there, of};
use gateway::{SOON, Site, quiet_port};
use mqtt::{Button, Headquarters};
use support::{cameras, eventually, lead, mosquitto};

const LONG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_recording_goes_on_after_a_restart_with_a_gap_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().headquarters(broker.port).window(2, 10).buttons(1).camera("cam", 10, &url);
    let gateway = site.start();
    gateway.cameras_live(1, 3 * SECOND);
    Button::connect(gateway.mqtt, "b1").unwrap().press("p-1", "panic");
    std::thread::sleep(3 * SECOND);
    assert!(gateway.stop().success());
    std::thread::sleep(SECOND);
    let gateway = site.start();
    let incident = hq.incident("all evidence at headquarters", LONG, all_there);
    assert_eq!(hq.latest().len(), 1);
    let kept = of(&incident, "cam");
    let pressed = incident.pressed_at.at;
    assert_eq!(kept.gaps.first().map(|g| g.reason), Some(GapReason::GatewayDown), "{:?}", kept.gaps);
    // The time in which the camera was being reached again may be told apart.
    let rest = &kept.gaps[1..];
    assert!(rest.len() <= 1 && rest.iter().all(|g| g.reason == GapReason::CameraDown), "{:?}", kept.gaps);
    let (from, to) = (kept.gaps[0].from.since(pressed), kept.gaps.last().unwrap().to.since(pressed));
    assert!(from > Duration::from_millis(2_000) && from < 6 * SECOND, "the gap begins after {from:?}");
    assert!(to > from + SECOND && to < 10 * SECOND, "the gap ends after {to:?}");

    let folder = evidence::folder(&site.objects(), &incident, "cam");
    let manifest = evidence::proven(&folder);
    assert_eq!(manifest.gaps, kept.gaps);
    let index = folder.join("index.m3u8");
    let playlist = std::fs::read_to_string(&index).unwrap();
    assert!(playlist.contains("gateway-down") && playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
    let list = evidence::listed(&playlist);
    assert_eq!(evidence::holes(&list), 1, "{playlist}");
    // Frame for frame what the fragments hold, and a hole of its true length.
    let times = evidence::times(&evidence::ffprobe(&index), "video");
    let seconds: f64 = list.iter().map(|l| l.seconds).sum();
    assert!((times.len() as f64 - seconds * 30.0).abs() < 3.0, "{} frames in {seconds} s", times.len());
    evidence::decodes(&index);
    let end = list.last().map(|l| l.from.after(Duration::from_secs_f64(l.seconds))).unwrap();
    assert!(end >= pressed.after(10 * SECOND).before(evidence::NEARLY), "it ends at {end}");
    mqtt::assert_revisions_never_go_back(&hq.documents());
    drop(gateway);
}

#[test]
fn a_window_that_ends_while_the_gateway_is_down_is_ended_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().headquarters(broker.port).window(1, 3).buttons(1).camera("cam", 10, &url);
    let gateway = site.start();
    gateway.cameras_live(1, 2 * SECOND);
    Button::connect(gateway.mqtt, "b1").unwrap().press("p-1", "panic");
    std::thread::sleep(Duration::from_millis(1_500));
    gateway.kill();
    std::thread::sleep(3 * SECOND);
    let _gateway = site.start();
    let incident = hq.incident("all evidence at headquarters", LONG, all_there);
    let reasons: Vec<_> = of(&incident, "cam").gaps.iter().map(|g| g.reason).collect();
    assert_eq!(reasons, [GapReason::GatewayDown]);
    let folder = evidence::folder(&site.objects(), &incident, "cam");
    evidence::proven(&folder);
    evidence::decodes(&folder.join("index.m3u8"));
}

#[test]
fn a_press_without_headquarters_is_recorded_and_delivered_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let port = quiet_port();
    let site = Site::new().headquarters(port).buttons(2);
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    std::thread::sleep(SECOND);
    assert_eq!(button.told("p-1"), ["recorded"]);
    assert_eq!(gateway.get("/v1/status").json()["backhaul"], "down");
    // It is not forgotten over a restart either.
    assert!(gateway.stop().success());
    let gateway = site.start();
    let mut second = Button::connect(gateway.mqtt, "b2").unwrap();
    second.press("p-2", "fire");
    let button = Button::connect(gateway.mqtt, "b1").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(gateway.incidents().len(), 2, "what is held is shown after a restart");

    // Subscribed before the gateway finds it, so nothing is missed.
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    lead(port, broker.port);
    second.until("p-2", "delivered");
    button.until("p-1", "delivered");
    eventually(SOON, "both at headquarters", || {
        let latest = hq.latest();
        let presses: Vec<_> = latest.values().flat_map(|i| i.presses.iter().filter_map(|p| p.press.clone())).collect();
        (presses.len() == 2).then_some(())
    });
    gateway.incident("told", |i| i.state == Progress::Delivered);
    eventually(SOON, "the backhaul is up", || (gateway.get("/v1/status").json()["backhaul"] == "up").then_some(()));
}

/// Every object of a folder: name to content and the time it was written.
fn snapshot(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let read = |name: String| {
        let path = folder.join(&name);
        (name, (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()))
    };
    evidence::names(folder).into_iter().map(read).collect()
}

#[test]
fn evidence_that_headquarters_could_not_take_is_there_after_a_restart_under_the_same_names() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/aac", rig.port);
    let site = Site::new().headquarters(broker.port).window(2, 3).buttons(1).camera("cam", 10, &url);
    let gateway = site.start();
    gateway.cameras_live(1, 3 * SECOND);
    Button::connect(gateway.mqtt, "b1").unwrap().press("p-1", "panic");
    let incident = gateway
        .incident("something is at headquarters", |i| of(i, "cam").objects.iter().filter(|o| o.delivered).count() > 1);
    let folder = evidence::folder(&site.objects(), &incident, "cam");
    // Headquarters' disk goes away in the middle.
    let away = site.dir.path().join("away");
    std::fs::rename(site.objects(), &away).unwrap();
    let ended = gateway.incident("the recording has ended", |i| i.evidence.iter().all(|e| e.ended));
    assert!(!all_there(&ended), "it cannot be there");
    assert!(!site.objects().exists(), "a disk that is not mounted is not made up");
    assert!(gateway.stop().success());
    std::fs::rename(&away, site.objects()).unwrap();
    let before = snapshot(&folder);
    assert!(before.len() > 1);

    let gateway = site.start();
    let whole = hq.incident("all evidence at headquarters", LONG, all_there);
    let manifest = evidence::proven(&folder);
    assert!(manifest.complete, "{:?}", manifest.gaps);
    assert_eq!(of(&whole, "cam").objects.len(), manifest.objects.len());
    evidence::decodes(&folder.join("index.m3u8"));
    let after = snapshot(&folder);
    for (name, (bytes, _)) in before.iter().filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit())) {
        assert_eq!(after[name].0, *bytes, "{name} was overwritten with something else");
    }
    // Died before the manifest was there: it is put after the next start, the same to the byte.
    assert!(gateway.stop().success());
    let before = snapshot(&folder);
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    let _gateway = site.start();
    eventually(LONG, "the manifest is put", || folder.join("manifest.json").exists().then_some(()));
    let after = snapshot(&folder);
    assert!(before.iter().all(|(name, (bytes, _))| after[name].0 == *bytes));
    assert_eq!(before.len(), after.len());
}

/// What systemd hears, each message with the time since the first.
struct Systemd(UnixDatagram);

impl Systemd {
    fn new(dir: &Path) -> (Self, String) {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (Self(socket), path.display().to_string())
    }

    /// The next message within `limit`.
    fn next(&self, limit: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 512];
        let n = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).trim().to_owned())
    }

    /// Waits for a message.
    fn until(&self, wanted: &str) {
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            if self.next(SOON).is_some_and(|m| m.lines().any(|l| l == wanted)) {
                return;
            }
        }
        panic!("systemd was not told {wanted}");
    }

    /// The messages of a while.
    fn during(&self, span: Duration) -> Vec<String> {
        let until = Instant::now() + span;
        let mut heard = Vec::new();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            heard.extend(self.next(left));
        }
        heard
    }
}

#[test]
fn systemd_is_told_of_start_and_stop_and_hears_no_sign_of_life_of_a_stopped_process() {
    let dir = tempfile::tempdir().unwrap();
    let (systemd, socket) = Systemd::new(dir.path());
    let site = Site::new().buttons(1);
    let gateway = site.spawn(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "900000")]);
    systemd.until("READY=1");
    assert_eq!(gateway.get("/healthz").status, 200, "ready means that it serves");
    let signs = systemd.during(2 * SECOND);
    assert!(signs.len() >= 3 && signs.iter().all(|s| s == "WATCHDOG=1"), "{signs:?}");
    gateway.signal("STOP");
    systemd.during(Duration::from_millis(300));
    let signs = systemd.during(2 * SECOND);
    assert!(signs.is_empty(), "{signs:?}");
    gateway.signal("CONT");
    systemd.until("WATCHDOG=1");
    gateway.signal("TERM");
    systemd.until("STOPPING=1");
    assert!(gateway.stop().success());
}
