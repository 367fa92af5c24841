//! What waits for the disk. The desk puts records in, each turn's together with everything that may only be told once they
//! are synced; out come those promises, in order, when they may be kept.

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::board::Document;
use crate::{
    district::{clock::Mono, ids::IncidentId},
    host::clock,
    incident::{
        engine::{CommandError, Effect, Engine},
        record::Record,
    },
    intake::Accepted,
    spool::{self, Entry, Journal, Ticket},
};

/// Records that nobody waits for are written with the next press, or after this: their sync is then not in the way of one.
const COMPANY_WAIT: Duration = Duration::from_millis(20);

/// Batches that wait for the disk before the desk stops taking presses: the buttons then wait, and resend.
const WAITING_LIMIT: usize = 4096;

/// The journal is rewritten as a checkpoint when it has grown by so many bytes.
const CHECKPOINT_AFTER: u64 = 64 << 20;

/// Entries are handed to the journal in groups of about so many bytes: well below what its queue takes.
const GROUP: usize = 1 << 20;

/// The kind that a journal entry of ours has.
pub const RECORD: u8 = 1;

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

    fn and(mut self, mut more: Self) -> Self {
        self.replies.append(&mut more.replies);
        self.answers.append(&mut more.answers);
        self.effects.append(&mut more.effects);
        self.documents.append(&mut more.documents);
        self.shown.append(&mut more.shown);
        self
    }
}

/// Entries, what may be told once they are synced, and whom they are about.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    promises: Promises,
    about: BTreeSet<IncidentId>,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|e| e.payload.len()).sum()
    }
}

type Syncing = Pin<Box<dyn Future<Output = Option<Promises>> + Send>>;

/// The journal and what waits for it.
pub struct Ledger {
    journal: Journal,
    /// Handed to the journal, not yet synced, in order.
    syncing: FuturesOrdered<Syncing>,
    /// Not yet written, because nobody waits for it; until when at the latest.
    resting: Batch,
    resting_until: Option<Mono>,
    /// Not yet handed to the journal, because its queue is full.
    unsent: VecDeque<(Vec<Entry>, Promises)>,
    /// Since when each batch in `syncing`, then each in `unsent`, waits, and the incidents it is about.
    waiting: VecDeque<(Mono, BTreeSet<IncidentId>)>,
    /// Bytes since the last checkpoint.
    grown: u64,
}

