//! The check of the media log: segment by segment, of which only what is wrong is kept until all is known.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{Context, SHA256};

use super::{
    Check, MediaPart,
    compare::{Expected, Fresh, compare},
    finding::{Finding, Kind, Severity},
    read::{Folder, REPLACE, Segment, Stretch},
    repair::Plan,
    words,
};
use crate::spool::{
    error::Error,
    media_recovery::{DELIVERED, LOST, OBJECT},
    object::{At, DeliveredMark, ObjectMeta, ObjectRef},
    scan::{Damage, Step},
    segment::{LAST, Located, Purpose, SEGMENT_HEADER},
};

const ASIDE: &str = "copy every record that is sound into a new segment, and keep this one beside it as *.damaged";
const NO_HASH: &str = "the content is not what the recorder made: its SHA-256 does not fit";

pub(super) fn check(check: &mut Check<'_>, folder: &Folder, plan: &mut Plan) -> Result<MediaPart, Error> {
    let mut part = MediaPart { segments: folder.segments.len(), bytes: folder.bytes(), ..MediaPart::default() };
    let mut expected = match Expected::new() {
        Ok(expected) => Some(expected),
        Err(e) => {
            let what = format!("the index was not held against the log: {e}");
            let means = "room is needed for a copy of it; TMPDIR says where copies go";
            check.found(Finding::new(Severity::Warning, Kind::IndexNotCompared, "media/index", what, means));
            None
        }
    };
    let mut fresh = Fresh { segments: folder.segments.keys().rev().take(2).copied().collect(), ..Fresh::default() };
    let (mut segments, mut begun) = (BTreeMap::new(), BTreeMap::new());
    for &number in folder.segments.keys() {
        let segment = examine(check, folder, number, &mut begun);
        part.records += segment.scanned.records.len() as u64;
        if fresh.segments.contains(&number) {
            let marks = segment.scanned.records.iter().filter(|r| r.header.kind == DELIVERED);
            fresh
                .marks
                .extend(marks.filter_map(|r| Some(serde_json::from_slice::<DeliveredMark>(&r.meta).ok()?.key())));
        }
        if let Some(expected) = &mut expected {
            expected.take(number, segment.scanned.records.iter())?;
        }
        segments.insert(number, Judged::of(check, segment));
    }
    let mut gone = BTreeMap::<u64, Vec<Gone>>::new();
    if let Some(expected) = expected {
        let compared = compare(check, &folder.dir, expected, &fresh, &mut part)?;
        plan.rebuild = compared.rebuild;
        plan.index = compared.copy;
        for object in compared.gone {
            let at = missing(&object, &segments);
            gone.entry(at.segment).or_default().push(Gone { offset: at.offset, object });
        }
    }
    // Below this everything had been durable when something was written.
    let proven = segments.values().map(|s| s.proven).max().unwrap_or(1);
    for (&number, segment) in &segments {
        let gone = gone.remove(&number).unwrap_or_default();
        let next = segments.get(&(number + 1)).and_then(|s| s.first);
        let around = Around { proven, next, newest: fresh.segments.contains(&number), compared: part.compared };
        segment.judge(check, gone, &around, plan);
    }
    for (number, objects) in gone {
        vanished(check, folder, number, objects.into_iter().map(|gone| gone.object).collect(), plan);
    }
    leftovers(check, folder);
    folder.judge_files(check);
    Ok(part)
}

/// An object that the index knows and the log does not have.
struct Gone {
    /// Where what is missing of it should be.
    offset: u64,
    object: ObjectRef,
}

/// Which part of an object is not there.
fn missing(object: &ObjectRef, segments: &BTreeMap<u64, Judged>) -> At {
    let is_lost = |at: &At| segments.get(&at.segment).is_none_or(|s| s.lacks(at.offset));
    object.places().find(is_lost).unwrap_or(object.at)
}

/// An object whose chunks are being read: the number of the last one, all bytes so far, and their hash.
type Begun = BTreeMap<Vec<u8>, (u16, u64, Context)>;

