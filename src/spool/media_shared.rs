//! What the media store's handle and its writing thread share, and reading, which both do.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock, atomic::AtomicU64},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::{
    disk::Disk,
    error::Error,
    index::Index,
    journal::Health,
    media_log::MediaSettings,
    media_writer::Work,
    object::{At, ObjectRef},
    queue::Queue,
    recent::Recent,
    scan::read_record,
    segment::{MAX_PAYLOAD, file_name},
};

/// What the handle and the writing thread share.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub queue: Queue<Work>,
    /// There once the log is open.
    index: OnceLock<RwLock<Arc<Index>>>,
    pub opened: watch::Sender<Opened>,
    pub recent: Recent,
    pub health: watch::Sender<Health>,
    pub counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub used: AtomicU64,
    pub segments: AtomicU64,
    pub objects: AtomicU64,
    pub undelivered: AtomicU64,
    pub stored: AtomicU64,
    pub evicted: AtomicU64,
    pub dropped: AtomicU64,
}

/// How far opening is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    NotYet,
    Yes,
    Failed,
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, settings: MediaSettings) -> Self {
        let ((health, _), (opened, _)) = (watch::channel(Health::Ok), watch::channel(Opened::NotYet));
        Self {
            disk,
            dir: dir.to_owned(),
            queue: Queue::new(settings.queue_bytes),
            index: OnceLock::new(),
            opened,
            recent: Recent::new(settings.recent_bytes),
            health,
            counts: Counts::default(),
        }
    }

    /// [`Error::Stopped`] before the log is open.
    pub fn index(&self) -> Result<Arc<Index>, Error> {
        let index = self.index.get().ok_or(Error::Stopped)?;
        Ok(index.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// In place of the one before.
    pub fn set_index(&self, index: Index) {
        let index = Arc::new(index);
        let held = self.index.get_or_init(|| RwLock::new(index.clone()));
        *held.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.opened.send_replace(Opened::Yes);
    }
}

impl Shared {
    pub fn read(&self, object: &ObjectRef) -> Result<Bytes, Error> {
        // It may have been moved since the reference was made, or be gone.
        let current = self.index()?.get(&object.meta.key())?.ok_or_else(|| Error::Gone(object.to_string()))?;
        read_object(&self.disk, &self.dir, &current)
    }
}

/// An object's bytes from where it lies, checked.
pub(super) fn read_object(disk: &Arc<dyn Disk>, dir: &Path, object: &ObjectRef) -> Result<Bytes, Error> {
    if object.before.is_empty() {
        return read_chunk(disk, dir, object, object.at);
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(object.meta.size).unwrap_or(0).min(MAX_PAYLOAD));
    for at in object.places() {
        bytes.extend_from_slice(&read_chunk(disk, dir, object, at)?);
    }
    Ok(bytes.freeze())
}

fn read_chunk(disk: &Arc<dyn Disk>, dir: &Path, object: &ObjectRef, at: At) -> Result<Bytes, Error> {
    let path = dir.join(file_name(at.segment));
    let file = disk.open(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::Gone(object.to_string()),
        _ => Error::io("open", &path)(e),
    })?;
    match read_record(&*file, at.segment, at.offset).map_err(Error::io("read", &path))? {
        Ok(record) if record.header.sequence == at.sequence => Ok(record.payload),
        Ok(_) => Err(Error::Damaged { path, offset: at.offset, why: "another record is there" }),
        Err(why) => Err(Error::Damaged { path, offset: at.offset, why }),
    }
}
