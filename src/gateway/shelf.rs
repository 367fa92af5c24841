//! How evidence stands in the media log: what a recording's pieces are called there, and what playlists, manifests and
//! a recording that goes on are made from. Pure.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    district::{
        evidence::{CameraEvidence, EvidenceObject},
        ids::{CameraId, DistrictId, IncidentId},
    },
    media::{
        fragment::{Fragment, Init, Piece, Position, Settings, init_name},
        manifest::{Manifest, sha256},
        playlist::{Entry, Playlist},
    },
    spool::{ObjectMeta, ObjectRef},
};

/// How long fragments of evidence are.
pub fn fragments() -> Settings {
    Settings::default()
}

/// What a stored object is, beside what the log itself knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "piece", rename_all = "lowercase")]
pub enum Extra {
    /// An init segment.
    Init {
        /// Its number, from 0.
        init: u32,
        /// RFC 6381 names of its tracks.
        codecs: String,
    },
    /// A fragment.
    Fragment {
        /// Its number, from 1.
        fragment: u32,
        /// The init segment it needs.
        init: u32,
        /// Where it stands on the recording's time line, in microseconds.
        at_us: u64,
        /// Whether it does not go on where the one before ended.
        discontinuity: bool,
        /// Whether packets were lost.
        lost: bool,
    },
}

/// Whose evidence: for which incident, of which camera, at which rank.
#[derive(Debug, Clone)]
pub struct Whose {
    /// The incident.
    pub incident: IncidentId,
    /// The camera.
    pub camera: CameraId,
    /// Its rank in the incident.
    pub rank: u32,
}

/// A piece as the media log takes it. Nothing for what could not be recorded.
pub fn stored(whose: &Whose, piece: &Piece, next_fragment: u32) -> Option<(ObjectMeta, Bytes)> {
    match piece {
        Piece::Init(init) => Some((of_init(whose, init, next_fragment), init.bytes.clone())),
        Piece::Fragment(f) => Some((of_fragment(whose, f), f.bytes.clone())),
        Piece::Refused { .. } => None,
    }
}

fn of_init(whose: &Whose, init: &Init, next_fragment: u32) -> ObjectMeta {
    let extra = Extra::Init { init: init.number, codecs: init.codecs.clone() };
    // Before the fragment that follows it.
    let number = next_fragment.saturating_mul(2).saturating_sub(1);
    meta(whose, init.name(), number, &init.bytes, &extra)
}

fn of_fragment(whose: &Whose, f: &Fragment) -> ObjectMeta {
    let extra = Extra::Fragment {
        fragment: f.number,
        init: f.init,
        at_us: micros(f.at),
        discontinuity: f.discontinuity,
        lost: f.lost,
    };
    let base = meta(whose, f.name(), f.number.saturating_mul(2), &f.bytes, &extra);
    ObjectMeta { from: f.from, to: f.to, duration_us: micros(f.duration), key: f.key, ..base }
}

fn meta(whose: &Whose, name: String, number: u32, bytes: &Bytes, extra: &Extra) -> ObjectMeta {
    ObjectMeta {
        incident: whose.incident,
        camera: whose.camera.clone(),
        rank: u16::try_from(whose.rank).unwrap_or(u16::MAX),
        name,
        number,
        from: Default::default(),
        to: Default::default(),
        duration_us: 0,
        key: false,
        sha256: sha256(bytes),
        size: bytes.len() as u64,
        extra: serde_json::to_value(extra).unwrap_or_default(),
    }
}

/// What a stored object is. Nothing for one that another version wrote in another way.
pub fn extra(meta: &ObjectMeta) -> Option<Extra> {
    serde_json::from_value(meta.extra.clone()).ok()
}

/// An object as the incident's document shows it.
pub fn shown(meta: &ObjectMeta, delivered: bool) -> EvidenceObject {
    EvidenceObject { name: meta.name.clone(), size: meta.size, sha256: meta.sha256_hex(), delivered }
}

/// Where a recording goes on after what is stored of it.
pub fn position(held: &[ObjectRef]) -> Position {
    let mut position = Position::default();
    for object in held {
        match extra(&object.meta) {
            Some(Extra::Init { init, .. }) => position.init = position.init.max(init + 1),
            Some(Extra::Fragment { fragment, at_us, .. }) => {
                position.fragment = position.fragment.max(fragment + 1);
                position.at = position.at.max(Duration::from_micros(at_us + object.meta.duration_us));
            }
            None => {}
        }
    }
    position
}

/// The HLS playlist of these objects, in order. It is ended once the recording is and all of them are listed.
pub fn playlist(held: &[ObjectRef], evidence: Option<&CameraEvidence>) -> String {
    let mut list = Playlist::new(fragments().longest);
    let mut gaps = evidence.map(|e| e.gaps.as_slice()).unwrap_or_default().iter().peekable();
    for object in held {
        let Some(Extra::Fragment { init, discontinuity, .. }) = extra(&object.meta) else { continue };
        let meta = &object.meta;
        while let Some(gap) = gaps.next_if(|gap| gap.from < meta.from) {
            list.gap(gap);
        }
        list.push(&Entry {
            init: init_name(init),
            name: meta.name.clone(),
            duration: Duration::from_micros(meta.duration_us),
            from: meta.from,
            key: meta.key,
            discontinuity,
        });
    }
    gaps.for_each(|gap| list.gap(gap));
    if evidence.is_some_and(|e| e.ended) {
        list.end();
    }
    list.text()
}

/// The manifest of these objects.
pub fn manifest(subject: String, held: &[ObjectRef], evidence: &CameraEvidence) -> Manifest {
    let mut manifest = Manifest::new(subject);
    for ObjectRef { meta, .. } in held {
        let (codecs, span, lost) = match extra(meta) {
            Some(Extra::Init { codecs, .. }) => (Some(codecs), None, false),
            Some(Extra::Fragment { lost, .. }) => (None, Some((meta.from, meta.to)), lost),
            None => (None, None, false),
        };
        manifest.push(meta.name.clone(), meta.size, &meta.sha256, codecs, span, lost);
    }
    evidence.gaps.iter().cloned().for_each(|gap| manifest.gap(gap));
    manifest.end();
    manifest
}

/// Where a camera's evidence lies at headquarters: `{district}/incidents/{incident}/{camera}`.
pub fn folder(district: &DistrictId, incident: IncidentId, camera: &CameraId) -> String {
    format!("{district}/incidents/{incident}/{camera}")
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
