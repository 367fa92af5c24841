//! The gateway's cameras by RTSP, against the players and recorders that people have: ffmpeg, GStreamer, retina, and clients that do
//! what they should not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chowki::{
    gateway::spectators::Spectators,
    host::{clock, scope::Scope},
    media::{
        frame::{Codec, Format, Frame, Track},
        ring::{Limits as Keeps, Ring},
    },
    rtsp::{self, Limits, Offer, Refused, Stage},
    wire::digest::Proof,
};
use futures::StreamExt;
use gateway::{Gateway, SOON, Site, quiet_port};
use http_auth::{PasswordClient, PasswordParams};
use retina::{
    client::{
        Credentials, Demuxed, PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions, Transport,
        UdpTransportOptions,
    },
    codec::CodecItem,
};
use serde_json::Value;
use support::{Peer, cameras, cameras_with, eventually, which};
use tokio::{net::TcpListener, time::timeout};

/// A gateway whose cameras are served by RTSP on that port, to everyone.
fn site(port: u16, cameras: &[(&str, String)]) -> Site {
    let site = Site::new().buttons(1).window(10, 5).with(&format!("[rtsp]\nlisten = \"127.0.0.1:{port}\""));
    cameras.iter().fold(site, |site, (id, url)| site.camera(id, 10, url))
}

fn one(rig: &Peer) -> [(&'static str, String); 1] {
    [("cam", mount(rig, "cam0"))]
}

fn mount(rig: &Peer, name: &str) -> String {
    format!("rtsp://127.0.0.1:{}/{name}", rig.port)
}

/// With a client of each role, whose token is its name backwards.
fn guarded(site: Site) -> Site {
    let (mut site, mut toml) = (site, "[api]\n".to_owned());
    for role in ["operator", "supervisor", "puller", "engineer"] {
        site = site.secret(&format!("{role}.token"), &token(role));
        toml.push_str(&format!(
            "[[api.client]]\nname = \"the-{role}\"\nrole = \"{role}\"\ntoken_file = \"{role}.token\"\n"
        ));
    }
    site.with(&toml)
}

fn token(role: &str) -> String {
    role.chars().rev().collect()
}

fn run(program: &str, args: &[&str]) -> Output {
    // ffmpeg waits for a peer as long as it takes; a test does not.
    Command::new("timeout").arg("40").arg(which(program)).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Tries of what a busy machine spoils for a peer now and then.
const TRIES: usize = 4;

/// The packets that ffprobe sees in so many seconds, without a word of complaint.
fn packets(url: &str, transport: &str, seconds: u32) -> Vec<Value> {
    let interval = format!("%+{seconds}");
    let args = ["-v", "warning", "-buffer_size", "4000000", "-rtsp_transport", transport, "-read_intervals", &interval];
    let what = ["-show_entries", "packet=codec_type,flags,pts_time,dts_time,size", "-of", "json", url];
    let mut complaints = Vec::new();
    for _ in 0..if transport == "udp" { TRIES } else { 1 } {
        let out = run("ffprobe", &[&args[..], &what[..]].concat());
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        if out.status.success() && said.is_empty() {
            return serde_json::from_slice::<Value>(&out.stdout).unwrap()["packets"].as_array().unwrap().clone();
        }
        complaints.push(said);
    }
    panic!("{url} by {transport}: {complaints:?}");
}

/// Decodes so many seconds of everything, without a word of complaint. They are written down first: who decodes while they come,
/// and has no processor in time, loses datagrams by itself.
fn decodes(url: &str, transport: &str, seconds: u32) {
    let (seconds, dir) = (seconds.to_string(), tempfile::tempdir().unwrap());
    let file = dir.path().join("seen.mkv");
    let file = file.to_str().unwrap();
    let from = ["-v", "error", "-buffer_size", "4000000", "-rtsp_transport", transport, "-i", url];
    let to = ["-t", &seconds, "-map", "0", "-c", "copy", "-y", file];
    let complains = || {
        let out = [
            run("ffmpeg", &[&from[..], &to[..]].concat()),
            run("ffmpeg", &["-v", "error", "-xerror", "-i", file, "-f", "null", "-"]),
        ];
        let said: String = out.iter().map(|out| String::from_utf8_lossy(&out.stderr)).collect();
        (!out.iter().all(|out| out.status.success()) || !said.trim().is_empty()).then_some(said)
    };
    let tries = if transport == "udp" { TRIES } else { 1 };
    let complaints: Vec<_> = (0..tries).map_while(|_| complains()).collect();
    assert!(complaints.len() < tries, "{url} by {transport}: {complaints:?}");
}

fn of<'a>(packets: &'a [Value], kind: &str) -> Vec<&'a Value> {
    packets.iter().filter(|p| p["codec_type"] == kind).collect()
}

