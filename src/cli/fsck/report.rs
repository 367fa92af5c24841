//! What a check found, for people.

use std::fmt::Write as _;

use super::{
    super::{
        bar::size,
        paint::{BLUE, DIM, GREEN, PLAIN, RED, YELLOW},
    },
    Replayed,
};
use crate::{
    config::count,
    spool::fsck::{Finding, Outcome, Report, Severity, Tally},
};

/// Everything, as it is printed.
pub(super) fn text(dir: &str, outcome: &Outcome, replayed: Option<Replayed>, repair: bool, colour: bool) -> String {
    let paint = |code: &'static str| if colour { code } else { "" };
    let mut out = String::new();
    for finding in &outcome.found.findings {
        tell(&mut out, finding, !repair, &paint);
    }
    let mut last = &outcome.found;
    if let Some(repaired) = &outcome.repaired {
        for step in &repaired.done {
            let _ = writeln!(out, "{}repaired{} {step}", paint(GREEN), paint(PLAIN));
        }
        if let Some(why) = &repaired.failed {
            let _ = writeln!(out, "{}failed{}   {why}", paint(RED), paint(PLAIN));
        }
        let _ = writeln!(out, "\nchecked again:");
        last = &repaired.after;
        for finding in &last.findings {
            tell(&mut out, finding, false, &paint);
        }
    }
    summary(&mut out, dir, last, replayed);
    let state = if outcome.is_clean() { paint(GREEN) } else { paint(RED) };
    let _ = writeln!(out, "{state}{}{}", verdict(outcome, repair), paint(PLAIN));
    out
}

fn tell(out: &mut String, finding: &Finding, would: bool, paint: &impl Fn(&'static str) -> &'static str) {
    let (word, code) = match finding.severity {
        Severity::Damage => ("damage", RED),
        Severity::Warning => ("warning", YELLOW),
        Severity::Note => ("note", BLUE),
    };
    let place = match &finding.bytes {
        Some(bytes) if bytes.is_empty() => format!("{}, byte {}", finding.file, bytes.start),
        Some(bytes) => format!("{}, bytes {} to {}", finding.file, bytes.start, bytes.end),
        None => finding.file.clone(),
    };
    let _ = writeln!(out, "{}{word}{} {place}: {}", paint(code), paint(PLAIN), finding.what);
    let _ = writeln!(out, "    {}", finding.means);
    if let (true, Some(repair)) = (would, finding.repair) {
        let _ = writeln!(out, "    {}--repair would {repair}{}", paint(DIM), paint(PLAIN));
    }
}

fn summary(out: &mut String, dir: &str, report: &Report, replayed: Option<Replayed>) {
    let (journal, media) = (&report.journal, &report.media);
    let _ = writeln!(out, "\n{dir}");
    let _ = write!(
        out,
        "  journal  {}, {}, {}; {} count",
        count(journal.segments, "segment"),
        count(journal.records as usize, "record"),
        size(journal.bytes),
        journal.entries
    );
    if let Some(Replayed { incidents, presses }) = replayed {
        let _ = write!(out, ": {}, {}", count(incidents, "incident"), presses_of(presses));
    }
    let _ = writeln!(out, "; {}", count(journal.spares, "spare"));
    let _ = writeln!(
        out,
        "  media    {}, {}, {}; {} of {} in {}, {} not at headquarters",
        count(media.segments, "segment"),
        count(media.records as usize, "record"),
        size(media.bytes),
        count(media.objects as usize, "object"),
        count(media.cameras, "camera"),
        count(media.intervals as usize, "interval"),
        media.undelivered
    );
    let rate = report.read_bytes as f64 / 1e6 / report.seconds.max(1e-6);
    let _ = writeln!(out, "  read     {} in {:.1} s, {rate:.0} MB/s", size(report.read_bytes), report.seconds);
}

fn presses_of(n: usize) -> String {
    if n == 1 { "1 press".into() } else { format!("{n} presses") }
}

fn verdict(outcome: &Outcome, repair: bool) -> String {
    let Tally { note, warning, damage } = match &outcome.repaired {
        Some(repaired) => repaired.after.tally,
        None => outcome.found.tally,
    };
    let notes = count(note, "note");
    match (outcome.is_clean(), outcome.repaired.is_some()) {
        (true, true) => format!("repaired; {notes} left"),
        (true, false) if note == 0 => "clean".into(),
        (true, false) => format!("clean; {notes}"),
        (false, _) => {
            let hint = if repair { "" } else { "; --repair says above what it would do" };
            format!("{damage} damage, {}, {notes}{hint}", count(warning, "warning"))
        }
    }
}
