//! One RTSP connection: requests in, answers and media out, all in one task.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::watch,
    time::{sleep_until, timeout},
};

use super::{
    Mount, Mounts,
    auth::Challenge,
    message::{self, Answer, Incoming, Malformed, Request, Status, Wanted},
    sdp,
    track::{Packet, Source, Track},
};
use crate::{
    cli::demo::clip::FPS,
    district::clock::Mono,
    host::clock::{deadline, mono, wall},
};

/// A peer that does not take what it is sent for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// A connection that plays nothing and asks nothing for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// What it can do, for `Public`.
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER";

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer sent no RTSP: {0}")]
    Malformed(#[from] Malformed),
    #[error("the peer did not take its data for {WRITE_LIMIT:?}")]
    Stuck,
    #[error("the peer asked nothing for {IDLE_LIMIT:?}")]
    Idle,
    #[error("the camera was taken down")]
    Down,
}

/// Where a track's packets go.
enum Path {
    Interleaved(u8, u8),
    Datagrams { rtp: UdpSocket, rtcp: UdpSocket, to: (SocketAddr, SocketAddr) },
}

struct Stream {
    name: &'static str,
    track: Track,
    path: Path,
}

struct Connection {
    socket: TcpStream,
    mounts: Arc<Mounts>,
    challenge: Challenge,
    session: String,
    /// The camera this connection is about, and whether it is up.
    camera: Option<(String, watch::Receiver<bool>)>,
    streams: Vec<Stream>,
    playing: bool,
}

/// Serves a connection until it ends or the server stops.
pub(super) async fn serve(
    socket: TcpStream,
    mounts: Arc<Mounts>,
    stopping: impl Future<Output = ()>,
) -> Result<(), Ended> {
    socket.set_nodelay(true)?;
    let mut random = [0u8; 16];
    fastrand::fill(&mut random);
    let session = format!("{:016x}", fastrand::u64(..));
    let challenge = Challenge::new(random);
    let connection =
        Connection { socket, mounts, challenge, session, camera: None, streams: Vec::new(), playing: false };
    tokio::select! {
        ended = connection.run() => ended,
        () = stopping => Ok(()),
    }
}

impl Connection {
    async fn run(mut self) -> Result<(), Ended> {
        let ended = self.exchange().await;
        if matches!(ended, Err(Ended::Down)) {
            // As a camera without power: a reset, no goodbye.
            self.socket.set_zero_linger()?;
        }
        ended
    }

    async fn exchange(&mut self) -> Result<(), Ended> {
        let mut buffer = Vec::new();
        let mut chunk = [0u8; 4096];
        let mut heard = mono();
        loop {
            while let Some(incoming) = self.take(&mut buffer).await? {
                heard = mono();
                if let Incoming::Request(request) = incoming
                    && !self.answer(&request).await?
                {
                    return Ok(());
                }
            }
            let wake = self.wake(heard);
            tokio::select! {
                read = self.socket.read(&mut chunk) => match read? {
                    0 => return Ok(()),
                    n => buffer.extend_from_slice(&chunk[..n]),
                },
                () = sleep_until(deadline(wake)) => {}
                () = taken_down(&mut self.camera) => return Err(Ended::Down),
            }
            if self.playing {
                self.send_due().await?;
            } else if mono().since(heard) >= IDLE_LIMIT {
                return Err(Ended::Idle);
            }
        }
    }

    /// The next message of `buffer`; what is none is told so before the connection ends.
    async fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Incoming>, Ended> {
        match message::take(buffer) {
            Ok(message) => Ok(message),
            Err(why) => {
                self.write(&Answer::new(Status::BadRequest).bytes(None)).await?;
                Err(why.into())
            }
        }
    }

    /// When there is something to do without the peer.
    fn wake(&self, heard: Mono) -> Mono {
        let next = self.streams.iter().filter_map(|s| s.track.next()).min();
        next.filter(|_| self.playing).unwrap_or(heard + IDLE_LIMIT)
    }