/// When the first and the last packet are to be shown. To the first picture of any RTP stream ffmpeg gives no time.
fn span(packets: &[&Value]) -> (f64, f64, usize) {
    let times: Vec<f64> = packets.iter().filter_map(|p| p["pts_time"].as_str()?.parse().ok()).collect();
    assert!(times.len() + 1 >= packets.len() && times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
    (times[0], times[times.len() - 1], times.len() - 1)
}

/// All codecs of the rig by one way.
fn ffmpeg_plays_every_codec(transport: &str) {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let all = ["cam0", "h265", "aac", "mjpeg"].map(|name| (name, mount(&rig, name)));
    let site = site(port, &all);
    let gateway = site.start();
    gateway.cameras_live(4, Duration::from_secs(4));
    for (camera, sound) in [("cam0", true), ("h265", true), ("aac", true), ("mjpeg", false)] {
        let url = format!("rtsp://127.0.0.1:{port}/{camera}");
        let seen = packets(&url, transport, 3);
        let pictures = of(&seen, "video");
        assert!(pictures[0]["flags"].as_str().unwrap().starts_with('K'), "{camera} begins with a key frame: {seen:?}");
        let (first, last, between) = span(&pictures);
        let rate = between as f64 / (last - first);
        let right = if camera == "mjpeg" { 10.0 } else { 30.0 };
        assert!((rate - right).abs() < 1.0, "{camera}: {rate} pictures a second");
        let sounds = of(&seen, "audio");
        assert_eq!(!sounds.is_empty(), sound, "{camera}");
        if sound {
            // Together, by their own times: both began at the same moment.
            let apart = span(&sounds).0 - first;
            assert!(apart.abs() < 0.3, "{camera}: sound is {apart} s from its pictures");
        }
        decodes(&url, transport, 3);
    }
    let log = gateway.log();
    assert!(log.contains("watched by RTSP") && log.contains(&format!("transport={transport}")), "{log}");
    eventually(SOON, "nobody watches any more", || metric(&gateway, "chowki_rtsp_sessions").eq(&0).then_some(()));
    assert_eq!(metric(&gateway, "chowki_rtsp_skipped_frames_total"), 0);
    assert!(metric(&gateway, "chowki_rtsp_begun_total") >= 8);
}

fn metric(gateway: &Gateway<'_>, name: &str) -> u64 {
    let text = gateway.get_as(&token("operator"), "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn ffmpeg_plays_every_codec_in_the_rtsp_connection() {
    ffmpeg_plays_every_codec("tcp");
}

#[test]
fn ffmpeg_plays_every_codec_by_datagrams() {
    ffmpeg_plays_every_codec("udp");
}

#[test]
fn gstreamer_plays_pictures_and_sound_by_both_ways_as_a_client_with_a_name() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let all = [("cam", mount(&rig, "cam0")), ("hevc", mount(&rig, "h265"))];
    let site = guarded(site(port, &all));
    let gateway = site.spawn(&[]);
    gateway.ready();
    std::thread::sleep(Duration::from_secs(6));
    for (camera, video, audio) in
        [("cam", "rtph264depay ! h264parse", "rtppcmudepay"), ("hevc", "rtph265depay ! h265parse", "rtppcmadepay")]
    {
        for protocols in ["tcp", "udp"] {
            let pipeline = format!(
                "rtspsrc name=s location=rtsp://127.0.0.1:{port}/{camera} user-id=the-puller user-pw={} protocols={protocols} \
                 s. ! application/x-rtp,media=video ! {video} ! fakesink num-buffers=75 \
                 s. ! application/x-rtp,media=audio ! {audio} ! fakesink num-buffers=60",
                token("puller")
            );
            let args: Vec<&str> = ["-q"].into_iter().chain(pipeline.split_whitespace()).collect();
            // With two sinks gst-launch now and then never comes to its end, also when it plays from GStreamer's own server.
            let fails = || {
                let out = run("gst-launch-1.0", &args);
                let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
                assert!(!said.contains("ERROR"), "{camera} by {protocols}: {said}");
                (!out.status.success()).then_some(said)
            };
            let failures: Vec<_> = (0..TRIES).map_while(|_| fails()).collect();
            assert!(failures.len() < TRIES, "{camera} by {protocols}: {failures:?}");
        }
    }
    assert!(gateway.log().contains("viewer=the-puller"), "{}", gateway.log());
}

async fn session(url: &str, login: Option<(&str, &str)>, udp: bool) -> Result<Demuxed, retina::Error> {
    let credentials =
        login.map(|(username, password)| Credentials { username: username.into(), password: password.into() });
    let mut session = Session::describe(url.parse().unwrap(), SessionOptions::default().creds(credentials)).await?;
    for i in 0..session.streams().len() {
        let transport = match udp {
            true => Transport::Udp(UdpTransportOptions::default()),
            false => Transport::Tcp(TcpTransportOptions::default()),
        };
        session.setup(i, SetupOptions::default().transport(transport)).await?;
    }
    session.play(PlayOptions::default()).await?.demuxed()
}

/// A client that is hindered by another waits as long as that one does; a busy machine makes it wait a moment.
const HINDERED: Duration = Duration::from_secs(3);

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    began_with_key: bool,
    pictures: u32,
    sounds: u32,
    reports: u32,
    lost: u32,
    /// The longest time between two pictures.
    gap: Duration,
}

