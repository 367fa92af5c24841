//! One browser's session: a WebRTC peer ([`str0m`]), the rings that it is shown, and what it sends.
//!
//! The peer does no input and output of its own. Each turn of the session's task gives it one thing (a datagram, a frame,
//! the passing of time) and then takes out all that it has to say, until it names the time when it wants to be asked again.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, Input, Output, Rtc, RtcConfig, RtcError,
    change::SdpOffer,
    media::{KeyframeRequestKind, MediaAdded},
    net::{Protocol, Receive},
    rtp::RtpPacket,
    stats::MediaEgressStats,
};
use tokio::sync::{oneshot, watch};

use super::{
    Refused, codecs,
    feed::{Feed, Next, Tap},
    inlet::{Incoming, Inlet, Uptake},
    socket::{Outbox, Socket},
    switchboard::{Datagram, Plugged, Switchboard},
    tcp::{Ends, Wires},
};
use crate::{
    host::clock,
    media::{
        frame::{Codec, Track},
        ring::Read,
    },
};

/// A peer that is not connected within this is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// One that says nothing for so long is lost. A browser says something all the time: it reports what it received each second,
/// and looks every two to three whether we are there (RFC 7675). One that comes back begins a session of its own.
const LOST: Duration = Duration::from_secs(5);
/// How often the link is judged by what the browser reported.
const REPORTS: Duration = Duration::from_secs(1);
/// Bytes of old frames that go out at once, and the pause after them: a burst that is larger is lost in buffers.
const BURST: usize = 96 * 1024;
const PAUSE: Duration = Duration::from_millis(2);

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing can be sent yet.
    Connecting,
    /// The browser is there.
    Connected,
    /// It is over.
    Ended(Why),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// We hung up, by whoever's wish.
    HungUp,
    /// The browser said good-bye.
    Left,
    /// It was heard of no more.
    Lost,
}

/// What a browser is shown, and where what it sends goes.
pub(super) struct Terms {
    /// The rings that it is shown: of its streams of each kind the first shows the first of them that gives such.
    pub taps: Vec<Tap>,
    /// Where what it sends goes, as whose.
    pub inlet: Option<(Arc<Inlet>, u32)>,
}

/// What all sessions send by.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub udp: Arc<Socket>,
    pub tcp: Arc<Wires>,
}

