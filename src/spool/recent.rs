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
    objects: VecDeque<(Vec<u8>, Bytes)>,
    bytes: usize,
}

impl Held {
    fn forget(&mut self, at: usize) {
        if let Some((_, bytes)) = self.objects.remove(at) {
            self.bytes -= bytes.len();
        }
    }

    fn position(&self, key: &[u8]) -> Option<usize> {
        self.objects.iter().position(|(k, _)| k == key)
    }
}

impl Recent {
    pub fn new(limit: usize) -> Self {
        Self { held: Mutex::default(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an object in, in place of an older one of that key.
    pub fn put(&self, key: Vec<u8>, bytes: Bytes) {
        let mut held = self.lock();
        if let Some(at) = held.position(&key) {
            held.forget(at);
        }
        held.bytes += bytes.len();
        held.objects.push_back((key, bytes));
        while held.bytes > self.limit {
            held.forget(0);
        }
    }

    /// An object, if it is still here.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        let held = self.lock();
        held.position(key).and_then(|at| held.objects.get(at)).map(|(_, bytes)| bytes.clone())
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
            recent.put(vec![key], object(30));
        }
        assert!(recent.get(&[1]).is_none() && recent.get(&[2]).is_some(), "three fit");
        recent.put(vec![3], object(40));
        assert_eq!(recent.get(&[3]).map(|b| b.len()), Some(40));
        recent.forget(&[2]);
        recent.put(vec![9], object(30));
        assert!(recent.get(&[2]).is_none() && recent.get(&[4]).is_some() && recent.get(&[9]).is_some());
        recent.put(vec![8], object(101));
        let held = recent.lock();
        assert_eq!((held.objects.len(), held.bytes), (0, 0), "too large to be held");
    }
}