async fn watch(session: &mut Demuxed, span: Duration) -> Seen {
    let (mut seen, until, mut last) = (Seen::default(), Instant::now() + span, None::<Instant>);
    while Instant::now() < until {
        match timeout(SOON, session.next()).await.expect("frames come").expect("it goes on").unwrap() {
            CodecItem::VideoFrame(frame) => {
                seen.began_with_key |= seen.pictures == 0 && frame.is_random_access_point();
                seen.pictures += 1;
                seen.lost += u32::from(frame.loss());
                seen.gap = seen.gap.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                last = Some(Instant::now());
            }
            CodecItem::AudioFrame(frame) => {
                seen.sounds += 1;
                seen.lost += u32::from(frame.loss());
            }
            CodecItem::Rtcp(_) => seen.reports += 1,
            _ => {}
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn several_clients_share_one_session_at_the_camera_and_see_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions");
    let rig = cameras_with(0, 1, &["--sessions", file.to_str().unwrap()]);
    let port = quiet_port();
    let site = site(port, &one(&rig));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(4));
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    let began = Instant::now();
    let mut first = session(&url, None, false).await.unwrap();
    let took = loop {
        if let CodecItem::VideoFrame(frame) = timeout(SOON, first.next()).await.unwrap().unwrap().unwrap() {
            assert!(frame.is_random_access_point(), "the first picture is a key frame");
            break began.elapsed();
        }
    };
    println!("first picture {took:?} after the connection");
    assert!(took < Duration::from_millis(1_000), "key frames are 2 s apart; the first came after {took:?}");
    let mut others = [session(&url, None, false).await.unwrap(), session(&url, None, true).await.unwrap()];
    let [second, third] = &mut others;
    let span = Duration::from_secs(7);
    let (a, b, c) = tokio::join!(watch(&mut first, span), watch(second, span), watch(third, span));
    assert!(b.began_with_key && c.began_with_key, "{b:?} {c:?}");
    // A client that has no processor in time loses datagrams by itself.
    assert!(a.lost == 0 && b.lost == 0, "{a:?} {b:?}");
    for seen in [a, b, c] {
        println!("{seen:?}");
        assert!(seen.pictures > 150 && seen.sounds > 120, "{seen:?}");
        assert!(seen.reports >= 2 && seen.gap < HINDERED, "{seen:?}");
    }
    assert_eq!(metric(&gateway, "chowki_rtsp_sessions"), 3);
    assert_eq!(metric(&gateway, "chowki_rtsp_dropped_datagrams_total"), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "1", "sessions at the camera");
    drop((first, others));
    eventually(SOON, "all have gone", || metric(&gateway, "chowki_rtsp_sessions").eq(&0).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_hinders_nobody_and_goes_on_at_a_key_frame() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let site = site(port, &one(&rig));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(4));
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    let file = site.dir.path().join("slow.ts");
    let slow = ffmpeg_copies(&url, &file);
    let mut other = session(&url, None, false).await.unwrap();
    watch(&mut other, Duration::from_secs(3)).await;
    // What waits in ffmpeg's kernel may be all of it; in this one's kernel there is little room.
    let mut still = Raw::with_little_room(port);
    for track in ["video", "audio"] {
        assert_eq!(still.ask("SETUP", &format!("{url}/{track}"), &[("Transport", "RTP/AVP/TCP")]).status, 200);
    }
    assert_eq!(still.ask("PLAY", &url, &[]).status, 200);
    slow.signal("STOP");
    let seen = watch(&mut other, Duration::from_secs(6)).await;
    assert!(seen.pictures > 120 && seen.gap < HINDERED && seen.lost == 0, "{seen:?}");
    slow.signal("CONT");
    let still = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            still.drain();
            std::thread::sleep(Duration::from_millis(5));
        }
        still
    });
    let written = || std::fs::metadata(&file).map_or(0, |meta| meta.len());
    let before = written();
    let seen = watch(&mut other, Duration::from_secs(4)).await;
    assert!(seen.pictures > 80 && seen.gap < HINDERED, "{seen:?}");
    let skipped = metric(&gateway, "chowki_rtsp_skipped_frames_total");
    println!("{skipped} frames skipped");
    assert!(skipped > 50, "{skipped}");
    assert!(written() > before + 500_000, "the slow one goes on: {before} to {}", written());
    assert_eq!(metric(&gateway, "chowki_rtsp_sessions"), 3);
    drop((slow, still.join().unwrap()));
    // What was skipped is missing whole: nothing in between is torn.
    let torn = run("ffmpeg", &["-v", "error", "-i", file.to_str().unwrap(), "-map", "0:v", "-f", "null", "-"]);
    let said = String::from_utf8_lossy(&torn.stderr);
    let torn = said.lines().filter(|line| line.contains("concealing") || line.contains("reference")).count();
    assert_eq!(torn, 0, "{said}");
}

