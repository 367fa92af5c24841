//! The condition of a camera, in states an operator understands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::CameraId;

/// What a camera is doing. Only `Live` is healthy: frames arrive, not merely a socket open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CameraState {
    /// Not yet tried, or being tried right now for the first time.
    Connecting,
    /// Frames arrive.
    Live,
    /// Connected, but no frame for the watchdog's time.
    Stalled,
    /// Nothing answers at its address.
    Unreachable,
    /// It refuses our user name or password.
    WrongPassword,
    /// It answers, but not with a stream we can take (no such path, unknown codec, broken protocol).
    Unusable,
}

impl CameraState {
    /// Whether evidence can be expected from it now.
    pub fn healthy(self) -> bool {
        self == CameraState::Live
    }
}

/// A change in what a camera is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraReport {
    /// Which camera.
    pub camera: CameraId,
    /// What it does now.
    pub state: CameraState,
    /// Why, for people: the peer's words and address, no secrets.
    pub detail: String,
}
