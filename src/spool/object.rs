//! What is known of a stored media object. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::district::{
    clock::Utc,
    evidence::GapReason,
    hex,
    ids::{CameraId, IncidentId},
};

/// Longest name of an object, in bytes.
pub const MAX_NAME: usize = 255;

/// What an object is kept for, and so how urgently headquarters wants it and when it may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Kept {
    /// Evidence of an incident: never removed before headquarters has it.
    Evidence {
        /// Which.
        incident: IncidentId,
    },
    /// What a camera sent beside that: it makes room for evidence, the oldest first.
    Buffer {
        /// Why it is kept.
        buffer: Buffer,
    },
}

/// Why a camera's pictures are kept beside evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Buffer {
    /// The backhaul was down: headquarters could not see them.
    Outage,
    /// The camera is always recorded.
    Bulk,
}

impl Kept {
    /// The incident, of evidence.
    pub fn incident(&self) -> Option<IncidentId> {
        match self {
            Kept::Evidence { incident } => Some(*incident),
            Kept::Buffer { .. } => None,
        }
    }

    /// Its lane to headquarters.
    pub fn lane(&self) -> MediaLane {
        match self {
            Kept::Evidence { .. } => MediaLane::Evidence,
            Kept::Buffer { buffer: Buffer::Outage } => MediaLane::Outage,
            Kept::Buffer { buffer: Buffer::Bulk } => MediaLane::Bulk,
        }
    }
}

/// How urgently headquarters wants media, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaLane {
    /// Evidence of incidents.
    Evidence,
    /// What cameras sent while the backhaul was down.
    Outage,
    /// What is always recorded.
    Bulk,
}

impl MediaLane {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Evidence, Self::Outage, Self::Bulk];
}

/// That nobody holds an interval, as an object of no bytes: what is delivered is this word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Why.
    pub reason: GapReason,
    /// Bytes that were held once and are not any more.
    pub bytes: u64,
}

/// A media object as the recorder made it: an init segment or a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// What it is kept for.
    #[serde(flatten)]
    pub kept: Kept,
    /// Whose pictures.
    pub camera: CameraId,
    /// Place of the camera in the incident's ranking, 0 the best: the order of delivery.
    pub rank: u16,
    /// Whether it goes before the rest of its incident: the seconds around a press.
    #[serde(default, skip_serializing_if = "is_false")]
    pub urgent: bool,
    /// Name within the camera's folder: `init.mp4`, `00001.m4s`; of a buffer `2026-11-27/101502.123.m4s`.
    pub name: String,
    /// Order within the camera's evidence; the init segment before its fragments.
    pub number: u32,
    /// Captured from. Of an init segment in a buffer: when what needs it begins.
    pub from: Utc,
    /// Captured until.
    pub to: Utc,
    /// How long it plays, in microseconds.
    pub duration_us: u64,
    /// Whether playing can begin here.
    pub key: bool,
    /// SHA-256 of its bytes.
    #[serde(with = "hex")]
    pub sha256: [u8; 32],
    /// Its bytes.
    pub size: u64,
    /// That there is nothing, of an interval that nobody holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Missing>,
    /// How many chunks of it were written before this one, each by itself, so that a power cut takes little. What is said
    /// here is said of all of it so far.
    #[serde(default, skip_serializing_if = "is_first")]
    pub chunk: u16,
    /// What else the recorder wants back, such as the codec's name.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub extra: serde_json::Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_first(chunk: &u16) -> bool {
    *chunk == 0
}

impl ObjectMeta {
    /// The word that nobody holds an interval of a camera that is recorded.
    pub fn missing(camera: CameraId, buffer: Buffer, (from, to): (Utc, Utc), missing: Missing) -> Self {
        Self {
            kept: Kept::Buffer { buffer },
            camera,
            rank: 0,
            urgent: false,
            name: format!("gap-{}", from.micros()),
            number: 0,
            from,
            to,
            duration_us: 0,
            key: false,
            sha256: missing_digest(to, missing.bytes),
            size: 0,
            gap: Some(missing),
            chunk: 0,
            extra: serde_json::Value::Null,
        }
    }

    /// SHA-256 as lower-case hex.
    pub fn sha256_hex(&self) -> String {
        hex::encode(&self.sha256)
    }

    /// Whether it is kept until headquarters has it, whatever the pressure.
    pub(super) fn stays(&self) -> bool {
        self.gap.is_some() || matches!(self.kept, Kept::Evidence { .. })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        let too_large = |bytes: usize| Error::TooLarge { bytes: bytes as u64, limit: u16::MAX.into() };
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err(too_large(self.name.len()));
        }
        let bytes = serde_json::to_vec(self).map_err(|e| Error::Index { doing: "write meta", error: e.to_string() })?;
        if bytes.len() > usize::from(u16::MAX) {
            return Err(too_large(bytes.len()));
        }
        Ok(bytes)
    }

    /// Where it stands among all objects: evidence by incident, camera, number, name; then buffers by camera and time.
    pub(super) fn key(&self) -> Vec<u8> {
        key(&self.kept, &self.camera, self.from, self.number, &self.name)
    }

    /// Where it stands among those to deliver: by lane; evidence of the newest incident first, in it the seconds around
    /// the press, then by rank, camera, number; buffers by time.
    pub(super) fn pending_key(&self) -> Vec<u8> {
        let mut key = vec![self.kept.lane() as u8];
        match self.kept {
            Kept::Evidence { incident } => {
                key.extend(incident.to_string().bytes().map(|b| !b));
                key.push(u8::from(!self.urgent));
                key.extend_from_slice(&self.rank.to_be_bytes());
            }
            Kept::Buffer { .. } => key.extend_from_slice(&sortable(self.from)),
        }
        key.extend_from_slice(self.camera.as_str().as_bytes());
        key.push(0);
        key.extend_from_slice(&self.number.to_be_bytes());
        key.extend_from_slice(self.name.as_bytes());
        key
    }
}

