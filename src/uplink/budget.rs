//! When bytes may leave, so that a line's ceiling is kept at every moment and not only on average: a token bucket in
//! which a byte counts what it takes on the line. Pure.

use std::time::Duration;

use crate::district::clock::Mono;

/// Payload of a full TCP segment with time stamps in an Ethernet frame.
const SEGMENT: usize = 1448;

/// What TCP, IP and Ethernet add to each segment.
const HEADERS: usize = 66;

/// Of the ceiling this much is used, in percent: a bottleneck that is fed with less than it drains has no queue, and
/// what is urgent finds it empty.
const USED: u64 = 97;

/// What may leave at once after a pause, in time on the line.
const BURST: Duration = Duration::from_millis(20);

/// The largest piece: enough for the fastest lines, and no long wait for the others who share the budget.
const LARGEST: usize = 11 * SEGMENT;

/// Bytes for a line, shared by all who send on it. Over any span no more is allowed than its bits, and a burst of 20 ms.
#[derive(Debug)]
pub struct Budget {
    /// What is used of the ceiling, bits a second.
    bits: u64,
    /// When the bucket is full again.
    full: Mono,
}

impl Budget {
    /// The budget of a line with a ceiling of `bits` a second. The ceiling counts everything on the line.
    pub fn new(bits: u64) -> Self {
        let used = u128::from(bits) * u128::from(USED) / 100;
        Self { bits: u64::try_from(used).unwrap_or(u64::MAX).max(1), full: Mono::default() }
    }

    /// From now on exactly so many bits a second.
    pub fn allow(&mut self, bits: u64) {
        self.bits = bits.max(1);
    }

    /// What these bytes are on the line, in bits.
    pub fn on_line(bytes: usize) -> u64 {
        (bytes as u64 + (bytes.div_ceil(SEGMENT) * HEADERS) as u64) * 8
    }

    /// How many bytes are taken at a time: full segments, so that their headers are paid once, and so few that those
    /// who share the line alternate every few milliseconds.
    pub fn piece(&self) -> usize {
        let at_once = u128::from(self.bits) * (BURST / 4).as_micros() / 8_000_000;
        let segments = usize::try_from(at_once).unwrap_or(LARGEST) / (SEGMENT + HEADERS);
        (segments * SEGMENT).clamp(SEGMENT, LARGEST)
    }

    /// Takes `bytes` out: they are the caller's, and may leave after the time that is returned. Who asks first is first.
    pub fn take(&mut self, bytes: usize, now: Mono) -> Duration {
        self.full = self.full.max(now) + self.cost(bytes);
        self.full.before(self.burst()).since(now)
    }

    /// How long these bytes occupy the line.
    fn cost(&self, bytes: usize) -> Duration {
        let nanos = (u128::from(Self::on_line(bytes)) * 1_000_000_000).div_ceil(u128::from(self.bits));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The burst: a slow line sends at least one segment whole.
    fn burst(&self) -> Duration {
        BURST.max(self.cost(SEGMENT))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(us: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(1_000) + Duration::from_micros(us))
    }

    #[test]
    fn pieces_are_full_segments_and_short_on_the_line() {
        for (bits, piece) in [(64_000, 1), (4_000_000, 1), (20_000_000, 8), (100_000_000, 11), (10_000_000_000, 11)] {
            let budget = Budget::new(bits);
            assert_eq!(budget.piece(), piece * SEGMENT, "{bits}");
            assert!(budget.cost(budget.piece()) <= budget.burst());
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let mut budget = Budget::new(4_000_000);
        let mut free = 0;
        while budget.take(SEGMENT, at(0)).is_zero() {
            free += SEGMENT;
        }
        // 20 ms of 3.88 Mbit/s are 9,700 bytes on the line: six segments of 1,514.
        assert_eq!(free, 6 * SEGMENT);
    }

    proptest! {
        #[test]
        fn over_any_span_no_more_is_allowed_than_the_budget_and_the_burst(
            bits in 64_000_u64..1_000_000_000,
            asks in prop::collection::vec((0_u64..30_000, 1_usize..=LARGEST), 2..120),
        ) {
            let mut budget = Budget::new(bits);
            let (piece, mut now, mut sent) = (budget.piece(), 0, Vec::new());
            for (pause, bytes) in asks {
                now += pause;
                let bytes = bytes.min(piece);
                let wait = budget.take(bytes, at(now));
                let on_line = bytes + bytes.div_ceil(SEGMENT) * HEADERS;
                sent.push((at(now) + wait, on_line as f64 * 8.0));
            }
            let rate = bits as f64 * USED as f64 / 100.0;
            let burst = rate * budget.burst().as_secs_f64();
            for (first, &(from, _)) in sent.iter().enumerate() {
                let mut all = 0.0;
                for &(to, on_line) in &sent[first..] {
                    all += on_line;
                    let allowed = rate * to.since(from).as_secs_f64() + burst;
                    prop_assert!(all <= allowed * 1.000_001 + 1.0, "{all} bits of {allowed}");
                }
            }
        }

        #[test]
        fn who_asks_all_the_time_uses_it_in_full_even_when_woken_late(
            bits in 64_000_u64..1_000_000_000,
            late in prop::collection::vec(0_u64..=14_000, 400),
        ) {
            let mut budget = Budget::new(bits);
            let (piece, mut now, mut taken) = (budget.piece(), at(0), Duration::ZERO);
            for late in late {
                let wait = budget.take(piece, now);
                taken += budget.cost(piece);
                if !wait.is_zero() {
                    now = now + wait + Duration::from_micros(late);
                }
            }
            let elapsed = now.since(at(0));
            let missed = elapsed.saturating_sub(taken);
            prop_assert!(missed <= Duration::from_millis(15), "{missed:?} of {elapsed:?} unused");
        }
    }
}
