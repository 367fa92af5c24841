//! The gateway as the API and the page see it.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    PATIENCE, board::Board, desk::Progress, feeds::Feeds, forwarder::Forwarded, hq::Headquarters, metrics, status,
    work::Work,
};
use crate::{
    call::{self, Answered, Calls, SessionId},
    config::District,
    district::{clock::Mono, ids::CameraId, inventory::Inventory},
    host::scope::Scope,
    incident::{engine::CommandError, record::Command},
    intake::Intake,
    spool::{Journal, MediaStore},
};

/// Why live pictures are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Unwatched {
    /// No camera of that id.
    #[error("no camera {0} in this district")]
    NoCamera(CameraId),
    /// The port for them could not be had at the start.
    #[error("the gateway has no port for live pictures; its log of the start says why")]
    NoPort,
    /// The offer cannot be answered.
    #[error(transparent)]
    Refused(#[from] call::Refused),
}

/// A running gateway as the API sees it; cheap to clone.
#[derive(Clone)]
pub struct Facade(Arc<Shared>);

/// What it is made of.
pub(super) struct Shared {
    pub district: District,
    pub inventory: Arc<Inventory>,
    pub board: Arc<Board>,
    pub feeds: Feeds,
    /// None where its port could not be had.
    pub calls: Option<Calls>,
    pub intake: Intake,
    pub journal: Journal,
    pub media: MediaStore,
    pub hq: Headquarters,
    pub work: mpsc::Sender<Work>,
    pub progress: Arc<Progress>,
    pub counts: Arc<Forwarded>,
    /// Entries of the journal that had been synced and were gone at the start.
    pub lost: u64,
    pub started: Mono,
    pub scope: Scope,
}

impl Facade {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// The district's name and bounds.
    pub fn district(&self) -> &District {
        &self.0.district
    }

    /// What stands in it.
    pub fn inventory(&self) -> &Inventory {
        &self.0.inventory
    }

    /// What is going on.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Answers a browser's offer with a camera's live pictures and sound.
    ///
    /// # Errors
    /// [`Unwatched`], when it cannot have them.
    pub fn watch(&self, camera: &CameraId, offer: &str) -> Result<Answered, Unwatched> {
        let ring = self.0.feeds.ring(camera).ok_or_else(|| Unwatched::NoCamera(camera.clone()))?;
        let calls = self.0.calls.as_ref().ok_or(Unwatched::NoPort)?;
        Ok(calls.watch(camera, ring, self.0.feeds.hurry(), offer)?)
    }

    /// Ends a live session. Whether there was one of that name.
    pub fn hang_up(&self, session: &SessionId) -> bool {
        self.0.calls.as_ref().is_some_and(|calls| calls.hang_up(session))
    }

    /// Where buttons connect: plain MQTT, MQTT over TLS.
    pub fn broker_addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.0.intake.addresses()
    }

    /// A step of headquarters, answered when it is on disk. `None` when it was not in time: the gateway is stopping, or
    /// its disk fails.
    pub async fn command(&self, command: Command) -> Option<Result<(), CommandError>> {
        let (reply, answer) = oneshot::channel();
        self.0.work.send(Work::Command(command, reply)).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// The stored evidence of a camera for an incident. Blocks on files: call from a blocking thread.
    pub fn media(&self) -> &MediaStore {
        &self.0.media
    }

    /// The scope that requests may run blocking work in.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Resolves when the gateway stops.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.scope.stopping()
    }

    /// Why the gateway does not do its work, if it does not.
    pub fn ailment(&self) -> Option<String> {
        status::ailment(&self.0)
    }

    /// All metrics, OpenMetrics text.
    pub fn metrics(&self) -> String {
        metrics::render(&self.0)
    }
}
