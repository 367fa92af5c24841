//! What waits for the disk. The desk puts records in, each turn's together with everything that may only be told once they
//! are synced; out come those promises, in order, when they may be kept.

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::board::Document;
use crate::{
    district::ids::IncidentId,
    incident::{
        engine::{CommandError, Effect, Engine},
        record::Record,
    },
    intake::Accepted,
    spool::{self, Entry, Journal, Ticket},
};

/// Batches that wait for the disk before the desk stops taking presses: the buttons then wait, and resend.
const WAITING_LIMIT: usize = 4096;

/// The journal is rewritten as a checkpoint when it has grown by so many bytes.
const CHECKPOINT_AFTER: u64 = 64 << 20;

/// Entries are handed to the journal in groups of about so many bytes: well below what its queue takes.
const GROUP: usize = 1 << 20;

/// The kind that a journal entry of ours has.
const RECORD: u8 = 1;

/// What a caller by HTTP is told of its command.
pub type Answer = (oneshot::Sender<Result<(), CommandError>>, Result<(), CommandError>);

/// What may be told once the records before it are synced.
#[derive(Debug, Default)]
pub struct Promises {
    /// PUBACKs.
    pub replies: Vec<Accepted>,
    /// Answers to commands.
    pub answers: Vec<Answer>,
    /// States for buttons, conditions for headquarters.
    pub effects: Vec<Effect>,
    /// Documents for headquarters and the board.
    pub documents: Vec<Arc<Document>>,
    /// Documents that headquarters knows already, for the board.
    pub shown: Vec<Arc<Document>>,
}

impl Promises {
    fn is_empty(&self) -> bool {
        let told = self.effects.is_empty() && self.documents.is_empty() && self.shown.is_empty();
        told && self.replies.is_empty() && self.answers.is_empty()
    }
}

type Syncing = Pin<Box<dyn Future<Output = Option<Promises>> + Send>>;

/// The journal and what waits for it.
pub struct Ledger {
    journal: Journal,
    /// Handed to the journal, not yet synced, in order.
    syncing: FuturesOrdered<Syncing>,
    /// Not yet handed to the journal, because its queue is full.
    unsent: VecDeque<(Vec<Entry>, Promises)>,
    /// The incidents of each batch in `syncing`, then of each in `unsent`.
    waiting: VecDeque<BTreeSet<IncidentId>>,
    /// Bytes since the last checkpoint.
    grown: u64,
}

impl Ledger {
    /// A ledger on a journal of which so many bytes were replayed.
    pub fn new(journal: Journal, replayed: u64) -> Self {
        Self {
            journal,
            syncing: FuturesOrdered::new(),
            unsent: VecDeque::new(),
            waiting: VecDeque::new(),
            grown: replayed,
        }
    }

