//! A row of the index for each place where something of an object lies. Pure.

use std::collections::BTreeMap;

use super::{
    error::Error,
    object::{At, ObjectRef},
    retention::SegmentUse,
};

/// What lies somewhere of an object, as far as its segment's use is concerned: so that not every object has to be read
/// when the index is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// It ends here.
    ends: bool,
    evidence: bool,
    pub delivered: bool,
    stays: bool,
    /// Its record's size, but for what is known of it beside its bytes; of chunks, as if they had equal ones.
    bytes: u32,
}

impl Place {
    /// Its bytes before the object's key.
    const LEN: usize = 5;

    pub fn of(object: &ObjectRef, at: At) -> Self {
        let bytes = object.meta.size / (object.before.len() as u64 + 1) + 1_024;
        Self {
            ends: at == object.at,
            evidence: object.meta.kept.incident().is_some(),
            delivered: object.delivered,
            stays: object.meta.stays(),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }

    /// The same once headquarters has the object.
    pub fn as_delivered(self) -> Self {
        Self { delivered: true, ..self }
    }

    pub fn encode(self, key: &[u8]) -> Vec<u8> {
        let flags = [self.ends, self.evidence, self.delivered, self.stays];
        let flags = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        [&[flags], self.bytes.to_be_bytes().as_slice(), key].concat()
    }

    /// It and the object's key.
    pub fn decode(row: &[u8]) -> Result<(Self, &[u8]), Error> {
        let short = || Error::Index { doing: "read a row", error: "it is too short".into() };
        let (head, key) = row.split_first_chunk::<{ Self::LEN }>().ok_or_else(short)?;
        let [flags, bytes @ ..] = *head;
        let is = |bit: u8| flags & 1 << bit != 0;
        let bytes = u32::from_be_bytes(bytes);
        Ok((Self { ends: is(0), evidence: is(1), delivered: is(2), stays: is(3), bytes }, key))
    }

    pub fn count(self, uses: &mut BTreeMap<u64, SegmentUse>, number: u64, by: i64) {
        let held = uses.entry(number).or_insert(SegmentUse { number, ..SegmentUse::default() });
        let add = |to: &mut u64, of: bool| *to = to.saturating_add_signed(if of { by } else { 0 });
        add(&mut held.objects, true);
        add(&mut held.ends, self.ends);
        add(&mut held.evidence, self.evidence);
        add(&mut held.undelivered, !self.delivered);
        add(&mut held.waiting, self.ends && !self.delivered);
        add(&mut held.stays, self.stays && !self.delivered);
        if self.stays && !self.delivered {
            held.stays_bytes = held.stays_bytes.saturating_add_signed(by * i64::from(self.bytes));
        }
    }
}
