//! What is kept of cameras beside evidence: everything around an outage of the backhaul, or everything always. One task a
//! camera, from its ring into the media log; headquarters gets it when nothing more urgent waits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    coverage::{Asked, Coverage, Origin},
    feeds::Feeds,
    filing::{Caught, Filing, Told},
    forwarder::Bell,
    recorder::{next, wall_of},
    shelf::Whose,
    watched::{Watch, Watched},
};
use crate::{
    district::{
        clock::{Mono, Utc},
        evidence::{Gap, GapReason},
        ids::CameraId,
        inventory::{Inventory, RecordPolicy},
    },
    host::{clock, scope::Scope},
    media::{
        fragment::Position,
        ring::{Ring, Start},
    },
    spool::{Buffer, Kept, MediaStore, Missing, ObjectMeta},
    uplink::{
        link::Backhaul,
        outage::{Outage, Window},
    },
};

/// How often it is looked whether an outage has begun or ended by itself.
const LOOK: Duration = Duration::from_secs(1);

/// Frames of the window may still be on their way when it ends.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// Tells the cameras' tasks of outages.
pub struct Keepers {
    outage: watch::Sender<Outage>,
}

/// What a camera's task works with.
struct Keeper {
    camera: CameraId,
    ring: Arc<Ring>,
    always: bool,
    outage: watch::Receiver<Outage>,
    feeds: Feeds,
    store: MediaStore,
    bell: Bell,
    watched: Watched,
    scope: Scope,
    /// When this run began.
    begun: Mono,
}

impl Keepers {
    /// Starts a task for each camera of which more than evidence is kept. A gateway that stands `alone` has no outages.
    pub fn start(
        inventory: &Inventory,
        feeds: &Feeds,
        (store, bell): (&MediaStore, &Bell),
        watched: &Watched,
        alone: bool,
        scope: &Scope,
    ) -> Self {
        let begun = clock::mono();
        let (outage, followed) = watch::channel(if alone { Outage::never() } else { Outage::new(begun) });
        for camera in inventory.cameras() {
            let Some(ring) = feeds.ring(&camera.id).filter(|_| camera.record != RecordPolicy::Incident) else {
                continue;
            };
            let keeper = Keeper {
                camera: camera.id.clone(),
                ring: ring.clone(),
                always: camera.record == RecordPolicy::Always,
                outage: followed.clone(),
                feeds: feeds.clone(),
                store: store.clone(),
                bell: bell.clone(),
                watched: watched.clone(),
                scope: scope.clone(),
                begun,
            };
            scope.spawn("keeper", keeper.run());
        }
        Self { outage }
    }

    /// The backhaul is called something else from now on; something last came back at `worked`.
    pub fn backhaul(&self, now: Mono, state: Backhaul, worked: Option<Mono>) {
        self.outage.send_modify(|outage| outage.backhaul(now, state, worked));
    }
}

impl Keeper {
    async fn run(self) {
        let stopping = self.scope.stopping();
        tokio::pin!(stopping);
        let mut last = self.last().await;
        loop {
            let window = tokio::select! {
                window = self.wanted() => window,
                () = &mut stopping => return,
            };
            info!(camera = %self.camera, always = self.always, "recording beside evidence");
            let (position, coverage) = (Position::default(), Coverage::new(self.asked(window, last.take())));
            let mut filing = Filing::new(self.whose(), self.feeds.clone(), self.store.clone(), position, coverage);
            let watch = self.watched.begin(&self.camera);
            tokio::select! {
                until = self.keep(&mut filing, window.from, &watch) => {
                    filing.pause().await;
                    let gaps = filing.coverage.ended(until, wall_of(until), wall_of(until));
                    filing.gaps(gaps);
                    self.report(&mut filing, &watch).await;
                    info!(camera = %self.camera, "the outage's recording ended");
                }
                () = &mut stopping => {
                    filing.finish().await;
                    return self.report(&mut filing, &watch).await;
                }
            }
        }
    }

    /// Takes frames until the window has ended.
    async fn keep(&self, filing: &mut Filing, from: Mono, watch: &Watch) -> Mono {
        let mut reader = self.ring.reader(Start::Arrived(from));
        let mut caught = Caught::NotYet;
        loop {
            self.report(filing, watch).await;
            filing.whose.kept = self.kept();
            let now = clock::mono();
            let until = match self.window() {
                _ if self.always => None,
                Some(window) => window.until,
                None => Some(now),
            };
            let end = until.unwrap_or(now + LOOK);
            tokio::select! {
                biased;
                () = filing.synced() => {}
                read = next(&mut reader, &caught), if caught != Caught::RingEnded => {
                    caught = filing.catch_up(read, &mut reader, end);
                    if caught == Caught::WindowEnded && until.is_some() { return end }
                }
                () = tokio::time::sleep_until(clock::deadline((end + LAST_FRAMES).min(now + LOOK))) => {
                    if until.is_some_and(|until| clock::mono() >= until + LAST_FRAMES) { return end }
                }
            }
        }
    }

    /// Resolves when this camera is to be kept, with since when.
    async fn wanted(&self) -> Window {
        loop {
            if self.always {
                return Window { from: clock::mono(), until: None };
            }
            if let Some(window) = self.window() {
                return window;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn window(&self) -> Option<Window> {
        self.outage.borrow().clone().window(clock::mono())
    }

    fn kept(&self) -> Kept {
        let buffer = if self.window().is_some() { Buffer::Outage } else { Buffer::Bulk };
        Kept::Buffer { buffer }
    }

    fn whose(&self) -> Whose {
        Whose { kept: self.kept(), camera: self.camera.clone(), rank: 0, urgent: None, boot: clock::boot_id() }
    }

    /// Up to when an earlier run kept this camera, if it was doing so when it ended.
    async fn last(&self) -> Option<Utc> {
        let found = self.store.buffer_before(&self.camera, clock::wall()).await;
        let found = found.inspect_err(|e| warn!(error = %e, "the media log")).ok().flatten();
        found.filter(|o| !o.delivered).map(|o| o.meta.to)
    }

    fn asked(&self, window: Window, last: Option<Utc>) -> Asked {
        let from = wall_of(window.from.max(self.begun));
        let origin = if last.is_some() { Origin::Restarted { rebooted: false } } else { Origin::Fresh };
        Asked {
            origin,
            // Of an earlier run only the wall's clock tells.
            from: if last.is_some() { Mono::default() } else { window.from.max(self.begun) },
            window: (last.unwrap_or(from), from),
            begun: self.begun,
            stored: last,
            lasts: Duration::ZERO,
            why: if self.ring.newest().is_some() { GapReason::BeforeRing } else { GapReason::CameraDown },
        }
    }

    /// What became of pictures: the forwarder is told of what is there, and what is not is written down beside it.
    async fn report(&self, filing: &mut Filing, watch: &Watch) {
        for told in filing.told() {
            match told {
                Told::Stored(_) => {
                    watch.stored();
                    self.bell.ring();
                }
                Told::Gap(gap) => self.missing(gap).await,
            }
        }
    }

    async fn missing(&self, Gap { from, to, reason }: Gap) {
        let Kept::Buffer { buffer } = self.kept() else { return };
        warn!(camera = %self.camera, %from, %to, ?reason, "a gap in a recording");
        let meta = ObjectMeta::missing(self.camera.clone(), buffer, (from, to), Missing { reason, bytes: 0 });
        if let Err(error) = self.store.append(meta, Bytes::new()) {
            warn!(camera = %self.camera, %error, "the gap could not be written down");
        }
    }
}
