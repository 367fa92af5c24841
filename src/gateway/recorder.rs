//! One recording: a camera's evidence for an incident, from its ring into the media log. It reads from before the press until
//! the window ends; what nobody holds becomes a gap with its reason.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{
    coverage::{Asked, Coverage, Origin},
    feeds::Feeds,
    filing::{Caught, Filing, SILENT, Told},
    shelf::{self, InitPlace, Whose},
    watched::Watched,
    work::Work,
};
use crate::{
    district::{
        clock::{Mono, Utc},
        evidence::GapReason,
        ids::CameraId,
    },
    host::{clock, scope::Scope},
    incident::case::RecordOrder,
    media::{
        fragment::Init,
        frame::Frame,
        recording::Recording,
        ring::{Read, Reader, Start},
    },
    spool::{MediaStore, ObjectRef},
};

/// A camera whose last frame is older than this is not sending.
const SENDING: Duration = Duration::from_secs(2);

/// A recording that has caught up looks for frames again after this long: fragments take seconds, and to be woken for each
/// frame costs more than to record it.
const REST: Duration = Duration::from_millis(200);

/// Frames of the window may still be on their way when it ends.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// A recording that can go on with the very next frame.
pub(super) struct Paused {
    recording: Recording,
    reader: Reader,
    /// Read already, and of no use for the window that ended.
    next: Option<Arc<Frame>>,
    /// What its fragments need.
    init: Option<(Init, Option<InitPlace>)>,
}

/// A recording whose window has ended.
pub(super) struct Past {
    /// When.
    pub until: Mono,
    /// What goes on if it is extended. None: the camera never sent anything.
    pub paused: Option<Paused>,
}

/// A recording and what it works with.
pub(super) struct Job {
    pub whose: Whose,
    pub order: RecordOrder,
    /// Takes what goes on if it is extended.
    pub leave: Option<oneshot::Sender<Paused>>,
    /// When this run began.
    pub begun: Mono,
    pub until: watch::Receiver<Mono>,
    pub feeds: Feeds,
    pub store: MediaStore,
    pub work: mpsc::Sender<Work>,
    pub watched: Watched,
    pub scope: Scope,
}

impl Job {
    /// Records, where it left off in the past; tells the desk when the window has ended.
    pub async fn run(mut self, past: Option<Past>) {
        let (incident, camera) = (self.order.incident, self.whose.camera.clone());
        let until = match self.record(past).await {
            Some(until) => until,
            // The gateway is stopping: the recording goes on after the restart.
            None => return,
        };
        info!(%incident, %camera, "recording ended");
        self.tell(Work::Ended(incident, camera, until)).await;
    }

    /// Records until the window ends, where it left off in the past. `None` when the gateway stops before that.
    async fn record(&mut self, past: Option<Past>) -> Option<Mono> {
        let (incident, camera) = (self.order.incident, self.whose.camera.clone());
        let held = self.held().await;
        let ring = self.feeds.recorded(&self.order.button, &camera).cloned();
        let sends = ring.as_ref().and_then(|r| r.newest()).is_some_and(|at| clock::mono().since(at) < SENDING);
        let mut filing = self.filing(past.as_ref().map(|p| p.until), &held, sends);
        let Some(ring) = ring else {
            warn!(%incident, %camera, "the camera is no longer in the config; nothing is recorded of it");
            return Some(self.end(&mut filing).await);
        };
        let mut caught = Caught::NotYet;
        let mut reader = match past {
            Some(Past { paused: Some(mut paused), .. }) => {
                filing.init = paused.init;
                filing.go_on(paused.recording, paused.next, &mut paused.reader);
                paused.reader
            }
            past => ring.reader(Start::Arrived(past.map_or(self.order.from, |p| p.until.max(self.order.from)))),
        };
        // An operator is recorded while she speaks.
        let watch = (camera != CameraId::of_operator()).then(|| self.watched.begin(&camera));
        let stopping = self.scope.stopping();
        tokio::pin!(stopping);
        loop {
            if self.report(&mut filing).await
                && let Some(watch) = &watch
            {
                watch.stored();
            }
            filing.rest(&caught, ring.newest());
            let until = *self.until.borrow_and_update();
            tokio::select! {
                biased;
                () = filing.synced() => {}
                read = next(&mut reader, &caught), if caught != Caught::RingEnded => {
                    caught = filing.catch_up(read, &mut reader, until);
                    if caught == Caught::WindowEnded { break }
                }
                () = tokio::time::sleep(SILENT) => {}
                () = wait_for(until + LAST_FRAMES, &mut self.until) => {
                    if clock::mono() >= *self.until.borrow() + LAST_FRAMES { break }
                }
                () = &mut stopping => {
                    while let Some(read) = reader.try_next()
                        && filing.catch_up(read, &mut reader, until) == Caught::NotYet
                    {}
                    filing.finish().await;
                    self.report(&mut filing).await;
                    return None;
                }
            }
        }
        filing.pause().await;
        let until = self.end(&mut filing).await;
        if let (Some(recording), Some(leave)) = (filing.recording, self.leave.take()) {
            // Refused only when the recorders have gone.
            let _ = leave.send(Paused { recording, reader, next: filing.next, init: filing.init });
        }
        Some(until)
    }

