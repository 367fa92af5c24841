//! Which stored fragments make up what a camera sent between two moments: each moment from one of them. Pure.
//!
//! The same seconds may be held several times: as evidence of incidents, and as a buffer. What is begun with is gone on
//! with for as long as it goes on; then another that was running at that moment takes over, at the frame; only where
//! there is none is there a gap, and behind it a key frame.

use std::time::Duration;

use crate::{
    district::{clock::Utc, evidence::JITTER, ids::IncidentId},
    gateway::Interval,
    media::reel::Keep,
};

/// Two recordings of one camera date the same frame within this: less than half of a frame's time.
const SAME_FRAME: Duration = Duration::from_millis(8);

/// A recording's own places are known to a microsecond; what goes on begins where the last one ended.
const SAME_PLACE_US: u64 = 1_000;

/// Of what recording a fragment is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Series {
    /// Evidence of an incident.
    Evidence(IncidentId),
    /// A buffer of outages.
    Outage,
    /// A buffer of always.
    Bulk,
}

/// A stored fragment that may be taken.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// Which.
    pub what: T,
    /// Of what recording.
    pub series: Series,
    /// Which init segment it needs.
    pub init: usize,
    /// Captured from.
    pub from: Utc,
    /// Captured until.
    pub to: Utc,
    /// Where it stands on its recording's time line, in microseconds.
    pub at_us: i64,
    /// How long it plays, in microseconds.
    pub duration_us: i64,
    /// Whether playing can begin here.
    pub key: bool,
}

/// A fragment that was taken.
#[derive(Debug, Clone)]
pub struct Chosen<T> {
    /// Which.
    pub fragment: Candidate<T>,
    /// What is kept of it.
    pub keep: Keep,
    /// From its recording's time line to the file's, in microseconds.
    pub shift_us: i64,
    /// When what is kept begins and ends in the file's time, in microseconds.
    pub plays_us: (i64, i64),
    /// Whether it does not go on where the one before it ended.
    pub broken: bool,
    /// Whether its format is not the one that the file began with, or that was there just before.
    pub another: bool,
}

/// How far the choosing has got.
#[derive(Debug, Clone)]
pub struct Chooser {
    asked: Interval,
    /// The format that the file begins with.
    format: Option<usize>,
    last: Option<Last>,
}

/// The fragment that was taken last.
#[derive(Debug, Clone, Copy)]
struct Last {
    series: Series,
    init: usize,
    /// When it ended.
    end: Utc,
    /// Where it ended on its recording's time line, and on the file's.
    place_us: i64,
    end_us: i64,
    shift_us: i64,
}

impl Chooser {
    /// Nothing taken yet of what is asked for.
    pub fn new(asked: Interval) -> Self {
        Self { asked, format: None, last: None }
    }

    /// Takes what begins before `until`, of fragments in the order of their time. They reach back to before what was taken
    /// last, or before what is asked for, by what a group of pictures may last; and as far beyond `until`.
    pub fn choose<T: Clone>(&mut self, candidates: &[Candidate<T>], until: Utc) -> Vec<Chosen<T>> {
        let until = until.min(self.asked.to);
        let (mut out, mut rest) = (Vec::new(), candidates);
        loop {
            if let Some(last) = self.last {
                if last.end >= until {
                    return out;
                }
                let passed = rest.iter().take_while(|c| c.to <= last.end).count();
                rest = &rest[passed..];
            }
            match self.next(rest) {
                Some((fragment, from)) if fragment.from < until => out.push(self.take(fragment, from)),
                _ => return out,
            }
        }
    }

    /// Takes all of one recording, in the order in which it was recorded, whatever the clock said meanwhile.
    pub fn choose_all<T: Clone>(&mut self, recorded: &[Candidate<T>]) -> Vec<Chosen<T>> {
        let mut out = Vec::new();
        for fragment in recorded {
            if fragment.key || self.last.is_some_and(|last| last.goes_on_with(fragment)) {
                out.push(self.take(fragment, None));
            }
        }
        out
    }

