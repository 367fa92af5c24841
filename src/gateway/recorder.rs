//! One recording: a camera's evidence for an incident, from its ring into the media log. It reads from before the press until
//! the window ends; what nobody holds becomes a gap with its reason.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{
    coverage::{Asked, Coverage, Origin, Part},
    feeds::Feeds,
    shelf::{self, Whose},
    work::Work,
};
use crate::{
    district::{
        camera::CameraState,
        clock::{Mono, Utc},
        evidence::{Gap, GapReason},
        ids::CameraId,
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

/// A camera whose last frame is older than this is not sending.
const SENDING: Duration = Duration::from_secs(2);

/// A recording that has caught up looks for frames again after this long: fragments take seconds, and to be woken for each
/// frame costs more than to record it.
const REST: Duration = Duration::from_millis(200);

/// Frames taken at once, so that a recording that begins with a full ring leaves the processor to others in between.
const AT_ONCE: usize = 64;

/// Frames of the window may still be on their way when it ends.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// A recording that can go on with the very next frame.
pub(super) struct Paused {
    recording: Recording,
    reader: Reader,
    /// Read already, and of no use for the window that ended.
    next: Option<Arc<Frame>>,
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
    pub scope: Scope,
}

impl Job {
    /// Records, where it left off in the past; tells the desk when the window has ended.
    pub async fn run(mut self, past: Option<Past>) {
        let (incident, camera) = (self.whose.incident, self.whose.camera.clone());
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
        let (incident, camera) = (self.whose.incident, self.whose.camera.clone());
        let held = self.held().await;
        let ring = self.feeds.recorded(&self.order.button, &camera).cloned();
        let sends = ring.as_ref().and_then(|r| r.newest()).is_some_and(|at| clock::mono().since(at) < SENDING);
        let mut shelf = Shelf::new(self, past.as_ref().map(|p| p.until), &held, sends);
        let Some(ring) = ring else {
            warn!(%incident, %camera, "the camera is no longer in the config; nothing is recorded of it");
            return Some(self.end(&mut shelf).await);
        };
        let mut caught = Caught::NotYet;
        let mut reader = match past {
            Some(Past { paused: Some(mut paused), .. }) => {
                shelf.go_on(paused.recording, paused.next, &mut paused.reader).await;
                paused.reader
            }
            past => ring.reader(Start::Arrived(past.map_or(self.order.from, |p| p.until.max(self.order.from)))),
        };
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
        shelf.pause().await;
        let until = self.end(&mut shelf).await;
        if let (Some(recording), Some(leave)) = (shelf.recording, self.leave.take()) {
            // Refused only when the recorders have gone.
            let _ = leave.send(Paused { recording, reader, next: shelf.next });
        }
        Some(until)
    }

    /// Writes down what is missing at the end.
    async fn end(&self, shelf: &mut Shelf) -> Mono {
        let until = *self.until.borrow();
        let asked = self.order.window.1.after(until.since(self.order.until));
        let gaps = shelf.coverage.ended(until, wall_of(until), asked);
        shelf.gaps(gaps).await;
        until
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

    async fn tell(&self, work: Work) {
        // Fails only when the desk has gone, and then nobody needs it.
        let _ = self.work.send(work).await;
    }
}

/// A monotonic time by the clock on the wall.
fn wall_of(at: Mono) -> Utc {
    let now = clock::now();
    if at >= now.mono { now.wall.after(at.since(now.mono)) } else { now.wall.before(now.mono.since(at)) }
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
    feeds: Feeds,
    /// Begun with the first frame, which says how long nothing was recorded before it.
    recording: Option<Recording>,
    position: Position,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    syncing: FuturesOrdered<Syncing>,
    /// What is missing.
    coverage: Coverage,
    /// An init segment that is not stored yet: nothing that comes after it plays without it.
    owed: Option<(ObjectMeta, Bytes)>,
    /// The first frame after the window.
    next: Option<Arc<Frame>>,
}

type Syncing = std::pin::Pin<Box<dyn Future<Output = (Result<(), crate::spool::Error>, ObjectMeta)> + Send>>;

impl Shelf {
    fn new(job: &Job, past: Option<Mono>, held: &[ObjectRef], sends: bool) -> Self {
        let order = &job.order;
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
            begun: job.begun,
            stored: last.or(gone),
            lasts: position.at,
            why: if sends { GapReason::BeforeRing } else { GapReason::CameraDown },
        };
        Self {
            whose: job.whose.clone(),
            feeds: job.feeds.clone(),
            recording: None,
            position,
            store: job.store.clone(),
            work: job.work.clone(),
            syncing: FuturesOrdered::new(),
            coverage: Coverage::new(asked),
            owed: None,
            next: None,
        }
    }

    /// Takes a recording up again, with the frame that ended its window first; where the ring no longer holds what came
    /// after that, with the first that it holds.
    async fn go_on(&mut self, mut recording: Recording, next: Option<Arc<Frame>>, reader: &mut Reader) {
        let first = reader.try_next();
        let pieces = if matches!(first, Some(Read::Skipped(_))) { recording.skip() } else { Vec::new() };
        self.recording = Some(recording);
        self.put(pieces).await;
        if let Some(Read::Frame(frame)) = first {
            for frame in next.into_iter().chain([frame]) {
                self.frame(&frame).await;
            }
        } else if first.is_none()
            && let Some(frame) = next
        {
            self.frame(&frame).await;
        }
    }

    /// Takes what is in the ring, from this read on, up to `until`.
    async fn catch_up(&mut self, read: Read, reader: &mut Reader, until: Mono) -> Caught {
        let (mut next, mut taken) = (Some(read), 0);
        while let Some(read) = next {
            match read {
                Read::Frame(frame) if frame.arrived > until => {
                    self.next = Some(frame);
                    return Caught::WindowEnded;
                }
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

    async fn frame(&mut self, frame: &Arc<Frame>) {
        let (coverage, position) = (&self.coverage, self.position);
        let recording = self.recording.get_or_insert_with(|| {
            let begins = position == Position::default();
            let hole = if begins { Duration::ZERO } else { coverage.hole(frame.arrived, frame.captured) };
            Recording::resume(shelf::fragments(), Position { at: position.at + hole, ..position })
        });
        let pieces = recording.push(frame);
        self.put(pieces).await;
    }

    async fn skipped(&mut self, frames: u64) {
        warn!(incident = %self.whose.incident, camera = %self.whose.camera, frames, "the recorder fell behind the ring");
        let pieces = self.recording.as_mut().map(Recording::skip).unwrap_or_default();
        self.put(pieces).await;
        self.coverage.skipped();
    }

    async fn pause(&mut self) {
        let next = self.next.as_deref();
        let pieces = self.recording.as_mut().map(|r| r.pause(next)).unwrap_or_default();
        self.put_all(pieces).await;
    }

    async fn finish(&mut self) {
        let pieces = self.recording.as_mut().map(Recording::finish).unwrap_or_default();
        self.put_all(pieces).await;
    }

    async fn put_all(&mut self, pieces: Vec<Piece>) {
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
                let part = Part {
                    arrived: fragment.arrived,
                    captured: (fragment.from, fragment.to),
                    at: fragment.at,
                    duration: fragment.duration,
                    discontinuity: fragment.discontinuity,
                };
                let mut gaps = self.coverage.part(part);
                if fragment.lost {
                    gaps.push(Gap { from: fragment.from, to: fragment.to, reason: GapReason::PacketsLost });
                }
                self.gaps(gaps).await;
                next = fragment.number + 1;
            }
            if let Piece::Refused { error, track } = &piece {
                let (incident, camera) = (self.whose.incident, &self.whose.camera);
                warn!(%incident, %camera, ?track, %error, "cannot be recorded");
            }
            let Some((meta, bytes)) = shelf::stored(&self.whose, &piece, next) else { continue };
            if matches!(piece, Piece::Init(_)) {
                self.owed = Some((meta, bytes));
                continue;
            }
            let first = self.owed.take();
            if let Some((init, bytes)) = first
                && let Err(e) = self.append(init.clone(), bytes.clone())
            {
                self.owed = Some((init, bytes));
                self.lost(&e, &meta).await;
                continue;
            }
            if let Err(e) = self.append(meta.clone(), bytes) {
                self.lost(&e, &meta).await;
            }
        }
    }

    fn append(&mut self, meta: ObjectMeta, bytes: Bytes) -> Result<(), crate::spool::Error> {
        let ticket = self.store.append(meta.clone(), bytes)?;
        self.syncing.push_back(Box::pin(sync(ticket, meta)));
        Ok(())
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
            self.gaps(vec![Coverage::lost(meta.from, meta.to)]).await;
        }
    }

    async fn gaps(&mut self, gaps: Vec<Gap>) {
        for gap in gaps {
            if gap.reason == GapReason::CameraDown && self.whose.camera == CameraId::of_operator() {
                // Nobody had the floor: nothing was said, and nothing is missing.
                continue;
            }
            let gap = Gap { reason: self.reason(&gap), ..gap };
            self.tell(Work::Gap(self.whose.incident, self.whose.camera.clone(), gap)).await;
        }
    }

    /// A camera that was down was down for a reason.
    fn reason(&self, gap: &Gap) -> GapReason {
        if gap.reason != GapReason::CameraDown {
            return gap.reason;
        }
        let now = clock::mono();
        let began = now.before(gap.to.since(gap.from) + shelf::fragments().longest);
        match self.feeds.fault_since(&self.whose.camera, began) {
            Some(CameraState::Stalled) => GapReason::CameraStalled,
            Some(CameraState::Unreachable) => GapReason::CameraUnreachable,
            Some(CameraState::WrongPassword) => GapReason::WrongPassword,
            Some(CameraState::Unusable) => GapReason::CameraUnusable,
            Some(CameraState::Connecting | CameraState::Live) | None => GapReason::CameraDown,
        }
    }

    async fn tell(&mut self, work: Work) {
        let _ = self.work.send(work).await;
    }
}

async fn sync(ticket: Ticket<ObjectRef>, meta: ObjectMeta) -> (Result<(), crate::spool::Error>, ObjectMeta) {
    (ticket.await.map(drop), meta)
}