/// A recorder.
fn ffmpeg_copies(url: &str, to: &std::path::Path) -> Peer {
    let child: Child = Command::new(which("ffmpeg"))
        .args(["-v", "error", "-rtsp_transport", "tcp", "-i", url, "-c", "copy", "-f", "mpegts", "-y"])
        .arg(to)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Peer { child, port: 0 }
}

/// A client that writes what a test wants.
struct Raw {
    stream: TcpStream,
    number: u32,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    fn session(&self) -> String {
        self.header("session").unwrap().split(';').next().unwrap().to_owned()
    }
}

impl Raw {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, number: 0, read: Vec::new() }
    }

    fn with_little_room(port: u16) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, number: 0, read: Vec::new() }
    }

    fn ask(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answer {
        self.number += 1;
        let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        write!(self.stream, "{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.number).unwrap();
        let answer = self.answer().expect("an answer");
        assert_eq!(answer.header("cseq").and_then(|n| n.parse().ok()), Some(self.number), "{answer:?}");
        answer
    }

    /// The next answer, what is interleaved left out. None: the connection was closed.
    fn answer(&mut self) -> Option<Answer> {
        loop {
            if self.read.first() == Some(&b'$') && self.read.len() >= 4 {
                let end = 4 + usize::from(u16::from_be_bytes([self.read[2], self.read[3]]));
                if self.read.len() >= end {
                    self.read.drain(..end);
                    continue;
                }
            } else if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                let mut answer = Answer { status, head, body: String::new() };
                let length: usize = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
                if self.read.len() >= end + 4 + length {
                    answer.body = String::from_utf8(self.read[end + 4..end + 4 + length].to_vec()).unwrap();
                    self.read.drain(..end + 4 + length);
                    return Some(answer);
                }
            }
            let mut some = [0; 65_536];
            match self.stream.read(&mut some) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.read.extend(&some[..n]),
            }
        }
    }

    /// Takes what is there, and keeps nothing of it.
    fn drain(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
        let mut some = [0; 1 << 20];
        while matches!(self.stream.read(&mut some), Ok(1..)) {}
        self.stream.set_nonblocking(false).unwrap();
    }

    /// Asks as the client of that role.
    fn ask_as(&mut self, role: &str, password: &str, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let refused = self.ask(method, uri, headers);
        assert_eq!(refused.status, 401, "{refused:?}");
        let mut login = PasswordClient::try_from(refused.header("www-authenticate").unwrap()).unwrap();
        let username = format!("the-{role}");
        let params = PasswordParams { username: &username, password, uri, method, body: Some(&[]) };
        let proof = login.respond(&params).unwrap();
        self.ask(method, uri, &[headers, &[("Authorization", proof.as_str())]].concat())
    }
}

