//! Where in a file which moment is: `sidx` (ISO/IEC 14496-12 section 8.16.3), so that a player can go to any moment without
//! reading what lies before it. Of a fixed size: with more fragments than it has lines, a line speaks of several. Pure.

use mp4_atom::{Encode, SegmentReference, Sidx};

use super::{BOX_HEADER, MILLIS, ReelError, filler};

/// Most lines.
const LINES: usize = 1_024;

/// Bytes of a line, and of the box around them.
const LINE: usize = 12;
const REST: usize = 32;

/// Room for the index and the `free` box behind it.
const ROOM: usize = REST + LINE * LINES + BOX_HEADER;

/// What the fragments of a file are, counted as they come.
#[derive(Debug, Clone)]
pub struct Index {
    lines: Vec<Line>,
    /// Fragments in a line.
    each: u64,
    fragments: u64,
    bytes: u64,
    end_us: u64,
}

#[derive(Debug, Clone)]
struct Line {
    bytes: u64,
    begins_us: u64,
    key: bool,
}

impl Default for Index {
    fn default() -> Self {
        Self { lines: Vec::new(), each: 1, fragments: 0, bytes: 0, end_us: 0 }
    }
}

impl Index {
    /// A fragment of so many bytes, from when to when in the file's time, in microseconds; whether playing can begin there.
    pub fn push(&mut self, bytes: u64, (begins_us, ends_us): (u64, u64), key: bool) {
        if self.fragments.is_multiple_of(self.each) && self.lines.len() == LINES {
            self.halve();
        }
        match self.lines.last_mut() {
            Some(line) if !self.fragments.is_multiple_of(self.each) => line.bytes += bytes,
            _ => self.lines.push(Line { bytes, begins_us, key }),
        }
        self.fragments += 1;
        self.bytes += bytes;
        self.end_us = self.end_us.max(ends_us);
    }

    fn halve(&mut self) {
        let joined = |pair: &[Line]| Line { bytes: pair.iter().map(|line| line.bytes).sum(), ..pair[0].clone() };
        self.lines = self.lines.chunks(2).map(joined).collect();
        self.each *= 2;
    }

    /// Bytes of all fragments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are.
    pub fn fragments(&self) -> u64 {
        self.fragments
    }

    /// When the last one ends, in microseconds.
    pub fn end_us(&self) -> u64 {
        self.end_us
    }

    /// `sidx`, and what makes it of the same size whatever it says. Nothing but the latter, where fragments are so large or
    /// so long that it cannot say it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), ReelError> {
        let millis = |us: u64| u32::try_from(us / 1_000).ok();
        let ends = self.lines.iter().skip(1).map(|line| line.begins_us).chain([self.end_us]);
        let references: Option<Vec<_>> = self
            .lines
            .iter()
            .zip(ends)
            .map(|(line, end)| {
                Some(SegmentReference {
                    reference_type: false,
                    referenced_size: u32::try_from(line.bytes).ok().filter(|bytes| bytes >> 31 == 0)?,
                    // Of the rounded ends, so that nothing adds up.
                    subsegment_duration: millis(end)?.checked_sub(millis(line.begins_us)?)?,
                    starts_with_sap: line.key,
                    sap_type: u8::from(line.key),
                    sap_delta_time: 0,
                })
            })
            .collect();
        let Some(references) = references.filter(|references| !references.is_empty()) else {
            out.extend_from_slice(&filler(ROOM as u64));
            return Ok(());
        };
        let begins = self.lines.first().map_or(0, |line| line.begins_us);
        let left = ROOM - REST - LINE * references.len();
        let sidx = Sidx {
            reference_id: 1,
            timescale: MILLIS,
            earliest_presentation_time: begins / 1_000,
            first_offset: left as u64,
            references,
        };
        let before = out.len();
        sidx.encode(out)?;
        if out.len() - before != ROOM - left {
            return Err(ReelError::Shape("the index is not as long as was reckoned"));
        }
        out.extend_from_slice(&filler(left as u64));
        Ok(())
    }
}
