//! The incident engine: every decision about presses, commands, evidence and supervision, in one place. Pure.
//!
//! Each call takes the time and an input and adds to an [`Outputs`]: records for the journal, effects that wait until
//! those records are synced, and orders that never wait (a recording begins before any disk answers). An incident is
//! made exactly once: a press is known by its key, and the incident's id is derived from it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::district::{
    button::ButtonCondition,
    camera::{CameraReport, CameraState},
    clock::{Mono, Now, Utc},
    evidence::{CameraEvidence, DOCUMENT_OBJECTS, EvidenceObject, Gap},
    ids::{ButtonId, CameraId, DistrictId, IncidentId, PressId},
    incident::{ButtonSummary, Incident, LinkedCamera, PressEntry, PressedAt, TimelineEntry},
    inventory::{Button, Inventory},
    press::{Press, PressKind, Progress, StateMessage},
};

use crate::media::fragment::{fragment_number, init_number};

use super::{
    case::{Case, RecordOrder},
    cases::{Cases, payload_name},
    link::link,
    nearby::{Choice, Nearby},
    record::{Anchor, COMMAND_ID, COMMANDER, Command, Gone, Opened, PressKey, Reboot, Record, Told, Verb},
    supervision::{Sign, Supervision},
};

/// How the engine decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which district.
    pub district: DistrictId,
    /// The kernel's boot id, which says what monotonic times of the journal mean.
    pub boot: String,
    /// Evidence from so long before the press.
    pub before: Duration,
    /// Until so long after the last press.
    pub after: Duration,
    /// Which cameras.
    pub choice: Choice,
    /// Presses without an id within this time are one press.
    pub debounce: Duration,
    /// Battery alarm, 0.0 to 1.0.
    pub low_battery: f64,
    /// No headquarters is configured: nothing waits to be delivered.
    pub alone: bool,
}

/// While the disk fails, documents are put out whose revisions no journal holds. A start leaves room for so many, so that
/// none of them is given again to something else.
const REVISIONS_UNWRITTEN: u64 = 10_000;

/// Evidence alone makes a new revision at most this often.
const EVIDENCE_REVISION: Duration = Duration::from_secs(2);

/// A press that joins waits so long at most for headquarters to acknowledge the one before it: of presses that come faster
/// than headquarters answers it reads the latest.
const ANSWER_WAIT: Duration = Duration::from_millis(250);

/// What the world is told once the records before it are synced.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A button is told how far help has come.
    Tell(ButtonId, StateMessage),
    /// A button's condition changed.
    Condition(ButtonCondition),
}

/// What came of a batch of inputs.
#[derive(Debug, Default)]
pub struct Outputs {
    /// For the journal, in order.
    pub records: Vec<Record>,
    /// After they are synced, in order.
    pub effects: Vec<Effect>,
    /// Incidents whose document changed: put out after the sync.
    pub changed: BTreeSet<IncidentId>,
    /// Incidents whose document says more without a new revision, because headquarters knows it already: shown only.
    pub shown: BTreeSet<IncidentId>,
    /// At once.
    pub orders: Vec<RecordOrder>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The command names no incident, or none that this gateway knows.
    #[error("no incident {0} here")]
    NoIncident(String),
    /// The command names no button of this district.
    #[error("no button {0} in this district")]
    NoButton(String),
    /// The command's id is longer than can be remembered.
    #[error("a command's id has at most {COMMAND_ID} bytes, this one has {0}")]
    LongId(usize),
}

/// The state of a district.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    inventory: Arc<Inventory>,
    nearby: Nearby,
    supervision: Supervision,
    cameras: HashMap<CameraId, CameraState>,
    cases: Cases,
    evidence_due: BTreeSet<(Mono, IncidentId)>,
    /// Incidents with presses that are put out by then at the latest.
    presses_due: BTreeSet<(Mono, IncidentId)>,
    journal_failing: bool,
}

