//! A press: it joins its button's open incident, or makes one and links its cameras. Pure.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        cases::payload_name,
        link::link,
        record::{Opened, PressKey, Record, Told},
    },
    Effect, Engine, Outputs,
};
use crate::district::{
    clock::Mono,
    evidence::CameraEvidence,
    ids::{ButtonId, CameraId, IncidentId, PressId},
    incident::{ButtonSummary, Incident, LinkedCamera, PressEntry, PressedAt, TimelineEntry},
    inventory::Button,
    press::{Press, PressKind, Progress, StateMessage},
};

/// A press that joins waits so long at most for headquarters to acknowledge the one before it: of presses that come faster
/// than headquarters answers it reads the latest.
const ANSWER_WAIT: Duration = Duration::from_millis(250);

impl Engine {
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

    fn join(&mut self, incident: IncidentId, press: &Press, key: PressKey, out: &mut Outputs) -> IncidentId {
        let until = press.received.mono + self.settings.after;
        self.record(Record::Joined { incident, entry: entry(press), key, until }, out);
        self.pressed_again(incident, press.received, out);
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
                clock_correction: None,
                monotonic_ms: u64::try_from(now.mono.since_boot().as_millis()).unwrap_or(u64::MAX),
                boot: self.settings.boot.clone(),
                claimed_at: press.claimed_at,
            },
            press_count: 1,
            presses: vec![entry(press)],
            evidence: cameras.iter().filter(|c| c.recorded).map(evidence).collect(),
            cameras,
            call: (press.kind != PressKind::Test).then(|| self.rings(button, id, now.wall)),
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
        self.watch_clock(id, now);
        self.order(id, out);
        self.call_changed(id, now, out);
        self.put_out_presses(id, now.mono, out);
        id
    }

    /// Puts out the document with every press so far.
    pub(super) fn put_out_presses(&mut self, incident: IncidentId, now: Mono, out: &mut Outputs) {
        let Some(case) = self.cases.get_mut(incident) else { return };
        case.sent = (case.document.revision, now);
        case.behind = false;
        out.changed.insert(incident);
    }

    fn tell_press(&self, button: &ButtonId, press: Option<PressId>, incident: IncidentId, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        // Headquarters may have the incident and not yet this press of it.
        let undelivered = case.untold.iter().any(|(untold, _)| *untold == press);
        let told = StateMessage { press, incident, state: Progress::Recorded };
        if case.document.state > Progress::Delivered || (case.document.state == Progress::Delivered && !undelivered) {
            let further = StateMessage { state: case.document.state, ..told.clone() };
            out.effects.push(Effect::Tell(button.clone(), told));
            out.effects.push(Effect::Tell(button.clone(), further));
        } else {
            out.effects.push(Effect::Tell(button.clone(), told));
        }
    }
}

fn entry(press: &Press) -> PressEntry {
    PressEntry { press: press.press.clone(), at: press.received.wall, kind: press.kind }
}
