//! Evidence: for each incident and linked camera a task that reads the ring from before the press until the window ends,
//! and puts fragments into the media log. What nobody holds becomes a gap with its reason.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    feeds::Feeds,
    shelf::{self, Whose},
    work::Work,
};
use crate::{
    district::{
        clock::{Mono, Utc},
        evidence::{Gap, GapReason},
        ids::{CameraId, IncidentId},
    },
    host::{clock, scope::Scope},
    incident::case::RecordOrder,
    media::{
        fragment::{Piece, Position},
        frame::Frame,
        recording::Recording,
        ring::{Read, Reader, Start},
    },
    spool::{MediaStore, ObjectMeta, ObjectRef, Ticket},
};

/// A hole in a recording shorter than this is a camera's jitter, not a gap.
const TOLERANCE: Duration = Duration::from_millis(500);

/// A camera whose last frame is older than this is not sending.
const SENDING: Duration = Duration::from_secs(2);

/// A recording that has caught up looks for frames again after this long: fragments take seconds, and to be woken for each
/// frame costs more than to record it.
const REST: Duration = Duration::from_millis(200);

/// Frames taken at once, so that a recording that begins with a full ring leaves the processor to others in between.
const AT_ONCE: usize = 64;

/// Frames of the window may still be on their way when it ends.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// The recordings that run.
pub struct Recorders {
    feeds: Feeds,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    scope: Scope,
    /// When this gateway began: what is missing before that, no gateway could record.
    began: Mono,
    running: HashMap<(IncidentId, CameraId), (RecordOrder, watch::Sender<Mono>)>,
}

impl Recorders {
    /// None running yet.
    pub fn new(feeds: Feeds, store: MediaStore, work: mpsc::Sender<Work>, scope: Scope) -> Self {
        Self { feeds, store, work, scope, began: clock::mono(), running: HashMap::new() }
    }

    /// Begins a recording, or moves the end of the one that runs.
    pub fn order(&mut self, order: RecordOrder) {
        let key = (order.incident, order.camera.clone());
        if let Some((known, until)) = self.running.get_mut(&key) {
            known.until = order.until;
            until.send_replace(order.until);
            return;
        }
        let (until, watch) = watch::channel(order.until);
        let job = Job {
            whose: Whose { incident: order.incident, camera: order.camera.clone(), rank: order.rank },
            from: order.from,
            until: watch,
            feeds: self.feeds.clone(),
            store: self.store.clone(),
            work: self.work.clone(),
            scope: self.scope.clone(),
            began: self.began,
        };
        self.running.insert(key, (order, until));
        self.scope.spawn("recording", job.run());
    }

    /// A recording has ended at `until`. When it was extended in that very moment it begins again, and has not ended.
    pub fn ended(&mut self, incident: IncidentId, camera: &CameraId, until: Mono) -> bool {
        let Some((order, _)) = self.running.remove(&(incident, camera.clone())) else { return true };
        if order.until > until {
            self.order(order);
            return false;
        }
        true
    }
}

struct Job {
    whose: Whose,
    from: Mono,
    until: watch::Receiver<Mono>,
    feeds: Feeds,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    scope: Scope,
    began: Mono,
}

impl Job {
    async fn run(mut self) {
        let (incident, camera) = (self.whose.incident, self.whose.camera.clone());
        let until = match self.record().await {
            Some(until) => until,
            // The gateway is stopping: the recording goes on after the restart.
            None => return,
        };
        info!(%incident, %camera, "recording ended");
        self.tell(Work::Ended(incident, camera, until)).await;
    }

