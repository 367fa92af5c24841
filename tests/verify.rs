//! `chowki verify` and the box's key, the real programs: what a gateway with cameras has put into headquarters' directory is
//! proven whole, and whatever is done to it is named.
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
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use chowki::{
    district::{digest::Sha256, identity::Identity, incident::Incident},
    media::{
        audit::{File, Folder, Verdict, audit, is_text},
        proof::Proof,
    },
};
use evidence::all_there;
use gateway::{Gateway, SOON, Site, quiet_port};
use mqtt::{Button, Headquarters};
use serde_json::Value;
use support::{cameras, eventually, mosquitto, which};

const LONG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn chowki(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chowki")).args(args).output().unwrap()
}

/// What `chowki verify --json` says, and how it ends.
fn verify(dir: &Path, more: &[&str]) -> (i32, Value) {
    let out = chowki(&[&["verify", "--json", dir.to_str().unwrap()], more].concat());
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap(), serde_json::from_slice(&out.stdout).unwrap())
}

/// Names of what is not right in the only incident there, in order.
fn named(said: &Value) -> Vec<(String, String)> {
    let findings = said["incidents"][0]["findings"].as_array().unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    findings.iter().map(|f| (text(f, "name"), text(f, "kind"))).collect()
}

fn folder(site: &Site, incident: &Incident) -> PathBuf {
    site.objects().join(format!("saddar/incidents/{}", incident.id))
}

/// Every file below a folder, by its name from there.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(entry.path()).unwrap());
                }
            }
        }
    }
    found
}

/// A copy of a folder, to be meddled with.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for (name, bytes) in files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The key that a gateway says is its own.
fn key(gateway: &Gateway<'_>) -> (String, String) {
    let identity = eventually(SOON, "the status has the key", || {
        let status = gateway.get("/v1/status").json();
        (!status["identity"].is_null()).then(|| status["identity"].clone())
    });
    (identity["fingerprint"].as_str().unwrap().to_owned(), identity["key"].as_str().unwrap().to_owned())
}

/// Waits until nothing of the only incident there is to come.
fn settled(dir: &Path, key: &str) -> Value {
    eventually(LONG, "the incident is whole and final", || {
        let (code, said) = verify(dir, &["--key", key]);
        assert_eq!(code, 0, "{said:#}");
        let incident = &said["incidents"][0];
        (incident["growing"] == false && incident["unproven"] == Value::Array(vec![])).then_some(said)
    })
}

#[test]
fn an_incident_is_proven_while_it_grows_when_it_is_closed_and_after_restarts_and_whatever_is_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 1);
    let url = |path: &str| format!("rtsp://127.0.0.1:{}/{path}", rig.port);
    let site = Site::new().headquarters(broker.port).window(2, 8).buttons(1);
    let site = site.camera("cam", 10, &url("cam0")).camera("aac", 20, &url("aac"));
    let gateway = site.start();
    let (fingerprint, public) = key(&gateway);
    gateway.cameras_live(2, 3 * SECOND);
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    let incident = gateway.incident("it is there", |_| true);
    let evidence = folder(&site, &incident);
    eventually(SOON, "the first proof", || evidence.join("proof.json").exists().then_some(()));

    // While it grows, whenever somebody looks.
    let mut proven = Vec::new();
    for look in 0..8 {
        std::thread::sleep(Duration::from_millis(700));
        if look == 4 {
            button.press("p-2", "medical");
        }
        let (code, said) = verify(&evidence, &["--key", &public]);
        assert_eq!((code, &said["verdict"]), (0, &"whole".into()), "look {look}: {said:#}");
        assert_eq!(said["incidents"][0]["growing"], true, "{said:#}");
        proven.push(said["incidents"][0]["proven"].as_u64().unwrap());
    }
    assert!(proven.is_sorted() && proven.last().unwrap() > &5, "{proven:?}");

    // Killed in the middle, and started again: the same key, and the proof goes on.
    gateway.kill();
    let (code, said) = verify(&evidence, &["--key", &public]);
    assert!(code == 0 || named(&said) == [("incident.json".to_owned(), "changed".to_owned())], "{said:#}");
    let gateway = site.start();
    assert_eq!(key(&gateway), (fingerprint.clone(), public.clone()));
    hq.incident("all evidence at headquarters", LONG, all_there);
    assert_eq!(gateway.post(None, &format!("/v1/incidents/{}/close", incident.id), "{}").status / 100, 2);
    let said = settled(&evidence, &fingerprint);
    let found = &said["incidents"][0];
    assert_eq!((&found["signed"]["vouched"], &found["first"]), (&Value::Bool(true), &Value::Null), "{said:#}");
    assert_eq!(found["subject"], format!("saddar/incidents/{}", incident.id));
    let there = files(&evidence);
    assert_eq!(found["proven"], there.len() - 1, "all but the proof itself");
    for part in ["incident.json", "cam/manifest.json", "cam/index.m3u8", "aac/manifest.json", "cam/init.mp4"] {
        assert!(there.contains_key(part), "{part} of {:?}", there.keys());
    }

    // Another start has nothing new to sign.
    assert!(gateway.stop().success());
    let gateway = site.start();
    std::thread::sleep(4 * SECOND);
    settled(&evidence, &fingerprint);
    let objects = |files: &BTreeMap<String, Vec<u8>>| {
        let kept = files.iter().filter(|(name, _)| name.contains('/'));
        kept.map(|(name, bytes)| (name.clone(), bytes.clone())).collect::<Vec<_>>()
    };
    assert_eq!(objects(&files(&evidence)), objects(&there), "what is at headquarters is never written anew");
    pulled(&gateway, &incident, &evidence, dir.path(), &public);
    drop(gateway);

    every_change_is_found(&evidence);
    every_kind_of_change_is_named(&evidence, dir.path(), &public);
}

