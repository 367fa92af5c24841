//! Reads a folder of segments as it is: what cannot be read is a finding and stops nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Check, Progress,
    finding::{Finding, Kind, Severity},
    relative,
};
use crate::spool::{
    disk::{Disk, DiskFile},
    error::Error,
    log::spare_number,
    scan::{Damage, Depth, Scanned, Step, Unreadable, read_header, scan_with},
    segment::{Located, Purpose, SEGMENT_HEADER, SegmentHeader, number_of},
};

/// What one can do about a disk that fails.
pub(super) const REPLACE: &str = "the disk itself fails: copy the data directory to another one, then repair there";

/// A log's directory.
pub(super) struct Folder {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub name: &'static str,
    /// Segment files: number to name and length.
    pub segments: BTreeMap<u64, (String, u64)>,
    /// Names and lengths of spares.
    pub spares: Vec<(String, u64)>,
    /// Numbers of segments that were set aside.
    pub aside: BTreeSet<u64>,
    /// Files that are none of these.
    pub others: Vec<String>,
}

impl Folder {
    /// `None` when it is not there.
    pub fn list(disk: &Arc<dyn Disk>, data: &Path, name: &'static str) -> Result<Option<Self>, Error> {
        let dir = data.join(name);
        let listed = match disk.list(&dir) {
            Ok(listed) => listed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("list", &dir)(e)),
        };
        let mut folder = Self {
            disk: disk.clone(),
            dir,
            name,
            segments: BTreeMap::new(),
            spares: Vec::new(),
            aside: BTreeSet::new(),
            others: Vec::new(),
        };
        for file in listed {
            let aside = file.name.strip_suffix(".damaged").and_then(number_of);
            if let Some(number) = number_of(&file.name) {
                folder.segments.insert(number, (file.name, file.bytes));
            } else if spare_number(&file.name).is_some() {
                folder.spares.push((file.name, file.bytes));
            } else if let Some(number) = aside {
                folder.aside.insert(number);
            } else if !["lock", "index.opening"].contains(&file.name.as_str()) {
                folder.others.push(file.name);
            }
        }
        Ok(Some(folder))
    }

    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|(_, bytes)| bytes).sum()
    }

    pub fn path_of(&self, name: &str) -> String {
        relative(self.name, name)
    }

    pub fn open(&self, number: u64) -> Option<io::Result<Arc<dyn DiskFile>>> {
        self.segments.get(&number).map(|(name, _)| self.disk.open_to_read(&self.dir.join(name)))
    }

    /// What was set aside before, and what does not belong.
    pub fn judge_files(&self, check: &mut Check<'_>) {
        for number in &self.aside {
            let name = format!("{}.damaged", crate::spool::segment::file_name(*number));
            let means = "kept for whoever looks into it; no gateway reads it, and it may be moved elsewhere";
            check.found(Finding::new(Severity::Note, Kind::SetAside, self.path_of(&name), "set aside earlier", means));
        }
        for name in &self.others {
            let means = "it is left as it is";
            let what = "this file does not belong here";
            check.found(Finding::new(Severity::Note, Kind::Stray, self.path_of(name), what, means));
        }
    }
}

/// A segment as it was found.
pub(super) struct Segment {
    pub number: u64,
    pub file: String,
    /// `None`: what stands there instead.
    pub header: Result<SegmentHeader, &'static str>,
    pub scanned: Scanned,
    /// What the system said, when nothing could be read at all.
    pub refused: Option<String>,
}

/// A stretch of a segment that is no sound record, and what stands around it.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub damage: Damage,
    /// Sequence of the sound record before it.
    pub before: Option<u64>,
    /// Sequence of the sound record after it.
    pub after: Option<u64>,
    /// The record, when only its payload is no good.
    pub record: Option<Located>,
    /// What the disk said.
    pub error: Option<String>,
}

impl Stretch {
    pub fn bytes(&self) -> Range<u64> {
        self.damage.from..self.damage.to
    }
}

impl Segment {
    pub fn read(
        check: &mut Check<'_>,
        folder: &Folder,
        number: u64,
        purpose: Purpose,
        look: &mut dyn FnMut(Step<'_>),
    ) -> Self {
        let depth = if check.quick { Depth::Headers } else { Depth::Checked };
        let (name, bytes) = folder.segments.get(&number).cloned().unwrap_or_default();
        let (before, total) = (check.done, check.total);
        let mut segment = Self {
            number,
            file: folder.path_of(&name),
            header: Err("it cannot be read"),
            scanned: Scanned { bytes, ..Scanned::default() },
            refused: None,
        };
        let read = folder.disk.open_to_read(&folder.dir.join(&name)).and_then(|file| {
            segment.header = match read_header(&*file) {
                Ok(Some(header)) if header.number == number && header.purpose == purpose => Ok(header),
                Ok(Some(_)) => Err("the header is that of another segment"),
                Ok(None) if bytes < SEGMENT_HEADER => Err("the file ends within the header"),
                Ok(None) => Err("the header's checksum does not fit"),
                Err(_) => Err("the header cannot be read"),
            };
            scan_with(&*file, number, depth, &mut |step| {
                if let Step::At(offset) = step {
                    check.watch.progress(Progress { done: before + offset.min(bytes), total });
                }
                look(step);
            })
        });
        match read {
            Ok(scanned) => segment.scanned = scanned,
            Err(e) => segment.refused = Some(e.to_string()),
        }
        check.done = before + bytes;
        check.watch.progress(Progress { done: check.done, total });
        segment
    }

    /// What is no sound record in it, in order.
    pub fn stretches(&self) -> Vec<Stretch> {
        let records = &self.scanned.records;
        let around = |damage: &Damage| {
            let next = records.partition_point(|r| r.offset < damage.from);
            let overlaps = |u: &&Unreadable| u.from < damage.to && damage.from < u.to;
            Stretch {
                damage: damage.clone(),
                before: next.checked_sub(1).and_then(|i| records.get(i)).map(|r| r.header.sequence),
                after: records.get(next).map(|r| r.header.sequence),
                record: self.scanned.broken.iter().find(|r| r.offset == damage.from).cloned(),
                error: self.scanned.unreadable.iter().find(overlaps).map(|u| u.error.clone()),
            }
        };
        self.scanned.damage.iter().map(around).collect()
    }

    /// Whether it had begun for all that can be seen, although its header is no good: its records follow one another
    /// without a fault, or one of them says that others before it were durable.
    pub fn had_begun(&self) -> bool {
        let records = &self.scanned.records;
        let Some(first) = records.first().map(|r| r.header.sequence) else { return false };
        self.scanned.damage.is_empty() || records.iter().any(|r| r.header.synced_below > first)
    }

    /// The header that it must have had, from its records.
    pub fn likely_header(&self, purpose: Purpose, oldest: bool) -> Option<SegmentHeader> {
        let first = self.scanned.records.first()?.header;
        let opening = self.scanned.records.iter().take_while(|r| r.header.synced_below == first.synced_below).count();
        Some(SegmentHeader {
            purpose,
            // Without one before it, it was a snapshot, unless it was the very first.
            snapshot: oldest && first.sequence != 1,
            opening: opening as u32,
            number: self.number,
            first_sequence: first.sequence,
            skipped: 0,
        })
    }

    /// A disk error that is not part of any stretch: in the header, or of the whole file.
    pub fn judge_reading(&self, check: &mut Check<'_>) {
        if let Some(error) = &self.refused {
            let finding = Finding::new(
                Severity::Damage,
                Kind::DiskError,
                &self.file,
                format!("the file cannot be read: {error}"),
                REPLACE,
            );
            check.found(finding);
        }
    }
}
