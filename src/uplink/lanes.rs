//! What is sent to headquarters next: the latest revision of each topic, by lane, then in order of first offer. Pure.
//!
//! Three rules hold it together:
//! - a topic has at most one document in flight, so an older revision is never sent after a newer one;
//! - what is in flight when a connection fails goes again, in its old place, unless a newer revision replaces it there;
//! - [`Lane::Incident`] documents are forgotten once acknowledged. The latest of the other lanes are kept and sent
//!   again on every new connection, because a broker may lose what it retained.
//!
//! A document that is the oldest in flight each time a connection breaks is suspected of breaking it. It is then sent
//! only alone and after everything else, and never dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use crate::district::ids::{ButtonId, IncidentId};

/// Largest payload that is sent, in bytes.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// Most bytes of payload in flight at once. One document may exceed it alone.
pub const MAX_FLYING_BYTES: usize = 256 * 1024;

/// So many times the oldest in flight of a connection that broke, without one acknowledged in between: suspected.
pub const SUSPECT_AFTER: u8 = 3;

/// A priority class: everything of an earlier lane goes before anything of a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Incident documents: until delivered.
    Incident,
    /// A button's or camera's condition: the latest, on every connection.
    Condition,
    /// The gateway's own state: the latest, on every connection.
    Status,
}

/// Whose document it is; comes back when it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tag {
    /// An incident's document.
    Incident(IncidentId),
    /// A button's condition.
    Button(ButtonId),
    /// The gateway's own state.
    Status,
}

/// One document for headquarters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The MQTT topic. Documents of one topic are revisions of one thing and belong to one lane.
    pub topic: String,
    /// Its priority.
    pub lane: Lane,
    /// The document itself, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
    /// Counts up within a topic; the highest wins.
    pub revision: u64,
    /// Whether the broker keeps it for those who subscribe later.
    pub retain: bool,
    /// Comes back on delivery.
    pub tag: Tag,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It will be sent, at once or when its turn comes.
    Taken,
    /// This or a newer revision is already here.
    Stale,
}

/// Why a document cannot be sent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than [`MAX_PAYLOAD`] bytes.
    #[error("its payload has {0} bytes, more than {MAX_PAYLOAD}; make the document smaller")]
    TooLarge(usize),
    /// Empty, longer than 65,535 bytes, or with `+`, `#` or NUL (MQTT 3.1.1 section 4.7).
    #[error("its topic is not one that can be published to (MQTT 3.1.1 section 4.7)")]
    BadTopic,
}

/// One sending of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What is held, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Documents that wait to be sent; those in flight are not among them.
    pub waiting: usize,
    /// Documents sent and not yet acknowledged.
    pub flying: usize,
    /// Topics known, delivered ones that are kept included.
    pub topics: usize,
    /// Bytes of all payloads held.
    pub bytes: usize,
    /// Documents suspected of breaking connections.
    pub suspects: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In `ready`.
    Ready,
    /// In `flying`.
    Flying,
    /// Delivered and kept for the next connection.
    Kept,
}

/// One topic.
#[derive(Debug)]
struct Slot {
    doc: Document,
    /// Its place among its lane: the order of first offer since the last delivery.
    order: u64,
    state: State,
    /// A newer revision, offered while `doc` is in flight, and its place.
    next: Option<(u64, Document)>,
    blame: u8,
}

impl Slot {
    fn rank(&self) -> (u8, u64) {
        let lane = match self.doc.lane {
            Lane::Incident => 0,
            Lane::Condition => 1,
            Lane::Status => 2,
        };
        (if self.suspect() { SUSPECTS } else { lane }, self.order)
    }

    fn suspect(&self) -> bool {
        self.blame >= SUSPECT_AFTER
    }
}

/// The rank behind all lanes.
const SUSPECTS: u8 = 3;

/// Everything that headquarters has not confirmed, and the latest conditions.
///
/// Its memory is bounded by the number of topics: at most two revisions of each, [`MAX_PAYLOAD`] bytes apiece.
#[derive(Debug, Default)]
pub struct Lanes {
    slots: BTreeMap<u64, Slot>,
    topics: HashMap<String, u64>,
    ready: BTreeSet<(u8, u64, u64)>,
    flying: VecDeque<u64>,
    flying_bytes: usize,
    bytes: usize,
    counter: u64,
}

impl Lanes {
    /// Nothing to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a document in. A newer revision replaces an older one that is not in flight, in its place; of one that is
    /// in flight it becomes the successor.
    pub fn offer(&mut self, doc: Document) -> Result<Offer, Refused> {
        check(&doc)?;
        self.counter += 1;
        let order = self.counter;
        let Some(&id) = self.topics.get(&doc.topic) else {
            self.bytes += doc.payload.len();
            self.topics.insert(doc.topic.clone(), order);
            let slot = Slot { doc, order, state: State::Ready, next: None, blame: 0 };
            self.make_ready(order, slot);
            return Ok(Offer::Taken);
        };
        let Some(mut slot) = self.slots.remove(&id) else { return Ok(Offer::Stale) };
        let latest = slot.next.as_ref().map_or(slot.doc.revision, |(_, doc)| doc.revision);
        if doc.revision <= latest {
            self.slots.insert(id, slot);
            return Ok(Offer::Stale);
        }
        self.bytes += doc.payload.len();
        match slot.state {
            State::Flying => {
                let order = slot.next.as_ref().map_or(order, |(order, _)| *order);
                if let Some((_, old)) = slot.next.replace((order, doc)) {
                    self.bytes -= old.payload.len();
                }
                self.slots.insert(id, slot);
            }
            State::Ready | State::Kept => {
                self.ready.remove(&key(&slot, id));
                self.bytes -= slot.doc.payload.len();
                if slot.state == State::Kept {
                    slot.order = order;
                }
                slot.doc = doc;
                slot.blame = 0;
                self.make_ready(id, slot);
            }
        }
        Ok(Offer::Taken)
    }

