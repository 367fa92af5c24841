//! What is sent to headquarters next: the latest revision of each topic, by lane, then in order of first offer. Pure.
//!
//! Three rules hold it together:
//! - a topic has at most one document in flight, so an older revision is never sent after a newer one;
//! - what is in flight when a connection fails goes again, in its old place, unless a newer revision replaces it there;
//! - [`Lane::Incident`] documents are forgotten once acknowledged. The latest of the other lanes are kept and sent
//!   again on every new connection, because a broker may lose what it retained.
//!
//! A document that is the oldest in flight each time the broker breaks a connection is suspected of being the reason.
//! It is then sent only after everything else and on a connection that has held for a while; it is never dropped.

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
    /// How an incident's call stands.
    Call(IncidentId),
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
    /// in flight. What it gives is in flight from now on. A suspected one is given only with `suspects`, when nothing
    /// is in flight.
    pub fn take(&mut self, window: usize, suspects: bool) -> Option<(Ticket, &Document)> {
        let &(rank, _, id) = self.ready.first()?;
        if rank == SUSPECTS && !suspects {
            return None;
        }
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
    /// With `blame` (the broker broke it, not the line) the oldest in flight is blamed, and returned when it has become
    /// suspected.
    pub fn failed(&mut self, blame: bool) -> (usize, Option<(Tag, u64)>) {
        let mut suspect = None;
        let flying = std::mem::take(&mut self.flying);
        self.flying_bytes = 0;
        for (i, &id) in flying.iter().enumerate() {
            let Some(mut slot) = self.slots.remove(&id) else { continue };
            if i == 0 && blame {
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

    /// Whether nothing waits and nothing is in flight, suspected documents aside.
    pub fn is_idle(&self) -> bool {
        self.ready.first().is_none_or(|(rank, ..)| *rank == SUSPECTS) && self.flying.is_empty()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn doc(lane: Lane, topic: &str, revision: u64) -> Document {
        let payload = Bytes::from(vec![b'x'; 10 + topic.len()]);
        Document { topic: topic.into(), lane, payload, revision, retain: false, tag: Tag::Status }
    }

    fn take(lanes: &mut Lanes) -> Option<(Ticket, String, u64)> {
        lanes.take(64, true).map(|(ticket, doc)| (ticket, doc.topic.clone(), doc.revision))
    }

    fn topics(lanes: &mut Lanes) -> Vec<String> {
        std::iter::from_fn(|| take(lanes)).map(|(_, topic, revision)| format!("{topic}{revision}")).collect()
    }

    #[test]
    fn incidents_go_before_conditions_and_those_before_the_status() {
        let mut lanes = Lanes::new();
        for d in [doc(Lane::Status, "s", 1), doc(Lane::Condition, "c", 1), doc(Lane::Incident, "i", 1)] {
            assert_eq!(lanes.offer(d), Ok(Offer::Taken));
        }
        assert_eq!(lanes.offer(doc(Lane::Incident, "j", 1)), Ok(Offer::Taken));
        assert_eq!(topics(&mut lanes), ["i1", "j1", "c1", "s1"]);
    }

    #[test]
    fn a_newer_revision_takes_the_place_of_the_one_that_waits() {
        let mut lanes = Lanes::new();
        for d in [doc(Lane::Incident, "a", 1), doc(Lane::Incident, "b", 1), doc(Lane::Incident, "a", 2)] {
            lanes.offer(d).unwrap();
        }
        assert_eq!(lanes.offer(doc(Lane::Incident, "a", 2)), Ok(Offer::Stale));
        assert_eq!(topics(&mut lanes), ["a2", "b1"]);
    }

    #[test]
    fn a_newer_revision_waits_for_the_one_in_flight_and_replaces_it_when_that_fails() {
        let mut lanes = Lanes::new();
        lanes.offer(doc(Lane::Incident, "a", 1)).unwrap();
        let (ticket, ..) = take(&mut lanes).unwrap();
        lanes.offer(doc(Lane::Incident, "a", 2)).unwrap();
        assert_eq!(take(&mut lanes), None);
        assert_eq!(lanes.acked(ticket), Some((Tag::Status, 1)));
        assert_eq!(topics(&mut lanes), ["a2"]);
        lanes.offer(doc(Lane::Incident, "a", 3)).unwrap();
        assert_eq!(lanes.failed(true).0, 1);
        assert_eq!(topics(&mut lanes), ["a3"]);
    }

    #[test]
    fn a_new_connection_sends_conditions_and_status_again_but_no_delivered_incident() {
        let mut lanes = Lanes::new();
        for d in [doc(Lane::Status, "s", 7), doc(Lane::Condition, "c", 3), doc(Lane::Incident, "i", 1)] {
            lanes.offer(d).unwrap();
        }
        while let Some((ticket, ..)) = take(&mut lanes) {
            lanes.acked(ticket);
        }
        assert!(lanes.is_idle());
        assert_eq!(lanes.offer(doc(Lane::Condition, "c", 3)), Ok(Offer::Stale));
        lanes.connected();
        assert_eq!(topics(&mut lanes), ["c3", "s7"]);
        assert_eq!(lanes.held().topics, 2);
    }

    #[test]
    fn the_window_bounds_documents_and_bytes_but_lets_one_large_document_through() {
        let mut lanes = Lanes::new();
        for topic in ["a", "b", "c"] {
            lanes.offer(doc(Lane::Incident, topic, 1)).unwrap();
        }
        assert!(lanes.take(2, true).is_some() && lanes.take(2, true).is_some() && lanes.take(2, true).is_none());
        let mut lanes = Lanes::new();
        for topic in ["a", "b"] {
            let payload = Bytes::from(vec![0; MAX_PAYLOAD]);
            lanes.offer(Document { payload, ..doc(Lane::Incident, topic, 1) }).unwrap();
        }
        let (ticket, ..) = take(&mut lanes).unwrap();
        assert_eq!(take(&mut lanes), None);
        lanes.acked(ticket);
        assert!(take(&mut lanes).is_some());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_held() {
        let mut lanes = Lanes::new();
        let payload = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
        let large = Document { payload, ..doc(Lane::Incident, "a", 1) };
        assert_eq!(lanes.offer(large), Err(Refused::TooLarge(MAX_PAYLOAD + 1)));
        for topic in ["", "a/+", "a/#", "a\0"] {
            assert_eq!(lanes.offer(doc(Lane::Incident, topic, 1)), Err(Refused::BadTopic), "{topic:?}");
        }
        assert_eq!(lanes.held(), Held::default());
    }

    #[test]
    fn a_document_that_breaks_connections_is_sent_last_and_alone() {
        let mut lanes = Lanes::new();
        lanes.offer(doc(Lane::Incident, "poison", 1)).unwrap();
        lanes.offer(doc(Lane::Incident, "b", 1)).unwrap();
        lanes.offer(doc(Lane::Status, "s", 1)).unwrap();
        for round in 1..=SUSPECT_AFTER {
            assert_eq!(take(&mut lanes).unwrap().1, "poison");
            assert!(take(&mut lanes).is_some());
            let (again, suspect) = lanes.failed(true);
            assert_eq!((again, suspect.is_some()), (2, round == SUSPECT_AFTER));
        }
        assert_eq!(lanes.held().suspects, 1);
        let (b, topic, _) = take(&mut lanes).unwrap();
        let (s, ..) = take(&mut lanes).unwrap();
        assert_eq!((topic.as_str(), take(&mut lanes)), ("b", None));
        lanes.acked(b);
        assert_eq!(take(&mut lanes), None);
        lanes.acked(s);
        assert!(lanes.take(64, false).is_none() && lanes.is_idle());
        assert_eq!(take(&mut lanes).unwrap().1, "poison");
        lanes.offer(doc(Lane::Incident, "c", 1)).unwrap();
        assert_eq!(take(&mut lanes).unwrap().1, "c");
    }

    #[test]
    fn a_line_that_breaks_makes_nothing_suspected() {
        let mut lanes = Lanes::new();
        lanes.offer(doc(Lane::Incident, "a", 1)).unwrap();
        for _ in 0..10 {
            assert!(take(&mut lanes).is_some());
            assert_eq!(lanes.failed(false), (1, None));
        }
        assert_eq!(lanes.held().suspects, 0);
    }

    /// What a broker and a gateway may do to the lanes.
    #[derive(Debug, Clone)]
    enum Step {
        Offer { topic: usize, newer: bool },
        Take { window: usize },
        Ack { nth: usize },
        Fail,
        Connect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..9, prop::bool::weighted(0.9)).prop_map(|(topic, newer)| Step::Offer { topic, newer }),
            4 => (1usize..6).prop_map(|window| Step::Take { window }),
            3 => (0usize..3).prop_map(|nth| Step::Ack { nth }),
            1 => Just(Step::Fail),
            1 => Just(Step::Connect),
        ]
    }

    const LANES: [Lane; 3] = [Lane::Incident, Lane::Condition, Lane::Status];

    /// The same by plain lists, as slow as you like.
    #[derive(Default)]
    struct Model {
        /// Waiting, in order of first offer; (place, topic, revision).
        waiting: Vec<(u64, usize, u64)>,
        flying: Vec<(Ticket, u64, usize, u64)>,
        kept: BTreeMap<usize, (u64, u64)>,
        counter: u64,
    }

    impl Model {
        fn offer(&mut self, topic: usize, revision: u64) {
            self.counter += 1;
            self.kept.remove(&topic);
            match self.waiting.iter_mut().find(|(_, t, _)| *t == topic) {
                Some(waiting) => waiting.2 = revision,
                None => self.waiting.push((self.counter, topic, revision)),
            }
        }

        /// What must be taken next, when anything.
        fn next(&self) -> Option<(u64, usize, u64)> {
            let free = self.waiting.iter().filter(|(_, t, _)| !self.flying.iter().any(|f| f.2 == *t));
            free.min_by_key(|(place, topic, _)| (LANES[topic % 3], *place)).copied()
        }

        fn fail(&mut self) {
            for (_, place, topic, revision) in std::mem::take(&mut self.flying) {
                match self.waiting.iter_mut().find(|(_, t, _)| *t == topic) {
                    Some(newer) => newer.0 = place,
                    None => self.waiting.push((place, topic, revision)),
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
        #[test]
        fn the_lanes_lose_nothing_and_keep_their_order(steps in prop::collection::vec(step(), 1..200)) {
            let (mut lanes, mut model) = (Lanes::new(), Model::default());
            let mut revisions = [0u64; 9];
            let mut sent = [0u64; 9];
            let mut fails = 0;
            for step in steps {
                match step {
                    Step::Offer { topic, newer } => {
                        let revision = if newer { revisions[topic] + 1 } else { revisions[topic] };
                        let offered = lanes.offer(doc(LANES[topic % 3], &topic.to_string(), revision)).unwrap();
                        if offered == Offer::Taken {
                            revisions[topic] = revision;
                            model.offer(topic, revision);
                        } else {
                            prop_assert!(!newer);
                        }
                    }
                    Step::Take { window } => {
                        let room = model.flying.len() < window || model.flying.is_empty();
                        let expected = model.next().filter(|_| room);
                        let taken = lanes.take(window, false).map(|(t, d)| (t, d.topic.parse::<usize>().unwrap(), d.revision));
                        prop_assert_eq!(taken.map(|(_, topic, revision)| (topic, revision)),
                            expected.map(|(_, topic, revision)| (topic, revision)));
                        if let (Some((ticket, topic, revision)), Some((place, ..))) = (taken, expected) {
                            prop_assert!(revision >= sent[topic], "an older revision after a newer one");
                            sent[topic] = revision;
                            model.waiting.retain(|(p, t, _)| (*p, *t) != (place, topic));
                            model.flying.push((ticket, place, topic, revision));
                        }
                    }
                    Step::Ack { nth } if !model.flying.is_empty() => {
                        let at = nth.min(model.flying.len() - 1);
                        let (ticket, place, topic, revision) = model.flying.remove(at);
                        prop_assert_eq!(lanes.acked(ticket), Some((Tag::Status, revision)));
                        let newer = model.waiting.iter().any(|(_, t, _)| *t == topic);
                        if LANES[topic % 3] != Lane::Incident && !newer {
                            model.kept.insert(topic, (place, revision));
                        }
                        prop_assert_eq!(lanes.acked(ticket), None);
                    }
                    // More failures than this would make suspects, which the model does not have.
                    Step::Fail if fails + 1 < SUSPECT_AFTER => {
                        fails += 1;
                        prop_assert_eq!(lanes.failed(true).0, model.flying.len());
                        model.fail();
                    }
                    Step::Connect => {
                        lanes.connected();
                        for (topic, (place, revision)) in std::mem::take(&mut model.kept) {
                            model.waiting.push((place, topic, revision));
                        }
                    }
                    _ => {}
                }
                let held = lanes.held();
                prop_assert_eq!((held.waiting, held.flying), (model.waiting.len(), model.flying.len()));
                prop_assert_eq!(held.topics, {
                    let mut topics: Vec<usize> = model.waiting.iter().map(|w| w.1)
                        .chain(model.flying.iter().map(|f| f.2)).chain(model.kept.keys().copied()).collect();
                    topics.sort_unstable();
                    topics.dedup();
                    topics.len()
                });
                prop_assert_eq!(held.bytes, 11 * (model.waiting.len() + model.flying.len() + model.kept.len()));
                prop_assert_eq!(lanes.is_idle(), model.waiting.is_empty() && model.flying.is_empty());
            }
        }
    }
}