/// A session before it runs.
pub(super) struct Session {
    rtc: Rtc,
    ways: Ways,
    /// The connection that pictures go by, when they do.
    wire: Option<Ends>,
    plugged: Plugged,
    feeds: Vec<Feed>,
    uptake: Option<Uptake>,
    progress: watch::Sender<Progress>,
    /// When it is given up, unless it is heard.
    until: Instant,
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
        ways: Ways,
        board: &Arc<Switchboard>,
        terms: Terms,
    ) -> Result<(String, Self), Refused> {
        let Terms { taps, inlet } = terms;
        let feeds: Vec<_> = taps.into_iter().map(Feed::new).collect();
        let pictures = feeds.first().and_then(Feed::pictures);
        if let Some(codec) = pictures {
            codecs::agree(offer, codec)?;
        }
        let offer = SdpOffer::from_sdp_string(offer).map_err(|e| Refused::Offer(e.to_string()))?;
        let now = clock::instant();
        // What comes in is H.264; where that codec is not the one that goes out, its streams share no preference.
        let mut rtc = config(inlet.is_none() || pictures == Some(Codec::H265)).build(now);
        for candidate in candidates {
            rtc.add_local_candidate(candidate.clone());
        }
        let name = rtc.direct_api().local_ice_credentials().ufrag;
        let answer = rtc.sdp_api().accept_offer(offer).map_err(|e| Refused::Offer(e.to_string()))?;
        let mut session = Self {
            rtc,
            ways,
            wire: None,
            plugged: board.plug(name),
            feeds,
            uptake: inlet.map(|(inlet, party)| Uptake::new(inlet, party)),
            progress: watch::Sender::new(Progress::Connecting),
            until: now + PATIENCE,
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

    /// How far it has come, from now on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Serves the browser until it goes, is hung up, or the gateway stops.
    pub async fn run(mut self, mut hung_up: oneshot::Receiver<()>, stopping: impl Future<Output = ()>) {
        tokio::pin!(stopping);
        let why = loop {
            let deadline = match self.drain() {
                Ok(deadline) => deadline,
                Err(error) => {
                    tracing::debug!(%error, "a session failed");
                    break Why::Lost;
                }
            };
            if !self.rtc.is_alive() {
                break Why::Left;
            }
            if clock::instant() >= self.until {
                break Why::Lost;
            }
            self.rests = self.rests.filter(|until| clock::instant() < *until);
            let wake = self.rests.into_iter().chain([self.until]).fold(deadline, Instant::min);
            let ready = self.connected() && self.rests.is_none();
            let turn = tokio::select! {
                biased;
                () = &mut stopping => break Why::HungUp,
                _ = &mut hung_up => break Why::HungUp,
                Some(datagram) = self.plugged.inbox.recv() => self.received(&datagram),
                (feed, next) = next(&mut self.feeds), if ready => self.read(feed, next),
                () = tokio::time::sleep_until(wake.into()) => self.rtc.handle_input(Input::Timeout(clock::instant())),
            };
            if let Err(error) = turn {
                tracing::debug!(%error, "a session failed");
                break Why::Lost;
            }
        };
        tracing::debug!(?why, "a session ended");
        self.rtc.disconnect();
        let _ = self.drain();
        self.progress.send_replace(Progress::Ended(why));
    }

    fn connected(&self) -> bool {
        *self.progress.borrow() == Progress::Connected
    }

    /// Takes out what the peer has to say; gives the time when it wants to be asked again.
    fn drain(&mut self) -> Result<Instant, RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.outbox.flush(&self.ways.udp);
                    return Ok(at);
                }
                Output::Transmit(t) if t.proto == Protocol::Tcp => {
                    let ends = (t.source, t.destination);
                    // An ICE check tries every way (RFC 7983 section 7: it begins so); all else goes the one that was chosen.
                    self.wire = if t.contents.first().is_some_and(|b| *b > 3) { Some(ends) } else { self.wire };
                    self.ways.tcp.send(t.source, t.destination, &t.contents);
                }
                Output::Transmit(t) => self.outbox.push(&self.ways.udp, t.source.ip(), t.destination, &t.contents),
                Output::Event(event) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::MediaAdded(media) => self.media(media),
            Event::Connected => {
                self.progress.send_replace(Progress::Connected);
                self.until = clock::instant() + LOST;
                self.feeds.iter_mut().for_each(Feed::connected);
            }
            Event::KeyframeRequest(request) => {
                let asked = self.feeds.iter_mut().find(|feed| feed.has(request.mid));
                asked.into_iter().for_each(Feed::asked_for_key);
            }
            Event::RtpPacket(packet) => self.packet(packet),
            Event::MediaEgressStats(stats) => self.stats(&stats),
            _ => {}
        }
    }

    /// What the browser reported of a stream, each second.
    fn stats(&mut self, stats: &MediaEgressStats) {
        let Some(feed) = self.feeds.iter_mut().find(|feed| feed.shows_in(stats.mid)) else { return };
        if let Some(loss) = stats.loss {
            feed.report(stats.plis, loss, stats.rtt);
        }
    }

    fn media(&mut self, media: MediaAdded) {
        if media.direction.is_sending() {
            self.feeds.iter_mut().any(|feed| feed.take(media.kind, media.mid));
        }
    }

    /// A packet of the browser's own pictures or sound.
    fn packet(&mut self, packet: RtpPacket) {
        let Some(uptake) = &mut self.uptake else { return };
        let Some(codec) = codecs::sent(&self.rtc, packet.header.payload_type) else { return };
        let level = packet.header.ext_vals.audio_level.map(i8::unsigned_abs);
        uptake.packet(Incoming {
            codec,
            number: *packet.seq_no,
            time: i64::try_from(packet.time.numer()).unwrap_or_default(),
            marker: packet.header.marker,
            payload: packet.payload,
            level,
        });
        if codec == Codec::H264
            && uptake.wants_key(clock::instant())
            && let Some(stream) = self.rtc.direct_api().stream_rx(&packet.header.ssrc)
        {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    fn received(&mut self, datagram: &Datagram) -> Result<(), RtcError> {
        let Datagram { at, protocol, from, to, bytes } = datagram;
        // What cannot be understood is nobody's.
        let Ok(receive) = Receive::new(*protocol, *from, *to, bytes) else { return Ok(()) };
        let input = Input::Receive(*at, receive);
        if !self.rtc.accepts(&input) {
            return Ok(());
        }
        if self.connected() {
            self.until = *at + LOST;
        }
        self.rtc.handle_input(input)
    }

    /// Sends a frame and those that are there behind it, a burst at most.
    fn read(&mut self, from: usize, first: Next) -> Result<(), RtcError> {
        let (mut next, mut burst) = (Some(first), 0);
        while let Some(Next { read, light }) = next {
            let late = self.wire.is_some_and(|wire| self.ways.tcp.is_late(wire));
            let Some(feed) = self.feeds.get_mut(from) else { return Ok(()) };
            match read {
                // What a slow line is still sent is whole pictures and all of the sound.
                Read::Frame(frame) if late && frame.track == Track::Video => feed.leave_out(),
                Read::Frame(frame) => {
                    burst += frame.data.len();
                    // Nobody is sent her own voice.
                    let own = self.uptake.as_ref().is_some_and(|uptake| uptake.fills(feed.ring()));
                    if !own && feed.send(&mut self.rtc, &frame, light, &mut self.random) {
                        self.drain()?;
                        self.rtc.handle_input(Input::Timeout(clock::instant()))?;
                        self.drain()?;
                    }
                }
                Read::Skipped(_) => feed.skipped(light),
                Read::Ended if light => feed.light_ended(),
                Read::Ended => {
                    self.rtc.disconnect();
                    return Ok(());
                }
            }
            if burst >= BURST {
                self.rests = Some(clock::instant() + PAUSE);
                return Ok(());
            }
            next = self.feeds.get_mut(from).and_then(Feed::try_next);
        }
        Ok(())
    }
}

/// The next frame of any of them, the first one's before the others'.
async fn next(feeds: &mut [Feed]) -> (usize, Next) {
    poll_fn(|cx| {
        let ready = |(i, feed): (usize, &mut Feed)| match feed.poll(cx) {
            Poll::Ready(next) => Some((i, next)),
            Poll::Pending => None,
        };
        feeds.iter_mut().enumerate().find_map(ready).map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// What we speak: the codecs that cameras and browsers have in common, as they come.
fn config(h265: bool) -> RtcConfig {
    RtcConfig::new()
        .clear_codecs()
        .enable_h264(true)
        .enable_h265(h265)
        .enable_opus(true, false)
        .enable_pcmu(true, false)
        .enable_pcma(true, false)
        .set_rtp_mode(true)
        .set_stats_interval(Some(REPORTS))
}