    async fn send_due(&mut self) -> Result<(), Ended> {
        let (now, wall) = (mono(), wall());
        let mut bytes = Vec::new();
        for stream in &mut self.streams {
            for packet in stream.track.due(now, wall) {
                stream.path.send(packet, &mut bytes).await;
            }
        }
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        timeout(WRITE_LIMIT, self.socket.write_all(bytes)).await.map_err(|_| Ended::Stuck)?.map_err(Ended::Io)
    }

    /// Answers a request; `false` when the connection ends with it.
    async fn answer(&mut self, request: &Request) -> Result<bool, Ended> {
        let answer = self.decide(request).await?;
        let begins = request.method == "PLAY" && answer.status == Status::Ok;
        let ends = request.method == "TEARDOWN" && answer.status == Status::Ok;
        self.write(&answer.bytes(Some(request))).await?;
        if begins {
            self.playing = true;
            let now = mono();
            self.streams.iter_mut().for_each(|s| s.track.play(now));
        }
        Ok(!ends)
    }

    async fn decide(&mut self, request: &Request) -> Result<Answer, Ended> {
        if request.header("cseq").is_none() {
            return Ok(Answer::new(Status::BadRequest));
        }
        if request.method == "OPTIONS" {
            return Ok(Answer::new(Status::Ok).with("Public", METHODS));
        }
        let mounts = self.mounts.clone();
        let segments = request.segments();
        let Some((path, mount)) = segments.first().and_then(|p| mounts.by_path.get_key_value(*p)) else {
            return Ok(Answer::new(Status::NotFound));
        };
        if !*mount.up.borrow() {
            return Err(Ended::Down);
        }
        let proof = request.header("authorization").unwrap_or_default();
        if !self.challenge.accepts(proof, &request.method, &mounts.login) {
            return Ok(Answer::new(Status::Unauthorized).with("WWW-Authenticate", self.challenge.header()));
        }
        if self.camera.as_ref().is_some_and(|(open, _)| open != path) {
            return Ok(Answer::new(Status::NotValidInThisState));
        }
        self.camera.get_or_insert_with(|| (path.clone(), mount.up.subscribe()));
        self.perform(request, path, mount).await
    }

    async fn perform(&mut self, request: &Request, path: &str, mount: &Mount) -> Result<Answer, Ended> {
        let named = request.header("session").and_then(|s| s.split(';').next());
        if named.is_some_and(|s| s != self.session) {
            return Ok(Answer::new(Status::SessionNotFound));
        }
        let answer = match request.method.as_str() {
            "DESCRIBE" => {
                let base = request.uri.trim_end_matches('/');
                return Ok(Answer::new(Status::Ok)
                    .with("Content-Base", format!("{base}/"))
                    .body("application/sdp", sdp::describe(path, &mount.film)));
            }
            "SETUP" => return self.setup(request, mount).await,
            "PLAY" if self.streams.is_empty() => return Ok(Answer::new(Status::NotValidInThisState)),
            "PLAY" => Answer::new(Status::Ok).with("Range", "npt=now-").with("RTP-Info", self.rtp_info(request, path)),
            "TEARDOWN" | "GET_PARAMETER" => Answer::new(Status::Ok),
            _ => return Ok(Answer::new(Status::NotImplemented).with("Allow", METHODS)),
        };
        Ok(answer.with("Session", self.session.clone()))
    }

