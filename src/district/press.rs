//! What a button says, once it is understood, and what it is told back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    clock::{Now, Utc},
    ids::{ButtonId, IncidentId, PressId},
};

/// What a press is about. The order is urgency: the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum PressKind {
    /// Someone needs help now. What a press is that does not say.
    #[default]
    Panic,
    /// Someone is hurt or ill.
    Medical,
    /// Fire.
    Fire,
    /// An accident.
    Accident,
    /// The unit itself is being opened or broken.
    Tamper,
    /// A test: travels the whole way, marked, and wakes nobody.
    Test,
}

/// A press as it came in, before anything is decided about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Press {
    /// The button, by the identity of its connection, never by what the payload claims.
    pub button: ButtonId,
    /// The device's own id for this press, when it sends one.
    pub press: Option<PressId>,
    /// When the device says it was pressed. Not trusted for order.
    pub claimed_at: Option<Utc>,
    /// What it is about.
    pub kind: PressKind,
    /// The first 16 bytes of the SHA-256 of the payload: tells presses without an id apart.
    pub payload_hash: [u8; 16],
    /// When it arrived here.
    pub received: Now,
}

/// How far help has come, each step only when it is proven. The order is progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Here, in memory only: the disk has not taken it. No button is ever told this.
    Received,
    /// On disk in this gateway.
    Recorded,
    /// Headquarters' broker has it.
    Delivered,
    /// An operator opened it.
    Seen,
    /// The call is up.
    Answered,
    /// Help has been sent.
    Dispatched,
    /// Ended by headquarters.
    Closed,
}

/// What goes down to a button on `buttons/{id}/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateMessage {
    /// The press this answers, when the device gave it an id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub press: Option<PressId>,
    /// The incident the press belongs to.
    pub incident: IncidentId,
    /// What is proven by now.
    pub state: Progress,
}
