//! What a camera's stream amounts to, for metrics and the field engineer. Pure.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    district::{camera::CameraState, clock::Mono},
    media::frame::{Format, Frame, Track},
};

/// Rates are measured over this long.
const RATES_OVER: Duration = Duration::from_secs(2);

/// The numbers of one camera since the gateway started.
#[derive(Debug, Clone)]
pub struct CameraStats {
    /// What it does now.
    pub state: CameraState,
    /// Why, for people; no secrets.
    pub detail: String,
    /// Pictures put into the ring.
    pub frames: u64,
    /// Packets' worth of sound put into the ring.
    pub sounds: u64,
    /// Their bytes, both.
    pub bytes: u64,
    /// Bits a second now; zero unless it is live.
    pub bitrate: u64,
    /// Pictures a second now; zero unless it is live.
    pub fps: f32,
    /// Between the last two key frames.
    pub key_interval: Option<Duration>,
    /// RTP packets that never came, by their sequence numbers.
    pub lost_packets: u64,
    /// Sessions that delivered pictures.
    pub sessions: u64,
    /// Tries to connect beyond the first.
    pub reconnects: u64,
    /// Timelines begun: sessions, and jumps of its clock.
    pub timelines: u32,
    /// Format of its pictures.
    pub video: Option<Arc<Format>>,
    /// Format of its sound.
    pub audio: Option<Arc<Format>>,
    /// How far its clock is ahead of ours, in microseconds, where it sends RTCP sender reports.
    pub clock_ahead_us: Option<i64>,
    /// When the last picture arrived.
    pub last_frame: Option<Mono>,
    /// What was last wrong with it, and until when, where that is over.
    pub fault: Option<(CameraState, Option<Mono>)>,
}

impl CameraStats {
    /// What was wrong with it at some time since then, the latest.
    pub fn fault_since(&self, since: Mono) -> Option<CameraState> {
        self.fault.filter(|(_, over)| over.is_none_or(|at| at >= since)).map(|(state, _)| state)
    }
}

#[derive(Debug)]
struct Inner {
    stats: CameraStats,
    key_ticks: Option<(u32, i64)>,
    rates: Option<Rates>,
}

#[derive(Debug, Clone, Copy)]
struct Rates {
    since: Mono,
    frames: u64,
    bytes: u64,
}

/// The counters behind [`CameraStats`]: written by the camera's task, read by anyone.
#[derive(Debug)]
pub(super) struct Counters(Mutex<Inner>);

