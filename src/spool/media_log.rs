//! The media store: evidence fragments in segment files, looked up through the index.
//!
//! One thread writes. It gathers fragments for at most [`MediaSettings::sync_every`], writes them with one call, syncs
//! them with one fdatasync, puts them into the index, and only then resolves their tickets. When the quota is reached or
//! the disk refuses, it keeps what it has and tries again every second; the queue then fills, and the recorder gets
//! [`Error::Full`] and writes a gap. Marks of delivery are always taken, since they make room.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

pub use super::object::{Buffer, Kept, MediaLane, Missing, ObjectMeta, ObjectRef};
use super::{
    disk::{Disk, RealDisk},
    error::Error,
    gone::Evicted,
    journal::Health,
    log::LogSettings,
    media_recovery,
    media_shared::{Opened, Shared},
    media_writer::{Item, Work, Writer},
    object::DeliveredMark,
    queue::Ticket,
    recovery::Report,
    segment::{MAX_PAYLOAD, Purpose, RECORD_HEADER},
};
use crate::{
    district::{
        clock::Utc,
        ids::{CameraId, IncidentId},
    },
    host::{clock, scope::Scope},
};

/// How many evictions may wait to be heard of. When they are not, nothing more is evicted.
const EVICTIONS_WAITING: usize = 64;

/// How the media store uses its directory.
#[derive(Debug, Clone, Copy)]
pub struct MediaSettings {
    /// Size of a segment file in bytes: what is evicted at once. At most a sixteenth of the quota is used.
    pub segment_bytes: u64,
    /// Most bytes of all segments together.
    pub quota: u64,
    /// What must stay free on the file system, in bytes.
    pub keep_free: u64,
    /// Most bytes that may wait for the disk.
    pub queue_bytes: u32,
    /// Longest time a fragment is gathered before it is written and synced.
    pub sync_every: Duration,
    /// Bytes of the newest objects that stay in memory until headquarters has them.
    pub recent_bytes: usize,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            quota: 80 << 30,
            keep_free: 2 << 30,
            queue_bytes: 64 << 20,
            sync_every: Duration::from_millis(200),
            // Some seconds of the cameras of an incident.
            recent_bytes: 8 << 20,
        }
    }
}

impl MediaSettings {
    /// The size of segments under a quota: so many that one of them is not much of it.
    pub fn segment_of(quota: u64) -> u64 {
        Self::default().segment_bytes.min(Self::share_of(quota))
    }

    fn share_of(quota: u64) -> u64 {
        (quota / 16).max(1 << 20)
    }
}

/// Counts of the media store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaStats {
    /// Bytes of all segment files.
    pub used_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Objects held.
    pub objects: u64,
    /// Of these, not confirmed by headquarters.
    pub undelivered: u64,
    /// Bytes that wait for the disk.
    pub queued_bytes: u64,
    /// Objects stored since opening.
    pub stored: u64,
    /// Segments evicted since opening.
    pub evicted_segments: u64,
    /// Bytes of recordings since opening that made room before headquarters had them.
    pub dropped_bytes: u64,
}

/// A handle on the media store; clones use the same one. Dropping the last one flushes it.
#[derive(Clone)]
pub struct MediaStore {
    handle: Arc<Handle>,
    scope: Scope,
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl MediaStore {
    /// Opens the store in `dir`, made if need be. Blocks while it recovers. Lookups run as blocking work of `scope`.
    pub fn open(
        dir: &Path,
        settings: MediaSettings,
        scope: &Scope,
    ) -> Result<(Self, mpsc::Receiver<Vec<Evicted>>, Report), Error> {
        Self::open_on(Arc::new(RealDisk), dir, settings, scope)
    }

    /// As [`MediaStore::open`], with segment files on another file layer. The index is always on the real one.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: MediaSettings,
        scope: &Scope,
    ) -> Result<(Self, mpsc::Receiver<Vec<Evicted>>, Report), Error> {
        let lock = Self::lock(&disk, dir)?;
        let (store, writer, heard, report) = Self::prepare(disk, dir, settings, scope)?;
        store.work(dir, move || {
            let _lock = lock;
            writer.run();
        })?;
        Ok((store, heard, report))
    }