/// Reads a segment; what is not the content that its meta speaks of is no sound record.
fn examine(check: &mut Check<'_>, folder: &Folder, number: u64, begun: &mut Begun) -> Segment {
    let mut payload = Vec::new();
    let mut odd = BTreeSet::new();
    let quick = check.quick;
    let mut look = |step: Step<'_>| match step {
        Step::At(_) => payload.clear(),
        Step::Piece(bytes) => payload.extend_from_slice(bytes),
        Step::Sound(record) => {
            let meta = (record.header.kind == OBJECT).then(|| serde_json::from_slice::<ObjectMeta>(&record.meta));
            if let Some(Ok(meta)) = meta
                && !fits(record, &meta, (!quick).then_some(&payload), begun)
            {
                odd.insert(record.offset);
            }
        }
    };
    let mut segment = Segment::read(check, folder, number, Purpose::Media, &mut look);
    let scanned = &mut segment.scanned;
    let broken: Vec<Located> = scanned.records.extract_if(.., |r| odd.contains(&r.offset)).collect();
    scanned.damage.extend(broken.iter().map(|r| Damage { from: r.offset, to: r.end(), why: NO_HASH }));
    scanned.damage.sort_by_key(|d| d.from);
    scanned.broken.extend(broken);
    segment
}

/// Whether a record is what its meta says, as far as can be told: of a chunk whose object has lost its beginning, nothing.
fn fits(record: &Located, meta: &ObjectMeta, payload: Option<&Vec<u8>>, begun: &mut Begun) -> bool {
    let (key, len) = (meta.key(), u64::from(record.header.payload_len));
    let (size, mut hash) = match begun.remove(&key) {
        _ if meta.chunk == 0 => (0, Context::new(&SHA256)),
        Some((chunk, size, hash)) if chunk.checked_add(1) == Some(meta.chunk) => (size, hash),
        _ => return true,
    };
    if let Some(payload) = payload {
        hash.update(payload);
    }
    if record.header.flags & LAST == 0 {
        begun.insert(key, (meta.chunk, size + len, hash.clone()));
    }
    // The word about a gap has no bytes.
    let is_hash = payload.is_none() || meta.gap.is_some() || hash.finish().as_ref() == meta.sha256;
    is_hash && meta.size == size + len
}

/// What is left to be said of a segment.
struct Judged {
    number: u64,
    file: String,
    bytes: u64,
    fault: Option<&'static str>,
    refused: bool,
    /// It had begun, whatever its header says.
    begun: bool,
    records: usize,
    stretches: Vec<Stretch>,
    /// Its first sequence.
    first: Option<u64>,
    proven: u64,
}

/// What stands around a segment.
struct Around {
    proven: u64,
    /// The first sequence of the segment with the next number.
    next: Option<u64>,
    newest: bool,
    /// The index has been asked what was here.
    compared: bool,
}

impl Judged {
    fn of(check: &mut Check<'_>, segment: Segment) -> Self {
        segment.judge_reading(check);
        follow(check, &segment);
        understood(check, &segment);
        let records = &segment.scanned.records;
        let first = segment.header.as_ref().ok().map(|h| h.first_sequence);
        let synced = records.iter().map(|r| r.header.synced_below).max();
        Self {
            number: segment.number,
            bytes: segment.scanned.bytes,
            fault: segment.header.err(),
            refused: segment.refused.is_some(),
            begun: segment.header.is_ok() || segment.had_begun(),
            records: records.len(),
            stretches: segment.stretches(),
            first: first.or(records.first().map(|r| r.header.sequence)),
            proven: synced.max(first).unwrap_or(1),
            file: segment.file,
        }
    }

    /// Whether nothing sound is there.
    fn lacks(&self, offset: u64) -> bool {
        self.refused || offset >= self.bytes || self.stretches.iter().any(|s| s.bytes().contains(&offset))
    }

    fn judge(&self, check: &mut Check<'_>, mut gone: Vec<Gone>, around: &Around, plan: &mut Plan) {
        self.judge_header(check, gone.is_empty(), plan);
        for stretch in &self.stretches {
            let inside: Vec<Gone> = gone.extract_if(.., |gone| stretch.bytes().contains(&gone.offset)).collect();
            if inside.is_empty() {
                self.judge_stretch(check, stretch, around, plan);
            }
            for gone in inside {
                check.found(self.of_object(stretch, &gone));
                self.set_aside(gone.object, plan);
            }
        }
        for Gone { offset: at, object } in gone {
            let what = match at {
                _ if self.refused => "the file cannot be read",
                at if at >= self.bytes => "the file ends before it",
                _ => "the index knows it here, and here is no such record",
            };
            let means =
                format!("{}: it is not there any more; {}", words::title(&object.meta), words::held_elsewhere(&object));
            check.found(
                Finding::new(Severity::Damage, Kind::ObjectGone, &self.file, what, means)
                    .at(at..at)
                    .of(words::named(&object.meta, Some(object.delivered)))
                    .repaired_by("have the gateway write it down as a gap at its next start"),
            );
            self.set_aside(object, plan);
        }
    }

