//! The thread that writes the journal, and what it finishes of recovery first.

use std::{collections::VecDeque, path::Path, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    batch::Outgoing,
    disk::Disk,
    error::Error,
    journal::{Command, Entry, Group, Health, JournalSettings, Shared},
    log::{Log, LogSettings},
    queue::Done,
    recovery::{self, Recovered, Report},
    segment::{FIRST, LAST, Purpose},
};
use crate::{district::clock::Mono, host::clock};

/// How long after a refusal the disk is tried again.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1_000 });

/// The records of a group: its first and last are marked, so that after a crash it counts whole or not at all.
pub(super) fn records(entries: &[Entry]) -> impl Iterator<Item = Outgoing<'_>> {
    let last = entries.len().saturating_sub(1);
    entries.iter().enumerate().map(move |(i, entry)| {
        let flags = if i == 0 { FIRST } else { 0 } | if i == last { LAST } else { 0 };
        entry.outgoing(flags)
    })
}

/// A snapshot's records: each a group of its own, since the opening counts as a whole anyway.
pub(super) fn snapshot_records(entries: &[Entry]) -> Vec<Outgoing<'_>> {
    entries.iter().map(|e| e.outgoing(FIRST | LAST)).collect()
}

impl Entry {
    fn outgoing(&self, flags: u8) -> Outgoing<'_> {
        Outgoing::new(self.kind, flags, &[], &self.payload)
    }
}

/// A journal's log after recovery.
pub(super) struct Opened {
    pub log: Log,
    pub entries: Vec<Entry>,
    /// Set when what must be written again first could not be yet.
    pub unfinished: Option<Unfinished>,
    pub report: Report,
}

/// The last steps of recovery, which need a disk that takes writes.
pub(super) struct Unfinished {
    carry: Vec<(Entry, u8)>,
    snapshot: bool,
    base: u64,
    never_begun: Vec<u64>,
    cut: Vec<(u64, u64)>,
}

pub(super) fn open_log(disk: Arc<dyn Disk>, dir: &Path, settings: JournalSettings) -> Result<Opened, Error> {
    let Recovered {
        entries,
        places: _,
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
    pub fn finish(&self, log: &mut Log) -> Result<(), Error> {
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
pub(super) struct Writer {
    log: Log,
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// When spares were last asked for.
    tidied: Mono,
}

impl Writer {
    pub fn new(log: Log, shared: Arc<Shared>, settings: JournalSettings) -> Self {
        Self { log, shared, segment_bytes: settings.segment_bytes, tidied: clock::mono() }
    }

    pub fn run(mut self, unfinished: Option<Unfinished>) {
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
        self.shared.queue.release(groups.iter().map(|g| g.cost).sum());
        self.publish();
        for group in groups {
            let _ = group.done.send(Ok(()));
        }
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

    pub fn publish(&self) {
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
