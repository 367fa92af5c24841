//! Checks a spool that no gateway has open, and repairs it when it is asked to.
//!
//! **A check only looks.** Files are opened for reading; the index, which sled cannot open without writing, is copied
//! into a temporary directory first and held there against one that is built anew from the log.
//!
//! 1. The journal: every segment is read, then weighed as [`super::recovery`] does at a start. What a start would drop
//!    without a word is a *note*, what it would report as lost is *damage*.
//! 2. The media log: every segment is read, one after the other; nothing is kept of it but what is wrong. Payloads are
//!    checked by the record's CRC32C and by the SHA-256 that the recorder noted.
//! 3. The index, in both directions. It also tells damage from an unfinished write: what is indexed had been synced.
//!
//! **A repair does what a start would do**, and then what a start does not: see `repair.rs`. After it everything is
//! checked once more, so that nothing is called repaired that is not.

mod compare;
mod finding;
mod journal;
mod media;
mod observer;
mod read;
mod repair;
#[cfg(test)]
mod tests;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

pub use self::finding::{Finding, Kind, Named, Severity, Tally};
use self::{observer::Observer, repair::Plan};
use super::{
    disk::{Disk, RealDisk},
    error::Error,
};
use crate::host::clock;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Headers only: quick, but what happened to a payload is not seen.
    pub quick: bool,
    /// Repair what was found.
    pub repair: bool,
    /// Size of the segments that a repair writes evidence to.
    pub segment_bytes: u64,
}

/// How far a check has come, in bytes of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Checked.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// Who looks on.
pub trait Watch {
    /// The check has come further.
    fn progress(&mut self, progress: Progress);
    /// An entry of the journal that counts; `false` when this version does not understand it.
    fn entry(&mut self, kind: u8, payload: &[u8]) -> bool;
    /// The journal is read anew: what was told of it is forgotten.
    fn again(&mut self);
}

/// What the journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JournalPart {
    /// Segment files.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Of these, entries that count.
    pub entries: u64,
    /// The segment whose snapshot replay begins with.
    pub snapshot: Option<String>,
    /// Spare files.
    pub spares: usize,
}

/// What the media log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MediaPart {
    /// Segment files.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Objects that can be read.
    pub objects: u64,
    /// Cameras that they are of.
    pub cameras: usize,
    /// Stretches of time without a hole, all cameras and incidents.
    pub intervals: u64,
    /// Objects that headquarters has not confirmed.
    pub undelivered: u64,
    /// Whether the index was held against the log.
    pub compared: bool,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The journal.
    pub journal: JournalPart,
    /// The media log.
    pub media: MediaPart,
    /// Everything that was found, the files in order.
    pub findings: Vec<Finding>,
    /// How many of each severity.
    pub tally: Tally,
    /// Bytes read.
    pub read_bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Whether there is nothing but notes.
    pub fn is_clean(&self) -> bool {
        self.tally.warning == 0 && self.tally.damage == 0
    }
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Repaired {
    /// Step by step.
    pub done: Vec<String>,
    /// What it could not do, and why.
    pub failed: Option<String>,
    /// What a check finds now.
    pub after: Report,
}

/// A check, and a repair where there was one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What was found.
    pub found: Report,
    /// What was done about it. `None` when nothing was asked for, or nothing was to be done.
    pub repaired: Option<Repaired>,
}

impl Outcome {
    /// Whether nothing is left but notes.
    pub fn is_clean(&self) -> bool {
        match &self.repaired {
            Some(repaired) => repaired.failed.is_none() && repaired.after.is_clean(),
            None => self.found.is_clean(),
        }
    }
}

/// Checks the spool in a data directory. [`Error::InUse`] while a gateway has it open.
pub fn run(dir: &Path, options: Options, watch: &mut dyn Watch) -> Result<Outcome, Error> {
    run_on(Arc::new(RealDisk), dir, options, watch)
}

/// As [`run`], with segment files on another file layer.
pub fn run_on(disk: Arc<dyn Disk>, dir: &Path, options: Options, watch: &mut dyn Watch) -> Result<Outcome, Error> {
    // Held until everything is done.
    let _locks = (take(&disk, &dir.join(JOURNAL), options.repair)?, take(&disk, &dir.join(MEDIA), options.repair)?);
    let (found, plan) = check(&disk, dir, options.quick, watch)?;
    if !options.repair || found.findings.iter().all(|f| f.repair.is_none()) {
        return Ok(Outcome { found, repaired: None });
    }
    let mut done = Vec::new();
    let failed = repair::carry_out(&disk, dir, options, plan, &mut done).err().map(|e| e.to_string());
    watch.again();
    let (after, _) = check(&disk, dir, options.quick, watch)?;
    Ok(Outcome { found, repaired: Some(Repaired { done, failed, after }) })
}

const JOURNAL: &str = "journal";
const MEDIA: &str = "media";

/// Keeps a gateway from opening a log meanwhile.
fn take(disk: &Arc<dyn Disk>, dir: &Path, write: bool) -> Result<Option<Box<dyn Send + Sync>>, Error> {
    let lock = if write { disk.lock(dir) } else { disk.lock_to_read(dir) };
    match lock {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err(Error::InUse(dir.to_owned())),
        // Told as a finding.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("lock", dir)(e)),
    }
}

fn check(disk: &Arc<dyn Disk>, dir: &Path, quick: bool, watch: &mut dyn Watch) -> Result<(Report, Plan), Error> {
    let begun = clock::mono();
    let observer = Arc::new(Observer::new(disk.clone()));
    let disk: Arc<dyn Disk> = observer.clone();
    let (journal, media) = (read::Folder::list(&disk, dir, JOURNAL)?, read::Folder::list(&disk, dir, MEDIA)?);
    let total = journal.iter().chain(&media).map(read::Folder::bytes).sum();
    let mut check = Check { quick, watch, findings: Vec::new(), done: 0, total };
    let mut plan = Plan::default();
    let journal = match journal {
        Some(folder) => journal::check(&mut check, &folder, &mut plan)?,
        None => check.misses(JOURNAL, "what was pressed and what became of it is not known"),
    };
    let media = match media {
        Some(folder) => media::check(&mut check, &folder, &mut plan)?,
        None => check.misses(MEDIA, "no evidence is held"),
    };
    let mut findings = check.findings;
    findings.sort_by(|a, b| {
        (&a.file, a.bytes.as_ref().map(|r| r.start)).cmp(&(&b.file, b.bytes.as_ref().map(|r| r.start)))
    });
    let (tally, read_bytes) = (Tally::of(&findings), observer.read_bytes());
    let seconds = clock::mono().since(begun).as_secs_f64();
    Ok((Report { journal, media, findings, tally, read_bytes, seconds }, plan))
}

/// A check that is under way.
struct Check<'a> {
    quick: bool,
    watch: &'a mut dyn Watch,
    findings: Vec<Finding>,
    /// Bytes of segments.
    done: u64,
    total: u64,
}

impl Check<'_> {
    fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn misses<T: Default>(&mut self, log: &str, means: &str) -> T {
        let means = format!("{means}; a gateway that starts makes it anew, empty");
        self.found(Finding::new(Severity::Damage, Kind::LogMissing, log, "the directory is not there", means));
        T::default()
    }
}

/// Whether a directory looks like a gateway's data.
pub fn is_spool(dir: &Path) -> bool {
    [JOURNAL, MEDIA].iter().any(|log| dir.join(log).is_dir())
}

/// The path of a file from the data directory.
fn relative(folder: &str, name: &str) -> String {
    PathBuf::from(folder).join(name).display().to_string()
}
