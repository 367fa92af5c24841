//! What of a recording nobody holds. Pure.
//!
//! Lengths are measured where they cannot be changed by setting a clock: between fragments on the recording's own time
//! line, at both ends by when frames arrived. Wall time only says where a gap stands, in the words of the clock that the
//! evidence beside it was dated by. Only what lies across a restart is measured by wall time, since nothing else is
//! left of it; it is not believed where it contradicts the time since the press.

use std::time::Duration;

use crate::district::{
    clock::{Mono, Utc},
    evidence::{Gap, GapReason, JITTER},
};

/// Cameras that are back this soon after a start were away because of it.
const BACK: Duration = Duration::from_secs(10);

/// Wall time that contradicts monotonic time by more than this was set meanwhile.
const CLOCK_SET: Duration = Duration::from_secs(10);

/// What came before this stretch of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: the window begins, and the gateway was running.
    Fresh,
    /// It was recorded until then, in this run, and its window was extended afterwards.
    Extended(Mono),
    /// An earlier run of the gateway; in this boot, or before it.
    Restarted {
        /// Whether the machine was started again too.
        rebooted: bool,
    },
}

/// What is asked of a stretch of a recording, and what is there of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// What came before.
    pub origin: Origin,
    /// The window's beginning.
    pub from: Mono,
    /// The window in wall time, as the document says it.
    pub window: (Utc, Utc),
    /// When the gateway began to run.
    pub begun: Mono,
    /// Up to when evidence is stored already, by the clock that dated it.
    pub stored: Option<Utc>,
    /// How long what is stored lasts, holes included.
    pub lasts: Duration,
    /// Why there is nothing from before the first frame, when the gateway was running.
    pub why: GapReason,
}

/// A fragment as far as coverage goes.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// When its first frame arrived.
    pub arrived: Mono,
    /// When that was captured, and when its last one ended.
    pub captured: (Utc, Utc),
    /// Where it stands on the recording's time line.
    pub at: Duration,
    /// How long it lasts.
    pub duration: Duration,
    /// Whether the camera's time began anew with it.
    pub discontinuity: bool,
}

/// Follows a recording and finds what is missing.
#[derive(Debug)]
pub struct Coverage {
    asked: Asked,
    /// Wall time up to which nothing is missing that was not told.
    covered: Utc,
    /// The end of the newest part on the recording's time line, once there is one.
    end: Option<Duration>,
    /// Arrival minus place on the time line, in microseconds: the least since the camera's time last began anew.
    base_us: i64,
    /// Why what is missing next is missing.
    why: GapReason,
}

impl Coverage {
    /// Nothing recorded yet in this stretch.
    pub fn new(asked: Asked) -> Self {
        let covered = asked.stored.unwrap_or(asked.window.0);
        Self { asked, covered, end: None, base_us: 0, why: asked.why }
    }

    /// The reader fell behind here. Between two windows nobody read, and so nobody was slow.
    pub fn skipped(&mut self) {
        if self.end.is_some() || !matches!(self.asked.origin, Origin::Extended(_)) {
            self.why = GapReason::RecorderBehind;
        }
    }

    /// How long nothing was recorded before the first frame of this stretch, which is what the recording's time line
    /// leaves out.
    pub fn hole(&self, arrived: Mono, captured: Utc) -> Duration {
        match self.asked.origin {
            Origin::Fresh => arrived.since(self.asked.from),
            Origin::Extended(until) => arrived.since(until),
            Origin::Restarted { rebooted } => self.believed(captured, arrived, rebooted),
        }
    }

    /// Takes the next part; gives what is missing before it.
    pub fn part(&mut self, part: Part) -> Vec<Gap> {
        let (from, to) = part.captured;
        let gaps = match self.end {
            Some(end) => self.gap(part.at.saturating_sub(end), from, None),
            None if self.clock_went_back(from) => {
                let until = self.asked.window.1.max(self.covered.after(Duration::from_secs(1)));
                vec![Gap { from: self.covered, to: until, reason: GapReason::GatewayDown }]
            }
            None => self.gap(self.hole(part.arrived, from), from, Some(part.arrived)),
        };
        let base = micros(part.arrived.since_boot()) - micros(part.at);
        let anew = self.end.is_none() || part.discontinuity || !gaps.is_empty();
        self.base_us = if anew { base } else { self.base_us.min(base) };
        self.end = Some(part.at + part.duration);
        self.covered = to;
        self.why = GapReason::CameraDown;
        gaps
    }

