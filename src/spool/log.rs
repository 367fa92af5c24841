//! The writer of a directory of segment files: a batch of records becomes durable as a whole, or the log is as before.
//!
//! What happens on an error is decided here, once:
//! - *A write fails* (full disk, or a broken one): the file is cut back to its last good byte, and the batch goes into a
//!   new segment, which may take a spare: a file allocated beforehand for just this.
//! - *fdatasync fails*: Linux then marks the pages clean although they never reached the disk, so the next fdatasync
//!   succeeds and lies ("fsyncgate", 2018). That file's tail is never trusted again: the batch goes, whole and with the
//!   same sequences, into a new segment, and replay takes the newer copy. The tail is cut off too; where the disk refuses
//!   even that, before the newer copy goes.
//! - *The new segment fails too*: the caller keeps the batch and tries again later.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    batch::{Outgoing, Parts, encode},
    disk::{Disk, DiskFile, write_all_at},
    error::{Error, is_full},
    segment::{Purpose, SEGMENT_HEADER, SegmentHeader, file_name, number_of},
};

/// Where a batch came to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub segment: u64,
    pub first_sequence: u64,
    /// Offset of each record.
    pub offsets: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LogSettings {
    pub purpose: Purpose,
    /// A segment that has reached this is full; a batch may exceed it.
    pub segment_bytes: u64,
    /// Spare segments kept allocated for a full disk.
    pub spares: usize,
}

pub(super) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    settings: LogSettings,
    current: Option<Current>,
    next_segment: u64,
    next_sequence: u64,
    /// Sequences before `next_sequence` that were never used.
    skipped: u32,
    spares: VecDeque<PathBuf>,
    /// Every segment file there is, by number.
    segments: BTreeSet<u64>,
    /// Those with damage in what had been promised: kept aside instead of removed.
    damaged: BTreeSet<u64>,
    /// Where those end that have something beyond that does not count, and that the disk would not cut off.
    uncut: BTreeMap<u64, u64>,
    scratch: Vec<u8>,
    /// Writes and syncs that failed, ever.
    pub errors: u64,
    /// Bytes written, ever.
    pub written: u64,
}

struct Current {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    number: u64,
    end: u64,
}

