//! Evidence: what is recorded for whom, and what the documents say of it. Pure.

use std::time::Duration;

use super::{
    super::{
        case::Case,
        record::{Gone, Record},
    },
    Engine, Outputs,
};
use crate::{
    district::{
        clock::{Now, Utc},
        evidence::{EvidenceObject, Gap},
        ids::{CameraId, IncidentId},
    },
    media::fragment::{fragment_number, init_number},
};

/// Evidence alone makes a new revision at most this often.
const EVIDENCE_REVISION: Duration = Duration::from_secs(2);

impl Engine {
    /// An object of evidence is on disk here, or headquarters' object store has it; in whatever order the two are told. Not
    /// journalled: the media log holds both.
    pub fn evidence_stored(&mut self, incident: IncidentId, camera: &CameraId, object: EvidenceObject) {
        self.with_evidence(incident, |case| case.told(camera, object));
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

    /// Orders the recordings of an incident, or moves their end.
    pub(super) fn order(&mut self, incident: IncidentId, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        out.orders.extend(case.orders().map(|(order, _)| order));
    }

    fn with_evidence(&mut self, incident: IncidentId, change: impl FnOnce(&mut Case)) {
        if let Some(case) = self.cases.get_mut(incident) {
            change(case);
            self.schedule_evidence(incident);
        }
    }

    pub(super) fn schedule_evidence(&mut self, incident: IncidentId) {
        let Some(case) = self.cases.get(incident) else { return };
        let due = (case.published + EVIDENCE_REVISION, incident);
        if case.evidence_changed {
            self.evidence_due.insert(due);
        }
    }

    pub(super) fn revise(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get_mut(incident) else { return };
        if !case.evidence_changed {
            return;
        }
        case.published = now.mono;
        let (revision, told) = (case.document.revision + 1, case.totals());
        self.record(Record::Revised { incident, revision, told }, out);
        out.changed.insert(incident);
    }
}