    /// Records until the window ends. `None` when the gateway stops before that.
    async fn record(&mut self) -> Option<Mono> {
        let (incident, camera) = (self.whose.incident, self.whose.camera.clone());
        let held = self.held().await;
        let mut shelf = Shelf::new(self, &held);
        let Some(ring) = self.feeds.ring(&camera).cloned() else {
            warn!(%incident, %camera, "the camera is no longer in the config; nothing is recorded of it");
            let until = *self.until.borrow();
            shelf.covered_until(self.wall_of(until)).await;
            return Some(until);
        };
        let resumed = !held.is_empty();
        // After a restart the ring begins anew; after an extension it still holds what came since.
        let start = if resumed { self.mono_of(shelf.covered).max(self.from) } else { self.from };
        if ring.newest().is_some_and(|at| clock::mono().since(at) < SENDING) {
            shelf.missing = GapReason::BeforeRing;
        }
        let mut caught = Caught::NotYet;
        let mut reader = ring.reader(Start::Arrived(start));
        let stopping = self.scope.stopping();
        tokio::pin!(stopping);
        loop {
            let until = *self.until.borrow_and_update();
            tokio::select! {
                biased;
                Some((stored, meta)) = shelf.syncing.next() => shelf.synced(stored, meta).await,
                read = next(&mut reader, &caught), if caught != Caught::RingEnded => {
                    caught = shelf.catch_up(read, &mut reader, until).await;
                    if caught == Caught::WindowEnded { break }
                }
                () = wait_for(until + LAST_FRAMES, &mut self.until) => {
                    if clock::mono() >= *self.until.borrow() + LAST_FRAMES { break }
                }
                () = &mut stopping => {
                    while let Some(read) = reader.try_next()
                        && shelf.catch_up(read, &mut reader, until).await == Caught::NotYet
                    {}
                    shelf.finish().await;
                    return None;
                }
            }
        }
        let until = *self.until.borrow();
        shelf.finish().await;
        shelf.covered_until(self.wall_of(until)).await;
        Some(until)
    }

    /// What is stored already.
    async fn held(&self) -> Vec<ObjectRef> {
        match self.store.evidence(self.whose.incident, &self.whose.camera).await {
            Ok(held) => held,
            Err(e) => {
                warn!(error = %e, "stored evidence cannot be listed; the recording begins anew");
                Vec::new()
            }
        }
    }

    fn wall_of(&self, at: Mono) -> Utc {
        let now = clock::now();
        if at >= now.mono { now.wall.after(at.since(now.mono)) } else { now.wall.before(now.mono.since(at)) }
    }

    fn mono_of(&self, at: Utc) -> Mono {
        let now = clock::now();
        now.mono.before(now.wall.since(at))
    }

    async fn tell(&self, work: Work) {
        // Fails only when the desk has gone, and then nobody needs it.
        let _ = self.work.send(work).await;
    }
}

/// How far a recording has got.
#[derive(PartialEq, Eq)]
enum Caught {
    /// There is more in the ring.
    NotYet,
    /// With the newest frame.
    Up,
    /// To the end of its window.
    WindowEnded,
    /// To the last frame that will ever come.
    RingEnded,
}

