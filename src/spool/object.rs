//! What is known of a stored media object. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::district::{
    clock::Utc,
    ids::{CameraId, IncidentId},
};

/// Longest name of an object, in bytes.
pub const MAX_NAME: usize = 255;

/// A media object as the recorder made it: an init segment or a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// The incident it is evidence for.
    pub incident: IncidentId,
    /// Whose pictures.
    pub camera: CameraId,
    /// Place of the camera in the incident's ranking, 0 the best: the order of delivery.
    pub rank: u16,
    /// Name within the camera's folder: `init.mp4`, `00001.m4s`.
    pub name: String,
    /// Order within the camera's evidence; the init segment before its fragments.
    pub number: u32,
    /// Captured from.
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
    /// What else the recorder wants back, such as the codec's name.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub extra: serde_json::Value,
}

impl ObjectMeta {
    /// SHA-256 as lower-case hex.
    pub fn sha256_hex(&self) -> String {
        hex::encode(&self.sha256)
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

    /// Where it stands among all objects: by incident, camera, number, name.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = camera_prefix(self.incident, &self.camera);
        key.extend_from_slice(&self.number.to_be_bytes());
        key.extend_from_slice(self.name.as_bytes());
        key
    }

    /// Where it stands among those to deliver: the newest incident first, then by rank, camera, number.
    pub(super) fn pending_key(&self) -> Vec<u8> {
        let mut key: Vec<u8> = self.incident.to_string().bytes().map(|b| !b).collect();
        key.extend_from_slice(&self.rank.to_be_bytes());
        key.extend_from_slice(self.camera.as_str().as_bytes());
        key.push(0);
        key.extend_from_slice(&self.number.to_be_bytes());
        key.extend_from_slice(self.name.as_bytes());
        key
    }
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
    /// Whether headquarters has confirmed it.
    pub delivered: bool,
    pub(super) at: At,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.meta.incident, self.meta.camera, self.meta.name)
    }
}

/// That an object has been delivered, as the log says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeliveredMark {
    pub incident: IncidentId,
    pub camera: CameraId,
    pub number: u32,
    pub name: String,
}

impl DeliveredMark {
    pub fn of(meta: &ObjectMeta) -> Self {
        Self { incident: meta.incident, camera: meta.camera.clone(), number: meta.number, name: meta.name.clone() }
    }

    /// The key of the object it is about.
    pub fn key(&self) -> Vec<u8> {
        let mut key = camera_prefix(self.incident, &self.camera);
        key.extend_from_slice(&self.number.to_be_bytes());
        key.extend_from_slice(self.name.as_bytes());
        key
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn encode(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
    }

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(d)?;
        let mut out = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(D::Error::custom("not 64 hex digits"));
        }
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).map_err(D::Error::custom)?;
        }
        Ok(out)
    }
}
