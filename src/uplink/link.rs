//! Whether the backhaul is up, and when and where the next attempt is made. Pure.
//!
//! Used for the connection to headquarters' broker, and by whoever uploads objects. Times are monotonic.

use std::time::Duration;

use crate::district::clock::Mono;

/// First wait after a failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait between two attempts, before jitter.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A link that was up is only degraded for so long after something last came back; then it is down.
pub const GRACE: Duration = Duration::from_secs(5);
/// A link that was down is up again only after it has worked for so long.
pub const STEADY: Duration = Duration::from_secs(5);

/// What the backhaul is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backhaul {
    /// It works, and has for a while.
    Up,
    /// It has just failed, or has just begun to work again. What was begun for an outage goes on; nothing new begins.
    Degraded,
    /// It does not work.
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected; it last worked at `since`.
    Lost { since: Mono },
    /// Connected, but nothing has come back yet; it last worked at `since`.
    Connected { since: Mono },
    /// Works, since then.
    Proven { since: Mono },
}

/// The state of one way to headquarters, with any number of addresses that are tried in turn.
#[derive(Debug, Clone)]
pub struct Link {
    addresses: usize,
    address: usize,
    phase: Phase,
    /// Attempts that failed since the link last held for [`STEADY`].
    failures: u32,
    next_attempt: Mono,
    /// What it was called when the phase began.
    was: Backhaul,
    /// When something last came back.
    worked_at: Option<Mono>,
    jitter: fastrand::Rng,
}

impl Link {
    /// A link that has not been tried, with so many addresses (at least one), to be tried at once. `seed` spreads the
    /// attempts of a city's gateways over time.
    pub fn new(addresses: usize, seed: u64, now: Mono) -> Self {
        Self {
            addresses: addresses.max(1),
            address: 0,
            phase: Phase::Lost { since: now },
            failures: 0,
            next_attempt: now,
            was: Backhaul::Down,
            worked_at: None,
            jitter: fastrand::Rng::with_seed(seed),
        }
    }

    /// Which address the next attempt, or the connection, is to.
    pub fn address(&self) -> usize {
        self.address
    }

    /// When the next attempt is due.
    pub fn next_attempt(&self) -> Mono {
        self.next_attempt
    }

    /// Connected. Nothing is proven yet.
    pub fn connected(&mut self, now: Mono) {
        if let Phase::Lost { since } = self.phase {
            self.was = self.state(now);
            self.phase = Phase::Connected { since };
        }
    }

    /// Something was acknowledged. For a way without connections (uploads), this alone says that it works.
    pub fn worked(&mut self, now: Mono) {
        self.worked_at = Some(now);
        if let Phase::Proven { since } = self.phase {
            if now.since(since) >= STEADY {
                self.failures = 0;
            }
            return;
        }
        self.was = if self.failures == 0 { Backhaul::Up } else { self.state(now) };
        self.phase = Phase::Proven { since: now };
        self.next_attempt = now;
    }

    /// An attempt, or the connection, failed. The next attempt is to the next address. The wait doubles with every
    /// round through the addresses, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`], and varies by a quarter.
    pub fn failed(&mut self, now: Mono) {
        let state = self.state(now);
        match self.phase {
            Phase::Lost { .. } => {}
            Phase::Connected { since } => self.phase = Phase::Lost { since },
            Phase::Proven { since } => {
                if now.since(since) >= STEADY {
                    self.failures = 0;
                }
                // It failed when nothing came back any more, which is found out later.
                self.phase = Phase::Lost { since: self.worked_at.unwrap_or(now) };
            }
        }
        self.was = state;
        let round = self.failures / u32::try_from(self.addresses).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF_MIN.saturating_mul(1 << round.min(10)).min(BACKOFF_MAX);
        self.next_attempt = now + wait.mul_f64(0.75 + self.jitter.f64() / 2.0);
        self.address = (self.address + 1) % self.addresses;
    }

    /// When something last came back: since then it may have been down.
    pub fn worked_at(&self) -> Option<Mono> {
        self.worked_at
    }

    /// What it is called now.
    pub fn state(&self, now: Mono) -> Backhaul {
        match self.phase {
            Phase::Proven { since } if self.was == Backhaul::Up || now.since(since) >= STEADY => Backhaul::Up,
            Phase::Proven { .. } => Backhaul::Degraded,
            Phase::Lost { since } | Phase::Connected { since } => {
                if self.was == Backhaul::Down || now.since(since) >= GRACE {
                    Backhaul::Down
                } else {
                    Backhaul::Degraded
                }
            }
        }
    }

