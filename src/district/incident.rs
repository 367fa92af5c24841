//! The incident document: what headquarters reads, and the authority for `chowki schema incident`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::Call,
    clock::Utc,
    correction::ClockCorrection,
    evidence::CameraEvidence,
    ids::{ButtonId, CameraId, DistrictId, IncidentId, PressId},
    place::Place,
    press::{PressKind, Progress},
};

/// How many presses a document carries: the first and the latest ones. The count is exact.
pub const PRESSES_SHOWN: usize = 32;

/// How many timeline entries a document carries: the oldest half and the latest half.
pub const TIMELINE_SHOWN: usize = 64;

/// An incident, whole. Of two documents with one id the higher revision counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// UUIDv7, derived from the press that made it.
    pub id: IncidentId,
    /// Counts up with each change.
    pub revision: u64,
    /// Where.
    pub district: DistrictId,
    /// The most urgent kind among its presses.
    pub kind: PressKind,
    /// A test press: marked everywhere, wakes nobody.
    pub test: bool,
    /// The furthest step that is proven. `received` only while the gateway's disk refuses to take it: headquarters is
    /// told all the same, the button is not.
    pub state: Progress,
    /// The button.
    pub button: ButtonSummary,
    /// When it was first pressed.
    pub pressed_at: PressedAt,
    /// How many presses belong to it.
    pub press_count: u64,
    /// The first press and the latest, at most [`PRESSES_SHOWN`].
    pub presses: Vec<PressEntry>,
    /// The unit's own camera and those near it, best first.
    pub cameras: Vec<LinkedCamera>,
    /// The two-way call, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// What is kept, camera by camera.
    pub evidence: Vec<CameraEvidence>,
    /// What happened, when, proven by what; at most [`TIMELINE_SHOWN`] entries.
    pub timeline: Vec<TimelineEntry>,
}

/// The button an incident is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ButtonSummary {
    /// Its id.
    pub id: ButtonId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub at: Place,
}

/// A moment with everything that is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PressedAt {
    /// Wall time of the gateway when the press arrived.
    pub at: Utc,
    /// Whether that clock was synchronised.
    pub clock_synchronised: bool,
    /// How the times of the incident were corrected when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_correction: Option<ClockCorrection>,
    /// Monotonic milliseconds since the boot named beside.
    pub monotonic_ms: u64,
    /// The kernel's boot id.
    pub boot: String,
    /// What the device claimed, when it claimed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Utc>,
}

/// One press.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PressEntry {
    /// The device's id for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub press: Option<PressId>,
    /// When it arrived here.
    pub at: Utc,
    /// What it is about.
    pub kind: PressKind,
}

/// What a linked camera is to the incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CameraRole {
    /// The camera of the button's own unit.
    Unit,
    /// A camera near it.
    Nearby,
}

/// A camera linked to an incident, and why it stands where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkedCamera {
    /// Its id.
    pub id: CameraId,
    /// Its name.
    pub name: String,
    /// What it is to the incident.
    pub role: CameraRole,
    /// Where it stands.
    pub at: Place,
    /// Metres to the button.
    pub distance_m: f64,
    /// Direction from the camera to the button, degrees clockwise from north.
    pub bearing_deg: f64,
    /// Whether the button lies in its field of view and range.
    pub sees_button: bool,
    /// Whether frames were arriving when it was ranked.
    pub healthy: bool,
    /// Whether evidence is kept of it.
    pub recorded: bool,
    /// Why it ranks here, in words.
    pub reason: String,
    /// Path of its live view on the gateway, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// Path of its evidence on the gateway.
    pub evidence: String,
}

/// One line of an incident's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineEntry {
    /// When.
    pub at: Utc,
    /// What, in words.
    pub what: String,
    /// What proves it: `journal`, `headquarters' PUBACK`, a command's id.
    pub proof: String,
}
