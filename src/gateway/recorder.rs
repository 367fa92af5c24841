//! Evidence: for each incident and linked camera a task that reads the ring from before the press until the window ends,
//! and puts fragments into the media log. What nobody holds becomes a gap with its reason.

use std::{collections::HashMap, sync::Arc, time::Duration};

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

/// A camera whose last frame is older than this is not sending.
const SENDING: Duration = Duration::from_secs(2);

/// A recording that has caught up looks for frames again after this long: fragments take seconds, and to be woken for each
/// frame costs more than to record it.
const REST: Duration = Duration::from_millis(200);

/// Frames taken at once, so that a recording that begins with a full ring leaves the processor to others in between.
const AT_ONCE: usize = 64;

/// Frames of the window may still be on their way when it ends.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// Where recordings ended is remembered this long: by then no ring holds anything from before it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The recordings that run.
pub struct Recorders {
    feeds: Feeds,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    scope: Scope,
    running: HashMap<(IncidentId, CameraId), Running>,
    /// Recordings of this run that ended, for when they are extended.
    past: HashMap<(IncidentId, CameraId), Past>,
    /// When this run began.
    begun: Mono,
}

/// A recording that runs.
struct Running {
    order: RecordOrder,
    until: watch::Sender<Mono>,
    /// What it leaves behind.
    paused: oneshot::Receiver<Paused>,
}

/// A recording whose window has ended.
struct Past {
    /// When.
    until: Mono,
    /// What goes on if it is extended. None: the camera never sent anything.
    paused: Option<Paused>,
}

/// A recording that can go on with the very next frame.
struct Paused {
    recording: Recording,
    reader: Reader,
    /// Read already, and of no use for the window that ended.
    next: Option<Arc<Frame>>,
}

impl Recorders {
    /// None running yet.
    pub fn new(feeds: Feeds, store: MediaStore, work: mpsc::Sender<Work>, scope: Scope) -> Self {
        let (running, past) = (HashMap::new(), HashMap::new());
        Self { feeds, store, work, scope, running, past, begun: clock::mono() }
    }

    /// Begins a recording, or moves the end of the one that runs.
    pub fn order(&mut self, order: RecordOrder) {
        let key = (order.incident, order.camera.clone());
        if let Some(running) = self.running.get_mut(&key) {
            running.order.until = order.until;
            running.until.send_replace(order.until);
            return;
        }
        let (until, watch) = watch::channel(order.until);
        let (leave, paused) = oneshot::channel();
        let past = self.past.remove(&key);
        let job = Job {
            whose: Whose { incident: order.incident, camera: order.camera.clone(), rank: order.rank },
            leave: Some(leave),
            begun: self.begun,
            order: order.clone(),
            until: watch,
            feeds: self.feeds.clone(),
            store: self.store.clone(),
            work: self.work.clone(),
            scope: self.scope.clone(),
        };
        self.running.insert(key, Running { order, until, paused });
        self.scope.spawn("recording", job.run(past));
    }

    /// A recording has ended at `until`. When it was extended in that very moment it begins again, and has not ended.
    pub fn ended(&mut self, incident: IncidentId, camera: &CameraId, until: Mono) -> bool {
        let key = (incident, camera.clone());
        let Some(Running { order, mut paused, .. }) = self.running.remove(&key) else { return true };
        let now = clock::mono();
        self.past.retain(|_, past| now.since(past.until) < REMEMBERED);
        self.past.insert(key, Past { until, paused: paused.try_recv().ok() });
        if order.until > until {
            self.order(order);
            return false;
        }
        true
    }
}

struct Job {
    whose: Whose,
    order: RecordOrder,
    /// Takes what goes on if it is extended.
    leave: Option<oneshot::Sender<Paused>>,
    /// When this run began.
    begun: Mono,
    until: watch::Receiver<Mono>,
    feeds: Feeds,
    store: MediaStore,
    work: mpsc::Sender<Work>,
    scope: Scope,
}

