//! A camera's clock: from RTP timestamps to ticks, timelines and wall time. Pure.
//!
//! RTP timestamps (RFC 3550 section 5.1) become ticks that never go back within a timeline, and wall time at a constant
//! offset to them.
//!
//! Wall time here is always *this gateway's*: presses are stamped by it, so pictures must be too.
//! - With sender reports (RFC 3550 section 6.4.1) the camera's own relation of picture to clock is kept, encoder delay
//!   and lip sync included. Where its clock is more than [`TRUSTED`] off ours, the difference is taken out.
//! - Without them a frame counts as captured when it arrived, smoothed by the smallest delay seen.
//!
//! A forced new timeline (a new session, a step back, a jump ahead) begins at once. A better mapping (the first sender
//! report, drift) waits for a key frame, so that whoever cuts at timelines cuts where decoding can begin.

use std::time::Duration;

use crate::{
    district::clock::{Mono, Utc},
    media::frame::Track,
};

/// A camera's clock this near to ours is taken as it is: the difference may be the network's.
pub const TRUSTED: Duration = Duration::from_secs(1);
/// A step back larger than this is a new timeline; a smaller one holds the ticks where they are.
pub const STEP_BACK: Duration = Duration::from_millis(500);
/// Ticks this far ahead of what arrival allows are a new timeline.
pub const JUMP_AHEAD: Duration = Duration::from_secs(3);

/// The first sender report may correct the mapping by arrival when it is this far off.
const FIRST_LIMIT_US: i64 = 200_000;
/// Later corrections: drift of either clock.
const DRIFT_LIMIT_US: i64 = 500_000;
/// Sound and picture apart by more than this against the sender reports is worth a correction.
const LIP_SYNC_US: i64 = 80_000;
/// The smallest delay is judged over this long; corrections are at least this far apart.
const WINDOW: Duration = Duration::from_secs(10);
/// A sender report that says a frame was captured longer before its arrival than this is not believed.
const MAX_DELAY_US: i64 = 10_000_000;
/// Seconds from 1900 to 1970: what NTP counts from, and what UTC here counts from.
const NTP_EPOCH_S: i64 = 2_208_988_800;
/// How many sender reports the comparison of clocks looks back.
const REPORTS: usize = 4;

/// When something arrived, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// For order and spans.
    pub mono: Mono,
    /// For people.
    pub wall: Utc,
}

/// A timestamp as the camera sent it.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Whose.
    pub track: Track,
    /// Ticks a second.
    pub rate: u32,
    /// The 32 bits of the RTP header, or of a sender report.
    pub rtp: u32,
}

/// Where a frame belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// See [`crate::media::frame::Frame::timeline`].
    pub timeline: u32,
    /// See [`crate::media::frame::Frame::ticks`].
    pub ticks: i64,
    /// See [`crate::media::frame::Frame::captured`].
    pub captured: Utc,
}

/// The clock of one camera, through all its sessions.
#[derive(Debug, Default)]
pub struct Clock {
    number: u32,
    /// Whether the current timeline has frames.
    used: bool,
    video: TrackClock,
    audio: TrackClock,
    comparison: Comparison,
    /// A better mapping is known and waits for a key frame.
    planned: bool,
    corrected: Option<Mono>,
}

impl Clock {
    /// Forgets the last session: its clock tells nothing about the next one's.
    pub fn begin_session(&mut self) {
        self.restart();
        self.comparison = Comparison::default();
        self.corrected = None;
    }

    /// The number of the current timeline.
    pub fn timeline(&self) -> u32 {
        self.number
    }

    /// How far the camera's clock is ahead of ours in microseconds, where it sends reports.
    pub fn camera_ahead_us(&self) -> Option<i64> {
        self.comparison.behind_us().map(|us| -us)
    }

    /// Places a frame. `cut` says that a planned correction may take effect here: at a key frame of the pictures, or
    /// anywhere when there are none.
    pub fn frame(&mut self, at: Arrival, stamp: Stamp, cut: bool) -> Placed {
        if self.track(stamp.track).discontinuous(at.mono, stamp) {
            self.restart();
        } else if cut && self.planned {
            self.correct(at);
        }
        self.used = true;
        let applied = self.comparison.applied_us;
        let (ticks, captured_us) = self.track_mut(stamp.track).place(at, stamp, applied);
        self.planned |= self.track(stamp.track).drifted();
        Placed { timeline: self.number, ticks, captured: Utc::from_micros(captured_us) }
    }

