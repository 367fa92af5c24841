//! The format of a segment file: a header, then records, little-endian, one after the other. Pure.
//!
//! ```text
//! segment header, 40 bytes        record, 44 bytes + meta + payload
//!  0 magic "CHOWKIS1"              0 magic "Rec1"
//!  8 purpose u8                    4 kind u8
//!  9 flags u8: 1 = snapshot        5 flags u8: 1 = first, 2 = last of its group
//! 10 zero u16                      6 length of meta u16
//! 12 opening u32                   8 length of payload u32
//! 16 number u64                   12 CRC32C of payload u32
//! 24 first sequence u64           16 sequence u64
//! 32 skipped u32                  24 synced below u64
//! 36 CRC32C of 0..36 u32          32 wall time i64, microseconds since 1970
//!                                 40 CRC32C u32 of segment number, offset, 0..40, meta
//!                                 44 meta, payload
//! ```
//!
//! - The header's checksum knows the segment's number and the record's place, so bytes that merely look like a record
//!   (a payload that is itself a segment, blocks of a removed file) are never taken for one.
//! - *synced below*: every record with a lower sequence was durable before this one was written. So after a crash it is
//!   known which damage is an unfinished write and which is a loss of what had been promised.
//! - *opening*: how many records were written in one go with the segment header. Until all of them are there, the
//!   segment has not begun.
//! - *skipped*: how many sequences just before the first one were never used, so that they are not missed.

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::district::clock::Utc;

/// Bytes before the first record.
pub const SEGMENT_HEADER: u64 = 40;
/// Bytes of a record before its meta.
pub const RECORD_HEADER: usize = 44;
/// The largest payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"CHOWKIS1";
pub(super) const RECORD_MAGIC: [u8; 4] = *b"Rec1";

/// First record of its group.
pub const FIRST: u8 = 1;
/// Last record of its group.
pub const LAST: u8 = 2;

/// What a segment file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Presses, incidents, acknowledgements.
    Journal,
    /// Media fragments.
    Media,
}

/// How a segment file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What it is for.
    pub purpose: Purpose,
    /// Whether its opening is a snapshot, which makes all older segments superfluous.
    pub snapshot: bool,
    /// How many records were written together with this header.
    pub opening: u32,
    /// Its number, also its name; counts up.
    pub number: u64,
    /// Sequence of its first record. Everything before it was durable when this segment began.
    pub first_sequence: u64,
    /// How many sequences just before `first_sequence` were never used.
    pub skipped: u32,
}

impl SegmentHeader {
    /// Sequences just before its first one that do not count.
    pub(super) fn unused(&self) -> std::ops::Range<u64> {
        let first = self.first_sequence;
        first - u64::from(self.skipped).min(first)..first
    }

    /// As it stands in the file.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut out = [0; SEGMENT_HEADER as usize];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8] = match self.purpose {
            Purpose::Journal => 1,
            Purpose::Media => 2,
        };
        out[9] = u8::from(self.snapshot);
        out[12..16].copy_from_slice(&self.opening.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[32..36].copy_from_slice(&self.skipped.to_le_bytes());
        let crc = crc32c(&out[..36]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// From the first bytes of a file; `None` when they are not a whole and sound header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..SEGMENT_HEADER as usize)?;
        if head[0..8] != SEGMENT_MAGIC || crc32c(&head[..36]) != u32_at(head, 36) {
            return None;
        }
        let purpose = match head[8] {
            1 => Purpose::Journal,
            2 => Purpose::Media,
            _ => return None,
        };
        Some(Self {
            purpose,
            snapshot: head[9] & 1 != 0,
            opening: u32_at(head, 12),
            number: u64_at(head, 16),
            first_sequence: u64_at(head, 24),
            skipped: u32_at(head, 32),
        })
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it holds; the owner's business.
    pub kind: u8,
    /// [`FIRST`], [`LAST`].
    pub flags: u8,
    /// Bytes of meta.
    pub meta_len: u16,
    /// Bytes of payload.
    pub payload_len: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Counts up by one a record, across segments.
    pub sequence: u64,
    /// Every record with a lower sequence was durable before this one was written.
    pub synced_below: u64,
    /// When it was written, for people.
    pub time: Utc,
}

impl RecordHeader {
    /// Appends the header and `meta` as they stand at `offset` of segment `number`. The payload follows.
    pub fn encode(&self, meta: &[u8], number: u64, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&RECORD_MAGIC);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.meta_len.to_le_bytes());
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.synced_below.to_le_bytes());
        out.extend_from_slice(&self.time.micros().to_le_bytes());
        let crc = header_crc(&out[start..], meta, number, offset);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(meta);
    }

    /// Reads the fixed part alone. Its checksum also needs the meta: [`Self::is_sound`].
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..RECORD_HEADER)?;
        if head[0..4] != RECORD_MAGIC {
            return None;
        }
        let header = Self {
            kind: head[4],
            flags: head[5],
            meta_len: u16::from_le_bytes([head[6], head[7]]),
            payload_len: u32_at(head, 8),
            payload_crc: u32_at(head, 12),
            sequence: u64_at(head, 16),
            synced_below: u64_at(head, 24),
            time: Utc::from_micros(i64::from_le_bytes(eight(head, 32))),
        };
        (header.payload_len as usize <= MAX_PAYLOAD).then_some(header)
    }

    /// Whether header and meta, `bytes`, are what was written at `offset` of segment `number`.
    pub fn is_sound(bytes: &[u8], number: u64, offset: u64) -> bool {
        bytes.len() >= RECORD_HEADER
            && header_crc(&bytes[..40], &bytes[RECORD_HEADER..], number, offset) == u32_at(bytes, 40)
    }

    /// Bytes of header and meta.
    pub fn head_len(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.meta_len)
    }

    /// Bytes of the whole record.
    pub fn record_len(&self) -> u64 {
        self.head_len() + u64::from(self.payload_len)
    }
}

/// A record found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its fixed part.
    pub header: RecordHeader,
    /// Where it begins in its segment.
    pub offset: u64,
    /// Its meta.
    pub meta: Bytes,
    /// Its payload, where it was asked for.
    pub payload: Bytes,
}

impl Located {
    /// A record without a payload that was not written yet.
    pub(super) fn made(kind: u8, meta: Bytes) -> Self {
        let header = RecordHeader {
            kind,
            flags: FIRST | LAST,
            meta_len: meta.len() as u16,
            payload_len: 0,
            payload_crc: 0,
            sequence: 0,
            synced_below: 0,
            time: Utc::from_micros(0),
        };
        Self { header, offset: 0, meta, payload: Bytes::new() }
    }

    /// Where the next record begins.
    pub fn end(&self) -> u64 {
        self.offset + self.header.record_len()
    }
}

/// A segment's file name.
pub fn file_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The number in a segment's file name.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn header_crc(head: &[u8], meta: &[u8], number: u64, offset: u64) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&number.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c_append(crc32c_append(crc32c(&place), head), meta)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn eight(bytes: &[u8], at: usize) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    out
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(eight(bytes, at))
}
