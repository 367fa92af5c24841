//! The condition of a button, as supervision sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{clock::Utc, ids::ButtonId};

/// What a button reports of itself on `buttons/{id}/status`: also its heartbeat, and its will.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ButtonStatus {
    /// Whether it says it is online; `false` is what its will says for it.
    #[serde(default = "yes")]
    pub online: bool,
    /// Charge, 0.0 to 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery: Option<f64>,
    /// Received radio power in dBm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rssi: Option<f64>,
    /// Firmware version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Whether the housing is open or broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tamper: Option<bool>,
}

fn yes() -> bool {
    true
}

/// Whether a button can be counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Not heard of since the gateway started.
    Unknown,
    /// Heard of within `silent_after`.
    Online,
    /// Its connection ended, or its will said so; not yet silent for long.
    Offline,
    /// Not heard of for `silent_after`: an alarm.
    Silent,
}

/// The supervised condition of one button: what headquarters gets on `chowki/{district}/buttons/{button}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ButtonCondition {
    /// Which button.
    pub button: ButtonId,
    /// Counts up with each change; the highest wins.
    pub revision: u64,
    /// Can it be counted on?
    pub presence: Presence,
    /// Battery at or below the alarm level.
    pub low_battery: bool,
    /// Housing open or broken.
    pub tamper: bool,
    /// Last time it was heard of.
    pub heard_at: Option<Utc>,
    /// When this condition began.
    pub since: Utc,
    /// What it last said of itself.
    pub status: Option<ButtonStatus>,
}
