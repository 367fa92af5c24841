//! Opening the media log: the procedure is in [`super::recovery`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    disk::Disk,
    error::Error,
    index::{Change, Index, Sealed},
    log::{Log, LogSettings, Outgoing},
    object::{At, DeliveredMark, ObjectMeta, ObjectRef},
    recovery::{Found, Report, read_segments},
    retention::SegmentUse,
    scan::{Depth, read_header, read_record},
    segment::{FIRST, LAST, Located, Purpose, SEGMENT_HEADER, file_name, number_of},
};

/// Record kind: a media object; meta says what, payload is its bytes.
pub(super) const OBJECT: u8 = 1;
/// Record kind: an object is at headquarters; no payload.
pub(super) const DELIVERED: u8 = 2;
/// The segment, which there is none of, of objects that are known to be lost: the next start hears of them as gone.
pub(super) const LOST: u64 = 0;

/// How many indexes that were set aside are kept.
const KEEP_BROKEN: usize = 2;

/// A media log that is ready.
pub(super) struct Opened {
    pub log: Log,
    pub index: Index,
    /// What each segment holds.
    pub uses: BTreeMap<u64, SegmentUse>,
    /// Objects whose segment is no longer there.
    pub gone: Vec<Vec<ObjectRef>>,
    pub report: Report,
}

/// Opens log and index, and makes them agree.
pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, settings: LogSettings) -> Result<Opened, Error> {
    open_to_repair(disk, dir, settings, None, BTreeSet::new())
}

/// As [`open`]; with `rebuild` the index is built anew whatever it says, and of segments in `aside` nothing is cut off or
/// removed.
pub(super) fn open_to_repair(
    disk: Arc<dyn Disk>,
    dir: &Path,
    settings: LogSettings,
    rebuild: Option<&str>,
    aside: BTreeSet<u64>,
) -> Result<Opened, Error> {
    let index = rebuild.map_or_else(|| open_index(dir), |why| Err(why.to_owned()));
    let (index, mut rebuilt) = match index {
        Ok(index) => (index, None),
        Err(why) => (fresh_index(dir, &why)?, Some(why)),
    };
    let mut opening = Opening { disk, dir, settings, aside };
    let result = match opening.load(&index) {
        Err(Trouble::Index(why)) => {
            drop(index);
            let index = fresh_index(dir, &why)?;
            rebuilt = Some(why);
            opening.load(&index).map(|loaded| (index, loaded))
        }
        other => other.map(|loaded| (index, loaded)),
    };
    let (index, loaded) = match result {
        Ok(found) => found,
        Err(Trouble::Index(error)) => return Err(Error::Index { doing: "be rebuilt", error }),
        Err(Trouble::Disk(error)) => return Err(error),
    };
    let Loaded { log, uses, gone, mut report } = loaded;
    report.rebuilt = rebuilt;
    Ok(Opened { log, index, uses, gone, report })
}

/// Sets the index aside and builds it anew from a log that is being written. What is not synced yet is not in it.
pub(super) fn rebuild(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    why: &str,
) -> Result<(Index, BTreeMap<u64, SegmentUse>), Error> {
    let index = fresh_index(dir, why)?;
    let (segments, _) = read_segments(disk, dir, Purpose::Media, |_, _| Some(Depth::Headers))?;
    let mut uses = BTreeMap::new();
    for segment in &segments {
        index.apply(&changes(segment.number, segment.scanned.records.iter()), &mut uses)?;
        uses.entry(segment.number).or_insert(SegmentUse { number: segment.number, ..SegmentUse::default() }).bytes =
            segment.scanned.bytes;
    }
    index.flush()?;
    Ok((index, uses))
}

