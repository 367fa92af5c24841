//! Who saw what, who did what, and who tried: a journal of its own, so that it takes nothing from the one of the presses.
//!
//! Each entry has a number that counts up for as long as the gateway lives; whoever reads on from a number misses none, or is
//! told how many are gone. Nothing ever waits for it: what the disk refuses is said in the log, and counted.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::{
    district::clock::{Mono, Utc},
    host::{clock, scope::Scope},
    spool::{self, Entry, Journal, JournalSettings, journal},
};

/// Entries that are held, the newest.
const HELD: usize = 20_000;

/// The journal is written anew when so many more than that are in it.
const SLACK: usize = 5_000;

/// Pieces of one thing, such as the fragments of a playlist, are one access within this.
const ONE_ACCESS: Duration = Duration::from_secs(300);

/// Things that are remembered for that.
const REMEMBERED: usize = 4_096;

/// Its journal is small: it may never take from the media what matters.
const JOURNAL: JournalSettings = JournalSettings { segment_bytes: 4 << 20, queue_bytes: 1 << 20, reserve_bytes: 0 };

/// The kind that its entries have.
const NOTE: u8 = 1;

/// What was done, or tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// Its number.
    pub n: u64,
    /// When.
    pub at: Utc,
    /// Who, by its name in the config or of its token. None: nobody that is known, or no client is configured.
    pub who: Option<String>,
    /// What it may do.
    pub role: Option<String>,
    /// From what address.
    pub from: Option<String>,
    /// What was asked for: `GET /v1/cameras/cam-0101/recording.mp4?from=...`.
    pub what: String,
    /// How it was answered, as a status of HTTP.
    pub status: u16,
}

/// The log.
pub struct Audit {
    journal: Journal,
    inner: Mutex<Inner>,
}

struct Inner {
    held: VecDeque<Note>,
    next: u64,
    /// Entries in the journal.
    written: usize,
    /// Pieces of what, and when they were last asked for.
    pieces: HashMap<String, Mono>,
    /// Entries that are not on disk, and whether that was said.
    refused: u64,
}

/// Notes from a number on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Page {
    /// In order.
    pub notes: Vec<Note>,
    /// What to ask for next.
    pub next: u64,
    /// How many of those asked for are not held any more.
    pub gone: u64,
}

