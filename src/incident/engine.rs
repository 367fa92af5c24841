//! The incident engine: every decision about presses, commands, evidence and supervision, in one place. Pure.
//!
//! Each call takes the time and an input and adds to an [`Outputs`]: records for the journal, effects that wait until
//! those records are synced, and orders that never wait (a recording begins before any disk answers). An incident is
//! made exactly once: a press is known by its key, and the incident's id is derived from it.
//!
//! What it decides about each kind of input stands in a file of its own: presses, headquarters, evidence,
//! the clock and, after a start, resume. Here are its state, what is read of it, and the one way that state changes.

mod calls;
mod clock;
mod evidence;
mod headquarters;
mod presses;
mod resume;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    case::{Case, RecordOrder},
    cases::Cases,
    nearby::{Choice, Nearby},
    record::Record,
    supervision::{Sign, Supervision},
};
use crate::{
    call::state,
    district::{
        button::ButtonCondition,
        camera::{CameraReport, CameraState},
        clock::{Mono, Now},
        evidence::DOCUMENT_OBJECTS,
        ids::{ButtonId, CameraId, DistrictId, IncidentId},
        incident::Incident,
        inventory::Inventory,
        press::{Progress, StateMessage},
    },
};

pub use self::{
    calls::{CallError, Calls},
    headquarters::CommandError,
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
    /// How calls ring.
    pub calls: Calls,
}

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
    /// Recordings, at once.
    pub orders: Vec<RecordOrder>,
    /// Incidents whose call changed: told at once.
    pub calls: BTreeSet<IncidentId>,
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
    /// Incidents whose call wants something of time by then.
    calls_due: BTreeSet<(Mono, IncidentId)>,
    /// When to look whether the clock is synchronised, while incidents wait for that.
    clock_due: Option<Mono>,
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
            calls_due: BTreeSet::new(),
            clock_due: None,
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
        document.call.iter_mut().for_each(state::shorten);
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

    // ---- inputs

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
        let calls = self.calls_due.first().map(|(at, _)| *at);
        [self.supervision.next_timeout(), evidence, presses, calls, self.clock_due].into_iter().flatten().min()
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
        self.calls_timeout(now, out);
        self.clock_timeout(now, out);
        self.cases.forget_finished(self.settings.alone);
    }

    // ---- what every input ends in

    fn condition(&mut self, condition: ButtonCondition, out: &mut Outputs) {
        out.effects.push(Effect::Condition(condition.clone()));
        out.records.push(Record::Condition(condition));
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