impl Log {
    /// Goes on in a directory with `next_sequence`, before which `skipped` were never used, in a new segment: never appends to a file of an earlier process,
    /// whose tail may be in memory only.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: LogSettings,
        (next_sequence, skipped): (u64, u32),
        damaged: BTreeSet<u64>,
    ) -> Result<Self, Error> {
        let listed = disk.list(dir).map_err(Error::io("list", dir))?;
        let segments: BTreeSet<u64> = listed.iter().filter_map(|l| number_of(&l.name)).collect();
        let spares: BTreeSet<u64> = listed.iter().filter_map(|l| spare_number(&l.name)).collect();
        let last = segments.last().max(spares.last()).copied().unwrap_or(0);
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            settings,
            current: None,
            next_segment: last + 1,
            next_sequence,
            skipped,
            spares: spares.into_iter().map(|n| dir.join(spare_name(n))).collect(),
            segments,
            damaged,
            uncut: BTreeMap::new(),
            scratch: Vec::new(),
            errors: 0,
            written: 0,
        })
    }

    /// Gives no new segment a number up to this: one that is gone is not to be taken for another.
    pub fn number_above(&mut self, number: u64) {
        self.next_segment = self.next_segment.max(number.saturating_add(1));
    }

    /// Writes and syncs a batch. On an error nothing of it counts and the same batch must be tried again first.
    pub fn commit(&mut self, batch: &[Outgoing<'_>]) -> Result<Placed, Error> {
        let len: u64 = batch.iter().map(Outgoing::record_len).sum();
        match &self.current {
            Some(c) if c.end == SEGMENT_HEADER || c.end + len <= self.settings.segment_bytes => {}
            _ => return self.begin(batch, false),
        }
        match self.append(batch) {
            Ok(placed) => Ok(placed),
            Err(error) => {
                self.errors += 1;
                tracing::warn!(%error, "the batch goes into a new segment");
                self.begin(batch, false)
            }
        }
    }

    /// Begins a segment with a snapshot and removes the older ones.
    pub fn checkpoint(&mut self, snapshot: &[Outgoing<'_>]) -> Result<Placed, Error> {
        match self.begin(snapshot, true) {
            Ok(placed) => {
                self.remove_before(placed.segment);
                Ok(placed)
            }
            Err(error) => {
                // The failed segment may be found whole all the same, in memory or on disk. So its sequences are never
                // used again, and the next segment says so: recovery then leaves it out.
                let unused = snapshot.len().max(1) as u32;
                self.next_sequence += u64::from(unused);
                self.skipped = self.skipped.saturating_add(unused);
                self.retire();
                Err(error)
            }
        }
    }

    /// Writes again, in recovery, a snapshot that was found but may not be durable. On an error the same must be tried
    /// again first.
    pub fn rewrite_snapshot(&mut self, records: &[Outgoing<'_>]) -> Result<(), Error> {
        let placed = self.begin(records, true)?;
        self.remove_before(placed.segment);
        Ok(())
    }

    fn append(&mut self, batch: &[Outgoing<'_>]) -> Result<Placed, Error> {
        let Some(current) = self.current.take() else { return Err(Error::Stopped) };
        let parts = encode(batch, &mut self.scratch, current.number, current.end, self.next_sequence);
        let written = parts.write(&self.scratch, batch, &*current.file, current.end);
        let written = written.map_err(Error::io("write", &current.path));
        let synced = written.and_then(|()| current.file.sync_data().map_err(Error::io("sync", &current.path)));
        if let Err(error) = synced {
            self.cut(current.number, current.end);
            return Err(error);
        }
        let placed = self.accept(parts, current.number);
        self.current = Some(Current { end: current.end + placed.1, ..current });
        Ok(placed.0)
    }

    fn begin(&mut self, batch: &[Outgoing<'_>], snapshot: bool) -> Result<Placed, Error> {
        let number = self.next_segment;
        self.next_segment += 1;
        let path = self.dir.join(file_name(number));
        let result = self.new_file(&path).and_then(|file| {
            let begun = self.write_opening(&*file, &path, number, batch, snapshot);
            begun.map(|parts| (file, parts))
        });
        match result {
            Ok((file, parts)) => {
                self.retire();
                self.segments.insert(number);
                self.skipped = 0;
                let (placed, len) = self.accept(parts, number);
                if snapshot && batch.is_empty() {
                    // So that the next segment's first sequence is not this one's.
                    self.next_sequence += 1;
                }
                self.current = Some(Current { file, path, number, end: SEGMENT_HEADER + len });
                Ok(placed)
            }
            Err(error) => {
                self.errors += 1;
                // Best effort: an opening that is not whole does not count, a whole one is this very batch.
                if self.disk.remove(&path).is_err() {
                    self.segments.insert(number);
                    self.cut(number, 0);
                    // Nothing that comes later lies before it.
                    self.retire();
                }
                Err(error)
            }
        }
    }

    fn write_opening(
        &mut self,
        file: &dyn DiskFile,
        path: &Path,
        number: u64,
        batch: &[Outgoing<'_>],
        snapshot: bool,
    ) -> Result<Parts, Error> {
        let opening = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let purpose = self.settings.purpose;
        let (first_sequence, skipped) = (self.next_sequence, self.skipped);
        let header = SegmentHeader { purpose, snapshot, opening, number, first_sequence, skipped };
        let parts = encode(batch, &mut self.scratch, number, SEGMENT_HEADER, self.next_sequence);
        write_all_at(file, &mut [IoSlice::new(&header.encode())], 0).map_err(Error::io("write", path))?;
        parts.write(&self.scratch, batch, file, SEGMENT_HEADER).map_err(Error::io("write", path))?;
        file.sync_data().map_err(Error::io("sync", path))?;
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync the directory of", path))?;
        Ok(parts)
    }

    /// A file with space of its own; on a full disk a spare; without a spare, as much as there is.
    fn new_file(&mut self, path: &Path) -> Result<Arc<dyn DiskFile>, Error> {
        let full = match self.disk.create(path) {
            Ok(file) => match file.allocate(self.settings.segment_bytes) {
                Err(e) if is_full(&e) => Some(file),
                // Any other refusal to allocate is no reason not to write.
                _ => return Ok(file),
            },
            Err(e) if is_full(&e) => None,
            Err(e) => return Err(Error::io("create", path)(e)),
        };
        if let Some(spare) = self.spares.pop_front() {
            self.disk.rename(&spare, path).map_err(Error::io("take a spare for", path))?;
            return self.disk.open(path).map_err(Error::io("open", path));
        }
        let full_disk = || Error::io("create", path)(io::ErrorKind::StorageFull.into());
        full.ok_or_else(full_disk)
    }

    /// Gives back the space allocated beyond the end of the segment that was current.
    fn retire(&mut self) {
        if let Some(old) = self.current.take() {
            let _ = old.file.truncate(old.end);
        }
    }

    fn accept(&mut self, parts: Parts, segment: u64) -> (Placed, u64) {
        let first_sequence = self.next_sequence;
        self.next_sequence += parts.offsets.len() as u64;
        self.written += parts.bytes;
        (Placed { segment, first_sequence, offsets: parts.offsets }, parts.bytes)
    }

    /// Removes a segment. One with damage is renamed to `*.damaged` instead, for whoever looks into it.
    ///
    /// That what an older one has beyond its end does not count is only seen by newer ones, so that is cut off first.
    pub fn remove(&mut self, number: u64) -> Result<(), Error> {
        let path = self.dir.join(file_name(number));
        self.cut_before(number).map_err(|(_, error)| error)?;
        let removed = if self.damaged.contains(&number) {
            self.disk.rename(&path, &path.with_extension("seg.damaged"))
        } else {
            self.disk.remove(&path)
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", path)(e)),
            _ => {}
        }
        self.segments.remove(&number);
        self.uncut.remove(&number);
        Ok(())
    }

    /// Removes all segments before `number`; those that will not go are left for the next time.
    pub fn remove_before(&mut self, number: u64) {
        let older: Vec<u64> = self.segments.range(..number).copied().collect();
        for old in older {
            if let Err(error) = self.remove(old) {
                tracing::warn!(%error, "an old segment stays for now");
            }
        }
    }

    /// Cuts a segment to what counts of it, durably: now, or before any newer one is removed.
    pub fn cut(&mut self, number: u64, end: u64) {
        if let Err(error) = self.try_cut(number, end) {
            tracing::warn!(%error, "the unfinished tail of a segment stays for now");
            self.uncut.insert(number, end);
        }
    }

    /// As [`Log::cut`], but not before something newer is removed.
    pub fn cut_later(&mut self, number: u64, end: u64) {
        self.uncut.insert(number, end);
    }

    /// The first segment with something beyond its end that the disk will not cut off now: nothing newer can be removed.
    pub fn first_uncut(&mut self) -> Option<u64> {
        let (number, error) = self.cut_before(u64::MAX).err()?;
        tracing::warn!(%error, "the unfinished tail of a segment stays for now");
        Some(number)
    }

    fn cut_before(&mut self, number: u64) -> Result<(), (u64, Error)> {
        while let Some((&older, &end)) = self.uncut.range(..number).next() {
            self.try_cut(older, end).map_err(|error| (older, error))?;
            self.uncut.remove(&older);
        }
        Ok(())
    }

    /// Whether a segment has something beyond its end.
    pub fn is_uncut(&self, number: u64) -> bool {
        self.uncut.contains_key(&number)
    }

    fn try_cut(&self, number: u64, end: u64) -> Result<(), Error> {
        let path = self.dir.join(file_name(number));
        let cut = self.disk.open(&path).and_then(|f| f.truncate(end).and_then(|()| f.sync_data()));
        match cut {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("cut", path)(e)),
            _ => Ok(()),
        }
    }

    /// How many segment files there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The segment that is written now.
    pub fn current_segment(&self) -> Option<u64> {
        self.current.as_ref().map(|c| c.number)
    }

    /// Ends the current segment; the next batch begins a new one.
    pub fn roll(&mut self) {
        self.retire();
    }

    /// Makes missing spares while there is space; says how many there are.
    pub fn top_up(&mut self) -> usize {
        while self.spares.len() < self.settings.spares {
            let path = self.dir.join(spare_name(self.next_segment));
            self.next_segment += 1;
            let made = self.disk.create(&path).and_then(|f| f.allocate(self.settings.segment_bytes));
            if made.is_err() {
                let _ = self.disk.remove(&path);
                break;
            }
            self.spares.push_back(path);
        }
        self.spares.len()
    }

    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    pub fn missing_spares(&self) -> bool {
        self.spares.len() < self.settings.spares
    }
}

fn spare_name(number: u64) -> String {
    format!("{number:016x}.spare")
}

/// The number in a spare's file name.
pub(super) fn spare_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".spare")?, 16).ok()
}
