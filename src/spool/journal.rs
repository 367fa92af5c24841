//! The journal: what must be on disk before anyone is told. Many callers, one thread that writes.
//!
//! The thread takes everything that is queued, writes it with one call, syncs it with one fdatasync and resolves the
//! tickets in order; while it syncs, the next batch gathers (group commit, no sleeping). When the disk refuses, the
//! batch is kept and tried again every second: tickets stay pending, [`Health`] says so, and it recovers by itself.
//!
//! The journal has disk space of its own: the segment it writes to is allocated beforehand, and so are the spares
//! behind it (`reserve_bytes`). On a full disk it goes on in those, where media cannot.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

pub use super::queue::Ticket;
use super::{
    disk::{Disk, RealDisk},
    error::Error,
    log::{Log, LogSettings, Outgoing},
    queue::{Done, Queue},
    recovery::{self, Recovered, Report},
    segment::{FIRST, LAST, MAX_PAYLOAD, Purpose, RECORD_HEADER},
};
use crate::{district::clock::Mono, host::clock};

/// How long after a refusal the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

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

struct Shared {
    queue: Queue<Command>,
    health: watch::Sender<Health>,
    checkpointing: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    entries: AtomicU64,
    commits: AtomicU64,
    written: AtomicU64,
    errors: AtomicU64,
    segments: AtomicU64,
    spares: AtomicU64,
    last_commit_us: AtomicU64,
}

enum Command {
    Append(Group),
    Checkpoint { snapshot: Vec<Entry>, done: Done<()> },
}

struct Group {
    entries: Vec<Entry>,
    cost: u64,
    done: Done<()>,
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
    let writer = Writer { log, shared: shared.clone(), segment_bytes: settings.segment_bytes, tidied: clock::mono() };
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
    pub async fn close_async(&self, scope: &crate::host::scope::Scope) {
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

/// The records of a group: its first and last are marked, so that after a crash it counts whole or not at all.
fn records(entries: &[Entry]) -> impl Iterator<Item = Outgoing<'_>> {
    let last = entries.len().saturating_sub(1);
    entries.iter().enumerate().map(move |(i, entry)| {
        let flags = if i == 0 { FIRST } else { 0 } | if i == last { LAST } else { 0 };
        entry.outgoing(flags)
    })
}

/// A snapshot's records: each a group of its own, since the opening counts as a whole anyway.
fn snapshot_records(entries: &[Entry]) -> Vec<Outgoing<'_>> {
    entries.iter().map(|e| e.outgoing(FIRST | LAST)).collect()
}

impl Entry {
    fn outgoing(&self, flags: u8) -> Outgoing<'_> {
        Outgoing { kind: self.kind, flags, meta: &[], payload: &self.payload }
    }
}

/// A journal's log after recovery.
struct Opened {
    log: Log,
    entries: Vec<Entry>,
    /// Set when what must be written again first could not be yet.
    unfinished: Option<Unfinished>,
    report: Report,
}

/// The last steps of recovery, which need a disk that takes writes.
struct Unfinished {
    carry: Vec<(Entry, u8)>,
    snapshot: bool,
    base: u64,
    never_begun: Vec<u64>,
    cut: Vec<(u64, u64)>,
}

fn open_log(disk: Arc<dyn Disk>, dir: &Path, settings: JournalSettings) -> Result<Opened, Error> {
    let Recovered {
        entries,
        carry,
        carry_is_snapshot,
        next_sequence,
        skipped,
        base,
        never_begun,
        cut,
        damaged,
        report,
    } = recovery::journal(&disk, dir)?;
    let log_settings = LogSettings {
        purpose: Purpose::Journal,
        segment_bytes: settings.segment_bytes,
        spares: settings.reserve_bytes.div_ceil(settings.segment_bytes.max(1)) as usize,
    };
    let mut log = Log::new(disk, dir, log_settings, (next_sequence, skipped), damaged)?;
    let unfinished = Unfinished { carry, snapshot: carry_is_snapshot, base, never_begun, cut };
    let unfinished = match unfinished.finish(&mut log) {
        Ok(()) => None,
        Err(error) => {
            tracing::error!(%error, "the journal was read but cannot be written yet");
            Some(unfinished)
        }
    };
    log.top_up();
    Ok(Opened { log, entries, unfinished, report })
}

impl Unfinished {
    /// Step 5 of recovery. Fails only before the carry is durable, so that it can be tried again.
    fn finish(&self, log: &mut Log) -> Result<(), Error> {
        let batch: Vec<Outgoing<'_>> = self.carry.iter().map(|(entry, flags)| entry.outgoing(*flags)).collect();
        if self.snapshot {
            log.rewrite_snapshot(&batch)?;
        } else {
            if !batch.is_empty() {
                log.commit(&batch)?;
            }
            log.remove_before(self.base);
            for number in &self.never_begun {
                if let Err(error) = log.remove(*number) {
                    tracing::warn!(%error, "a segment that never began stays; it does not count");
                }
            }
            self.cut.iter().for_each(|(number, len)| log.cut(*number, *len));
        }
        Ok(())
    }
}

