//! A unit's speaker by RTSP (RFC 2326; ONVIF Streaming Specification section 5.3): one connection, only the speaker's track
//! of it, our sound interleaved, or in datagrams where the unit wants those.
//!
//! What waits to be written is bounded twice: the kernel's buffer is small, and of ours a second packet is dropped while one
//! waits. So a voice is never late because a unit reads slowly. What it reads and does not play is its own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_auth::{PasswordClient, PasswordParams};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream, UdpSocket, lookup_host},
    time::{sleep_until, timeout},
};

use super::{
    rtsp::{self, Answer, Incoming, Malformed},
    sdp::{self, Speaker, Without},
};
use crate::{
    district::{
        clock::Mono,
        inventory::{Login, Source, Transport},
    },
    host::clock,
};

/// What makes a unit speak of its speaker.
const REQUIRE: (&str, &str) = ("Require", "www.onvif.org/ver20/backchannel");
/// For who we are.
const AGENT: (&str, &str) = ("User-Agent", concat!("chowki/", env!("CARGO_PKG_VERSION")));
/// The longest that a unit may take for a connection or an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// A unit that takes no sound for so long is lost.
const STUCK: Duration = Duration::from_secs(1);
/// How often it is asked whether it is still there. Its session's timeout is shortened to this.
const ASKED_EVERY: Duration = Duration::from_secs(4);
/// Bytes that the kernel may keep for us: half a second of sound with all that the kernel adds.
const SEND_BUFFER: u32 = 8 << 10;
/// The longest goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why there is no way to a speaker, in words for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the unit's name {host:?} is not known: {source}")]
    Name { host: String, source: io::Error },
    #[error("no connection to the unit at {at}: {source}")]
    Connect { at: SocketAddr, source: io::Error },
    #[error("the unit at {at} did not answer {what} within {ANSWER:?}")]
    Slow { at: SocketAddr, what: String },
    #[error("the unit {host} did not come to play within {limit:?}")]
    Late { host: String, limit: Duration },
    #[error("the connection to the unit at {at} broke: {source}")]
    Broke { at: SocketAddr, source: io::Error },
    #[error("the unit at {at} took no sound for {STUCK:?}")]
    Stuck { at: SocketAddr },
    #[error("the unit at {at} closed the connection")]
    Closed { at: SocketAddr },
    #[error("the unit at {at}: {source}")]
    Malformed { at: SocketAddr, source: Malformed },
    #[error("the unit at {at} refuses our user name or password; correct username and password_file of [button.unit]")]
    Login { at: SocketAddr },
    #[error("the unit at {at} wants a login; set username and password_file of [button.unit]")]
    NoLogin { at: SocketAddr },
    #[error("the unit at {at} wants a login of a kind that is not known: {why}")]
    Challenge { at: SocketAddr, why: String },
    #[error("the unit at {at}: {source}")]
    Without { at: SocketAddr, source: Without },
    #[error("the unit at {at} answered {what} with {status} {reason}")]
    Refused { at: SocketAddr, what: String, status: u16, reason: String },
    #[error("the unit at {at} has no way for sound that we know (interleaved in TCP, or UDP)")]
    Transport { at: SocketAddr },
    #[error("nobody listens for RTP at {at}: {source}; correct the address in talkback of [button.unit]")]
    Nobody { at: SocketAddr, source: io::Error },
    #[error("sound cannot be sent: {0}")]
    Sound(#[from] super::rtp_out::Unsent),
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// The one before it still waits.
    Dropped,
}

/// An open way to a speaker.
pub(super) struct Backchannel {
    link: Link,
    speaker: Speaker,
    path: Path,
    /// The address of the session, for everything after SETUP.
    all: String,
    /// What asks whether it is there.
    question: &'static str,
    pace: Duration,
    next: Mono,
    /// The question that is not answered yet, and since when.
    asked: Option<(u32, Mono)>,
    refused: u32,
}

enum Path {
    Interleaved(u8),
    Datagrams { rtp: UdpSocket, _rtcp: UdpSocket },
}

