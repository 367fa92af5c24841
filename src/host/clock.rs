//! The real clocks.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::synchronisation;
use crate::district::clock::{Mono, Now, Utc};

/// Both clocks, now, and whether wall time is synchronised: asked first, since the clock may be set in between.
pub fn now() -> Now {
    let mono = mono();
    let synchronised = synchronised(mono);
    Now { mono, wall: wall(), synchronised }
}

/// `CLOCK_BOOTTIME`: monotonic, counts suspends too.
pub fn mono() -> Mono {
    #[cfg(test)]
    if let Some(clock) = simulated::get() {
        return clock.mono;
    }
    let t = clock_gettime(ClockId::Boottime);
    Mono::from_boot(Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0)))
}

/// `CLOCK_REALTIME`.
pub fn wall() -> Utc {
    #[cfg(test)]
    if let Some(clock) = simulated::get() {
        return clock.wall;
    }
    let t = clock_gettime(ClockId::Realtime);
    Utc::from_micros(t.tv_sec.saturating_mul(1_000_000).saturating_add(t.tv_nsec / 1_000))
}

/// The tokio instant of a monotonic point, for `sleep_until`.
pub fn deadline(at: Mono) -> tokio::time::Instant {
    tokio::time::Instant::now() + at.since(mono())
}

fn synchronised(now: Mono) -> bool {
    #[cfg(test)]
    if let Some(clock) = simulated::get() {
        return clock.synchronised;
    }
    synchronisation::known(now)
}

/// The monotonic clock of libraries that want the standard library's own.
#[allow(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The kernel's boot id, which names the boot that [`Mono`] counts from.
pub fn boot_id() -> &'static str {
    #[cfg(test)]
    if let Some(clock) = simulated::get() {
        return clock.boot;
    }
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
    })
}

/// Clocks that a test moves, for the thread that it runs on.
#[cfg(test)]
pub mod simulated {
    use std::cell::Cell;

    use crate::district::clock::{Mono, Utc};

    /// What they say.
    #[derive(Debug, Clone, Copy)]
    pub struct Clocks {
        /// Time since the machine booted.
        pub mono: Mono,
        /// Wall time.
        pub wall: Utc,
        /// Whether that is synchronised.
        pub synchronised: bool,
        /// The boot's id.
        pub boot: &'static str,
    }

    thread_local! {
        static CLOCKS: Cell<Option<Clocks>> = const { Cell::new(None) };
    }

    /// From now on this thread reads these; the real ones again with `None`.
    pub fn set(clocks: Option<Clocks>) {
        CLOCKS.set(clocks);
    }

    /// What they say, where a test moves them.
    pub fn get() -> Option<Clocks> {
        CLOCKS.get()
    }
}
