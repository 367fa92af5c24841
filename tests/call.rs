//! The two-way call, with real browsers as operators and as units with a screen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/sound.rs"]
mod sound;
mod support;

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use gateway::{Gateway, SOON, Site};
use mqtt::Button;
use serde_json::{Value, json};
use support::{cameras_with, eventually, mosquitto};

/// Tones of operators, and one that nobody sends.
const TONES: [f64; 3] = [700.0, 1000.0, 1400.0];

/// Browsers that take part in calls.
struct Parties {
    node: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Parties {
    fn of(api: u16) -> Option<Self> {
        let folder = browser::scripts()?;
        let mut node = Command::new("node")
            .args(["parties.mjs", &format!("http://127.0.0.1:{api}")])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (node.stdin.take(), BufReader::new(node.stdout.take().unwrap()).lines());
        Some(Self { node, commands, answers })
    }

    /// Has one do something; gives what came of it.
    fn let_do(&mut self, command: Value) -> Value {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let answer: Value = serde_json::from_str(&self.answers.next().expect("an answer").unwrap()).unwrap();
        println!("{command} -> {answer}");
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    fn looks(&mut self, who: &str) -> Value {
        self.let_do(json!({"do": "look", "who": who}))
    }

    /// Until what it sees and hears is as it should be.
    fn until(&mut self, who: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, &format!("{who}: {what}"), || Some(self.looks(who)).filter(&right))
    }
}

impl Drop for Parties {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.node.wait();
    }
}

/// Whether a tone is what is heard loudest, and loud.
fn hears(seen: &Value, which: usize, hz: i64) -> bool {
    let heard = &seen["heard"][which];
    (heard["hz"].as_i64().unwrap_or(0) - hz).abs() <= 12 && heard["db"].as_i64().unwrap_or(-200) > -60
}

fn frames(seen: &Value) -> u64 {
    seen["frames"].as_u64().unwrap_or(0)
}

/// The only call there is.
fn call(gateway: &Gateway<'_>) -> Value {
    let calls = gateway.get("/v1/calls").json();
    calls["calls"][0]["call"].clone()
}

fn until_call(gateway: &Gateway<'_>, state: &str) -> Value {
    eventually(SOON, &format!("the call is {state}"), || Some(call(gateway)).filter(|c| c["state"] == state))
}

/// A unit with a screen; its token is `unit-token`.
fn with_screen() -> Site {
    let unit = "[button.unit]\nscreen = true\ntoken_file = \"screen.token\"\n";
    Site::new().secret("screen.token", "unit-token").button("b1", unit).window(5, 5)
}

fn press(gateway: &Gateway<'_>) -> String {
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    eventually(SOON, "the call rings", || {
        let calls = gateway.get("/v1/calls").json();
        calls["calls"][0]["incident"].as_str().map(str::to_owned)
    })
}

