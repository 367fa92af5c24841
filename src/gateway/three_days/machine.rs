//! A gateway that runs: put together as [`super::super::Gateway`] does it, on simulated disks, and without sockets.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    super::{
        Board, Desk, Engine, Exchange, Feeds, Forwarded, Forwarder, Headquarters as Way, Inputs, Keepers, Ledger,
        Recorders, Ways, desk, forwarder::Bell, opening::bring_back, watch_evictions, watched::Watched,
    },
    headquarters::Headquarters,
};
use crate::{
    call::talkback::Prompts,
    district::{
        camera::{CameraReport, CameraState},
        ids::CameraId,
        inventory::{Button, ButtonCredential, Camera, Inventory, RecordPolicy, Source, Transport, View, Voice},
        place::Place,
        secret::Secret,
    },
    host::{clock, scope::Scope},
    incident::{
        engine::{self, Calls},
        nearby::Choice,
    },
    intake,
    media::ring::{Limits, Ring},
    spool::{self, Journal, JournalSettings, MediaSettings, MediaStore, Stepped, sim::SimDisk},
    uplink::{
        events::{Event, Events},
        objects::Store,
    },
};

pub const BEFORE: Duration = Duration::from_secs(30);
pub const AFTER: Duration = Duration::from_secs(60);
/// Bytes of the media log, and of a ring.
pub const QUOTA: u64 = 8 << 20;
pub const RING: usize = 8 << 20;

pub fn media_settings() -> MediaSettings {
    MediaSettings {
        segment_bytes: 512 << 10,
        quota: QUOTA,
        keep_free: 0,
        queue_bytes: 4 << 20,
        sync_every: Duration::ZERO,
        recent_bytes: 256 << 10,
    }
}

/// Two buttons, and three cameras of which the first button sees two and the second one two.
pub fn inventory() -> Inventory {
    let corner = Place::new(34.0, 71.5).unwrap();
    let button = |i: usize| Button {
        id: format!("b{i}").parse().unwrap(),
        name: format!("Button {i}"),
        at: corner.offset_m(0.0, 200.0 * i as f64),
        credential: ButtonCredential::Password(Secret::new("x")),
        silent_after: Duration::from_secs(3_600),
        unit: None,
        record: RecordPolicy::default(),
        voice: Voice::Backchannel,
        volume: 1.0,
        half_duplex: false,
    };
    let camera = |i: usize| Camera {
        id: format!("c{i}").parse().unwrap(),
        name: format!("Camera {i}"),
        at: corner.offset_m(20.0, 100.0 + 100.0 * i as f64),
        view: View { sector: None, range_m: 150.0 },
        source: Source {
            url: format!("rtsp://127.0.0.1/cam{i}").parse().unwrap(),
            sub_url: None,
            login: None,
            transport: Transport::Tcp,
        },
        record: if i == 3 { RecordPolicy::Always } else { RecordPolicy::Outage },
    };
    Inventory::new((1..=2).map(button).collect(), (1..=3).map(camera).collect())
}

/// A gateway that runs.
pub struct Machine {
    pub rings: Vec<Arc<Ring>>,
    pub events: Events,
    pub hq_events: mpsc::Sender<Event>,
    pub buttons: mpsc::Sender<intake::Event>,
    pub media: MediaStore,
    pub stepped: Stepped,
    _journal: Journal,
    pub progress: Arc<desk::Progress>,
    scopes: Vec<Scope>,
    /// Kept open.
    _reports: mpsc::Sender<CameraReport>,
}