impl Ledger {
    /// A ledger on a journal of which so many bytes were replayed.
    pub fn new(journal: Journal, replayed: u64) -> Self {
        Self {
            journal,
            syncing: FuturesOrdered::new(),
            resting: Batch::default(),
            resting_until: None,
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
        self.waiting.iter().flat_map(|(_, about)| about).chain(&self.resting.about).copied().collect()
    }

    /// Since when the disk has not answered.
    pub fn waiting_since(&self) -> Option<Mono> {
        self.waiting.front().map(|(since, _)| *since)
    }

    /// Documents that wait for their records.
    pub fn documents(&self) -> usize {
        self.waiting.iter().map(|(_, about)| about.len()).sum::<usize>() + self.resting.about.len()
    }

    /// Writes records, and keeps the promises back until they, and all before them, are synced. Returns promises that
    /// have nothing to wait for. When nobody waits for any of it, it may rest a moment and be written with what comes next.
    ///
    /// `promises` are worded while the disk works already.
    pub fn write(
        &mut self,
        records: &[Record],
        about: BTreeSet<IncidentId>,
        awaited: bool,
        promises: impl FnOnce() -> Promises,
    ) -> Option<Promises> {
        if records.is_empty() && self.is_idle() {
            return Some(promises());
        }
        let mut batch = std::mem::take(&mut self.resting);
        batch.entries.extend(entries(records));
        batch.about.extend(about);
        if awaited || batch.bytes() > GROUP {
            self.send(batch, promises);
            return None;
        }
        batch.promises = batch.promises.and(promises());
        if !batch.entries.is_empty() || !batch.promises.is_empty() {
            self.resting_until.get_or_insert_with(|| clock::mono() + COMPANY_WAIT);
        }
        self.resting = batch;
        None
    }

    fn send(&mut self, batch: Batch, more: impl FnOnce() -> Promises) {
        self.resting_until = None;
        let Batch { entries, promises, about } = batch;
        let mut groups = groups(entries);
        let last = groups.pop().unwrap_or_default();
        let now = clock::mono();
        for group in groups {
            self.waiting.push_back((now, about.clone()));
            self.unsent.push_back((group, Promises::default()));
        }
        self.hand_over();
        let ticket = if last.is_empty() || !self.unsent.is_empty() { None } else { self.append(&last).ok() };
        let promises = promises.and(more());
        self.waiting.push_back((now, about));
        match ticket {
            Some(ticket) => self.await_sync(ticket, promises),
            None => self.unsent.push_back((last, promises)),
        }
        self.hand_over();
    }

    /// When [`Ledger::write_due`] has something to do.
    pub fn due(&self) -> Option<Mono> {
        self.resting_until
    }

    /// Writes what has rested long enough.
    pub fn write_due(&mut self, now: Mono) {
        if self.resting_until.is_some_and(|at| at <= now) {
            self.write_resting();
        }
    }

    /// Writes what rests.
    pub fn write_resting(&mut self) {
        if self.resting_until.is_some() {
            let batch = std::mem::take(&mut self.resting);
            self.send(batch, Promises::default);
        }
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
        self.waiting.is_empty() && self.resting_until.is_none()
    }

    /// Rewrites the journal as what the engine holds now, when it has grown enough. Whether it did.
    pub fn checkpoint_if_due(&mut self, engine: &Engine) -> bool {
        if self.grown < CHECKPOINT_AFTER {
            return false;
        }
        // What rests is part of the snapshot, and so comes before it.
        self.write_resting();
        if !self.unsent.is_empty() {
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
        self.waiting.push_back((clock::mono(), BTreeSet::new()));
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
        assert!(ledger.write(&records, BTreeSet::new(), true, || promises).is_none());
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

    #[tokio::test]
    async fn what_nobody_waits_for_shares_the_sync_of_the_next_press() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ..) = spool::journal::open(dir.path(), JournalSettings::default()).unwrap();
        let mut ledger = Ledger::new(journal.clone(), 0);
        let record = |n: u32| [Record::Commands { ids: vec![n.to_string()] }];
        let about = || BTreeSet::from([IncidentId::derive(1, b"x")]);
        for n in 0..3 {
            assert!(ledger.write(&record(n), about(), false, Promises::default).is_none());
        }
        assert!(!ledger.is_idle() && ledger.waiting() == about() && ledger.due().is_some());
        let (reply, _answer) = oneshot::channel();
        let promises = Promises { answers: vec![(reply, Ok(()))], ..Promises::default() };
        assert!(ledger.write(&record(3), BTreeSet::new(), true, || promises).is_none());
        assert_eq!(ledger.synced().await.answers.len(), 1);
        assert_eq!((journal.stats().entries, journal.stats().commits), (4, 1), "one sync for all");
        assert!(ledger.is_idle());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ..) = spool::journal::open(dir.path(), JournalSettings::default()).unwrap();
        let mut ledger = Ledger::new(journal.clone(), 0);
        let record = [Record::Commands { ids: vec!["late".into()] }];
        assert!(ledger.write(&record, BTreeSet::new(), false, Promises::default).is_none());
        let due = ledger.due().unwrap();
        ledger.write_due(clock::mono());
        assert_eq!((ledger.due(), journal.stats().entries), (Some(due), 0), "it still rests");
        ledger.write_due(due);
        ledger.synced().await;
        assert!(ledger.is_idle() && ledger.due().is_none());
        assert_eq!(journal.stats().entries, 1);
    }
}