    /// Where this stretch of the recording begins.
    fn filing(&self, past: Option<Mono>, held: &[ObjectRef], sends: bool) -> Filing {
        let order = &self.order;
        let mut position = shelf::position(held);
        // Stored in this order, whatever the clock said meanwhile; an init segment has no time.
        let last = held.iter().rev().map(|o| &o.meta).find(|m| m.from < m.to).map(|m| m.to);
        // What headquarters alone has is neither overwritten nor recorded again.
        let gone = (order.gone.objects > 0).then_some(order.gone.to);
        if gone.is_some() && last.is_none() {
            position.at = order.gone.to.since(order.window.0);
        }
        position.fragment = position.fragment.max(order.gone.fragment);
        position.init = position.init.max(order.gone.init);
        let origin = match past {
            Some(until) => Origin::Extended(until),
            None if order.restarted || !held.is_empty() || gone.is_some() => {
                Origin::Restarted { rebooted: order.rebooted }
            }
            None => Origin::Fresh,
        };
        let asked = Asked {
            origin,
            from: order.from,
            window: order.window,
            begun: self.begun,
            stored: last.or(gone),
            lasts: position.at,
            why: if sends { GapReason::BeforeRing } else { GapReason::CameraDown },
        };
        Filing::new(self.whose.clone(), self.feeds.clone(), self.store.clone(), position, Coverage::new(asked))
    }

    /// Writes down what is missing at the end.
    async fn end(&self, filing: &mut Filing) -> Mono {
        let until = *self.until.borrow();
        let asked = self.order.window.1.after(until.since(self.order.until));
        let gaps = filing.coverage.ended(until, wall_of(until), asked);
        filing.gaps(gaps);
        self.report(filing).await;
        until
    }

    /// Tells the desk what became of pictures; whether some are on disk.
    async fn report(&self, filing: &mut Filing) -> bool {
        let (incident, camera) = (self.order.incident, &self.whose.camera);
        let mut stored = false;
        for told in filing.told() {
            match told {
                Told::Stored(meta) => {
                    stored = true;
                    self.tell(Work::Stored(incident, camera.clone(), shelf::shown(&meta, false))).await;
                }
                // Nobody had the floor: nothing was said, and nothing is missing.
                Told::Gap(gap) if gap.reason.is_the_cameras() && *camera == CameraId::of_operator() => {}
                Told::Gap(gap) => self.tell(Work::Gap(incident, camera.clone(), gap)).await,
            }
        }
        stored
    }

    /// What is stored already.
    async fn held(&self) -> Vec<ObjectRef> {
        match self.store.evidence(self.order.incident, &self.whose.camera).await {
            Ok(held) => held,
            Err(e) => {
                warn!(error = %e, "stored evidence cannot be listed; the recording begins anew");
                Vec::new()
            }
        }
    }

    async fn tell(&self, work: Work) {
        // Fails only when the desk has gone, and then nobody needs it.
        let _ = self.work.send(work).await;
    }
}

/// A monotonic time by the clock on the wall.
pub(super) fn wall_of(at: Mono) -> Utc {
    let now = clock::now();
    if at >= now.mono { now.wall.after(at.since(now.mono)) } else { now.wall.before(now.mono.since(at)) }
}

/// The next frame; others have their turn before it.
pub(super) async fn next(reader: &mut Reader, caught: &Caught) -> Read {
    match caught {
        Caught::NotYet => tokio::task::yield_now().await,
        _ => tokio::time::sleep(REST).await,
    }
    reader.next().await
}

/// Resolves at that time, or as soon as the time is moved.
async fn wait_for(at: Mono, moved: &mut watch::Receiver<Mono>) {
    tokio::select! {
        () = tokio::time::sleep_until(clock::deadline(at)) => {}
        Ok(()) = moved.changed() => {}
    }
}
