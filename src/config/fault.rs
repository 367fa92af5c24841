//! A fault of a config: where it is, what is wrong, what to write instead. Pure.

use std::ops::Range;

use serde::Serialize;

use super::mask::{mask_line, mask_urls};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The gateway does not start with it.
    Error,
    /// It starts, but someone should look.
    Warning,
}

/// What class of fault it is: stable, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The config itself cannot be read.
    Unreadable,
    /// Not TOML (or not CSV, not JSON).
    Syntax,
    /// A key that means nothing.
    UnknownKey,
    /// A required key is not there.
    Missing,
    /// A text where a number belongs, and the like.
    WrongType,
    /// The right type, but not a value that works.
    BadValue,
    /// A password or token in the config itself.
    SecretInConfig,
    /// Two things with one id, one stream or one secret.
    Duplicate,
    /// An id that belongs to something else.
    Reserved,
    /// An id that nothing has.
    UnknownId,
    /// Outside the district.
    OutsideBounds,
    /// A view that no camera has.
    Geometry,
    /// Two settings that cannot both be.
    Conflict,
    /// A setting that has no effect.
    NoEffect,
    /// A file that is named cannot be used.
    File,
    /// A secret that others on this machine can read, or that would cross the network in clear.
    Exposed,
    /// A certificate or key that cannot be used.
    Certificate,
    /// An address that cannot be listened on.
    Port,
    /// Not enough disk, or none.
    Disk,
    /// Not enough memory.
    Memory,
    /// A button that no camera sees.
    NoCamera,
}

/// One fault. Its texts hold no secrets, and neither does the source line it shows.
#[derive(Debug, Clone, Serialize, thiserror::Error)]
#[error("{file}:{line}:{column}: {what}")]
pub struct Fault {
    /// Error or warning.
    pub severity: Severity,
    /// Class.
    pub code: Code,
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 when it is about the file as a whole.
    pub column: usize,
    /// Path of the key: `camera[cam-0101].url`. Empty at the top.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<String>,
    /// What to do, where writing something else is not the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line of the file, without its secrets, and how many characters of it are meant.
    #[serde(skip)]
    pub(super) excerpt: Option<(String, usize)>,
}

impl Fault {
    /// A fault of a file as a whole.
    pub(super) fn whole(code: Code, file: &str, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            what: what.into(),
            write: None,
            help: None,
            excerpt: None,
        }
    }
    /// Adds what to write instead.
    pub(super) fn write(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.write = Some(mask_urls(text.as_ref()));
        self
    }
    /// Adds what to do.
    pub(super) fn help(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.help = Some(mask_urls(text.as_ref()));
        self
    }
    /// Whether it keeps the gateway from starting.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Whether any of them keeps the gateway from starting.
pub fn any_error(faults: &[Fault]) -> bool {
    faults.iter().any(Fault::is_error)
}

/// Where in a file something stands: bytes, and the path of the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct At {
    /// Byte range in the file.
    pub span: Range<usize>,
    /// Path of the key.
    pub key: String,
}

/// A file's text, with its lines found.
#[derive(Debug)]
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    /// The text of `file`.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { file, text, lines }
    }
    /// Line from 1 of a byte.
    pub fn line(&self, byte: usize) -> usize {
        self.lines.partition_point(|&start| start <= byte)
    }
    /// A fault at this place.
    pub fn fault(&self, severity: Severity, code: Code, at: &At, what: impl AsRef<str>) -> Fault {
        let begin = self.boundary(at.span.start);
        let end = self.boundary(at.span.end.max(begin));
        let line = self.line(begin);
        let from = self.lines.get(line - 1).copied().unwrap_or(0);
        let row = self.text[from..].lines().next().unwrap_or("");
        let column = self.text[from..begin].chars().count() + 1;
        let width = self.text[begin..end.min(from + row.len()).max(begin)].chars().count().max(1);
        Fault {
            severity,
            code,
            file: self.file.to_owned(),
            line,
            column,
            key: at.key.clone(),
            what: mask_urls(what.as_ref()),
            write: None,
            help: None,
            excerpt: Some((mask_line(row), width)),
        }
    }
    fn boundary(&self, byte: usize) -> usize {
        let byte = byte.min(self.text.len());
        (0..=byte).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let source = Source::new("x.toml", "a = 1\nname = \"ü\" # é\nb");
        let at = |span| At { span, key: String::new() };
        let fault = source.fault(Severity::Error, Code::BadValue, &at(20..22), "x");
        assert_eq!((fault.line, fault.column), (2, 14), "{:?}", fault.excerpt);
        let end = source.fault(Severity::Error, Code::BadValue, &at(900..901), "x");
        assert_eq!((end.line, end.column), (3, 2));
        assert_eq!(Source::new("x", "").fault(Severity::Error, Code::Syntax, &at(0..0), "x").line, 1);
    }
}
