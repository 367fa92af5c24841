//! Evidence to headquarters' object store: what the media log holds and headquarters does not, the most urgent first; then
//! the playlist that makes it play, and at the end the manifest that makes it provable.
//!
//! It never stands in an event's way: events have a connection of their own. Names are deterministic, so what is put
//! twice after a crash overwrites itself with the same bytes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, error, info, warn};

use super::{board::Board, shelf, work::Work};
use crate::{
    district::{
        clock::{Mono, Utc},
        evidence::CameraEvidence,
        ids::{CameraId, DistrictId, IncidentId},
        incident::Incident,
        press::Progress,
    },
    host::{clock, scope::Scope},
    spool::{MediaStore, ObjectRef},
    uplink::objects::{PutError, Store},
};

/// Objects under way at a time.
const AT_ONCE: usize = 4;

/// Objects taken from the log at a time: a more urgent one waits for no more than these.
const ROUND: usize = 16;

/// A playlist is put at most this often while it grows.
const PLAYLIST_EVERY: Duration = Duration::from_secs(1);

/// Waits after a failure.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An object that the store refuses for good is tried again after this long, in case somebody mended the store.
const SET_ASIDE: Duration = Duration::from_secs(600);

/// Counts, for metrics.
#[derive(Debug, Default)]
pub struct Forwarded {
    /// Objects that headquarters has confirmed.
    pub objects: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
}

/// Says that something new is there to forward.
#[derive(Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Forwards evidence until its scope stops.
pub struct Forwarder {
    /// Which district.
    pub district: DistrictId,
    /// Where from.
    pub media: MediaStore,
    /// Where to.
    pub store: Store,
    /// Gaps and ends of recordings stand in the documents.
    pub board: Arc<Board>,
    /// Told of what headquarters has.
    pub work: mpsc::Sender<Work>,
    /// Ceiling in bits a second.
    pub bandwidth: Option<u64>,
    /// Rung when there is something.
    pub bell: Bell,
    /// Counts.
    pub counts: Arc<Forwarded>,
}

/// What is behind at headquarters beside the objects themselves.
#[derive(Default)]
struct Lists {
    /// Cameras whose playlist or manifest is behind.
    behind: BTreeMap<(IncidentId, CameraId), Behind>,
    /// What was last put of each incident's document: its revision, and its state, which headquarters' PUBACK moves
    /// without a revision.
    documents: HashMap<IncidentId, (u64, Progress)>,
    /// Objects that headquarters refused, until when they rest.
    set_aside: HashMap<String, Mono>,
}

/// A camera's lists that are not final.
#[derive(Clone, Copy, Default)]
struct Behind {
    /// When they were last put, or the first object was delivered.
    since: Mono,
    /// What they were last put for. None when an object was delivered since.
    put_for: Option<Marks>,
    /// The gateway was restarted: headquarters may have it all.
    after_restart: bool,
}

/// What stands in lists beside objects.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Marks {
    ended: bool,
    gaps: usize,
    last_gap: Option<Utc>,
}

impl Marks {
    fn of(evidence: &CameraEvidence) -> Self {
        let last_gap = evidence.gaps.last().map(|g| g.to);
        Self { ended: evidence.ended, gaps: evidence.gaps.len(), last_gap }
    }
}

impl Behind {
    fn due(&self, now: Mono, evidence: Option<&CameraEvidence>) -> bool {
        // An incident that is no longer held: the entry goes.
        let Some(evidence) = evidence else { return true };
        let said = self.put_for == Some(Marks::of(evidence));
        self.after_restart || (!said && now.since(self.since) >= PLAYLIST_EVERY)
    }
}

impl Forwarder {
    /// Starts the task.
    pub fn start(self, scope: &Scope) {
        let stopping = scope.stopping();
        scope.spawn("forwarder", async move {
            tokio::select! { () = self.run() => {}, () = stopping => {} }
        });
    }