impl Audit {
    /// Opens it below the gateway's data directory.
    ///
    /// # Errors
    /// What the journal says.
    pub async fn open(data: &Path, scope: &Scope) -> Result<Self, spool::Error> {
        let dir = data.join("audit");
        let opened = scope.spawn_blocking("open audit", move || journal::open(&dir, JOURNAL));
        let Ok(opened) = opened.await else { return Err(spool::Error::Stopped) };
        let (journal, entries, _) = opened?;
        let written = entries.len();
        let notes = entries.iter().filter_map(|entry| serde_json::from_slice::<Note>(&entry.payload).ok());
        let mut held: VecDeque<Note> = notes.collect();
        held.drain(..held.len().saturating_sub(HELD));
        let next = held.back().map_or(1, |note| note.n + 1);
        let inner = Inner { held, next, written, pieces: HashMap::new(), refused: 0 };
        Ok(Self { journal, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something. `piece_of` says what it is a piece of, such as a camera's evidence of an incident: further pieces of
    /// it are no news for a while.
    pub fn note(&self, note: Note, piece_of: Option<&str>) {
        let mut inner = self.lock();
        if let Some(whole) = piece_of {
            let (now, key) = (clock::mono(), format!("{:?} {:?} {whole}", note.who, note.from));
            if inner.pieces.len() >= REMEMBERED {
                inner.pieces.retain(|_, at| now.since(*at) < ONE_ACCESS);
            }
            if inner.pieces.len() < REMEMBERED
                && inner.pieces.insert(key, now).is_some_and(|at| now.since(at) < ONE_ACCESS)
            {
                return;
            }
        }
        let note = Note { n: inner.next, ..note };
        inner.next += 1;
        // In the order of their numbers: under the lock. It never waits.
        let written = entry(&note).and_then(|entry| self.journal.try_append(vec![entry]));
        inner.held.push_back(note);
        if inner.held.len() > HELD {
            inner.held.pop_front();
        }
        match written {
            // Whoever does what is noted does not wait for the disk.
            Ok(_) => inner.written += 1,
            Err(error) => {
                inner.refused += 1;
                if inner.refused.is_power_of_two() {
                    error!(%error, refused = inner.refused, "the audit log is not on disk");
                }
            }
        }
        if inner.written > HELD + SLACK {
            self.rewrite(&mut inner);
        }
    }

    /// Leaves in the journal what is held.
    fn rewrite(&self, inner: &mut Inner) {
        let snapshot = inner.held.iter().map(entry).collect::<Result<Vec<_>, _>>();
        match snapshot.and_then(|snapshot| self.journal.checkpoint(snapshot)) {
            Ok(_) => inner.written = inner.held.len(),
            Err(spool::Error::CheckpointPending) => {}
            Err(error) => warn!(%error, "the audit log cannot be written anew; it grows"),
        }
    }

    /// At most `limit` notes from a number on.
    pub fn page(&self, after: u64, limit: usize) -> Page {
        let inner = self.lock();
        let first = inner.held.front().map_or(inner.next, |note| note.n);
        let notes: Vec<_> = inner.held.iter().filter(|note| note.n > after).take(limit).cloned().collect();
        let next = notes.last().map_or(after.min(inner.next.saturating_sub(1)), |note| note.n);
        Page { notes, next, gone: first.saturating_sub(after.saturating_add(1)) }
    }
}

fn entry(note: &Note) -> Result<Entry, spool::Error> {
    let payload =
        serde_json::to_vec(note).map_err(|e| spool::Error::Index { doing: "write a note", error: e.to_string() })?;
    Ok(Entry { kind: NOTE, payload: payload.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(what: &str) -> Note {
        Note { n: 0, at: Utc::default(), who: None, role: None, from: None, what: what.into(), status: 200 }
    }

    #[tokio::test]
    async fn what_is_noted_is_there_after_a_restart_under_its_number() {
        let (dir, scope) = (tempfile::tempdir().unwrap(), Scope::new("test"));
        let audit = Audit::open(dir.path(), &scope).await.unwrap();
        assert_eq!((audit.page(0, 10).notes.len(), audit.page(0, 10).next), (0, 0));
        for n in 0..30 {
            audit.note(note(&format!("GET /{n}")), None);
        }
        for n in 0..30 {
            audit.note(note(&format!("GET /list/{n}")), Some("list"));
        }
        let page = audit.page(0, 7);
        assert_eq!((page.notes.len(), page.notes[0].n, page.next, page.gone), (7, 1, 7, 0));
        audit.journal.close();
        drop(audit);
        let audit = Audit::open(dir.path(), &scope).await.unwrap();
        let page = audit.page(28, 100);
        let seen: Vec<_> = page.notes.iter().map(|note| (note.n, note.what.as_str())).collect();
        assert_eq!(seen, [(29, "GET /28"), (30, "GET /29"), (31, "GET /list/0")], "pieces are one");
        assert_eq!((page.next, audit.page(31, 5).notes.len()), (31, 0));
        audit.note(note("POST /"), None);
        assert_eq!(audit.page(31, 5).notes[0].n, 32);
    }

    #[tokio::test]
    async fn the_oldest_go_and_it_is_said_how_many() {
        let (dir, scope) = (tempfile::tempdir().unwrap(), Scope::new("test"));
        let audit = Audit::open(dir.path(), &scope).await.unwrap();
        let all = HELD + SLACK + 100;
        for n in 0..all {
            audit.note(note(&n.to_string()), None);
            if n % 1_000 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let page = audit.page(0, 1);
        assert_eq!((page.notes[0].n, page.gone), ((all - HELD) as u64 + 1, (all - HELD) as u64));
        audit.journal.close();
        drop(audit);
        let audit = Audit::open(dir.path(), &scope).await.unwrap();
        assert!(audit.lock().written <= HELD + SLACK, "it does not grow for ever");
        assert_eq!(audit.page(all as u64 - 1, 9).notes[0].n, all as u64);
    }
}