#[test]
fn operators_supervisors_and_pullers_may_watch_and_nobody_else() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let site = guarded(site(port, &one(&rig)));
    let gateway = site.spawn(&[]);
    gateway.ready();
    std::thread::sleep(Duration::from_secs(3));
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    let ask = |role: &str, password: &str, url: &str| {
        Raw::connect(port).ask_as(role, password, "DESCRIBE", url, &[("Accept", "application/sdp")])
    };
    for role in ["operator", "supervisor", "puller"] {
        let answer = ask(role, &token(role), &url);
        assert!(answer.status == 200 && answer.body.contains("a=rtpmap:96 H264/90000"), "{role}: {answer:?}");
    }
    let engineer = ask("engineer", &token("engineer"), &url);
    assert!(engineer.status == 403 && engineer.body.contains("operators and pullers"), "{engineer:?}");
    for (role, password) in [("operator", "wrong"), ("nobody", "rotarepo"), ("engineer", "wrong")] {
        let refused = ask(role, password, &url);
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(refused.status == 401 && challenge.starts_with("Digest realm=\"chowki\""), "{refused:?}");
        assert!(!challenge.contains("stale"), "{refused:?}");
    }
    // Which cameras there are is for those who may watch.
    let unknown = format!("rtsp://127.0.0.1:{port}/cam-9");
    assert_eq!(Raw::connect(port).ask("DESCRIBE", &unknown, &[]).status, 401);
    assert_eq!(ask("puller", &token("puller"), &unknown).status, 404);
    // A proof that was heard on one connection is none on another; whoever made it may make another one.
    let challenge = Raw::connect(port).ask("DESCRIBE", &url, &[]);
    let mut login = PasswordClient::try_from(challenge.header("www-authenticate").unwrap()).unwrap();
    let password = &token("puller");
    let params = PasswordParams { username: "the-puller", password, uri: &url, method: "DESCRIBE", body: Some(&[]) };
    let proof = login.respond(&params).unwrap();
    let stale = Raw::connect(port).ask("DESCRIBE", &url, &[("Authorization", &proof)]);
    assert!(stale.status == 401 && stale.header("www-authenticate").unwrap().ends_with("stale=true"), "{stale:?}");
    let wrong = run("ffprobe", &["-v", "error", "-rtsp_transport", "tcp", &url.replace("://", "://the-puller:no@")]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("401"), "{wrong:?}");
    decodes(&url.replace("://", &format!("://the-puller:{}@", token("puller"))), "tcp", 1);
    assert!(!gateway.log().contains(&token("puller")), "no token is in the log");
}

#[test]
fn a_client_such_as_live555_that_proves_itself_for_the_cameras_url_alone_is_served() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let site = guarded(site(port, &one(&rig)));
    let gateway = site.spawn(&[]);
    gateway.ready();
    std::thread::sleep(Duration::from_secs(3));
    let (url, mut raw) = (format!("rtsp://127.0.0.1:{port}/cam"), Raw::connect(port));
    let agent = ("User-Agent", "live (LIVE555 Streaming Media v2022.07.14)");
    assert_eq!(raw.ask("OPTIONS", &url, &[agent]).status, 200);
    let refused = raw.ask("DESCRIBE", &url, &[agent]);
    let mut login = PasswordClient::try_from(refused.header("www-authenticate").unwrap()).unwrap();
    let mut ask = |raw: &mut Raw, method: &str, of: &str, headers: &[(&str, &str)]| {
        let base = format!("{url}/");
        let uri = if method == "DESCRIBE" { &url } else { &base };
        let password = &token("operator");
        let params = PasswordParams { username: "the-operator", password, uri, method, body: Some(&[]) };
        let proof = login.respond(&params).unwrap();
        let answer = raw.ask(method, of, &[headers, &[agent, ("Authorization", proof.as_str())]].concat());
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        answer
    };
    let described = ask(&mut raw, "DESCRIBE", &url, &[("Accept", "application/sdp")]);
    assert!(described.body.contains("sprop-parameter-sets="), "{described:?}");
    // Each track by ports of its own, RTCP beside RTP.
    let pair = || {
        let rtp = UdpSocket::bind("127.0.0.1:0").ok()?;
        let own = rtp.local_addr().ok()?.port();
        rtp.set_read_timeout(Some(SOON)).ok()?;
        Some((own, rtp, UdpSocket::bind(("127.0.0.1", own ^ 1)).ok()?))
    };
    let sockets = ["video", "audio"].map(|track| (track, eventually(SOON, "two ports", pair)));
    let mut id = String::new();
    for (track, (own, ..)) in &sockets {
        let wanted = format!("RTP/AVP;unicast;client_port={own}-{}", own ^ 1);
        let session = if id.is_empty() { vec![] } else { vec![("Session", id.as_str())] };
        let headers = [&session[..], &[("Transport", wanted.as_str())]].concat();
        id = ask(&mut raw, "SETUP", &format!("{url}/{track}"), &headers).session();
    }
    let play = ask(&mut raw, "PLAY", &format!("{url}/"), &[("Session", &id), ("Range", "npt=0.000-")]);
    let info: Vec<_> = play.header("rtp-info").unwrap().split(',').collect();
    for ((track, (_, rtp, _)), info) in sockets.iter().zip(info) {
        let field = |name: &str| info.split(';').find_map(|f| f.strip_prefix(name)).unwrap().parse::<u32>().unwrap();
        assert!(info.contains(&format!("url={url}/{track};")), "{info}");
        let (mut packet, mut next) = ([0; 2_000], field("seq=") as u16);
        for i in 0..100 {
            let n = rtp.recv(&mut packet).unwrap();
            assert!(n > 12 && n <= 1_400 && packet[0] == 0x80);
            assert_eq!(u16::from_be_bytes([packet[2], packet[3]]), next, "{track}, packet {i}");
            next = next.wrapping_add(1);
            // The key frame is where the range begins; sound is near it.
            let time = u32::from_be_bytes(packet[4..8].try_into().unwrap());
            let (ahead, rate) =
                (time.wrapping_sub(field("rtptime=")) as i32, if *track == "video" { 90_000 } else { 8_000 });
            assert!(i > 0 || ahead.abs() < rate / 2, "{track} begins {ahead} ticks from there");
            assert!(i > 0 || *track == "audio" || ahead == 0, "{ahead}");
        }
    }
    ask(&mut raw, "GET_PARAMETER", &url, &[("Session", &id)]);
    ask(&mut raw, "TEARDOWN", &format!("{url}/"), &[("Session", &id)]);
    assert_eq!(metric(&gateway, "chowki_rtsp_dropped_datagrams_total"), 0);
}

