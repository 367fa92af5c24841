//! MQTT topic filters (MQTT 3.1.1 section 4.7). Pure.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use super::{
    fault::{At, Code},
    keys,
    node::{Body, Node},
    reader::{Reader, closest},
    section::Kind,
};

/// Why a text is not a topic filter a client may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAFilter {
    /// At least one character (4.7.3).
    #[error("a topic filter has at least one character")]
    Empty,
    /// At most 65,535 bytes (4.7.3).
    #[error("a topic filter has at most 65535 bytes")]
    TooLong,
    /// U+0000 (4.7.3).
    #[error("a topic filter has no null character")]
    Null,
    /// `#` elsewhere than as the whole last level (4.7.1.2).
    #[error("'#' stands only as the whole last level, as in \"buttons/#\"")]
    Hash,
    /// `+` beside something else in its level (4.7.1.3).
    #[error("'+' stands only as a whole level, as in \"buttons/+/state\"")]
    Plus,
    /// Shared subscriptions, which the broker refuses.
    #[error("shared subscriptions ($share) are not served")]
    Shared,
}

/// Whether a text is a topic filter by MQTT 3.1.1 section 4.7.
///
/// # Errors
/// The rule it breaks.
pub fn check(filter: &str) -> Result<(), NotAFilter> {
    if filter.is_empty() {
        return Err(NotAFilter::Empty);
    }
    if filter.len() > 65_535 {
        return Err(NotAFilter::TooLong);
    }
    if filter.contains('\0') {
        return Err(NotAFilter::Null);
    }
    if filter.starts_with("$share") {
        return Err(NotAFilter::Shared);
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (i, level) in levels.iter().enumerate() {
        if level.contains('#') && (level.len() > 1 || i + 1 < levels.len()) {
            return Err(NotAFilter::Hash);
        }
        if level.contains('+') && level.len() > 1 {
            return Err(NotAFilter::Plus);
        }
    }
    Ok(())
}

/// The filter that was probably meant.
fn meant(filter: &str) -> Option<String> {
    let mut levels = Vec::new();
    for level in filter.split('/').map(str::trim) {
        let level = match level {
            "*" => "+",
            _ if level.contains('#') => "#",
            _ if level.contains('+') => "+",
            _ => level,
        };
        levels.push(level);
        if level == "#" {
            break;
        }
    }
    let better = levels.join("/");
    check(&better).is_ok().then_some(better)
}

/// A topic filter.
pub(super) struct Filter;

impl Kind for Filter {
    type Value = String;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<String> {
        let Body::Text(text) = &node.body else {
            reader.wrong_type(node, at, "a topic filter", "\"buttons/+/state\"");
            return None;
        };
        if let Err(err) = check(text) {
            let fault = reader.error(Code::BadValue, at, format!("{text:?} is not a topic filter: {err}"));
            if let Some(better) = meant(text) {
                fault.write(format!("{better:?}"));
            }
            return None;
        }
        if text.split('/').any(|level| level == "*") {
            let better = text.split('/').map(|l| if l == "*" { "+" } else { l }).collect::<Vec<_>>().join("/");
            reader
                .warning(Code::NoEffect, at, format!("'*' is an ordinary character in MQTT: {text:?} matches nothing"))
                .write(format!("{better:?}"));
        }
        Some(text.clone())
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(?![$]share)([^+#]+|[+]|#$|/)+$" })
    }
}

/// What is published below a button's name.
const PUBLISHED: [&str; 3] = ["press", "status", "state"];

/// For so many unknown ids the nearest button is looked for; a list that is wrong throughout needs no more examples.
const NEAREST_SOUGHT: usize = 16;

/// Topic filters with ids that no button has, and those that match nothing that is ever published.
pub(super) fn check_use(reader: &mut Reader<'_>, broker: &keys::Broker, buttons: &[&str]) {
    let clients = broker.client.iter().flat_map(|clients| &clients.value);
    let known: HashSet<&str> = buttons.iter().copied().collect();
    let mut sought = 0;
    for filter in clients.filter_map(|c| c.may_read.as_ref()).flat_map(|filters| &filters.value) {
        let levels: Vec<&str> = filter.value.split('/').collect();
        match levels.as_slice() {
            ["buttons" | "+", id, ..] if !matches!(*id, "+" | "#") && !known.contains(id) => {
                sought += 1;
                let better = closest(id, buttons.iter().copied().filter(|_| sought <= NEAREST_SOUGHT));
                let fault = reader.error(Code::UnknownId, &filter.at, format!("there is no button {id:?}"));
                fault.write(match better {
                    Some(better) => format!("{:?}", filter.value.replacen(id, better, 1)),
                    None => "the id of a [[button]], or + for all of them".to_owned(),
                });
            }
            ["buttons" | "+", id, rest @ ..] if *id != "#" && !is_published(rest) => {
                let last = rest.first().and_then(|last| closest(last, PUBLISHED.into_iter()));
                reader
                    .warning(
                        Code::NoEffect,
                        &filter.at,
                        "nothing is published there: topics end with press, status or state",
                    )
                    .write(format!("\"buttons/{id}/{}\"", last.unwrap_or("state")));
            }
            ["buttons" | "+"] => {
                reader
                    .warning(Code::NoEffect, &filter.at, "nothing is published there: topics have three levels")
                    .write("\"buttons/+/state\"");
            }
            ["buttons" | "+" | "#", ..] => {}
            _ => {
                reader
                    .warning(Code::NoEffect, &filter.at, "nothing is published there: topics begin with buttons/")
                    .write("\"buttons/+/state\"");
            }
        }
    }
}

/// Whether the levels of a filter below a button's name match what is published there; `#` stands for its parent too.
fn is_published(levels: &[&str]) -> bool {
    match levels {
        ["#"] => true,
        [last] | [last, "#"] => *last == "+" || PUBLISHED.contains(last),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_the_standard() {
        for good in ["#", "+", "/", "a", "buttons/#", "buttons/+/state", "+/+", "/finance", "a//b", "$SYS/#", "+/a/#"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", NotAFilter::Empty),
            ("a#", NotAFilter::Hash),
            ("a/#/b", NotAFilter::Hash),
            ("a+/b", NotAFilter::Plus),
            ("a/b+", NotAFilter::Plus),
            ("a\0", NotAFilter::Null),
            ("$share/g/a", NotAFilter::Shared),
        ] {
            assert_eq!(check(bad), Err(why), "{bad}");
        }
        assert_eq!(check(&"x".repeat(65_536)), Err(NotAFilter::TooLong));
        assert_eq!(meant("buttons/#/state").as_deref(), Some("buttons/#"));
        assert_eq!(meant("buttons/b+/state").as_deref(), Some("buttons/+/state"));
    }
}
