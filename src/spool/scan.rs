//! Reads a segment file: every sound record, and every stretch that is not one.

use std::io;

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use super::{
    disk::{DiskFile, read_up_to},
    segment::{Located, RECORD_HEADER, RECORD_MAGIC, RecordHeader, SEGMENT_HEADER, SegmentHeader},
};

/// How much of a segment to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Headers and meta only; payloads are checked when they are read.
    Headers,
    /// Payloads too, checked piece by piece and let go.
    Checked,
    /// Payloads too, checked and kept.
    Payloads,
}

/// What whoever looks on is told while a segment is read.
pub(super) enum Step<'a> {
    /// What comes next begins here.
    At(u64),
    /// The next bytes of the payload, with [`Depth::Checked`].
    Piece(&'a [u8]),
    /// All of it was sound.
    Sound(&'a Located),
}

/// Blocks that the disk does not give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub from: u64,
    pub to: u64,
    /// What the system said.
    pub error: String,
}

/// A stretch of a segment that is no sound record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its first byte.
    pub from: u64,
    /// The byte after its last.
    pub to: u64,
    /// What does not fit.
    pub why: &'static str,
}

/// What is in a segment.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub records: Vec<Located>,
    pub damage: Vec<Damage>,
    /// Records whose headers are sound and whose payloads are not: each is a damage too.
    pub broken: Vec<Located>,
    /// Where the disk itself refused.
    pub unreadable: Vec<Unreadable>,
    /// Length of the file.
    pub bytes: u64,
}

/// The segment header of a file, `None` when it has none that is sound.
pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Option<SegmentHeader>> {
    let mut head = [0; SEGMENT_HEADER as usize];
    let n = read_up_to(file, &mut head, 0)?;
    Ok(SegmentHeader::decode(&head[..n]))
}

/// Reads a whole segment. Damage is skipped to the next sound record; unreadable blocks count as damage.
pub(super) fn scan(file: &dyn DiskFile, number: u64, depth: Depth) -> io::Result<Scanned> {
    scan_with(file, number, depth, &mut |_| {})
}

/// As [`scan`], while somebody looks on.
pub(super) fn scan_with(
    file: &dyn DiskFile,
    number: u64,
    depth: Depth,
    watch: &mut dyn FnMut(Step<'_>),
) -> io::Result<Scanned> {
    let bytes = file.size()?;
    let mut found = Scanned { bytes, ..Scanned::default() };
    let mut window = Window::new(file, bytes, if depth == Depth::Headers { 4 << 10 } else { PIECE });
    let mut offset = SEGMENT_HEADER;
    let mut last = None;
    while offset < bytes {
        watch(Step::At(offset));
        match record_at(&mut window, number, offset, depth, watch) {
            Ok(record) if last.is_none_or(|s| record.header.sequence > s) => {
                last = Some(record.header.sequence);
                offset = record.end();
                watch(Step::Sound(&record));
                found.records.push(record);
            }
            Ok(record) => {
                found.damage.push(Damage { from: offset, to: record.end(), why: "its sequence goes back" });
                offset = record.end();
            }
            Err(bad) => {
                let next = bad.broken.as_ref().map(|r| r.end()).filter(|end| *end <= bytes);
                let to = next.unwrap_or_else(|| resync(&mut window, number, offset + 1));
                found.damage.push(Damage { from: offset, to, why: bad.why });
                found.broken.extend(bad.broken.map(|r| *r));
                offset = to;
            }
        }
    }
    found.unreadable = window.unreadable;
    Ok(found)
}

/// The record that an index says is at `offset`, payload included and checked.
pub(super) fn read_record(file: &dyn DiskFile, number: u64, offset: u64) -> io::Result<Result<Located, &'static str>> {
    let mut window = Window::new(file, file.size()?, 4 << 10);
    Ok(record_at(&mut window, number, offset, Depth::Payloads, &mut |_| {}).map_err(|bad| bad.why))
}

struct Bad {
    why: &'static str,
    /// The record, when it is only its payload that is no good.
    broken: Option<Box<Located>>,
}