    async fn setup(&mut self, request: &Request, mount: &Mount) -> Result<Answer, Ended> {
        let Some(wanted) = request.header("transport").and_then(message::wanted) else {
            return Ok(Answer::new(Status::UnsupportedTransport));
        };
        // Everyone sees the same moment of the film, whenever they come.
        let age = mono().since(self.mounts.began);
        let entry = mount.film.entry(age.as_millis() as u64 * u64::from(FPS) / 1_000);
        let (name, source) = match request.segments().get(1) {
            Some(&"video") => ("video", Source::Film(mount.film.clone(), entry)),
            Some(&"audio") => ("audio", Source::Sound(mount.sound, entry * 8_000 / FPS as usize)),
            _ => return Ok(Answer::new(Status::NotFound)),
        };
        if self.playing || self.streams.iter().any(|s| s.name == name) {
            return Ok(Answer::new(Status::NotValidInThisState));
        }
        let (path, transport) = self.open(wanted).await?;
        let track = Track::new(source, [fastrand::u32(..), fastrand::u32(..), fastrand::u32(..)]);
        let transport = format!("{transport};ssrc={:08X}", track.ssrc());
        self.streams.push(Stream { name, track, path });
        Ok(Answer::new(Status::Ok)
            .with("Transport", transport)
            .with("Session", format!("{};timeout={}", self.session, IDLE_LIMIT.as_secs())))
    }

    async fn open(&self, wanted: Wanted) -> Result<(Path, String), Ended> {
        Ok(match wanted {
            Wanted::Interleaved(rtp, rtcp) => {
                (Path::Interleaved(rtp, rtcp), format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}"))
            }
            Wanted::Datagrams(rtp_port, rtcp_port) => {
                let peer = self.socket.peer_addr()?.ip();
                let (rtp, rtcp) = socket_pair(self.socket.local_addr()?.ip()).await?;
                let ports = format!("{}-{}", rtp.local_addr()?.port(), rtcp.local_addr()?.port());
                let to = (SocketAddr::new(peer, rtp_port), SocketAddr::new(peer, rtcp_port));
                let says = format!("RTP/AVP;unicast;client_port={rtp_port}-{rtcp_port};server_port={ports}");
                (Path::Datagrams { rtp, rtcp, to }, says)
            }
        })
    }

    fn rtp_info(&self, request: &Request, path: &str) -> String {
        let end = request.uri.find(path).map_or(request.uri.len(), |at| at + path.len());
        let base = &request.uri[..end];
        let line =
            |s: &Stream| format!("url={base}/{};seq={};rtptime={}", s.name, s.track.sequence(), s.track.timestamp());
        self.streams.iter().map(line).collect::<Vec<_>>().join(",")
    }
}

impl Path {
    /// Sends a datagram, or appends the packet to `bytes` for the connection. A datagram that cannot be sent is lost,
    /// as datagrams are.
    async fn send(&self, packet: Packet, bytes: &mut Vec<u8>) {
        let (is_rtp, packet) = match packet {
            Packet::Rtp(packet) => (true, packet),
            Packet::Rtcp(packet) => (false, packet),
        };
        match self {
            Path::Interleaved(rtp, rtcp) => {
                let length = u16::try_from(packet.len()).unwrap_or(0).to_be_bytes();
                bytes.extend([b'$', if is_rtp { *rtp } else { *rtcp }, length[0], length[1]]);
                bytes.extend(packet);
            }
            Path::Datagrams { rtp, rtcp, to } => {
                let (socket, to) = if is_rtp { (rtp, to.0) } else { (rtcp, to.1) };
                let _ = timeout(WRITE_LIMIT, socket.send_to(&packet, to)).await;
            }
        }
    }
}

/// Two sockets on neighbouring ports, the first even (RFC 3550 section 11).
async fn socket_pair(ip: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        let rtp = UdpSocket::bind((ip, 0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 1 {
            continue;
        }
        match UdpSocket::bind((ip, port + 1)).await {
            Ok(rtcp) => return Ok((rtp, rtcp)),
            Err(why) => failed = why,
        }
    }
    Err(failed)
}

/// Resolves when the connection's camera goes down; never without a camera.
async fn taken_down(camera: &mut Option<(String, watch::Receiver<bool>)>) {
    if let Some((_, up)) = camera
        && up.wait_for(|up| !up).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
