//! The media log's end, where a process died: how much of it was durable, what more of it can be read, and what is to be
//! written instead.

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
    media_recovery::OBJECT,
    media_shared::read_object,
    object::{At, ObjectMeta, ObjectRef},
    recovery::{Found, Report, read_segments},
    scan::{Depth, read_header, read_record},
    segment::{Located, Purpose, SEGMENT_HEADER, file_name},
};

/// Records after the proven part, sound and with their payloads, by sequence.
pub(super) type Tail = BTreeMap<u64, (u64, Located)>;

/// The log's end as it was found.
pub(super) struct End {
    pub tail: Tail,
    /// What is to be written instead of it.
    pub records: Vec<Located>,
    /// Where segments end with something beyond that does not count; at the header, where nothing of one does.
    pub cuts: BTreeMap<u64, u64>,
    /// The first segment with something of these.
    pub since: u64,
}

/// How much of what segments hold counts.
pub(super) struct Bounds {
    /// Below this sequence everything had been durable.
    pub proven: u64,
    /// For each segment, from which sequence on newer ones have again what is in it: there it was an unfinished write, or the
    /// tail that is written again. From the first on where it never began.
    again: BTreeMap<u64, u64>,
}

impl Bounds {
    fn again(&self, segment: u64) -> u64 {
        self.again.get(&segment).copied().unwrap_or(u64::MAX)
    }

    /// Below this sequence what is in a segment had been durable, and counts.
    pub fn below(&self, segment: u64) -> u64 {
        self.proven.min(self.again(segment))
    }

    /// Whether a record counts, durable or not.
    pub fn counts(&self, segment: u64, record: &Located) -> bool {
        record.header.sequence < self.again(segment)
    }

    /// Up to where a segment's records count.
    pub fn end(&self, segment: &Found) -> u64 {
        kept_of(segment, self.again(segment.number))
    }

    fn is_unproven(&self, segment: u64, record: &Located) -> bool {
        record.header.sequence >= self.proven && self.counts(segment, record)
    }

    /// Whether a segment counts for nothing.
    pub fn never_began(&self, segment: u64) -> bool {
        self.again(segment) == 0
    }
}

/// Reads the end of a log.
pub(super) struct Reading<'a> {
    pub disk: &'a Arc<dyn Disk>,
    pub dir: &'a Path,
}

impl Reading<'_> {
    /// The last that had begun, which may be unfinished, as may the one before it when its successor was the answer to an
    /// error; and whatever came after them, which may be the tail written again by half.
    pub fn newest(&self, sizes: &BTreeMap<u64, u64>) -> Result<BTreeSet<u64>, Error> {
        let (mut newest, mut begun, mut durable) = (BTreeSet::new(), 0, 0);
        for &number in sizes.keys().rev() {
            newest.insert(number);
            let only = |n, _| (n == number).then_some(Depth::Headers);
            let (found, _) = read_segments(self.disk, self.dir, Purpose::Media, only)?;
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
    pub fn tail(
        &self,
        segments: &[Found],
        newest: &BTreeSet<u64>,
        bounds: &Bounds,
        report: &mut Report,
    ) -> Result<Tail, Error> {
        let mut tail = Tail::new();
        for segment in segments {
            let scanned = &segment.scanned;
            let records = &scanned.records;
            let kept = kept_of(segment, bounds.below(segment.number));
            let (inside, unfinished): (Vec<_>, Vec<_>) = scanned.damage.iter().cloned().partition(|d| d.from < kept);
            report.damage.extend(inside.into_iter().map(|d| (segment.number, d)));
            report.dropped_bytes += unfinished.iter().map(|d| d.to - d.from).sum::<u64>();
            if !newest.contains(&segment.number) {
                continue;
            }
            let path = self.dir.join(file_name(segment.number));
            let file = self.disk.open(&path).map_err(Error::io("open", &path))?;
            for record in records.iter().filter(|r| bounds.is_unproven(segment.number, r)) {
                match read_record(&*file, segment.number, record.offset).map_err(Error::io("read", &path))? {
                    Ok(record) => drop(tail.insert(record.header.sequence, (segment.number, record))),
                    Err(_) => report.dropped_bytes += record.header.record_len(),
                }
            }
        }
        Ok(tail)
    }

    /// How much of what these segments hold counts.
    pub fn bounds(
        &self,
        sizes: &BTreeMap<u64, u64>,
        segments: &[Found],
        newest: &BTreeSet<u64>,
    ) -> Result<Bounds, Error> {
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
        Ok(Bounds { proven, again })
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
    pub fn end(&self, tail: &Tail, mut chunks: Chunks) -> Result<Vec<Located>, Error> {
        let mut payloads: BTreeMap<Vec<u8>, Vec<Bytes>> = BTreeMap::new();
        chunks.retain(|object| {
            let read = read_object(self.disk, self.dir, object);
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
}

/// Chunks in the tail, each by its object's key and its number.
pub(super) fn going_on(tail: &Tail) -> BTreeSet<(Vec<u8>, u16)> {
    let objects = tail.values().map(|(_, record)| record).filter(|record| record.header.kind == OBJECT);
    let metas = objects.filter_map(|record| serde_json::from_slice::<ObjectMeta>(&record.meta).ok());
    metas.map(|meta| (meta.key(), meta.chunk)).collect()
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
pub(super) fn unfinished(segment: &Found, below: u64) -> Option<(u64, u64)> {
    let kept = kept_of(segment, below);
    let damaged = segment.scanned.damage.iter().any(|d| d.to > kept);
    let records = segment.scanned.records.last().is_some_and(|r| r.end() > kept);
    (damaged || records).then_some((segment.number, kept))
}

/// The first of the newest segments between which none is missing.
pub(super) fn unbroken(segments: &[Found]) -> u64 {
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
