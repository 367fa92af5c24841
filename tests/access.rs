//! Who may do what: tokens, certificates, sessions, and what is written down of it; the real program, curl and openssl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use gateway::{Gateway, SOON, Site};
use mqtt::Button;
use serde_json::Value;
use support::eventually;

/// A client of each role, whose token is `token-of-` and the role.
fn with_clients(site: Site) -> Site {
    let client = |role: &str| {
        format!("[[api.client]]\nname = \"the {role}\"\nrole = \"{role}\"\ntoken_file = \"{role}.token\"\n")
    };
    let add = |site: Site, role: &&str| site.secret(&format!("{role}.token"), &token(role)).with(&client(role));
    ROLES.iter().fold(site.with("[api]"), add)
}

const ROLES: [&str; 4] = ["operator", "supervisor", "puller", "engineer"];

fn token(role: &str) -> String {
    format!("token-of-{role}")
}

/// `chowki token`, for the gateway of a site.
fn chowki_token(site: &Site, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chowki"))
        .arg("token")
        .args(args)
        .arg("--data")
        .arg(site.data_dir())
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

#[test]
fn each_route_is_for_its_roles_and_for_nobody_else() {
    let site = with_clients(Site::new()).buttons(1).camera("c1", 10, "rtsp://127.0.0.1:9/none");
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    let id = eventually(SOON, "the incident", || {
        let all = gateway.get_as(&token("operator"), "/v1/incidents").json();
        Some(all["incidents"].get(0)?["id"].as_str()?.to_owned())
    });
    let (incident, camera) = (format!("/v1/incidents/{id}"), "/v1/cameras/c1");
    let everybody = ["operator", "supervisor", "puller", "engineer"];
    let readers = ["operator", "supervisor", "puller"];
    let desk = ["operator", "supervisor"];
    let at = "2026-01-01T00:00:00Z";
    let routes: Vec<(&str, String, &[&str])> = vec![
        ("GET", "/metrics".into(), &everybody),
        ("GET", "/v1/district".into(), &everybody),
        ("GET", "/v1/status".into(), &everybody),
        ("GET", "/v1/buttons".into(), &everybody),
        ("GET", "/v1/cameras".into(), &everybody),
        ("GET", "/v1/me".into(), &everybody),
        ("GET", "/v1/incidents".into(), &readers),
        ("GET", incident.clone(), &readers),
        ("GET", "/v1/calls".into(), &readers),
        ("GET", "/v1/ice-servers".into(), &readers),
        ("GET", format!("{camera}/coverage"), &readers),
        ("GET", format!("{camera}/recording.mp4"), &readers),
        ("GET", format!("{camera}/recording.m3u8"), &readers),
        ("GET", format!("{camera}/still.jpg?at={at}"), &readers),
        ("GET", format!("{camera}/recordings/2026-01-01/x.m4s?at={at}"), &readers),
        ("POST", format!("{camera}/whep"), &readers),
        ("DELETE", format!("{camera}/whep/x"), &readers),
        ("GET", format!("{incident}/cameras/c1.mp4"), &readers),
        ("GET", format!("{incident}/cameras/c1/index.m3u8"), &readers),
        ("POST", format!("{incident}/seen"), &desk),
        ("POST", format!("{incident}/dispatched"), &desk),
        ("POST", format!("{incident}/call"), &desk),
        ("DELETE", format!("{incident}/call/x"), &desk),
        ("POST", format!("{incident}/call/x/mute"), &desk),
        ("GET", "/v1/audit".into(), &["supervisor"]),
    ];
    for (method, path, roles) in &routes {
        let ask = |headers: &[(&str, &str)]| gateway.try_http(method, path, headers, "").unwrap().status;
        assert_eq!(ask(&[]), 401, "{method} {path}: nobody");
        for role in ROLES {
            let status = ask(&[("Authorization", &format!("Bearer {}", token(role)))]);
            assert_ne!(status, 401, "{method} {path}: {role}");
            assert_eq!(status != 403, roles.contains(&role), "{method} {path}: {role} has {status}");
        }
    }
    // What was asked for of media and steps is written down, refused or not; lists and states are not.
    let noted = audit(&gateway, &token("supervisor"));
    let of = |what: &str| -> Vec<(Option<&str>, u64)> {
        let all = noted.iter().filter(|note| note["what"].as_str().unwrap().starts_with(what));
        all.map(|note| (note["who"].as_str(), note["status"].as_u64().unwrap())).collect()
    };
    let seen = of(&format!("POST {incident}/seen"));
    let who: Vec<_> = seen.iter().map(|(who, status)| (who.unwrap_or("nobody"), *status)).collect();
    assert_eq!(
        who,
        [("nobody", 401), ("the operator", 204), ("the supervisor", 204), ("the puller", 403), ("the engineer", 403)]
    );
    assert_eq!(of(&format!("GET {camera}/recording.mp4")).len(), 5);
    assert!(of("GET /v1/buttons").is_empty() && of("GET /v1/incidents ").is_empty());
    assert!(noted.iter().all(|note| note["from"] == "127.0.0.1"), "{noted:?}");
    assert!(noted.iter().zip(1..).all(|(note, n)| note["n"] == n), "without holes");
}

fn audit(gateway: &Gateway, token: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = gateway.get_as(token, &format!("/v1/audit?after={after}&limit=20")).json();
        let notes = page["notes"].as_array().unwrap();
        // The question itself is noted too.
        if notes.iter().all(|note| note["what"].as_str().unwrap().starts_with("GET /v1/audit")) {
            return all;
        }
        all.extend(notes.iter().filter(|n| !n["what"].as_str().unwrap().starts_with("GET /v1/audit?")).cloned());
        after = page["next"].as_u64().unwrap();
    }
}

