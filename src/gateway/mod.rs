//! Floor 3: composition. Who is started and stopped when, and who talks to whom.
//!
//! ```text
//! buttons ──> intake ──┐                        ┌──> journal ──> PUBACK, state to the button
//! cameras ──> feeds ───┤                        │
//!               │      ├──> desk (the engine) ──┼──> hq (MQTT), board (API, page)
//! hq ─────> uplink ────┤                        │
//! API ─────────────────┘                        └──> recorders ──> media log ──> forwarder ──> object store
//!               └── rings ─────────────────────────────┘
//! ```

pub mod access;
pub mod audit;
pub mod board;
mod coverage;
pub mod desk;
pub mod exchange;
mod facade;
pub mod feeds;
mod filing;
pub mod forwarder;
pub mod hq;
pub mod identity;
mod intervals;
pub mod keepers;
pub mod ledger;
pub mod lighter;
mod line;
mod metrics;
mod opening;
pub mod pull;
mod recorder;
pub mod recorders;
mod settings;
pub mod shelf;
mod sound;
pub mod spectators;
mod status;
#[cfg(test)]
mod three_days;
pub mod tls;
pub mod tokens;
pub mod turn;
pub mod watchdog;
pub mod watched;
pub mod work;

pub use facade::{Facade, Uncalled, Unwatched};
pub use intervals::{Interval, Unheld};

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::{
    call::{self, Calls},
    config::{Config, Loaded},
    host::{clock, scope::Scope},
    incident::engine::Engine,
    intake::{self},
    spool::{self, Evicted, Journal, MediaStore},
    uplink::{self, events},
};

use self::{
    board::Board,
    desk::{Desk, Progress, Ways},
    exchange::Exchange,
    facade::Shared,
    feeds::Feeds,
    forwarder::{Bell, Forwarded, Forwarder},
    hq::Headquarters,
    keepers::Keepers,
    ledger::Ledger,
    opening::Spool,
    recorders::Recorders,
    turn::Inputs,
    watched::Watched,
    work::Work,
};

/// Events of buttons that wait for the desk. When full, the connections wait: nothing is dropped.
const BUTTON_QUEUE: usize = 4096;

/// Acknowledgements and commands that wait for the desk. When full, headquarters' connection waits.
const HQ_QUEUE: usize = 1024;

/// Camera reports that wait for the desk. When full, a camera's newest report waits and replaces older ones.
const CAMERA_QUEUE: usize = 1024;

/// Work of recorders, the forwarder and the API that waits for the desk. When full, they wait.
const WORK_QUEUE: usize = 1024;

