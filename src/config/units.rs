//! Durations, sizes and rates as people write them: `1m30s`, `80GiB`, `20Mbit/s`. Pure.

use std::time::Duration;

/// Why a text is not such a quantity, and what was probably meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotAQuantity {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub write: Option<String>,
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const RATE_UNITS: [(&str, u64); 4] =
    [("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];

/// What people write for the units above.
const OTHER_NAMES: [(&str, &str); 24] = [
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("msec", "ms"),
    ("k", "KiB"),
    ("m", "MiB"),
    ("g", "GiB"),
    ("t", "TiB"),
    ("bps", "bit/s"),
    ("kbps", "kbit/s"),
    ("mbps", "Mbit/s"),
    ("gbps", "Gbit/s"),
    ("kbit", "kbit/s"),
    ("mbit", "Mbit/s"),
    ("gbit", "Gbit/s"),
];

/// A duration: numbers with `ms`, `s`, `m`, `h` or `d`, one after the other, as in `90s` and `1m30s`.
pub fn duration(text: &str) -> Result<Duration, NotAQuantity> {
    let nanos = sum(text, &DURATION_UNITS, "duration", "30s")?;
    Ok(Duration::from_nanos(nanos))
}

/// A number of bytes, as in `80GiB`, `64MiB` and `10GB`.
pub fn size(text: &str) -> Result<u64, NotAQuantity> {
    sum(text, &SIZE_UNITS, "size", "64MiB")
}

/// Bits per second, as in `20Mbit/s`.
pub fn rate(text: &str) -> Result<u64, NotAQuantity> {
    sum(text, &RATE_UNITS, "rate", "20Mbit/s")
}

/// A duration as this module reads it.
pub fn show_duration(span: Duration) -> String {
    let ms = span.as_millis();
    for (unit, each) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms >= each && ms.is_multiple_of(each) {
            return format!("{}{unit}", ms / each);
        }
    }
    format!("{ms}ms")
}

/// A number of bytes, as this module reads it; rounded to a tenth of its unit.
pub fn show_size(bytes: u64) -> String {
    for (unit, each) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= each {
            let tenths = u128::from(bytes) * 10 / u128::from(each);
            let fraction = if tenths % 10 == 0 { String::new() } else { format!(".{}", tenths % 10) };
            return format!("{}{fraction}{unit}", tenths / 10);
        }
    }
    format!("{bytes}B")
}

/// Bits per second, as this module reads them.
pub fn show_rate(bits: u64) -> String {
    for &(unit, each) in RATE_UNITS.iter().rev() {
        if bits >= each && bits.is_multiple_of(each) {
            return format!("{}{unit}", bits / each);
        }
    }
    format!("{bits}bit/s")
}

/// Adds up `number unit` pairs.
fn sum(text: &str, units: &[(&str, u64)], kind: &str, example: &str) -> Result<u64, NotAQuantity> {
    let names: Vec<&str> = units.iter().map(|&(unit, _)| unit).collect();
    let refuse = |what: String, write: Option<String>| Err(NotAQuantity { what, write });
    let mut total = 0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return refuse(format!("this {kind} is empty"), Some(format!("{example:?}")));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else {
            return refuse(format!("{text:?} is not a {kind}: a number and its unit"), Some(format!("{example:?}")));
        };
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| !(c.is_ascii_alphabetic() || c == '/')).unwrap_or(after.len());
        let unit = &after[..letters];
        let Some(&(_, each)) = units.iter().find(|&&(name, _)| name == unit) else {
            // Bytes a second are eight times the bits: no guess at a number.
            let bytes = unit.ends_with("B/s");
            let usual = example.trim_start_matches(|c: char| c.is_ascii_digit());
            let meant = meant(unit, units).unwrap_or(usual);
            let what = match unit {
                "" => format!("the {kind} {text:?} has no unit (one of {})", names.join(", ")),
                _ => format!("{unit:?} is not a unit of a {kind} (one of {})", names.join(", ")),
            };
            let alone = after.len() == letters && !bytes;
            let write = if alone { format!("\"{number}{meant}\"") } else { format!("{example:?}") };
            return refuse(what, Some(write));
        };
        total += number * each as f64;
        rest = after[letters..].trim_start();
    }
    // Half of u64: beyond any disk, and exact enough below.
    if total >= 9e18 {
        return refuse(format!("the {kind} {text:?} is too large"), None);
    }
    Ok(total.round() as u64)
}

/// The unit that this one was meant to be.
fn meant<'a>(unit: &str, units: &[(&'a str, u64)]) -> Option<&'a str> {
    let find = |name: &str| units.iter().map(|&(unit, _)| unit).find(|u| u.eq_ignore_ascii_case(name));
    let lower = unit.to_ascii_lowercase();
    find(&lower).or_else(|| OTHER_NAMES.iter().filter(|(other, _)| *other == lower).find_map(|(_, name)| find(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_written() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(size("80GiB"), Ok(80 << 30));
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        assert_eq!(rate("20Mbit/s"), Ok(20_000_000));
    }

    #[test]
    fn what_people_write_instead_gets_what_they_meant() {
        let write = |r: Result<u64, NotAQuantity>| r.unwrap_err().write.unwrap();
        assert_eq!(write(duration("90").map(|_| 0)), "\"90s\"");
        assert_eq!(write(duration("90 sec").map(|_| 0)), "\"90s\"");
        assert_eq!(write(duration("2 minutes").map(|_| 0)), "\"2m\"");
        assert_eq!(write(size("80G")), "\"80GiB\"");
        assert_eq!(write(size("80gib")), "\"80GiB\"");
        assert_eq!(write(rate("20Mbps")), "\"20Mbit/s\"");
        assert_eq!(write(rate("20MBIT/S")), "\"20Mbit/s\"");
        assert_eq!(write(rate("2MB/s")), "\"20Mbit/s\"");
        assert_eq!(write(size("64")), "\"64MiB\"");
        assert_eq!(write(size("lots")), "\"64MiB\"");
        assert!(size("99999999TiB").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = (duration(&text), size(&text), rate(&text));
        }

        #[test]
        fn what_is_shown_can_be_read(n in 1_u64..1_000_000_000) {
            prop_assert_eq!(duration(&show_duration(Duration::from_millis(n))).unwrap(), Duration::from_millis(n));
            prop_assert_eq!(rate(&show_rate(n)).unwrap(), n);
            prop_assert!(size(&show_size(n)).is_ok());
        }
    }
}