/// Opens the index. A marker stands beside it meanwhile: when an earlier process died while opening it (sled may panic
/// on what it finds), it is not opened again.
fn open_index(dir: &Path) -> Result<Index, String> {
    let marker = dir.join("index.opening");
    if marker.exists() {
        return Err("the process died while opening it".into());
    }
    fs::write(&marker, "").map_err(|e| format!("cannot write {}: {e}", marker.display()))?;
    let opened = Index::open(&dir.join("index")).map_err(|e| e.to_string());
    if opened.is_ok() {
        let _ = fs::remove_file(&marker);
    }
    opened
}

/// Sets the index aside and opens an empty one.
fn fresh_index(dir: &Path, why: &str) -> Result<Index, Error> {
    let path = dir.join("index");
    if path.exists() {
        let aside = set_aside(dir, &path).map_err(Error::io("set aside", &path))?;
        tracing::error!(why, aside = %aside.display(), "the index is built anew from the log");
    }
    let index = Index::open(&path)?;
    let _ = fs::remove_file(dir.join("index.opening"));
    Ok(index)
}

fn set_aside(dir: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let mut broken: BTreeSet<u64> = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|n| n.strip_prefix("index.broken-")).and_then(|n| n.parse().ok());
        broken.extend(number);
    }
    let name = |n: u64| dir.join(format!("index.broken-{n}"));
    let aside = name(broken.last().map_or(1, |n| n + 1));
    fs::rename(path, &aside)?;
    let surplus = (broken.len() + 1).saturating_sub(KEEP_BROKEN);
    for old in broken.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(name(old));
    }
    Ok(aside)
}

enum Trouble {
    Disk(Error),
    /// The index is no good; why.
    Index(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Index { .. } => Trouble::Index(error.to_string()),
            other => Trouble::Disk(other),
        }
    }
}

struct Opening<'a> {
    disk: Arc<dyn Disk>,
    dir: &'a Path,
    settings: LogSettings,
    /// Segments to be kept as they are.
    aside: BTreeSet<u64>,
}

struct Loaded {
    log: Log,
    uses: BTreeMap<u64, SegmentUse>,
    gone: Vec<Vec<ObjectRef>>,
    report: Report,
}

/// Records after the proven part, sound and with their payloads, by sequence.
type Tail = BTreeMap<u64, (u64, Located)>;

