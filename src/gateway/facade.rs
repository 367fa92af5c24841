//! The gateway as the API and the page see it.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    PATIENCE, board::Board, desk::Progress, feeds::Feeds, forwarder::Forwarded, hq::Headquarters, metrics, status,
    work::Work,
};
use crate::{
    config::District,
    district::{clock::Mono, inventory::Inventory},
    host::scope::Scope,
    incident::{engine::CommandError, record::Command},
    intake::Intake,
    spool::{Journal, MediaStore},
};

/// A running gateway as the API sees it; cheap to clone.
#[derive(Clone)]
pub struct Facade(Arc<Shared>);

/// What it is made of.
pub(super) struct Shared {
    pub district: District,
    pub inventory: Arc<Inventory>,
    pub board: Arc<Board>,
    pub feeds: Feeds,
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
