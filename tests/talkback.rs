//! The voice to a unit's speaker, against real peers: GStreamer's ONVIF unit, GStreamer's RTP receivers, and one that does
//! what a test tells it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::{
    f64::consts::TAU,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chowki::{
    call::talkback::{self, Encoding, Link, Prompt, Prompts, Settings, Speaker, Way},
    district::{
        clock::Utc,
        inventory::{Login, Source, Transport},
        secret::Secret,
    },
    host::{clock, scope::Scope},
    media::{
        frame::{Codec, Format, Frame, Track},
        g711::{ULAW, to_alaw, to_ulaw},
        ring::{Limits, Ring},
        sound::level,
    },
};

mod support;

const SOON: Duration = Duration::from_secs(15);
/// Frames that an operator speaks: 2.4 s.
const SAID: usize = 120;

fn unit(port: u16, password: &str, transport: Transport) -> Way {
    Way::Onvif(Box::new(Source {
        url: format!("rtsp://127.0.0.1:{port}/panic").parse().unwrap(),
        sub_url: None,
        login: Some(Login { username: "admin".into(), password: Secret::new(password) }),
        transport,
    }))
}

fn speaker(way: Way, scope: &Scope) -> Speaker {
    talkback::start("test", Settings { way, volume: 1.0, prompts: Arc::new(Prompts::default()) }, scope)
}

/// Waits until the way is as `wanted`.
async fn until(speaker: &Speaker, wanted: impl Fn(&Link) -> bool) -> Link {
    let mut link = speaker.link();
    let found = tokio::time::timeout(SOON, link.wait_for(wanted)).await;
    found.unwrap_or_else(|_| panic!("{:?}", *speaker.link().borrow())).unwrap().clone()
}

async fn up(speaker: &Speaker) {
    until(speaker, Link::is_up).await;
}

async fn down(speaker: &Speaker) -> String {
    match until(speaker, |link| matches!(link, Link::Down(_))).await {
        Link::Down(why) => why,
        other => panic!("{other:?}"),
    }
}

/// Ends a speaker, and waits until it has said goodbye.
async fn end(speaker: Speaker) {
    let mut link = speaker.link();
    speaker.end();
    let gone = async { while link.changed().await.is_ok() {} };
    tokio::time::timeout(SOON, gone).await.expect("it did not end");
}

fn tone(rate: u32, hertz: f64, samples: usize) -> Vec<i16> {
    (0..samples).map(|i| ((i as f64 * hertz * TAU / f64::from(rate)).sin() * 8_000.0) as i16).collect()
}

/// The size of a tone in a sound (Goertzel's algorithm).
fn size_of(samples: &[i16], rate: u32, hertz: f64) -> f64 {
    let w = hertz * TAU / f64::from(rate);
    let (mut a, mut b) = (0.0, 0.0);
    for sample in samples {
        (a, b) = (f64::from(*sample) + 2.0 * w.cos() * a - b, a);
    }
    (a * a + b * b - 2.0 * w.cos() * a * b).max(0.0).sqrt() * 2.0 / samples.len().max(1) as f64
}

fn ring() -> Arc<Ring> {
    Ring::new(Limits { span: Duration::from_secs(2), bytes: 1 << 20 })
}

fn frame(codec: Codec, number: usize, data: Vec<u8>) -> Frame {
    let clock_rate = if codec == Codec::Opus { 48_000 } else { 8_000 };
    let (config, rfc6381) = (Bytes::new(), String::new());
    Frame {
        track: Track::Audio,
        timeline: 0,
        ticks: (number as u32 * clock_rate / 50).into(),
        captured: Utc::default(),
        arrived: clock::mono(),
        key: true,
        lost_before: 0,
        format: Arc::new(Format { codec, clock_rate, width: 0, height: 0, channels: 1, config, rfc6381 }),
        data: data.into(),
    }
}

/// 20 ms packets of a tone of 1 kHz.
fn packets(codec: Codec, count: usize) -> Vec<Vec<u8>> {
    match codec {
        Codec::Opus => {
            let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
            encoder.set_inband_fec(true).unwrap();
            encoder.set_packet_loss_perc(10).unwrap();
            tone(48_000, 1_000.0, 960 * count).chunks(960).map(|s| encoder.encode_vec(s, 1_275).unwrap()).collect()
        }
        Codec::Pcma => {
            tone(8_000, 1_000.0, 160 * count).chunks(160).map(|s| s.iter().map(|s| to_alaw(*s)).collect()).collect()
        }
        _ => tone(8_000, 1_000.0, 160 * count).chunks(160).map(|s| s.iter().map(|s| to_ulaw(*s)).collect()).collect(),
    }
}

