//! Whether wall time has been set since boot by somebody who knows the time.

use std::{
    mem,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::district::clock::Mono;

/// What the kernel's bound of the clock's error stands at after boot, and grows to again at 500 ppm while nobody sets the
/// clock: `NTP_PHASE_LIMIT`, in microseconds.
const UNKNOWN_US: i64 = 16_000_000;

/// systemd-timesyncd writes it when it has set the clock first, and it stays until the machine stops.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// Whether the clock has been synchronised since boot. Once it is, it stays so: a clock that runs on for hours is good
/// enough to order things by. Looked for at most once a second.
pub fn known(now: Mono) -> bool {
    const FOR_GOOD: u64 = u64::MAX;
    /// Seconds since boot when it is looked for next.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (now, next) = (now.since_boot().as_secs(), NEXT.load(Relaxed));
    if next == FOR_GOOD || now < next {
        return next == FOR_GOOD;
    }
    let seen = is_known(error_bound_us()) || Path::new(TIMESYNCD).exists();
    NEXT.store(if seen { FOR_GOOD } else { now + 1 }, Relaxed);
    seen
}

/// By the kernel's bound and not its flag `STA_UNSYNC`, which chrony leaves set unless it keeps the hardware clock too
/// (`rtcsync`); as `timedatectl` decides.
fn is_known(error_bound_us: Option<i64>) -> bool {
    error_bound_us.is_some_and(|bound| bound < UNKNOWN_US)
}

/// How far the clock may be off, as whoever synchronises it told the kernel: chrony, ntpd, systemd-timesyncd; adjtimex(2).
/// None: the kernel does not say.
fn error_bound_us() -> Option<i64> {
    // SAFETY: a structure of numbers, of which all may be zero; zero `modes` change nothing.
    let mut timex: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes into a structure of its own layout that lives until the call returns.
    let state = unsafe { libc::adjtimex(&mut timex) };
    #[allow(clippy::useless_conversion, reason = "it has 32 bits on some machines")]
    (state >= 0).then_some(timex.maxerror.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_known_while_the_kernel_bounds_its_error() {
        // chrony without `rtcsync`, timesyncd just now, timesyncd hours ago; after boot; a kernel that says nothing.
        for bound in [9_776, 0, 15_999_500] {
            assert!(is_known(Some(bound)));
        }
        assert!(!is_known(Some(UNKNOWN_US)) && !is_known(None));
        // Where a sandbox forbids to ask, it says nothing.
        assert!(error_bound_us().is_none_or(|bound| (0..=UNKNOWN_US).contains(&bound)));
    }
}
