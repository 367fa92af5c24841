//! One browser's session: a WebRTC peer ([`str0m`]) and the ring that it watches.
//!
//! The peer does no input and output of its own. Each turn of the session's task gives it one thing (a datagram, a frame,
//! the passing of time) and then takes out all that it has to say, until it names the time when it wants to be asked again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError,
    change::SdpOffer,
    media::{Direction, MediaAdded, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::RtpWrite,
};
use tokio::sync::oneshot;

use super::{
    Refused, codecs,
    line::Line,
    parcels::Parcels,
    socket::{Outbox, Socket},
    switchboard::{Datagram, Plugged, Switchboard},
};
use crate::{
    host::clock,
    media::{
        frame::{Frame, Track},
        ring::{Read, Reader, Ring, Start},
    },
};

/// A peer that is not connected within this is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// One that was is given up so long after it was lost: a browser that comes back begins a session of its own.
const LOST: Duration = Duration::from_secs(5);
/// A browser that lost pictures begins anew at most this often.
const RESTART: Duration = Duration::from_secs(1);
/// Bytes of old frames that go out at once, and the pause after them: a burst that is larger is lost in buffers.
const BURST: usize = 96 * 1024;
const PAUSE: Duration = Duration::from_millis(2);

/// A track on its way to the browser.
#[derive(Debug)]
struct Out {
    mid: Mid,
    line: Option<Line>,
}

/// A session before it runs.
pub(super) struct Session {
    rtc: Rtc,
    socket: Arc<Socket>,
    plugged: Plugged,
    ring: Arc<Ring>,
    reader: Reader,
    parcels: Arc<Parcels>,
    video: Option<Out>,
    audio: Option<Out>,
    /// Nothing can be decoded before the next key frame.
    wants_key: bool,
    connected: bool,
    /// When it is given up.
    until: Option<Instant>,
    /// When it last began at a key frame.
    restarted: Instant,
    /// Until when no frame is sent, after a burst.
    rests: Option<Instant>,
    outbox: Outbox,
    random: fastrand::Rng,
}

impl Session {
    /// Takes an offer; gives the answer and what serves it.
    pub fn answer(
        offer: &str,
        candidates: &[Candidate],
        socket: Arc<Socket>,
        board: &Arc<Switchboard>,
        (ring, parcels): (Arc<Ring>, Arc<Parcels>),
    ) -> Result<(String, Self), Refused> {
        if let Some(Read::Frame(frame)) = ring.reader(Start::LastKey).try_next()
            && frame.track == Track::Video
        {
            codecs::agree(offer, frame.format.codec)?;
        }
        let offer = SdpOffer::from_sdp_string(offer).map_err(|e| Refused::Offer(e.to_string()))?;
        let now = clock::instant();
        let mut rtc = config().build(now);
        for candidate in candidates {
            rtc.add_local_candidate(candidate.clone());
        }
        let name = rtc.direct_api().local_ice_credentials().ufrag;
        let answer = rtc.sdp_api().accept_offer(offer).map_err(|e| Refused::Offer(e.to_string()))?;
        let mut session = Self {
            rtc,
            socket,
            plugged: board.plug(name),
            reader: ring.reader(Start::LastKey),
            ring,
            parcels,
            video: None,
            audio: None,
            wants_key: true,
            connected: false,
            until: Some(now + PATIENCE),
            restarted: now,
            rests: None,
            outbox: Outbox::default(),
            random: fastrand::Rng::new(),
        };
        session.drain().map_err(|e| Refused::Offer(e.to_string()))?;
        let answer = answer.to_sdp_string();
        if !answer.lines().any(|line| matches!(line, "a=sendonly" | "a=sendrecv")) {
            return Err(Refused::Offer("it asks for neither pictures nor sound that we have a codec for".into()));
        }
        Ok((answer, session))
    }

    /// Serves the browser until it goes, is hung up, or the gateway stops.
    pub async fn run(mut self, mut hung_up: oneshot::Receiver<()>, stopping: impl Future<Output = ()>) {
        tokio::pin!(stopping);
        let why = loop {
            let deadline = match self.drain() {
                Ok(deadline) => deadline,
                Err(error) => break error.to_string(),
            };
            if !self.rtc.is_alive() {
                break "the browser went".into();
            }
            if self.until.is_some_and(|until| clock::instant() >= until) {
                break if self.connected { "lost" } else { "never connected" }.into();
            }
            self.rests = self.rests.filter(|until| clock::instant() < *until);
            let wake = [self.until, self.rests].into_iter().flatten().fold(deadline, Instant::min);
            let turn = tokio::select! {
                biased;
                () = &mut stopping => break "the gateway stops".into(),
                _ = &mut hung_up => break "hung up".into(),
                Some(datagram) = self.plugged.inbox.recv() => self.received(&datagram),
                read = self.reader.next(), if self.connected && self.rests.is_none() => self.read(read),
                () = tokio::time::sleep_until(wake.into()) => self.rtc.handle_input(Input::Timeout(clock::instant())),
            };
            if let Err(error) = turn {
                break error.to_string();
            }
        };
        tracing::debug!(why, "a session ended");
        self.rtc.disconnect();
        let _ = self.drain();
    }

