//! Live pictures by WebRTC, in a real browser, from cameras of the rig.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    io::{BufRead, BufReader, ErrorKind::ConnectionReset, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use gateway::{Gateway, Site};
use mqtt::Button;
use serde_json::Value;
use support::{cameras, turn_server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

/// What a browser saw of a camera.
fn watch(gateway: &Gateway<'_>, camera: &str, seconds: u32, line: &[&str]) -> Option<Value> {
    let folder = browser::scripts()?;
    let url = format!("http://127.0.0.1:{}", gateway.api);
    let run = Command::new("node")
        .args(["live.mjs", &url, camera, &seconds.to_string()])
        .args(line)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    Some(serde_json::from_str(&said).unwrap())
}

fn count(seen: &Value, track: &str, what: &str) -> u64 {
    seen[track][what].as_u64().unwrap_or_else(|| panic!("no {what} of {track}: {seen}"))
}

fn sessions(gateway: &Gateway<'_>) -> bool {
    gateway.get("/metrics").text().contains("chowki_webrtc_sessions 0\n")
}

#[test]
fn a_browser_is_shown_the_last_key_frame_at_once_and_is_with_the_camera_from_then_on() {
    let rig = cameras(0, 1);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port)).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let Some(seen) = watch(&gateway, "cam", 4, &[]) else { return };
    assert_eq!(seen["size"], serde_json::json!([1920, 1080]), "{seen}");
    assert!(
        count(&seen, "video", "framesDecoded") > 60 && count(&seen, "audio", "totalSamplesReceived") > 10_000,
        "{seen}"
    );
    assert_eq!((count(&seen, "video", "packetsLost"), count(&seen, "video", "pliCount")), (0, 0), "{seen}");
    // A viewer that had to live through the seconds since the key frame would hold each picture for as long.
    assert!(seen["held_ms"].as_f64().unwrap() < 500.0, "{seen}");
    assert_eq!(seen["deleted"], serde_json::json!([204, 404]), "a session is ended once");
    assert!(sessions(&gateway));
}

#[test]
fn a_camera_that_sends_aac_is_heard_by_all_who_watch_it() {
    let rig = cameras(0, 1);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/aac", rig.port)).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let seen = std::thread::scope(|scope| {
        let watchers = [4, 6].map(|seconds| {
            scope.spawn({
                let gateway = &gateway;
                move || watch(gateway, "cam", seconds, &[])
            })
        });
        watchers.map(|watcher| watcher.join().unwrap())
    });
    for seen in seen.into_iter().flatten() {
        assert!(count(&seen, "video", "framesDecoded") > 60, "{seen}");
        let (hertz, loud) = (seen["loudest"]["hz"].as_u64().unwrap(), seen["loudest"]["db"].as_i64().unwrap());
        assert!(hertz.abs_diff(440) < 10 && loud > -60, "{seen}");
        // Three seconds and more, of which little is made up by the browser.
        assert!(count(&seen, "audio", "totalSamplesReceived") > 3 * 48_000, "{seen}");
        assert_eq!(count(&seen, "audio", "packetsLost"), 0, "{seen}");
    }
    assert!(sessions(&gateway));
}

#[test]
fn another_client_than_a_browser_decodes_the_pictures_and_hears_the_tone() {
    let rig = cameras(0, 1);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port)).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let run = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rtc.py"))
        .args(["watch", &format!("http://127.0.0.1:{}", gateway.api), "cam", "5"])
        .output()
        .unwrap();
    if run.status.code() == Some(77) {
        eprintln!("SKIPPED: python's aiortc is not installed; only a browser has watched");
        return;
    }
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    let seen: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(seen["size"], serde_json::json!([1920, 1080]), "{seen}");
    assert_eq!(seen["state"], serde_json::json!("connected"), "{seen}");
    assert_eq!(seen["deleted"], serde_json::json!([204, 404]), "a session is ended once");
    let (pictures, samples, hertz) = (&seen["pictures"], &seen["samples"], &seen["hertz"]);
    assert!(pictures.as_u64().unwrap() > 60 && samples.as_u64().unwrap() > 10_000, "{seen}");
    assert!(hertz.as_u64().unwrap().abs_diff(440) < 10, "{seen}");
    assert!(sessions(&gateway));
}

