//! What headquarters pulls over HTTP, who may, and what nobody ever gets: the real program with incidents in it.
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
    io::{BufRead, BufReader},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chowki::district::press::Progress;
use gateway::{Gateway, SOON, Site, password, quiet_port};
use mqtt::{Button, Headquarters};
use support::{cameras, cameras_with, eventually, mosquitto};

/// Three clients, whose tokens are `token-of-` and their role.
fn with_clients(site: Site) -> Site {
    let client = |role: &str| {
        format!("[[api.client]]\nname = \"the {role}\"\nrole = \"{role}\"\ntoken_file = \"{role}.token\"\n")
    };
    ["operator", "puller", "engineer"]
        .iter()
        .fold(site.with("[api]"), |site, role| site.secret(&format!("{role}.token"), &token(role)).with(&client(role)))
}

fn token(role: &str) -> String {
    format!("token-of-{role}")
}

#[test]
fn without_a_token_there_is_health_and_nothing_else() {
    let site = with_clients(Site::new()).buttons(1);
    let gateway = site.start();
    assert_eq!((gateway.get("/healthz").status, gateway.get("/healthz").text().as_str()), (200, "ok\n"));
    assert_eq!(gateway.get("/").status, 200, "the page itself shows nothing");
    for path in ["/metrics", "/v1/incidents", "/v1/events", "/v1/buttons", "/v1/cameras", "/v1/status", "/v1/district"]
    {
        for answer in [gateway.get(path), gateway.get_as("wrong", path)] {
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.headers.to_lowercase().contains("www-authenticate: bearer"), "{}", answer.headers);
            assert!(answer.headers.contains("application/problem+json"), "{}", answer.headers);
            assert_eq!(answer.json()["status"], 401);
        }
        if path != "/v1/events" {
            assert_eq!(gateway.get_as(&token("puller"), path).status, 200, "{path}");
        }
    }
}

#[test]
fn whatever_is_refused_is_answered_with_a_problem_document() {
    let site = Site::new().with("[api]").buttons(1);
    let gateway = site.start();
    let nobody = "/v1/incidents/01890a5d-ac96-7b00-8000-000000000000";
    let refused: [(&str, String, String, u16); 14] = [
        ("GET", "/nowhere".into(), String::new(), 404),
        ("GET", "/v1/nowhere".into(), String::new(), 404),
        ("DELETE", "/v1/incidents".into(), String::new(), 405),
        ("POST", "/".into(), String::new(), 405),
        ("GET", "/v1/incidents?limit=many".into(), String::new(), 400),
        ("GET", "/v1/incidents/%ff".into(), String::new(), 400),
        ("GET", nobody.into(), String::new(), 404),
        ("GET", "/v1/cameras/nobody/coverage".into(), String::new(), 404),
        ("GET", "/v1/cameras/-/coverage".into(), String::new(), 400),
        ("GET", "/v1/cameras/c/coverage?from=yesterday".into(), String::new(), 400),
        ("GET", "/v1/cameras/c/coverage?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z".into(), String::new(), 400),
        ("GET", "/v1/cameras/c/coverage?from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z".into(), String::new(), 400),
        ("POST", format!("{nobody}/seen"), "x".repeat(100_000), 413),
        ("POST", format!("{nobody}/seen"), "{".into(), 400),
    ];
    for (method, path, body, status) in refused {
        let answer = gateway.try_http(method, &path, &[], &body).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert!(answer.headers.contains("application/problem+json"), "{method} {path}: {}", answer.headers);
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{method} {path}");
        assert!(problem["detail"].as_str().is_some_and(|d| d.len() > 10), "{method} {path}: {problem}");
        assert_eq!(answer.headers.to_lowercase().contains("\nallow: "), status == 405, "{method} {path}");
    }
}

