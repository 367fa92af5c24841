//! The last seconds of a camera, in memory: one writer, any number of readers, one copy of each frame.
//!
//! Bounded in time and in bytes; what is kept begins at a key frame. A reader that falls behind what is kept jumps to
//! the oldest key frame still there and is told how many frames it missed; the writer never waits for anyone.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::frame::{Frame, Track};
use crate::district::clock::Mono;

/// Most frames a ring keeps, whatever their size: 10 minutes of pictures and sound are some 50,000. Each costs some
/// 200 bytes beside its own, so that a camera that sends empty ones by the million takes no more than 16 MiB for it.
pub const MAX_FRAMES: usize = 1 << 16;

/// How much a ring keeps. Whole groups of pictures are dropped, oldest first: never so much that less than `span`
/// is left, unless `bytes` demands it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At least this much time, once it has arrived.
    pub span: Duration,
    /// At most this many bytes of frames; the newest group of pictures may exceed it alone by one frame.
    pub bytes: usize,
}

/// What a ring holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Frames of both tracks.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
    /// From the oldest to the newest arrival.
    pub span: Duration,
    /// Frames ever pushed.
    pub pushed: u64,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the newest key frame: a live viewer.
    LastKey,
    /// With what comes from now on: who plays an operator's voice to a unit.
    Now,
    /// At the newest key frame that had arrived by then, or the oldest one kept: evidence.
    Arrived(Mono),
}

/// What a reader gets.
#[derive(Debug, Clone)]
pub enum Read {
    /// The next frame.
    Frame(Arc<Frame>),
    /// The reader was too slow: so many frames are gone; the next one is a key frame.
    Skipped(u64),
    /// No frame will come any more.
    Ended,
}

/// The ring of one camera.
#[derive(Debug)]
pub struct Ring {
    inner: Mutex<Inner>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Arc<Frame>>,
    /// Number of the first frame in `frames`, counting from the first ever pushed.
    first: u64,
    bytes: usize,
    /// Numbers of the key frames kept.
    keys: VecDeque<u64>,
    /// Whether pictures have been seen: without any, sound itself is where reading can begin.
    video: bool,
    ended: bool,
    wakers: Vec<Waker>,
}

impl Ring {
    /// An empty ring.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), limits })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame and drops what is over the limits.
    pub fn push(&self, frame: Frame) {
        let mut inner = self.lock();
        inner.push(Arc::new(frame), self.limits);
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Says that no frame will come any more.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What is held now.
    pub fn held(&self) -> Held {
        let inner = self.lock();
        let span = match (inner.frames.front(), inner.frames.back()) {
            (Some(a), Some(b)) => b.arrived.since(a.arrived),
            _ => Duration::ZERO,
        };
        let pushed = inner.first + inner.frames.len() as u64;
        Held { frames: inner.frames.len(), bytes: inner.bytes, span, pushed }
    }

    /// When the newest frame arrived.
    pub fn newest(&self) -> Option<Mono> {
        self.lock().frames.back().map(|f| f.arrived)
    }

    /// The newest frame of a track that is kept.
    pub fn newest_of(&self, track: Track) -> Option<Arc<Frame>> {
        self.lock().frames.iter().rev().find(|f| f.track == track).cloned()
    }

    /// A reader from `start`. Where nothing is kept yet it begins with the first frame that comes.
    pub fn reader(self: &Arc<Self>, start: Start) -> Reader {
        let inner = self.lock();
        let next = match start {
            Start::LastKey => inner.keys.back().copied(),
            Start::Now => None,
            Start::Arrived(at) => {
                let later = inner.keys.partition_point(|&k| inner.frames[(k - inner.first) as usize].arrived <= at);
                inner.keys.get(later.saturating_sub(1)).copied()
            }
        };
        let next = next.unwrap_or(inner.first + inner.frames.len() as u64);
        drop(inner);
        Reader { ring: self.clone(), next }
    }
}

impl Inner {
    fn push(&mut self, frame: Arc<Frame>, limits: Limits) {
        let number = self.first + self.frames.len() as u64;
        if frame.track == Track::Video && !self.video {
            self.video = true;
            self.keys.clear();
        }
        if frame.key && (frame.track == Track::Video || !self.video) {
            self.keys.push_back(number);
        }
        self.bytes += frame.data.len();
        self.frames.push_back(frame);
        self.trim(limits);
    }

