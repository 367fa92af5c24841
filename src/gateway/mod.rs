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

pub mod board;
pub mod desk;
pub mod feeds;
pub mod forwarder;
pub mod hq;
mod metrics;
pub mod recorder;
pub mod shelf;
mod status;
pub mod tls;
pub mod watchdog;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::{
    config::{Config, District, Loaded, Objects},
    district::inventory::Inventory,
    host::{clock, scope::Scope},
    incident::{
        engine::{CommandError, Engine, Settings as EngineSettings},
        nearby::Choice,
        record::Command,
    },
    intake::{self, Intake},
    spool::{self, Evicted, Journal, JournalSettings, MediaSettings, MediaStore},
    uplink::{self, events, objects},
};

use self::{
    board::Board,
    desk::{Desk, Inputs, Progress, Work},
    feeds::Feeds,
    forwarder::{Bell, Forwarded, Forwarder},
    hq::Headquarters,
    recorder::Recorders,
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
            cameras: scope.child("cameras"),
            recorders: scope.child("recorders"),
            uplink: scope.child("uplink"),
            desk: scope.child("desk"),
        };
        let intake_settings = intake_settings(&config)?;
        let hq_settings = config.headquarters.as_ref().map(|hq| hq_settings(hq, &config)).transpose()?;

        let now = clock::now();
        let mut engine = Engine::new(engine_settings(&config), inventory.clone(), now);
        let (journal, media, evictions) = open_spool(&config, &mut engine, scope).await?;

        let board = Arc::new(Board::new(now.wall.unix_ms()));
        let (work, work_queue) = mpsc::channel(WORK_QUEUE);
        let (camera_reports, camera_queue) = mpsc::channel(CAMERA_QUEUE);
        let (hq_events, hq_queue) = mpsc::channel(HQ_QUEUE);
        let (button_events, button_queue) = mpsc::channel(BUTTON_QUEUE);

        watch_evictions(evictions, work.clone(), scope);

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
        let intake = intake::start(intake_settings, inventory.clone(), button_events, &scopes.intake).await?;
        let recorders = Recorders::new(feeds.clone(), media.clone(), work.clone(), scopes.recorders.clone());
        let progress = Arc::new(Progress::default());
        let desk = Desk::new(
            engine,
            journal.clone(),
            board.clone(),
            intake.clone(),
            hq.clone(),
            recorders,
            bell.clone(),
            progress.clone(),
        );
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
            };
            forwarder.start(&scopes.uplink);
        }

        let shared = Shared {
            district: config.district,
            inventory,
            board,
            feeds,
            intake,
            journal: journal.clone(),
            media: media.clone(),
            hq,
            work,
            progress: progress.clone(),
            counts,
            started: now.mono,
            scope: scope.clone(),
        };
        let facade = Facade(Arc::new(shared));
        status::publish(facade.clone(), &scopes.uplink);
        watchdog::feed(progress, scope);
        Ok(Self { facade, scopes, journal, media })
    }

    /// The gateway as seen from outside.
    pub fn facade(&self) -> Facade {
        self.facade.clone()
    }

    /// Stops in order: buttons first, so that nothing is taken that is not kept; then recordings are flushed to the
    /// spool; then cameras are told TEARDOWN; the desk last, once nothing comes any more. Returns the tasks that did
    /// not end in time.
    pub async fn stop(self) -> Vec<String> {
        let mut late = self.scopes.intake.shutdown(PATIENCE).await;
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

/// Opens journal and media log, and brings the engine to where they left it.
async fn open_spool(
    config: &Config,
    engine: &mut Engine,
    scope: &Scope,
) -> Result<(Journal, MediaStore, mpsc::Receiver<Vec<Evicted>>), Error> {
    let dir = config.data.dir.clone();
    let settings =
        MediaSettings { quota: config.data.media_quota, keep_free: config.data.keep_free, ..MediaSettings::default() };
    let lookups = scope.clone();
    let opened = scope.spawn_blocking("open spool", move || -> Result<_, spool::Error> {
        let journal = spool::journal::open(&dir.join("journal"), JournalSettings::default())?;
        let media = MediaStore::open(&dir.join("media"), settings, &lookups)?;
        Ok((journal, media))
    });
    let Ok(opened) = opened.await else { return Err(spool::Error::Stopped.into()) };
    let ((journal, entries, found), (media, evictions, media_found)) = opened?;
    info!(?found, media = ?media_found, "spool opened");
    let unread = desk::replay(engine, entries);
    if unread > 0 {
        warn!(unread, "journal entries of another version");
    }
    for (incident, camera) in engine.evidence() {
        for object in media.evidence(incident, &camera).await? {
            engine.replay_evidence(incident, &camera, shelf::shown(&object.meta, object.delivered));
        }
    }
    Ok((journal, media, evictions))
}

/// Brings what was removed from the disk to the desk.
fn watch_evictions(mut evictions: mpsc::Receiver<Vec<Evicted>>, work: mpsc::Sender<Work>, scope: &Scope) {
    scope.spawn("evictions", async move {
        while let Some(parts) = evictions.recv().await {
            for part in parts {
                if part.delivered {
                    info!(incident = %part.incident, camera = %part.camera, objects = part.names.len(),
                        "made room: headquarters has these");
                } else if work.send(Work::Gap(part.incident, part.camera, part.gap)).await.is_err() {
                    return;
                }
            }
        }
    });
}

fn engine_settings(config: &Config) -> EngineSettings {
    EngineSettings {
        district: config.district.id.clone(),
        boot: clock::boot_id().to_owned(),
        before: config.evidence.before,
        after: config.evidence.after,
        choice: Choice { cameras: config.evidence.cameras, radius_m: config.evidence.radius_m },
        debounce: config.evidence.debounce,
        low_battery: config.supervision.low_battery,
    }
}

fn intake_settings(config: &Config) -> Result<intake::Settings, Error> {
    let broker = &config.broker;
    let tls = broker.tls.as_ref().map(|tls| {
        let config = tls::server(&tls.cert, &tls.key, tls.client_ca.as_deref())?;
        Ok::<_, Error>(intake::Tls { listen: tls.listen, config, requires_certificate: tls.client_ca.is_some() })
    });
    let client = |c: &crate::config::BrokerClient| intake::LocalClient {
        id: c.id.clone(),
        password: c.password.clone(),
        may_read: c.may_read.clone(),
    };
    Ok(intake::Settings {
        plain: broker.listen,
        tls: tls.transpose()?,
        max_connections: broker.max_connections,
        max_per_address: broker.max_per_address,
        clients: broker.clients.iter().map(client).collect(),
    })
}

fn hq_settings(hq: &crate::config::Headquarters, config: &Config) -> Result<(events::Settings, objects::Store), Error> {
    let address = |a: &crate::config::MqttAddress| events::Address { host: a.host.clone(), port: a.port, tls: a.tls };
    let ca = hq.ca.as_ref().map(|file| std::fs::read(file).map_err(|e| Error::File(file.display().to_string(), e)));
    let ca = ca.transpose()?;
    let mqtt = events::Settings {
        login: hq.login.as_ref().map(|l| (l.username.clone(), l.password.clone())),
        client_id: hq.client_id.clone(),
        tls_roots: match &ca {
            Some(pem) => Some(uplink::tls::client_config(Some(pem), None)?),
            None => None,
        },
        ..events::Settings::new(config.district.id.clone(), hq.mqtt.iter().map(address).collect())
    };
    let url = match &hq.objects {
        Objects::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        Objects::File(dir) => format!("file://{}", dir.display()),
    };
    let s3 = hq.s3.clone().unwrap_or_default();
    let objects = objects::Settings {
        s3: objects::S3 {
            endpoint: s3.endpoint.map(|u| u.to_string()),
            region: s3.region,
            access_key: s3.access_key,
            virtual_hosted: !s3.path_style,
            allow_http: false,
            ca,
        },
        ..objects::Settings::new(url)
    };
    Ok((mqtt, objects::open(&objects)?))
}

/// A running gateway as the API sees it; cheap to clone.
#[derive(Clone)]
pub struct Facade(Arc<Shared>);

struct Shared {
    district: District,
    inventory: Arc<Inventory>,
    board: Arc<Board>,
    feeds: Feeds,
    intake: Intake,
    journal: Journal,
    media: MediaStore,
    hq: Headquarters,
    work: mpsc::Sender<Work>,
    progress: Arc<Progress>,
    counts: Arc<Forwarded>,
    started: crate::district::clock::Mono,
    scope: Scope,
}

impl Facade {
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
