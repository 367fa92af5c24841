//! One track on its way to one viewer: RTP sequence numbers and times that go on without a break whatever the camera does.
//! Pure.
//!
//! A viewer begins at the last key frame, which may be seconds old. Those seconds have to be decoded, but not to be
//! lived through again: their frames get times a millisecond apart, and from the newest on time goes as the camera's does.
//! A receiver that places frames by their times so is with the camera from the first moment on.

use std::time::Duration;

use crate::{district::clock::Mono, media::frame::Frame};

/// Frames older than this are caught up with.
const OLD: Duration = Duration::from_millis(150);

/// A track on its way out.
#[derive(Debug)]
pub struct Line {
    /// RTP clock, in ticks a second.
    rate: u32,
    sequence: u64,
    /// The time of the last frame sent, unwrapped.
    time: u64,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    timeline: u32,
    ticks: i64,
    clock_rate: u32,
    arrived: Mono,
}

/// Where a frame stands in RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// RTP timestamp.
    pub time: u32,
    /// Extended sequence number of its first packet.
    pub sequence: u64,
}

impl Line {
    /// A line whose numbers begin at a random place (RFC 3550 section 5.1).
    pub fn new(rate: u32, random: &mut fastrand::Rng) -> Self {
        // Below 2^15, so that the roll-over counter begins at zero on both sides (RFC 3711 section 3.3.1).
        Self { rate, sequence: u64::from(random.u16(..1 << 15)), time: u64::from(random.u32(..)), last: None }
    }

    /// What follows is of another stream, whose ticks say nothing beside those of the last one.
    pub fn cut(&mut self) {
        if let Some(last) = &mut self.last {
            last.clock_rate = 0;
        }
    }

    /// Whether a frame is from before the viewer came or from a moment when it was behind.
    pub fn is_old(frame: &Frame, now: Mono) -> bool {
        now.since(frame.arrived) > OLD
    }

    /// Whether it went out already: who begins anew at a key frame reads its sound again.
    pub fn has_sent(&self, frame: &Frame) -> bool {
        self.last.as_ref().is_some_and(|last| last.timeline == frame.timeline && frame.ticks <= last.ticks)
    }

    /// Gives a frame of `packets` packets its place.
    pub fn stamp(&mut self, frame: &Frame, now: Mono, packets: usize) -> Stamp {
        let step = self.last.as_ref().map_or(0, |last| self.step(last, frame));
        let millisecond = u64::from(self.rate / 1000);
        self.time += if Self::is_old(frame, now) { step.min(millisecond) } else { step };
        self.last = Some(Last {
            timeline: frame.timeline,
            ticks: frame.ticks,
            clock_rate: frame.format.clock_rate,
            arrived: frame.arrived,
        });
        let sequence = self.sequence;
        self.sequence += packets as u64;
        Stamp { time: self.time as u32, sequence }
    }

    /// Ticks from the last frame to this one: by the camera's clock, or where that began anew, by ours.
    fn step(&self, last: &Last, frame: &Frame) -> u64 {
        let same = last.timeline == frame.timeline && last.clock_rate == frame.format.clock_rate;
        match u64::try_from(frame.ticks - last.ticks) {
            Ok(ticks) if same => ticks * u64::from(self.rate) / u64::from(last.clock_rate.max(1)),
            _ => (frame.arrived.since(last.arrived).as_secs_f64() * f64::from(self.rate)) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        district::clock::Utc,
        media::frame::{Codec, Format, Track},
    };

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    fn frame(timeline: u32, ms: i64, arrived: u64) -> Frame {
        let format = Format::bare(Codec::H264, 90_000);
        Frame {
            track: Track::Video,
            timeline,
            ticks: ms * 90,
            captured: Utc::default(),
            arrived: at(arrived),
            key: false,
            lost_before: 0,
            format: Arc::new(format),
            data: Bytes::new(),
        }
    }

    fn line() -> Line {
        Line::new(90_000, &mut fastrand::Rng::with_seed(7))
    }

    #[test]
    fn seconds_that_are_caught_up_with_take_no_time_and_what_follows_takes_its_own() {
        let mut line = line();
        let now = at(12_000);
        let old: Vec<_> = (0..50).map(|i| line.stamp(&frame(0, i * 40, 10_000 + i as u64 * 40), now, 3)).collect();
        let caught_up = old[49].time.wrapping_sub(old[0].time);
        // The newest of them arrived within the last moments, and so are live.
        assert!(caught_up <= 46 * 90 + 4 * 3_600, "{caught_up}");
        let live: Vec<_> = (50..60)
            .map(|i| line.stamp(&frame(0, i * 40, 10_000 + i as u64 * 40), at(10_000 + i as u64 * 40), 3))
            .collect();
        assert!(live.windows(2).all(|w| w[1].time.wrapping_sub(w[0].time) == 3_600));
        let all: Vec<_> = old.iter().chain(&live).collect();
        assert!(all.windows(2).all(|w| w[1].sequence == w[0].sequence + 3 && w[1].time != w[0].time));
    }

    #[test]
    fn a_camera_whose_clock_begins_anew_goes_on_by_ours() {
        let mut line = line();
        let first = line.stamp(&frame(0, 5_000_000, 1_000), at(1_000), 1);
        let second = line.stamp(&frame(1, 0, 1_500), at(1_500), 1);
        let third = line.stamp(&frame(1, 40, 1_540), at(1_540), 1);
        assert_eq!(second.time.wrapping_sub(first.time), 45_000);
        assert_eq!(third.time.wrapping_sub(second.time), 3_600);
        let back = line.stamp(&frame(1, 10, 1_550), at(1_550), 1);
        assert_eq!(back.time.wrapping_sub(third.time), 900, "a step back is none");
    }
}