/// The thread that writes.
struct Writer {
    log: Log,
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// When spares were last asked for.
    tidied: Mono,
}

impl Writer {
    fn run(mut self, unfinished: Option<Unfinished>) {
        if let Some(unfinished) = unfinished
            && !self.until_ok(|log| unfinished.finish(log))
        {
            return;
        }
        self.publish();
        loop {
            let commands = self.shared.queue.take(RETRY);
            if commands.is_empty() {
                if self.shared.queue.is_closed() {
                    return;
                }
            } else if !self.handle(commands) {
                return;
            }
            self.tidy();
        }
    }

    /// Writes what was queued, in order; `false` when the journal was closed and the disk still refuses.
    fn handle(&mut self, commands: VecDeque<Command>) -> bool {
        let mut groups = Vec::new();
        for command in commands {
            match command {
                Command::Append(group) => groups.push(group),
                Command::Checkpoint { snapshot, done } => {
                    if !self.commit(std::mem::take(&mut groups)) {
                        return false;
                    }
                    self.checkpoint(snapshot, done);
                }
            }
        }
        self.commit(groups)
    }

    fn commit(&mut self, groups: Vec<Group>) -> bool {
        if groups.is_empty() {
            return true;
        }
        let begun = clock::mono();
        let batch: Vec<Outgoing<'_>> = groups.iter().flat_map(|g| records(&g.entries)).collect();
        let entries = batch.len() as u64;
        if entries > 0 && !self.until_ok(|log| log.commit(&batch).map(drop)) {
            return false;
        }
        drop(batch);
        let counts = &self.shared.counts;
        counts.entries.fetch_add(entries, Relaxed);
        counts.commits.fetch_add(1, Relaxed);
        counts.last_commit_us.store(clock::mono().since(begun).as_micros() as u64, Relaxed);
        let mut cost = 0;
        for group in groups {
            cost += group.cost;
            let _ = group.done.send(Ok(()));
        }
        self.shared.queue.release(cost);
        self.publish();
        true
    }

    fn checkpoint(&mut self, snapshot: Vec<Entry>, done: Done<()>) {
        let result = self.log.checkpoint(&snapshot_records(&snapshot)).map(drop);
        if let Err(error) = &result {
            tracing::warn!(%error, "no checkpoint of the journal");
        }
        self.shared.checkpointing.store(false, Relaxed);
        self.log.top_up();
        self.publish();
        let _ = done.send(result);
    }

    /// Tries until the disk takes it; `false` when closed meanwhile and it still does not.
    fn until_ok(&mut self, work: impl Fn(&mut Log) -> Result<(), Error>) -> bool {
        let mut since = None;
        loop {
            let closed = self.shared.queue.is_closed();
            match work(&mut self.log) {
                Ok(()) => {
                    if let Some(since) = since {
                        tracing::info!(
                            seconds = clock::mono().since(since).as_secs(),
                            "the journal takes writes again"
                        );
                    }
                    return true;
                }
                Err(error) => {
                    let since = *since.get_or_insert_with(clock::mono);
                    tracing::error!(%error, "the journal cannot be written; what is queued waits");
                    self.shared.health.send_replace(Health::Failing { since, error: error.to_string() });
                    self.shared.counts.errors.store(self.log.errors, Relaxed);
                    if closed {
                        return false;
                    }
                    self.shared.queue.pause(RETRY);
                }
            }
        }
    }

    /// Fetches back the space that is the journal's own, once there is some.
    fn tidy(&mut self) {
        if self.log.missing_spares() && clock::mono().since(self.tidied) >= RETRY {
            self.log.top_up();
            self.tidied = clock::mono();
            self.publish();
        }
    }

    fn publish(&self) {
        let counts = &self.shared.counts;
        counts.written.store(self.log.written, Relaxed);
        counts.errors.store(self.log.errors, Relaxed);
        counts.segments.store(self.log.segment_count() as u64, Relaxed);
        counts.spares.store(self.log.spares() as u64, Relaxed);
        let left_bytes = self.log.spares() as u64 * self.segment_bytes;
        self.shared.health.send_if_modified(|health| {
            let next = match (&*health, self.log.missing_spares()) {
                (_, false) => Health::Ok,
                (Health::OnReserve { since, .. }, true) => Health::OnReserve { since: *since, left_bytes },
                (_, true) => Health::OnReserve { since: clock::mono(), left_bytes },
            };
            let changed = *health != next;
            *health = next;
            changed
        });
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
