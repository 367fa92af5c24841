//! What is done to times that were told by a clock which was synchronised only later. Pure.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{call::Call, clock::Utc, incident::Incident};

/// The clock was synchronised after the press: the times of before then were moved. Names at headquarters were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClockCorrection {
    /// Microseconds that were added.
    pub by_us: i64,
    /// When, by the synchronised clock.
    pub at: Utc,
}

impl ClockCorrection {
    /// A time that was told after the correction, of something within `window`: by the clock of before or by this one.
    pub fn fit(&self, told: Utc, window: (Utc, Utc)) -> Utc {
        let moved = told.shifted(self.by_us);
        if off(moved, window) < off(told, window) { moved } else { told }
    }

    /// When the parts of a recording of `window` were captured, in order, as the incident's document dates them: what the
    /// clock of before dated is moved as it was. A recording goes from the one clock to the other where its times go on
    /// better by the other. A part without length is left as it is.
    pub fn date(&self, parts: impl Iterator<Item = (Utc, Utc)>, window: (Utc, Utc)) -> Vec<(Utc, Utc)> {
        let (mut last, mut old) = (None::<Utc>, true);
        let mut date = |(from, to): (Utc, Utc)| {
            if from >= to {
                return (from, to);
            }
            let away = |end: Utc| end.micros().abs_diff(from.micros());
            old &= match last {
                Some(end) => away(end) <= away(end.shifted(self.by_us)),
                // Before the correction by the clock of then; if it cannot have been that, not.
                None => {
                    let (is, was) = (off(from, window), off(from.shifted(self.by_us), window));
                    was < is || (was == is && from <= self.at.shifted(-self.by_us))
                }
            };
            last = Some(to);
            if old { (from.shifted(self.by_us), to.shifted(self.by_us)) } else { (from, to) }
        };
        parts.map(&mut date).collect()
    }

    /// A time that was written down before the correction; one of the last moments may be by the new clock already.
    fn moved(&self, written: Utc) -> Utc {
        const MOMENTS_US: i64 = 2_000_000;
        let is_new = self.by_us > 2 * MOMENTS_US && self.at.micros().abs_diff(written.micros()) <= MOMENTS_US as u64;
        if is_new { written } else { written.shifted(self.by_us) }
    }
}

/// How far a time is outside a window.
fn off(at: Utc, (from, to): (Utc, Utc)) -> Duration {
    from.since(at).max(at.since(to))
}

impl Incident {
    /// Corrects every time in it that this gateway's clock gave.
    pub fn correct_clock(&mut self, correction: ClockCorrection) {
        let moved = |at: &mut Utc| *at = correction.moved(*at);
        self.pressed_at.at = self.pressed_at.at.shifted(correction.by_us);
        self.pressed_at.clock_correction = Some(correction);
        self.presses.iter_mut().for_each(|p| moved(&mut p.at));
        self.timeline.iter_mut().for_each(|t| moved(&mut t.at));
        self.call.iter_mut().flat_map(Call::times).for_each(moved);
        for evidence in &mut self.evidence {
            // Ends may lie ahead: these are windows, and gaps are dated as the pictures beside them.
            evidence.from = evidence.from.shifted(correction.by_us);
            evidence.to = evidence.to.shifted(correction.by_us);
            for gap in &mut evidence.gaps {
                (gap.from, gap.to) = (gap.from.shifted(correction.by_us), gap.to.shifted(correction.by_us));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: i64 = 1_000_000;

    #[test]
    fn a_recording_that_goes_from_one_clock_to_the_other_is_dated_by_the_right_one_throughout() {
        let at = |s: i64| Utc::from_micros(1_800_000_000 * SECOND_US + s * SECOND_US);
        for by in [10_000 * 86_400, 70, 3, -3, -70, -10_000 * 86_400] {
            let by_us = by * SECOND_US;
            let clock = ClockCorrection { by_us, at: at(20) };
            // Until the camera's next key frame after the correction, frames are dated by the clock of before.
            let date = |s: i64| if s < 24 { at(s).shifted(-by_us) } else { at(s) };
            let init = (Utc::default(), Utc::default());
            let mut held = vec![init];
            held.extend((0..30).map(|n| (date(2 * n), date(2 * n).shifted(2 * SECOND_US))));
            let dated = |from: usize| clock.date(held[from..].iter().copied(), (at(0), at(60)));
            let wanted: Vec<_> = (0..30).map(|n| (at(2 * n), at(2 * n + 2))).collect();
            assert_eq!(dated(0)[0], init);
            assert_eq!(dated(0)[1..], wanted, "by {by} s");
            // When the first of them have gone.
            assert_eq!(dated(20), wanted[19..], "by {by} s");
        }
    }
}
