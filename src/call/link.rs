//! What the link to a browser carries: everything, the camera's lighter stream, or key frames alone. Pure.
//!
//! Judged by what the browser reports each second (RFC 3550 section 6.4): packets lost, and how long the way takes. A link
//! that is asked for more than it carries loses packets or lets them queue. Down it goes within seconds; up again it is tried
//! after a while, and after a longer one each time that fails. The sound is never less: it is what a voice is heard by.

use std::{collections::VecDeque, time::Duration};

use crate::district::clock::Mono;

/// Of the packets so many are lost: beyond that, sending them again does not mend a stream of its size. A light one bears more.
const LOSS: f32 = 0.1;
const LOSS_LIGHT: f32 = 0.3;
/// The way takes so much longer than it did at best: what is sent queues.
const QUEUES: Duration = Duration::from_millis(250);
/// Of so many reports, so many must be bad.
const REPORTS: usize = 4;
const BAD: usize = 2;
/// Where so many are lost, one bad report is enough: nothing is seen meanwhile, and little heard.
const LOSS_GRAVE: f32 = 0.5;
/// After less was chosen nothing is judged for so long: what was under way is still reported.
const SETTLES: Duration = Duration::from_secs(3);
/// The burst that a viewer begins with, and that more begins with, is lost in buffers on good links too, and reported within this.
const BURSTS: Duration = Duration::from_millis(1_500);
/// More is tried again after so long without a bad report; twice as long after each try that failed, up to the longest.
const TRY: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(240);
/// A try has failed if the link is bad again within this.
const FAILED: Duration = Duration::from_secs(20);

/// How much is sent of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Key frames alone.
    Keys,
    /// The camera's lighter stream.
    Light,
    /// Everything.
    Full,
}

/// What a browser reports.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Of the packets since the last report, the part that was lost.
    pub loss: f32,
    /// There and back.
    pub round_trip: Option<Duration>,
    /// Times it lost its pictures since the last report.
    pub broken: u64,
}

/// The link to a browser.
#[derive(Debug)]
pub struct Link {
    level: Level,
    /// Whether there is a lighter stream.
    light: bool,
    recent: VecDeque<bool>,
    best: Option<Duration>,
    /// Nothing is judged before.
    settles: Option<Mono>,
    raised: Option<Mono>,
    good_since: Option<Mono>,
    wait: Duration,
}

impl Link {
    /// One that is taken to carry everything. `light`: whether the camera has a lighter stream.
    pub fn new(light: bool) -> Self {
        Self {
            level: Level::Full,
            light,
            recent: VecDeque::with_capacity(REPORTS),
            best: None,
            settles: None,
            raised: None,
            good_since: None,
            wait: TRY,
        }
    }

    /// The viewer begins now, with a burst.
    pub fn begins(&mut self, now: Mono) {
        self.settles = Some(now + BURSTS);
    }

    /// How much it carries.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes a report. Whether the level changed.
    pub fn report(&mut self, report: Report, now: Mono) -> bool {
        let queues = report.round_trip.is_some_and(|taken| {
            let best = self.best.map_or(taken, |best| best.min(taken));
            self.best = Some(best);
            taken > best + QUEUES
        });
        if self.settles.is_some_and(|until| now < until) {
            return false;
        }
        let bad = match self.level {
            Level::Full => report.loss > LOSS || queues || report.broken > 0,
            Level::Light | Level::Keys => report.loss > LOSS_LIGHT || queues,
        };
        // Less is borne than more is tried with.
        let good = report.loss <= LOSS && !bad;
        if self.recent.len() == REPORTS {
            self.recent.pop_front();
        }
        self.recent.push_back(bad);
        if good {
            self.good_since.get_or_insert(now);
        } else {
            self.good_since = None;
        }
        let grave = self.level == Level::Full && report.loss > LOSS_GRAVE;
        if grave || self.recent.iter().filter(|bad| **bad).count() >= BAD {
            return self.lower(now);
        }
        let good = self.good_since.is_some_and(|since| now.since(since) >= self.wait);
        good && self.raise(now)
    }

