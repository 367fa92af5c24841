//! What was found, for people.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    super::{
        bar::size,
        paint::{BLUE, DIM, GREEN, PLAIN, RED, YELLOW},
    },
    Verified,
};
use crate::{
    config::count,
    media::audit::{Audit, Finding, Kind, Verdict},
};

/// Everything, as it is printed.
pub(super) fn text(verified: &[Verified], verdict: Verdict, colour: bool) -> String {
    let paint = |code: &'static str| if colour { code } else { "" };
    let mut out = String::new();
    for Verified { dir, first, audit } in verified {
        let (word, code) = word(audit.verdict);
        let name = audit.subject.as_deref().unwrap_or(dir);
        let said = match first {
            None => held(audit),
            Some(first) => format!("the first that is not right is {first}"),
        };
        let _ = writeln!(out, "{}{word}{} {name}: {said}", paint(code), paint(PLAIN));
        for finding in &audit.findings {
            tell(&mut out, finding, &paint);
        }
        if !audit.unproven.is_empty() {
            let files = count(audit.unproven.len(), "file");
            let _ =
                writeln!(out, "    {}{files} came after the proof, and are not proven yet{}", paint(DIM), paint(PLAIN));
        }
    }
    signers(&mut out, verified, &paint);
    let _ = writeln!(out, "{}{}{}", paint(word(verdict).1), sum(verified, verdict), paint(PLAIN));
    out
}

fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Whole => ("whole", GREEN),
        Verdict::Unknown => ("cannot tell", YELLOW),
        Verdict::Changed => ("changed", RED),
    }
}

fn held(audit: &Audit) -> String {
    let (files, bytes) = (count(audit.proven, "file"), size(audit.proven_bytes));
    let signed = audit.signed.as_ref().map(|signed| format!(", as signed at {}", signed.at)).unwrap_or_default();
    let revision = audit.revision.map(|revision| format!(" (revision {revision})")).unwrap_or_default();
    let more = if audit.growing { "; more of it is to come" } else { "" };
    format!("{files}, {bytes}{signed}{revision}{more}")
}

fn tell(out: &mut String, Finding { name, kind, what }: &Finding, paint: &impl Fn(&'static str) -> &'static str) {
    let (word, code) = match kind {
        Kind::Changed => ("changed", RED),
        Kind::Missing => ("missing", RED),
        Kind::NotListed => ("not listed", RED),
        Kind::OtherKey => ("other key", RED),
        Kind::NoProof => ("no proof", YELLOW),
        Kind::Unreadable => ("unreadable", YELLOW),
    };
    let _ = writeln!(out, "    {}{word:<10}{} {name}: {what}", paint(code), paint(PLAIN));
}

/// Whose signatures these are, and who says so.
fn signers(out: &mut String, verified: &[Verified], paint: &impl Fn(&'static str) -> &'static str) {
    let signed = verified.iter().filter_map(|v| v.audit.signed.as_ref());
    let keys: BTreeMap<_, _> = signed.map(|signed| (signed.fingerprint, signed.vouched)).collect();
    if keys.is_empty() {
        return;
    }
    let _ = writeln!(out);
    for (fingerprint, vouched) in &keys {
        let who = match vouched {
            Some(true) => "one of those given",
            Some(false) => "none of those given",
            None => "nobody vouches for it",
        };
        let _ = writeln!(out, "signed with the key {}{fingerprint}{}: {who}", paint(BLUE), paint(PLAIN));
    }
    if keys.values().any(Option::is_none) {
        let _ = writeln!(
            out,
            "  Whoever changes evidence can sign it again with a key of their own. Compare the fingerprint with what the box\n  \
             says itself (`chowki identity`) or what headquarters has registered; or give the key with --key."
        );
    }
}

fn sum(verified: &[Verified], verdict: Verdict) -> String {
    let of = |wanted: Verdict| verified.iter().filter(|v| v.audit.verdict == wanted).count();
    let all = count(verified.len(), "incident");
    match verdict {
        Verdict::Whole => format!("whole: {all}"),
        Verdict::Unknown => format!("of {} of {all} it cannot be told", of(Verdict::Unknown)),
        Verdict::Changed => match of(Verdict::Unknown) {
            0 => format!("changed: {} of {all}", of(Verdict::Changed)),
            unknown => format!("changed: {} of {all}; of {unknown} it cannot be told", of(Verdict::Changed)),
        },
    }
}
