//! The journal: what must be on disk before anyone is told. Many callers, one thread that writes.
//!
//! The thread takes everything that is queued, writes it with one call, syncs it with one fdatasync and resolves the
//! tickets in order; while it syncs, the next batch gathers (group commit, no sleeping). When the disk refuses, the
//! batch is kept and tried again every second: tickets stay pending, [`Health`] says so, and it recovers by itself.
//!
//! The journal has disk space of its own: the segment it writes to is allocated beforehand, and so are the spares
//! behind it (`reserve_bytes`). On a full disk it goes on in those, where media cannot.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use bytes::Bytes;
use tokio::sync::watch;

pub use super::queue::Ticket;
use super::{
    disk::{Disk, RealDisk},
    error::Error,
    journal_writer::{Opened, Writer, open_log},
    queue::{Done, Queue},
    recovery::Report,
    segment::{MAX_PAYLOAD, RECORD_HEADER},
};
use crate::{district::clock::Mono, host::scope::Scope};

/// One thing to be remembered. What it means is the engine's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which kind of thing.
    pub kind: u8,
    /// Its bytes, at most [`MAX_PAYLOAD`].
    pub payload: Bytes,
}

/// How the journal uses its directory.
#[derive(Debug, Clone, Copy)]
pub struct JournalSettings {
    /// Size of a segment file in bytes, allocated when it is made.
    pub segment_bytes: u64,
    /// Most bytes that may wait for the disk.
    pub queue_bytes: u32,
    /// Disk space held for the journal alone beyond the current segment, in bytes; rounded up to whole segments.
    pub reserve_bytes: u64,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, queue_bytes: 8 << 20, reserve_bytes: 64 << 20 }
    }
}

/// Whether what is appended becomes durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ok,
    /// It does, but the disk is full: only so many bytes of the journal's own space are left.
    OnReserve {
        /// Since when.
        since: Mono,
        /// Spare bytes left beyond the current segment.
        left_bytes: u64,
    },
    /// It does not: tickets stay pending until the disk takes writes again.
    Failing {
        /// Since when.
        since: Mono,
        /// What the disk says.
        error: String,
    },
}

/// Counts since opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Entries made durable.
    pub entries: u64,
    /// Times the disk was synced for them.
    pub commits: u64,
    /// Bytes written, headers included.
    pub written_bytes: u64,
    /// Writes and syncs that the disk refused.
    pub errors: u64,
    /// Bytes that wait for the disk.
    pub queued_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Spare segments in reserve.
    pub spares: u64,
    /// Duration of the last write and sync, in microseconds.
    pub last_commit_us: u64,
}

/// A handle on the journal; clones write to the same one. Dropping the last one flushes it.
#[derive(Clone)]
pub struct Journal(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

pub(super) struct Shared {
    pub queue: Queue<Command>,
    pub health: watch::Sender<Health>,
    pub checkpointing: AtomicBool,
    pub counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub entries: AtomicU64,
    pub commits: AtomicU64,
    pub written: AtomicU64,
    pub errors: AtomicU64,
    pub segments: AtomicU64,
    pub spares: AtomicU64,
    pub last_commit_us: AtomicU64,
}

pub(super) enum Command {
    Append(Group),
    Checkpoint { snapshot: Vec<Entry>, done: Done<()> },
}

pub(super) struct Group {
    pub entries: Vec<Entry>,
    pub cost: u64,
    pub done: Done<()>,
}

/// Opens the journal in `dir`, made if need be: the entries that count, in order, and what was found.
pub fn open(dir: &Path, settings: JournalSettings) -> Result<(Journal, Vec<Entry>, Report), Error> {
    open_on(Arc::new(RealDisk), dir, settings)
}

/// As [`open`], on another file layer.
pub fn open_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    settings: JournalSettings,
) -> Result<(Journal, Vec<Entry>, Report), Error> {
    disk.create_dir(dir).map_err(Error::io("make the directory", dir))?;
    let lock = disk.lock(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse(dir.to_owned()),
        _ => Error::io("lock", dir)(e),
    })?;
    let Opened { log, entries, unfinished, report } = open_log(disk, dir, settings)?;
    let (health, _) = watch::channel(Health::Ok);
    let shared = Arc::new(Shared {
        queue: Queue::new(settings.queue_bytes),
        health,
        checkpointing: AtomicBool::new(false),
        counts: Counts::default(),
    });
    let writer = Writer::new(log, shared.clone(), settings);
    writer.publish();
    let run = move || {
        let _lock = lock;
        writer.run(unfinished);
    };
    let thread =
        thread::Builder::new().name("journal".into()).spawn(run).map_err(Error::io("start a thread for", dir))?;
    let thread = Mutex::new(Some(thread));
    Ok((Journal(Arc::new(Handle { shared, thread })), entries, report))
}

