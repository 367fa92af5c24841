//! What opening does after a crash, as a procedure.
//!
//! **Known of a crash.** Whatever was synced is there. Of what was written after that, any part may be there, in any
//! order, torn anywhere; and a process that was merely killed leaves writes that can be read but are in memory only.
//!
//! **The journal**
//! 1. Every segment is read whole. Left out are those that have not begun (no sound header, or not all of their opening,
//!    and nothing goes on after it), and those that a newer segment supersedes: one that goes on from the same
//!    sequence or an earlier one. So what the disk had refused, and was tried again elsewhere or given up, cannot come
//!    back, even when it can be read.
//! 2. Replay begins at the newest segment whose opening is a whole snapshot, else at the oldest segment.
//! 3. Of two records with one sequence the newer segment's counts, and a begun segment cuts off everything from its
//!    first sequence (or the unused ones before it) on in older ones: those were never acknowledged there.
//! 4. *Proven* is the highest `synced below` or `first sequence` of all: every record below it had been durable.
//!    What is missing below it is a **loss**: reported, with its sequences; a group that misses a record is left out
//!    whole. From it on, whole groups count up to the first hole; the rest is an **unfinished write** and is dropped.
//! 5. The records from *proven* on are written again, into a new segment, with their sequences, and synced, before
//!    anything new. Only then are they as good as acknowledged; then the old tail is cut, and segments before the
//!    snapshot are removed.
//!
//! **The media log**
//! 1. Segments that the index knows as complete are trusted; of the others the headers are read.
//! 2. In the last segment payloads from *proven* on are read and checked; sound ones are written again and synced,
//!    as above. Damage elsewhere is reported; each fragment stands alone, so the others stay.
//! 3. What the index lacks is added. An index that will not open, that was being opened when the process died, or
//!    that knows records the log does not have, is set aside as `index.broken-N` and built anew from headers.
//! 4. Objects the index knows in segments that are gone are reported as evicted.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::Arc,
};

pub use super::scan::Damage;
use super::{
    disk::Disk,
    error::Error,
    journal::Entry,
    scan::{Depth, Scanned, read_header, scan},
    segment::{FIRST, LAST, Located, Purpose, SEGMENT_HEADER, SegmentHeader, file_name, number_of},
};

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files read.
    pub segments: usize,
    /// Records that count.
    pub records: u64,
    /// Bytes of unfinished writes that were dropped. Never acknowledged.
    pub dropped_bytes: u64,
    /// Records that were readable but not proven durable and were written again.
    pub rewritten: u64,
    /// Sequences that had been durable and are not there any more. Empty on a sound disk.
    pub lost: Vec<Range<u64>>,
    /// Stretches that are no sound records, with their segment's number. Empty on a sound disk.
    pub damage: Vec<(u64, Damage)>,
    /// Why the index was built anew, if it was.
    pub rebuilt: Option<String>,
}

impl Report {
    /// Whether everything that had been promised is there.
    pub fn is_sound(&self) -> bool {
        self.lost.is_empty() && self.damage.is_empty()
    }
}

/// A segment as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub number: u64,
    pub header: SegmentHeader,
    pub scanned: Scanned,
}

impl Found {
    /// Sequences of its opening.
    fn opening(&self) -> Range<u64> {
        self.header.first_sequence..self.header.first_sequence + u64::from(self.header.opening)
    }

    /// Sequences just before it that were never used.
    fn unused(&self) -> Range<u64> {
        self.header.unused()
    }

    pub fn opening_is_whole(&self) -> bool {
        let expected = self.opening();
        let found = self.scanned.records.iter().take(self.header.opening as usize).map(|r| r.header.sequence);
        found.eq(expected)
    }

    fn has_begun(&self) -> bool {
        self.opening_is_whole() || self.scanned.records.iter().any(|r| r.header.sequence >= self.opening().end)
    }

    /// Below this everything had been durable when something in here was written.
    pub fn proven(&self) -> u64 {
        let by_records = self.scanned.records.iter().map(|r| r.header.synced_below).max();
        by_records.unwrap_or(0).max(self.header.first_sequence)
    }
}

/// What a journal's directory holds.
pub(super) struct Recovered {
    /// All entries that count, in order.
    pub entries: Vec<Entry>,
    /// Where each of them lies: segment and offset.
    pub places: Vec<(u64, u64)>,
    /// The last of them, which must be written again before anything else, with their flags.
    pub carry: Vec<(Entry, u8)>,
    /// The carry is (or begins with) a snapshot that is not proven durable, so it must be one again.
    pub carry_is_snapshot: bool,
    /// Sequence of the first record of the carry, or of the next record.
    pub next_sequence: u64,
    /// How many sequences just before that were never used.
    pub skipped: u32,
    /// Once the carry is durable: segments before this one are superfluous.
    pub base: u64,
    /// Once the carry is durable: segments that do not count.
    pub never_begun: Vec<u64>,
    /// Once the carry is durable: segments that count to this length only.
    pub cut: Vec<(u64, u64)>,
    /// Segments with damage.
    pub damaged: BTreeSet<u64>,
    pub report: Report,
}

