//! What a check finds, in words that need no knowledge of the format. Pure.

use std::ops::Range;

use serde::Serialize;

use crate::district::clock::Utc;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Normal after a crash, or only worth knowing.
    Note,
    /// Not as it should be; nothing that was promised is gone.
    Warning,
    /// Something that had been promised is gone.
    Damage,
}

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One of the two logs is not there.
    LogMissing,
    /// The disk does not give back what it holds.
    DiskError,
    /// The first bytes of a segment are not its header.
    SegmentHeader,
    /// A record cannot be recognised any more.
    RecordDamaged,
    /// A record's content is not what was written.
    PayloadDamaged,
    /// Entries of the journal are gone.
    EntriesLost,
    /// The index knows an object that the log does not have.
    ObjectGone,
    /// A whole segment of evidence is gone.
    SegmentGone,
    /// The index is not there.
    IndexMissing,
    /// The index cannot be read.
    IndexUnreadable,
    /// The index does not know objects of the log.
    IndexLacks,
    /// The index says something else than the log.
    IndexStale,
    /// The index was not held against the log.
    IndexNotCompared,
    /// A version that this one does not know has written it.
    NotUnderstood,
    /// The end of a write that a crash interrupted.
    UnfinishedWrite,
    /// A segment that a crash interrupted at its beginning.
    NeverBegun,
    /// A segment that no longer counts.
    Superseded,
    /// Spares of the journal are missing or odd.
    Spares,
    /// A segment or an index that was set aside before.
    SetAside,
    /// Objects found lost by an earlier check.
    KnownLost,
    /// A file that does not belong here.
    Stray,
}

/// An object of evidence, as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// What it is kept for: an incident's id, `outage` or `bulk`.
    pub kept_for: String,
    /// Whose pictures.
    pub camera: String,
    /// Its name in the camera's folder.
    pub name: String,
    /// Captured from.
    pub from: Utc,
    /// Captured until.
    pub to: Utc,
    /// Whether headquarters has confirmed it, where that is known.
    pub delivered: Option<bool>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What kind of thing.
    pub kind: Kind,
    /// Which file, from the data directory.
    pub file: String,
    /// Where in it: its first byte and the one after its last.
    pub bytes: Option<Range<u64>>,
    /// What does not fit.
    pub what: String,
    /// What that means.
    pub means: String,
    /// What `--repair` does about it, if it can do something.
    pub repair: Option<&'static str>,
    /// The object, where it is one.
    pub object: Option<Named>,
}

impl Finding {
    /// A finding about a whole file.
    pub(super) fn new(
        severity: Severity,
        kind: Kind,
        file: impl Into<String>,
        what: impl Into<String>,
        means: impl Into<String>,
    ) -> Self {
        let (file, what, means) = (file.into(), what.into(), means.into());
        Self { severity, kind, file, bytes: None, what, means, repair: None, object: None }
    }

    pub(super) fn at(self, bytes: Range<u64>) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    pub(super) fn repaired_by(self, repair: &'static str) -> Self {
        Self { repair: Some(repair), ..self }
    }

    pub(super) fn of(self, object: Named) -> Self {
        Self { object: Some(object), ..self }
    }
}

/// How many findings of each severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "they are the words of `Severity`")]
pub struct Tally {
    pub note: usize,
    pub warning: usize,
    pub damage: usize,
}

impl Tally {
    pub(super) fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Self { note: count(Severity::Note), warning: count(Severity::Warning), damage: count(Severity::Damage) }
    }
}
