//! Sound that arrived unevenly, given out evenly: what is late is waited for, what is missing is said to be. Pure.
//!
//! Frames wait for so long that the slowest still comes in time. It begins with a guess, [`FIRST`]; every frame that came
//! too late makes the wait longer by what was missing, and while even the slowest frames of the last seconds had time to
//! spare, [`Jitter::has_to_spare`] asks for it back. So nothing is assumed of the sender's clock or of the network.
//!
//! Bounded: at most [`MAX_FRAMES`] frames and [`LONGEST`] of sound. What is more is dropped, the oldest first: in a
//! conversation the newest word counts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    district::clock::Mono,
    media::{
        frame::{Codec, Frame, Track},
        sound::PIECE,
    },
};

/// How long the first frame waits.
const FIRST: Duration = Duration::from_millis(40);
/// The least and the most that the first frame after a pause waits.
const LEAST: Duration = Duration::from_millis(20);
/// See `LEAST`.
const MOST: Duration = Duration::from_millis(200);
/// Time to spare that is kept.
const SPARE: Duration = Duration::from_millis(30);
/// Over so long it is looked at, once and a half on average.
const WINDOW: Duration = Duration::from_millis(1_500);
/// The most sound that is held.
const LONGEST: Duration = Duration::from_millis(300);
/// The most frames that are held, however short.
const MAX_FRAMES: usize = 128;
/// The longest frame that is taken (RFC 6716 section 2 for Opus; cameras send up to 100 ms of G.711).
const LONGEST_FRAME: Duration = Duration::from_millis(120);
/// After so long without a frame the speaker is thought to be silent, and the next frame begins anew.
const PAUSE: Duration = Duration::from_millis(200);
/// Times that are off by less are taken as they come.
const TOLERANCE: Duration = Duration::from_millis(5);
/// Times that are off by more are another stream's.
const JUMP: Duration = Duration::from_secs(1);

/// What comes next.
#[derive(Debug, Clone)]
pub(super) enum Pull {
    /// The next frame.
    Frame(Arc<Frame>),
    /// A stretch of sound is missing. `next` follows right after it, if that has arrived.
    Missing { length: Duration, next: Option<Arc<Frame>> },
    /// Nobody speaks, or the first frame still waits.
    Nothing,
}

/// Counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Frames given out.
    pub played: u64,
    /// Frames that came after their time.
    pub late: u64,
    /// Pieces that had to be made up.
    pub missing: u64,
    /// Frames dropped because too much was held, or because they were no sound.
    pub dropped: u64,
}

/// The buffer of one voice.
#[derive(Debug)]
pub(super) struct Jitter {
    /// By their ticks.
    frames: BTreeMap<i64, Arc<Frame>>,
    stream: Option<Stream>,
    /// Ticks of what comes next; none while the first frame waits.
    next: Option<i64>,
    /// After a pause: the end of what was given out before it.
    ended: Option<i64>,
    /// How long the first frame after a pause waits.
    depth: Duration,
    /// Ticks that were made up while nothing had arrived: either they were lost, or they come late.
    made_up: i64,
    /// For how long nothing has arrived.
    empty: Duration,
    /// The shortest that a frame waited, in this window and the one before; and when this one began.
    shortest: [Option<Duration>; 2],
    window: Mono,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    timeline: u32,
    codec: Codec,
    rate: u32,
}

impl Default for Jitter {
    fn default() -> Self {
        Self {
            frames: BTreeMap::new(),
            stream: None,
            next: None,
            ended: None,
            depth: FIRST,
            made_up: 0,
            empty: Duration::ZERO,
            shortest: [None; 2],
            window: Mono::default(),
            counts: Counts::default(),
        }
    }
}

/// The ticks that a frame of sound lasts. None: it is no sound that is taken here.
pub(super) fn length(frame: &Frame) -> Option<i64> {
    let ticks = match (frame.format.codec, frame.format.clock_rate) {
        (Codec::Pcmu | Codec::Pcma, 8_000) => frame.data.len(),
        (Codec::Opus, 48_000) => opus::packet::get_nb_samples(&frame.data, 48_000).ok()?,
        _ => return None,
    };
    let ticks = i64::try_from(ticks).ok()?;
    let most = ticks_in(LONGEST_FRAME, frame.format.clock_rate);
    (frame.track == Track::Audio && (1..=most).contains(&ticks)).then_some(ticks)
}