    fn set_aside(&self, object: ObjectRef, plan: &mut Plan) {
        if !self.refused {
            plan.aside.insert(self.number);
        }
        plan.gone.push(object);
    }

    fn judge_header(&self, check: &mut Check<'_>, empty: bool, plan: &mut Plan) {
        let Some(fault) = self.fault.filter(|_| !self.refused) else { return };
        if !self.begun && empty {
            let means = "normal after a crash: an unfinished write, never acknowledged";
            let finding =
                Finding::new(Severity::Note, Kind::NeverBegun, &self.file, "a segment that never began", means);
            check.found(finding.at(0..self.bytes).repaired_by("remove it"));
            plan.never_begun.push(self.number);
            return;
        }
        let means =
            format!("its {} records can still be read, but an index that is built anew would miss them", self.records);
        let finding = Finding::new(Severity::Warning, Kind::SegmentHeader, &self.file, fault, means);
        check.found(finding.at(0..SEGMENT_HEADER.min(self.bytes)).repaired_by(ASIDE));
        plan.aside.insert(self.number);
    }

    /// A stretch in which the index knows of nothing, or of nothing that is not elsewhere too.
    fn judge_stretch(&self, check: &mut Check<'_>, stretch: &Stretch, around: &Around, plan: &mut Plan) {
        if self.fault.is_some() && !self.begun {
            return;
        }
        // Behind it stands what was written when it was durable.
        let followed = stretch.after.is_some_and(|after| after < around.proven);
        let last = stretch.before.map_or(self.first.unwrap_or(0), |before| before + 1);
        let skipped = around.next.is_some_and(|next| next > last);
        let promised = followed || skipped;
        if !promised && stretch.error.is_none() {
            let means = "normal after a crash: an unfinished write, never acknowledged";
            let mut finding =
                Finding::new(Severity::Note, Kind::UnfinishedWrite, &self.file, stretch.damage.why, means)
                    .at(stretch.bytes());
            if stretch.after.is_none() && around.newest {
                plan.cut.push((self.number, stretch.damage.from, self.bytes));
                finding = finding.repaired_by("cut it off");
            }
            finding.object = object_of(stretch).map(|meta| words::named(&meta, None));
            check.found(finding);
            return;
        }
        plan.aside.insert(self.number);
        let finding = match object_of(stretch) {
            Some(meta) => {
                let means = format!("{}: {}", words::title(&meta), changed(stretch));
                self.finding(stretch, Severity::Damage, means).of(words::named(&meta, None))
            }
            None => {
                let (severity, means) = if around.compared && stretch.error.is_none() {
                    let means = "a mark that headquarters has something, or an older copy of an object, is gone";
                    (Severity::Warning, means)
                } else {
                    (Severity::Damage, "objects of evidence or marks of delivery were here, and had been synced")
                };
                self.finding(stretch, severity, means.into())
            }
        };
        check.found(finding);
    }

    fn of_object(&self, stretch: &Stretch, Gone { offset, object }: &Gone) -> Finding {
        let means = format!("{}: {}; {}", words::title(&object.meta), changed(stretch), words::held_elsewhere(object));
        let mut finding = self.finding(stretch, Severity::Damage, means);
        finding.bytes = Some(*offset..stretch.damage.to);
        finding.of(words::named(&object.meta, Some(object.delivered)))
    }

    fn finding(&self, stretch: &Stretch, severity: Severity, means: String) -> Finding {
        let kind = match &stretch.record {
            _ if stretch.error.is_some() => Kind::DiskError,
            Some(_) => Kind::PayloadDamaged,
            None => Kind::RecordDamaged,
        };
        let what = match &stretch.error {
            Some(error) => format!("{}: {error}", stretch.damage.why),
            None => stretch.damage.why.to_owned(),
        };
        Finding::new(severity, kind, &self.file, what, means).at(stretch.bytes()).repaired_by(ASIDE)
    }
}

