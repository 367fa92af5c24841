//! What becomes of presses and signs of life, the whole way from the button to headquarters, with the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use chowki::district::{
    button::{ButtonCondition, Presence},
    press::{PressKind, Progress},
};
use gateway::{SOON, Site, password, quiet_port};
use mqtt::{Button, Down, Headquarters};
use support::{Peer, cameras, eventually, mosquitto, which};

struct Stage {
    broker: Peer,
    hq: Headquarters,
    _dir: tempfile::TempDir,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    Stage { broker, hq, _dir: dir }
}

impl Stage {
    fn site(&self) -> Site {
        Site::new().headquarters(self.broker.port)
    }

    /// The conditions of a button that headquarters was told, in order.
    fn conditions(&self, button: &str) -> Vec<ButtonCondition> {
        let all = self.hq.on(&format!("chowki/saddar/buttons/{button}"));
        all.iter().map(|json| serde_json::from_str(json).unwrap()).collect()
    }

    fn until(&self, button: &str, what: &str, wanted: impl Fn(&ButtonCondition) -> bool) -> ButtonCondition {
        eventually(SOON, what, || self.conditions(button).last().filter(|c| wanted(c)).cloned())
    }
}

#[test]
fn ten_buttons_at_once_make_ten_incidents_and_none_waits_for_another() {
    let stage = stage();
    // A camera that everyone shares and that nobody reaches.
    let site = stage.site().window(2, 2).buttons(10).camera("dead", 10, "rtsp://127.0.0.1:9/cam0");
    let gateway = site.start();
    let mut buttons: Vec<_> = (1..=10).map(|n| Button::connect(gateway.mqtt, &format!("b{n}")).unwrap()).collect();
    let began = Instant::now();
    for button in &mut buttons {
        button.send_press("p-1", "panic").unwrap();
    }
    for button in &buttons {
        button.until("p-1", "delivered");
    }
    let took = began.elapsed();
    // One after another, each with its window of evidence, would take twenty seconds.
    assert!(took < Duration::from_secs(4), "{took:?}");
    let latest = stage.hq.latest();
    assert_eq!(latest.len(), 10);
    let of: BTreeSet<_> = latest.values().map(|i| i.button.id.to_string()).collect();
    assert_eq!(of.len(), 10);
    assert!(latest.values().all(|i| i.press_count == 1 && i.kind == PressKind::Panic));
    mqtt::assert_revisions_never_go_back(&stage.hq.documents());
}

#[test]
fn a_test_press_travels_the_whole_way_marked_and_closes_by_itself() {
    let stage = stage();
    let cameras = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", cameras.port);
    let site = stage.site().window(1, 2).buttons(2).camera("cam", 10, &url);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(1));
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("t-1", "test");
    button.until("t-1", "closed");
    assert_eq!(button.told("t-1"), ["recorded", "delivered", "closed"]);
    let incident = stage.hq.incident("closed", SOON, |i| i.state == Progress::Closed);
    assert!(incident.test && incident.kind == PressKind::Test);
    assert!(stage.hq.documents().iter().all(|d| d.test), "marked from the first revision on");

    // A real press is not hidden in a test that is still open, nor the other way about.
    button.press("t-2", "test");
    button.press("p-1", "panic");
    button.until("p-1", "delivered");
    let real = stage.hq.incident("the real one", SOON, |i| i.kind == PressKind::Panic);
    assert!(!real.test && real.press_count == 1);
    button.until("t-2", "closed");
    assert_eq!(gateway.incidents().iter().filter(|i| i.test).count(), 2);
    assert!(gateway.incident("the real one", |i| i.id == real.id).state < Progress::Closed);
}