#[test]
fn a_line_that_loses_a_twentieth_is_mended_and_a_slow_one_that_loses_more_still_shows_pictures() {
    let rig = cameras(0, 1);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port)).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let Some(seen) = watch(&gateway, "cam", 6, &["loss=0.05", "delay=10"]) else { return };
    assert!(count(&seen, "video", "framesDecoded") > 60 && count(&seen, "video", "nackCount") > 0, "{seen}");
    // How much is seen then is the browser's affair; what it asks for is sent, and it goes on.
    let seen = watch(&gateway, "cam", 14, &["loss=0.15", "delay=150"]).unwrap();
    assert!(count(&seen, "video", "keyFramesDecoded") > 0 && count(&seen, "video", "nackCount") > 50, "{seen}");
}

/// What a browser saw over such a line of a camera that sends 4 Mbit/s, and 400 kbit/s as its lighter stream.
fn watch_with_a_lighter_stream(seconds: u32, line: &[&str]) -> Option<Value> {
    let rig = cameras(0, 1);
    let url = format!("rtsp://127.0.0.1:{}", rig.port);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("{url}/cam0"));
    let site = site.with(&format!("sub_url = \"{url}/sub\"\n")).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    watch(&gateway, "cam", seconds, line)
}

#[test]
fn on_a_thin_link_the_cameras_lighter_stream_is_shown_and_the_sound_goes_on() {
    let Some(seen) = watch_with_a_lighter_stream(30, &["loss=0.15", "delay=150"]) else { return };
    assert_eq!(seen["size"], serde_json::json!([640, 360]), "{seen}");
    assert!(count(&seen, "video", "framesDecoded") > 60, "{seen}");
    assert!(count(&seen, "audio", "totalSamplesReceived") > 100_000, "{seen}");
}

#[test]
fn on_a_line_that_is_slower_than_the_camera_the_lighter_stream_is_shown_and_the_sound_is_whole() {
    let Some(seen) = watch_with_a_lighter_stream(24, &["rate=1000", "delay=40"]) else { return };
    assert_eq!(seen["size"], serde_json::json!([640, 360]), "{seen}");
    let half = seen["halfway"].as_u64().unwrap();
    // The second half is the lighter stream's, at 15 a second.
    assert!(count(&seen, "video", "framesDecoded") > half + 120, "{seen}");
    let (sound, made_up) = (count(&seen, "audio", "totalSamplesReceived"), count(&seen, "audio", "concealedSamples"));
    assert!(sound > 20 * 8_000 && made_up * 8 < sound, "{seen}");
}

#[test]
fn a_browser_behind_a_firewall_that_lets_no_udp_through_is_shown_the_camera_by_tcp_and_every_other_by_udp() {
    let rig = cameras(0, 1);
    let tcp = gateway::quiet_port();
    let site = Site::new()
        .buttons(1)
        .camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port))
        .window(10, 5)
        .with(&format!("[webrtc]\ntcp = \"127.0.0.1:{tcp}\""));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let Some(seen) = watch(&gateway, "cam", 4, &[&format!("tcp={tcp}")]) else { return };
    assert_eq!((&seen["protocol"], &seen["size"]), (&"tcp".into(), &serde_json::json!([1920, 1080])), "{seen}");
    assert!(
        count(&seen, "video", "framesDecoded") > 60 && count(&seen, "audio", "totalSamplesReceived") > 10_000,
        "{seen}"
    );
    assert_eq!((count(&seen, "video", "packetsLost"), count(&seen, "video", "pliCount")), (0, 0), "{seen}");
    assert!(seen["held_ms"].as_f64().unwrap() < 500.0, "{seen}");
    assert!(sessions(&gateway));
    let seen = watch(&gateway, "cam", 4, &[]).unwrap();
    assert_eq!(seen["protocol"], "udp", "{seen}");
    assert!(count(&seen, "video", "framesDecoded") > 60, "{seen}");
    assert!(sessions(&gateway));
    assert!(gateway.get("/metrics").text().contains("chowki_webrtc_dropped_datagrams_total 0\n"));
}

