//! Frames into the media log: cut into fragments, named, stored, and what could not be becomes a gap. Evidence and what is
//! kept beside it go the same way.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use tracing::warn;

use super::{
    coverage::{Coverage, Part},
    feeds::Feeds,
    shelf::{self, Growing, InitPlace, Whose},
};
use crate::{
    district::{
        camera::CameraState,
        clock::{Mono, Utc},
        evidence::{Gap, GapReason},
    },
    host::clock,
    media::{
        fragment::{Fragment, Init, Piece, Position},
        frame::Frame,
        recording::Recording,
        ring::{Read, Reader},
    },
    spool::{Error, Kept, MediaStore, ObjectMeta, ObjectRef, Ticket},
};

/// Frames taken at once, so that a recording that begins with a full ring leaves the processor to others in between.
const AT_ONCE: usize = 64;

/// A camera that sent nothing for so long has fallen silent: no fragment lasts longer.
pub(super) const SILENT: Duration = Duration::from_secs(5);

/// How far a recording has got.
#[derive(PartialEq, Eq)]
pub(super) enum Caught {
    /// There is more in the ring.
    NotYet,
    /// With the newest frame.
    Up,
    /// To the end of its window.
    WindowEnded,
    /// To the last frame that will ever come.
    RingEnded,
}

/// What became of pictures.
#[derive(Debug)]
pub(super) enum Told {
    /// An object is on disk.
    Stored(ObjectMeta),
    /// Nobody holds an interval.
    Gap(Gap),
}

/// Fragments on their way into the media log, and what they leave uncovered.
pub(super) struct Filing {
    pub whose: Whose,
    feeds: Feeds,
    /// Begun with the first frame, which says how long nothing was recorded before it.
    pub recording: Option<Recording>,
    position: Position,
    store: MediaStore,
    syncing: FuturesOrdered<Syncing>,
    /// What is missing.
    pub coverage: Coverage,
    /// What the fragments that come need first, and whether it is stored where they are.
    pub init: Option<(Init, Option<InitPlace>)>,
    /// The fragment that is being written.
    growing: Option<Growing>,
    /// The first frame after the window.
    pub next: Option<Arc<Frame>>,
    /// What became of it, to be told.
    told: Vec<Told>,
}

/// What became of a chunk: of when it is, and the object that is whole by it.
type Synced = (Result<(), Error>, (Utc, Utc), Option<ObjectMeta>);

type Syncing = std::pin::Pin<Box<dyn Future<Output = Synced> + Send>>;

impl Filing {
    pub fn new(whose: Whose, feeds: Feeds, store: MediaStore, position: Position, coverage: Coverage) -> Self {
        Self {
            whose,
            feeds,
            recording: None,
            position,
            store,
            syncing: FuturesOrdered::new(),
            coverage,
            init: None,
            growing: None,
            next: None,
            told: Vec::new(),
        }
    }

    /// What became of pictures since it was last asked.
    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Resolves when another object is on disk, or not to be had on it. Pends while there is none under way.
    pub async fn synced(&mut self) {
        match self.syncing.next().await {
            Some(synced) => self.settle(synced),
            None => std::future::pending().await,
        }
    }

    /// Takes a recording up again, with the frame that ended its window first; where the ring no longer holds what came
    /// after that, with the first that it holds.
    pub fn go_on(&mut self, mut recording: Recording, next: Option<Arc<Frame>>, reader: &mut Reader) {
        let first = reader.try_next();
        let pieces = if matches!(first, Some(Read::Skipped(_))) { recording.skip() } else { Vec::new() };
        self.recording = Some(recording);
        self.put(pieces);
        if let Some(Read::Frame(frame)) = first {
            for frame in next.into_iter().chain([frame]) {
                self.frame(&frame);
            }
        } else if first.is_none()
            && let Some(frame) = next
        {
            self.frame(&frame);
        }
    }

    /// Goes on after a pause, with the frame that ended its window first.
    pub fn resume(&mut self, coverage: Coverage) {
        self.coverage = coverage;
        if let Some(next) = self.next.take() {
            self.frame(&next);
        }
    }

    /// Whether the disk has enough to do. Evidence never waits for that; what is kept beside it does, and the ring holds
    /// it meanwhile: at an outage's start all cameras are written at once, from half a minute ago on.
    pub fn is_held_up(&self) -> bool {
        matches!(self.whose.kept, Kept::Buffer { .. }) && self.store.is_crowded()
    }

    /// Takes what is in the ring, from this read on, up to `until`.
    pub fn catch_up(&mut self, read: Read, reader: &mut Reader, until: Mono) -> Caught {
        let (mut next, mut taken) = (Some(read), 0);
        while let Some(read) = next {
            match read {
                Read::Frame(frame) if frame.arrived > until => {
                    self.next = Some(frame);
                    return Caught::WindowEnded;
                }
                Read::Frame(frame) => self.frame(&frame),
                Read::Skipped(frames) => self.skipped(frames),
                Read::Ended => return Caught::RingEnded,
            }
            taken += 1;
            if taken == AT_ONCE || self.is_held_up() {
                return Caught::NotYet;
            }
            next = reader.try_next();
        }
        Caught::Up
    }

