//! The kinds of values a config has, the plain ones: texts, numbers, quantities, choices, nested tables. Pure.

use std::{collections::HashMap, marker::PhantomData, str::FromStr, time::Duration};

use serde_json::{Value as Json, json};

use super::{
    fault::{At, Code},
    node::{Body, Node, Table},
    reader::{Read, Reader, closest},
    schema::section_schema,
    section::{Key, Kind, Section},
    units,
};
use crate::district::ids::IdError;

/// The longest text, in characters.
const LONGEST_TEXT: usize = 200;

/// A text for people: not empty, one line.
pub(super) struct Text;

impl Kind for Text {
    type Value = String;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<String> {
        let Body::Text(text) = &node.body else {
            reader.wrong_type(node, at, "a text", "it in quotes: \"...\"");
            return None;
        };
        let what = if text.trim().is_empty() {
            "this text is empty".to_owned()
        } else if text.chars().any(char::is_control) {
            "this text holds line ends or other control characters".to_owned()
        } else if text.chars().count() > LONGEST_TEXT {
            format!("this text is longer than {LONGEST_TEXT} characters")
        } else {
            return Some(text.clone());
        };
        reader.error(Code::BadValue, at, what);
        None
    }
    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_TEXT })
    }
}

/// An id of one of the kinds in `district::ids`.
pub(super) struct Id<T>(PhantomData<T>);

impl<T: FromStr<Err = IdError>> Kind for Id<T> {
    type Value = T;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<T> {
        let Body::Text(text) = &node.body else {
            reader.wrong_type(node, at, "a text", "it in quotes: \"...\"");
            return None;
        };
        match text.parse() {
            Ok(id) => Some(id),
            Err(err) => {
                let fault = reader.error(Code::BadValue, at, format!("{text:?} is not an id: {err}"));
                let better = as_id(text);
                let better = if better.is_empty() { "gate-1" } else { &better };
                fault.write(format!("{better:?}"));
                None
            }
        }
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$" })
    }
}

/// The id nearest to a text.
pub(super) fn as_id(text: &str) -> String {
    let plain = text.trim().chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' });
    let plain: String = plain.collect();
    plain.trim_matches(['-', '_', '.']).chars().take(59).collect()
}

/// `true` or `false`.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<bool> {
        match node.body {
            Body::Flag(flag) => Some(flag),
            _ => {
                reader.wrong_type(node, at, "true or false", "true or false, without quotes");
                None
            }
        }
    }
    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number, `MIN..=MAX`.
pub(super) struct Whole<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Kind for Whole<MIN, MAX> {
    type Value = usize;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<usize> {
        let Body::Integer(n) = node.body else {
            reader.wrong_type(node, at, "a whole number", &format!("a whole number, {MIN} to {MAX}, without quotes"));
            return None;
        };
        if !(MIN..=MAX).contains(&n) {
            reader
                .error(Code::BadValue, at, format!("{n} is not between {MIN} and {MAX}"))
                .write(n.clamp(MIN, MAX).to_string());
            return None;
        }
        usize::try_from(n).ok()
    }
    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A number, `MIN..=MAX`.
pub(super) struct Within<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Kind for Within<MIN, MAX> {
    type Value = f64;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<f64> {
        let (min, max) = (MIN as f64, MAX as f64);
        number(reader, node, at, |n| (min..=max).contains(&n), &format!("between {MIN} and {MAX}"))
    }
    fn schema() -> Json {
        json!({ "type": "number", "minimum": MIN, "maximum": MAX })
    }
}

/// A number above zero, up to `MAX`.
pub(super) struct Positive<const MAX: i64>;

impl<const MAX: i64> Kind for Positive<MAX> {
    type Value = f64;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<f64> {
        number(reader, node, at, |n| n > 0.0 && n <= MAX as f64, &format!("above 0 and at most {MAX}"))
    }
    fn schema() -> Json {
        json!({ "type": "number", "exclusiveMinimum": 0, "maximum": MAX })
    }
}

fn number(reader: &mut Reader<'_>, node: &Node, at: &At, fits: impl Fn(f64) -> bool, range: &str) -> Option<f64> {
    let Some(n) = node.number() else {
        reader.wrong_type(node, at, "a number", &format!("a number {range}, without quotes"));
        return None;
    };
    if fits(n) {
        return Some(n);
    }
    let code = if ["facing", "field_of_view", "range"].iter().any(|key| at.key.ends_with(&format!(".{key}"))) {
        Code::Geometry
    } else {
        Code::BadValue
    };
    let fault = reader.error(code, at, format!("{n} is not {range}"));
    // A bearing may have been written the other way round the compass.
    if n.is_finite() && at.key.ends_with(".facing") {
        fault.write(n.rem_euclid(360.0).to_string());
    } else {
        fault.write(format!("a number {range}"));
    }
    None
}

/// A duration in milliseconds, `MIN..=MAX`.
pub(super) struct Time<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Time<MIN, MAX> {
    type Value = Duration;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Duration> {
        let span = quantity(reader, node, at, "a duration", "s", units::duration)?;
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let show = units::show_duration;
        limits(reader, at, span, min, max, show)
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+([.][0-9]+)? ?(ms|s|m|h|d) ?)+$" })
    }
}

/// A number of bytes, `MIN..=MAX`.
pub(super) struct Size<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Size<MIN, MAX> {
    type Value = u64;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<u64> {
        let bytes = quantity(reader, node, at, "a size", "B", units::size)?;
        limits(reader, at, bytes, MIN, MAX, units::show_size)
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+([.][0-9]+)? ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$" })
    }
}

/// Bits per second, at least `MIN`.
pub(super) struct Rate<const MIN: u64>;

