//! A press and its pictures, the whole way: the real program, GStreamer's cameras, mosquitto as headquarters' broker, a
//! directory or moto's S3 as its store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use chowki::district::{
    evidence::GapReason,
    incident::{CameraRole, Incident},
    press::Progress,
};
use evidence::{Wanted, all_there, assert_whole, of};
use gateway::{Gateway, Site, quiet_port};
use mqtt::{Button, Headquarters};
use serde_json::Value;
use support::{Peer, cameras, eventually, mosquitto, wait_for_port};

const LONG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Headquarters' broker, its subscriber, and cameras.
struct Stage {
    broker: Peer,
    hq: Headquarters,
    cameras: Peer,
    _dir: tempfile::TempDir,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    Stage { broker, hq, cameras: cameras(quiet_port(), 3), _dir: dir }
}

impl Stage {
    fn url(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{path}", self.cameras.port)
    }

    /// One button, headquarters here, a window, and cameras by name and path.
    fn site(&self, before: u32, after: u32, cameras: &[(&str, &str)]) -> Site {
        let site = Site::new().headquarters(self.broker.port).window(before, after).button("b1", "");
        cameras.iter().zip(1..).fold(site, |site, ((id, path), n)| site.camera(id, n * 10, &self.url(path)))
    }

    /// Waits until everything that is kept of the incident is at headquarters.
    fn whole(&self) -> Incident {
        self.hq.incident("all evidence at headquarters", LONG, all_there)
    }
}

/// Pressed by mosquitto's own client, as any MQTT device would.
fn pressed_by_mosquitto_pub(gateway: &Gateway<'_>, button: &str, payload: &str) {
    let done = Command::new(support::which("mosquitto_pub"))
        .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &gateway.mqtt.to_string(), "-q", "1"])
        .args(["-i", button, "-u", button, "-P", &gateway::password(button)])
        .args(["-t", &format!("buttons/{button}/press"), "-m", payload])
        .status()
        .unwrap();
    assert!(done.success());
}

/// Holds a document against `chowki schema incident`, by python's jsonschema.
fn assert_fits_the_schema(document: &str) {
    let dir = tempfile::tempdir().unwrap();
    let schema = Command::new(env!("CARGO_BIN_EXE_chowki")).args(["schema", "incident"]).output().unwrap();
    std::fs::write(dir.path().join("schema.json"), schema.stdout).unwrap();
    std::fs::write(dir.path().join("incident.json"), document).unwrap();
    let script = "import json, sys\n\
        try: import jsonschema\n\
        except ImportError: sys.exit(77)\n\
        read = lambda name: json.load(open(sys.argv[1] + '/' + name))\n\
        jsonschema.Draft202012Validator(read('schema.json')).validate(read('incident.json'))\n";
    let out = Command::new("python3").args(["-c", script]).arg(dir.path()).output().unwrap();
    match out.status.code() {
        Some(77) => eprintln!("SKIPPED: python's jsonschema is not installed; the document is parsed by its type only"),
        _ => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
    }
}