    /// As [`MediaStore::open`], in the background: an index that is lost is built anew from the log, which takes some seconds
    /// for each 10 GB. Meanwhile things can be appended; whoever looks something up waits. The ticket resolves when it is
    /// open.
    #[expect(clippy::type_complexity, reason = "what opening gives")]
    pub fn begin(
        dir: &Path,
        settings: MediaSettings,
        scope: &Scope,
    ) -> Result<(Self, mpsc::Receiver<Vec<Evicted>>, Ticket<Report>), Error> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let lock = Self::lock(&disk, dir)?;
        let shared = Arc::new(Shared::new(disk, dir, settings));
        let (evictions, heard) = mpsc::channel(EVICTIONS_WAITING);
        let (done, ticket) = Ticket::new();
        let store = Self::of(shared.clone(), scope);
        store.work(dir, move || {
            let _lock = lock;
            match media_recovery::open(shared.disk.clone(), &shared.dir, log_settings(&settings)) {
                Ok(opened) => {
                    let (writer, gone, report) = Writer::begin(opened, settings, shared, evictions.clone());
                    let _ = done.send(Ok(report));
                    for parts in gone {
                        // Nobody hears of it when the gateway is stopping.
                        let _ = evictions.blocking_send(parts);
                    }
                    writer.run();
                }
                Err(error) => {
                    shared.health.send_replace(Health::Failing { since: clock::mono(), error: error.to_string() });
                    shared.opened.send_replace(Opened::Failed);
                    shared.queue.close();
                    let _ = done.send(Err(error));
                }
            }
        })?;
        Ok((store, heard, ticket))
    }

    fn lock(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Box<dyn Send>, Error> {
        disk.create_dir(dir).map_err(Error::io("make the directory", dir))?;
        let lock = disk.lock(dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => Error::InUse(dir.to_owned()),
            _ => Error::io("lock", dir)(e),
        })?;
        Ok(Box::new(lock))
    }

    fn of(shared: Arc<Shared>, scope: &Scope) -> Self {
        let handle = Arc::new(Handle { shared, thread: Mutex::new(None) });
        Self { handle, scope: scope.clone() }
    }

    /// The thread that writes.
    fn work(&self, dir: &Path, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = thread::Builder::new().name("media-store".into()).spawn(run);
        let thread = thread.map_err(Error::io("start a thread for", dir))?;
        *self.handle.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Without a lock and a thread: nothing is written before [`Writer::run`].
    #[expect(clippy::type_complexity, reason = "what opening gives, and the writer")]
    pub(super) fn prepare(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: MediaSettings,
        scope: &Scope,
    ) -> Result<(Self, Writer, mpsc::Receiver<Vec<Evicted>>, Report), Error> {
        let opened = media_recovery::open(disk.clone(), dir, log_settings(&settings))?;
        let shared = Arc::new(Shared::new(disk, dir, settings));
        let (evictions, heard) = mpsc::channel(EVICTIONS_WAITING.max(opened.gone.len()));
        let (writer, gone, report) = Writer::begin(opened, settings, shared.clone(), evictions.clone());
        for parts in gone {
            // The channel was made large enough.
            let _ = evictions.try_send(parts);
        }
        Ok((Self::of(shared, scope), writer, heard, report))
    }

    /// As [`MediaStore::open_on`], without a thread: the test that steps it is the thread.
    #[cfg(test)]
    #[expect(clippy::type_complexity, reason = "what opening gives, and the writer")]
    pub(crate) fn open_stepped(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: MediaSettings,
        scope: &Scope,
    ) -> Result<(Self, Stepped, mpsc::Receiver<Vec<Evicted>>, Report), Error> {
        let (store, writer, heard, report) = Self::prepare(disk, dir, settings, scope)?;
        Ok((store, Stepped(writer), heard, report))
    }

    /// Stores an object; the ticket resolves when it is durable and in the index. Never waits: [`Error::Full`] when too
    /// much waits for the disk already, and then the recorder writes a gap.
    pub fn append(&self, meta: ObjectMeta, payload: Bytes) -> Result<Ticket<ObjectRef>, Error> {
        self.append_chunk(meta, payload, false)
    }

    /// Stores the next chunk of an object, which [`ObjectMeta::chunk`] counts; its meta speaks of all of the object so far,
    /// and is of the same name. While `more` of it is to come, nobody else hears of it. After a crash it ends where it is.
    /// The ticket resolves when the chunk is durable. One that is refused must not be followed by the next: a chunk of no
    /// bytes, which is never refused, ends the object where it is.
    pub fn append_chunk(&self, meta: ObjectMeta, payload: Bytes, more: bool) -> Result<Ticket<ObjectRef>, Error> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::TooLarge { bytes: payload.len() as u64, limit: MAX_PAYLOAD as u64 });
        }
        // The end of what was taken is taken.
        let ends = payload.is_empty() && meta.chunk > 0;
        let encoded = meta.encode()?;
        let cost = (RECORD_HEADER + encoded.len() + payload.len()) as u64;
        let (done, ticket) = Ticket::new();
        let item = Item::Object { meta, payload, more, done };
        if ends {
            self.handle.shared.queue.push_free(Work::new(item, encoded, 0))?;
        } else {
            self.handle.shared.queue.try_push(cost, Work::new(item, encoded, cost))?;
        }
        Ok(ticket)
    }

    /// Whether so much waits for the disk that whoever can wait should: the rest of the room is for evidence.
    pub fn is_crowded(&self) -> bool {
        self.handle.shared.queue.is_half_full()
    }

    /// Notes that headquarters has confirmed an object; the ticket resolves when that is durable.
    pub fn delivered(&self, object: &ObjectRef) -> Result<Ticket, Error> {
        let mark = DeliveredMark::of(&object.meta);
        let encoded =
            serde_json::to_vec(&mark).map_err(|e| Error::Index { doing: "write a mark", error: e.to_string() })?;
        let (done, ticket) = Ticket::new();
        // Not counted: there are never more marks under way than objects that were read.
        let item = Item::Delivered { mark, done };
        self.handle.shared.queue.push_free(Work::new(item, encoded, 0))?;
        Ok(ticket)
    }

    /// Objects not confirmed by headquarters. Evidence: the newest incident first, in it the seconds around a press, then by
    /// rank of camera, then in order. Then what was kept in outages, then what always is, both by time.
    pub async fn pending(&self, limit: usize) -> Result<Vec<ObjectRef>, Error> {
        self.look_up(move |shared| shared.index()?.pending(None, limit)).await
    }

    /// Objects of one lane not confirmed by headquarters, in the order of [`Self::pending`].
    pub async fn pending_in(&self, lane: MediaLane, limit: usize) -> Result<Vec<ObjectRef>, Error> {
        self.look_up(move |shared| shared.index()?.pending(Some(lane), limit)).await
    }

    /// A camera's objects in an incident, in order.
    pub async fn evidence(&self, incident: IncidentId, camera: &CameraId) -> Result<Vec<ObjectRef>, Error> {
        let camera = camera.clone();
        self.look_up(move |shared| shared.index()?.evidence(incident, &camera)).await
    }

    /// The newest object of a camera's buffer that begins before `before`, words about gaps included.
    pub async fn buffer_before(&self, camera: &CameraId, before: Utc) -> Result<Option<ObjectRef>, Error> {
        let camera = camera.clone();
        self.look_up(move |shared| shared.index()?.buffer_before(&camera, before)).await
    }

    /// What of a camera's buffer begins between two moments, words about gaps included, in the order of their time.
    pub async fn buffer(&self, camera: &CameraId, span: (Utc, Utc)) -> Result<Vec<ObjectRef>, Error> {
        let camera = camera.clone();
        self.look_up(move |shared| shared.index()?.buffer_begun(&camera, span).collect()).await
    }

    /// Goes through what a camera's buffer has between two moments, words about gaps included, in no particular order, on a
    /// thread of its own. Memory does not grow with how much that is.
    pub async fn fold_buffer<T: Default + Send + 'static>(
        &self,
        camera: &CameraId,
        (from, to): (Utc, Utc),
        mut fold: impl FnMut(&mut T, &ObjectMeta) + Send + 'static,
    ) -> Result<T, Error> {
        let camera = camera.clone();
        self.look_up(move |shared| {
            let (index, mut folded) = (shared.index()?, T::default());
            for object in index.buffer(&camera, (from, to)) {
                let meta = object?.meta;
                if from < meta.to && meta.from < to {
                    fold(&mut folded, &meta);
                }
            }
            Ok(folded)
        })
        .await
    }

    /// Incidents with objects, the oldest first.
    pub async fn incidents(&self) -> Result<Vec<IncidentId>, Error> {
        self.look_up(|shared| shared.index()?.incidents()).await
    }

    /// An object's bytes: the newest from memory, others from the disk, checked. [`Error::Gone`] when it was evicted, [`Error::Damaged`] when the disk lost it.
    pub async fn read(&self, object: &ObjectRef) -> Result<Bytes, Error> {
        if let Some(bytes) = self.handle.shared.recent.get(&object.meta.key()) {
            return Ok(bytes);
        }
        let object = object.clone();
        self.look_up(move |shared| shared.read(&object)).await
    }

    /// Whether what is appended becomes durable; wakes on each change.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.handle.shared.health.subscribe()
    }

    /// Counts.
    pub fn stats(&self) -> MediaStats {
        let counts = &self.handle.shared.counts;
        MediaStats {
            used_bytes: counts.used.load(Relaxed),
            segments: counts.segments.load(Relaxed),
            objects: counts.objects.load(Relaxed),
            undelivered: counts.undelivered.load(Relaxed),
            queued_bytes: self.handle.shared.queue.used(),
            stored: counts.stored.load(Relaxed),
            evicted_segments: counts.evicted.load(Relaxed),
            dropped_bytes: counts.dropped.load(Relaxed),
        }
    }

    /// Writes what is queued, then ends the thread and waits for it. What the disk still refuses is given up: those
    /// tickets resolve to [`Error::Stopped`].
    pub async fn close(&self) {
        let handle = self.handle.clone();
        let _ = self.scope.spawn_blocking("media store close", move || handle.close()).await;
    }

    async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.handle.shared.clone();
        let mut opened = shared.opened.subscribe();
        // Ends when the log is open, or cannot be opened, or the store is closed: its sender is in there.
        let _ = opened.wait_for(|opened| *opened != Opened::NotYet).await;
        self.scope.spawn_blocking("media store", move || work(&shared)).await.unwrap_or(Err(Error::Stopped))
    }
}

/// The writing half of a store without a thread.
#[cfg(test)]
pub(crate) struct Stepped(Writer);

#[cfg(test)]
impl Stepped {
    /// Takes what is queued and stores what it can; why the rest waits.
    pub(crate) fn step(&mut self) -> Option<Error> {
        self.0.step()
    }

    /// Bytes written to segments since opening.
    pub(crate) fn written(&self) -> u64 {
        self.0.written()
    }

    /// Of these, evidence that was written again to make room.
    pub(crate) fn carried(&self) -> u64 {
        self.0.carried
    }
}

impl Handle {
    fn close(&self) {
        self.shared.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn log_settings(settings: &MediaSettings) -> LogSettings {
    let segment_bytes = settings.segment_bytes.min(MediaSettings::share_of(settings.quota));
    LogSettings { purpose: Purpose::Media, segment_bytes, spares: 0 }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