    /// Takes a sender report: at `ntp` (64 bits, RFC 5905 section 6) on the camera's clock its track stood at `stamp`.
    pub fn sender_report(&mut self, at: Arrival, stamp: Stamp, ntp: u64) {
        let Some(ntp_us) = ntp_micros(ntp, at.wall) else { return };
        self.comparison.learn(at.wall.micros().saturating_sub(ntp_us));
        let applied = self.comparison.applied_us;
        let track = self.track_mut(stamp.track);
        track.report = Some(Report { rtp: stamp.rtp, ntp_us });
        let Some(base) = track.reported_base(at, applied) else { return };
        let limit = if track.settled { DRIFT_LIMIT_US } else { FIRST_LIMIT_US };
        track.settled = true;
        let off = base.saturating_sub(track.base_us).saturating_abs() > limit;
        self.planned |= off || self.lips_apart(at);
    }

    fn lips_apart(&self, at: Arrival) -> bool {
        let applied = self.comparison.applied_us;
        match (self.video.reported_base(at, applied), self.audio.reported_base(at, applied)) {
            (Some(video), Some(audio)) => {
                let is = self.video.base_us.saturating_sub(self.audio.base_us);
                video.saturating_sub(audio).saturating_sub(is).saturating_abs() > LIP_SYNC_US
            }
            _ => false,
        }
    }

    /// Begins a timeline of which nothing is known.
    fn restart(&mut self) {
        if self.used {
            self.number = self.number.wrapping_add(1);
        }
        self.used = false;
        self.planned = false;
        self.video = TrackClock::default();
        self.audio = TrackClock::default();
    }

    /// Begins a timeline with the best mapping known.
    fn correct(&mut self, at: Arrival) {
        if self.corrected.is_some_and(|last| at.mono.since(last) < WINDOW) {
            return;
        }
        self.number = self.number.wrapping_add(1);
        self.planned = false;
        self.corrected = Some(at.mono);
        let applied = self.comparison.applied_us;
        self.video.correct(at, applied);
        self.audio.correct(at, applied);
    }

    fn track(&self, track: Track) -> &TrackClock {
        match track {
            Track::Video => &self.video,
            Track::Audio => &self.audio,
        }
    }

