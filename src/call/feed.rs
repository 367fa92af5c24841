//! A ring on its way to one browser: its pictures and its sound, each in a stream of its own.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use str0m::{
    Rtc,
    media::{MediaKind, Mid},
    rtp::RtpWrite,
};

use super::{
    Shown, codecs,
    line::Line,
    link::{Level, Link, Report},
};
use crate::{
    host::clock,
    media::{
        frame::{Codec, Frame, Track},
        parcels::Parcels,
        ring::{Read, Reader, Ring, Start},
    },
};

/// Largest payload: with headers, extensions and SRTP's tag, and a tunnel's, it fits into what every line carries.
pub(super) const MOST: usize = 1_140;

/// A browser that lost pictures begins anew at most this often.
const RESTART: Duration = Duration::from_secs(1);

/// A ring, and the payloads of its frames that all who read it share.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    pub shown: Shown,
    pub parcels: Arc<Parcels>,
}

/// A camera's lighter stream, begun when it is asked for; it goes on while its ring is held.
#[derive(Clone)]
pub struct Lighter(Arc<dyn Fn() -> Arc<Ring> + Send + Sync>);

impl Lighter {
    /// One that `begin` begins, or finds begun.
    pub fn new(begin: impl Fn() -> Arc<Ring> + Send + Sync + 'static) -> Self {
        Self(Arc::new(begin))
    }
}

impl fmt::Debug for Lighter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lighter(..)")
    }
}

/// The lighter stream of what is shown.
struct Light {
    ring: Arc<Ring>,
    reader: Reader,
    parcels: Arc<Parcels>,
    /// Its pictures are shown: until its first key frame those of the other are.
    shown: bool,
}

/// A ring on its way to one browser.
pub(super) struct Feed {
    tap: Tap,
    reader: Reader,
    light: Option<Light>,
    link: Link,
    /// Times that the browser lost its pictures.
    plis: u64,
    /// Pictures were sent since the last report.
    sent: bool,
    video: Option<Out>,
    audio: Option<Out>,
    /// Nothing can be decoded before the next key frame.
    wants_key: bool,
    /// When it last began at a key frame.
    restarted: Instant,
}

/// What is read.
#[derive(Debug)]
pub(super) struct Next {
    pub read: Read,
    /// Of the lighter stream.
    pub light: bool,
}

/// A track on its way to the browser.
#[derive(Debug)]
struct Out {
    mid: Mid,
    line: Option<Line>,
}

impl Feed {
    pub fn new(tap: Tap) -> Self {
        let (reader, restarted) = (tap.shown.ring.reader(Start::LastKey), clock::instant());
        let link = Link::new(tap.shown.lighter.is_some());
        Self {
            tap,
            reader,
            light: None,
            link,
            plis: 0,
            sent: false,
            video: None,
            audio: None,
            wants_key: true,
            restarted,
        }
    }

    /// What its pictures are encoded in, where there are any yet.
    pub fn pictures(&self) -> Option<Codec> {
        match self.tap.shown.ring.reader(Start::LastKey).try_next() {
            Some(Read::Frame(frame)) if frame.track == Track::Video => Some(frame.format.codec),
            _ => None,
        }
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.tap.shown.ring
    }

    /// Takes one of the browser's streams, when it gives such and has none of that kind yet. Whether it did.
    pub fn take(&mut self, kind: MediaKind, mid: Mid) -> bool {
        let (track, out) = match kind {
            MediaKind::Video => (Track::Video, &mut self.video),
            MediaKind::Audio => (Track::Audio, &mut self.audio),
        };
        let free = out.is_none() && self.tap.shown.only.is_none_or(|only| only == track);
        if free {
            *out = Some(Out { mid, line: None });
        }
        free
    }

    /// Whether it goes into that stream.
    pub fn has(&self, mid: Mid) -> bool {
        [&self.video, &self.audio].into_iter().flatten().any(|out| out.mid == mid)
    }