fn changed(stretch: &Stretch) -> &'static str {
    if stretch.error.is_some() { REPLACE } else { "its bytes changed on the disk" }
}

/// The object whose payload alone is no good.
fn object_of(stretch: &Stretch) -> Option<ObjectMeta> {
    let record = stretch.record.as_ref().filter(|r| r.header.kind == OBJECT)?;
    serde_json::from_slice(&record.meta).ok()
}

/// Whether sequences follow one another where nothing is damaged.
fn follow(check: &mut Check<'_>, segment: &Segment) {
    for pair in segment.scanned.records.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        let missing = a.header.sequence + 1..b.header.sequence;
        if a.end() == b.offset && !missing.is_empty() {
            let what = format!("records {} to {} are missing", missing.start, missing.end - 1);
            let means = "nothing is damaged here: they were never written, which is a defect of the gateway";
            check.found(
                Finding::new(Severity::Warning, Kind::EntriesLost, &segment.file, what, means).at(b.offset..b.offset),
            );
        }
    }
}

fn understood(check: &mut Check<'_>, segment: &Segment) {
    let is_known = |r: &&Located| match r.header.kind {
        OBJECT => serde_json::from_slice::<ObjectMeta>(&r.meta).is_ok(),
        DELIVERED => serde_json::from_slice::<DeliveredMark>(&r.meta).is_ok(),
        _ => false,
    };
    let odd: Vec<&Located> = segment.scanned.records.iter().filter(|r| !is_known(r)).collect();
    if let Some(first) = odd.first() {
        let what = format!("{} records are sound but not understood by this version", odd.len());
        let means = "a later version wrote them; they are left as they are";
        check.found(
            Finding::new(Severity::Note, Kind::NotUnderstood, &segment.file, what, means).at(first.offset..first.end()),
        );
    }
}

/// Objects that the index knows in a segment that is not there.
fn vanished(check: &mut Check<'_>, folder: &Folder, number: u64, objects: Vec<ObjectRef>, plan: &mut Plan) {
    let Some(first) = objects.first() else { return };
    let names = match objects.len() {
        1 => words::title(&first.meta),
        n => format!("{n} objects, the first {}", words::title(&first.meta)),
    };
    if number == LOST {
        let means = format!("the gateway writes them down as gaps at its next start: {names}");
        let what = "objects that an earlier repair found lost";
        check.found(Finding::new(Severity::Note, Kind::KnownLost, "media/index", what, means));
        plan.gone.extend(objects);
        return;
    }
    let file = folder.path_of(&crate::spool::segment::file_name(number));
    let undelivered = objects.iter().filter(|o| !o.delivered).count();
    let finding = if undelivered == 0 {
        let means = format!("normal after a crash while room was made: headquarters has all of it: {names}");
        Finding::new(Severity::Note, Kind::SegmentGone, file, "a segment that the index knows was removed", means)
    } else {
        let means =
            format!("{undelivered} of its objects had not been confirmed by headquarters and are lost: {names}");
        Finding::new(Severity::Damage, Kind::SegmentGone, file, "a segment is gone", means)
    };
    if undelivered > 0 {
        check.found(finding.repaired_by("have the gateway write it down as a gap at its next start"));
        plan.gone.extend(objects);
    } else {
        check.found(finding);
    }
}

/// Spares that the media log does not use, and indexes that were set aside.
fn leftovers(check: &mut Check<'_>, folder: &Folder) {
    for (name, _) in &folder.spares {
        let what = "a spare, which the media log has none of";
        check.found(Finding::new(Severity::Note, Kind::Stray, folder.path_of(name), what, "it is left as it is"));
    }
    let Ok(entries) = std::fs::read_dir(&folder.dir) else { return };
    for entry in entries.filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (kind, what, means) = match name.as_str() {
            "index" => continue,
            name if name.starts_with("index.broken-") => {
                (Kind::SetAside, "an index that was set aside earlier", "kept for whoever looks into it")
            }
            _ => (Kind::Stray, "this directory does not belong here", "it is left as it is"),
        };
        check.found(Finding::new(Severity::Note, kind, folder.path_of(&name), what, means));
    }
}
