//! Opening the media log: the procedure is in [`super::recovery`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{
    batch::Outgoing,
    chunks::Chunks,
    disk::Disk,
    error::Error,
    index::{Change, Index, Sealed},
    index_files,
    log::{Log, LogSettings},
    media_end::{Bounds, End, Reading, Tail, going_on, unbroken, unfinished},
    object::{At, DeliveredMark, ObjectMeta, ObjectRef},
    recovery::{Found, Report, read_segments},
    retention::SegmentUse,
    scan::Depth,
    segment::{Located, Purpose, SEGMENT_HEADER, number_of},
};

/// Record kind: a media object; meta says what, payload is its bytes.
pub(super) const OBJECT: u8 = 1;
/// Record kind: an object is at headquarters; no payload.
pub(super) const DELIVERED: u8 = 2;
/// The segment, which there is none of, of objects that are known to be lost: the next start hears of them as gone.
pub(super) const LOST: u64 = 0;

/// A media log that is ready.
pub(super) struct Opened {
    pub log: Log,
    pub index: Index,
    /// What each segment holds.
    pub uses: BTreeMap<u64, SegmentUse>,
    /// What the disk refused to write again.
    pub unwritten: Unwritten,
    /// Objects whose segment is no longer there.
    pub gone: Vec<Vec<ObjectRef>>,
    pub report: Report,
}

/// The log's unproven end, which is to be written before anything else is.
pub(super) struct Unwritten {
    /// In order.
    pub records: Vec<Located>,
    /// The first segment that the next start must read again for that, if it comes before.
    since: u64,
}

