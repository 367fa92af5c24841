//! Requests and what is answered (RFC 2326 section 10).

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    connection::{Connection, Ended, challenge},
    path::Path,
    sdp::{self, Description},
    session::Session,
    stage::{Offer, Refused},
};
use crate::{
    host::clock,
    media::ring::Ring,
    wire::{
        answer::{Answer, Status},
        digest::{Proof, Verdict},
        message::Request,
        transport::{self, Wanted},
    },
};

/// What can be asked, for `Public` and `Allow`.
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// A camera whose newest frame is older than this sends nothing now.
const FRESH: std::time::Duration = std::time::Duration::from_secs(10);
/// A camera that has sent for so long has sent of each of its tracks.
const WHOLE: std::time::Duration = std::time::Duration::from_secs(1);
/// From one look at it to the next, while it is waited for.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

impl Connection {
    /// What is answered to a request, once it is done.
    pub(super) async fn answer(&mut self, request: &Request) -> Result<Answer, Ended> {
        let method = request.method.as_str();
        if request.version != "RTSP/1.0" {
            return Ok(Answer::new(Status::VersionNotSupported));
        }
        if request.headers.number().is_none() {
            return Ok(Answer::new(Status::BadRequest));
        }
        if let Some(option) = request.headers.get("require") {
            return Ok(Answer::new(Status::OptionNotSupported).with("Unsupported", option));
        }
        if method == "OPTIONS" {
            return Ok(Answer::new(Status::Ok).with("Public", METHODS));
        }
        if !METHODS.split(", ").any(|known| known == method) {
            return Ok(Answer::new(Status::NotImplemented).with("Allow", METHODS));
        }
        let viewer = match self.admit(request)? {
            Ok(viewer) => viewer,
            Err(refusal) => return Ok(refusal),
        };
        let named = request.headers.get("session").and_then(|s| s.split(';').next()).map(str::trim);
        let own = self.session.as_ref().map(|session| session.id.as_str());
        if named.is_some() && named != own {
            return Ok(Answer::new(Status::SessionNotFound));
        }
        match method {
            "DESCRIBE" => self.describe(request).await,
            "SETUP" => self.set_up(request, viewer).await,
            _ => Ok(self.of_session(request)),
        }
    }

    /// Who asks; otherwise what is answered instead.
    fn admit(&mut self, request: &Request) -> Result<Result<Arc<str>, Answer>, Ended> {
        let stage = self.server.stage.clone();
        if stage.is_open() {
            return Ok(Ok("anyone".into()));
        }
        let now = clock::mono();
        let proof = request.headers.get("authorization").and_then(Proof::read);
        let verdict = proof.as_ref().map_or(Verdict::Foreign, |proof| self.challenge.verdict(proof, now));
        let who = match (&proof, verdict) {
            (Some(proof), Verdict::Fresh | Verdict::Stale) => stage.admit(proof, &request.method),
            _ => Err(Refused::Unproven),
        };
        // Whoever has been let in keeps what it has: not every client answers a new challenge for a keep-alive.
        let gives_nothing = !matches!(request.method.as_str(), "DESCRIBE" | "SETUP" | "PLAY");
        let is_stale = verdict == Verdict::Stale && !(gives_nothing && self.session.is_some());
        Ok(match who {
            Ok(viewer) if !is_stale => Ok(viewer),
            Err(Refused::Forbidden(why)) => {
                Err(Answer::new(Status::Forbidden).body("text/plain", format!("{why}\r\n")))
            }
            proven => {
                if self.challenge.is_over(now) {
                    self.challenge = challenge(&self.server, now)?;
                }
                let header = self.challenge.header(proven.is_ok());
                Err(Answer::new(Status::Unauthorized).with("WWW-Authenticate", header))
            }
        })
    }

    async fn describe(&mut self, request: &Request) -> Result<Answer, Ended> {
        let (camera, ring) = match self.camera(request)? {
            Ok(camera) => camera,
            Err(refusal) => return Ok(refusal),
        };
        let Some(description) = self.look(&ring).await else { return Ok(silent()) };
        let text = description.text(&camera);
        let base = base(request, &camera);
        self.described = Some((camera, description));
        Ok(Answer::new(Status::Ok).with("Content-Base", format!("{base}/")).body("application/sdp", text))
    }

    /// The camera that a request is about; otherwise what is answered instead.
    fn camera(&self, request: &Request) -> Result<Result<(String, Arc<Ring>), Answer>, Ended> {
        let camera = request.segments().first().map_or("", |camera| *camera).to_owned();
        Ok(match self.server.stage.offer(&camera) {
            Offer::Live(ring) => Ok((camera, ring)),
            Offer::Unknown => Err(Answer::new(Status::NotFound)),
            Offer::Down => return Err(Ended::Down),
        })
    }

    /// What a camera sends. One that has just begun is waited for, until its tracks are known; None: it sends nothing.
    async fn look(&self, ring: &Ring) -> Option<Description> {
        let until = Instant::now() + self.server.limits.camera;
        let seen = || {
            let newest = ring.newest()?;
            (clock::mono().since(newest) < FRESH).then(|| Description::of(ring))
        };
        let whole = async {
            loop {
                if let Some(seen) = seen()
                    && (seen.video.is_some() && seen.audio.is_some() || ring.held().span >= WHOLE)
                {
                    return seen;
                }
                sleep(LOOK).await;
            }
        };
        timeout_at(until, whole).await.ok().or_else(seen)
    }

