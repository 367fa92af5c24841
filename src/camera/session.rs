//! One RTSP session (RFC 2326) from DESCRIBE to its end, every step with a deadline.
//!
//! Tolerant where cameras are known to be sloppy: initial sequence numbers and `rtptime` of PLAY are ignored, so are
//! changing session ids, and sender reports count whatever their SSRC says (the channel tells whose they are).

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use retina::{
    client::{
        Credentials, Demuxed, Described, InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions, Session,
        SessionGroup, SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, UdpTransportOptions,
        UnknownRtcpSsrcPolicy,
    },
    codec::FrameFormat,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    fault::Fault,
    format::{self, Chosen},
};
use crate::{
    district::inventory::{Source, Transport},
    host::bulkhead::Burst,
};

/// How long the check after a failure looks whether anything listens at all.
const PROBE: Duration = Duration::from_secs(1);
/// The longest text of a camera that is passed on.
const MAX_SAID: usize = 160;

/// Where a camera is and how to ask it.
pub(super) struct Address {
    source: Source,
    /// Host and port, for people.
    name: String,
    group: Arc<SessionGroup>,
}

/// A session that plays.
pub(super) struct Playing {
    pub(super) demuxed: Demuxed,
    pub(super) chosen: Chosen,
}

impl Address {
    pub(super) fn new(source: Source) -> Self {
        let port = source.url.port().unwrap_or(554);
        let name = format!("{}:{port}", source.url.host_str().unwrap_or("?"));
        Self { source, name, group: Arc::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes a session play. When this fails half-way the camera is told (see [`Address::leave`]).
    pub(super) async fn play(&self, limit: Duration) -> Result<Playing, Fault> {
        let described = Session::describe(self.source.url.clone(), self.options());
        let mut session = self.step("DESCRIBE", limit, described).await?;
        let chosen = format::choose(session.streams())
            .map_err(|offered| Fault::NoCodec { address: self.name.clone(), offered })?;
        for stream in [chosen.video, chosen.audio].into_iter().flatten() {
            self.set_up(&mut session, stream, limit).await?;
        }
        let options = PlayOptions::default()
            .initial_timestamp(InitialTimestampPolicy::Ignore)
            .initial_seq(InitialSequenceNumberPolicy::Ignore)
            .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::ProcessPackets);
        let playing = self.step("PLAY", limit, session.play(options)).await?;
        let demuxed = playing.demuxed().map_err(|e| self.protocol("PLAY", &e))?;
        Ok(Playing { demuxed, chosen })
    }

    async fn set_up(&self, session: &mut Session<Described>, stream: usize, limit: Duration) -> Result<(), Fault> {
        let transport = match self.source.transport {
            Transport::Tcp => retina::client::Transport::Tcp(TcpTransportOptions::default()),
            Transport::Udp => retina::client::Transport::Udp(UdpTransportOptions::default()),
        };
        let options = SetupOptions::default().transport(transport).frame_format(FrameFormat::MP4);
        self.step("SETUP", limit, session.setup(stream, options)).await
    }

    fn options(&self) -> SessionOptions {
        let creds = self
            .source
            .login
            .as_ref()
            .map(|l| Credentials { username: l.username.clone(), password: l.password.reveal().to_owned() });
        SessionOptions::default()
            .creds(creds)
            .user_agent(concat!("chowki/", env!("CARGO_PKG_VERSION")).to_owned())
            .session_group(self.group.clone())
            .session_id(SessionIdPolicy::UseFirst)
    }

    /// Waits until the camera has been told that ended sessions are over (TEARDOWN), at most `limit`.
    pub(super) async fn leave(&self, limit: Duration) {
        match timeout(limit, self.group.await_teardown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(address = %self.name, %error, "camera did not take TEARDOWN"),
            Err(_) => tracing::debug!(address = %self.name, "camera did not answer TEARDOWN in time"),
        }
    }

    async fn step<T>(
        &self,
        step: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, retina::Error>>,
    ) -> Result<T, Fault> {
        match timeout(limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.diagnose(step, &error).await),
            Err(_) => Err(match self.probe().await {
                Ok(()) => Fault::Mute { address: self.name.clone(), step, after: limit },
                Err(why) => Fault::Unreachable { address: self.name.clone(), why },
            }),
        }
    }

