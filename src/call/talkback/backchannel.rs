//! A unit's speaker by RTSP (RFC 2326; ONVIF Streaming Specification section 5.3): one connection, only the speaker's track
//! of it, our sound interleaved, or in datagrams where the unit wants those.
//!
//! What waits to be written is bounded twice: the kernel's buffer is small, and of ours a second packet is dropped while one
//! waits. So a voice is never late because a unit reads slowly. What it reads and does not play is its own.

use std::{io, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{sleep_until, timeout},
};

use super::{
    dialogue::Dialogue,
    failed::{ANSWER, Failed, STUCK},
    rtsp,
    sdp::{self, Speaker, Without},
};
use crate::{
    district::{
        clock::Mono,
        inventory::{Source, Transport},
    },
    host::{clock, ports},
    wire::message::{Incoming, Response},
};

/// What makes a unit speak of its speaker.
const REQUIRE: (&str, &str) = ("Require", "www.onvif.org/ver20/backchannel");
/// How often it is asked whether it is still there. Its session's timeout is shortened to this.
const ASKED_EVERY: Duration = Duration::from_secs(4);
/// The longest goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// The one before it still waits.
    Dropped,
}

/// An open way to a speaker.
pub(super) struct Backchannel {
    link: Dialogue,
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
        let mut link = Dialogue::connect(source).await?;
        let url = source.url.as_str();
        let options = link.ask("OPTIONS", url, &[]).await?;
        let knows = |method: &str| options.headers.all("public").any(|all| all.split(',').any(|m| m.trim() == method));
        let question = if knows("GET_PARAMETER") { "GET_PARAMETER" } else { "OPTIONS" };
        let described = link.ask("DESCRIBE", url, &[REQUIRE, ("Accept", "application/sdp")]).await?;
        // Option Not Supported: it does not know what a backchannel is.
        if described.status == 551 {
            return Err(Failed::Without { at: link.at, source: Without::Speaker });
        }
        let described = link.accepted("DESCRIBE", described)?;
        let base =
            described.headers.get("content-base").or_else(|| described.headers.get("content-location")).unwrap_or(url);
        let speaker = sdp::speaker(&String::from_utf8_lossy(&described.body))
            .map_err(|source| Failed::Without { at: link.at, source })?;
        let (all, track) = (rtsp::resolve(base, &speaker.session), rtsp::resolve(base, &speaker.control));
        let (path, timeout) = set_up(&mut link, &track, source.transport).await?;
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
            if let Incoming::Response(answer) = message {
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

    fn answered(&mut self, answer: Response, now: Mono) -> Result<(), Failed> {
        let Some((number, _)) = self.asked else { return Ok(()) };
        if answer.headers.number().is_some_and(|n| n != number) {
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

/// Asks for the track by the way that the config prefers, and where the unit does not know it, by the other.
async fn set_up(link: &mut Dialogue, track: &str, prefers: Transport) -> Result<(Path, Duration), Failed> {
    let other = if prefers == Transport::Tcp { Transport::Udp } else { Transport::Tcp };
    for transport in [prefers, other] {
        let sockets = match transport {
            Transport::Tcp => None,
            Transport::Udp => {
                let broke = |source| Failed::Broke { at: link.at, source };
                let (rtp, rtcp) = ports::pair(link.local_ip().map_err(broke)?).await.map_err(broke)?;
                let port = rtp.local_addr().map_err(broke)?.port();
                Some((rtp, rtcp, port))
            }
        };
        let wanted = match &sockets {
            None => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
            Some((_, _, port)) => format!("RTP/AVP;unicast;client_port={port}-{}", port + 1),
        };
        let answer = link.ask("SETUP", track, &[REQUIRE, ("Transport", &wanted)]).await?;
        // Unsupported Transport.
        if answer.status == 461 {
            continue;
        }
        let answer = link.accepted("SETUP", answer)?;
        let session = answer.headers.get("session").unwrap_or_default();
        link.session = session.split(';').next().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        let seconds = rtsp::parameter(session, "timeout").and_then(|t| t.parse().ok()).unwrap_or(60);
        let given = answer.headers.get("transport").unwrap_or_default();
        return Ok((path(link, sockets, given).await?, Duration::from_secs(seconds)));
    }
    Err(Failed::Transport { at: link.at })
}

/// The way that a unit has given.
async fn path(link: &Dialogue, sockets: Option<(UdpSocket, UdpSocket, u16)>, given: &str) -> Result<Path, Failed> {
    let Some((rtp, rtcp, _)) = sockets else {
        let channel = rtsp::parameter(given, "interleaved").and_then(rtsp::first_of_pair).unwrap_or(0);
        return Ok(Path::Interleaved(channel));
    };
    let port = rtsp::parameter(given, "server_port").and_then(rtsp::first_of_pair::<u16>);
    let Some(port) = port else { return Err(Failed::Transport { at: link.at }) };
    let ip = rtsp::parameter(given, "source").and_then(|ip| ip.parse().ok()).unwrap_or(link.at.ip());
    let connected = async {
        rtp.connect((ip, port)).await?;
        // Until the runtime knows that it can be written, nothing would be sent.
        rtp.writable().await
    };
    connected.await.map_err(|source| Failed::Broke { at: link.at, source })?;
    Ok(Path::Datagrams { rtp, _rtcp: rtcp })
}