/// How long each group of tasks has to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal or the media log cannot be opened.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// The buttons' listener cannot start.
    #[error(transparent)]
    Intake(#[from] intake::Error),
    /// The way to headquarters cannot be set up.
    #[error(transparent)]
    Uplink(#[from] uplink::Error),
    /// A certificate or key is not what it should be.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A file named by the config cannot be read.
    #[error("cannot read {0}: {1}; `chowki check` says what is expected there")]
    File(String, std::io::Error),
}

/// A gateway that runs.
pub struct Gateway {
    facade: Facade,
    scopes: Scopes,
    journal: Journal,
    media: MediaStore,
}

/// One scope for each step of stopping.
struct Scopes {
    intake: Scope,
    calls: Scope,
    cameras: Scope,
    recorders: Scope,
    uplink: Scope,
    desk: Scope,
}

impl Gateway {
    /// Starts everything in `scope`. Nothing listens before the journal is replayed, and everything that can be refused
    /// is refused before anything is started.
    pub async fn start(loaded: Loaded, scope: &Scope) -> Result<Self, Error> {
        let Loaded { config, inventory, .. } = loaded;
        let inventory = Arc::new(inventory);
        let scopes = Scopes {
            intake: scope.child("intake"),
            calls: scope.child("calls"),
            cameras: scope.child("cameras"),
            recorders: scope.child("recorders"),
            uplink: scope.child("uplink"),
            desk: scope.child("desk"),
        };
        let intake_settings = settings::intake(&config, &scopes.intake)?;
        let hq_settings = config.headquarters.as_ref().map(|hq| settings::headquarters(hq, &config)).transpose()?;

        let now = clock::now();
        let mut engine = Engine::new(settings::engine(&config), inventory.clone(), now);
        let Spool { journal, media, identity, evictions, replayed, lost, late } =
            opening::open(&config, &mut engine, scope).await?;

        let board = Arc::new(Board::new(now.wall.unix_ms()));
        desk::show(&engine, &board);
        let (work, work_queue) = mpsc::channel(WORK_QUEUE);
        let (camera_reports, camera_queue) = mpsc::channel(CAMERA_QUEUE);
        let (hq_events, hq_queue) = mpsc::channel(HQ_QUEUE);
        let (button_events, button_queue) = mpsc::channel(BUTTON_QUEUE);

        watch_evictions(evictions, work.clone(), scope);
        if let Some(late) = late {
            late.follow(media.clone(), work.clone(), scope);
        }

        let before = config.evidence.before;
        let ring_bytes = usize::try_from(config.media.ring_bytes).unwrap_or(usize::MAX);
        let feeds = Feeds::start(&inventory, before, ring_bytes, &camera_reports, &scopes.cameras);
        let bell = Bell::default();
        let counts = Arc::new(Forwarded::default());
        let (events, store) = match hq_settings {
            Some((mqtt, objects)) => (Some(events::start(mqtt, hq_events, &scopes.uplink)), Some(objects)),
            None => {
                // Without headquarters nobody says anything: the queue stays open and empty.
                scopes.uplink.spawn("no headquarters", {
                    let stopping = scopes.uplink.stopping();
                    async move {
                        stopping.await;
                        drop(hq_events);
                    }
                });
                (None, None)
            }
        };
        let hq = Headquarters::new(config.district.id.clone(), events);
        let calls = start_calls(&config, &scopes.calls);
        let intake = intake::start(intake_settings, inventory.clone(), button_events.clone(), &scopes.intake).await?;
        let watched = Watched::default();
        let kept = (&media, &bell);
        let alone = config.headquarters.is_none();
        let keepers = Keepers::start(&inventory, &feeds, kept, &watched, alone, &scopes.recorders);
        let recorders =
            Recorders::new(feeds.clone(), media.clone(), work.clone(), watched.clone(), scopes.recorders.clone());
        let reporting = (work.clone(), camera_reports);
        let heard = (calls, settings::prompts(&config));
        let exchange = Exchange::new(inventory.clone(), feeds.clone(), heard, reporting, scopes.calls.clone());
        let progress = Arc::new(Progress::default());
        let ways = Ways {
            board: board.clone(),
            intake: intake.clone(),
            hq: hq.clone(),
            recorders,
            keepers,
            exchange: exchange.clone(),
            bell: bell.clone(),
            progress: progress.clone(),
        };
        let desk = Desk::new(engine, Ledger::new(journal.clone(), replayed), ways);
        let inputs = Inputs {
            intake: button_queue,
            events: hq_queue,
            cameras: camera_queue,
            work: work_queue,
            disk: journal.health(),
        };
        scopes.desk.spawn("desk", desk.run(inputs, scopes.desk.clone()));
        if let Some(store) = store {
            let forwarder = Forwarder {
                district: config.district.id.clone(),
                media: media.clone(),
                store,
                board: board.clone(),
                work: work.clone(),
                bell,
                counts: counts.clone(),
                identity: identity.clone().ok(),
            };
            forwarder.start(&scopes.uplink);
        }

        let shared = Shared {
            district: config.district,
            inventory,
            board,
            feeds,
            exchange,
            groups: config.call.groups.clone(),
            ice_servers: config.webrtc.ice_servers.clone(),
            buttons: button_events,
            intake,
            journal: journal.clone(),
            media: media.clone(),
            watched,
            spectators: Arc::default(),
            hq,
            work,
            progress: progress.clone(),
            counts,
            lost,
            identity,
            started: now.mono,
            scope: scope.clone(),
        };
        let facade = Facade::new(shared);
        status::publish(facade.clone(), &scopes.uplink);
        watchdog::feed(progress, scope);
        Ok(Self { facade, scopes, journal, media })
    }

    /// The gateway as seen from outside.
    pub fn facade(&self) -> Facade {
        self.facade.clone()
    }

    /// Stops in order: buttons first, so that nothing is taken that is not kept; then calls; then recordings are flushed to the
    /// spool; then cameras are told TEARDOWN; the desk last, once nothing comes any more. Returns the tasks that did
    /// not end in time.
    pub async fn stop(self) -> Vec<String> {
        let mut late = self.scopes.intake.shutdown(PATIENCE).await;
        late.extend(self.scopes.calls.shutdown(PATIENCE).await);
        late.extend(self.scopes.recorders.shutdown(PATIENCE).await);
        late.extend(self.scopes.uplink.shutdown(PATIENCE).await);
        late.extend(self.scopes.cameras.shutdown(PATIENCE).await);
        late.extend(self.scopes.desk.shutdown(PATIENCE).await);
        let closing = Scope::new("spool");
        self.media.close().await;
        self.journal.close_async(&closing).await;
        late.extend(closing.shutdown(PATIENCE).await);
        if !late.is_empty() {
            warn!(tasks = ?late, "some tasks did not end in time");
        }
        late
    }
}

/// Opens the port for live pictures. Without it presses are taken and recorded all the same.
fn start_calls(config: &Config, scope: &Scope) -> Option<Calls> {
    let started = call::start(settings::calls(config), scope);
    started.inspect_err(|e| error!(error = %e, "no live pictures")).ok()
}

/// Brings what was removed from the disk to the desk.
fn watch_evictions(mut evictions: mpsc::Receiver<Vec<Evicted>>, work: mpsc::Sender<Work>, scope: &Scope) {
    scope.spawn("evictions", async move {
        while let Some(parts) = evictions.recv().await {
            for part in parts {
                let told = if part.delivered {
                    info!(incident = %part.incident, camera = %part.camera, objects = part.names.len(),
                        "made room: headquarters has these");
                    Work::Evicted(part)
                } else {
                    Work::Gap(part.incident, part.camera, part.gap)
                };
                if work.send(told).await.is_err() {
                    return;
                }
            }
        }
    });
}