#[test]
fn an_operator_takes_the_steps_and_a_puller_only_reads() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let site = with_clients(Site::new().headquarters(broker.port)).buttons(1);
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "delivered");
    let incidents = gateway.get_as(&token("puller"), "/v1/incidents").json();
    let id = incidents["incidents"][0]["id"].as_str().unwrap().to_owned();
    let step = |role: Option<&str>, step: &str| {
        gateway.post(role.map(token).as_deref(), &format!("/v1/incidents/{id}/{step}"), "").status
    };
    assert_eq!((step(None, "seen"), step(Some("puller"), "seen"), step(Some("engineer"), "close")), (401, 403, 403));
    let read = |role: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {}", token(role));
        gateway.try_http(method, path, &[("Authorization", &bearer)], "").unwrap().status
    };
    let (one, object) = (format!("/v1/incidents/{id}"), format!("/v1/incidents/{id}/cameras/c/init.mp4"));
    for path in ["/v1/incidents", &one, &object, "/v1/cameras/c/coverage"] {
        assert_eq!(read("engineer", "GET", path), 403, "{path}: an engineer sees no incident");
        assert_ne!(read("puller", "GET", path), 403, "{path}");
    }
    assert_eq!(read("engineer", "GET", "/v1/events"), 403);
    for role in ["operator", "puller", "engineer"] {
        assert_eq!((read(role, "HEAD", "/v1/cameras"), read(role, "GET", "/metrics")), (200, 200), "{role}");
    }
    assert_eq!(read("puller", "HEAD", "/v1/incidents"), 200);
    assert_eq!((step(Some("operator"), "seen"), step(Some("operator"), "dispatched")), (204, 204));
    button.until("p-1", "dispatched");
    assert_eq!(step(Some("operator"), "close"), 204);
    button.until("p-1", "closed");
    assert_eq!(button.told("p-1"), ["recorded", "delivered", "seen", "dispatched", "closed"]);
    let closed = hq.incident("closed", SOON, |i| i.state == Progress::Closed);
    assert!(closed.timeline.iter().any(|t| t.what == "seen by the operator"), "{:?}", closed.timeline);

    let get = |path: &str| gateway.get_as(&token("puller"), path);
    assert_eq!(get(&format!("/v1/incidents/{id}")).json()["state"], "closed");
    assert_eq!(get("/v1/incidents/no-uuid").status, 400);
    let unknown = "/v1/incidents/018bcfe5-6800-7000-8000-000000000000";
    assert_eq!(get(unknown).status, 404);
    assert_eq!(gateway.post(Some(&token("operator")), &format!("{unknown}/seen"), "").status, 404);
    assert_eq!(gateway.post(Some(&token("operator")), &format!("/v1/incidents/{id}/seen"), "{").status, 400);
    assert_eq!(get("/v1/nothing").status, 404);
}