fn ticks_in(span: Duration, rate: u32) -> i64 {
    (span.as_micros() as u64 * u64::from(rate) / 1_000_000) as i64
}

fn span_of(ticks: i64, rate: u32) -> Duration {
    Duration::from_micros(ticks.max(0) as u64 * 1_000_000 / u64::from(rate.max(1)))
}

impl Jitter {
    /// Takes a frame as it arrives.
    pub fn push(&mut self, frame: Arc<Frame>) {
        if length(&frame).is_none() {
            self.counts.dropped += 1;
            return;
        }
        let rate = frame.format.clock_rate;
        let stream = Stream { timeline: frame.timeline, codec: frame.format.codec, rate };
        let begins = self.next.or(self.ended);
        let near = self.frames.keys().next_back().copied().or(begins);
        let jumps = near.is_some_and(|at| frame.ticks.abs_diff(at) > ticks_in(JUMP, rate) as u64);
        let is_new = self.stream != Some(stream) || jumps;
        if is_new {
            self.begin_anew(stream);
        }
        if begins.is_some_and(|next| !is_new && frame.ticks + ticks_in(TOLERANCE, rate) < next) {
            self.counts.late += 1;
            return;
        }
        self.frames.entry(frame.ticks).or_insert(frame);
        self.bound(rate);
    }

    fn begin_anew(&mut self, stream: Stream) {
        self.counts.dropped += self.frames.len() as u64;
        self.frames.clear();
        self.stream = Some(stream);
        self.pause();
        self.ended = None;
    }

    fn pause(&mut self) {
        self.ended = self.next;
        (self.next, self.made_up, self.empty, self.shortest) = (None, 0, Duration::ZERO, [None; 2]);
    }

    fn bound(&mut self, rate: u32) {
        while let (Some((first, _)), Some((last, _))) = (self.frames.first_key_value(), self.frames.last_key_value())
            && (self.frames.len() > MAX_FRAMES || span_of(last - first, rate) > LONGEST)
        {
            self.frames.pop_first();
            self.counts.dropped += 1;
            if self.next.is_some() {
                self.next = self.frames.keys().next().copied();
                self.made_up = 0;
            }
        }
    }

    /// What comes next. To be asked whenever the sound given out so far has been used up, and at least every 20 ms.
    pub fn pull(&mut self, now: Mono) -> Pull {
        let Some(Stream { rate, .. }) = self.stream else { return Pull::Nothing };
        let first = self.frames.first_key_value().map(|(at, frame)| (*at, frame.clone()));
        let next = match self.next {
            Some(next) => next,
            None => {
                let Some((at, frame)) = first.as_ref().filter(|(_, frame)| now.since(frame.arrived) >= self.depth)
                else {
                    return Pull::Nothing;
                };
                (self.window, self.shortest) = (frame.arrived, [None; 2]);
                *at
            }
        };
        match first {
            Some((at, frame)) => {
                // What was made up while this had not arrived is taken for what lies between.
                let gap = (at - next - self.made_up).max(0);
                if gap <= ticks_in(TOLERANCE, rate) {
                    self.give(at, frame, next, now)
                } else {
                    self.hole(next, gap, frame)
                }
            }
            None => self.starve(next, rate),
        }
    }

    fn give(&mut self, at: i64, frame: Arc<Frame>, next: i64, now: Mono) -> Pull {
        if self.made_up > 0 && at < next + self.made_up {
            // It was late, and not lost: so much longer must be waited.
            let rate = frame.format.clock_rate;
            self.depth = (self.depth + span_of(next + self.made_up - at, rate)).min(MOST);
        }
        (self.made_up, self.empty) = (0, Duration::ZERO);
        self.frames.remove(&at);
        self.next = Some(at + length(&frame).unwrap_or(0));
        self.counts.played += 1;
        self.waited(now, now.since(frame.arrived));
        Pull::Frame(frame)
    }

    fn hole(&mut self, next: i64, gap: i64, after: Arc<Frame>) -> Pull {
        let rate = after.format.clock_rate;
        let length = gap.min(ticks_in(PIECE, rate));
        self.next = Some(next + self.made_up + length);
        self.made_up = 0;
        self.counts.missing += 1;
        Pull::Missing { length: span_of(length, rate), next: (length == gap).then_some(after) }
    }