impl Counters {
    pub(super) fn new() -> Arc<Self> {
        let stats = CameraStats {
            state: CameraState::Connecting,
            detail: "not tried yet".into(),
            frames: 0,
            sounds: 0,
            bytes: 0,
            bitrate: 0,
            fps: 0.0,
            key_interval: None,
            lost_packets: 0,
            sessions: 0,
            reconnects: 0,
            timelines: 0,
            video: None,
            audio: None,
            clock_ahead_us: None,
            last_frame: None,
            fault: None,
        };
        Arc::new(Self(Mutex::new(Inner { stats, key_ticks: None, rates: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> CameraStats {
        let mut stats = self.lock().stats.clone();
        if stats.state != CameraState::Live {
            (stats.bitrate, stats.fps) = (0, 0.0);
        }
        stats
    }

    pub(super) fn state(&self, now: Mono, state: CameraState, detail: &str) {
        let mut inner = self.lock();
        inner.stats.fault = match (state, inner.stats.fault) {
            (CameraState::Live, Some((fault, None))) => Some((fault, Some(now))),
            (CameraState::Live | CameraState::Connecting, fault) => fault,
            (fault, _) => Some((fault, None)),
        };
        inner.stats.sessions += u64::from(state == CameraState::Live);
        inner.stats.state = state;
        detail.clone_into(&mut inner.stats.detail);
        inner.rates = None;
        inner.key_ticks = None;
    }

    pub(super) fn reconnects(&self) {
        self.lock().stats.reconnects += 1;
    }

    pub(super) fn clock_ahead(&self, us: Option<i64>) {
        self.lock().stats.clock_ahead_us = us;
    }

    pub(super) fn lost(&self, packets: u16) {
        self.lock().stats.lost_packets += u64::from(packets);
    }

    /// Counts a frame on its way into the ring.
    pub(super) fn frame(&self, frame: &Frame) {
        let mut inner = self.lock();
        inner.count(frame);
        inner.measure(frame.arrived);
    }
}

impl Inner {
    fn count(&mut self, frame: &Frame) {
        let stats = &mut self.stats;
        stats.bytes += frame.data.len() as u64;
        stats.timelines = frame.timeline.wrapping_add(1);
        let format = match frame.track {
            Track::Video => {
                stats.frames += 1;
                stats.last_frame = Some(frame.arrived);
                &mut stats.video
            }
            Track::Audio => {
                stats.sounds += 1;
                &mut stats.audio
            }
        };
        if !format.as_ref().is_some_and(|f| Arc::ptr_eq(f, &frame.format)) {
            *format = Some(frame.format.clone());
        }
        if frame.key && frame.track == Track::Video {
            if let Some((timeline, ticks)) = self.key_ticks
                && timeline == frame.timeline
            {
                let between = frame.ticks.saturating_sub(ticks) as f64 / f64::from(frame.format.clock_rate.max(1));
                stats.key_interval = Duration::try_from_secs_f64(between).ok();
            }
            self.key_ticks = Some((frame.timeline, frame.ticks));
        }
    }

    fn measure(&mut self, now: Mono) {
        let (frames, bytes) = (self.stats.frames, self.stats.bytes);
        let Some(rates) = self.rates else {
            self.rates = Some(Rates { since: now, frames, bytes });
            return;
        };
        let span = now.since(rates.since);
        if span >= RATES_OVER {
            let seconds = span.as_secs_f64();
            self.stats.bitrate = ((bytes - rates.bytes) as f64 * 8.0 / seconds) as u64;
            self.stats.fps = ((frames - rates.frames) as f64 / seconds) as f32;
            self.rates = Some(Rates { since: now, frames, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{district::clock::Utc, media::frame::Codec};

    #[test]
    fn rates_and_key_intervals_are_those_of_the_stream() {
        let counters = Counters::new();
        counters.state(Mono::default(), CameraState::Live, "");
        let format = Arc::new(Format::bare(Codec::H264, 90_000));
        for i in 0..200_u64 {
            counters.frame(&Frame {
                track: Track::Video,
                timeline: 0,
                ticks: i as i64 * 3_600,
                captured: Utc::default(),
                arrived: Mono::from_boot(Duration::from_millis(i * 40)),
                key: i % 50 == 0,
                lost_before: 0,
                format: format.clone(),
                data: Bytes::from_static(&[0; 1_000]),
            });
        }
        let stats = counters.read();
        assert_eq!((stats.frames, stats.key_interval), (200, Some(Duration::from_secs(2))));
        assert!((stats.fps - 25.0).abs() < 0.1 && stats.bitrate.abs_diff(200_000) < 1_000, "{stats:?}");
        counters.state(Mono::default(), CameraState::Stalled, "");
        assert_eq!(counters.read().bitrate, 0);
    }

    #[test]
    fn what_was_wrong_is_known_while_it_lasts_and_for_what_came_before_its_end() {
        let at = |s| Mono::from_boot(Duration::from_secs(s));
        let counters = Counters::new();
        let fault = |since| counters.read().fault_since(at(since));
        counters.state(at(10), CameraState::Live, "");
        assert_eq!(fault(0), None);
        counters.state(at(20), CameraState::Unreachable, "");
        assert_eq!(fault(90), Some(CameraState::Unreachable));
        counters.state(at(30), CameraState::Connecting, "");
        counters.state(at(31), CameraState::Live, "");
        assert_eq!((fault(25), fault(32)), (Some(CameraState::Unreachable), None));
    }
}