    fn lower(&mut self, now: Mono) -> bool {
        let lower = match self.level {
            Level::Full if self.light => Level::Light,
            _ => Level::Keys,
        };
        if lower == self.level {
            return false;
        }
        let failed = self.raised.is_some_and(|at| now.since(at) < FAILED);
        self.wait = if failed { (self.wait * 2).min(LONGEST) } else { TRY };
        self.set(lower, now, SETTLES);
        true
    }

    fn raise(&mut self, now: Mono) -> bool {
        let higher = match self.level {
            Level::Keys if self.light => Level::Light,
            Level::Keys | Level::Light => Level::Full,
            Level::Full => return false,
        };
        self.raised = Some(now);
        self.set(higher, now, BURSTS);
        true
    }

    fn set(&mut self, level: Level, now: Mono, settles: Duration) {
        (self.level, self.settles, self.good_since) = (level, Some(now + settles), None);
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(second))
    }

    const GOOD: Report = Report { loss: 0.02, round_trip: Some(Duration::from_millis(40)), broken: 0 };
    const LOSSY: Report = Report { loss: 0.2, ..GOOD };

    /// Reports of so many seconds from one on; gives when it changed, and to what.
    fn reports(link: &mut Link, from: u64, seconds: u64, report: Report) -> Vec<(u64, Level)> {
        let mut changes = Vec::new();
        for second in from..from + seconds {
            if link.report(report, at(second)) {
                changes.push((second, link.level()));
            }
        }
        changes
    }

    #[test]
    fn one_bad_second_is_nothing_and_two_are_a_thin_link() {
        let mut link = Link::new(true);
        assert_eq!(reports(&mut link, 0, 10, GOOD), []);
        assert_eq!(reports(&mut link, 10, 1, LOSSY), []);
        assert_eq!(reports(&mut link, 11, 10, GOOD), []);
        assert_eq!(reports(&mut link, 21, 3, LOSSY), [(22, Level::Light)]);
        assert_eq!(reports(&mut link, 24, 60, LOSSY), [], "which bears that");
        let worse = Report { loss: 0.4, ..GOOD };
        assert_eq!(reports(&mut link, 90, 6, worse), [(91, Level::Keys)], "and thinner still");
    }

    #[test]
    fn a_viewer_on_a_link_far_too_thin_waits_two_seconds_and_one_whose_burst_was_lost_does_not() {
        let torn = Report { loss: 0.7, ..GOOD };
        let mut link = Link::new(true);
        link.begins(at(0));
        assert_eq!(reports(&mut link, 1, 5, torn), [(2, Level::Light)]);
        let mut link = Link::new(true);
        link.begins(at(0));
        assert_eq!(reports(&mut link, 1, 1, torn), []);
        assert_eq!(reports(&mut link, 2, 30, GOOD), []);
    }

    #[test]
    fn without_a_lighter_stream_key_frames_are_what_is_left() {
        let mut link = Link::new(false);
        assert_eq!(reports(&mut link, 0, 30, LOSSY), [(1, Level::Keys)]);
        assert_eq!(reports(&mut link, 30, 30, GOOD), [(45, Level::Full)]);
    }

    #[test]
    fn a_way_that_grows_longer_is_full_and_one_that_always_was_long_is_not() {
        let slow = |ms| Report { round_trip: Some(Duration::from_millis(ms)), ..GOOD };
        let mut link = Link::new(true);
        assert_eq!(reports(&mut link, 0, 30, slow(600)), []);
        assert_eq!(reports(&mut link, 30, 3, slow(900)), [(31, Level::Light)]);
    }

    #[test]
    fn more_is_tried_less_and_less_often_where_that_fails() {
        let mut link = Link::new(true);
        let (mut tries, mut last) = (Vec::new(), 0);
        for second in 0..900 {
            // What this link carries is the lighter stream.
            let report = if link.level() == Level::Full { LOSSY } else { GOOD };
            if link.report(report, at(second)) && link.level() == Level::Full {
                tries.push(second - last);
                last = second;
            }
        }
        assert!(tries.windows(2).skip(1).all(|w| w[1] >= w[0]) && tries.len() < 8, "{tries:?}");
        assert!(tries.last().unwrap() > &200, "{tries:?}");
    }
}