#[test]
fn a_press_reaches_headquarters_with_pictures_from_before_and_after_it() {
    let (before, after) = (4 * SECOND, 4 * SECOND);
    let stage = stage();
    let unit = format!(
        "[button.unit]\nurl = \"{}\"\nusername = \"admin\"\npassword_file = \"unit.password\"\n",
        stage.url("panic")
    );
    let site =
        Site::new().headquarters(stage.broker.port).window(4, 4).secret("unit.password", "test").button("b1", &unit);
    let site = [("mulaw", "cam0"), ("aac", "aac"), ("hevc", "h265"), ("jpeg", "mjpeg")]
        .iter()
        .zip(1..)
        .fold(site, |site, ((id, path), n)| site.camera(id, n * 10, &stage.url(path)));
    let gateway = site.start();
    gateway.cameras_settled(5, before);

    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "delivered");
    let incident = stage.whole();

    // The document.
    assert_eq!((incident.button.id.to_string().as_str(), incident.test, incident.press_count), ("b1", false, 1));
    let linked: Vec<_> = incident.cameras.iter().map(|c| (c.id.to_string(), c.role, c.healthy, c.recorded)).collect();
    let near = |id: &str| (id.to_owned(), CameraRole::Nearby, true, true);
    let own = ("unit-b1".to_owned(), CameraRole::Unit, true, true);
    assert_eq!(linked[0].1, own.1);
    assert_eq!(linked[1..], [near("mulaw"), near("aac"), near("hevc"), near("jpeg")]);
    assert!(incident.cameras.iter().all(|c| c.sees_button && !c.reason.is_empty()));
    let unit_id: &'static str = linked[0].0.clone().leak();

    // The pictures.
    let wanted = |camera, video, fps, audio, step| Wanted { camera, video, fps, audio, step };
    for wanted in [
        wanted("mulaw", "h264", 30.0, "opus", 0.02),
        wanted("aac", "h264", 30.0, "aac", 0.064),
        wanted("hevc", "hevc", 30.0, "opus", 0.02),
        wanted("jpeg", "mjpeg", 10.0, "", 0.0),
        wanted(unit_id, "h264", 30.0, "opus", 0.02),
    ] {
        assert_whole(&site.objects(), &incident, &wanted, before, after);
    }

    // The operator's steps reach the button, in order.
    for (n, step) in ["seen", "dispatched", "close"].iter().enumerate() {
        stage
            .hq
            .command(&format!(r#"{{"command":"{step}","incident":"{}","by":"operator 7","id":"c-{n}"}}"#, incident.id));
    }
    button.until("p-1", "closed");
    assert_eq!(button.told("p-1"), ["recorded", "delivered", "seen", "dispatched", "closed"]);

    // The last word, in both places.
    let last = stage.hq.incident("closed", LONG, |i| i.state == Progress::Closed);
    let raw = stage.hq.on(&format!("chowki/saddar/incidents/{}", last.id)).pop().unwrap();
    assert_fits_the_schema(&raw);
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap(), serde_json::to_value(&last).unwrap());
    let stored = site.objects().join(format!("saddar/incidents/{}/incident.json", last.id));
    let stored = eventually(LONG, "incident.json says that it is closed", || {
        let stored: Incident = serde_json::from_slice(&std::fs::read(&stored).ok()?).ok()?;
        (stored.state == Progress::Closed).then_some(stored)
    });
    assert_eq!((stored.id, stored.revision), (last.id, last.revision));
    assert!(stored.timeline.iter().any(|t| t.what.contains("operator 7") && t.proof == "command c-1"));
    mqtt::assert_revisions_never_go_back(&stage.hq.documents());
    assert!(gateway.stop().success());
}

#[test]
fn each_fragment_plays_as_soon_as_it_is_there_and_the_playlist_grows_to_its_end() {
    let stage = stage();
    let site = stage.site(3, 5, &[("cam", "cam0")]);
    let gateway = site.start();
    gateway.cameras_settled(1, 3 * SECOND);
    pressed_by_mosquitto_pub(&gateway, "b1", "");
    let incident = gateway.incident("pressed", |_| true);
    let folder = evidence::folder(&site.objects(), &incident, "cam");
    let joined = site.dir.path().join("joined.mp4");
    let (mut played, mut playlists) = (BTreeMap::new(), Vec::<String>::new());
    let until = std::time::Instant::now() + LONG;
    while playlists.last().is_none_or(|p| !p.contains("ENDLIST")) {
        assert!(std::time::Instant::now() < until, "no end: {playlists:?}");
        let fragments: Vec<_> = evidence::names(&folder).into_iter().filter(|n| n.ends_with(".m4s")).collect();
        // Uploads overtake one another; what plays is what is there without a hole.
        let whole = fragments.iter().zip(1..).take_while(|(name, n)| **name == format!("{n:05}.m4s")).count();
        if whole > 0 && folder.join("init.mp4").exists() && !played.contains_key(&whole) {
            let names = ["init.mp4".to_owned()].into_iter().chain(fragments[..whole].iter().cloned());
            let bytes: Vec<u8> = names.flat_map(|n| std::fs::read(folder.join(n)).unwrap()).collect();
            std::fs::write(&joined, bytes).unwrap();
            evidence::decodes(&joined);
            played.insert(whole, evidence::times(&evidence::ffprobe(&joined), "video").len());
        }
        if let Ok(playlist) = std::fs::read_to_string(folder.join("index.m3u8"))
            && playlists.last() != Some(&playlist)
        {
            for listed in evidence::listed(&playlist) {
                assert!(folder.join(&listed.name).exists(), "{} is listed before it is there", listed.name);
            }
            playlists.push(playlist);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!(played.len() >= 3, "it did not grow: {played:?}");
    assert!(played.values().is_sorted(), "{played:?}");
    assert!(playlists.len() >= 3, "{playlists:?}");
    for pair in playlists.windows(2) {
        // Only at the end may it be known that every fragment begins with a key frame.
        let later = pair[1].replace("#EXT-X-INDEPENDENT-SEGMENTS\n", "");
        assert!(later.starts_with(&pair[0]), "it did not only grow:\n{}\n--- then\n{}", pair[0], pair[1]);
    }
    let wanted = Wanted { camera: "cam", video: "h264", fps: 30.0, audio: "opus", step: 0.02 };
    assert_whole(&site.objects(), &stage.whole(), &wanted, 3 * SECOND, 5 * SECOND);
}

/// moto's S3 with the bucket `evidence`; none when it is not installed.
fn moto(port: u16) -> Option<Peer> {
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        eprintln!("SKIPPED: moto_server is not installed (pip install 'moto[server]')");
        return None;
    };
    let peer = Peer { child, port };
    wait_for_port(port, "moto_server");
    http(port, "PUT", "/evidence").expect("the bucket is made");
    Some(peer)
}

fn http(port: u16, method: &str, path: &str) -> Option<Vec<u8>> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=reader/20260101/us-east-1/s3/aws4_request\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    String::from_utf8_lossy(&answer[..end]).contains(" 200 ").then(|| answer[end + 4..].to_vec())
}

