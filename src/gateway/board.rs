//! What the gateway shows: the latest incidents, conditions and states, and a stream of their changes. The desk writes
//! it, and only what may be told; the API and the page read it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::district::{
    button::ButtonCondition,
    call::CallEvent,
    camera::{CameraReport, CameraState},
    clock::Utc,
    digest::Sha256,
    identity::PublicKey,
    ids::{ButtonId, CameraId, IncidentId},
    incident::Incident,
    press::Progress,
};

/// Changes kept so that a reader that was away for a moment resumes without loss; older ones make it read all anew.
const CHANGES_KEPT: usize = 1024;

/// An incident's document as it was at one moment. Its JSON is written once, when it is first asked for.
#[derive(Debug)]
pub struct Document {
    /// The document.
    pub incident: Arc<Incident>,
    json: OnceLock<Bytes>,
}

impl Document {
    /// Of what the engine says now.
    pub fn new(incident: Incident) -> Arc<Self> {
        Arc::new(Self { incident: Arc::new(incident), json: OnceLock::new() })
    }

    /// As headquarters and the page read it.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| json(&*self.incident)).clone()
    }
}

/// One change, as server-sent events carry it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Counts up by one.
    pub id: u64,
    /// `incident`, `call`, `button`, `camera` or `status`.
    pub event: &'static str,
    data: Data,
}

/// A call as it was at one moment, written as a document is.
#[derive(Debug)]
pub struct CallNews {
    /// The call.
    pub event: CallEvent,
    json: OnceLock<Bytes>,
}

impl CallNews {
    /// Of what the engine says now.
    pub fn new(event: CallEvent) -> Arc<Self> {
        Arc::new(Self { event, json: OnceLock::new() })
    }

    /// As headquarters and the page read it.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| json(&self.event)).clone()
    }
}

#[derive(Debug, Clone)]
enum Data {
    Document(Arc<Document>),
    Call(Arc<CallNews>),
    Json(Bytes),
}

impl Change {
    /// What it is about, as JSON.
    pub fn data(&self) -> Bytes {
        match &self.data {
            Data::Document(document) => document.json(),
            Data::Call(call) => call.json(),
            Data::Json(json) => json.clone(),
        }
    }
}

/// What a camera does, for lists.
#[derive(Debug, Clone, Serialize)]
pub struct CameraLine {
    /// Which camera.
    pub id: CameraId,
    /// What it does.
    pub state: CameraState,
    /// Why.
    pub detail: String,
}

/// The gateway's own state: `chowki/{district}/status` and `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The gateway runs. Its will says `false`.
    pub online: bool,
    /// Which district.
    pub district: String,
    /// Version of the program.
    pub version: &'static str,
    /// The key that evidence is signed with. None: it is not signed; an alarm says why.
    pub identity: Option<KeyLine>,
    /// `up`, `degraded`, `down`, or `none` when it stands alone.
    pub backhaul: &'static str,
    /// Since when.
    pub backhaul_since: Option<Utc>,
    /// Why it is down.
    pub backhaul_detail: String,
    /// Documents that headquarters has not confirmed.
    pub pending_documents: usize,
    /// Media objects that headquarters has not confirmed: evidence, and what was kept of cameras beside it.
    pub pending_objects: usize,
    /// Of these, objects that headquarters' store refuses, or that fail while others go through.
    pub objects_set_aside: usize,
    /// Cameras that should be recorded now and are not: an alarm.
    pub not_recorded: Vec<NotRecorded>,
    /// `ok`, or what is wrong with the disk.
    pub journal: String,
    /// `ok`, or why headquarters' object store takes nothing, with what to do about it.
    pub store: String,
    /// What somebody has to do something about, in words.
    pub alarms: Vec<String>,
    /// Buttons in all, and those that are online and silent.
    pub buttons: Counts,
    /// Cameras in all (units included), and those that are live and not.
    pub cameras: Counts,
    /// Incidents that are open.
    pub open_incidents: usize,
}

/// A box's public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeyLine {
    /// Ed25519, base64.
    pub key: PublicKey,
    /// SHA-256 of its SubjectPublicKeyInfo, hex.
    pub fingerprint: Sha256,
}

