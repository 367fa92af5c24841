//! JSON (RFC 8259) with the place of each value. Pure.

use std::ops::Range;

use super::node::{Body, Entry, Node, Table};

/// Reads a JSON text. Entries of tables that are `null` are left out, as if they were not there.
///
/// # Errors
/// Where it ceases to be JSON, and why.
pub(super) fn parse(text: &str) -> Result<Node, (Range<usize>, String)> {
    // serde_json judges, with its bound on nesting; what follows walks a text that is known to be JSON.
    if let Err(err) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let line: usize = text.split_inclusive('\n').take(err.line().saturating_sub(1)).map(str::len).sum();
        let at = (line + err.column().saturating_sub(1)).min(text.len());
        let message = err.to_string();
        return Err((at..at + 1, message.split(" at line").next().unwrap_or(&message).to_owned()));
    }
    let mut walk = Walk { text, at: 0 };
    walk.value(0).ok_or_else(|| (walk.at..walk.at + 1, "it is nested too deep".to_owned()))
}

struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl Walk<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        let first = self.peek()?;
        let start = self.at;
        // serde_json stops at 128.
        let body = match first {
            _ if depth > 128 => return None,
            b'{' => Body::Table(self.table(depth)?),
            b'[' => Body::List(self.list(depth)?),
            b'"' => Body::Text(self.string()?),
            _ => self.word()?,
        };
        Some(Node { span: start..self.at, body })
    }

    fn table(&mut self, depth: usize) -> Option<Table> {
        self.take(b'{')?;
        let mut table = Table::default();
        while self.peek()? != b'}' {
            let start = self.at;
            let key = self.string()?;
            let span = start..self.at;
            self.take(b':')?;
            let node = self.value(depth + 1)?;
            if !matches!(node.body, Body::Other(_)) {
                table.entries.push(Entry { key, span, node });
            }
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Some(table)
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Node>> {
        self.take(b'[')?;
        let mut items = Vec::new();
        while self.peek()? != b']' {
            items.push(self.value(depth + 1)?);
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Some(items)
    }

    fn string(&mut self) -> Option<String> {
        self.peek()?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.at = end + 1;
        serde_json::from_str(self.text.get(start..self.at)?).ok()
    }

    fn word(&mut self) -> Option<Body> {
        let rest = &self.text[self.at..];
        let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        let word = &rest[..end];
        self.at += end;
        Some(match word {
            "true" => Body::Flag(true),
            "false" => Body::Flag(false),
            "null" => Body::Other("null"),
            _ => match word.parse() {
                Ok(n) => Body::Integer(n),
                Err(_) => Body::Number(word.parse().ok()?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_know_where_they_stand() {
        let text = "{ \"a\": [1, -2.5e1, \"x\\\"y\"],\n  \"b\": null, \"c\": {\"d\": true} }";
        let Body::Table(table) = parse(text).unwrap().body else { panic!() };
        let Body::List(items) = &table.get("a").unwrap().body else { panic!() };
        assert_eq!(&text[items[1].span.clone()], "-2.5e1");
        assert!(matches!(&items[2].body, Body::Text(t) if t == "x\"y"));
        assert!(table.get("b").is_none());
        assert_eq!(parse("{\n \"a\": tru }").unwrap_err().0.start, 11);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\a0 .-]{0,30}|.{0,30}") {
            let ours = parse(&text);
            prop_assert_eq!(ours.is_ok(), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
