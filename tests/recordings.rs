//! Recordings and evidence as files over HTTP, read by ffprobe, ffmpeg and curl: every frame once, where it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use chowki::district::clock::Utc;
use evidence::{decodes, ffprobe, times};
use gateway::{Gateway, SOON, Site, quiet_port};
use mqtt::{Button, Headquarters};
use serde_json::Value;
use support::{cameras, cameras_with, eventually, mosquitto};

const SECOND: Duration = Duration::from_secs(1);

/// What curl gets, with its headers in lower case; the body goes into `file`.
fn curl(gateway: &Gateway, path: &str, args: &[&str], file: &Path) -> (u16, String) {
    let out = Command::new("curl")
        .args(["-sS", "-D", "-", "-o"])
        .arg(file)
        .args(args)
        .arg(format!("http://127.0.0.1:{}{path}", gateway.api))
        .output()
        .expect("curl (apt-get install curl)");
    assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    let headers = String::from_utf8(out.stdout).unwrap().to_lowercase();
    let status = headers.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, headers)
}

fn header<'a>(headers: &'a str, name: &str) -> &'a str {
    let line = headers.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {headers}")).trim()
}

/// Of each packet of a kind: when it is shown, in seconds, and what tells it from any other.
fn packets(path: &str, kind: &str) -> Vec<(f64, String)> {
    let out = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_packets",
            "-show_data_hash",
            "sha256",
            "-of",
            "json",
            "-select_streams",
            kind,
            path,
        ])
        .output()
        .expect("ffprobe (apt-get install ffmpeg)");
    assert!(out.status.success() && out.stderr.is_empty(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    let probe: Value = serde_json::from_slice(&out.stdout).unwrap();
    let packet =
        |p: &Value| (p["pts_time"].as_str().unwrap().parse().unwrap(), p["data_hash"].as_str().unwrap().to_owned());
    probe["packets"].as_array().unwrap().iter().map(packet).collect()
}

fn hashes(packets: &[(f64, String)]) -> Vec<&str> {
    packets.iter().map(|(_, hash)| hash.as_str()).collect()
}

fn now() -> Utc {
    chowki::host::clock::wall()
}

/// Where a short sequence of frames begins in a long one that has all of them in that order.
fn position(long: &[&str], short: &[&str]) -> usize {
    let at = long.windows(short.len()).position(|w| w == short);
    at.unwrap_or_else(|| panic!("{} frames are not in a row among {}", short.len(), long.len()))
}

#[test]
fn evidence_and_any_interval_are_files_with_every_frame_once_whole_or_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    // With a log of what it sends, each of its frames carries a mark: none is like another.
    let log = dir.path().join("sent");
    std::fs::create_dir(&log).unwrap();
    let rig = cameras_with(quiet_port(), 1, &["--log", log.to_str().unwrap()]);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().headquarters(broker.port).window(4, 6).buttons(1);
    let site = site.camera("c1", 10, &url).with("record = \"always\"\n");
    let gateway = site.start();
    gateway.cameras_live(1, 6 * SECOND);

    // While it still records: what is there is a file, and later on the same bytes begin with it.
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    let id = eventually(SOON, "the incident", || Some(gateway.incidents().first()?.id));
    let path = format!("/v1/incidents/{id}/cameras/c1.mp4");
    let early = dir.path().join("early.mp4");
    let (_, headers) = eventually(SOON, "its first seconds", || {
        Some(curl(&gateway, &path, &[], &early)).filter(|(status, _)| *status == 200)
    });
    decodes(&early);
    let (early_len, early_tag) = (std::fs::metadata(&early).unwrap().len(), header(&headers, "etag").to_owned());
    let incident = hq.incident("all evidence of the press", Duration::from_secs(40), evidence::all_there);
    let whole = dir.path().join("whole.mp4");
    let (status, headers) = curl(&gateway, &path, &[], &whole);
    assert_eq!((status, header(&headers, "content-type"), header(&headers, "chowki-gaps")), (200, "video/mp4", ""));
    let bytes = std::fs::read(&whole).unwrap();
    assert_eq!(header(&headers, "content-length"), bytes.len().to_string());
    let tag = header(&headers, "etag").to_owned();
    assert_ne!(tag, early_tag);
    let grown = dir.path().join("grown.mp4");
    let (status, _) = curl(&gateway, &path, &["-r", &format!("{early_len}-")], &grown);
    assert_eq!(status, 206);
    let grown = [std::fs::read(&early).unwrap(), std::fs::read(&grown).unwrap()].concat();
    std::fs::write(dir.path().join("grown.mp4"), grown).unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for kind in ["v", "a"] {
        assert_eq!(packets(&file("grown.mp4"), kind), packets(&file("whole.mp4"), kind), "it goes on where it was");
    }

    // Frame for frame what headquarters was sent.
    let folder = evidence::folder(&site.objects(), &incident, "c1");
    let sent = ["init.mp4"].into_iter().map(String::from).chain(evidence::names(&folder));
    let sent: Vec<u8> = sent.filter(|n| n.ends_with(".m4s") || n == "init.mp4").fold(Vec::new(), |mut all, name| {
        if name != "init.mp4" || all.is_empty() {
            all.extend(std::fs::read(folder.join(&name)).unwrap());
        }
        all
    });
    std::fs::write(dir.path().join("sent.mp4"), sent).unwrap();
    for kind in ["v", "a"] {
        let (ours, theirs) = (packets(&file("whole.mp4"), kind), packets(&file("sent.mp4"), kind));
        assert_eq!(hashes(&ours), hashes(&theirs), "{kind}");
        let off = |(a, b): (&(f64, String), &(f64, String))| (a.0 - b.0).abs();
        assert!(ours.iter().zip(&theirs).map(off).all(|off| off < 0.001), "{kind}: at the same times");
    }
    decodes(&whole);
    let probe = ffprobe(&whole);
    assert!(times(&probe, "video").len() > 200, "ten seconds");

    // A browser's own video element plays it, and goes to any moment by the index at its head.
    if let Some(scripts) = browser::scripts() {
        let run = Command::new("node")
            .arg(scripts.join("video.mjs"))
            .args([&format!("http://127.0.0.1:{}", gateway.api), &path, "7.5", "1.25", "8.9"])
            .current_dir(&scripts)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        let seen: Value = serde_json::from_str(&said).unwrap();
        let times: Vec<f64> = seen["shown"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
        assert_eq!(seen["size"], serde_json::json!([1920, 1080]));
        assert!((seen["duration"].as_f64().unwrap() - 10.0).abs() < 2.5, "{seen}");
        for (shown, wanted) in times.iter().zip([7.5, 1.25, 8.9]) {
            assert!((shown - wanted).abs() < 0.3, "{seen}");
        }
    }

    // In ranges.
    let part = dir.path().join("part");
    let range = |text: &str, more: &[&str]| {
        let (status, headers) = curl(&gateway, &path, &[&["-r", text], more].concat(), &part);
        (status, headers, std::fs::read(&part).unwrap_or_default())
    };
    let n = bytes.len();
    for (text, from, to) in [
        ("0-0".to_owned(), 0, 1),
        ("100-20000".to_owned(), 100, 20_001),
        (format!("{}-{}", n / 3, n / 2), n / 3, n / 2 + 1),
        (format!("{}-", n - 7), n - 7, n),
        ("-1000".to_owned(), n - 1000, n),
        (format!("{}-{}", n - 10, n + 10), n - 10, n),
    ] {
        let (status, headers, body) = range(&text, &[]);
        assert_eq!((status, header(&headers, "content-range")), (206, format!("bytes {from}-{}/{n}", to - 1).as_str()));
        assert!(body == bytes[from..to], "{text}");
    }
    let mut pieces = Vec::new();
    for from in (0..n).step_by(1 << 20) {
        pieces.extend(range(&format!("{from}-{}", from + (1 << 20) - 1), &[]).2);
    }
    assert!(pieces == bytes);
    assert_eq!(range(&format!("{n}-"), &[]).0, 416);
    assert_eq!(range("5-9", &["-H", &format!("If-Range: {tag}")]).0, 206);
    let (status, _, body) = range("5-9", &["-H", &format!("If-Range: {early_tag}")]);
    assert!(status == 200 && body == bytes, "of another file all is sent");
    assert_eq!(curl(&gateway, &path, &["-H", &format!("If-None-Match: {tag}")], &part).0, 304);
    assert_eq!(curl(&gateway, &path, &["-I"], &part).0, 200);

    // Any interval: from the key frame before it to the last frame before its end.
    let url = |file: &str, from: Utc, to: Utc| format!("/v1/cameras/c1/{file}?from={from}&to={to}");
    let all = dir.path().join("all.mp4");
    let (began, until) = (now().before(60 * SECOND), now().before(2 * SECOND));
    assert_eq!(curl(&gateway, &url("recording.mp4", began, until), &[], &all).0, 200);
    decodes(&all);
    let all = packets(&file("all.mp4"), "v");
    let unique: BTreeSet<_> = hashes(&all).into_iter().collect();
    assert_eq!(unique.len(), all.len(), "no frame twice, whoever holds it");
    position(&hashes(&all), &hashes(&packets(&file("whole.mp4"), "v")));
    let (from, to) = (until.before(7 * SECOND), until.before(Duration::from_millis(2_300)));
    let some = dir.path().join("some.mp4");
    let (status, headers) = curl(&gateway, &url("recording.mp4", from, to), &[], &some);
    assert_eq!(status, 200);
    decodes(&some);
    let held: Vec<Utc> =
        ["chowki-from", "chowki-to"].map(|name| header(&headers, name).to_uppercase().parse().unwrap()).into();
    assert!(held[0] <= from && from.since(held[0]) < Duration::from_millis(2_100), "{held:?} of {from}");
    assert_eq!(held[1].to_string(), to.to_string());
    let some = packets(&file("some.mp4"), "v");
    let long = to.since(held[0]).as_secs_f64();
    assert_eq!(some[0].0, 0.0);
    assert!((some.last().unwrap().0 - long).abs() < 0.05, "{} of {long}", some.last().unwrap().0);
    position(&hashes(&all), &hashes(&some));

    // The picture of a moment is the last key frame before it, in its own size or smaller, as ffmpeg sees it.
    let still = dir.path().join("still.jpg");
    let (status, headers) = curl(&gateway, &format!("/v1/cameras/c1/still.jpg?at={to}"), &[], &still);
    assert_eq!((status, header(&headers, "content-type")), (200, "image/jpeg"));
    let captured: Utc = header(&headers, "chowki-at").to_uppercase().parse().unwrap();
    assert!(captured <= to && to.since(captured) < Duration::from_millis(2_100), "{captured} for {to}");
    let seen = |file: &Path, args: &[&str]| {
        let out = Command::new("ffmpeg")
            .args(["-v", "error"])
            .args(args)
            .arg("-i")
            .arg(file)
            .args([
                "-frames:v",
                "1",
                "-vf",
                "scale=480:270:flags=area:out_range=full,format=gray",
                "-f",
                "rawvideo",
                "-",
            ])
            .output()
            .unwrap();
        assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    // Half a frame before it: both times are told to the millisecond.
    let at = captured.since(held[0]).as_secs_f64() - 0.016;
    let (ours, theirs) =
        (seen(&still, &[]), seen(&dir.path().join("some.mp4"), &["-ss", &format!("{:.3}", at.max(0.0))]));
    assert_eq!((ours.len(), theirs.len()), (480 * 270, 480 * 270), "a sixteenth of it, so that noise is not compared");
    let off: u64 = ours.iter().zip(&theirs).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(off / 480 < 270 * 2, "{} a pixel", off as f64 / (480.0 * 270.0));
    assert_eq!(curl(&gateway, &format!("/v1/cameras/c1/still.jpg?at={to}&width=320"), &[], &still).0, 200);
    let small = ffprobe(&still);
    assert_eq!((&small["streams"][0]["width"], &small["streams"][0]["height"]), (&320.into(), &180.into()));
    assert_eq!(gateway.get(&format!("/v1/cameras/c1/still.jpg?at={}", until.before(3_000 * SECOND))).status, 404);

    // The same as HLS, from the stored objects.
    let list = format!("http://127.0.0.1:{}{}", gateway.api, url("recording.m3u8", began, until));
    let listed = packets(&list, "v");
    assert_eq!(position(&hashes(&listed), &hashes(&all)), 0, "whole fragments: a little more at the end");
    assert!(listed.len() - all.len() < 150);
}

#[test]
fn what_nobody_holds_is_a_hole_of_its_true_length_in_the_time_line_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/aac", rig.port);
    let site = Site::new().headquarters(broker.port).window(2, 3).buttons(1);
    let site = site.camera("c1", 10, &url).with("record = \"always\"\n");
    let gateway = site.start();
    let began = now();
    gateway.cameras_live(1, 4 * SECOND);
    rig.signal("STOP");
    std::thread::sleep(12 * SECOND);
    rig.signal("CONT");
    eventually(Duration::from_secs(60), "it is live again", || {
        gateway.log().matches("camera is live").nth(1).map(drop)
    });
    std::thread::sleep(5 * SECOND);
    let path = format!("/v1/cameras/c1/recording.mp4?from={began}");
    let file = dir.path().join("holed.mp4");
    let (status, headers) = curl(&gateway, &path, &[], &file);
    assert_eq!(status, 200);
    let said = header(&headers, "chowki-gaps");
    assert!(said.contains("reason=camera-"), "{said}");
    decodes(&file);
    for kind in ["v", "a"] {
        let times: Vec<f64> = packets(file.to_str().unwrap(), kind).into_iter().map(|(at, _)| at).collect();
        let holes: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).filter(|step| *step > 1.0).collect();
        assert!(matches!(holes[..], [hole] if (8.0..40.0).contains(&hole)), "{kind}: {holes:?}");
    }
    // Its last seconds, long after its beginning.
    let (status, _) =
        curl(&gateway, &format!("/v1/cameras/c1/recording.mp4?from={}", now().before(6 * SECOND)), &[], &file);
    assert_eq!(status, 200);
    decodes(&file);
    // An interval of which nothing is held, a camera that is not there, times that are none.
    let long_ago = "/v1/cameras/c1/recording.mp4?from=2026-01-01T00:00:00Z&to=2026-01-01T00:01:00Z";
    assert_eq!(gateway.get(long_ago).status, 404);
    assert_eq!(gateway.get("/v1/cameras/nobody/recording.mp4").status, 404);
    assert_eq!(gateway.get("/v1/cameras/c1/recording.mp4?from=now").status, 400);
    assert_eq!(gateway.get("/v1/cameras/c1/recordings/2026-01-01/x.m4s?at=2026-01-01T00:00:00Z").status, 404);
}
