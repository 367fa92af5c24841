//! Objects that are written chunk by chunk, and how far they are. Pure.
//!
//! A chunk is a record of the log like any other; flags say which begins an object and which ends it. An object is known
//! to the index, and to everybody else, when its end is durable. One whose end never came, because the process died, is
//! ended by the next start where it is; one of which a chunk is missing, or the end has gone, does not count.

use std::collections::BTreeMap;

use super::{
    object::{At, ObjectMeta, ObjectRef},
    segment::{FIRST, LAST},
};

/// Objects whose end has not come, by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    begun: BTreeMap<Vec<u8>, ObjectRef>,
}

impl Chunks {
    /// Takes the next chunk in the order of the log; gives the object that is whole by it.
    pub fn take(&mut self, meta: ObjectMeta, flags: u8, at: At) -> Option<ObjectRef> {
        let key = meta.key();
        // Where one is missing, the object does not count.
        if !self.is_next(&meta, flags) {
            self.begun.remove(&key);
            return None;
        }
        let object = match self.begun.get(&key).filter(|_| flags & FIRST == 0) {
            Some(before) => ObjectRef { before: before.places().collect(), meta, delivered: false, at },
            None => ObjectRef::whole(meta, at),
        };
        if flags & LAST == LAST {
            self.begun.remove(&key);
            return Some(object);
        }
        self.begun.insert(key, object);
        None
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ObjectRef> {
        self.begun.values()
    }

    /// Whether a chunk begins an object, or goes on where it is.
    pub fn is_next(&self, meta: &ObjectMeta, flags: u8) -> bool {
        let follows = |before: &ObjectRef| before.meta.chunk.checked_add(1) == Some(meta.chunk);
        flags & FIRST == FIRST || self.begun.get(&meta.key()).is_some_and(follows)
    }

    /// Forgets the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&ObjectRef) -> bool) {
        self.begun.retain(|_, object| keep(object));
    }

    /// The first segment with something of them. From there on all is read at a start and nothing is removed, so that the
    /// next start sees that an end never came.
    pub fn first_segment(&self) -> u64 {
        self.all().flat_map(ObjectRef::places).map(|at| at.segment).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        district::clock::Utc,
        spool::object::{Buffer, Kept, Missing},
    };

    fn meta(name: &str, chunk: u16) -> ObjectMeta {
        let missing = Missing { reason: crate::district::evidence::GapReason::Evicted, bytes: 0 };
        let (from, to) = (Utc::from_micros(0), Utc::from_micros(1 + i64::from(chunk)));
        let base = ObjectMeta::missing("c1".parse().unwrap(), Buffer::Outage, (from, to), missing);
        ObjectMeta { kept: Kept::Buffer { buffer: Buffer::Outage }, name: name.into(), chunk, ..base }
    }

    fn at(sequence: u64) -> At {
        At { segment: sequence / 10, offset: sequence % 10, sequence }
    }

    #[test]
    fn an_object_is_known_when_its_end_is_there() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.take(meta("a", 0), FIRST, at(8)), None);
        assert_eq!(chunks.take(meta("b", 0), FIRST | LAST, at(9)).unwrap().before, []);
        assert_eq!(chunks.take(meta("a", 1), 0, at(10)), None);
        assert_eq!(chunks.first_segment(), 0);
        let whole = chunks.take(meta("a", 2), LAST, at(31)).unwrap();
        assert_eq!((whole.at, whole.before.as_slice()), (at(31), [at(8), at(10)].as_slice()));
        assert_eq!(whole.meta.to, Utc::from_micros(3), "the last chunk speaks for all");
        assert_eq!((chunks.all().count(), chunks.first_segment()), (0, u64::MAX));
    }

    #[test]
    fn an_object_of_which_a_chunk_is_missing_does_not_count() {
        let mut chunks = Chunks::default();
        chunks.take(meta("a", 0), FIRST, at(1));
        assert_eq!(chunks.take(meta("a", 2), LAST, at(3)), None);
        assert_eq!(chunks.all().count(), 0);
        assert_eq!(chunks.take(meta("b", 1), LAST, at(4)), None);
        chunks.take(meta("a", 0), FIRST, at(5));
        assert_eq!(chunks.take(meta("a", 1), LAST, at(6)).unwrap().before, [at(5)], "it began again");
    }
}
