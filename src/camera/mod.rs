//! Floor 1. Where pictures come in: one RTSP session a camera, its states, its clock.
//!
//! [`start`] keeps a session to a camera going for as long as its scope lives: frames go into the camera's ring,
//! changes of state to the gateway. A camera that is lost, hangs, restarts or refuses us is tried again with a wait
//! that fits the reason, never in step with others, and without leaving sessions behind on it.
//!
//! Over UDP packets are lost when a key frame bursts into a small socket buffer: raise `net.core.rmem_default`.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    district::{camera::CameraReport, ids::CameraId, inventory::Source},
    host::scope::Scope,
    media::ring::Ring,
};

pub mod fault;
mod format;
mod keeper;
pub mod pace;
mod session;
pub mod states;
pub mod stats;
pub mod timeline;

pub use stats::CameraStats;

/// How cameras are kept. Clone one for all cameras: they share the pace at which connections begin.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest wait for the answer to each RTSP request, connecting included.
    pub connect: Duration,
    /// No frame for this long: the session is given up.
    pub stall: Duration,
    /// Longest wait for a session's first key frame.
    pub first_key: Duration,
    /// Longest wait for the answer to TEARDOWN.
    pub teardown: Duration,
    /// Waits between sessions.
    pub backoff: states::Backoff,
    /// How fast connections begin, all cameras together.
    pub pace: Arc<pace::Pace>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(4),
            first_key: Duration::from_secs(30),
            teardown: Duration::from_secs(2),
            backoff: states::Backoff::default(),
            pace: Arc::new(pace::Pace::new(Duration::from_millis(5))),
        }
    }
}

/// A camera that is being kept.
#[derive(Debug, Clone)]
pub struct CameraHandle {
    camera: CameraId,
    counters: Arc<stats::Counters>,
}

impl CameraHandle {
    /// Which camera.
    pub fn camera(&self) -> &CameraId {
        &self.camera
    }

    /// Its numbers now.
    pub fn stats(&self) -> CameraStats {
        self.counters.read()
    }
}

/// Keeps a session to `source` (its `url`) until `scope` stops; then says TEARDOWN, ends the ring, and is done within
/// [`Settings::teardown`].
///
/// `reports` gets a report on each change of state or of its reason, none for the first `Connecting`. When it is full
/// the newest report waits and replaces older ones.
pub fn start(
    camera: CameraId,
    source: Source,
    ring: Arc<Ring>,
    reports: mpsc::Sender<CameraReport>,
    settings: Settings,
    scope: &Scope,
) -> CameraHandle {
    let counters = stats::Counters::new();
    let handle = CameraHandle { camera: camera.clone(), counters: counters.clone() };
    let keeper = keeper::Keeper {
        states: states::States::new(settings.backoff, fastrand::u64(..)),
        address: session::Address::new(source),
        intake: keeper::Intake::new(ring, counters),
        teller: keeper::Teller { reports, pending: None },
        scope: scope.clone(),
        camera,
        settings,
    };
    scope.spawn("camera", keeper.run());
    handle
}
