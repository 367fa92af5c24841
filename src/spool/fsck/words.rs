//! How objects are called and told apart: the one place that knows what they are kept for. Pure.

use super::finding::Named;
use crate::spool::object::{Buffer, Kept, ObjectMeta, ObjectRef, buffer_prefix, camera_prefix};

/// An object as people know it.
pub(super) fn named(meta: &ObjectMeta, delivered: Option<bool>) -> Named {
    let kept_for = match meta.kept {
        Kept::Evidence { incident } => incident.to_string(),
        Kept::Buffer { buffer: Buffer::Outage } => "outage".into(),
        Kept::Buffer { buffer: Buffer::Bulk } => "bulk".into(),
    };
    let (camera, name) = (meta.camera.to_string(), meta.name.clone());
    Named { kept_for, camera, name, from: meta.from, to: meta.to, delivered }
}

/// An object in a sentence.
pub(super) fn title(meta: &ObjectMeta) -> String {
    let camera = &meta.camera;
    let kept_for = match meta.kept {
        Kept::Evidence { incident } => format!("incident {incident}"),
        Kept::Buffer { buffer: Buffer::Outage } => "kept for an outage".into(),
        Kept::Buffer { buffer: Buffer::Bulk } => "always recorded".into(),
    };
    let seconds = meta.to.since(meta.from).as_secs_f64();
    if meta.gap.is_some() {
        format!("the word that {seconds:.1} s from {} of camera {camera} are missing", meta.from)
    } else if seconds == 0.0 {
        format!("{} of camera {camera}, {kept_for}", meta.name)
    } else {
        format!("fragment {} of camera {camera}, {kept_for}, {seconds:.1} s from {}", meta.name, meta.from)
    }
}

/// What the objects of one recording have in common.
pub(super) fn recording(meta: &ObjectMeta) -> Vec<u8> {
    match meta.kept {
        Kept::Evidence { incident } => camera_prefix(incident, &meta.camera),
        Kept::Buffer { .. } => buffer_prefix(&meta.camera),
    }
}

/// Whether headquarters has it, in a sentence's end.
pub(super) fn held_elsewhere(object: &ObjectRef) -> &'static str {
    if object.delivered {
        "headquarters has confirmed it, so it is there"
    } else {
        "headquarters has not confirmed it, so it is lost"
    }
}