#[test]
fn a_token_works_within_seconds_of_its_issue_and_no_longer_once_it_is_taken_back() {
    let port = gateway::quiet_port();
    let site = Site::new().buttons(1).camera("c1", 10, "rtsp://127.0.0.1:9/none");
    let site = site.with(&format!("[rtsp]\nlisten = \"127.0.0.1:{port}\""));
    let gateway = site.start();
    assert_eq!(gateway.get("/v1/incidents").status, 200, "nobody is configured: everybody may, on loopback");
    let issued = chowki_token(&site, &["new", "vms", "--role", "puller"]);
    assert!(issued.status.success(), "{issued:?}");
    let secret = String::from_utf8(issued.stdout).unwrap().trim().to_owned();
    assert!(secret.starts_with("chowki_") && secret.len() > 40, "{secret}");
    eventually(SOON, "without a token there is nothing now", || {
        (gateway.get("/v1/incidents").status == 401).then_some(())
    });
    assert_eq!(gateway.get_as(&secret, "/v1/incidents").status, 200);
    let me = gateway.get_as(&secret, "/v1/me").json();
    assert_eq!((&me["name"], &me["role"]), (&"vms".into(), &"puller".into()));
    assert_eq!(
        chowki_token(&site, &["new", "vms", "--role", "operator"]).status.code(),
        Some(2),
        "one name, one token"
    );

    let listed: Value = serde_json::from_slice(&chowki_token(&site, &["list", "--json"]).stdout).unwrap();
    assert_eq!((&listed["tokens"][0]["name"], listed["tokens"].as_array().unwrap().len()), (&"vms".into(), 1));
    assert!(!listed.to_string().contains(&secret));
    // A session that began with it ends with it.
    let cookie = sign_in(&gateway, &secret).unwrap();
    let by_cookie = || gateway.try_http("GET", "/v1/me", &[("Cookie", &cookie)], "").unwrap().status;
    assert_eq!(by_cookie(), 200);
    assert!(chowki_token(&site, &["revoke", "vms"]).status.success());
    assert_eq!(chowki_token(&site, &["revoke", "vms"]).status.code(), Some(1));
    eventually(SOON, "it works no more", || (gateway.get_as(&secret, "/v1/incidents").status == 401).then_some(()));
    assert_eq!((by_cookie(), rtsp(port, "vms", &secret)), (401, 401));
    assert_eq!(gateway.get("/v1/incidents").status, 401, "that nobody has a token now opens no door");
    std::fs::rename(site.data_dir().join("tokens.toml"), site.data_dir().join("aside")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(gateway.get("/v1/incidents").status, 401, "nor that their file has gone");
    std::fs::rename(site.data_dir().join("aside"), site.data_dir().join("tokens.toml")).unwrap();
    drop(gateway);
    assert_eq!(site.start().get("/v1/incidents").status, 401, "nor does a restart");
}

/// How DESCRIBE of a camera is answered in the end, as ffprobe tells it.
fn rtsp(port: u16, user: &str, password: &str) -> u16 {
    let url = format!("rtsp://{user}:{password}@127.0.0.1:{port}/c1");
    let out = Command::new("ffprobe").args(["-v", "error", "-rtsp_transport", "tcp", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // "method DESCRIBE failed: 401 Unauthorized", and of other refusals "Server returned 5XX".
    match () {
        () if said.contains("401") => 401,
        () if said.contains("5XX") || said.contains("503") => 503,
        () => panic!("{said}"),
    }
}

/// The cookie that a token is changed for.
fn sign_in(gateway: &Gateway, token: &str) -> Result<String, u16> {
    let body = serde_json::json!({ "token": token }).to_string();
    let answer = gateway.try_http("POST", "/v1/session", &[("Content-Type", "application/json")], &body).unwrap();
    if answer.status != 204 {
        return Err(answer.status);
    }
    let line = answer.headers.lines().find(|line| line.to_lowercase().starts_with("set-cookie: ")).unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(line.contains(attribute), "{line}");
    }
    Ok(line.split_once(": ").unwrap().1.split(';').next().unwrap().to_owned())
}

#[test]
fn a_session_is_of_the_gateways_own_page_and_who_guesses_tokens_is_locked_out() {
    let site = with_clients(Site::new()).buttons(1);
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    let cookie = sign_in(&gateway, &token("operator")).unwrap();
    let own = format!("http://127.0.0.1:{}", gateway.api);
    let host = format!("127.0.0.1:{}", gateway.api);
    let incidents = gateway.try_http("GET", "/v1/incidents", &[("Cookie", &cookie)], "").unwrap();
    assert_eq!(incidents.status, 200);
    let id = incidents.json()["incidents"][0]["id"].as_str().unwrap().to_owned();
    let seen = |headers: &[(&str, &str)]| {
        let all = [&[("Cookie", cookie.as_str()), ("Host", host.as_str())], headers].concat();
        gateway.try_http("POST", &format!("/v1/incidents/{id}/seen"), &all, "").unwrap().status
    };
    // A browser says where a request comes from; another page cannot say that it is ours.
    assert_eq!(seen(&[]), 403);
    assert_eq!(seen(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(seen(&[("Origin", &own), ("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(seen(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]), 204);
    let out = gateway.try_http("DELETE", "/v1/session", &[("Cookie", &cookie)], "").unwrap();
    assert!(out.status == 204 && out.headers.contains("Max-Age=0"), "{}", out.headers);
    assert_eq!(seen(&[("Origin", &own)]), 401, "signed out");

    let tried: Vec<_> = (0..12).map(|n| sign_in(&gateway, &format!("guess-{n}")).unwrap_err()).collect();
    assert_eq!(tried, [[401; 10].as_slice(), &[429; 2]].concat());
    let refused = gateway.try_http("GET", "/v1/me", &[("Authorization", "Bearer token-of-operator")], "").unwrap();
    assert!(refused.status == 429 && refused.headers.to_lowercase().contains("\nretry-after: "), "{}", refused.headers);
    assert_eq!(gateway.get("/healthz").status, 200);
}

/// An authority, and what it signs.
struct Authority<'a>(&'a Path);

impl Authority<'_> {
    fn new(dir: &Path) -> Authority<'_> {
        let authority = Authority(dir);
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=ca -keyout ca.key -out ca.pem");
        authority
    }

    fn openssl(&self, args: &str) {
        let run = Command::new("openssl").args(args.split(' ')).current_dir(self.0).stderr(Stdio::null()).status();
        assert!(run.unwrap().success(), "openssl {args}");
    }

    fn sign(&self, name: &str, subject: &str) {
        std::fs::write(self.0.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile ext -out {name}.pem"
        ));
    }

    /// What `GET /v1/me` says by HTTPS, and who the gateway says it is.
    fn me(&self, port: u16, args: &[&str]) -> (u16, Value) {
        let out = Command::new("curl")
            .args(["-sS", "--cacert", "ca.pem", "-w", "\n%{http_code}"])
            .args(args)
            .arg(format!("https://127.0.0.1:{port}/v1/me"))
            .current_dir(self.0)
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    fn served(&self, port: u16) -> String {
        let out = Command::new("sh")
            .args([
                "-c",
                &format!(
                    "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -subject"
                ),
            ])
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    }
}

#[test]
fn a_certificate_is_as_good_as_a_token_and_the_gateways_own_is_served_anew_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    authority.sign("api", "first");
    authority.sign("console", "hq-console");
    authority.sign("other", "somebody");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let site = Site::new().buttons(1).with(&format!(
        "[api.tls]\ncert = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n[[api.client]]\nname = \"console\"\nrole = \"operator\"\n\
         certificate = \"hq-console\"\n[[api.client]]\nname = \"puller\"\nrole = \"puller\"\ntoken_file = \"puller.token\"\n",
        path("api.pem"),
        path("api.key"),
        path("ca.pem")
    ));
    let site = site.secret("puller.token", &token("puller"));
    let gateway = site.spawn(&[]);
    let me = |args: &[&str]| authority.me(gateway.api, args);
    eventually(SOON, "it is there", || (me(&[]).0 == 401).then_some(()));
    let shown = me(&["--cert", "console.pem", "--key", "console.key"]);
    assert_eq!((shown.0, &shown.1["name"], &shown.1["role"]), (200, &"console".into(), &"operator".into()));
    assert_eq!(me(&["--cert", "other.pem", "--key", "other.key"]).0, 401, "known to the authority, not to us");
    let bearer = format!("Authorization: Bearer {}", token("puller"));
    assert_eq!(me(&["-H", &bearer]).1["name"], "puller");
    assert_eq!(
        me(&["-H", &bearer, "--cert", "console.pem", "--key", "console.key"]).1["name"],
        "puller",
        "the token counts"
    );
    authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=hq-console -keyout fake.key -out fake.pem");
    assert_eq!(me(&["--cert", "fake.pem", "--key", "fake.key"]).0, 0, "signed by nobody: no connection");

    assert!(authority.served(gateway.api).contains("first"));
    // Half of a pair changes nothing; the whole of one is served.
    authority.sign("next", "second");
    std::fs::copy(dir.path().join("next.pem"), dir.path().join("api.pem")).unwrap();
    eventually(SOON, "it is told", || {
        gateway.log().contains("cannot be served; the one of before stays").then_some(())
    });
    assert!(authority.served(gateway.api).contains("first"));
    std::fs::copy(dir.path().join("next.key"), dir.path().join("api.key")).unwrap();
    eventually(SOON, "the new one is served", || authority.served(gateway.api).contains("second").then_some(()));
    assert_eq!(me(&["--cert", "console.pem", "--key", "console.key"]).0, 200);
}
