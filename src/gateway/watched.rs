//! Cameras that should be recorded now, and whether they are: a camera that is not recorded is never silent about it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    district::{clock::Mono, ids::CameraId},
    host::clock,
};

/// A camera of which nothing was stored for so long while it should be is not recorded. Fragments take 4.5 s at most.
const LATE: Duration = Duration::from_secs(8);

/// Every recording that runs; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By recording: whose it is, and when something of it was last stored.
    running: BTreeMap<u64, (CameraId, Mono)>,
}

/// A recording that runs. It is watched until this is dropped.
#[derive(Debug)]
pub struct Watch {
    watched: Watched,
    id: u64,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A recording begins.
    pub fn begin(&self, camera: &CameraId) -> Watch {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        state.running.insert(id, (camera.clone(), clock::mono()));
        Watch { watched: self.clone(), id }
    }

    /// Cameras that should be recorded and are not, with since when.
    pub fn late(&self, now: Mono) -> BTreeMap<CameraId, Mono> {
        let state = self.lock();
        let late = state.running.values().filter(|(_, stored)| now.since(*stored) >= LATE);
        late.map(|(camera, stored)| (camera.clone(), *stored)).collect()
    }
}

impl Watch {
    /// Something of it is on disk.
    pub fn stored(&self) {
        if let Some((_, stored)) = self.watched.lock().running.get_mut(&self.id) {
            *stored = clock::mono();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watched.lock().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_of_which_nothing_is_stored_is_late_until_something_is_or_it_ends() {
        let (watched, camera): (_, CameraId) = (Watched::default(), "c1".parse().unwrap());
        let watch = watched.begin(&camera);
        let soon = clock::mono() + LATE;
        assert!(watched.late(clock::mono()).is_empty());
        assert_eq!(watched.late(soon).keys().collect::<Vec<_>>(), [&camera]);
        std::thread::sleep(Duration::from_millis(5));
        watch.stored();
        assert!(watched.late(soon).is_empty());
        drop(watch);
        assert!(watched.late(soon + LATE).is_empty());
    }
}