impl Backchannel {
    /// Connects, and asks to play. The unit has said yes to everything when this returns.
    pub async fn connect(source: &Source) -> Result<Self, Failed> {
        let mut link = Link::connect(source).await?;
        let url = source.url.as_str();
        let options = link.ask("OPTIONS", url, &[]).await?;
        let knows = |method: &str| options.all("public").any(|all| all.split(',').any(|m| m.trim() == method));
        let question = if knows("GET_PARAMETER") { "GET_PARAMETER" } else { "OPTIONS" };
        let described = link.ask("DESCRIBE", url, &[REQUIRE, ("Accept", "application/sdp")]).await?;
        // Option Not Supported: it does not know what a backchannel is.
        if described.status == 551 {
            return Err(Failed::Without { at: link.at, source: Without::Speaker });
        }
        let described = link.accepted("DESCRIBE", described)?;
        let base = described.header("content-base").or_else(|| described.header("content-location")).unwrap_or(url);
        let speaker = sdp::speaker(&String::from_utf8_lossy(&described.body))
            .map_err(|source| Failed::Without { at: link.at, source })?;
        let (all, track) = (rtsp::resolve(base, &speaker.session), rtsp::resolve(base, &speaker.control));
        let (path, timeout) = link.set_up(&track, source.transport).await?;
        let played = link.ask("PLAY", &all, &[REQUIRE, ("Range", "npt=0.000-")]).await?;
        link.accepted("PLAY", played)?;
        let pace = ASKED_EVERY.min(timeout / 3).max(Duration::from_secs(1));
        let next = clock::mono() + pace;
        Ok(Self { link, speaker, path, all, question, pace, next, asked: None, refused: 0 })
    }

