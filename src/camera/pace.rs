//! How fast connections are begun, all cameras together. Pure.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::district::clock::Mono;

/// Hands out moments at least `gap` apart: one camera goes at once, hundreds that start together go one after another.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Mutex<Mono>,
}

impl Pace {
    /// A pace of one connection every `gap`.
    pub fn new(gap: Duration) -> Self {
        Self { gap, next: Mutex::default() }
    }

    /// How long to wait from `now` before connecting.
    pub fn reserve(&self, now: Mono) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = now.max(*next);
        *next = slot + self.gap;
        slot.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_camera_goes_at_once_and_many_go_one_after_another() {
        let pace = Pace::new(Duration::from_millis(5));
        let at = |ms| Mono::from_boot(Duration::from_millis(ms));
        assert_eq!(pace.reserve(at(1_000)), Duration::ZERO);
        let last = (1..711).map(|_| pace.reserve(at(1_000))).last().unwrap();
        assert_eq!(last, Duration::from_millis(5 * 710));
        assert_eq!(pace.reserve(at(60_000)), Duration::ZERO);
    }
}