    fn frame(&mut self, frame: &Arc<Frame>) {
        let (coverage, position) = (&self.coverage, self.position);
        let recording = self.recording.get_or_insert_with(|| {
            let begins = position == Position::default();
            let hole = if begins { Duration::ZERO } else { coverage.hole(frame.arrived, frame.captured) };
            Recording::resume(shelf::fragments(), Position { at: position.at + hole, ..position })
        });
        let pieces = recording.push(frame);
        self.put(pieces);
    }

    fn skipped(&mut self, frames: u64) {
        warn!(kept = ?self.whose.kept, camera = %self.whose.camera, frames, "the recorder fell behind the ring");
        let pieces = self.recording.as_mut().map(Recording::skip).unwrap_or_default();
        self.put(pieces);
        self.coverage.skipped();
    }

    /// What is held goes out; the recording may go on with the next frame.
    pub async fn pause(&mut self) {
        self.give_out();
        self.put_all(Vec::new()).await;
    }

    /// What a camera sent before it fell silent is not left in memory until it comes back, nor its fragment without an end.
    pub fn rest(&mut self, caught: &Caught, newest: Option<Mono>) {
        if *caught == Caught::Up && newest.is_some_and(|at| clock::mono().since(at) > SILENT) {
            self.give_out();
        }
    }

    fn give_out(&mut self) {
        let next = self.next.as_deref();
        let pieces = self.recording.as_mut().map(|r| r.pause(next)).unwrap_or_default();
        self.put(pieces);
    }

    /// What is held goes out; no frame will come any more.
    pub async fn finish(&mut self) {
        let pieces = self.recording.as_mut().map(Recording::finish).unwrap_or_default();
        self.put_all(pieces).await;
    }

    async fn put_all(&mut self, pieces: Vec<Piece>) {
        self.put(pieces);
        while let Some(synced) = self.syncing.next().await {
            self.settle(synced);
        }
    }

    fn put(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            let fragment = match piece {
                Piece::Init(init) => {
                    self.init = Some((init, None));
                    continue;
                }
                Piece::Refused { error, track } => {
                    warn!(kept = ?self.whose.kept, camera = %self.whose.camera, ?track, %error, "cannot be recorded");
                    continue;
                }
                Piece::Fragment(_) if self.init.is_none() => continue,
                Piece::Fragment(fragment) => fragment,
            };
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
            self.gaps(gaps);
            if fragment.chunk > 0 && self.growing.is_none() {
                // One before it was refused; the next fragment is whole again.
                self.gaps(vec![Coverage::lost(fragment.from, fragment.to)]);
            } else if let Err(error) = self.write(&fragment) {
                self.lost(&error, (fragment.from, fragment.to));
                self.end();
            }
        }
    }

    /// Hands a chunk to the disk.
    fn write(&mut self, chunk: &Fragment) -> Result<(), Error> {
        let growing = match &self.growing {
            Some(before) if chunk.chunk > 0 => before.clone().and(&self.whose, chunk),
            _ => {
                self.end();
                self.begin(chunk)?
            }
        };
        let meta = growing.meta.clone();
        let ticket = self.store.append_chunk(meta.clone(), chunk.bytes.clone(), chunk.more)?;
        self.growing = chunk.more.then_some(growing);
        let whole = (!chunk.more).then_some(meta);
        self.syncing.push_back(Box::pin(sync(ticket, (chunk.from, chunk.to), whole)));
        Ok(())
    }

    /// Begins a fragment; nothing plays without the init segment before it.
    fn begin(&mut self, chunk: &Fragment) -> Result<Growing, Error> {
        let Some((init, place)) = &mut self.init else { return Err(Error::Stopped) };
        let wanted = self.whose.init_place(chunk.from);
        if place.as_ref() != Some(&wanted) {
            let meta = shelf::init(&self.whose, init, chunk);
            let ticket = self.store.append(meta.clone(), init.bytes.clone())?;
            *place = Some(wanted);
            self.syncing.push_back(Box::pin(sync(ticket, (meta.from, meta.to), Some(meta))));
        }
        Ok(Growing::begin(&self.whose, init, chunk))
    }

    /// Ends the fragment that is being written where it is.
    fn end(&mut self) {
        let Some(meta) = self.growing.take().map(Growing::end) else { return };
        match self.store.append_chunk(meta.clone(), Bytes::new(), false) {
            Ok(ticket) => self.syncing.push_back(Box::pin(sync(ticket, (meta.to, meta.to), Some(meta)))),
            Err(error) => warn!(camera = %self.whose.camera, %error, "a fragment is not ended before the next start"),
        }
    }

    fn settle(&mut self, (stored, span, whole): Synced) {
        match stored {
            Ok(()) => self.told.extend(whole.map(Told::Stored)),
            Err(e) => self.lost(&e, span),
        }
    }

    fn lost(&mut self, error: &Error, (from, to): (Utc, Utc)) {
        warn!(kept = ?self.whose.kept, camera = %self.whose.camera, %from, %error, "pictures are not stored");
        if to > from {
            self.gaps(vec![Coverage::lost(from, to)]);
        }
    }

    /// Takes what is missing, to be told.
    pub fn gaps(&mut self, gaps: Vec<Gap>) {
        let told: Vec<_> = gaps.into_iter().map(|gap| Told::Gap(Gap { reason: self.reason(&gap), ..gap })).collect();
        self.told.extend(told);
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
}

async fn sync(ticket: Ticket<ObjectRef>, span: (Utc, Utc), whole: Option<ObjectMeta>) -> Synced {
    (ticket.await.map(drop), span, whole)
}
