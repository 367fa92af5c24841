//! From the log into the index: what has become durable, who is to hear of it, and which segments need not be read again.
//!
//! Where much waits to be written this goes on beside the writing, so that the disk does not wait for the index.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use super::{Item, Work};
use crate::{
    district::clock::Mono,
    host::clock,
    spool::{
        error::Error,
        index::{Change, Sealed},
        media_recovery::rebuild,
        media_shared::Shared,
        object::{At, ObjectRef},
        retention::SegmentUse,
        segment::SEGMENT_HEADER,
    },
};

/// How often the index is made durable; it can be made again, so this only shortens the next start.
const FLUSH: Duration = Duration::from_secs(10);
/// How soon, once a segment is known as complete: after a crash only the newest segments are not in the index.
const FLUSH_SEALED: Duration = Duration::from_secs(1);

pub(super) struct Indexing {
    shared: Arc<Shared>,
    /// What each segment holds, by the index.
    pub uses: BTreeMap<u64, SegmentUse>,
    /// What is durable and not in the index yet: at most two batches.
    due: Vec<Change>,
    /// Segments that are gone and not forgotten yet.
    gone: BTreeSet<u64>,
    /// Who hears when it is.
    waiting: Vec<(Work, At)>,
    /// Segments that will not grow any more, but for the end of what has begun in them.
    full: BTreeSet<u64>,
    /// From this one on segments have something of objects whose end is not proven.
    growing: u64,
    /// Whether the index refused what is due: nothing more is written before it is in there.
    refused: bool,
    /// When the index was made durable.
    flushed: Mono,
    /// Whether it has been told of a complete segment since.
    sealed: bool,
}

impl Indexing {
    pub fn new(shared: Arc<Shared>, uses: BTreeMap<u64, SegmentUse>) -> Self {
        Self {
            shared,
            uses,
            due: Vec::new(),
            gone: BTreeSet::new(),
            waiting: Vec::new(),
            full: BTreeSet::new(),
            growing: u64::MAX,
            refused: false,
            flushed: clock::mono(),
            sealed: false,
        }
    }

    /// Writes, and puts what is due into the index meanwhile.
    pub fn beside<T>(&mut self, write: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.refused {
            self.settle()?;
        }
        if self.due.is_empty() && self.waiting.is_empty() && self.gone.is_empty() {
            return write();
        }
        let (written, begun) = thread::scope(|scope| {
            let index = thread::Builder::new().name("media-index".into()).spawn_scoped(scope, || self.index());
            let written = write();
            // What it refuses is due still.
            let ended = index.map(|index| index.join().map_err(std::panic::resume_unwind));
            (written, ended.is_ok())
        });
        // There is no thread to be had: it is done here.
        if !begun {
            drop(self.index());
        }
        written
    }

    /// Whether the index refused what is due.
    pub fn has_refused(&self) -> bool {
        self.refused
    }

    /// A segment has grown by so many bytes, and the one before it will not any more.
    pub fn grow(&mut self, number: u64, bytes: u64, before: Option<u64>) {
        let held = self.uses.entry(number).or_insert(SegmentUse { number, ..SegmentUse::default() });
        held.bytes = held.bytes.max(SEGMENT_HEADER) + bytes;
        self.full.extend(before.filter(|old| *old != number));
    }

    /// What has become durable. From segment `growing` on there is something of objects whose end is not proven.
    pub fn due(&mut self, changes: Vec<Change>, growing: u64) {
        self.due.extend(changes);
        self.growing = growing;
    }

    /// Who hears of it.
    pub fn tell(&mut self, work: VecDeque<Work>, places: Vec<At>) {
        self.waiting.extend(work.into_iter().zip(places));
    }

    /// The first segment with something of an object that is due; of those before it the index knows all.
    pub fn first_segment(&self) -> u64 {
        let stored = self.due.iter().filter_map(|change| match change {
            Change::Stored(object) => Some(object),
            Change::Delivered(_) => None,
        });
        stored.flat_map(ObjectRef::places).map(|at| at.segment).min().unwrap_or(u64::MAX)
    }