    fn track_mut(&mut self, track: Track) -> &mut TrackClock {
        match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Last {
    rtp: u32,
    /// Unwrapped as it came.
    raw: i64,
    /// As given out: never less than before.
    ticks: i64,
    arrived: Mono,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    rtp: u32,
    ntp_us: i64,
}

#[derive(Debug, Default)]
struct TrackClock {
    rate: u32,
    last: Option<Last>,
    /// Wall time in microseconds where ticks are zero.
    base_us: i64,
    report: Option<Report>,
    /// A sender report has been compared with the mapping.
    settled: bool,
    delay: SmallestDelay,
}

impl TrackClock {
    fn discontinuous(&self, now: Mono, stamp: Stamp) -> bool {
        let Some(last) = self.last else { return false };
        let raw = unwrap(last, stamp.rtp);
        let back = micros(last.ticks.saturating_sub(raw), self.rate);
        let ahead = micros(raw.saturating_sub(last.raw), self.rate).saturating_sub(span_us(now.since(last.arrived)));
        back > span_us(STEP_BACK) || ahead > span_us(JUMP_AHEAD)
    }

    /// Ticks and capture time of a frame that follows on.
    fn place(&mut self, at: Arrival, stamp: Stamp, applied_us: i64) -> (i64, i64) {
        let (raw, ticks) = match self.last {
            Some(last) => {
                let raw = unwrap(last, stamp.rtp);
                (raw, raw.max(last.ticks))
            }
            None => (i64::from(stamp.rtp), i64::from(stamp.rtp)),
        };
        let first = self.last.is_none();
        self.rate = stamp.rate.max(1);
        self.last = Some(Last { rtp: stamp.rtp, raw, ticks, arrived: at.mono });
        if first {
            let by_arrival = at.wall.micros().saturating_sub(micros(ticks, self.rate));
            let reported = self.reported_base(at, applied_us);
            self.settled = reported.is_some();
            self.base_us = reported.unwrap_or(by_arrival);
        }
        let captured = self.base_us.saturating_add(micros(ticks, self.rate));
        self.delay.learn(at.mono, at.wall.micros().saturating_sub(captured));
        (ticks, captured)
    }

    /// What the newest sender report says `base_us` should be; `None` without one that can be believed.
    fn reported_base(&self, at: Arrival, applied_us: i64) -> Option<i64> {
        let (last, report) = (self.last?, self.report?);
        let ticks = unwrap(last, report.rtp);
        let base = report.ntp_us.saturating_add(applied_us).saturating_sub(micros(ticks, self.rate));
        let arrived = at.wall.micros().saturating_sub(span_us(at.mono.since(last.arrived)));
        let delay = arrived.saturating_sub(base.saturating_add(micros(last.raw, self.rate)));
        (-span_us(TRUSTED) - DRIFT_LIMIT_US..=MAX_DELAY_US).contains(&delay).then_some(base)
    }

    /// Whether arrivals alone show that the mapping is off.
    fn drifted(&self) -> bool {
        // With sender reports, those decide, until they have nothing to do with what arrives: our own clock was set.
        let bound = if self.settled { MAX_DELAY_US } else { 0 };
        self.delay.error_us().is_some_and(|us| us.saturating_abs() > bound)
    }

    fn correct(&mut self, at: Arrival, applied_us: i64) {
        let by_arrival = self.base_us.saturating_add(self.delay.error_us().unwrap_or(0));
        self.base_us = self.reported_base(at, applied_us).unwrap_or(by_arrival);
        self.delay = SmallestDelay::default();
    }
}

/// The smallest time from capture to arrival, window by window. By arrival it should be zero.
#[derive(Debug, Default)]
struct SmallestDelay {
    since: Option<Mono>,
    current_us: i64,
    /// Of the last whole window.
    window_us: i64,
}

impl SmallestDelay {
    fn learn(&mut self, now: Mono, delay_us: i64) {
        match self.since {
            Some(since) if now.since(since) < WINDOW => self.current_us = self.current_us.min(delay_us),
            since => {
                self.window_us = if since.is_some() { self.current_us } else { 0 };
                (self.since, self.current_us) = (Some(now), delay_us);
            }
        }
    }

    /// By how much the mapping is off, when that is too much: at once when frames arrive before they were captured,
    /// after a whole window when they all arrive late.
    fn error_us(&self) -> Option<i64> {
        if self.current_us < -FIRST_LIMIT_US {
            return Some(self.current_us);
        }
        (self.window_us > DRIFT_LIMIT_US).then_some(self.window_us)
    }
}

/// Our clock against the camera's.
#[derive(Debug, Default)]
struct Comparison {
    /// Our wall time minus the camera's, at the last reports. The smallest had the least delay on the way.
    recent_us: [Option<i64>; REPORTS],
    next: usize,
    /// What is added to the camera's clock.
    applied_us: i64,
}

impl Comparison {
    fn learn(&mut self, behind_us: i64) {
        if let Some(slot) = self.recent_us.get_mut(self.next % REPORTS) {
            *slot = Some(behind_us);
        }
        self.next = self.next.wrapping_add(1);
        let behind = self.behind_us().unwrap_or(0);
        // A clock once corrected is trusted again only when it is well within the bound.
        let bound = if self.applied_us == 0 { span_us(TRUSTED) } else { span_us(TRUSTED) / 2 };
        let wanted = if behind.saturating_abs() <= bound { 0 } else { behind };
        if wanted.saturating_sub(self.applied_us).saturating_abs() > DRIFT_LIMIT_US {
            self.applied_us = wanted;
        }
    }

    fn behind_us(&self) -> Option<i64> {
        self.recent_us.iter().flatten().min().copied()
    }
}

fn unwrap(last: Last, rtp: u32) -> i64 {
    last.raw.saturating_add(i64::from(rtp.wrapping_sub(last.rtp).cast_signed()))
}

fn micros(ticks: i64, rate: u32) -> i64 {
    let us = (i128::from(ticks) * 1_000_000).div_euclid(i128::from(rate.max(1)));
    i64::try_from(us).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX })
}

fn span_us(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// NTP's 64 bits as microseconds since 1970, in the era nearest to `near`. Zero means that the camera has no clock.
fn ntp_micros(ntp: u64, near: Utc) -> Option<i64> {
    if ntp == 0 {
        return None;
    }
    let seconds = i64::try_from(ntp >> 32).ok()? - NTP_EPOCH_S;
    let fraction = i64::try_from(((ntp & 0xffff_ffff) * 1_000_000) >> 32).ok()?;
    let us = seconds * 1_000_000 + fraction;
    let next_era = us + (1_i64 << 32) * 1_000_000;
    let distance = |t: i64| near.micros().saturating_sub(t).saturating_abs();
    Some(if distance(next_era) < distance(us) { next_era } else { us })
}

#[cfg(test)]
mod tests;
