//! The incidents in memory and what finds them, made by applying the journal's records one after another: live and at replay
//! alike. Pure.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use super::{
    case::Case,
    record::{Opened, PressKey, Record},
};
use crate::district::{
    clock::Mono,
    ids::{ButtonId, IncidentId, PressId},
    press::{Press, Progress},
};

/// Closed and finished incidents kept in memory for the page; older ones are in the journal.
const FINISHED_KEPT: usize = 256;

/// Ids of commands remembered, so that a repeat is one command.
const COMMANDS_KEPT: usize = 1024;

/// Every incident that is not yet over and done, and the latest that are.
#[derive(Debug)]
pub struct Cases {
    /// The boot that monotonic times of the present belong to.
    boot: String,
    cases: BTreeMap<IncidentId, Case>,
    /// The open incident of each button; tests apart from the real.
    open: HashMap<(ButtonId, bool), IncidentId>,
    keys: HashMap<(ButtonId, PressId), IncidentId>,
    latest_payload: HashMap<ButtonId, (String, Mono, IncidentId)>,
    commands: VecDeque<String>,
}

impl Cases {
    /// None, in this boot.
    pub fn new(boot: String) -> Self {
        Self {
            boot,
            cases: BTreeMap::new(),
            open: HashMap::new(),
            keys: HashMap::new(),
            latest_payload: HashMap::new(),
            commands: VecDeque::new(),
        }
    }

    /// One of them.
    pub fn get(&self, id: IncidentId) -> Option<&Case> {
        self.cases.get(&id)
    }

    /// One of them, to change what no record says.
    pub fn get_mut(&mut self, id: IncidentId) -> Option<&mut Case> {
        self.cases.get_mut(&id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&IncidentId, &Case)> {
        self.cases.iter()
    }

    /// All of them, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&IncidentId, &mut Case)> {
        self.cases.iter_mut()
    }

    /// Their ids, oldest first.
    pub fn ids(&self) -> impl Iterator<Item = IncidentId> {
        self.cases.keys().copied()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The open incident of a button.
    pub fn open_of(&self, button: &ButtonId, test: bool) -> Option<IncidentId> {
        self.open.get(&(button.clone(), test)).copied()
    }

    /// Whether a command of that id was carried out.
    pub fn knows_command(&self, id: &String) -> bool {
        self.commands.contains(id)
    }

    /// The records that make all of this.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> {
        let cases = self.cases.values().map(|c| Record::Opened(Box::new(c.snapshot())));
        cases.chain([Record::Commands { ids: self.commands.iter().cloned().collect() }])
    }

    /// The incident that already has this press.
    pub fn known(&self, press: &Press, debounce: Duration) -> Option<IncidentId> {
        match &press.press {
            Some(id) => self.keys.get(&(press.button.clone(), id.clone())).copied(),
            None => {
                let (hash, at, incident) = self.latest_payload.get(&press.button)?;
                let again = press.received.mono.since(*at) <= debounce;
                (again && *hash == payload_name(press)).then_some(*incident)
            }
        }
    }

    /// Lets the oldest finished incidents go from memory.
    pub fn forget_finished(&mut self, alone: bool) {
        if self.cases.len() <= FINISHED_KEPT {
            return;
        }
        let over = self.cases.len() - FINISHED_KEPT;
        let gone: Vec<_> = self.cases.iter().filter(|(_, c)| c.finished(alone)).map(|(id, _)| *id).take(over).collect();
        for case in gone.into_iter().filter_map(|id| self.cases.remove(&id)) {
            let button = case.document.button.id;
            for key in case.keys {
                if let PressKey::Id(id) = key {
                    self.keys.remove(&(button.clone(), id));
                }
            }
        }
    }