#[test]
fn requests_are_answered_as_the_standard_has_it() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let site = site(port, &one(&rig));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(2));
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    let (video, audio) = (format!("{url}/video"), format!("{url}/audio"));
    let mut raw = Raw::connect(port);
    let options = raw.ask("OPTIONS", "*", &[]);
    assert!(options.status == 200 && options.header("public").unwrap().contains("GET_PARAMETER"), "{options:?}");
    let described = raw.ask("DESCRIBE", &url, &[]);
    assert_eq!(described.header("content-base"), Some(format!("{url}/").as_str()));
    assert!(described.body.contains("a=control:video\r\n") && described.body.contains("m=audio 0 RTP/AVP 0\r\n"));
    let tcp = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
    assert_eq!(raw.ask("SETUP", &video, &[("Transport", "RTP/SAVP;unicast;client_port=5000-5001")]).status, 461);
    assert_eq!(raw.ask("SETUP", &format!("{url}/other"), &[tcp]).status, 404);
    assert_eq!(raw.ask("PLAY", &url, &[]).status, 454);
    let set_up = raw.ask("SETUP", &video, &[tcp]);
    let id = set_up.session();
    assert!(set_up.header("session").unwrap().ends_with(";timeout=60"), "{set_up:?}");
    // Channels that are taken are not given again.
    let second = raw.ask("SETUP", &audio, &[tcp, ("Session", &id)]);
    assert!(second.header("transport").unwrap().contains("interleaved=2-3"), "{second:?}");
    assert_eq!(raw.ask("PLAY", &url, &[("Session", "other")]).status, 454);
    let past = [("Session", id.as_str()), ("Range", "clock=20260301T120000Z-")];
    assert_eq!(raw.ask("PLAY", &url, &past).status, 457);
    assert_eq!(raw.ask("PLAY", &url, &[("Require", "onvif-replay"), ("Session", &id)]).status, 551);
    let play = raw.ask("PLAY", &url, &[("Session", &id), ("Range", "npt=0.000-")]);
    let info = play.header("rtp-info").unwrap();
    assert!(
        play.status == 200 && info.contains(&format!("url={video};seq=")) && info.contains(";rtptime="),
        "{play:?}"
    );
    assert_eq!(raw.ask("SETUP", &audio, &[tcp, ("Session", &id)]).status, 455);
    for method in ["PAUSE", "RECORD", "ANNOUNCE"] {
        let refused = raw.ask(method, &url, &[("Session", &id)]);
        assert!(refused.status == 501 && refused.header("allow").is_some(), "{refused:?}");
    }
    for method in ["GET_PARAMETER", "SET_PARAMETER", "OPTIONS", "PLAY"] {
        assert_eq!(raw.ask(method, &url, &[("Session", &id)]).status, 200, "{method}");
    }
    assert_eq!(metric(&gateway, "chowki_rtsp_sessions"), 1);
    assert_eq!(raw.ask("TEARDOWN", &url, &[("Session", &id)]).status, 200);
    assert_eq!(metric(&gateway, "chowki_rtsp_sessions"), 0);
    assert_eq!(raw.ask("GET_PARAMETER", &url, &[("Session", &id)]).status, 454);
    // The connection stands, and can be used anew.
    assert_eq!(raw.ask("SETUP", &audio, &[tcp]).status, 200);
    assert_eq!(raw.ask("DESCRIBE", &format!("rtsp://127.0.0.1:{port}/"), &[]).status, 404);
}