#[test]
fn headquarters_can_have_a_button_pressed_as_a_test_and_it_closes_without_cameras_too() {
    let stage = stage();
    let site = stage.site().buttons(1);
    let gateway = site.start();
    let button = Button::connect(gateway.mqtt, "b1").unwrap();
    stage.hq.command(r#"{"command":"test-press","button":"b1","by":"operator 7","id":"t"}"#);
    stage.hq.command(r#"{"command":"test-press","button":"b1","by":"operator 7","id":"t"}"#);
    let incident = stage.hq.incident("closed", SOON, |i| i.test && i.state == Progress::Closed);
    eventually(SOON, "the button is told", || {
        button.states().iter().any(|s| s.incident == incident.id && s.state == Progress::Closed).then_some(())
    });
    assert_eq!(stage.hq.latest().len(), 1, "repeats of one command are one");
}

#[test]
fn each_change_of_a_buttons_condition_arrives_at_headquarters() {
    let stage = stage();
    let site = stage.site().button("b1", "silent_after = \"5s\"").button("b2", "silent_after = \"1h\"");
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    stage.until("b1", "online", |c| c.presence == Presence::Online);
    button.status(r#"{"online":true,"battery":0.93,"firmware":"1.4"}"#);
    button.status(r#"{"online":true,"battery":0.11}"#);
    let low = stage.until("b1", "low battery", |c| c.low_battery);
    assert_eq!(low.status.unwrap().firmware.as_deref(), Some("1.4"), "what was said before stays");
    button.status(r#"{"online":true,"battery":0.95,"tamper":true}"#);
    stage.until("b1", "tampered with, charged", |c| c.tamper && !c.low_battery);
    // Connected, but without a word: silent, and back by the next word.
    stage.until("b1", "silent", |c| c.presence == Presence::Silent);
    button.status(r#"{"online":true,"tamper":false}"#);
    stage.until("b1", "back", |c| c.presence == Presence::Online && !c.tamper);
    button.cut();
    stage.until("b1", "offline", |c| c.presence == Presence::Offline);
    stage.until("b1", "silent again", |c| c.presence == Presence::Silent);
    let revisions: Vec<_> = stage.conditions("b1").iter().map(|c| c.revision).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    // The other was never there: nothing is said of it but that nobody knows.
    assert!(stage.conditions("b2").iter().all(|c| c.presence == Presence::Unknown));
    let status = eventually(SOON, "the gateway's own state", || {
        let status: serde_json::Value = serde_json::from_str(stage.hq.on("chowki/saddar/status").last()?).unwrap();
        (status["buttons"]["bad"] == 1).then_some(status)
    });
    assert_eq!((&status["online"], &status["buttons"]["total"]), (&true.into(), &2.into()));
    gateway.kill();
    eventually(SOON, "the will", || {
        let last = stage.hq.on("chowki/saddar/status").pop()?;
        let status: serde_json::Value = serde_json::from_str(&last).unwrap();
        (status["online"] == false).then_some(())
    });
}

#[test]
fn an_integration_reads_the_states_of_all_buttons_and_nothing_else() {
    let stage = stage();
    let site = stage.site().buttons(2).secret("siren.password", &password("siren")).with(
        "[[broker.client]]\nid = \"siren\"\npassword_file = \"siren.password\"\nmay_read = [\"buttons/+/state\"]\n",
    );
    let gateway = site.start();
    let mut siren = Command::new("stdbuf")
        .arg("-oL")
        .arg(which("mosquitto_sub"))
        .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &gateway.mqtt.to_string(), "-i", "siren", "-u", "siren"])
        .args(["-P", &password("siren"), "-q", "1", "-t", "buttons/+/state", "-F", "%t %p", "-C", "4", "-W", "20"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(SOON, "the siren is connected", || {
        gateway.get("/metrics").text().contains("chowki_mqtt_sessions_total 1\n").then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    for id in ["b1", "b2"] {
        let mut button = Button::connect(gateway.mqtt, id).unwrap();
        button.press("p-1", "panic");
        button.until("p-1", "delivered");
    }
    let status = siren.wait().unwrap();
    let mut heard = String::new();
    std::io::Read::read_to_string(&mut siren.stdout.take().unwrap(), &mut heard).unwrap();
    assert!(status.success(), "{heard}");
    let states: Vec<_> = heard.lines().map(|l| l.split_once(' ').unwrap()).collect();
    for id in ["b1", "b2"] {
        let of: Vec<_> = states.iter().filter(|(t, _)| *t == format!("buttons/{id}/state")).map(|(_, p)| *p).collect();
        assert_eq!(of.len(), 2, "{heard}");
        assert!(of[0].contains("recorded") && of[1].contains("delivered"), "{heard}");
    }
    // It may not press.
    let mut siren = Button::connect_with(gateway.mqtt, "siren", 60, "").unwrap();
    let _ = siren.publish("buttons/b1/press", "", false);
    siren.wait("the connection ends", SOON, |d| *d == Down::End);
    assert!(!siren.has(|d| matches!(d, Down::Ack(_))));
    assert_eq!(gateway.incidents().iter().map(|i| i.press_count).sum::<u64>(), 2);
}

/// `chowki press b1` on this site, with its output to be read.
fn press(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chowki"));
    command.args(["press", "b1", "--config"]).arg(site.dir.path().join("district.toml")).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_press_from_the_command_line_is_followed_on_when_the_device_takes_its_connection_back() {
    let stage = stage();
    let site = stage.site().buttons(1);
    let gateway = site.start();
    let command = press(&site, &["--until", "seen", "--timeout", "60"]).spawn().unwrap();
    let incident = stage.hq.incident("delivered", SOON, |i| i.press_count == 1);
    gateway.incident("known as delivered", |i| i.state == Progress::Delivered);
    let device = Button::connect(gateway.mqtt, "b1").unwrap();
    // Told while the device has the connection, and to the device alone.
    let seen = format!(r#"{{"command":"seen","incident":"{}","by":"operator 7","id":"s-1"}}"#, incident.id);
    stage.hq.command(&seen);
    device.wait("the press has its connection again", SOON, |d| *d == Down::End);
    let out = command.wait_with_output().unwrap();
    let (said, errors) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(out.status.success(), "{said}{errors}");
    let steps: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let mut told = steps.clone();
    told.retain(|step| !matches!(*step, "pressed" | "acknowledged" | "interrupted"));
    assert!(steps.contains(&"interrupted"), "{said}");
    assert!(matches!(told.as_slice(), ["recorded", "delivered", "seen"] | ["recorded", "seen"]), "{said}");
    assert_eq!(gateway.incidents().iter().map(|i| i.press_count).sum::<u64>(), 1, "sent again, it is the same press");
}

#[test]
fn a_press_from_the_command_line_says_in_the_words_of_the_protocol_how_far_it_came() {
    let alone = Site::new().buttons(1);
    let gateway = alone.start();
    let out = press(&alone, &[]).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && said.contains("recorded"), "{said}");
    let refused = |arguments: &[&str]| {
        let out = press(&alone, arguments).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, why) = refused(&["--until", "delivered"]);
    assert!(code == Some(2) && why.contains("nothing is delivered by a gateway without [headquarters]"), "{why}");
    let (code, why) = refused(&["--timeout", "0"]);
    assert!(code == Some(2) && why.contains("a whole number of seconds, 1 or more"), "{why}");
    let (code, why) = refused(&["--until", "seen", "--timeout", "1"]);
    assert!(code == Some(1) && why.contains("not seen within 1 s; incident"), "{why}");
    assert!(!why.contains("headquarters"), "there is none to be reached: {why}");
    drop(gateway);
    let unreachable = Site::new().buttons(1).headquarters(quiet_port());
    let gateway = unreachable.start();
    let out = press(&unreachable, &["--timeout", "1"]).output().unwrap();
    let why = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(1) && why.contains("not delivered within 1 s"), "{why}");
    assert!(why.contains("is recorded and stays so. Is headquarters reachable?"), "{why}");
    drop(gateway);
}

#[test]
fn a_press_by_paho_that_is_sent_again_is_one_press() {
    let stage = stage();
    let site = stage.site().buttons(1);
    let gateway = site.start();
    let script = r#"
import sys, json
try: import paho.mqtt.client as mqtt
except ImportError: sys.exit(77)
port, password = int(sys.argv[1]), sys.argv[2]
try: client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="b1", protocol=mqtt.MQTTv311)
except AttributeError: client = mqtt.Client(client_id="b1", protocol=mqtt.MQTTv311)
client.username_pw_set("b1", password)
client.connect("127.0.0.1", port)
client.loop_start()
for press in ["p-1", "p-1", "p-2", "p-1"]:
    client.publish("buttons/b1/press", json.dumps({"press": press, "kind": "medical"}), qos=1).wait_for_publish(20)
client.disconnect()
"#;
    let out =
        Command::new("python3").args(["-c", script, &gateway.mqtt.to_string(), &password("b1")]).output().unwrap();
    if out.status.code() == Some(77) {
        eprintln!("SKIPPED: paho is not installed (pip install paho-mqtt)");
        return;
    }
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let incident = stage.hq.incident("both presses", SOON, |i| i.press_count == 2);
    let presses: Vec<_> = incident.presses.iter().map(|p| p.press.clone().unwrap().to_string()).collect();
    assert_eq!((presses, incident.kind), (vec!["p-1".to_owned(), "p-2".to_owned()], PressKind::Medical));
    assert_eq!(gateway.incidents().len(), 1);
}
