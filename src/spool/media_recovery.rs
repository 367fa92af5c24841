//! Opening the media log: the procedure is in [`super::recovery`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    chunks::Chunks,
    disk::Disk,
    error::Error,
    index::{Change, Index, Sealed},
    index_files,
    log::{Log, LogSettings, Outgoing},
    media_shared::read_object,
    object::{At, DeliveredMark, ObjectMeta, ObjectRef},
    recovery::{Found, Report, read_segments},
    retention::SegmentUse,
    scan::{Depth, read_header, read_record},
    segment::{Located, Purpose, SEGMENT_HEADER, file_name, number_of},
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
    let (segments, _) = read_segments(disk, dir, Purpose::Media, |_, _| Some(Depth::Headers))?;
    let (mut uses, mut chunks) = (BTreeMap::new(), Chunks::default());
    for segment in &segments {
        index.apply(&changes(segment.number, segment.scanned.records.iter(), &mut chunks), &mut uses)?;
        uses.entry(segment.number).or_insert(SegmentUse { number: segment.number, ..SegmentUse::default() }).bytes =
            segment.scanned.bytes;
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

/// The log's end as it was found.
struct End {
    tail: Tail,
    /// What is to be written instead of it.
    records: Vec<Located>,
    /// How much counts of segments with something unfinished.
    kept: BTreeMap<u64, u64>,
    /// The first segment with something of these.
    since: u64,
    /// Segments that count for nothing.
    never_begun: BTreeSet<u64>,
}

/// All of an object in one record.
fn in_one(object: &ObjectRef, payloads: Vec<Bytes>) -> Result<Located, Error> {
    let meta = ObjectMeta { chunk: 0, ..object.meta.clone() };
    let payload = match payloads.as_slice() {
        [whole] => whole.clone(),
        chunks => chunks.concat().into(),
    };
    Ok(Located { payload, ..Located::made(OBJECT, meta.encode()?.into()) })
}

/// Up to where a segment's records are below a sequence.
fn kept_of(segment: &Found, below: u64) -> u64 {
    let records = segment.scanned.records.iter();
    records.rev().find(|r| r.header.sequence < below).map_or(SEGMENT_HEADER, Located::end)
}

/// Where the unfinished part of a segment begins, if it has one.
fn unfinished(segment: &Found, below: u64) -> Option<(u64, u64)> {
    let kept = kept_of(segment, below);
    let damaged = segment.scanned.damage.iter().any(|d| d.to > kept);
    let records = segment.scanned.records.last().is_some_and(|r| r.end() > kept);
    (damaged || records).then_some((segment.number, kept))
}

/// The first of the newest segments between which none is missing.
fn unbroken(segments: &[Found]) -> u64 {
    let mut since = u64::MAX;
    let mut next = u64::MAX;
    for segment in segments.iter().rev() {
        let first = segment.header.first_sequence;
        let end = segment.scanned.records.last().map_or(first, |r| r.header.sequence + 1);
        if since != u64::MAX && end < next {
            break;
        }
        (since, next) = (segment.number, segment.header.unused().start);
    }
    since
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
        prefer_what_is_there(index, &segments, &sizes, (&newest, &again), &mut uses)?;
        check_agreement(index, &segments, &tail, proven)?;
        let mut chunks = Chunks::default();
        for segment in &segments {
            report.records += segment.scanned.records.len() as u64;
            let below = proven.min(again_in(&again, segment.number));
            let before = segment.scanned.records.iter().filter(|r| r.header.sequence < below);
            index.apply(&changes(segment.number, before, &mut chunks), &mut uses)?;
        }
        // Of what began before a segment that has gone, the end may have gone too.
        let unbroken = unbroken(&segments);
        chunks.retain(|object| object.at.segment >= unbroken);
        let since = chunks.first_segment().min(newest.first().copied().unwrap_or(u64::MAX));
        let records = self.end(&tail, chunks)?;
        let never_begun: BTreeSet<u64> =
            segments.iter().map(|s| s.number).filter(|n| again_in(&again, *n) == 0).collect();
        let begun = segments.iter().filter(|s| newest.contains(&s.number) && !never_begun.contains(&s.number));
        let kept = begun.filter_map(|s| unfinished(s, proven.min(again_in(&again, s.number)))).collect();
        let end = End { tail, records, kept, since, never_begun };
        let (log, unwritten) = self.finish(index, end, proven, &mut uses, &mut report)?;
        let gone = self.reconcile(index, &mut uses, &log, &unwritten)?;
        index.flush()?;
        Ok(Loaded { log, uses, unwritten, gone, report })
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
            let kept = kept_of(segment, proven.min(again));
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
                // Until its opening is whole, a tail that is written again in it counts where it was; and nobody was told
                // of anything else in it.
                Some(segment) => {
                    proven = proven.max(segment.header.unused().start);
                    again.insert(number, 0);
                }
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

    /// The tail as it is to be written again. What was being written when the process died ends where it is: all that there
    /// is of it goes into one record.
    fn end(&self, tail: &Tail, mut chunks: Chunks) -> Result<Vec<Located>, Error> {
        let mut payloads: BTreeMap<Vec<u8>, Vec<Bytes>> = BTreeMap::new();
        chunks.retain(|object| {
            let read = read_object(&self.disk, self.dir, object);
            let read = read.inspect_err(|error| tracing::error!(%error, %object, "what was being recorded is damaged"));
            read.is_ok_and(|bytes| payloads.insert(object.meta.key(), vec![bytes]).is_none())
        });
        let mut records = Vec::new();
        for (number, record) in tail.values() {
            let at = At { segment: *number, offset: record.offset, sequence: record.header.sequence };
            let flags = record.header.flags;
            let meta = (record.header.kind == OBJECT).then(|| serde_json::from_slice::<ObjectMeta>(&record.meta));
            let Some(Ok(meta)) = meta else {
                records.push(record.clone());
                continue;
            };
            if !chunks.is_next(&meta, flags) {
                continue;
            }
            let payload = payloads.entry(meta.key()).or_default();
            if meta.chunk == 0 {
                payload.clear();
            }
            payload.push(record.payload.clone());
            if let Some(object) = chunks.take(meta, flags, at) {
                records.push(in_one(&object, payloads.remove(&object.meta.key()).unwrap_or_default())?);
            }
        }
        for object in chunks.all() {
            records.push(in_one(object, payloads.remove(&object.meta.key()).unwrap_or_default())?);
        }
        Ok(records)
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
        let End { tail, records, kept, since, never_begun } = end;
        let next_sequence = tail.keys().next_back().map_or(proven, |last| last + 1);
        // The next segment says of the tail's sequences that they do not count any more.
        let skipped = u32::try_from(next_sequence - proven).unwrap_or(u32::MAX);
        let numbers = (next_sequence, skipped);
        let mut log = Log::new(self.disk.clone(), self.dir, self.settings, numbers, self.aside.clone())?;
        // The last of them may be gone while the index still knows what was in it.
        log.number_above(uses.keys().next_back().copied().unwrap_or(0));
        if records.is_empty() {
            self.cut(&mut log, kept, &never_begun);
            return Ok((log, Unwritten::nothing()));
        }
        let batch: Vec<Outgoing<'_>> = records.iter().map(outgoing).collect();
        let placed = match log.commit(&batch) {
            Ok(placed) => placed,
            Err(error) => {
                tracing::error!(%error, "the end of the media log cannot be written again yet");
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
        self.cut(&mut log, kept, &never_begun);
        Ok((log, Unwritten::nothing()))
    }

    /// Cuts off what does not count. Best effort: the next start finds it again.
    fn cut(&self, log: &mut Log, kept: BTreeMap<u64, u64>, never_begun: &BTreeSet<u64>) {
        let none = never_begun.iter().map(|number| (*number, SEGMENT_HEADER));
        for (number, len) in kept.into_iter().chain(none).filter(|(number, _)| !self.aside.contains(number)) {
            match len {
                SEGMENT_HEADER => drop(log.remove(number)),
                len => log.cut(number, len),
            }
        }
    }

    /// Steps 3 and 4: sizes, seals, and segments that are gone.
    fn reconcile(
        &self,
        index: &Index,
        uses: &mut BTreeMap<u64, SegmentUse>,
        log: &Log,
        unwritten: &Unwritten,
    ) -> Result<Vec<Vec<ObjectRef>>, Error> {
        let listed = self.disk.list(self.dir).map_err(Error::io("list", self.dir))?;
        let sizes: BTreeMap<u64, u64> =
            listed.iter().filter_map(|l| number_of(&l.name).map(|n| (n, l.bytes))).collect();
        for (&number, &bytes) in &sizes {
            let held = uses.entry(number).or_insert(SegmentUse { number, ..SegmentUse::default() });
            held.bytes = bytes;
            if Some(number) != log.current_segment() && number < unwritten.since {
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
    (newest, again): (&BTreeSet<u64>, &BTreeMap<u64, u64>),
    uses: &mut BTreeMap<u64, SegmentUse>,
) -> Result<(), Error> {
    let begun: BTreeSet<u64> = segments.iter().map(|s| s.number).filter(|n| again_in(again, *n) > 0).collect();
    let vanished = uses.keys().filter(|number| !sizes.contains_key(number));
    let never_begun = newest.difference(&begun);
    for number in vanished.chain(never_begun).copied().collect::<Vec<_>>() {
        let known = index.objects_in(number)?;
        if known.is_empty() {
            continue;
        }
        let (mut chunks, mut there) = (Chunks::default(), BTreeSet::new());
        let counts = |s: &Found, r: &&Located| r.header.sequence < again_in(again, s.number);
        for change in segments.iter().flat_map(|s| {
            let records = s.scanned.records.iter().filter(|r| counts(s, r));
            changes(s.number, records, &mut chunks)
        }) {
            if let Change::Stored(object) = change {
                there.insert(object.meta.key());
            }
        }
        let unbroken = unbroken(segments);
        let begun = chunks.all().filter(|object| object.at.segment >= unbroken);
        there.extend(begun.map(|object| object.meta.key()));
        for object in known.iter().filter(|object| there.contains(&object.meta.key())) {
            index.forget_object(object, uses)?;
        }
    }
    Ok(())
}

pub(super) fn outgoing(record: &Located) -> Outgoing<'_> {
    Outgoing { kind: record.header.kind, flags: record.header.flags, meta: &record.meta, payload: &record.payload }
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