/// What is pulled over HTTP is proven like what was put to the store.
fn pulled(gateway: &Gateway<'_>, incident: &Incident, evidence: &Path, to: &Path, key: &str) {
    let folder = to.join(incident.id.to_string());
    let address = format!("/v1/incidents/{}", incident.id);
    let keep = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for name in files(evidence).keys().filter(|name| name.contains('/')) {
        let answer = gateway.get(&format!("{address}/cameras/{name}"));
        assert_eq!(answer.status, 200, "{name}");
        keep(name, &answer.body);
    }
    keep("incident.json", &gateway.get(&address).body);
    keep("proof.json", &gateway.get(&format!("{address}/proof.json")).body);
    let (code, said) = verify(&folder, &["--key", key]);
    let found = &said["incidents"][0];
    assert_eq!((code, &found["growing"], &found["unproven"]), (0, &false.into(), &Value::Array(vec![])), "{said:#}");
    keep("cam/00001.m4s", b"another");
    assert_eq!(named(&verify(&folder, &[]).1), [("cam/00001.m4s".to_owned(), "changed".to_owned())]);
}

/// A bit of every file, at many places.
fn every_change_is_found(evidence: &Path) {
    let there = files(evidence);
    let name = evidence.file_name().unwrap().to_str().unwrap().to_owned();
    let file = |name: &str, bytes: &[u8]| {
        let text = is_text(name).then(|| bytes.to_vec());
        Ok(File { size: bytes.len() as u64, sha256: Sha256::of(bytes), text })
    };
    let all = there.iter().map(|(name, bytes)| (name.clone(), file(name, bytes))).collect();
    let whole = Folder { name, files: all };
    assert_eq!(audit(&whole, None).verdict, Verdict::Whole);
    for (name, bytes) in &there {
        let places = if is_text(name) { 60 } else { 6 };
        for _ in 0..places {
            let (at, bit) = (fastrand::usize(..bytes.len()), fastrand::u8(..8));
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let mut folder = whole.clone();
            folder.files.insert(name.clone(), file(name, &bytes));
            let found = audit(&folder, None);
            assert_ne!(found.verdict, Verdict::Whole, "bit {bit} of byte {at} of {name}");
            assert_eq!(found.findings[0].name, *name);
        }
    }
}

