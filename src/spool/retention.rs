//! Which media segments make room. Pure.
//!
//! What headquarters has goes first: segments of a buffer alone, then those with evidence, the oldest first. When that is
//! not enough, what was kept of cameras beside evidence goes, the oldest first, and becomes a gap; evidence and gaps that
//! lie between it are written again at the log's end first. Evidence that headquarters has not confirmed stays, whatever
//! the pressure: when all else is gone, nothing new is taken.

/// What a segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentUse {
    /// Its number; the oldest has the lowest.
    pub number: u64,
    /// Size of its file in bytes.
    pub bytes: u64,
    /// Objects with something in it; one that was written in chunks counts with each.
    pub objects: u64,
    /// Of these, evidence.
    pub evidence: u64,
    /// Of all, not confirmed by headquarters.
    pub undelivered: u64,
    /// Objects that end in it, each counted once, and those of them that headquarters has not confirmed.
    pub ends: u64,
    /// See [`SegmentUse::ends`].
    pub waiting: u64,
    /// Of those, what may not go: evidence, and words about gaps.
    pub stays: u64,
    /// Bytes of what may not go.
    pub stays_bytes: u64,
}

impl SegmentUse {
    /// Whether anything in it may go.
    pub fn can_go(&self) -> bool {
        self.objects > 0 && (self.undelivered == 0 || self.undelivered > self.stays)
    }
}

/// What is used, what may be used, and what is wanted now; all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// All media segments together.
    pub used: u64,
    /// The most they may use.
    pub quota: u64,
    /// Free on the file system.
    pub free: u64,
    /// What must stay free on it.
    pub keep_free: u64,
    /// What is about to be written.
    pub need: u64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Segments to remove, in this order.
    pub evict: Vec<u64>,
    /// Bytes still missing when they are gone: more than zero means that nothing may be written.
    pub short: u64,
}