#[test]
fn incidents_are_listed_page_by_page_newest_first() {
    let site = Site::new().buttons(7);
    let gateway = site.start();
    for n in 1..=7 {
        Button::connect(gateway.mqtt, &format!("b{n}")).unwrap().press("p-1", "panic");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/v1/incidents?limit=3{after}")).json();
        let incidents = page["incidents"].as_array().unwrap();
        assert!(incidents.len() <= 3);
        seen.extend(incidents.iter().map(|i| i["button"]["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["b7", "b6", "b5", "b4", "b3", "b2", "b1"]);
}

/// An event of the stream: id, name, data.
type Event = (u64, String, serde_json::Value);

struct Events(BufReader<TcpStream>);

impl Events {
    fn open(gateway: &Gateway<'_>, last: Option<u64>) -> Self {
        Self::saying(gateway, last.map(|l| l.to_string()).as_deref())
    }

    /// Of a reader that says so of where it was.
    fn saying(gateway: &Gateway<'_>, last: Option<&str>) -> Self {
        let headers: Vec<_> = last.iter().map(|l| ("Last-Event-ID", *l)).collect();
        let mut reader = BufReader::new(gateway.request("GET", "/v1/events", &headers, "").unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        Self(reader)
    }

    fn next(&mut self) -> Event {
        let (mut id, mut name, mut data) = (0, String::new(), serde_json::Value::Null);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            match line.trim_end().split_once(": ") {
                Some(("id", value)) => id = value.parse().unwrap(),
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => data = serde_json::from_str(value).unwrap(),
                _ if line.trim_end().is_empty() && !name.is_empty() => return (id, name, data),
                _ => {}
            }
        }
    }

    /// The next event about an incident.
    fn incident(&mut self) -> Event {
        loop {
            let event = self.next();
            if event.1 == "incident" {
                return event;
            }
        }
    }
}

#[test]
fn a_reader_of_events_that_does_not_say_where_it_was_is_told_to_read_all_anew() {
    let site = Site::new().buttons(1);
    let gateway = site.start();
    for last in ["the last one", "-1", "18446744073709551616", "99999999999999999"] {
        assert_eq!(Events::saying(&gateway, Some(last)).next().1, "reset", "{last:?}");
    }
}

#[test]
fn a_reader_of_events_that_was_away_misses_nothing_and_gets_nothing_twice() {
    let site = Site::new().buttons(3);
    let gateway = site.start();
    let mut witness = Events::open(&gateway, None);
    let mut buttons: Vec<_> = (1..=3).map(|n| Button::connect(gateway.mqtt, &format!("b{n}")).unwrap()).collect();
    buttons[0].press("p-1", "panic");
    let mut reader = Events::open(&gateway, Some(witness.incident().0));
    buttons[0].press("p-2", "panic");
    let second = reader.incident();
    assert_eq!((second.1.as_str(), &second.2["press_count"]), ("incident", &2.into()));
    drop(reader);

    // Away.
    for button in &mut buttons {
        button.press("p-3", "medical");
    }
    let mut reader = Events::open(&gateway, Some(second.0));
    let mut missed = Vec::new();
    while missed.len() < 3 {
        let event = reader.incident();
        missed.push((event.0, event.2["button"]["id"].as_str().unwrap().to_owned()));
    }
    let ids: Vec<_> = missed.iter().map(|m| m.0).collect();
    assert!(ids.windows(2).all(|w| w[0] < w[1]) && ids[0] > second.0, "{ids:?}");
    // One that changed a moment ago may come after the others.
    assert_eq!(missed.iter().map(|m| m.1.as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(["b1", "b2", "b3"]));
    // It saw what the one that stayed saw.
    let mut stayed = Vec::new();
    while stayed.len() < 4 {
        let event = witness.incident();
        stayed.push(event.0);
    }
    assert_eq!(stayed[1..], ids);

    // A number that was never given: everything is to be read anew.
    assert_eq!(Events::open(&gateway, Some(7)).next().1, "reset");
    assert_eq!(Events::open(&gateway, Some(u64::MAX)).next().1, "reset");
}

#[test]
fn evidence_over_http_is_what_headquarters_has() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().headquarters(broker.port).window(2, 2).buttons(1).camera("cam", 10, &url);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(3));
    Button::connect(gateway.mqtt, "b1").unwrap().press("p-1", "panic");
    let incident = hq.incident("all evidence at headquarters", Duration::from_secs(60), evidence::all_there);
    let folder = evidence::folder(&site.objects(), &incident, "cam");
    let manifest = evidence::proven(&folder);
    let path = incident.cameras[0].evidence.clone();
    let playlist = gateway.get(&path);
    assert_eq!(playlist.status, 200);
    assert!(playlist.headers.to_lowercase().contains("application/vnd.apple.mpegurl"), "{}", playlist.headers);
    assert_eq!(playlist.text(), std::fs::read_to_string(folder.join("index.m3u8")).unwrap());
    let parent = path.rsplit_once('/').unwrap().0;
    for object in &manifest.objects {
        let over_http = gateway.get(&format!("{parent}/{}", object.name));
        assert_eq!((over_http.status, object.check(&over_http.body)), (200, Ok(())), "{}", object.name);
    }
    // A player plays it straight from here.
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_packets", "-select_streams", "v", "-of", "json"])
        .arg(format!("http://127.0.0.1:{}{path}", gateway.api))
        .output()
        .unwrap();
    let packets: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(packets["packets"].as_array().unwrap().len() >= 110, "{}", String::from_utf8_lossy(&out.stderr));
    for name in ["..%2f..%2fjournal", "00099.m4s", "incident.json"] {
        assert_eq!(gateway.get(&format!("{parent}/{name}")).status, 404, "{name}");
    }
    let cameras = gateway.get("/v1/cameras").json();
    assert_eq!((&cameras["cameras"][0]["id"], &cameras["cameras"][0]["state"]), (&"cam".into(), &"live".into()));
}

/// The metric families of an OpenMetrics text: name to type. Fails on whatever a strict reader would not take.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut helped = BTreeSet::new();
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines().filter(|l| *l != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let parts: Vec<_> = rest.splitn(3, ' ').collect();
            match parts[0] {
                "HELP" => {
                    assert!(parts[2].len() > 5 && helped.insert(parts[1].to_owned()), "{line}");
                }
                "TYPE" => {
                    let twice = families.insert(parts[1].to_owned(), parts[2].to_owned());
                    assert!(twice.is_none(), "{} comes twice", parts[1]);
                }
                "UNIT" => assert!(parts[1].ends_with(parts[2]), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(samples.insert(series.to_owned()), "{series} comes twice");
        let name = series.split('{').next().unwrap();
        let family = name.strip_suffix("_total").unwrap_or(name);
        let kind = families.get(family).unwrap_or_else(|| panic!("{name} has no type"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        assert!(name.starts_with("chowki_"), "{name}");
    }
    assert_eq!(helped.len(), families.len());
    families
}

#[test]
fn metrics_are_open_metrics_with_help_and_move_with_what_happens() {
    let site = Site::new().buttons(2).camera("dead", 10, "rtsp://127.0.0.1:9/cam0");
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    let answer = gateway.get("/metrics");
    assert!(answer.headers.contains("application/openmetrics-text; version=1.0.0"), "{}", answer.headers);
    let text = answer.text();
    assert!(families(&text).len() > 30);
    for line in [
        "chowki_incidents_open 1",
        "chowki_presses_total 1",
        "chowki_mqtt_sessions_total 1",
        "chowki_journal_errors_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(
        text.contains("chowki_buttons{state=\"online\"} 1") && text.contains("chowki_buttons{state=\"unknown\"} 1")
    );
    let script = "import sys\n\
        try: from prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
        except ImportError: sys.exit(77)\n\
        print(len(list(read(open(sys.argv[1]).read()))))\n";
    let file = site.dir.path().join("metrics");
    std::fs::write(&file, &text).unwrap();
    let out = Command::new("python3").args(["-c", script]).arg(file).output().unwrap();
    if out.status.code() == Some(77) {
        eprintln!("SKIPPED: python's prometheus_client is not installed; only the test's own reader has read it");
    } else {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    // One that asks for digest, one for basic, one with another password.
    let (digest, basic) = (cameras(quiet_port(), 1), cameras_with(quiet_port(), 1, &["--basic"]));
    let url = |port: u16| format!("rtsp://127.0.0.1:{port}/cam0");
    let wrong = format!(
        "[[camera]]\nid = \"wrong\"\nname = \"wrong\"\nat = [34.0, 71.5]\nurl = \"{}\"\nusername = \"admin\"\n\
         password_file = \"wrong.password\"\n",
        url(digest.port)
    );
    let site = Site::new()
        .headquarters(broker.port)
        .secret("hq.password", "secret-of-headquarters")
        .with("username = \"saddar\"\npassword_file = \"hq.password\"")
        .window(1, 1);
    let site = with_clients(site)
        .buttons(1)
        .camera("digest", 10, &url(digest.port))
        .camera("basic", 10, &url(basic.port))
        .secret("wrong.password", "secret-of-a-camera")
        .with(&wrong);
    let gateway = site.spawn(&[("RUST_LOG", "trace")]);
    gateway.ready();
    eventually(SOON, "two cameras live, one refused", || {
        let states = gateway.get_as(&token("engineer"), "/v1/cameras").json();
        let states: Vec<_> =
            states["cameras"].as_array()?.iter().filter_map(|c| c["state"].as_str().map(str::to_owned)).collect();
        let count = |state: &str| states.iter().filter(|s| *s == state).count();
        (count("live") == 2 && count("wrong-password") == 1).then_some(())
    });
    assert!(Button::connect_with(gateway.mqtt, "b2", 60, "").is_err());
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    hq.incident("all evidence at headquarters", Duration::from_secs(60), evidence::all_there);
    gateway.get_as("secret-of-nobody", "/v1/incidents");

    let mut shown = Vec::new();
    for path in ["/metrics", "/v1/incidents", "/v1/buttons", "/v1/cameras", "/v1/status", "/v1/district"] {
        let answer = gateway.get_as(&token("operator"), path);
        assert_eq!(answer.status, 200);
        shown.push((path.to_owned(), answer.headers.clone() + &answer.text()));
        shown.push((format!("{path} without a token"), gateway.get_as("secret-of-nobody", path).text()));
    }
    shown.extend(hq.heard().into_iter().map(|h| (h.topic, h.payload)));
    shown.push(("the log".into(), gateway.log()));
    assert!(gateway.log().contains("TRACE"), "the log says too little to prove anything");
    let basic_auth = |password: &str| STANDARD.encode(format!("admin:{password}"));
    let secrets = [
        password("b1"),
        "secret-of-headquarters".into(),
        "secret-of-a-camera".into(),
        "secret-of-nobody".into(),
        basic_auth("secret-of-a-camera"),
        basic_auth("test"),
        token("operator"),
        token("puller"),
        token("engineer"),
    ];
    for (place, text) in &shown {
        for secret in &secrets {
            let line = text.lines().find(|l| l.contains(secret.as_str()));
            assert_eq!(line, None, "{secret} is shown in {place}");
        }
        // As numbers too: `Debug` of bytes.
        for secret in &secrets {
            let bytes = format!("{:?}", secret.as_bytes());
            let bytes = bytes.trim_matches(['[', ']']);
            assert!(!text.contains(bytes), "{secret} is shown in {place}, byte by byte");
        }
    }
    assert!(gateway.stop().success());
}