    /// Whether more presses may be taken.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_LIMIT
    }

    /// Incidents whose records are not on disk yet.
    pub fn waiting(&self) -> BTreeSet<IncidentId> {
        self.waiting.iter().flatten().copied().collect()
    }

    /// Documents that wait for their records.
    pub fn documents(&self) -> usize {
        self.waiting.iter().map(BTreeSet::len).sum()
    }

    /// Writes records, and keeps the promises back until they, and all before them, are synced. Returns promises that
    /// have nothing to wait for.
    ///
    /// `promises` are worded while the disk works already.
    pub fn write(
        &mut self,
        records: &[Record],
        about: BTreeSet<IncidentId>,
        promises: impl FnOnce() -> Promises,
    ) -> Option<Promises> {
        let mut groups = groups(entries(records));
        let last = groups.pop().unwrap_or_default();
        for group in groups {
            self.waiting.push_back(about.clone());
            self.unsent.push_back((group, Promises::default()));
        }
        self.hand_over();
        let ticket = if last.is_empty() || !self.unsent.is_empty() { None } else { self.append(&last).ok() };
        let promises = promises();
        if last.is_empty() && (self.waiting.is_empty() || promises.is_empty()) {
            return Some(promises);
        }
        self.waiting.push_back(about);
        match ticket {
            Some(ticket) => self.await_sync(ticket, promises),
            None => self.unsent.push_back((last, promises)),
        }
        self.hand_over();
        None
    }

    /// Hands to the journal what its queue has room for.
    pub fn hand_over(&mut self) {
        while let Some((entries, promises)) = self.unsent.pop_front() {
            match self.append(&entries) {
                Ok(ticket) => self.await_sync(ticket, promises),
                Err(spool::Error::Full { .. }) => {
                    self.unsent.push_front((entries, promises));
                    return;
                }
                Err(e) => {
                    // Its presses stay unacknowledged, and their devices send them again.
                    error!(error = %e, entries = entries.len(), "the journal does not take a batch");
                    self.waiting.remove(self.syncing.len());
                }
            }
        }
    }

    fn append(&mut self, entries: &[Entry]) -> Result<Ticket, spool::Error> {
        let ticket = self.journal.try_append(entries.to_vec())?;
        self.grown += entries.iter().map(|e| e.payload.len() as u64).sum::<u64>();
        Ok(ticket)
    }

    fn await_sync(&mut self, ticket: Ticket, promises: Promises) {
        self.syncing.push_back(Box::pin(async move { ticket.await.is_ok().then_some(promises) }));
    }

    /// The next promises that may be kept. Never resolves while nothing waits.
    pub async fn synced(&mut self) -> Promises {
        match self.syncing.next().await {
            None => std::future::pending().await,
            Some(kept) => {
                self.waiting.pop_front();
                kept.unwrap_or_else(|| {
                    error!("the journal has ended with entries unwritten; their presses stay unacknowledged");
                    Promises::default()
                })
            }
        }
    }

    /// Whether everything is synced.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Rewrites the journal as what the engine holds now, when it has grown enough. Whether it did.
    pub fn checkpoint_if_due(&mut self, engine: &Engine) -> bool {
        if self.grown < CHECKPOINT_AFTER || !self.unsent.is_empty() {
            return false;
        }
        self.grown = 0;
        let ticket = match self.journal.checkpoint(entries(&engine.snapshot())) {
            Ok(ticket) => ticket,
            Err(e) => {
                warn!(error = %e, "no checkpoint of the journal this time");
                return false;
            }
        };
        self.waiting.push_back(BTreeSet::new());
        self.syncing.push_back(Box::pin(async move {
            // A disk that refuses the snapshot changes nothing: the older segments stay.
            if let Err(e) = ticket.await {
                warn!(error = %e, "no checkpoint of the journal this time");
            }
            Some(Promises::default())
        }));
        true
    }
}

/// Cuts what is too much for one group. Every record counts by itself, so a crash between two groups loses only the end,
/// and nothing of it was told.
fn groups(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let (mut groups, mut bytes) = (vec![Vec::new()], 0);
    for entry in entries {
        if bytes > GROUP {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += entry.payload.len();
        if let Some(group) = groups.last_mut() {
            group.push(entry);
        }
    }
    groups
}

fn entries(records: &[Record]) -> Vec<Entry> {
    let entry = |record: &Record| match serde_json::to_vec(record) {
        Ok(json) => Some(Entry { kind: RECORD, payload: json.into() }),
        Err(e) => {
            error!(error = %e, ?record, "a record could not be written");
            None
        }
    };
    records.iter().filter_map(entry).collect()
}

/// Brings an engine to where the journal left it. Returns how many entries could not be read.
pub fn replay(engine: &mut Engine, entries: impl IntoIterator<Item = Entry>) -> usize {
    let mut unread = 0;
    for entry in entries.into_iter().filter(|e| e.kind == RECORD) {
        match serde_json::from_slice(&entry.payload) {
            Ok(record) => engine.replay(record),
            Err(e) => {
                warn!(error = %e, "a journal entry is not understood by this version; it is left as it is");
                unread += 1;
            }
        }
    }
    unread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::JournalSettings;

    #[tokio::test]
    async fn a_turn_larger_than_the_journals_queue_is_written_and_answered_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let open = || spool::journal::open(dir.path(), JournalSettings::default()).unwrap();
        let (journal, ..) = open();
        let mut ledger = Ledger::new(journal.clone(), 0);
        let records: Vec<_> =
            (100..160).map(|n| Record::Commands { ids: vec![n.to_string().repeat(60_000)] }).collect();
        let (reply, mut answer) = oneshot::channel();
        let promises = Promises { answers: vec![(reply, Ok(()))], ..Promises::default() };
        assert!(ledger.write(&records, BTreeSet::new(), || promises).is_none());
        let mut kept = Vec::new();
        while !ledger.is_idle() {
            assert!(answer.try_recv().is_err(), "nothing is told before it is synced");
            kept.extend(ledger.synced().await.answers);
            ledger.hand_over();
        }
        assert_eq!(kept.len(), 1, "the promise is kept");
        journal.close();
        drop((ledger, journal));
        assert_eq!(open().1.len(), records.len());
    }
}