    /// When [`Link::state`] changes by itself, if it does.
    pub fn next_change(&self, now: Mono) -> Option<Mono> {
        let at = match self.phase {
            Phase::Lost { since } | Phase::Connected { since } => since + GRACE,
            Phase::Proven { since } => since + STEADY,
        };
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(1_000_000 + ms))
    }

    #[test]
    fn a_link_is_up_after_a_connection_and_a_first_acknowledgement() {
        let mut link = Link::new(1, 1, at(0));
        assert_eq!((link.state(at(0)), link.next_attempt()), (Backhaul::Down, at(0)));
        link.connected(at(10));
        assert_eq!(link.state(at(10)), Backhaul::Down);
        link.worked(at(20));
        assert_eq!(link.state(at(20)), Backhaul::Up);
    }

    #[test]
    fn a_short_break_only_degrades_and_a_long_one_is_down() {
        let mut link = Link::new(1, 1, at(0));
        link.worked(at(0));
        link.worked(at(60_000));
        link.failed(at(60_000));
        assert_eq!(link.state(at(60_000)), Backhaul::Degraded);
        assert_eq!(link.next_change(at(60_000)), Some(at(65_000)));
        assert_eq!(link.state(at(65_000)), Backhaul::Down);
        link.connected(at(70_000));
        link.worked(at(70_001));
        assert_eq!(link.state(at(70_001)), Backhaul::Degraded);
        assert_eq!(link.state(at(75_001)), Backhaul::Up);
    }

    #[test]
    fn a_link_that_fell_silent_is_down_since_then_as_soon_as_it_is_found_out() {
        let mut link = Link::new(1, 1, at(0));
        link.worked(at(0));
        link.worked(at(50_000));
        link.failed(at(60_000));
        assert_eq!((link.state(at(60_000)), link.worked_at()), (Backhaul::Down, Some(at(50_000))));
    }

    #[test]
    fn connections_that_never_prove_anything_do_not_hide_an_outage() {
        let mut link = Link::new(1, 1, at(0));
        link.worked(at(0));
        for second in 10..20 {
            link.failed(at(second * 1_000));
            link.connected(at(second * 1_000 + 500));
        }
        assert_eq!(link.state(at(20_000)), Backhaul::Down);
    }

    #[test]
    fn the_addresses_are_tried_in_turn_and_the_wait_doubles_with_each_round() {
        let mut link = Link::new(2, 1, at(0));
        let mut waits = Vec::new();
        for n in 0..16 {
            assert_eq!(link.address(), n % 2);
            link.failed(at(0));
            waits.push(link.next_attempt().since(at(0)).as_secs_f64());
        }
        let expected = [0.2, 0.2, 0.4, 0.4, 0.8, 0.8, 1.6, 1.6, 3.2, 3.2, 6.4, 6.4, 10.0, 10.0, 10.0, 10.0];
        for (wait, expected) in waits.iter().zip(expected) {
            assert!((0.75..=1.25).contains(&(wait / expected)), "{waits:?}");
        }
    }

    #[test]
    fn a_connection_that_held_starts_the_waits_anew_and_one_that_flaps_does_not() {
        let mut link = Link::new(1, 1, at(0));
        for _ in 0..10 {
            link.failed(at(0));
        }
        link.connected(at(10_000));
        link.worked(at(10_000));
        link.failed(at(10_500));
        assert!(link.next_attempt() > at(16_000));
        link.connected(at(20_000));
        link.worked(at(20_000));
        link.failed(at(30_000));
        assert!(link.next_attempt() < at(30_300));
    }

    proptest! {
        #[test]
        fn the_next_attempt_is_never_far_and_a_link_that_failed_is_never_up(
            steps in prop::collection::vec((0u8..3, 0u64..20_000), 1..100),
            seed: u64,
        ) {
            let (mut link, mut now) = (Link::new(3, seed, at(0)), 0);
            for (step, ms) in steps {
                now += ms;
                match step {
                    0 => link.connected(at(now)),
                    1 => link.worked(at(now)),
                    _ => {
                        link.failed(at(now));
                        prop_assert_ne!(link.state(at(now)), Backhaul::Up);
                        prop_assert!(link.next_attempt() > at(now));
                    }
                }
                prop_assert!(link.next_attempt().since(at(now)) <= BACKOFF_MAX.mul_f64(1.25));
                if let Some(change) = link.next_change(at(now)) {
                    let before = Mono::from_boot(change.since_boot() - Duration::from_nanos(1));
                    prop_assert_eq!(link.state(at(now)), link.state(before));
                }
            }
        }
    }
}
