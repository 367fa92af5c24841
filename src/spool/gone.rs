//! What goes to make room, and how it is told: evidence that headquarters has, to the incident; what was kept beside it, as a
//! word about a gap, which grows as more goes.

use std::{collections::BTreeMap, time::Duration};

use super::{
    error::Error,
    index::Index,
    object::{Buffer, Kept, Missing, ObjectMeta, ObjectRef},
};
use crate::district::{
    clock::Utc,
    evidence::{Gap, GapReason},
    ids::{CameraId, IncidentId},
};

/// Words about gaps that are closer to each other than this become one.
const ADJACENT: Duration = Duration::from_secs(1);
/// Objects that were removed to make room, or that are gone. To be written down as gaps.
///
/// Sent before the file is removed; after a crash in between it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Whose evidence.
    pub incident: IncidentId,
    /// Whose pictures.
    pub camera: CameraId,
    /// From the beginning of the first to the end of the last object removed together.
    pub gap: Gap,
    /// The objects' names.
    pub names: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Whether headquarters had confirmed all of them. `false` only when segment files vanished.
    pub delivered: bool,
}

/// Objects removed together, camera by camera.
pub(super) fn evicted(objects: &[ObjectRef]) -> Vec<Evicted> {
    let mut by_camera: BTreeMap<(IncidentId, &CameraId), Vec<&ObjectRef>> = BTreeMap::new();
    for object in objects {
        // Of recordings that headquarters has nothing is to be written down.
        let Some(incident) = object.meta.kept.incident() else { continue };
        by_camera.entry((incident, &object.meta.camera)).or_default().push(object);
    }
    let part = |((incident, camera), objects): ((IncidentId, &CameraId), Vec<&ObjectRef>)| {
        // An init segment is no interval.
        let fragments = objects.iter().filter(|o| o.meta.from < o.meta.to);
        let (from, to) = fragments.fold((None::<Utc>, None::<Utc>), |(from, to), o| {
            (Some(from.map_or(o.meta.from, |f| f.min(o.meta.from))), to.max(Some(o.meta.to)))
        });
        let gap = Gap { from: from.unwrap_or_default(), to: to.unwrap_or_default(), reason: GapReason::Evicted };
        let names = objects.iter().map(|o| o.meta.name.clone()).collect();
        let bytes = objects.iter().map(|o| o.meta.size).sum();
        Evicted { incident, camera: camera.clone(), gap, names, bytes, delivered: objects.iter().all(|o| o.delivered) }
    };
    by_camera.into_iter().map(part).collect()
}

/// What is missing when these objects of buffers go: for each camera, interval by interval. One that follows on a gap of
/// the same kind that headquarters has not heard of makes that one longer; what an earlier word covers is said already.
pub(super) fn gaps(index: &Index, objects: &[ObjectRef]) -> Result<Vec<ObjectMeta>, Error> {
    let mut by_camera: BTreeMap<&CameraId, Vec<&ObjectMeta>> = BTreeMap::new();
    for object in objects.iter().filter(|o| o.meta.from < o.meta.to) {
        by_camera.entry(&object.meta.camera).or_default().push(&object.meta);
    }
    let mut found = Vec::new();
    for (camera, mut metas) in by_camera {
        metas.sort_by_key(|m| m.from);
        let mut open: Option<Word> = None;
        for meta in metas {
            if open.as_ref().is_none_or(|word| !word.reaches(meta)) {
                let next = Word::before(index, camera, meta)?;
                found.extend(open.replace(next).and_then(|word| word.meta(camera)));
            }
            if let Some(word) = &mut open {
                word.take(meta);
            }
        }
        found.extend(open.and_then(|word| word.meta(camera)));
    }
    Ok(found)
}

/// A word about what was removed, as it grows.
struct Word {
    buffer: Buffer,
    from: Utc,
    to: Utc,
    bytes: u64,
    grown: bool,
}

impl Word {
    /// The word that this object goes into: after a crash it may be there already.
    fn before(index: &Index, camera: &CameraId, meta: &ObjectMeta) -> Result<Self, Error> {
        let new = Self { buffer: of(meta), from: meta.from, to: meta.from, bytes: 0, grown: false };
        let evicted = |found: ObjectRef| {
            let gap = found.meta.gap.filter(|gap| gap.reason == GapReason::Evicted)?;
            let word =
                Self { to: found.meta.to, from: found.meta.from, buffer: of(&found.meta), bytes: gap.bytes, ..new };
            Some((word, found.delivered))
        };
        let missing = Missing { reason: GapReason::Evicted, bytes: 0 };
        let here = ObjectMeta::missing(camera.clone(), new.buffer, (meta.from, meta.to), missing);
        if let Some((word, _)) = index.get(&here.key())?.and_then(evicted) {
            return Ok(word);
        }
        // One that headquarters has heard grows no more.
        let before = index.buffer_before(camera, meta.from)?.and_then(evicted);
        let goes_on = |(word, heard): &(Self, bool)| word.reaches(meta) && (!heard || meta.to <= word.to);
        Ok(before.filter(goes_on).map_or(new, |(word, _)| word))
    }

    fn reaches(&self, meta: &ObjectMeta) -> bool {
        meta.from >= self.from && meta.from.since(self.to) <= ADJACENT
    }

    fn take(&mut self, meta: &ObjectMeta) {
        if meta.to > self.to {
            self.to = meta.to;
            self.bytes += meta.size;
            self.grown = true;
        }
    }

    /// As it is to be written, if it says anything new.
    fn meta(self, camera: &CameraId) -> Option<ObjectMeta> {
        let missing = Missing { reason: GapReason::Evicted, bytes: self.bytes };
        self.grown.then(|| ObjectMeta::missing(camera.clone(), self.buffer, (self.from, self.to), missing))
    }
}

fn of(meta: &ObjectMeta) -> Buffer {
    match meta.kept {
        Kept::Buffer { buffer } => buffer,
        Kept::Evidence { .. } => Buffer::Outage,
    }
}
