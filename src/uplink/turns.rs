//! Which lane's media goes next. Pure.
//!
//! Strict priority: the most urgent lane in which something waits. So that none starves for ever, a lane that waited while
//! [`PATIENCE`] bytes of more urgent ones went gets one object through; of several, the most urgent.

/// Bytes of more urgent lanes that a lane waits for at most: at 20 Mbit/s some 50 s.
pub const PATIENCE: u64 = 128 << 20;

/// Takes turns between lanes, the most urgent first.
#[derive(Debug, Clone)]
pub struct Turns<const N: usize> {
    /// For each lane, bytes of more urgent ones that went while it waited.
    passed: [u64; N],
}

impl<const N: usize> Default for Turns<N> {
    fn default() -> Self {
        Self { passed: [0; N] }
    }
}

impl<const N: usize> Turns<N> {
    /// In which order lanes are asked for their next object.
    pub fn order(&self) -> [usize; N] {
        let mut order: [usize; N] = std::array::from_fn(|lane| lane);
        order.sort_by_key(|lane| (self.passed[*lane] < PATIENCE, *lane));
        order
    }

    /// An object of so many bytes was taken from `lane`; `waits` says whether anything waits in each.
    pub fn took(&mut self, lane: usize, bytes: u64, waits: impl Fn(usize) -> bool) {
        for (other, passed) in self.passed.iter_mut().enumerate() {
            if other == lane || !waits(other) {
                *passed = 0;
            } else if other > lane {
                *passed = passed.saturating_add(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(turns: &mut Turns<3>, waits: [bool; 3], bytes: u64) -> Option<usize> {
        let lane = turns.order().into_iter().find(|lane| waits[*lane])?;
        turns.took(lane, bytes, |lane| waits[lane]);
        Some(lane)
    }

    #[test]
    fn the_most_urgent_goes_first_and_the_rest_when_it_is_through() {
        let mut turns = Turns::default();
        assert_eq!(next(&mut turns, [true, true, true], 1), Some(0));
        assert_eq!(next(&mut turns, [false, true, true], 1), Some(1));
        assert_eq!(next(&mut turns, [false, false, true], 1), Some(2));
        assert_eq!(next(&mut turns, [false; 3], 1), None);
    }

    #[test]
    fn a_lane_that_waited_long_enough_gets_one_through() {
        let mut turns = Turns::default();
        let taken: Vec<_> = (0..80).filter_map(|_| next(&mut turns, [true, false, true], 4 << 20)).collect();
        let at: Vec<_> = taken.iter().enumerate().filter(|(_, lane)| **lane == 2).map(|(i, _)| i).collect();
        assert_eq!(at, [32, 65], "one in 33 objects of 4 MiB");
    }

    proptest! {
        #[test]
        fn no_lane_that_waits_is_passed_over_by_more_than_its_patience_and_an_object_of_each(
            steps in prop::collection::vec((any::<[bool; 3]>(), 1u64..(8 << 20)), 1..400)
        ) {
            let mut turns = Turns::<3>::default();
            let mut passed = [0u64; 3];
            for (waits, bytes) in steps {
                let Some(lane) = next(&mut turns, waits, bytes) else { continue };
                for other in 0..3 {
                    passed[other] = if other == lane || !waits[other] { 0 } else { passed[other] + bytes };
                }
                prop_assert!(passed.iter().all(|p| *p <= PATIENCE + 3 * (8 << 20)), "{passed:?}");
            }
        }
    }
}