    /// What comes next, and from when it is kept where that is not its beginning.
    fn next<'a, T>(&self, candidates: &'a [Candidate<T>]) -> Option<(&'a Candidate<T>, Option<Utc>)> {
        let Some(last) = self.last else { return self.first(candidates).map(|fragment| (fragment, None)) };
        let until = |end: Utc| candidates.iter().take_while(move |c| c.from <= end);
        let goes_on = |c: &&Candidate<T>| last.is_behind(c) && (c.init == last.init || c.key);
        if let Some(same) = until(last.end.after(JITTER)).find(goes_on) {
            return Some((same, None));
        }
        let later = |c: &&Candidate<T>| c.to > last.end.after(SAME_FRAME);
        let early = |c: &Candidate<T>| c.from < last.end.before(SAME_FRAME);
        let begins = |c: &&Candidate<T>| !early(c) && c.key;
        // It has the next frame. What was decoded last is what that needs, where the format is the same.
        let next = until(last.end.after(SAME_FRAME)).filter(later).filter(|c| c.init == last.init || begins(c));
        match next.max_by(|a, b| (a.to, b.series).cmp(&(b.to, a.series))) {
            Some(fragment) => Some((fragment, early(fragment).then_some(last.end))),
            None => candidates.iter().filter(later).find(begins).map(|fragment| (fragment, None)),
        }
    }

    /// With what it begins: the key frame at or before what is asked for, where pictures go on from there until then; or else
    /// the first key frame after that.
    fn first<'a, T>(&self, candidates: &'a [Candidate<T>]) -> Option<&'a Candidate<T>> {
        let asked = self.asked;
        let mut best: Option<&Candidate<T>> = None;
        for start in candidates.iter().filter(|c| c.key && c.from <= asked.from) {
            let mut end = (start.to, start.at_us + start.duration_us);
            for next in candidates.iter().filter(|c| c.series == start.series && c.from > start.from) {
                if end.0 > asked.from || next.at_us.abs_diff(end.1) > SAME_PLACE_US {
                    break;
                }
                end = (next.to, next.at_us + next.duration_us);
            }
            if end.0 > asked.from && best.is_none_or(|b| (b.from, start.series) < (start.from, b.series)) {
                best = Some(start);
            }
        }
        best.or_else(|| candidates.iter().find(|c| c.key && c.from > asked.from))
    }

    fn take<T: Clone>(&mut self, fragment: &Candidate<T>, kept_from: Option<Utc>) -> Chosen<T> {
        let place = |at: Utc| fragment.at_us.saturating_add(at.micros() - fragment.from.micros());
        let goes_on = self.last.filter(|last| kept_from.is_none() && last.is_behind(fragment));
        // Where what is kept of it begins in the file's time.
        let begins = kept_from.map_or(fragment.at_us, place);
        let shift_us = match (goes_on, self.last) {
            (Some(last), _) => last.shift_us,
            (None, None) => -fragment.at_us,
            (None, Some(last)) => {
                let hole = kept_from.unwrap_or(fragment.from).since(last.end);
                last.end_us + i64::try_from(hole.as_micros()).unwrap_or(i64::MAX) - begins
            }
        };
        let ends = fragment.at_us.saturating_add(fragment.duration_us);
        let keep = Keep {
            from_us: kept_from.map_or(i64::MIN, |at| place(at.before(SAME_FRAME))),
            to_us: if fragment.to > self.asked.to { place(self.asked.to) } else { i64::MAX },
        };
        let end_us = ends.min(keep.to_us) + shift_us;
        let broken = self.last.is_some() && goes_on.is_none();
        let another =
            [self.format, self.last.map(|last| last.init)].iter().flatten().any(|init| *init != fragment.init);
        self.format.get_or_insert(fragment.init);
        let (series, init, end) = (fragment.series, fragment.init, fragment.to.min(self.asked.to));
        self.last = Some(Last { series, init, end, place_us: ends, end_us, shift_us });
        Chosen { fragment: fragment.clone(), keep, shift_us, plays_us: (begins + shift_us, end_us), broken, another }
    }
}

