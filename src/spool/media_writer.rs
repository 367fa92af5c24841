//! The thread that writes the media store.

mod indexing;
mod room;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use crc32c::crc32c;
use tokio::sync::mpsc;

use self::indexing::Indexing;
use super::{
    batch::Outgoing,
    chunks::Chunks,
    error::Error,
    gone::{Evicted, evicted, gaps},
    index::Change,
    journal::Health,
    log::{Log, Placed},
    media_log::MediaSettings,
    media_recovery::{DELIVERED, OBJECT, Opened, change, outgoing},
    media_shared::Shared,
    object::{At, DeliveredMark, Missing, ObjectMeta, ObjectRef},
    queue::{Done, Ticket},
    recovery::Report,
    segment::{FIRST, LAST, Located},
};
use crate::{
    district::{clock::Mono, evidence::GapReason},
    host::clock,
};

/// How long after a refusal the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Something for the thread to do.
pub(super) struct Work {
    pub item: Item,
    /// Meta as it stands in the log.
    encoded: Vec<u8>,
    /// CRC32C of its payload, for which the thread that writes has no time.
    payload_crc: u32,
    /// What it counts in the queue.
    cost: u64,
}

pub(super) enum Item {
    /// An object, or a chunk of one. `more` of it is to come.
    Object {
        meta: ObjectMeta,
        payload: Bytes,
        more: bool,
        done: Done<ObjectRef>,
    },
    Delivered {
        mark: DeliveredMark,
        done: Done<()>,
    },
}

impl Item {
    fn payload(&self) -> &[u8] {
        match self {
            Item::Object { payload, .. } => payload,
            Item::Delivered { .. } => &[],
        }
    }
}

impl Work {
    pub fn new(item: Item, encoded: Vec<u8>, cost: u64) -> Self {
        let payload_crc = crc32c(item.payload());
        Self { item, encoded, payload_crc, cost }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let kind = match &self.item {
            Item::Object { .. } => OBJECT,
            Item::Delivered { .. } => DELIVERED,
        };
        let payload = self.item.payload();
        Outgoing { kind, flags: self.flags(), meta: &self.encoded, payload, payload_crc: self.payload_crc }
    }

    fn flags(&self) -> u8 {
        match &self.item {
            Item::Object { meta, more, .. } => {
                (if meta.chunk == 0 { FIRST } else { 0 }) | (if *more { 0 } else { LAST })
            }
            Item::Delivered { .. } => FIRST | LAST,
        }
    }

    /// What it means for the index; nothing before an object's end.
    fn change(&self, at: At, chunks: &mut Chunks) -> Option<Change> {
        match &self.item {
            Item::Object { meta, .. } => chunks.take(meta.clone(), self.flags(), at).map(Change::Stored),
            Item::Delivered { mark, .. } => Some(Change::Delivered(mark.clone())),
        }
    }
}

pub(super) struct Writer {
    log: Log,
    indexing: Indexing,
    /// What is being written.
    chunks: Chunks,
    /// What a start found at the log's end and could not write again: it comes before all else.
    unwritten: Vec<Located>,
    settings: MediaSettings,
    shared: Arc<Shared>,
    evictions: mpsc::Sender<Vec<Evicted>>,
    /// Taken, and not stored yet.
    held: VecDeque<Work>,
    /// Since when something is refused.
    failing: Option<Mono>,
    /// Bytes of evidence that were written again to make room.
    pub carried: u64,
}