impl Journal {
    /// Appends entries, all of them or after a crash none. Waits while the queue is full, in order of arrival; the
    /// ticket resolves when they are synced. [`Error::TooLarge`] above the queue's size, [`Error::Stopped`] once closed.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<Ticket, Error> {
        let (group, ticket) = Group::new(entries)?;
        self.0.shared.queue.push(group.cost, Command::Append(group)).await?;
        Ok(ticket)
    }

    /// As [`Journal::append`], but [`Error::Full`] instead of waiting for the queue.
    pub fn try_append(&self, entries: Vec<Entry>) -> Result<Ticket, Error> {
        let (group, ticket) = Group::new(entries)?;
        self.0.shared.queue.try_push(group.cost, Command::Append(group))?;
        Ok(ticket)
    }

    /// Begins a new segment with `snapshot`, which must say all that was appended up to here; once it is durable the
    /// segments before are removed. A refusal by the disk is the ticket's error and changes nothing. One at a time:
    /// [`Error::CheckpointPending`].
    pub fn checkpoint(&self, snapshot: Vec<Entry>) -> Result<Ticket, Error> {
        for entry in &snapshot {
            fits(entry)?;
        }
        let shared = &self.0.shared;
        if shared.checkpointing.swap(true, Relaxed) {
            return Err(Error::CheckpointPending);
        }
        let (done, ticket) = Ticket::new();
        let pushed = shared.queue.push_free(Command::Checkpoint { snapshot, done });
        pushed.inspect_err(|_| shared.checkpointing.store(false, Relaxed))?;
        Ok(ticket)
    }

    /// Whether what is appended becomes durable; wakes on each change.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.shared.health.subscribe()
    }

    /// Counts since opening.
    pub fn stats(&self) -> JournalStats {
        let counts = &self.0.shared.counts;
        JournalStats {
            entries: counts.entries.load(Relaxed),
            commits: counts.commits.load(Relaxed),
            written_bytes: counts.written.load(Relaxed),
            errors: counts.errors.load(Relaxed),
            queued_bytes: self.0.shared.queue.used(),
            segments: counts.segments.load(Relaxed),
            spares: counts.spares.load(Relaxed),
            last_commit_us: counts.last_commit_us.load(Relaxed),
        }
    }

    /// Writes what is queued, then ends the thread and waits for it. On a failing disk it tries once more and gives
    /// up: those tickets resolve to [`Error::Stopped`]. Blocks; on a task use [`Journal::close_async`].
    pub fn close(&self) {
        self.0.close();
    }

    /// As [`Journal::close`], from a task.
    pub async fn close_async(&self, scope: &Scope) {
        let handle = self.0.clone();
        let _ = scope.spawn_blocking("journal close", move || handle.close()).await;
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

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn fits(entry: &Entry) -> Result<(), Error> {
    let bytes = entry.payload.len();
    match bytes <= MAX_PAYLOAD {
        true => Ok(()),
        false => Err(Error::TooLarge { bytes: bytes as u64, limit: MAX_PAYLOAD as u64 }),
    }
}

impl Group {
    fn new(entries: Vec<Entry>) -> Result<(Self, Ticket), Error> {
        for entry in &entries {
            fits(entry)?;
        }
        let cost = entries.iter().map(|e| (e.payload.len() + RECORD_HEADER) as u64).sum();
        let (done, ticket) = Ticket::new();
        Ok((Self { entries, cost, done }, ticket))
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