fn every_kind_of_change_is_named(evidence: &Path, dir: &Path, key: &str) {
    let there = files(evidence);
    let copied = dir.join("pulled");
    let done = |what: &dyn Fn(&Path)| {
        copy(evidence, &copied);
        what(&copied);
        verify(&copied, &["--key", key])
    };
    let (one, two) = ("cam/00001.m4s", "cam/00002.m4s");
    let is = |said: &(i32, Value), wanted: &[(&str, &str)]| {
        let wanted: Vec<_> = wanted.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
        assert_eq!((said.0, named(&said.1)), (1, wanted), "{:#}", said.1);
        assert_eq!(said.1["incidents"][0]["first"], named(&said.1)[0].0);
    };
    assert_eq!(done(&|_| {}).0, 0, "a copy by another name");
    let flip = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        let at = fastrand::usize(..bytes.len());
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for name in ["cam/init.mp4", one, "aac/index.m3u8", "cam/manifest.json"] {
        is(&done(&|dir| flip(dir.join(name))), &[(name, "changed")]);
    }
    is(&done(&|dir| fs::write(dir.join(two), &there[two][..100]).unwrap()), &[(two, "changed")]);
    is(&done(&|dir| fs::remove_file(dir.join(one)).unwrap()), &[(one, "missing")]);
    let swap = |dir: &Path| {
        fs::write(dir.join(one), &there[two]).unwrap();
        fs::write(dir.join(two), &there[one]).unwrap();
    };
    is(&done(&swap), &[(one, "changed"), (two, "changed")]);
    let rename = |dir: &Path| fs::rename(dir.join(one), dir.join("cam/09999.m4s")).unwrap();
    is(&done(&rename), &[(one, "missing"), ("cam/09999.m4s", "not-listed")]);
    is(&done(&|dir| fs::write(dir.join("note.txt"), "x").unwrap()), &[("note.txt", "not-listed")]);
    let (code, said) = done(&|dir| fs::remove_dir_all(dir.join("aac")).unwrap());
    let mut gone: Vec<_> = there.keys().filter(|name| name.starts_with("aac/")).map(String::as_str).collect();
    let found = named(&said);
    let mut missing: Vec<_> =
        found.iter().filter(|(_, kind)| kind == "missing").map(|(name, _)| name.as_str()).collect();
    missing.sort_unstable();
    gone.sort_unstable();
    assert_eq!((code, missing, found.len()), (1, gone.clone(), gone.len()), "{said:#}");
    // A step that the operator never took.
    let said = done(&|dir| {
        let text = String::from_utf8(there["incident.json"].clone()).unwrap();
        let text = text.replacen("\"closed by", "\"help dispatched by", 1);
        fs::write(dir.join("incident.json"), text).unwrap();
    });
    let history = named(&said.1);
    assert_eq!((said.0, history[0].0.as_str(), history.len()), (1, "incident.json", 2), "{:#}", said.1);
    assert!(history[1].0.starts_with("incident.json#/timeline/"), "{history:?}");
    // By a person.
    copy(evidence, &copied);
    flip(copied.join(two));
    let out = chowki(&["verify", copied.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains(&format!("the first that is not right is {two}")), "{text}");
    assert!(text.contains("nobody vouches for it") && text.ends_with("changed: 1 of 1 incident\n"), "{text}");
    // Without its proof nobody can tell.
    let (code, said) = done(&|dir| fs::remove_file(dir.join("proof.json")).unwrap());
    assert_eq!((code, &said["verdict"]), (2, &"unknown".into()), "{said:#}");
    // Nor is it whole because another box says so.
    let other = Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap();
    copy(evidence, &copied);
    let proof = Proof::read(&there["proof.json"]).unwrap();
    let forged = proof.draft().sign(proof.signed_at, &other);
    fs::write(copied.join("proof.json"), forged.bytes()).unwrap();
    assert_eq!(verify(&copied, &[]).0, 0, "without a key it cannot be known");
    assert_eq!(named(&verify(&copied, &["--key", key]).1), [("proof.json".to_owned(), "other-key".to_owned())]);
    let both = other.public().to_string();
    assert_eq!(verify(&copied, &["--key", key, "--key", &both]).0, 0, "one of several");
}

#[test]
fn a_key_is_where_headquarters_registers_it_and_openssl_agrees_with_what_it_signed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let site = Site::new().headquarters(broker.port).buttons(2);
    let gateway = site.start();
    let (fingerprint, public) = key(&gateway);
    let registered = site.objects().join(format!("saddar/identity/{fingerprint}.pub"));
    let pem = eventually(SOON, "the key is in the store", || fs::read_to_string(&registered).ok());
    let data = site.dir.path().join("data");
    assert_eq!(fs::read_to_string(data.join("identity/key.pub")).unwrap(), pem);
    let secret = data.join("identity/key.pk8");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(gateway.log().contains(&fingerprint), "it is logged");
    let told: Value = serde_json::from_slice(&chowki(&["identity", "--json", data.to_str().unwrap()]).stdout).unwrap();
    assert_eq!((&told["fingerprint"], &told["key"]), (&fingerprint.clone().into(), &public.clone().into()));
    assert_eq!(String::from_utf8(chowki(&["identity", "--pem", data.to_str().unwrap()]).stdout).unwrap(), pem);
    eventually(SOON, "headquarters is told", || {
        let status: Value = serde_json::from_str(hq.on("chowki/saddar/status").last()?).ok()?;
        (status["identity"]["fingerprint"] == fingerprint.as_str()).then_some(())
    });

    // Two incidents; all of the store at once, with the register as it is there.
    for button in ["b1", "b2"] {
        Button::connect(gateway.mqtt, button).unwrap().press("p", "panic");
    }
    let incidents = site.objects().join("saddar/incidents");
    eventually(SOON, "two proofs", || {
        let proofs = evidence::names(&incidents).into_iter().map(|id| incidents.join(id).join("proof.json"));
        (proofs.filter(|proof| proof.exists()).count() == 2).then_some(())
    });
    let (code, said) = verify(&site.objects(), &["--key", registered.parent().unwrap().to_str().unwrap()]);
    assert_eq!((code, said["incidents"].as_array().unwrap().len()), (0, 2), "{said:#}");

    let id = gateway.incidents()[0].id;
    let proof = Proof::read(&fs::read(incidents.join(format!("{id}/proof.json"))).unwrap()).unwrap();
    let last = proof.entries.last().unwrap().chain;
    let message =
        format!("chowki proof 1\n{}\n{}\n{}\n{}\n{last}\n", proof.subject, proof.revision, proof.signed_at, proof.key);
    let file = |name: &str, bytes: &[u8]| {
        fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name).display().to_string()
    };
    let (text, signature) = (file("message", message.as_bytes()), file("signature", proof.signature.bytes()));
    let checked = Command::new(which("openssl"))
        .args(["pkeyutl", "-verify", "-pubin", "-inkey", registered.to_str().unwrap(), "-rawin"])
        .args(["-in", &text, "-sigfile", &signature])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let printed = Command::new("sh")
        .args(["-c", "openssl pkey -pubin -outform DER <\"$0\" | sha256sum"])
        .arg(&registered)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&printed.stdout).starts_with(&fingerprint));
}

