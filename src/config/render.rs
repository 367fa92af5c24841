//! Faults for people and for programs. Pure.

use std::fmt::Write as _;

use serde_json::json;

use super::fault::{Fault, Severity};

/// Faults as a compiler shows them: each with its line of the file, and a count at the end. Empty for none.
pub fn render_human(faults: &[Fault], colour: bool) -> String {
    let mut out = String::new();
    for fault in faults {
        render_one(&mut out, fault, colour);
    }
    if !faults.is_empty() {
        let errors = faults.iter().filter(|f| f.is_error()).count();
        let _ = writeln!(out, "{}, {}", count(errors, "error"), count(faults.len() - errors, "warning"));
    }
    out
}

/// Faults as one JSON document: `{"errors":1,"warnings":0,"faults":[...]}`.
pub fn render_json(faults: &[Fault]) -> String {
    let errors = faults.iter().filter(|f| f.is_error()).count();
    json!({ "errors": errors, "warnings": faults.len() - errors, "faults": faults }).to_string()
}

/// A number of things: `1 camera`, `2 cameras`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn render_one(out: &mut String, fault: &Fault, colour: bool) {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let (word, code) = match fault.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let number = if fault.line == 0 { String::new() } else { fault.line.to_string() };
    let margin = " ".repeat(number.len());
    let bar = paint("1;34", "|");
    let what = printable(&fault.what);
    let _ = writeln!(out, "{}: {}", paint(code, word), paint("1", &what));
    let place = match (fault.line, fault.column) {
        (0, _) => fault.file.clone(),
        (line, 0) => format!("{}:{line}", fault.file),
        (line, column) => format!("{}:{line}:{column}", fault.file),
    };
    let key = if fault.key.is_empty() { String::new() } else { format!("  ({})", printable(&fault.key)) };
    let _ = writeln!(out, "{margin}{} {place}{key}", paint("1;34", "-->"));
    if let Some((row, width)) = &fault.excerpt {
        let (row, indent, width) = window(&printable(row), fault.column.saturating_sub(1), *width);
        let _ = writeln!(out, "{margin} {bar}");
        let _ = writeln!(out, "{} {bar} {row}", paint("1;34", &number));
        let _ = writeln!(out, "{margin} {bar} {}{}", " ".repeat(indent), paint(code, &"^".repeat(width)));
    }
    if let Some(write) = &fault.write {
        let write = write.split('\n').map(printable).collect::<Vec<_>>().join(&format!("\n{margin}          "));
        let _ = writeln!(out, "{margin} {} write: {}", paint("1;34", "="), paint("32", &write));
    }
    if let Some(help) = &fault.help {
        let _ = writeln!(out, "{margin} {} help: {}", paint("1;34", "="), printable(help));
    }
    out.push('\n');
}

/// A line cut to what a terminal shows, around what is meant.
fn window(row: &str, column: usize, width: usize) -> (String, usize, usize) {
    const WIDEST: usize = 110;
    let chars: Vec<char> = row.chars().collect();
    let column = column.min(chars.len());
    let from = if column + width.min(40) > WIDEST { column.saturating_sub(20) } else { 0 };
    let to = chars.len().min(from + WIDEST);
    let cut: String = chars[from..to].iter().collect();
    let (head, tail) = (if from > 0 { "..." } else { "" }, if to < chars.len() { "..." } else { "" });
    let room = (to - column.min(to)).max(1);
    (format!("{head}{cut}{tail}"), column - from + head.len(), width.clamp(1, room))
}

/// Control characters of a hostile or broken file do not reach the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::fault::*, *};

    #[test]
    fn a_fault_shows_its_line_with_a_caret_below_it() {
        let text = "[broker]\nlistn = \"0.0.0.0:1883\"\n";
        let source = Source::new("d.toml", text);
        let mut fault = source.fault(
            Severity::Error,
            Code::UnknownKey,
            &At { span: 9..14, key: "broker.listn".into() },
            "`listn` is not a key",
        );
        fault.write("listen");
        let expected = "\
error: `listn` is not a key
 --> d.toml:2:1  (broker.listn)
  |
2 | listn = \"0.0.0.0:1883\"
  | ^^^^^
  = write: listen

1 error, 0 warnings
";
        assert_eq!(render_human(&[fault.clone()], false), expected);
        assert!(render_human(&[fault], true).contains("\x1b[1;31merror"));
    }

    #[test]
    fn a_file_cannot_send_escapes_to_the_terminal() {
        let source = Source::new("d.toml", "a = \"\x1b[2J\"");
        let fault = source.fault(Severity::Error, Code::Syntax, &At { span: 4..5, key: String::new() }, "bad \x1b[2J");
        assert!(!render_human(&[fault], false).contains('\x1b'));
    }

    #[test]
    fn a_long_line_is_cut_around_what_is_meant() {
        let row = "x".repeat(1000);
        let (shown, indent, width) = window(&row, 500, 600);
        assert!(shown.len() < 130 && indent < 130 && indent + width <= shown.len() + 1);
    }
}