    /// Drops whole groups of pictures from the front: while the rest still spans enough, or bytes are over.
    fn trim(&mut self, limits: Limits) {
        let Some(newest) = self.frames.back().map(|f| f.arrived) else { return };
        loop {
            // The front group ends where the next key frame after the front stands.
            let next_key = self.keys.iter().copied().find(|&k| k > self.first);
            let Some(key) = next_key else { break };
            let spans = newest.since(self.frames[(key - self.first) as usize].arrived) >= limits.span;
            if !(spans || self.is_over(limits)) {
                return;
            }
            self.drop_until(key);
        }
        // One group alone is over: it goes frame by frame and can no longer be begun at.
        while self.is_over(limits) && self.frames.len() > 1 {
            self.drop_until(self.first + 1);
        }
    }

    fn is_over(&self, limits: Limits) -> bool {
        self.bytes > limits.bytes || self.frames.len() > MAX_FRAMES
    }

    fn drop_until(&mut self, number: u64) {
        while self.first < number {
            let Some(frame) = self.frames.pop_front() else { return };
            self.bytes -= frame.data.len();
            self.first += 1;
        }
        while self.keys.front().is_some_and(|&k| k < self.first) {
            self.keys.pop_front();
        }
    }
}

/// One reader of a ring.
#[derive(Debug)]
pub struct Reader {
    ring: Arc<Ring>,
    next: u64,
}

impl Reader {
    /// The next frame, when there is one.
    pub async fn next(&mut self) -> Read {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next frame, or a wake-up when there is one.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        self.poll(Some(cx))
    }

    /// The next frame if it is there already.
    pub fn try_next(&mut self) -> Option<Read> {
        match self.poll(None) {
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        }
    }

    /// Whether there is something to read already.
    pub fn has_more(&self) -> bool {
        let inner = self.ring.lock();
        self.next < inner.first + inner.frames.len() as u64
    }

    /// Whether it would read again what `other`, of the same ring, has read; or goes on with the same frame.
    pub fn goes_back_to(&self, other: &Self) -> bool {
        self.next <= other.next
    }

    /// Leaves out what has come so far.
    pub fn skip_to_now(&mut self) {
        let inner = self.ring.lock();
        self.next = inner.first + inner.frames.len() as u64;
    }

    /// Goes on at the newest key frame, where that is still to come; how many frames are left out.
    pub fn skip_to_last_key(&mut self) -> u64 {
        let inner = self.ring.lock();
        let skipped = inner.keys.back().map_or(0, |key| key.saturating_sub(self.next));
        drop(inner);
        self.next += skipped;
        skipped
    }

