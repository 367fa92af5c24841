//! Three clocks that are never mixed: a camera's ticks (in `media`), the monotonic clock for every timer, and wall time
//! for what people read. These are the types; `host::clock` reads the real ones.

use std::{fmt, ops, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point on the monotonic clock: time since the machine booted. Comparable only within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(Duration);

impl Mono {
    /// The point `since_boot` after the boot.
    pub const fn from_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }
    /// Time since the boot.
    pub const fn since_boot(self) -> Duration {
        self.0
    }
    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
    /// The point `span` before this one, not before the boot.
    pub fn before(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(span))
    }
}

impl ops::Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(span))
    }
}

/// Wall time, UTC, in microseconds since 1970. Written as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "date-time"))]
pub struct Utc(i64);

/// A text that is not an RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time such as 2026-03-01T12:00:00.000Z")]
pub struct NotATime(String);

impl Utc {
    /// From microseconds since 1970.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }
    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }
    /// Milliseconds since 1970, zero before it.
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000)).unwrap_or(0)
    }
    /// This time moved by `us` microseconds.
    pub fn shifted(self, us: i64) -> Utc {
        Utc(self.0.saturating_add(us))
    }
    /// `span` later.
    pub fn after(self, span: Duration) -> Utc {
        self.shifted(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
    }
    /// `span` earlier.
    pub fn before(self, span: Duration) -> Utc {
        self.shifted(i64::try_from(span.as_micros()).map_or(i64::MIN, |us| -us))
    }
    /// Time from `earlier` to this, zero when it is not after.
    pub fn since(self, earlier: Utc) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
    fn stamp(self) -> jiff::Timestamp {
        let clamped = self.0.clamp(jiff::Timestamp::MIN.as_microsecond(), jiff::Timestamp::MAX.as_microsecond());
        jiff::Timestamp::from_microsecond(clamped).unwrap_or_default()
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.stamp())
    }
}

impl std::str::FromStr for Utc {
    type Err = NotATime;
    fn from_str(text: &str) -> Result<Self, NotATime> {
        text.parse::<jiff::Timestamp>().map(|t| Utc(t.as_microsecond())).map_err(|_| NotATime(text.to_owned()))
    }
}

impl TryFrom<String> for Utc {
    type Error = NotATime;
    fn try_from(text: String) -> Result<Self, NotATime> {
        text.parse()
    }
}

impl From<Utc> for String {
    fn from(t: Utc) -> Self {
        t.to_string()
    }
}

/// What a decision is told about time: both clocks at once, and whether wall time can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For timers and order.
    pub mono: Mono,
    /// For people.
    pub wall: Utc,
    /// Whether the system clock is synchronised with a time source.
    pub synchronised: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_written_with_milliseconds_and_read_back() {
        let t = Utc::from_micros(1_772_366_400_123_456);
        assert_eq!(t.to_string(), "2026-03-01T12:00:00.123Z");
        assert_eq!(t.to_string().parse::<Utc>().unwrap().micros(), 1_772_366_400_123_000);
        assert!("yesterday".parse::<Utc>().is_err());
        assert!(!Utc::from_micros(i64::MAX).to_string().is_empty());
    }
}
