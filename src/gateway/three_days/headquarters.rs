//! Headquarters: a broker and an object store behind a line that comes and goes.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use tokio::sync::mpsc;

use super::cameras::frames_in;
use crate::{
    district::{
        clock::{Mono, Now},
        identity::Identity,
        ids::{CameraId, IncidentId},
        incident::Incident,
        press::Progress,
    },
    uplink::{
        events::{Event, Events},
        lanes::{Tag, Ticket},
        link::{Backhaul, Link},
    },
};

/// Bytes a second that the line carries.
const RATE: u64 = 400_000;

/// What headquarters holds.
pub struct Held {
    pub up: bool,
    rng: fastrand::Rng,
    seed: u64,
    /// Fragments: the numbers of their frames.
    pub fragments: BTreeMap<String, Vec<usize>>,
    /// Bytes of all objects but lists.
    pub bytes: BTreeMap<String, u64>,
    /// The latest document of each incident.
    pub incidents: BTreeMap<IncidentId, Incident>,
    /// Puts that were refused for good.
    pub refused: u64,
    /// Puts.
    pub puts: u64,
}

/// The object store. Cheap to clone.
#[derive(Clone)]
pub struct Headquarters {
    held: Arc<Mutex<Held>>,
    lists: Arc<InMemory>,
    /// The box's key, over all its starts.
    pub identity: Arc<Identity>,
}

impl fmt::Debug for Headquarters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headquarters")
    }
}

impl fmt::Display for Headquarters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headquarters")
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic { store: "headquarters", source: Box::new(io::Error::other(what)) }
}

/// The camera that an object's name says.
pub fn camera_of(name: &str) -> CameraId {
    let parts: Vec<&str> = name.split('/').collect();
    let at = if parts[1] == "recordings" { 2 } else { 3 };
    parts[at].parse().unwrap()
}

/// What is done with a put.
enum Fate {
    Hangs,
    Broken,
    Refused,
    /// Stored; the answer is lost.
    Unanswered,
    /// Stored; the answer has an ETag that is no sum of these bytes.
    Odd,
    Stored,
}

impl Headquarters {
    pub fn new(seed: u64) -> Self {
        let held = Held {
            up: true,
            rng: fastrand::Rng::with_seed(seed ^ 0x4851),
            seed,
            fragments: BTreeMap::new(),
            bytes: BTreeMap::new(),
            incidents: BTreeMap::new(),
            refused: 0,
            puts: 0,
        };
        let identity = Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap();
        Self { held: Arc::new(Mutex::new(held)), lists: Arc::new(InMemory::new()), identity: Arc::new(identity) }
    }

    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// Some objects it never takes.
    pub fn refuses(&self, name: &str) -> bool {
        let mut hash = self.held().seed;
        name.bytes().for_each(|b| hash = hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b));
        name.ends_with(".m4s") && (hash >> 7).is_multiple_of(211)
    }

    /// Lists of all cameras and days, by their name.
    pub async fn lists(&self, ending: &str) -> Vec<(String, serde_json::Value)> {
        let read = |(name, bytes): (String, Bytes)| (name, serde_json::from_slice(&bytes).unwrap());
        self.texts(ending).await.into_iter().map(read).collect()
    }

    /// The same as they are there.
    pub async fn texts(&self, ending: &str) -> BTreeMap<String, Bytes> {
        let mut listing = self.lists.list(None);
        let mut found = BTreeMap::new();
        while let Some(object) = listing.next().await {
            let path = object.unwrap().location;
            if path.as_ref().ends_with(ending) {
                let bytes = self.lists.get_opts(&path, GetOptions::default()).await.unwrap().bytes().await.unwrap();
                found.insert(path.to_string(), bytes);
            }
        }
        found
    }

    fn fate(&self, name: &str) -> Fate {
        let refused = self.refuses(name);
        let mut held = self.held();
        held.puts += 1;
        match held.rng.u8(0..200) {
            n if !held.up => {
                if n < 60 {
                    Fate::Hangs
                } else {
                    Fate::Broken
                }
            }
            _ if refused => {
                held.refused += 1;
                Fate::Refused
            }
            0 => Fate::Hangs,
            1 | 2 => Fate::Broken,
            3 => Fate::Unanswered,
            4 => Fate::Odd,
            _ => Fate::Stored,
        }
    }

    async fn take(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let name = location.to_string();
        let fate = self.fate(&name);
        let size = payload.content_length() as u64;
        match fate {
            Fate::Hangs => tokio::time::sleep(Duration::from_secs(120)).await,
            Fate::Broken => return Err(broken("the line is down")),
            Fate::Refused => return Err(object_store::path::Error::EmptySegment { path: name }.into()),
            _ => tokio::time::sleep(Duration::from_millis(size * 1_000 / RATE)).await,
        }
        if !self.held().up {
            return Err(broken("the line went down"));
        }
        let fragment = name.ends_with(".m4s");
        if fragment || name.ends_with(".mp4") {
            let bytes = Bytes::from(payload.clone());
            let mut held = self.held();
            if fragment {
                held.fragments.insert(name.clone(), frames_in(&bytes, &camera_of(&name)));
            }
            held.bytes.insert(name, size);
        }
        let odd = matches!(fate, Fate::Odd);
        if !fragment || odd {
            self.lists.put_opts(location, payload, opts).await?;
        }
        if matches!(fate, Fate::Unanswered) {
            return Err(broken("the answer was lost"));
        }
        let e_tag = odd.then(|| "0123456789abcdef0123456789abcdef".into());
        Ok(PutResult { e_tag, version: None, extensions: Default::default() })
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl ObjectStore for Headquarters {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Answer<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.take(location, payload, opts))
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        _: &'b Path,
        _: PutMultipartOptions,
    ) -> Answer<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async { Err(Error::NotImplemented { operation: "parts".into(), implementer: "headquarters".into() }) })
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> Answer<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            if !self.held().up {
                return Err(broken("the line is down"));
            }
            self.lists.get_opts(location, options).await
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.lists.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Answer<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.lists.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(&'a self, from: &'b Path, to: &'d Path, options: CopyOptions) -> Answer<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        self.lists.copy_opts(from, to, options)
    }
}

