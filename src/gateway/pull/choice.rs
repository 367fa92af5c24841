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
}

/// How far the choosing has got.
#[derive(Debug, Clone)]
pub struct Chooser {
    asked: Interval,
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
        Self { asked, last: None }
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
        let near = |c: &&Candidate<T>| c.from <= last.end.after(JITTER);
        let around = || candidates.iter().take_while(near);
        if let Some(same) = around().find(|c| last.is_behind(c) && (c.init == last.init || c.key)) {
            return Some((same, None));
        }
        let later = |c: &&Candidate<T>| c.to > last.end.after(SAME_FRAME);
        // It was running, so that what was decoded last is what its next frame needs; or it begins anew.
        let running = |c: &&Candidate<T>| c.from < last.end.before(SAME_FRAME) && c.init == last.init;
        let begins = |c: &&Candidate<T>| c.from >= last.end.before(SAME_FRAME) && c.key;
        let over = around().filter(later).filter(|c| running(c) || begins(c));
        let over = over.max_by(|a, b| (a.to, b.series).cmp(&(b.to, a.series)));
        match over {
            Some(fragment) => Some((fragment, running(&fragment).then_some(last.end))),
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
        let (series, init, end) = (fragment.series, fragment.init, fragment.to.min(self.asked.to));
        self.last = Some(Last { series, init, end, place_us: ends, end_us, shift_us });
        Chosen { fragment: fragment.clone(), keep, shift_us, plays_us: (begins + shift_us, end_us), broken }
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