#[test]
fn a_gateway_that_is_killed_while_it_makes_its_key_has_one_key_and_it_is_the_same_for_ever() {
    let site = Site::new().buttons(1);
    let dir = site.dir.path().join("data/identity");
    let mut first = None;
    for n in 0..24 {
        let gateway = site.spawn(&[]);
        // The key is made within some milliseconds of the start; later ones look whether it stays.
        std::thread::sleep(Duration::from_millis(2 * n));
        gateway.kill();
        let names = evidence::names(&dir);
        assert!(names.iter().filter(|name| name.ends_with(".pk8")).count() <= 1, "{names:?}");
        if let Ok(secret) = fs::read(dir.join("key.pk8")) {
            Identity::from_pkcs8(&secret).expect("never half a key");
            assert_eq!(*first.get_or_insert_with(|| secret.clone()), secret, "start {n}");
        }
    }
    let gateway = site.start();
    let (_, public) = key(&gateway);
    let secret = fs::read(dir.join("key.pk8")).unwrap();
    assert_eq!(*first.get_or_insert_with(|| secret.clone()), secret);
    assert_eq!(Identity::from_pkcs8(&secret).unwrap().public().to_string(), public);
    assert_eq!(evidence::names(&dir), ["key.pk8", "key.pub"]);
}

#[test]
fn a_credential_of_systemd_is_the_key_and_a_damaged_key_is_an_alarm_and_keeps_no_press_back() {
    let credentials = tempfile::tempdir().unwrap();
    let sealed = Identity::generate().unwrap();
    fs::write(credentials.path().join("chowki-identity"), &sealed).unwrap();
    let site = Site::new().buttons(1);
    let gateway = site.spawn(&[("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())]);
    gateway.ready();
    assert_eq!(key(&gateway).1, Identity::from_pkcs8(&sealed).unwrap().public().to_string());
    let dir = site.dir.path().join("data/identity");
    assert_eq!(evidence::names(&dir), ["key.pub"]);
    assert!(gateway.stop().success());

    fs::write(dir.join("key.pk8"), "half a k").unwrap();
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    let alarms = eventually(SOON, "the status says so", || {
        let status = gateway.get("/v1/status").json();
        let alarms = status["alarms"].to_string();
        (status["identity"].is_null() && alarms.contains("evidence is not signed")).then_some(alarms)
    });
    assert!(alarms.contains("key.pk8") && alarms.contains("restore it"), "{alarms}");
    assert_eq!(fs::read(dir.join("key.pk8")).unwrap(), b"half a k", "it is left as it is");
}

#[test]
fn what_cannot_be_told_and_what_is_not_asked_rightly_have_their_own_ends() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let code = |args: &[&str]| chowki(args).status.code().unwrap();
    assert_eq!(code(&["verify", place]), 2, "no incident");
    assert_eq!(code(&["verify", &format!("{place}/none")]), 2);
    assert_eq!(code(&["verify"]), 2);
    assert_eq!(code(&["verify", "--key", "no-such-key", place]), 78);
    let incident = dir.path().join("01920000-0000-7000-8000-000000000001");
    fs::create_dir(&incident).unwrap();
    let (end, said) = verify(dir.path(), &[]);
    assert_eq!((end, named(&said)), (2, vec![("proof.json".to_owned(), "no-proof".to_owned())]));
    let text = String::from_utf8(chowki(&["verify", place]).stdout).unwrap();
    assert!(text.ends_with("of 1 of 1 incident it cannot be told\n"), "{text}");
    let help = String::from_utf8(chowki(&["verify", "--help"]).stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("Exit status: 0 whole"), "{help}");
    assert_eq!(code(&["identity", place]), 66, "no key yet");
    let completions = String::from_utf8(chowki(&["completions", "bash"]).stdout).unwrap();
    assert!(completions.contains("verify") && completions.contains("identity"));
}