impl Opening<'_> {
    fn load(&mut self, index: &Index) -> Result<Loaded, Trouble> {
        let sealed = index.sealed()?;
        let mut uses = index.uses()?;
        let listed = self.disk.list(self.dir).map_err(Error::io("list", self.dir))?;
        let sizes: BTreeMap<u64, u64> =
            listed.iter().filter_map(|l| number_of(&l.name).map(|n| (n, l.bytes))).collect();
        let newest = self.newest(&sizes)?;
        let trusted = |number: u64, bytes: u64| {
            let objects = uses.get(&number).map_or(0, |u| u.objects);
            !newest.contains(&number) && sealed.get(&number) == Some(&Sealed { bytes, objects })
        };
        let depth = |number, bytes| (!trusted(number, bytes)).then_some(Depth::Headers);
        let (segments, _) = read_segments(&self.disk, self.dir, Purpose::Media, depth)?;
        let (proven, again) = self.bounds(&sizes, &segments, &newest)?;

        let mut report = Report { segments: segments.len(), ..Report::default() };
        let tail = self.tail(&segments, &newest, (proven, &again), &mut report)?;
        check_agreement(index, &segments, &tail, proven)?;
        prefer_what_is_there(index, &segments, &sizes, &newest, &mut uses)?;
        for segment in &segments {
            report.records += segment.scanned.records.len() as u64;
            let below = proven.min(again_in(&again, segment.number));
            let before = segment.scanned.records.iter().filter(|r| r.header.sequence < below);
            index.apply(&changes(segment.number, before), &mut uses)?;
        }
        let log = self.finish(index, &segments, &tail, proven, &mut uses, &mut report)?;
        let gone = self.reconcile(index, &mut uses, log.current_segment())?;
        index.flush()?;
        Ok(Loaded { log, uses, gone, report })
    }

    /// The last that had begun, which may be unfinished, as may the one before it when its successor was the answer to an
    /// error; and whatever came after them, which may be the tail written again by half.
    fn newest(&self, sizes: &BTreeMap<u64, u64>) -> Result<BTreeSet<u64>, Error> {
        let (mut newest, mut begun, mut durable) = (BTreeSet::new(), 0, 0);
        for &number in sizes.keys().rev() {
            newest.insert(number);
            let only = |n, _| (n == number).then_some(Depth::Headers);
            let (found, _) = read_segments(&self.disk, self.dir, Purpose::Media, only)?;
            for segment in found {
                if self.has_begun(&segment, durable)? {
                    begun += 1;
                    durable = durable.max(segment.header.unused().start);
                }
            }
            if begun == 2 {
                break;
            }
        }
        Ok(newest)
    }

    /// Step 2: what can be read of the unproven tail. Damage elsewhere goes into the report.
    fn tail(
        &self,
        segments: &[Found],
        newest: &BTreeSet<u64>,
        (proven, again): (u64, &BTreeMap<u64, u64>),
        report: &mut Report,
    ) -> Result<Tail, Error> {
        let mut tail = Tail::new();
        for segment in segments {
            let scanned = &segment.scanned;
            let records = &scanned.records;
            let again = again_in(again, segment.number);
            let counts = |r: &&Located| r.header.sequence < proven.min(again);
            let kept = records.iter().rfind(counts).map_or(SEGMENT_HEADER, Located::end);
            let (inside, unfinished): (Vec<_>, Vec<_>) = scanned.damage.iter().cloned().partition(|d| d.from < kept);
            report.damage.extend(inside.into_iter().map(|d| (segment.number, d)));
            report.dropped_bytes += unfinished.iter().map(|d| d.to - d.from).sum::<u64>();
            if !newest.contains(&segment.number) {
                continue;
            }
            let path = self.dir.join(file_name(segment.number));
            let file = self.disk.open(&path).map_err(Error::io("open", &path))?;
            for record in records.iter().filter(|r| (proven..again).contains(&r.header.sequence)) {
                match read_record(&*file, segment.number, record.offset).map_err(Error::io("read", &path))? {
                    Ok(record) => drop(tail.insert(record.header.sequence, (segment.number, record))),
                    Err(_) => report.dropped_bytes += record.header.record_len(),
                }
            }
        }
        Ok(tail)
    }

    /// Below which sequence everything had been durable; and for each segment from which sequence on newer ones have again
    /// what is in it: there it was an unfinished write, or the tail that is written again.
    fn bounds(
        &self,
        sizes: &BTreeMap<u64, u64>,
        segments: &[Found],
        newest: &BTreeSet<u64>,
    ) -> Result<(u64, BTreeMap<u64, u64>), Error> {
        let read: BTreeMap<u64, &Found> = segments.iter().map(|s| (s.number, s)).collect();
        let (mut proven, mut durable, mut least, mut again) = (1, 0, u64::MAX, BTreeMap::new());
        let first = read.keys().next().copied().unwrap_or(u64::MAX);
        for &number in sizes.range(first..).map(|(number, _)| number).rev() {
            again.insert(number, least);
            match read.get(&number) {
                Some(segment)
                    if self.has_begun(segment, if newest.contains(&number) { durable } else { u64::MAX })? =>
                {
                    proven = proven.max(segment.proven());
                    durable = durable.max(segment.header.unused().start);
                    least = least.min(segment.header.unused().start);
                }
                // Until its opening is whole, a tail that is written again in it counts where it was.
                Some(segment) => proven = proven.max(segment.header.unused().start),
                None => {
                    let path = self.dir.join(file_name(number));
                    let header = self.disk.open(&path).and_then(|file| read_header(&*file));
                    let header = header.map_err(Error::io("read", &path))?.filter(|h| h.number == number);
                    least = header.map_or(least, |h| least.min(h.unused().start));
                }
            }
        }
        Ok((proven, again))
    }

    /// Whether a segment's opening is there, with what is in it. Below `durable`, and where something was written after it,
    /// it had been: then what is wrong with it is damage.
    fn has_begun(&self, segment: &Found, durable: u64) -> Result<bool, Error> {
        if !segment.opening_is_whole() {
            return Ok(false);
        }
        let after = segment.scanned.records.iter().map(|r| r.header.synced_below).max().unwrap_or(0);
        if after.max(durable) >= segment.header.first_sequence + u64::from(segment.header.opening) {
            return Ok(true);
        }
        let path = self.dir.join(file_name(segment.number));
        let file = self.disk.open(&path).map_err(Error::io("open", &path))?;
        for record in segment.scanned.records.iter().take(segment.header.opening as usize) {
            if read_record(&*file, segment.number, record.offset).map_err(Error::io("read", &path))?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the tail again and cuts it off where it was. Where the disk refuses, it stays where it is: it was readable.
    fn finish(
        &self,
        index: &Index,
        segments: &[Found],
        tail: &Tail,
        proven: u64,
        uses: &mut BTreeMap<u64, SegmentUse>,
        report: &mut Report,
    ) -> Result<Log, Error> {
        let next_sequence = tail.keys().next_back().map_or(proven, |last| last + 1);
        // The next segment says of the tail's sequences that they do not count any more.
        let skipped = u32::try_from(next_sequence - proven).unwrap_or(u32::MAX);
        let numbers = (next_sequence, skipped);
        let mut log = Log::new(self.disk.clone(), self.dir, self.settings, numbers, self.aside.clone())?;
        // The last of them may be gone while the index still knows what was in it.
        log.number_above(uses.keys().next_back().copied().unwrap_or(0));
        if tail.is_empty() {
            return Ok(log);
        }
        let batch: Vec<Outgoing<'_>> = tail.values().map(|(_, record)| outgoing(record)).collect();
        let placed = match log.commit(&batch) {
            Ok(placed) => placed,
            Err(error) => {
                tracing::error!(%error, "the end of the media log cannot be written again");
                for (number, record) in tail.values() {
                    index.apply(&changes(*number, [record].into_iter()), uses)?;
                }
                return Ok(log);
            }
        };
        report.rewritten = batch.len() as u64;
        for (i, (_, record)) in tail.values().enumerate() {
            let at =
                At { segment: placed.segment, offset: placed.offsets[i], sequence: placed.first_sequence + i as u64 };
            index.apply(&change(at, record).into_iter().collect::<Vec<_>>(), uses)?;
        }
        index.flush()?;
        let written: BTreeSet<u64> = tail.values().map(|(number, _)| *number).collect();
        for &number in written.difference(&self.aside) {
            let Some(segment) = segments.iter().find(|s| s.number == number) else { continue };
            let first = tail.values().filter(|(n, _)| *n == number).map(|(_, r)| r.offset).min();
            match first.unwrap_or(segment.scanned.bytes) {
                SEGMENT_HEADER => drop(log.remove(number)),
                len => log.cut(number, len),
            }
        }
        Ok(log)
    }

    /// Steps 3 and 4: sizes, seals, and segments that are gone.
    fn reconcile(
        &self,
        index: &Index,
        uses: &mut BTreeMap<u64, SegmentUse>,
        current: Option<u64>,
    ) -> Result<Vec<Vec<ObjectRef>>, Error> {
        let listed = self.disk.list(self.dir).map_err(Error::io("list", self.dir))?;
        let sizes: BTreeMap<u64, u64> =
            listed.iter().filter_map(|l| number_of(&l.name).map(|n| (n, l.bytes))).collect();
        for (&number, &bytes) in &sizes {
            let held = uses.entry(number).or_insert(SegmentUse { number, ..SegmentUse::default() });
            held.bytes = bytes;
            if Some(number) != current {
                index.seal(number, Sealed { bytes, objects: held.objects })?;
            }
        }
        let missing: Vec<u64> = uses.keys().filter(|n| !sizes.contains_key(n)).copied().collect();
        let mut gone = Vec::new();
        for number in missing {
            gone.push(index.objects_in(number)?);
            index.forget(number)?;
            uses.remove(&number);
        }
        gone.retain(|objects| !objects.is_empty());
        Ok(gone)
    }
}

/// From which sequence on what is in a segment does not count.
fn again_in(again: &BTreeMap<u64, u64>, segment: u64) -> u64 {
    again.get(&segment).copied().unwrap_or(u64::MAX)
}

/// Every object that the index knows in a segment that was read must be there.
fn check_agreement(index: &Index, segments: &[Found], tail: &Tail, proven: u64) -> Result<(), Trouble> {
    for segment in segments {
        let sound = |r: &&Located| r.header.sequence < proven || tail.contains_key(&r.header.sequence);
        let there: BTreeSet<u64> = segment.scanned.records.iter().filter(sound).map(|r| r.offset).collect();
        for object in index.objects_in(segment.number)? {
            if !there.contains(&object.at.offset) {
                return Err(Trouble::Index(format!("it knows {object}, which the log does not have")));
            }
        }
    }
    Ok(())
}

/// A start may have put a copy into the index that was in memory only, when the disk did not let it write the log's end
/// again: what lies elsewhere too, and not where the index says, counts there.
fn prefer_what_is_there(
    index: &Index,
    segments: &[Found],
    sizes: &BTreeMap<u64, u64>,
    newest: &BTreeSet<u64>,
    uses: &mut BTreeMap<u64, SegmentUse>,
) -> Result<(), Error> {
    let read: BTreeSet<u64> = segments.iter().map(|s| s.number).collect();
    let vanished = uses.keys().filter(|number| !sizes.contains_key(number));
    let never_begun = newest.difference(&read);
    for number in vanished.chain(never_begun).copied().collect::<Vec<_>>() {
        let known = index.objects_in(number)?;
        if known.is_empty() {
            continue;
        }
        let there: BTreeSet<Vec<u8>> = segments
            .iter()
            .flat_map(|s| changes(s.number, s.scanned.records.iter()))
            .filter_map(|change| if let Change::Stored(object) = change { Some(object.meta.key()) } else { None })
            .collect();
        for object in known.iter().filter(|object| there.contains(&object.meta.key())) {
            index.forget_object(object, uses)?;
        }
    }
    Ok(())
}

fn outgoing(record: &Located) -> Outgoing<'_> {
    Outgoing { kind: record.header.kind, flags: FIRST | LAST, meta: &record.meta, payload: &record.payload }
}

/// What records of a segment mean for the index, in order.
pub(super) fn changes<'a>(segment: u64, records: impl Iterator<Item = &'a Located>) -> Vec<Change> {
    let at = |r: &Located| At { segment, offset: r.offset, sequence: r.header.sequence };
    records.filter_map(|record| change(at(record), record)).collect()
}

pub(super) fn change(at: At, record: &Located) -> Option<Change> {
    let understood = match record.header.kind {
        OBJECT => serde_json::from_slice::<ObjectMeta>(&record.meta)
            .map(|meta| Some(Change::Stored(ObjectRef { meta, delivered: false, at }))),
        DELIVERED => serde_json::from_slice::<DeliveredMark>(&record.meta).map(|mark| Some(Change::Delivered(mark))),
        // Written by a later version.
        _ => Ok(None),
    };
    understood.unwrap_or_else(|error| {
        tracing::error!(%error, segment = at.segment, offset = at.offset, "a record's meta is not understood");
        None
    })
}