    async fn run(self) {
        let mut lists = self.unfinished();
        let mut wait = WAIT.0;
        loop {
            match self.round(&mut lists).await {
                Ok(true) => wait = WAIT.0,
                Ok(false) => {
                    wait = WAIT.0;
                    let pause = tokio::time::sleep(PLAYLIST_EVERY);
                    tokio::select! { () = self.bell.0.notified() => {}, () = pause => {} }
                }
                Err(e) => {
                    self.counts.failures.fetch_add(1, Relaxed);
                    match &e {
                        PutError::Misconfigured { .. } => error!(error = %e, "headquarters' store takes nothing"),
                        _ => warn!(error = %e, ?wait, "headquarters' store"),
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAIT.1);
                }
            }
        }
    }

    /// After a restart: every camera whose evidence is not complete may have lists that are behind.
    fn unfinished(&self) -> Lists {
        let mut lists = Lists::default();
        for incident in self.board.incidents(None, usize::MAX) {
            for evidence in &incident.evidence {
                let behind = Behind { after_restart: true, ..Behind::default() };
                lists.behind.insert((incident.id, evidence.camera.clone()), behind);
            }
        }
        lists
    }

    /// Puts what is most urgent. Whether there was something to do.
    async fn round(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let pending = self.asked(self.media.pending(ROUND).await).unwrap_or_default();
        let now = clock::mono();
        lists.set_aside.retain(|_, until| *until > now);
        let todo: Vec<_> = pending.into_iter().filter(|o| !lists.set_aside.contains_key(&o.to_string())).collect();
        let found = !todo.is_empty();
        let mut turn = tokio::time::Instant::now();
        let uploads = todo.into_iter().map(|object| {
            let from = turn;
            turn += self.pace(object.meta.size);
            self.upload(object, from)
        });
        let uploads: Vec<_> = uploads.collect();
        let done: Vec<_> = stream::iter(uploads).buffer_unordered(AT_ONCE).collect().await;
        let mut failure = None;
        for (result, object) in done {
            match result {
                Ok(()) => {
                    let key = (object.meta.incident, object.meta.camera.clone());
                    lists.behind.entry(key).or_insert(Behind { since: now, ..Behind::default() }).put_for = None;
                }
                Err(e @ PutError::Refused { .. }) => {
                    error!(error = %e, object = %object, "set aside; the rest goes on");
                    lists.set_aside.insert(object.to_string(), now + SET_ASIDE);
                }
                Err(e) => failure = Some(e),
            }
        }
        match failure {
            Some(e) => Err(e),
            None => {
                let listed = self.put_due_lists(lists).await?;
                Ok(self.put_documents(lists).await? || listed || found)
            }
        }
    }

    /// How long so many bytes take under the ceiling.
    fn pace(&self, bytes: u64) -> Duration {
        self.bandwidth.map_or(Duration::ZERO, |bits| Duration::from_secs_f64(bytes as f64 * 8.0 / bits.max(1) as f64))
    }

    async fn upload(&self, object: ObjectRef, from: tokio::time::Instant) -> (Result<(), PutError>, ObjectRef) {
        tokio::time::sleep_until(from).await;
        (self.forward(&object).await, object)
    }

    /// One object, from the log to headquarters.
    async fn forward(&self, object: &ObjectRef) -> Result<(), PutError> {
        let meta = &object.meta;
        let name = format!("{}/{}", shelf::folder(&self.district, meta.incident, &meta.camera), meta.name);
        let Some(bytes) = self.asked(self.media.read(object).await) else {
            // Damaged on this disk: it cannot be delivered, and must not block the rest.
            return Err(PutError::Refused { name, why: "it cannot be read from this gateway's disk".into() });
        };
        let size = bytes.len() as u64;
        self.store.put(&name, bytes).await?;
        let marked = match self.media.delivered(object) {
            Ok(ticket) => ticket.await,
            Err(e) => Err(e),
        };
        if let Err(e) = marked {
            warn!(object = %object, error = %e, "delivered, but that could not be written down; it will be sent again");
        }
        self.counts.objects.fetch_add(1, Relaxed);
        self.counts.bytes.fetch_add(size, Relaxed);
        debug!(%name, size, "delivered");
        let _ = self.work.send(Work::Uploaded(meta.incident, meta.camera.clone(), meta.name.clone())).await;
        Ok(())
    }