/// Steps 1 to 4 for the journal. Reads only.
pub(super) fn journal(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Recovered, Error> {
    let (segments, headless) = read_segments(disk, dir, Purpose::Journal, |_, _| Some(Depth::Payloads))?;
    Ok(weigh(segments, &headless))
}

/// As [`journal`], of segments that were read before; `headless` are those without a sound header. Payloads that were
/// not kept are empty in what comes of it.
pub(super) fn weigh(mut segments: Vec<Found>, headless: &[u64]) -> Recovered {
    let files = segments.len() + headless.len();
    let mut never_begun = leave_out(&mut segments);
    let last = segments.last().map_or(0, |s| s.number);
    never_begun.extend(headless.iter().filter(|n| **n > last));
    let base = segments.iter().rposition(|s| s.header.snapshot && s.opening_is_whole()).unwrap_or(0);
    let segments = segments.split_off(base.min(segments.len()));
    let proven = segments.iter().map(Found::proven).max().unwrap_or(1);

    let union = unite(&segments);
    let walked = walk(&union, &segments, proven);
    let mut report =
        Report { segments: files, records: walked.entries.len() as u64, lost: walked.lost, ..Report::default() };
    let mut cut = Vec::new();
    let mut damaged = BTreeSet::new();
    for segment in &segments {
        let end_of_last = |counts: &dyn Fn(&Located) -> bool| {
            let last = segment.scanned.records.iter().rfind(|r| counts(r));
            last.map_or(SEGMENT_HEADER, Located::end)
        };
        // Whatever is proven stays where it is, even when a newer segment has it too: that one may be in memory only.
        let keep = end_of_last(&|r| r.header.sequence < proven);
        let used = end_of_last(&|r| r.header.sequence < walked.end);
        let counted = end_of_last(&|r| {
            r.header.sequence < proven && union.get(&r.header.sequence).is_some_and(|(n, _)| *n == segment.number)
        });
        report.dropped_bytes += segment.scanned.bytes.saturating_sub(used);
        let inside = segment.scanned.damage.iter().filter(|d| d.from < counted);
        report.damage.extend(inside.map(|d| (segment.number, d.clone())));
        if report.damage.last().is_some_and(|(n, _)| *n == segment.number) {
            damaged.insert(segment.number);
        } else if keep < segment.scanned.bytes {
            cut.push((segment.number, keep));
        }
    }
    if !report.lost.is_empty() {
        // Nothing that might still be read by hand is thrown away.
        cut.clear();
        damaged.extend(segments.iter().map(|s| s.number));
        damaged.extend(headless.iter().copied());
        damaged.extend(&never_begun);
    }
    let unused_from =
        walked.unused.iter().rev().fold(proven, |from, r| if r.end >= from { from.min(r.start) } else { from });
    let skipped = u32::try_from(proven - unused_from).unwrap_or(u32::MAX);
    let first = segments.first();
    report.rewritten = walked.carry.len() as u64;
    Recovered {
        entries: walked.entries,
        places: walked.places,
        carry: walked.carry,
        carry_is_snapshot: first.is_some_and(|s| s.header.snapshot && s.header.first_sequence >= proven),
        next_sequence: proven,
        skipped,
        base: first.map_or(0, |s| s.number),
        never_begun,
        cut,
        damaged,
        report,
    }
}

/// Step 1: takes out the segments that do not count, and says which of them never began.
fn leave_out(segments: &mut Vec<Found>) -> Vec<u64> {
    let mut never_begun = Vec::new();
    let mut goes_on = u64::MAX;
    for i in (0..segments.len()).rev() {
        let segment = &segments[i];
        let first = segment.header.first_sequence;
        let followed = first < goes_on && goes_on < u64::MAX;
        if !segment.has_begun() && !followed {
            never_begun.push(segments.remove(i).number);
        } else if goes_on <= first {
            // Superseded, but not removed: what supersedes it may be in memory only.
            segments.remove(i);
        } else {
            // (One that has not begun but is gone on after has lost its opening since: that is damage.)
            goes_on = segment.unused().start;
        }
    }
    never_begun
}

/// Segments with a sound header, in order, and the numbers of those without. `depth` is asked with number and length;
/// `None` leaves a segment out.
pub(super) fn read_segments(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    purpose: Purpose,
    depth: impl Fn(u64, u64) -> Option<Depth>,
) -> Result<(Vec<Found>, Vec<u64>), Error> {
    let listed = disk.list(dir).map_err(Error::io("list", dir))?;
    let numbers: BTreeMap<u64, u64> = listed.iter().filter_map(|l| Some((number_of(&l.name)?, l.bytes))).collect();
    let (mut segments, mut headless) = (Vec::new(), Vec::new());
    for (number, bytes) in numbers {
        let Some(depth) = depth(number, bytes) else { continue };
        let path = dir.join(file_name(number));
        let file = disk.open_to_read(&path).map_err(Error::io("open", &path))?;
        match read_header(&*file) {
            Ok(Some(header)) if header.number == number && header.purpose == purpose => {
                let scanned = scan(&*file, number, depth).map_err(Error::io("read", &path))?;
                segments.push(Found { number, header, scanned });
            }
            _ => headless.push(number),
        }
    }
    Ok((segments, headless))
}

/// Step 3: which record counts for each sequence, with its segment.
fn unite(segments: &[Found]) -> BTreeMap<u64, (u64, &Located)> {
    let mut union = BTreeMap::new();
    let mut cutoff = u64::MAX;
    for (i, segment) in segments.iter().enumerate().rev() {
        let whole = segment.opening_is_whole();
        let opening = segment.opening();
        for record in &segment.scanned.records {
            let sequence = record.header.sequence;
            let counts = match segment.header.snapshot && opening.contains(&sequence) {
                // Where replay begins, or a snapshot that is not whole: the segments before say the same.
                true => i == 0,
                false => sequence < cutoff,
            };
            if counts {
                union.entry(sequence).or_insert((segment.number, record));
            }
        }
        if whole {
            cutoff = cutoff.min(segment.unused().start);
        }
    }
    union
}

#[derive(Default)]
struct Walked {
    entries: Vec<Entry>,
    places: Vec<(u64, u64)>,
    carry: Vec<(Entry, u8)>,
    lost: Vec<Range<u64>>,
    /// The sequence after the last that counts.
    end: u64,
    /// Sequences that nobody misses.
    unused: Vec<Range<u64>>,
}

/// Step 4: whole groups in order.
fn walk(union: &BTreeMap<u64, (u64, &Located)>, segments: &[Found], proven: u64) -> Walked {
    let mut out = Walked { end: proven, unused: unused(segments), ..Walked::default() };
    let Some(first) = segments.first() else { return out };
    // A journal begins with sequence 1, or with a snapshot.
    let mut expected = match first.header {
        SegmentHeader { snapshot: false, .. } => 1,
        // An empty snapshot has a sequence too.
        SegmentHeader { opening: 0, first_sequence, .. } => first_sequence + 1,
        SegmentHeader { first_sequence, .. } => first_sequence,
    };
    // The group that is being put together, if its first record was there.
    let mut group: Option<Vec<(u64, &Located)>> = None;
    for (&sequence, &(segment, record)) in union {
        if sequence != expected {
            if expected >= proven || sequence > proven {
                break;
            }
            let open = group.take().map_or(0, |g| g.len() as u64);
            out.lose(expected - open..sequence);
        }
        expected = sequence + 1;
        if record.header.flags & FIRST != 0 {
            if let Some(open) = group.take() {
                out.lose(sequence - open.len() as u64..sequence);
            }
            group = Some(Vec::new());
        }
        match &mut group {
            Some(members) => members.push((segment, record)),
            None => out.lose(sequence..expected),
        }
        if record.header.flags & LAST != 0 {
            for (segment, member) in group.take().into_iter().flatten() {
                let entry = Entry { kind: member.header.kind, payload: member.payload.clone() };
                if member.header.sequence >= proven {
                    out.carry.push((entry.clone(), member.header.flags));
                    out.end = expected;
                }
                out.entries.push(entry);
                out.places.push((segment, member.offset));
            }
        }
    }
    let open = group.map_or(0, |g| g.len() as u64);
    out.lose(expected - open..proven);
    out
}

/// Sequences of refused checkpoints.
fn unused(segments: &[Found]) -> Vec<Range<u64>> {
    let mut unused: Vec<Range<u64>> = segments.iter().map(Found::unused).filter(|r| !r.is_empty()).collect();
    unused.sort_by_key(|r| r.start);
    unused
}

impl Walked {
    /// Notes sequences as lost, without those that were never used.
    fn lose(&mut self, range: Range<u64>) {
        let mut from = range.start;
        let mut lost = Vec::new();
        for unused in &self.unused {
            if unused.start > from {
                lost.push(from..unused.start.min(range.end));
            }
            from = from.max(unused.end);
        }
        lost.push(from..range.end);
        for piece in lost.into_iter().filter(|r| r.start < r.end) {
            match self.lost.last_mut() {
                Some(last) if last.end == piece.start => last.end = piece.end,
                _ => self.lost.push(piece),
            }
        }
    }
}