    /// A part was not stored.
    pub fn lost(from: Utc, to: Utc) -> Gap {
        Gap { from, to, reason: GapReason::DiskFailed }
    }

    /// The window ended at `until`, which is `wall` by the clock of now and `asked` by the document's; gives what is
    /// missing at its end.
    pub fn ended(&mut self, until: Mono, wall: Utc, asked: Utc) -> Vec<Gap> {
        if let Some(end) = self.end {
            let missing = micros(until.since_boot()) - self.base_us - micros(end);
            let missing = Duration::from_micros(u64::try_from(missing).unwrap_or(0));
            return self.gap(missing, self.covered.after(missing), None);
        }
        let missing = match self.asked.origin {
            Origin::Fresh => until.since(self.asked.from),
            Origin::Extended(before) => until.since(before),
            Origin::Restarted { rebooted: true } => asked.since(self.covered),
            Origin::Restarted { rebooted: false } => self.believed(wall, until, false),
        };
        let to = match self.asked.origin {
            Origin::Extended(_) => wall,
            _ => self.covered.after(missing),
        };
        self.why = GapReason::CameraDown;
        self.gap(missing, to, Some(until))
    }

    /// The time from what is stored to `wall`, which is `mono`.
    fn believed(&self, wall: Utc, mono: Mono, rebooted: bool) -> Duration {
        let by_wall = wall.since(self.covered);
        let most = mono.since(self.asked.from).saturating_sub(self.asked.lasts);
        let set = self.covered.since(wall) > CLOCK_SET || by_wall > most + CLOCK_SET;
        if set && !rebooted { most } else { by_wall }
    }

    fn clock_went_back(&self, captured: Utc) -> bool {
        let rebooted = self.asked.origin == Origin::Restarted { rebooted: true };
        rebooted && self.covered.since(captured) > CLOCK_SET
    }

    /// A gap of that length that ends at `to`. `first` is when it ended, where it may reach back before the gateway ran.
    fn gap(&self, missing: Duration, to: Utc, first: Option<Mono>) -> Vec<Gap> {
        if missing <= JITTER {
            return Vec::new();
        }
        let from = to.before(missing);
        let running = match (self.asked.origin, first) {
            (Origin::Restarted { .. }, Some(at)) => at.since(self.asked.begun),
            _ => missing,
        };
        if running >= missing {
            return vec![Gap { from, to, reason: self.why }];
        }
        if running <= BACK {
            return vec![Gap { from, to, reason: GapReason::GatewayDown }];
        }
        let began = to.before(running);
        vec![Gap { from, to: began, reason: GapReason::GatewayDown }, Gap { from: began, to, reason: self.why }]
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 365 * 24 * 3_600;

    fn mono(s: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(s))
    }

    fn wall(s: i64) -> Utc {
        Utc::from_micros((1_772_366_400 + s) * 1_000_000)
    }

    /// A window of 30 s before a press at 1,000 s until 60 s after it; the gateway runs since 10 s.
    fn asked(origin: Origin) -> Asked {
        Asked {
            origin,
            from: mono(970),
            window: (wall(970), wall(1_060)),
            begun: mono(10),
            stored: None,
            lasts: Duration::ZERO,
            why: GapReason::BeforeRing,
        }
    }

    /// A second, at so many seconds of monotonic time, dated so.
    fn part(arrived: u64, captured: i64, at: u64) -> Part {
        let captured = (wall(captured), wall(captured + 1));
        let (at, duration) = (Duration::from_secs(at), Duration::from_secs(1));
        Part { arrived: mono(arrived), captured, at, duration, discontinuity: false }
    }

    fn told(gaps: Vec<Gap>) -> Vec<(i64, i64, GapReason)> {
        let s = |t: Utc| t.micros() / 1_000_000 - 1_772_366_400;
        gaps.into_iter().map(|g| (s(g.from), s(g.to), g.reason)).collect()
    }