impl<const MIN: u64> Kind for Rate<MIN> {
    type Value = u64;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<u64> {
        let bits = quantity(reader, node, at, "a rate", "bit/s", units::rate)?;
        limits(reader, at, bits, MIN, u64::MAX, units::show_rate)
    }
    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+([.][0-9]+)? ?[kMG]?bit/s$" })
    }
}

fn quantity<T>(
    reader: &mut Reader<'_>,
    node: &Node,
    at: &At,
    wanted: &str,
    unit: &str,
    parse: impl Fn(&str) -> Result<T, units::NotAQuantity>,
) -> Option<T> {
    match &node.body {
        Body::Text(text) => match parse(text) {
            Ok(value) => return Some(value),
            Err(err) => {
                let fault = reader.error(Code::BadValue, at, err.what);
                if let Some(write) = err.write {
                    fault.write(write);
                }
            }
        },
        Body::Integer(n) => {
            reader.wrong_type(node, at, &format!("{wanted} with its unit, in quotes"), &format!("\"{n}{unit}\""))
        }
        _ => reader.wrong_type(node, at, &format!("{wanted} in quotes"), &format!("\"30{unit}\"")),
    }
    None
}

fn limits<T: PartialOrd + Copy>(
    reader: &mut Reader<'_>,
    at: &At,
    value: T,
    min: T,
    max: T,
    show: impl Fn(T) -> String,
) -> Option<T> {
    let (side, limit) = match () {
        () if value < min => ("least", min),
        () if value > max => ("most", max),
        () => return Some(value),
    };
    let what = format!("{} is out of range: at {side} {}", show(value), show(limit));
    reader.error(Code::BadValue, at, what).write(format!("\"{}\"", show(limit)));
    None
}

/// A value that is one of a few words.
pub(super) trait Words: Copy + 'static {
    /// The words and what they mean.
    const WORDS: &'static [(&'static str, Self)];
}

/// One of a few words.
pub(super) struct Choice<T>(PhantomData<T>);

impl<T: Words> Kind for Choice<T> {
    type Value = T;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<T> {
        let names: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        let all = names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
        let Body::Text(text) = &node.body else {
            reader.wrong_type(node, at, "a text", &format!("one of {all}"));
            return None;
        };
        if let Some((_, value)) = T::WORDS.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let write = match closest(text, names.iter().copied()) {
            Some(name) => format!("{name:?}"),
            None => format!("one of {all}"),
        };
        reader.error(Code::BadValue, at, format!("{text:?} is not one of {all}")).write(write);
        None
    }
    fn schema() -> Json {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json!({ "enum": words })
    }
}

/// A table of its own.
pub(super) struct Sub<S>(PhantomData<S>);

impl<S: Section> Kind for Sub<S> {
    type Value = S;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<S> {
        let Body::Table(table) = &node.body else {
            let wanted = if matches!(node.body, Body::List(_)) { "single brackets" } else { "its keys below it" };
            reader.wrong_type(node, at, "one table", &format!("[{}], with {wanted}", at.key));
            return None;
        };
        Some(reader.section(table, at.clone()))
    }
    fn schema() -> Json {
        section_schema::<S>()
    }
    fn below() -> &'static [Key] {
        S::KEYS
    }
}

/// Any number of tables.
pub(super) struct Each<S>(PhantomData<S>);

impl<S: Section> Kind for Each<S> {
    type Value = Vec<S>;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Vec<S>> {
        let Body::List(items) = &node.body else {
            reader.wrong_type(node, at, "a list of tables", &format!("[[{}]], in double brackets", at.key));
            return None;
        };
        let mut out = Vec::with_capacity(items.len());
        let mut names = Names::default();
        for (i, item) in items.iter().enumerate() {
            let Body::Table(table) = &item.body else {
                let at = At { span: item.span.clone(), key: at.key.clone() };
                reader.wrong_type(item, &at, "a table", &format!("[[{}]]", at.key));
                continue;
            };
            // By its id, so that people find it; by its number where it has none.
            let at = At { span: item.span.clone(), key: format!("{}[{}]", at.key, names.name(table, i + 1)) };
            out.push(reader.section(table, at));
        }
        Some(out)
    }
    fn schema() -> Json {
        json!({ "type": "array", "items": section_schema::<S>() })
    }
    fn below() -> &'static [Key] {
        S::KEYS
    }
    fn nothing() -> Body {
        Body::List(Vec::new())
    }
}

/// Names for the tables of a list, each only once.
#[derive(Default)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// The name of a table: its id, or its number where it has none.
    pub fn name(&mut self, table: &Table, number: usize) -> String {
        let name = table.text("id").or_else(|| table.text("name")).map(as_id).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| number.to_string());
        let uses = self.0.entry(name.clone()).and_modify(|n| *n += 1).or_insert(1);
        if *uses == 1 { name } else { format!("{name}#{uses}") }
    }
}

/// One value, or a list of them; never empty.
pub(super) struct OneOrMore<K>(PhantomData<K>);

impl<K: Kind> Kind for OneOrMore<K> {
    type Value = Vec<Read<K::Value>>;
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Self::Value> {
        let nodes = match &node.body {
            Body::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if nodes.is_empty() {
            reader.error(Code::BadValue, at, "this list is empty");
            return None;
        }
        let mut out = Vec::new();
        for node in nodes {
            let at = At { span: node.span.clone(), key: at.key.clone() };
            if let Some(value) = K::read(reader, node, &at) {
                out.push(Read { value, at });
            }
        }
        // Those that are faulty have been reported; the others are still looked at.
        Some(out)
    }
    fn schema() -> Json {
        json!({ "anyOf": [K::schema(), { "type": "array", "items": K::schema(), "minItems": 1 }] })
    }
}