/// The next frame; others have their turn before it.
async fn next(reader: &mut Reader, caught: &Caught) -> Read {
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

/// Fragments on their way into the media log, and what they leave uncovered.
struct Shelf {
    whose: Whose,
    /// Begun with the first frame, which says how long nothing was recorded before it.
    recording: Option<Recording>,
    position: Position,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    syncing: FuturesOrdered<Syncing>,
    /// Up to here nothing is missing that is not written down as a gap.
    covered: Utc,
    /// Where a recording that goes on after a restart went on: what was captured before is stored.
    resumed_at: Option<Utc>,
    /// When this gateway began.
    began: Utc,
    /// Why what is missing next is missing, as far as this gateway ran.
    missing: GapReason,
}

type Syncing = std::pin::Pin<Box<dyn Future<Output = (Result<(), crate::spool::Error>, ObjectMeta)> + Send>>;

impl Shelf {
    fn new(job: &Job, held: &[ObjectRef]) -> Self {
        let last = held.iter().map(|o| o.meta.to).max();
        let covered = last.unwrap_or_else(|| job.wall_of(job.from));
        Self {
            whose: job.whose.clone(),
            recording: None,
            position: shelf::position(held),
            store: job.store.clone(),
            work: job.work.clone(),
            syncing: FuturesOrdered::new(),
            covered,
            resumed_at: last,
            began: job.wall_of(job.began),
            missing: GapReason::CameraDown,
        }
    }

    /// Takes what is in the ring, from this read on, up to `until`.
    async fn catch_up(&mut self, read: Read, reader: &mut Reader, until: Mono) -> Caught {
        let (mut next, mut taken) = (Some(read), 0);
        while let Some(read) = next {
            match read {
                Read::Frame(frame) if frame.arrived > until => return Caught::WindowEnded,
                Read::Frame(frame) if self.resumed_at.is_some_and(|at| frame.captured < at) => {}
                Read::Frame(frame) => self.frame(&frame).await,
                Read::Skipped(frames) => self.skipped(frames).await,
                Read::Ended => return Caught::RingEnded,
            }
            taken += 1;
            if taken == AT_ONCE {
                return Caught::NotYet;
            }
            next = reader.try_next();
        }
        Caught::Up
    }

    async fn frame(&mut self, frame: &std::sync::Arc<Frame>) {
        let recording = self.recording.get_or_insert_with(|| {
            let hole =
                if self.position == Position::default() { Duration::ZERO } else { frame.captured.since(self.covered) };
            Recording::resume(shelf::fragments(), Position { at: self.position.at + hole, ..self.position })
        });
        let pieces = recording.push(frame);
        self.put(pieces).await;
    }

    async fn skipped(&mut self, frames: u64) {
        warn!(incident = %self.whose.incident, camera = %self.whose.camera, frames, "the recorder fell behind the ring");
        let pieces = self.recording.as_mut().map(Recording::skip).unwrap_or_default();
        self.put(pieces).await;
        self.missing = GapReason::RecorderBehind;
    }

    async fn finish(&mut self) {
        let pieces = self.recording.as_mut().map(Recording::finish).unwrap_or_default();
        self.put(pieces).await;
        while let Some((stored, meta)) = self.syncing.next().await {
            self.synced(stored, meta).await;
        }
    }

    async fn put(&mut self, pieces: Vec<Piece>) {
        let mut next = self.recording.as_ref().map_or(self.position.fragment, |r| r.position().fragment);
        next -= pieces.iter().filter(|p| matches!(p, Piece::Fragment(_))).count() as u32;
        for piece in pieces {
            if let Piece::Fragment(fragment) = &piece {
                self.cover(fragment.from, fragment.to).await;
                next = fragment.number + 1;
            }
            if let Piece::Refused { error, track } = &piece {
                let (incident, camera) = (self.whose.incident, &self.whose.camera);
                warn!(%incident, %camera, ?track, %error, "cannot be recorded");
            }
            let Some((meta, bytes)) = shelf::stored(&self.whose, &piece, next) else { continue };
            match self.store.append(meta.clone(), bytes) {
                Ok(ticket) => self.syncing.push_back(Box::pin(sync(ticket, meta))),
                Err(e) => self.lost(&e, &meta).await,
            }
        }
    }

    async fn synced(&mut self, stored: Result<(), crate::spool::Error>, meta: ObjectMeta) {
        match stored {
            Ok(()) => {
                let object = shelf::shown(&meta, false);
                self.tell(Work::Stored(meta.incident, meta.camera, object)).await;
            }
            Err(e) => self.lost(&e, &meta).await,
        }
    }

    async fn lost(&mut self, error: &crate::spool::Error, meta: &ObjectMeta) {
        warn!(incident = %meta.incident, camera = %meta.camera, name = meta.name, %error, "evidence not stored");
        if meta.to > meta.from {
            self.gap(meta.from, meta.to, GapReason::DiskFailed).await;
        }
    }

    async fn cover(&mut self, from: Utc, to: Utc) {
        self.hole(from).await;
        self.missing = GapReason::CameraDown;
        self.covered = self.covered.max(to);
    }

    /// Writes down what is missing at the end.
    async fn covered_until(&mut self, end: Utc) {
        self.hole(end).await;
        self.covered = self.covered.max(end);
    }

    /// Writes down what is missing between what is covered and `to`, if it is more than jitter.
    async fn hole(&mut self, to: Utc) {
        let mut from = self.covered;
        if to.since(from) <= TOLERANCE {
            return;
        }
        if from < self.began {
            // The moment in which cameras connect belongs to the start.
            let until = if to.since(self.began) <= TOLERANCE { to } else { self.began };
            self.gap(from, until, GapReason::GatewayDown).await;
            from = until;
        }
        if from < to {
            self.gap(from, to, self.missing).await;
        }
    }

    async fn gap(&mut self, from: Utc, to: Utc, reason: GapReason) {
        self.tell(Work::Gap(self.whose.incident, self.whose.camera.clone(), Gap { from, to, reason })).await;
    }

    async fn tell(&mut self, work: Work) {
        let _ = self.work.send(work).await;
    }
}

async fn sync(ticket: Ticket<ObjectRef>, meta: ObjectMeta) -> (Result<(), crate::spool::Error>, ObjectMeta) {
    (ticket.await.map(drop), meta)
}
