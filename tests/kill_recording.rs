//! `kill -9` while cameras are recorded, objects are on their way and the index is written, again and again: what
//! headquarters was ever told of is there, whole and once, and what is left on the disk is sound each time.
//!
//! `CHOWKI_KILLS=500` kills that often, however long it takes.
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
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chowki::{
    district::{evidence::GapReason, incident::Incident},
    media::manifest,
};
use gateway::{Gateway, Site, quiet_port};
use mqtt::{Button, Headquarters};
use serde_json::Value;
use support::{cameras, eventually, mosquitto};

const KILLS: usize = 12;
const LONG: Duration = Duration::from_secs(30);

/// A press that was acknowledged, if it was.
fn press(gateway: &Gateway<'_>, button: &str, press: &str, until: Instant) -> bool {
    let Ok(mut connected) = Button::connect(gateway.mqtt, button) else { return false };
    connected.press(press, "panic");
    while Instant::now() < until {
        if connected.told(press).iter().any(|state| state == "recorded") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The fragments of a camera that is always recorded, by what headquarters' lists say: name to digest.
fn listed(objects: &Path, camera: &str) -> BTreeMap<String, String> {
    let Ok(days) = std::fs::read_dir(objects.join("saddar/recordings").join(camera)) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for day in days.map(|day| day.unwrap().path()) {
        let Ok(list) = std::fs::read(day.join("coverage.json")) else { continue };
        let list: Value = serde_json::from_slice(&list).unwrap();
        for (name, object) in list["objects"].as_object().unwrap() {
            let name = format!("{}/{name}", day.file_name().unwrap().display());
            found.insert(name, object["sha256"].as_str().unwrap().to_owned());
        }
    }
    found
}

/// Objects of evidence that a document names: incident, camera, name, digest.
fn named(incident: &Incident) -> impl Iterator<Item = (String, String, String, String)> {
    incident.evidence.iter().flat_map(move |camera| {
        let of = move |name: &str, sha: &str| {
            (incident.id.to_string(), camera.camera.to_string(), name.to_owned(), sha.to_owned())
        };
        camera.objects.iter().map(move |o| of(&o.name, &o.sha256))
    })
}

/// The names in a manifest; none without one.
fn manifest_of(folder: &Path) -> BTreeSet<String> {
    let Ok(manifest) = std::fs::read(folder.join("manifest.json")) else { return BTreeSet::new() };
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["objects"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap().to_owned()).collect()
}

/// Decodes what stands behind each init segment of a playlist. A stretch that was killed before sound came has none, and
/// ffmpeg's HLS reader keeps to the tracks that it began with.
fn assert_each_format_decodes(folder: &Path) {
    let playlist = std::fs::read_to_string(folder.join("index.m3u8")).unwrap();
    let mut formats: Vec<Vec<&str>> = Vec::new();
    for line in playlist.lines() {
        if let Some(init) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            formats.push(vec![init.trim_end_matches('"')]);
        } else if !line.starts_with('#') {
            formats.last_mut().expect("an init segment before the first fragment").push(line);
        }
    }
    for names in formats {
        let bytes: Vec<u8> = names.iter().flat_map(|name| std::fs::read(folder.join(name)).unwrap()).collect();
        let joined = tempfile::NamedTempFile::with_suffix(".mp4").unwrap();
        std::fs::write(joined.path(), bytes).unwrap();
        evidence::decodes(joined.path());
    }
}

/// Waits until there is nothing left of what is found.
fn settles<T: std::fmt::Debug>(found: impl Fn() -> Vec<T>, what: &str) {
    let until = Instant::now() + LONG;
    while !found().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = found();
    assert!(left.is_empty(), "{what}: {left:#?}");
}

#[test]
fn nothing_that_was_recorded_is_lost_or_doubled_by_kill_9_while_it_is_written_and_sent() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "max_queued_messages 0\n");
    let hq = Headquarters::subscribe(broker.port);
    let rig = cameras(quiet_port(), 2);
    let url = |path: &str| format!("rtsp://127.0.0.1:{}/{path}", rig.port);
    let site = Site::new().headquarters(broker.port).window(1, 3).buttons(4);
    let site = site.camera("near", 10, &url("cam0")).with("record = \"incident\"\n");
    let site = site.camera("always", 20, &url("sub")).with("record = \"always\"\n");

    let wanted = std::env::var("CHOWKI_KILLS").ok().map_or(KILLS, |n| n.parse().unwrap());
    let (mut seed, mut acknowledged) = (7u64, BTreeSet::new());
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for kill in 0..wanted {
        let gateway = site.spawn(&[("RUST_LOG", "warn")]);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let until = Instant::now() + Duration::from_micros((seed >> 33) % 5_000_000);
        let (button, id) = (format!("b{}", kill % 4 + 1), format!("p-{kill}"));
        while Instant::now() < until {
            if press(&gateway, &button, &id, until) {
                acknowledged.insert(format!("{button} {id}"));
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        gateway.kill();
        if site.has_spool() {
            site.assert_clean();
        }
        for (name, sha) in listed(&site.objects(), "always") {
            let before = seen.entry(name.clone()).or_insert_with(|| sha.clone());
            assert_eq!(*before, sha, "{name} was listed with other bytes");
        }
    }

    let gateway = site.start();
    eventually(LONG, "the windows of all incidents have ended", || {
        gateway.incidents().iter().all(|i| i.evidence.iter().all(|e| e.ended)).then_some(())
    });
    // What headquarters' reader knows and what the gateway does, where not everything is there.
    let short = || -> Vec<String> {
        let here: BTreeMap<_, _> = gateway.incidents().into_iter().map(|i| (i.id.to_string(), i)).collect();
        let latest = hq.latest();
        let short = latest.iter().filter(|(_, i)| !evidence::all_there(i));
        short.map(|(id, told)| format!("told {told:?}\n  here {:?}", here.get(id))).collect()
    };
    settles(short, "not everything is at headquarters");
    let unlisted = || -> Vec<(PathBuf, BTreeSet<String>)> {
        let latest = hq.latest();
        let of = latest.values().flat_map(|i| i.evidence.iter().map(move |e| (i, e)));
        let short = of.filter_map(|(incident, evidence)| {
            let folder = evidence::folder(&site.objects(), incident, evidence.camera.as_str());
            let names: BTreeSet<_> = evidence.objects.iter().map(|o| o.name.clone()).collect();
            let unlisted: BTreeSet<_> = names.difference(&manifest_of(&folder)).cloned().collect();
            (!unlisted.is_empty()).then_some((folder, unlisted))
        });
        short.collect()
    };
    settles(unlisted, "manifests do not name what is there");
    assert!(gateway.stop().success());
    site.assert_clean();

    // Presses: each acknowledged one in one incident.
    let (documents, latest) = (hq.documents(), hq.latest());
    mqtt::assert_revisions_never_go_back(&documents);
    let mut homes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in &documents {
        for press in document.presses.iter().filter_map(|p| p.press.as_ref()) {
            homes.entry(format!("{} {press}", document.button.id)).or_default().insert(document.id.to_string());
        }
    }
    for press in &acknowledged {
        assert_eq!(homes.get(press).map(BTreeSet::len), Some(1), "{press}: {:?}", homes.get(press));
    }
    assert!(homes.values().all(|incidents| incidents.len() == 1), "{homes:?}");

    // Evidence: whatever a document ever named was durable here, and is at headquarters with these bytes.
    let mut evidence_of: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (incident, camera, name, sha) in documents.iter().flat_map(named) {
        let known = evidence_of.entry((incident, camera, name)).or_insert_with(|| sha.clone());
        assert_eq!(*known, sha, "one name, two contents");
    }
    let mut whole = 0;
    for ((incident, camera, name), sha) in &evidence_of {
        let path = site.objects().join("saddar/incidents").join(incident).join(camera).join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(manifest::hex(&manifest::sha256(&bytes)), *sha, "{}", path.display());
        whole += 1;
    }
    let reasons = [GapReason::GatewayDown, GapReason::CameraDown, GapReason::BeforeRing, GapReason::CameraUnreachable];
    for incident in latest.values() {
        for camera in &incident.evidence {
            let strange: Vec<_> = camera.gaps.iter().filter(|g| !reasons.contains(&g.reason)).collect();
            assert!(strange.is_empty(), "{}: {strange:?}", incident.id);
            if !camera.objects.is_empty() {
                let folder = evidence::folder(&site.objects(), incident, camera.camera.as_str());
                evidence::proven(&folder);
                assert_each_format_decodes(&folder);
            }
        }
    }

    // What is always recorded: nothing that was listed is gone, and what is listed is there.
    let listed = listed(&site.objects(), "always");
    for (name, sha) in &seen {
        assert_eq!(listed.get(name), Some(sha), "{name} was listed once");
    }
    for (name, sha) in &listed {
        let bytes = std::fs::read(site.objects().join("saddar/recordings/always").join(name)).unwrap();
        assert_eq!(manifest::hex(&manifest::sha256(&bytes)), *sha, "{name}");
    }
    let log = std::fs::read_to_string(site.log()).unwrap();
    log.lines().filter(|line| line.contains("index")).for_each(|line| eprintln!("{line}"));
    eprintln!(
        "{wanted} kills, {} presses acknowledged, {} incidents, {whole} objects of evidence, {} of recordings",
        acknowledged.len(),
        latest.len(),
        listed.len()
    );
    assert!(!acknowledged.is_empty() && whole > 0 && !listed.is_empty());
}