impl Last {
    /// Whether a fragment stands right behind this one on the same recording's time line.
    fn is_behind<T>(&self, c: &Candidate<T>) -> bool {
        c.series == self.series && c.at_us.abs_diff(self.place_us) <= SAME_PLACE_US
    }

    /// Whether that can be decoded with nothing but what came before it.
    fn goes_on_with<T>(&self, c: &Candidate<T>) -> bool {
        self.is_behind(c) && c.init == self.init
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Frames of 40 ms, a key frame every second.
    const FRAME: i64 = 40_000;
    const GROUP: i64 = 25;
    const BEGAN: i64 = 1_772_366_400_000_000;

    fn at(frame: i64) -> Utc {
        Utc::from_micros(BEGAN + frame * FRAME)
    }

    /// Fragments of `lengths` frames from a key frame on, as the `n`th recording of its series.
    fn recorded(series: Series, place: i64, first: i64, lengths: &[i64]) -> Vec<Candidate<Vec<i64>>> {
        let mut from = first;
        let fragment = |length: &i64| {
            let begins = from;
            from += length;
            Candidate {
                what: (begins..from).collect(),
                series,
                init: 0,
                from: at(begins),
                to: at(from),
                at_us: place + (begins - first) * FRAME,
                duration_us: length * FRAME,
                key: begins % GROUP == 0,
            }
        };
        lengths.iter().map(fragment).collect()
    }

    fn asked(from: i64, to: i64) -> Interval {
        Interval { from: at(from), to: at(to) }
    }

    /// Which frames a choice has, each with its place in the file.
    fn frames(chosen: &[Chosen<Vec<i64>>]) -> Vec<(i64, i64)> {
        let kept = |c: &Chosen<Vec<i64>>| {
            let first = c.fragment.what[0];
            let (fragment, keep, shift) = (c.fragment.clone(), c.keep, c.shift_us);
            let placed = fragment.what.into_iter().map(move |n| (n, fragment.at_us + (n - first) * FRAME));
            placed.filter(move |(_, us)| (keep.from_us..keep.to_us).contains(us)).map(move |(n, us)| (n, us + shift))
        };
        chosen.iter().flat_map(kept).collect()
    }

    /// In windows, as a plan goes through the index.
    fn choose(all: &[Candidate<Vec<i64>>], asked: Interval, window: Duration) -> Vec<Chosen<Vec<i64>>> {
        let (mut chooser, mut out) = (Chooser::new(asked), Vec::new());
        let mut until = asked.from;
        while until < asked.to {
            let from = until.before(Duration::from_secs(15));
            until = until.after(window);
            let seen = |c: &&Candidate<_>| c.to > from && c.from < until.after(Duration::from_secs(15));
            let around: Vec<_> = all.iter().filter(seen).cloned().collect();
            out.extend(chooser.choose(&around, until));
        }
        out
    }

    #[test]
    fn what_is_begun_with_goes_on_and_another_takes_over_at_the_frame() {
        let incident = Series::Evidence("018bcfe5-6800-7000-8000-000000000000".parse().unwrap());
        let mut all = recorded(incident, 0, 0, &[50, 25, 25]);
        // Cut elsewhere, from before the other's end on.
        all.extend(recorded(Series::Outage, 7_000_000, 75, &[75, 50]));
        all.sort_by_key(|c| (c.from, c.to));
        let chosen = choose(&all, asked(60, 190), Duration::from_secs(600));
        let series: Vec<_> = chosen.iter().map(|c| (c.fragment.series, c.fragment.what[0], c.broken)).collect();
        let (evidence, outage) = (incident, Series::Outage);
        assert_eq!(
            series,
            [(evidence, 50, false), (evidence, 75, false), (outage, 75, true), (outage, 150, false)],
            "from the key frame before it"
        );
        let wanted: Vec<_> = (50..190).map(|n| (n, (n - 50) * FRAME)).collect();
        assert_eq!(frames(&chosen), wanted);
    }

    #[test]
    fn a_gap_is_of_its_true_length_and_what_cannot_be_decoded_behind_it_is_left_out() {
        let mut all = recorded(Series::Bulk, 0, 0, &[50]);
        // Its beginning has made room for other things.
        all.extend(recorded(Series::Bulk, 90_000_000, 100, &[30, 30, 40]).split_off(1));
        all.extend(recorded(Series::Bulk, 0, 300, &[25]));
        let chosen = choose(&all, asked(-100, 1_000), Duration::from_secs(1));
        let found = frames(&chosen);
        let has = |n: i64| found.iter().find(|(frame, _)| *frame == n).map(|(_, us)| *us);
        assert_eq!((has(0), has(49), has(50), has(140)), (Some(0), Some(49 * FRAME), None, None));
        assert_eq!((has(300), has(324)), (Some(300 * FRAME), Some(324 * FRAME)));
        assert_eq!(chosen.iter().map(|c| c.broken).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn all_of_one_recording_is_taken_whatever_its_clock_said() {
        let mut all = recorded(Series::Bulk, 0, 0, &[50, 25]);
        let mut back = recorded(Series::Bulk, 75 * FRAME, 25, &[25, 25]);
        back[0].key = true;
        all.extend(back);
        let chosen = Chooser::new(asked(0, i64::from(i32::MAX))).choose_all(&all);
        assert_eq!(chosen.iter().map(|c| c.plays_us.0 / FRAME).collect::<Vec<_>>(), [0, 50, 75, 100]);
    }

    fn recordings() -> impl Strategy<Value = Vec<Candidate<Vec<i64>>>> {
        let one = (0..3_usize, 0..20_i64, prop::collection::vec(1..60_i64, 1..12));
        prop::collection::vec(one, 1..7).prop_map(|all| {
            let ids = ["018bcfe5-6800-7000-8000-000000000000", "018bcfe5-6800-7000-8000-000000000001"];
            let series =
                [Series::Evidence(ids[0].parse().unwrap()), Series::Evidence(ids[1].parse().unwrap()), Series::Bulk];
            // Recordings of one series do not overlap.
            let mut ends = [0_i64; 3];
            let mut out = Vec::new();
            for (n, (of, skip, lengths)) in all.into_iter().enumerate() {
                let first = (ends[of].div_euclid(GROUP) + 1 + skip) * GROUP;
                ends[of] = first + lengths.iter().sum::<i64>();
                out.extend(recorded(series[of], n as i64 * 1_000_000_007, first, &lengths));
            }
            out.sort_by_key(|c| (c.from, c.to));
            out
        })
    }

    proptest! {
        #[test]
        fn whatever_is_held_each_frame_is_there_once_at_its_place(
            all in recordings(), from in -50..1_500_i64, long in 1..1_500_i64, window in 1..20_u64,
        ) {
            let asked = asked(from, from + long);
            let chosen = choose(&all, asked, Duration::from_secs(window));
            let found = frames(&chosen);
            prop_assert!(found.windows(2).all(|w| w[0].0 < w[1].0), "each once, in order: {:?}", found);
            prop_assert!(found.iter().all(|(n, _)| *n < from + long));
            if let Some((first, zero)) = found.first() {
                prop_assert_eq!(*zero, 0);
                prop_assert!(found.iter().all(|(n, us)| (n - first) * FRAME == *us), "{:?}", found);
                prop_assert_eq!(first % GROUP, 0);
            }
            // All that anybody holds of it, from the first that can be decoded.
            let held: BTreeSet<i64> = all.iter().flat_map(|c| c.what.iter().copied()).collect();
            let keys = all.iter().filter(|c| c.key).map(|c| c.what[0]).filter(|n| *n >= from);
            let first = keys.chain(found.iter().map(|(n, _)| *n)).min().unwrap_or(i64::MAX).max(from);
            let found: BTreeSet<i64> = found.into_iter().map(|(n, _)| n).collect();
            for n in held.iter().filter(|n| (first..from + long).contains(n)) {
                prop_assert!(found.contains(n), "{n} is held");
            }
            prop_assert!(found.is_subset(&held));
        }
    }
}
