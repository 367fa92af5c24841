//! A batch of records as bytes: what is small is copied together, what is large is written from where it lies.

use std::{
    io::{self, IoSlice},
    ops::Range,
};

use crc32c::crc32c;

use super::{
    disk::{DiskFile, write_all_at},
    segment::{RECORD_HEADER, RecordHeader},
};
use crate::host::clock;

/// Payloads up to this many bytes are copied beside their headers, larger ones are written from where they lie.
const COPY_BELOW: usize = 4 << 10;

/// A record to be written.
pub(super) struct Outgoing<'a> {
    pub kind: u8,
    pub flags: u8,
    pub meta: &'a [u8],
    pub payload: &'a [u8],
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

impl<'a> Outgoing<'a> {
    pub fn new(kind: u8, flags: u8, meta: &'a [u8], payload: &'a [u8]) -> Self {
        Self { kind, flags, meta, payload, payload_crc: crc32c(payload) }
    }

    pub fn record_len(&self) -> u64 {
        (RECORD_HEADER + self.meta.len() + self.payload.len()) as u64
    }
}

/// An encoded batch: headers, metas and small payloads lie in a scratch buffer, large payloads where they were.
pub(super) struct Parts {
    pieces: Vec<Piece>,
    /// Offset of each record.
    pub offsets: Vec<u64>,
    /// Of all of them.
    pub bytes: u64,
}

enum Piece {
    Scratch(Range<usize>),
    Payload(usize),
}

pub(super) fn encode(
    batch: &[Outgoing<'_>],
    scratch: &mut Vec<u8>,
    number: u64,
    start: u64,
    first_sequence: u64,
) -> Parts {
    scratch.clear();
    let time = clock::wall();
    let mut parts = Parts { pieces: Vec::new(), offsets: Vec::with_capacity(batch.len()), bytes: 0 };
    let mut piece_start = 0;
    for (i, record) in batch.iter().enumerate() {
        let header = RecordHeader {
            kind: record.kind,
            flags: record.flags,
            meta_len: record.meta.len() as u16,
            payload_len: record.payload.len() as u32,
            payload_crc: record.payload_crc,
            sequence: first_sequence + i as u64,
            synced_below: first_sequence,
            time,
        };
        let offset = start + parts.bytes;
        parts.offsets.push(offset);
        parts.bytes += record.record_len();
        header.encode(record.meta, number, offset, scratch);
        if record.payload.len() <= COPY_BELOW {
            scratch.extend_from_slice(record.payload);
        } else {
            parts.pieces.push(Piece::Scratch(piece_start..scratch.len()));
            parts.pieces.push(Piece::Payload(i));
            piece_start = scratch.len();
        }
    }
    parts.pieces.push(Piece::Scratch(piece_start..scratch.len()));
    parts
}

impl Parts {
    pub fn write(&self, scratch: &[u8], batch: &[Outgoing<'_>], file: &dyn DiskFile, offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Scratch(range) => IoSlice::new(&scratch[range.clone()]),
                Piece::Payload(i) => IoSlice::new(batch[*i].payload),
            })
            .collect();
        write_all_at(file, &mut slices, offset)
    }
}