    /// What it plays.
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Sends a packet, or drops it where the one before still waits. Never waits itself.
    pub fn send(&mut self, packet: &[u8]) -> Result<Sent, Failed> {
        let channel = match &self.path {
            Path::Interleaved(channel) => *channel,
            Path::Datagrams { rtp, .. } => {
                return match rtp.try_send(packet) {
                    Ok(_) => Ok(Sent::Yes),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Dropped),
                    Err(source) => Err(Failed::Broke { at: self.link.at, source }),
                };
            }
        };
        self.link.write_some()?;
        if !self.link.unsent.is_empty() {
            return Ok(Sent::Dropped);
        }
        // No packet of 20 ms is longer than 1.3 KB.
        let [high, low] = (packet.len() as u16).to_be_bytes();
        self.link.unsent.extend([b'$', channel, high, low]);
        self.link.unsent.extend(packet);
        self.link.write_some()?;
        Ok(Sent::Yes)
    }

    /// Reads what the unit sends, and asks from time to time whether it is there. Returns only when the way is lost. May be
    /// dropped and called again at any time.
    pub async fn serve(&mut self) -> Failed {
        loop {
            if let Err(failed) = self.turn().await {
                return failed;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Failed> {
        let now = clock::mono();
        let at = self.link.at;
        if self.link.stuck.is_some_and(|since| now.since(since) >= STUCK) {
            return Err(Failed::Stuck { at });
        }
        if self.asked.is_some_and(|(_, since)| now.since(since) >= ANSWER) {
            return Err(Failed::Slow { at, what: self.question.into() });
        }
        if self.asked.is_none() && now >= self.next {
            self.question(now)?;
        }
        let mut until = self.asked.map_or(self.next, |(_, since)| since + ANSWER);
        if let Some(since) = self.link.stuck {
            until = until.min(since + STUCK);
        }
        tokio::select! {
            ready = self.link.ready() => ready?,
            () = sleep_until(clock::deadline(until)) => {}
        }
        while let Some(message) = self.link.next()? {
            if let Incoming::Answer(answer) = message {
                self.answered(answer, now)?;
            }
        }
        Ok(())
    }

    fn question(&mut self, now: Mono) -> Result<(), Failed> {
        let number = self.link.send_request(self.question, &self.all, &[])?;
        self.asked = Some((number, now));
        self.next = now + self.pace;
        Ok(())
    }

    fn answered(&mut self, answer: Answer, now: Mono) -> Result<(), Failed> {
        let Some((number, _)) = self.asked else { return Ok(()) };
        if answer.number().is_some_and(|n| n != number) {
            return Ok(());
        }
        self.asked = None;
        match answer.status {
            // Its nonce is old: once more with the new one.
            401 if self.refused < 2 => {
                self.refused += 1;
                self.link.challenged(&answer)?;
                self.question(now)
            }
            401 => Err(Failed::Login { at: self.link.at }),
            // Session Not Found.
            454 => self.link.accepted(self.question, answer).map(drop),
            _ => {
                self.refused = 0;
                Ok(())
            }
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let at = self.link.at;
        let goodbye = async {
            self.link.flush().await?;
            self.link.ask("TEARDOWN", &self.all, &[]).await
        };
        match timeout(GOODBYE, goodbye).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "TEARDOWN of a unit's speaker"),
            Err(_) => tracing::debug!(unit = %at, "a unit did not answer TEARDOWN"),
        }
    }
}

/// The RTSP connection.
struct Link {
    stream: TcpStream,
    at: SocketAddr,
    login: Option<Login>,
    proof: Option<PasswordClient>,
    number: u32,
    session: Option<String>,
    read: Vec<u8>,
    /// Not taken by the kernel yet; at most a packet and a request.
    unsent: Vec<u8>,
    /// Since when something waits there.
    stuck: Option<Mono>,
}

impl Link {
    async fn connect(source: &Source) -> Result<Self, Failed> {
        let host = source.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = source.url.port().unwrap_or(554);
        let addresses = resolve(host, port).await?;
        let mut last = None;
        for at in addresses {
            match timeout(ANSWER, connect(at)).await {
                Ok(Ok(stream)) => {
                    let login = source.login.clone();
                    let (read, unsent) = (Vec::new(), Vec::new());
                    let (proof, session, stuck) = (None, None, None);
                    return Ok(Self { stream, at, login, proof, number: 0, session, read, unsent, stuck });
                }
                Ok(Err(source)) => last = Some(Failed::Connect { at, source }),
                Err(_) => last = Some(Failed::Connect { at, source: io::ErrorKind::TimedOut.into() }),
            }
        }
        let none = || Failed::Name { host: host.to_owned(), source: io::ErrorKind::NotFound.into() };
        Err(last.unwrap_or_else(none))
    }

    /// Asks for the track by the way that the config prefers, and where the unit does not know it, by the other.
    async fn set_up(&mut self, track: &str, prefers: Transport) -> Result<(Path, Duration), Failed> {
        let other = if prefers == Transport::Tcp { Transport::Udp } else { Transport::Tcp };
        for transport in [prefers, other] {
            let sockets = match transport {
                Transport::Tcp => None,
                Transport::Udp => {
                    let pair = pair(self.stream.local_addr().map(|a| a.ip())).await;
                    Some(pair.map_err(|source| Failed::Broke { at: self.at, source })?)
                }
            };
            let wanted = match &sockets {
                None => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
                Some((_, _, port)) => format!("RTP/AVP;unicast;client_port={port}-{}", port + 1),
            };
            let answer = self.ask("SETUP", track, &[REQUIRE, ("Transport", &wanted)]).await?;
            // Unsupported Transport.
            if answer.status == 461 {
                continue;
            }
            let answer = self.accepted("SETUP", answer)?;
            let session = answer.header("session").unwrap_or_default();
            self.session = session.split(';').next().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
            let seconds = rtsp::parameter(session, "timeout").and_then(|t| t.parse().ok()).unwrap_or(60);
            let given = answer.header("transport").unwrap_or_default();
            return Ok((self.path(sockets, given).await?, Duration::from_secs(seconds)));
        }
        Err(Failed::Transport { at: self.at })
    }

    async fn path(&self, sockets: Option<(UdpSocket, UdpSocket, u16)>, given: &str) -> Result<Path, Failed> {
        let Some((rtp, rtcp, _)) = sockets else {
            let channel = rtsp::parameter(given, "interleaved").and_then(rtsp::first_of_pair).unwrap_or(0);
            return Ok(Path::Interleaved(channel));
        };
        let port = rtsp::parameter(given, "server_port").and_then(rtsp::first_of_pair::<u16>);
        let Some(port) = port else { return Err(Failed::Transport { at: self.at }) };
        let ip = rtsp::parameter(given, "source").and_then(|ip| ip.parse().ok()).unwrap_or(self.at.ip());
        let connected = async {
            rtp.connect((ip, port)).await?;
            // Until the runtime knows that it can be written, nothing would be sent.
            rtp.writable().await
        };
        connected.await.map_err(|source| Failed::Broke { at: self.at, source })?;
        Ok(Path::Datagrams { rtp, _rtcp: rtcp })
    }

    /// Asks, and waits for the answer; proves who we are when that is wanted.
    async fn ask(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Answer, Failed> {
        for is_last in [false, true] {
            let number = self.send_request(method, uri, headers)?;
            let answer = timeout(ANSWER, self.answer(number)).await;
            let answer = answer.map_err(|_| Failed::Slow { at: self.at, what: method.to_owned() })??;
            if answer.status != 401 {
                return Ok(answer);
            }
            if is_last {
                break;
            }
            self.challenged(&answer)?;
        }
        Err(Failed::Login { at: self.at })
    }

    fn accepted(&self, what: &str, answer: Answer) -> Result<Answer, Failed> {
        match answer.status {
            200..=299 => Ok(answer),
            status => {
                let (what, reason) = (what.to_owned(), answer.reason.chars().take(80).collect());
                Err(Failed::Refused { at: self.at, what, status, reason })
            }
        }
    }

    fn challenged(&mut self, answer: &Answer) -> Result<(), Failed> {
        let at = self.at;
        if self.login.is_none() {
            return Err(Failed::NoLogin { at });
        }
        let all = answer.all("www-authenticate");
        let proof = all.fold(PasswordClient::builder(), |builder, one| builder.challenges(one)).build();
        self.proof = Some(proof.map_err(|why| Failed::Challenge { at, why })?);
        Ok(())
    }

    fn send_request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<u32, Failed> {
        self.number += 1;
        let number = self.number.to_string();
        let mut all = vec![("CSeq", number.as_str()), AGENT];
        let proof = match (&mut self.proof, &self.login) {
            (Some(proof), Some(Login { username, password })) => {
                let params = PasswordParams { username, password: password.reveal(), uri, method, body: Some(&[]) };
                Some(proof.respond(&params).map_err(|why| Failed::Challenge { at: self.at, why })?)
            }
            _ => None,
        };
        all.extend(proof.as_deref().map(|proof| ("Authorization", proof)));
        all.extend(self.session.as_deref().map(|session| ("Session", session)));
        all.extend(headers);
        self.unsent.extend(rtsp::request(method, uri, &all));
        self.write_some()?;
        Ok(self.number)
    }

    async fn answer(&mut self, number: u32) -> Result<Answer, Failed> {
        loop {
            while let Some(message) = self.next()? {
                if let Incoming::Answer(answer) = message
                    && answer.number().is_none_or(|n| n == number)
                {
                    return Ok(answer);
                }
            }
            self.ready().await?;
        }
    }

    /// The next message that has been read. Requests of the unit's own are told that we do nothing for it.
    fn next(&mut self) -> Result<Option<Incoming>, Failed> {
        let at = self.at;
        let message = rtsp::take(&mut self.read).map_err(|source| Failed::Malformed { at, source })?;
        if let Some(Incoming::Request(Some(number))) = message
            && self.unsent.is_empty()
        {
            self.unsent.extend(format!("RTSP/1.0 501 Not Implemented\r\nCSeq: {number}\r\n\r\n").into_bytes());
            self.write_some()?;
        }
        Ok(message)
    }

    /// Waits until something could be read or written, and does it.
    async fn ready(&mut self) -> Result<(), Failed> {
        let at = self.at;
        let broke = |source| Failed::Broke { at, source };
        let interest =
            if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(interest).await.map_err(broke)?;
        if ready.is_writable() {
            self.write_some()?;
        }
        if ready.is_readable() {
            let mut some = [0; 4096];
            match self.stream.try_read(&mut some) {
                Ok(0) => return Err(Failed::Closed { at }),
                // What is read is taken off message by message, and none may be longer than 80 KiB.
                Ok(n) => self.read.extend(&some[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(broke(source)),
            }
        }
        Ok(())
    }

    fn write_some(&mut self) -> Result<(), Failed> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(clock::mono);
                    return Ok(());
                }
                Err(source) => return Err(Failed::Broke { at: self.at, source }),
            }
        }
        self.stuck = None;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        while !self.unsent.is_empty() {
            self.ready().await?;
        }
        Ok(())
    }
}

/// The addresses of a name.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failed> {
    let unknown = |source| Failed::Name { host: host.to_owned(), source };
    match timeout(ANSWER, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(source)) => Err(unknown(source)),
        Err(_) => Err(unknown(io::ErrorKind::TimedOut.into())),
    }
}

async fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_nodelay(true)?;
    socket.connect(at).await
}

/// Two neighbouring ports, the first of them even (RFC 3550 section 11).
async fn pair(ip: io::Result<IpAddr>) -> io::Result<(UdpSocket, UdpSocket, u16)> {
    let ip = ip?;
    for _ in 0..64 {
        let rtp = UdpSocket::bind((ip, 0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind((ip, port + 1)).await
        {
            return Ok((rtp, rtcp, port));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