/// A document on the wire.
struct Flying {
    due: Mono,
    ticket: Ticket,
    tag: Tag,
    payload: bytes::Bytes,
}

/// The connection to headquarters' broker, with the real link and lanes at this end.
pub struct Broker {
    link: Link,
    connected: bool,
    flying: VecDeque<Flying>,
    /// Since when nothing comes back, and when that is found out.
    silent: Option<Mono>,
    told: Option<Backhaul>,
    /// The latest of each incident on this connection.
    seen: BTreeMap<IncidentId, (u64, Progress)>,
    rng: fastrand::Rng,
    pub events: mpsc::Sender<Event>,
}

impl Broker {
    pub fn new(seed: u64, now: Mono, events: mpsc::Sender<Event>) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let (link, flying, seen) = (Link::new(1, seed, now), VecDeque::new(), BTreeMap::new());
        Self { link, connected: false, flying, silent: None, told: None, seen, rng, events }
    }

    fn say(&self, event: Event) {
        self.events.try_send(event).expect("the desk reads");
    }

    /// What happened until now.
    pub fn step(&mut self, now: Now, hq: &Headquarters, events: &Events) {
        let up = hq.held().up;
        match (self.connected, up) {
            (true, true) => self.serve(now, hq, events),
            (true, false) => {
                // An idle line's failure is found out by the keep-alive.
                let found_out = Duration::from_millis(self.rng.u64(5_000..15_000));
                let at = *self.silent.get_or_insert(now.mono + found_out);
                if now.mono >= at {
                    self.broken(now, hq, events);
                }
            }
            (false, true) if now.mono >= self.link.next_attempt() => {
                (self.connected, self.silent) = (true, None);
                self.seen.clear();
                self.link.connected(now.mono);
                events.lanes(|lanes| lanes.connected());
                self.link.worked(now.mono);
                self.serve(now, hq, events);
            }
            (false, false) if now.mono >= self.link.next_attempt() => {
                events.lanes(|lanes| lanes.failed(false));
                self.link.failed(now.mono);
            }
            (false, _) => {}
        }
        let state = self.link.state(now.mono);
        if self.told != Some(state) {
            self.told = Some(state);
            self.say(Event::Backhaul { state, worked: self.link.worked_at(), now });
        }
    }

    fn serve(&mut self, now: Now, hq: &Headquarters, events: &Events) {
        // Something comes back at least every five seconds.
        self.link.worked(now.mono);
        if self.silent.take().is_some() {
            return self.broken(now, hq, events);
        }
        while self.flying.front().is_some_and(|f| f.due <= now.mono)
            && let Some(flying) = self.flying.pop_front()
        {
            self.receive(&flying, hq);
            if let Some((tag, revision)) = events.lanes(|lanes| lanes.acked(flying.ticket)) {
                self.say(Event::Delivered { tag, revision, now });
            }
        }
        while let Some(flying) = events.lanes(|lanes| {
            let (ticket, doc) = lanes.take(16, false)?;
            let due = now.mono + Duration::from_millis(80);
            Some(Flying { due, ticket, tag: doc.tag.clone(), payload: doc.payload.clone() })
        }) {
            self.flying.push_back(flying);
        }
        assert!(events.stats().held.bytes < 4 << 20, "documents pile up");
    }

    /// The connection is gone; of what was on the wire some arrived, and nobody knows.
    fn broken(&mut self, now: Now, hq: &Headquarters, events: &Events) {
        let arrived = self.rng.usize(0..=self.flying.len());
        for flying in std::mem::take(&mut self.flying).into_iter().take(arrived) {
            self.receive(&flying, hq);
        }
        events.lanes(|lanes| lanes.failed(false));
        self.link.failed(now.mono);
        (self.connected, self.silent) = (false, None);
    }

    fn receive(&mut self, flying: &Flying, hq: &Headquarters) {
        let Tag::Incident(id) = flying.tag else { return };
        let document: Incident = serde_json::from_slice(&flying.payload).unwrap();
        let last = self.seen.insert(id, (document.revision, document.state));
        assert!(last.is_none_or(|l| document.revision >= l.0), "{id}: an older revision after a newer one");
        // A press that joins while the disk refuses is `received`, whatever was known before.
        let on = |l: (u64, Progress)| document.state >= l.1 || document.state == Progress::Received;
        assert!(last.is_none_or(on), "{id}: its state goes back");
        let mut held = hq.held();
        let known = held.incidents.entry(id).or_insert_with(|| document.clone());
        if document.revision >= known.revision {
            let same = document.revision == known.revision && document.state == known.state;
            assert!(!same || document.presses == known.presses, "{id}: two documents of one revision");
            *known = document;
        }
    }
}
