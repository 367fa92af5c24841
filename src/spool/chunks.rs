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
        // Where one is missing, the object ends before it.
        if !self.is_next(&meta, flags) {
            return None;
        }
        let key = meta.key();
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
