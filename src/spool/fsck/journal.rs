//! The check of the journal. What counts and what was promised is decided by `recovery::weigh`, as at a start.

use std::ops::Range;

use super::{
    Check, JournalPart,
    finding::{Finding, Kind, Severity},
    read::{Folder, REPLACE, Segment, Stretch},
    repair::{JournalRepair, Plan},
};
use crate::spool::{
    error::Error,
    journal::JournalSettings,
    recovery::{Found, Recovered, weigh},
    scan::read_record,
    segment::{Purpose, SEGMENT_HEADER},
};

/// What a start does, and a repair with it.
const OPENING: &str = "drop it, as the gateway's next start would";
const REWRITE: &str = "copy every entry that is sound into a new segment, and keep this one beside it as *.damaged";

pub(super) fn check(check: &mut Check<'_>, folder: &Folder, plan: &mut Plan) -> Result<JournalPart, Error> {
    let mut part = JournalPart {
        segments: folder.segments.len(),
        bytes: folder.bytes(),
        spares: folder.spares.len(),
        ..JournalPart::default()
    };
    let (mut found, mut headless, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    for &number in folder.segments.keys() {
        let segment = Segment::read(check, folder, number, Purpose::Journal, &mut |_| {});
        segment.judge_reading(check);
        part.records += segment.scanned.records.len() as u64;
        let judge = Judged {
            number,
            file: segment.file.clone(),
            bytes: segment.scanned.bytes,
            fault: segment.header.err().filter(|_| segment.refused.is_none()),
            salvaged: segment.header.is_err() && segment.had_begun(),
            stretches: segment.stretches(),
            records: segment.scanned.records.len(),
        };
        let header = match segment.header {
            Ok(header) => Some(header),
            Err(_) if judge.salvaged => segment.likely_header(Purpose::Journal, found.is_empty()),
            Err(_) => None,
        };
        match header {
            Some(header) => found.push(Found { number, header, scanned: segment.scanned }),
            None => headless.push(number),
        }
        judged.push(judge);
    }
    let snapshots: Vec<u64> =
        found.iter().filter(|s| s.header.snapshot && s.opening_is_whole()).map(|s| s.number).collect();
    let weighed = weigh(found, &headless);
    part.entries = weighed.entries.len() as u64;
    let snapshot = judged.iter().find(|j| j.number == weighed.base && snapshots.contains(&j.number));
    part.snapshot = snapshot.map(|j| j.file.clone());
    for judge in &judged {
        judge.judge(check, &weighed, plan);
    }
    lost(check, folder, &weighed, plan);
    if !check.quick {
        entries(check, folder, &weighed);
    }
    spares(check, folder, plan);
    folder.judge_files(check);
    Ok(part)
}

/// What is left to be said of a segment.
struct Judged {
    number: u64,
    file: String,
    bytes: u64,
    /// What is wrong with its header.
    fault: Option<&'static str>,
    /// It counts all the same.
    salvaged: bool,
    stretches: Vec<Stretch>,
    records: usize,
}

impl Judged {
    fn judge(&self, check: &mut Check<'_>, weighed: &Recovered, plan: &mut Plan) {
        if self.judge_header(check, weighed, plan) {
            return;
        }
        if self.number < weighed.base {
            let what = "an older segment than the snapshot that replay begins with";
            let means = "normal after a crash during a checkpoint; everything in it is in the snapshot";
            check.found(
                Finding::new(Severity::Note, Kind::Superseded, &self.file, what, means)
                    .repaired_by("remove it, as the gateway's next start would"),
            );
            plan.open_journal();
            return;
        }
        for stretch in &self.stretches {
            check.found(self.judge_stretch(stretch, weighed, plan));
        }
    }

    /// Whether that was all there is to say.
    fn judge_header(&self, check: &mut Check<'_>, weighed: &Recovered, plan: &mut Plan) -> bool {
        let never_begun = weighed.never_begun.contains(&self.number) || self.bytes < SEGMENT_HEADER;
        if never_begun && self.fault.is_none_or(|_| self.records == 0 || !self.salvaged) {
            let what = "a segment that never began";
            let means = "normal after a crash: an unfinished write, never acknowledged";
            check.found(
                Finding::new(Severity::Note, Kind::NeverBegun, &self.file, what, means)
                    .at(0..self.bytes)
                    .repaired_by(OPENING),
            );
            plan.open_journal();
            return true;
        }
        let Some(fault) = self.fault else { return false };
        let (severity, means) = if self.salvaged {
            (Severity::Warning, format!("a gateway would not see its {} entries; they can still be read", self.records))
        } else {
            (Severity::Damage, "what was in it cannot be read".to_owned())
        };
        let finding = Finding::new(severity, Kind::SegmentHeader, &self.file, fault, means).at(0..SEGMENT_HEADER);
        check.found(finding.repaired_by(REWRITE));
        plan.rewrite_journal(self.number);
        false
    }

    fn judge_stretch(&self, stretch: &Stretch, weighed: &Recovered, plan: &mut Plan) -> Finding {
        let report = &weighed.report;
        // The first that is missing here.
        let first = stretch.record.as_ref().map(|r| r.header.sequence).or(stretch.before.map(|b| b + 1));
        let promised = report.damage.iter().any(|(n, d)| *n == self.number && *d == stretch.damage)
            || first.is_some_and(|first| report.lost.iter().any(|lost| lost.contains(&first)))
            || (first.is_none() && !report.lost.is_empty());
        let kind = match &stretch.record {
            _ if stretch.error.is_some() => Kind::DiskError,
            Some(_) => Kind::PayloadDamaged,
            None => Kind::RecordDamaged,
        };
        let mut what = stretch.damage.why.to_owned();
        if let Some(error) = &stretch.error {
            what = format!("{what}: {error}");
        }
        if !promised && stretch.error.is_none() {
            plan.open_journal();
            let means = "normal after a crash: an unfinished write, never acknowledged";
            return Finding::new(Severity::Note, Kind::UnfinishedWrite, &self.file, what, means)
                .at(stretch.bytes())
                .repaired_by(OPENING);
        }
        if !promised {
            return Finding::new(Severity::Warning, kind, &self.file, what, format!("nothing is lost yet; {REPLACE}"))
                .at(stretch.bytes());
        }
        plan.rewrite_journal(self.number);
        let means = match &stretch.record {
            Some(record) => format!(
                "an entry of {} (sequence {}) that had been acknowledged: its bytes changed on the disk",
                record.header.time, record.header.sequence
            ),
            None => "entries of presses and of what became of them were here, and had been acknowledged".into(),
        };
        Finding::new(Severity::Damage, kind, &self.file, what, means).at(stretch.bytes()).repaired_by(REWRITE)
    }
}

/// Sequences that had been durable.
fn lost(check: &mut Check<'_>, folder: &Folder, weighed: &Recovered, plan: &mut Plan) {
    for Range { start, end } in weighed.report.lost.clone() {
        let what = match end - start {
            1 => format!("entry {start} is gone"),
            n => format!("{n} entries are gone: {start} to {}", end - 1),
        };
        let means = "they had been acknowledged: presses, steps or headquarters' acknowledgements are missing";
        let finding = Finding::new(Severity::Damage, Kind::EntriesLost, folder.name, what, means);
        check.found(
            finding.repaired_by("write the entries that are left into a new segment, so that replay begins there"),
        );
        plan.journal = JournalRepair::Rewrite;
        plan.journal_aside.extend(folder.segments.keys());
    }
}

/// Tells of every entry that counts, one at a time.
fn entries(check: &mut Check<'_>, folder: &Folder, weighed: &Recovered) {
    let (mut open, mut odd) = (None, 0u64);
    for &(number, offset) in &weighed.places {
        if open.as_ref().is_none_or(|(n, _)| *n != number) {
            open = folder.open(number).and_then(Result::ok).map(|file| (number, file));
        }
        let Some((_, file)) = &open else { continue };
        if let Ok(Ok(record)) = read_record(&**file, number, offset) {
            odd += u64::from(!check.watch.entry(record.header.kind, &record.payload));
        }
    }
    if odd > 0 {
        let what = format!("{odd} entries are sound but not understood by this version");
        let means = "a later version wrote them; the gateway leaves them as they are";
        check.found(Finding::new(Severity::Note, Kind::NotUnderstood, folder.name, what, means));
    }
}

fn spares(check: &mut Check<'_>, folder: &Folder, plan: &mut Plan) {
    let JournalSettings { segment_bytes, reserve_bytes, .. } = JournalSettings::default();
    let wanted = reserve_bytes.div_ceil(segment_bytes) as usize;
    if !folder.segments.is_empty() && folder.spares.len() < wanted {
        let what = format!("{} of {wanted} spares for a full disk", folder.spares.len());
        let means = "the disk was full, or the gateway was stopped while it used them";
        let finding = Finding::new(Severity::Note, Kind::Spares, folder.name, what, means);
        check.found(finding.repaired_by("make them while there is room, as the gateway's next start would"));
        plan.open_journal();
    }
    for (name, bytes) in folder.spares.iter().filter(|(_, bytes)| *bytes > 0) {
        let what = format!("a spare that is not empty: {bytes} bytes");
        let means = "it is written over when it is needed";
        check.found(Finding::new(Severity::Note, Kind::Spares, folder.path_of(name), what, means));
    }
}
