//! Which media segments make room. Pure.
//!
//! The oldest first, and only those in which everything has been delivered: a segment with one object that headquarters
//! has not confirmed stays, whatever the pressure. When that does not make room enough, nothing new is taken.

/// What a segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentUse {
    /// Its number; the oldest has the lowest.
    pub number: u64,
    /// Size of its file in bytes.
    pub bytes: u64,
    /// Objects in it.
    pub objects: u64,
    /// Of these, not confirmed by headquarters.
    pub undelivered: u64,
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
    /// Segments to remove, oldest first.
    pub evict: Vec<u64>,
    /// Bytes still missing when they are gone: more than zero means that nothing may be written.
    pub short: u64,
}

/// Decides; `segments` oldest first, without the one that is being written.
pub fn decide(segments: &[SegmentUse], pressure: Pressure) -> Decision {
    let Pressure { used, quota, free, keep_free, need } = pressure;
    let over_quota = used.saturating_add(need).saturating_sub(quota);
    let under_free = keep_free.saturating_add(need).saturating_sub(free);
    let mut short = over_quota.max(under_free);
    let mut evict = Vec::new();
    for segment in segments {
        if short == 0 {
            break;
        }
        if segment.undelivered == 0 {
            evict.push(segment.number);
            short = short.saturating_sub(segment.bytes);
        }
    }
    Decision { evict, short }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(number: u64, undelivered: u64) -> SegmentUse {
        SegmentUse { number, bytes: 100, objects: 5, undelivered }
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

    proptest! {
        #[test]
        fn nothing_undelivered_is_ever_evicted(
            segments in prop::collection::vec((0u64..3, 0u64..1_000), 0..40), used: u64, quota: u64, free: u64, keep_free: u64, need: u64
        ) {
            let segments: Vec<_> = segments.into_iter().enumerate()
                .map(|(i, (undelivered, bytes))| SegmentUse { number: i as u64, bytes, objects: 3, undelivered }).collect();
            let decision = decide(&segments, Pressure { used, quota, free, keep_free, need });
            for number in &decision.evict {
                prop_assert_eq!(segments[*number as usize].undelivered, 0);
            }
            prop_assert!(decision.evict.is_sorted());
        }
    }
}