#[test]
fn an_operator_and_a_unit_with_a_screen_see_and_hear_each_other() {
    let site = with_screen();
    let gateway = site.start();
    let Some(mut parties) = Parties::of(gateway.api) else { return };
    let unit = json!({"do": "screen", "who": "unit", "button": "b1", "tone": 440, "token": "unit-token"});
    assert_eq!(parties.let_do(unit)["connected"], "connected");
    gateway.cameras_live(1, Duration::from_secs(1));
    let incident = press(&gateway);
    assert_eq!(call(&gateway)["state"], "ringing");
    let joined =
        parties.let_do(json!({"do": "join", "who": "Ayesha", "incident": incident, "tone": 880, "pictures": true}));
    assert_eq!(joined["status"], 201);
    let answered = until_call(&gateway, "answered");
    assert_eq!(answered["speaker"]["name"], "Ayesha");
    parties.until("Ayesha", "sees and hears the unit", |seen| frames(seen) > 8 && hears(seen, 0, 440));
    parties.until("unit", "sees and hears the operator", |seen| frames(seen) > 8 && hears(seen, 0, 880));

    // One listens: she hears both.
    parties.let_do(json!({"do": "join", "who": "Bilal", "incident": incident, "as": "listen"}));
    parties.until("Bilal", "hears both", |seen| frames(seen) > 8 && hears(seen, 0, 440) && hears(seen, 1, 880));
    let late = parties.let_do(json!({"do": "join", "who": "Chand", "incident": incident}));
    assert!(late["status"] == 409 && late["detail"].as_str().unwrap().contains("Ayesha"), "{late}");

    // On hold the unit hears nobody; the operator goes on seeing it.
    let said = |parties: &mut Parties, who: &str, path: &str, body: &str| {
        parties.let_do(json!({"do": "send", "who": who, "path": path, "body": body}))["status"].as_u64().unwrap()
    };
    assert_eq!(said(&mut parties, "Bilal", "{session}/hold", ""), 409);
    assert_eq!(said(&mut parties, "Ayesha", "{session}/hold", ""), 204);
    assert_eq!(call(&gateway)["state"], "held");
    parties.until("unit", "hears nobody", |seen| frames(seen) == 0 && !hears(seen, 0, 880));
    assert!(hears(&parties.looks("Ayesha"), 0, 440));
    assert_eq!(said(&mut parties, "Ayesha", "{session}/resume", ""), 204);
    parties.until("unit", "hears her again", |seen| hears(seen, 0, 880) && frames(seen) > 8);

    // Handed over, the other is heard.
    parties.let_do(json!({"do": "join", "who": "Dilshad", "incident": incident, "as": "listen", "tone": 1500}));
    let to = until_call(&gateway, "answered")["listeners"].as_array().unwrap().last().unwrap()["party"].clone();
    assert_eq!(said(&mut parties, "Ayesha", "{session}/hand-over", &format!("{{\"party\": {to}}}")), 204);
    parties.until("unit", "hears the other", |seen| hears(seen, 0, 1500));
    // Without clients in the config everybody is a supervisor, and may take it back.
    assert_eq!(said(&mut parties, "Ayesha", "{session}/speak", ""), 204);
    parties.until("unit", "hears the first", |seen| hears(seen, 0, 880));

    assert_eq!(parties.let_do(json!({"do": "leave", "who": "Ayesha"}))["status"], 204);
    let ended = until_call(&gateway, "ended");
    assert_eq!((&ended["ended"]["reason"], &ended["ended"]["by"]), (&json!("hung-up"), &json!("Ayesha")));

    // What was said is evidence, with what was seen.
    let document = eventually(SOON, "evidence of what the operator said", || {
        let document = gateway.get(&format!("/v1/incidents/{incident}")).json();
        let evidence = document["evidence"].as_array().unwrap();
        let voice = evidence.iter().find(|e| e["camera"] == "operator")?;
        let told = document["timeline"].as_array().unwrap().iter().any(|t| t["what"] == "hung up by Ayesha");
        (told && voice["object_count"].as_u64()? > 1).then_some(document.clone())
    });
    let lines: Vec<_> = document["timeline"].as_array().unwrap().iter().map(|t| t["what"].as_str().unwrap()).collect();
    for line in ["answered by Ayesha", "Bilal listens", "the unit waits", "handed over to Dilshad", "hung up by Ayesha"]
    {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
}

#[test]
fn whoever_is_lost_it_rings_again_and_says_so() {
    let site = with_screen();
    let gateway = site.start();
    let Some(mut parties) = Parties::of(gateway.api) else { return };
    let unit = json!({"do": "screen", "who": "unit", "button": "b1", "tone": 440, "token": "unit-token"});
    parties.let_do(unit.clone());
    let incident = press(&gateway);
    let join = json!({"do": "join", "who": "Ayesha", "incident": incident, "tone": 880});
    parties.let_do(join.clone());
    until_call(&gateway, "answered");

    // The unit restarts.
    parties.let_do(json!({"do": "close", "who": "unit"}));
    until_call(&gateway, "lost");
    parties.let_do(unit.clone());
    until_call(&gateway, "answered");
    parties.until("Ayesha", "sees and hears the unit again", |seen| frames(seen) > 8 && hears(seen, 0, 440));

    // The operator's page is closed without a word.
    parties.let_do(json!({"do": "close", "who": "Ayesha"}));
    let ringing = until_call(&gateway, "ringing");
    assert_eq!((&ringing["again"], &ringing["rings"]), (&json!("operator-lost"), &json!(2)));
    parties.let_do(join.clone());
    until_call(&gateway, "answered");

    // Every browser dies at once.
    parties.let_do(json!({"do": "crash"}));
    eventually(Duration::from_secs(40), "it rings again, and the unit's screen is lost too", || {
        let ringing = call(&gateway);
        (ringing["state"] == "ringing" && ringing["rings"] == 3 && ringing["unit"]["voice"] == false).then_some(())
    });
    parties.let_do(unit);
    parties.let_do(join);
    until_call(&gateway, "answered");

    // The gateway dies, and is started again.
    let gateway = {
        gateway.kill();
        site.start()
    };
    let ringing = eventually(Duration::from_secs(3), "it rings again", || {
        Some(call(&gateway)).filter(|c| c["state"] == "ringing")
    });
    assert_eq!(ringing["again"], "gateway-restarted");
}

/// A unit with an RTSP camera and a speaker, of the rig.
fn with_speaker(port: u16, more: &str) -> Site {
    let url = format!("rtsp://127.0.0.1:{port}/panic");
    let login = "username = \"admin\"\npassword_file = \"cameras.password\"\n";
    let unit = format!("[button.unit]\nurl = \"{url}\"\n{login}talkback = \"onvif\"\n{more}");
    Site::new().secret("cameras.password", "test").button("b1", &unit).window(5, 5)
}

#[test]
fn an_operator_and_a_camera_with_a_speaker_hear_each_other_and_it_is_told_who_spoke() {
    let heard = tempfile::NamedTempFile::new().unwrap();
    let rig = cameras_with(0, 0, &["--talkfile", heard.path().to_str().unwrap()]);
    let site = with_speaker(rig.port, "");
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(1));
    let Some(mut parties) = Parties::of(gateway.api) else { return };
    let incident = press(&gateway);
    eventually(SOON, "the unit plays that the press arrived", || {
        (sound::heard(heard.path()).len() > 4_000).then_some(())
    });
    let ringing = call(&gateway);
    assert_eq!((&ringing["state"], &ringing["unit"]["kind"]), (&json!("ringing"), &json!("speaker")));
    parties.let_do(json!({"do": "join", "who": "Ayesha", "incident": incident, "tone": 1000}));
    until_call(&gateway, "answered");
    eventually(SOON, "the document says so", || {
        (gateway.get(&format!("/v1/incidents/{incident}")).json()["state"] == "answered").then_some(())
    });
    parties.until("Ayesha", "sees and hears the unit", |seen| frames(seen) > 15 && hears(seen, 0, 440));
    eventually(SOON, "the unit plays her voice", || {
        (sound::latest(heard.path(), &TONES) == Some(1000.0)).then_some(())
    });
    // She falls silent, and that she spoke is written down.
    parties.let_do(json!({"do": "tone", "who": "Ayesha", "level": 0}));
    eventually(SOON, "who spoke", || {
        let spoke = call(&gateway)["spoke"].clone();
        spoke.as_array().unwrap().iter().any(|s| s["who"] == "Ayesha").then_some(())
    });

    // The unit restarts in the middle of it.
    let port = rig.port;
    drop(rig);
    until_call(&gateway, "lost");
    let again = tempfile::NamedTempFile::new().unwrap();
    let _rig = cameras_with(port, 0, &["--talkfile", again.path().to_str().unwrap()]);
    until_call(&gateway, "answered");
    parties.let_do(json!({"do": "tone", "who": "Ayesha", "level": 0.3}));
    eventually(SOON, "the unit plays her voice again", || {
        (sound::latest(again.path(), &TONES) == Some(1000.0)).then_some(())
    });
    parties.until("Ayesha", "sees and hears the unit again", |seen| frames(seen) > 15 && hears(seen, 0, 440));

    // A gateway that is stopped in the middle of it waits for nobody.
    assert!(gateway.stop().success());
    let log = std::fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("did not end in time"), "{log}");
}