    fn starve(&mut self, next: i64, rate: u32) -> Pull {
        self.next = Some(next);
        if self.empty >= PAUSE {
            self.pause();
            return Pull::Nothing;
        }
        self.empty += PIECE;
        self.made_up += ticks_in(PIECE, rate);
        self.counts.missing += 1;
        Pull::Missing { length: PIECE, next: None }
    }

    fn waited(&mut self, now: Mono, wait: Duration) {
        if now.since(self.window) >= WINDOW {
            (self.window, self.shortest) = (now, [None, self.shortest[0]]);
        }
        self.shortest[0] = Some(self.shortest[0].map_or(wait, |shortest| shortest.min(wait)));
    }

    /// Whether the slowest frames of late had more time to spare than is wise to keep: sound could be shortened.
    pub fn has_to_spare(&self) -> bool {
        self.next.is_some() && self.shortest.iter().all(|s| s.is_some_and(|shortest| shortest > SPARE))
    }

    /// The sound was made shorter by so much.
    pub fn shortened(&mut self, by: Duration) {
        self.depth = self.depth.saturating_sub(by).max(LEAST);
        for shortest in self.shortest.iter_mut().flatten() {
            *shortest = shortest.saturating_sub(by);
        }
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{district::clock::Utc, media::frame::Format};

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    /// The `n`th frame of 20 ms, in by `arrived`.
    fn frame(n: i64, arrived: u64) -> Arc<Frame> {
        Arc::new(Frame {
            track: Track::Audio,
            timeline: 0,
            ticks: n * 160,
            captured: Utc::default(),
            arrived: at(arrived),
            key: true,
            lost_before: 0,
            format: Arc::new(Format::bare(Codec::Pcmu, 8_000)),
            data: Bytes::from(vec![0xff; 160]),
        })
    }

    /// Plays what arrives when, asking every 20 ms: numbers of frames with their wait in ms, -1 for made up, -2 for
    /// nothing.
    fn play(jitter: &mut Jitter, arrivals: &[(i64, u64)], until: u64) -> Vec<(i64, u64)> {
        let mut arrivals = arrivals.to_vec();
        arrivals.sort_by_key(|(_, at)| *at);
        let (mut out, mut rest) = (Vec::new(), &arrivals[..]);
        for now in (10..until).step_by(20) {
            while let [(n, arrived), later @ ..] = rest
                && *arrived <= now
            {
                jitter.push(frame(*n, *arrived));
                rest = later;
            }
            out.push(match jitter.pull(at(now)) {
                Pull::Frame(f) => (f.ticks / 160, now - f.arrived.since_boot().as_millis() as u64),
                Pull::Missing { .. } => (-1, 0),
                Pull::Nothing => (-2, 0),
            });
        }
        out
    }

    fn evenly(frames: i64) -> Vec<(i64, u64)> {
        (0..frames).map(|n| (n, n as u64 * 20)).collect()
    }

    #[test]
    fn frames_that_come_evenly_go_out_evenly_and_wait_less_than_60_ms() {
        let out = play(&mut Jitter::default(), &evenly(100), 2_000);
        let begun = out.iter().position(|(n, _)| *n == 0).unwrap();
        let wanted: Vec<i64> = (0..(out.len() - begun) as i64).collect();
        assert_eq!(out[begun..].iter().map(|(n, _)| *n).collect::<Vec<_>>(), wanted);
        assert!(out.iter().all(|(_, wait)| *wait < 60), "{out:?}");
    }

    #[test]
    fn what_is_lost_is_made_up_once_and_nothing_moves() {
        let arrivals: Vec<_> = evenly(200).into_iter().filter(|(n, _)| n % 20 != 7 && n % 50 != 8).collect();
        let mut jitter = Jitter::default();
        let out = play(&mut jitter, &arrivals, 4_000);
        let begun = out.iter().position(|(n, _)| *n == 0).unwrap() as i64;
        for (place, (n, _)) in out.iter().enumerate().skip(begun as usize) {
            assert!(*n == -1 || *n == place as i64 - begun, "{out:?}");
        }
        assert_eq!(jitter.counts().late, 0);
        assert!((10..=14).contains(&jitter.counts().missing), "{:?}", jitter.counts());
    }

    #[test]
    fn a_loss_names_the_frame_after_it_and_a_long_one_only_at_its_end() {
        let mut jitter = Jitter::default();
        for n in [0, 3] {
            jitter.push(frame(n, 0));
        }
        assert!(matches!(jitter.pull(at(40)), Pull::Frame(_)));
        assert!(matches!(jitter.pull(at(60)), Pull::Missing { length: PIECE, next: None }));
        assert!(matches!(jitter.pull(at(80)), Pull::Missing { length: PIECE, next: Some(f) } if f.ticks == 480));
        assert!(matches!(jitter.pull(at(100)), Pull::Frame(f) if f.ticks == 480));
    }

    #[test]
    fn what_comes_late_again_and_again_is_waited_for() {
        // Every tenth frame comes 90 ms late, those behind it with it.
        let mut last = 0;
        let late: Vec<_> = evenly(500)
            .into_iter()
            .map(|(n, at)| {
                last = (at + if n % 10 == 9 { 90 } else { 0 }).max(last);
                (n, last)
            })
            .collect();
        let mut jitter = Jitter::default();
        let out = play(&mut jitter, &late, 10_000);
        let made_up = |part: &[(i64, u64)]| part.iter().filter(|(n, _)| *n == -1).count();
        assert!(made_up(&out[..50]) > 0);
        assert_eq!(made_up(&out[100..]), 0, "{:?}", jitter.counts());
        assert_eq!((jitter.counts().late, jitter.counts().dropped), (0, 0));
    }

    #[test]
    fn frames_that_wait_longer_than_needed_have_time_to_spare_until_it_is_taken() {
        let mut jitter = Jitter::default();
        // The first comes so late that all others wait.
        let mut arrivals = evenly(300);
        arrivals.iter_mut().take(5).for_each(|(_, at)| *at = 0);
        jitter.depth = Duration::from_millis(120);
        play(&mut jitter, &arrivals, 4_500);
        assert!(jitter.has_to_spare());
        jitter.shortened(Duration::from_millis(15));
        assert_eq!(jitter.depth, Duration::from_millis(105));
        (0..10).for_each(|_| jitter.shortened(Duration::from_millis(15)));
        assert!(!jitter.has_to_spare());
        assert_eq!(jitter.depth, LEAST);
    }

    #[test]
    fn after_a_pause_and_after_a_jump_it_begins_anew() {
        let mut arrivals = evenly(50);
        arrivals.extend((0..50).map(|n| (n + 100, 2_000 + n as u64 * 20)));
        arrivals.extend((0..50).map(|n| (n + 100_000, 3_000 + n as u64 * 20)));
        let mut jitter = Jitter::default();
        let out = play(&mut jitter, &arrivals, 4_200);
        let first = |n: i64| out.iter().find(|(m, _)| *m == n).unwrap_or_else(|| panic!("not {n}: {out:?}")).1;
        assert!((40..60).contains(&first(100)) && (40..60).contains(&first(100_000)));
        // Ten pieces of a pause are made up, and then it is silent.
        assert!(out.iter().filter(|(n, _)| *n == -1).count() <= 30, "{out:?}");
    }

    #[test]
    fn what_is_no_sound_is_left_out() {
        let mut jitter = Jitter::default();
        let mut video = (*frame(0, 0)).clone();
        video.track = Track::Video;
        jitter.push(Arc::new(video));
        let mut empty = (*frame(0, 0)).clone();
        empty.data = Bytes::new();
        jitter.push(Arc::new(empty));
        assert_eq!(jitter.counts().dropped, 2);
        assert!(matches!(jitter.pull(at(100)), Pull::Nothing));
    }

    proptest! {
        #[test]
        fn frames_go_out_in_order_never_twice_and_never_more_is_held_than_may_be(
            steps in prop::collection::vec((0i64..40, 0u64..80, 0u64..3), 1..300)
        ) {
            let mut jitter = Jitter::default();
            let (mut now, mut base, mut last) = (0, 0, i64::MIN);
            for (n, later, pulls) in steps {
                now += later;
                base += 1;
                jitter.push(frame(base + n, now));
                let (first, end) = (jitter.frames.keys().next(), jitter.frames.keys().next_back());
                let span = end.zip(first).map_or(0, |(end, first)| end - first);
                prop_assert!(jitter.frames.len() <= MAX_FRAMES && span <= ticks_in(LONGEST, 8_000));
                for _ in 0..pulls {
                    if let Pull::Frame(f) = jitter.pull(at(now)) {
                        prop_assert!(f.ticks > last, "{} after {last}", f.ticks);
                        last = f.ticks;
                    }
                }
                prop_assert!((LEAST..=MOST).contains(&jitter.depth));
            }
        }
    }
}