#[test]
fn what_is_no_rtsp_or_too_much_of_it_ends_its_own_connection() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let site = site(port, &one(&rig));
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(2));
    let long = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let large = "SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 70000\r\n\r\n".to_owned() + &"x".repeat(70_000);
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("\0\x01\x02 nothing that\r\n\r\n", 400),
        (long.as_str(), 413),
        (large.as_str(), 413),
    ] {
        let mut raw = Raw::connect(port);
        raw.stream.write_all(bytes.as_bytes()).unwrap();
        let answer = raw.answer().unwrap_or_else(|| panic!("no answer to {:?}", &bytes[..20]));
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(raw.answer().is_none(), "it is closed");
    }
    let mut raw = Raw::connect(port);
    write!(raw.stream, "OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\nOPTIONS * RTSP/1.0\r\n\r\n").unwrap();
    assert_eq!([raw.answer().unwrap().status, raw.answer().unwrap().status], [505, 400]);
    // Interleaved bytes before there is a session, and requests all at once.
    raw.stream.write_all(b"$\x01\x00\x04abcd").unwrap();
    write!(raw.stream, "{}", "OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\n".repeat(500)).unwrap();
    assert!((0..500).all(|_| raw.answer().is_some_and(|answer| answer.status == 200)));
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    decodes(&url, "tcp", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_is_away_is_said_to_be_and_a_viewer_of_one_that_comes_back_sees_it_again() {
    let rig = cameras(0, 1);
    let port = quiet_port();
    let dead = support::free_port();
    let all = [("cam", mount(&rig, "cam0")), ("dead", format!("rtsp://127.0.0.1:{dead}/cam0"))];
    let site = site(port, &all);
    let gateway = site.start();
    gateway.cameras_live(1, Duration::from_secs(3));
    let answer = Raw::connect(port).ask("DESCRIBE", &format!("rtsp://127.0.0.1:{port}/dead"), &[]);
    assert_eq!(answer.status, 503, "{answer:?}");
    let mut watcher = session(&format!("rtsp://127.0.0.1:{port}/cam"), None, false).await.unwrap();
    watch(&mut watcher, Duration::from_secs(1)).await;
    let rig_port = rig.port;
    drop(rig);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _rig = cameras(rig_port, 1);
    let seen = watch(&mut watcher, Duration::from_secs(10)).await;
    assert!(seen.pictures > 60 && seen.lost == 0, "{seen:?}");
    // A gateway that stops says so to who watches.
    let stopped = tokio::task::block_in_place(|| gateway.stop());
    assert!(stopped.success());
    let ended = timeout(SOON, async { while let Some(Ok(_)) = watcher.next().await {} });
    ended.await.expect("the viewer is told");
}

/// A camera that a test fills itself, behind a server with little patience.
struct Own {
    ring: Arc<Ring>,
    port: u16,
    spectators: Arc<Spectators>,
    pushed: i64,
    scope: Scope,
}

/// Pictures that were there before.
const SEEN: i64 = 40;

/// What the server shows.
struct Show(Arc<Ring>);

impl Stage for Show {
    fn realm(&self) -> &'static str {
        "test"
    }

    fn is_open(&self) -> bool {
        true
    }

    fn admit(&self, _: &Proof, _: &str) -> Result<Arc<str>, Refused> {
        Err(Refused::Unproven)
    }

    fn watched(&self, _who: &str, _from: std::net::IpAddr, _camera: &str) {}

    fn offer(&self, camera: &str) -> Offer {
        if camera == "own" { Offer::Live(self.0.clone()) } else { Offer::Unknown }
    }
}

impl Own {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ring = Ring::new(Keeps { span: Duration::from_secs(20), bytes: 64 << 20 });
        let (spectators, scope) = (Arc::default(), Scope::new("test"));
        rtsp::serve(listener, Arc::new(Show(ring.clone())), Arc::clone(&spectators), limits, &scope);
        let mut own = Self { ring, port, spectators, pushed: 0, scope };
        // So much of it that it is known to have no sound.
        (0..SEEN).for_each(|_| own.push(Codec::Jpeg, 500));
        own
    }

    /// A picture, a thirtieth of a second after the last.
    fn push(&mut self, codec: Codec, size: usize) {
        let (n, now) = (self.pushed, clock::now());
        self.pushed += 1;
        let after = Duration::from_millis(n as u64 * 33);
        let early = now.mono.before(Duration::from_millis(SEEN as u64 * 33));
        let arrived = if n < SEEN { early + after } else { now.mono };
        let format = Format {
            codec,
            clock_rate: 90_000,
            width: 640,
            height: 480,
            channels: 0,
            config: Bytes::new(),
            rfc6381: String::new(),
        };
        self.ring.push(Frame {
            track: Track::Video,
            timeline: 0,
            ticks: n * 2_970,
            captured: now.wall,
            arrived,
            key: true,
            lost_before: 0,
            format: Arc::new(format),
            data: jpeg(size).into(),
        });
    }

    /// A client that has asked to play, with its session.
    fn playing(&self, transport: &str) -> (Raw, String) {
        let (mut raw, url) = (Raw::connect(self.port), format!("rtsp://127.0.0.1:{}/own", self.port));
        let set_up = raw.ask("SETUP", &format!("{url}/video"), &[("Transport", transport)]);
        assert_eq!(set_up.status, 200, "{set_up:?}");
        let id = set_up.session();
        assert_eq!(raw.ask("PLAY", &url, &[("Session", &id)]).status, 200);
        (raw, id)
    }

    fn sessions(&self) -> u64 {
        self.spectators.counted().sessions
    }
}