impl Writer {
    /// Goes on with a log that is open. Gives what is to be heard of evidence whose segments are gone.
    pub fn begin(
        opened: Opened,
        settings: MediaSettings,
        shared: Arc<Shared>,
        evictions: mpsc::Sender<Vec<Evicted>>,
    ) -> (Self, Vec<Vec<Evicted>>, Report) {
        let Opened { log, index, uses, unwritten, gone, report } = opened;
        shared.set_index(index);
        let mut writer = Self {
            log,
            indexing: Indexing::new(shared.clone(), uses),
            chunks: Chunks::default(),
            unwritten: unwritten.records,
            settings,
            shared,
            evictions,
            held: VecDeque::new(),
            failing: None,
            carried: 0,
        };
        let vanished: Vec<ObjectRef> = gone.iter().flatten().filter(|o| !o.delivered).cloned().collect();
        writer.miss(&vanished);
        writer.indexing.publish();
        let gone = gone.iter().map(|objects| evicted(objects)).filter(|parts| !parts.is_empty()).collect();
        (writer, gone, report)
    }

    /// Writes down what is missing of buffers whose segments are not there any more.
    fn miss(&mut self, vanished: &[ObjectRef]) {
        let buffers: Vec<_> = vanished.iter().filter(|o| !o.meta.stays()).cloned().collect();
        // The end of the log comes first: after what is written now it would not count any more.
        let index = self.write_unwritten().and_then(|()| self.shared.index());
        let written = index.and_then(|index| gaps(&index, &buffers)).and_then(|mut gaps| {
            let lost = |m: &mut ObjectMeta| m.gap = m.gap.map(|gap| Missing { reason: GapReason::DiskFailed, ..gap });
            gaps.iter_mut().for_each(lost);
            self.write_again(gaps.into_iter().map(|meta| (meta, Bytes::new())).collect())
        });
        if let Err(error) = written {
            tracing::error!(%error, objects = buffers.len(), "recordings vanished from the disk, and that could not be written down");
        }
    }

    pub fn run(mut self) {
        loop {
            if self.held.is_empty() {
                self.held = self.shared.queue.take(RETRY);
            }
            if !self.held.is_empty() {
                self.shared.queue.gather(self.settings.sync_every);
            }
            let closed = self.shared.queue.is_closed();
            let refused = self.turn();
            // Where much waits already, what was written goes into the index beside the writing of that.
            let refused = match refused {
                None if self.shared.queue.is_pressing() => {
                    self.report(None);
                    None
                }
                refused => self.settle(refused),
            };
            self.indexing.flush_in_time();
            if closed && (self.held.is_empty() || refused.is_some()) {
                break;
            }
            match refused {
                // What makes room are marks of delivery: they are taken as they come.
                Some(Error::Full { .. }) => self.held.extend(self.shared.queue.take(RETRY)),
                Some(_) => drop(self.shared.queue.pause(RETRY)),
                None => {}
            }
        }
        self.log.roll();
        self.indexing.flush();
    }

    /// Takes what is queued and stores what it can, up to the index; why the rest waits.
    #[cfg(test)]
    pub fn step(&mut self) -> Option<Error> {
        let refused = self.turn();
        let refused = self.settle(refused);
        self.indexing.flush_in_time();
        refused
    }

    /// Takes what is queued and writes what it can; why the rest waits.
    fn turn(&mut self) -> Option<Error> {
        self.held.extend(self.shared.queue.take(Duration::ZERO));
        let mut held = std::mem::take(&mut self.held);
        let refused = match self.write_unwritten() {
            Err(error) => Some(error),
            Ok(()) if held.is_empty() => None,
            Ok(()) => self.store(&mut held),
        };
        self.held = held;
        refused
    }

    /// What is durable goes into the index now, and whoever asks hears what is refused.
    fn settle(&mut self, refused: Option<Error>) -> Option<Error> {
        let refused = match refused {
            Some(Error::Index { .. }) => refused,
            refused => self.indexing.settle().err().or(refused),
        };
        self.report(refused.as_ref());
        refused
    }