    /// What an error means for the operator. The library tells kinds apart only by RTSP status, so whether the camera
    /// is there at all is looked up.
    async fn diagnose(&self, step: &'static str, error: &retina::Error) -> Fault {
        let Some(status) = error.status_code() else {
            return match self.probe().await {
                Ok(()) => self.protocol(step, error),
                Err(why) => Fault::Unreachable { address: self.name.clone(), why },
            };
        };
        let (address, said) = (self.name.clone(), self.scrub(error));
        match (status, &self.source.login) {
            (401 | 403, Some(login)) => Fault::WrongPassword { address, user: login.username.clone(), said },
            (401 | 403, None) => Fault::LoginMissing { address, said },
            (404 | 410, _) => Fault::NoSuchStream { address, path: self.path(), said },
            (461, _) => Fault::Transport { address, said },
            (200..300, _) => Fault::Protocol { address, step, said },
            _ => Fault::Refused { address, step, said },
        }
    }

    /// Whether anything accepts a connection, otherwise the system's words.
    async fn probe(&self) -> Result<(), String> {
        let url = &self.source.url;
        let port = url.port().unwrap_or(554);
        let connect = async {
            match url.host() {
                Some(url::Host::Ipv4(ip)) => TcpStream::connect((IpAddr::V4(ip), port)).await,
                Some(url::Host::Ipv6(ip)) => TcpStream::connect((IpAddr::V6(ip), port)).await,
                Some(url::Host::Domain(name)) => TcpStream::connect((name, port)).await,
                None => Err(std::io::Error::other("the URL names no host")),
            }
        };
        match timeout(PROBE, connect).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer to a connection".into()),
        }
    }

    fn protocol(&self, step: &'static str, error: &retina::Error) -> Fault {
        Fault::Protocol { address: self.name.clone(), step, said: self.scrub(error) }
    }

    /// The end of a session with a picture that no camera has reason to send.
    pub(super) fn too_large(&self, bytes: usize) -> Fault {
        let said = format!("a picture of {} MiB", bytes >> 20);
        Fault::Protocol { address: self.name.clone(), step: "PLAY", said }
    }

    /// The end of a session in which the library that reads it panicked; what it remembers of sessions goes too.
    pub(super) fn unreadable(&mut self, burst: &Burst) -> Fault {
        self.group = Arc::default();
        Fault::Unreadable { address: self.name.clone(), said: said(&burst.to_string(), &[]) }
    }

    /// The end of a session that had played.
    pub(super) fn ended(&self, error: Option<&retina::Error>) -> Fault {
        let said = error.map_or_else(|| "the camera closed it".into(), |e| self.scrub(e));
        Fault::Ended { address: self.name.clone(), said }
    }

    /// The first line of an error, without what a URL or a camera may repeat of the login.
    fn scrub(&self, error: &retina::Error) -> String {
        let password = self.source.login.as_ref().map(|l| l.password.reveal());
        said(&error.to_string(), &[password, self.source.url.query()])
    }

    /// The path, unless it looks as if the login were part of it, as some makers have it. The query is never shown.
    fn path(&self) -> String {
        let path = self.source.url.path();
        let lower = path.to_ascii_lowercase();
        if ["pass", "pwd", "auth", "token"].iter().any(|word| lower.contains(word)) {
            "its path".into()
        } else {
            path.to_owned()
        }
    }
}

/// The first line of a text from outside, short, visible, and without these secrets.
fn said(text: &str, secrets: &[Option<&str>]) -> String {
    let mut line = text.lines().next().unwrap_or_default().to_owned();
    // Before it is cut short: half a password is one too.
    for secret in secrets.iter().copied().flatten().filter(|s| !s.is_empty()) {
        line = line.replace(secret, "[redacted]");
    }
    line.chars().take(MAX_SAID).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_password_is_passed_on_however_long_the_camera_talks() {
        for before in 0..MAX_SAID + 4 {
            let text = format!("{}hunter2hunter2 tail\nmore", "x".repeat(before));
            let line = said(&text, &[Some("hunter2hunter2"), None, Some("")]);
            assert!(!line.contains("hunt") && line.chars().count() <= MAX_SAID, "{line}");
        }
        assert_eq!(said("a\u{1b}[2Jb", &[]), "a [2Jb");
    }
}