#[test]
fn another_client_than_a_browser_has_the_floor_sees_and_hears_the_unit_and_is_heard_there() {
    let heard = tempfile::NamedTempFile::new().unwrap();
    let rig = cameras_with(0, 0, &["--talkfile", heard.path().to_str().unwrap()]);
    let site = with_speaker(rig.port, "");
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(1));
    let incident = press(&gateway);
    if client_is_missing() {
        eprintln!("SKIPPED: python's aiortc is not installed; only browsers have called");
        return;
    }
    let client = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rtc.py"))
        .args(["call", &format!("http://127.0.0.1:{}", gateway.api), &incident, "10", "Ayesha", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(SOON, "the unit plays its voice", || {
        (sound::latest(heard.path(), &TONES) == Some(1000.0)).then_some(())
    });
    let ended = client.wait_with_output().unwrap();
    assert!(ended.status.success());
    let seen: Value = serde_json::from_slice(&ended.stdout).unwrap();
    println!("{seen}");
    assert_eq!((&seen["state"], &seen["deleted"]), (&json!("connected"), &json!([204, 404])), "{seen}");
    assert_eq!(seen["size"], json!([1920, 1080]), "{seen}");
    assert!(seen["pictures"].as_u64().unwrap() > 60 && seen["samples"].as_u64().unwrap() > 10_000, "{seen}");
    assert!(seen["hertz"].as_u64().unwrap().abs_diff(440) < 10, "{seen}");
    let over = until_call(&gateway, "ended");
    assert_eq!((&over["ended"]["reason"], &over["ended"]["by"]), (&json!("hung-up"), &json!("Ayesha")));
}

/// Whether python's aiortc is not installed.
fn client_is_missing() -> bool {
    !Command::new("python3").args(["-c", "import aiortc"]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn while_she_speaks_a_unit_that_hears_its_own_speaker_is_not_heard_also_when_she_called_back() {
    let rig = cameras_with(0, 0, &[]);
    let site = with_speaker(rig.port, "half_duplex = true\n");
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(1));
    let Some(mut parties) = Parties::of(gateway.api) else { return };
    let incident = press(&gateway);
    for who in ["Ayesha", "Bilal"] {
        parties.let_do(json!({"do": "join", "who": who, "incident": incident, "tone": 1000}));
        until_call(&gateway, "answered");
        parties.until(who, "does not hear it", |seen| !hears(seen, 0, 440));
        parties.let_do(json!({"do": "tone", "who": who, "level": 0}));
        parties.until(who, "hears it", |seen| hears(seen, 0, 440));
        parties.let_do(json!({"do": "tone", "who": who, "level": 0.3}));
        parties.until(who, "does not hear it again", |seen| !hears(seen, 0, 440));
        assert_eq!(parties.let_do(json!({"do": "leave", "who": who}))["status"], 204);
        until_call(&gateway, "ended");
    }

    // Closed, nobody's microphone is open any more.
    parties.let_do(json!({"do": "join", "who": "Chand", "incident": incident}));
    until_call(&gateway, "answered");
    assert_eq!(gateway.post(None, &format!("/v1/incidents/{incident}/close"), "").status, 204);
    eventually(SOON, "the session ends", || {
        gateway.get("/metrics").text().contains("chowki_webrtc_sessions 0\n").then_some(())
    });
}

#[test]
fn over_a_line_that_loses_and_delays_both_are_heard() {
    let heard = tempfile::NamedTempFile::new().unwrap();
    let rig = cameras_with(0, 0, &["--talkfile", heard.path().to_str().unwrap()]);
    let site = with_speaker(rig.port, &format!("sub_url = \"rtsp://127.0.0.1:{}/sub\"\n", rig.port));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(1));
    let Some(mut parties) = Parties::of(gateway.api) else { return };
    let incident = press(&gateway);
    for (who, loss, delay, hertz) in [("Ayesha", 0.05, 20, 1000.0), ("Bilal", 0.15, 150, 1400.0)] {
        let line = json!({"loss": loss, "delay": delay});
        let join = json!({"do": "join", "who": who, "incident": incident, "tone": hertz, "line": line});
        assert_eq!(parties.let_do(join)["connected"], "connected");
        until_call(&gateway, "answered");
        parties.until(who, "hears the unit and sees it", |seen| frames(seen) > 0 && hears(seen, 0, 440));
        eventually(SOON, "the unit plays the voice", || {
            (sound::latest(heard.path(), &TONES) == Some(hertz)).then_some(())
        });
        assert_eq!(parties.let_do(json!({"do": "leave", "who": who}))["status"], 204);
        until_call(&gateway, "ended");
    }
}

#[test]
fn who_listens_hears_a_unit_that_sends_aac_and_beside_it_who_has_the_floor() {
    let rig = cameras_with(0, 0, &[]);
    let url = format!("rtsp://127.0.0.1:{}/aac", rig.port);
    let unit = format!("[button.unit]\nurl = \"{url}\"\nusername = \"admin\"\npassword_file = \"cameras.password\"\n");
    let site = Site::new().secret("cameras.password", "test").button("b1", &unit).window(5, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(1));
    let Some(mut parties) = Parties::of(gateway.api) else { return };
    let incident = press(&gateway);
    parties.let_do(json!({"do": "join", "who": "Ayesha", "incident": incident, "tone": 1000}));
    until_call(&gateway, "answered");
    parties.let_do(json!({"do": "join", "who": "Bilal", "incident": incident, "as": "listen"}));
    parties.until("Bilal", "hears both", |seen| frames(seen) > 15 && hears(seen, 0, 440) && hears(seen, 1, 1000));
    parties.until("Ayesha", "hears the unit", |seen| hears(seen, 0, 440));
    // The unit's tone ends for the call when that does.
    assert_eq!(parties.let_do(json!({"do": "leave", "who": "Ayesha"}))["status"], 204);
    eventually(SOON, "that the unit spoke is written down", || {
        let spoke = call(&gateway)["spoke"].clone();
        spoke.as_array().unwrap().iter().any(|s| s["who"] == "unit").then_some(())
    });
}

#[test]
fn unanswered_the_next_group_rings_and_headquarters_is_told() {
    let site = with_screen().with("[call]\ngroups = [\"operators\", \"shift-leaders\"]\nescalate_after = \"1s\"\n");
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let site = site.headquarters(broker.port);
    let hq = mqtt::Headquarters::subscribe(broker.port);
    let gateway = site.start();
    let incident = press(&gateway);
    let told: Value = eventually(SOON, "headquarters is told of the next group", || {
        let all = hq.on(&format!("chowki/saddar/calls/{incident}"));
        let all = all.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
        all.into_iter().find(|event| event["call"]["group"] == "shift-leaders")
    });
    assert_eq!(told["call"]["state"], "ringing");
    assert_eq!(call(&gateway)["group"], "shift-leaders");
}