impl Unwritten {
    fn nothing() -> Self {
        Self { records: Vec::new(), since: u64::MAX }
    }
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
    let index = rebuild.map_or_else(|| index_files::open(dir), |why| Err(why.to_owned()));
    let (index, mut rebuilt) = match index {
        Ok(index) => (index, None),
        Err(why) => (index_files::fresh(dir, &why)?, Some(why)),
    };
    let mut opening = Opening { disk, dir, settings, aside };
    let result = match opening.load(&index) {
        Err(Trouble::Index(why)) => {
            drop(index);
            let index = index_files::fresh(dir, &why)?;
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
    let Loaded { log, uses, unwritten, gone, mut report } = loaded;
    report.rebuilt = rebuilt;
    Ok(Opened { log, index, uses, unwritten, gone, report })
}

/// Sets the index aside and builds it anew from a log that is being written. What is not synced yet is not in it.
pub(super) fn rebuild(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    why: &str,
) -> Result<(Index, BTreeMap<u64, SegmentUse>), Error> {
    let index = index_files::fresh(dir, why)?;
    let sizes = sizes(disk, dir)?;
    let (segments, _) = read_segments(disk, dir, Purpose::Media, |_, _| Some(Depth::Headers))?;
    let reading = Reading { disk, dir };
    let bounds = reading.bounds(&sizes, &segments, &reading.newest(&sizes)?)?;
    let (mut uses, mut chunks) = (BTreeMap::new(), Chunks::default());
    for segment in &segments {
        let number = segment.number;
        // What a failed write left, and newer segments have again, does not count.
        let counts = |record: &&Located| bounds.counts(number, record);
        let (all, counted) = (&segment.scanned.records, segment.scanned.records.iter().filter(counts).count());
        index.apply(&changes(number, all.iter().filter(counts), &mut chunks), &mut uses)?;
        let end = if counted < all.len() { bounds.end(segment) } else { segment.scanned.bytes };
        uses.entry(number).or_insert(SegmentUse { number, ..SegmentUse::default() }).bytes = end;
    }
    index.flush()?;
    Ok((index, uses))
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
    unwritten: Unwritten,
    gone: Vec<Vec<ObjectRef>>,
    report: Report,
}

impl Opening<'_> {
    fn load(&mut self, index: &Index) -> Result<Loaded, Trouble> {
        let mut uses = index.uses()?;
        let sizes = sizes(&self.disk, self.dir)?;
        let reading = Reading { disk: &self.disk, dir: self.dir };
        let newest = reading.newest(&sizes)?;
        let complete = index.complete(&sizes, &uses)?;
        let trusted = |number| complete.contains(&number) && !newest.contains(&number);
        let depth = |number, _| (!trusted(number)).then_some(Depth::Headers);
        let (segments, _) = read_segments(&self.disk, self.dir, Purpose::Media, depth)?;
        let bounds = reading.bounds(&sizes, &segments, &newest)?;

        let mut report = Report { segments: segments.len(), ..Report::default() };
        let tail = reading.tail(&segments, &newest, &bounds, &mut report)?;
        prefer_what_is_there(index, &segments, &sizes, (&newest, &bounds), &mut uses)?;
        check_agreement(index, &segments, &tail, bounds.proven)?;
        let mut chunks = Chunks::default();
        for segment in &segments {
            report.records += segment.scanned.records.len() as u64;
            let below = bounds.below(segment.number);
            let before = segment.scanned.records.iter().filter(|r| r.header.sequence < below);
            index.apply(&changes(segment.number, before, &mut chunks), &mut uses)?;
        }
        // Of what began before a segment that has gone, the end may have gone too, where it is not in the tail.
        let (unbroken, going_on) = (unbroken(&segments), going_on(&tail));
        chunks.retain(|object| {
            let next = (object.meta.key(), object.meta.chunk.saturating_add(1));
            object.at.segment >= unbroken || going_on.contains(&next)
        });
        let since = chunks.first_segment().min(newest.first().copied().unwrap_or(u64::MAX));
        let (never_begun, begun): (Vec<_>, Vec<_>) = segments.iter().partition(|s| bounds.never_began(s.number));
        // Elsewhere damage is damage, and sound records that newer segments have again were not cut off in their time.
        let begun = begun.into_iter().filter(|s| newest.contains(&s.number) || s.scanned.damage.is_empty());
        let kept = begun.filter_map(|s| unfinished(s, bounds.below(s.number)));
        let cuts = kept.chain(never_begun.into_iter().map(|s| (s.number, SEGMENT_HEADER)));
        let cuts = cuts.filter(|(number, _)| !self.aside.contains(number)).collect();
        let end = End { records: reading.end(&tail, chunks)?, cuts, since, tail };
        let (log, unwritten) = self.finish(index, end, bounds.proven, &mut uses, &mut report)?;
        let gone = self.reconcile(index, &mut uses, &log, &unwritten)?;
        index.flush()?;
        Ok(Loaded { log, uses, unwritten, gone, report })
    }

    /// Writes the tail again and cuts it off where it was. Where the disk refuses, it is given back, to be written before
    /// all else.
    fn finish(
        &self,
        index: &Index,
        end: End,
        proven: u64,
        uses: &mut BTreeMap<u64, SegmentUse>,
        report: &mut Report,
    ) -> Result<(Log, Unwritten), Error> {
        let End { tail, records, cuts, since } = end;
        let next_sequence = tail.keys().next_back().map_or(proven, |last| last + 1);
        // The next segment says of the tail's sequences that they do not count any more.
        let skipped = u32::try_from(next_sequence - proven).unwrap_or(u32::MAX);
        let numbers = (next_sequence, skipped);
        let mut log = Log::new(self.disk.clone(), self.dir, self.settings, numbers, self.aside.clone())?;
        // The last of them may be gone while the index still knows what was in it.
        log.number_above(uses.keys().next_back().copied().unwrap_or(0));
        if records.is_empty() {
            cut(&mut log, &cuts);
            return Ok((log, Unwritten::nothing()));
        }
        let batch: Vec<Outgoing<'_>> = records.iter().map(outgoing).collect();
        let placed = match log.commit(&batch) {
            Ok(placed) => placed,
            Err(error) => {
                tracing::error!(%error, "the end of the media log cannot be written again yet");
                // Where it was, it counts until it is.
                cuts.iter().for_each(|(number, end)| log.cut_later(*number, *end));
                return Ok((log, Unwritten { since, records }));
            }
        };
        report.rewritten = records.len() as u64;
        let mut chunks = Chunks::default();
        for (i, record) in records.iter().enumerate() {
            let at =
                At { segment: placed.segment, offset: placed.offsets[i], sequence: placed.first_sequence + i as u64 };
            index.apply(&change(at, record, &mut chunks).into_iter().collect::<Vec<_>>(), uses)?;
        }
        index.flush()?;
        cut(&mut log, &cuts);
        Ok((log, Unwritten::nothing()))
    }

    /// Steps 3 and 4: sizes, seals, and segments that are gone.
    fn reconcile(
        &self,
        index: &Index,
        uses: &mut BTreeMap<u64, SegmentUse>,
        log: &Log,
        unwritten: &Unwritten,
    ) -> Result<Vec<Vec<ObjectRef>>, Error> {
        let sizes = sizes(&self.disk, self.dir)?;
        for (&number, &bytes) in &sizes {
            let held = uses.entry(number).or_insert(SegmentUse { number, ..SegmentUse::default() });
            held.bytes = bytes;
            if Some(number) != log.current_segment() && number < unwritten.since && !log.is_uncut(number) {
                index.seal(number, Sealed { bytes, objects: held.objects })?;
            }
        }
        let missing: Vec<u64> = uses.keys().filter(|n| !sizes.contains_key(n)).copied().collect();
        let mut gone = Vec::new();
        for number in missing {
            gone.push(index.objects_in(number)?);
            index.forget(number, uses)?;
        }
        gone.retain(|objects| !objects.is_empty());
        Ok(gone)
    }
}

/// Cuts off what does not count, and removes a segment of which nothing does: now, or before anything newer goes.
fn cut(log: &mut Log, cuts: &BTreeMap<u64, u64>) {
    for (&number, &end) in cuts {
        if end != SEGMENT_HEADER {
            log.cut(number, end);
        } else if let Err(error) = log.remove(number) {
            tracing::warn!(%error, "a segment of which nothing counts stays for now");
            log.cut_later(number, end);
        }
    }
}

/// The sizes of all segment files, by number.
fn sizes(disk: &Arc<dyn Disk>, dir: &Path) -> Result<BTreeMap<u64, u64>, Error> {
    let listed = disk.list(dir).map_err(Error::io("list", dir))?;
    Ok(listed.iter().filter_map(|l| number_of(&l.name).map(|n| (n, l.bytes))).collect())
}

/// Every object that the index knows in a segment that was read must be there.
fn check_agreement(index: &Index, segments: &[Found], tail: &Tail, proven: u64) -> Result<(), Trouble> {
    for segment in segments {
        let sound = |r: &&Located| r.header.sequence < proven || tail.contains_key(&r.header.sequence);
        let there: BTreeSet<u64> = segment.scanned.records.iter().filter(sound).map(|r| r.offset).collect();
        for object in index.objects_in(segment.number)? {
            if object.places().any(|at| at.segment == segment.number && !there.contains(&at.offset)) {
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
    (newest, bounds): (&BTreeSet<u64>, &Bounds),
    uses: &mut BTreeMap<u64, SegmentUse>,
) -> Result<(), Error> {
    let begun: BTreeSet<u64> = segments.iter().map(|s| s.number).filter(|n| !bounds.never_began(*n)).collect();
    let vanished = uses.keys().filter(|number| !sizes.contains_key(number));
    let mut known = Vec::new();
    for &number in vanished.chain(newest.difference(&begun)) {
        known.extend(index.objects_in(number)?);
    }
    if known.is_empty() {
        return Ok(());
    }
    let (mut chunks, mut there) = (Chunks::default(), BTreeSet::new());
    for segment in segments {
        let records = segment.scanned.records.iter().filter(|r| bounds.counts(segment.number, r));
        for change in changes(segment.number, records, &mut chunks) {
            if let Change::Stored(object) = change {
                there.insert(object.meta.key());
            }
        }
    }
    let unbroken = unbroken(segments);
    let begun = chunks.all().filter(|object| object.at.segment >= unbroken);
    there.extend(begun.map(|object| object.meta.key()));
    for object in known.iter().filter(|object| there.contains(&object.meta.key())) {
        index.forget_object(object, uses)?;
    }
    Ok(())
}

pub(super) fn outgoing(record: &Located) -> Outgoing<'_> {
    Outgoing::new(record.header.kind, record.header.flags, &record.meta, &record.payload)
}

/// What records of a segment mean for the index, in order.
pub(super) fn changes<'a>(
    segment: u64,
    records: impl Iterator<Item = &'a Located>,
    chunks: &mut Chunks,
) -> Vec<Change> {
    let at = |r: &Located| At { segment, offset: r.offset, sequence: r.header.sequence };
    records.filter_map(|record| change(at(record), record, chunks)).collect()
}

pub(super) fn change(at: At, record: &Located, chunks: &mut Chunks) -> Option<Change> {
    let understood = match record.header.kind {
        OBJECT => serde_json::from_slice::<ObjectMeta>(&record.meta)
            .map(|meta| chunks.take(meta, record.header.flags, at).map(Change::Stored)),
        DELIVERED => serde_json::from_slice::<DeliveredMark>(&record.meta).map(|mark| Some(Change::Delivered(mark))),
        // Written by a later version.
        _ => Ok(None),
    };
    understood.unwrap_or_else(|error| {
        tracing::error!(%error, segment = at.segment, offset = at.offset, "a record's meta is not understood");
        None
    })
}
