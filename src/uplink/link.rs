//! Whether the backhaul is up, and when and where the next attempt is made. Pure.
//!
//! Used for the connection to headquarters' broker, and by whoever uploads objects. Times are monotonic.

use std::time::Duration;

use crate::district::clock::Mono;

/// First wait after a failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait between two attempts, before jitter.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A link that was up is only degraded for so long after a failure; then it is down.
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
                self.phase = Phase::Lost { since: now };
            }
        }
        self.was = state;
        let round = self.failures / u32::try_from(self.addresses).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF_MIN.saturating_mul(1 << round.min(10)).min(BACKOFF_MAX);
        self.next_attempt = now + wait.mul_f64(0.75 + self.jitter.f64() / 2.0);
        self.address = (self.address + 1) % self.addresses;
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
