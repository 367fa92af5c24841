//! Topic filters (MQTT 3.1.1 section 4.7): which are well formed, which topics they match, which filters they cover. Pure.

/// Whether `filter` is well formed: `#` only alone and last, `+` only alone in its level (section 4.7.1).
pub fn valid(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fine = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            other => !other.contains(['+', '#', '\0']),
        };
        if !fine {
            return false;
        }
    }
    !filter.is_empty()
}

/// Whether a message on `topic` belongs to `filter`. A topic that begins with `$` is matched by no wildcard at the start
/// (section 4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    covers(filter, topic)
}

/// Whether every topic that `requested` matches is matched by `granted` too. Neither may begin with `$`: what stands
/// there (`$SYS`, `$share`) is nobody's to read.
pub fn covers(granted: &str, requested: &str) -> bool {
    if requested.starts_with('$') || granted.starts_with('$') {
        return false;
    }
    let mut requested = requested.split('/');
    for level in granted.split('/') {
        match (level, requested.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (name, Some(asked)) if name == asked => {}
            _ => return false,
        }
    }
    requested.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_checked_as_the_standard_says() {
        for good in ["#", "+", "a/#", "+/a/#", "a//b", "/"] {
            assert!(valid(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "a/b+/c", "#/"] {
            assert!(!valid(bad), "{bad}");
        }
    }

    #[test]
    fn a_filter_covers_only_what_lies_within_it() {
        assert!(covers("buttons/+/state", "buttons/saddar-01/state"));
        assert!(covers("buttons/+/state", "buttons/+/state"));
        assert!(covers("buttons/#", "buttons/+/state"));
        assert!(covers("buttons/#", "buttons/a/#"));
        assert!(covers("buttons/a/#", "buttons/a"));
        assert!(!covers("buttons/+/state", "buttons/#"));
        assert!(!covers("buttons/+/state", "buttons/+/+"));
        assert!(!covers("buttons/+/state", "+/a/state"));
        assert!(!covers("buttons/a/state", "buttons/+/state"));
        assert!(!covers("buttons/+", "buttons/#"));
        assert!(!covers("#", "$SYS/x"));
        assert!(!covers("#", "$share/g/buttons/a/state"));
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+"), Just("")];
        (proptest::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, open)| {
            let filter = levels.join("/");
            if open { format!("{filter}/#") } else { filter }
        })
    }

    proptest! {
        #[test]
        fn what_is_covered_matches_nothing_more(
            granted in filter(),
            requested in filter(),
            topic in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("")], 1..5),
        ) {
            let topic = topic.join("/");
            if covers(&granted, &requested) && matches(&requested, &topic) {
                prop_assert!(matches(&granted, &topic), "{} {} {}", granted, requested, topic);
            }
        }
    }
}