/// Decides; `segments` oldest first, without the one that is being written.
pub fn decide(segments: &[SegmentUse], pressure: Pressure) -> Decision {
    let Pressure { used, quota, free, keep_free, need } = pressure;
    let over_quota = used.saturating_add(need).saturating_sub(quota);
    let under_free = keep_free.saturating_add(need).saturating_sub(free);
    let mut decision = Decision { evict: Vec::new(), short: over_quota.max(under_free) };
    let known = |s: &SegmentUse| s.undelivered == 0;
    let buffer = |s: &SegmentUse| s.can_go() && s.undelivered > 0;
    // To write more than half of a segment again frees little for much work.
    let cheap = |s: &SegmentUse| s.stays_bytes * 2 <= s.bytes;
    let turns: [&dyn Fn(&SegmentUse) -> bool; 4] =
        [&|s| known(s) && s.evidence == 0, &|s| known(s) && s.evidence > 0, &|s| buffer(s) && cheap(s), &|s| {
            buffer(s) && !cheap(s) && s.stays_bytes < s.bytes
        }];
    for turn in turns {
        for segment in segments.iter().filter(|s| turn(s)) {
            if decision.short == 0 {
                return decision;
            }
            decision.evict.push(segment.number);
            decision.short = decision.short.saturating_sub(segment.bytes - segment.stays_bytes.min(segment.bytes));
        }
    }
    decision
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(number: u64, undelivered: u64) -> SegmentUse {
        let stays_bytes = if undelivered > 0 { 90 } else { 0 };
        let stays = undelivered;
        SegmentUse {
            number,
            bytes: 100,
            objects: 5,
            evidence: 5,
            undelivered,
            stays,
            stays_bytes,
            ..SegmentUse::default()
        }
    }

    /// A segment with so many objects of a buffer, and evidence among them that headquarters does not have.
    fn buffer(number: u64, undelivered: u64, evidence: u64) -> SegmentUse {
        let (stays, undelivered) = (evidence, undelivered + evidence);
        let stays_bytes = 10 * stays;
        SegmentUse {
            number,
            bytes: 100,
            objects: 20,
            evidence,
            undelivered,
            stays,
            stays_bytes,
            ..SegmentUse::default()
        }
    }

    fn pressure(used: u64, need: u64) -> Pressure {
        Pressure { used, quota: 1_000, free: u64::MAX, keep_free: 0, need }
    }

    #[test]
    fn the_oldest_delivered_segments_go_and_no_more_than_needed() {
        let segments = [segment(1, 0), segment(2, 1), segment(3, 0), segment(4, 0)];
        assert_eq!(decide(&segments, pressure(950, 200)), Decision { evict: vec![1, 3], short: 0 });
        assert_eq!(decide(&segments, pressure(900, 100)), Decision::default());
    }

    #[test]
    fn what_headquarters_has_not_confirmed_stays_even_when_nothing_new_fits() {
        let segments = [segment(1, 1), segment(2, 3)];
        assert_eq!(decide(&segments, pressure(1_000, 50)), Decision { evict: vec![], short: 50 });
    }

    #[test]
    fn the_file_system_counts_as_much_as_the_quota() {
        let segments = [segment(1, 0)];
        let tight = Pressure { used: 100, quota: 1_000, free: 30, keep_free: 20, need: 50 };
        assert_eq!(decide(&segments, tight), Decision { evict: vec![1], short: 0 });
    }

    #[test]
    fn a_buffer_that_headquarters_has_goes_before_evidence_that_it_has_and_both_before_what_it_has_not() {
        let segments = [buffer(1, 3, 0), segment(2, 0), buffer(3, 0, 0), buffer(4, 5, 1), segment(5, 2)];
        assert_eq!(decide(&segments, pressure(950, 150)), Decision { evict: vec![3], short: 0 });
        assert_eq!(decide(&segments, pressure(950, 250)), Decision { evict: vec![3, 2], short: 0 });
        assert_eq!(decide(&segments, pressure(950, 350)), Decision { evict: vec![3, 2, 1], short: 0 });
        assert_eq!(decide(&segments, pressure(950, 450)), Decision { evict: vec![3, 2, 1, 4], short: 10 });
    }

    #[test]
    fn what_is_mostly_evidence_is_written_again_only_when_nothing_else_is_left() {
        let segments = [buffer(1, 1, 7), buffer(2, 1, 2)];
        assert_eq!(decide(&segments, pressure(1_000, 80)), Decision { evict: vec![2], short: 0 });
        assert_eq!(decide(&segments, pressure(1_000, 100)), Decision { evict: vec![2, 1], short: 0 });
    }

    proptest! {
        #[test]
        fn a_segment_of_evidence_alone_goes_only_when_headquarters_has_it_and_a_buffer_only_when_nothing_else_helps(
            segments in prop::collection::vec((0u64..3, 0u64..3, 0u64..1_000), 0..40),
            used: u64, quota: u64, free: u64, keep_free: u64, need: u64
        ) {
            let segments: Vec<_> = segments.into_iter().enumerate().map(|(i, (stays, buffer, bytes))| SegmentUse {
                number: i as u64, bytes, objects: 9, evidence: stays, undelivered: stays + buffer, stays, stays_bytes: bytes * stays / 4, ends: 0, waiting: 0,
            }).collect();
            let decision = decide(&segments, Pressure { used, quota, free, keep_free, need });
            let of = |number: &u64| segments[*number as usize];
            for number in &decision.evict {
                prop_assert!(of(number).can_go());
            }
            if decision.evict.iter().any(|n| of(n).undelivered > 0) {
                let known = segments.iter().filter(|s| s.undelivered == 0);
                prop_assert!(known.into_iter().all(|s| decision.evict.contains(&s.number)));
            }
            if decision.short > 0 {
                prop_assert!(segments.iter().all(|s| !s.can_go() || decision.evict.contains(&s.number) || s.stays_bytes >= s.bytes));
            }
        }
    }
}