/// Fetches a folder from S3, as a pulling headquarters would: the playlist and what it names.
fn fetch(port: u16, prefix: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let get = |name: &str| {
        let bytes = eventually(LONG, name, || http(port, "GET", &format!("/evidence/gateways/{prefix}/{name}")));
        std::fs::write(to.join(name), &bytes).unwrap();
        bytes
    };
    let manifest: Value = serde_json::from_slice(&get("manifest.json")).unwrap();
    get("index.m3u8");
    for object in manifest["objects"].as_array().unwrap() {
        get(object["name"].as_str().unwrap());
    }
}

#[test]
fn evidence_reaches_an_s3_store_and_plays_from_there() {
    let Some(s3) = moto(quiet_port()) else { return };
    let stage = stage();
    let lines = format!(
        "[headquarters]\nmqtt = \"mqtt://127.0.0.1:{}\"\nobjects = \"s3://evidence/gateways\"\n\
         [headquarters.s3]\nendpoint = \"http://127.0.0.1:{}\"\npath_style = true\nregion = \"us-east-1\"\n\
         access_key_id = \"chowki\"\nsecret_key_file = \"s3.secret\"\n",
        stage.broker.port, s3.port
    );
    let site = Site::new().secret("s3.secret", "wJalrXUtnFEMI").with(&lines).window(3, 3).button("b1", "").camera(
        "cam",
        10,
        &stage.url("aac"),
    );
    let gateway = site.start();
    gateway.cameras_settled(1, 3 * SECOND);
    pressed_by_mosquitto_pub(&gateway, "b1", r#"{"press":"1"}"#);
    let incident = stage.whole();
    let objects = site.dir.path().join("fetched");
    let folder = evidence::folder(&objects, &incident, "cam");
    fetch(s3.port, &format!("saddar/incidents/{}/cam", incident.id), &folder);
    let wanted = Wanted { camera: "cam", video: "h264", fps: 30.0, audio: "aac", step: 0.064 };
    assert_whole(&objects, &incident, &wanted, 3 * SECOND, 3 * SECOND);
    let document = format!("/evidence/gateways/saddar/incidents/{}/incident.json", incident.id);
    assert!(http(s3.port, "GET", &document).is_some());
}

#[test]
fn a_camera_that_dies_in_the_middle_leaves_a_gap_and_the_others_are_untouched() {
    let stage = stage();
    let mortal = cameras(quiet_port(), 1);
    let site = stage
        .site(3, 6, &[("steady", "cam0")])
        .camera("mortal", 20, &format!("rtsp://127.0.0.1:{}/cam0", mortal.port))
        .camera("never", 30, &format!("rtsp://127.0.0.1:{}/cam0", quiet_port()));
    let gateway = site.start();
    gateway.cameras_settled(2, 3 * SECOND);
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "fire");
    std::thread::sleep(2 * SECOND);
    mortal.signal("KILL");
    let incident = stage.whole();
    let pressed = incident.pressed_at.at;

    let wanted = Wanted { camera: "steady", video: "h264", fps: 30.0, audio: "opus", step: 0.02 };
    assert_whole(&site.objects(), &incident, &wanted, 3 * SECOND, 6 * SECOND);

    // Pictures up to its death, then a gap to the end.
    let dead = of(&incident, "mortal");
    assert!(!dead.complete && dead.ended);
    let gaps: Vec<_> = dead.gaps.iter().map(|g| g.reason).collect();
    assert_eq!(gaps, [GapReason::CameraUnreachable], "{:?}", dead.gaps);
    let died = dead.gaps[0].from.since(pressed).as_secs_f64();
    assert!((0.9..3.5).contains(&died), "the gap begins {died} s after the press");
    assert!(dead.gaps[0].to.since(pressed) >= Duration::from_millis(5_500));
    let folder = evidence::folder(&site.objects(), &incident, "mortal");
    let manifest = evidence::proven(&folder);
    assert!(!manifest.complete && manifest.gaps == dead.gaps);
    evidence::decodes(&folder.join("index.m3u8"));
    let playlist = std::fs::read_to_string(folder.join("index.m3u8")).unwrap();
    assert!(playlist.contains("# gap from ") && playlist.contains("camera-unreachable"), "{playlist}");

    // Never a picture: one gap of the whole window.
    let never = of(&incident, "never");
    assert!(never.objects.is_empty());
    assert_eq!(never.gaps.len(), 1, "{:?}", never.gaps);
    let gap = &never.gaps[0];
    assert_eq!(gap.reason, GapReason::CameraUnreachable);
    assert!(gap.to.since(gap.from) > Duration::from_millis(8_500), "{gap:?}");
    let linked = incident.cameras.iter().find(|c| c.id.to_string() == "never").unwrap();
    assert!(!linked.healthy && linked.reason.contains("no pictures"), "{}", linked.reason);
}