    async fn set_up(&mut self, request: &Request, viewer: Arc<str>) -> Result<Answer, Ended> {
        let Some(wanted) = request.headers.get("transport").and_then(transport::wanted) else {
            return Ok(Answer::new(Status::UnsupportedTransport));
        };
        let (camera, ring) = match self.camera(request)? {
            Ok(camera) => camera,
            Err(refusal) => return Ok(refusal),
        };
        let Some(track) = request.segments().get(1).and_then(|name| sdp::track(name)) else {
            return Ok(Answer::new(Status::NotFound));
        };
        if self.session.as_ref().is_some_and(|session| session.is_playing() || session.camera != camera) {
            return Ok(Answer::new(Status::NotValidInThisState));
        }
        if self.session.is_none() {
            let described = self.described.take().filter(|(of, _)| *of == camera).map(|(_, description)| description);
            let described = match described {
                Some(description) => Some(description),
                None => self.look(&ring).await,
            };
            let Some(description) = described else { return Ok(silent()) };
            let id = format!("{:016x}", fastrand::u64(..));
            let shown = (ring.clone(), self.server.parcels(&ring));
            self.session = Some(Session::new(id, camera, (viewer, self.peer), shown, description));
        }
        let Some(session) = &mut self.session else { return Ok(silent()) };
        // Channels that another track has are no more to be had: the answer says which it is instead.
        let wanted = match wanted {
            Wanted::Interleaved(Some((a, b))) if session.takes(a, track) || session.takes(b, track) => {
                Wanted::Interleaved(None)
            }
            wanted => wanted,
        };
        let (path, said) = match Path::open(wanted, session.free_channel(), self.local, self.peer.ip()).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, "no ports for RTP");
                return Ok(Answer::new(Status::UnsupportedTransport));
            }
        };
        let Some(ssrc) = session.set_up(track, path) else { return Ok(Answer::new(Status::NotFound)) };
        let timeout = self.server.limits.silence.as_secs();
        Ok(Answer::new(Status::Ok)
            .with("Transport", format!("{said};ssrc={ssrc:08X}"))
            .with("Session", format!("{};timeout={timeout}", session.id)))
    }

    /// Requests about what is set up.
    fn of_session(&mut self, request: &Request) -> Answer {
        let method = request.method.as_str();
        let Some(session) = &mut self.session else {
            return Answer::new(match method {
                "PLAY" | "TEARDOWN" => Status::SessionNotFound,
                _ => Status::Ok,
            });
        };
        let answer = Answer::new(Status::Ok).with("Session", session.id.clone());
        match method {
            "PLAY" if !session.has_tracks() => Answer::new(Status::NotValidInThisState),
            "PLAY" if request.headers.get("range").is_some_and(|range| !is_live(range)) => {
                Answer::new(Status::InvalidRange)
            }
            "PLAY" => {
                let info = session.rtp_info(&base(request, &session.camera));
                if !session.is_playing() {
                    session.play(self.server.spectators.enter(), clock::mono(), clock::wall());
                    self.server.stage.watched(&session.viewer, session.peer.ip(), &session.camera);
                }
                answer.with("Range", "npt=now-").with("RTP-Info", info)
            }
            "TEARDOWN" => {
                self.session = None;
                answer
            }
            _ => answer,
        }
    }
}

/// A camera that sends nothing now. It may the next moment.
fn silent() -> Answer {
    Answer::new(Status::ServiceUnavailable).with("Retry-After", "5")
}

/// The URL of a camera, as the client wrote it.
fn base(request: &Request, camera: &str) -> String {
    let authority = request.uri.split_once("://").map(|(scheme, rest)| {
        let host = rest.split('/').next().unwrap_or_default();
        format!("{scheme}://{host}")
    });
    format!("{}/{camera}", authority.unwrap_or_default())
}

/// Whether a range is what a live camera has: the present (section 3.6). Recordings by `clock=` are *not yet*.
fn is_live(range: &str) -> bool {
    let begin = range.split(';').next().and_then(|range| range.trim().strip_prefix("npt="));
    let begin = begin.map(|range| range.split('-').next().unwrap_or_default().trim());
    begin.is_some_and(|begin| matches!(begin, "now" | "") || begin.parse() == Ok(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Incoming, take};

    #[test]
    fn the_present_can_be_played_and_nothing_else() {
        for live in ["npt=now-", "npt=0-", "npt=0.000-", "npt=-", "npt=0.000-;time=19970123T143720Z"] {
            assert!(is_live(live), "{live}");
        }
        for past in ["clock=20260301T120000Z-", "npt=10-20", "smpte=0:10:00-", "", "npt=x-"] {
            assert!(!is_live(past), "{past}");
        }
    }

    #[test]
    fn a_cameras_url_is_that_of_the_request_without_what_follows() {
        for (uri, of) in [
            ("rtsp://cam-1:8554/cam-1/video?x", "rtsp://cam-1:8554/cam-1"),
            ("rtsp://[::1]/cam-1", "rtsp://[::1]/cam-1"),
            ("/cam-1/", "/cam-1"),
        ] {
            let mut bytes = format!("PLAY {uri} RTSP/1.0\r\n\r\n").into_bytes();
            let Ok(Some(Incoming::Request(request))) = take(&mut bytes) else { panic!() };
            assert_eq!(base(&request, "cam-1"), of);
        }
    }
}
