//! A ring on its way to one browser: its pictures and its sound, each in a stream of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use str0m::{
    Rtc,
    media::{MediaKind, Mid},
    rtp::RtpWrite,
};

use super::{codecs, line::Line, parcels::Parcels};
use crate::{
    host::clock,
    media::{
        frame::{Codec, Frame, Track},
        ring::{Read, Reader, Ring, Start},
    },
};

/// A browser that lost pictures begins anew at most this often.
const RESTART: Duration = Duration::from_secs(1);

/// A ring, and the payloads of its frames that all who read it share.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    pub ring: Arc<Ring>,
    pub parcels: Arc<Parcels>,
}

/// A ring on its way to one browser.
#[derive(Debug)]
pub(super) struct Feed {
    tap: Tap,
    reader: Reader,
    video: Option<Out>,
    audio: Option<Out>,
    /// While this is set its sound is kept back.
    hushed: Option<Arc<AtomicBool>>,
    /// Nothing can be decoded before the next key frame.
    wants_key: bool,
    /// When it last began at a key frame.
    restarted: Instant,
}

/// A track on its way to the browser.
#[derive(Debug)]
struct Out {
    mid: Mid,
    line: Option<Line>,
}

impl Feed {
    pub fn new(tap: Tap, hushed: Option<Arc<AtomicBool>>) -> Self {
        let (reader, restarted) = (tap.ring.reader(Start::LastKey), clock::instant());
        Self { tap, reader, video: None, audio: None, hushed, wants_key: true, restarted }
    }

    /// What its pictures are encoded in, where there are any yet.
    pub fn pictures(&self) -> Option<Codec> {
        match self.tap.ring.reader(Start::LastKey).try_next() {
            Some(Read::Frame(frame)) if frame.track == Track::Video => Some(frame.format.codec),
            _ => None,
        }
    }

    /// Takes one of the browser's streams, when it has none of that kind yet. Whether it did.
    pub fn take(&mut self, kind: MediaKind, mid: Mid) -> bool {
        let out = match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        };
        let free = out.is_none();
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
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        if self.video.is_none() && self.audio.is_none() { Poll::Pending } else { self.reader.poll_next(cx) }
    }

    /// The next frame if it is there already.
    pub fn try_next(&mut self) -> Option<Read> {
        self.reader.try_next()
    }

    /// The browser has nothing to decode from: it gets the ring's last key frame, and what came since.
    pub fn begin_anew(&mut self) {
        self.restarted = clock::instant();
        self.reader = self.tap.ring.reader(Start::LastKey);
        self.wants_key = true;
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
    pub fn send(&mut self, rtc: &mut Rtc, frame: &Arc<Frame>, random: &mut fastrand::Rng) -> bool {
        self.give(rtc, frame, random).is_some()
    }

    fn give(&mut self, rtc: &mut Rtc, frame: &Arc<Frame>, random: &mut fastrand::Rng) -> Option<()> {
        let now = clock::mono();
        let pictures = frame.track == Track::Video;
        let kept_back = self.hushed.as_ref().is_some_and(|hushed| hushed.load(Relaxed));
        if pictures && self.wants_key && !frame.key || !pictures && (kept_back || Line::is_old(frame, now)) {
            return None;
        }
        let out = if pictures { self.video.as_mut()? } else { self.audio.as_mut()? };
        let (pt, rate) = codecs::choose(rtc, out.mid, &frame.format)?;
        let payloads = self.tap.parcels.of(frame)?;
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
        Some(())
    }
}
