//! The newest objects, still in memory: what was just stored is most often read next, on its way to headquarters, and
//! need not be read back from the disk for that. Only what is durable comes in here.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

/// Objects by their key, the oldest first; at most so many bytes. When full, the oldest are forgotten.
pub(super) struct Recent {
    held: Mutex<Held>,
    limit: usize,
}

#[derive(Default)]
struct Held {
    objects: VecDeque<Object>,
    bytes: usize,
}

struct Object {
    key: Vec<u8>,
    chunks: Vec<Bytes>,
    ended: bool,
}

impl Object {
    fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

impl Held {
    fn forget(&mut self, at: usize) -> Option<Object> {
        let object = self.objects.remove(at)?;
        self.bytes -= object.bytes();
        Some(object)
    }

    fn position(&self, key: &[u8]) -> Option<usize> {
        self.objects.iter().position(|o| o.key == key)
    }
}

impl Recent {
    pub fn new(limit: usize) -> Self {
        Self { held: Mutex::default(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a chunk of an object in, the first in place of an older object of that key. `more` of it is to come.
    pub fn put(&self, key: Vec<u8>, chunk: u16, bytes: Bytes, more: bool) {
        let mut held = self.lock();
        let before = held.position(&key).and_then(|at| held.forget(at));
        let mut chunks = before.filter(|_| chunk > 0).map(|o| o.chunks).unwrap_or_default();
        if chunks.len() != usize::from(chunk) {
            // What came before was too much, and forgotten.
            return;
        }
        chunks.push(bytes);
        let object = Object { key, chunks, ended: !more };
        held.bytes += object.bytes();
        held.objects.push_back(object);
        while held.bytes > self.limit {
            held.forget(0);
        }
    }

    /// An object, if it is still here and whole.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        let held = self.lock();
        let object = held.position(key).and_then(|at| held.objects.get(at)).filter(|o| o.ended)?;
        match object.chunks.as_slice() {
            [whole] => Some(whole.clone()),
            chunks => Some(chunks.concat().into()),
        }
    }

    /// Forgets an object: headquarters has it.
    pub fn forget(&self, key: &[u8]) {
        let mut held = self.lock();
        if let Some(at) = held.position(key) {
            held.forget(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_held_within_the_bound_and_each_key_once() {
        let recent = Recent::new(100);
        let object = |n: usize| Bytes::from(vec![0; n]);
        for key in 0..5u8 {
            recent.put(vec![key], 0, object(30), false);
        }
        assert!(recent.get(&[1]).is_none() && recent.get(&[2]).is_some(), "three fit");
        recent.put(vec![3], 0, object(40), false);
        assert_eq!(recent.get(&[3]).map(|b| b.len()), Some(40));
        recent.forget(&[2]);
        recent.put(vec![9], 0, object(30), false);
        assert!(recent.get(&[2]).is_none() && recent.get(&[4]).is_some() && recent.get(&[9]).is_some());
        recent.put(vec![8], 0, object(101), false);
        let held = recent.lock();
        assert_eq!((held.objects.len(), held.bytes), (0, 0), "too large to be held");
    }

    #[test]
    fn an_object_that_comes_in_chunks_is_there_when_all_of_it_is() {
        let recent = Recent::new(100);
        let part = |byte: u8| Bytes::from(vec![byte; 10]);
        recent.put(vec![1], 0, part(1), true);
        recent.put(vec![1], 1, part(2), true);
        assert!(recent.get(&[1]).is_none());
        recent.put(vec![1], 2, part(3), false);
        assert_eq!(recent.get(&[1]), Some([[1; 10], [2; 10], [3; 10]].concat().into()));
        recent.put(vec![2], 0, part(1), true);
        recent.forget(&[2]);
        recent.put(vec![2], 1, part(2), false);
        assert!(recent.get(&[2]).is_none(), "its beginning has been forgotten");
    }
}