    #[test]
    fn what_is_missing_at_both_ends_and_between_is_told_once_with_its_reason() {
        let mut c = Coverage::new(asked(Origin::Fresh));
        assert_eq!(told(c.part(part(980, 980, 0))), [(970, 980, GapReason::BeforeRing)]);
        assert!(c.part(part(981, 981, 1)).is_empty());
        assert_eq!(told(c.part(part(990, 990, 10))), [(982, 990, GapReason::CameraDown)]);
        c.skipped();
        assert_eq!(told(c.part(part(1_000, 1_000, 20))), [(991, 1_000, GapReason::RecorderBehind)]);
        assert_eq!(told(c.ended(mono(1_060), wall(1_060), wall(1_060))), [(1_001, 1_060, GapReason::CameraDown)]);
    }

    #[test]
    fn setting_the_clock_by_years_in_the_middle_neither_makes_nor_hides_a_gap() {
        for step in [-40 * YEAR, 40 * YEAR] {
            let mut c = Coverage::new(asked(Origin::Fresh));
            assert!(c.part(part(970, 970, 0)).is_empty());
            assert!(c.part(part(971, 971 + step, 1)).is_empty());
            let gap = (972 + step, 980 + step, GapReason::CameraDown);
            assert_eq!(told(c.part(part(980, 980 + step, 10))), [gap]);
            let gap = (981 + step, 1_060 + step, GapReason::CameraDown);
            assert_eq!(told(c.ended(mono(1_060), wall(1_060 + step), wall(1_060))), [gap]);
        }
    }

    #[test]
    fn a_restart_is_a_gap_of_its_true_length_though_the_clock_was_set_meanwhile() {
        for step in [0, -40 * YEAR, 40 * YEAR] {
            let restarted = Asked {
                begun: mono(1_018),
                stored: Some(wall(1_000)),
                lasts: Duration::from_secs(30),
                ..asked(Origin::Restarted { rebooted: false })
            };
            let mut c = Coverage::new(restarted);
            assert_eq!(c.hole(mono(1_020), wall(1_020 + step)), Duration::from_secs(20));
            let gap = (1_000 + step, 1_020 + step, GapReason::GatewayDown);
            assert_eq!(told(c.part(part(1_020, 1_020 + step, 50))), [gap], "{step}");
        }
    }

    #[test]
    fn a_window_that_passed_while_the_gateway_was_down_is_not_the_cameras_fault_and_ends_where_it_was_asked_to() {
        let restarted = Asked { begun: mono(5_000), ..asked(Origin::Restarted { rebooted: false }) };
        let mut c = Coverage::new(Asked { stored: Some(wall(1_000)), lasts: Duration::from_secs(30), ..restarted });
        assert_eq!(told(c.ended(mono(1_060), wall(1_060), wall(1_060))), [(1_000, 1_060, GapReason::GatewayDown)]);

        // Three days later, in another boot, and nothing was stored at all.
        let rebooted = Asked { from: mono(20), begun: mono(15), ..asked(Origin::Restarted { rebooted: true }) };
        let mut c = Coverage::new(rebooted);
        let days = 3 * 24 * 3_600;
        assert_eq!(told(c.ended(mono(20), wall(days), wall(1_060))), [(970, 1_060, GapReason::GatewayDown)]);
    }

    #[test]
    fn after_a_reboot_into_the_past_the_rest_of_the_window_is_a_gap() {
        let rebooted = Asked { from: mono(20), begun: mono(15), ..asked(Origin::Restarted { rebooted: true }) };
        let mut c = Coverage::new(Asked { stored: Some(wall(1_000)), ..rebooted });
        assert_eq!(c.hole(mono(22), wall(-40 * YEAR)), Duration::ZERO);
        assert_eq!(told(c.part(part(22, -40 * YEAR, 30))), [(1_000, 1_060, GapReason::GatewayDown)]);
        assert!(c.part(part(23, -40 * YEAR + 1, 31)).is_empty());
    }

    #[test]
    fn an_extension_long_after_the_end_is_not_taken_for_a_gateway_that_was_down() {
        let extended = Asked { stored: Some(wall(1_060)), ..asked(Origin::Extended(mono(1_060))) };
        let mut c = Coverage::new(extended);
        assert_eq!(told(c.part(part(1_600, 1_600, 630))), [(1_060, 1_600, GapReason::BeforeRing)]);
        // Nor when this run does not remember that recording.
        let mut c = Coverage::new(Asked { origin: Origin::Restarted { rebooted: false }, ..extended });
        assert_eq!(told(c.part(part(1_600, 1_600, 630))), [(1_060, 1_600, GapReason::BeforeRing)]);
    }
}