impl Job {
    async fn run(mut self, past: Option<Past>) {
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
        let ring = self.feeds.ring(&camera).cloned();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        incident::record::Gone,
        media::{
            frame::{Codec, Format, Track},
            ring::{Limits, Ring},
        },
        spool::MediaSettings,
    };

    /// Parameter sets of a camera that makes many words: its init segments are larger than its fragments.
    fn avcc() -> Bytes {
        let words = vec![0x28; 8_000 - 3];
        let head = [1, 0x4d, 0x40, 0x28, 0xff, 0xe1, (8_000u16 >> 8) as u8, 8_000u16 as u8, 0x67, 0x4d, 0x40];
        [&head[..], &words, &[1, 0, 2, 0x68, 0xee]].concat().into()
    }

    struct Rig {
        recorders: Recorders,
        store: MediaStore,
        ring: Arc<Ring>,
        work: mpsc::Receiver<Work>,
        format: Arc<Format>,
        order: RecordOrder,
        pushed: i64,
        _dir: tempfile::TempDir,
    }

    fn rig(queue_bytes: u32) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let sync_every = Duration::from_millis(5);
        let settings = MediaSettings { queue_bytes, keep_free: 0, sync_every, ..MediaSettings::default() };
        let scope = Scope::new("test");
        let (store, _, _) = MediaStore::open(dir.path(), settings, &scope).unwrap();
        let ring = Ring::new(Limits { span: Duration::from_secs(30), bytes: 1 << 20 });
        let camera: CameraId = "c1".parse().unwrap();
        let (work, queue) = mpsc::channel(1024);
        let feeds = Feeds::of([(camera.clone(), ring.clone())]);
        let now = clock::now();
        let format = Format {
            codec: Codec::H264,
            clock_rate: 90_000,
            width: 1920,
            height: 1080,
            channels: 0,
            config: avcc(),
            rfc6381: String::new(),
        };
        let until = now.mono + Duration::from_millis(300);
        let order = RecordOrder {
            incident: IncidentId::derive(1, b"x"),
            camera,
            rank: 0,
            from: now.mono,
            until,
            window: (now.wall, now.wall.after(Duration::from_millis(300))),
            restarted: false,
            rebooted: false,
            gone: Gone::default(),
        };
        let recorders = Recorders::new(feeds, store.clone(), work, scope);
        Rig { recorders, store, ring, work: queue, format: Arc::new(format), order, pushed: 0, _dir: dir }
    }

    impl Rig {
        /// A frame, dated so many seconds off, as a new timeline when that changes. Every 25th is a key frame.
        fn push(&mut self, off: i64) {
            self.push_bytes(off, 64);
        }

        fn push_bytes(&mut self, off: i64, bytes: usize) {
            let key = self.pushed % 25 == 0 || off != 0;
            self.pushed += 1;
            let now = clock::now();
            self.ring.push(Frame {
                track: Track::Video,
                timeline: u32::from(off != 0),
                ticks: i64::try_from(now.mono.since_boot().as_millis()).unwrap() * 90,
                captured: now.wall.shifted(off * 1_000_000),
                arrived: now.mono,
                key,
                lost_before: 0,
                format: self.format.clone(),
                data: Bytes::from(vec![0; bytes]),
            });
        }

        /// Sends frames until the recording has ended; gives the gaps that were told.
        async fn until_ended(&mut self, off: i64) -> Vec<Gap> {
            let mut gaps = Vec::new();
            loop {
                self.push(off);
                tokio::time::sleep(Duration::from_millis(40)).await;
                while let Ok(work) = self.work.try_recv() {
                    match work {
                        Work::Gap(_, _, gap) => gaps.push(gap),
                        Work::Ended(incident, camera, until) => {
                            self.recorders.ended(incident, &camera, until);
                            return gaps;
                        }
                        _ => {}
                    }
                }
            }
        }

        async fn held(&self) -> usize {
            let held = self.store.evidence(self.order.incident, &self.order.camera).await.unwrap();
            held.iter().filter(|o| o.meta.from < o.meta.to).count()
        }
    }

    #[tokio::test]
    async fn a_recording_that_is_extended_goes_on_though_the_clock_was_set_back_by_years() {
        let mut rig = rig(64 << 20);
        rig.recorders.order(rig.order.clone());
        assert!(rig.until_ended(0).await.is_empty());
        let before = rig.held().await;
        let until = clock::mono() + Duration::from_millis(1_500);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        let gaps = rig.until_ended(-40 * 365 * 24 * 3_600).await;
        assert!(rig.held().await > before, "what came after is held");
        assert!(gaps.is_empty(), "and nothing is missing: {gaps:?}");
    }

    #[tokio::test]
    async fn a_recording_that_is_extended_after_its_end_goes_on_with_the_very_next_frame() {
        let mut rig = rig(64 << 20);
        rig.recorders.order(rig.order.clone());
        let mut gaps = rig.until_ended(0).await;
        for _ in 0..8 {
            rig.push(0);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let until = clock::mono() + Duration::from_millis(1_500);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        gaps.extend(rig.until_ended(0).await);
        let held = rig.store.evidence(rig.order.incident, &rig.order.camera).await.unwrap();
        let parts: Vec<_> = held.iter().map(|o| &o.meta).filter(|m| m.from < m.to).collect();
        assert!(parts.len() > 2 && gaps.is_empty(), "{} parts, {gaps:?}", parts.len());
        // The rig's frames are dated by two clocks, to the millisecond.
        let joined = |w: &[&ObjectMeta]| (w[1].from.micros() - w[0].to.micros()).abs() <= 2_000;
        assert!(parts.windows(2).all(joined), "{parts:?}");
    }

    #[tokio::test]
    async fn a_recording_that_is_extended_after_the_ring_has_moved_on_says_that_nobody_was_slow() {
        let mut rig = rig(64 << 20);
        rig.recorders.order(rig.order.clone());
        let mut gaps = rig.until_ended(0).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        (0..60).for_each(|_| rig.push_bytes(0, 40_000));
        let until = clock::mono() + Duration::from_millis(1_200);
        rig.recorders.order(RecordOrder { until, ..rig.order.clone() });
        gaps.extend(rig.until_ended(0).await);
        let reasons: Vec<_> = gaps.iter().map(|g| g.reason).collect();
        assert_eq!(reasons, [GapReason::BeforeRing], "{gaps:?}");
    }

    #[tokio::test]
    async fn what_was_evicted_once_headquarters_had_it_is_not_overwritten_by_an_extension() {
        let mut rig = rig(64 << 20);
        let gone = Gone { objects: 8, bytes: 1, fragment: 7, init: 2, to: clock::wall() };
        rig.recorders.order(RecordOrder { gone, ..rig.order.clone() });
        rig.until_ended(0).await;
        let held = rig.store.evidence(rig.order.incident, &rig.order.camera).await.unwrap();
        let names: Vec<_> = held.iter().map(|o| o.meta.name.as_str()).collect();
        assert_eq!(names, ["init-3.mp4", "00007.m4s"]);
    }

    #[tokio::test]
    async fn what_cannot_be_played_without_a_lost_init_segment_is_a_gap_and_not_evidence() {
        let mut rig = rig(6_000);
        let until = rig.order.from + Duration::from_millis(2_500);
        rig.order = RecordOrder { until, ..rig.order.clone() };
        rig.recorders.order(rig.order.clone());
        let gaps = rig.until_ended(0).await;
        assert_eq!(rig.held().await, 0);
        assert!(gaps.iter().any(|g| g.reason == GapReason::DiskFailed), "{gaps:?}");
    }
}