/// Words about the same interval that say something else are told apart by this.
fn missing_digest(to: Utc, bytes: u64) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&to.micros().to_be_bytes());
    digest[8..16].copy_from_slice(&bytes.to_be_bytes());
    digest
}

fn key(kept: &Kept, camera: &CameraId, from: Utc, number: u32, name: &str) -> Vec<u8> {
    let mut key = match kept {
        Kept::Evidence { incident } => camera_prefix(*incident, camera),
        Kept::Buffer { .. } => {
            let mut key = buffer_prefix(camera);
            key.extend_from_slice(&sortable(from));
            key
        }
    };
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// Bytes that are ordered as times are, those before 1970 too: to the millisecond, as times are written down.
pub(super) fn sortable(at: Utc) -> [u8; 8] {
    (at.micros().div_euclid(1_000) as u64 ^ (1 << 63)).to_be_bytes()
}

/// What the keys of all buffers begin with: after those of evidence, which begin with an incident's digits.
pub(super) const BUFFERS: u8 = b'~';

/// What the keys of a camera's buffer begin with.
pub(super) fn buffer_prefix(camera: &CameraId) -> Vec<u8> {
    let mut key = vec![BUFFERS];
    key.extend_from_slice(camera.as_str().as_bytes());
    key.push(0);
    key
}

/// What the keys of an incident's objects begin with.
pub(super) fn incident_prefix(incident: IncidentId) -> Vec<u8> {
    let mut key = incident.to_string().into_bytes();
    key.push(0);
    key
}

/// What the keys of a camera's objects in an incident begin with.
pub(super) fn camera_prefix(incident: IncidentId, camera: &CameraId) -> Vec<u8> {
    let mut key = incident_prefix(incident);
    key.extend_from_slice(camera.as_str().as_bytes());
    key.push(0);
    key
}

/// Where an object lies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    pub segment: u64,
    pub offset: u64,
    pub sequence: u64,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// What the recorder said of it.
    pub meta: ObjectMeta,
    /// Whether headquarters has confirmed it: the index says it beside where it lies.
    #[serde(skip)]
    pub delivered: bool,
    /// Its last chunk, or all of it.
    pub(super) at: At,
    /// The chunks before that, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) before: Vec<At>,
}

impl ObjectRef {
    /// One that lies in one record.
    pub(super) fn whole(meta: ObjectMeta, at: At) -> Self {
        Self { meta: ObjectMeta { chunk: 0, ..meta }, delivered: false, at, before: Vec::new() }
    }

    /// Where its chunks lie, in order.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = At> + '_ {
        self.before.iter().copied().chain([self.at])
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meta.kept {
            Kept::Evidence { incident } => write!(f, "{incident}/{}/{}", self.meta.camera, self.meta.name),
            Kept::Buffer { .. } => write!(f, "{}/{}", self.meta.camera, self.meta.name),
        }
    }
}

/// That an object has been delivered, as the log says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeliveredMark {
    #[serde(flatten)]
    kept: Kept,
    camera: CameraId,
    number: u32,
    name: String,
    #[serde(default)]
    from: Utc,
    /// What it was then: a word about a gap may say more by now, and a name be given again after a crash. None: as an
    /// earlier version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex::maybe")]
    sha256: Option<[u8; 32]>,
}

impl DeliveredMark {
    pub fn of(meta: &ObjectMeta) -> Self {
        let ObjectMeta { kept, camera, number, name, from, sha256, .. } = meta;
        let (camera, name, sha256) = (camera.clone(), name.clone(), Some(*sha256));
        Self { kept: *kept, camera, number: *number, name, from: *from, sha256 }
    }

    /// Whether it says so of the object as it is now.
    pub fn is_about(&self, meta: &ObjectMeta) -> bool {
        self.sha256.is_none_or(|told| told == meta.sha256)
    }

    /// The key of the object it is about.
    pub fn key(&self) -> Vec<u8> {
        key(&self.kept, &self.camera, self.from, self.number, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_down_and_read_again_has_the_same_place(us in -60_000_000_000_000i64..4_000_000_000_000_000) {
            let missing = Missing { reason: GapReason::Evicted, bytes: 1 };
            let (from, to) = (Utc::from_micros(us), Utc::from_micros(us + 1));
            let meta = ObjectMeta::missing("c1".parse().unwrap(), Buffer::Outage, (from, to), missing);
            let again: ObjectMeta = serde_json::from_slice(&meta.encode().unwrap()).unwrap();
            prop_assert_eq!(again.key(), meta.key());
            prop_assert_eq!(again.pending_key(), meta.pending_key());
            let mark = DeliveredMark::of(&meta);
            let read: DeliveredMark = serde_json::from_slice(&serde_json::to_vec(&mark).unwrap()).unwrap();
            prop_assert_eq!(read.key(), meta.key());
        }
    }
}
