//! Where the frames of one track stand on a recording's own time line. Pure.

use std::{sync::Arc, time::Duration};

use super::{
    frame::{Codec, Format, Frame, Track},
    piece::Stretch,
};

/// Ticks of one rate in another's, rounded up or to the nearest.
pub(super) fn rescale(ticks: i64, from: u32, to: u32, up: bool) -> i64 {
    let (wide, from) = (i128::from(ticks) * i128::from(to), i128::from(from.max(1)));
    let add = if up { from - 1 } else { from / 2 };
    i64::try_from((wide + add).div_euclid(from)).unwrap_or(i64::MAX)
}

/// A span in ticks, rounded down.
pub(super) fn ticks_in(span: Duration, rate: u32) -> i64 {
    i64::try_from(span.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(i64::MAX)
}

/// A span in ticks, rounded to the nearest.
pub(super) fn ticks_near(span: Duration, rate: u32) -> i64 {
    ticks_in(span + Duration::from_nanos(500_000_000 / u64::from(rate.max(1))), rate)
}

/// A span in ticks, rounded up.
pub(super) fn ticks_from(span: Duration, rate: u32) -> i64 {
    let ticks = (span.as_nanos() * u128::from(rate)).div_ceil(1_000_000_000);
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

/// Ticks as a span, to the nanosecond below; zero for negative ones.
pub(super) fn span_of(ticks: i64, rate: u32) -> Duration {
    let (ticks, rate) = (u64::try_from(ticks).unwrap_or(0), u64::from(rate.max(1)));
    Duration::from_secs(ticks / rate) + Duration::from_nanos(ticks % rate * 1_000_000_000 / rate)
}

/// Ties a camera's ticks to the recording's: made once per timeline and track, exact ever after.
#[derive(Debug, Clone)]
pub(super) struct Anchor {
    /// The frame it was made from.
    pub frame: Arc<Frame>,
    /// Where that frame stands, in the track's ticks since the recording's beginning.
    pub at: i64,
}

impl Anchor {
    /// Where a frame of the same timeline stands.
    pub fn time(&self, frame: &Frame) -> i64 {
        self.at + (frame.ticks - self.frame.ticks)
    }

    /// Whether this frame's ticks can be read by this anchor.
    pub fn fits(&self, frame: &Frame) -> bool {
        let own = &*self.frame;
        own.timeline == frame.timeline
            && own.track == frame.track
            && own.format.clock_rate == frame.format.clock_rate
            && frame.ticks >= own.ticks
    }

    /// The anchor of a sound track beside this one of pictures, by when both were captured; by when both arrived
    /// where the camera's two clocks disagree by more than any network delays (some cameras' sound has no true time).
    pub fn beside(&self, sound: &Arc<Frame>) -> Anchor {
        const PLAUSIBLE_US: i64 = 5_000_000;
        let captured = sound.captured.micros().saturating_sub(self.frame.captured.micros());
        let (a, b) =
            (sound.arrived.since_boot().as_micros() as i64, self.frame.arrived.since_boot().as_micros() as i64);
        let arrived = a - b;
        let us = if captured.saturating_sub(arrived).abs() <= PLAUSIBLE_US { captured } else { arrived };
        let rate = sound.format.clock_rate;
        let at = rescale(self.at, self.frame.format.clock_rate, rate, false) + rescale(us, 1_000_000, rate, false);
        Anchor { frame: sound.clone(), at }
    }
}

/// Frames of one track that are not yet in a fragment, all of one format and timeline.
#[derive(Debug)]
pub(super) struct Line {
    pub anchor: Anchor,
    pub format: Arc<Format>,
    /// In order; empty in the leading line only while the recording pauses.
    pub held: Vec<Arc<Frame>>,
    /// Bytes of the frames held.
    pub bytes: usize,
    /// Ticks of the newest frame pushed.
    last: i64,
    /// Newest distance between two frames, in ticks: how long a frame lasts whose successor is unknown.
    delta: i64,
}

impl Line {
    pub fn new(anchor: Anchor, first: Arc<Frame>) -> Self {
        let format = first.format.clone();
        let delta = match format.codec {
            Codec::Aac => 1024, // samples an access unit, ISO/IEC 14496-3 section 4.5.2.1.1
            _ if first.track == Track::Audio => i64::from(format.clock_rate) / 50,
            _ => i64::from(format.clock_rate) / 25,
        };
        let bytes = first.data.len();
        Self { anchor, format, last: first.ticks, held: vec![first], bytes, delta: delta.max(1) }
    }

    pub fn rate(&self) -> u32 {
        self.format.clock_rate
    }

    pub fn time(&self, frame: &Frame) -> i64 {
        self.anchor.time(frame)
    }

    pub fn delta(&self) -> i64 {
        self.delta
    }

    /// Whether a frame goes on where this line stands.
    pub fn continues(&self, frame: &Frame) -> bool {
        self.anchor.fits(frame)
            && (Arc::ptr_eq(&self.format, &frame.format) || self.format == frame.format)
            && frame.ticks >= self.last
    }

    pub fn push(&mut self, frame: Arc<Frame>) {
        if frame.ticks > self.last {
            self.delta = frame.ticks - self.last;
        }
        self.last = frame.ticks;
        self.bytes += frame.data.len();
        self.held.push(frame);
    }

    /// Takes the first `count` frames out, the last of them lasting until `until` (the camera's ticks).
    pub fn take(&mut self, count: usize, until: i64) -> Stretch {
        let frames: Vec<_> = self.held.drain(..count.min(self.held.len())).collect();
        self.bytes -= frames.iter().map(|f| f.data.len()).sum::<usize>();
        let next = frames.iter().skip(1).map(|f| f.ticks).chain([until]);
        let durations = frames.iter().zip(next).map(|(f, next)| u32::try_from(next - f.ticks).unwrap_or(0)).collect();
        let time = frames.first().map_or(0, |f| self.time(f));
        Stretch { frames, durations, time }
    }

    /// Takes out the sound that belongs into a fragment ending at `end` (this line's ticks on the recording's time
    /// line): frames that begin before it and whose length is known, because the next has come or is overdue. With
    /// `all`, everything held.
    pub fn take_until(&mut self, end: i64, all: bool) -> Stretch {
        let before = self.held.partition_point(|f| self.time(f) < end);
        let last = self.held.last().map_or(0, |f| f.ticks);
        let overdue = self.held.last().is_some_and(|f| self.time(f) + 2 * self.delta <= end);
        if all || (before == self.held.len() && overdue) {
            return self.take(self.held.len(), last + self.delta);
        }
        let count = before.min(self.held.len().saturating_sub(1));
        let until = self.held.get(count).map_or(0, |f| f.ticks);
        self.take(count, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_spans_convert_without_drift() {
        assert_eq!(rescale(90_000 * 3600 * 24 * 365, 90_000, 48_000, false), 48_000 * 3600 * 24 * 365);
        assert_eq!(rescale(1, 90_000, 48_000, true), 1);
        assert_eq!(rescale(-1, 90_000, 48_000, true), 0);
        assert_eq!(rescale(-6_500, 1_000_000, 48_000, false), -312);
        assert_eq!(span_of(3003, 90_000), Duration::from_nanos(33_366_666));
        assert_eq!(ticks_in(Duration::from_millis(4_500), 90_000), 405_000);
        assert_eq!(span_of(-5, 90_000), Duration::ZERO);
    }
}
