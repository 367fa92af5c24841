//! What stands in a file, with the place of each value: the common form of TOML, JSON and table sheets. Pure.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its bytes in the file.
    pub span: Range<usize>,
    /// The value.
    pub body: Body,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A text.
    Text(String),
    /// A whole number, saturated.
    Integer(i64),
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Flag(bool),
    /// What no key takes: a date or time, JSON's `null`.
    Other(&'static str),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// Keys and their values, in the order of the keys' names.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// One entry of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub span: Range<usize>,
    /// Its value.
    pub node: Node,
}

impl Table {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.node)
    }
    /// The value of a key when it is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.body {
            Body::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The tables of a parsed TOML document.
    pub fn from_toml(table: &DeTable<'_>) -> Self {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| Entry {
            key: str::to_owned(std::convert::AsRef::<str>::as_ref(key.get_ref())),
            span: key.span(),
            node: Node::from_toml(value),
        };
        Self { entries: table.iter().map(|(k, v): (&Spanned<std::borrow::Cow<'_, str>>, _)| entry((k, v))).collect() }
    }
}

impl Node {
    /// A TOML value.
    pub fn from_toml(value: &Spanned<DeValue<'_>>) -> Self {
        let body = match value.get_ref() {
            DeValue::String(text) => Body::Text(text.clone().into_owned()),
            DeValue::Integer(n) => Body::Integer(i64::from_str_radix(n.as_str(), n.radix()).unwrap_or(i64::MAX)),
            DeValue::Float(n) => Body::Number(n.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Body::Flag(*flag),
            DeValue::Datetime(_) => Body::Other("a date or time"),
            DeValue::Array(items) => Body::List(items.iter().map(Node::from_toml).collect()),
            DeValue::Table(table) => Body::Table(Table::from_toml(table)),
        };
        Self { span: value.span(), body }
    }
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self.body {
            Body::Text(_) => "a text",
            Body::Integer(_) => "a whole number",
            Body::Number(_) => "a number",
            Body::Flag(_) => "true or false",
            Body::Other(what) => what,
            Body::List(_) => "a list",
            Body::Table(_) => "a table",
        }
    }
    /// Its number, when it is one.
    pub fn number(&self) -> Option<f64> {
        match self.body {
            Body::Integer(n) => Some(n as f64),
            Body::Number(n) => Some(n),
            _ => None,
        }
    }
}
