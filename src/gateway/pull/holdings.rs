//! What this gateway holds of a camera between two moments, for whoever pulls it: evidence of incidents, and what is kept
//! beside it. What is in memory alone does not count.

use crate::{
    district::{
        evidence::{CameraEvidence, Gap},
        ids::CameraId,
    },
    gateway::{
        board::Board,
        intervals::{Interval, Intervals, Unheld, unheld},
    },
    spool::{Error, MediaStore, ObjectMeta},
};

/// What is held, and why the rest is not.
#[derive(Debug)]
pub struct Holdings {
    /// What is held, without holes of more than half a second.
    pub intervals: Vec<Interval>,
    /// What is not, each moment for one reason; and what is held with packets lost.
    pub gaps: Vec<Unheld>,
}

impl Holdings {
    /// Of a camera. Memory grows with how many gaps there are, and with the evidence of one incident; not with how long it
    /// is asked for.
    ///
    /// # Errors
    /// What the media log says.
    pub(in crate::gateway) async fn of(
        camera: &CameraId,
        asked: Interval,
        media: &MediaStore,
        board: &Board,
    ) -> Result<Self, Error> {
        let clipped = move |from, to| (asked.from.max(from), asked.to.min(to));
        let buffer = move |(held, known): &mut (Intervals, Vec<Gap>), meta: &ObjectMeta| {
            let (from, to) = clipped(meta.from, meta.to);
            match meta.gap {
                Some(missing) => known.push(Gap { from, to, reason: missing.reason }),
                None => held.add(from, to),
            }
        };
        let (mut held, mut known) = media.fold_buffer(camera, (asked.from, asked.to), buffer).await?;
        for incident in board.incidents(None, usize::MAX) {
            let is_asked = |e: &&_| is_asked(e, camera, asked);
            let Some(evidence) = incident.evidence.iter().find(is_asked) else { continue };
            known.extend(evidence.gaps.iter().cloned());
            let objects = media.evidence(incident.id, camera).await?;
            let parts = objects.iter().map(|object| (object.meta.from, object.meta.to));
            let parts = match incident.pressed_at.clock_correction {
                Some(correction) => correction.date(parts, (evidence.from, evidence.to)),
                None => parts.collect(),
            };
            for (from, to) in parts {
                let (from, to) = clipped(from, to);
                held.add(from, to);
            }
        }
        Ok(Self { gaps: unheld(asked, &held, known), intervals: held.iter().collect() })
    }
}

/// Whether evidence is of a camera and of some of an interval.
pub(in crate::gateway) fn is_asked(evidence: &CameraEvidence, camera: &CameraId, asked: Interval) -> bool {
    evidence.camera == *camera && evidence.from < asked.to && asked.from < evidence.to
}
