//! What is kept for an incident, camera by camera: objects that are held, and gaps that nobody holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{clock::Utc, ids::CameraId};

/// One object of a camera's evidence: an init segment, a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceObject {
    /// Name within the camera's folder: `init.mp4`, `00001.m4s`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Whether headquarters' object store has confirmed it.
    pub delivered: bool,
}

/// Why nobody holds an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The camera was not delivering frames.
    CameraDown,
    /// The camera was not yet running when the interval began, or the ring did not reach that far back.
    BeforeRing,
    /// The recorder could not keep up with the ring.
    RecorderBehind,
    /// The disk refused it.
    DiskFailed,
    /// The gateway was not running.
    GatewayDown,
    /// Removed to make room.
    Evicted,
}

/// An interval nobody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// Its beginning.
    pub from: Utc,
    /// Its end.
    pub to: Utc,
    /// Why.
    pub reason: GapReason,
}

/// One camera's evidence for one incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CameraEvidence {
    /// Whose pictures.
    pub camera: CameraId,
    /// What was asked for: from.
    pub from: Utc,
    /// What was asked for: to. Moves when another press or the operator extends it.
    pub to: Utc,
    /// What is held, in order.
    pub objects: Vec<EvidenceObject>,
    /// What nobody holds.
    pub gaps: Vec<Gap>,
    /// Whether recording has ended; `false` while it still grows.
    pub ended: bool,
    /// Recording has ended without gaps and everything is at headquarters.
    pub complete: bool,
}

impl CameraEvidence {
    /// Works out whether it is complete, after any change.
    pub fn settle(&mut self) {
        self.complete =
            self.ended && self.gaps.is_empty() && !self.objects.is_empty() && self.objects.iter().all(|o| o.delivered);
    }
}