impl Machine {
    /// Starts it on what the disks hold. `None` when one of them goes away meanwhile.
    pub async fn start(
        (journal_disk, media_disk): (&SimDisk, &SimDisk),
        dir: &Path,
        hq: &Headquarters,
    ) -> Option<Self> {
        let (inventory, now) = (Arc::new(inventory()), clock::now());
        let (desk_scope, scope, recording) = (Scope::new("desk"), Scope::new("rest"), Scope::new("recorders"));
        let district: crate::district::ids::DistrictId = "saddar".parse().unwrap();
        let settings = engine::Settings {
            district: district.clone(),
            boot: clock::boot_id().into(),
            before: BEFORE,
            after: AFTER,
            choice: Choice { cameras: 4, radius_m: 150.0 },
            debounce: Duration::from_secs(2),
            low_battery: 0.2,
            alone: false,
            calls: Calls {
                groups: vec!["operators".into()],
                escalate_after: Duration::from_secs(20),
                ringing: Duration::ZERO,
            },
        };
        let journal = JournalSettings { segment_bytes: 64 << 10, queue_bytes: 1 << 20, reserve_bytes: 0 };
        let (journal, entries, found) =
            spool::journal::open_on(Arc::new(journal_disk.clone()), &dir.join("journal"), journal).ok()?;
        assert!(found.is_sound(), "the journal: {found:?}");
        let opened =
            MediaStore::open_stepped(Arc::new(media_disk.clone()), &dir.join("media"), media_settings(), &scope);
        let (media, stepped, evictions, _) = opened.ok()?;
        let mut engine = Engine::new(settings, inventory.clone(), now);
        let replayed = entries.iter().map(|e| e.payload.len() as u64).sum();
        bring_back(&mut engine, entries, &media).await.unwrap();

        let board = Arc::new(Board::new(now.wall.unix_ms()));
        desk::show(&engine, &board);
        let (work, work_queue) = mpsc::channel(1024);
        let (reports, camera_queue) = mpsc::channel(64);
        let (hq_events, hq_queue) = mpsc::channel(1024);
        let (buttons, button_queue) = mpsc::channel(1024);
        // Ends when nothing can be removed any more.
        watch_evictions(evictions, work.clone(), &Scope::new("evictions"));
        let limits = Limits { span: Duration::from_secs(52), bytes: RING };
        let ids: Vec<CameraId> = inventory.cameras().iter().map(|c| c.id.clone()).collect();
        let rings: Vec<_> = ids.iter().map(|_| Ring::new(limits)).collect();
        let feeds = Feeds::of(ids.iter().cloned().zip(rings.iter().cloned()));
        let (bell, events, watched) = (Bell::default(), Events::detached(), Watched::default());
        let way = Way::new(district.clone(), Some(events.clone()));
        let doors =
            intake::Settings { plain: None, tls: None, max_connections: 1, max_per_address: 1, clients: vec![] };
        let intake = intake::start(doors, inventory.clone(), buttons.clone(), &scope).await.unwrap();
        let keepers = Keepers::start(&inventory, &feeds, (&media, &bell), &watched, false, &recording);
        let recorders = Recorders::new(feeds.clone(), media.clone(), work.clone(), watched.clone(), recording.clone());
        let exchange = Exchange::new(
            inventory,
            feeds.clone(),
            (None, Prompts::default()),
            (work.clone(), reports.clone()),
            scope.clone(),
        );
        let progress = Arc::new(desk::Progress::default());
        let ways = Ways {
            board: board.clone(),
            intake,
            hq: way,
            recorders,
            keepers,
            exchange,
            bell: bell.clone(),
            progress: progress.clone(),
        };
        let desk = Desk::new(engine, Ledger::new(journal.clone(), replayed), ways);
        let disk = journal.health();
        let inputs = Inputs { intake: button_queue, events: hq_queue, cameras: camera_queue, work: work_queue, disk };
        desk_scope.spawn("desk", desk.run(inputs, desk_scope.clone()));
        let store = Store::of(Arc::new(hq.clone()));
        let counts = Arc::new(Forwarded::default());
        let identity = Some(hq.identity.clone());
        Forwarder { district, media: media.clone(), store, board, work, bell, counts, identity }.start(&scope);
        for camera in ids {
            let report = CameraReport { camera, state: CameraState::Live, detail: String::new() };
            reports.try_send(report).unwrap();
        }
        let scopes = vec![recording, scope, desk_scope];
        Some(Self {
            rings,
            events,
            hq_events,
            buttons,
            media,
            stepped,
            _journal: journal,
            progress,
            scopes,
            _reports: reports,
        })
    }

    /// Lets everything that can be done now be done.
    pub async fn pump(&mut self, wait_for_journal: bool) {
        for _ in 0..4 {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            self.stepped.step();
            tokio::task::yield_now().await;
            // The journal's thread is real: simulated time stands still for it.
            for _ in 0..20_000 {
                if !wait_for_journal || !self.progress.owes() {
                    break;
                }
                std::thread::sleep(Duration::from_micros(20));
                tokio::task::yield_now().await;
            }
        }
    }

    /// Stops as the gateway does: recordings are flushed first.
    pub async fn stop(mut self) {
        for scope in std::mem::take(&mut self.scopes) {
            let ended = scope.shutdown(Duration::from_secs(5));
            tokio::pin!(ended);
            let late = loop {
                let state = std::future::poll_fn(|cx| std::task::Poll::Ready(ended.as_mut().poll(cx))).await;
                if let std::task::Poll::Ready(late) = state {
                    break late;
                }
                self.pump(true).await;
                tokio::time::advance(Duration::from_millis(50)).await;
            };
            assert!(late.is_empty(), "{late:?}");
        }
        self.stepped.step();
    }
}