impl Engine {
    /// An engine without history.
    pub fn new(settings: Settings, inventory: Arc<Inventory>, now: Now) -> Self {
        Self {
            nearby: Nearby::new(inventory.cameras()),
            supervision: Supervision::new(&inventory, settings.low_battery, now),
            cases: Cases::new(settings.boot.clone()),
            settings,
            inventory,
            cameras: HashMap::new(),
            evidence_due: BTreeSet::new(),
            presses_due: BTreeSet::new(),
            journal_failing: false,
        }
    }

    // ---- what is read of it

    /// An incident's document, short enough for any link. While the disk is failing, what it has not taken reads `received`.
    pub fn document(&self, id: IncidentId) -> Option<Incident> {
        let case = self.cases.get(id)?;
        let mut document = case.document.clone();
        let objects = DOCUMENT_OBJECTS / document.evidence.len().max(1);
        document.evidence.iter_mut().for_each(|e| e.shorten(objects));
        if case.unstored && document.state == Progress::Recorded {
            document.state = Progress::Received;
        }
        Some(document)
    }

    /// Every incident in memory, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = IncidentId> {
        self.cases.ids()
    }

    /// Every camera of every incident that evidence is kept of.
    pub fn evidence(&self) -> Vec<(IncidentId, CameraId)> {
        let cameras = |(id, case): (&IncidentId, &Case)| {
            let id = *id;
            case.document.evidence.iter().map(move |e| (id, e.camera.clone())).collect::<Vec<_>>()
        };
        self.cases.iter().flat_map(cameras).collect()
    }

    /// How many incidents may have presses that are not put out yet.
    pub fn held_back(&self) -> usize {
        self.presses_due.len()
    }

    /// How many incidents are open.
    pub fn open_incidents(&self) -> usize {
        self.cases.open_count()
    }

    /// Every button's condition.
    pub fn conditions(&self) -> impl Iterator<Item = &ButtonCondition> {
        self.supervision.conditions()
    }

    /// The journal's records that make this state: a checkpoint.
    pub fn snapshot(&self) -> Vec<Record> {
        let conditions = self.supervision.conditions().filter(|c| c.revision > 0).cloned().map(Record::Condition);
        self.cases.snapshot().chain(conditions).collect()
    }

    // ---- replay

    /// Takes a record of the journal, in order, before [`Engine::resume`].
    pub fn replay(&mut self, record: Record) {
        self.apply(record);
    }

    /// Takes evidence that the media log holds, after the journal is replayed.
    pub fn replay_evidence(&mut self, incident: IncidentId, camera: &CameraId, object: EvidenceObject) {
        if let Some(case) = self.cases.get_mut(incident) {
            case.found(camera, object);
        }
    }

    /// After replay: tells again what may not have been heard, and resumes recordings.
    pub fn resume(&mut self, now: Now, out: &mut Outputs) {
        // Evidence may have been stored or delivered after the last revision that told of it.
        self.cases.iter_mut().for_each(|(_, case)| case.evidence_changed |= case.told != case.totals());
        for record in self.resumptions(now) {
            self.record(record, out);
        }
        for (id, case) in self.cases.iter() {
            if case.delivered < case.document.revision {
                out.changed.insert(*id);
            }
            let orders = case.orders().filter(|(_, ended)| !ended);
            out.orders.extend(orders.map(|(order, _)| RecordOrder { restarted: true, ..order }));
            if case.open() {
                let press = case.document.presses.last().and_then(|p| p.press.clone());
                let told = StateMessage { press, incident: *id, state: case.document.state };
                out.effects.push(Effect::Tell(case.document.button.id.clone(), told));
            }
        }
        let due: Vec<_> = self.cases.iter().filter(|(_, c)| c.evidence_changed).map(|(id, _)| *id).collect();
        self.evidence_due.extend(due.into_iter().map(|id| (now.mono, id)));
        for id in self.cases.ids().collect::<Vec<_>>() {
            self.close_finished_test(id, now, out);
        }
    }

    /// For every incident that goes on, or whose monotonic times are another boot's: from where it goes on.
    fn resumptions(&self, now: Now) -> Vec<Record> {
        let resumption = |(id, case): (&IncidentId, &Case)| {
            let reboot = (case.anchor.boot != self.settings.boot).then(|| {
                let rest = case.document.evidence.iter().map(|e| e.to.since(now.wall)).max().unwrap_or_default();
                let anchor = Anchor { boot: self.settings.boot.clone(), mono: now.mono, wall: now.wall };
                Reboot { anchor, until: now.mono + rest.min(self.settings.after) }
            });
            let goes_on = !case.finished(self.settings.alone);
            let revision = case.document.revision + if goes_on { REVISIONS_UNWRITTEN } else { 0 };
            (goes_on || reboot.is_some()).then_some(Record::Resumed { incident: *id, revision, reboot })
        };
        self.cases.iter().filter_map(resumption).collect()
    }

    // ---- inputs

    /// A press came in. What is told of it waits for the journal; the recordings do not.
    pub fn press(&mut self, press: Press, out: &mut Outputs) {
        let Some(button) = self.inventory.button(&press.button).cloned() else { return };
        if let Some(incident) = self.cases.known(&press, self.settings.debounce) {
            // Told again, for a device that has not heard it; nothing else changes.
            self.tell_press(&button.id, press.press.clone(), incident, out);
            return;
        }
        let key = match &press.press {
            Some(id) => PressKey::Id(id.clone()),
            None => PressKey::Payload { hash: payload_name(&press), at: press.received.mono },
        };
        let test = press.kind == PressKind::Test;
        let incident = match self.cases.open_of(&button.id, test) {
            Some(incident) => self.join(incident, &press, key, out),
            None => self.make(&button, &press, key, out),
        };
        let now = press.received;
        self.tell_press(&button.id, press.press, incident, out);
        self.close_finished_test(incident, now, out);
    }

    /// A sign of a button's life.
    pub fn sign(&mut self, button: &ButtonId, sign: Sign, now: Now, out: &mut Outputs) {
        if let Some(condition) = self.supervision.sign(button, sign, now) {
            self.condition(condition, out);
        }
    }

    /// What a camera does now.
    pub fn camera(&mut self, report: CameraReport) {
        self.cameras.insert(report.camera, report.state);
    }

    /// Headquarters' broker acknowledged a revision of an incident's document.
    pub fn delivered(&mut self, incident: IncidentId, revision: u64, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        if revision <= case.delivered {
            return;
        }
        let button = case.document.button.id.clone();
        let state = case.document.state.max(Progress::Delivered);
        let told = case.untold.iter().filter(|(_, r)| *r <= revision).map(|(press, _)| StateMessage {
            press: press.clone(),
            incident,
            state,
        });
        out.effects.extend(told.map(|message| Effect::Tell(button.clone(), message)));
        if case.document.state < Progress::Delivered {
            out.shown.insert(incident);
        }
        self.record(Record::Delivered { incident, revision, at: now.wall }, out);
        if self.cases.get(incident).is_some_and(|c| c.behind && c.sent.0 <= revision) {
            self.put_out_presses(incident, now.mono, out);
        }
        self.close_finished_test(incident, now, out);
    }

    /// A step that headquarters commands, by MQTT or by HTTP.
    pub fn command(&mut self, command: Command, now: Now, out: &mut Outputs) -> Result<(), CommandError> {
        if command.id.as_ref().is_some_and(|id| self.cases.knows_command(id)) {
            return Ok(());
        }
        if let Some(id) = command.id.as_ref().filter(|id| id.len() > COMMAND_ID) {
            return Err(CommandError::LongId(id.len()));
        }
        let command = Command { by: command.by.chars().take(COMMANDER).collect(), ..command };
        if command.command == Verb::TestPress {
            return self.test_press(command, now, out);
        }
        let known = command.incident.filter(|i| self.cases.get(*i).is_some());
        let Some(incident) = known else {
            return Err(CommandError::NoIncident(command.incident.map(|i| i.to_string()).unwrap_or_default()));
        };
        let step = match command.command {
            Verb::Seen => Progress::Seen,
            Verb::Dispatched => Progress::Dispatched,
            Verb::Close => Progress::Closed,
            Verb::Record | Verb::TestPress => {
                let until = now.mono + self.settings.after;
                let Command { by, id, .. } = command;
                self.record(Record::Extended { incident, until, at: now.wall, by, command: id }, out);
                self.schedule_evidence(incident);
                self.order(incident, out);
                return Ok(());
            }
        };
        self.step(incident, step, command.by, command.id, now, out);
        Ok(())
    }

    /// An object of evidence is on disk here. Not journalled: the media log holds it.
    pub fn evidence_stored(&mut self, incident: IncidentId, camera: &CameraId, object: EvidenceObject) {
        self.with_evidence(incident, |case| case.object(camera, object));
    }

    /// Headquarters' object store has an object of evidence.
    pub fn evidence_delivered(&mut self, incident: IncidentId, camera: &CameraId, name: &str) {
        self.with_evidence(incident, |case| case.object_delivered(camera, name));
    }

    /// Objects that headquarters has, of so many bytes, were removed from this disk; the last one ended at `to`.
    pub fn evidence_evicted(
        &mut self,
        incident: IncidentId,
        camera: &CameraId,
        (names, bytes, to): (&[String], u64, Utc),
        out: &mut Outputs,
    ) {
        let Some(case) = self.cases.get_mut(incident) else { return };
        case.forget(camera, names, bytes);
        let next = |number: fn(&str) -> Option<u32>| names.iter().filter_map(|n| number(n)).max().map_or(0, |n| n + 1);
        let (fragment, init) = (next(fragment_number), next(init_number));
        let gone = Gone { objects: names.len(), bytes, fragment, init, to };
        self.record(Record::Evicted { incident, camera: camera.clone(), gone }, out);
    }

    /// Nobody holds an interval of a camera's evidence.
    pub fn evidence_gap(&mut self, incident: IncidentId, camera: &CameraId, gap: Gap, out: &mut Outputs) {
        if self.cases.get(incident).is_some() {
            self.record(Record::Gap { incident, camera: camera.clone(), gap }, out);
            self.schedule_evidence(incident);
        }
    }

    /// Recording of a camera for an incident has ended.
    pub fn evidence_ended(&mut self, incident: IncidentId, camera: &CameraId, now: Now, out: &mut Outputs) {
        if self.cases.get(incident).is_some() {
            self.record(Record::EvidenceEnded { incident, camera: camera.clone() }, out);
            self.schedule_evidence(incident);
            self.close_finished_test(incident, now, out);
        }
    }

    /// The journal's disk began to fail: `waiting` are the incidents whose records it has not taken. Their documents are
    /// put out as they are, `received`.
    pub fn journal_failed(&mut self, waiting: impl IntoIterator<Item = IncidentId>, out: &mut Outputs) {
        self.journal_failing = true;
        for incident in waiting {
            if let Some(case) = self.cases.get_mut(incident) {
                case.unstored = true;
                out.changed.insert(incident);
            }
        }
    }

    /// The journal's disk has taken everything again: what was put out as `received` is put out anew.
    pub fn journal_recovered(&mut self, out: &mut Outputs) {
        self.journal_failing = false;
        let unstored: Vec<_> = self.cases.iter().filter(|(_, c)| c.unstored).map(|(id, _)| *id).collect();
        for incident in unstored {
            self.record(Record::Stored { incident }, out);
            out.changed.insert(incident);
        }
    }

    /// When [`Engine::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        let evidence = self.evidence_due.first().map(|(at, _)| *at);
        let presses = self.presses_due.first().map(|(at, _)| *at);
        [self.supervision.next_timeout(), evidence, presses].into_iter().flatten().min()
    }

    /// Does what time alone brings: silent buttons, revisions for evidence.
    pub fn timeout(&mut self, now: Now, out: &mut Outputs) {
        for condition in self.supervision.timeout(now) {
            self.condition(condition, out);
        }
        while let Some(&(at, incident)) = self.presses_due.first().filter(|(at, _)| *at <= now.mono) {
            self.presses_due.remove(&(at, incident));
            if self.cases.get(incident).is_some_and(|c| c.behind) {
                self.put_out_presses(incident, now.mono, out);
            }
        }
        while let Some(&(at, incident)) = self.evidence_due.first() {
            if at > now.mono {
                break;
            }
            self.evidence_due.pop_first();
            self.revise(incident, now, out);
            self.close_finished_test(incident, now, out);
        }
        self.cases.forget_finished(self.settings.alone);
    }

    // ---- how it decides

    fn join(&mut self, incident: IncidentId, press: &Press, key: PressKey, out: &mut Outputs) -> IncidentId {
        let until = press.received.mono + self.settings.after;
        self.record(Record::Joined { incident, entry: entry(press), key, until }, out);
        self.order(incident, out);
        let now = press.received.mono;
        if let Some(case) = self.cases.get_mut(incident)
            && !self.settings.alone
            && case.sent.0 > case.delivered
            && now < case.sent.1 + ANSWER_WAIT
            && !out.changed.contains(&incident)
        {
            case.behind = true;
            self.presses_due.insert((case.sent.1 + ANSWER_WAIT, incident));
        } else {
            self.put_out_presses(incident, now, out);
        }
        incident
    }

    /// Puts out the document with every press so far.
    fn put_out_presses(&mut self, incident: IncidentId, now: Mono, out: &mut Outputs) {
        let Some(case) = self.cases.get_mut(incident) else { return };
        case.sent = (case.document.revision, now);
        case.behind = false;
        out.changed.insert(incident);
    }

    fn make(&mut self, button: &Arc<Button>, press: &Press, key: PressKey, out: &mut Outputs) -> IncidentId {
        let id = IncidentId::derive(press.received.wall.unix_ms(), &key.derivation(&button.id));
        let now = press.received;
        let healthy = |id: &CameraId| self.cameras.get(id).is_some_and(|s| s.healthy());
        let cameras = link(button, id, self.nearby.rank(button.at, self.settings.choice, healthy), healthy);
        let (from, to) = (now.wall.before(self.settings.before), now.wall.after(self.settings.after));
        let evidence = |c: &LinkedCamera| CameraEvidence::asked(c.id.clone(), from, to);
        let document = Incident {
            id,
            revision: 1,
            district: self.settings.district.clone(),
            kind: press.kind,
            test: press.kind == PressKind::Test,
            state: Progress::Recorded,
            button: ButtonSummary { id: button.id.clone(), name: button.name.clone(), at: button.at },
            pressed_at: PressedAt {
                at: now.wall,
                clock_synchronised: now.synchronised,
                monotonic_ms: u64::try_from(now.mono.since_boot().as_millis()).unwrap_or(u64::MAX),
                boot: self.settings.boot.clone(),
                claimed_at: press.claimed_at,
            },
            press_count: 1,
            presses: vec![entry(press)],
            evidence: cameras.iter().filter(|c| c.recorded).map(evidence).collect(),
            cameras,
            call: None,
            timeline: vec![TimelineEntry {
                at: now.wall,
                what: "pressed; recorded here".into(),
                proof: "journal".into(),
            }],
        };
        let (from, until) = (now.mono.before(self.settings.before), now.mono + self.settings.after);
        let opened = Opened {
            document,
            keys: vec![key],
            from,
            until,
            delivered: 0,
            anchor: None,
            gone: Vec::new(),
            told: Told::default(),
            evidence_changed: false,
        };
        self.record(Record::Opened(Box::new(opened)), out);
        self.order(id, out);
        self.put_out_presses(id, now.mono, out);
        id
    }

    fn tell_press(&self, button: &ButtonId, press: Option<PressId>, incident: IncidentId, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        let told = StateMessage { press, incident, state: Progress::Recorded };
        if case.document.state > Progress::Recorded && case.document.state != Progress::Delivered {
            let further = StateMessage { state: case.document.state, ..told.clone() };
            out.effects.push(Effect::Tell(button.clone(), told));
            out.effects.push(Effect::Tell(button.clone(), further));
        } else {
            out.effects.push(Effect::Tell(button.clone(), told));
        }
    }

    fn test_press(&mut self, command: Command, now: Now, out: &mut Outputs) -> Result<(), CommandError> {
        let known = command.button.filter(|b| self.inventory.button(b).is_some());
        let Some(button) = known else {
            return Err(CommandError::NoButton("(field `button`)".into()));
        };
        // A command with an id is one press, whenever and how often it comes.
        let payload = match &command.id {
            Some(id) => IncidentId::derive(0, id.as_bytes()),
            None => IncidentId::derive(now.wall.unix_ms(), b"command"),
        };
        let payload = payload.to_string();
        let press = Press {
            button,
            press: payload.parse().ok(),
            claimed_at: None,
            kind: PressKind::Test,
            payload_hash: [0; 16],
            received: now,
        };
        self.press(press, out);
        if let Some(id) = command.id {
            self.record(Record::Commands { ids: vec![id] }, out);
        }
        Ok(())
    }

    fn step(
        &mut self,
        incident: IncidentId,
        step: Progress,
        by: String,
        command: Option<String>,
        now: Now,
        out: &mut Outputs,
    ) {
        let Some(case) = self.cases.get(incident) else { return };
        if case.document.state == Progress::Closed {
            return;
        }
        let further = step > case.document.state;
        let button = case.document.button.id.clone();
        let press = case.document.presses.last().and_then(|p| p.press.clone());
        self.record(Record::Step { incident, step, at: now.wall, by, command }, out);
        out.changed.insert(incident);
        if further {
            out.effects.push(Effect::Tell(button, StateMessage { press, incident, state: step }));
        }
    }

    /// A test needs no operator to end it: it closes when it has travelled the whole way.
    fn close_finished_test(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        let travelled = case.delivered > 0 || self.settings.alone;
        if case.document.test && case.open() && travelled && case.all_ended() {
            self.step(incident, Progress::Closed, "chowki: the test is over".into(), None, now, out);
        }
    }

    fn condition(&mut self, condition: ButtonCondition, out: &mut Outputs) {
        out.effects.push(Effect::Condition(condition.clone()));
        out.records.push(Record::Condition(condition));
    }

    /// Orders the recordings of an incident, or moves their end.
    fn order(&mut self, incident: IncidentId, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        out.orders.extend(case.orders().map(|(order, _)| order));
    }

    fn with_evidence(&mut self, incident: IncidentId, change: impl FnOnce(&mut Case)) {
        if let Some(case) = self.cases.get_mut(incident) {
            change(case);
            self.schedule_evidence(incident);
        }
    }

    fn schedule_evidence(&mut self, incident: IncidentId) {
        let Some(case) = self.cases.get(incident) else { return };
        let due = (case.published + EVIDENCE_REVISION, incident);
        if case.evidence_changed {
            self.evidence_due.insert(due);
        }
    }

    fn revise(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get_mut(incident) else { return };
        if !case.evidence_changed {
            return;
        }
        case.published = now.mono;
        let (revision, told) = (case.document.revision + 1, case.totals());
        self.record(Record::Revised { incident, revision, told }, out);
        out.changed.insert(incident);
    }

    /// Puts a record out and applies it: the one way that state changes.
    fn record(&mut self, record: Record, out: &mut Outputs) {
        out.records.push(record.clone());
        let incident = self.apply(record);
        if let Some(case) = incident.filter(|_| self.journal_failing).and_then(|i| self.cases.get_mut(i)) {
            case.unstored = true;
        }
    }

    fn apply(&mut self, record: Record) -> Option<IncidentId> {
        match record {
            Record::Condition(condition) => {
                self.supervision.replay(condition);
                None
            }
            record => self.cases.apply(record),
        }
    }
}

fn entry(press: &Press) -> PressEntry {
    PressEntry { press: press.press.clone(), at: press.received.wall, kind: press.kind }
}