    /// Puts into the index what is due, and then tells of it. An index that refuses is set aside and built anew from the
    /// log, where all of it is.
    pub fn settle(&mut self) -> Result<(), Error> {
        let Err(error) = self.index() else { return Ok(()) };
        tracing::error!(%error, "the index refuses");
        let (index, uses) = rebuild(&self.shared.disk, &self.shared.dir, &error.to_string())?;
        self.uses = uses;
        self.shared.set_index(index);
        self.settled();
        Ok(())
    }

    fn index(&mut self) -> Result<(), Error> {
        self.refused = true;
        let index = self.shared.index()?;
        for number in &self.gone {
            index.forget(*number, &mut self.uses)?;
        }
        index.apply(&self.due, &mut self.uses)?;
        self.settled();
        Ok(())
    }

    fn settled(&mut self) {
        self.refused = false;
        self.due.clear();
        self.gone.clear();
        self.seal();
        self.resolve();
    }

    /// What will not change any more is not read again at the next start.
    fn seal(&mut self) {
        for number in self.full.extract_if(..self.growing, |_| true) {
            let Some(held) = self.uses.get(&number) else { continue };
            let sealed = Sealed { bytes: held.bytes, objects: held.objects };
            if let Err(error) = self.shared.index().and_then(|index| index.seal(number, sealed)) {
                tracing::warn!(%error, "a segment will be read again at the next start");
            }
            self.sealed = true;
        }
    }

    /// Makes the index durable when that is due.
    pub fn flush_in_time(&mut self) {
        let due = if self.sealed { FLUSH_SEALED } else { FLUSH };
        if clock::mono().since(self.flushed) >= due {
            self.flush();
        }
    }

    /// Makes the index durable.
    pub fn flush(&mut self) {
        (self.flushed, self.sealed) = (clock::mono(), false);
        if let Err(error) = self.shared.index().and_then(|index| index.flush()) {
            tracing::warn!(%error, "the index is not flushed");
        }
    }

    fn resolve(&mut self) {
        // Room first: whoever hears of a ticket may append again at once.
        self.shared.queue.release(self.waiting.iter().map(|(work, _)| work.cost).sum());
        self.publish();
        for (work, at) in self.waiting.drain(..) {
            remember(&self.shared, &work.item);
            match work.item {
                Item::Object { meta, more, done, .. } => {
                    self.shared.counts.stored.fetch_add(u64::from(!more), Relaxed);
                    let _ = done.send(Ok(ObjectRef::whole(meta, at)));
                }
                Item::Delivered { done, .. } => drop(done.send(Ok(()))),
            }
        }
    }

    /// A segment is gone; the index forgets it with what is due.
    pub fn gone(&mut self, number: u64) {
        self.full.remove(&number);
        self.uses.remove(&number);
        self.gone.insert(number);
    }

    /// Whether something of an object is gone, and so all of it.
    pub fn is_gone(&self, object: &ObjectRef) -> bool {
        object.places().any(|at| self.gone.contains(&at.segment))
    }

    pub fn publish(&self) {
        let counts = &self.shared.counts;
        let sum = |of: fn(&SegmentUse) -> u64| self.uses.values().map(of).sum::<u64>();
        counts.used.store(sum(|u| u.bytes), Relaxed);
        counts.objects.store(sum(|u| u.ends), Relaxed);
        counts.undelivered.store(sum(|u| u.waiting), Relaxed);
        counts.segments.store(self.uses.len() as u64, Relaxed);
    }
}

/// Keeps in memory what was just stored, until headquarters has it.
fn remember(shared: &Shared, item: &Item) {
    match item {
        Item::Object { meta, payload, more, .. } => {
            shared.recent.put(meta.key(), meta.chunk, payload.clone(), *more);
        }
        Item::Delivered { mark, .. } => shared.recent.forget(&mark.key()),
    }
}