    /// The next document to send, or none when everything is sent or `window` documents or [`MAX_FLYING_BYTES`] are
    /// in flight. What it gives is in flight from now on.
    pub fn take(&mut self, window: usize) -> Option<(Ticket, &Document)> {
        let &(rank, _, id) = self.ready.first()?;
        let size = self.slots.get(&id)?.doc.payload.len();
        let full = self.flying.len() >= window || self.flying_bytes + size > MAX_FLYING_BYTES || rank == SUSPECTS;
        if full && !self.flying.is_empty() {
            return None;
        }
        self.ready.pop_first();
        self.flying.push_back(id);
        self.flying_bytes += size;
        let slot = self.slots.get_mut(&id)?;
        slot.state = State::Flying;
        Some((Ticket(id), &slot.doc))
    }

    /// The broker has acknowledged a sending. Returns what was delivered.
    pub fn acked(&mut self, ticket: Ticket) -> Option<(Tag, u64)> {
        let id = ticket.0;
        let at = self.flying.iter().position(|&flying| flying == id)?;
        self.flying.remove(at);
        let mut slot = self.slots.remove(&id)?;
        let size = slot.doc.payload.len();
        self.flying_bytes -= size;
        slot.blame = 0;
        let delivered = (slot.doc.tag.clone(), slot.doc.revision);
        if let Some((order, next)) = slot.next.take() {
            self.bytes -= size;
            slot.order = order;
            slot.doc = next;
            self.make_ready(id, slot);
        } else if slot.doc.lane == Lane::Incident {
            self.bytes -= size;
            self.topics.remove(&slot.doc.topic);
        } else {
            slot.state = State::Kept;
            self.slots.insert(id, slot);
        }
        Some(delivered)
    }

    /// The connection is gone: everything in flight waits again, in its old place. Returns how many.
    ///
    /// The oldest in flight is blamed, and returned when it has become suspected.
    pub fn failed(&mut self) -> (usize, Option<(Tag, u64)>) {
        let mut suspect = None;
        let flying = std::mem::take(&mut self.flying);
        self.flying_bytes = 0;
        for (i, &id) in flying.iter().enumerate() {
            let Some(mut slot) = self.slots.remove(&id) else { continue };
            if i == 0 {
                slot.blame = slot.blame.saturating_add(1);
                if slot.blame == SUSPECT_AFTER {
                    suspect = Some((slot.doc.tag.clone(), slot.doc.revision));
                }
            }
            if let Some((_, next)) = slot.next.take() {
                self.bytes -= slot.doc.payload.len();
                slot.doc = next;
                slot.blame = 0;
            }
            self.make_ready(id, slot);
        }
        (flying.len(), suspect)
    }

    /// A new connection: the kept documents are sent again.
    pub fn connected(&mut self) {
        for (&id, slot) in &mut self.slots {
            if slot.state == State::Kept {
                slot.state = State::Ready;
                self.ready.insert(key(slot, id));
            }
        }
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.flying.is_empty()
    }

    /// The latest revision of a topic that was offered and is still known.
    pub fn latest(&self, topic: &str) -> Option<u64> {
        let slot = self.slots.get(self.topics.get(topic)?)?;
        Some(slot.next.as_ref().map_or(slot.doc.revision, |(_, doc)| doc.revision))
    }

    /// What is held.
    pub fn held(&self) -> Held {
        Held {
            waiting: self.ready.len() + self.flying.iter().filter(|id| self.has_next(**id)).count(),
            flying: self.flying.len(),
            topics: self.topics.len(),
            bytes: self.bytes,
            suspects: self.ready.range((SUSPECTS, 0, 0)..).count(),
        }
    }

    /// Payload bytes in flight.
    pub fn flying_bytes(&self) -> usize {
        self.flying_bytes
    }

    fn has_next(&self, id: u64) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.next.is_some())
    }

    fn make_ready(&mut self, id: u64, mut slot: Slot) {
        slot.state = State::Ready;
        self.ready.insert(key(&slot, id));
        self.slots.insert(id, slot);
    }
}

fn key(slot: &Slot, id: u64) -> (u8, u64, u64) {
    let (rank, order) = slot.rank();
    (rank, order, id)
}

fn check(doc: &Document) -> Result<(), Refused> {
    if doc.payload.len() > MAX_PAYLOAD {
        return Err(Refused::TooLarge(doc.payload.len()));
    }
    let bad = doc.topic.is_empty() || doc.topic.len() > usize::from(u16::MAX) || doc.topic.contains(['+', '#', '\0']);
    if bad { Err(Refused::BadTopic) } else { Ok(()) }
}