#[test]
fn a_browser_that_only_a_turn_server_reaches_is_shown_the_camera_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, turn) = (cameras(0, 1), turn_server(dir.path()));
    let server = format!(
        "url = \"turn:127.0.0.1:{}?transport=udp\"\nusername = \"turn\"\ncredential_file = \"turn.password\"\n",
        turn.port
    );
    let site = Site::new()
        .buttons(1)
        .secret("turn.password", "relay")
        .camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port))
        .window(10, 5)
        .with(&format!("[[webrtc.ice_server]]\n{server}"));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let Some(seen) = watch(&gateway, "cam", 4, &["relay=1"]) else { return };
    assert_eq!((&seen["by"], &seen["size"]), (&"relay".into(), &serde_json::json!([1920, 1080])), "{seen}");
    assert!(count(&seen, "video", "framesDecoded") > 60, "{seen}");
    assert!(sessions(&gateway));
    let seen = watch(&gateway, "cam", 3, &[]).unwrap();
    assert_ne!(seen["by"], "relay", "who needs none goes straight: {seen}");
}

/// A TCP line to `port` that carries so many bytes in a second to whoever connects; gives its own port.
fn slow_line(port: u16, bytes_per_second: u32) -> u16 {
    let near = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = near.local_addr().unwrap().port();
    near.set_nonblocking(true).unwrap();
    let relay = async move {
        let near = TcpListener::from_std(near).unwrap();
        loop {
            let (browser, _) = near.accept().await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            // A router keeps little.
            socket.set_recv_buffer_size(32 * 1024).unwrap();
            let gateway = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
            tokio::spawn(async move {
                let ((mut down, mut up), (mut from, mut to)) = (gateway.into_split(), browser.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut up).await });
                let mut tick = tokio::time::interval(Duration::from_millis(5));
                let mut bytes = vec![0; bytes_per_second as usize / 200];
                while let Ok(count @ 1..) = down.read(&mut bytes).await {
                    let _ = to.write_all(&bytes[..count]).await;
                    tick.tick().await;
                }
            });
        }
    };
    std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(relay);
    });
    at
}

#[test]
fn a_line_by_tcp_that_is_slower_than_the_camera_still_shows_whole_pictures_and_is_not_left_further_behind() {
    let rig = cameras(0, 1);
    let tcp = gateway::quiet_port();
    let site = Site::new()
        .buttons(1)
        .camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port))
        .window(10, 5)
        .with(&format!("[webrtc]\ntcp = \"127.0.0.1:{tcp}\""));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let line = slow_line(tcp, 375_000);
    let Some(seen) = watch(&gateway, "cam", 14, &[&format!("tcp={line}")]) else { return };
    // It would be 200 by a good line, 3 of key frames alone, and none where datagrams are left out instead of pictures.
    let then = count(&seen, "video", "framesDecoded") - seen["halfway"].as_u64().unwrap();
    assert!((2..190).contains(&then) && count(&seen, "audio", "packetsReceived") > 200, "{seen}");
}

#[test]
fn whoever_connects_for_pictures_and_names_no_session_is_closed() {
    let tcp = gateway::quiet_port();
    let site = Site::new().buttons(1).with(&format!("[webrtc]\ntcp = \"127.0.0.1:{tcp}\""));
    let gateway = site.start();
    let closed = |said: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", tcp)).unwrap();
        stream.set_read_timeout(Some(gateway::SOON)).unwrap();
        stream.write_all(said).unwrap();
        let end = stream.read(&mut [0; 16]);
        // What was said and never read comes back as a reset.
        assert!(
            end.as_ref().is_ok_and(|n| *n == 0) || end.as_ref().is_err_and(|e| e.kind() == ConnectionReset),
            "{end:?}"
        );
    };
    closed(b"");
    closed(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n");
    closed(&[0, 4, 0x80, 0, 0, 1]);
    closed(&[0xff; 3000]);
    assert!(gateway.get("/metrics").text().contains("chowki_webrtc_sessions 0\n"));
}

