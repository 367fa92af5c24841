//! How fast datagrams go out: a key frame, and the seconds since it at the beginning, would overflow what a receiver's kernel
//! keeps for it, if they came at once. Pure.

use std::time::Duration;

use crate::{district::clock::Mono, media::ring::Held};

/// What may go at once: about what a socket keeps by default.
const BURST: f64 = 64_000.0;
/// After a wait so much goes together: a wake-up for each packet costs more than the packet.
const TOGETHER: f64 = 8_000.0;
/// A stream is sent so many times faster than it comes, until it is caught up with.
const FASTER: f64 = 4.0;
/// Bytes a second: never slower and never faster than that.
const RATES: (f64, f64) = (1e6, 12.5e6);

/// A bucket of bytes.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    left: f64,
    at: Mono,
}

impl Pace {
    /// That of a stream of which so much is held.
    pub fn new(held: Held, now: Mono) -> Self {
        let own = held.bytes as f64 / held.span.as_secs_f64().max(1.0);
        Self { rate: (own * FASTER).clamp(RATES.0, RATES.1), left: BURST, at: now }
    }

    /// Takes so many bytes, or says when it may.
    pub fn take(&mut self, bytes: usize, now: Mono) -> Result<(), Mono> {
        self.left = (self.left + now.since(self.at).as_secs_f64() * self.rate).min(BURST);
        self.at = now;
        if self.left <= 0.0 {
            return Err(now + Duration::from_secs_f64((TOGETHER - self.left) / self.rate));
        }
        self.left -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_frame_goes_at_once_and_a_large_one_as_fast_as_its_stream_four_times_over() {
        let mut now = Mono::from_boot(Duration::from_secs(10));
        let began = now;
        let held = Held { bytes: 5_000_000, span: Duration::from_secs(10), ..Held::default() };
        let mut pace = Pace::new(held, now);
        assert!((0..40).all(|_| pace.take(1_400, now).is_ok()), "56 kB");
        let mut waits = 0;
        for _ in 0..1_000 {
            while let Err(until) = pace.take(1_400, now) {
                (now, waits) = (until, waits + 1);
            }
        }
        let took = now.since(began).as_secs_f64();
        assert!((0.65..0.75).contains(&took), "1.4 MB at 2 MB/s took {took} s");
        assert!(waits < 200, "{waits} waits");
    }
}
