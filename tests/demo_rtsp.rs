//! The demo's cameras against the players people have: ffmpeg, and retina as the gateway uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a test")]

mod support;

use std::{
    process::{Command, Output},
    time::Duration,
};

use chowki::{
    cli::demo::{
        clip::Clip,
        rtsp::{DemoCamera, DemoCameraError, DemoCameras, serve},
    },
    district::{inventory::Login, secret::Secret},
    host::scope::Scope,
};
use futures::StreamExt;
use retina::{
    client::{Credentials, PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions, Transport},
    codec::CodecItem,
};
use support::which;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

fn camera(path: &str, clip: Clip) -> DemoCamera {
    DemoCamera { path: path.into(), clip }
}

fn login() -> Login {
    Login { username: "demo".into(), password: Secret::new("right") }
}

async fn cameras(scope: &Scope) -> DemoCameras {
    serve(vec![camera("gate-1", Clip::Gate), camera("unit", Clip::Unit)], login(), scope).await.unwrap()
}

fn url(cameras: &DemoCameras, password: &str, path: &str) -> String {
    format!("rtsp://demo:{password}@{}/{path}", cameras.address())
}

async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(which(program));
    command.args(args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn ffmpeg_reads_three_seconds(transport: &str) {
    let scope = Scope::new("test");
    let cameras = cameras(&scope).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.mkv");
    let url = url(&cameras, "right", "gate-1");
    let took = run(
        "ffmpeg",
        &["-v", "error", "-rtsp_transport", transport, "-i", &url, "-t", "3", "-c", "copy", file.to_str().unwrap()],
    )
    .await;
    assert!(took.status.success() && took.stderr.is_empty(), "{}", String::from_utf8_lossy(&took.stderr));
    let probed = run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-show_entries",
            "stream=codec_name,width,height,sample_rate",
            "-of",
            "csv=p=0",
            file.to_str().unwrap(),
        ],
    )
    .await;
    let probed = String::from_utf8_lossy(&probed.stdout).into_owned();
    assert!(probed.contains("h264,640,360") && probed.contains("pcm_mulaw,8000"), "{probed}");
    let decoded = run("ffmpeg", &["-v", "error", "-xerror", "-i", file.to_str().unwrap(), "-f", "null", "-"]).await;
    assert!(decoded.status.success() && decoded.stderr.is_empty(), "{}", String::from_utf8_lossy(&decoded.stderr));
    let counted = run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-count_packets",
            "-select_streams",
            "v",
            "-show_entries",
            "stream=nb_read_packets",
            "-of",
            "csv=p=0",
            file.to_str().unwrap(),
        ],
    )
    .await;
    let pictures: u32 = String::from_utf8_lossy(&counted.stdout).trim().trim_end_matches(',').parse().unwrap();
    assert!((30..=40).contains(&pictures), "{pictures} pictures in 3 s at 12 a second");
    assert!(scope.shutdown(Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn ffmpeg_reads_a_demo_camera_in_its_rtsp_connection() {
    ffmpeg_reads_three_seconds("tcp").await;
}

#[tokio::test]
async fn ffmpeg_reads_a_demo_camera_by_datagrams() {
    ffmpeg_reads_three_seconds("udp").await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let scope = Scope::new("test");
    let cameras = cameras(&scope).await;
    let took = run("ffprobe", &["-v", "error", "-rtsp_transport", "tcp", &url(&cameras, "wrong", "gate-1")]).await;
    assert!(!took.status.success());
    assert!(String::from_utf8_lossy(&took.stderr).contains("401"), "{}", String::from_utf8_lossy(&took.stderr));
}

#[tokio::test]
async fn a_path_without_camera_is_not_found() {
    let scope = Scope::new("test");
    let cameras = cameras(&scope).await;
    let took = run("ffprobe", &["-v", "error", "-rtsp_transport", "tcp", &url(&cameras, "right", "gate-9")]).await;
    assert!(String::from_utf8_lossy(&took.stderr).contains("404"), "{}", String::from_utf8_lossy(&took.stderr));
}

#[tokio::test]
async fn two_cameras_with_one_path_are_refused() {
    let twins = vec![camera("a", Clip::Gate), camera("a", Clip::Lane)];
    let refused = serve(twins, login(), &Scope::new("test")).await;
    assert!(matches!(refused, Err(DemoCameraError::Twin(path)) if path == "a"));
}

type Demuxed = retina::client::Demuxed;

async fn retina_session(cameras: &DemoCameras, path: &str) -> Result<Demuxed, retina::Error> {
    let credentials = Credentials { username: "demo".into(), password: "right".into() };
    let url = cameras.url(path).parse().unwrap();
    let mut session = Session::describe(url, SessionOptions::default().creds(Some(credentials))).await?;
    for i in 0..session.streams().len() {
        let tcp = Transport::Tcp(TcpTransportOptions::default());
        session.setup(i, SetupOptions::default().transport(tcp)).await?;
    }
    session.play(PlayOptions::default()).await?.demuxed()
}

#[tokio::test]
async fn retina_reads_pictures_sound_and_sender_reports() {
    let scope = Scope::new("test");
    let cameras = cameras(&scope).await;
    let mut session = retina_session(&cameras, "unit").await.unwrap();
    let (mut keys, mut pictures, mut sounds, mut reports) = (0, 0, 0, 0);
    while pictures < 26 {
        match timeout(Duration::from_secs(5), session.next()).await.unwrap().unwrap().unwrap() {
            CodecItem::VideoFrame(frame) => {
                assert_eq!(frame.loss(), 0);
                assert!(pictures > 0 || frame.is_random_access_point(), "the first picture is a key picture");
                keys += u32::from(frame.is_random_access_point());
                pictures += 1;
            }
            CodecItem::AudioFrame(frame) => {
                assert_eq!(frame.data().len(), 160);
                sounds += 1;
            }
            CodecItem::Rtcp(_) => reports += 1,
            _ => {}
        }
    }
    assert!(keys >= 2 && sounds > 50 && reports >= 2, "{keys} keys, {sounds} sounds, {reports} reports");
}

#[tokio::test]
async fn a_camera_that_is_taken_down_resets_its_viewers_and_comes_back() {
    let scope = Scope::new("test");
    let cameras = cameras(&scope).await;
    let mut session = retina_session(&cameras, "gate-1").await.unwrap();
    let mut other = retina_session(&cameras, "unit").await.unwrap();
    session.next().await.unwrap().unwrap();
    assert!(cameras.set_up("gate-1", false) && cameras.is_up("gate-1") == Some(false));
    let ended = timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = session.next().await {} });
    ended.await.expect("the viewer notices");
    assert!(retina_session(&cameras, "gate-1").await.is_err(), "a camera that is down takes no new viewer");
    assert!(other.next().await.unwrap().is_ok(), "the other camera plays on");
    cameras.set_up("gate-1", true);
    assert!(retina_session(&cameras, "gate-1").await.is_ok());
    assert!(!cameras.set_up("gate-9", true));
}

#[tokio::test]
async fn bytes_that_are_not_rtsp_get_a_bad_request() {
    let scope = Scope::new("test");
    let cameras = cameras(&scope).await;
    let mut socket = TcpStream::connect(cameras.address()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("RTSP/1.0 400 "), "{answer}");
}