    fn poll(&mut self, cx: Option<&mut Context<'_>>) -> Poll<Read> {
        let mut inner = self.ring.lock();
        if self.next < inner.first {
            let end = inner.first + inner.frames.len() as u64;
            let resume = inner.keys.front().copied().unwrap_or(end);
            let skipped = resume - self.next;
            self.next = resume;
            return Poll::Ready(Read::Skipped(skipped));
        }
        if let Some(frame) = inner.frames.get((self.next - inner.first) as usize) {
            self.next += 1;
            return Poll::Ready(Read::Frame(frame.clone()));
        }
        if inner.ended {
            return Poll::Ready(Read::Ended);
        }
        if let Some(cx) = cx
            && !inner.wakers.iter().any(|w| w.will_wake(cx.waker()))
        {
            inner.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        district::clock::Utc,
        media::frame::{Codec, Format},
    };

    fn frame(track: Track, key: bool, ms: u64, len: usize) -> Frame {
        let codec = if track == Track::Video { Codec::H264 } else { Codec::Pcmu };
        let format = Format::bare(codec, 90_000);
        Frame {
            track,
            timeline: 0,
            ticks: ms as i64 * 90,
            captured: Utc::from_micros(ms as i64 * 1000),
            arrived: Mono::from_boot(Duration::from_millis(ms)),
            key,
            lost_before: 0,
            format: Arc::new(format),
            data: Bytes::from(vec![0; len]),
        }
    }

    fn limits(ms: u64, bytes: usize) -> Limits {
        Limits { span: Duration::from_millis(ms), bytes }
    }

    #[test]
    fn evidence_begins_at_the_key_frame_before_the_moment_asked_for() {
        let ring = Ring::new(limits(10_000, 1 << 20));
        for i in 0..100 {
            ring.push(frame(Track::Video, i % 10 == 0, i * 40, 10));
        }
        let mut r = ring.reader(Start::Arrived(Mono::from_boot(Duration::from_millis(1_000))));
        match r.try_next() {
            Some(Read::Frame(f)) => assert_eq!((f.key, f.arrived.since_boot().as_millis()), (true, 800)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reader_from_now_on_gets_nothing_that_was_there_before() {
        let ring = Ring::new(limits(10_000, 1 << 20));
        ring.push(frame(Track::Audio, true, 0, 10));
        let mut r = ring.reader(Start::Now);
        assert!(r.try_next().is_none());
        ring.push(frame(Track::Audio, true, 20, 10));
        assert!(matches!(r.try_next(), Some(Read::Frame(f)) if f.ticks == 20 * 90));
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed_and_resumes_at_a_key_frame() {
        let ring = Ring::new(limits(400, 1 << 20));
        ring.push(frame(Track::Video, true, 0, 10));
        let mut r = ring.reader(Start::LastKey);
        for i in 1..100 {
            ring.push(frame(Track::Video, i % 10 == 0, i * 40, 10));
        }
        let Some(Read::Skipped(n)) = r.try_next() else { panic!("not told") };
        let Some(Read::Frame(f)) = r.try_next() else { panic!("no frame") };
        assert!(f.key);
        assert_eq!(f.arrived.since_boot().as_millis() as u64, n * 40);
    }

    #[test]
    fn a_reader_that_is_late_goes_on_at_the_newest_key_frame_and_knows_what_it_left_out() {
        let ring = Ring::new(limits(10_000, 1 << 20));
        for i in 0..25 {
            ring.push(frame(Track::Video, i % 10 == 0, i * 40, 10));
        }
        let mut r = ring.reader(Start::Arrived(Mono::default()));
        assert!(matches!(r.try_next(), Some(Read::Frame(f)) if f.ticks == 0));
        assert_eq!((r.skip_to_last_key(), r.skip_to_last_key()), (19, 0));
        assert!(matches!(r.try_next(), Some(Read::Frame(f)) if f.key && f.ticks == 20 * 40 * 90));
        assert_eq!(r.skip_to_last_key(), 0, "no key frame is to come");
    }

    #[test]
    fn one_endless_group_of_pictures_cannot_outgrow_the_bytes() {
        let ring = Ring::new(limits(1_000, 1_000));
        for i in 0..500 {
            ring.push(frame(Track::Video, i == 0, i * 40, 100));
        }
        assert!(ring.held().bytes <= 1_000);
    }

    #[test]
    fn frames_without_number_are_not_kept_without_number() {
        let ring = Ring::new(limits(1_000_000, 1 << 30));
        for i in 0..3 * MAX_FRAMES as u64 {
            ring.push(frame(Track::Video, i % 1_000 == 0, i / 1_000, 1));
        }
        assert!((MAX_FRAMES - 1_000..=MAX_FRAMES).contains(&ring.held().frames));
    }

    proptest! {
        #[test]
        fn a_ring_holds_its_span_within_its_bytes_and_begins_at_a_key(
            gops in prop::collection::vec((1u64..30, 1usize..200), 1..60), span in 100u64..3_000
        ) {
            let ring = Ring::new(limits(span, 40_000));
            let mut ms = 0;
            for (len, size) in gops {
                for i in 0..len {
                    ms += 33;
                    ring.push(frame(Track::Video, i == 0, ms, size));
                    let held = ring.held();
                    prop_assert!(held.bytes <= 40_000);
                    let total = ms - 33;
                    // Largest group is 30 frames of 200 bytes: the byte limit only bites past 6 groups.
                    if held.bytes < 30_000 {
                        prop_assert!(held.span.as_millis() as u64 >= span.min(total));
                    }
                    let mut r = ring.reader(Start::Arrived(Mono::default()));
                    let Some(Read::Frame(f)) = r.try_next() else { return Err(TestCaseError::fail("empty")) };
                    prop_assert!(f.key);
                }
            }
        }
    }
}
