//! How objects of evidence are called and told apart: the one place that knows what they are kept for. Pure.

use super::finding::Named;
use crate::spool::object::{ObjectMeta, ObjectRef, camera_prefix};

/// An object as people know it.
pub(super) fn named(meta: &ObjectMeta, delivered: Option<bool>) -> Named {
    Named {
        kept_for: meta.incident.to_string(),
        camera: meta.camera.to_string(),
        name: meta.name.clone(),
        from: meta.from,
        to: meta.to,
        delivered,
    }
}

/// An object in a sentence.
pub(super) fn title(meta: &ObjectMeta) -> String {
    let (camera, kept_for) = (&meta.camera, meta.incident);
    match meta.to.since(meta.from).as_secs_f64() {
        0.0 => format!("{} of camera {camera}, incident {kept_for}", meta.name),
        seconds => {
            format!("fragment {} of camera {camera}, incident {kept_for}, {seconds:.1} s from {}", meta.name, meta.from)
        }
    }
}

/// What the objects of one recording have in common.
pub(super) fn recording(meta: &ObjectMeta) -> Vec<u8> {
    camera_prefix(meta.incident, &meta.camera)
}

/// Whether headquarters has it, in a sentence's end.
pub(super) fn held_elsewhere(object: &ObjectRef) -> &'static str {
    if object.delivered {
        "headquarters has confirmed it, so it is there"
    } else {
        "headquarters has not confirmed it, so it is lost"
    }
}