    /// Stores what it can; `held` keeps what it could not, and the error says why.
    fn store(&mut self, held: &mut VecDeque<Work>) -> Option<Error> {
        let need: u64 = held.iter().map(|w| w.outgoing().record_len()).sum();
        let objects = held.iter().any(|w| matches!(w.item, Item::Object { .. }));
        let short = if objects { self.make_room(need) } else { None };
        let now: VecDeque<Work> = match &short {
            None => std::mem::take(held),
            Some(_) => {
                let (marks, objects) = held.drain(..).partition(|w| matches!(w.item, Item::Delivered { .. }));
                *held = objects;
                marks
            }
        };
        if now.is_empty() {
            return short;
        }
        match self.commit(&now) {
            Ok(places) => {
                self.indexing.tell(now, places);
                short
            }
            Err(error) => {
                // The log wants the very same batch first; what was held back comes after it.
                let rest = std::mem::replace(held, now);
                held.extend(rest);
                Some(error)
            }
        }
    }

    /// The end of the log as a start found it, as soon as the disk takes it.
    fn write_unwritten(&mut self) -> Result<(), Error> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.unwritten);
        let batch: Vec<Outgoing<'_>> = records.iter().map(outgoing).collect();
        let written = self.write(&batch, |i, at, chunks| change(at, &records[i], chunks));
        if let Err(error) = written {
            self.unwritten = records;
            return Err(error);
        }
        // Where it was it does not count any more.
        self.log.first_uncut();
        self.indexing.settle()
    }

    fn commit(&mut self, work: &VecDeque<Work>) -> Result<Vec<At>, Error> {
        let batch: Vec<Outgoing<'_>> = work.iter().map(Work::outgoing).collect();
        self.write(&batch, |i, at, chunks| work.get(i)?.change(at, chunks))
    }

    /// Writes and syncs a batch, while what was written before it goes into the index; what each of its records changes
    /// there is due then.
    fn write(
        &mut self,
        batch: &[Outgoing<'_>],
        change: impl Fn(usize, At, &mut Chunks) -> Option<Change>,
    ) -> Result<Vec<At>, Error> {
        let (before, growing) = (self.log.current_segment(), self.chunks.first_segment());
        let placed = self.indexing.beside(|| self.log.commit(batch))?;
        let places = places(&placed);
        let chunks = &mut self.chunks;
        let changes = places.iter().enumerate().filter_map(|(i, at)| change(i, *at, chunks)).collect();
        self.indexing.grow(placed.segment, batch.iter().map(Outgoing::record_len).sum(), before);
        // That the last of them has ended is proven by what is written next.
        self.indexing.due(changes, growing.min(self.chunks.first_segment()));
        Ok(places)
    }

    fn write_again(&mut self, objects: Vec<(ObjectMeta, Bytes)>) -> Result<(), Error> {
        if objects.is_empty() {
            return Ok(());
        }
        let work = objects.into_iter().map(|(meta, payload)| {
            let (done, _) = Ticket::new();
            let encoded = meta.encode()?;
            Ok(Work::new(Item::Object { meta, payload, more: false, done }, encoded, 0))
        });
        let work = work.collect::<Result<VecDeque<_>, Error>>()?;
        self.commit(&work)?;
        self.indexing.settle()
    }

    fn report(&mut self, refused: Option<&Error>) {
        let next = match refused {
            None => {
                self.failing = None;
                Health::Ok
            }
            Some(error) => {
                let since = *self.failing.get_or_insert_with(clock::mono);
                Health::Failing { since, error: error.to_string() }
            }
        };
        self.shared.health.send_if_modified(|health| {
            let changed = *health != next;
            if changed {
                tracing::info!(health = ?next, "media store");
                *health = next;
            }
            changed
        });
    }
}

fn places(placed: &Placed) -> Vec<At> {
    let at = |(i, offset): (usize, &u64)| At {
        segment: placed.segment,
        offset: *offset,
        sequence: placed.first_sequence + i as u64,
    };
    placed.offsets.iter().enumerate().map(at).collect()
}

#[cfg(test)]
impl Writer {
    /// Bytes written to segments since opening.
    pub fn written(&self) -> u64 {
        self.log.written
    }
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