#[test]
fn after_an_outage_a_button_is_told_of_each_of_its_presses_that_headquarters_has_it() {
    const PRESSES: usize = 32;
    let (dir, port) = (tempfile::tempdir().unwrap(), quiet_port());
    let site = Site::new().headquarters(port).buttons(1);
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    for n in 0..PRESSES {
        button.press(&format!("p-{n}"), "panic");
        button.until(&format!("p-{n}"), "recorded");
    }
    let _broker = mosquitto(port, dir.path(), "");
    for n in 0..PRESSES {
        button.until(&format!("p-{n}"), "delivered");
        assert_eq!(button.told(&format!("p-{n}")), ["recorded", "delivered"]);
    }
}

#[test]
fn another_press_and_the_operator_extend_the_evidence() {
    let stage = stage();
    // Of a camera that is kept for outages too, memory reaches back further.
    let site = stage.site(2, 3, &[("cam", "cam0")]).with("record = \"incident\"\n");
    let gateway = site.start();
    gateway.cameras_settled(1, 2 * SECOND);
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    std::thread::sleep(2 * SECOND);
    button.press("p-2", "medical");
    button.until("p-2", "delivered");
    std::thread::sleep(2 * SECOND);
    let id = gateway.incidents()[0].id;
    stage.hq.command(&format!(r#"{{"command":"record","incident":"{id}","by":"operator 7","id":"r-1"}}"#));
    // Repeats of one id are one command.
    stage.hq.command(&format!(r#"{{"command":"record","incident":"{id}","by":"operator 7","id":"r-1"}}"#));
    let incident = stage.whole();
    let said = incident.timeline.iter().filter(|t| t.what.starts_with("recording extended")).count();
    assert_eq!((incident.press_count, incident.presses.len(), said), (2, 2, 1), "{:?}", incident.timeline);
    let lasted = of(&incident, "cam").to.since(incident.pressed_at.at);
    assert!(lasted > Duration::from_millis(6_500), "only {lasted:?}");
    let wanted = Wanted { camera: "cam", video: "h264", fps: 30.0, audio: "opus", step: 0.02 };
    assert_whole(&site.objects(), &incident, &wanted, 2 * SECOND, lasted);

    // Once more, long after its end: what lies between is a gap that says why, and the rest still plays.
    std::thread::sleep(6 * SECOND);
    stage.hq.command(&format!(r#"{{"command":"record","incident":"{id}","by":"operator 7","id":"r-2"}}"#));
    let longer = stage.hq.incident("recorded again", LONG, |i| {
        all_there(i) && of(i, "cam").to.since(incident.pressed_at.at) > lasted + SECOND
    });
    let again = of(&longer, "cam");
    let reasons: BTreeSet<_> = again.gaps.iter().map(|g| format!("{:?}", g.reason)).collect();
    assert_eq!(reasons, BTreeSet::from(["BeforeRing".to_owned()]), "{:?}", again.gaps);
    let folder = evidence::folder(&site.objects(), &longer, "cam");
    eventually(LONG, "the manifest names everything", || {
        let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).ok()?).ok()?;
        (manifest["objects"].as_array()?.len() == again.objects.len()).then_some(())
    });
    evidence::proven(&folder);
    evidence::decodes(&folder.join("index.m3u8"));
    let playlist = std::fs::read_to_string(folder.join("index.m3u8")).unwrap();
    let list = evidence::listed(&playlist);
    assert_eq!(evidence::holes(&list), 1, "{playlist}");
    let end = list.last().map(|l| l.from.after(Duration::from_secs_f64(l.seconds))).unwrap();
    assert!(end >= again.to.before(evidence::NEARLY), "{end} of {}", again.to);
    // What was added is signed like the rest.
    eventually(LONG, "it is proven", || {
        let verify =
            Command::new(env!("CARGO_BIN_EXE_chowki")).args(["verify", "--json"]).arg(folder.parent()?).output();
        let said: Value = serde_json::from_slice(&verify.ok()?.stdout).unwrap();
        assert_eq!(said["verdict"], "whole", "{said:#}");
        (said["incidents"][0]["unproven"] == Value::Array(Vec::new())).then_some(())
    });
}