fn record_at(
    window: &mut Window<'_>,
    number: u64,
    offset: u64,
    depth: Depth,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<Located, Bad> {
    let bad = |why| Bad { why, broken: None };
    let fixed = window.get(offset, RECORD_HEADER).ok_or(bad("the header is cut off or unreadable"))?;
    let header = RecordHeader::parse(fixed).ok_or(bad("no record header"))?;
    let head_len = RECORD_HEADER + usize::from(header.meta_len);
    let head = window.get(offset, head_len).ok_or(bad("the header is cut off or unreadable"))?;
    if !RecordHeader::is_sound(head, number, offset) {
        return Err(bad("the header's checksum does not fit"));
    }
    let meta = Bytes::copy_from_slice(&head[RECORD_HEADER..]);
    let mut record = Located { header, offset, meta, payload: Bytes::new() };
    let bad = |why, record| Err(Bad { why, broken: Some(Box::new(record)) });
    if record.end() > window.bytes {
        return bad("the payload is cut off", record);
    }
    let (at, len) = (offset + head_len as u64, header.payload_len as usize);
    let crc = match depth {
        Depth::Headers => return Ok(record),
        Depth::Checked => window.stream(at, len, watch),
        Depth::Payloads => window.take(at, len).map(|payload| {
            record.payload = payload;
            crc32c(&record.payload)
        }),
    };
    match crc {
        None => bad("the payload is unreadable", record),
        Some(crc) if crc != header.payload_crc => {
            record.payload = Bytes::new();
            bad("the payload's checksum does not fit", record)
        }
        Some(_) => Ok(record),
    }
}

/// The next offset, from `offset` on, where a sound record begins; the end of the file when there is none.
fn resync(window: &mut Window<'_>, number: u64, mut offset: u64) -> u64 {
    const STEP: usize = 4 << 10;
    while offset + (RECORD_HEADER as u64) <= window.bytes {
        let len = STEP.min((window.bytes - offset) as usize);
        let Some(chunk) = window.get(offset, len) else {
            // An unreadable block.
            offset = (offset / STEP as u64 + 1) * STEP as u64;
            continue;
        };
        let candidates: Vec<usize> =
            chunk.windows(4).enumerate().filter(|(_, w)| *w == RECORD_MAGIC).map(|(i, _)| i).collect();
        for at in candidates {
            if record_at(window, number, offset + at as u64, Depth::Headers, &mut |_| {}).is_ok() {
                return offset + at as u64;
            }
        }
        // The magic may lie across the step.
        offset += (len as u64).saturating_sub(3).max(1);
    }
    window.bytes
}

/// How much is read at once where everything is.
const PIECE: usize = 256 << 10;
/// The least that a disk refuses.
const BLOCK: u64 = 4 << 10;

/// A sliding buffer over a file.
struct Window<'a> {
    file: &'a dyn DiskFile,
    bytes: u64,
    start: u64,
    data: Vec<u8>,
    size: usize,
    unreadable: Vec<Unreadable>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile, bytes: u64, size: usize) -> Self {
        Self { file, bytes, start: 0, data: Vec::new(), size, unreadable: Vec::new() }
    }

    /// `len` bytes at `offset`; `None` past the end of the file or where it cannot be read.
    fn get(&mut self, offset: u64, len: usize) -> Option<&[u8]> {
        if offset.checked_add(len as u64)? > self.bytes {
            return None;
        }
        let held = offset >= self.start && offset + len as u64 <= self.start + self.data.len() as u64;
        if !held {
            // A whole window where that is readable, else only what is asked for: a bad block further on must not
            // hide the record before it.
            let read = self.fill(offset, self.size.max(len)) || self.fill(offset, len);
            if !read {
                self.blame(offset, len);
            }
            if !read || self.data.len() < len {
                self.data.clear();
                return None;
            }
        }
        let at = (offset - self.start) as usize;
        self.data.get(at..at + len)
    }

    /// As [`Self::get`], as bytes of their own.
    fn take(&mut self, offset: u64, len: usize) -> Option<Bytes> {
        if len <= self.size {
            return self.get(offset, len).map(Bytes::copy_from_slice);
        }
        let mut buf = vec![0; len];
        let n = read_up_to(self.file, &mut buf, offset).inspect_err(|_| self.blame(offset, len)).ok()?;
        (n == len).then(|| buf.into())
    }

    /// The CRC32C of `len` bytes at `offset`, of which no more than a piece is held at a time.
    fn stream(&mut self, mut offset: u64, len: usize, watch: &mut dyn FnMut(Step<'_>)) -> Option<u32> {
        let end = offset + len as u64;
        let mut crc = 0;
        while offset < end {
            let piece = self.get(offset, self.size.min((end - offset) as usize))?;
            crc = crc32c_append(crc, piece);
            watch(Step::Piece(piece));
            offset += piece.len() as u64;
        }
        Some(crc)
    }

    /// Finds out which blocks of a stretch it is that cannot be read.
    fn blame(&mut self, offset: u64, len: usize) {
        let end = offset + len as u64;
        let mut from = offset;
        while from < end {
            let to = end.min((from / BLOCK + 1) * BLOCK);
            if let Err(e) = read_up_to(self.file, &mut vec![0; (to - from) as usize], from) {
                match self.unreadable.last_mut() {
                    Some(last) if last.to >= from => last.to = last.to.max(to),
                    _ => self.unreadable.push(Unreadable { from, to, error: e.to_string() }),
                }
            }
            from = to;
        }
    }

    fn fill(&mut self, offset: u64, len: usize) -> bool {
        self.data.resize(len, 0);
        self.start = offset;
        match read_up_to(self.file, &mut self.data, offset) {
            Ok(n) => {
                self.data.truncate(n);
                true
            }
            Err(_) => {
                self.data.clear();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::IoSlice, path::Path, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        district::clock::Utc,
        spool::{
            disk::{Disk, write_all_at},
            segment::{FIRST, LAST, Purpose, SEGMENT_HEADER},
            sim::SimDisk,
        },
    };

    const NUMBER: u64 = 7;

    /// A segment's bytes, and where each record ends.
    fn segment(records: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<usize>) {
        let (purpose, opening) = (Purpose::Media, records.len() as u32);
        let header = SegmentHeader { purpose, snapshot: false, opening, number: NUMBER, first_sequence: 1, skipped: 0 };
        let mut bytes = header.encode().to_vec();
        let mut ends = Vec::new();
        for (i, (meta, payload)) in records.iter().enumerate() {
            let header = RecordHeader {
                kind: i as u8,
                flags: FIRST | LAST,
                meta_len: meta.len() as u16,
                payload_len: payload.len() as u32,
                payload_crc: crc32c(payload),
                sequence: 1 + i as u64,
                synced_below: 1,
                time: Utc::from_micros(i as i64),
            };
            let offset = bytes.len() as u64;
            header.encode(meta, NUMBER, offset, &mut bytes);
            bytes.extend_from_slice(payload);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = SimDisk::new(1).create(Path::new("/segment")).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
        file
    }

    fn is(record: &Located, i: usize, (meta, payload): &(Vec<u8>, Vec<u8>)) -> bool {
        record.header.sequence == 1 + i as u64 && record.meta == *meta && record.payload == *payload
    }

    fn some_records() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
        let bytes = |n| prop::collection::vec(any::<u8>(), 0..n);
        prop::collection::vec((bytes(60), bytes(700)), 1..20)
    }

    proptest! {
        #[test]
        fn of_a_cut_segment_exactly_the_whole_records_are_found(records in some_records(), at in any::<prop::sample::Index>()) {
            let (bytes, ends) = segment(&records);
            let len = SEGMENT_HEADER as usize + at.index(bytes.len() - SEGMENT_HEADER as usize + 1);
            let found = scan(&*file(&bytes[..len]), NUMBER, Depth::Payloads).unwrap();
            let whole = ends.iter().filter(|e| **e <= len).count();
            prop_assert_eq!(found.records.len(), whole);
            prop_assert!(found.records.iter().zip(&records).enumerate().all(|(i, (r, w))| is(r, i, w)));
        }

        #[test]
        fn a_flipped_bit_costs_the_record_it_is_in_and_no_other(records in some_records(), at in any::<prop::sample::Index>()) {
            let (mut bytes, ends) = segment(&records);
            let bit = SEGMENT_HEADER as usize * 8 + at.index((bytes.len() - SEGMENT_HEADER as usize) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|e| bit / 8 < *e).unwrap();
            let found = scan(&*file(&bytes), NUMBER, Depth::Payloads).unwrap();
            let expected: Vec<u64> = (0..records.len()).filter(|i| *i != hit).map(|i| 1 + i as u64).collect();
            prop_assert_eq!(found.records.iter().map(|r| r.header.sequence).collect::<Vec<_>>(), expected);
            prop_assert_eq!(found.damage.len(), 1);
            // Without looking at payloads: damage in one is found when it is read.
            for record in scan(&*file(&bytes), NUMBER, Depth::Headers).unwrap().records {
                let i = (record.header.sequence - 1) as usize;
                let read = read_record(&*file(&bytes), NUMBER, record.offset).unwrap();
                prop_assert_eq!(read.is_ok_and(|r| is(&r, i, &records[i])), i != hit);
            }
        }

        #[test]
        fn bytes_of_any_kind_are_scanned_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3_000), magics in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
            for at in magics {
                let at = at.index(bytes.len() + 1);
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&RECORD_MAGIC[..end - at]);
            }
            let file = file(&bytes);
            prop_assert!(read_header(&*file).unwrap().is_none_or(|h| h.number == NUMBER));
            for depth in [Depth::Headers, Depth::Checked, Depth::Payloads] {
                let found = scan(&*file, NUMBER, depth).unwrap();
                prop_assert!(found.records.is_empty());
            }
        }
    }

    #[test]
    fn a_payload_that_is_itself_a_segment_is_not_taken_for_records() {
        let inner = segment(&[(vec![1], vec![2; 100]), (vec![], vec![3; 50])]).0;
        let (mut bytes, ends) = segment(&[(vec![], inner), (b"next".to_vec(), vec![9; 9])]);
        bytes[SEGMENT_HEADER as usize + 10] ^= 1;
        let found = scan(&*file(&bytes), NUMBER, Depth::Payloads).unwrap();
        assert_eq!(found.records.iter().map(|r| r.header.sequence).collect::<Vec<_>>(), [2]);
        assert_eq!((found.damage[0].from, found.damage[0].to), (SEGMENT_HEADER, ends[0] as u64));
    }
}