/// An operator speaks: a tone, of which every `lost`th frame never arrives.
async fn say(ring: &Ring, codec: Codec, lost: usize) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for (number, packet) in packets(codec, SAID).into_iter().enumerate() {
        pace.tick().await;
        if number % lost != lost - 1 {
            ring.push(frame(codec, number, packet));
        }
    }
}

/// What a speaker got as mu-law codes in a file.
fn heard(file: &Path) -> Vec<i16> {
    std::fs::read(file).unwrap_or_default().into_iter().map(|code| ULAW[usize::from(code)]).collect()
}

/// Without the silence around it.
fn trimmed(samples: &[i16]) -> &[i16] {
    let loud = |s: &i16| s.unsigned_abs() > 1_000;
    let Some(from) = samples.iter().position(loud) else { return &[] };
    &samples[from..=samples.iter().rposition(loud).unwrap()]
}

/// That a sound is the tone of 1 kHz that was said, to its end and without a hole: but for what a busy machine tears.
fn assert_is_the_tone(samples: &[i16], rate: u32) {
    let said = trimmed(samples);
    let seconds = said.len() as f64 / f64::from(rate);
    assert!((1.8..4.0).contains(&seconds), "{seconds} s of {}", samples.len());
    // What comes after the last word is made up, and fades.
    let said = &said[..(rate as usize * 2).min(said.len())];
    // A tenth of a second at a time; libopus takes a moment to find its feet.
    let sizes: Vec<f64> = said.chunks_exact(rate as usize / 10).skip(2).map(|s| size_of(s, rate, 1_000.0)).collect();
    let whole = sizes.iter().filter(|size| **size > 3_500.0).count();
    assert!(whole * 4 >= sizes.len() * 3, "{sizes:?}");
    let all = &said[rate as usize / 5..];
    assert!(size_of(all, rate, 700.0) < 800.0 && size_of(all, rate, 1_400.0) < 800.0);
}