    /// Applies a record; returns the incident it is about.
    pub fn apply(&mut self, record: Record) -> Option<IncidentId> {
        match record {
            Record::Opened(opened) => Some(self.admit(*opened)),
            // A button's, not an incident's: supervision has it.
            Record::Condition(_) => None,
            Record::Commands { ids } => {
                ids.into_iter().for_each(|id| self.remember(Some(id)));
                None
            }
            Record::Joined { incident, entry, key, until } => {
                let case = self.cases.get_mut(&incident)?;
                let button = case.document.button.id.clone();
                let same_boot = case.anchor.boot == self.boot;
                if let Some(PressKey::Id(oldest)) = case.join(entry, key.clone(), until) {
                    self.keys.remove(&(button.clone(), oldest));
                }
                self.index_key(button, &key, incident, same_boot);
                Some(incident)
            }
            Record::Delivered { incident, revision, at } => {
                let case = self.cases.get_mut(&incident)?;
                case.delivered = case.delivered.max(revision);
                case.document.revision = case.document.revision.max(revision);
                case.untold.retain(|(_, r)| *r > revision);
                case.reached(revision);
                if case.document.state < Progress::Delivered {
                    case.document.state = Progress::Delivered;
                    case.note(at, "delivered: headquarters has it".into(), "headquarters' PUBACK");
                }
                Some(incident)
            }
            Record::Step { incident, step, at, by, command } => {
                let case = self.cases.get_mut(&incident)?;
                case.document.state = case.document.state.max(step);
                case.document.revision += 1;
                let proof = command.as_deref().map_or_else(|| "journal".into(), |c| format!("command {c}"));
                let who = if by.is_empty() { "headquarters".to_owned() } else { by };
                // Its call has told of that already.
                if step != Progress::Answered {
                    case.note(at, format!("{} by {who}", name(step)), &proof);
                }
                if step == Progress::Closed {
                    let slot = (case.document.button.id.clone(), case.document.test);
                    self.open.remove(&slot);
                }
                self.remember(command);
                Some(incident)
            }
            Record::Extended { incident, until, at, by, command } => {
                let case = self.cases.get_mut(&incident)?;
                case.extend(until);
                case.note(at, format!("recording extended by {by}"), "journal");
                case.evidence_changed = true;
                self.remember(command);
                Some(incident)
            }
            Record::Lengthened { incident, until } => {
                self.cases.get_mut(&incident)?.extend(until);
                Some(incident)
            }
            Record::Gap { incident, camera, gap } => {
                self.cases.get_mut(&incident)?.gap(&camera, gap);
                Some(incident)
            }
            Record::EvidenceEnded { incident, camera } => {
                self.cases.get_mut(&incident)?.evidence_ended(&camera);
                Some(incident)
            }
            Record::Revised { incident, revision, told } => {
                let case = self.cases.get_mut(&incident)?;
                case.document.revision = case.document.revision.max(revision);
                (case.told, case.evidence_changed) = (told, false);
                Some(incident)
            }
            Record::Evicted { incident, camera, gone } => {
                self.cases.get_mut(&incident)?.evicted(camera, gone);
                Some(incident)
            }
            Record::Resumed { incident, revision, reboot } => {
                self.cases.get_mut(&incident)?.resumed(revision, reboot);
                Some(incident)
            }
            Record::Stored { incident } => {
                let case = self.cases.get_mut(&incident)?;
                case.document.revision += 1;
                case.unstored = false;
                Some(incident)
            }
            Record::ClockCorrected { incident, correction } => {
                self.cases.get_mut(&incident)?.correct_clock(correction);
                Some(incident)
            }
            Record::Call { incident, at, change } => {
                self.cases.get_mut(&incident)?.call(change, at);
                Some(incident)
            }
        }
    }

    fn admit(&mut self, opened: Opened) -> IncidentId {
        let case = Case::new(opened);
        let id = case.document.id;
        let button = case.document.button.id.clone();
        let same_boot = case.anchor.boot == self.boot;
        for key in &case.keys {
            self.index_key(button.clone(), key, id, same_boot);
        }
        if case.open() {
            self.open.insert((button, case.document.test), id);
        }
        self.cases.insert(id, case);
        id
    }

    fn index_key(&mut self, button: ButtonId, key: &PressKey, incident: IncidentId, same_boot: bool) {
        match key {
            PressKey::Id(id) => {
                self.keys.insert((button, id.clone()), incident);
            }
            PressKey::Payload { hash, at } if same_boot => {
                self.latest_payload.insert(button, (hash.clone(), *at, incident));
            }
            PressKey::Payload { .. } => {}
        }
    }

    /// Remembers that a command was carried out.
    pub fn remember(&mut self, command: Option<String>) {
        let Some(id) = command else { return };
        if self.commands.len() >= COMMANDS_KEPT {
            self.commands.pop_front();
        }
        self.commands.push_back(id);
    }
}

/// A payload's hash as text: what presses without an id are told apart by.
pub fn payload_name(press: &Press) -> String {
    press.payload_hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn name(step: Progress) -> &'static str {
    match step {
        Progress::Received => "received",
        Progress::Recorded => "recorded",
        Progress::Delivered => "delivered",
        Progress::Seen => "seen",
        Progress::Answered => "answered",
        Progress::Dispatched => "help dispatched",
        Progress::Closed => "closed",
    }
}
