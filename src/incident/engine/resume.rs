//! From the journal back to where the gateway was, and what it then tells again. Pure.

use super::{
    super::{
        case::{Case, RecordOrder},
        record::{Anchor, Reboot, Record},
    },
    Effect, Engine, Outputs,
};
use crate::district::{
    clock::Now,
    evidence::EvidenceObject,
    ids::{CameraId, IncidentId},
    press::StateMessage,
};

/// While the disk fails, documents are put out whose revisions no journal holds, perhaps not even those of the start before this
/// one. None of them may be given again to something else: a start goes on at least so many higher, and at the microseconds
/// since the press, which no count of revisions overtakes.
const REVISIONS_UNWRITTEN: u64 = 10_000;

impl Engine {
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
        self.calls_restarted(now, out);
        // The first order of a recording counts.
        out.orders.iter_mut().for_each(|order| order.restarted = true);
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
            self.watch_clock(id, now);
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
            let (last, age) = (case.document.revision, now.wall.since(case.document.pressed_at.at));
            let beyond = || (last + REVISIONS_UNWRITTEN).max(u64::try_from(age.as_micros()).unwrap_or(0));
            let revision = if goes_on { beyond() } else { last };
            (goes_on || reboot.is_some()).then_some(Record::Resumed { incident: *id, revision, reboot })
        };
        self.cases.iter().filter_map(resumption).collect()
    }
}