    /// Takes out what the peer has to say; gives the time when it wants to be asked again.
    fn drain(&mut self) -> Result<Instant, RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.outbox.flush(&self.socket);
                    return Ok(at);
                }
                Output::Transmit(t) => self.outbox.push(&self.socket, t.source.ip(), t.destination, &t.contents),
                Output::Event(event) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::MediaAdded(media) => self.media(media),
            Event::Connected => {
                self.connected = true;
                self.until = None;
                self.begin_anew();
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.until = Some(clock::instant() + LOST);
            }
            Event::IceConnectionStateChange(_) if self.connected => self.until = None,
            // On a bad line it asks again and again; each answer is more for that line to carry.
            Event::KeyframeRequest(_) if clock::instant() >= self.restarted + RESTART => self.begin_anew(),
            _ => {}
        }
    }

    fn media(&mut self, media: MediaAdded) {
        if !matches!(media.direction, Direction::SendOnly | Direction::SendRecv) {
            return;
        }
        let out = Some(Out { mid: media.mid, line: None });
        match media.kind {
            MediaKind::Video if self.video.is_none() => self.video = out,
            MediaKind::Audio if self.audio.is_none() => self.audio = out,
            _ => {}
        }
    }

    /// The browser has nothing to decode from: it gets the ring's last key frame, and what came since.
    fn begin_anew(&mut self) {
        self.restarted = clock::instant();
        self.reader = self.ring.reader(Start::LastKey);
        self.wants_key = true;
    }

    fn received(&mut self, datagram: &Datagram) -> Result<(), RtcError> {
        let Datagram { at, from, to, bytes } = datagram;
        // What cannot be understood is nobody's.
        let Ok(receive) = Receive::new(Protocol::Udp, *from, *to, bytes) else { return Ok(()) };
        let input = Input::Receive(*at, receive);
        if self.rtc.accepts(&input) { self.rtc.handle_input(input) } else { Ok(()) }
    }

    /// Sends a frame and those that are there behind it, a burst at most.
    fn read(&mut self, read: Read) -> Result<(), RtcError> {
        let (mut next, mut burst) = (Some(read), 0);
        while let Some(read) = next {
            match read {
                Read::Frame(frame) => {
                    burst += frame.data.len();
                    self.send(&frame)?;
                }
                // Older than all that is kept: nobody wants to see that.
                Read::Skipped(_) => self.begin_anew(),
                Read::Ended => {
                    self.rtc.disconnect();
                    return Ok(());
                }
            }
            if burst >= BURST {
                self.rests = Some(clock::instant() + PAUSE);
                return Ok(());
            }
            next = self.reader.try_next();
        }
        Ok(())
    }

    fn send(&mut self, frame: &Arc<Frame>) -> Result<(), RtcError> {
        let now = clock::mono();
        let pictures = frame.track == Track::Video;
        if pictures && self.wants_key && !frame.key || !pictures && Line::is_old(frame, now) {
            return Ok(());
        }
        let out = if pictures { &mut self.video } else { &mut self.audio };
        let Some(out) = out else { return Ok(()) };
        let Some((pt, rate)) = codecs::choose(&self.rtc, out.mid, &frame.format) else { return Ok(()) };
        let Some(payloads) = self.parcels.of(frame) else { return Ok(()) };
        let line = out.line.get_or_insert_with(|| Line::new(rate, &mut self.random));
        let stamp = line.stamp(frame, now, payloads.len());
        let sent = clock::instant();
        // The clock that frames are dated by counts suspends too, this one does not.
        let captured = sent.checked_sub(now.since(frame.arrived)).unwrap_or(sent);
        let mut direct = self.rtc.direct_api();
        let Some(stream) = direct.stream_tx_by_mid(out.mid, None) else { return Ok(()) };
        let last = payloads.len().saturating_sub(1);
        for (i, payload) in payloads.iter().enumerate() {
            let number = (stamp.sequence + i as u64).into();
            let packet = RtpWrite::new(pt, number, stamp.time, captured, payload.clone());
            stream.write_rtp(packet.marker(pictures && i == last).nackable(pictures));
        }
        self.wants_key &= !pictures;
        self.drain()?;
        self.rtc.handle_input(Input::Timeout(clock::instant()))?;
        self.drain().map(drop)
    }
}

/// What we speak: the codecs that cameras and browsers have in common, as they come.
fn config() -> RtcConfig {
    RtcConfig::new()
        .clear_codecs()
        .enable_h264(true)
        .enable_h265(true)
        .enable_opus(true, false)
        .enable_pcmu(true, false)
        .enable_pcma(true, false)
        .set_rtp_mode(true)
}
