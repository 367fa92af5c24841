//! Cameras against real RTSP peers: GStreamer's server in every codec, and scripted ones that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::{
    collections::HashMap,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use chowki::{
    camera::{self, CameraHandle, Settings},
    district::{
        camera::{CameraReport, CameraState},
        clock::Mono,
        inventory::{Login, Source, Transport},
        secret::Secret,
    },
    host::{clock, scope::Scope},
    media::{
        frame::{Codec, Format, Frame, Track},
        ring::{Limits, Read, Ring, Start},
    },
};
use tokio::sync::mpsc;

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/rtsp.rs"]
mod scripted;
mod support;

const SOON: Duration = Duration::from_secs(15);

struct Kept {
    handle: CameraHandle,
    ring: Arc<Ring>,
    reports: mpsc::Receiver<CameraReport>,
    scope: Scope,
}

impl Kept {
    /// Waits for a report of `state`; others may come before it.
    async fn until(&mut self, state: CameraState) -> CameraReport {
        let wait = async {
            loop {
                let report = self.reports.recv().await.expect("the camera's task ended");
                if report.state == state {
                    return report;
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not {state:?}: {:?}", self.handle.stats()))
    }

    /// Frames from the oldest kept on, until `enough`.
    async fn frames(&self, mut enough: impl FnMut(&[Arc<Frame>]) -> bool) -> Vec<Arc<Frame>> {
        let mut reader = self.ring.reader(Start::Arrived(Mono::default()));
        let mut frames = Vec::new();
        let read = async {
            while !enough(&frames) {
                match reader.next().await {
                    Read::Frame(frame) => frames.push(frame),
                    other => panic!("{other:?}"),
                }
            }
        };
        if tokio::time::timeout(SOON, read).await.is_err() {
            panic!("only {} frames: {:?}", frames.len(), self.handle.stats());
        }
        frames
    }

    /// Stops in time, and readers of the ring are told.
    async fn stop(self) {
        let mut reader = self.ring.reader(Start::LastKey);
        assert_eq!(self.scope.shutdown(Duration::from_secs(5)).await, Vec::<String>::new());
        while !matches!(reader.try_next().expect("the ring goes on"), Read::Ended) {}
    }
}

fn source(port: u16, path: &str, password: Option<&str>) -> Source {
    Source {
        url: format!("rtsp://127.0.0.1:{port}{path}").parse().unwrap(),
        sub_url: None,
        login: password.map(|p| Login { username: "admin".into(), password: Secret::new(p) }),
        transport: Transport::Tcp,
    }
}

fn keep_with(source: Source, settings: Settings) -> Kept {
    let ring = Ring::new(Limits { span: Duration::from_secs(20), bytes: 64 << 20 });
    let (tell, reports) = mpsc::channel(64);
    let scope = Scope::new("test");
    let handle = camera::start("cam-1".parse().unwrap(), source, ring.clone(), tell, settings, &scope);
    Kept { handle, ring, reports, scope }
}

fn keep(source: Source) -> Kept {
    keep_with(source, Settings::default())
}

fn videos(frames: &[Arc<Frame>]) -> impl Iterator<Item = &Arc<Frame>> {
    frames.iter().filter(|f| f.track == Track::Video)
}

fn format_of(frames: &[Arc<Frame>], track: Track) -> &Format {
    &frames.iter().find(|f| f.track == track).unwrap_or_else(|| panic!("no {track:?}")).format
}

/// Ticks never go back within a timeline, and capture keeps a constant offset to them.
fn assert_timelines_hold(frames: &[Arc<Frame>]) {
    let mut seen: HashMap<(u32, Track), (i64, i64)> = HashMap::new();
    for frame in frames {
        let base = frame.captured.micros()
            - (i128::from(frame.ticks) * 1_000_000).div_euclid(i128::from(frame.format.clock_rate)) as i64;
        let (ticks, offset) = seen.entry((frame.timeline, frame.track)).or_insert((frame.ticks, base));
        assert!(frame.ticks >= *ticks, "ticks went back in timeline {}", frame.timeline);
        assert_eq!(base, *offset, "the offset moved in timeline {}", frame.timeline);
        *ticks = frame.ticks;
    }
    assert!(frames.windows(2).all(|w| w[1].timeline >= w[0].timeline));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_arrives_in_its_format_and_begins_at_a_key_frame() {
    let peer = support::cameras(0, 1);
    let settings = Settings::default();
    let cameras: HashMap<_, _> = ["/cam0", "/h265", "/mjpeg", "/aac"]
        .map(|path| (path, keep_with(source(peer.port, path, Some("test")), settings.clone())))
        .into();
    // Two key frames of the H.26x cameras: two seconds apart.
    let both =
        |f: &[Arc<Frame>], audio: bool| videos(f).count() > 65 && (!audio || f.iter().any(|f| f.track == Track::Audio));
    for (path, video, (width, height), audio) in [
        ("/cam0", Codec::H264, (1920, 1080), Some((Codec::Pcmu, 8_000))),
        ("/h265", Codec::H265, (1920, 1080), Some((Codec::Pcma, 8_000))),
        ("/aac", Codec::H264, (1920, 1080), Some((Codec::Aac, 16_000))),
        ("/mjpeg", Codec::Jpeg, (1280, 720), None),
    ] {
        let camera = &cameras[path];
        let frames = camera.frames(|f| both(f, audio.is_some())).await;
        assert!(frames[0].key && frames[0].track == Track::Video, "{path}");
        assert_timelines_hold(&frames);
        let format = format_of(&frames, Track::Video);
        assert_eq!((format.codec, format.width, format.height, format.clock_rate), (video, width, height, 90_000));
        assert!(!format.rfc6381.is_empty(), "{path}");
        assert!(videos(&frames).all(|f| Arc::ptr_eq(&f.format, &videos(&frames).next().unwrap().format)));
        if video == Codec::Jpeg {
            assert!(videos(&frames).all(|f| f.key && f.data.starts_with(&[0xff, 0xd8])), "{path}");
        } else {
            assert_eq!(format.config[0], 1, "{path}: avcC or hvcC version");
            let keys: Vec<_> = videos(&frames).enumerate().filter(|(_, f)| f.key).map(|(i, _)| i).collect();
            assert_eq!(keys[..2], [0, 60], "{path}");
            let length = u32::from_be_bytes(frames[0].data[..4].try_into().unwrap());
            assert!((length as usize) < frames[0].data.len(), "{path}: NAL units with lengths");
        }
        if let Some((codec, rate)) = audio {
            let format = format_of(&frames, Track::Audio);
            assert_eq!((format.codec, format.clock_rate, format.channels), (codec, rate, 1), "{path}");
            assert_eq!(format.config.is_empty(), codec != Codec::Aac);
            assert_eq!(format.rfc6381, if codec == Codec::Aac { "mp4a.40.2" } else { "" });
        }
        let newest = frames.last().unwrap();
        let skew = clock::wall().micros() - clock::mono().since_boot().as_micros() as i64;
        let delay = newest.arrived.since_boot().as_micros() as i64 + skew - newest.captured.micros();
        assert!(delay.abs() < 1_500_000, "{path}: captured {delay} us before it arrived");
    }
    let stats = cameras["/cam0"].handle.stats();
    assert_eq!((stats.state, stats.sessions, stats.reconnects), (CameraState::Live, 1, 0));
    assert_eq!(stats.key_interval, Some(Duration::from_secs(2)));
    assert!((15.0..45.0).contains(&stats.fps) && stats.bitrate > 1_000_000, "{stats:?}");
    assert_eq!((stats.video.unwrap().codec, stats.audio.unwrap().codec), (Codec::H264, Codec::Pcmu));
    for camera in cameras.into_values() {
        camera.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_a_missing_login_and_a_wrong_path_are_told_apart() {
    let peer = support::cameras(0, 1);
    let mut wrong = keep(source(peer.port, "/cam0", Some("guess-me-not")));
    let mut missing = keep(source(peer.port, "/cam0", None));
    let mut path = keep(source(peer.port, "/nowhere", Some("test")));
    let report = wrong.until(CameraState::WrongPassword).await;
    assert!(report.detail.contains("admin") && report.detail.contains(&peer.port.to_string()), "{report:?}");
    assert!(!report.detail.contains("guess-me-not"));
    assert!(missing.until(CameraState::WrongPassword).await.detail.contains("asks for a login"));
    let report = path.until(CameraState::Unusable).await;
    assert!(report.detail.contains("/nowhere") && report.detail.contains("404"), "{report:?}");
    // A refused login is not tried again soon.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(wrong.handle.stats().reconnects, 0);
    assert!(wrong.reports.try_recv().is_err() && path.reports.try_recv().is_err(), "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication_works_where_a_camera_has_no_digest() {
    let peer = support::cameras_with(0, 1, &["--basic"]);
    let mut right = keep(source(peer.port, "/cam0", Some("test")));
    let mut wrong = keep(source(peer.port, "/cam0", Some("guess")));
    right.until(CameraState::Live).await;
    wrong.until(CameraState::WrongPassword).await;
    right.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_comes_up_later_is_live_within_seconds() {
    let port = support::free_port();
    let mut camera = keep(source(port, "/cam0", Some("test")));
    let report = camera.until(CameraState::Unreachable).await;
    assert!(report.detail.contains("refused"), "{report:?}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(camera.reports.try_recv().is_err(), "told once, however often it is tried");
    let peer = tokio::task::block_in_place(|| support::cameras(port, 1));
    let up = Instant::now();
    camera.until(CameraState::Live).await;
    assert!(up.elapsed() < Duration::from_secs(10), "{:?}", up.elapsed());
    camera.stop().await;
    drop(peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_camera_is_stalled_and_live_again_when_it_goes_on() {
    let peer = support::cameras(0, 1);
    let mut camera = keep(source(peer.port, "/cam0", Some("test")));
    camera.until(CameraState::Live).await;
    peer.signal("STOP");
    let hung = Instant::now();
    camera.until(CameraState::Stalled).await;
    assert!(hung.elapsed() > Duration::from_secs(3) && hung.elapsed() < Duration::from_secs(8), "{:?}", hung.elapsed());
    // It stays stalled: its kernel still accepts connections.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(camera.handle.stats().state, CameraState::Stalled);
    peer.signal("CONT");
    let back = Instant::now();
    camera.until(CameraState::Live).await;
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    camera.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebooted_camera_goes_on_in_a_new_timeline() {
    let peer = support::cameras(0, 1);
    let port = peer.port;
    let mut camera = keep(source(port, "/cam0", Some("test")));
    camera.frames(|f| videos(f).count() > 30).await;
    drop(peer);
    camera.until(CameraState::Unreachable).await;
    let peer = tokio::task::block_in_place(|| support::cameras(port, 1));
    camera.until(CameraState::Live).await;
    let frames = camera.frames(|f| videos(f).filter(|f| f.timeline > 0).count() > 30).await;
    assert_timelines_hold(&frames);
    let first = videos(&frames).find(|f| f.timeline > 0).unwrap();
    assert!(first.key, "decoding can begin at the new timeline");
    assert_eq!(camera.handle.stats().sessions, 2);
    camera.stop().await;
    drop(peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_stays_on_the_camera_however_often_it_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions");
    let peer = support::cameras_with(0, 1, &["--sessions", file.to_str().unwrap()]);
    let sessions = || std::fs::read_to_string(&file).ok()?.parse::<usize>().ok();
    for round in 0..20 {
        let mut source = source(peer.port, "/cam0", Some("test"));
        source.transport = if round % 4 == 3 { Transport::Udp } else { Transport::Tcp };
        let camera = keep(source);
        support::eventually(SOON, "a session", || (sessions()? == 1).then_some(()));
        if round % 2 == 0 {
            // Some are left in the middle of the handshake, others while they play.
            support::eventually(SOON, "frames", || (camera.handle.stats().bytes > 0).then_some(()));
        }
        camera.stop().await;
        support::eventually(SOON, "no session", || (sessions()? == 0).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_over_udp_when_asked_for() {
    let peer = support::cameras(0, 1);
    let mut source = source(peer.port, "/mjpeg", Some("test"));
    source.transport = Transport::Udp;
    let camera = keep(source);
    let frames = camera.frames(|f| videos(f).count() > 10).await;
    assert_timelines_hold(&frames);
    camera.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_that_step_back_or_jump_begin_a_new_timeline_in_the_same_session() {
    let peer = scripted::camera(|_, session| {
        let _ = session.pictures(4_000_000_000, 10)
            && session.pictures(1_000, 10)
            && session.pictures(900_000_000, 10)
            && session.pictures(900_036_000, 1_000);
    });
    let camera = keep(source(peer.port, "/any", None));
    let frames = camera.frames(|f| f.len() >= 40).await;
    assert_timelines_hold(&frames);
    let first_of: HashMap<_, _> = frames.iter().rev().map(|f| (f.timeline, f.ticks)).collect();
    assert_eq!(first_of, HashMap::from([(0, 4_000_000_000), (1, 1_000), (2, 900_000_000)]));
    assert_eq!(peer.played.load(std::sync::atomic::Ordering::SeqCst), 1, "one session");
    camera.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_the_protocol_is_replaced_quickly_and_frames_go_on() {
    let peer = scripted::camera(|number, session| match number {
        0 => {
            session.pictures(0, 10);
            session.ssrc = 8;
            session.pictures(36_000, 1_000);
        }
        1 => {
            session.pictures(0, 10);
            session.lose(0x9000);
            session.pictures(36_000, 1_000);
        }
        2 => {
            session.pictures(0, 10);
            session.raw(b"\x00\xffnot RTSP at all\r\n\r\n");
            session.pictures(36_000, 1_000);
        }
        _ => drop(session.pictures(0, 1_000)),
    });
    let mut camera = keep(source(peer.port, "/any", None));
    let frames = camera.frames(|f| f.last().is_some_and(|f| f.timeline == 3)).await;
    assert_timelines_hold(&frames);
    support::eventually(SOON, "live again", || (camera.handle.stats().sessions == 4).then_some(()));
    let states: Vec<_> = std::iter::from_fn(|| camera.reports.try_recv().ok()).map(|r| r.state).collect();
    let back = [CameraState::Connecting, CameraState::Live];
    assert_eq!(states, [&[CameraState::Live][..], &back, &back, &back].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_are_counted_and_marked_on_the_frame_after_them() {
    let peer = scripted::camera(|_, session| {
        session.pictures(0, 10);
        session.lose(3);
        session.pictures(36_000, 1_000);
    });
    let camera = keep(source(peer.port, "/any", None));
    let frames = camera.frames(|f| f.len() >= 15).await;
    let lost: Vec<_> = frames.iter().map(|f| f.lost_before).collect();
    assert_eq!((lost[10], lost.iter().sum::<u16>()), (3, 3));
    assert_eq!(camera.handle.stats().lost_packets, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_reports_tell_how_far_off_the_cameras_clock_is() {
    // NTP seconds of 2020-01-01, as a camera without a battery would have it.
    let ntp = 3_786_825_600_u64 << 32;
    let peer = scripted::camera(move |_, session| {
        let _ = session.picture(90_000, true) && session.sender_report(90_000, ntp) && session.pictures(93_600, 1_000);
    });
    let camera = keep(source(peer.port, "/any", None));
    let frames = camera.frames(|f| f.len() >= 40).await;
    assert_timelines_hold(&frames);
    let off = camera.handle.stats().clock_ahead_us.unwrap();
    assert!(off < -1_000_000_i64 * 86_400 * 365, "{off}");
    let ago = clock::wall().since(frames[39].captured);
    assert!(ago < Duration::from_secs(5), "captured {ago:?} ago by our clock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_answers_is_stalled_and_one_that_talks_nonsense_is_unusable() {
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let http_port = http.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let settings = Settings { connect: Duration::from_secs(1), ..Settings::default() };
    let mut hangs = keep_with(source(mute.local_addr().unwrap().port(), "/any", None), settings.clone());
    let mut nonsense = keep_with(source(http_port, "/any", None), settings);
    assert!(hangs.until(CameraState::Stalled).await.detail.contains("DESCRIBE"));
    nonsense.until(CameraState::Unusable).await;
    hangs.stop().await;
    nonsense.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_without_key_frames_is_not_live() {
    let peer = scripted::camera(|_, session| {
        for i in 0..1_000 {
            std::thread::sleep(Duration::from_millis(40));
            if !session.picture(i * 3_600, false) {
                break;
            }
        }
    });
    let settings = Settings { first_key: Duration::from_secs(1), ..Settings::default() };
    let mut camera = keep_with(source(peer.port, "/any", None), settings);
    assert!(camera.until(CameraState::Unusable).await.detail.contains("key frame"));
    assert_eq!(camera.ring.held().frames, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_report_queue_never_holds_the_camera_up_and_the_last_state_gets_through() {
    let peer = scripted::camera(|number, session| {
        session.pictures(0, if number < 3 { 5 } else { 1_000 });
    });
    let ring = Ring::new(Limits { span: Duration::from_secs(20), bytes: 1 << 20 });
    let (tell, mut reports) = mpsc::channel(1);
    let scope = Scope::new("test");
    let source = source(peer.port, "/any", None);
    let handle = camera::start("cam-1".parse().unwrap(), source, ring, tell, Settings::default(), &scope);
    support::eventually(SOON, "the fourth session", || (handle.stats().sessions == 4).then_some(()));
    assert_eq!(reports.recv().await.unwrap().state, CameraState::Live);
    let newest = tokio::time::timeout(SOON, reports.recv()).await.unwrap().unwrap();
    assert_eq!(newest.state, CameraState::Live, "{newest:?}");
}

#[test]
fn a_camera_that_says_what_its_reader_does_not_bear_is_told_and_nobody_else_notices() {
    // A line that is none, and behind it an attribute: the library that reads SDP panics.
    const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=broken\r\nt=0 0\r\nx\r\na=control:*\r\n";
    let peer = scripted::camera_that_offers(SDP, |_, _| {});
    let site = gateway::Site::new().buttons(1).camera("cam", 10, &format!("rtsp://127.0.0.1:{}/", peer.port));
    let gateway = site.start();
    let told = support::eventually(gateway::SOON, "the camera is told as unusable", || {
        let cameras = gateway.get("/v1/cameras").json();
        let camera = cameras["cameras"][0].clone();
        (camera["state"] == "unusable").then_some(camera)
    });
    assert!(told["detail"].as_str().unwrap().contains("sends what cannot be read"), "{told}");
    mqtt::Button::connect(gateway.mqtt, "b1").unwrap().press("p-1", "panic");
    assert_eq!(gateway.incidents().len(), 1);
    assert!(gateway.stop().success());
}