    /// The next frame. Never where the browser has no stream for it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.video.is_none() && self.audio.is_none() {
            return Poll::Pending;
        }
        if let Poll::Ready(read) = self.reader.poll_next(cx) {
            return Poll::Ready(Next { read, light: false });
        }
        let light = self.light.as_mut().map_or(Poll::Pending, |light| light.reader.poll_next(cx));
        light.map(|read| Next { read, light: true })
    }

    /// The next frame if it is there already.
    pub fn try_next(&mut self) -> Option<Next> {
        let full = self.reader.try_next().map(|read| Next { read, light: false });
        full.or_else(|| Some(Next { read: self.light.as_mut()?.reader.try_next()?, light: true }))
    }

    /// Whether its pictures go into that stream.
    pub fn shows_in(&self, mid: Mid) -> bool {
        self.video.as_ref().is_some_and(|out| out.mid == mid)
    }

    /// The lighter stream is no more.
    pub fn light_ended(&mut self) {
        self.leave_light();
    }

    /// From now on its pictures are those of the full stream.
    fn leave_light(&mut self) {
        self.wants_key = true;
        if self.light.take().is_some_and(|light| light.shown) {
            cut(&mut self.video);
        }
    }

    /// The browser reports how its link is, and how often it lost its pictures until now.
    pub fn report(&mut self, plis: u64, loss: f32, round_trip: Option<Duration>) {
        let broken = plis.saturating_sub(std::mem::replace(&mut self.plis, plis));
        let report = Report { loss, round_trip, broken };
        // A browser that is sent nothing asks for pictures too: that is the camera's fault, and not the link's.
        if !std::mem::take(&mut self.sent) {
            return;
        }
        if !self.link.report(report, clock::mono()) {
            return;
        }
        tracing::debug!(level = ?self.link.level(), ?report, "a browser's link");
        if self.link.level() != Level::Light {
            self.leave_light();
        } else if let Some(Lighter(begin)) = &self.tap.shown.lighter {
            let ring = begin();
            let reader = ring.reader(Start::LastKey);
            self.light = Some(Light { ring, reader, parcels: Arc::new(Parcels::new(MOST)), shown: false });
        }
    }

    /// Frames that the ring no longer has, or the lighter stream's. Nobody wants to see the oldest that is left.
    pub fn skipped(&mut self, light: bool) {
        if light == self.light.as_ref().is_some_and(|light| light.shown) {
            self.begin_anew();
        }
    }

    /// The browser is there.
    pub fn connected(&mut self) {
        self.link.begins(clock::mono());
        self.begin_anew();
    }

    /// The browser has nothing to decode from: it gets the last key frame of what it is shown, and what came since.
    pub fn begin_anew(&mut self) {
        self.restarted = clock::instant();
        self.wants_key = true;
        match self.light.as_mut().filter(|light| light.shown) {
            Some(light) => light.reader = light.ring.reader(Start::LastKey),
            None => self.reader = self.tap.shown.ring.reader(Start::LastKey),
        }
    }

    /// It asks for a key frame. On a bad line it does so again and again, and each answer is more for that line to carry.
    pub fn asked_for_key(&mut self) {
        if clock::instant() >= self.restarted + RESTART {
            self.begin_anew();
        }
    }

    /// A picture is not sent: without it none can be decoded before the next key frame.
    pub fn leave_out(&mut self) {
        self.wants_key = true;
    }

    /// Gives a frame to the peer. Whether there is now something to send.
    pub fn send(&mut self, rtc: &mut Rtc, frame: &Arc<Frame>, light: bool, random: &mut fastrand::Rng) -> bool {
        self.is_wanted(frame, light) && self.give(rtc, frame, light, random).is_some()
    }

    /// Of two streams the sound of the full one, and the pictures of one of them.
    fn is_wanted(&mut self, frame: &Frame, from_light: bool) -> bool {
        let level = self.link.level();
        if frame.track == Track::Audio {
            return !from_light;
        }
        match &mut self.light {
            Some(light) if from_light => {
                if frame.key && !light.shown {
                    light.shown = true;
                    cut(&mut self.video);
                }
                light.shown
            }
            // Until the lighter one is there.
            Some(light) => !light.shown && frame.key,
            None => level == Level::Full || frame.key,
        }
    }

    fn give(&mut self, rtc: &mut Rtc, frame: &Arc<Frame>, light: bool, random: &mut fastrand::Rng) -> Option<()> {
        let now = clock::mono();
        let pictures = frame.track == Track::Video;
        let kept_back = self.tap.shown.hushed.as_ref().is_some_and(|hushed| hushed.load(Relaxed));
        if pictures && self.wants_key && !frame.key || !pictures && (kept_back || Line::is_old(frame, now)) {
            return None;
        }
        let out = if pictures { self.video.as_mut()? } else { self.audio.as_mut()? };
        if !pictures && out.line.as_ref().is_some_and(|line| line.has_sent(frame)) {
            return None;
        }
        let (pt, rate) = codecs::choose(rtc, out.mid, &frame.format)?;
        let parcels = self.light.as_ref().filter(|_| light).map_or(&self.tap.parcels, |light| &light.parcels);
        let payloads = parcels.of(frame)?;
        let line = out.line.get_or_insert_with(|| Line::new(rate, random));
        let stamp = line.stamp(frame, now, payloads.len());
        let sent = clock::instant();
        // The clock that frames are dated by counts suspends too, this one does not.
        let captured = sent.checked_sub(now.since(frame.arrived)).unwrap_or(sent);
        let mut direct = rtc.direct_api();
        let stream = direct.stream_tx_by_mid(out.mid, None)?;
        let last = payloads.len().saturating_sub(1);
        for (i, payload) in payloads.iter().enumerate() {
            let number = (stamp.sequence + i as u64).into();
            let packet = RtpWrite::new(pt, number, stamp.time, captured, payload.clone());
            stream.write_rtp(packet.marker(pictures && i == last).nackable(pictures));
        }
        self.wants_key &= !pictures;
        self.sent |= pictures;
        Some(())
    }
}

/// The next picture is of the other stream.
fn cut(pictures: &mut Option<Out>) {
    pictures.iter_mut().filter_map(|out| out.line.as_mut()).for_each(Line::cut);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ring::{Limits, Ring};

    fn feed(only: Option<Track>) -> Feed {
        let ring = Ring::new(Limits { span: Duration::from_secs(1), bytes: 1 << 20 });
        Feed::new(Tap { shown: Shown { only, ..Shown::of(ring) }, parcels: Arc::new(Parcels::new(MOST)) })
    }

    #[test]
    fn a_stream_goes_to_the_first_ring_that_gives_such_and_has_none() {
        // A camera whose sound is heard from another ring, that ring, and the voice of who has the floor.
        let mut feeds = [feed(Some(Track::Video)), feed(Some(Track::Audio)), feed(None)];
        let mut taker = |kind, mid: &str| feeds.iter_mut().position(|feed| feed.take(kind, mid.into()));
        assert_eq!(taker(MediaKind::Audio, "0"), Some(1));
        assert_eq!(taker(MediaKind::Video, "1"), Some(0));
        assert_eq!(taker(MediaKind::Audio, "2"), Some(2));
        assert_eq!(taker(MediaKind::Video, "3"), Some(2));
        assert_eq!(taker(MediaKind::Audio, "4"), None);
    }
}