#[test]
fn a_press_rings_at_the_page_with_the_place_live_in_the_card_until_its_call_is_over() {
    let Some(folder) = browser::scripts() else { return };
    let rig = cameras(0, 1);
    let url = format!("rtsp://127.0.0.1:{}/panic", rig.port);
    let unit = format!("[button.unit]\nurl = \"{url}\"\nusername = \"admin\"\npassword_file = \"cameras.password\"\n");
    let site = Site::new().secret("cameras.password", "test").button("b1", &unit).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let shot = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ringing.png");
    let mut page = Command::new("node")
        .args(["ringing.mjs", &format!("http://127.0.0.1:{}", gateway.api)])
        .arg(&shot)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(page.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().as_deref(), Some("open"));
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    let seen: Value = serde_json::from_str(&said.next().expect("the card rings and shows the place")).unwrap();
    println!("{seen}");
    assert!(seen["frames"].as_u64().unwrap() > 15 && seen["large"].as_u64().unwrap() > 15, "{seen}");
    assert_eq!((seen["chosen"].as_str(), &seen["complaints"]), (Some("Button b1"), &serde_json::json!([])), "{seen}");
    assert!(seen["title"].as_str().unwrap().starts_with("(1) "), "{seen}");
    let id = gateway.incidents()[0].id;
    // That somebody has seen it is no answer: it rings on until one answers, or until the case is closed.
    assert_eq!(gateway.post(None, &format!("/v1/incidents/{id}/close"), "").status, 204);
    assert_eq!(said.next().as_deref(), Some("silent"));
    assert!(page.wait().unwrap().success());
}

#[test]
fn a_browser_that_crashes_leaves_no_session_behind() {
    let rig = cameras(0, 1);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port)).window(10, 5);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(5));
    let Some(seen) = watch(&gateway, "cam", 2, &["crash=1"]) else { return };
    assert!(seen["frames"].as_u64().unwrap() > 15, "{seen}");
    support::eventually(Duration::from_secs(60), "the session ends", || sessions(&gateway).then_some(()));
}

#[test]
fn an_offer_that_cannot_be_answered_is_refused_with_a_reason() {
    let rig = cameras(0, 1);
    let site = Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/cam0", rig.port)).camera(
        "jpeg",
        20,
        &format!("rtsp://127.0.0.1:{}/mjpeg", rig.port),
    );
    let gateway = site.start();
    let offer = |camera: &str, kind: &str, sdp: &str| {
        let path = format!("/v1/cameras/{camera}/whep");
        let answer = gateway.try_http("POST", &path, &[("Content-Type", kind)], sdp).unwrap();
        assert!(answer.headers.contains("application/problem+json"), "{}", answer.headers);
        (answer.status, answer.json()["detail"].as_str().unwrap().to_owned())
    };
    assert_eq!(offer("cam", "text/plain", "v=0").0, 415);
    assert_eq!(offer("nobody", "application/sdp", "v=0").0, 404);
    for nonsense in ["", "v=0", "hello", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"] {
        let (status, detail) = offer("cam", "application/sdp", nonsense);
        assert!(status == 400 && detail.contains("offer"), "{nonsense:?}: {status} {detail}");
    }
    assert_eq!(offer("cam", "application/sdp", &"a".repeat(100_000)).0, 413);
    gateway.cameras_live(2, Duration::from_secs(2));
    let vp8 = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n";
    for (camera, codec) in [("cam", "H264"), ("jpeg", "Jpeg")] {
        let (status, detail) = offer(camera, "application/sdp", vp8);
        assert!(status == 406 && detail.contains(codec), "{status} {detail}");
    }
    assert!(sessions(&gateway), "nothing is left of them");
}
