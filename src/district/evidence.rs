//! What is kept for an incident, camera by camera: objects that are held, and gaps that nobody holds.

use std::time::Duration;

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
    /// It was connected, but sent nothing.
    CameraStalled,
    /// Nothing answered at its address.
    CameraUnreachable,
    /// It refused our user name or password.
    WrongPassword,
    /// It answered, but not with a stream that can be recorded.
    CameraUnusable,
    /// Packets were lost on the way: what is held of this interval is damaged.
    PacketsLost,
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

impl GapReason {
    /// Whether it was the camera that sent nothing.
    pub fn is_the_cameras(self) -> bool {
        use GapReason::*;
        matches!(self, CameraDown | CameraStalled | CameraUnreachable | WrongPassword | CameraUnusable)
    }
}

/// A hole shorter than this is a camera's jitter, and no gap.
pub const JITTER: Duration = Duration::from_millis(500);

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

/// How many objects a document lists, all cameras together, so that it stays small enough for a thin link however long an
/// incident lasts.
pub const DOCUMENT_OBJECTS: usize = 768;

/// How many gaps are told apart for each camera.
pub const GAPS_KEPT: usize = 64;

/// One camera's evidence for one incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CameraEvidence {
    /// Whose pictures.
    pub camera: CameraId,
    /// What was asked for: from.
    pub from: Utc,
    /// What was asked for: to. Moves when another press or the operator extends it.
    pub to: Utc,
    /// What is held, in order: the latest in a document (see [`DOCUMENT_OBJECTS`]), all of them in the manifest.
    pub objects: Vec<EvidenceObject>,
    /// How many objects are held.
    pub object_count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them headquarters' object store has confirmed.
    pub delivered_count: usize,
    /// What nobody holds. Of more than [`GAPS_KEPT`] the last one covers the rest, what is held between them included.
    pub gaps: Vec<Gap>,
    /// Whether recording has ended; `false` while it still grows.
    pub ended: bool,
    /// Recording has ended without gaps and everything is at headquarters.
    pub complete: bool,
}

impl CameraEvidence {
    /// Nothing held yet of what is asked for.
    pub fn asked(camera: CameraId, from: Utc, to: Utc) -> Self {
        Self {
            camera,
            from,
            to,
            objects: Vec::new(),
            object_count: 0,
            bytes: 0,
            delivered_count: 0,
            gaps: Vec::new(),
            ended: false,
            complete: false,
        }
    }

    /// Keeps only the latest objects; the counts stay.
    pub fn shorten(&mut self, objects: usize) {
        self.objects.drain(..self.objects.len().saturating_sub(objects));
    }

    /// Works out the counts and whether it is complete, after any change to a whole list.
    pub fn settle(&mut self) {
        self.object_count = self.objects.len();
        self.bytes = self.objects.iter().map(|o| o.size).sum();
        self.delivered_count = self.objects.iter().filter(|o| o.delivered).count();
        self.complete =
            self.ended && self.gaps.is_empty() && !self.objects.is_empty() && self.objects.iter().all(|o| o.delivered);
    }
}