    /// Puts the lists that are behind and due, the newest incidents' first, and no more than a round: evidence that came
    /// meanwhile goes before the rest. Whether one was put.
    async fn put_due_lists(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let now = clock::mono();
        let due: Vec<_> = lists
            .behind
            .iter()
            .rev()
            .map(|(key, behind)| (key.clone(), *behind, self.board.incident_of(key.0)))
            .filter(|(key, behind, document)| behind.due(now, evidence(document.as_deref(), &key.1)))
            .take(ROUND)
            .collect();
        for (key, behind, document) in &due {
            let (incident, camera) = key;
            let Some(evidence) = evidence(document.as_deref(), camera) else {
                lists.behind.remove(key);
                continue;
            };
            if self.put_lists(*incident, evidence, behind.after_restart).await? {
                info!(%incident, %camera, "all evidence of this camera is at headquarters");
                lists.behind.remove(key);
            } else {
                let put_for = Some(Marks::of(evidence));
                lists.behind.insert(key.clone(), Behind { since: now, put_for, after_restart: false });
            }
        }
        Ok(!due.is_empty())
    }

    /// The playlist; and the manifest when nothing will come any more. Whether that is so.
    async fn put_lists(&self, incident: IncidentId, evidence: &CameraEvidence, maybe: bool) -> Result<bool, PutError> {
        let held = self.asked(self.media.evidence(incident, &evidence.camera).await).unwrap_or_default();
        let folder = shelf::folder(&self.district, incident, &evidence.camera);
        let there: Vec<_> = held.iter().filter(|o| o.delivered).cloned().collect();
        let finished = evidence.ended && there.len() == held.len();
        let manifest_name = format!("{folder}/manifest.json");
        if there.is_empty() || (finished && maybe && self.store.head(&manifest_name).await?.is_some()) {
            return Ok(finished);
        }
        let growing = CameraEvidence { ended: finished, ..evidence.clone() };
        let playlist = shelf::playlist(&there, Some(&growing));
        self.store.put(&format!("{folder}/index.m3u8"), Bytes::from(playlist)).await?;
        if finished {
            let manifest = shelf::manifest(folder.clone(), &there, evidence);
            let json = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
            self.store.put(&manifest_name, Bytes::from(json)).await?;
        }
        Ok(finished)
    }

    /// `incident.json` of each incident that changed, the newest first, and no more than a round. Whether one was put.
    async fn put_documents(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let incidents = self.board.incidents(None, usize::MAX);
        lists.documents.retain(|id, _| incidents.iter().any(|i| i.id == *id));
        let known = &lists.documents;
        let new: Vec<_> =
            incidents.iter().filter(|d| known.get(&d.id) != Some(&(d.revision, d.state))).take(ROUND).collect();
        for document in &new {
            let json = serde_json::to_vec_pretty(document.as_ref()).unwrap_or_default();
            let name = format!("{}/incidents/{}/incident.json", self.district, document.id);
            self.store.put(&name, Bytes::from(json)).await?;
            lists.documents.insert(document.id, (document.revision, document.state));
        }
        Ok(!new.is_empty())
    }

    /// What the media log answered; a failure is logged, and asked again in the next round.
    fn asked<T>(&self, answer: Result<T, crate::spool::Error>) -> Option<T> {
        answer.inspect_err(|e| warn!(error = %e, "the media log")).ok()
    }
}

/// What a document says of a camera's evidence.
fn evidence<'a>(document: Option<&'a Incident>, camera: &CameraId) -> Option<&'a CameraEvidence> {
    document?.evidence.iter().find(|e| e.camera == *camera)
}