/// A picture that RFC 2435 carries.
fn jpeg(size: usize) -> Vec<u8> {
    let mut all = vec![0xff, 0xd8];
    for which in [0, 1] {
        all.extend([0xff, 0xdb, 0, 67, which]);
        all.extend([1; 64]);
    }
    all.extend([0xff, 0xc0, 0, 17, 8, 1, 0xe0, 2, 0x80, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
    all.extend([0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 0x3f, 0]);
    [all, vec![7; size], vec![0xff, 0xd9]].concat()
}

const INTERLEAVED: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";

fn limits() -> Limits {
    Limits {
        connections: 6,
        per_address: 6,
        silence: Duration::from_millis(1_500),
        write: Duration::from_secs(1),
        camera: Duration::from_millis(500),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_clients_silence_and_lives_by_requests_and_receiver_reports() {
    let own = Own::start(limits()).await;
    let ports = UdpSocket::bind("127.0.0.1:0").unwrap();
    let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
    let rtcp = ports.local_addr().unwrap().port();
    let datagrams = format!("RTP/AVP;unicast;client_port={}-{rtcp}", rtcp - 1);
    let [(_silent, _), (mut asking, id), (mut reporting, _), (mut strange, _)] =
        [0; 4].map(|_| own.playing(INTERLEAVED));
    let (mut raw, url) = (Raw::connect(own.port), format!("rtsp://127.0.0.1:{}/own", own.port));
    let set_up = raw.ask("SETUP", &format!("{url}/video"), &[("Transport", &datagrams)]);
    let theirs = set_up.header("transport").unwrap().split("server_port=").nth(1).unwrap();
    let theirs: u16 = theirs.split([';', '-']).nth(1).unwrap().parse().unwrap();
    assert_eq!(raw.ask("PLAY", &url, &[]).status, 200);
    assert_eq!(own.sessions(), 5);
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(asking.ask("GET_PARAMETER", &url, &[("Session", &id)]).status, 200);
        reporting.stream.write_all(&[&b"$\x01\x00\x08"[..], &report].concat()).unwrap();
        ports.send_to(&report, ("127.0.0.1", theirs)).unwrap();
        // Not a report, and not where reports are heard.
        _ = strange.stream.write_all(b"$\x01\x00\x04abcd$\x00\x00\x08\x80\xc9\x00\x01\x00\x00\x00\x07");
    }
    assert_eq!(own.sessions(), 3, "who asks, and who reports by either way");
    assert!(strange.answer().is_none());
    // Nothing is heard of who is none of its clients.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        other.send_to(&report, ("127.0.0.1", theirs)).unwrap();
    }
    assert_eq!(own.sessions(), 0);
    assert!(own.scope.shutdown(Duration::from_secs(2)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_off_and_no_more_come_in_than_there_is_room_for() {
    let mut own = Own::start(Limits { silence: Duration::from_secs(60), ..limits() }).await;
    let (stuck, _) = own.playing(INTERLEAVED);
    let mut rest: Vec<_> = (0..5).map(|_| own.playing(INTERLEAVED)).collect();
    let mut over = Raw::connect(own.port);
    assert!(over.answer().is_none(), "a seventh is closed at once");
    let began = Instant::now();
    while own.sessions() == 6 {
        assert!(began.elapsed() < SOON, "it is not cut off");
        own.push(Codec::Jpeg, 200_000);
        for (raw, _) in &mut rest {
            raw.drain();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(own.sessions(), 5, "the others go on");
    drop(stuck);
    // Somebody else may come in now.
    eventually(SOON, "a place is free", || {
        let mut raw = Raw::connect(own.port);
        write!(raw.stream, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").ok()?;
        raw.answer()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_sends_something_else_than_was_described_ends_the_session_with_a_goodbye() {
    let mut own = Own::start(limits()).await;
    let (mut raw, _) = own.playing(INTERLEAVED);
    own.push(Codec::H264, 100);
    let mut all = Vec::new();
    raw.stream.read_to_end(&mut all).unwrap();
    let goodbye = [0x81, 203, 0, 1];
    assert!(all.windows(4).rev().take(16).any(|w| w == goodbye), "{:?}", &all[all.len().saturating_sub(64)..]);
    assert_eq!(own.sessions(), 0);
}
