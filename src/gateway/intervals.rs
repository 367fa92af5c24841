//! Intervals of which pictures are held, and what lies between them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::district::{
    clock::Utc,
    evidence::{Gap, GapReason, JITTER},
};

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Its beginning.
    pub from: Utc,
    /// Its end.
    pub to: Utc,
}

/// Intervals that do not touch, in order. Memory grows with how many there are, not with what they are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals(BTreeMap<Utc, Utc>);

impl Intervals {
    /// Adds an interval, in any order; it becomes one with those that it touches, or nearly does.
    pub fn add(&mut self, from: Utc, to: Utc) {
        let (mut from, mut to) = (from, to);
        if from >= to {
            return;
        }
        // Those that begin before its end, the latest first: those that it does not reach end before it.
        while let Some((&begin, &end)) = self.0.range(..=to.after(JITTER)).next_back() {
            if from.since(end) > JITTER {
                break;
            }
            (from, to) = (from.min(begin), to.max(end));
            self.0.remove(&begin);
        }
        self.0.insert(from, to);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().map(|(&from, &to)| Interval { from, to })
    }

    /// What lies between `from` and `to` and in none of them, in order.
    pub fn missing(&self, from: Utc, to: Utc) -> Vec<Interval> {
        let (mut found, mut at) = (Vec::new(), from);
        let before = self.0.range(..from).next_back();
        for (&begin, &end) in before.into_iter().chain(self.0.range(from..)) {
            if begin >= to {
                break;
            }
            if begin > at {
                found.push(Interval { from: at, to: begin });
            }
            at = at.max(end);
        }
        if at < to {
            found.push(Interval { from: at, to });
        }
        found
    }
}

/// An interval that is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unheld {
    /// Its beginning.
    pub from: Utc,
    /// Its end.
    pub to: Utc,
    /// Why; none where nobody had asked for it to be kept.
    #[serde(serialize_with = "why")]
    pub reason: Option<GapReason>,
}

impl From<&Gap> for Unheld {
    fn from(gap: &Gap) -> Self {
        Self { from: gap.from, to: gap.to, reason: Some(gap.reason) }
    }
}

impl Unheld {
    /// It as a gap, where somebody had asked for it to be kept.
    pub fn known(&self) -> Option<Gap> {
        Some(Gap { from: self.from, to: self.to, reason: self.reason? })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn why<S: Serializer>(reason: &Option<GapReason>, serializer: S) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => reason.serialize(serializer),
        None => serializer.serialize_str("not-recorded"),
    }
}

/// What is not held between two moments, each moment for one reason; what is held with packets lost is told as well.
pub fn unheld(asked: Interval, held: &Intervals, mut known: Vec<Gap>) -> Vec<Unheld> {
    known.sort_by_key(|gap| (gap.from, gap.to));
    let (mut told, mut found) = (held.clone(), Vec::new());
    for Gap { from, to, reason } in known {
        let (from, to) = (from.max(asked.from), to.min(asked.to));
        if from >= to {
            continue;
        }
        if reason == GapReason::PacketsLost {
            found.push(Unheld { from, to, reason: Some(reason) });
            continue;
        }
        let missing = told.missing(from, to).into_iter();
        found.extend(missing.map(|Interval { from, to }| Unheld { from, to, reason: Some(reason) }));
        told.add(from, to);
    }
    let unknown = told.missing(asked.from, asked.to).into_iter().filter(|i| i.to.since(i.from) > JITTER);
    found.extend(unknown.map(|Interval { from, to }| Unheld { from, to, reason: None }));
    found.sort_by_key(|gap| (gap.from, gap.to));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Utc {
        Utc::from_micros(ms * 1_000)
    }

    fn of(all: &[(i64, i64)]) -> Intervals {
        let mut intervals = Intervals::default();
        all.iter().for_each(|(from, to)| intervals.add(at(*from), at(*to)));
        intervals
    }

    fn plain(intervals: impl IntoIterator<Item = Interval>) -> Vec<(i64, i64)> {
        intervals.into_iter().map(|i| (i.from.micros() / 1_000, i.to.micros() / 1_000)).collect()
    }

    #[test]
    fn what_touches_is_one_and_what_is_far_apart_is_not() {
        let intervals =
            of(&[(10_000, 12_000), (0, 4_000), (4_400, 6_000), (20_000, 21_000), (11_000, 15_000), (7_000, 7_000)]);
        assert_eq!(plain(intervals.iter()), [(0, 6_000), (10_000, 15_000), (20_000, 21_000)]);
        assert_eq!(
            plain(intervals.missing(at(-1_000), at(30_000))),
            [(-1_000, 0), (6_000, 10_000), (15_000, 20_000), (21_000, 30_000)]
        );
        assert_eq!(plain(intervals.missing(at(1_000), at(5_000))), []);
        assert_eq!(plain(intervals.missing(at(7_000), at(8_000))), [(7_000, 8_000)]);
        let mut one = intervals;
        one.add(at(-5_000), at(50_000));
        assert_eq!(plain(one.iter()), [(-5_000, 50_000)]);
    }

    #[test]
    fn of_what_is_missing_each_moment_has_one_reason() {
        let gap = |from, to, reason| Gap { from: at(from), to: at(to), reason };
        let known = vec![
            gap(14_000, 60_000, GapReason::CameraStalled),
            gap(5_000, 15_000, GapReason::Evicted),
            gap(2_000, 3_000, GapReason::PacketsLost),
        ];
        let asked = Interval { from: at(0), to: at(40_000) };
        let found = unheld(asked, &of(&[(1_000, 10_000), (20_000, 30_000)]), known);
        let wanted = [
            (0, 1_000, None),
            (2_000, 3_000, Some(GapReason::PacketsLost)),
            (10_000, 15_000, Some(GapReason::Evicted)),
            (15_000, 20_000, Some(GapReason::CameraStalled)),
            (30_000, 40_000, Some(GapReason::CameraStalled)),
        ];
        assert_eq!(found, wanted.map(|(from, to, reason)| Unheld { from: at(from), to: at(to), reason }));
        let said = serde_json::to_value(found[0]).unwrap();
        assert_eq!(said["reason"], "not-recorded");
    }

    proptest! {
        #[test]
        fn intervals_hold_what_was_added_and_nothing_far_from_it(all in prop::collection::vec((0..100i64, 1..20i64), 0..30)) {
            // In seconds, so that nothing is nearly touching.
            let all: Vec<_> = all.into_iter().map(|(from, long)| (from * 1_000, (from + long) * 1_000)).collect();
            let intervals = of(&all);
            for second in 0..125 {
                let inside = |from: i64, to: i64| from <= second * 1_000 && second * 1_000 < to;
                let held = plain(intervals.iter()).into_iter().any(|(from, to)| inside(from, to));
                prop_assert_eq!(held, all.iter().any(|(from, to)| inside(*from, *to)));
                let missing = plain(intervals.missing(at(0), at(125_000))).into_iter().any(|(from, to)| inside(from, to));
                prop_assert_ne!(held, missing);
            }
            let ends: Vec<_> = plain(intervals.iter());
            prop_assert!(ends.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