impl KeyLine {
    /// Of a key.
    pub fn of(key: PublicKey) -> Self {
        Self { key, fingerprint: key.fingerprint() }
    }
}

/// A camera that should be recorded now and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotRecorded {
    /// Which.
    pub camera: CameraId,
    /// Since when nothing of it was stored.
    pub since: Utc,
    /// Why, as far as is known.
    pub why: String,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct Counts {
    /// In all.
    pub total: usize,
    /// Online, or live.
    pub good: usize,
    /// Silent, or not live.
    pub bad: usize,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct Inner {
    incidents: BTreeMap<IncidentId, Arc<Incident>>,
    /// The last change of each incident, and of which it was.
    changed: BTreeMap<u64, IncidentId>,
    change_of: HashMap<IncidentId, u64>,
    /// Of incidents that are open.
    calls: BTreeMap<IncidentId, Arc<CallNews>>,
    conditions: HashMap<ButtonId, ButtonCondition>,
    cameras: BTreeMap<CameraId, CameraLine>,
    status: Option<Status>,
    recent: VecDeque<Change>,
    next: u64,
}

impl Board {
    /// An empty board whose changes are numbered from `first`: the time of the start, so that no number of an earlier
    /// run is taken for one of this.
    pub fn new(first: u64) -> Self {
        let inner = Inner { next: first, ..Inner::default() };
        // A reader that falls this far behind is told so and reads all anew: the oldest change is dropped.
        Self { inner: Mutex::new(inner), changes: broadcast::channel(CHANGES_KEPT).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts out an incident's document. Whether none that is newer was put out before.
    pub fn incident(&self, document: Arc<Document>) -> bool {
        let mut inner = self.lock();
        let incident = &document.incident;
        let newer = |known: &Arc<Incident>| known.revision > incident.revision;
        if inner.incidents.get(&incident.id).is_some_and(newer) {
            return false;
        }
        inner.incidents.insert(incident.id, incident.clone());
        if incident.state == Progress::Closed {
            inner.calls.remove(&incident.id);
        }
        let id = incident.id;
        self.announce(&mut inner, "incident", Data::Document(document));
        let now = inner.next;
        if let Some(before) = inner.change_of.insert(id, now) {
            inner.changed.remove(&before);
        }
        inner.changed.insert(now, id);
        true
    }

    /// Puts out how a call stands. Gives the number of the change.
    pub fn call(&self, call: Arc<CallNews>) -> u64 {
        let mut inner = self.lock();
        inner.calls.insert(call.event.incident, call.clone());
        self.announce(&mut inner, "call", Data::Call(call));
        inner.next
    }

    /// The calls of open incidents, oldest first.
    pub fn calls(&self) -> Vec<Arc<CallNews>> {
        self.lock().calls.values().cloned().collect()
    }

    /// The call of an open incident.
    pub fn call_of(&self, incident: IncidentId) -> Option<Arc<CallNews>> {
        self.lock().calls.get(&incident).cloned()
    }

    /// How far help has come at a button whose incident is open, tests aside, and its call.
    pub fn help_at(&self, button: &ButtonId) -> Option<(Arc<Incident>, Option<Arc<CallNews>>)> {
        let inner = self.lock();
        let open = |i: &&Arc<Incident>| i.button.id == *button && !i.test && i.state < Progress::Closed;
        let incident = inner.incidents.values().rev().find(open)?.clone();
        let call = inner.calls.get(&incident.id).cloned();
        Some((incident, call))
    }

    /// Lets go of incidents that the engine no longer holds.
    pub fn keep(&self, held: impl Fn(&IncidentId) -> bool) {
        let mut inner = self.lock();
        inner.incidents.retain(|id, _| held(id));
        inner.change_of.retain(|id, _| held(id));
        inner.changed.retain(|_, id| held(id));
        inner.calls.retain(|id, _| held(id));
    }

    /// Puts out a button's condition.
    pub fn condition(&self, condition: ButtonCondition) {
        let json = json(&condition);
        let mut inner = self.lock();
        inner.conditions.insert(condition.button.clone(), condition);
        self.announce(&mut inner, "button", Data::Json(json));
    }

    /// Puts out what a camera does.
    pub fn camera(&self, report: &CameraReport) {
        let line = CameraLine { id: report.camera.clone(), state: report.state, detail: report.detail.clone() };
        let json = json(&line);
        let mut inner = self.lock();
        inner.cameras.insert(line.id.clone(), line);
        self.announce(&mut inner, "camera", Data::Json(json));
    }

    /// Puts out the gateway's own state, when it differs.
    pub fn status(&self, status: Status) {
        let mut inner = self.lock();
        if inner.status.as_ref() != Some(&status) {
            let json = json(&status);
            inner.status = Some(status);
            self.announce(&mut inner, "status", Data::Json(json));
        }
    }

    fn announce(&self, inner: &mut Inner, event: &'static str, data: Data) {
        inner.next += 1;
        let change = Change { id: inner.next, event, data };
        if inner.recent.len() == CHANGES_KEPT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(change.clone());
        // Nobody listening is no fault.
        let _ = self.changes.send(change);
    }

    /// The changes after `last`, and those to come. `None` in place of the changes when some are no longer kept: the
    /// reader reads all anew.
    pub fn follow(&self, last: Option<u64>) -> (Option<Vec<Change>>, broadcast::Receiver<Change>) {
        let inner = self.lock();
        let receiver = self.changes.subscribe();
        let Some(last) = last else { return (Some(Vec::new()), receiver) };
        let oldest = inner.recent.front().map_or(inner.next + 1, |c| c.id);
        if last > inner.next || last + 1 < oldest {
            return (None, receiver);
        }
        (Some(inner.recent.iter().filter(|c| c.id > last).cloned().collect()), receiver)
    }

    /// Incidents, newest first, at most `limit`, older than `before` when given.
    pub fn incidents(&self, before: Option<IncidentId>, limit: usize) -> Vec<Arc<Incident>> {
        let inner = self.lock();
        let older = |id: &IncidentId| before.is_none_or(|b| *id < b);
        inner.incidents.iter().rev().filter(|(id, _)| older(id)).take(limit).map(|(_, d)| d.clone()).collect()
    }

    /// Incidents that changed after `since`, in the order of their changes, at most `limit`; and what to ask for next. Changes
    /// are numbered anew from the time of each start: who asks by a number of before is given all.
    pub fn changed(&self, since: u64, limit: usize) -> (Vec<Arc<Incident>>, u64) {
        let inner = self.lock();
        // A number that was never given is of another start, whose clock was ahead.
        let since = if since > inner.next { 0 } else { since };
        let later = inner.changed.range(since.saturating_add(1)..).take(limit);
        let found: Vec<_> = later.filter_map(|(n, id)| Some((*n, inner.incidents.get(id)?.clone()))).collect();
        let next = found.last().map_or(since, |(n, _)| *n);
        (found.into_iter().map(|(_, incident)| incident).collect(), next)
    }

    /// One incident.
    pub fn incident_of(&self, id: IncidentId) -> Option<Arc<Incident>> {
        self.lock().incidents.get(&id).cloned()
    }

    /// A button's condition.
    pub fn condition_of(&self, id: &ButtonId) -> Option<ButtonCondition> {
        self.lock().conditions.get(id).cloned()
    }

    /// What a camera does.
    pub fn camera_of(&self, id: &CameraId) -> Option<CameraLine> {
        self.lock().cameras.get(id).cloned()
    }

    /// What a camera is doing.
    pub fn camera_state(&self, camera: &CameraId) -> Option<CameraState> {
        self.lock().cameras.get(camera).map(|c| c.state)
    }

    /// What every camera is doing.
    pub fn camera_states(&self) -> Vec<CameraState> {
        self.lock().cameras.values().map(|c| c.state).collect()
    }

    /// The gateway's own state.
    pub fn status_now(&self) -> Option<Status> {
        self.lock().status.clone()
    }
}

/// JSON of a thing of ours, which always has one.
fn json(thing: &impl Serialize) -> Bytes {
    serde_json::to_vec(thing).unwrap_or_default().into()
}