fn talkfile(dir: &Path) -> (PathBuf, [String; 2]) {
    let file = dir.join("heard.ulaw");
    let arguments = ["--talkfile".into(), file.display().to_string()];
    (file, arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_voice_in_every_codec_is_heard_at_the_unit_and_losses_leave_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let (file, arguments) = talkfile(dir.path());
    let cameras = support::cameras_with(0, 0, &[&arguments[0], &arguments[1]]);
    let scope = Scope::new("test");
    for transport in [Transport::Tcp, Transport::Udp] {
        let speaker = speaker(unit(cameras.port, "test", transport), &scope);
        up(&speaker).await;
        for (codec, lost) in
            [(Codec::Opus, 1_000), (Codec::Pcmu, 1_000), (Codec::Pcma, 1_000), (Codec::Opus, 20), (Codec::Pcmu, 20)]
        {
            let before = heard(&file).len();
            let ring = ring();
            speaker.voice(Some(ring.clone()));
            tokio::time::sleep(Duration::from_millis(100)).await;
            say(&ring, codec, lost).await;
            let mut speaking = speaker.speaking();
            assert!(*speaking.borrow(), "{codec:?}");
            tokio::time::sleep(Duration::from_millis(700)).await;
            tokio::time::timeout(SOON, speaking.wait_for(|speaks| !speaks)).await.unwrap().unwrap();
            speaker.voice(None);
            println!("{transport:?} {codec:?}, one of {lost} lost: {:?}", speaker.stats());
            assert_is_the_tone(&heard(&file)[before..], 8_000);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(speaker.stats().refused, 0);
        end(speaker).await;
    }
    assert!(scope.shutdown(SOON).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_heard_at_the_unit_one_instead_of_another_again_and_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (file, arguments) = talkfile(dir.path());
    let cameras = support::cameras_with(0, 0, &[&arguments[0], &arguments[1]]);
    let scope = Scope::new("test");
    let speaker = speaker(unit(cameras.port, "test", Transport::Tcp), &scope);
    // Before the way stands: it is played when it does.
    speaker.play(Prompt::Answered, Some(Duration::from_secs(1)));
    up(&speaker).await;
    support::eventually(SOON, "one tone, twice", || (trimmed(&heard(&file)).len() > 4_000).then_some(()));
    let samples = heard(&file);
    assert!(size_of(&trimmed(&samples)[..2_400], 8_000, 1_047.0) > 2_000.0);
    let before = heard(&file).len();
    speaker.play(Prompt::Reached, None);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let speech = &heard(&file)[before..];
    assert!(level(speech) > -25.0 && size_of(speech, 8_000, 1_047.0) < 500.0, "{} dBFS", level(speech));
    speaker.quiet();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let quiet = heard(&file).len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(heard(&file).len(), quiet, "nothing is sent while nothing is said");
    speaker.play(Prompt::Ended, None);
    end(speaker).await;
    let last = Prompts::default().sound(Prompt::Ended).samples.len();
    let arrived = || heard(&file).len() - quiet;
    support::eventually(SOON, "the last tones, to their end", || (arrived() >= last).then_some(()));
    assert!(scope.shutdown(SOON).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_camera_without_a_speaker_are_told_in_words() {
    let cameras = support::cameras(0, 1);
    let scope = Scope::new("test");
    let wrong = speaker(unit(cameras.port, "wrong", Transport::Tcp), &scope);
    let why = down(&wrong).await;
    assert!(why.contains("refuses our user name or password") && !why.contains("wrong"), "{why}");
    let Way::Onvif(mut source) = unit(cameras.port, "test", Transport::Tcp) else { unreachable!() };
    source.url.set_path("/cam0");
    let deaf = speaker(Way::Onvif(source.clone()), &scope);
    let why = down(&deaf).await;
    assert!(why.contains("offers no audio backchannel"), "{why}");
    source.url.set_path("/panic");
    source.login = None;
    let stranger = speaker(Way::Onvif(source), &scope);
    let why = down(&stranger).await;
    assert!(why.contains("wants a login"), "{why}");
    assert!(scope.shutdown(SOON).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_went_away_or_hangs_is_lost_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (file, arguments) = talkfile(dir.path());
    let arguments = [&arguments[0][..], &arguments[1][..]];
    let cameras = support::cameras_with(0, 0, &arguments);
    let port = cameras.port;
    let scope = Scope::new("test");
    let speaker = speaker(unit(port, "test", Transport::Tcp), &scope);
    up(&speaker).await;
    speaker.play(Prompt::Waiting, Some(Duration::from_secs(30)));
    drop(cameras);
    let why = down(&speaker).await;
    assert!(why.contains(&format!("127.0.0.1:{port}")), "{why}");
    let cameras = support::cameras_with(port, 0, &arguments);
    up(&speaker).await;
    // The prompt that was cut is said again.
    support::eventually(SOON, "the prompt", || (level(trimmed(&heard(&file))) > -25.0).then_some(()));
    cameras.signal("STOP");
    let why = down(&speaker).await;
    assert!(why.contains("did not answer") || why.contains("took no sound"), "{why}");
    cameras.signal("CONT");
    up(&speaker).await;
    assert!(speaker.stats().lost >= 2);
    end(speaker).await;
    assert!(scope.shutdown(SOON).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_rtp_is_heard_by_a_receiver_in_every_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let scope = Scope::new("test");
    for (encoding, name, number, decoder) in [
        (Encoding::Pcmu, "PCMU,clock-rate=8000", 0, "rtppcmudepay ! mulawdec"),
        (Encoding::Pcma, "PCMA,clock-rate=8000", 8, "rtppcmadepay ! alawdec"),
        (Encoding::Opus, "OPUS,clock-rate=48000", 111, "rtpopusdepay ! opusdec"),
    ] {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let way = Way::Rtp { host: "127.0.0.1".into(), port, encoding };
        let speaker = speaker(way, &scope);
        let why = down(&speaker).await;
        assert!(why.contains("nobody listens"), "{why}");
        let file = dir.path().join(format!("{number}.s16"));
        let caps = format!("application/x-rtp,media=audio,encoding-name={name},payload={number}");
        let pipeline = format!(
            "udpsrc address=127.0.0.1 port={port} caps=\"{caps}\" ! rtpjitterbuffer latency=100 ! {decoder} ! audioconvert ! \
             audioresample ! audio/x-raw,format=S16LE,rate=8000,channels=1 ! filesink buffer-mode=unbuffered location={}",
            file.display()
        );
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec gst-launch-1.0 -q {pipeline}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _receiver = support::Peer { child, port };
        up(&speaker).await;
        let ring = ring();
        speaker.voice(Some(ring.clone()));
        say(&ring, Codec::Opus, 1_000).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let bytes = std::fs::read(&file).unwrap();
        let samples: Vec<i16> = bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        assert_is_the_tone(&samples, 8_000);
        end(speaker).await;
    }
    assert!(scope.shutdown(SOON).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_is_on_its_way_to_the_unit_a_moment_after_it_came() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let scope = Scope::new("test");
    let speaker = speaker(Way::Rtp { host: "127.0.0.1".into(), port, encoding: Encoding::Pcmu }, &scope);
    up(&speaker).await;
    let ring = ring();
    speaker.voice(Some(ring.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Codes that come out as they went in; a frame is known by its code.
    let codes: Vec<u8> = (0..64).map(|i| 0x10 + i).collect();
    let (tell, arrivals) = mpsc::channel();
    std::thread::spawn(move || {
        let mut packet = [0; 1_500];
        while let Ok(length) = socket.recv(&mut packet) {
            let _ = tell.send((packet[length - 1], Instant::now()));
        }
    });
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut sent = Vec::new();
    for number in 0..500 {
        pace.tick().await;
        let code = codes[number % codes.len()];
        sent.push((code, Instant::now()));
        ring.push(frame(Codec::Pcmu, number, vec![code; 160]));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    end(speaker).await;
    let mut late: Vec<Duration> = Vec::new();
    let mut from = 0;
    for (code, at) in arrivals {
        // The packet's last sample is the frame's own; silence and what was made shorter have other codes.
        let found = sent[from..].iter().take(8).position(|(c, _)| *c == code);
        if let Some(n) = found {
            late.push(at.saturating_duration_since(sent[from + n].1));
            from += n + 1;
        }
    }
    let mut settled = late.split_off(late.len() / 2);
    settled.sort();
    println!("of the later half: p50 {:?}, p99 {:?}", settled[settled.len() / 2], settled[settled.len() * 99 / 100]);
    late.extend(settled);
    late.sort();
    let part = |percent: usize| late[(late.len() * percent / 100).min(late.len() - 1)];
    println!("{} of 500: p50 {:?}, p99 {:?}, most {:?}", late.len(), part(50), part(99), part(100));
    // On a machine with nothing else to do the median is 30 ms.
    assert!(late.len() > 300, "most of what was said is heard as it was said");
    assert!(scope.shutdown(SOON).await.is_empty());
}

/// A unit that knows only datagrams and a login by SHA-256. Gives what it was asked and the proofs it got.
fn stubborn(speaker: UdpSocket) -> (u16, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), speaker.local_addr().unwrap().port());
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        loop {
            let request: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let Some(first) = request.first() else { return };
            let header = |name: &str| request.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let number = header("CSeq").unwrap();
            let sdp = "v=0\r\ns=-\r\na=control:*\r\nm=audio 0 RTP/AVP 8\r\na=sendonly\r\na=control:back\r\n";
            let answer = match first.split(' ').next().unwrap() {
                _ if header("Authorization").is_none() => {
                    "401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"\r\n\r\n".into()
                }
                "DESCRIBE" => format!("200 OK\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()),
                "SETUP" if first_transport(header("Transport")) == "RTP/AVP/TCP" => "461 Unsupported Transport\r\n\r\n".into(),
                "SETUP" => format!("200 OK\r\nSession: 7;timeout=9\r\nTransport: RTP/AVP;unicast;server_port={to}-{}\r\n\r\n", to + 1),
                _ => "200 OK\r\nSession: 7\r\n\r\n".to_owned(),
            };
            (&stream)
                .write_all(
                    format!("RTSP/1.0 {}", answer.replacen("\r\n", &format!("\r\nCSeq: {number}\r\n"), 1)).as_bytes(),
                )
                .unwrap();
            let _ = tell.send(request);
        }
    });
    std::thread::spawn(move || drop(speaker));
    (port, asked)
}

fn first_transport(header: Option<&str>) -> &str {
    header.unwrap_or_default().split(';').next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_knows_only_datagrams_and_sha_256_is_spoken_to() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, asked) = stubborn(socket.try_clone().unwrap());
    let scope = Scope::new("test");
    let speaker = speaker(unit(port, "test", Transport::Tcp), &scope);
    up(&speaker).await;
    speaker.play(Prompt::Answered, None);
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut packet = [0; 1_500];
    let length = socket.recv(&mut packet).unwrap();
    assert_eq!((length, packet[1] & 0x7f), (172, 8), "20 ms of A-law");
    end(speaker).await;
    let asked: Vec<Vec<String>> = asked.iter().collect();
    let methods: Vec<&str> = asked.iter().map(|r| r[0].split(' ').next().unwrap()).collect();
    assert_eq!(methods[..6], ["OPTIONS", "OPTIONS", "DESCRIBE", "SETUP", "SETUP", "PLAY"]);
    assert_eq!(methods.last(), Some(&"TEARDOWN"));
    assert!(asked[2].iter().any(|l| l == "Require: www.onvif.org/ver20/backchannel"));
    assert!(asked[2].iter().any(|l| l.contains("algorithm=SHA-256")), "{:?}", asked[2]);
    assert!(asked[5].iter().any(|l| l == "Session: 7"));
    assert!(scope.shutdown(SOON).await.is_empty());
}
